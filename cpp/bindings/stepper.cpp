#include "stepper.hpp"

#include "asking.hpp"
#include "exceptions.hpp"
#include "probe_scope.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

const ModuleState& state_of(Stepper* self) noexcept {
    return memguard::state_of(reinterpret_cast<PyObject*>(self));
}

// A success of a call that was admitted while healthy has nothing to tell if the word is unchanged.
void settle_return(Stepper* self, PyObject* result) {
    // relaxed: only compared; whatever differs is read again with acquire on the cold path
    const std::uint64_t word = self->guard->word->load(std::memory_order_relaxed);
    const Policy& policy = *self->call.policy;
    const bool judged = self->guard->form == Form::coroutine && policy.outcomes.classify_result;
    const bool normal = self->call.token.kind == TokenKind::normal;
    if (healthy(word) && word == self->call.token.generation && normal && !judged &&
        !policy.asks_after_success()) [[likely]] {
        self->stage = Stage::finished;
        return;
    }
    if (self->guard->form != Form::coroutine) {  // a generator's return value is no result
        settle(self, Verdict::success);
        return;
    }
    self->stage = Stage::finished;
    leave_returning(*self->guard->breaker, self->guard->core, self->call, result);
}

// Closes the inner object; a rejected one has not started, so this runs none of its code.
int close_inner(Stepper* self) {
    PyObject* const closed = PyObject_CallMethodNoArgs(self->inner, state_of(self).method_close);
    Py_XDECREF(closed);
    return closed == nullptr ? -1 : 0;
}

// The same for an asynchronous generator: not started, it is closed by the first step of aclose().
int close_unstarted_async_generator(Stepper* self) {
    PyObject* const closing = PyObject_CallMethodNoArgs(self->inner, state_of(self).method_aclose);
    if (closing == nullptr) {
        return -1;
    }
    PyObject* result = nullptr;
    const PySendResult sent = PyIter_Send(closing, Py_None, &result);
    Py_DECREF(closing);
    Py_XDECREF(result);
    return sent == PYGEN_ERROR ? -1 : 0;
}

void close_rejected(Stepper* self) {
    const bool is_async_generator = self->guard->form == Form::async_generator;
    if ((is_async_generator ? close_unstarted_async_generator(self) : close_inner(self)) < 0) {
        PyErr_WriteUnraisable(self->inner);
    }
}

// The fallback's answer takes the place of the call: awaited or iterated without a verdict.
Start start_fallback(Stepper* self, const py::object& fallback, PyObject** result) {
    PyObject* const answer = PyObject_Call(fallback.ptr(), self->args, self->keywords);
    if (answer == nullptr) {
        return Start::raised;
    }
    PyObject* inner = nullptr;
    switch (self->guard->form) {
    case Form::generator:
        inner = PyObject_GetIter(answer);
        break;
    case Form::async_generator:
        inner = PyObject_GetAIter(answer);
        break;
    default:
        inner = awaitable_iterator(answer);
        if (inner == nullptr && PyErr_ExceptionMatches(PyExc_TypeError) != 0) {
            PyErr_Clear();  // not awaitable: the result itself
            *result = answer;
            return Start::returned;
        }
    }
    Py_DECREF(answer);
    if (inner == nullptr) {
        return Start::raised;
    }
    Py_SETREF(self->inner, inner);
    return Start::go_on;
}

// Whoever made the call may have to clean up its arguments.
void tell_rejection(Stepper* self) {
    // As positional ones all: only their values matter.
    PyObject* const values = self->keywords != nullptr ? PyDict_Values(self->keywords) : nullptr;
    PyObject* const extra = values != nullptr ? PyList_AsTuple(values) : PyTuple_New(0);
    PyObject* const all = extra != nullptr ? PySequence_Concat(self->args, extra) : nullptr;
    PyObject* const told =
        all != nullptr ? PyObject_Call(self->guard->on_reject, all, nullptr) : nullptr;
    if (told == nullptr) {
        hand_over(self->guard->on_reject);
    }
    Py_XDECREF(told);
    Py_XDECREF(all);
    Py_XDECREF(extra);
    Py_XDECREF(values);
}

