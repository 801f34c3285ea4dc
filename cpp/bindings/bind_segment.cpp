// The shared segment for Python, which opens and locks the file. Nothing that is read from it is
// trusted: texts are decoded with replacement, numbers are what they are.
#include <pybind11/critical_section.h>
#include <pybind11/stl.h>  // std::optional

#include <cstddef>   // offsetof
#include <optional>  // std::optional
#include <string>    // std::string
#include <vector>    // std::vector

#include "breaker.hpp"
#include "memguard/process.hpp"
#include "sample_tuple.hpp"
#include "segment_handle.hpp"
#include "snapshot.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

Surroundings surroundings_of(const py::bytes& boot_id, std::uint64_t time_namespace,
                             std::uint64_t pid_namespace) {
    const std::string_view bytes = boot_id;
    Surroundings here{{}, time_namespace, pid_namespace};
    if (bytes.size() != sizeof here.boot_id) {
        throw py::value_error("boot_id must be 16 bytes");
    }
    std::memcpy(here.boot_id.data(), bytes.data(), bytes.size());
    return here;
}

void format(const py::object& mapped, const py::bytes& boot_id, std::uint64_t time_namespace,
            std::uint64_t pid_namespace, std::uint64_t id) {
    const SegmentHandle handle{mapped};
    if (!handle.is_writable()) {
        throw py::value_error("a read-only segment cannot be made");
    }
    Segment::format(&handle.segment().header(),
                    surroundings_of(boot_id, time_namespace, pid_namespace), id, current_pid(),
                    wall_ns());
}

std::optional<std::string> fault(const SegmentHandle& handle, const py::bytes& boot_id,
                                 std::uint64_t time_namespace, std::uint64_t pid_namespace) {
    switch (handle.segment().fault(surroundings_of(boot_id, time_namespace, pid_namespace))) {
    case SegmentFault::none:
        return std::nullopt;
    case SegmentFault::damaged:
        return "damaged";
    case SegmentFault::other_boot:
        return "other_boot";
    case SegmentFault::other_time_namespace:
        break;
    }
    return "other_time_namespace";
}

std::optional<std::size_t> index_or_none(std::size_t index) {
    return index == Segment::kNone ? std::nullopt : std::optional{index};
}

py::dict names_of(const SegmentHandle& handle) {
    py::dict found;
    char name[kNameBytes];
    for (std::size_t i = 0; i < kSharedBreakers; ++i) {
        if (const std::size_t length = handle.segment().name(i, name); length > 0) {
            found[py::int_(i)] = text_of({name, length});
        }
    }
    return found;
}

py::object rules_of(const SegmentHandle& handle, std::size_t index) {
    const SharedBreaker& breaker = handle.segment().breaker(checked_index(index, kSharedBreakers));
    const SharedRules::Published found = breaker.rules.read();
    return found.numbers ? py::object{to_dict(*found.numbers)} : py::object{py::none()};
}

// As snapshot(), without being one of the processes that use the breaker. `now`: seconds of its
// clock; None: the monotonic clock.
py::dict snapshot_from_outside(const SegmentHandle& handle, std::size_t index) {
    SharedBreaker& breaker = handle.segment().breaker(checked_index(index, kSharedBreakers));
    const SharedRules::Published found = breaker.rules.read();
    const SharedNumbers numbers = found.numbers.value_or(SharedNumbers{});
    const BreakerCell cell{0, handle.rows(), breaker.state, breaker.counters.data(),
                           handle.claim()};
    Rules rules{numbers.config, numbers.rates, nullptr};
    rules.windows.reset(handle.new_windows(index, numbers.rates));
    Note note;
    SharedNotes::Buffer buffer;
    const bool is_known = breaker.notes.read_opening(cell.widened(cell.load()), note, buffer);
    py::dict snapshot = snapshot_of({cell, rules, monotonic_ns()},
                                    is_known ? details_of(note) : py::object{py::none()});
    snapshot["scope"] = "host";
    return snapshot;
}

