// Exhaustive interleavings of the cell's load and compare-and-swap, explored as a state graph.
//
// Threads run calls made of two operations, admission and verdict, each of two half-steps (load,
// then swap). Time may jump at any point; a hand may trip, reset, force, disable or release, a rule
// of the user's may open, and a fork may take the probes away. In every reachable state the
// invariants of check_state hold, and from every state some call is admitted once time passes.
#include "check.hpp"

#include <array>          // std::array
#include <cstdlib>        // std::getenv
#include <unordered_set>  // std::unordered_set
#include <vector>         // std::vector

#include "memguard/transitions.hpp"

using namespace memguard;

namespace {

constexpr std::size_t kMaxThreads = 3;

enum class At : std::uint8_t { idle, admit_loaded, running, settle_loaded };

struct Thread {
    At at = At::idle;
    std::uint8_t calls_left = 0;
    Verdict verdict = Verdict::success;
    Token token{};
    std::uint64_t seen = 0;

    friend bool operator==(const Thread& a, const Thread& b) noexcept {
        return a.at == b.at && a.calls_left == b.calls_left && a.verdict == b.verdict &&
               a.token.generation == b.token.generation && a.token.kind == b.token.kind &&
               a.seen == b.seen;
    }
};

struct State {
    std::uint64_t word = 0;
    std::uint8_t time_steps = 0;
    std::uint8_t hands_left = 0;
    std::array<Thread, kMaxThreads> threads{};
    friend bool operator==(const State&, const State&) noexcept = default;
};

struct Hash {
    std::size_t operator()(const State& s) const noexcept {
        std::uint64_t h = s.word * 0x9E3779B97F4A7C15ULL + s.time_steps * 8 + s.hands_left;
        for (const Thread& t : s.threads) {
            h = (h ^ t.seen) * 0x9E3779B97F4A7C15ULL;
            h ^= t.token.generation << 20 | static_cast<std::uint64_t>(t.at) << 8 |
                 static_cast<std::uint64_t>(t.calls_left) << 4 |
                 static_cast<std::uint64_t>(t.verdict) << 1 |
                 static_cast<std::uint64_t>(t.token.kind) << 24;
        }
        return static_cast<std::size_t>(h ^ h >> 29);
    }
};

class Explorer {
  public:
    Explorer(std::size_t threads, std::uint8_t calls, std::uint8_t hands, std::uint32_t slots,
             std::uint32_t successes, std::uint64_t first_generation)
        : threads_(threads) {
        config_.failure_threshold = 2;
        config_.reset_timeout_ns = kStepNs;
        config_.probe_timeout_ns = kStepNs;
        config_.half_open_max = slots;
        config_.success_threshold = successes;
        State start;
        start.word = Word::closed(0, first_generation).bits();
        start.hands_left = hands;
        for (std::size_t i = 0; i < threads_; ++i) {
            start.threads[i].calls_left = calls;
        }
        visit(start);
    }

    void run() {
        while (!frontier_.empty()) {
            const State s = frontier_.back();
            frontier_.pop_back();
            if (s.time_steps < kMaxTimeSteps) {
                State later = s;
                ++later.time_steps;
                visit(later);
            }
            interfere(s);
            for (std::size_t i = 0; i < threads_; ++i) {
                step(s, i);
            }
        }
    }

    [[nodiscard]] std::size_t states() const noexcept { return seen_.size(); }

  private:
    static constexpr std::int64_t kStepNs = 64 * kNsPerMs;
    static constexpr std::uint8_t kMaxTimeSteps = 4;

    // Each step outlasts an open period and a lease with their rounding.
    static std::int64_t now(const State& s) noexcept {
        return kNsPerSecond + s.time_steps * (kStepNs + 2 * kLeaseTickNs);
    }

    void visit(const State& s) {
        if (seen_.insert(s).second) {
            check_state(s);
            frontier_.push_back(s);
        }
    }

    // A hand's load and compare-and-swap are one step: it repeats until it wins.
    void interfere(const State& s) {
        if (s.hands_left == 0) {
            return;
        }
        const Word w{s.word};
        const std::int64_t end_ms = ceil_div(now(s) + kStepNs, kNsPerMs);
        for (const Step done :
             {trip(w, config_, now(s)), reset(w), force_open(w, end_ms), disable(w, end_ms),
              release(w, now(s)), after_fork(w),
              trip_by_rule(w, w.generation(), config_, now(s), kConfiguredWait)}) {
            check_generation(w, done.next);
            State next = s;
            --next.hands_left;
            next.word = done.next.bits();
            visit(next);
        }
    }

