// The breaker's cold API. Values were validated in Python.
#include <cmath>  // std::llround

#include "breaker.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

std::int64_t to_ns(double seconds) {
    return static_cast<std::int64_t>(std::llround(seconds * static_cast<double>(kNsPerSecond)));
}

double to_seconds(std::int64_t ns) {
    return static_cast<double>(ns) / kNsPerSecond;
}

std::unique_ptr<Breaker> make_breaker(py::str name, std::int64_t failure_threshold,
                                      double reset_timeout, double max_reset_timeout,
                                      double probe_timeout, std::shared_ptr<ManualClock> clock) {
    BreakerConfig config;
    config.failure_threshold = failure_threshold;
    config.reset_timeout_ns = to_ns(reset_timeout);
    config.max_reset_timeout_ns = to_ns(max_reset_timeout);
    config.probe_timeout_ns = to_ns(probe_timeout);
    return std::make_unique<Breaker>(std::move(name), config, std::move(clock));
}

const char* state_name(const Breaker& breaker) {
    switch (breaker.cell.phase(breaker.now_ns())) {
    case Phase::closed:
        return "closed";
    case Phase::open:
        return "open";
    case Phase::half_open:
        break;
    }
    return "half_open";
}

void trip_now(const py::object& self) {
    auto& breaker = self.cast<Breaker&>();
    breaker.cell.trip(breaker.now_ns());
    breaker.record_opening(self, nullptr);
}

}  // namespace

void bind_breaker(py::module_& m) {
    py::class_<ManualClock, std::shared_ptr<ManualClock>>(
        m, "ManualClock", "A clock for tests: it stands still until advanced.")
        .def(py::init([](double start) { return std::make_shared<ManualClock>(to_ns(start)); }),
             py::arg("start") = 0.0)
        .def(
            "advance", [](ManualClock& clock, double by) { clock.advance(to_ns(by)); },
            py::arg("seconds"), "Move on by so many seconds.")
        .def(
            "now", [](const ManualClock& clock) { return to_seconds(clock.now_ns()); }, "Seconds.");

    py::class_<Breaker>(m, "Breaker", "The native half of a CircuitBreaker.")
        .def(py::init(&make_breaker), py::kw_only(), py::arg("name"), py::arg("failure_threshold"),
             py::arg("reset_timeout"), py::arg("max_reset_timeout"), py::arg("probe_timeout"),
             py::arg("clock").none(true), "Times in seconds. `clock` None: the monotonic clock.")
        .def("state", &state_name, "\"closed\", \"open\" or \"half_open\"; consumes no probe.")
        .def(
            "retry_after",
            [](const Breaker& b) { return to_seconds(b.cell.retry_after_ns(b.now_ns())); },
            "Seconds until a call may be admitted; 0.0 if one may now.")
        .def(
            "failure_count", [](const Breaker& b) { return b.cell.failure_count(); },
            "Failures in a row, failed probes included.")
        .def("trip", &trip_now, "Open now.")
        .def(
            "reset", [](Breaker& b) { b.cell.reset(); }, "Close now.")
        .def(
            "after_fork", [](Breaker& b) { b.cell.after_fork(); },
            "In a forked child: give up the parent's probes.");
}

}  // namespace memguard
