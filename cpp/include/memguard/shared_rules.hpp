// SharedRules: the numbers among a breaker's rules, published to all processes in one step.
//
// Writers are serialised by who owns the file; readers never wait. What is read is checked as if a
// stranger had written it.
#pragma once

#include <cmath>        // std::isfinite
#include <cstddef>      // std::size_t
#include <cstdint>      // std::uint64_t
#include <limits>       // std::numeric_limits
#include <optional>     // std::optional
#include <type_traits>  // std::remove_reference_t

#include "memguard/breaker_config.hpp"
#include "memguard/breaker_word.hpp"
#include "memguard/config.hpp"
#include "memguard/published_words.hpp"
#include "memguard/window.hpp"
#include "memguard/words.hpp"

namespace memguard {

inline constexpr std::size_t kRuleWords = 24;
using RuleWords = PublishedWords<kRuleWords>::Record;

// The rules that processes share, but for those that go with a function of the user's, which each
// process has of its own: has_active_probe, max_in_flight and count_calls.
struct SharedNumbers {
    BreakerConfig config;
    WindowConfig rates;

    [[nodiscard]] constexpr SharedNumbers with_own_of(const SharedNumbers& own) const noexcept {
        SharedNumbers numbers = *this;
        numbers.config.has_active_probe = own.config.has_active_probe;
        numbers.config.max_in_flight = own.config.max_in_flight;
        numbers.rates.count_calls = own.rates.count_calls;
        return numbers;
    }
    [[nodiscard]] constexpr bool has_same_own(const SharedNumbers& other) const noexcept {
        return config.has_active_probe == other.config.has_active_probe &&
               config.max_in_flight == other.config.max_in_flight &&
               rates.count_calls == other.rates.count_calls;
    }
};

// Numbers of bad calls that are kept in shared memory, of each kind.
inline constexpr std::uint64_t kSharedBadCalls = 256;

namespace detail {

// Takes each number to or from its word: the order here is the layout.
template <class Words, class Numbers, class Visit>
constexpr void each_rule(Words& words, Numbers& n, Visit visit) {
    std::size_t i = 0;
    visit(words[i++], n.config.failure_threshold);
    visit(words[i++], n.config.reset_timeout_ns);
    visit(words[i++], n.config.max_reset_timeout_ns);
    visit(words[i++], n.config.probe_timeout_ns);
    visit(words[i++], n.config.success_threshold);
    visit(words[i++], n.config.half_open_max);
    visit(words[i++], n.config.lost_probe_fails);
    visit(words[i++], n.config.jitter_mode);
    visit(words[i++], n.config.jitter);
    visit(words[i++], n.config.backoff_factor);
    visit(words[i++], n.config.lump_interval_ns);
    visit(words[i++], n.config.enforce);
    visit(words[i++], n.config.enforce_by_auto);
    visit(words[i++], n.config.monitor_interval_ns);
    visit(words[i++], n.rates.failure_rate);
    visit(words[i++], n.rates.slow_rate);
    visit(words[i++], n.rates.slow_call_ns);
    visit(words[i++], n.rates.count_window);
    visit(words[i++], n.rates.time_window_ns);
    visit(words[i++], n.rates.minimum_calls);
}

}  // namespace detail

[[nodiscard]] constexpr RuleWords encode(const SharedNumbers& numbers) noexcept {
    RuleWords words{};
    detail::each_rule(words, numbers, [](std::uint64_t& word, const auto& value) {
        word = detail::to_word(value);
    });
    return words;
}

// What Python's checks allow; nothing else has been written by one of ours.
[[nodiscard]] constexpr bool are_allowed(const SharedNumbers& n) noexcept {
    using detail::is_within;
    constexpr std::int64_t kLongest = 30LL * 24 * 3600 * kNsPerSecond;
    const BreakerConfig& c = n.config;
    const WindowConfig& r = n.rates;
    return (c.failure_threshold == kNoThreshold ||
            is_within(c.failure_threshold, 1, (std::int64_t{1} << 31) - 1)) &&
           is_within(c.reset_timeout_ns, kNsPerMs, kLongest) &&
           is_within(c.max_reset_timeout_ns, c.reset_timeout_ns, kLongest) &&
           is_within(c.probe_timeout_ns, 16 * kNsPerMs, 64'800 * kNsPerSecond) &&
           is_within(c.success_threshold, 1U, static_cast<std::uint32_t>(Word::kMaxSuccesses)) &&
           is_within(c.half_open_max, 1U, static_cast<std::uint32_t>(Word::kMaxInFlight)) &&
           is_within(static_cast<int>(c.jitter_mode), 0, 2) && is_within(c.jitter, 0.0, 1.0) &&
           is_within(c.backoff_factor, 1.0, std::numeric_limits<double>::max()) &&
           is_within(c.lump_interval_ns, 0, kLongest) && is_within(c.enforce, 0.0, 1.0) &&
           is_within(c.enforce_by_auto, 0.0, 1.0) &&
           is_within(c.monitor_interval_ns, kNsPerMs, 3600 * kNsPerSecond) &&
           is_within(r.failure_rate, 0.0, 1.0) && is_within(r.slow_rate, 0.0, 1.0) &&
           is_within(r.slow_call_ns, 0, kLongest) && is_within(r.count_window, 1U, 10'000U) &&
           is_within(r.time_window_ns, 0, 86'400 * kNsPerSecond) &&
           is_within(r.minimum_calls, 1U, r.count_window);
}

// None if a number is not allowed.
[[nodiscard]] constexpr std::optional<SharedNumbers> decode(const RuleWords& words) noexcept {
    SharedNumbers numbers;
    bool fits = true;
    detail::each_rule(words, numbers, [&](std::uint64_t word, auto& value) {
        value = detail::from_word<std::remove_reference_t<decltype(value)>>(word);
        fits = fits && detail::to_word(value) == word;
    });
    if (!fits || !are_allowed(numbers)) {
        return std::nullopt;
    }
    return numbers;
}

class alignas(kCacheLineBytes) SharedRules {
  public:
    // Grows with each publication; 0: none yet.
    [[nodiscard]] std::uint64_t version() const noexcept { return words_.version(); }

    struct Published {
        std::uint64_t version = 0;
        std::optional<SharedNumbers> numbers;  // none: nothing published, or nothing legal
    };

    [[nodiscard]] Published read() const noexcept {
        const auto found = words_.read();
        return found ? Published{found->version, decode(found->words)} : Published{};
    }

    // One process and thread at a time: whoever holds the file's lock. Returns the new version.
    std::uint64_t publish(const SharedNumbers& numbers) noexcept {
        return words_.publish(encode(numbers));
    }

  private:
    PublishedWords<kRuleWords> words_;
};

}  // namespace memguard
