// BreakerCell applies the transitions of transitions.hpp with compare-and-swap.
//
// Any thread may call any method at any time; all are lock-free and noexcept. A healthy call needs
// none of them: it compares the word before and after itself (see healthy()). The rules are an
// argument everywhere: each call brings those under which it began.
#pragma once

#include <algorithm>  // std::clamp
#include <atomic>     // std::atomic
#include <concepts>   // std::invocable
#include <cstdint>    // std::uint64_t
#include <limits>     // std::numeric_limits
#include <memory>     // std::shared_ptr, std::unique_ptr
#include <utility>    // std::move

#include "memguard/breaker_config.hpp"
#include "memguard/breaker_word.hpp"
#include "memguard/config.hpp"
#include "memguard/probe_record.hpp"
#include "memguard/reopen.hpp"
#include "memguard/statistics.hpp"
#include "memguard/transitions.hpp"
#include "memguard/window.hpp"

namespace memguard {

// One set of rules. What the windows hold stays when the rules are replaced by others that need the
// same windows.
struct Rules {
    BreakerConfig config;
    WindowConfig rates;
    std::shared_ptr<Windows> windows = nullptr;  // null where no call is to be recorded
};

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

// For how long somebody wants the circuit to open, if it does.
struct AskedWait {
    std::int64_t ns = kConfiguredWait;
    bool is_backoff = false;  // it grows with the reopenings; one that the dependency told does not

    [[nodiscard]] constexpr bool is_asked() const noexcept { return ns != kConfiguredWait; }
};

// What a breaker is, but for its windows and counters: the same bytes in memory of its own and in
// memory that processes share.
struct BreakerState {
    static constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::min();

    // A line of its own: nothing else that is ever written may share it with the callers' loads.
    alignas(kCacheLineBytes) std::atomic<std::uint64_t> word{0};
    alignas(kCacheLineBytes) std::atomic<std::uint64_t> failure_count{0};
    std::atomic<std::uint64_t> step{0};
    std::atomic<std::uint64_t> generation_hint{0};
    std::atomic<std::int64_t> last_incident_ns{kNever};
    std::atomic<std::int64_t> open_since_ns{Statistics::kNotOpen};
};

class BreakerCell {
  public:
    static_assert(std::atomic<std::uint64_t>::is_always_lock_free,
                  "also between processes: no lock hides in it");

    // In memory of its own. `seed`: of the draws that spread the open periods. `exclusive`: the
    // callers hold a lock around every call, as the GIL is one.
    explicit BreakerCell(std::uint64_t seed = 0, bool exclusive = false)
        : BreakerCell(seed, RowChoice{exclusive},
                      std::make_unique<Own>(RowChoice{exclusive}.count())) {}

    // In memory that processes share and that outlives it. `claim`: by which number this process
    // owns its row, another one after a fork; outlives it too. The last row has no owner.
    BreakerCell(std::uint64_t seed, RowChoice choice, BreakerState& state, CounterRow* rows,
                const std::atomic<std::uint64_t>& claim) noexcept
        : BreakerCell(seed, choice, state, rows, &claim) {}

    BreakerCell(const BreakerCell&) = delete;
    BreakerCell& operator=(const BreakerCell&) = delete;

    // From now on it lies in other memory that processes share. No other thread may be in a method.
    void move_to(RowChoice choice, BreakerState& state, CounterRow* rows,
                 const std::atomic<std::uint64_t>& claim) noexcept {
        state_ = &state;
        statistics_ = Statistics{rows, state.open_since_ns, choice};
        claim_ = &claim;
    }

    // The guard's own view of the word: it only loads.
    [[nodiscard]] const std::atomic<std::uint64_t>& word() const noexcept { return state_->word; }

    [[nodiscard]] Word load() const noexcept {
        // pairs with: the release half of the compare_exchange in apply()
        return Word{state_->word.load(std::memory_order_acquire)};
    }

