// GuardedCoroutine: a coroutine behind a circuit breaker.
//
// Admission falls at the first send, the verdict at the end. It adds no frame: tracebacks and
// stacks are the inner coroutine's, to which every other attribute is forwarded.
#include "exceptions.hpp"
#include "guard.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

enum class Stage : std::uint8_t { created, running, finished };

struct GuardedCoroutine {
    PyObject_HEAD
    PyObject* coroutine;  // never null
    Guard* guard;         // owned
    Call call;            // meaningful while running
    Stage stage;
    PyObject* weakrefs;
};

GuardedCoroutine* as_coroutine(PyObject* self) noexcept {
    return reinterpret_cast<GuardedCoroutine*>(self);
}

// Tells the verdict, once. `verdict` is empty if the coroutine raised: then the exception decides.
[[gnu::noinline, gnu::cold]] void settle(GuardedCoroutine* self, std::optional<Verdict> verdict) {
    const ModuleState& state = state_of(reinterpret_cast<PyObject*>(self));
    Breaker& breaker = *self->guard->breaker;
    self->stage = Stage::finished;
    if (verdict) {
        leave(state, breaker, self->guard->core, self->call, *verdict);
    } else {
        leave_raising(state, breaker, self->guard->core, self->call);
    }
}

// A success of a call that was admitted while healthy has nothing to tell if the word is unchanged.
void settle_success(GuardedCoroutine* self) {
    // relaxed: only compared; whatever differs is read again with acquire on the cold path
    const std::uint64_t word = self->guard->word->load(std::memory_order_relaxed);
    const Call& call = self->call;
    if (healthy(word) && word == call.token.generation && !call.token.probe && !call.nested)
        [[likely]] {
        self->stage = Stage::finished;
        return;
    }
    settle(self, Verdict::success);
}

// Closes the inner coroutine; a rejected one has not started, so this runs none of its code.
int close_inner(GuardedCoroutine* self) {
    const ModuleState& state = state_of(reinterpret_cast<PyObject*>(self));
    PyObject* const closed = PyObject_CallMethodNoArgs(self->coroutine, state.method_close);
    Py_XDECREF(closed);
    return closed == nullptr ? -1 : 0;
}

[[gnu::noinline, gnu::cold]] bool start_unhealthy(GuardedCoroutine* self) {
    const ModuleState& state = state_of(reinterpret_cast<PyObject*>(self));
    std::optional<Call> call = enter(state, *self->guard->breaker, self->guard->core);
    if (!call) {
        PyObject* const rejection = take_exception();
        self->stage = Stage::finished;
        if (close_inner(self) < 0) {
            PyErr_WriteUnraisable(self->coroutine);
        }
        put_exception(rejection);
        return false;
    }
    self->call = *call;
    self->stage = Stage::running;
    return true;
}

// Admission at the first send. False with an exception set if rejected.
bool start(GuardedCoroutine* self) {
    // pairs with: the release half of the compare_exchange in BreakerCell::apply()
    const std::uint64_t word = self->guard->word->load(std::memory_order_acquire);
    if (!healthy(word)) [[unlikely]] {
        return start_unhealthy(self);
    }
    self->call.token.generation = word;  // all other bits of a healthy word are 0
    self->stage = Stage::running;
    return true;
}

PySendResult coroutine_am_send(PyObject* object, PyObject* value, PyObject** result) {
    GuardedCoroutine* const self = as_coroutine(object);
    if (self->stage == Stage::created && !start(self)) {
        *result = nullptr;
        return PYGEN_ERROR;
    }
    const PySendResult sent = PyIter_Send(self->coroutine, value, result);
    if (sent != PYGEN_NEXT && self->stage == Stage::running) {
        if (sent == PYGEN_RETURN) {
            settle_success(self);
        } else {
            settle(self, std::nullopt);
        }
    }
    return sent;
}

// Raises StopIteration(value), stealing `value`, as a generator's return does. Built directly: to
// call the type would unpack a tuple, and costs twice as much.
void raise_stop_iteration(PyObject* value) {
    auto* const type = reinterpret_cast<PyTypeObject*>(PyExc_StopIteration);
    PyObject* const stop = type->tp_alloc(type, 0);
    PyObject* const args = stop != nullptr ? PyTuple_Pack(1, value) : nullptr;
    if (args == nullptr) {
        Py_XDECREF(stop);
        Py_DECREF(value);
        return;
    }
    reinterpret_cast<PyStopIterationObject*>(stop)->value = value;
    reinterpret_cast<PyBaseExceptionObject*>(stop)->args = args;
    put_exception(stop);
}

// CPython 3.12+ drives an awaitable that is no generator through this slot.
PyObject* coroutine_iternext(PyObject* object) {
    PyObject* result = nullptr;
    switch (coroutine_am_send(object, Py_None, &result)) {
    case PYGEN_NEXT:
        return result;
    case PYGEN_RETURN:
        if (Py_IsNone(result)) {
            Py_DECREF(result);  // no exception set means StopIteration(None)
        } else {
            raise_stop_iteration(result);
        }
        return nullptr;
    case PYGEN_ERROR:
        break;
    }
    return nullptr;
}

PyObject* coroutine_send(PyObject* object, PyObject* value) {
    PyObject* result = nullptr;
    const PySendResult sent = coroutine_am_send(object, value, &result);
    if (sent == PYGEN_RETURN) {
        raise_stop_iteration(result);
        return nullptr;
    }
    return result;
}

