// EventRing keeps the newest transitions of all breakers until somebody reads them. It may lie in
// memory that processes share: all zeros is an empty ring, and any content is safe to read.
//
// push(): lock-free, any thread. A slot that is still being written by somebody who is a whole turn
//         behind, or was killed, is taken over: his event is lost, and is never told half.
// read(): any thread; in the order of the pushes; leaves out what was overtaken.
// pushed(), capacity(): any thread.
#pragma once

#include <algorithm>  // std::max
#include <array>      // std::array
#include <atomic>     // std::atomic
#include <bit>        // std::bit_cast, std::has_single_bit
#include <cstddef>    // std::size_t
#include <cstdint>    // std::uint64_t
#include <tuple>      // std::tuple_size_v

#include "memguard/transitions.hpp"

namespace memguard {

// One transition of one breaker. Made of 64-bit words alone, without padding.
struct BreakerEvent {
    std::uint64_t breaker_id = 0;
    std::uint64_t generation = 0;  // after the transition, widened to 64 bits
    std::int64_t at_ns = 0;        // of the breaker's clock
    std::int64_t wall_ns = 0;      // since 1970-01-01 UTC
    std::uint64_t what = 0;        // from, to, reason, is_shadow: a byte each; pid: the upper half

    // `is_shadow`: the rules were not enforced.
    [[nodiscard]] static constexpr std::uint64_t pack(Phase from, Phase to, Event reason,
                                                      bool is_shadow = false,
                                                      std::uint32_t pid = 0) noexcept {
        return static_cast<std::uint64_t>(from) | static_cast<std::uint64_t>(to) << 8 |
               static_cast<std::uint64_t>(reason) << 16 |
               static_cast<std::uint64_t>(is_shadow) << 24 | static_cast<std::uint64_t>(pid) << 32;
    }
    [[nodiscard]] constexpr std::uint32_t pid() const noexcept {
        return static_cast<std::uint32_t>(what >> 32);
    }
    [[nodiscard]] constexpr Phase from() const noexcept { return static_cast<Phase>(what & 255); }
    [[nodiscard]] constexpr Phase to() const noexcept {
        return static_cast<Phase>(what >> 8 & 255);
    }
    [[nodiscard]] constexpr bool is_shadow() const noexcept { return (what >> 24 & 1) != 0; }
    [[nodiscard]] constexpr Event reason() const noexcept {
        return static_cast<Event>(what >> 16 & 255);
    }
};

template <std::size_t N>
class EventRing {
    static_assert(std::has_single_bit(N), "N is a power of two so that the index is a mask");
    static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

  public:
    static constexpr std::size_t capacity() noexcept { return N; }

    // False if the event was given up: others are a whole turn ahead already.
    bool push(const BreakerEvent& event) noexcept {
        // relaxed: the position is a number; what is written under it is published by `sequence`
        const std::uint64_t position = head_.fetch_add(1, std::memory_order_relaxed);
        Slot& slot = slots_[position & (N - 1)];
        const std::uint64_t writing = written(position) - 1;
        // relaxed: only compared; the compare_exchange below decides
        std::uint64_t seen = slot.sequence.load(std::memory_order_relaxed);
        do {
            if (seen >= writing) {
                return false;
            }
            // acquire: the words below may not be stored before the slot is ours; pairs with the
            // release half of the compare_exchange at the end of an earlier push
        } while (!slot.sequence.compare_exchange_weak(seen, writing, std::memory_order_acquire,
                                                      std::memory_order_relaxed));
        const auto words = std::bit_cast<Words>(event);
        for (std::size_t i = 0; i < words.size(); ++i) {
            // pairs with: acquire load of the word in read()
            slot.words[i].store(words[i], std::memory_order_release);
        }
        // pairs with: acquire load of the check in read()
        slot.check.store(check_of(words, written(position)), std::memory_order_release);
        std::uint64_t mine = writing;
        // pairs with: acquire load of the sequence in read()
        return slot.sequence.compare_exchange_strong(
            mine, written(position), std::memory_order_release, std::memory_order_relaxed);
    }

    struct Read {
        std::size_t count = 0;    // events copied
        std::uint64_t next = 0;   // where to go on
        std::uint64_t lost = 0;   // overtaken, or given up
        bool unfinished = false;  // stopped at one that is being written now, or was given up
    };

    // Copies at most `limit` events from position `from` on. One that is not finished stops the
    // reading; `skip` leaves it out instead: for a reader that has met it before.
    [[nodiscard]] Read read(std::uint64_t from, BreakerEvent* out, std::size_t limit,
                            bool skip) const noexcept {
        // acquire: pairs with nothing but keeps the reads below behind it, so that what is read is
        // at least as new as the position
        const std::uint64_t head = head_.load(std::memory_order_acquire);
        const std::uint64_t oldest = head > N ? head - N : 0;
        Read done;
        done.next = std::max(from, oldest);
        done.lost = done.next - from;
        for (; done.next < head && done.count < limit; ++done.next) {
            const Slot& slot = slots_[done.next & (N - 1)];
            // pairs with: release store of the sequence in push()
            const std::uint64_t before = slot.sequence.load(std::memory_order_acquire);
            if (before < written(done.next) && !skip) {
                done.unfinished = true;
                return done;
            }
            Words words;
            for (std::size_t i = 0; i < words.size(); ++i) {
                // pairs with: release store of the word in push()
                words[i] = slot.words[i].load(std::memory_order_acquire);
            }
            // pairs with: release store of the check in push()
            const std::uint64_t check = slot.check.load(std::memory_order_acquire);
            // relaxed: ordered after the acquire loads above; a word of a later push brings that
            // push's sequence with it, and one of an earlier push does not fit the check
            const std::uint64_t after = slot.sequence.load(std::memory_order_relaxed);
            if (before != written(done.next) || after != before ||
                check != check_of(words, before)) {
                ++done.lost;
                continue;
            }
            out[done.count++] = std::bit_cast<BreakerEvent>(words);
        }
        return done;
    }

    // How many were ever pushed.
    [[nodiscard]] std::uint64_t pushed() const noexcept {
        // relaxed: a count
        return head_.load(std::memory_order_relaxed);
    }

  private:
    using Words = std::array<std::uint64_t, sizeof(BreakerEvent) / sizeof(std::uint64_t)>;

    struct alignas(64) Slot {
        std::atomic<std::uint64_t> sequence{0};
        std::array<std::atomic<std::uint64_t>, std::tuple_size_v<Words>> words{};
        std::atomic<std::uint64_t> check{0};
    };

    // Of an event and its place. The finaliser of SplitMix64, word by word.
    [[nodiscard]] static constexpr std::uint64_t check_of(const Words& words,
                                                          std::uint64_t sequence) noexcept {
        std::uint64_t check = sequence;
        for (const std::uint64_t word : words) {
            check = (check ^ word) * 0xBF58476D1CE4E5B9ULL;
            check ^= check >> 29;
        }
        return check;
    }

    // The sequence of a slot that holds the event of this position; one less while it is written.
    [[nodiscard]] static constexpr std::uint64_t written(std::uint64_t position) noexcept {
        return 2 * position + 2;
    }

    std::atomic<std::uint64_t> head_{0};
    std::array<Slot, N> slots_{};
};

}  // namespace memguard
