// What is told of a transition: names, events, and why a circuit opened.
#include "asking.hpp"
#include "breaker.hpp"
#include "memguard/process.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

constexpr Py_ssize_t kMaxErrorText = 160;

// Whether the text of an exception is made without a stranger's code.
bool has_plain_text(PyObject* exception) noexcept {
    if (PyExceptionInstance_Check(exception) == 0) {
        return false;
    }
    const auto* const base = reinterpret_cast<PyTypeObject*>(PyExc_BaseException);
    PyObject* const args = reinterpret_cast<PyBaseExceptionObject*>(exception)->args;
    const bool is_plain_type = Py_TYPE(exception)->tp_str == base->tp_str && args != nullptr;
    return is_plain_type &&
           (PyTuple_GET_SIZE(args) == 0 ||
            (PyTuple_GET_SIZE(args) == 1 && PyUnicode_CheckExact(PyTuple_GET_ITEM(args, 0)) != 0));
}

// (type name, text) of an exception. Its __str__ may be a stranger's code, which may fail or be
// long; `with_text` false leaves it out.
py::object describe(PyObject* exception, bool with_text) {
    const auto type = py::reinterpret_steal<py::object>(PyType_GetName(Py_TYPE(exception)));
    py::object text = py::str("");
    if (with_text) {
        text = py::reinterpret_steal<py::object>(PyObject_Str(exception));
        if (!text) {
            if (PyErr_ExceptionMatches(PyExc_Exception) != 0) {
                PyErr_Clear();
            } else {
                hand_over(exception);
            }
            text = py::str("");
        } else if (PyUnicode_GET_LENGTH(text.ptr()) > kMaxErrorText) {
            text = py::reinterpret_steal<py::object>(
                PyUnicode_Substring(text.ptr(), 0, kMaxErrorText));
        }
    }
    if (!type || !text) {
        throw py::error_already_set();
    }
    return py::make_tuple(type, text);
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

const char* name_of(Event event) noexcept {
    switch (event) {
    case Event::consecutive_failures:
        return "consecutive_failures";
    case Event::failure_rate:
        return "failure_rate";
    case Event::slow_rate:
        return "slow_rate";
    case Event::custom:
        return "custom";
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
    case Event::reconfigured:
        return "reconfigured";
    default:
        return "manual";
    }
}

py::tuple to_tuple(const BreakerEvent& event, const py::object& detail) {
    return py::make_tuple(event.breaker_id, event.generation, event.at_ns, event.wall_ns,
                          name_of(event.from()), name_of(event.to()), name_of(event.reason()),
                          event.is_shadow(), event.pid(), detail);
}

py::object text_of(std::string_view bytes) {
    auto text = py::reinterpret_steal<py::object>(
        PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "replace"));
    if (!text) {
        throw py::error_already_set();
    }
    return text;
}

py::object details_of(const Note& note) {
    const py::object last_error =
        note.error_type.empty()
            ? py::object{py::none()}
            : py::object{py::make_tuple(text_of(note.error_type), text_of(note.error_text))};
    return py::make_tuple(note.failure_count, static_cast<double>(note.wall_ns) / kNsPerSecond,
                          last_error, name_of(note.reason),
                          note.detail.empty() ? py::object{py::none()} : text_of(note.detail));
}

py::object Breaker::details(py::handle self) const {
    if (place_.is_shared()) {
        return shared_details(self);
    }
    const py::scoped_critical_section lock{self};
    return details_;
}

void Breaker::announce(py::handle self, const Transition& done, PyObject* exception,
                       const py::object& detail) noexcept {
    if (!done.is_news()) {
        return;
    }
    // First what runs no Python of anybody's: events are told in the order of the transitions.
    const Policy& rules = policy();
    const BreakerEvent event = to_event(done, rules);
    const bool is_given_back = done.before.phase() == Phase::forced_open;
    const bool is_opening =
        (done.opened() && !is_given_back) || done.after.phase() == Phase::forced_open;
    const bool is_plain = exception == nullptr || has_plain_text(exception);
    if (place_.is_shared()) {  // first, as others read it by the event
        record(self, event, is_opening, exception, is_plain, detail);
    }
    push(event, detail);
    if (!place_.is_shared() && is_opening) {
        record(self, event, is_opening, exception, is_plain, detail);
    }
    events_->wake();
    tell_inline(rules, event, detail);
    if (is_opening && !is_plain) {
        record(self, event, is_opening, exception, true, detail);
    }
}

void Breaker::push(const BreakerEvent& event, const py::object& detail) noexcept {
    if (!place_.is_shared()) {
        events_->push(event, detail);
        return;
    }
    BreakerEvent shared = event;
    shared.breaker_id = place_.index;
    place_.handle->segment().events().push(shared);
}

void Breaker::announce_other_rules() noexcept {
    const Word word = cell.load();
    const Policy& rules = policy();
    const BreakerEvent event = to_event({word, word, Event::reconfigured}, rules);
    push(event, {});
    events_->wake();
    tell_inline(rules, event, {});
}

BreakerEvent Breaker::to_event(const Transition& done, const Policy& rules) noexcept {
    return {id_, cell.widen_new(done.after), now_ns(), wall_ns(),
            BreakerEvent::pack(done.before.phase(), done.after.phase(), done.event,
                               rules.config().enforce <= 0.0, current_pid())};
}

void Breaker::tell_inline(const Policy& rules, const BreakerEvent& event,
                          const py::object& detail) noexcept {
    if (!rules.outcomes.on_event) {
        return;
    }
    const py::object listener = rules.outcomes.on_event;  // the call may clear what holds it
    try {
        listener(to_tuple(event, detail ? detail : py::none()));
    } catch (py::error_already_set& error) {
        error.restore();
        hand_over(listener.ptr());
    }
}

void Breaker::record(py::handle self, const BreakerEvent& event, bool is_opening,
                     PyObject* exception, bool with_text, const py::object& detail) noexcept {
    try {
        const py::object last_error =
            exception != nullptr ? describe(exception, with_text) : py::none();
        if (place_.is_shared()) {
            write_note(event, is_opening, last_error, detail);
            return;
        }
        py::object details =
            py::make_tuple(cell.failure_count(), static_cast<double>(event.wall_ns) / kNsPerSecond,
                           last_error, name_of(event.reason()), detail ? detail : py::none());
        const py::scoped_critical_section lock{self};
        if (event.generation >= details_generation_) {  // else a newer opening was faster
            details_generation_ = event.generation;
            std::swap(details_, details);  // the old one is released after the lock
        }
    } catch (py::error_already_set& error) {
        error.discard_as_unraisable("memguard_native: describing why a circuit opened");
    }
}

}  // namespace memguard
