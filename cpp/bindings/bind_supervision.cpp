// What supervisor and workers want of the system, for Python; Linux alone has it.
#include "state.hpp"

#if defined(__linux__)

#include <pybind11/stl.h>  // std::optional
#include <sys/prctl.h>     // prctl

#include <cstdint>    // std::int64_t
#include <memory>     // std::make_unique
#include <optional>   // std::optional
#include <stdexcept>  // std::runtime_error
#include <string>     // std::string
#include <utility>    // std::move

#include "memguard/watchdog.hpp"
#include "seconds.hpp"
#include "segment_handle.hpp"
#include "without_gil.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

constexpr double kShortestInterval = 0.001;

void check_descriptor(const char* name, int descriptor) {
    if (!FileIdentity{descriptor}.is_known()) {
        throw py::value_error(
            py::str("{} must be an open descriptor, got {}").format(name, descriptor));
    }
}

// The segment outlives the watchdog.
std::unique_ptr<Watchdog> make_watchdog(int control_fd, const py::bytes& message,
                                        int supervisor_pidfd, double grace, double interval,
                                        const SegmentHandle* segment) {
    check_descriptor("control_fd", control_fd);
    check_descriptor("supervisor_pidfd", supervisor_pidfd);
    if (!(grace >= 0.0) || !(interval >= kShortestInterval)) {  // also a NaN
        throw py::value_error(py::str("grace must be >= 0 and interval >= {}, got {} and {}")
                                  .format(kShortestInterval, grace, interval));
    }
    if (segment != nullptr) {
        check_writable(*segment);
    }
    Watchdog::Setup setup;
    setup.control_fd = control_fd;
    setup.message = message;
    setup.supervisor_pidfd = supervisor_pidfd;
    setup.grace_ns = clamped_ns(grace);
    setup.interval_ns = clamped_ns(interval);
    setup.find_worker = [segment]() -> SharedWorker* {
        return segment != nullptr && segment->has_slot()
                   ? &segment->segment().slot(segment->row()).worker
                   : nullptr;
    };
    if (setup.message.empty()) {
        throw py::value_error("message must not be empty: for the other end that is the end");
    }
    return std::make_unique<Watchdog>(std::move(setup));
}

void watch_memory(Watchdog& watchdog, std::optional<std::int64_t> hard_bytes,
                  std::int64_t offset_bytes) {
    if (hard_bytes && *hard_bytes <= 0) {
        throw py::value_error(py::str("hard_bytes must be > 0, got {}").format(*hard_bytes));
    }
    watchdog.watch_memory(hard_bytes, offset_bytes);
}

std::uint64_t private_bytes() {
    MemorySample sample;
    ProcessMemory{}.read_into(sample);
    const auto found = sample.private_bytes();
    if (!found) {
        throw std::runtime_error("/proc/self/statm cannot be read: is /proc mounted?");
    }
    return *found;
}

void set_process_option(int option, unsigned long value) {
    if (::prctl(option, value, 0UL, 0UL, 0UL) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        throw py::error_already_set();
    }
}

}  // namespace

void bind_supervision(py::module_& m) {
    m.def("private_bytes", &private_bytes,
          "What this process alone is charged for: anonymous, shared memory and swapped out.");
    m.def(
        "set_parent_death_signal",
        [](int signal) {
            set_process_option(PR_SET_PDEATHSIG, static_cast<unsigned long>(signal));
        },
        py::arg("signal"), "This process gets it when the thread that has started it ends.");
    m.def(
        "become_subreaper", [] { set_process_option(PR_SET_CHILD_SUBREAPER, 1); },
        "Orphans among the descendants of this process become its children.");

    py::class_<Watchdog>(m, "Watchdog", "A native thread that looks after a worker.")
        .def(py::init(&make_watchdog), py::kw_only(), py::arg("control_fd"), py::arg("message"),
             py::arg("supervisor_pidfd"), py::arg("grace"), py::arg("interval") = 0.1,
             py::arg("segment") = py::none(), py::keep_alive<1, 7>(),
             "`grace`, `interval` in seconds; the descriptors stay open until stop().")
        .def("start", &Watchdog::start, "Start the thread, once; it looks at once.")
        .def(
            "stop",
            [](Watchdog& watchdog) {
                without_gil([&] {
                    watchdog.stop();
                    return true;
                });
            },
            "End the thread and wait for it; in a forked child, forget it.")
        .def("watch_memory", &watch_memory, py::arg("hard_bytes"), py::arg("offset_bytes"),
             "Private memory less the offset may be so much; None: it is not watched.");
}

}  // namespace memguard

#else

void memguard::bind_supervision(pybind11::module_&) {}

#endif
