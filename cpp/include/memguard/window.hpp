// Windows: failure and slow-call rates over the newest calls and over the newest seconds, in O(1).
//
// success(): wait-free, any thread: the only thing that a healthy call does here.
// failure(), slow(), judge(): any thread, on a cold path. restart(): any thread, at a closing.
//
// A count window does not keep its calls: it keeps the numbers of the newest failures among all
// calls. A full window of W calls has reached the rate iff the K-th newest failure, K = ceil(rate *
// W), is among the last W calls. A time window is 16 buckets, each one word with its epoch, so that
// no count is torn from its time. Both are exact to the calls that are in flight.
//
// The windows keep what happened; the rules that they are judged by are an argument, so that these
// can change while calls run. What they keep lies in memory of their own, or in memory that
// processes share: then all of them count into the same windows.
#pragma once

#include <algorithm>  // std::min
#include <array>      // std::array
#include <atomic>     // std::atomic
#include <bit>        // std::bit_ceil
#include <cmath>      // std::ceil
#include <cstddef>    // std::size_t
#include <cstdint>    // std::uint64_t
#include <memory>     // std::unique_ptr
#include <utility>    // std::move

#include "memguard/config.hpp"
#include "memguard/rows.hpp"
#include "memguard/transitions.hpp"

namespace memguard {

struct WindowConfig {
    bool count_calls = false;   // count successes, even if no rule needs it
    double failure_rate = 0.0;  // 0: no such rule
    double slow_rate = 0.0;     // 0: no such rule
    std::int64_t slow_call_ns = 0;
    std::uint32_t count_window = 100;
    std::int64_t time_window_ns = 0;  // 0: none
    std::uint32_t minimum_calls = 20;

    [[nodiscard]] constexpr bool is_recording() const noexcept {
        return count_calls || failure_rate > 0.0 || slow_rate > 0.0;
    }
    // Whether what was recorded under other rules is still of use.
    [[nodiscard]] constexpr bool same_windows(const WindowConfig& other) const noexcept {
        return count_window == other.count_window && time_window_ns == other.time_window_ns;
    }
};

// Calls of a window, and those of them that failed and that were slow.
struct WindowCounts {
    std::uint64_t calls = 0;
    std::uint64_t failures = 0;
    std::uint64_t slow = 0;
};

// ceil(rate * calls), without the step up that a rounding of the product would cause.
[[nodiscard]] inline std::uint64_t needed(double rate, std::uint64_t calls) noexcept {
    return static_cast<std::uint64_t>(std::ceil(rate * static_cast<double>(calls) - 1e-9));
}

// --- what is kept, in any memory ---------------------------------------------------------------

struct BadCallsMarks {
    std::atomic<std::uint64_t> head{0};
    std::atomic<std::uint64_t> base{0};  // `head` at the restart
};

// What all rows of the windows have in common.
struct alignas(kCacheLineBytes) WindowMarks {
    std::atomic<std::uint64_t> bad_calls{0};
    std::atomic<std::uint64_t> base{0};  // all calls at the restart
    BadCallsMarks failures;
    BadCallsMarks slow;
    std::atomic<std::uint64_t> time_base{0};  // the epoch of the restart
};

inline constexpr std::size_t kTimeBuckets = 16;

struct alignas(kCacheLineBytes) WindowRow {
    std::atomic<std::uint64_t> successes{0};
    // calls, failures and slow calls of each sixteenth of the time window
    std::array<std::array<std::atomic<std::uint64_t>, 3>, kTimeBuckets> buckets{};
};

using BadCallNumber = std::atomic<std::uint64_t>;

// Where windows are kept. A number of bad calls is a power of two.
struct WindowMemory {
    WindowMarks* marks;
    WindowRow* rows;
    BadCallNumber* failures;
    BadCallNumber* slow;
    std::uint64_t most_bad_calls;
};

// -----------------------------------------------------------------------------------------------

// The numbers of the newest bad calls among all calls.
class BadCalls {
  public:
    BadCalls(BadCallsMarks& marks, BadCallNumber* numbers, std::uint64_t capacity) noexcept
        : marks_(&marks), numbers_(numbers), mask_(capacity - 1) {}

