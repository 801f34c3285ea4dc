#include "breaker.hpp"

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

const char* name_of(Event event) noexcept {
    switch (event) {
    case Event::consecutive_failures:
        return "consecutive_failures";
    case Event::failure_rate:
        return "failure_rate";
    case Event::slow_rate:
        return "slow_rate";
    case Event::timeout:
        return "timeout";
    case Event::probe_lost:
        return "probe_lost";
    case Event::probe_failed:
        return "probe_failed";
    case Event::probe_succeeded:
        return "probe_succeeded";
    case Event::inconclusive:
        return "inconclusive";
    case Event::reset:
        return "reset";
    case Event::forked:
        return "forked";
    default:
        return "manual";
    }
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

// The ContextVar holds a chain of links: the probes that the running task or thread is inside of.
// A link is a list, [breaker's id, generation or None, outer link or None]. It loses its generation
// when the probe ends, because it may do so where the variable cannot be reset: an attempt that
// ends on another thread would else leave its privilege behind.
enum LinkItem : Py_ssize_t { kBreakerId, kGeneration, kOuter };

bool has_ended(py::handle link) {
    return Py_IsNone(PyList_GET_ITEM(link.ptr(), kGeneration)) != 0;
}

// The innermost link that has not ended, or None.
py::object current_link(const ModuleState& state) {
    PyObject* value = nullptr;
    if (PyContextVar_Get(state.probe_scope, Py_None, &value) < 0) {
        throw py::error_already_set();
    }
    auto link = py::reinterpret_steal<py::object>(value);
    while (!link.is_none() && has_ended(link)) {
        link = py::reinterpret_borrow<py::object>(PyList_GET_ITEM(link.ptr(), kOuter));
    }
    return link;
}

bool inside_probe(const ModuleState& state, const Breaker& breaker, Word word) {
    for (py::object link = current_link(state); !link.is_none();) {
        const auto items = py::reinterpret_borrow<py::list>(link);
        const py::object generation = items[kGeneration];
        if (!generation.is_none() && items[kBreakerId].cast<std::uint64_t>() == breaker.id() &&
            generation.cast<std::uint64_t>() == word.generation()) {
            return true;
        }
        link = items[kOuter];
    }
    return false;
}

}  // namespace

const char* name_of(Phase phase) noexcept {
    switch (phase) {
    case Phase::closed:
        return "closed";
    case Phase::open:
        return "open";
    case Phase::half_open:
        return "half_open";
    case Phase::forced_open:
        return "forced_open";
    case Phase::disabled:
        break;
    }
    return "disabled";
}

py::tuple to_tuple(const BreakerEvent& event) {
    return py::make_tuple(event.breaker_id, event.generation, event.at_ns, event.wall_ns,
                          name_of(event.from()), name_of(event.to()), name_of(event.reason()));
}

void Breaker::record_opening(py::handle self, PyObject* exception, Event cause) noexcept {
    try {
        const py::object last_error = exception != nullptr ? describe(exception) : py::none();
        py::object details =
            py::make_tuple(cell.failure_count(), static_cast<double>(wall_ns()) / kNsPerSecond,
                           last_error, name_of(cause));
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
        py::list link(3);
        link[kBreakerId] = breaker.id();
        link[kGeneration] = token.generation;
        link[kOuter] = current_link(state);
        const auto reset =
            py::reinterpret_steal<py::object>(PyContextVar_Set(state.probe_scope, link.ptr()));
        if (!reset) {
            throw py::error_already_set();
        }
        return py::make_tuple(link, reset).release().ptr();
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
    PyList_SetItem(PyTuple_GET_ITEM(scope, 0), kGeneration, Py_NewRef(Py_None));
    // Fails in another context than it was set in: there the ended link stays, and means nothing.
    if (PyContextVar_Reset(state.probe_scope, PyTuple_GET_ITEM(scope, 1)) < 0) {
        PyErr_Clear();
    }
    Py_CLEAR(scope);
    if (exception != nullptr) {
        put_exception(exception);
    }
}

void Breaker::tell(const Transition& done) noexcept {
    if (!done.is_news()) {
        return;
    }
    const BreakerEvent event{
        id_, cell.widened(done.after), now_ns(), wall_ns(),
        BreakerEvent::pack(done.before.phase(), done.after.phase(), done.event)};
    events_->push(event);
    if (outcomes.on_event) {
        try {
            outcomes.on_event(to_tuple(event));
        } catch (py::error_already_set& error) {
            error.discard_as_unraisable("memguard_native: telling an event");
        }
    }
}

std::optional<Token> enter(const ModuleState& state, Breaker& breaker, py::handle self) noexcept {
    const Admission admission = breaker.cell.admit(breaker.admission_time_ns());
    const Transition done{admission.before, admission.next, admission.event};
    if (done.opened()) {
        breaker.record_opening(self, nullptr, done.event);
    }
    breaker.tell(done);
    if (admission.decision == Decision::admitted) {
        Token token = admission.token();
        token.started_ns = breaker.is_timing() ? breaker.call_time_ns() : 0;
        return token;
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
    breaker.cell.count_rejection(Breaker::kExclusive);
    raise_open_error(state, breaker, self, admission);
    return std::nullopt;
}

void leave(Breaker& breaker, py::handle self, Token token, Verdict verdict, PyObject* exception,
           std::int64_t told_ns) noexcept {
    if (!token.counts()) {
        return;
    }
    const Transition done =
        breaker.cell.settle(token, verdict, breaker.now_ns(), told_ns, breaker.is_slow(token));
    if (done.opened()) {
        breaker.record_opening(self, exception, done.event);
    }
    breaker.tell(done);
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
        auto seconds = py::reinterpret_steal<py::object>(
            PyFloat_FromDouble(static_cast<double>(rejection.retry_after_ns) / kNsPerSecond));
        py::object details = breaker.details(self);
        PyObject* error = state.open_error_type->tp_alloc(state.open_error_type, 0);
        if (!seconds || error == nullptr) {
            Py_XDECREF(error);
            throw py::error_already_set();
        }
        // By hand, and not by PyTuple_Pack: a rejection is mostly the making of its error.
        PyObject* const args = PyTuple_New(5);
        if (args == nullptr) {
            Py_DECREF(error);
            throw py::error_already_set();
        }
        PyTuple_SET_ITEM(args, 0, Py_NewRef(breaker.name()));
        PyTuple_SET_ITEM(args, 1, seconds.release().ptr());
        PyTuple_SET_ITEM(args, 2, Py_NewRef(reason));
        PyTuple_SET_ITEM(args, 3, Py_NewRef(circuit_state));
        PyTuple_SET_ITEM(args, 4, details.release().ptr());
        reinterpret_cast<PyBaseExceptionObject*>(error)->args = args;
        put_exception(error);
    } catch (py::error_already_set& error) {
        error.restore();
    }
}

}  // namespace memguard
