// LoadGauge: how much is in flight now, in a unit of the user's: requests, bytes, tokens.
//
// Any thread may call anything; no lock, no allocation. The sampler's thread reads it at the
// instant of its sample. Unknown until somebody sets it. The child of a fork goes on with the value
// of its parent, whose requests are not its own: set(0) there.
#pragma once

#include <atomic>    // std::atomic
#include <limits>    // std::numeric_limits
#include <optional>  // std::optional

namespace memguard {

class LoadGauge {
    static_assert(std::atomic<double>::is_always_lock_free);

  public:
    void set(double value) noexcept {
        // relaxed: a figure by itself, which orders nothing
        value_.store(value, std::memory_order_relaxed);
    }

    // From 0 if nothing was set.
    void add(double by) noexcept {
        // relaxed in both: as in set(); the exchange is repeated until no addition is lost
        double before = value_.load(std::memory_order_relaxed);
        while (!value_.compare_exchange_weak(before, is_known(before) ? before + by : by,
                                             std::memory_order_relaxed)) {
        }
    }

    [[nodiscard]] std::optional<double> value() const noexcept {
        // relaxed: as in set()
        const double value = value_.load(std::memory_order_relaxed);
        return is_known(value) ? std::optional{value} : std::nullopt;
    }

  private:
    [[nodiscard]] static bool is_known(double value) noexcept { return value == value; }

    std::atomic<double> value_{std::numeric_limits<double>::quiet_NaN()};
};

}  // namespace memguard
