// The whole state of a circuit breaker in one 64-bit word, and its transitions as pure functions.
//
//   63 62 | 61 ................ 22 | 21 ......... 0
//   phase |     payload (40)       | generation (22)
//
//   phase 0 closed     consecutive failures
//   phase 1 open       deadline: milliseconds of the monotonic clock, rounded up (34 years)
//   phase 2 half_open  in_flight 6, successes 5, neutral in a row 6, lease end 23 (ticks of 16 ms)
//   phase 3            never written; read as an open circuit that is due, so no pattern can wedge
//
// Every phase change and every takeover of a lost lease adds 1 to the generation, so that a result
// of an older era is recognised. Nothing here knows threads: BreakerCell applies these functions
// with compare-and-swap.
#pragma once

#include <algorithm>  // std::max, std::min
#include <cstdint>    // std::uint64_t

#include "memguard/clock.hpp"

namespace memguard {

enum class Phase : std::uint8_t { closed = 0, open = 1, half_open = 2 };
enum class Verdict : std::uint8_t { success, failure, neutral };

// Why a word changed; `none` and `counted` are not transitions.
enum class Event : std::uint8_t {
    none,
    counted,               // a verdict was recorded without a change of phase
    stale,                 // a verdict of an older generation: ignored
    consecutive_failures,  // closed -> open
    timeout,               // open -> half_open
    probe_lost,            // half_open -> half_open, by a caller that found the lease over
    probe_failed,          // half_open -> open
    probe_succeeded,       // half_open -> closed
    inconclusive,          // half_open -> open, after too many neutral probes in a row
    manual,                // any -> open
    reset,                 // any -> closed
    forked,                // half_open -> half_open in a forked child, which holds no probe
};

struct BreakerConfig {
    std::int64_t failure_threshold = 5;
    std::int64_t reset_timeout_ns = 60 * kNsPerSecond;
    std::int64_t max_reset_timeout_ns = 300 * kNsPerSecond;
    std::int64_t probe_timeout_ns = 60 * kNsPerSecond;
    std::uint32_t success_threshold = 1;
    std::uint32_t half_open_max = 1;
};

inline constexpr std::int64_t kLeaseTickNs = 16 * kNsPerMs;
inline constexpr std::int64_t kMinRetryAfterNs = kNsPerMs;

[[nodiscard]] constexpr std::int64_t ceil_div(std::int64_t value, std::int64_t by) noexcept {
    return value / by + (value % by > 0 ? 1 : 0);
}

class Word {
  public:
    static constexpr unsigned kGenerationBits = 22;
    static constexpr std::uint64_t kGenerationMask = (1ULL << kGenerationBits) - 1;
    static constexpr unsigned kPayloadBits = 40;
    static constexpr std::uint64_t kPayloadMask = (1ULL << kPayloadBits) - 1;
    static constexpr unsigned kLeaseBits = 23;
    static constexpr std::uint64_t kLeaseMask = (1ULL << kLeaseBits) - 1;
    static constexpr std::uint64_t kMaxFailures = (1ULL << 31) - 1;
    static constexpr std::uint64_t kMaxInFlight = 63;
    static constexpr std::uint64_t kMaxSuccesses = 31;
    static constexpr std::uint64_t kMaxNeutral = 63;

    constexpr Word() noexcept = default;
    constexpr explicit Word(std::uint64_t bits) noexcept : bits_(bits) {}

    [[nodiscard]] static constexpr Word closed(std::uint64_t failures,
                                               std::uint64_t generation) noexcept {
        return pack(Phase::closed, std::min(failures, kMaxFailures), generation);
    }
    [[nodiscard]] static constexpr Word open(std::int64_t deadline_ms,
                                             std::uint64_t generation) noexcept {
        return pack(Phase::open, static_cast<std::uint64_t>(deadline_ms), generation);
    }
    [[nodiscard]] static constexpr Word half_open(std::uint64_t in_flight, std::uint64_t successes,
                                                  std::uint64_t neutral, std::uint64_t lease_end,
                                                  std::uint64_t generation) noexcept {
        const std::uint64_t payload =
            std::min(in_flight, kMaxInFlight) | std::min(successes, kMaxSuccesses) << 6 |
            std::min(neutral, kMaxNeutral) << 11 | (lease_end & kLeaseMask) << 17;
        return pack(Phase::half_open, payload, generation);
    }

