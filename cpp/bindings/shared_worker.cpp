// What a worker of a supervisor tells in its slot of a segment, for Python. Everything here can be
// called ten times a second.
#include <pybind11/stl.h>  // std::optional

#include <optional>  // std::optional
#include <string>    // std::string

#include "seconds.hpp"
#include "segment_handle.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

bool begin_worker(const SegmentHandle& handle, std::uint64_t number,
                  std::optional<std::size_t> predecessor) {
    return with_slot(handle, [&](WorkerSlot& slot) {
        std::optional<SharedWorker::Predecessor> before;
        if (predecessor) {
            const std::uint64_t claim =
                handle.segment().claim_of(checked_index(*predecessor, kSlots));
            // The slot of one that has ended may have come to this process itself.
            before = {*predecessor, *predecessor == handle.row() ? claim - 1 : claim};
        }
        slot.worker.begin_worker(number, before);
    });
}

bool set_worker_state(const SegmentHandle& handle, const std::string& state) {
    const auto now = static_cast<WorkerState>(code_of(kWorkerStates, "state", state) + 1);
    return with_slot(handle, [&](WorkerSlot& slot) { slot.worker.set_state(now, wall_ns()); });
}

bool beat_loop(const SegmentHandle& handle) {
    return with_slot(handle, [](WorkerSlot& slot) {
        // relaxed: its age is looked at, and it orders nothing
        slot.worker.loop_heartbeat_ns.store(monotonic_ns(), std::memory_order_relaxed);
    });
}

bool tell_work(const SegmentHandle& handle, std::uint64_t requests, std::uint64_t in_flight,
               std::uint64_t connections, std::uint64_t inputs, std::uint64_t tokens) {
    return with_slot(handle, [&](WorkerSlot& slot) {
        raise_counter(slot.requests, slot.requests_base, requests);
        raise_counter(slot.worker.inputs, slot.worker.inputs_base, inputs);
        raise_counter(slot.worker.tokens, slot.worker.tokens_base, tokens);
        // relaxed, both: each is read for itself
        slot.requests_in_flight.store(in_flight, std::memory_order_relaxed);
        slot.worker.connections.store(connections, std::memory_order_relaxed);
    });
}

bool tell_memory(const SegmentHandle& handle, std::uint64_t private_bytes,
                 std::uint64_t own_bytes) {
    return with_slot(handle, [&](WorkerSlot& slot) {
        // relaxed, both: each is read for itself
        slot.worker.private_bytes.store(private_bytes, std::memory_order_relaxed);
        slot.worker.own_bytes.store(own_bytes, std::memory_order_relaxed);
    });
}

bool tell_forecast(const SegmentHandle& handle, std::optional<double> seconds) {
    if (seconds && !(*seconds >= 0.0)) {  // also a NaN
        throw py::value_error("seconds must be >= 0");
    }
    return with_slot(handle, [&](WorkerSlot& slot) {
        // relaxed: for people and supervisors, and orders nothing
        slot.worker.forecast_deadline_ns.store(seconds ? monotonic_ns() + clamped_ns(*seconds) : 0,
                                               std::memory_order_relaxed);
    });
}

// Seconds from `earlier_ns` to `later_ns`; None if `known_ns`, one of them, is 0.
std::optional<double> seconds_between(std::int64_t earlier_ns, std::int64_t later_ns,
                                      std::int64_t known_ns) {
    return known_ns == 0 ? std::nullopt
                         : std::optional{to_seconds(difference_ns(later_ns, earlier_ns))};
}

py::object predecessor_of(const SharedWorker& worker) {
    const std::uint64_t slot_plus_1 = value_of(worker.predecessor_plus_1);
    if (slot_plus_1 == 0 || slot_plus_1 > kSlots) {
        return py::none();
    }
    py::dict found;
    found["slot"] = slot_plus_1 - 1;
    found["generation"] = value_of(worker.predecessor_claim);
    return found;
}

}  // namespace

void show_worker(py::dict& found, const SharedWorker& worker) {
    const WorkerState state = worker.read_state();
    const std::uint64_t number_plus_1 = value_of(worker.number_plus_1);
    const std::uint64_t private_bytes = value_of(worker.private_bytes);
    // relaxed, all: shown
    const std::int64_t beat_ns = worker.loop_heartbeat_ns.load(std::memory_order_relaxed);
    const std::int64_t deadline_ns = worker.forecast_deadline_ns.load(std::memory_order_relaxed);
    const std::int64_t ready_ns = worker.ready_wall_ns.load(std::memory_order_relaxed);
    const std::int64_t now_ns = monotonic_ns();
    const auto known = [](bool is_known, std::uint64_t value) {
        return is_known ? std::optional{value} : std::nullopt;
    };
    found["number"] = known(number_plus_1 != 0, number_plus_1 - 1);
    found["state"] = state == WorkerState::none
                         ? py::object{py::none()}
                         : py::object{py::str(kWorkerStates[static_cast<std::size_t>(state) - 1])};
    found["predecessor"] = predecessor_of(worker);
    found["ready_since"] = ready_ns == 0 ? std::nullopt : std::optional{to_seconds(ready_ns)};
    found["loop_heartbeat_age"] = seconds_between(beat_ns, now_ns, beat_ns);
    found["connections"] = value_of(worker.connections);
    found["inputs"] = value_of(worker.inputs) - value_of(worker.inputs_base);
    found["tokens"] = value_of(worker.tokens) - value_of(worker.tokens_base);
    found["private_bytes"] = known(private_bytes != 0, private_bytes);
    found["own_bytes"] = known(private_bytes != 0, value_of(worker.own_bytes));
    found["forecast_seconds"] = seconds_between(now_ns, deadline_ns, deadline_ns);
    found["is_over_ceiling"] = value_of(worker.is_over_ceiling) != 0;
}

void add_worker_fields(py::class_<SegmentHandle>& segment) {
    segment
        .def("begin_worker", &begin_worker, py::arg("number"), py::kw_only(),
             py::arg("predecessor") = py::none(),
             "This process is a worker, starting, and relieves the one of that slot; False without "
             "a slot.")
        .def("set_worker_state", &set_worker_state, py::arg("state"),
             "starting, warming, ready, draining or ended; False without a slot.")
        .def("beat_loop", &beat_loop, "The event loop runs; False without a slot.")
        .def("tell_work", &tell_work, py::kw_only(), py::arg("requests"), py::arg("in_flight"),
             py::arg("connections"), py::arg("inputs"), py::arg("tokens"),
             "What this process has done so far, and has in hand; False without a slot.")
        .def("tell_memory", &tell_memory, py::kw_only(), py::arg("private_bytes"),
             py::arg("own_bytes"), "The memory of this process now; False without a slot.")
        .def("tell_forecast", &tell_forecast, py::arg("seconds"),
             "When memory may meet its limit, None: no forecast; False without a slot.");
}

}  // namespace memguard
