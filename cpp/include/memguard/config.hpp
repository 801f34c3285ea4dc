// Constants that every header of the core shares.
#pragma once

#include <cstddef>  // std::size_t

namespace memguard {

// Two lines of 64 bytes: x86 prefetches them in pairs, and Apple's cores have lines of 128. Not
// std::hardware_destructive_interference_size: it may differ between two builds of one layout.
inline constexpr std::size_t kCacheLineBytes = 128;

#if defined(__linux__)
inline constexpr bool kNativeProbe = true;
#else
inline constexpr bool kNativeProbe = false;
#endif

}  // namespace memguard
