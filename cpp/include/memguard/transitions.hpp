// The transitions of a circuit breaker as pure functions of its word.
//
// Every phase change and every takeover of a lost lease adds 1 to the generation, so that a result
// of an older era is recognised. Nothing here knows threads: BreakerCell applies these functions
// with compare-and-swap.
#pragma once

#include <algorithm>  // std::max
#include <cstdint>    // std::int64_t

#include "memguard/breaker_config.hpp"
#include "memguard/breaker_word.hpp"
#include "memguard/clock.hpp"

namespace memguard {

enum class Verdict : std::uint8_t { success, failure, neutral };

// Why a word changed; `none` and `counted` are not transitions.
enum class Event : std::uint8_t {
    none,
    counted,               // a verdict was recorded without a change of phase
    stale,                 // a verdict of an older generation: ignored
    consecutive_failures,  // closed -> open
    failure_rate,          // closed -> open
    slow_rate,             // closed -> open
    custom,                // closed -> open, by a rule of the user's
    timeout,               // open or forced_open -> half_open, disabled -> closed: its time is over
    probe_lost,            // half_open -> half_open or open, by a caller that found the lease over
    probe_failed,          // half_open -> open
    probe_succeeded,       // half_open -> closed
    inconclusive,          // half_open -> open, after too many neutral probes in a row
    manual,                // by hand: tripped, forced open, disabled, or given back to the rules
    reset,                 // any -> closed
    forked,                // half_open -> half_open in a forked child, which holds no probe
    reconfigured,          // the word stays as it is: other rules apply
};

[[nodiscard]] constexpr std::int64_t ceil_div(std::int64_t value, std::int64_t by) noexcept {
    return value / by + (value % by > 0 ? 1 : 0);
}

enum class TokenKind : std::uint8_t {
    normal,
    probe,
    nested,      // made inside a probe: only the outer call's verdict counts
    unrecorded,  // disabled, or a rejection that is not enforced: no verdict counts
};

// What an admission hands out and a verdict hands back.
struct Token {
    std::uint64_t generation = 0;
    TokenKind kind = TokenKind::normal;
    std::int64_t started_ns = 0;  // where calls are timed

    [[nodiscard]] constexpr bool is_probe() const noexcept { return kind == TokenKind::probe; }
    [[nodiscard]] constexpr bool counts() const noexcept {
        return kind == TokenKind::normal || kind == TokenKind::probe;
    }
};

// Who asks for admission. Where the rules name an active probe, callers are no probes.
enum class Asker : std::uint8_t { caller, prober };

enum class Decision : std::uint8_t { admitted, rejected_open, rejected_probing, rejected_forced };

struct Admission {
    Word next;
    Decision decision = Decision::admitted;
    Event event = Event::none;
    std::int64_t retry_after_ns = 0;  // > 0 for a rejection
    bool awaits_prober = false;       // rejected only because somebody else is to probe
    Word before{};                    // set by the cell: the word that `next` took the place of

