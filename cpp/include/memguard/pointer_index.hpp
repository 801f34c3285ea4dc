// PointerIndex<N>: a small number for each of at most N distinct pointers, in order of arrival.
//
// No allocation, no removal but of all. One thread at a time; zero-initialised memory is an empty
// one, so that a static one costs nothing until it is used.
#pragma once

#include <array>    // std::array
#include <bit>      // std::has_single_bit
#include <cstddef>  // std::size_t
#include <cstdint>  // std::uint16_t, std::uintptr_t

namespace memguard {

// Spreads the addresses of blocks, whose lowest bits are alike.
[[nodiscard]] constexpr std::size_t hash_of_address(std::uintptr_t address) noexcept {
    // Fibonacci hashing: 2^64 divided by the golden ratio; the upper bits are the well mixed ones.
    return static_cast<std::size_t>((std::uint64_t{address} >> 4) * 0x9E3779B97F4A7C15u >> 32);
}

template <std::size_t N>
class PointerIndex {
    static_assert(std::has_single_bit(N) && N <= 32768, "a mask, and a number of 16 bits");

  public:
    static constexpr std::uint32_t kFull = 0xFFFFFFFF;

    struct Found {
        std::uint32_t number;  // kFull: it is not there and there is no room
        bool is_new;
    };

    [[nodiscard]] Found find_or_add(const void* pointer) noexcept {
        for (std::size_t slot = home_of(pointer);; slot = (slot + 1) & kMask) {
            const std::uint16_t kept = slots_[slot];
            if (kept == 0) {
                if (size_ == N) {
                    return {kFull, false};
                }
                pointers_[size_] = pointer;
                slots_[slot] = static_cast<std::uint16_t>(size_ + 1);
                return {size_++, true};
            }
            if (pointers_[kept - 1u] == pointer) {
                return {kept - 1u, false};
            }
        }
    }

    [[nodiscard]] std::uint32_t size() const noexcept { return size_; }
    [[nodiscard]] const void* operator[](std::uint32_t number) const noexcept {
        return pointers_[number];
    }

    void clear() noexcept {
        slots_.fill(0);
        size_ = 0;
    }

  private:
    static constexpr std::size_t kSlots = 2 * N;  // half of them stay free, so a search ends soon
    static constexpr std::size_t kMask = kSlots - 1;

    [[nodiscard]] static std::size_t home_of(const void* pointer) noexcept {
        return hash_of_address(reinterpret_cast<std::uintptr_t>(pointer)) & kMask;
    }

    std::array<std::uint16_t, kSlots> slots_{};  // number + 1; 0: free
    std::array<const void*, N> pointers_{};
    std::uint32_t size_ = 0;
};

}  // namespace memguard
