// The breaker's cold API. Values were validated in Python.
#include <pybind11/stl.h>  // std::optional, std::string

#include <array>     // std::array
#include <cmath>     // std::llround
#include <optional>  // std::optional
#include <string>    // std::string

#include "breaker.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

std::int64_t to_ns(double seconds) {
    return static_cast<std::int64_t>(std::llround(seconds * static_cast<double>(kNsPerSecond)));
}

// What a user says to a clock; 30 years either way, so that no sum of them overflows.
std::int64_t checked_ns(double seconds) {
    if (!(std::abs(seconds) <= 1e9)) {
        throw py::value_error(
            py::str("seconds must be a number from -1e9 to 1e9, got {!r}").format(seconds));
    }
    return to_ns(seconds);
}

double to_seconds(std::int64_t ns) {
    return static_cast<double>(ns) / kNsPerSecond;
}

// None becomes a null object.
py::object or_null(const py::object& object) {
    return object.is_none() ? py::object{} : object;
}

Jitter jitter_mode_of(const std::string& name) {
    return name == "full" ? Jitter::full : name == "equal" ? Jitter::equal : Jitter::spread;
}

struct Settings {
    std::optional<std::int64_t> failure_threshold;
    double reset_timeout, max_reset_timeout, probe_timeout;
    std::uint32_t success_threshold, half_open_max;
    bool lost_probe_fails;
    double backoff_factor, jitter;
    std::string jitter_mode;
};

BreakerConfig to_config(const Settings& given) {
    BreakerConfig config;
    config.failure_threshold = given.failure_threshold.value_or(kNoThreshold);
    config.reset_timeout_ns = to_ns(given.reset_timeout);
    config.max_reset_timeout_ns = to_ns(given.max_reset_timeout);
    config.probe_timeout_ns = to_ns(given.probe_timeout);
    config.success_threshold = given.success_threshold;
    config.half_open_max = given.half_open_max;
    config.lost_probe_fails = given.lost_probe_fails;
    config.backoff_factor = given.backoff_factor;
    config.jitter = given.jitter;
    config.jitter_mode = jitter_mode_of(given.jitter_mode);
    return config;
}

// Rates as None where there is no such rule.
WindowConfig to_window_config(std::optional<double> failure_rate, std::optional<double> slow_rate,
                              std::optional<double> slow_call_duration, std::uint32_t count_window,
                              std::optional<double> time_window, std::uint32_t minimum_calls) {
    WindowConfig config;
    config.failure_rate = failure_rate.value_or(0.0);
    config.slow_rate = slow_rate.value_or(0.0);
    config.slow_call_ns = slow_rate ? to_ns(slow_call_duration.value_or(0.0)) : 0;
    config.count_window = count_window;
    config.time_window_ns = to_ns(time_window.value_or(0.0));
    config.minimum_calls = minimum_calls;
    return config;
}

std::unique_ptr<Breaker>
make_breaker(py::str name, std::optional<std::int64_t> failure_threshold, double reset_timeout,
             double max_reset_timeout, double probe_timeout, std::uint32_t success_threshold,
             std::uint32_t half_open_max, bool lost_probe_fails, double backoff_factor,
             double jitter, std::string jitter_mode, const WindowConfig& rates,
             const py::object& classify, const py::object& classify_result,
             const py::object& reopen_after, const py::object& fallback, const py::object& on_event,
             bool count_base_exceptions, std::shared_ptr<ManualClock> clock,
             std::shared_ptr<EventQueue> events) {
    const BreakerConfig config = to_config(
        {failure_threshold, reset_timeout, max_reset_timeout, probe_timeout, success_threshold,
         half_open_max, lost_probe_fails, backoff_factor, jitter, std::move(jitter_mode)});
    Outcomes outcomes{or_null(classify), or_null(classify_result), or_null(reopen_after),
                      or_null(fallback), or_null(on_event),        count_base_exceptions};
    return std::make_unique<Breaker>(std::move(name), config, rates, std::move(outcomes),
                                     std::move(clock), std::move(events));
}

const char* state_name(const Breaker& breaker) {
    return name_of(breaker.cell.phase(breaker.now_ns()));
}