    // `now`: reads the clock, and is called after the word was loaded: a caller that was stopped
    // between the two would else take a lease that began meanwhile for one longer than any may be,
    // and for corrupt. `asked`: for how long a lost probe that counts as a failure opens.
    template <std::invocable Now>
    [[nodiscard]] Admission admit(const Rules& rules, Now now, Asker asker = Asker::caller,
                                  AskedWait asked = {}) noexcept {
        const std::int64_t wait =
            rules.config.lost_probe_fails ? wait_ns(rules.config, true, asked) : kConfiguredWait;
        if (rules.windows && load().phase() == Phase::disabled) {
            restart_windows(rules, now());  // its end may close: see record()
        }
        Admission admission;
        std::int64_t now_ns = 0;
        const Transition done = apply([&](Word w) {
            now_ns = now();
            admission = memguard::admit(w, rules.config, now_ns, wait, asker);
            return Step{admission.next, admission.event};
        });
        count(done, Verdict::neutral, asked, now_ns);
        admission.before = done.before;
        if (admission.decision == Decision::admitted && admission.token().is_probe()) {
            note_own_probe(admission.next.generation());
        }
        return admission;
    }

    // The same at a known time: for tests.
    [[nodiscard]] Admission admit(const Rules& rules, std::int64_t now_ns) noexcept {
        return admit(rules, [now_ns] { return now_ns; });
    }

    // `asked`: for how long the verdict opens the circuit, if it does.
    Transition settle(const Rules& rules, Token token, Ending ending, std::int64_t now_ns,
                      AskedWait asked = {}) noexcept {
        if (token.is_probe() && !strike_own_probe(token.generation)) {
            // Not this process's probe any more: somebody took it for dead, or it was forked.
            statistics_.count_ending(ending, true, rules.windows != nullptr);
            const Word word = load();
            return {word, word, Event::stale};
        }
        const Verdict verdict = is_lumped(rules.config, token, ending.verdict, now_ns)
                                    ? Verdict::neutral
                                    : ending.verdict;
        bool is_known_success = false;  // to the windows
        const Event broken_rule =
            rules.windows
                ? record(rules, token, {verdict, ending.slow, false}, now_ns, is_known_success)
                : Event::none;
        const bool failed_probe = token.is_probe() && verdict == Verdict::failure;
        const bool may_open =
            verdict == Verdict::failure || token.is_probe() || broken_rule != Event::none;
        const std::int64_t wait =
            may_open ? wait_ns(rules.config, failed_probe, asked) : kConfiguredWait;
        const Transition done = apply([&](Word w) {
            return memguard::settle(w, token, verdict, rules.config, now_ns, wait, broken_rule);
        });
        count(done, verdict, asked, now_ns);
        if (token.counts()) {
            statistics_.count_ending(ending, done.event == Event::stale,
                                     rules.windows != nullptr && !is_known_success);
        }
        return done;
    }

    // A probe of this generation whose holder has ended says nothing about the dependency.
    Transition give_back_orphan(const Rules& rules, std::uint64_t generation,
                                std::int64_t now_ns) noexcept {
        const std::int64_t wait = wait_ns(rules.config, false, {});
        return apply_by_hand(now_ns, [&](Word w) {
            return memguard::settle(w, {generation, TokenKind::probe}, Verdict::neutral,
                                    rules.config, now_ns, wait);
        });
    }

    [[nodiscard]] Statistics& statistics() noexcept { return statistics_; }
    [[nodiscard]] const Statistics& statistics() const noexcept { return statistics_; }

    // Whether this rejection is one of the share that the rules have enforced.
    [[nodiscard]] bool draw_enforced(const BreakerConfig& config) noexcept {
        return config.enforce >= 1.0 || draws_.next() < config.enforce;
    }

