// The event ring: order, overtaking, and many writers against one reader, counted exactly.
#include "check.hpp"

#include <barrier>  // std::barrier
#include <thread>   // std::jthread
#include <vector>   // std::vector

#include "memguard/event_ring.hpp"

using namespace memguard;

namespace {

BreakerEvent numbered(std::uint64_t id, std::uint64_t generation) {
    const auto time = static_cast<std::int64_t>(generation);
    return {id, generation, time, time,
            BreakerEvent::pack(Phase::closed, Phase::open, Event::manual)};
}

}  // namespace

TEST(an_event_packs_its_phases_and_reason) {
    const BreakerEvent event{
        1, 2, 3, 4, BreakerEvent::pack(Phase::half_open, Phase::forced_open, Event::probe_lost)};
    CHECK(event.from() == Phase::half_open && event.to() == Phase::forced_open);
    CHECK(event.reason() == Event::probe_lost);
}

TEST(events_are_read_in_order_and_once) {
    EventRing<8> ring;
    for (std::uint64_t i = 0; i < 5; ++i) {
        CHECK(ring.push(numbered(7, i)));
    }
    BreakerEvent out[8];
    const auto first = ring.read(0, out, 3, false);
    CHECK(first.count == 3 && first.next == 3 && first.lost == 0);
    const auto rest = ring.read(first.next, out, 8, false);
    CHECK(rest.count == 2 && out[0].generation == 3 && out[1].generation == 4);
    CHECK(ring.read(rest.next, out, 8, false).count == 0);
}

TEST(a_slow_reader_loses_the_oldest_and_is_told_how_many) {
    EventRing<4> ring;
    for (std::uint64_t i = 0; i < 10; ++i) {
        ring.push(numbered(7, i));
    }
    BreakerEvent out[8];
    const auto done = ring.read(1, out, 8, false);
    CHECK(done.count == 4 && done.lost == 5 && done.next == 10 && out[0].generation == 6);
}

TEST(many_writers_lose_nothing_that_is_not_counted) {
    constexpr std::uint64_t kWriters = 3;
    constexpr std::uint64_t kEach = 20'000;
    static EventRing<256> ring;
    std::uint64_t counted = 0;
    std::uint64_t lost = 0;
    std::vector<std::uint64_t> newest(kWriters, 0);
    {
        std::barrier start{static_cast<std::ptrdiff_t>(kWriters + 1)};
        std::vector<std::jthread> writers;
        for (std::uint64_t id = 0; id < kWriters; ++id) {
            writers.emplace_back([&, id] {
                start.arrive_and_wait();
                for (std::uint64_t i = 1; i <= kEach; ++i) {
                    ring.push(numbered(id, i));
                }
            });
        }
        start.arrive_and_wait();
        std::uint64_t from = 0;
        bool skip = false;
        while (from < kWriters * kEach) {
            BreakerEvent out[64];
            const auto done = ring.read(from, out, 64, skip);
            skip = done.unfinished && done.next == from;
            for (std::size_t i = 0; i < done.count; ++i) {
                const BreakerEvent& event = out[i];
                CHECK(event.breaker_id < kWriters && event.at_ns == event.wall_ns);
                CHECK(event.generation == static_cast<std::uint64_t>(event.at_ns));
                CHECK(event.generation > newest[event.breaker_id]);
                newest[event.breaker_id] = event.generation;
            }
            counted += done.count;
            lost += done.lost;
            from = done.next;
        }
    }
    CHECK(counted + lost == kWriters * kEach);
    CHECK(counted > 0);
}
