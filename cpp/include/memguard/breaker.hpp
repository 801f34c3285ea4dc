// BreakerCell applies the transitions of breaker_word.hpp with compare-and-swap.
//
// Any thread may call any method at any time; all are lock-free and noexcept. A healthy call needs
// none of them: it compares the word before and after itself (see healthy()).
#pragma once

#include <atomic>   // std::atomic
#include <cstdint>  // std::uint64_t
#include <memory>   // std::unique_ptr
#include <utility>  // std::move

#include "memguard/breaker_word.hpp"
#include "memguard/config.hpp"
#include "memguard/reopen.hpp"
#include "memguard/window.hpp"

namespace memguard {

// What a method did: the word before and after its own compare-and-swap, and why.
struct Transition {
    Word before;
    Word after;
    Event event = Event::none;

    // True for the one caller that changed the phase to open.
    [[nodiscard]] constexpr bool opened() const noexcept {
        return event != Event::stale && before != after && after.phase() == Phase::open;
    }
    // True for the one caller that made a change worth telling: counting is none.
    [[nodiscard]] constexpr bool is_news() const noexcept {
        return before.generation() != after.generation();
    }
};

// How often something happened. Only failures, neutral verdicts and what never ran are counted:
// a healthy success leaves no trace.
struct Totals {
    std::uint64_t failures = 0;
    std::uint64_t neutrals = 0;
    std::uint64_t rejections = 0;
    std::uint64_t stale = 0;
    std::uint64_t transitions = 0;
};

class BreakerCell {
  public:
    static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

    // `seed`: of the draws that spread the open periods. `windows`: none where rates do not matter.
    explicit BreakerCell(const BreakerConfig& config, std::uint64_t seed = 0,
                         std::unique_ptr<Windows> windows = nullptr) noexcept
        : config_(config), windows_(std::move(windows)), draws_(seed) {}
    BreakerCell(const BreakerCell&) = delete;
    BreakerCell& operator=(const BreakerCell&) = delete;

    // The guard's own view of the word: it only loads.
    [[nodiscard]] const std::atomic<std::uint64_t>& word() const noexcept { return word_; }
    [[nodiscard]] const BreakerConfig& config() const noexcept { return config_; }

    [[nodiscard]] Word load() const noexcept {
        // pairs with: the release half of the compare_exchange in apply()
        return Word{word_.load(std::memory_order_acquire)};
    }

    [[nodiscard]] Admission admit(std::int64_t now_ns) noexcept {
        const std::int64_t wait = config_.lost_probe_fails ? wait_ns(true, kConfiguredWait) : 0;
        if (windows_ && load().phase() == Phase::disabled) {
            restart_windows(now_ns);  // its end may close: see record()
        }
        Admission admission;
        const Transition done = apply([&](Word w) {
            admission = memguard::admit(w, config_, now_ns, wait);
            return Step{admission.next, admission.event};
        });
        count(done, Verdict::neutral, kConfiguredWait);
        admission.before = done.before;
        return admission;
    }

    // `told_ns`: how long the dependency asked to be left alone, if it did; else kConfiguredWait.
    // `slow`: the call took as long as a rule calls slow.
    Transition settle(Token token, Verdict verdict, std::int64_t now_ns,
                      std::int64_t told_ns = kConfiguredWait, bool slow = false) noexcept {
        const Event broken_rule = windows_ ? record(token, verdict, slow, now_ns) : Event::none;
        const bool failed_probe = token.is_probe() && verdict == Verdict::failure;
        const bool may_open =
            verdict == Verdict::failure || token.is_probe() || broken_rule != Event::none;
        const std::int64_t wait = may_open ? wait_ns(failed_probe, told_ns) : kConfiguredWait;
        const Transition done = apply([&](Word w) {
            return memguard::settle(w, token, verdict, config_, now_ns, wait, broken_rule);
        });
        count(done, verdict, told_ns);
        count_verdict(token, verdict, done.event);
        return done;
    }

    // Null where no rule needs them.
    [[nodiscard]] Windows* windows() const noexcept { return windows_.get(); }

    // A call was turned away. Not every rejected admission is one: a call inside a probe may run.
    // `exclusive`: the callers hold a lock around it, as the GIL is one; then a rejection, which is
    // all that an open circuit does, takes no locked instruction.
    void count_rejection(bool exclusive) noexcept {
        // relaxed, all three: as in totals()
        if (exclusive) {
            rejections_.store(rejections_.load(std::memory_order_relaxed) + 1,
                              std::memory_order_relaxed);
        } else {
            rejections_.fetch_add(1, std::memory_order_relaxed);
        }
    }

