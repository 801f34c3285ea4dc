// What happened to a breaker, counted: for people and metrics, nothing is decided from it. The rows
// lie in the breaker's own memory or in memory that processes share.
//
// Any method, any thread. The figures are read one after the other, so under load they may be apart
// by the calls in flight.
#pragma once

#include <array>    // std::array
#include <atomic>   // std::atomic
#include <cstddef>  // std::size_t
#include <cstdint>  // std::uint64_t

#include "memguard/config.hpp"
#include "memguard/rows.hpp"
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

using Count = std::atomic<std::uint64_t>;

// What one process or thread has counted of one breaker.
struct alignas(kCacheLineBytes) CounterRow {
    Count successes{0};
    Count failures{0};
    Count slow{0};
    Count neutrals{0};
    Count cancelled{0};
    Count rejections{0};
    Count unenforced{0};
    Count stale{0};
    Count open_ns{0};
    std::array<std::array<Count, kPhases>, kPhases> transitions{};
    Count in_flight{0};  // calls that run, where a rule limits them; may be negative in one row
    Count probes{0};     // those that the row's process holds: see ProbeRecord
};

class Statistics {
  public:
    // `open_since_ns`: since when it is open, kNotOpen if it is not.
    Statistics(CounterRow* rows, std::atomic<std::int64_t>& open_since_ns,
               RowChoice choice) noexcept
        : rows_(rows), open_since_ns_(&open_since_ns), choice_(choice) {}

    static constexpr std::int64_t kNotOpen = -1;

    // Where calls are counted, `counts_successes` has a success told that the windows do not know.
    void count_ending(const Ending& ending, bool is_stale, bool counts_successes) noexcept {
        const Mine mine = this->mine();
        mine.count(mine.row.stale, is_stale);
        mine.count(mine.row.slow, ending.slow);
        mine.count(mine.row.successes, ending.verdict == Verdict::success && counts_successes);
        mine.count(mine.row.failures, ending.verdict == Verdict::failure);
        mine.count(mine.row.neutrals, ending.verdict == Verdict::neutral);
        mine.count(mine.row.cancelled, ending.verdict == Verdict::neutral && ending.cancelled);
    }

    void count_unenforced() noexcept {
        const Mine mine = this->mine();
        mine.count(mine.row.unenforced, true);
    }

    void count_rejection() noexcept {
        const Mine mine = this->mine();
        mine.count(mine.row.rejections, true);
    }

    // Called by the one who made the transition, after it.
    void count_transition(Phase from, Phase to, std::int64_t now_ns) noexcept {
        const Mine mine = this->mine();
        mine.count(mine.row.transitions[index(from)][index(to)], true);
        if (is_open(from) == is_open(to)) {
            return;
        }
        // relaxed, all: as in add(). The next transition may overtake this one, which was made
        // already: then one period of that moment is told wrongly.
        if (is_open(to)) {
            open_since_ns_->store(now_ns, std::memory_order_relaxed);
            return;
        }
        const std::int64_t since_ns = open_since_ns_->exchange(kNotOpen, std::memory_order_relaxed);
        if (const std::int64_t open_ns = difference_ns(now_ns, since_ns);
            since_ns != kNotOpen && open_ns > 0) {
            add(mine.row.open_ns, static_cast<std::uint64_t>(open_ns), mine.is_exclusive);
        }
    }

    [[nodiscard]] std::uint64_t transitions(Phase from, Phase to) const noexcept {
        return sum(
            [&](const CounterRow& row) { return read(row.transitions[index(from)][index(to)]); });
    }

    [[nodiscard]] Totals totals(std::int64_t now_ns) const noexcept {
        Totals found;
        std::uint64_t closed_ns = 0;  // of open periods that are over
        for (std::size_t i = 0; i < choice_.count(); ++i) {
            const CounterRow& row = rows_[i];
            found.successes += read(row.successes);
            found.failures += read(row.failures);
            found.slow += read(row.slow);
            found.neutrals += read(row.neutrals);
            found.cancelled += read(row.cancelled);
            found.rejections += read(row.rejections);
            found.unenforced += read(row.unenforced);
            found.stale += read(row.stale);
            closed_ns += read(row.open_ns);
            for (const auto& of_phase : row.transitions) {
                for (const Count& count : of_phase) {
                    found.transitions += read(count);
                }
            }
        }
        // relaxed: as in add()
        const std::int64_t since_ns = open_since_ns_->load(std::memory_order_relaxed);
        const std::int64_t open_ns = difference_ns(now_ns, since_ns);
        found.open_ns = static_cast<std::int64_t>(
            closed_ns +
            (since_ns != kNotOpen && open_ns > 0 ? static_cast<std::uint64_t>(open_ns) : 0));
        return found;
    }

    // Calls that run at once, where a rule limits them. Those of processes without a row of their
    // own are left out: nobody would notice that such a one has ended, and its calls with it.
    [[nodiscard]] std::uint64_t in_flight() const noexcept {
        std::uint64_t sum = 0;
        for (std::size_t i = 0; i < choice_.owned(); ++i) {
            sum += read(rows_[i].in_flight);
        }
        // One that began in one row may have ended in another.
        const auto running = static_cast<std::int64_t>(sum);
        return running > 0 ? static_cast<std::uint64_t>(running) : 0;
    }
    void begin_flight() noexcept {
        const Mine mine = this->mine();
        mine.count(mine.row.in_flight, true);
    }
    void end_flight() noexcept {
        const Mine mine = this->mine();
        add(mine.row.in_flight, ~std::uint64_t{0}, mine.is_exclusive);  // minus 1
    }

    // In a forked child: its parent's calls are not its own.
    void forget_flights() noexcept {
        for (std::size_t i = 0; i < choice_.count(); ++i) {
            rows_[i].in_flight.store(0, std::memory_order_relaxed);  // relaxed: as in add()
        }
    }

    [[nodiscard]] CounterRow& row(std::size_t index) noexcept { return rows_[index]; }
    [[nodiscard]] RowChoice choice() const noexcept { return choice_; }

  private:
    struct Mine {
        CounterRow& row;
        bool is_exclusive;

        void count(Count& counter, bool happened) const noexcept {
            if (happened) {
                add(counter, 1, is_exclusive);
            }
        }
    };

    [[nodiscard]] Mine mine() const noexcept {
        const RowChoice::Row row = choice_.mine();
        return {rows_[row.index], row.is_exclusive};
    }
    [[nodiscard]] static constexpr std::size_t index(Phase phase) noexcept {
        return static_cast<std::size_t>(phase);
    }
    [[nodiscard]] static constexpr bool is_open(Phase phase) noexcept {
        return phase == Phase::open || phase == Phase::forced_open;
    }
    [[nodiscard]] static std::uint64_t read(const Count& count) noexcept {
        return count.load(std::memory_order_relaxed);  // relaxed: as in add()
    }
    template <class Figure>
    [[nodiscard]] std::uint64_t sum(Figure&& figure) const noexcept {
        std::uint64_t found = 0;
        for (std::size_t i = 0; i < choice_.count(); ++i) {
            found += figure(rows_[i]);
        }
        return found;
    }

    CounterRow* rows_;
    std::atomic<std::int64_t>* open_since_ns_;
    RowChoice choice_;
};

}  // namespace memguard