    // To answer for windows of up to `most` calls. The room beside them spares readers a second
    // look while others push.
    [[nodiscard]] static std::uint64_t capacity_for(std::uint64_t most) noexcept {
        return std::bit_ceil(most + 32);
    }

    // seq_cst, all of these: of two bad calls at once at least the later one must see both, or the
    // rate would be reached and nobody notice. It is a cold path.
    void push(std::uint64_t number) noexcept {
        const std::uint64_t position = marks_->head.fetch_add(1, std::memory_order_seq_cst);
        // seq_cst: see above
        numbers_[position & mask_].store(number, std::memory_order_seq_cst);
    }

    // How many there were since the restart.
    [[nodiscard]] std::uint64_t count() const noexcept {
        // seq_cst: see push()
        return marks_->head.load(std::memory_order_seq_cst) -
               marks_->base.load(std::memory_order_seq_cst);
    }

    // How many of the newest have a number above `after`, counted up to the capacity.
    [[nodiscard]] std::uint64_t count_after(std::uint64_t after) const noexcept {
        const std::uint64_t most = std::min(count(), mask_ + 1);
        std::uint64_t found = 0;
        while (found < most && newest(found + 1) > after) {
            ++found;
        }
        return found;
    }

    // The number of the k-th newest bad call, 1 the newest; 0 if there are not so many.
    [[nodiscard]] std::uint64_t newest(std::uint64_t k) const noexcept {
        // Bounded: in shared memory a hostile hand could move the head for ever.
        for (int look = 0; look < kMostLooks; ++look) {
            // seq_cst, all three: see push(). Read again, because the slot may have been overtaken.
            const std::uint64_t head = marks_->head.load(std::memory_order_seq_cst);
            const std::uint64_t base = marks_->base.load(std::memory_order_seq_cst);
            if (head - base < k) {
                return 0;
            }
            // seq_cst: see above
            const std::uint64_t number =
                numbers_[(head - k) & mask_].load(std::memory_order_seq_cst);
            // seq_cst: see above
            if (marks_->head.load(std::memory_order_seq_cst) - (head - k) <= mask_ + 1) {
                return number;
            }
        }
        return 0;
    }

    void restart() noexcept {
        // seq_cst: see push()
        marks_->base.store(marks_->head.load(std::memory_order_seq_cst), std::memory_order_seq_cst);
    }

  private:
    static constexpr int kMostLooks = 1000;

    BadCallsMarks* marks_;
    BadCallNumber* numbers_;
    std::uint64_t mask_;
};

// Counts per sixteenth of a time window.
class TimeWindow {
  public:
    enum class Kind : std::size_t { calls, failures, slow };

    TimeWindow(std::int64_t window_ns, const WindowMemory& memory, RowChoice choice) noexcept
        : bucket_ns_(
              std::max<std::int64_t>(window_ns / static_cast<std::int64_t>(kTimeBuckets), 1)),
          rows_(memory.rows), base_(&memory.marks->time_base), choice_(choice) {}

    void add(Kind kind, std::int64_t now_ns) noexcept { add(kind, now_ns, choice_.mine()); }

    void add(Kind kind, std::int64_t now_ns, RowChoice::Row mine) noexcept {
        const std::uint64_t epoch = epoch_of(now_ns);
        auto& word =
            rows_[mine.index].buckets[epoch % kTimeBuckets][static_cast<std::size_t>(kind)];
        // relaxed, all: a count that is judged later, with the calls in flight as its error
        std::uint64_t before = word.load(std::memory_order_relaxed);
        if (mine.is_exclusive) {  // a third of the time
            word.store(counted(before, epoch), std::memory_order_relaxed);
            return;
        }
        // relaxed, both: see above
        while (!word.compare_exchange_weak(before, counted(before, epoch),
                                           std::memory_order_relaxed)) {
        }
    }

    [[nodiscard]] WindowCounts counts(std::int64_t now_ns) const noexcept {
        WindowCounts sum;
        for (std::size_t i = 0; i < choice_.count(); ++i) {
            add_row(sum, rows_[i], epoch_of(now_ns));
        }
        return sum;
    }

