// AllocationTable: a sample of the memory blocks that are alive, and the stacks that asked for
// them.
//
// A block is sampled with a probability that grows with its size, as if a mark were made at random
// after every `interval_bytes` bytes on average: so the weights of the samples that are alive add
// up, without bias, to the bytes that are alive. due() and may_hold() are what every allocation and
// every release pays; the rest happens for samples only.
//
// Any thread may call anything; nothing allocates, and only start() and for_each() wait, a little.
// Who finds the table in use by another thread does without: then a sample is missed, or a block
// that is gone stays in the table until its address is released once more. With one lock over all
// callers, which the GIL is for the memory of Python, neither happens. Blocks get no header, so
// they may outlive the profile.
#pragma once

#include <array>    // std::array
#include <atomic>   // std::atomic
#include <chrono>   // std::chrono::milliseconds
#include <cmath>    // std::expm1, std::log
#include <cstddef>  // std::size_t
#include <cstdint>  // std::int64_t, std::uintptr_t
#include <limits>   // std::numeric_limits
#include <thread>   // std::this_thread

#include "memguard/pointer_index.hpp"

namespace memguard {

// Where a sample was asked for: numbers of code and the place in it, the innermost first.
struct AllocationStack {
    static constexpr std::size_t kMostFrames = 16;

    struct Frame {
        std::uint32_t code;
        std::int32_t offset;
        constexpr auto operator<=>(const Frame&) const noexcept = default;
    };

    std::uint32_t depth = 0;
    std::array<Frame, kMostFrames> frames{};

    void push(Frame frame) noexcept { frames[depth++] = frame; }
    [[nodiscard]] bool is_full() const noexcept { return depth == kMostFrames; }
};

struct AllocationSample {
    std::uintptr_t address;
    std::uint64_t size_bytes;
    double weight_bytes;  // how many bytes that are alive it stands for
    std::int64_t at_ns;
    AllocationStack stack;
};

class AllocationTable {
  public:
    static constexpr std::size_t kMostSamples = 4096;

    // Empties the table; it samples every `interval_bytes`, >= 1, until stop() or `end_ns`. False:
    // it was in use.
    [[nodiscard]] bool start(std::uint64_t interval_bytes, std::int64_t end_ns,
                             std::uint64_t seed) noexcept {
        if (!lock_within_bounds()) {
            return false;
        }
        clear();
        interval_bytes_ = static_cast<double>(interval_bytes);
        random_ = seed;
        // relaxed: who reads an old end ends at once
        end_ns_.store(end_ns, std::memory_order_relaxed);
        // relaxed: what the others need of the lines above they read under the lock
        on_.store(true, std::memory_order_relaxed);
        draw();
        unlock();
        return true;
    }

    void stop() noexcept {
        // relaxed: what is sampled a moment later does no harm
        on_.store(false, std::memory_order_relaxed);
    }

    [[nodiscard]] bool is_on() const noexcept {
        // relaxed: as in start()
        return on_.load(std::memory_order_relaxed);
    }

    // Of every block, after it was got: is it to be sampled? Two lost updates of threads without a
    // common lock make the next mark come a little later.
    [[nodiscard]] bool due(std::size_t size) noexcept {
        // relaxed: a count, and nothing else is read by it
        const std::int64_t left =
            left_.load(std::memory_order_relaxed) - static_cast<std::int64_t>(size);
        // relaxed: see above
        left_.store(left, std::memory_order_relaxed);
        return left < 0;
    }

    // What due() asked for was looked at: the next mark. Never again if the table is off.
    void next_mark() noexcept {
        if (is_on() && try_lock()) {
            draw();
            unlock();
        } else if (!is_on()) {
            sleep();
        }
    }

    // The next due() says yes, whatever the size.
    void wake() noexcept {
        // relaxed: as in due()
        left_.store(-1, std::memory_order_relaxed);
    }

    // Whether time is up; then it is off.
    bool has_ended(std::int64_t now_ns) noexcept {
        // relaxed: as in start()
        if (now_ns >= end_ns_.load(std::memory_order_relaxed)) {
            stop();
        }
        return !is_on();
    }

    // Takes a sample. False: there was no room, or the table was in use.
    bool add(const void* block, std::size_t size, std::int64_t now_ns,
             const AllocationStack& stack) noexcept {
        if (!try_lock()) {
            return false;
        }
        const auto address = reinterpret_cast<std::uintptr_t>(block);
        std::size_t slot = find(address);
        // relaxed: keys change under the lock only; who reads one without it asks again with it
        const bool is_there = keys_[slot].load(std::memory_order_relaxed) == address;
        const std::size_t count = live();
        const bool has_room = is_there || count < kMostSamples;
        if (has_room) {
            const std::uint16_t number =
                is_there ? numbers_[slot] : static_cast<std::uint16_t>(count);
            const auto bytes = static_cast<double>(size == 0 ? 1 : size);
            samples_[number] = {address, size, bytes / -std::expm1(-bytes / interval_bytes_),
                                now_ns, stack};
            numbers_[slot] = number;
            // relaxed: as above
            keys_[slot].store(address, std::memory_order_relaxed);
            set_live(is_there ? count : count + 1);
        }
        unlock();
        return has_room;
    }

    // Of every block before it is released: may it be a sample? Then call remove(). nullptr is
    // released all the time, is no sample, and would be taken for a free slot.
    [[nodiscard]] bool may_hold(const void* block) const noexcept {
        if (live() == 0 || block == nullptr) {
            return false;
        }
        const auto address = reinterpret_cast<std::uintptr_t>(block);
        // relaxed: as in add()
        return keys_[find(address)].load(std::memory_order_relaxed) == address;
    }