// What opens by hand: no exception tells why.
void record_by_hand(Breaker& breaker, const py::object& self, const Transition& done) {
    if (done.after.phase() == Phase::open || done.after.phase() == Phase::forced_open) {
        breaker.record_opening(self, nullptr, done.event);
    }
    breaker.tell(done);
}

void trip_now(const py::object& self, std::optional<double> retry_after) {
    auto& breaker = self.cast<Breaker&>();
    const std::int64_t told_ns = retry_after ? to_ns(*retry_after) : kConfiguredWait;
    const Transition done = breaker.cell.trip(breaker.now_ns(), told_ns);
    if (done.is_news()) {
        record_by_hand(breaker, self, done);
    }
}

// In milliseconds of the breaker's clock, rounded up; none: never.
std::int64_t end_ms(const Breaker& breaker, std::optional<double> seconds) {
    return seconds ? ceil_div(breaker.now_ns() + to_ns(*seconds), kNsPerMs) : Word::kNoEnd;
}

void force_open_now(const py::object& self, std::optional<double> seconds) {
    auto& breaker = self.cast<Breaker&>();
    record_by_hand(breaker, self, breaker.cell.force_open(end_ms(breaker, seconds)));
}

py::dict snapshot_of(const py::object& self) {
    auto& breaker = self.cast<Breaker&>();
    const Word word = breaker.cell.load();
    const Totals totals = breaker.cell.totals();
    const bool half_open = word.phase() == Phase::half_open;
    py::dict found;
    found["state"] = state_name(breaker);
    found["generation"] = breaker.cell.widened(word);
    found["failure_count"] = breaker.cell.failure_count();
    found["retry_after"] = to_seconds(breaker.cell.retry_after_ns(breaker.now_ns()));
    found["probes_in_flight"] = half_open ? word.in_flight() : 0;
    found["probe_successes"] = half_open ? word.successes() : 0;
    found["failures"] = totals.failures;
    found["neutrals"] = totals.neutrals;
    found["rejections"] = totals.rejections;
    found["stale"] = totals.stale;
    found["transitions"] = totals.transitions;
    const Windows* const windows = breaker.cell.windows();
    const WindowCounts counts = windows != nullptr ? windows->counts() : WindowCounts{};
    found["window_calls"] = counts.calls;
    found["window_failures"] = counts.failures;
    found["window_slow"] = counts.slow;
    found["details"] = breaker.details(self);
    return found;
}

// (events, next position, lost, unfinished)
py::tuple read_events(const EventQueue& queue, std::uint64_t after, bool skip) {
    std::array<BreakerEvent, 64> events;
    const auto done = queue.ring().read(after, events.data(), events.size(), skip);
    py::list found;
    for (std::size_t i = 0; i < done.count; ++i) {
        found.append(to_tuple(events[i]));
    }
    return py::make_tuple(found, done.next, done.lost, done.unfinished);
}

// The user's callables may lead back to the breaker, so the garbage collector must see them.
void show_to_collector(PyHeapTypeObject* heap_type) {
    PyTypeObject* const type = &heap_type->ht_type;
    type->tp_flags |= Py_TPFLAGS_HAVE_GC;
    type->tp_traverse = [](PyObject* self, visitproc visit, void* arg) -> int {
        Py_VISIT(Py_TYPE(self));
        if (py::detail::is_holder_constructed(self)) {
            const Outcomes& outcomes = py::cast<Breaker&>(py::handle(self)).outcomes;
            Py_VISIT(outcomes.classify.ptr());
            Py_VISIT(outcomes.classify_result.ptr());
            Py_VISIT(outcomes.reopen_after.ptr());
            Py_VISIT(outcomes.fallback.ptr());
            Py_VISIT(outcomes.on_event.ptr());
        }
        return 0;
    };
    type->tp_clear = [](PyObject* self) -> int {
        if (py::detail::is_holder_constructed(self)) {
            py::cast<Breaker&>(py::handle(self)).outcomes = Outcomes{};
        }
        return 0;
    };
}

}  // namespace