bool push_sample(const py::object& self, const py::tuple& fields) {
    const auto& handle = self.cast<const SegmentHandle&>();
    check_writable(handle);
    if (!handle.has_slot()) {
        return false;
    }
    const std::uint32_t row = handle.row();
    const Segment& segment = handle.segment();
    SharedSample sample;
    sample.sample = to_sample(fields);
    sample.owner = value_of(segment.slot(row).owner);
    sample.claim = segment.claim_of(row);
    {
        const py::scoped_critical_section lock{self};  // a ring has one writer at a time
        segment.history(row).push(sample);
    }
    handle.beat();
    return true;
}

// [(sample, pid, generation)], oldest first.
py::list history_of(const SegmentHandle& handle, std::size_t slot) {
    const SharedHistoryRing ring = handle.segment().history(checked_index(slot, kSlots));
    std::vector<SharedSample> samples(kHistorySamples);
    const RingRange range = ring.snapshot(samples.data(), samples.size());
    py::list found;
    for (std::size_t i = 0; i < range.count; ++i) {
        const SharedSample& one = samples[i];
        found.append(
            py::make_tuple(to_tuple(one.sample), ProcessOwner{one.owner}.pid(), one.claim));
    }
    return found;
}

// As EventQueue.read(), of the breakers of all processes: by their place in the segment.
py::tuple read_events(const SegmentHandle& handle, std::uint64_t after, bool skip) {
    std::array<BreakerEvent, 64> events;
    const auto done = handle.segment().events().read(after, events.data(), events.size(), skip);
    py::list found;
    for (std::size_t i = 0; i < done.count; ++i) {
        const BreakerEvent& event = events[i];
        Note note;
        SharedNotes::Buffer buffer;
        const bool is_noted =
            event.breaker_id < kSharedBreakers && event.reason() != Event::reconfigured &&
            handle.segment().breaker(event.breaker_id).notes.read(event.generation, note, buffer);
        const bool has_detail = is_noted && !note.detail.empty();
        found.append(to_tuple(event, has_detail ? text_of(note.detail) : py::none()));
    }
    return py::make_tuple(found, done.next, done.lost, done.unfinished);
}

py::dict header_of(const SegmentHandle& handle) {
    const SegmentHeader& header = handle.segment().header();
    py::dict found;
    found["version"] = value_of(header.version);
    found["bytes"] = value_of(header.bytes);
    found["pid_namespace"] = value_of(header.pid_namespace);
    found["creator"] = value_of(header.creator);
    found["created"] = to_seconds(static_cast<std::int64_t>(value_of(header.created_wall_ns)));
    found["repairs"] = value_of(header.repairs);
    return found;
}

// Where each part begins and how many bytes one of its elements has; those of a slot or a breaker
// count from where that begins.
py::dict layout() {
    py::dict found;
    const auto part = [&](const char* name, std::size_t offset, std::size_t bytes) {
        found[name] = py::make_tuple(offset, bytes);
    };
    part("header", offsetof(SegmentLayout, header), sizeof(SegmentHeader));
    part("slots", offsetof(SegmentLayout, slots), sizeof(WorkerSlot));
    part("breakers", offsetof(SegmentLayout, breakers), sizeof(SharedBreaker));
    part("events", offsetof(SegmentLayout, events), sizeof(SharedEventRing));
    part("history", offsetof(SegmentLayout, history), sizeof(SharedHistory));
    part("learnt", offsetof(WorkerSlot, learnt), sizeof(SharedLearnt));
    part("worker", offsetof(WorkerSlot, worker), sizeof(SharedWorker));
    part("name", offsetof(SharedBreaker, name), sizeof(SharedName));
    part("state", offsetof(SharedBreaker, state), sizeof(BreakerState));
    part("window_marks", offsetof(SharedBreaker, window_marks), sizeof(WindowMarks));
    part("rules", offsetof(SharedBreaker, rules), sizeof(SharedRules));
    part("notes", offsetof(SharedBreaker, notes), sizeof(SharedNotes));
    part("fleet", offsetof(SharedBreaker, fleet), sizeof(SharedBreaker::fleet));
    part("failures, slow", offsetof(SharedBreaker, failures), sizeof(SharedBreaker::failures));
    part("counters", offsetof(SharedBreaker, counters), sizeof(CounterRow));
    part("windows", offsetof(SharedBreaker, windows), sizeof(WindowRow));
    return found;
}

}  // namespace

