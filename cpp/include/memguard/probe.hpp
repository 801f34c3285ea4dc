// NativeProbe: the probe of this system, where there is one.
//
// Elsewhere (kNativeProbe is false) it is a probe that finds nothing: its samples carry the times
// and what others count (load, arenas), so that everything above it compiles; Python then asks
// psutil instead.
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
#include <string>    // std::string
#include <utility>   // std::move

#include "memguard/clock.hpp"
#include "memguard/sample.hpp"
#include "memguard/sources.hpp"

namespace memguard {

class NativeProbe {
  public:
    explicit NativeProbe(SampleSources sources = {}, const std::string& = {})
        : sources_(std::move(sources)) {}

    [[nodiscard]] MemorySample sample() noexcept {
        MemorySample sample;
        sample.monotonic_ns = monotonic_ns();
        sample.wall_ns = wall_ns();
        sources_.read_into(sample);
        return sample;
    }

    [[nodiscard]] MemorySample cheap_sample() noexcept { return sample(); }

    [[nodiscard]] std::optional<std::uint64_t> rss_bytes() noexcept { return std::nullopt; }
    [[nodiscard]] std::uint64_t failures() const noexcept { return 0; }
    void retry_malloc() noexcept {}
    void close() noexcept {}

  private:
    const SampleSources sources_;
};

}  // namespace memguard

#endif
