// One writer and three readers on a small ring: every value that a reader gets is whole and in its
// place, and what it got plus what it lost is exactly what was pushed.
#include "check.hpp"

#include <array>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "memguard/ring.hpp"

using namespace memguard;

namespace {

constexpr std::uint64_t kPushes = 400'000;
constexpr std::size_t kReaders = 3;

// Words that only fit together if they come from the same push. So many that reader and writer are
// often in the middle of the same value.
struct Page {
    std::array<std::uint64_t, 32> words;

    static Page of(std::uint64_t n) {
        Page page{};
        for (std::size_t i = 0; i < page.words.size(); ++i) {
            page.words[i] = n * (i + 1);
        }
        return page;
    }
    [[nodiscard]] bool is(std::uint64_t n) const { return words == of(n).words; }
};

struct Tally {
    std::uint64_t seen = 0;
    std::uint64_t lost = 0;
    std::uint64_t wrong = 0;
};

// Follows the ring from its first value to its last.
Tally follow(const HistoryRing<Page>& ring) {
    Tally tally;
    std::vector<Page> values(ring.capacity());
    std::uint64_t next = 0;
    while (next < kPushes) {
        const RingRange range = ring.snapshot(values.data(), values.size());
        const std::uint64_t first = range.end - range.count;
        for (std::size_t i = 0; i < range.count; ++i) {
            tally.wrong += values[i].is(first + i) ? 0 : 1;
        }
        const std::uint64_t from = first > next ? first : next;
        tally.lost += from - next;
        tally.seen += range.end - from;
        next = range.end;
    }
    return tally;
}

}  // namespace

TEST(readers_see_whole_values_and_lose_only_what_was_overtaken) {
    for (const std::size_t capacity : {2U, 64U, 1000U}) {
        HistoryRing<Page> ring{capacity};
        std::atomic<std::size_t> ready{0};
        std::vector<Tally> tallies(kReaders);
        std::vector<std::thread> readers;
        for (Tally& tally : tallies) {
            readers.emplace_back([&] {
                // relaxed: a starting line; it orders nothing
                ready.fetch_add(1, std::memory_order_relaxed);
                tally = follow(ring);
            });
        }
        // relaxed: a starting line; it orders nothing
        while (ready.load(std::memory_order_relaxed) < kReaders) {
            std::this_thread::yield();
        }
        for (std::uint64_t n = 0; n < kPushes; ++n) {
            ring.push(Page::of(n));
        }
        for (std::thread& reader : readers) {
            reader.join();
        }
        CHECK(ring.pushed() == kPushes);
        for (const Tally& tally : tallies) {
            CHECK(tally.wrong == 0);
            CHECK(tally.seen + tally.lost == kPushes);
            CHECK(tally.seen > 0);
        }
    }
}