    // Leaves out everything so far, the rest of the present bucket included.
    void restart(std::int64_t now_ns) noexcept {
        // relaxed: as in add()
        base_->store(epoch_of(now_ns), std::memory_order_relaxed);
    }

  private:
    static constexpr std::uint64_t kEpochMask = 0xFFFFFFFF;

    [[nodiscard]] std::uint64_t epoch_of(std::int64_t now_ns) const noexcept {
        // From 1 on, so that a word of zeros belongs to no epoch that is counted.
        return static_cast<std::uint64_t>(now_ns / bucket_ns_) + kTimeBuckets + 1;
    }

    [[nodiscard]] static constexpr std::uint64_t counted(std::uint64_t word,
                                                         std::uint64_t epoch) noexcept {
        const bool same = word >> 32 == (epoch & kEpochMask);
        return same ? word + 1 : (epoch & kEpochMask) << 32 | 1;
    }

    void add_row(WindowCounts& sum, const WindowRow& row, std::uint64_t epoch) const noexcept {
        // relaxed, here and below: as in add()
        const std::uint64_t since = epoch - base_->load(std::memory_order_relaxed);
        for (const auto& bucket : row.buckets) {
            std::array<std::uint64_t, 3> found{};
            for (std::size_t i = 0; i < found.size(); ++i) {
                const std::uint64_t word = bucket[i].load(std::memory_order_relaxed);
                const std::uint64_t age = (epoch - (word >> 32)) & kEpochMask;
                found[i] = age < kTimeBuckets && age < since ? word & kEpochMask : 0;
            }
            sum.calls += found[0];
            sum.failures += found[1];
            sum.slow += found[2];
        }
    }

    std::int64_t bucket_ns_;
    WindowRow* rows_;
    std::atomic<std::uint64_t>* base_;
    RowChoice choice_;
};

class Windows {
  public:
    // In memory of their own. `sizes`: those of the windows; its rates do not matter here.
    // `exclusive`: the callers hold a lock around every call, as the GIL is one.
    Windows(const WindowConfig& sizes, bool exclusive)
        : Windows(sizes, RowChoice{exclusive},
                  std::make_unique<Own>(sizes.count_window, RowChoice{exclusive}.count())) {}

    // In memory that outlives them.
    Windows(const WindowConfig& sizes, RowChoice choice, const WindowMemory& memory) noexcept
        : needs_time_(sizes.time_window_ns > 0), choice_(choice), memory_(memory),
          failures_(memory.marks->failures, memory.failures, memory.most_bad_calls),
          slow_(memory.marks->slow, memory.slow, memory.most_bad_calls),
          time_(sizes.time_window_ns, memory, choice) {}

    Windows(const Windows&) = delete;
    Windows& operator=(const Windows&) = delete;

    [[nodiscard]] bool needs_time() const noexcept { return needs_time_; }

    // `now_ns` matters only where needs_time().
    void success(std::int64_t now_ns) noexcept {
        const RowChoice::Row mine = choice_.mine();
        add(memory_.rows[mine.index].successes, 1, mine.is_exclusive);
        if (needs_time_) {
            time_.add(TimeWindow::Kind::calls, now_ns, mine);
        }
    }

    // A call that failed, was slow, or both.
    void bad(bool failed, bool slow, std::int64_t now_ns) noexcept {
        // seq_cst: as in BadCalls::push()
        const std::uint64_t number =
            memory_.marks->bad_calls.fetch_add(1, std::memory_order_seq_cst) + 1 + successes();
        if (failed) {
            failures_.push(number);
        }
        if (slow) {
            slow_.push(number);
        }
        if (needs_time_) {
            time_.add(TimeWindow::Kind::calls, now_ns);
            if (failed) {
                time_.add(TimeWindow::Kind::failures, now_ns);
            }
            if (slow) {
                time_.add(TimeWindow::Kind::slow, now_ns);
            }
        }
    }

