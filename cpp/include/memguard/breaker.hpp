// BreakerCell applies the transitions of breaker_word.hpp with compare-and-swap.
//
// Any thread may call any method at any time; all are lock-free and noexcept. A healthy call needs
// none of them: it compares the word before and after itself (see healthy()).
#pragma once

#include <atomic>   // std::atomic
#include <cstdint>  // std::uint64_t

#include "memguard/breaker_word.hpp"
#include "memguard/config.hpp"

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
};

class BreakerCell {
  public:
    static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

    explicit BreakerCell(const BreakerConfig& config) noexcept : config_(config) {}
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
        Admission admission;
        apply([&](Word w) {
            admission = memguard::admit(w, config_, now_ns);
            return Step{admission.next, admission.event};
        });
        return admission;
    }

    Transition settle(Token token, Verdict verdict, std::int64_t now_ns) noexcept {
        const Transition done =
            apply([&](Word w) { return memguard::settle(w, token, verdict, config_, now_ns); });
        count_failures(done, verdict);
        return done;
    }

    Transition trip(std::int64_t now_ns) noexcept {
        const Transition done = apply([&](Word w) { return memguard::trip(w, config_, now_ns); });
        count_failures(done, Verdict::neutral);
        return done;
    }

    Transition reset() noexcept {
        const Transition done = apply([](Word w) { return memguard::reset(w); });
        count_failures(done, Verdict::neutral);
        return done;
    }

    void after_fork() noexcept {
        apply([](Word w) { return memguard::after_fork(w); });
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
        const bool due = w.phase() == Phase::open && open_left_ns(w, config_, now_ns) == 0;
        return due ? Phase::half_open : w.phase();
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

    void count_failures(const Transition& done, Verdict verdict) noexcept {
        if (done.event == Event::stale || done.before == done.after) {
            return;
        }
        const std::uint64_t failed = verdict == Verdict::failure ? 1 : 0;
        // relaxed, all three: a figure for people; nothing is decided from it
        if (done.after.phase() == Phase::closed) {
            failure_count_.store(0, std::memory_order_relaxed);
        } else if (done.before.phase() == Phase::closed) {
            failure_count_.store(done.before.failures() + failed, std::memory_order_relaxed);
        } else {
            failure_count_.fetch_add(failed, std::memory_order_relaxed);
        }
    }

    // A line of its own: nothing else that is ever written may share it with the callers' loads.
    alignas(kCacheLineBytes) std::atomic<std::uint64_t> word_{0};
    alignas(kCacheLineBytes) const BreakerConfig config_;
    std::atomic<std::uint64_t> failure_count_{0};
};

}  // namespace memguard