    // Reopenings since the last closing.
    [[nodiscard]] std::uint32_t step() const noexcept {
        // relaxed: written by winners of transitions only; a late view draws another wait
        return static_cast<std::uint32_t>(
            std::min<std::uint64_t>(state_->step.load(std::memory_order_relaxed), kMostSteps));
    }

    // The word's generation widened to 64 bits, so that it tells the order of events for ever.
    [[nodiscard]] std::uint64_t widened(Word w) const noexcept {
        // relaxed: a hint, right as long as it is within 2 million generations of the truth
        return widen(w, state_->generation_hint.load(std::memory_order_relaxed));
    }

    // The same for the winner of a transition, who keeps the hint near the truth.
    std::uint64_t widen_new(Word w) noexcept {
        // relaxed: see widened()
        std::uint64_t hint = state_->generation_hint.load(std::memory_order_relaxed);
        const std::uint64_t wide = widen(w, hint);
        // relaxed: as above; a maximum, so a loser has nothing to add
        while (wide > hint && !state_->generation_hint.compare_exchange_weak(
                                  hint, wide, std::memory_order_relaxed)) {
        }
        return wide;
    }

    Transition trip(const Rules& rules, std::int64_t now_ns, AskedWait asked = {}) noexcept {
        const std::int64_t wait =
            asked.is_asked() ? wait_ns(rules.config, false, asked) : kConfiguredWait;
        return apply_by_hand(now_ns,
                             [&](Word w) { return memguard::trip(w, rules.config, now_ns, wait); });
    }

    // By a rule of the user's, which was asked in this generation.
    Transition trip_by_rule(const Rules& rules, std::uint64_t generation, std::int64_t now_ns,
                            AskedWait asked = {}) noexcept {
        const std::int64_t wait = wait_ns(rules.config, false, asked);
        return apply_by_hand(now_ns, [&](Word w) {
            return memguard::trip_by_rule(w, generation, rules.config, now_ns, wait);
        });
    }

    Transition reset(const Rules& rules, std::int64_t now_ns) noexcept {
        restart_windows(rules, now_ns);
        return apply_by_hand(now_ns, [](Word w) { return memguard::reset(w); });
    }

    // Until `end_ms` of the monotonic clock, or Word::kNoEnd.
    Transition force_open(std::int64_t end_ms, std::int64_t now_ns) noexcept {
        return apply_by_hand(now_ns, [&](Word w) { return memguard::force_open(w, end_ms); });
    }
    Transition disable(std::int64_t end_ms, std::int64_t now_ns) noexcept {
        return apply_by_hand(now_ns, [&](Word w) { return memguard::disable(w, end_ms); });
    }

    // Ends what force_open() or disable() began.
    Transition release(const Rules& rules, std::int64_t now_ns) noexcept {
        if (load().phase() == Phase::disabled) {
            restart_windows(rules, now_ns);
        }
        return apply_by_hand(now_ns, [&](Word w) { return memguard::release(w, now_ns); });
    }

    // Before other rules are published, and after a call opened by rules that were replaced.
    void clip(const BreakerConfig& config, std::int64_t now_ns) noexcept {
        apply([&](Word w) { return memguard::clip(w, config, now_ns); });
    }

    // In a forked child. What it shares with its parent goes on as it is.
    void after_fork(std::uint64_t seed) noexcept {
        draws_.reseed(seed);
        if (claim_ != nullptr) {
            return;
        }
        apply([](Word w) { return memguard::after_fork(w); });
        statistics_.forget_flights();
    }

    // Failures in a row, failed probes included; 0 after closing.
    [[nodiscard]] std::uint64_t failure_count() const noexcept {
        const Word w = load();
        if (w.phase() == Phase::closed) {
            return w.failures();
        }
        // relaxed: a figure for people; seen late is fine, nothing is decided from it
        return state_->failure_count.load(std::memory_order_relaxed);
    }