    void step(const State& s, std::size_t i) {
        const Thread& t = s.threads[i];
        switch (t.at) {
        case At::idle:
            if (t.calls_left > 0) {
                State next = s;
                next.threads[i].at = At::admit_loaded;
                next.threads[i].seen = s.word;
                --next.threads[i].calls_left;
                visit(next);
            }
            break;
        case At::admit_loaded:
            swap_admit(s, i);
            break;
        case At::running:
            for (const Verdict v : {Verdict::success, Verdict::failure, Verdict::neutral}) {
                State next = s;
                next.threads[i].at = At::settle_loaded;
                next.threads[i].verdict = v;
                next.threads[i].seen = s.word;
                visit(next);
            }
            break;
        case At::settle_loaded:
            swap_settle(s, i);
            break;
        }
    }

    void swap_admit(const State& s, std::size_t i) {
        const Admission a = admit(Word{s.threads[i].seen}, config_, now(s));
        State next = s;
        Thread& t = next.threads[i];
        if (a.next.bits() != t.seen && s.word != t.seen) {
            t.seen = s.word;  // the compare-and-swap failed: look again
            visit(next);
            return;
        }
        if (a.next.bits() != t.seen) {
            check_generation(Word{s.word}, a.next);
            next.word = a.next.bits();
        }
        CHECK(a.decision == Decision::admitted || a.retry_after_ns > 0);
        t.seen = 0;
        t.at = At::idle;
        if (a.decision == Decision::admitted) {
            t.at = At::running;
            t.token = a.token();
        }
        visit(next);
    }

    void swap_settle(const State& s, std::size_t i) {
        State next = s;
        Thread& t = next.threads[i];
        const Step done = settle(Word{t.seen}, t.token, t.verdict, config_, now(s));
        if (done.next.bits() != t.seen && s.word != t.seen) {
            t.seen = s.word;
            visit(next);
            return;
        }
        if (done.next.bits() != t.seen) {
            check_generation(Word{s.word}, done.next);
            next.word = done.next.bits();
        }
        t = Thread{At::idle, t.calls_left, Verdict::success, {}, 0};
        visit(next);
    }

    // A change of phase or a takeover adds exactly 1 to the generation; counting adds nothing.
    static void check_generation(Word before, Word after) {
        const bool same_era = before.generation() == after.generation();
        CHECK(same_era ? before.phase() == after.phase()
                       : before.next_generation() == after.generation());
    }

    void check_state(const State& s) {
        const Word w{s.word};
        std::uint64_t live = 0;
        for (const Thread& t : s.threads) {
            const bool holds = t.at == At::running || t.at == At::settle_loaded;
            live += holds && t.token.is_probe() && t.token.generation == w.generation() ? 1 : 0;
        }
        if (w.phase() == Phase::half_open) {
            CHECK(w.in_flight() == live);
            CHECK(w.in_flight() <= config_.half_open_max);
        } else {
            CHECK(live == 0);
        }
        const std::int64_t much_later = now(s) + 10 * kStepNs;
        CHECK(admit(w, config_, much_later).decision == Decision::admitted);
    }

    std::size_t threads_;
    BreakerConfig config_{};
    std::unordered_set<State, Hash> seen_;
    std::vector<State> frontier_;
};

void explore(std::size_t threads, std::uint8_t calls, std::uint8_t hands,
             std::uint64_t first_generation) {
    for (std::uint32_t slots : {1u, 2u}) {
        for (std::uint32_t successes : {1u, 2u}) {
            Explorer explorer{threads, calls, hands, slots, successes, first_generation};
            explorer.run();
            std::printf(
                "     %zu threads x %u calls, %u hands, %u slots, %u successes: %zu states\n",
                threads, calls, hands, slots, successes, explorer.states());
        }
    }
}

}  // namespace

TEST(two_threads_with_three_calls) {
    explore(2, 3, 0, 0);
}
TEST(three_threads_with_two_calls_near_the_wrap_of_the_generation) {
    explore(3, 2, 0, Word::kGenerationMask - 1);
}
TEST(two_threads_with_two_calls_and_two_interfering_hands) {
    explore(2, 2, 2, 0);
}
// Longer than every run of the tests should take: asked for by `make soak`.
TEST(more_calls_and_more_hands_if_asked_for) {
    if (std::getenv("MEMGUARD_SOAK") != nullptr) {
        explore(2, 4, 0, 0);
        explore(2, 3, 1, 0);
    }
}
