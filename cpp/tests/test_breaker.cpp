// The cell under one thread (what it reports) and under several (who wins), counted exactly.
#include "check.hpp"

#include <atomic>   // std::atomic
#include <barrier>  // std::barrier
#include <thread>   // std::jthread
#include <vector>   // std::vector

#include "memguard/breaker.hpp"

using namespace memguard;

namespace {

constexpr int kThreads = 4;

// Runs `work(thread_index)` on kThreads threads that start together.
template <class Work>
void together(Work work) {
    std::barrier start{kThreads};
    std::vector<std::jthread> threads;
    for (int i = 0; i < kThreads; ++i) {
        threads.emplace_back([&, i] {
            start.arrive_and_wait();
            work(i);
        });
    }
}

BreakerConfig short_config() {
    BreakerConfig config;
    config.reset_timeout_ns = kNsPerMs;
    config.probe_timeout_ns = 64'800 * kNsPerSecond;
    return config;
}

}  // namespace

TEST(failure_count_goes_on_through_failed_probes_and_is_zero_after_closing) {
    BreakerCell cell{BreakerConfig{}};
    std::int64_t now = kNsPerSecond;
    for (std::uint64_t i = 1; i <= 5; ++i) {
        cell.settle(cell.admit(now).token(), Verdict::failure, now);
        CHECK(cell.failure_count() == i);
    }
    now += 61 * kNsPerSecond;
    cell.settle(cell.admit(now).token(), Verdict::failure, now);
    CHECK(cell.failure_count() == 6);
    now += 61 * kNsPerSecond;
    cell.settle(cell.admit(now).token(), Verdict::success, now);
    CHECK(cell.failure_count() == 0);
}

TEST(reading_the_phase_consumes_no_probe) {
    BreakerCell cell{BreakerConfig{}};
    cell.trip(0);
    CHECK(cell.phase(0) == Phase::open && cell.retry_after_ns(0) == 60 * kNsPerSecond);
    const std::int64_t due = 60 * kNsPerSecond;
    for (int i = 0; i < 100; ++i) {
        CHECK(cell.phase(due) == Phase::half_open && cell.retry_after_ns(due) == 0);
    }
    CHECK(cell.admit(due).decision == Decision::admitted);
    CHECK(cell.admit(due).decision == Decision::rejected_probing);
}

TEST(one_of_many_failing_threads_opens_the_circuit) {
    for (int round = 0; round < 500; ++round) {
        BreakerConfig config;
        config.failure_threshold = kThreads;
        BreakerCell cell{config};
        std::atomic<int> opened{0};
        together([&](int) {
            const Token token = cell.admit(1).token();
            if (cell.settle(token, Verdict::failure, 1).opened()) {
                opened.fetch_add(1, std::memory_order_relaxed);  // relaxed: joined before read
            }
        });
        CHECK(opened.load(std::memory_order_relaxed) == 1);
        CHECK(cell.load().generation() == 1);
    }
}

TEST(one_of_many_threads_gets_the_probe) {
    for (int round = 0; round < 500; ++round) {
        BreakerCell cell{short_config()};
        cell.trip(0);
        std::atomic<int> admitted{0};
        together([&](int) {
            if (cell.admit(10 * kNsPerMs).decision == Decision::admitted) {
                admitted.fetch_add(1, std::memory_order_relaxed);  // relaxed: joined before read
            }
        });
        CHECK(admitted.load(std::memory_order_relaxed) == 1);
    }
}

TEST(a_reached_rate_opens_and_a_closing_starts_a_fresh_window) {
    BreakerConfig config;
    config.failure_threshold = kNoThreshold;
    WindowConfig rates;
    rates.failure_rate = 0.5;
    rates.minimum_calls = 4;
    BreakerCell cell{config, 0, std::make_unique<Windows>(rates, true)};
    std::int64_t now = kNsPerSecond;
    const auto call = [&](Verdict verdict) {
        return cell.settle(cell.admit(now).token(), verdict, now).event;
    };
    CHECK(call(Verdict::success) == Event::none);
    CHECK(call(Verdict::failure) == Event::counted);
    CHECK(call(Verdict::success) == Event::counted);
    CHECK(call(Verdict::neutral) == Event::none);
    CHECK(call(Verdict::failure) == Event::failure_rate);
    now += 61 * kNsPerSecond;
    CHECK(call(Verdict::success) == Event::probe_succeeded);
    for (int i = 0; i < 3; ++i) {
        CHECK(call(Verdict::failure) == Event::counted);
    }
    CHECK(call(Verdict::failure) == Event::failure_rate);
}

