// HistoryRing<T> keeps the newest values that were pushed. One thread writes, any number read.
//
// push():     wait-free, never allocates; one thread at a time, the calls ordered by the caller.
// snapshot(): lock-free, any thread; copies, and leaves out what the writer overtook meanwhile.
// pushed(), capacity(): any thread.
//
// The values are stored as 64-bit atomics and not as a T: copying a T while another thread writes
// it is a data race by the standard, however the copy is checked afterwards. There are no fences
// either: ThreadSanitizer does not model them.
#pragma once

#include <algorithm>    // std::min, std::move
#include <array>        // std::array
#include <atomic>       // std::atomic
#include <bit>          // std::bit_cast, std::bit_ceil
#include <cassert>      // assert
#include <cstddef>      // std::size_t
#include <cstdint>      // std::uint64_t
#include <memory>       // std::unique_ptr
#include <type_traits>  // std::is_trivially_copyable_v

#include "memguard/config.hpp"

namespace memguard {

// The values with the numbers [end - count, end); the first value ever pushed has the number 0.
struct RingRange {
    std::uint64_t end = 0;
    std::size_t count = 0;
};

template <class T>
class HistoryRing {
    static_assert(std::is_trivially_copyable_v<T>, "values are copied word by word");
    static_assert(sizeof(T) % sizeof(std::uint64_t) == 0, "a value is a whole number of words");
    static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "the writer must be wait-free");

  public:
    // Keeps the newest `capacity` >= 1 values. The storage is rounded up to a power of two so that
    // an index is a mask; it is taken here, once.
    explicit HistoryRing(std::size_t capacity)
        : capacity_(capacity), mask_(std::bit_ceil(capacity) - 1),
          words_(std::make_unique<std::atomic<std::uint64_t>[]>((mask_ + 1) * kWords)) {
        assert(capacity >= 1);
    }

    HistoryRing(const HistoryRing&) = delete;
    HistoryRing& operator=(const HistoryRing&) = delete;

    void push(const T& value) noexcept {
        // relaxed: only the writer stores head_
        const std::uint64_t head = head_.load(std::memory_order_relaxed);
        // relaxed: made visible by the release stores of the words below; a reader that sees one of
        // those words with its acquire load also sees this
        reserved_.store(head + 1, std::memory_order_relaxed);
        const auto words = std::bit_cast<std::array<std::uint64_t, kWords>>(value);
        std::atomic<std::uint64_t>* slot = &words_[(head & mask_) * kWords];
        for (std::size_t i = 0; i < kWords; ++i) {
            // pairs with: acquire load of the word in copy()
            slot[i].store(words[i], std::memory_order_release);
        }
        // pairs with: acquire loads of head_ in snapshot() and pushed()
        head_.store(head + 1, std::memory_order_release);
    }

    // Copies the newest values, at most `limit` of them and at most the capacity, to `out`, oldest
    // first. What the writer overwrites during the copy is left out: the oldest ones.
    [[nodiscard]] RingRange snapshot(T* out, std::size_t limit) const noexcept {
        // pairs with: release store of head_ in push(): the words of every value before it are
        // there
        const std::uint64_t head = head_.load(std::memory_order_acquire);
        const std::uint64_t count = std::min<std::uint64_t>({head, capacity_, limit});
        const std::uint64_t first = head - count;
        // Two runs without a wrap: no mask in the inner loop.
        const std::uint64_t until_wrap = std::min(count, mask_ + 1 - (first & mask_));
        copy(out, &words_[(first & mask_) * kWords], until_wrap);
        copy(out + until_wrap, &words_[0], count - until_wrap);
        // relaxed: ordered after the acquire loads of copy(). A word of push number n, if one was
        // read, brought reserved_ >= n + 1 with it, so every value that is torn is recognised.
        const std::uint64_t reserved = reserved_.load(std::memory_order_relaxed);
        const std::uint64_t oldest_intact = reserved > mask_ + 1 ? reserved - (mask_ + 1) : 0;
        if (oldest_intact <= first) {
            return {head, static_cast<std::size_t>(count)};
        }
        const std::uint64_t lost = std::min(count, oldest_intact - first);
        std::move(out + lost, out + count, out);
        return {head, static_cast<std::size_t>(count - lost)};
    }

    // How many values were ever pushed.
    [[nodiscard]] std::uint64_t pushed() const noexcept {
        // pairs with: release store of head_ in push()
        return head_.load(std::memory_order_acquire);
    }

    [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }

  private:
    static constexpr std::size_t kWords = sizeof(T) / sizeof(std::uint64_t);

    static void copy(T* out, const std::atomic<std::uint64_t>* words,
                     std::uint64_t count) noexcept {
        // Compilers neither unroll nor vectorise atomic loads, and a loop turn for each word would
        // take longer than the word: measured 1.2 us for 4096 words, unrolled 0.7 us.
#if defined(__GNUC__)
#pragma GCC unroll 8
#endif
        for (std::uint64_t i = 0; i < count; ++i) {
            std::array<std::uint64_t, kWords> value;
            for (std::size_t word = 0; word < kWords; ++word) {
                // pairs with: release store of the word in push()
                value[word] = words[i * kWords + word].load(std::memory_order_acquire);
            }
            out[i] = std::bit_cast<T>(value);
        }
    }

    const std::uint64_t capacity_;
    const std::uint64_t mask_;
    const std::unique_ptr<std::atomic<std::uint64_t>[]> words_;
    // Both are written by every push and by nobody else: one line for them, and nothing beside
    // them.
    alignas(kCacheLineBytes) std::atomic<std::uint64_t> reserved_{0};  // pushes begun
    std::atomic<std::uint64_t> head_{0};                               // pushes done
};

}  // namespace memguard
