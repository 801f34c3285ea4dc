// The cell under one thread (what it reports) and under several (who wins), counted exactly.
#include "check.hpp"
#include "circuit.hpp"

#include <atomic>   // std::atomic
#include <barrier>  // std::barrier
#include <thread>   // std::jthread
#include <vector>   // std::vector

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
    Circuit circuit;
    std::int64_t now = kNsPerSecond;
    for (std::uint64_t i = 1; i <= 5; ++i) {
        circuit.settle(circuit.admit(now).token(), Verdict::failure, now);
        CHECK(circuit.cell.failure_count() == i);
    }
    now += 61 * kNsPerSecond;
    circuit.settle(circuit.admit(now).token(), Verdict::failure, now);
    CHECK(circuit.cell.failure_count() == 6);
    now += 61 * kNsPerSecond;
    circuit.settle(circuit.admit(now).token(), Verdict::success, now);
    CHECK(circuit.cell.failure_count() == 0);
}

TEST(reading_the_phase_consumes_no_probe) {
    Circuit circuit;
    circuit.trip(0);
    CHECK(circuit.phase(0) == Phase::open && circuit.retry_after_ns(0) == 60 * kNsPerSecond);
    const std::int64_t due = 60 * kNsPerSecond;
    for (int i = 0; i < 100; ++i) {
        CHECK(circuit.phase(due) == Phase::half_open && circuit.retry_after_ns(due) == 0);
    }
    CHECK(circuit.admit(due).decision == Decision::admitted);
    CHECK(circuit.admit(due).decision == Decision::rejected_probing);
}

TEST(one_of_many_failing_threads_opens_the_circuit) {
    for (int round = 0; round < 500; ++round) {
        BreakerConfig config;
        config.failure_threshold = kThreads;
        Circuit circuit{config};
        std::atomic<int> opened{0};
        together([&](int) {
            const Token token = circuit.admit(1).token();
            if (circuit.settle(token, Verdict::failure, 1).opened()) {
                opened.fetch_add(1, std::memory_order_relaxed);  // relaxed: joined before read
            }
        });
        CHECK(opened.load(std::memory_order_relaxed) == 1);
        CHECK(circuit.cell.load().generation() == 1);
    }
}