    // The rule that is broken now, or none.
    [[nodiscard]] Event judge(const WindowConfig& rules, std::int64_t now_ns) const noexcept {
        if (reached(rules, rules.failure_rate, failures_)) {
            return Event::failure_rate;
        }
        if (reached(rules, rules.slow_rate, slow_)) {
            return Event::slow_rate;
        }
        return needs_time_ ? judge_time(rules, time_.counts(now_ns)) : Event::none;
    }

    // The newest `count_window` calls since the restart.
    [[nodiscard]] WindowCounts counts(const WindowConfig& rules) const noexcept {
        const std::uint64_t total = calls();
        const std::uint64_t since = std::min<std::uint64_t>(total - base(), rules.count_window);
        const std::uint64_t after = total - since;
        return {since, failures_.count_after(after), slow_.count_after(after)};
    }

    // Calls of success() ever.
    [[nodiscard]] std::uint64_t successes() const noexcept {
        std::uint64_t sum = 0;
        for (std::size_t i = 0; i < choice_.count(); ++i) {
            sum += memory_.rows[i].successes.load(std::memory_order_relaxed);  // relaxed: see add()
        }
        return sum;
    }

    // At a closing: a fresh window must not see the failures that opened it.
    void restart(std::int64_t now_ns) noexcept {
        // seq_cst: as in BadCalls::push()
        memory_.marks->base.store(calls(), std::memory_order_seq_cst);
        failures_.restart();
        slow_.restart();
        time_.restart(now_ns);
    }

  private:
    struct Own {
        Own(std::uint64_t most, std::size_t row_count)
            : capacity(BadCalls::capacity_for(most)),
              rows(std::make_unique<WindowRow[]>(row_count)),
              failures(std::make_unique<BadCallNumber[]>(capacity)),
              slow(std::make_unique<BadCallNumber[]>(capacity)) {}

        [[nodiscard]] WindowMemory memory() noexcept {
            return {&marks, rows.get(), failures.get(), slow.get(), capacity};
        }

        const std::uint64_t capacity;
        WindowMarks marks;
        const std::unique_ptr<WindowRow[]> rows;
        const std::unique_ptr<BadCallNumber[]> failures;
        const std::unique_ptr<BadCallNumber[]> slow;
    };

    Windows(const WindowConfig& sizes, RowChoice choice, std::unique_ptr<Own> own)
        : Windows(sizes, choice, own->memory()) {
        own_ = std::move(own);
    }

    [[nodiscard]] std::uint64_t calls() const noexcept {
        // seq_cst: as in BadCalls::push()
        return memory_.marks->bad_calls.load(std::memory_order_seq_cst) + successes();
    }
    [[nodiscard]] std::uint64_t base() const noexcept {
        // seq_cst: as in BadCalls::push()
        return memory_.marks->base.load(std::memory_order_seq_cst);
    }

    [[nodiscard]] bool reached(const WindowConfig& rules, double rate,
                               const BadCalls& bad) const noexcept {
        const std::uint64_t total = calls();
        const std::uint64_t since = total - base();
        if (rate <= 0.0 || since < rules.minimum_calls) {
            return false;
        }
        if (since < rules.count_window) {
            return bad.count() >= needed(rate, since);
        }
        return bad.newest(needed(rate, rules.count_window)) > total - rules.count_window;
    }

    [[nodiscard]] static Event judge_time(const WindowConfig& rules,
                                          const WindowCounts& found) noexcept {
        if (found.calls < rules.minimum_calls) {
            return Event::none;
        }
        const double failure_rate = rules.failure_rate;
        if (failure_rate > 0.0 && found.failures >= needed(failure_rate, found.calls)) {
            return Event::failure_rate;
        }
        const bool slow =
            rules.slow_rate > 0.0 && found.slow >= needed(rules.slow_rate, found.calls);
        return slow ? Event::slow_rate : Event::none;
    }

    std::unique_ptr<Own> own_;  // null where the memory is somebody else's
    const bool needs_time_;
    const RowChoice choice_;
    const WindowMemory memory_;
    BadCalls failures_;
    BadCalls slow_;
    TimeWindow time_;
};

}  // namespace memguard
