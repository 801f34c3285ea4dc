#include "breaker.hpp"

#include <chrono>  // std::chrono::system_clock

#include "exceptions.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

constexpr Py_ssize_t kMaxErrorText = 160;

// (type name, text) of an exception. Its __str__ is a stranger's code and may fail or be long.
py::object describe(PyObject* exception) {
    const auto type = py::reinterpret_steal<py::object>(PyType_GetName(Py_TYPE(exception)));
    auto text = py::reinterpret_steal<py::object>(PyObject_Str(exception));
    if (!text) {
        PyErr_Clear();
        text = py::str("");
    } else if (PyUnicode_GET_LENGTH(text.ptr()) > kMaxErrorText) {
        text = py::reinterpret_steal<py::object>(PyUnicode_Substring(text.ptr(), 0, kMaxErrorText));
    }
    if (!type || !text) {
        throw py::error_already_set();
    }
    return py::make_tuple(type, text);
}

double wall_time() {
    return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch())
        .count();
}

Verdict classify(const ModuleState& state, PyObject* exception) noexcept {
    if (is_instance(exception, PyExc_StopIteration) ||
        is_instance(exception, PyExc_StopAsyncIteration)) {
        return Verdict::success;  // the iterator protocol, not a failure
    }
    // Cancellation, Ctrl-C and exit say nothing about the dependency, nor does our own shortage of
    // stack or memory, nor another circuit that is open.
    const bool neutral = !is_instance(exception, PyExc_Exception) ||
                         is_instance(exception, PyExc_RecursionError) ||
                         is_instance(exception, PyExc_MemoryError) ||
                         PyType_IsSubtype(Py_TYPE(exception), state.open_error_type);
    return neutral ? Verdict::neutral : Verdict::failure;
}

// The ContextVar holds a chain of (breaker, generation, outer scope): the probes that the running
// task or thread is inside of.
py::object scope_key(const Breaker& breaker) {
    return py::reinterpret_steal<py::object>(PyLong_FromVoidPtr(const_cast<Breaker*>(&breaker)));
}

py::object current_scope(const ModuleState& state) {
    PyObject* value = nullptr;
    if (PyContextVar_Get(state.probe_scope, Py_None, &value) < 0) {
        throw py::error_already_set();
    }
    return py::reinterpret_steal<py::object>(value);
}

bool inside_probe(const ModuleState& state, const Breaker& breaker, Word word) {
    const py::object key = scope_key(breaker);
    for (py::object scope = current_scope(state); !scope.is_none();) {
        const auto link = py::reinterpret_borrow<py::tuple>(scope);
        if (key.equal(link[0]) && link[1].cast<std::uint64_t>() == word.generation()) {
            return true;
        }
        scope = link[2];
    }
    return false;
}

PyObject* enter_scope(const ModuleState& state, const Breaker& breaker, Token token) {
    const py::tuple link =
        py::make_tuple(scope_key(breaker), token.generation, current_scope(state));
    PyObject* reset = PyContextVar_Set(state.probe_scope, link.ptr());
    if (reset == nullptr) {
        throw py::error_already_set();
    }
    return reset;
}

void leave_scope(const ModuleState& state, Call& call) noexcept {
    if (call.scope_reset == nullptr) {
        return;
    }
    // An awaitable may end in another context than it began in, where the variable is not set.
    if (PyContextVar_Reset(state.probe_scope, call.scope_reset) < 0) {
        PyErr_Clear();
    }
    Py_CLEAR(call.scope_reset);
}

}  // namespace

void Breaker::record_opening(py::handle self, PyObject* exception) noexcept {
    try {
        const py::object last_error = exception != nullptr ? describe(exception) : py::none();
        py::object details = py::make_tuple(cell.failure_count(), wall_time(), last_error);
        const py::scoped_critical_section lock{self};
        std::swap(details_, details);  // the old one is released after the lock
    } catch (py::error_already_set& error) {
        error.discard_as_unraisable("memguard_native: describing why a circuit opened");
    }
}

std::optional<Call> enter(const ModuleState& state, Breaker& breaker, py::handle self) noexcept {
    const Admission admission = breaker.cell.admit(breaker.now_ns());
    try {
        if (admission.decision == Decision::admitted) {
            Call call{admission.token()};
            if (call.token.probe) {
                call.scope_reset = enter_scope(state, breaker, call.token);
            }
            return call;
        }
        if (admission.decision == Decision::rejected_probing &&
            inside_probe(state, breaker, admission.next)) {
            return Call{.nested = true};
        }
    } catch (py::error_already_set& error) {
        if (admission.decision == Decision::admitted) {
            breaker.cell.settle(admission.token(), Verdict::neutral, breaker.now_ns());
        }
        error.restore();
        return std::nullopt;
    }
    raise_open_error(state, breaker, self, admission);
    return std::nullopt;
}

void leave(const ModuleState& state, Breaker& breaker, py::handle self, Call& call, Verdict verdict,
           PyObject* exception) noexcept {
    if (call.nested) {
        return;
    }
    leave_scope(state, call);
    const Transition done = breaker.cell.settle(call.token, verdict, breaker.now_ns());
    if (done.opened()) {
        breaker.record_opening(self, exception);
    }
}

void leave_raising(const ModuleState& state, Breaker& breaker, py::handle self,
                   Call& call) noexcept {
    PyObject* exception = take_exception();
    leave(state, breaker, self, call, classify(state, exception), exception);
    put_exception(exception);
}

void raise_open_error(const ModuleState& state, const Breaker& breaker, py::handle self,
                      const Admission& rejection) noexcept {
    try {
        const bool probing = rejection.decision == Decision::rejected_probing;
        PyObject* const circuit_state = probing ? state.state_half_open : state.state_open;
        PyObject* const reason = probing ? state.reason_probing : state.state_open;
        const auto seconds = py::reinterpret_steal<py::object>(
            PyFloat_FromDouble(static_cast<double>(rejection.retry_after_ns) / kNsPerSecond));
        const py::object details = breaker.details(self);
        PyObject* error = state.open_error_type->tp_alloc(state.open_error_type, 0);
        if (!seconds || error == nullptr) {
            Py_XDECREF(error);
            throw py::error_already_set();
        }
        auto* const base = reinterpret_cast<PyBaseExceptionObject*>(error);
        base->args =
            PyTuple_Pack(5, breaker.name(), seconds.ptr(), reason, circuit_state, details.ptr());
        if (base->args == nullptr) {
            Py_DECREF(error);
            throw py::error_already_set();
        }
        put_exception(error);
    } catch (py::error_already_set& error) {
        error.restore();
    }
}

}  // namespace memguard
