// A segment as this process has it mapped, and the slot that the process owns in it.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>   // std::atomic
#include <cstdint>  // std::uint32_t
#include <string>   // std::string

#include "memguard/process.hpp"
#include "memguard/segment.hpp"

namespace memguard {

class SegmentHandle {
  public:
    // `mapped`: a buffer of Segment::kBytes, writable or not, whose export is held as long as this
    // object lives: it cannot be unmapped under a breaker. Raises py::value_error.
    explicit SegmentHandle(const pybind11::object& mapped);
    ~SegmentHandle();
    SegmentHandle(const SegmentHandle&) = delete;
    SegmentHandle& operator=(const SegmentHandle&) = delete;

    [[nodiscard]] const Segment& segment() const noexcept { return segment_; }
    [[nodiscard]] bool is_writable() const noexcept { return view_.readonly == 0; }

    // The counter row of this process, and by which number it owns it: others after a fork.
    [[nodiscard]] RowChoice rows() const noexcept;
    [[nodiscard]] const std::atomic<std::uint64_t>& claim() const noexcept { return claim_; }
    [[nodiscard]] std::uint32_t row() const noexcept {
        return row_.load(std::memory_order_relaxed);  // relaxed: see RowChoice::mine()
    }
    // Whether the slot is this process's: right after a fork it is its parent's still.
    [[nodiscard]] bool has_slot() const noexcept {
        // relaxed: changes only where this process takes a slot
        return row() < kSlots && forks_.load(std::memory_order_relaxed) == fork_epoch();
    }

    // Takes a slot for this process; in a forked child another than the parent's. `pid_namespace`:
    // of this process; in another than the creator's it gets none, as no process number would be
    // understood.
    void claim_slot(std::uint64_t pid_namespace) noexcept;
    // Gives it back.
    void release_slot() noexcept;
    // In a forked child the slot is the parent's.
    void forget_slot() noexcept {
        row_.store(kOverflowRow, std::memory_order_relaxed);  // relaxed: the child has one thread
    }
    // This process lives.
    void beat() const noexcept;

    [[nodiscard]] Windows* new_windows(std::size_t breaker, const WindowConfig& sizes) const;

  private:
    Py_buffer view_{};
    Segment segment_;
    std::atomic<std::uint32_t> row_{kOverflowRow};
    std::atomic<std::uint64_t> claim_{0};
    ProcessOwner owner_;
    std::atomic<std::uint64_t> forks_{0};  // fork_epoch() when the slot was taken
};

[[nodiscard]] inline std::uint64_t value_of(const SharedWord& word) noexcept {
    return word.load(std::memory_order_relaxed);  // relaxed: shown, and nothing else
}

// Raises IndexError.
[[nodiscard]] inline std::size_t checked_index(std::size_t index, std::size_t count) {
    if (index >= count) {
        throw pybind11::index_error("no such place in the segment");
    }
    return index;
}

// Raises ValueError.
inline void check_writable(const SegmentHandle& handle) {
    if (!handle.is_writable()) {
        throw pybind11::value_error("the segment is mapped read-only");
    }
}

// Runs `work` on the slot of this process: true. False without one. Raises ValueError.
template <class Work>
bool with_slot(const SegmentHandle& handle, Work&& work) {
    check_writable(handle);
    if (!handle.has_slot()) {
        return false;
    }
    work(handle.segment().slot(handle.row()));
    return true;
}

// The number of a name. Raises ValueError.
template <std::size_t Count>
std::uint64_t code_of(const char* const (&names)[Count], const char* field,
                      const std::string& name) {
    for (std::size_t i = 0; i < Count; ++i) {
        if (name == names[i]) {
            return i;
        }
    }
    throw pybind11::value_error(std::string{field} + " is none of the known ones: " + name);
}

// The part of `_core.Segment` that is about slots.
void add_slots(pybind11::class_<SegmentHandle>& segment);

// What a worker of a supervisor tells: written, and shown in `found`.
void add_worker_fields(pybind11::class_<SegmentHandle>& segment);
void show_worker(pybind11::dict& found, const SharedWorker& worker);

// Where a breaker lies in a segment.
struct SharedPlace {
    pybind11::object segment;  // a `_core.Segment`
    SegmentHandle* handle = nullptr;
    std::size_t index = 0;

    [[nodiscard]] bool is_shared() const noexcept { return handle != nullptr; }
    [[nodiscard]] SharedBreaker& breaker() const noexcept {
        return handle->segment().breaker(index);
    }
};

}  // namespace memguard