    // What a caller would see: a due open circuit reads as half-open without consuming the probe.
    [[nodiscard]] Phase phase(const BreakerConfig& config, std::int64_t now_ns) const noexcept {
        const Word w = load();
        const Admission next = memguard::admit(w, config, now_ns);
        return next.event == Event::timeout ? next.next.phase() : w.phase();
    }

    // Nanoseconds until a call may be admitted; 0 if one may now.
    [[nodiscard]] std::int64_t retry_after_ns(const BreakerConfig& config,
                                              std::int64_t now_ns) const noexcept {
        return memguard::admit(load(), config, now_ns).retry_after_ns;
    }

  private:
    struct Own {
        explicit Own(std::size_t row_count) : rows(std::make_unique<CounterRow[]>(row_count)) {}

        BreakerState state;
        const std::unique_ptr<CounterRow[]> rows;
    };

    BreakerCell(std::uint64_t seed, RowChoice choice, BreakerState& state, CounterRow* rows,
                const std::atomic<std::uint64_t>* claim) noexcept
        : state_(&state), statistics_(rows, state.open_since_ns, choice), claim_(claim),
          draws_(seed) {}
    BreakerCell(std::uint64_t seed, RowChoice choice, std::unique_ptr<Own> own)
        : BreakerCell(seed, choice, own->state, own->rows.get(), nullptr) {
        own_ = std::move(own);
    }

    [[nodiscard]] static std::uint64_t widen(Word w, std::uint64_t hint) noexcept {
        constexpr unsigned kUnused = 64 - Word::kGenerationBits;
        const auto ahead = static_cast<std::int64_t>((w.generation() - hint) << kUnused) >> kUnused;
        return hint + static_cast<std::uint64_t>(ahead);
    }

    // This process's row, where its probes are noted; null where nobody needs to know whose they
    // are.
    [[nodiscard]] std::atomic<std::uint64_t>* own_record() noexcept {
        const RowChoice choice = statistics_.choice();
        const std::size_t index = choice.mine().index;
        const bool is_noted = claim_ != nullptr && index < choice.owned();
        return is_noted ? &statistics_.row(index).probes : nullptr;
    }
    void note_own_probe(std::uint64_t generation) noexcept {
        if (auto* const record = own_record()) {
            // relaxed: this process's own number
            note_probe(*record, claim_->load(std::memory_order_relaxed), generation);
        }
    }
    // False if the record says that the probe is not this process's.
    [[nodiscard]] bool strike_own_probe(std::uint64_t generation) noexcept {
        auto* const record = own_record();
        // relaxed: as above
        return record == nullptr ||
               strike_probe(*record, claim_->load(std::memory_order_relaxed), generation);
    }

    template <class Function>
    Transition apply(Function&& transition) noexcept {
        // pairs with: the release half of the compare_exchange below
        std::uint64_t bits = state_->word.load(std::memory_order_acquire);
        for (;;) {
            const Step step = transition(Word{bits});
            // acq_rel: publishes what the winner wrote before it and sees what earlier winners
            // wrote; pairs with the acquire loads of the word here, in load() and in the guard.
            if (step.next.bits() == bits ||
                state_->word.compare_exchange_weak(
                    bits, step.next.bits(), std::memory_order_acq_rel, std::memory_order_acquire)) {
                return {Word{bits}, step.next, step.event};
            }
        }
    }

    template <class Function>
    Transition apply_by_hand(std::int64_t now_ns, Function&& transition) noexcept {
        const Transition done = apply(transition);
        count(done, Verdict::neutral, {}, now_ns);
        return done;
    }

    // For how long a verdict opens the circuit, if it does.
    [[nodiscard]] std::int64_t wait_ns(const BreakerConfig& config, bool failed_probe,
                                       AskedWait asked) noexcept {
        if (asked.is_asked()) {
            return std::clamp(asked.ns, kNsPerMs, config.max_reset_timeout_ns);
        }
        return reopen_wait_ns(config, step() + (failed_probe ? 1 : 0), draws_.next());
    }