TEST(a_slow_call_may_open_whatever_its_verdict) {
    for (const Verdict verdict : {Verdict::success, Verdict::failure, Verdict::neutral}) {
        WindowConfig rates;
        rates.slow_rate = 1.0;
        rates.slow_call_ns = kNsPerSecond;
        rates.minimum_calls = 1;
        BreakerCell cell{BreakerConfig{}, 0, std::make_unique<Windows>(rates, true)};
        const Token token = cell.admit(kNsPerSecond).token();
        const auto done = cell.settle(token, verdict, kNsPerSecond, kConfiguredWait, true);
        CHECK(done.event == Event::slow_rate);
    }
}

TEST(totals_count_verdicts_rejections_and_transitions_exactly) {
    BreakerConfig config;
    config.failure_threshold = 2;
    BreakerCell cell{config};
    const Token token = cell.admit(0).token();
    cell.settle(token, Verdict::success, 0);
    cell.settle(token, Verdict::neutral, 0);
    for (int i = 0; i < 4; ++i) {
        cell.settle(token, Verdict::failure, 0);
    }
    cell.count_rejection(true);
    cell.count_rejection(false);
    const Totals totals = cell.totals();
    CHECK(totals.failures == 4 && totals.neutrals == 1 && totals.stale == 2);
    CHECK(totals.rejections == 2 && totals.transitions == 1);
}

TEST(generations_are_widened_across_the_wrap) {
    BreakerCell cell{BreakerConfig{}};
    const std::uint64_t wrap = Word::kGenerationMask + 1;
    for (std::uint64_t generation = 0; generation < 3 * wrap; generation += 1'000'000) {
        CHECK(cell.widened(Word::closed(0, generation)) == generation);
    }
    const std::uint64_t newest = cell.widened(Word::closed(0, 3 * wrap));
    CHECK(newest == 3 * wrap);
    CHECK(cell.widened(Word::closed(0, newest - 5)) == newest - 5);
}

// Probes succeed, fail and are abandoned at random while time moves: in each generation that was
// half-open at most one probe ran, and no verdict of another generation moved anything.
TEST(stress_no_generation_ever_has_two_probes) {
    constexpr int kCalls = 100'000;
    BreakerCell cell{short_config()};
    std::vector<std::atomic<std::uint8_t>> probes(Word::kGenerationMask + 1);
    std::atomic<std::int64_t> clock{0};
    std::atomic<int> doubled{0};
    together([&](int thread) {
        std::uint64_t random = static_cast<std::uint64_t>(thread) * 2 + 1;
        for (int i = 0; i < kCalls; ++i) {
            random = random * 6364136223846793005ULL + 1442695040888963407ULL;
            // relaxed: a reading of time orders nothing
            const std::int64_t now = clock.fetch_add(kNsPerMs / 8, std::memory_order_relaxed);
            const Admission a = cell.admit(now);
            if (a.decision != Decision::admitted) {
                continue;
            }
            const Token token = a.token();
            const auto choice = random >> 61;
            // relaxed: the flag is its own only datum
            if (token.is_probe() &&
                probes[token.generation].fetch_add(1, std::memory_order_relaxed) != 0) {
                doubled.fetch_add(1, std::memory_order_relaxed);  // relaxed: joined before read
            }
            if (token.is_probe() && choice == 7) {
                probes[token.generation].fetch_sub(1, std::memory_order_relaxed);
                cell.settle(token, Verdict::neutral, now);
            } else {
                cell.settle(token, choice < 4 ? Verdict::failure : Verdict::success, now);
            }
        }
    });
    CHECK(doubled.load(std::memory_order_relaxed) == 0);
    CHECK(cell.load().generation() > 100);
}
