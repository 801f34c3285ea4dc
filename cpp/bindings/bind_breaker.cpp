// The breaker's cold API. Values were validated in Python.
#include <pybind11/stl.h>  // std::optional

#include <array>     // std::array
#include <cmath>     // std::llround
#include <optional>  // std::optional
#include <string>    // std::string

#include "asking.hpp"
#include "breaker.hpp"
#include "snapshot.hpp"

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

// None becomes a null object.
py::object or_null(const py::object& object) {
    return object.is_none() ? py::object{} : object;
}

Jitter jitter_mode_of(const std::string& name) {
    return name == "full" ? Jitter::full : name == "equal" ? Jitter::equal : Jitter::spread;
}

// The rules of a breaker from what Python gives; None and False where there is no such rule.
std::unique_ptr<Policy> make_policy(const py::kwargs& given) {
    auto policy = std::make_unique<Policy>();
    const auto seconds_ns = [&](const char* name) {
        return given[name].is_none() ? 0 : to_ns(given[name].cast<double>());
    };
    const auto rate = [&](const char* name) {
        return given[name].is_none() ? 0.0 : given[name].cast<double>();
    };
    BreakerConfig& config = policy->rules.config;
    config.failure_threshold = given["failure_threshold"].is_none()
                                   ? kNoThreshold
                                   : given["failure_threshold"].cast<std::int64_t>();
    config.reset_timeout_ns = seconds_ns("reset_timeout");
    config.max_reset_timeout_ns = seconds_ns("max_reset_timeout");
    config.probe_timeout_ns = seconds_ns("probe_timeout");
    config.success_threshold = given["success_threshold"].cast<std::uint32_t>();
    config.half_open_max = given["half_open_max"].cast<std::uint32_t>();
    config.lost_probe_fails = given["lost_probe_fails"].cast<bool>();
    config.backoff_factor = given["backoff_factor"].cast<double>();
    config.jitter = given["jitter"].cast<double>();
    config.jitter_mode = jitter_mode_of(given["jitter_mode"].cast<std::string>());
    config.lump_interval_ns = seconds_ns("lump_interval");
    config.enforce = given["enforce"].cast<double>();
    config.enforce_by_auto = given["enforce_by_auto"].cast<double>();
    config.has_active_probe = given["has_active_probe"].cast<bool>();
    config.monitor_interval_ns = seconds_ns("monitor_interval");
    config.max_in_flight =
        given["max_in_flight"].is_none() ? 0 : given["max_in_flight"].cast<std::uint64_t>();
    WindowConfig& rates = policy->rules.rates;
    rates.count_calls = given["count_calls"].cast<bool>();
    rates.failure_rate = rate("failure_rate");
    rates.slow_rate = rate("slow_rate");
    rates.slow_call_ns = rates.slow_rate > 0.0 ? seconds_ns("slow_call_duration") : 0;
    rates.count_window = given["count_window"].cast<std::uint32_t>();
    rates.time_window_ns = seconds_ns("time_window");
    rates.minimum_calls = given["minimum_calls"].cast<std::uint32_t>();
    Outcomes& outcomes = policy->outcomes;
    outcomes.classify = or_null(given["classify"]);
    outcomes.classify_result = or_null(given["classify_result"]);
    outcomes.reopen_after = or_null(given["reopen_after"]);
    outcomes.backoff = or_null(given["backoff"]);
    outcomes.trip_on_failure = or_null(given["trip_on_failure"]);
    outcomes.trip_on_verdict = or_null(given["trip_on_verdict"]);
    outcomes.trip_on_admission = or_null(given["trip_on_admission"]);
    outcomes.fallback = or_null(given["fallback"]);
    outcomes.on_event = or_null(given["on_event"]);
    outcomes.count_base_exceptions = given["count_base_exceptions"].cast<bool>();
    return policy;
}

SharedPlace checked_place(py::object segment, std::size_t index) {
    auto& handle = segment.cast<SegmentHandle&>();
    if (!handle.is_writable() || index >= kSharedBreakers) {
        throw py::value_error("a breaker needs a writable segment, and a place in it");
    }
    return {std::move(segment), &handle, index};
}

std::unique_ptr<Breaker> make_breaker(py::str name, py::object policy,
                                      std::shared_ptr<ManualClock> clock,
                                      bool counts_suspended_time,
                                      std::shared_ptr<EventQueue> events, py::object segment,
                                      std::size_t index) {
    if (!py::isinstance<Policy>(policy)) {
        throw py::type_error("policy must be a _core.Policy");
    }
    SharedPlace place =
        segment.is_none() ? SharedPlace{} : checked_place(std::move(segment), index);
    return std::make_unique<Breaker>(std::move(name), std::move(policy), std::move(clock),
                                     counts_suspended_time, std::move(events), std::move(place));
}

CellView view_of(const Breaker& breaker) {
    return {breaker.cell, breaker.policy().rules, breaker.now_ns()};
}

