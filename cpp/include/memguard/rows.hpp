// Rows: counters that many threads or processes add to at once, each in a row of its own, without
// sharing a cache line. Whoever reads sums over all rows.
//
// A row is never set back: who takes over the row of a process that ended goes on counting, so no
// sum ever falls.
#pragma once

#include <atomic>   // std::atomic
#include <cstddef>  // std::size_t
#include <cstdint>  // std::uint64_t

namespace memguard {

// Threads of a process that hold no common lock spread over so many rows.
inline constexpr std::size_t kThreadRows = 16;

// The row of the calling thread. Which one is all the same, as long as threads spread.
[[nodiscard]] inline std::size_t row_of_thread() noexcept {
    static std::atomic<std::size_t> threads{0};
    // relaxed: only has to be another number each time
    thread_local const std::size_t row =
        threads.fetch_add(1, std::memory_order_relaxed) % kThreadRows;
    return row;
}

// Which row of a table is the caller's.
class RowChoice {
  public:
    struct Row {
        std::size_t index = 0;
        bool is_exclusive = false;  // nobody else writes it meanwhile
    };

    // `exclusive`: the callers hold a lock around every addition, as the GIL is one; then it is one
    // row and no locked instruction.
    explicit RowChoice(bool exclusive) noexcept
        : row_(exclusive ? &kFirst : nullptr), exclusive_below_(1),
          count_(exclusive ? 1 : kThreadRows), owned_(count_) {}

    // Of a table that processes share: `row` is that of this process, another one after a fork, and
    // outlives this object. Rows from `exclusive_below` on have more than one writer; the last of
    // `count` belongs to no process.
    RowChoice(const std::atomic<std::uint32_t>& row, std::uint32_t exclusive_below,
              std::size_t count) noexcept
        : row_(&row), exclusive_below_(exclusive_below), count_(count), owned_(count - 1) {}

    [[nodiscard]] Row mine() const noexcept {
        if (row_ == nullptr) {
            return {row_of_thread(), false};
        }
        // relaxed: written before other threads of this process can look
        const std::uint32_t index = row_->load(std::memory_order_relaxed);
        return {index, index < exclusive_below_};
    }

    [[nodiscard]] std::size_t count() const noexcept { return count_; }
    // Rows below it have an owner, whose end is noticed.
    [[nodiscard]] std::size_t owned() const noexcept { return owned_; }

  private:
    static inline constexpr std::atomic<std::uint32_t> kFirst{0};

    const std::atomic<std::uint32_t>* row_;
    std::uint32_t exclusive_below_;
    std::size_t count_;
    std::size_t owned_;
};

// A sum: nothing is ordered by it, and seen late is fine; hence relaxed.
inline void add(std::atomic<std::uint64_t>& sum, std::uint64_t value, bool is_exclusive) noexcept {
    if (is_exclusive) {
        // relaxed, both: see above
        sum.store(sum.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
    } else {
        sum.fetch_add(value, std::memory_order_relaxed);  // relaxed: see above
    }
}

}  // namespace memguard
