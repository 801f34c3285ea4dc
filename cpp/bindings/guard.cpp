// Guard: a function behind a circuit breaker, as one vectorcall.
//
// A healthy call loads the breaker's word before and after the function and compares: no lock, no
// store, no allocation, no reference count. All else is in the cold functions.
#include "guard.hpp"

#include "asking.hpp"
#include "exceptions.hpp"
#include "probe_scope.hpp"
#include "stepper.hpp"
#include "vectorcall.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

// A plain function that returns a coroutine is protected while it makes the coroutine, not while
// that runs: say so once instead of letting a user believe otherwise.
[[gnu::noinline, gnu::cold]] PyObject* warn_unprotected(Guard* guard, PyObject* coroutine) {
    const int failed = PyErr_WarnFormat(
        PyExc_RuntimeWarning, 1,
        "%R returned a coroutine but is no coroutine function: the circuit breaker guards only the "
        "call that makes it. Make it an `async def`, or guard the function that awaits it",
        guard->function);
    if (failed != 0) {
        Py_CLEAR(coroutine);
    }
    return coroutine;
}

// The call ended and something is to be told: it raised, the word is not what it was, or its
// result is to be judged.
[[gnu::noinline, gnu::cold]] PyObject* finish(Guard* guard, const Call& call, PyObject* result) {
    if (result == nullptr) {
        leave_raising(state_of(reinterpret_cast<PyObject*>(guard)), *guard->breaker, guard->core,
                      call);
    } else {
        leave_returning(*guard->breaker, guard->core, call, result);
        if (Py_TYPE(result) == &PyCoro_Type) {
            return warn_unprotected(guard, result);
        }
    }
    return result;
}

[[gnu::noinline, gnu::cold]] PyObject* finish_healthy(Guard* guard, std::uint64_t word,
                                                      const Policy* policy, PyObject* result) {
    return finish(guard, Call{Token{Word{word}.generation()}, policy}, result);
}

// A rejected call, its error set, which stays: whoever made it may have to clean up its arguments.
[[gnu::noinline, gnu::cold]] void tell_rejection(Guard* guard, PyObject* const* args,
                                                 std::size_t nargsf, PyObject* kwnames) {
    PyObject* const rejection = take_exception();
    const auto count = static_cast<std::size_t>(PyVectorcall_NARGS(nargsf));
    const std::size_t keywords =
        kwnames != nullptr ? static_cast<std::size_t>(PyTuple_GET_SIZE(kwnames)) : 0;
    PyObject* const told = PyObject_Vectorcall(guard->on_reject, args, count + keywords, nullptr);
    if (told == nullptr) {
        hand_over(guard->on_reject);
    }
    Py_XDECREF(told);
    put_exception(rejection);
}

// A rejected call, its error set: the fallback answers it.
[[gnu::noinline, gnu::cold]] PyObject* answer_rejected(const Policy& policy, PyObject* const* args,
                                                       std::size_t nargsf, PyObject* kwnames) {
    const py::object fallback = policy.outcomes.fallback;  // may be cleared by the call
    PyErr_Clear();
    return PyObject_Vectorcall(fallback.ptr(), args, nargsf, kwnames);
}

[[gnu::noinline, gnu::cold]] PyObject* call_unhealthy(Guard* guard, const Policy& policy,
                                                      PyObject* const* args, std::size_t nargsf,
                                                      PyObject* kwnames) {
    const ModuleState& state = state_of(reinterpret_cast<PyObject*>(guard));
    const std::optional<Call> call = enter(state, *guard->breaker, guard->core, policy);
    if (!call) [[likely]] {
        if (policy.outcomes.fallback) {
            return answer_rejected(policy, args, nargsf, kwnames);
        }
        if (guard->on_reject != nullptr) {
            tell_rejection(guard, args, nargsf, kwnames);
        }
        return nullptr;
    }
    PyObject* result = nullptr;
    {
        const ProbeScope scope{state, *guard->breaker, call->token};
        result = call_target(guard->function, args, nargsf, kwnames);
    }
    return finish(guard, *call, result);
}