    // For an admitted call only.
    [[nodiscard]] constexpr Token token() const noexcept {
        const Phase phase = next.phase();
        return {next.generation(), phase == Phase::half_open  ? TokenKind::probe
                                   : phase == Phase::disabled ? TokenKind::unrecorded
                                                              : TokenKind::normal};
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

// A second: the clocks of two cores, read by two processes at once, differ by less.
inline constexpr std::int64_t kLeaseSlackTicks = kNsPerSecond / kLeaseTickNs + 1;

// Nanoseconds until the probes' lease is over; 0 if it is. The end is kept modulo 2^23 ticks, hence
// the signed difference; one longer than any lease is corrupt and counts as over.
[[nodiscard]] constexpr std::int64_t lease_left_ns(Word w, const BreakerConfig& c,
                                                   std::int64_t now_ns) noexcept {
    const auto now_tick = static_cast<std::uint64_t>(now_ns / kLeaseTickNs);
    const std::uint64_t difference = (w.lease_end() - now_tick) & Word::kLeaseMask;
    const auto left = static_cast<std::int64_t>(difference);
    const bool passed = difference >> (Word::kLeaseBits - 1) != 0;
    if (passed || left == 0 ||
        left > ceil_div(c.probe_timeout_ns, kLeaseTickNs) + kLeaseSlackTicks) {
        return 0;
    }
    return left * kLeaseTickNs;
}

[[nodiscard]] constexpr std::uint64_t lease_end_tick(const BreakerConfig& c,
                                                     std::int64_t now_ns) noexcept {
    return static_cast<std::uint64_t>(ceil_div(now_ns + c.probe_timeout_ns, kLeaseTickNs));
}

// Has a phase that was set by hand reached its end?
[[nodiscard]] constexpr bool by_hand_is_over(Word w, std::int64_t now_ns) noexcept {
    return w.end_ms() != Word::kNoEnd && w.end_ms() <= now_ns / kNsPerMs;
}

// Nanoseconds until a forced-open circuit is to be asked again; one without end says the longest
// wait that there is.
[[nodiscard]] constexpr std::int64_t forced_left_ns(Word w, const BreakerConfig& c,
                                                    std::int64_t now_ns) noexcept {
    if (w.end_ms() == Word::kNoEnd) {
        return c.max_reset_timeout_ns;
    }
    return std::max(w.end_ms() * kNsPerMs - now_ns, kMinRetryAfterNs);
}

// Open from now on, for `wait_ns` or kConfiguredWait.
[[nodiscard]] constexpr Word opened(Word w, const BreakerConfig& c, std::int64_t now_ns,
                                    std::int64_t wait_ns = kConfiguredWait) noexcept {
    const std::int64_t wait = wait_ns == kConfiguredWait ? c.reset_timeout_ns : wait_ns;
    return Word::open(ceil_div(now_ns + wait, kNsPerMs), w.next_generation());
}

[[nodiscard]] constexpr Admission admit_probe(Word w, const BreakerConfig& c,
                                              std::int64_t now_ns) noexcept {
    return {Word::half_open(1, 0, 0, lease_end_tick(c, now_ns), w.next_generation()),
            Decision::admitted, Event::timeout};
}

[[nodiscard]] constexpr bool may_probe(const BreakerConfig& c, Asker asker) noexcept {
    return asker == Asker::prober || !c.has_active_probe;
}

[[nodiscard]] constexpr Admission admit_half_open(Word w, const BreakerConfig& c,
                                                  std::int64_t now_ns, std::int64_t wait_ns,
                                                  Asker asker) noexcept {
    const std::uint64_t lease_end = lease_end_tick(c, now_ns);
    // Where no probe runs one may, even if there are successes enough: the threshold was lowered.
    const bool room = w.in_flight() == 0 || (w.in_flight() < c.half_open_max &&
                                             w.in_flight() + w.successes() < c.success_threshold);
    if (room && may_probe(c, asker)) {
        return {Word::half_open(w.in_flight() + 1, w.successes(), w.neutral(), lease_end,
                                w.generation())};
    }
    if (const std::int64_t left = lease_left_ns(w, c, now_ns); left > 0) {
        return {w, Decision::rejected_probing, Event::none, left};
    }
    if (c.lost_probe_fails && !room) {
        const Word next = opened(w, c, now_ns, wait_ns);
        return {next, Decision::rejected_open, Event::probe_lost,
                std::max(next.deadline_ms() * kNsPerMs - now_ns, kMinRetryAfterNs)};
    }
    if (!may_probe(c, asker)) {
        return {w, Decision::rejected_probing, Event::none, c.monitor_interval_ns, true};
    }
    // A prober that was killed or hangs cannot wedge the breaker: this caller takes over.
    return {Word::half_open(1, w.successes(), w.neutral(), lease_end, w.next_generation()),
            Decision::admitted, Event::probe_lost};
}

// May this call run? If it may, the token tells how. `wait_ns`: for how long a lost probe that
// counts as a failure opens.
[[nodiscard]] constexpr Admission admit(Word w, const BreakerConfig& c, std::int64_t now_ns,
                                        std::int64_t wait_ns = kConfiguredWait,
                                        Asker asker = Asker::caller) noexcept {
    switch (w.phase()) {
    case Phase::closed:
        return {w};
    case Phase::open:
        if (const std::int64_t left = open_left_ns(w, c, now_ns); left > 0) {
            return {w, Decision::rejected_open, Event::none, left};
        }
        if (!may_probe(c, asker)) {
            return {w, Decision::rejected_open, Event::none, c.monitor_interval_ns, true};
        }
        return admit_probe(w, c, now_ns);
    case Phase::forced_open:
        if (!by_hand_is_over(w, now_ns)) {
            return {w, Decision::rejected_forced, Event::none, forced_left_ns(w, c, now_ns)};
        }
        if (!may_probe(c, asker)) {
            return {w, Decision::rejected_open, Event::none, c.monitor_interval_ns, true};
        }
        return admit_probe(w, c, now_ns);
    case Phase::disabled:
        if (!by_hand_is_over(w, now_ns)) {
            return {w};
        }
        return {Word::closed(0, w.next_generation()), Decision::admitted, Event::timeout};
    case Phase::half_open:
        break;
    }
    return admit_half_open(w, c, now_ns, wait_ns, asker);
}

[[nodiscard]] constexpr Step settle_closed(Word w, Verdict v, const BreakerConfig& c,
                                           std::int64_t now_ns, std::int64_t wait_ns,
                                           Event broken_rule) noexcept {
    if (broken_rule != Event::none &&
        (v != Verdict::failure ||
         w.failures() + 1 < static_cast<std::uint64_t>(c.failure_threshold))) {
        return {opened(w, c, now_ns, wait_ns), broken_rule};
    }
    if (v == Verdict::neutral || (v == Verdict::success && w.failures() == 0)) {
        return {w};
    }
    if (v == Verdict::success) {
        return {Word::closed(0, w.generation()), Event::counted};
    }
    const std::uint64_t failures = w.failures() + 1;
    if (failures >= static_cast<std::uint64_t>(c.failure_threshold)) {
        return {opened(w, c, now_ns, wait_ns), Event::consecutive_failures};
    }
    return {Word::closed(failures, w.generation()), Event::counted};
}

[[nodiscard]] constexpr Step settle_probe(Word w, Verdict v, const BreakerConfig& c,
                                          std::int64_t now_ns, std::int64_t wait_ns) noexcept {
    const std::uint64_t in_flight = w.in_flight() > 0 ? w.in_flight() - 1 : 0;
    switch (v) {
    case Verdict::failure:
        return {opened(w, c, now_ns, wait_ns), Event::probe_failed};
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
        return {opened(w, c, now_ns, wait_ns), Event::inconclusive};
    }
    return {
        Word::half_open(in_flight, w.successes(), w.neutral() + 1, w.lease_end(), w.generation()),
        Event::counted};
}

// What the verdict of an admitted call changes. `wait_ns`: for how long it opens, if it does.
// `broken_rule`: the rate that the windows, this call included, have reached; it opens a closed
// circuit.
[[nodiscard]] constexpr Step settle(Word w, Token t, Verdict v, const BreakerConfig& c,
                                    std::int64_t now_ns, std::int64_t wait_ns = kConfiguredWait,
                                    Event broken_rule = Event::none) noexcept {
    if (!t.counts()) {
        return {w};
    }
    const Phase era = t.is_probe() ? Phase::half_open : Phase::closed;
    if (t.generation != w.generation() || w.phase() != era) {
        return {w, Event::stale};
    }
    return t.is_probe() ? settle_probe(w, v, c, now_ns, wait_ns)
                        : settle_closed(w, v, c, now_ns, wait_ns, broken_rule);
}

[[nodiscard]] constexpr bool is_by_hand(Word w) noexcept {
    return w.phase() == Phase::forced_open || w.phase() == Phase::disabled;
}

// Open now; nothing where the phase was set by hand, which outranks it.
[[nodiscard]] constexpr Step trip(Word w, const BreakerConfig& c, std::int64_t now_ns,
                                  std::int64_t wait_ns = kConfiguredWait) noexcept {
    if (is_by_hand(w)) {
        return {w};
    }
    return {opened(w, c, now_ns, wait_ns), Event::manual};
}

// Open a circuit that is closed still, in the era in which a rule of the user's was asked.
[[nodiscard]] constexpr Step trip_by_rule(Word w, std::uint64_t generation, const BreakerConfig& c,
                                          std::int64_t now_ns, std::int64_t wait_ns) noexcept {
    if (w.phase() != Phase::closed || w.generation() != generation) {
        return {w};
    }
    return {opened(w, c, now_ns, wait_ns), Event::custom};
}

[[nodiscard]] constexpr Step reset(Word w) noexcept {
    return {Word::closed(0, w.next_generation()), Event::reset};
}

[[nodiscard]] constexpr Step force_open(Word w, std::int64_t end_ms) noexcept {
    return {Word::forced_open(end_ms, w.next_generation()), Event::manual};
}

[[nodiscard]] constexpr Step disable(Word w, std::int64_t end_ms) noexcept {
    return {Word::disabled(end_ms, w.next_generation()), Event::manual};
}

// Gives control back to the rules: the next call after forced_open is a probe, disabled closes.
[[nodiscard]] constexpr Step release(Word w, std::int64_t now_ns) noexcept {
    switch (w.phase()) {
    case Phase::forced_open:
        return {Word::open(now_ns / kNsPerMs, w.next_generation()), Event::manual};
    case Phase::disabled:
        return {Word::closed(0, w.next_generation()), Event::manual};
    default:
        return {w};
    }
}

// An open period or a lease that is longer than new rules allow ends after as long as they do.
[[nodiscard]] constexpr Step clip(Word w, const BreakerConfig& c, std::int64_t now_ns) noexcept {
    if (w.phase() == Phase::open) {
        const std::int64_t latest_ms = ceil_div(now_ns + c.max_reset_timeout_ns, kNsPerMs);
        return {w.deadline_ms() > latest_ms ? Word::open(latest_ms, w.generation()) : w};
    }
    if (w.phase() != Phase::half_open) {
        return {w};
    }
    const std::uint64_t latest = lease_end_tick(c, now_ns);
    const std::uint64_t beyond = (w.lease_end() - latest) & Word::kLeaseMask;
    const bool is_later = beyond != 0 && beyond >> (Word::kLeaseBits - 1) == 0;
    return {is_later
                ? Word::half_open(w.in_flight(), w.successes(), w.neutral(), latest, w.generation())
                : w};
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