    [[nodiscard]] constexpr std::uint64_t bits() const noexcept { return bits_; }
    [[nodiscard]] constexpr std::uint64_t generation() const noexcept {
        return bits_ & kGenerationMask;
    }
    [[nodiscard]] constexpr std::uint64_t next_generation() const noexcept {
        return (generation() + 1) & kGenerationMask;
    }
    [[nodiscard]] constexpr Phase phase() const noexcept {
        const auto code = bits_ >> (kGenerationBits + kPayloadBits);
        return code == 3 ? Phase::open : static_cast<Phase>(code);
    }
    [[nodiscard]] constexpr std::uint64_t failures() const noexcept { return payload(); }
    // The code 3 reads as a deadline in the past.
    [[nodiscard]] constexpr std::int64_t deadline_ms() const noexcept {
        const bool unknown = bits_ >> (kGenerationBits + kPayloadBits) == 3;
        return unknown ? 0 : static_cast<std::int64_t>(payload());
    }
    [[nodiscard]] constexpr std::uint64_t in_flight() const noexcept { return payload() & 63; }
    [[nodiscard]] constexpr std::uint64_t successes() const noexcept { return payload() >> 6 & 31; }
    [[nodiscard]] constexpr std::uint64_t neutral() const noexcept { return payload() >> 11 & 63; }
    [[nodiscard]] constexpr std::uint64_t lease_end() const noexcept { return payload() >> 17; }

    friend constexpr bool operator==(Word, Word) noexcept = default;

  private:
    [[nodiscard]] static constexpr Word pack(Phase phase, std::uint64_t payload,
                                             std::uint64_t generation) noexcept {
        return Word{static_cast<std::uint64_t>(phase) << (kGenerationBits + kPayloadBits) |
                    (payload & kPayloadMask) << kGenerationBits | (generation & kGenerationMask)};
    }
    [[nodiscard]] constexpr std::uint64_t payload() const noexcept {
        return bits_ >> kGenerationBits & kPayloadMask;
    }

    std::uint64_t bits_ = 0;
};

// Closed and no failure on record: the one comparison that a healthy call pays.
[[nodiscard]] constexpr bool healthy(std::uint64_t bits) noexcept {
    return bits >> Word::kGenerationBits == 0;
}

// What an admission hands out and a verdict hands back.
struct Token {
    std::uint64_t generation = 0;
    bool probe = false;
};

enum class Decision : std::uint8_t { admitted, rejected_open, rejected_probing };

struct Admission {
    Word next;
    Decision decision = Decision::admitted;
    Event event = Event::none;
    std::int64_t retry_after_ns = 0;  // > 0 for a rejection

