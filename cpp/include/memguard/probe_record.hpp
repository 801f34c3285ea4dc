// ProbeRecord: how many probes of which round a process holds, in one word of its row, so that
// those of a process that was killed can be given back at once.
//
// Order of a holder: taking a probe is the compare-and-swap of the breaker's word, then the record;
// giving it back is the record, then the word. So a kill between the two leaves a probe for its
// lease, and never one that is given back twice.
#pragma once

#include <atomic>   // std::atomic
#include <cstdint>  // std::uint64_t

namespace memguard {

// `generation`: of the breaker's word. `claim`: the number of the ownership of the slot, so that a
// successor does not take its predecessor's probes for its own.
class ProbeRecord {
  public:
    static constexpr unsigned kCountBits = 6;
    static constexpr unsigned kGenerationBits = 22;
    static constexpr unsigned kClaimBits = 36;

    constexpr explicit ProbeRecord(std::uint64_t bits = 0) noexcept : bits_(bits) {}
    constexpr ProbeRecord(std::uint64_t claim, std::uint64_t generation,
                          std::uint64_t count) noexcept
        : bits_((claim & mask(kClaimBits)) << (kCountBits + kGenerationBits) |
                (generation & mask(kGenerationBits)) << kCountBits | (count & mask(kCountBits))) {}

    [[nodiscard]] constexpr std::uint64_t bits() const noexcept { return bits_; }
    [[nodiscard]] constexpr std::uint64_t count() const noexcept {
        return bits_ & mask(kCountBits);
    }
    [[nodiscard]] constexpr std::uint64_t generation() const noexcept {
        return bits_ >> kCountBits & mask(kGenerationBits);
    }
    [[nodiscard]] constexpr bool is_of(std::uint64_t claim) const noexcept {
        return bits_ >> (kCountBits + kGenerationBits) == (claim & mask(kClaimBits));
    }
    [[nodiscard]] constexpr bool is_same_round(ProbeRecord other) const noexcept {
        return bits_ >> kCountBits == other.bits_ >> kCountBits;
    }

  private:
    [[nodiscard]] static constexpr std::uint64_t mask(unsigned bits) noexcept {
        return (std::uint64_t{1} << bits) - 1;
    }

    std::uint64_t bits_;
};

// The owner of the row has taken a probe of this generation: what was noted of an older one is
// void, as its round is.
inline void note_probe(std::atomic<std::uint64_t>& record, std::uint64_t claim,
                       std::uint64_t generation) noexcept {
    // relaxed: only compared
    std::uint64_t bits = record.load(std::memory_order_relaxed);
    ProbeRecord next;
    do {
        const ProbeRecord found{bits};
        const ProbeRecord first{claim, generation, 1};
        const bool goes_on = found.is_same_round(first) && found.count() < 63;
        next = goes_on ? ProbeRecord{claim, generation, found.count() + 1} : first;
        // release: pairs with the acquire load in orphaned probes' taker, who then reads the word
    } while (!record.compare_exchange_weak(bits, next.bits(), std::memory_order_release,
                                           std::memory_order_relaxed));
}

// The owner of the row gives one back. False if the record, and so the probe, is not there any
// more: somebody took this process for dead, or a successor's record stands there.
inline bool strike_probe(std::atomic<std::uint64_t>& record, std::uint64_t claim,
                         std::uint64_t generation) noexcept {
    // relaxed: only compared
    std::uint64_t bits = record.load(std::memory_order_relaxed);
    for (;;) {
        const ProbeRecord found{bits};
        if (!found.is_same_round(ProbeRecord{claim, generation, 1}) || found.count() == 0) {
            return false;
        }
        const ProbeRecord next{claim, generation, found.count() - 1};
        // relaxed: the word's compare-and-swap, which follows, publishes it
        if (record.compare_exchange_weak(bits, next.bits(), std::memory_order_relaxed)) {
            return true;
        }
    }
}

// How many probes of this generation were held by somebody who is gone, taken from his record; one
// caller gets them. 0 if there are none.
inline std::uint64_t take_orphans(std::atomic<std::uint64_t>& record, ProbeRecord seen,
                                  std::uint64_t generation) noexcept {
    if (seen.count() == 0 || seen.generation() != generation) {
        return 0;
    }
    std::uint64_t bits = seen.bits();
    // relaxed: one winner; the word's compare-and-swap, which follows, orders the rest
    return record.compare_exchange_strong(bits, 0, std::memory_order_relaxed) ? seen.count() : 0;
}

}  // namespace memguard