// At the start of a page: where it begins decides over 10 ns a call, twice its own cost, and would
// change with every edit elsewhere, as its branches share predictor entries with others'.
// Measured by the suites `call`, `arguments` and `method`.
[[gnu::aligned(4096)]] PyObject* guard_vectorcall(PyObject* self, PyObject* const* args,
                                                  std::size_t nargsf, PyObject* kwnames) {
    Guard* const guard = as_guard(self);
    const Policy* const policy = &guard->current_policy();
    // pairs with: the release half of the compare_exchange in BreakerCell::apply()
    const std::uint64_t word = guard->word->load(std::memory_order_acquire);
    if (!healthy(word)) [[unlikely]] {
        return call_unhealthy(guard, *policy, args, nargsf, kwnames);
    }
    PyObject* const result = call_target(guard->function, args, nargsf, kwnames);
    // relaxed: only compared; whatever differs is read again with acquire on the cold path
    const bool same = guard->word->load(std::memory_order_relaxed) == word;
    if (result == nullptr || !same) [[unlikely]] {
        return finish_healthy(guard, word, policy, result);
    }
    if (Py_TYPE(result) == &PyCoro_Type) [[unlikely]] {
        return warn_unprotected(guard, result);
    }
    return result;
}

// Where calls are counted, a healthy call is told to the windows, and where slow calls are watched
// for, it is timed.
template <bool kTimed>
PyObject* guard_vectorcall_recorded(PyObject* self, PyObject* const* args, std::size_t nargsf,
                                    PyObject* kwnames) {
    Guard* const guard = as_guard(self);
    const Policy* const policy = &guard->current_policy();
    Windows* const windows = policy->rules.windows.get();
    if (windows == nullptr) [[unlikely]] {  // the rules were replaced a moment ago
        return guard_vectorcall(self, args, nargsf, kwnames);
    }
    // pairs with: the release half of the compare_exchange in BreakerCell::apply()
    const std::uint64_t word = guard->word->load(std::memory_order_acquire);
    if (!healthy(word)) [[unlikely]] {
        return call_unhealthy(guard, *policy, args, nargsf, kwnames);
    }
    Breaker* const breaker = guard->breaker;
    const std::int64_t started_ns = kTimed ? breaker->call_time_ns(*policy) : 0;
    PyObject* const result = call_target(guard->function, args, nargsf, kwnames);
    const std::int64_t ended_ns =
        kTimed || windows->needs_time() ? breaker->call_time_ns(*policy) : 0;
    const bool slow =
        kTimed && policy->is_timing() && ended_ns - started_ns >= policy->slow_call_ns();
    // relaxed: only compared; whatever differs is read again with acquire on the cold path
    const bool same = guard->word->load(std::memory_order_relaxed) == word;
    if (result == nullptr || !same || slow) [[unlikely]] {
        return finish(guard, Call{{Word{word}.generation(), TokenKind::normal, started_ns}, policy},
                      result);
    }
    windows->success(ended_ns);
    if (Py_TYPE(result) == &PyCoro_Type) [[unlikely]] {
        return warn_unprotected(guard, result);
    }
    return result;
}

// Where results are judged, calls in flight are limited, or rules are asked at each call, every
// call has something to tell.
PyObject* guard_vectorcall_asking(PyObject* self, PyObject* const* args, std::size_t nargsf,
                                  PyObject* kwnames) {
    Guard* const guard = as_guard(self);
    return call_unhealthy(guard, guard->current_policy(), args, nargsf, kwnames);
}

// Admission falls at the first step, so that a list of calls can be made and then gathered.
PyObject* guard_vectorcall_steps(PyObject* self, PyObject* const* args, std::size_t nargsf,
                                 PyObject* kwnames) {
    Guard* const guard = as_guard(self);
    PyObject* const inner = call_target(guard->function, args, nargsf, kwnames);
    return inner == nullptr ? nullptr : new_stepper(guard, inner, args, nargsf, kwnames);
}