    // For an admitted call only.
    [[nodiscard]] constexpr Token token() const noexcept {
        return {next.generation(), next.phase() == Phase::half_open};
    }
};

struct Step {
    Word next;
    Event event = Event::none;
};

// Nanoseconds until the open period is over; 0 if it is. A deadline further ahead than any wait may
// be is corrupt and counts as over.
[[nodiscard]] constexpr std::int64_t open_left_ns(Word w, const BreakerConfig& c,
                                                  std::int64_t now_ns) noexcept {
    const std::int64_t left_ms = w.deadline_ms() - now_ns / kNsPerMs;
    const bool corrupt = left_ms > ceil_div(c.max_reset_timeout_ns, kNsPerMs) + 1000;
    if (left_ms <= 0 || corrupt) {
        return 0;
    }
    return std::max(w.deadline_ms() * kNsPerMs - now_ns, kMinRetryAfterNs);
}

// Nanoseconds until the probes' lease is over; 0 if it is. The end is kept modulo 2^23 ticks, hence
// the signed difference; one longer than any lease is corrupt and counts as over.
[[nodiscard]] constexpr std::int64_t lease_left_ns(Word w, const BreakerConfig& c,
                                                   std::int64_t now_ns) noexcept {
    const auto now_tick = static_cast<std::uint64_t>(now_ns / kLeaseTickNs);
    const std::uint64_t difference = (w.lease_end() - now_tick) & Word::kLeaseMask;
    const auto left = static_cast<std::int64_t>(difference);
    const bool passed = difference >> (Word::kLeaseBits - 1) != 0;
    if (passed || left == 0 || left > ceil_div(c.probe_timeout_ns, kLeaseTickNs) + 1) {
        return 0;
    }
    return left * kLeaseTickNs;
}

[[nodiscard]] constexpr std::uint64_t lease_end_tick(const BreakerConfig& c,
                                                     std::int64_t now_ns) noexcept {
    return static_cast<std::uint64_t>(ceil_div(now_ns + c.probe_timeout_ns, kLeaseTickNs));
}

[[nodiscard]] constexpr Word opened(Word w, const BreakerConfig& c, std::int64_t now_ns) noexcept {
    return Word::open(ceil_div(now_ns + c.reset_timeout_ns, kNsPerMs), w.next_generation());
}

// May this call run? If it may, `next` is the word to store and the token's source.
[[nodiscard]] constexpr Admission admit(Word w, const BreakerConfig& c,
                                        std::int64_t now_ns) noexcept {
    const std::uint64_t lease_end = lease_end_tick(c, now_ns);
    switch (w.phase()) {
    case Phase::closed:
        return {w};
    case Phase::open: {
        if (const std::int64_t left = open_left_ns(w, c, now_ns); left > 0) {
            return {w, Decision::rejected_open, Event::none, left};
        }
        return {Word::half_open(1, 0, 0, lease_end, w.next_generation()), Decision::admitted,
                Event::timeout};
    }
    case Phase::half_open:
        break;
    }
    const bool room =
        w.in_flight() < c.half_open_max && w.in_flight() + w.successes() < c.success_threshold;
    if (room) {
        return {Word::half_open(w.in_flight() + 1, w.successes(), w.neutral(), lease_end,
                                w.generation())};
    }
    if (const std::int64_t left = lease_left_ns(w, c, now_ns); left > 0) {
        return {w, Decision::rejected_probing, Event::none, left};
    }
    // A prober that was killed or hangs cannot wedge the breaker: this caller takes over.
    return {Word::half_open(1, w.successes(), w.neutral(), lease_end, w.next_generation()),
            Decision::admitted, Event::probe_lost};
}

[[nodiscard]] constexpr Step settle_closed(Word w, Verdict v, const BreakerConfig& c,
                                           std::int64_t now_ns) noexcept {
    if (v == Verdict::neutral || (v == Verdict::success && w.failures() == 0)) {
        return {w};
    }
    if (v == Verdict::success) {
        return {Word::closed(0, w.generation()), Event::counted};
    }
    const std::uint64_t failures = w.failures() + 1;
    if (failures >= static_cast<std::uint64_t>(c.failure_threshold)) {
        return {opened(w, c, now_ns), Event::consecutive_failures};
    }
    return {Word::closed(failures, w.generation()), Event::counted};
}

[[nodiscard]] constexpr Step settle_probe(Word w, Verdict v, const BreakerConfig& c,
                                          std::int64_t now_ns) noexcept {
    const std::uint64_t in_flight = w.in_flight() > 0 ? w.in_flight() - 1 : 0;
    switch (v) {
    case Verdict::failure:
        return {opened(w, c, now_ns), Event::probe_failed};
    case Verdict::success:
        if (w.successes() + 1 >= c.success_threshold) {
            return {Word::closed(0, w.next_generation()), Event::probe_succeeded};
        }
        return {Word::half_open(in_flight, w.successes() + 1, 0, w.lease_end(), w.generation()),
                Event::counted};
    case Verdict::neutral:
        break;
    }
    // Bounded, so that a dependency whose probes are always cancelled cannot keep it half-open.
    if (w.neutral() + 1 >= c.success_threshold + 2) {
        return {opened(w, c, now_ns), Event::inconclusive};
    }
    return {
        Word::half_open(in_flight, w.successes(), w.neutral() + 1, w.lease_end(), w.generation()),
        Event::counted};
}

// What the verdict of an admitted call changes.
[[nodiscard]] constexpr Step settle(Word w, Token t, Verdict v, const BreakerConfig& c,
                                    std::int64_t now_ns) noexcept {
    const bool same_era =
        t.generation == w.generation() && w.phase() == (t.probe ? Phase::half_open : Phase::closed);
    if (!same_era) {
        return {w, Event::stale};
    }
    return t.probe ? settle_probe(w, v, c, now_ns) : settle_closed(w, v, c, now_ns);
}

[[nodiscard]] constexpr Step trip(Word w, const BreakerConfig& c, std::int64_t now_ns) noexcept {
    return {opened(w, c, now_ns), Event::manual};
}

[[nodiscard]] constexpr Step reset(Word w) noexcept {
    return {Word::closed(0, w.next_generation()), Event::reset};
}

// A forked child holds none of its parent's probes.
[[nodiscard]] constexpr Step after_fork(Word w) noexcept {
    if (w.phase() != Phase::half_open) {
        return {w};
    }
    return {Word::half_open(0, w.successes(), w.neutral(), w.lease_end(), w.next_generation()),
            Event::forked};
}

}  // namespace memguard
