#include "check.hpp"

#include "memguard/clock.hpp"

using namespace memguard;

TEST(monotonic_clock_never_goes_back) {
    std::int64_t last = monotonic_ns();
    for (int i = 0; i < 100'000; ++i) {
        const std::int64_t now = monotonic_ns();
        CHECK(now >= last);
        last = now;
    }
}

TEST(manual_clock_moves_only_when_advanced) {
    ManualClock clock{5 * kNsPerSecond};
    CHECK(clock.now_ns() == 5 * kNsPerSecond);
    clock.advance(kNsPerMs);
    CHECK(clock.now_ns() == 5 * kNsPerSecond + kNsPerMs);
}
