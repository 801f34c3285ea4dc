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

// Asks one of the user's callables; null where it raises, which our Python prevents.
py::object ask(const py::object& callable, PyObject* argument) noexcept {
    PyObject* const answer = PyObject_CallOneArg(callable.ptr(), argument);
    if (answer == nullptr) {
        PyErr_WriteUnraisable(callable.ptr());
    }
    return py::reinterpret_steal<py::object>(answer);
}

Verdict ask_verdict(const py::object& callable, PyObject* argument, Verdict otherwise) noexcept {
    const py::object answer = ask(callable, argument);
    const long code = answer ? PyLong_AsLong(answer.ptr()) : -1;
    if (code < 0 || code > static_cast<long>(Verdict::neutral)) {
        PyErr_Clear();
        return otherwise;
    }
    return static_cast<Verdict>(code);
}

std::int64_t ask_wait_ns(const Breaker& breaker, PyObject* exception_or_result) noexcept {
    if (!breaker.outcomes.reopen_after) {
        return kConfiguredWait;
    }
    const py::object answer = ask(breaker.outcomes.reopen_after, exception_or_result);
    const double seconds = answer && !answer.is_none() ? PyFloat_AsDouble(answer.ptr()) : -1.0;
    if (!(seconds >= 0.0)) {
        PyErr_Clear();
        return kConfiguredWait;
    }
    const double longest = static_cast<double>(breaker.cell.config().max_reset_timeout_ns);
    return static_cast<std::int64_t>(std::min(seconds * kNsPerSecond, longest));
}

Verdict classify(const ModuleState& state, const Breaker& breaker, PyObject* exception) noexcept {
    if (is_instance(exception, PyExc_StopIteration) ||
        is_instance(exception, PyExc_StopAsyncIteration)) {
        return Verdict::success;  // the iterator protocol, not a failure
    }
    // Our own shortage of stack or memory says nothing about the dependency, nor does another
    // circuit that is open; nor do cancellation, Ctrl-C and exit.
    const bool counts =
        is_instance(exception, PyExc_Exception) || breaker.outcomes.count_base_exceptions;
    if (!counts || is_instance(exception, PyExc_RecursionError) ||
        is_instance(exception, PyExc_MemoryError) ||
        PyType_IsSubtype(Py_TYPE(exception), state.open_error_type) != 0) {
        return Verdict::neutral;
    }
    return breaker.outcomes.classify
               ? ask_verdict(breaker.outcomes.classify, exception, Verdict::failure)
               : Verdict::failure;
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

PyObject* enter_scope(const ModuleState& state, const Breaker& breaker, Token token) noexcept {
    if (!token.is_probe()) {
        return nullptr;
    }
    try {
        const py::tuple link =
            py::make_tuple(scope_key(breaker), token.generation, current_scope(state));
        PyObject* const scope = PyContextVar_Set(state.probe_scope, link.ptr());
        if (scope == nullptr) {
            throw py::error_already_set();
        }
        return scope;
    } catch (py::error_already_set& error) {
        // Without the mark calls inside this probe are rejected: safe, if strict.
        error.discard_as_unraisable("memguard_native: entering a probe");
        return nullptr;
    }
}

void leave_scope(const ModuleState& state, PyObject*& scope) noexcept {
    if (scope == nullptr) {
        return;
    }
    PyObject* const exception = PyErr_Occurred() != nullptr ? take_exception() : nullptr;
    // An attempt may end in another context than it began in, where the variable is not set.
    if (PyContextVar_Reset(state.probe_scope, scope) < 0) {
        PyErr_Clear();
    }
    Py_CLEAR(scope);
    if (exception != nullptr) {
        put_exception(exception);
    }
}

std::optional<Token> enter(const ModuleState& state, Breaker& breaker, py::handle self) noexcept {
    const Admission admission = breaker.cell.admit(breaker.now_ns());
    if (admission.decision == Decision::admitted) {
        return admission.token();
    }
    if (admission.event == Event::probe_lost) {
        breaker.record_opening(self, nullptr);
    }
    try {
        if (admission.decision == Decision::rejected_probing &&
            inside_probe(state, breaker, admission.next)) {
            return Token{admission.next.generation(), TokenKind::nested};
        }
    } catch (py::error_already_set& error) {
        error.restore();
        return std::nullopt;
    }
    raise_open_error(state, breaker, self, admission);
    return std::nullopt;
}

void leave(Breaker& breaker, py::handle self, Token token, Verdict verdict, PyObject* exception,
           std::int64_t told_ns) noexcept {
    if (!token.counts()) {
        return;
    }
    if (breaker.cell.settle(token, verdict, breaker.now_ns(), told_ns).opened()) {
        breaker.record_opening(self, exception);
    }
}

void leave_failing(const ModuleState& state, Breaker& breaker, py::handle self, Token token,
                   PyObject* exception) noexcept {
    if (!token.counts()) {
        return;
    }
    const Verdict verdict = classify(state, breaker, exception);
    const bool failed = verdict == Verdict::failure;
    leave(breaker, self, token, verdict, exception,
          failed ? ask_wait_ns(breaker, exception) : kConfiguredWait);
}

void leave_raising(const ModuleState& state, Breaker& breaker, py::handle self,
                   Token token) noexcept {
    PyObject* const exception = take_exception();
    leave_failing(state, breaker, self, token, exception);
    put_exception(exception);
}

void leave_returning(Breaker& breaker, py::handle self, Token token, PyObject* result) noexcept {
    if (!token.counts() || !breaker.outcomes.classify_result) {
        leave(breaker, self, token, Verdict::success);
        return;
    }
    const Verdict verdict = ask_verdict(breaker.outcomes.classify_result, result, Verdict::success);
    const bool failed = verdict == Verdict::failure;
    leave(breaker, self, token, verdict, nullptr,
          failed ? ask_wait_ns(breaker, result) : kConfiguredWait);
}

void raise_open_error(const ModuleState& state, const Breaker& breaker, py::handle self,
                      const Admission& rejection) noexcept {
    try {
        PyObject* circuit_state = state.state_open;
        PyObject* reason = state.state_open;
        if (rejection.decision == Decision::rejected_probing) {
            circuit_state = state.state_half_open;
            reason = state.reason_probing;
        } else if (rejection.decision == Decision::rejected_forced) {
            circuit_state = reason = state.state_forced_open;
        }
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
