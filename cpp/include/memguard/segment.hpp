// The layout of the file that the processes of a host share: one page of docs draws it
// (docs/shared-memory.md).
//
// Nothing in it is a pointer, a lock, or a size that is trusted: its parts are where the compiler
// of this version put them, and all indices are ours or masked. Any content is safe to run on: a
// hostile file opens, closes or delays circuits, no more. Files and their ownership are Python's.
#pragma once

#include <array>        // std::array
#include <atomic>       // std::atomic
#include <cstddef>      // std::size_t, offsetof
#include <cstdint>      // std::uint64_t
#include <new>          // placement new, std::launder
#include <string_view>  // std::string_view
#include <type_traits>  // std::is_standard_layout_v

#include "memguard/breaker.hpp"
#include "memguard/event_ring.hpp"
#include "memguard/probe_record.hpp"
#include "memguard/process_owner.hpp"
#include "memguard/ring.hpp"
#include "memguard/sample.hpp"
#include "memguard/shared_learnt.hpp"
#include "memguard/shared_notes.hpp"
#include "memguard/shared_rules.hpp"
#include "memguard/shared_worker.hpp"

namespace memguard {

// Another layout gets another number, and the file another name.
inline constexpr std::uint64_t kSegmentVersion = 1;
inline constexpr std::uint64_t kSegmentMagic = 0x6D656D6775617264;  // "memguard"
inline constexpr std::uint64_t kByteOrderMark = 0x0102030405060708;

inline constexpr std::size_t kSlots = 32;
inline constexpr std::size_t kSharedRows =
    kSlots + 1;  // the last one is for processes without a slot
inline constexpr std::uint32_t kOverflowRow = kSlots;
inline constexpr std::size_t kSharedBreakers = 64;
inline constexpr std::size_t kSharedEvents = 1024;
inline constexpr std::size_t kHistorySamples = 512;
inline constexpr std::size_t kPageBytes = 4096;
inline constexpr std::size_t kNameBytes = 120;

struct alignas(kPageBytes) SegmentHeader {
    SharedWord magic{0};  // written last
    SharedWord version{0};
    SharedWord byte_order{0};
    SharedWord bytes{0};
    SharedWord slots{0};
    SharedWord breakers{0};
    SharedWord events{0};
    SharedWord history{0};
    std::array<SharedWord, 2> boot_id{};  // deadlines of another boot mean nothing
    SharedWord time_namespace{0};         // its monotonic clock may be shifted
    SharedWord pid_namespace{0};          // process numbers are of this one
    SharedWord id{0};                     // random
    SharedWord creator{0};                // its process number
    SharedWord created_wall_ns{0};
    SharedWord repairs{0};  // what was found damaged, and not used
};

// One process, a worker usually. Its index is also that of its counter rows.
struct alignas(kPageBytes) WorkerSlot {
    SharedWord owner{0};  // a ProcessOwner; 0: free
    SharedWord claim{0};  // grows with each owner
    std::atomic<std::int64_t> heartbeat_ns{0};
    std::atomic<std::int64_t> claimed_wall_ns{0};
    SharedWord requests{0};       // never set back: the next owner goes on counting
    SharedWord requests_base{0};  // `requests` when the present owner came
    SharedWord requests_in_flight{0};
    SharedWord memory_limit_bytes{0};  // 0: unknown
    SharedLearnt learnt;               // of the newest owner that had learnt something
    SharedWorker worker;
};

enum class NameState : std::uint64_t { free, used };

struct alignas(kCacheLineBytes) SharedName {
    SharedWord state{0};  // a NameState; `used` is written after the name
    SharedText<kNameBytes> text;
};

struct SharedBreaker {
    SharedName name;
    BreakerState state;
    WindowMarks window_marks;
    SharedRules rules;
    SharedNotes notes;
    alignas(kCacheLineBytes) std::array<SharedWord, 16> fleet{};  // of the bus between hosts
    alignas(kCacheLineBytes) std::array<BadCallNumber, kSharedBadCalls> failures{};
    std::array<BadCallNumber, kSharedBadCalls> slow{};
    std::array<CounterRow, kSharedRows> counters{};
    std::array<WindowRow, kSharedRows> windows{};
};

// A sample and whose it is.
struct SharedSample {
    MemorySample sample;
    std::uint64_t owner = 0;  // a ProcessOwner
    std::uint64_t claim = 0;
    std::array<std::uint64_t, 8> unused{};
};
static_assert(sizeof(SharedSample) == 288);

using SharedHistoryRing = HistoryRing<SharedSample>;

struct SharedHistory {
    RingMarks marks;
    std::array<SharedWord, kHistorySamples * SharedHistoryRing::kWords> words{};
};

using SharedEventRing = EventRing<kSharedEvents>;

struct SegmentLayout {
    SegmentHeader header;
    std::array<WorkerSlot, kSlots> slots{};
    std::array<SharedBreaker, kSharedBreakers> breakers{};
    alignas(kPageBytes) SharedEventRing events;
    alignas(kPageBytes) std::array<SharedHistory, kSlots> history{};
};

static_assert(std::is_standard_layout_v<SegmentHeader> && sizeof(SegmentHeader) == kPageBytes);
static_assert(std::is_standard_layout_v<WorkerSlot> && sizeof(WorkerSlot) == kPageBytes);
static_assert(offsetof(WorkerSlot, learnt) == 128 && offsetof(WorkerSlot, worker) == 512);
static_assert(std::is_standard_layout_v<SharedLearnt> && sizeof(SharedLearnt) == 384);
static_assert(std::is_standard_layout_v<BreakerState> && sizeof(BreakerState) == 256);
static_assert(std::is_standard_layout_v<CounterRow> && sizeof(CounterRow) == 384);
static_assert(std::is_standard_layout_v<WindowRow> && sizeof(WindowRow) == 512);
static_assert(std::is_standard_layout_v<SharedBreaker>);
static_assert(std::is_trivially_destructible_v<SegmentLayout>);

// Where and when a segment was made, and where one of ours is now.
struct Surroundings {
    std::array<std::uint64_t, 2> boot_id{};
    std::uint64_t time_namespace = 0;
    std::uint64_t pid_namespace = 0;
};

enum class SegmentFault {
    none,
    damaged,               // magic, sizes: not one of ours, or not any more
    other_boot,            // its times mean nothing any more
    other_time_namespace,  // its clock is not ours
};

// A mapped segment.
class Segment {
  public:
    static constexpr std::size_t kBytes = sizeof(SegmentLayout);

