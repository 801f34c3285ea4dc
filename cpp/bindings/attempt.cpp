// Attempt: one admitted call as an object, for code that is no function.
//
// Making one asks for admission. The first verdict wins; one that never gives a verdict is neutral
// when it is dropped, so that a probe's slot goes back.
#include <atomic>  // std::atomic

#include "breaker.hpp"
#include "exceptions.hpp"
#include "probe_scope.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

struct Attempt {
    PyObject_HEAD
    Breaker* breaker;  // kept alive by `core`
    PyObject* core;    // the _core.Breaker
    PyObject* scope;   // of a probe: what leave_scope() takes
    Call call;
    std::atomic<bool> is_settled;
};

Attempt* as_attempt(PyObject* self) noexcept {
    return reinterpret_cast<Attempt*>(self);
}

// True for the one who gives the verdict.
bool win(Attempt* self) noexcept {
    // relaxed: decides who settles; what is settled is ordered by the breaker's word
    if (self->is_settled.exchange(true, std::memory_order_relaxed)) {
        return false;
    }
    leave_scope(state_of(reinterpret_cast<PyObject*>(self)), self->scope);
    return true;
}

void settle(Attempt* self, Verdict verdict, PyObject* exception = nullptr) noexcept {
    if (win(self)) {
        Outcome outcome;
        outcome.verdict = verdict;
        outcome.exception = exception;
        leave(*self->breaker, self->core, self->call, outcome);
    }
}

PyObject* attempt_success(PyObject* self, PyObject*) {
    settle(as_attempt(self), Verdict::success);
    return Py_NewRef(Py_None);
}

PyObject* attempt_neutral(PyObject* self, PyObject*) {
    settle(as_attempt(self), Verdict::neutral);
    return Py_NewRef(Py_None);
}

PyObject* attempt_failure(PyObject* self, PyObject* const* args, Py_ssize_t count) {
    if (count > 1) {
        return PyErr_Format(PyExc_TypeError, "failure() takes one exception, got %zd", count);
    }
    PyObject* const given = count == 1 && !Py_IsNone(args[0]) ? args[0] : nullptr;
    if (given != nullptr && !PyExceptionInstance_Check(given)) {
        return PyErr_Format(PyExc_TypeError, "failure() takes an exception or None, got %R", given);
    }
    settle(as_attempt(self), Verdict::failure, given);
    return Py_NewRef(Py_None);
}

PyObject* attempt_enter(PyObject* self, PyObject*) {
    return Py_NewRef(self);
}

PyObject* attempt_exit(PyObject* object, PyObject* const* args, Py_ssize_t count) {
    Attempt* const self = as_attempt(object);
    if (win(self)) {
        if (count < 2 || Py_IsNone(args[1])) {
            leave(*self->breaker, self->core, self->call, Outcome{});
        } else {
            leave_failing(state_of(object), *self->breaker, self->core, self->call, args[1]);
        }
    }
    return Py_NewRef(Py_False);
}

PyObject* make_attempt(PyTypeObject* type, PyObject* core, Asker asker) {
    const auto& state = *static_cast<ModuleState*>(PyType_GetModuleState(type));
    Breaker* const breaker = breaker_of(state, core);
    if (breaker == nullptr) {
        return PyErr_Format(PyExc_TypeError, "Attempt() takes a _core.Breaker, got %R", core);
    }
    if (asker == Asker::prober) {
        breaker->prober_came();
    }
    const std::optional<Call> call = enter(state, *breaker, core, breaker->policy(), asker);
    if (!call) {
        return nullptr;
    }
    auto* const self = as_attempt(type->tp_alloc(type, 0));
    if (self == nullptr) {
        PyObject* const exception = take_exception();
        Outcome outcome;
        outcome.verdict = Verdict::neutral;
        leave(*breaker, core, *call, outcome);
        put_exception(exception);
        return nullptr;
    }
    self->breaker = breaker;
    self->core = Py_NewRef(core);
    self->call = *call;
    self->scope = enter_scope(state, *breaker, call->token);
    return reinterpret_cast<PyObject*>(self);
}

// Attempt(core, as_prober=False, /)
PyObject* attempt_vectorcall(PyObject* type, PyObject* const* args, std::size_t nargsf,
                             PyObject* kwnames) {
    const Py_ssize_t count = PyVectorcall_NARGS(nargsf);
    if (count < 1 || count > 2 || (kwnames != nullptr && PyTuple_GET_SIZE(kwnames) > 0)) {
        return PyErr_Format(PyExc_TypeError,
                            "Attempt() takes a _core.Breaker and whether it is the prober's");
    }
    const int as_prober = count == 2 ? PyObject_IsTrue(args[1]) : 0;
    if (as_prober < 0) {
        return nullptr;
    }
    return make_attempt(reinterpret_cast<PyTypeObject*>(type), args[0],
                        as_prober != 0 ? Asker::prober : Asker::caller);
}

// Attempt.__new__(Attempt, ...): calls of the type itself do not come here.
PyObject* attempt_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
    if (keywords != nullptr && PyDict_GET_SIZE(keywords) > 0) {
        return PyErr_Format(PyExc_TypeError, "Attempt() takes no keyword arguments");
    }
    return attempt_vectorcall(reinterpret_cast<PyObject*>(type), PySequence_Fast_ITEMS(args),
                              static_cast<std::size_t>(PyTuple_GET_SIZE(args)), nullptr);
}

int attempt_traverse(PyObject* object, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(as_attempt(object)->core);
    Py_VISIT(as_attempt(object)->scope);
    return 0;
}

void attempt_dealloc(PyObject* object) {
    Attempt* const self = as_attempt(object);
    PyTypeObject* const type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    PyObject* const exception = PyErr_Occurred() != nullptr ? take_exception() : nullptr;
    settle(self, Verdict::neutral);
    if (exception != nullptr) {
        put_exception(exception);
    }
    Py_XDECREF(self->core);
    type->tp_free(object);
    Py_DECREF(type);
}

PyMethodDef attempt_methods[] = {
    {"success", attempt_success, METH_NOARGS, "The dependency answered well."},
    {"failure", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(attempt_failure)),
     METH_FASTCALL, "The dependency failed; `exception`, if given, is told by later rejections."},
    {"neutral", attempt_neutral, METH_NOARGS, "Nothing is known about the dependency."},
    {"__enter__", attempt_enter, METH_NOARGS, nullptr},
    {"__exit__", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(attempt_exit)),
     METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

void add_attempt(py::module_& m, py::handle state_module, ModuleState& state) {
    const char* doc = "One admitted call: give it a verdict, or use it in a `with` statement.";
    PyType_Slot slots[] = {
        {Py_tp_doc, const_cast<char*>(doc)},
        {Py_tp_new, reinterpret_cast<void*>(attempt_new)},
        {Py_tp_traverse, reinterpret_cast<void*>(attempt_traverse)},
        {Py_tp_dealloc, reinterpret_cast<void*>(attempt_dealloc)},
        {Py_tp_methods, attempt_methods},
        {0, nullptr},
    };
    PyType_Spec spec = {"memguard_native._core.Attempt", sizeof(Attempt), 0,
                        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE, slots};
    state.attempt_type = add_type(m, state_module, spec);
    // There is no slot for it before 3.14.
    state.attempt_type->tp_vectorcall = attempt_vectorcall;
}

}  // namespace memguard