[[gnu::noinline, gnu::cold]] Start start_unhealthy(Stepper* self, PyObject** result) {
    const Policy& policy = self->guard->current_policy();
    const std::optional<Call> call =
        enter(state_of(self), *self->guard->breaker, self->guard->core, policy);
    if (call) {
        self->call = *call;
        self->stage = Stage::running;
        return Start::go_on;
    }
    PyObject* const rejection = take_exception();
    self->stage = Stage::finished;
    close_rejected(self);
    const py::object fallback = policy.outcomes.fallback;  // may be cleared by the call
    if (fallback && self->args != nullptr) {
        Py_DECREF(rejection);
        return start_fallback(self, fallback, result);
    }
    if (self->guard->on_reject != nullptr && self->args != nullptr) {
        tell_rejection(self);
    }
    put_exception(rejection);
    return Start::raised;
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

// Dropped while running: the verdict is neutral and a probe's slot goes back.
void abandon(Stepper* self) {
    if (self->stage == Stage::running) {
        settle_neutral(self);
    }
}

// Keeps the arguments of the call for the fallback. False with an exception set if out of memory.
bool keep_arguments(Stepper* self, PyObject* const* args, std::size_t nargsf, PyObject* kwnames) {
    const Py_ssize_t positional = PyVectorcall_NARGS(nargsf);
    self->args = PyTuple_New(positional);
    if (self->args == nullptr) {
        return false;
    }
    for (Py_ssize_t i = 0; i < positional; ++i) {
        PyTuple_SET_ITEM(self->args, i, Py_NewRef(args[i]));
    }
    if (kwnames == nullptr) {
        return true;
    }
    self->keywords = PyDict_New();
    if (self->keywords == nullptr) {
        return false;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(kwnames); ++i) {
        PyObject* const name = PyTuple_GET_ITEM(kwnames, i);
        if (PyDict_SetItem(self->keywords, name, args[positional + i]) < 0) {
            return false;
        }
    }
    return true;
}

PyTypeObject* type_of(const ModuleState& state, Form form) noexcept {
    switch (form) {
    case Form::generator:
        return state.generator_type;
    case Form::async_generator:
        return state.async_generator_type;
    default:
        return state.coroutine_type;
    }
}

}  // namespace

PyObject* new_stepper(Guard* guard, PyObject* inner, PyObject* const* args, std::size_t nargsf,
                      PyObject* kwnames) noexcept {
    PyTypeObject* const type =
        type_of(memguard::state_of(reinterpret_cast<PyObject*>(guard)), guard->form);
    auto* const self = as_stepper(type->tp_alloc(type, 0));
    if (self == nullptr) {
        Py_DECREF(inner);
        return nullptr;
    }
    self->inner = inner;
    self->guard = as_guard(Py_NewRef(reinterpret_cast<PyObject*>(guard)));
    self->stage = Stage::created;
    const bool needs_arguments =
        guard->current_policy().outcomes.fallback || guard->on_reject != nullptr;
    if (needs_arguments && !keep_arguments(self, args, nargsf, kwnames)) {
        Py_DECREF(reinterpret_cast<PyObject*>(self));
        return nullptr;
    }
    return reinterpret_cast<PyObject*>(self);
}

[[gnu::noinline, gnu::cold]] void settle(Stepper* self, std::optional<Verdict> verdict) {
    self->stage = Stage::finished;
    if (verdict) {
        Outcome outcome;
        outcome.verdict = *verdict;
        leave(*self->guard->breaker, self->guard->core, self->call, outcome);
    } else {
        leave_raising(state_of(self), *self->guard->breaker, self->guard->core, self->call);
    }
}

void settle_neutral(Stepper* self) {
    PyObject* const exception = PyErr_Occurred() != nullptr ? take_exception() : nullptr;
    settle(self, Verdict::neutral);
    if (exception != nullptr) {
        put_exception(exception);
    }
}

Start start_step(Stepper* self, PyObject** result) {
    // pairs with: the release half of the compare_exchange in BreakerCell::apply()
    const std::uint64_t word = self->guard->word->load(std::memory_order_acquire);
    const Policy& policy = self->guard->current_policy();
    if (!healthy(word) || policy.asks_at_admission()) [[unlikely]] {
        return start_unhealthy(self, result);
    }
    self->call = {Token{word}, &policy};  // all other bits of a healthy word are 0
    if (policy.is_timing()) [[unlikely]] {
        self->call.token.started_ns = self->guard->breaker->call_time_ns(policy);
    }
    self->stage = Stage::running;
    return Start::go_on;
}

PySendResult stepper_send(PyObject* object, PyObject* value, PyObject** result) {
    Stepper* const self = as_stepper(object);
    if (self->is_stepping) [[unlikely]] {
        return PyIter_Send(self->inner, value, result);
    }
    if (self->stage == Stage::created) {
        switch (start_step(self, result)) {
        case Start::go_on:
            break;
        case Start::returned:
            return PYGEN_RETURN;
        case Start::raised:
            *result = nullptr;
            return PYGEN_ERROR;
        }
    }
    PySendResult sent;
    self->is_stepping = true;
    if (self->stage == Stage::running && self->call.token.is_probe()) [[unlikely]] {
        const ProbeScope scope{state_of(self), *self->guard->breaker, self->call.token};
        sent = PyIter_Send(self->inner, value, result);
    } else {
        sent = PyIter_Send(self->inner, value, result);
    }
    self->is_stepping = false;
    if (sent != PYGEN_NEXT && self->stage == Stage::running) {
        if (sent == PYGEN_RETURN) {
            settle_return(self, *result);
        } else {
            settle(self, std::nullopt);
        }
    }
    return sent;
}

PyObject* as_iternext(PySendResult sent, PyObject* result) {
    if (sent != PYGEN_RETURN) {
        return result;
    }
    if (Py_IsNone(result)) {
        Py_DECREF(result);  // no exception set means StopIteration(None)
    } else {
        raise_stop_iteration(result);
    }
    return nullptr;
}