TEST(one_of_many_threads_gets_the_probe) {
    for (int round = 0; round < 500; ++round) {
        Circuit circuit{short_config()};
        circuit.trip(0);
        std::atomic<int> admitted{0};
        together([&](int) {
            if (circuit.admit(10 * kNsPerMs).decision == Decision::admitted) {
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
    Circuit circuit{config, rates};
    std::int64_t now = kNsPerSecond;
    const auto call = [&](Verdict verdict) {
        return circuit.settle(circuit.admit(now).token(), verdict, now).event;
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
        Circuit circuit{BreakerConfig{}, rates};
        const Token token = circuit.admit(kNsPerSecond).token();
        const auto done = circuit.settle(token, verdict, kNsPerSecond, true);
        CHECK(done.event == Event::slow_rate);
    }
}

TEST(totals_count_verdicts_rejections_and_transitions_exactly) {
    BreakerConfig config;
    config.failure_threshold = 2;
    Circuit circuit{config};
    const Token token = circuit.admit(0).token();
    circuit.settle(token, Verdict::success, 0);
    circuit.settle(token, Verdict::neutral, 0);
    for (int i = 0; i < 4; ++i) {
        circuit.settle(token, Verdict::failure, 0);
    }
    circuit.cell.statistics().count_rejection();
    circuit.cell.statistics().count_rejection();
    const Totals totals = circuit.cell.statistics().totals(0);
    CHECK(totals.failures == 4 && totals.neutrals == 1 && totals.stale == 2);
    CHECK(totals.rejections == 2 && totals.transitions == 1);
}

TEST(generations_are_widened_across_the_wrap) {
    Circuit circuit;
    const std::uint64_t wrap = Word::kGenerationMask + 1;
    for (std::uint64_t generation = 0; generation < 3 * wrap; generation += 1'000'000) {
        CHECK(circuit.cell.widen_new(Word::closed(0, generation)) == generation);
    }
    const std::uint64_t newest = circuit.cell.widen_new(Word::closed(0, 3 * wrap));
    CHECK(newest == 3 * wrap);
    CHECK(circuit.cell.widen_new(Word::closed(0, newest - 5)) == newest - 5);
}

// Probes succeed, fail and are abandoned at random while time moves: in each generation that was
// half-open at most one probe ran, and no verdict of another generation moved anything.
TEST(stress_no_generation_ever_has_two_probes) {
    constexpr int kCalls = 100'000;
    Circuit circuit{short_config()};
    std::vector<std::atomic<std::uint8_t>> probes(Word::kGenerationMask + 1);
    std::atomic<std::int64_t> clock{0};
    std::atomic<int> doubled{0};
    together([&](int thread) {
        std::uint64_t random = static_cast<std::uint64_t>(thread) * 2 + 1;
        for (int i = 0; i < kCalls; ++i) {
            random = random * 6364136223846793005ULL + 1442695040888963407ULL;
            // relaxed: a reading of time orders nothing
            const std::int64_t now = clock.fetch_add(kNsPerMs / 8, std::memory_order_relaxed);
            const Admission a = circuit.admit(now);
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
                circuit.settle(token, Verdict::neutral, now);
            } else {
                circuit.settle(token, choice < 4 ? Verdict::failure : Verdict::success, now);
            }
        }
    });
    CHECK(doubled.load(std::memory_order_relaxed) == 0);
    CHECK(circuit.cell.load().generation() > 100);
}

TEST(failures_within_the_lump_interval_of_a_counted_one_are_one_incident) {
    BreakerConfig config;
    config.failure_threshold = 2;
    config.lump_interval_ns = kNsPerSecond;
    Circuit circuit{config};
    const auto fail = [&](std::int64_t now) {
        return circuit.settle(circuit.admit(now).token(), Verdict::failure, now).event;
    };
    CHECK(fail(0) == Event::counted);
    CHECK(fail(0) == Event::none);
    CHECK(fail(kNsPerSecond - 1) == Event::none);
    CHECK(circuit.cell.failure_count() == 1);
    CHECK(fail(kNsPerSecond) == Event::consecutive_failures);
    CHECK(circuit.cell.statistics().totals(0).failures == 4);
}

TEST(a_probe_that_fails_within_the_lump_interval_opens_all_the_same) {
    BreakerConfig config = short_config();
    config.failure_threshold = 1;
    config.lump_interval_ns = 60 * kNsPerSecond;
    Circuit circuit{config};
    circuit.settle(circuit.admit(0).token(), Verdict::failure, 0);
    const std::int64_t due = 10 * kNsPerMs;
    CHECK(circuit.settle(circuit.admit(due).token(), Verdict::failure, due).event ==
          Event::probe_failed);
}

TEST(of_failures_at_the_same_moment_exactly_one_counts_where_they_are_lumped) {
    for (int round = 0; round < 200; ++round) {
        BreakerConfig config;
        config.lump_interval_ns = kNsPerSecond;
        Circuit circuit{config};
        together([&](int) { circuit.settle(circuit.admit(1).token(), Verdict::failure, 1); });
        CHECK(circuit.cell.failure_count() == 1);
        CHECK(circuit.cell.statistics().totals(1).failures == kThreads);
    }
}

TEST(a_rule_of_the_users_opens_only_the_era_that_it_was_asked_in) {
    Circuit circuit;
    const std::uint64_t generation = circuit.cell.load().generation();
    CHECK(circuit.cell.trip_by_rule(circuit.rules, generation, 0).event == Event::custom);
    CHECK(!circuit.cell.trip_by_rule(circuit.rules, generation, 0).is_news());
    circuit.cell.reset(circuit.rules, 0);
    CHECK(!circuit.cell.trip_by_rule(circuit.rules, generation, 0).is_news());
}

TEST(time_spent_open_and_transitions_are_counted_between_any_two_looks) {
    Circuit circuit;
    circuit.trip(kNsPerSecond);
    circuit.cell.reset(circuit.rules, 3 * kNsPerSecond);
    circuit.trip(10 * kNsPerSecond);
    const Statistics& statistics = circuit.cell.statistics();
    CHECK(statistics.totals(11 * kNsPerSecond).open_ns == 3 * kNsPerSecond);
    CHECK(statistics.transitions(Phase::closed, Phase::open) == 2);
    CHECK(statistics.transitions(Phase::open, Phase::closed) == 1);
    CHECK(statistics.totals(0).transitions == 3);
}

TEST(a_call_ends_by_the_rules_that_it_began_under) {
    Circuit circuit;
    const Token token = circuit.admit(0).token();
    Rules strict = circuit.rules;
    strict.config.failure_threshold = 1;
    CHECK(circuit.settle(token, Verdict::failure, 0).event == Event::counted);
    CHECK(circuit.cell.settle(strict, token, {Verdict::failure, false, false}, 0).event ==
          Event::consecutive_failures);
}

TEST(a_forked_child_has_none_of_its_parents_calls_in_flight) {
    BreakerCell cell;
    Statistics& statistics = cell.statistics();
    statistics.begin_flight();
    cell.after_fork(1);
    CHECK(statistics.in_flight() == 0);
    statistics.begin_flight();
    CHECK(statistics.in_flight() == 1);
    statistics.end_flight();
    CHECK(statistics.in_flight() == 0);
}

TEST(a_share_of_the_rejections_is_enforced) {
    BreakerCell cell{7};
    BreakerConfig config;
    CHECK(cell.draw_enforced(config));
    config.enforce = 0.0;
    CHECK(!cell.draw_enforced(config));
    config.enforce = 0.25;
    int enforced = 0;
    for (int i = 0; i < 10'000; ++i) {
        enforced += cell.draw_enforced(config) ? 1 : 0;
    }
    CHECK(enforced > 2300 && enforced < 2700);
}

TEST(a_stale_probe_leaves_the_windows_of_the_present_era_alone) {
    WindowConfig rates;
    rates.failure_rate = 0.5;
    Circuit circuit{short_config(), rates};
    circuit.trip(0);
    const Token late = circuit.admit(10 * kNsPerMs).token();
    CHECK(late.is_probe());
    circuit.cell.reset(circuit.rules, 10 * kNsPerMs);
    circuit.settle(circuit.admit(10 * kNsPerMs).token(), Verdict::failure, 10 * kNsPerMs);
    circuit.settle(late, Verdict::success, 10 * kNsPerMs);
    CHECK(circuit.rules.windows->counts(rates).failures == 1);
}

TEST(the_clock_of_an_admission_is_read_after_the_word) {
    // Another caller becomes the probe while this one is stopped, an hour long, right after it has
    // loaded the word. Its time is that of after the stop, so the other's lease is not too long.
    Circuit circuit;
    circuit.trip(0);
    std::int64_t time_ns = 3600 * kNsPerSecond;
    bool was_stopped = false;
    const Admission admission = circuit.cell.admit(circuit.rules, [&] {
        const std::int64_t read_ns = time_ns;
        if (!was_stopped) {
            was_stopped = true;
            time_ns += 3600 * kNsPerSecond;
            CHECK(circuit.admit(time_ns).token().is_probe());
        }
        return read_ns;
    });
    CHECK(admission.decision == Decision::rejected_probing);
    CHECK(circuit.cell.load().in_flight() == 1 && circuit.cell.load().generation() == 2);
}
