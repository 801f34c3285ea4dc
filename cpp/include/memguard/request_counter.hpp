// RequestCounter: requests that were served, and those in flight as a load of one each.
//
// Any thread may call anything but reset(); no lock, no allocation. A request that was begun before
// a fork is its parent's: its end in the child does nothing.
#pragma once

#include <atomic>    // std::atomic
#include <cstdint>   // std::uint64_t
#include <memory>    // std::shared_ptr
#include <optional>  // std::optional
#include <utility>   // std::move

#include "memguard/clock.hpp"
#include "memguard/load_gauge.hpp"
#include "memguard/process.hpp"

namespace memguard {

class RequestCounter {
  public:
    explicit RequestCounter(std::shared_ptr<LoadGauge> load) noexcept : load_(std::move(load)) {}

    // A request begins; the number is for its end().
    std::uint64_t begin() noexcept {
        add(1);
        load_->add(1.0);
        return fork_epoch();
    }

    void end(std::uint64_t begun) noexcept {
        if (begun == fork_epoch()) {
            load_->add(-1.0);
            // relaxed: a figure by itself, which orders nothing
            ended_ns_.store(coarse_monotonic_ns(), std::memory_order_relaxed);
        }
    }

    // So many were served that have no beginning and end here.
    void add(std::uint64_t count) noexcept {
        // relaxed, both: figures by themselves
        count_.fetch_add(count, std::memory_order_relaxed);
        if (!is_known_.load(std::memory_order_relaxed)) {
            is_known_.store(true, std::memory_order_relaxed);
        }
    }

    // None until something was counted.
    [[nodiscard]] std::optional<std::uint64_t> count() const noexcept {
        // relaxed, both: figures by themselves
        return is_known_.load(std::memory_order_relaxed)
                   ? std::optional{count_.load(std::memory_order_relaxed)}
                   : std::nullopt;
    }

    // When the newest request ended, on the monotonic clock, up to 10 ms early; 0: none did.
    [[nodiscard]] std::int64_t ended_ns() const noexcept {
        return ended_ns_.load(std::memory_order_relaxed);  // relaxed: a figure by itself
    }

    // In the child of a fork: as if nothing was counted.
    void reset() noexcept {
        // relaxed, all: the child has one thread
        count_.store(0, std::memory_order_relaxed);
        is_known_.store(false, std::memory_order_relaxed);
        ended_ns_.store(0, std::memory_order_relaxed);
    }

  private:
    std::shared_ptr<LoadGauge> load_;
    std::atomic<std::uint64_t> count_{0};
    std::atomic<bool> is_known_{false};
    std::atomic<std::int64_t> ended_ns_{0};
};

}  // namespace memguard
