// The whole state of a circuit breaker in one 64-bit word, and its transitions as pure functions.
//
//   63 62 | 61 ................ 22 | 21 ......... 0
//   phase |     payload (40)       | generation (22)
//
//   phase 0 closed     consecutive failures
//   phase 1 open       deadline: milliseconds of the monotonic clock, rounded up (34 years)
//   phase 2 half_open  in_flight 6, successes 5, neutral in a row 6, lease end 23 (ticks of 16 ms)
//   phase 3 by hand    kind (0 forced_open, 1 disabled), end 39 (milliseconds; all ones = none)
//
// Every bit pattern is legal: what no transition writes only opens, closes or delays.
#pragma once

#include <algorithm>  // std::min
#include <cstdint>    // std::uint64_t

namespace memguard {

enum class Phase : std::uint8_t { closed = 0, open = 1, half_open = 2, forced_open, disabled };

class Word {
  public:
    static constexpr unsigned kGenerationBits = 22;
    static constexpr std::uint64_t kGenerationMask = (1ULL << kGenerationBits) - 1;
    static constexpr unsigned kPayloadBits = 40;
    static constexpr std::uint64_t kPayloadMask = (1ULL << kPayloadBits) - 1;
    static constexpr unsigned kLeaseBits = 23;
    static constexpr std::uint64_t kLeaseMask = (1ULL << kLeaseBits) - 1;
    static constexpr std::uint64_t kMaxFailures = (1ULL << 31) - 1;
    static constexpr std::uint64_t kMaxInFlight = 63;
    static constexpr std::uint64_t kMaxSuccesses = 31;
    static constexpr std::uint64_t kMaxNeutral = 63;
    static constexpr std::int64_t kNoEnd = (std::int64_t{1} << 39) - 1;  // of a phase set by hand

    constexpr Word() noexcept = default;
    constexpr explicit Word(std::uint64_t bits) noexcept : bits_(bits) {}

    [[nodiscard]] static constexpr Word closed(std::uint64_t failures,
                                               std::uint64_t generation) noexcept {
        return pack(Phase::closed, std::min(failures, kMaxFailures), generation);
    }
    [[nodiscard]] static constexpr Word open(std::int64_t deadline_ms,
                                             std::uint64_t generation) noexcept {
        return pack(Phase::open, static_cast<std::uint64_t>(deadline_ms), generation);
    }
    [[nodiscard]] static constexpr Word half_open(std::uint64_t in_flight, std::uint64_t successes,
                                                  std::uint64_t neutral, std::uint64_t lease_end,
                                                  std::uint64_t generation) noexcept {
        const std::uint64_t payload =
            std::min(in_flight, kMaxInFlight) | std::min(successes, kMaxSuccesses) << 6 |
            std::min(neutral, kMaxNeutral) << 11 | (lease_end & kLeaseMask) << 17;
        return pack(Phase::half_open, payload, generation);
    }

    [[nodiscard]] static constexpr Word forced_open(std::int64_t end_ms,
                                                    std::uint64_t generation) noexcept {
        return by_hand(0, end_ms, generation);
    }
    [[nodiscard]] static constexpr Word disabled(std::int64_t end_ms,
                                                 std::uint64_t generation) noexcept {
        return by_hand(1, end_ms, generation);
    }

    [[nodiscard]] constexpr std::uint64_t bits() const noexcept { return bits_; }
    [[nodiscard]] constexpr std::uint64_t generation() const noexcept {
        return bits_ & kGenerationMask;
    }
    [[nodiscard]] constexpr std::uint64_t next_generation() const noexcept {
        return (generation() + 1) & kGenerationMask;
    }
    [[nodiscard]] constexpr Phase phase() const noexcept {
        const auto code = bits_ >> (kGenerationBits + kPayloadBits);
        if (code == kByHand) {
            return (payload() & 1) != 0 ? Phase::disabled : Phase::forced_open;
        }
        return static_cast<Phase>(code);
    }
    [[nodiscard]] constexpr std::uint64_t failures() const noexcept { return payload(); }
    [[nodiscard]] constexpr std::int64_t deadline_ms() const noexcept {
        return static_cast<std::int64_t>(payload());
    }
    // When a phase set by hand ends; kNoEnd: never by itself.
    [[nodiscard]] constexpr std::int64_t end_ms() const noexcept {
        return static_cast<std::int64_t>(payload() >> 1);
    }
    [[nodiscard]] constexpr std::uint64_t in_flight() const noexcept { return payload() & 63; }
    [[nodiscard]] constexpr std::uint64_t successes() const noexcept { return payload() >> 6 & 31; }
    [[nodiscard]] constexpr std::uint64_t neutral() const noexcept { return payload() >> 11 & 63; }
    [[nodiscard]] constexpr std::uint64_t lease_end() const noexcept { return payload() >> 17; }

    friend constexpr bool operator==(Word, Word) noexcept = default;

  private:
    static constexpr std::uint64_t kByHand = 3;

    [[nodiscard]] static constexpr Word pack(Phase phase, std::uint64_t payload,
                                             std::uint64_t generation) noexcept {
        return pack(static_cast<std::uint64_t>(phase), payload, generation);
    }
    [[nodiscard]] static constexpr Word pack(std::uint64_t code, std::uint64_t payload,
                                             std::uint64_t generation) noexcept {
        return Word{code << (kGenerationBits + kPayloadBits) |
                    (payload & kPayloadMask) << kGenerationBits | (generation & kGenerationMask)};
    }
    [[nodiscard]] static constexpr Word by_hand(std::uint64_t kind, std::int64_t end_ms,
                                                std::uint64_t generation) noexcept {
        return pack(kByHand, kind | static_cast<std::uint64_t>(std::min(end_ms, kNoEnd)) << 1,
                    generation);
    }
    [[nodiscard]] constexpr std::uint64_t payload() const noexcept {
        return bits_ >> kGenerationBits & kPayloadMask;
    }

    std::uint64_t bits_ = 0;
};

// Closed and no failure on record: the one comparison that a healthy call pays.
[[nodiscard]] constexpr bool healthy(std::uint64_t bits) noexcept {
    return bits >> Word::kGenerationBits == 0;
}

}  // namespace memguard
