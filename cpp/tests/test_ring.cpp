#include "check.hpp"

#include <array>
#include <vector>

#include "memguard/ring.hpp"

using namespace memguard;

namespace {

std::vector<double> newest(const HistoryRing<double>& ring, std::size_t limit) {
    std::vector<double> out(limit);
    const RingRange range = ring.snapshot(out.data(), limit);
    out.resize(range.count);
    return out;
}

}  // namespace

TEST(empty_ring_has_no_values) {
    const HistoryRing<double> ring{4};
    CHECK(ring.pushed() == 0);
    CHECK(newest(ring, 4).empty());
}

TEST(snapshot_is_oldest_first) {
    HistoryRing<double> ring{4};
    ring.push(1.5);
    ring.push(2.5);
    CHECK(newest(ring, 4) == (std::vector<double>{1.5, 2.5}));
}

TEST(full_ring_drops_the_oldest) {
    HistoryRing<double> ring{4};
    for (int i = 0; i < 11; ++i) {
        ring.push(i);
    }
    CHECK(newest(ring, 4) == (std::vector<double>{7, 8, 9, 10}));
    CHECK(ring.pushed() == 11);
}

TEST(capacity_that_is_no_power_of_two_is_kept_exactly) {
    HistoryRing<double> ring{3};
    for (int i = 0; i < 9; ++i) {
        ring.push(i);
    }
    CHECK(ring.capacity() == 3);
    CHECK(newest(ring, 100) == (std::vector<double>{6, 7, 8}));
}

TEST(ring_of_one_keeps_the_newest) {
    HistoryRing<double> ring{1};
    ring.push(1);
    ring.push(2);
    CHECK(newest(ring, 1) == (std::vector<double>{2}));
}

TEST(limit_takes_the_newest_values) {
    HistoryRing<double> ring{8};
    for (int i = 0; i < 6; ++i) {
        ring.push(i);
    }
    CHECK(newest(ring, 2) == (std::vector<double>{4, 5}));
    CHECK(newest(ring, 0).empty());
}

TEST(range_tells_the_numbers_of_the_values) {
    HistoryRing<double> ring{4};
    for (int i = 0; i < 10; ++i) {
        ring.push(i);
    }
    std::array<double, 4> out{};
    const RingRange range = ring.snapshot(out.data(), out.size());
    CHECK(range.end == 10);
    CHECK(range.count == 4);
}

TEST(snapshot_agrees_with_a_plain_list_at_every_fill) {
    for (std::size_t capacity = 1; capacity <= 17; ++capacity) {
        HistoryRing<double> ring{capacity};
        std::vector<double> all;
        for (int i = 0; i < 70; ++i) {
            const std::size_t kept = std::min(all.size(), capacity);
            CHECK(newest(ring, capacity) ==
                  std::vector<double>(all.end() - static_cast<std::ptrdiff_t>(kept), all.end()));
            ring.push(i);
            all.push_back(i);
        }
    }
}

TEST(values_of_several_words_come_back_whole) {
    struct Triple {
        std::uint64_t a;
        double b;
        std::int64_t c;
    };
    HistoryRing<Triple> ring{2};
    ring.push({1, 2.5, -3});
    Triple out{};
    CHECK(ring.snapshot(&out, 1).count == 1);
    CHECK(out.a == 1 && out.b == 2.5 && out.c == -3);
}