    // `bytes`: kBytes of them, at the start of a page, which outlive this object. They hold a
    // layout already.
    explicit Segment(void* bytes) noexcept
        : layout_(std::launder(static_cast<SegmentLayout*>(bytes))) {}

    // Makes a segment of kBytes of zeros that nobody else has mapped.
    static void format(void* bytes, const Surroundings& here, std::uint64_t id,
                       std::uint64_t creator, std::int64_t wall_ns) noexcept {
        SegmentHeader& header = (new (bytes) SegmentLayout)->header;
        // relaxed, all: the release store of the magic comes after them
        const auto set = [](SharedWord& word, std::uint64_t value) {
            word.store(value, std::memory_order_relaxed);
        };
        set(header.version, kSegmentVersion);
        set(header.byte_order, kByteOrderMark);
        set(header.bytes, kBytes);
        set(header.slots, kSlots);
        set(header.breakers, kSharedBreakers);
        set(header.events, kSharedEvents);
        set(header.history, kHistorySamples);
        set(header.boot_id[0], here.boot_id[0]);
        set(header.boot_id[1], here.boot_id[1]);
        set(header.time_namespace, here.time_namespace);
        set(header.pid_namespace, here.pid_namespace);
        set(header.id, id);
        set(header.creator, creator);
        set(header.created_wall_ns, static_cast<std::uint64_t>(wall_ns));
        // pairs with: the acquire load in fault()
        header.magic.store(kSegmentMagic, std::memory_order_release);
    }