PyObject* guard_get(PyObject* self, PyObject* instance, PyObject*) {
    return instance == nullptr ? Py_NewRef(self) : PyMethod_New(self, instance);
}

int guard_traverse(PyObject* self, visitproc visit, void* arg) {
    Guard* const guard = as_guard(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(guard->function);
    Py_VISIT(guard->core);
    Py_VISIT(guard->owner);
    Py_VISIT(guard->on_reject);
    Py_VISIT(guard->dict);
    return 0;
}

// Whoever still calls the guard afterwards gets a RuntimeError; the hot path needs no null test.
int guard_clear(PyObject* self) {
    Guard* const guard = as_guard(self);
    Py_SETREF(guard->function, Py_NewRef(state_of(self).cleared_function));
    Py_SETREF(guard->owner, Py_NewRef(Py_None));
    Py_CLEAR(guard->on_reject);
    Py_CLEAR(guard->dict);
    return 0;
}

void guard_dealloc(PyObject* self) {
    Guard* const guard = as_guard(self);
    PyTypeObject* const type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    guard->breaker->remove(*guard);
    if (guard->weakrefs != nullptr) {
        PyObject_ClearWeakRefs(self);
    }
    Py_DECREF(guard->function);
    Py_DECREF(guard->owner);
    Py_DECREF(guard->core);
    Py_XDECREF(guard->on_reject);
    Py_XDECREF(guard->dict);
    type->tp_free(self);
    Py_DECREF(type);
}

// What the guard has not is the function's: __name__, __code__, __defaults__ and all else, so that
// inspect, asyncio, functools and typing see the function. AttributeError only: others are errors.
PyObject* guard_getattro(PyObject* self, PyObject* name) {
    PyObject* const found = PyObject_GenericGetAttr(self, name);
    if (found != nullptr || PyErr_ExceptionMatches(PyExc_AttributeError) == 0) {
        return found;
    }
    PyErr_Clear();
    return PyObject_GetAttr(as_guard(self)->function, name);
}

PyObject* guard_repr(PyObject* self) {
    Guard* const guard = as_guard(self);
    return PyUnicode_FromFormat("<%R guarded by circuit breaker %R>", guard->function,
                                guard->breaker->name());
}

// Pickled by name, as functions are.
PyObject* guard_reduce(PyObject* self, PyObject*) {
    return PyObject_GetAttrString(self, "__qualname__");
}

// These exist on every type, so the fallback of guard_getattro would never be asked.
PyObject* get_from_function(PyObject* self, void* name) {
    return PyObject_GetAttrString(as_guard(self)->function, static_cast<const char*>(name));
}

PyObject* get_wrapped(PyObject* self, void*) {
    return Py_NewRef(as_guard(self)->function);
}

PyObject* get_breaker(PyObject* self, void*) {
    return Py_NewRef(as_guard(self)->owner);
}

char name_doc[] = "__doc__";
char name_module[] = "__module__";

PyGetSetDef guard_getset[] = {
    {"__doc__", get_from_function, nullptr, nullptr, name_doc},
    {"__module__", get_from_function, nullptr, nullptr, name_module},
    {"__wrapped__", get_wrapped, nullptr, "The function behind the guard.", nullptr},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
    {"breaker", get_breaker, nullptr, "The CircuitBreaker that guards the function.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyMethodDef guard_methods[] = {
    {"__reduce__", guard_reduce, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyMemberDef guard_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Guard, vectorcall), READONLY, nullptr},
    {"__dictoffset__", T_PYSSIZET, offsetof(Guard, dict), READONLY, nullptr},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Guard, weakrefs), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

vectorcallfunc vectorcall_of(Form form, const Policy& policy) noexcept {
    if (form != Form::function) {
        return guard_vectorcall_steps;
    }
    const Outcomes& outcomes = policy.outcomes;
    if (outcomes.classify_result || outcomes.trip_on_verdict || policy.asks_at_admission()) {
        return guard_vectorcall_asking;
    }
    if (!policy.is_recording()) {
        return guard_vectorcall;
    }
    return policy.is_timing() ? guard_vectorcall_recorded<true> : guard_vectorcall_recorded<false>;
}

PyObject* guard_new(PyTypeObject* type, PyObject* args, PyObject* keywords) {
    PyObject* function = nullptr;
    PyObject* core = nullptr;
    PyObject* owner = nullptr;
    PyObject* on_reject = Py_None;
    int form = 0;
    static const char* const names[] = {"function", "core", "owner", "form", "on_reject", nullptr};
    if (PyArg_ParseTupleAndKeywords(args, keywords, "OOOi|O:Guard", const_cast<char**>(names),
                                    &function, &core, &owner, &form, &on_reject) == 0) {
        return nullptr;
    }
    if (form < 0 || form > static_cast<int>(Form::async_generator)) {
        return PyErr_Format(PyExc_ValueError, "form must be 0..3, got %d", form);
    }
    const auto& state = *static_cast<ModuleState*>(PyType_GetModuleState(type));
    Breaker* const breaker = breaker_of(state, core);
    if (PyCallable_Check(function) == 0 || breaker == nullptr) {
        return PyErr_Format(PyExc_TypeError, "Guard() takes a callable and a _core.Breaker");
    }
    auto* const guard = as_guard(type->tp_alloc(type, 0));
    if (guard != nullptr) {
        guard->form = static_cast<Form>(form);
        guard->function = Py_NewRef(function);
        guard->breaker = breaker;
        guard->word = &guard->breaker->cell.word();
        guard->core = Py_NewRef(core);
        guard->owner = Py_NewRef(owner);
        guard->on_reject = Py_IsNone(on_reject) ? nullptr : Py_NewRef(on_reject);
        guard->breaker->add(*guard);
    }
    return reinterpret_cast<PyObject*>(guard);
}

PyObject* call_cleared(PyObject*, PyObject*, PyObject*) {
    PyErr_SetString(PyExc_RuntimeError, "this guard was already cleared by the garbage collector");
    return nullptr;
}

PyMethodDef cleared_definition = {
    "cleared_function", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(call_cleared)),
    METH_VARARGS | METH_KEYWORDS, nullptr};

}  // namespace