void adopt(Breaker& breaker, py::object policy) {
    if (!py::isinstance<Policy>(policy)) {
        throw py::type_error("policy must be a _core.Policy");
    }
    breaker.adopt(std::move(policy));
}

void trip_now(const py::object& self, std::optional<double> retry_after, const py::object& reason) {
    auto& breaker = self.cast<Breaker&>();
    const Policy& policy = breaker.policy();
    const AskedWait asked = retry_after ? AskedWait{to_ns(*retry_after)}
                                        : ask_backoff(policy, breaker.cell.step(), nullptr);
    const Transition done = breaker.cell.trip(policy.rules, breaker.now_ns(), asked);
    breaker.announce(self, done, nullptr, or_null(reason));
}

// In milliseconds of the breaker's clock, rounded up; none: never.
std::int64_t end_ms(const Breaker& breaker, std::optional<double> seconds) {
    return seconds ? ceil_div(breaker.now_ns() + to_ns(*seconds), kNsPerMs) : Word::kNoEnd;
}

void force_open_now(const py::object& self, std::optional<double> seconds,
                    const py::object& reason) {
    auto& breaker = self.cast<Breaker&>();
    const std::int64_t end = end_ms(breaker, seconds);
    const Transition done = breaker.cell.force_open(end, breaker.now_ns());
    breaker.announce(self, done, nullptr, or_null(reason));
}

void disable_now(const py::object& self, std::optional<double> seconds, const py::object& reason) {
    auto& breaker = self.cast<Breaker&>();
    const std::int64_t end = end_ms(breaker, seconds);
    const Transition done = breaker.cell.disable(end, breaker.now_ns());
    breaker.announce(self, done, nullptr, or_null(reason));
}

void release_now(const py::object& self) {
    auto& breaker = self.cast<Breaker&>();
    breaker.announce(self, breaker.cell.release(breaker.policy().rules, breaker.now_ns()));
}

void reset_now(const py::object& self) {
    auto& breaker = self.cast<Breaker&>();
    breaker.announce(self, breaker.cell.reset(breaker.policy().rules, breaker.now_ns()));
}

// (rejections, slow calls, stale results) ever.
py::tuple counters_of(const Breaker& breaker) {
    const Totals totals = breaker.cell.statistics().totals(breaker.now_ns());
    return py::make_tuple(totals.rejections, totals.slow, totals.stale);
}

py::dict snapshot_now(const py::object& self) {
    const auto& breaker = self.cast<const Breaker&>();
    py::dict found = snapshot_of(view_of(breaker), breaker.details(self));
    found["scope"] = breaker.place().is_shared() ? "host" : "local";
    if (breaker.policy().is_recording()) {
        found["successes"] = breaker.successes();  // also those under other rules
    }
    return found;
}

py::object publish(Breaker& breaker) {
    const std::optional<SharedNumbers> before = breaker.publish();
    return before ? to_dict(*before) : py::object{py::none()};
}

// Whether the active probe is to run now.
bool is_probe_due(const Breaker& breaker) {
    const BreakerConfig& config = breaker.policy().config();
    const Admission next =
        admit(breaker.cell.load(), config, breaker.now_ns(), kConfiguredWait, Asker::prober);
    const bool may_probe =
        next.decision == Decision::admitted && next.next.phase() == Phase::half_open;
    // A lost probe that counts as a failure is found by whoever asks first.
    return config.has_active_probe && (may_probe || next.event == Event::probe_lost);
}

// (events, next position, lost, unfinished)
py::tuple read_events(EventQueue& queue, std::uint64_t after, bool skip) {
    std::array<BreakerEvent, 64> events;
    const auto done = queue.ring().read(after, events.data(), events.size(), skip);
    py::list found;
    for (std::size_t i = 0; i < done.count; ++i) {
        found.append(to_tuple(events[i], queue.take_detail(events[i])));
    }
    return py::make_tuple(found, done.next, done.lost, done.unfinished);
}

// The user's callables may lead back to the breaker, so the garbage collector must see them.
void show_policy_to_collector(PyHeapTypeObject* heap_type) {
    PyTypeObject* const type = &heap_type->ht_type;
    type->tp_flags |= Py_TPFLAGS_HAVE_GC;
    type->tp_traverse = [](PyObject* self, visitproc visit, void* arg) -> int {
        Py_VISIT(Py_TYPE(self));
        int result = 0;
        if (py::detail::is_holder_constructed(self)) {
            py::cast<Policy&>(py::handle(self)).outcomes.each([&](const py::object& one) {
                if (one && result == 0) {
                    result = visit(one.ptr(), arg);
                }
            });
        }
        return result;
    };
    type->tp_clear = [](PyObject* self) -> int {
        if (py::detail::is_holder_constructed(self)) {
            py::cast<Policy&>(py::handle(self)).outcomes = Outcomes{};
        }
        return 0;
    };
}