void bind_segment(py::module_& m) {
    m.attr("SEGMENT_BYTES") = Segment::kBytes;
    m.attr("SEGMENT_VERSION") = kSegmentVersion;
    m.attr("SEGMENT_BREAKERS") = kSharedBreakers;
    m.attr("SEGMENT_SLOTS") = kSlots;
    m.attr("SEGMENT_LAYOUT") = layout();
    m.attr("BREAKERS_CAN_MOVE") = Breaker::kExclusive;

    py::class_<SegmentHandle> segment(m, "Segment",
                                      "A mapped file that the processes of a host share.");
    add_slots(segment);
    add_worker_fields(segment);
    segment
        .def(py::init<py::object>(), py::arg("mapped"),
             "`mapped`: a buffer of SEGMENT_BYTES, kept mapped as long as this lives.")
        .def_static("format", &format, py::arg("mapped"), py::kw_only(), py::arg("boot_id"),
                    py::arg("time_namespace"), py::arg("pid_namespace"), py::arg("random_id"),
                    "Make a segment of zeros that nobody else has mapped.")
        .def("fault", &fault, py::kw_only(), py::arg("boot_id"), py::arg("time_namespace"),
             py::arg("pid_namespace"),
             "Why it cannot be used here: damaged, other_boot, other_time_namespace; or None.")
        .def_property_readonly("is_writable", &SegmentHandle::is_writable,
                               "Whether it is mapped to be written.")
        .def(
            "claim_slot",
            [](SegmentHandle& handle, std::uint64_t pid_namespace) {
                check_writable(handle);
                handle.claim_slot(pid_namespace);
            },
            py::arg("pid_namespace"),
            "Take a slot for this process; in a forked child, another than the parent's.")
        .def("release_slot", &SegmentHandle::release_slot, "Give the slot back.")
        .def(
            "forget_slot", [](SegmentHandle& handle) { handle.forget_slot(); },
            "In a forked child: the slot is the parent's.")
        .def_property_readonly(
            "slot",
            [](const SegmentHandle& handle) {
                return index_or_none(handle.row() < kSlots ? handle.row() : Segment::kNone);
            },
            "The slot of this process; None: all were taken.")
        .def("beat", &SegmentHandle::beat, "This process lives.")
        .def(
            "claim_breaker",
            [](const SegmentHandle& handle, const std::string& name) {
                check_writable(handle);
                return index_or_none(handle.segment().claim_name(name));
            },
            py::arg("name"),
            "The breaker's place, a free one at first; None: full. Under the lock.")
        .def("breaker_names", &names_of, "The breakers by their place.")
        .def("rules", &rules_of, py::arg("index"),
             "The published numbers of a breaker's rules; None: nothing legal is there.")
        .def("snapshot", &snapshot_from_outside, py::arg("index"),
             "Everything that is known of a breaker now, by name.")
        .def(
            "push_sample", &push_sample, py::arg("sample"),
            "Keep a memory sample, SAMPLE_FIELDS, in this process's history; False without a slot.")
        .def("history", &history_of, py::arg("slot"),
             "[(sample, pid, generation)] of a slot's owners, oldest first.")
        .def(
            "events_pushed",
            [](const SegmentHandle& handle) { return handle.segment().events().pushed(); },
            "How many events there ever were.")
        .def("read_events", &read_events, py::kw_only(), py::arg("after"), py::arg("skip"),
             "As EventQueue.read(); a breaker's number is its place.")
        .def("header", &header_of, "Who made it, when, how large.");
}

}  // namespace memguard
