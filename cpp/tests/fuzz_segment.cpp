// A stranger's hand in the mapped file: random words are overwritten while threads use everything
// in it. Nothing may crash, and every call must end. What comes out does not matter.
//
// 100,000 mutations; with MEMGUARD_SOAK in the environment a million.
#include "check.hpp"

#include <sys/mman.h>  // mmap

#include <array>    // std::array
#include <atomic>   // std::atomic
#include <cstddef>  // offsetof
#include <cstdlib>  // std::getenv
#include <memory>   // std::make_unique
#include <random>   // std::mt19937_64
#include <string>   // std::to_string
#include <thread>   // std::jthread
#include <vector>   // std::vector

#include "memguard/segment.hpp"

using namespace memguard;

namespace {

constexpr Surroundings kHere{{1, 2}, 3, 4};
constexpr std::uint64_t kMutationsPerUse = 64;

std::uint64_t mutations() {
    return std::getenv("MEMGUARD_SOAK") != nullptr ? 1'000'000 : 100'000;
}

// Words as they break things: all bits, near the edges, one bit off, or anything.
std::uint64_t hostile(std::mt19937_64& random, std::uint64_t before) {
    switch (random() % 6) {
    case 0:
        return 0;
    case 1:
        return ~std::uint64_t{0};
    case 2:
        return std::uint64_t{1} << 63;
    case 3:
        return before ^ std::uint64_t{1} << random() % 64;
    case 4:
        return random() % 100;
    default:
        return random();
    }
}

class User {
  public:
    User(const Segment& segment, std::uint32_t slot, std::uint64_t seed)
        : segment_(segment), random_(seed), row_(slot), claim_(segment.claim_of(slot)),
          choice_(row_, kSlots, kSharedRows) {}

    void use_everything() {
        const std::size_t index = random_() % 4;
        SharedBreaker& shared = segment_.breaker(index);
        const SharedNumbers numbers = shared.rules.read().numbers.value_or(own_numbers());
        const WindowMemory memory{&shared.window_marks, shared.windows.data(),
                                  shared.failures.data(), shared.slow.data(), kSharedBadCalls};
        Rules rules{numbers.config, numbers.rates,
                    std::make_shared<Windows>(numbers.rates, choice_, memory)};
        BreakerCell cell{random_(), choice_, shared.state, shared.counters.data(), claim_};
        for (int i = 0; i < 20; ++i) {
            call(cell, rules);
        }
        by_hand(cell, rules);
        look(cell, rules, index);
    }

  private:
    static SharedNumbers own_numbers() {
        SharedNumbers numbers;
        numbers.rates.failure_rate = 0.5;
        numbers.rates.slow_rate = 0.5;
        numbers.rates.time_window_ns = kNsPerSecond;
        numbers.config.jitter = 1.0;
        numbers.config.backoff_factor = 1e300;
        return numbers;
    }

    std::int64_t time() { return static_cast<std::int64_t>(random_() % 1'000'000) * kNsPerMs; }

    void call(BreakerCell& cell, const Rules& rules) {
        const Admission admission = cell.admit(rules, time());
        if (admission.decision != Decision::admitted) {
            CHECK(admission.retry_after_ns > 0);
            return;
        }
        const auto verdict = static_cast<Verdict>(random_() % 3);
        cell.settle(rules, admission.token(), {verdict, random_() % 2 == 0, false}, time());
    }

    void by_hand(BreakerCell& cell, const Rules& rules) {
        switch (random_() % 8) {
        case 0:
            cell.trip(rules, time());
            break;
        case 1:
            cell.reset(rules, time());
            break;
        case 2:
            cell.force_open(Word::kNoEnd, time());
            break;
        case 3:
            cell.release(rules, time());
            break;
        case 4:
            cell.clip(rules.config, time());
            break;
        case 5:
            cell.statistics().begin_flight();
            break;
        case 6:
            cell.statistics().end_flight();
            break;
        default:
            cell.give_back_orphan(rules, cell.load().generation(), time());
        }
    }