    static void restart_windows(const Rules& rules, std::int64_t now_ns) noexcept {
        if (rules.windows) {
            rules.windows->restart(now_ns);
        }
    }

    // Does this failure belong to an incident that was counted already?
    [[nodiscard]] bool is_lumped(const BreakerConfig& config, Token token, Verdict verdict,
                                 std::int64_t now_ns) noexcept {
        if (config.lump_interval_ns == 0 || verdict != Verdict::failure ||
            token.kind != TokenKind::normal || load().generation() != token.generation) {
            return false;
        }
        // relaxed, both: of failures at the same moment one wins, and all others are of its
        // incident
        std::int64_t last_ns = state_->last_incident_ns.load(std::memory_order_relaxed);
        const std::int64_t since_ns = difference_ns(now_ns, last_ns);
        // A failure of another thread may have a later time than this one.
        const bool is_near =
            since_ns < config.lump_interval_ns && since_ns > -config.lump_interval_ns;
        return is_near || !state_->last_incident_ns.compare_exchange_strong(
                              last_ns, now_ns, std::memory_order_relaxed);
    }

    // Counts a call in the windows and returns the rule that is broken then. Only calls of the
    // present closed era are: stale ones and probes say nothing about its rates.
    [[nodiscard]] Event record(const Rules& rules, Token token, Ending ending, std::int64_t now_ns,
                               bool& is_known_success) noexcept {
        Windows& windows = *rules.windows;
        const Word w = load();
        if (!token.counts() || w.generation() != token.generation) {
            return Event::none;
        }
        if (token.is_probe()) {
            // Before the compare-and-swap that may close: a fresh window must not see the failures
            // that opened it, and after it somebody may count already. Nothing counts meanwhile.
            windows.restart(now_ns);
            return Event::none;
        }
        if (w.phase() != Phase::closed) {
            return Event::none;
        }
        const bool failed = ending.verdict == Verdict::failure;
        if (failed || ending.slow) {
            windows.bad(failed, ending.slow, now_ns);
            return windows.judge(rules.rates, now_ns);
        }
        if (ending.verdict == Verdict::success) {
            windows.success(now_ns);
            is_known_success = true;
        }
        return Event::none;
    }

    // The figures beside the word: written by the winner of a transition, after it.
    void count(const Transition& done, Verdict verdict, AskedWait asked,
               std::int64_t now_ns) noexcept {
        if (done.event == Event::stale || done.before == done.after) {
            return;
        }
        if (done.is_news()) {
            statistics_.count_transition(done.before.phase(), done.after.phase(), now_ns);
        }
        const std::uint64_t failed = verdict == Verdict::failure ? 1 : 0;
        // relaxed, all of them: figures for people and waits; nothing else is decided from them
        if (done.after.phase() == Phase::closed) {
            state_->failure_count.store(0, std::memory_order_relaxed);
            state_->step.store(0, std::memory_order_relaxed);
            return;
        }
        // relaxed, both: as above
        if (done.before.phase() == Phase::closed) {
            state_->failure_count.store(done.before.failures() + failed, std::memory_order_relaxed);
        } else {
            state_->failure_count.fetch_add(failed, std::memory_order_relaxed);
        }
        const bool reopened = done.before.phase() == Phase::half_open && done.opened() &&
                              (failed != 0 || done.event == Event::probe_lost);
        if (reopened && (!asked.is_asked() || asked.is_backoff)) {
            // relaxed: as above
            state_->step.fetch_add(1, std::memory_order_relaxed);
        }
    }

    // Beyond it no wait grows any more: each is clipped.
    static constexpr std::uint64_t kMostSteps = 1'000'000;

    std::unique_ptr<Own> own_;  // null where the memory is somebody else's
    BreakerState* state_;
    Statistics statistics_;
    const std::atomic<std::uint64_t>* claim_;  // null where the memory is this process's own
    Draws draws_;
};

}  // namespace memguard