PyObject* coroutine_throw(PyObject* object, PyObject* const* args, Py_ssize_t count) {
    GuardedCoroutine* const self = as_coroutine(object);
    const ModuleState& state = state_of(object);
    if (self->stage == Stage::created) {
        self->stage = Stage::finished;  // never admitted, so no verdict
    }
    PyObject* const method = PyObject_GetAttr(self->coroutine, state.method_throw);
    if (method == nullptr) {
        return nullptr;
    }
    PyObject* const result =
        PyObject_Vectorcall(method, args, static_cast<std::size_t>(count), nullptr);
    Py_DECREF(method);
    if (result == nullptr && self->stage == Stage::running) {
        settle(self, std::nullopt);  // StopIteration, a return, classifies as success
    }
    return result;
}

PyObject* coroutine_close(PyObject* object, PyObject*) {
    GuardedCoroutine* const self = as_coroutine(object);
    const Stage before = self->stage;
    const int closed = close_inner(self);
    if (before == Stage::running && self->stage == Stage::running) {
        PyObject* const exception = closed < 0 ? take_exception() : nullptr;
        settle(self, Verdict::neutral);
        if (exception != nullptr) {
            put_exception(exception);
        }
    }
    self->stage = Stage::finished;
    return closed < 0 ? nullptr : Py_NewRef(Py_None);
}

PyObject* coroutine_await(PyObject* object) {
    if (as_coroutine(object)->stage == Stage::running) {
        PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
        return nullptr;
    }
    return Py_NewRef(object);
}

PyObject* coroutine_getattro(PyObject* self, PyObject* name) {
    PyObject* const found = PyObject_GenericGetAttr(self, name);
    if (found != nullptr || PyErr_ExceptionMatches(PyExc_AttributeError) == 0) {
        return found;
    }
    PyErr_Clear();
    return PyObject_GetAttr(as_coroutine(self)->coroutine, name);
}

PyObject* coroutine_repr(PyObject* object) {
    GuardedCoroutine* const self = as_coroutine(object);
    return PyUnicode_FromFormat("<%R guarded by circuit breaker %R>", self->coroutine,
                                self->guard->breaker->name());
}

int coroutine_traverse(PyObject* object, visitproc visit, void* arg) {
    GuardedCoroutine* const self = as_coroutine(object);
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->coroutine);
    Py_VISIT(self->guard);
    Py_VISIT(self->call.scope_reset);
    return 0;
}

// Dropped while running: the verdict is neutral and a probe's slot goes back.
void abandon(GuardedCoroutine* self) {
    if (self->stage == Stage::running) {
        PyObject* const exception = PyErr_Occurred() != nullptr ? take_exception() : nullptr;
        settle(self, Verdict::neutral);
        if (exception != nullptr) {
            put_exception(exception);
        }
    }
}

int coroutine_clear(PyObject* object) {
    GuardedCoroutine* const self = as_coroutine(object);
    abandon(self);
    self->stage = Stage::finished;
    Py_SETREF(self->coroutine, Py_NewRef(Py_None));
    return 0;
}

void coroutine_dealloc(PyObject* object) {
    GuardedCoroutine* const self = as_coroutine(object);
    PyTypeObject* const type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->weakrefs != nullptr) {
        PyObject_ClearWeakRefs(object);
    }
    abandon(self);
    Py_DECREF(self->coroutine);
    Py_DECREF(self->guard);
    type->tp_free(object);
    Py_DECREF(type);
}

PyMethodDef coroutine_methods[] = {
    {"send", coroutine_send, METH_O, "Resume the coroutine with a value."},
    {"throw", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(coroutine_throw)),
     METH_FASTCALL, "Resume the coroutine with an exception."},
    {"close", coroutine_close, METH_NOARGS, "Stop the coroutine; says nothing to the breaker."},
    {nullptr, nullptr, 0, nullptr},
};

PyMemberDef coroutine_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(GuardedCoroutine, weakrefs), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

}  // namespace

PyObject* new_guarded_coroutine(const ModuleState& state, Guard* guard,
                                PyObject* coroutine) noexcept {
    auto* const self = reinterpret_cast<GuardedCoroutine*>(
        state.coroutine_type->tp_alloc(state.coroutine_type, 0));
    if (self == nullptr) {
        Py_DECREF(coroutine);
        return nullptr;
    }
    self->coroutine = coroutine;
    self->guard = reinterpret_cast<Guard*>(Py_NewRef(reinterpret_cast<PyObject*>(guard)));
    self->stage = Stage::created;
    return reinterpret_cast<PyObject*>(self);
}

void add_guarded_coroutine(py::module_& m, py::handle state_module, ModuleState& state) {
    PyType_Slot slots[] = {
        {Py_tp_traverse, reinterpret_cast<void*>(coroutine_traverse)},
        {Py_tp_clear, reinterpret_cast<void*>(coroutine_clear)},
        {Py_tp_dealloc, reinterpret_cast<void*>(coroutine_dealloc)},
        {Py_tp_iternext, reinterpret_cast<void*>(coroutine_iternext)},
        {Py_tp_getattro, reinterpret_cast<void*>(coroutine_getattro)},
        {Py_tp_repr, reinterpret_cast<void*>(coroutine_repr)},
        {Py_tp_methods, coroutine_methods},
        {Py_tp_members, coroutine_members},
        {Py_am_await, reinterpret_cast<void*>(coroutine_await)},
        {Py_am_send, reinterpret_cast<void*>(coroutine_am_send)},
        {0, nullptr},
    };
    PyType_Spec spec = {"memguard_native._core.GuardedCoroutine", sizeof(GuardedCoroutine), 0,
                        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
                            Py_TPFLAGS_DISALLOW_INSTANTIATION,
                        slots};
    state.coroutine_type = add_type(m, state_module, spec);
    state.method_throw = PyUnicode_InternFromString("throw");
    state.method_close = PyUnicode_InternFromString("close");
    if (state.method_throw == nullptr || state.method_close == nullptr) {
        throw py::error_already_set();
    }
}

}  // namespace memguard