void set_policy(Guard& guard, const Policy& policy) noexcept {
    // release: pairs with the acquire load in Guard::current_policy()
    guard.policy.store(&policy, std::memory_order_release);
    // relaxed, and atomic only so that a caller without a GIL reads one pointer or the other
    std::atomic_ref{guard.vectorcall}.store(vectorcall_of(guard.form, policy),
                                            std::memory_order_relaxed);
}

void add_guard(py::module_& m, py::handle state_module, ModuleState& state) {
    PyType_Slot slots[] = {
        {Py_tp_new, reinterpret_cast<void*>(guard_new)},
        {Py_tp_traverse, reinterpret_cast<void*>(guard_traverse)},
        {Py_tp_clear, reinterpret_cast<void*>(guard_clear)},
        {Py_tp_dealloc, reinterpret_cast<void*>(guard_dealloc)},
        {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
        {Py_tp_descr_get, reinterpret_cast<void*>(guard_get)},
        {Py_tp_getattro, reinterpret_cast<void*>(guard_getattro)},
        {Py_tp_repr, reinterpret_cast<void*>(guard_repr)},
        {Py_tp_getset, guard_getset},
        {Py_tp_methods, guard_methods},
        {Py_tp_members, guard_members},
        {0, nullptr},
    };
    // Immutable: on 3.11 assigning __call__ to a heap type leaves a stale vectorcall behind.
    PyType_Spec spec = {"memguard_native._core.Guard", sizeof(Guard), 0,
                        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
                            Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_IMMUTABLETYPE,
                        slots};
    state.guard_type = add_type(m, state_module, spec);
    state.cleared_function = PyCFunction_New(&cleared_definition, nullptr);
    if (state.cleared_function == nullptr) {
        throw py::error_already_set();
    }
}

}  // namespace memguard
