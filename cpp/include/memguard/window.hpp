// Windows: failure and slow-call rates over the newest calls and over the newest seconds, in O(1).
//
// success(): wait-free, any thread: the only thing that a healthy call does here.
// failure(), slow(), judge(): any thread, on a cold path. restart(): any thread, at a closing.
//
// A count window does not keep its calls: it keeps the numbers of the newest failures among all
// calls. A full window of W calls has reached the rate iff the K-th newest failure, K = ceil(rate *
// W), is among the last W calls. A time window is 16 buckets, each one word with its epoch, so that
// no count is torn from its time. Both are exact to the calls that are in flight.
#pragma once

#include <algorithm>  // std::min
#include <array>      // std::array
#include <atomic>     // std::atomic
#include <bit>        // std::bit_ceil
#include <cmath>      // std::ceil
#include <cstddef>    // std::size_t
#include <cstdint>    // std::uint64_t
#include <memory>     // std::unique_ptr

#include "memguard/breaker_word.hpp"
#include "memguard/config.hpp"

namespace memguard {

struct WindowConfig {
    double failure_rate = 0.0;  // 0: no such rule
    double slow_rate = 0.0;     // 0: no such rule
    std::int64_t slow_call_ns = 0;
    std::uint32_t count_window = 100;
    std::int64_t time_window_ns = 0;  // 0: none
    std::uint32_t minimum_calls = 20;

