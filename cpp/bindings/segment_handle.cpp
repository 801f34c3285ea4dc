#include "segment_handle.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

// Whether each caller of this process holds a lock: with a GIL, whoever counts here holds it.
#if defined(Py_GIL_DISABLED)
constexpr std::uint32_t kExclusiveRows = 0;
#else
constexpr std::uint32_t kExclusiveRows = kSlots;
#endif

Py_buffer export_of(const py::object& mapped) {
    Py_buffer view{};
    if (PyObject_GetBuffer(mapped.ptr(), &view, PyBUF_WRITABLE) != 0) {
        PyErr_Clear();
        if (PyObject_GetBuffer(mapped.ptr(), &view, PyBUF_SIMPLE) != 0) {
            throw py::error_already_set();
        }
    }
    const bool fits = static_cast<std::size_t>(view.len) == Segment::kBytes &&
                      reinterpret_cast<std::uintptr_t>(view.buf) % kPageBytes == 0;
    if (!fits) {
        const Py_ssize_t length = view.len;
        PyBuffer_Release(&view);
        throw py::value_error(py::str("a segment is {} bytes from the start of a page, got {}")
                                  .format(Segment::kBytes, length));
    }
    return view;
}

}  // namespace

SegmentHandle::SegmentHandle(const py::object& mapped)
    : view_(export_of(mapped)), segment_(view_.buf) {}

SegmentHandle::~SegmentHandle() {
    PyBuffer_Release(&view_);
}

RowChoice SegmentHandle::rows() const noexcept {
    return {row_, kExclusiveRows, kSharedRows};
}

void SegmentHandle::claim_slot(std::uint64_t pid_namespace) noexcept {
    owner_ = ProcessOwner::self();
    // relaxed: whoever sees one of this and the row finds no slot yet
    forks_.store(fork_epoch(), std::memory_order_relaxed);
    // relaxed: set when the segment was made
    const bool is_known =
        segment_.header().pid_namespace.load(std::memory_order_relaxed) == pid_namespace;
    const std::uint32_t row = owner_.is_none() || !is_known
                                  ? kOverflowRow
                                  : segment_.claim_slot(owner_, monotonic_ns(), wall_ns());
    // relaxed, both: before any other thread of this process can look
    claim_.store(row < kSlots ? segment_.claim_of(row) : 0, std::memory_order_relaxed);
    row_.store(row, std::memory_order_relaxed);
}

void SegmentHandle::release_slot() noexcept {
    segment_.release_slot(row(), owner_);
    row_.store(kOverflowRow, std::memory_order_relaxed);  // relaxed: calls may still be counted
}

void SegmentHandle::beat() const noexcept {
    if (has_slot()) {
        // relaxed: for people
        segment_.slot(row()).heartbeat_ns.store(monotonic_ns(), std::memory_order_relaxed);
    }
}

Windows* SegmentHandle::new_windows(std::size_t breaker, const WindowConfig& sizes) const {
    SharedBreaker& shared = segment_.breaker(breaker);
    return new Windows{sizes, rows(),
                       WindowMemory{&shared.window_marks, shared.windows.data(),
                                    shared.failures.data(), shared.slow.data(), kSharedBadCalls}};
}

}  // namespace memguard
