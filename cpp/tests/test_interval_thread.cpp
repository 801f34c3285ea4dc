// What the tests of the sampler do not show of its thread: any work, any condition.
#include "check.hpp"

#include <atomic>
#include <thread>

#include "memguard/clock.hpp"
#include "memguard/interval_thread.hpp"

using namespace memguard;

namespace {

constexpr std::int64_t kHour = 3600 * kNsPerSecond;

}  // namespace

TEST(work_is_done_at_once_and_then_at_the_interval) {
    std::atomic<int> done{0};
    IntervalThread thread{"work", kNsPerMs, [&] { done.fetch_add(1); }};
    CHECK(done.load() == 0);
    thread.start();
    CHECK(thread.wait_until([&] { return done.load() >= 5; }, kHour));
    thread.stop();
    const int at_the_end = done.load();
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
    CHECK(done.load() == at_the_end);
}

TEST(a_condition_that_holds_is_not_waited_for_and_one_that_does_not_ends_with_the_time) {
    IntervalThread thread{"work", kHour, [] {}};
    CHECK(thread.wait_until([] { return true; }, kHour));
    CHECK(!thread.wait_until([] { return false; }, kNsPerMs));
    thread.stop();
    CHECK(!thread.wait_until([] { return true; }, kHour));
}
