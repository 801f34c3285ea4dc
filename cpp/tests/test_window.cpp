// Windows against a naive list of calls (one thread: equal), and under several threads (exact
// sums).
#include "check.hpp"

#include <algorithm>  // std::count
#include <barrier>    // std::barrier
#include <deque>      // std::deque
#include <random>     // std::mt19937_64
#include <thread>     // std::jthread
#include <vector>     // std::vector

#include "memguard/window.hpp"

using namespace memguard;

namespace {

WindowConfig rates(double failure_rate, std::uint32_t window, std::uint32_t minimum) {
    WindowConfig config;
    config.failure_rate = failure_rate;
    config.count_window = window;
    config.minimum_calls = minimum;
    return config;
}

}  // namespace

TEST(a_window_that_is_not_full_is_judged_by_the_calls_it_has) {
    const WindowConfig config = rates(0.5, 100, 4);
    Windows windows{config, true};
    windows.bad(true, false, 0);
    windows.bad(true, false, 0);
    windows.success(0);
    CHECK(windows.judge(config, 0) == Event::none);  // three calls: fewer than the minimum
    windows.success(0);
    CHECK(windows.judge(config, 0) == Event::failure_rate);
    windows.success(0);
    CHECK(windows.judge(config, 0) == Event::none);  // two of five
}

TEST(count_windows_agree_with_a_naive_list) {
    std::mt19937_64 random{20261125};
    for (int run = 0; run < 400; ++run) {
        const auto window = static_cast<std::uint32_t>(1 + random() % 40);
        const auto minimum = static_cast<std::uint32_t>(1 + random() % window);
        const double rate = static_cast<double>(1 + random() % 10) / 10.0;
        const std::uint64_t badness = 1 + random() % 9;
        const WindowConfig config = rates(rate, window, minimum);
        Windows windows{config, run % 2 == 0};
        std::deque<bool> calls;
        for (int i = 0; i < 300; ++i) {
            const bool failed = random() % 10 < badness;
            if (failed) {
                windows.bad(true, false, 0);
            } else {
                windows.success(0);
            }
            calls.push_back(failed);
            if (calls.size() > window) {
                calls.pop_front();
            }
            const auto failures =
                static_cast<std::uint64_t>(std::count(calls.begin(), calls.end(), true));
            const bool reached = calls.size() >= minimum && failures >= needed(rate, calls.size());
            CHECK((windows.judge(config, 0) == Event::failure_rate) == reached);
            CHECK(windows.counts(config).calls == calls.size());
            if (random() % 100 == 0) {
                windows.restart(0);
                calls.clear();
            }
        }
    }
}

TEST(slow_calls_have_a_window_of_their_own) {
    WindowConfig config = rates(0.0, 10, 2);
    config.slow_rate = 0.5;
    Windows windows{config, true};
    windows.bad(true, false, 0);
    windows.bad(true, false, 0);
    CHECK(windows.judge(config, 0) == Event::none);
    windows.bad(false, true, 0);
    windows.bad(true, true, 0);
    CHECK(windows.judge(config, 0) == Event::slow_rate);
    const WindowCounts counts = windows.counts(config);
    CHECK(counts.calls == 4 && counts.failures == 3 && counts.slow == 2);
}

TEST(time_windows_forget_in_sixteenths) {
    WindowConfig config = rates(0.5, 10'000, 4);
    config.time_window_ns = 16 * kNsPerSecond;
    Windows windows{config, true};
    const std::int64_t start = 1000 * kNsPerSecond;
    for (int i = 0; i < 100; ++i) {
        windows.success(start);
    }
    const std::int64_t later = start + 16 * kNsPerSecond;  // what was before is forgotten
    for (int i = 0; i < 2; ++i) {
        windows.bad(true, false, later);
        windows.success(later);
    }
    CHECK(windows.judge(config, later) == Event::failure_rate);
    CHECK(windows.judge(config, later + 15 * kNsPerSecond) == Event::failure_rate);
    CHECK(windows.judge(config, later + 16 * kNsPerSecond) == Event::none);
}

TEST(a_restart_forgets_all_that_was_before) {
    WindowConfig config = rates(0.5, 10, 2);
    config.time_window_ns = 16 * kNsPerSecond;
    Windows windows{config, true};
    const std::int64_t now = 1000 * kNsPerSecond;
    windows.bad(true, false, now);
    windows.bad(true, false, now);
    CHECK(windows.judge(config, now) == Event::failure_rate);
    windows.restart(now);
    windows.success(now);
    windows.success(now);
    CHECK(windows.judge(config, now) == Event::none);
    CHECK(windows.counts(config).calls == 2 && windows.counts(config).failures == 0);
}

// Whoever comes last sees all failures: the rate is never reached without somebody noticing.
TEST(stress_no_reached_rate_is_missed) {
    constexpr std::uint32_t kThreads = 4;
    for (int round = 0; round < 300; ++round) {
        const WindowConfig config = rates(1.0, kThreads, kThreads);
        Windows windows{config, false};
        std::atomic<int> noticed{0};
        {
            std::barrier start{static_cast<std::ptrdiff_t>(kThreads)};
            std::vector<std::jthread> threads;
            for (std::uint32_t i = 0; i < kThreads; ++i) {
                threads.emplace_back([&] {
                    start.arrive_and_wait();
                    windows.bad(true, false, 0);
                    if (windows.judge(config, 0) == Event::failure_rate) {
                        noticed.fetch_add(1, std::memory_order_relaxed);  // relaxed: joined first
                    }
                });
            }
        }
        CHECK(noticed.load(std::memory_order_relaxed) >= 1);
    }
}

TEST(stress_calls_of_many_threads_are_counted_exactly) {
    constexpr std::uint64_t kEach = 50'000;
    WindowConfig config = rates(1.0, 1'000'000, 1);
    config.time_window_ns = 3600 * kNsPerSecond;
    Windows windows{config, false};
    {
        std::vector<std::jthread> threads;
        for (int i = 0; i < 3; ++i) {
            threads.emplace_back([&] {
                for (std::uint64_t call = 0; call < kEach; ++call) {
                    windows.success(kNsPerSecond);
                }
            });
        }
    }
    CHECK(windows.counts(config).calls == 3 * kEach);
}