    // Whether this file is one that a process at this place can use.
    [[nodiscard]] SegmentFault fault(const Surroundings& here) const noexcept {
        const SegmentHeader& header = layout_->header;
        // pairs with: the release store in format()
        if (header.magic.load(std::memory_order_acquire) != kSegmentMagic) {
            return SegmentFault::damaged;
        }
        // relaxed: ordered by the magic
        const auto is = [](const SharedWord& word, std::uint64_t value) {
            return word.load(std::memory_order_relaxed) == value;
        };
        if (!is(header.version, kSegmentVersion) || !is(header.byte_order, kByteOrderMark) ||
            !is(header.bytes, kBytes) || !is(header.slots, kSlots) ||
            !is(header.breakers, kSharedBreakers) || !is(header.events, kSharedEvents) ||
            !is(header.history, kHistorySamples)) {
            return SegmentFault::damaged;
        }
        if (!is(header.boot_id[0], here.boot_id[0]) || !is(header.boot_id[1], here.boot_id[1])) {
            return SegmentFault::other_boot;
        }
        return is(header.time_namespace, here.time_namespace) ? SegmentFault::none
                                                              : SegmentFault::other_time_namespace;
    }

    [[nodiscard]] SegmentHeader& header() const noexcept { return layout_->header; }
    [[nodiscard]] SharedEventRing& events() const noexcept { return layout_->events; }
    [[nodiscard]] WorkerSlot& slot(std::size_t index) const noexcept {
        return layout_->slots[index];
    }
    [[nodiscard]] SharedBreaker& breaker(std::size_t index) const noexcept {
        return layout_->breakers[index];
    }
    [[nodiscard]] SharedHistoryRing history(std::size_t slot) const noexcept {
        SharedHistory& history = layout_->history[slot];
        return {kHistorySamples, history.marks, history.words.data()};
    }

    // --- breakers by name ----------------------------------------------------------------------

    static constexpr std::size_t kNone = ~std::size_t{0};

    // The length of the name, copied to `out`, kNameBytes long; 0: not in use.
    std::size_t name(std::size_t index, char* out) const noexcept {
        const SharedName& name = breaker(index).name;
        // pairs with: the release store in claim_name()
        if (name.state.load(std::memory_order_acquire) !=
            static_cast<std::uint64_t>(NameState::used)) {
            return 0;
        }
        return name.text.read(out);
    }

    [[nodiscard]] std::size_t find(std::string_view wanted) const noexcept {
        char found[kNameBytes];
        for (std::size_t i = 0; i < kSharedBreakers; ++i) {
            if (std::string_view{found, name(i, found)} == wanted && !wanted.empty()) {
                return i;
            }
        }
        return kNone;
    }

    // The place of this name, a free one if it has none; kNone if all are taken. One process and
    // thread at a time: whoever holds the file's lock.
    std::size_t claim_name(std::string_view wanted) const noexcept {
        if (const std::size_t found = find(wanted); found != kNone) {
            return found;
        }
        char unused[kNameBytes];
        for (std::size_t i = 0; i < kSharedBreakers; ++i) {
            if (name(i, unused) == 0) {
                SharedName& free = breaker(i).name;
                free.text.write(wanted);
                // release: pairs with the acquire load in name()
                free.state.store(static_cast<std::uint64_t>(NameState::used),
                                 std::memory_order_release);
                return i;
            }
        }
        return kNone;
    }

    // --- slots of processes --------------------------------------------------------------------

    // Is this a slot whose owner has ended?
    [[nodiscard]] bool is_dead(std::size_t slot_index) const noexcept {
        // relaxed: a later owner is found by the compare-and-swap that follows any use of this
        const ProcessOwner owner{slot(slot_index).owner.load(std::memory_order_relaxed)};
        return owner.is_dead();
    }

    // A slot for this process; kOverflowRow if none is free.
    [[nodiscard]] std::uint32_t claim_slot(ProcessOwner owner, std::int64_t now_ns,
                                           std::int64_t wall_ns) const noexcept {
        // First those that were given back: the history of a killed one may still be of interest.
        for (const bool from_dead : {false, true}) {
            for (std::uint32_t i = 0; i < kSlots; ++i) {
                if (try_claim(i, owner, from_dead)) {
                    begin(i, now_ns, wall_ns);
                    return i;
                }
            }
        }
        return kOverflowRow;
    }

