// Seconds of Python to and from nanoseconds of the core.
#pragma once

#include <algorithm>  // std::clamp
#include <cstdint>    // std::int64_t

#include "memguard/clock.hpp"

namespace memguard {

[[nodiscard]] inline double to_seconds(std::int64_t ns) noexcept {
    return static_cast<double>(ns) / kNsPerSecond;
}

// From 0 to 31 years, of a number that is not a NaN.
[[nodiscard]] inline std::int64_t clamped_ns(double seconds) noexcept {
    constexpr double kLongest = 1e9;  // more would overflow the clock
    return static_cast<std::int64_t>(std::clamp(seconds, 0.0, kLongest) * kNsPerSecond);
}

}  // namespace memguard