    void look(BreakerCell& cell, const Rules& rules, std::size_t index) {
        SharedBreaker& shared = segment_.breaker(index);
        static_cast<void>(cell.statistics().totals(time()));
        static_cast<void>(cell.retry_after_ns(rules.config, time()));
        static_cast<void>(rules.windows->counts(rules.rates));
        static_cast<void>(rules.windows->judge(rules.rates, time()));
        const std::uint64_t generation = cell.widen_new(cell.load());
        segment_.each_orphaned_probe(index, cell.load().generation(), [](std::uint64_t) {});
        segment_.forget_flights_of_the_dead(index);
        Note note;
        SharedNotes::Buffer buffer;
        static_cast<void>(shared.notes.read_opening(generation, note, buffer));
        shared.notes.write({generation, true, Event::manual, 0, 0, "type", "text", "detail"});
        if (random_() % 16 == 0) {
            shared.rules.publish(own_numbers());
            static_cast<void>(segment_.claim_name("n" + std::to_string(random_() % 100)));
            static_cast<void>(segment_.fault(kHere));
        }
        BreakerEvent event;
        event.breaker_id = index;
        segment_.events().push(event);
        BreakerEvent events[64];
        const auto read = segment_.events().read(random_() % 2 == 0 ? next_ : random_(), events, 64,
                                                 random_() % 2 == 0);
        CHECK(read.count <= 64);
        next_ = read.next;
        SharedLearnt& learnt = segment_.slot(random_() % 2).learnt;
        if (const auto found = learnt.read()) {
            CHECK(is_allowed(*found));
            learnt.publish(*found);
        } else {
            Learnt fresh;
            fresh.generation = 1;
            segment_.slot(row_.load()).learnt.publish(fresh);
        }
        SharedWorker& worker = segment_.slot(random_() % 2).worker;
        raise_counter(worker.inputs, worker.inputs_base, random_());
        CHECK(worker.read_state() <= WorkerState::ended);
        SharedHistoryRing ring = segment_.history(row_.load());
        ring.push(SharedSample{});
        static thread_local const auto samples = std::make_unique<SharedSample[]>(kHistorySamples);
        CHECK(segment_.history(random_() % kSlots).snapshot(samples.get(), kHistorySamples).count <=
              kHistorySamples);
    }

    Segment segment_;
    std::mt19937_64 random_;
    std::atomic<std::uint32_t> row_;
    std::atomic<std::uint64_t> claim_;
    RowChoice choice_;
    std::uint64_t next_ = 0;
};

}  // namespace

TEST(a_stranger_who_writes_into_the_file_crashes_nobody) {
    void* const bytes =
        ::mmap(nullptr, Segment::kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(bytes != MAP_FAILED);
    Segment::format(bytes, kHere, 5, 6, 7);
    const Segment segment{bytes};
    // What the threads work with: most often what decides, the words and rules of the breakers.
    auto* const words = static_cast<SharedWord*>(bytes);
    struct Part {
        std::size_t start;
        std::size_t bytes;
    };
    constexpr std::size_t kBreakers = offsetof(SegmentLayout, breakers);
    constexpr std::size_t kDeciding = offsetof(SharedBreaker, fleet);
    const std::array parts{
        Part{kBreakers, kDeciding},
        Part{kBreakers + sizeof(SharedBreaker), kDeciding},
        Part{kBreakers + 2 * sizeof(SharedBreaker), kDeciding},
        Part{kBreakers, 4 * sizeof(SharedBreaker)},
        Part{0, kBreakers},
        Part{offsetof(SegmentLayout, slots) + offsetof(WorkerSlot, learnt), sizeof(SharedLearnt)},
        Part{offsetof(SegmentLayout, slots) + offsetof(WorkerSlot, worker), sizeof(SharedWorker)},
        Part{offsetof(SegmentLayout, events), sizeof(SharedEventRing)},
        Part{offsetof(SegmentLayout, history), 2 * sizeof(SharedHistory)},
    };
    std::atomic<bool> is_over{false};
    std::atomic<std::uint64_t> uses{0};
    {
        std::vector<std::jthread> users;
        for (std::uint32_t i = 0; i < 2; ++i) {
            users.emplace_back([&, i] {
                User user{segment, i, i};
                while (!is_over.load()) {
                    user.use_everything();
                    uses.fetch_add(1);
                }
            });
        }
        std::mt19937_64 random{20261127};
        for (std::uint64_t i = 0; i < mutations(); ++i) {
            const Part part = parts[random() % parts.size()];
            SharedWord& word = words[(part.start + random() % part.bytes) / sizeof(SharedWord)];
            // relaxed, both: as a stranger would
            word.store(hostile(random, word.load(std::memory_order_relaxed)),
                       std::memory_order_relaxed);
            if (i % kMutationsPerUse == 0) {
                // Not faster than they can use it.
                const std::uint64_t seen = uses.load();
                while (uses.load() == seen) {
                    std::this_thread::yield();
                }
            }
        }
        is_over.store(true);
    }
    CHECK(uses.load() >= mutations() / kMutationsPerUse);
    ::munmap(bytes, Segment::kBytes);
}
