// Numbers as the words of shared memory, and back: what does not survive the way there and back was
// not written by one of ours.
#pragma once

#include <bit>          // std::bit_cast
#include <cstdint>      // std::uint64_t
#include <type_traits>  // std::is_same_v

namespace memguard::detail {

template <class T>
constexpr std::uint64_t to_word(T value) noexcept {
    if constexpr (std::is_same_v<T, double>) {
        return std::bit_cast<std::uint64_t>(value);
    } else {
        return static_cast<std::uint64_t>(value);
    }
}

template <class T>
constexpr T from_word(std::uint64_t word) noexcept {
    if constexpr (std::is_same_v<T, double>) {
        return std::bit_cast<double>(word);
    } else {
        return static_cast<T>(word);
    }
}

constexpr bool is_within(auto value, auto least, auto most) noexcept {
    return value >= least && value <= most;  // false for a NaN
}

}  // namespace memguard::detail
