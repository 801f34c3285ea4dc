// What happened to a breaker, counted: for people and metrics, nothing is decided from it.
//
// Any method, any thread. The figures are read one after the other, so under load they may be apart
// by the calls in flight.
#pragma once

#include <array>    // std::array
#include <atomic>   // std::atomic
#include <cstddef>  // std::size_t
#include <cstdint>  // std::uint64_t

#include "memguard/transitions.hpp"

namespace memguard {

inline constexpr std::size_t kPhases = 5;

// A healthy success leaves no trace here: see Windows::successes().
struct Totals {
    std::uint64_t successes = 0;  // those that were told, where calls are counted
    std::uint64_t failures = 0;
    std::uint64_t slow = 0;  // successes, failures and neutral ones that took too long
    std::uint64_t neutrals = 0;
    std::uint64_t cancelled = 0;  // of the neutral ones
    std::uint64_t rejections = 0;
    std::uint64_t unenforced = 0;  // calls that ran though the rules would have rejected them
    std::uint64_t stale = 0;
    std::uint64_t transitions = 0;
    std::int64_t open_ns = 0;  // open or forced open, the present period included
};

// How a call ended, for the counters.
struct Ending {
    Verdict verdict = Verdict::success;
    bool slow = false;
    bool cancelled = false;
};

class Statistics {
  public:
    // Where calls are counted, `counts_successes` has a success told that the windows do not know.
    void count_ending(const Ending& ending, bool is_stale, bool counts_successes) noexcept {
        add(stale_, is_stale);
        add(slow_, ending.slow);
        add(successes_, ending.verdict == Verdict::success && counts_successes);
        add(failures_, ending.verdict == Verdict::failure);
        add(neutrals_, ending.verdict == Verdict::neutral);
        add(cancelled_, ending.verdict == Verdict::neutral && ending.cancelled);
    }

    void count_unenforced() noexcept { add(unenforced_, true); }

    // `exclusive`: the callers hold a lock around it, as the GIL is one; then a rejection, which is
    // all that an open circuit does, takes no locked instruction.
    void count_rejection(bool exclusive) noexcept {
        if (!exclusive) {
            add(rejections_, true);
            return;
        }
        // relaxed, both: as in add()
        rejections_.store(rejections_.load(std::memory_order_relaxed) + 1,
                          std::memory_order_relaxed);
    }

    // Called by the one who made the transition, after it.
    void count_transition(Phase from, Phase to, std::int64_t now_ns) noexcept {
        add(transitions_[index(from)][index(to)], true);
        if (is_open(from) == is_open(to)) {
            return;
        }
        // relaxed, all: as in add(). The next transition may overtake this one, which was made
        // already: then one period of that moment is told wrongly.
        if (is_open(to)) {
            open_since_ns_.store(now_ns, std::memory_order_relaxed);
            return;
        }
        const std::int64_t since_ns = open_since_ns_.exchange(kNotOpen, std::memory_order_relaxed);
        if (since_ns != kNotOpen) {
            open_ns_.fetch_add(now_ns - since_ns, std::memory_order_relaxed);
        }
    }

    [[nodiscard]] std::uint64_t transitions(Phase from, Phase to) const noexcept {
        return read(transitions_[index(from)][index(to)]);
    }

    [[nodiscard]] Totals totals(std::int64_t now_ns) const noexcept {
        Totals found{read(successes_),
                     read(failures_),
                     read(slow_),
                     read(neutrals_),
                     read(cancelled_),
                     read(rejections_),
                     read(unenforced_),
                     read(stale_),
                     0,
                     0};
        for (const auto& row : transitions_) {
            for (const auto& count : row) {
                found.transitions += read(count);
            }
        }
        // relaxed, both: as in add()
        found.open_ns = open_ns_.load(std::memory_order_relaxed);
        const std::int64_t since_ns = open_since_ns_.load(std::memory_order_relaxed);
        if (since_ns != kNotOpen) {
            found.open_ns += now_ns - since_ns;
        }
        return found;
    }

  private:
    using Count = std::atomic<std::uint64_t>;

    static constexpr std::int64_t kNotOpen = -1;

    [[nodiscard]] static constexpr std::size_t index(Phase phase) noexcept {
        return static_cast<std::size_t>(phase);
    }
    [[nodiscard]] static constexpr bool is_open(Phase phase) noexcept {
        return phase == Phase::open || phase == Phase::forced_open;
    }
    static void add(Count& count, bool happened) noexcept {
        if (happened) {
            // relaxed: a sum; nothing is ordered by it, and seen late is fine
            count.fetch_add(1, std::memory_order_relaxed);
        }
    }
    [[nodiscard]] static std::uint64_t read(const Count& count) noexcept {
        return count.load(std::memory_order_relaxed);  // relaxed: as in add()
    }

    Count successes_{0};
    Count failures_{0};
    Count slow_{0};
    Count neutrals_{0};
    Count cancelled_{0};
    Count rejections_{0};
    Count unenforced_{0};
    Count stale_{0};
    std::array<std::array<Count, kPhases>, kPhases> transitions_{};
    std::atomic<std::int64_t> open_ns_{0};
    std::atomic<std::int64_t> open_since_ns_{kNotOpen};
};

}  // namespace memguard