    [[nodiscard]] constexpr bool has_rules() const noexcept {
        return failure_rate > 0.0 || slow_rate > 0.0;
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

// The numbers of the newest bad calls among all calls.
class BadCalls {
  public:
    // Answers for windows that need up to `most` bad calls.
    explicit BadCalls(std::uint64_t most)
        : mask_(std::bit_ceil(2 * most) - 1),
          numbers_(std::make_unique<std::atomic<std::uint64_t>[]>(mask_ + 1)) {}

    // seq_cst, all of these: of two bad calls at once at least the later one must see both, or the
    // rate would be reached and nobody notice. It is a cold path.
    void push(std::uint64_t number) noexcept {
        const std::uint64_t position = head_.fetch_add(1, std::memory_order_seq_cst);
        // seq_cst: see above
        numbers_[position & mask_].store(number, std::memory_order_seq_cst);
    }

    // How many there were since the restart.
    [[nodiscard]] std::uint64_t count() const noexcept {
        // seq_cst: see push()
        return head_.load(std::memory_order_seq_cst) - base_.load(std::memory_order_seq_cst);
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
        for (;;) {
            // seq_cst, all three: see push(). Read again, because the slot may have been overtaken.
            const std::uint64_t head = head_.load(std::memory_order_seq_cst);
            const std::uint64_t base = base_.load(std::memory_order_seq_cst);
            if (head - base < k) {
                return 0;
            }
            // seq_cst: see above
            const std::uint64_t number =
                numbers_[(head - k) & mask_].load(std::memory_order_seq_cst);
            // seq_cst: see above
            if (head_.load(std::memory_order_seq_cst) - (head - k) <= mask_ + 1) {
                return number;
            }
        }
    }

    void restart() noexcept {
        // seq_cst: see push()
        base_.store(head_.load(std::memory_order_seq_cst), std::memory_order_seq_cst);
    }

  private:
    const std::uint64_t mask_;
    const std::unique_ptr<std::atomic<std::uint64_t>[]> numbers_;
    std::atomic<std::uint64_t> head_{0};
    std::atomic<std::uint64_t> base_{0};  // `head_` at the restart
};

// Counts per sixteenth of a time window.
class TimeWindow {
  public:
    explicit TimeWindow(std::int64_t window_ns) noexcept
        : bucket_ns_(std::max<std::int64_t>(window_ns / kBuckets, 1)) {}

    enum class Kind : std::size_t { calls, failures, slow };

    void add(Kind kind, std::int64_t now_ns) noexcept {
        const std::uint64_t epoch = epoch_of(now_ns);
        auto& word = words_[epoch % kBuckets][static_cast<std::size_t>(kind)];
        // relaxed, both: a count that is judged later, with the calls in flight as its error
        std::uint64_t before = word.load(std::memory_order_relaxed);
        while (!word.compare_exchange_weak(before, counted(before, epoch),
                                           std::memory_order_relaxed)) {
        }
    }

    // As add() for a thread that no other writes beside: a third of the time.
    void add_alone(Kind kind, std::int64_t now_ns) noexcept {
        const std::uint64_t epoch = epoch_of(now_ns);
        auto& word = words_[epoch % kBuckets][static_cast<std::size_t>(kind)];
        // relaxed, both: as in add()
        const std::uint64_t before = word.load(std::memory_order_relaxed);
        word.store(counted(before, epoch), std::memory_order_relaxed);
    }

    [[nodiscard]] WindowCounts counts(std::int64_t now_ns) const noexcept {
        const std::uint64_t epoch = epoch_of(now_ns);
        // relaxed, here and below: as in add()
        const std::uint64_t since = epoch - base_.load(std::memory_order_relaxed);
        WindowCounts sum;
        for (const auto& bucket : words_) {
            std::array<std::uint64_t, 3> found{};
            for (std::size_t i = 0; i < found.size(); ++i) {
                const std::uint64_t word = bucket[i].load(std::memory_order_relaxed);
                const std::uint64_t age = (epoch - (word >> 32)) & kEpochMask;
                found[i] = age < kBuckets && age < since ? word & kEpochMask : 0;
            }
            sum.calls += found[0];
            sum.failures += found[1];
            sum.slow += found[2];
        }
        return sum;
    }

    // Leaves out everything so far, the rest of the present bucket included.
    void restart(std::int64_t now_ns) noexcept {
        // relaxed: as in add()
        base_.store(epoch_of(now_ns), std::memory_order_relaxed);
    }

  private:
    static constexpr std::uint64_t kBuckets = 16;
    static constexpr std::uint64_t kEpochMask = 0xFFFFFFFF;

    [[nodiscard]] std::uint64_t epoch_of(std::int64_t now_ns) const noexcept {
        // From 1 on, so that a word of zeros belongs to no epoch that is counted.
        return static_cast<std::uint64_t>(now_ns / bucket_ns_) + kBuckets + 1;
    }

    [[nodiscard]] static constexpr std::uint64_t counted(std::uint64_t word,
                                                         std::uint64_t epoch) noexcept {
        const bool same = word >> 32 == (epoch & kEpochMask);
        return same ? word + 1 : (epoch & kEpochMask) << 32 | 1;
    }

    const std::int64_t bucket_ns_;
    std::array<std::array<std::atomic<std::uint64_t>, 3>, kBuckets> words_{};
    std::atomic<std::uint64_t> base_{0};  // the epoch of the restart
};

class Windows {
  public:
    // `exclusive`: the callers hold a lock around every call, as the GIL is one.
    Windows(const WindowConfig& config, bool exclusive)
        : config_(config), exclusive_(exclusive),
          failures_(needed(config.failure_rate, config.count_window) + 1),
          slow_(needed(config.slow_rate, config.count_window) + 1), time_(config.time_window_ns) {}

    [[nodiscard]] const WindowConfig& config() const noexcept { return config_; }
    [[nodiscard]] bool needs_time() const noexcept { return config_.time_window_ns > 0; }

    // `now_ns` matters only where needs_time().
    void success(std::int64_t now_ns) noexcept {
        count_call();
        if (needs_time()) {
            count_in_time(TimeWindow::Kind::calls, now_ns);
        }
    }

    // A call that failed, was slow, or both.
    void bad(bool failed, bool slow, std::int64_t now_ns) noexcept {
        const std::uint64_t number = count_call();
        if (failed) {
            failures_.push(number);
        }
        if (slow) {
            slow_.push(number);
        }
        if (needs_time()) {
            count_in_time(TimeWindow::Kind::calls, now_ns);
            if (failed) {
                count_in_time(TimeWindow::Kind::failures, now_ns);
            }
            if (slow) {
                count_in_time(TimeWindow::Kind::slow, now_ns);
            }
        }
    }

    // The rule that is broken now, or none.
    [[nodiscard]] Event judge(std::int64_t now_ns) const noexcept {
        if (reached(config_.failure_rate, failures_)) {
            return Event::failure_rate;
        }
        if (reached(config_.slow_rate, slow_)) {
            return Event::slow_rate;
        }
        return needs_time() ? judge_time(time_.counts(now_ns)) : Event::none;
    }

    // The newest `count_window` calls since the restart; failures and slow calls are known where a
    // rule needs them, else 0.
    [[nodiscard]] WindowCounts counts() const noexcept {
        const std::uint64_t total = calls();
        const std::uint64_t since = std::min<std::uint64_t>(total - base(), config_.count_window);
        const std::uint64_t after = total - since;
        return {since, config_.failure_rate > 0.0 ? failures_.count_after(after) : 0,
                config_.slow_rate > 0.0 ? slow_.count_after(after) : 0};
    }

    // At a closing: a fresh window must not see the failures that opened it.
    void restart(std::int64_t now_ns) noexcept {
        // seq_cst: as in BadCalls::push()
        base_.store(calls(), std::memory_order_seq_cst);
        failures_.restart();
        slow_.restart();
        time_.restart(now_ns);
    }

  private:
    [[nodiscard]] std::uint64_t calls() const noexcept {
        // seq_cst: as in BadCalls::push()
        return calls_.load(std::memory_order_seq_cst);
    }
    [[nodiscard]] std::uint64_t base() const noexcept {
        // seq_cst: as in BadCalls::push()
        return base_.load(std::memory_order_seq_cst);
    }

    // Returns the number of the call.
    std::uint64_t count_call() noexcept {
        if (exclusive_) {
            // relaxed, both: no other thread is here meanwhile, and a success decides nothing
            const std::uint64_t number = calls_.load(std::memory_order_relaxed) + 1;
            calls_.store(number, std::memory_order_relaxed);
            return number;
        }
        // seq_cst: as in BadCalls::push()
        return calls_.fetch_add(1, std::memory_order_seq_cst) + 1;
    }

    void count_in_time(TimeWindow::Kind kind, std::int64_t now_ns) noexcept {
        if (exclusive_) {
            time_.add_alone(kind, now_ns);
        } else {
            time_.add(kind, now_ns);
        }
    }

    [[nodiscard]] bool reached(double rate, const BadCalls& bad) const noexcept {
        const std::uint64_t total = calls();
        const std::uint64_t since = total - base();
        if (rate <= 0.0 || since < config_.minimum_calls) {
            return false;
        }
        if (since < config_.count_window) {
            return bad.count() >= needed(rate, since);
        }
        return bad.newest(needed(rate, config_.count_window)) > total - config_.count_window;
    }

    [[nodiscard]] Event judge_time(const WindowCounts& found) const noexcept {
        if (found.calls < config_.minimum_calls) {
            return Event::none;
        }
        const double failure_rate = config_.failure_rate;
        if (failure_rate > 0.0 && found.failures >= needed(failure_rate, found.calls)) {
            return Event::failure_rate;
        }
        const bool slow =
            config_.slow_rate > 0.0 && found.slow >= needed(config_.slow_rate, found.calls);
        return slow ? Event::slow_rate : Event::none;
    }

    const WindowConfig config_;
    const bool exclusive_;
    alignas(kCacheLineBytes) std::atomic<std::uint64_t> calls_{0};
    std::atomic<std::uint64_t> base_{0};  // `calls_` at the restart
    BadCalls failures_;
    BadCalls slow_;
    TimeWindow time_;
};

}  // namespace memguard