void show_breaker_to_collector(PyHeapTypeObject* heap_type) {
    PyTypeObject* const type = &heap_type->ht_type;
    type->tp_flags |= Py_TPFLAGS_HAVE_GC;
    type->tp_traverse = [](PyObject* self, visitproc visit, void* arg) -> int {
        Py_VISIT(Py_TYPE(self));
        if (py::detail::is_holder_constructed(self)) {
            for (const py::object& policy : py::cast<Breaker&>(py::handle(self)).policies()) {
                Py_VISIT(policy.ptr());
            }
        }
        return 0;
    };
    // The policies stay, for guards that are called after the collector's clear; theirs is enough
    // to break every cycle.
    type->tp_clear = [](PyObject*) -> int { return 0; };
}

}  // namespace

void bind_breaker(py::module_& m, ModuleState& state) {
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

    py::class_<Policy>(m, "Policy", "The rules of a Breaker and the user's functions in them.",
                       py::custom_type_setup(show_policy_to_collector))
        .def(py::init(&make_policy));

    py::class_<Breaker> breaker(m, "Breaker", "The native half of a CircuitBreaker.",
                                py::custom_type_setup(show_breaker_to_collector));
    state.breaker_type = reinterpret_cast<PyTypeObject*>(py::object(breaker).release().ptr());
    breaker
        .def(py::init(&make_breaker), py::kw_only(), py::arg("name"), py::arg("policy"),
             py::arg("clock").none(true), py::arg("counts_suspended_time") = false,
             py::arg("events").none(false), py::arg("segment") = py::none(), py::arg("index") = 0,
             "`clock` None: the monotonic clock, or the one that counts suspended time as well. "
             "`segment`: a Segment, and the breaker's place in it; None: of this process.")
        .def(
            "publish", &publish,
            "Publish the numbers of the present rules to all processes; what was published before, "
            "if it was something else. Under the file's lock.")
        .def("follow", &Breaker::follow,
             "Adopt the numbers that were published last; whether they were news.")
        .def(
            "move",
            [](Breaker& b, py::object segment, std::size_t index) {
                if (!Breaker::kExclusive || !b.place().is_shared()) {
                    throw py::value_error("only a shared breaker can move, and only with a GIL");
                }
                b.move_to(checked_place(std::move(segment), index));
            },
            py::arg("segment"), py::arg("index"),
            "From now on lie there: the segment so far has lost its name. Needs the GIL.")
        .def_property_readonly("followed", &Breaker::followed,
                               "The version of the published numbers that apply here.")
        .def(
            "rules", [](const Breaker& b) { return to_dict(b.policy().numbers()); },
            "The numbers of the present rules, by name.")
        .def("adopt", &adopt, py::arg("policy"),
             "From now on calls go by these rules; those in flight go on by theirs. One thread at "
             "a time.")
        .def("announce_other_rules", &Breaker::announce_other_rules, "Tell the event of it.")
        .def(
            "state", [](const Breaker& b) { return state_name(view_of(b)); },
            "The State's name as a call would meet it; consumes no probe.")
        .def(
            "retry_after", [](const Breaker& b) { return retry_after(view_of(b)); },
            "Seconds until a call may be admitted; 0.0 if one may now.")
        .def(
            "failure_count", [](const Breaker& b) { return b.cell.failure_count(); },
            "Failures in a row, failed probes included.")
        .def(
            "now", [](const Breaker& b) { return to_seconds(b.now_ns()); },
            "Seconds of the breaker's clock.")
        .def("snapshot", &snapshot_now, "Everything that is known now, by name.")
        .def_property_readonly("id", &Breaker::id, "The breaker's number in its events.")
        .def("counters", &counters_of, "(rejections, slow calls, stale results) ever.")
        .def("is_probe_due", &is_probe_due, "Whether the active probe is to run now.")
        .def("trip", &trip_now, py::arg("retry_after").none(true), py::arg("reason").none(true),
             "Open now, for so many seconds; None: the configured wait.")
        .def("force_open", &force_open_now, py::arg("seconds").none(true),
             py::arg("reason").none(true),
             "Reject every call for so many seconds; None: until released.")
        .def("disable", &disable_now, py::arg("seconds").none(true), py::arg("reason").none(true),
             "Admit every call, count none; None: until released.")
        .def("release", &release_now, "Give control back to the rules.")
        .def("reset", &reset_now, "Close now.")
        .def("set_prober_is_stuck", &Breaker::set_prober_is_stuck, py::arg("is_stuck"),
             "Whether calls are to probe because the active probes hang.")
        .def(
            "after_fork",
            [](Breaker& b, std::uint64_t pid) {
                b.cell.after_fork(pid << 32 ^ static_cast<std::uint64_t>(monotonic_ns()));
                b.prober_came();  // the parent's thread that would is not here
            },
            py::arg("pid"), "In a forked child: give up the parent's probes, draw other waits.");
}

}  // namespace memguard
