// The rules that the transitions of a breaker follow.
#pragma once

#include <cstdint>  // std::int64_t
#include <limits>   // std::numeric_limits

#include "memguard/clock.hpp"

namespace memguard {

// How a wait is spread, so that the clients of one dependency do not come back together.
enum class Jitter : std::uint8_t {
    spread,  // wait * (1 +- jitter)
    full,    // 0 .. wait
    equal,   // wait / 2 .. wait
};

struct BreakerConfig {
    std::int64_t failure_threshold = 5;  // kNoThreshold: the rule is off
    std::int64_t reset_timeout_ns = 60 * kNsPerSecond;
    std::int64_t max_reset_timeout_ns = 300 * kNsPerSecond;
    std::int64_t probe_timeout_ns = 60 * kNsPerSecond;
    std::uint32_t success_threshold = 1;
    std::uint32_t half_open_max = 1;
    bool lost_probe_fails = false;  // what a probe whose lease ends means: a failure, or nothing
    Jitter jitter_mode = Jitter::spread;
    double jitter = 0.0;
    double backoff_factor = 1.0;
    // Failures within it after a counted one belong to the same incident; 0: each counts.
    std::int64_t lump_interval_ns = 0;
    double enforce = 1.0;           // the share of the rules' rejections that are enforced
    double enforce_by_auto = 1.0;   // what it is again when shadow ends
    bool has_active_probe = false;  // somebody else probes, looking every so often
    std::int64_t monitor_interval_ns = kNsPerSecond;
    std::uint64_t max_in_flight = 0;  // calls that may run at once before it opens; 0: no limit
};

inline constexpr std::int64_t kNoThreshold = std::numeric_limits<std::int64_t>::max();

// As an open period: the configured one.
inline constexpr std::int64_t kConfiguredWait = -1;

inline constexpr std::int64_t kLeaseTickNs = 16 * kNsPerMs;
inline constexpr std::int64_t kMinRetryAfterNs = kNsPerMs;

}  // namespace memguard
