// How long until another process sees what this one did to a breaker that they share?
//
//   shared_seen word|trip|fifth|failures ROUNDS     prints nanoseconds: minimum, median, 99th
//                                                   percentile
//
// word      one store to a word that they share: what the machine takes
// trip      the circuit is opened by hand
// fifth     it is opened by the last of as many failing calls as its threshold asks for, five
// failures  the same, counted from before the first of them
//
// The other process does nothing but load the word, as each call of its guards does. Each has a
// core of its own, and its own mapping of the file. The clock is read once on each side, within the
// time that is counted.
#include <algorithm>  // std::sort
#include <atomic>     // std::atomic
#include <cstddef>    // std::size_t
#include <cstdint>    // std::int64_t, std::uint64_t
#include <cstdio>     // std::printf, std::fprintf
#include <cstdlib>    // std::strtoull
#include <string_view>
#include <vector>

#include "memguard/breaker_word.hpp"
#include "memguard/clock.hpp"
#include "memguard/config.hpp"
#include "sharing.hpp"

namespace {

struct Notes {
    alignas(memguard::kCacheLineBytes) std::atomic<std::uint64_t> word{0};
    alignas(memguard::kCacheLineBytes) std::atomic<std::uint64_t> watched_round{0};
    alignas(memguard::kCacheLineBytes) std::atomic<std::int64_t> seen_ns{0};
};

// What is changed and seen, by a process of either side.
class BareWord {
  public:
    BareWord(Notes& notes, const bench::SegmentFile&) : word_(notes.word) {}

    void prepare() noexcept {}
    // release, both stores: pair with the acquire load
    void change() noexcept { word_.store(1, std::memory_order_release); }
    void undo() noexcept { word_.store(0, std::memory_order_release); }
    // acquire: pairs with the release stores
    bool is_seen() const noexcept { return word_.load(std::memory_order_acquire) != 0; }

  private:
    std::atomic<std::uint64_t>& word_;
};

class Circuit {
  public:
    Circuit(Notes&, const bench::SegmentFile& file) : sharer_(file) {}

    void prepare() noexcept {}
    void undo() noexcept { sharer_.cell().reset(sharer_.rules(), memguard::monotonic_ns()); }
    bool is_seen() noexcept { return sharer_.cell().load().phase() == memguard::Phase::open; }

  protected:
    bench::Sharer sharer_;
};

class Tripped : public Circuit {
  public:
    using Circuit::Circuit;
    void change() noexcept { sharer_.cell().trip(sharer_.rules(), memguard::monotonic_ns()); }
};

class Failing : public Circuit {
  public:
    using Circuit::Circuit;
    void change() noexcept { fail(sharer_.rules().config.failure_threshold); }

  protected:
    void fail(std::int64_t times) noexcept {
        for (std::int64_t i = 0; i < times; ++i) {
            sharer_.fail();
        }
    }
};

class FailingAtLast : public Failing {
  public:
    using Failing::Failing;
    void prepare() noexcept { fail(sharer_.rules().config.failure_threshold - 1); }
    void change() noexcept { fail(1); }
};

template <class Thing>
void watch(Notes& notes, Thing thing, std::uint64_t rounds) {
    bench::stay_on_core(1);
    for (std::uint64_t round = 1; round <= rounds; ++round) {
        while (thing.is_seen()) {
        }
        // release: pairs with the acquire load in latencies_ns()
        notes.watched_round.store(round, std::memory_order_release);
        while (!thing.is_seen()) {
        }
        // release: pairs with the acquire load in latencies_ns()
        notes.seen_ns.store(memguard::monotonic_ns(), std::memory_order_release);
    }
}

template <class Thing>
std::vector<std::int64_t> latencies_ns(Notes& notes, Thing thing, std::uint64_t rounds) {
    bench::stay_on_core(0);
    std::vector<std::int64_t> found;
    found.reserve(rounds);
    for (std::uint64_t round = 1; round <= rounds; ++round) {
        // acquire: pairs with the release store in watch()
        while (notes.watched_round.load(std::memory_order_acquire) != round) {
        }
        thing.prepare();
        const std::int64_t start_ns = memguard::monotonic_ns();
        thing.change();
        std::int64_t seen_ns = 0;
        while (seen_ns == 0) {
            // acquire: pairs with the release store in watch()
            seen_ns = notes.seen_ns.load(std::memory_order_acquire);
        }
        found.push_back(seen_ns - start_ns);
        // relaxed: the watcher writes it again only after it saw what undo() releases
        notes.seen_ns.store(0, std::memory_order_relaxed);
        thing.undo();
    }
    return found;
}

template <class Thing>
std::vector<std::int64_t> measure(std::uint64_t rounds) {
    const bench::SegmentFile file;
    Notes& notes = bench::new_notes<Notes>();
    const pid_t child = bench::in_child([&] { watch<Thing>(notes, {notes, file}, rounds); });
    std::vector<std::int64_t> found = latencies_ns<Thing>(notes, {notes, file}, rounds);
    bench::wait_for(child);
    return found;
}

}  // namespace

int main(int argc, char** argv) {
    const std::string_view what = argc == 3 ? argv[1] : "";
    if (what != "word" && what != "trip" && what != "fifth" && what != "failures") {
        std::fprintf(stderr, "usage: shared_seen word|trip|fifth|failures ROUNDS\n");
        return 2;
    }
    const std::uint64_t rounds = std::strtoull(argv[2], nullptr, 10);
    if (rounds == 0) {
        std::fprintf(stderr, "shared_seen: ROUNDS is a positive number\n");
        return 2;
    }
    std::vector<std::int64_t> found = what == "word"    ? measure<BareWord>(rounds)
                                      : what == "trip"  ? measure<Tripped>(rounds)
                                      : what == "fifth" ? measure<FailingAtLast>(rounds)
                                                        : measure<Failing>(rounds);
    std::sort(found.begin(), found.end());
    const auto at = [&](std::size_t percent) {
        return static_cast<long long>(found[(found.size() - 1) * percent / 100]);
    };
    std::printf("%lld %lld %lld\n", at(0), at(50), at(99));
    return 0;
}