    [[nodiscard]] Totals totals() const noexcept {
        // relaxed: statistics only; seen late is fine, nothing is decided from them
        return {failures_.load(std::memory_order_relaxed),
                neutrals_.load(std::memory_order_relaxed),
                rejections_.load(std::memory_order_relaxed), stale_.load(std::memory_order_relaxed),
                transitions_.load(std::memory_order_relaxed)};
    }

    // The word's generation widened to 64 bits, so that it tells the order of events for ever.
    [[nodiscard]] std::uint64_t widened(Word w) noexcept {
        // relaxed: a hint, right as long as it is within 2 million generations of the truth
        std::uint64_t hint = generation_hint_.load(std::memory_order_relaxed);
        constexpr unsigned kUnused = 64 - Word::kGenerationBits;
        const auto ahead = static_cast<std::int64_t>((w.generation() - hint) << kUnused) >> kUnused;
        const std::uint64_t wide = hint + static_cast<std::uint64_t>(ahead);
        // relaxed: as above; a maximum, so a loser has nothing to add
        while (wide > hint &&
               !generation_hint_.compare_exchange_weak(hint, wide, std::memory_order_relaxed)) {
        }
        return wide;
    }

    Transition trip(std::int64_t now_ns, std::int64_t told_ns = kConfiguredWait) noexcept {
        const std::int64_t wait = told_ns == kConfiguredWait ? told_ns : clipped(told_ns);
        return apply_by_hand([&](Word w) { return memguard::trip(w, config_, now_ns, wait); });
    }

    Transition reset(std::int64_t now_ns) noexcept {
        restart_windows(now_ns);
        return apply_by_hand([](Word w) { return memguard::reset(w); });
    }

    // Until `end_ms` of the monotonic clock, or Word::kNoEnd.
    Transition force_open(std::int64_t end_ms) noexcept {
        return apply_by_hand([&](Word w) { return memguard::force_open(w, end_ms); });
    }
    Transition disable(std::int64_t end_ms) noexcept {
        return apply_by_hand([&](Word w) { return memguard::disable(w, end_ms); });
    }

    // Ends what force_open() or disable() began.
    Transition release(std::int64_t now_ns) noexcept {
        if (load().phase() == Phase::disabled) {
            restart_windows(now_ns);
        }
        return apply_by_hand([&](Word w) { return memguard::release(w, now_ns); });
    }

    void after_fork(std::uint64_t seed) noexcept {
        apply([](Word w) { return memguard::after_fork(w); });
        draws_.reseed(seed);
    }

    // Failures in a row, failed probes included; 0 after closing.
    [[nodiscard]] std::uint64_t failure_count() const noexcept {
        const Word w = load();
        if (w.phase() == Phase::closed) {
            return w.failures();
        }
        // relaxed: a figure for people; seen late is fine, nothing is decided from it
        return failure_count_.load(std::memory_order_relaxed);
    }

    // What a caller would see: a due open circuit reads as half-open without consuming the probe.
    [[nodiscard]] Phase phase(std::int64_t now_ns) const noexcept {
        const Word w = load();
        const Admission next = memguard::admit(w, config_, now_ns);
        return next.event == Event::timeout ? next.next.phase() : w.phase();
    }

    // Nanoseconds until a call may be admitted; 0 if one may now.
    [[nodiscard]] std::int64_t retry_after_ns(std::int64_t now_ns) const noexcept {
        return memguard::admit(load(), config_, now_ns).retry_after_ns;
    }

  private:
    template <class Function>
    Transition apply(Function&& transition) noexcept {
        // pairs with: the release half of the compare_exchange below
        std::uint64_t bits = word_.load(std::memory_order_acquire);
        for (;;) {
            const Step step = transition(Word{bits});
            // acq_rel: publishes what the winner wrote before it and sees what earlier winners
            // wrote; pairs with the acquire loads of the word here, in load() and in the guard.
            if (step.next.bits() == bits ||
                word_.compare_exchange_weak(bits, step.next.bits(), std::memory_order_acq_rel,
                                            std::memory_order_acquire)) {
                return {Word{bits}, step.next, step.event};
            }
        }
    }

    template <class Function>
    Transition apply_by_hand(Function&& transition) noexcept {
        const Transition done = apply(transition);
        count(done, Verdict::neutral, kConfiguredWait);
        return done;
    }