    // The number of this ownership of the slot.
    [[nodiscard]] std::uint64_t claim_of(std::size_t slot_index) const noexcept {
        // relaxed: written by the owner before it uses the slot
        return slot(slot_index).claim.load(std::memory_order_relaxed);
    }

    // Gives the slot back, if it is still this owner's.
    void release_slot(std::uint32_t index, ProcessOwner owner) const noexcept {
        if (index >= kSlots) {
            return;
        }
        std::uint64_t bits = owner.bits();
        // release: pairs with the acquire half of the compare_exchange in try_claim()
        slot(index).owner.compare_exchange_strong(bits, 0, std::memory_order_release,
                                                  std::memory_order_relaxed);
    }

    // --- probes of processes that ended --------------------------------------------------------

    // Calls `give_back(count)` for the probes of the present round of this breaker whose holders
    // have ended; each is given to one caller of all.
    template <class GiveBack>
    void each_orphaned_probe(std::size_t breaker_index, std::uint64_t generation,
                             GiveBack give_back) const noexcept {
        for (std::uint32_t i = 0; i < kSlots; ++i) {
            SharedWord& record = breaker(breaker_index).counters[i].probes;
            // acquire: pairs with the release half of the compare_exchange in note_probe()
            const ProbeRecord seen{record.load(std::memory_order_acquire)};
            if (seen.count() == 0 || seen.generation() != generation) {
                continue;
            }
            const bool is_predecessors = !seen.is_of(claim_of(i));
            if (is_predecessors || is_dead(i)) {
                const std::uint64_t count = take_orphans(record, seen, generation);
                if (count > 0) {
                    give_back(count);
                }
            }
        }
    }

    // Calls in flight of processes that ended are none.
    void forget_flights_of_the_dead(std::size_t breaker_index) const noexcept {
        for (std::uint32_t i = 0; i < kSlots; ++i) {
            SharedWord& in_flight = breaker(breaker_index).counters[i].in_flight;
            // relaxed, both: a count, whose owner is gone
            if (in_flight.load(std::memory_order_relaxed) != 0 && is_dead(i)) {
                in_flight.store(0, std::memory_order_relaxed);
            }
        }
    }

  private:
    [[nodiscard]] bool try_claim(std::uint32_t index, ProcessOwner owner,
                                 bool from_dead) const noexcept {
        SharedWord& word = slot(index).owner;
        // relaxed: only compared
        std::uint64_t seen = word.load(std::memory_order_relaxed);
        if (seen != 0 && !(from_dead && ProcessOwner{seen}.is_dead())) {
            return false;
        }
        // acquire: pairs with the release in release_slot()
        return word.compare_exchange_strong(seen, owner.bits(), std::memory_order_acquire,
                                            std::memory_order_relaxed);
    }

    void begin(std::uint32_t index, std::int64_t now_ns, std::int64_t wall_ns) const noexcept {
        WorkerSlot& mine = slot(index);
        // relaxed, all: ours alone, and read for people
        mine.claim.fetch_add(1, std::memory_order_relaxed);
        mine.heartbeat_ns.store(now_ns, std::memory_order_relaxed);
        mine.claimed_wall_ns.store(wall_ns, std::memory_order_relaxed);
        mine.requests_base.store(mine.requests.load(std::memory_order_relaxed),
                                 std::memory_order_relaxed);
        mine.requests_in_flight.store(0, std::memory_order_relaxed);
        mine.memory_limit_bytes.store(0, std::memory_order_relaxed);
        mine.worker.begin_owner();
        for (std::size_t i = 0; i < kSharedBreakers; ++i) {
            // relaxed: a predecessor's calls are gone
            breaker(i).counters[index].in_flight.store(0, std::memory_order_relaxed);
        }
    }

    SegmentLayout* layout_;
};

}  // namespace memguard
