// Monotonic time in nanoseconds, and a clock that a test can move by hand.
//
// Clock::now_ns() may be called from any thread.
#pragma once

#include <atomic>   // std::atomic
#include <chrono>   // std::chrono::steady_clock
#include <cstdint>  // std::int64_t

#if defined(__linux__)
#include <time.h>  // clock_gettime
#endif

namespace memguard {

inline constexpr std::int64_t kNsPerMs = 1'000'000;
inline constexpr std::int64_t kNsPerSecond = 1'000'000'000;

// Nanoseconds of the system's monotonic clock (CLOCK_MONOTONIC on Linux); never goes back.
[[nodiscard]] inline std::int64_t monotonic_ns() noexcept {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

// later - earlier, for times that may come from a stranger's hand: without undefined overflow.
[[nodiscard]] constexpr std::int64_t difference_ns(std::int64_t later,
                                                   std::int64_t earlier) noexcept {
    return static_cast<std::int64_t>(static_cast<std::uint64_t>(later) -
                                     static_cast<std::uint64_t>(earlier));
}

// As the monotonic clock, and goes on while the machine is suspended, where the system has that.
[[nodiscard]] inline std::int64_t boottime_ns() noexcept {
#if defined(__linux__)
    struct timespec now{};
    ::clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec * kNsPerSecond + now.tv_nsec;
#else
    return monotonic_ns();
#endif
}

// The monotonic clock in steps of the kernel's tick, up to 10 ms late: a sixth of the time where
// the system has it.
[[nodiscard]] inline std::int64_t coarse_monotonic_ns() noexcept {
#if defined(__linux__)
    struct timespec now{};
    ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return now.tv_sec * kNsPerSecond + now.tv_nsec;
#else
    return monotonic_ns();
#endif
}

// Nanoseconds since 1970-01-01 UTC: to show to people, never to measure with.
[[nodiscard]] inline std::int64_t wall_ns() noexcept {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
}

// ManualClock stands still until somebody advances it: time is an input of the tests.
class ManualClock {
  public:
    explicit ManualClock(std::int64_t start_ns = 0) noexcept : now_ns_(start_ns) {}

    [[nodiscard]] std::int64_t now_ns() const noexcept {
        // relaxed: a reading of time orders nothing
        return now_ns_.load(std::memory_order_relaxed);
    }

    void advance(std::int64_t by_ns) noexcept {
        // relaxed: a reading of time orders nothing; fetch_add so that no advance is lost
        now_ns_.fetch_add(by_ns, std::memory_order_relaxed);
    }

  private:
    std::atomic<std::int64_t> now_ns_;
};

}  // namespace memguard
