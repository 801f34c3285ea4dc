// SharedLearnt: what a process has learnt of its memory, kept in its slot for its successor.
//
// publish(): the owner of the slot, one thread at a time. read(): anybody. What is read is checked
// as if a stranger had written it: a number that is not finite or out of its range, or an unknown
// code, makes all of it none.
#pragma once

#include <bit>          // std::bit_cast
#include <cstdint>      // std::uint64_t
#include <limits>       // std::numeric_limits
#include <optional>     // std::optional
#include <type_traits>  // std::remove_reference_t

#include "memguard/config.hpp"
#include "memguard/published_words.hpp"
#include "memguard/words.hpp"

namespace memguard {

// The state of a verdict; the order is that of kLearntStates and is stored.
enum class LearntState : std::uint64_t { learning, steady, suspect, alert };
// What grew; the order is that of kLearntCauses and is stored.
enum class LearntCause : std::uint64_t {
    unknown,
    python_objects,
    native_heap,
    fragmentation,
    mmap,
    shared_memory,
};

inline constexpr const char* kLearntStates[] = {"learning", "steady", "suspect", "alert"};
inline constexpr const char* kLearntCauses[] = {
    "unknown", "python-objects", "native-heap", "fragmentation", "mmap", "shared-memory",
};

// Numbers that may be none are so where they are not known.
struct Learnt {
    LearntState state = LearntState::learning;
    LearntCause cause = LearntCause::unknown;
    std::optional<double> rate_mb_per_hour;
    std::optional<double> mb_per_1000_requests;
    std::optional<double> mb_per_load;
    std::optional<double> baseline_mb;
    std::optional<double> retained_mb;
    std::optional<double> warm_up_minutes;
    std::optional<std::uint64_t> requests;
    std::int64_t wall_ns = 0;      // when it was written
    std::uint64_t generation = 0;  // which owner of the slot wrote it: its claim, from 1
    std::uint64_t pid = 0;         // that owner's process number
};

inline constexpr std::size_t kLearntWords = 16;
using LearntWords = PublishedWords<kLearntWords>::Record;

namespace detail {

// Takes each number to or from its word: the order here is the layout.
template <class Words, class Values, class Visit>
constexpr void each_learnt(Words& words, Values& v, Visit visit) {
    std::size_t i = 0;
    visit(words[i++], v.state);
    visit(words[i++], v.cause);
    visit(words[i++], v.rate_mb_per_hour);
    visit(words[i++], v.mb_per_1000_requests);
    visit(words[i++], v.mb_per_load);
    visit(words[i++], v.baseline_mb);
    visit(words[i++], v.retained_mb);
    visit(words[i++], v.warm_up_minutes);
    visit(words[i++], v.requests);
    visit(words[i++], v.wall_ns);
    visit(words[i++], v.generation);
    visit(words[i++], v.pid);
}

// All bits: no count is so large, and as a double it is a NaN, which is no amount.
inline constexpr std::uint64_t kUnknownWord = ~std::uint64_t{0};

template <class T>
constexpr std::uint64_t to_word(const std::optional<T>& value) noexcept {
    return value ? to_word(*value) : kUnknownWord;
}

constexpr void take_word(std::uint64_t word, auto& value) noexcept {
    value = from_word<std::remove_reference_t<decltype(value)>>(word);
}

template <class T>
constexpr void take_word(std::uint64_t word, std::optional<T>& value) noexcept {
    value = word == kUnknownWord ? std::nullopt : std::optional{from_word<T>(word)};
}

}  // namespace detail

[[nodiscard]] constexpr LearntWords encode(const Learnt& learnt) noexcept {
    LearntWords words{};
    detail::each_learnt(words, learnt, [](std::uint64_t& word, const auto& value) {
        word = detail::to_word(value);
    });
    return words;
}

[[nodiscard]] constexpr bool is_allowed(const Learnt& v) noexcept {
    using detail::is_within;
    // 2**43 MB are 2**63 bytes: no amount of memory is larger, and no rate is faster by the hour.
    constexpr double kMostMb = 8'796'093'022'208.0;
    constexpr std::uint64_t kMostCount = (std::uint64_t{1} << 63) - 1;
    const auto is_amount = [](const std::optional<double>& value) {
        return !value || is_within(*value, 0.0, kMostMb);
    };
    return v.state <= LearntState::alert && v.cause <= LearntCause::shared_memory &&
           is_amount(v.rate_mb_per_hour) && is_amount(v.mb_per_1000_requests) &&
           is_amount(v.mb_per_load) && is_amount(v.baseline_mb) && is_amount(v.retained_mb) &&
           is_amount(v.warm_up_minutes) && (!v.requests || *v.requests <= kMostCount) &&
           v.wall_ns >= 0 && is_within(v.generation, std::uint64_t{1}, kMostCount) &&
           v.pid <= kMostCount;
}

// None if a number is not allowed.
[[nodiscard]] constexpr std::optional<Learnt> decode_learnt(const LearntWords& words) noexcept {
    Learnt learnt;
    detail::each_learnt(words, learnt,
                        [](std::uint64_t word, auto& value) { detail::take_word(word, value); });
    return is_allowed(learnt) ? std::optional{learnt} : std::nullopt;
}

class alignas(kCacheLineBytes) SharedLearnt {
  public:
    // None: nothing was published, or nothing legal.
    [[nodiscard]] std::optional<Learnt> read() const noexcept {
        const auto found = words_.read();
        return found ? decode_learnt(found->words) : std::nullopt;
    }

    void publish(const Learnt& learnt) noexcept { words_.publish(encode(learnt)); }

  private:
    PublishedWords<kLearntWords> words_;
};

}  // namespace memguard
