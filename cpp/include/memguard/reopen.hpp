// For how long a circuit stays open: constant, growing, spread. Pure; randomness is an argument.
#pragma once

#include <algorithm>  // std::clamp
#include <atomic>     // std::atomic
#include <cmath>      // std::pow
#include <cstdint>    // std::uint64_t

#include "memguard/transitions.hpp"

namespace memguard {

// reset_timeout * backoff_factor ** step, spread by `draw` in [0, 1), at most max_reset_timeout: a
// deadline further ahead would be taken for corrupt. `step`: reopenings since the last closing.
[[nodiscard]] inline std::int64_t reopen_wait_ns(const BreakerConfig& c, std::uint32_t step,
                                                 double draw) noexcept {
    const auto longest = static_cast<double>(c.max_reset_timeout_ns);
    // Finite, as infinity times a draw of 0 is no number.
    double wait =
        std::min(static_cast<double>(c.reset_timeout_ns) * std::pow(c.backoff_factor, step), 1e30);
    switch (c.jitter_mode) {
    case Jitter::spread:
        wait *= 1.0 + c.jitter * (2.0 * draw - 1.0);
        break;
    case Jitter::full:
        wait = std::min(wait, longest) * draw;
        break;
    case Jitter::equal:
        wait = std::min(wait, longest) * (0.5 + 0.5 * draw);
        break;
    }
    return static_cast<std::int64_t>(std::clamp(wait, static_cast<double>(kNsPerMs), longest));
}

// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): draws for the jitter, from any thread.
class Draws {
  public:
    explicit Draws(std::uint64_t seed) noexcept : state_(seed) {}

    // Children of a fork would else draw what their parent draws.
    void reseed(std::uint64_t seed) noexcept {
        // relaxed: a random number orders nothing
        state_.fetch_xor(seed, std::memory_order_relaxed);
    }

    // In [0, 1).
    [[nodiscard]] double next() noexcept {
        // relaxed: a random number orders nothing; fetch_add so that no two threads draw the same
        std::uint64_t z = state_.fetch_add(kStep, std::memory_order_relaxed) + kStep;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
        return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
    }

  private:
    static constexpr std::uint64_t kStep = 0x9E3779B97F4A7C15ULL;
    std::atomic<std::uint64_t> state_;
};

}  // namespace memguard
