// Counts that many threads add to at once, without sharing a cache line.
//
// add(): wait-free, any thread. total(): any thread; exact to the additions that are under way.
#pragma once

#include <atomic>   // std::atomic
#include <cstddef>  // std::size_t
#include <cstdint>  // std::uint64_t
#include <memory>   // std::unique_ptr

#include "memguard/config.hpp"

namespace memguard {

// Threads spread over so many rows.
inline constexpr std::size_t kRows = 16;

// The row of the calling thread. Which one is all the same, as long as threads spread.
[[nodiscard]] inline std::size_t row_of_thread() noexcept {
    static std::atomic<std::size_t> threads{0};
    // relaxed: only has to be another number each time
    thread_local const std::size_t row = threads.fetch_add(1, std::memory_order_relaxed) % kRows;
    return row;
}

class ShardedCounter {
  public:
    // `exclusive`: the callers hold a lock around every addition, as the GIL is one; then it is one
    // row and no locked instruction.
    explicit ShardedCounter(bool exclusive)
        : rows_(std::make_unique<Row[]>(exclusive ? 1 : kRows)), exclusive_(exclusive) {}

    void add() noexcept {
        // relaxed, all three: sums only; nothing is ordered by them
        if (exclusive_) {
            const std::uint64_t before = rows_[0].count.load(std::memory_order_relaxed);
            rows_[0].count.store(before + 1, std::memory_order_relaxed);
        } else {
            rows_[row_of_thread()].count.fetch_add(1, std::memory_order_relaxed);
        }
    }

    [[nodiscard]] std::uint64_t total() const noexcept {
        std::uint64_t sum = 0;
        for (std::size_t i = 0; i < (exclusive_ ? 1 : kRows); ++i) {
            sum += rows_[i].count.load(std::memory_order_relaxed);  // relaxed: as in add()
        }
        return sum;
    }

  private:
    struct alignas(kCacheLineBytes) Row {
        std::atomic<std::uint64_t> count{0};
    };

    const std::unique_ptr<Row[]> rows_;
    const bool exclusive_;
};

}  // namespace memguard
