// SharedWorker: what a worker of a supervisor tells of itself in its slot of the segment.
//
// Counters are never set back: the next owner of the slot goes on from where the one before it has
// ended, and `..._base` is where the present one began. All else is of the present owner: whoever
// takes the slot begins with zeros, which mean "unknown", as in a file from before these fields.
// The threads of the owner write, any process reads; any word is legal.
#pragma once

#include <atomic>       // std::atomic
#include <cstddef>      // offsetof
#include <cstdint>      // std::uint64_t
#include <optional>     // std::optional
#include <type_traits>  // std::is_standard_layout_v

#include "memguard/config.hpp"

namespace memguard {

using SharedWord = std::atomic<std::uint64_t>;

// none: no worker of a supervisor. The others are in the order of kWorkerStates; stored.
enum class WorkerState : std::uint64_t { none, starting, warming, ready, draining, ended };

inline constexpr const char* kWorkerStates[] = {"starting", "warming", "ready", "draining",
                                                "ended"};

// Raises a counter to `total` more than its owner began with; of several writers the largest wins.
inline void raise_counter(SharedWord& counter, const SharedWord& base,
                          std::uint64_t total) noexcept {
    // relaxed, all: a count, which orders nothing
    const std::uint64_t wanted = base.load(std::memory_order_relaxed) + total;
    std::uint64_t seen = counter.load(std::memory_order_relaxed);
    while (seen < wanted && !counter.compare_exchange_weak(seen, wanted, std::memory_order_relaxed,
                                                           std::memory_order_relaxed)) {
    }
}

struct alignas(kCacheLineBytes) SharedWorker {
    SharedWord state{0};                             // a WorkerState
    SharedWord number_plus_1{0};                     // by which the supervisor and people know it
    SharedWord predecessor_plus_1{0};                // the slot of the worker that it relieves
    SharedWord predecessor_claim{0};                 // and which owner of that slot it was
    std::atomic<std::int64_t> loop_heartbeat_ns{0};  // by the event loop itself
    SharedWord connections{0};
    SharedWord inputs{0};
    SharedWord inputs_base{0};
    SharedWord tokens{0};
    SharedWord tokens_base{0};
    SharedWord private_bytes{0};
    SharedWord own_bytes{0};                            // without what it shares with its template
    std::atomic<std::int64_t> forecast_deadline_ns{0};  // when memory may meet its limit
    SharedWord is_over_ceiling{0};
    std::atomic<std::int64_t> ready_wall_ns{0};

    // Another process owns the slot now.
    void begin_owner() noexcept {
        clear();
        // relaxed, all: ours alone, and read for people and supervisors
        inputs_base.store(inputs.load(std::memory_order_relaxed), std::memory_order_relaxed);
        tokens_base.store(tokens.load(std::memory_order_relaxed), std::memory_order_relaxed);
    }

    // The owner is this worker. `predecessor`: the slot and the claim of the one that it relieves.
    struct Predecessor {
        std::uint64_t slot;
        std::uint64_t claim;
    };
    void begin_worker(std::uint64_t number,
                      const std::optional<Predecessor>& predecessor) noexcept {
        clear();
        // relaxed, all: as in begin_owner()
        number_plus_1.store(number + 1, std::memory_order_relaxed);
        predecessor_plus_1.store(predecessor ? predecessor->slot + 1 : 0,
                                 std::memory_order_relaxed);
        predecessor_claim.store(predecessor ? predecessor->claim : 0, std::memory_order_relaxed);
        set_state(WorkerState::starting, 0);
    }

    // `wall_ns`: now, kept as the time when it became ready.
    void set_state(WorkerState now, std::int64_t wall_ns) noexcept {
        // relaxed, both: each is read for itself
        if (now == WorkerState::ready) {
            ready_wall_ns.store(wall_ns, std::memory_order_relaxed);
        }
        state.store(static_cast<std::uint64_t>(now), std::memory_order_relaxed);
    }

    // none, too, if what is there is no state.
    [[nodiscard]] WorkerState read_state() const noexcept {
        // relaxed: as in set_state()
        const auto found = static_cast<WorkerState>(state.load(std::memory_order_relaxed));
        return found <= WorkerState::ended ? found : WorkerState::none;
    }

  private:
    void clear() noexcept {
        // relaxed, all: as in begin_owner()
        for (SharedWord* const word :
             {&state, &number_plus_1, &predecessor_plus_1, &predecessor_claim, &connections,
              &private_bytes, &own_bytes, &is_over_ceiling}) {
            word->store(0, std::memory_order_relaxed);
        }
        for (std::atomic<std::int64_t>* const word :
             {&loop_heartbeat_ns, &forecast_deadline_ns, &ready_wall_ns}) {
            word->store(0, std::memory_order_relaxed);
        }
    }
};

static_assert(std::is_standard_layout_v<SharedWorker> && sizeof(SharedWorker) == 128);
static_assert(offsetof(SharedWorker, loop_heartbeat_ns) == 32);
static_assert(offsetof(SharedWorker, inputs) == 48 && offsetof(SharedWorker, tokens) == 64);
static_assert(offsetof(SharedWorker, private_bytes) == 80);
static_assert(offsetof(SharedWorker, is_over_ceiling) == 104);
static_assert(offsetof(SharedWorker, ready_wall_ns) == 112);

}  // namespace memguard
