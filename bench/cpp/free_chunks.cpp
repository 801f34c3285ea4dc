// What does a sample cost while malloc's lists are full of free chunks?
//
//   free_chunks CHUNKS SAMPLES      prints microseconds: of the first sample, the mean of all, and
//                                   the mean of what the control group's figures add
//
// The chunks are small, and every other one of twice as many is free, so that none can be joined to
// its neighbour.
#include <cstdint>  // std::int64_t
#include <cstdio>   // std::printf, std::fprintf
#include <cstdlib>  // std::malloc, std::strtoull
#include <vector>   // std::vector

#include "memguard/clock.hpp"
#include "memguard/probe.hpp"

int main(int argc, char** argv) {
    constexpr std::size_t kChunkBytes = 200;
    const std::uint64_t chunks = argc == 3 ? std::strtoull(argv[1], nullptr, 10) : 0;
    const std::uint64_t samples = argc == 3 ? std::strtoull(argv[2], nullptr, 10) : 0;
    if (samples == 0) {
        std::fprintf(stderr, "usage: free_chunks CHUNKS SAMPLES\n");
        return 2;
    }
    std::vector<void*> kept;
    for (std::uint64_t i = 0; i < 2 * chunks; ++i) {
        kept.push_back(std::malloc(kChunkBytes));
    }
    for (std::uint64_t i = 0; i < kept.size(); i += 2) {
        std::free(kept[i]);
    }
    memguard::NativeProbe probe;
    std::int64_t first_ns = 0;
    std::int64_t total_ns = 0;
    std::int64_t group_ns = 0;
    for (std::uint64_t i = 0; i < samples; ++i) {
        const memguard::MemorySample sample = probe.sample();
        first_ns = i == 0 ? sample.sample_cost_ns : first_ns;
        total_ns += sample.sample_cost_ns;
        group_ns += sample.cgroup_cost_ns;
    }
    const auto mean_us = [&](std::int64_t ns) {
        return static_cast<double>(ns) / 1e3 / static_cast<double>(samples);
    };
    std::printf("%.3f %.3f %.3f\n", static_cast<double>(first_ns) / 1e3, mean_us(total_ns),
                mean_us(group_ns));
    return 0;
}