    void remove(const void* block) noexcept {
        if (block == nullptr || !try_lock()) {
            return;
        }
        const auto address = reinterpret_cast<std::uintptr_t>(block);
        const std::size_t slot = find(address);
        // relaxed: as in add()
        if (keys_[slot].load(std::memory_order_relaxed) == address) {
            give_up_number(numbers_[slot]);
            close_gap(slot);
        }
        unlock();
    }

    // How many samples are alive.
    [[nodiscard]] std::size_t live() const noexcept {
        // relaxed: a count; what it counts is read under the lock
        return live_.load(std::memory_order_relaxed);
    }

    // Calls `visit(sample)` for all of them. False: the table was in use.
    template <class Visit>
    bool for_each(Visit visit) noexcept {
        if (!lock_within_bounds()) {
            return false;
        }
        for (std::size_t i = 0; i < live(); ++i) {
            visit(static_cast<const AllocationSample&>(samples_[i]));
        }
        unlock();
        return true;
    }

    // In a forked child: off and empty, also if a thread that is not here was in the table.
    void forget() noexcept {
        stop();
        clear();
        unlock();
    }

  private:
    static constexpr std::size_t kSlots = 4 * kMostSamples;  // at most a quarter is in use
    static constexpr std::size_t kMask = kSlots - 1;

    // The slot of the address, or the free one where it would be. Ends, since most are free; the
    // bound is for who reads while others write.
    [[nodiscard]] std::size_t find(std::uintptr_t address) const noexcept {
        std::size_t slot = hash_of_address(address) & kMask;
        for (std::size_t tries = 0; tries < kSlots; ++tries, slot = (slot + 1) & kMask) {
            // relaxed: as in add()
            const std::uintptr_t key = keys_[slot].load(std::memory_order_relaxed);
            if (key == address || key == 0) {
                break;
            }
        }
        return slot;
    }

    // The samples stay dense: the last one moves into the place that got free.
    void give_up_number(std::uint16_t number) noexcept {
        const std::size_t last = live() - 1;
        if (number != last) {
            samples_[number] = samples_[last];
            numbers_[find(samples_[number].address)] = number;
        }
        set_live(last);
    }

    // Frees the slot, and moves those behind it that would not be found any more: no tombstones,
    // which would fill a table that takes and gives for minutes.
    void close_gap(std::size_t gap) noexcept {
        for (std::size_t slot = (gap + 1) & kMask;; slot = (slot + 1) & kMask) {
            // relaxed: as in add()
            const std::uintptr_t key = keys_[slot].load(std::memory_order_relaxed);
            if (key == 0) {
                break;
            }
            const std::size_t home = hash_of_address(key) & kMask;
            if (((slot - home) & kMask) >= ((slot - gap) & kMask)) {
                numbers_[gap] = numbers_[slot];
                // relaxed: as in add()
                keys_[gap].store(key, std::memory_order_relaxed);
                gap = slot;
            }
        }
        // relaxed: as in add()
        keys_[gap].store(0, std::memory_order_relaxed);
    }

    void clear() noexcept {
        for (auto& key : keys_) {
            // relaxed: as in add()
            key.store(0, std::memory_order_relaxed);
        }
        set_live(0);
    }

    void set_live(std::size_t count) noexcept {
        // relaxed: as in live()
        live_.store(count, std::memory_order_relaxed);
    }

    void sleep() noexcept {
        // relaxed: as in due()
        left_.store(std::numeric_limits<std::int64_t>::max(), std::memory_order_relaxed);
    }

    // Distances between marks of a Poisson process are exponential: blocks that come in step with
    // the marks cannot hide, nor be all of them.
    void draw() noexcept {
        random_ += 0x9E3779B97F4A7C15u;  // splitmix64
        std::uint64_t bits = random_;
        bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9u;
        bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBu;
        bits ^= bits >> 31;
        const double uniform = (static_cast<double>(bits >> 11) + 0.5) * 0x1p-53;  // in (0, 1)
        // relaxed: as in due()
        left_.store(static_cast<std::int64_t>(-std::log(uniform) * interval_bytes_),
                    std::memory_order_relaxed);
    }

    [[nodiscard]] bool try_lock() noexcept {
        // acquire: pairs with the release store in unlock()
        return !busy_.exchange(true, std::memory_order_acquire);
    }

    // For who starts and reads, and may wait a little, but not for ever: who has it may be a thread
    // that is not there any more, in a forked child.
    [[nodiscard]] bool lock_within_bounds() noexcept {
        for (int tries = 0; tries < 200; ++tries) {
            if (try_lock()) {
                return true;
            }
            // A holder that was preempted needs its turn of a core, and that takes milliseconds.
            tries < 100 ? std::this_thread::yield()
                        : std::this_thread::sleep_for(std::chrono::milliseconds{1});
        }
        return false;
    }

    void unlock() noexcept {
        // release: pairs with the acquire exchange in try_lock()
        busy_.store(false, std::memory_order_release);
    }

    // All zero at first: a static table lies among what is not in the file, and costs no memory
    // before it is used.
    std::atomic<std::int64_t> left_{0};
    std::atomic<std::size_t> live_{0};
    std::atomic<std::int64_t> end_ns_{0};
    std::atomic<bool> on_{false};
    std::atomic<bool> busy_{false};
    double interval_bytes_ = 0.0;
    std::uint64_t random_ = 0;
    std::array<std::atomic<std::uintptr_t>, kSlots> keys_{};  // 0: free
    std::array<std::uint16_t, kSlots> numbers_{};             // of the sample with that key
    std::array<AllocationSample, kMostSamples> samples_{};
};

}  // namespace memguard