    [[nodiscard]] std::int64_t clipped(std::int64_t told_ns) const noexcept {
        return std::clamp(told_ns, kNsPerMs, config_.max_reset_timeout_ns);
    }

    // For how long a verdict opens the circuit, if it does.
    [[nodiscard]] std::int64_t wait_ns(bool failed_probe, std::int64_t told_ns) noexcept {
        if (told_ns != kConfiguredWait) {
            return clipped(told_ns);
        }
        // relaxed: written by winners of transitions only; a late view spreads a wait differently
        const std::uint32_t step = step_.load(std::memory_order_relaxed);
        return reopen_wait_ns(config_, step + (failed_probe ? 1 : 0), draws_.next());
    }

    void restart_windows(std::int64_t now_ns) noexcept {
        if (windows_) {
            windows_->restart(now_ns);
        }
    }

    // Counts a call in the windows and returns the rule that is broken then. Only calls of the
    // present closed era are: stale ones and probes say nothing about its rates.
    [[nodiscard]] Event record(Token token, Verdict verdict, bool slow,
                               std::int64_t now_ns) noexcept {
        if (token.is_probe()) {
            // Before the compare-and-swap that may close: a fresh window must not see the failures
            // that opened it, and after it somebody may count already. Nothing counts meanwhile.
            restart_windows(now_ns);
            return Event::none;
        }
        const Word w = load();
        if (!token.counts() || w.phase() != Phase::closed || w.generation() != token.generation) {
            return Event::none;
        }
        const bool failed = verdict == Verdict::failure;

        if (failed || slow) {
            windows_->bad(failed, slow, now_ns);
            return windows_->judge(now_ns);
        }
        if (verdict == Verdict::success) {
            windows_->success(now_ns);
        }
        return Event::none;
    }

    void count_verdict(Token token, Verdict verdict, Event event) noexcept {
        if (!token.counts()) {
            return;
        }
        // relaxed, all three: as in totals()
        if (event == Event::stale) {
            stale_.fetch_add(1, std::memory_order_relaxed);
        }
        if (verdict == Verdict::failure) {
            failures_.fetch_add(1, std::memory_order_relaxed);
        } else if (verdict == Verdict::neutral) {
            neutrals_.fetch_add(1, std::memory_order_relaxed);
        }
    }

    // The figures beside the word: written by the winner of a transition, after it.
    void count(const Transition& done, Verdict verdict, std::int64_t told_ns) noexcept {
        if (done.event == Event::stale || done.before == done.after) {
            return;
        }
        if (done.is_news()) {
            transitions_.fetch_add(1, std::memory_order_relaxed);  // relaxed: as in totals()
        }
        const std::uint64_t failed = verdict == Verdict::failure ? 1 : 0;
        // relaxed, all of them: figures for people and waits; nothing else is decided from them
        if (done.after.phase() == Phase::closed) {
            failure_count_.store(0, std::memory_order_relaxed);
            step_.store(0, std::memory_order_relaxed);
            return;
        }
        // relaxed, both: as above
        if (done.before.phase() == Phase::closed) {
            failure_count_.store(done.before.failures() + failed, std::memory_order_relaxed);
        } else {
            failure_count_.fetch_add(failed, std::memory_order_relaxed);
        }
        const bool reopened = done.before.phase() == Phase::half_open && done.opened() &&
                              (failed != 0 || done.event == Event::probe_lost);
        if (reopened && told_ns == kConfiguredWait) {
            // relaxed: as above
            step_.fetch_add(1, std::memory_order_relaxed);
        }
    }

    // A line of its own: nothing else that is ever written may share it with the callers' loads.
    alignas(kCacheLineBytes) std::atomic<std::uint64_t> word_{0};
    alignas(kCacheLineBytes) const BreakerConfig config_;
    const std::unique_ptr<Windows> windows_;
    std::atomic<std::uint64_t> failure_count_{0};
    std::atomic<std::uint32_t> step_{0};  // reopenings since the last closing
    std::atomic<std::uint64_t> generation_hint_{0};
    std::atomic<std::uint64_t> failures_{0};
    std::atomic<std::uint64_t> neutrals_{0};
    std::atomic<std::uint64_t> rejections_{0};
    std::atomic<std::uint64_t> stale_{0};
    std::atomic<std::uint64_t> transitions_{0};
    Draws draws_;
};

}  // namespace memguard
