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

// What a ring keeps beside its values. Both are written by every push and by nobody else: one line
// for them, and nothing beside them.
struct alignas(kCacheLineBytes) RingMarks {
    std::atomic<std::uint64_t> reserved{0};  // pushes begun
    std::atomic<std::uint64_t> head{0};      // pushes done
};

template <class T>
class HistoryRing {
    static_assert(std::is_trivially_copyable_v<T>, "values are copied word by word");
    static_assert(sizeof(T) % sizeof(std::uint64_t) == 0, "a value is a whole number of words");
    static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "the writer must be wait-free");

  public:
    static constexpr std::size_t kWords = sizeof(T) / sizeof(std::uint64_t);

    // Keeps the newest `capacity` >= 1 values. The storage is rounded up to a power of two so that
    // an index is a mask; it is taken here, once.
    explicit HistoryRing(std::size_t capacity)
        : HistoryRing(capacity, std::make_unique<Own>(std::bit_ceil(capacity) * kWords)) {
        assert(capacity >= 1);
    }

    // In memory that outlives it, where a predecessor's values may be: `words` are capacity *
    // kWords, the capacity a power of two.
    HistoryRing(std::size_t capacity, RingMarks& marks, std::atomic<std::uint64_t>* words) noexcept
        : capacity_(capacity), mask_(std::bit_ceil(capacity) - 1), marks_(&marks), words_(words) {}

    HistoryRing(const HistoryRing&) = delete;
    HistoryRing& operator=(const HistoryRing&) = delete;

    void push(const T& value) noexcept {
        // relaxed: only the writer stores it
        const std::uint64_t head = marks_->head.load(std::memory_order_relaxed);
        // relaxed: made visible by the release stores of the words below; a reader that sees one of
        // those words with its acquire load also sees this
        marks_->reserved.store(head + 1, std::memory_order_relaxed);
        const auto words = std::bit_cast<std::array<std::uint64_t, kWords>>(value);
        std::atomic<std::uint64_t>* slot = &words_[(head & mask_) * kWords];
        for (std::size_t i = 0; i < kWords; ++i) {
            // pairs with: acquire load of the word in copy()
            slot[i].store(words[i], std::memory_order_release);
        }
        // pairs with: acquire loads of the head in snapshot() and pushed()
        marks_->head.store(head + 1, std::memory_order_release);
    }

    // Copies the newest values, at most `limit` of them and at most the capacity, to `out`, oldest
    // first. What the writer overwrites during the copy is left out: the oldest ones.
    [[nodiscard]] RingRange snapshot(T* out, std::size_t limit) const noexcept {
        // pairs with: release store of the head in push(): the words of every value before it are
        // there
        const std::uint64_t head = marks_->head.load(std::memory_order_acquire);
        const std::uint64_t count = std::min<std::uint64_t>({head, capacity_, limit});
        const std::uint64_t first = head - count;
        // Two runs without a wrap: no mask in the inner loop.
        const std::uint64_t until_wrap = std::min(count, mask_ + 1 - (first & mask_));
        copy(out, &words_[(first & mask_) * kWords], until_wrap);
        copy(out + until_wrap, &words_[0], count - until_wrap);
        // relaxed: ordered after the acquire loads of copy(). A word of push number n, if one was
        // read, brought reserved >= n + 1 with it, so every value that is torn is recognised.
        const std::uint64_t reserved = marks_->reserved.load(std::memory_order_relaxed);
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
        // pairs with: release store of the head in push()
        return marks_->head.load(std::memory_order_acquire);
    }

    [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }

  private:
    struct Own {
        explicit Own(std::size_t count)
            : words(std::make_unique<std::atomic<std::uint64_t>[]>(count)) {}

        RingMarks marks;
        const std::unique_ptr<std::atomic<std::uint64_t>[]> words;
    };

    HistoryRing(std::size_t capacity, std::unique_ptr<Own> own)
        : HistoryRing(capacity, own->marks, own->words.get()) {
        own_ = std::move(own);
    }

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
    std::unique_ptr<Own> own_;  // null where the memory is somebody else's
    RingMarks* const marks_;
    std::atomic<std::uint64_t>* const words_;
};

}  // namespace memguard