PyObject* as_send_method(PySendResult sent, PyObject* result) {
    if (sent == PYGEN_RETURN) {
        raise_stop_iteration(result);
        return nullptr;
    }
    return result;
}

// CPython 3.12+ drives an awaitable that is no generator through this slot.
PyObject* stepper_iternext(PyObject* self) {
    PyObject* result = nullptr;
    const PySendResult sent = stepper_send(self, Py_None, &result);
    return as_iternext(sent, result);
}

PyObject* stepper_send_method(PyObject* self, PyObject* value) {
    PyObject* result = nullptr;
    const PySendResult sent = stepper_send(self, value, &result);
    return as_send_method(sent, result);
}

PyObject* call_throw(const ModuleState& state, PyObject* inner, PyObject* const* args,
                     Py_ssize_t count) {
    PyObject* const method = PyObject_GetAttr(inner, state.method_throw);
    if (method == nullptr) {
        return nullptr;
    }
    PyObject* const result =
        PyObject_Vectorcall(method, args, static_cast<std::size_t>(count), nullptr);
    Py_DECREF(method);
    return result;
}

PyObject* stepper_throw(PyObject* object, PyObject* const* args, Py_ssize_t count) {
    Stepper* const self = as_stepper(object);
    if (self->is_stepping) {
        return call_throw(state_of(self), self->inner, args, count);
    }
    if (self->stage == Stage::created) {
        self->stage = Stage::finished;  // never admitted, so no verdict
    }
    PyObject* result = nullptr;
    self->is_stepping = true;
    if (self->stage == Stage::running) {
        const ProbeScope scope{state_of(self), *self->guard->breaker, self->call.token};
        result = call_throw(state_of(self), self->inner, args, count);
    } else {
        result = call_throw(state_of(self), self->inner, args, count);
    }
    self->is_stepping = false;
    if (result == nullptr && self->stage == Stage::running) {
        settle(self, std::nullopt);  // StopIteration, a return, classifies as success
    }
    return result;
}

PyObject* stepper_close(PyObject* object, PyObject*) {
    Stepper* const self = as_stepper(object);
    if (self->is_stepping) {
        return close_inner(self) < 0 ? nullptr : Py_NewRef(Py_None);
    }
    const Stage before = self->stage;
    self->is_stepping = true;
    const int closed = close_inner(self);
    self->is_stepping = false;
    if (before == Stage::running && self->stage == Stage::running) {
        abandon(self);
    }
    self->stage = Stage::finished;
    return closed < 0 ? nullptr : Py_NewRef(Py_None);
}

PyObject* awaitable_iterator(PyObject* awaitable) {
    if (PyCoro_CheckExact(awaitable)) {
        return Py_NewRef(awaitable);
    }
    const PyAsyncMethods* const methods = Py_TYPE(awaitable)->tp_as_async;
    if (methods == nullptr || methods->am_await == nullptr) {
        return PyErr_Format(PyExc_TypeError, "%R is not awaitable", awaitable);
    }
    return methods->am_await(awaitable);
}

PyObject* stepper_getattro(PyObject* self, PyObject* name) {
    PyObject* const found = PyObject_GenericGetAttr(self, name);
    if (found != nullptr || PyErr_ExceptionMatches(PyExc_AttributeError) == 0) {
        return found;
    }
    PyErr_Clear();
    return PyObject_GetAttr(as_stepper(self)->inner, name);
}

PyObject* stepper_repr(PyObject* object) {
    Stepper* const self = as_stepper(object);
    return PyUnicode_FromFormat("<%R guarded by circuit breaker %R>", self->inner,
                                self->guard->breaker->name());
}

int stepper_traverse(PyObject* object, visitproc visit, void* arg) {
    Stepper* const self = as_stepper(object);
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->inner);
    Py_VISIT(self->guard);
    Py_VISIT(self->args);
    Py_VISIT(self->keywords);
    return 0;
}

int stepper_clear(PyObject* object) {
    Stepper* const self = as_stepper(object);
    abandon(self);
    self->stage = Stage::finished;
    Py_SETREF(self->inner, Py_NewRef(Py_None));
    Py_CLEAR(self->args);
    Py_CLEAR(self->keywords);
    return 0;
}

void stepper_dealloc(PyObject* object) {
    Stepper* const self = as_stepper(object);
    PyTypeObject* const type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->weakrefs != nullptr) {
        PyObject_ClearWeakRefs(object);
    }
    abandon(self);
    Py_XDECREF(self->args);
    Py_XDECREF(self->keywords);
    Py_DECREF(self->inner);
    Py_DECREF(self->guard);
    type->tp_free(object);
    Py_DECREF(type);
}

PyMethodDef stepper_methods[] = {
    {"send", stepper_send_method, METH_O, "Resume it with a value."},
    {"throw", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(stepper_throw)), METH_FASTCALL,
     "Resume it with an exception."},
    {"close", stepper_close, METH_NOARGS, "Stop it; says nothing to the breaker."},
    {nullptr, nullptr, 0, nullptr},
};

PyMemberDef stepper_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Stepper, weakrefs), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

}  // namespace memguard