void bind_breaker(py::module_& m) {
    py::class_<ManualClock, std::shared_ptr<ManualClock>>(
        m, "ManualClock", "A clock for tests: it stands still until advanced.")
        .def(
            py::init([](double start) { return std::make_shared<ManualClock>(checked_ns(start)); }),
            py::arg("start") = 0.0)
        .def(
            "advance", [](ManualClock& clock, double by) { clock.advance(checked_ns(by)); },
            py::arg("seconds"), "Move on by so many seconds.")
        .def(
            "now", [](const ManualClock& clock) { return to_seconds(clock.now_ns()); }, "Seconds.");

    py::class_<EventQueue, std::shared_ptr<EventQueue>>(
        m, "EventQueue", "The transitions of breakers, until somebody reads them.")
        .def(py::init<py::object>(), py::arg("wake"),
             "`wake()` is called when there is something to read, and not again before arm().")
        .def("arm", &EventQueue::arm, "Ask to be woken by the next event; then read.")
        .def(
            "pushed", [](const EventQueue& queue) { return queue.ring().pushed(); },
            "How many events there ever were.")
        .def("read", &read_events, py::kw_only(), py::arg("after"), py::arg("skip"),
             "(events, position to go on from, events lost, whether it stopped at one that is "
             "being written); `skip` leaves such a one out.");

    py::class_<WindowConfig>(m, "Rates", "The rate rules of a Breaker and their windows.")
        .def(py::init(&to_window_config), py::kw_only(), py::arg("failure_rate").none(true),
             py::arg("slow_rate").none(true), py::arg("slow_call_duration").none(true),
             py::arg("count_window"), py::arg("time_window").none(true), py::arg("minimum_calls"),
             "Shares from 0 to 1, times in seconds; None: no such rule, no such window.");

    py::class_<Breaker>(m, "Breaker", "The native half of a CircuitBreaker.",
                        py::custom_type_setup(show_to_collector))
        .def(py::init(&make_breaker), py::kw_only(), py::arg("name"),
             py::arg("failure_threshold").none(true), py::arg("reset_timeout"),
             py::arg("max_reset_timeout"), py::arg("probe_timeout"), py::arg("success_threshold"),
             py::arg("half_open_max"), py::arg("lost_probe_fails"), py::arg("backoff_factor"),
             py::arg("jitter"), py::arg("jitter_mode"), py::arg("rates"),
             py::arg("classify").none(true), py::arg("classify_result").none(true),
             py::arg("reopen_after").none(true), py::arg("fallback").none(true),
             py::arg("on_event").none(true), py::arg("count_base_exceptions"),
             py::arg("clock").none(true), py::arg("events").none(false),
             "Times in seconds. `clock` None: the monotonic clock.")
        .def("state", &state_name, "The State's name as a call would meet it; consumes no probe.")
        .def(
            "retry_after",
            [](const Breaker& b) { return to_seconds(b.cell.retry_after_ns(b.now_ns())); },
            "Seconds until a call may be admitted; 0.0 if one may now.")
        .def(
            "failure_count", [](const Breaker& b) { return b.cell.failure_count(); },
            "Failures in a row, failed probes included.")
        .def("snapshot", &snapshot_of, "Everything that is known now, by name.")
        .def_property_readonly("id", &Breaker::id, "The breaker's number in its events.")
        .def("trip", &trip_now, py::arg("retry_after").none(true),
             "Open now, for so many seconds; None: the configured wait.")
        .def("force_open", &force_open_now, py::arg("seconds").none(true),
             "Reject every call for so many seconds; None: until released.")
        .def(
            "disable",
            [](Breaker& b, std::optional<double> seconds) {
                b.tell(b.cell.disable(end_ms(b, seconds)));
            },
            py::arg("seconds").none(true), "Admit every call, count none; None: until released.")
        .def(
            "release", [](Breaker& b) { b.tell(b.cell.release(b.now_ns())); },
            "Give control back to the rules.")
        .def(
            "reset", [](Breaker& b) { b.tell(b.cell.reset(b.now_ns())); }, "Close now.")
        .def(
            "after_fork",
            [](Breaker& b, std::uint64_t pid) {
                b.cell.after_fork(pid << 32 ^ static_cast<std::uint64_t>(monotonic_ns()));
            },
            py::arg("pid"), "In a forked child: give up the parent's probes, draw other waits.");
}

}  // namespace memguard
