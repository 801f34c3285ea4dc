// The slots of a segment for Python: who owns them, what this process says of itself, and what it
// leaves for its successor.
#include <pybind11/critical_section.h>
#include <pybind11/stl.h>  // std::optional

#include <optional>  // std::optional
#include <string>    // std::string

#include "memguard/process.hpp"
#include "segment_handle.hpp"
#include "snapshot.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

// What the owner of the slot, or the newest one before it that had something to tell, has learnt.
py::object learnt_of(const SegmentHandle& handle, std::size_t slot) {
    const auto found = handle.segment().slot(checked_index(slot, kSlots)).learnt.read();
    if (!found) {
        return py::none();
    }
    py::dict told;
    told["state"] = kLearntStates[static_cast<std::size_t>(found->state)];
    told["cause"] = kLearntCauses[static_cast<std::size_t>(found->cause)];
    told["rate_mb_per_hour"] = found->rate_mb_per_hour;
    told["mb_per_1000_requests"] = found->mb_per_1000_requests;
    told["mb_per_load"] = found->mb_per_load;
    told["baseline_mb"] = found->baseline_mb;
    told["retained_mb"] = found->retained_mb;
    told["warm_up_minutes"] = found->warm_up_minutes;
    told["requests"] = found->requests;
    told["at"] = to_seconds(found->wall_ns);
    told["generation"] = found->generation;
    told["pid"] = found->pid;
    return told;
}

bool set_learnt(const py::object& self, const std::string& state, const std::string& cause,
                std::optional<double> rate_mb_per_hour, std::optional<double> mb_per_1000_requests,
                std::optional<double> mb_per_load, std::optional<double> baseline_mb,
                std::optional<double> retained_mb, std::optional<double> warm_up_minutes,
                std::optional<std::uint64_t> requests) {
    const auto& handle = self.cast<const SegmentHandle&>();
    check_writable(handle);
    if (!handle.has_slot()) {
        return false;
    }
    WorkerSlot& slot = handle.segment().slot(handle.row());
    const Learnt learnt{static_cast<LearntState>(code_of(kLearntStates, "state", state)),
                        static_cast<LearntCause>(code_of(kLearntCauses, "cause", cause)),
                        rate_mb_per_hour,
                        mb_per_1000_requests,
                        mb_per_load,
                        baseline_mb,
                        retained_mb,
                        warm_up_minutes,
                        requests,
                        wall_ns(),
                        handle.segment().claim_of(handle.row()),
                        current_pid()};
    if (!is_allowed(learnt)) {
        throw py::value_error("amounts are finite, from 0 to 2**43 MB, and counts below 2**63");
    }
    {
        const py::scoped_critical_section lock{self};  // a record has one writer at a time
        slot.learnt.publish(learnt);
    }
    return true;
}

bool set_requests(const SegmentHandle& handle, std::uint64_t total) {
    return with_slot(
        handle, [&](WorkerSlot& slot) { raise_counter(slot.requests, slot.requests_base, total); });
}

bool set_memory_limit(const SegmentHandle& handle, std::optional<std::uint64_t> limit_bytes) {
    return with_slot(handle, [&](WorkerSlot& slot) {
        // relaxed: for people and supervisors, and orders nothing
        slot.memory_limit_bytes.store(limit_bytes.value_or(0), std::memory_order_relaxed);
    });
}

// None: never used.
py::object worker_of(const SegmentHandle& handle, std::size_t index) {
    const WorkerSlot& slot = handle.segment().slot(checked_index(index, kSlots));
    const ProcessOwner owner{value_of(slot.owner)};
    if (value_of(slot.claim) == 0 && owner.is_none()) {
        return py::none();
    }
    py::dict one;
    one["slot"] = index;
    one["pid"] = owner.is_none() ? py::object{py::none()} : py::object{py::int_(owner.pid())};
    one["is_alive"] = !owner.is_none() && !handle.segment().is_dead(index);
    one["generation"] = value_of(slot.claim);
    // relaxed, both: shown
    const std::int64_t beat_ns = slot.heartbeat_ns.load(std::memory_order_relaxed);
    one["heartbeat_age"] = to_seconds(difference_ns(monotonic_ns(), beat_ns));
    one["since"] = to_seconds(slot.claimed_wall_ns.load(std::memory_order_relaxed));
    one["requests"] = value_of(slot.requests);
    one["requests_of_generation"] = value_of(slot.requests) - value_of(slot.requests_base);
    one["requests_in_flight"] = value_of(slot.requests_in_flight);
    const std::uint64_t limit = value_of(slot.memory_limit_bytes);
    one["memory_limit_bytes"] = limit == 0 ? std::nullopt : std::optional{limit};
    one["learnt"] = learnt_of(handle, index);
    show_worker(one, slot.worker);
    return one;
}

py::list workers_of(const SegmentHandle& handle) {
    py::list found;
    for (std::size_t i = 0; i < kSlots; ++i) {
        const py::object one = worker_of(handle, i);
        if (!one.is_none()) {
            found.append(one);
        }
    }
    return found;
}

}  // namespace

void add_slots(py::class_<SegmentHandle>& segment) {
    segment.def("workers", &workers_of, "The slots that were ever used.")
        .def("worker", &worker_of, py::arg("slot"), "One of workers(); None: never used.")
        .def("set_requests", &set_requests, py::arg("total"),
             "So many were served by this process so far; False without a slot.")
        .def("set_memory_limit", &set_memory_limit, py::arg("limit_bytes"),
             "What memory of this process runs into, None: unknown; False without a slot.")
        .def("set_learnt", &set_learnt, py::kw_only(), py::arg("state"), py::arg("cause"),
             py::arg("rate_mb_per_hour"), py::arg("mb_per_1000_requests"), py::arg("mb_per_load"),
             py::arg("baseline_mb"), py::arg("retained_mb"), py::arg("warm_up_minutes"),
             py::arg("requests"),
             "Keep for a successor what this process has learnt; False without a slot.")
        .def("learnt", &learnt_of, py::arg("slot"),
             "What the owners of a slot have learnt, by name; None: nothing, or nothing legal.");
}

}  // namespace memguard
