// NativeProbe: the probe of this system, where there is one.
//
// Elsewhere (kNativeProbe is false) it is a probe that finds nothing: its samples carry the times
// and no valid field, so that everything above it compiles; Python then asks psutil instead.
#pragma once

#include "memguard/config.hpp"

#if defined(__linux__)

#include "memguard/probe_linux.hpp"

namespace memguard {
using NativeProbe = LinuxProbe;
}

#else

#include <cstdint>   // std::uint64_t
#include <optional>  // std::optional

#include "memguard/clock.hpp"
#include "memguard/sample.hpp"

namespace memguard {

class NativeProbe {
  public:
    [[nodiscard]] MemorySample sample() noexcept {
        MemorySample sample;
        sample.monotonic_ns = monotonic_ns();
        sample.wall_ns = wall_ns();
        return sample;
    }

    [[nodiscard]] std::optional<std::uint64_t> rss_bytes() noexcept { return std::nullopt; }
    [[nodiscard]] std::uint64_t failures() const noexcept { return 0; }
    void close() noexcept {}
};

}  // namespace memguard

#endif
