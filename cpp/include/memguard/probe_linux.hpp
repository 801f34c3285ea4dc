// LinuxProbe: one look at the memory of this process and of its control group.
//
// The cheap set (what the process has, malloc, CPython's arenas, usage of the group, load) costs
// about 3 us in the mean, whatever the size of the process; the rest of the group's figures come on
// top, and are timed apart. Never throws after construction, and allocates then only when the
// process turns up in another group. What cannot be read is marked as not valid and counted. One
// thread at a time; it may be used after a fork, in the child as in the parent. It never opens
// smaps or smaps_rollup: these hold the lock of the address space for as long as they count.
#pragma once

#include <atomic>    // std::atomic
#include <cstdint>   // std::uint64_t
#include <optional>  // std::optional
#include <string>    // std::string
#include <utility>   // std::move

#include "memguard/allocator_linux.hpp"
#include "memguard/cgroup_linux.hpp"
#include "memguard/clock.hpp"
#include "memguard/process_memory_linux.hpp"
#include "memguard/sample.hpp"
#include "memguard/sources.hpp"

namespace memguard {

class LinuxProbe {
  public:
    // Another `root` before /proc and the mounts, and another allocator, are for tests.
    explicit LinuxProbe(SampleSources sources = {}, const std::string& root = {},
                        const Allocator& allocator = Allocator::of_this_process())
        : sources_(std::move(sources)), memory_(root), malloc_(allocator), cgroup_(root) {}

    // Everything.
    [[nodiscard]] MemorySample sample() noexcept {
        MemorySample sample = cheap_sample();
        const std::int64_t start_ns = monotonic_ns();
        cgroup_.read_rest(sample);
        sample.cgroup_cost_ns = monotonic_ns() - start_ns;
        return sample;
    }

    // The cheap set alone.
    [[nodiscard]] MemorySample cheap_sample() noexcept {
        MemorySample sample;
        sample.monotonic_ns = monotonic_ns();
        sample.wall_ns = wall_ns();
        memory_.read_into(sample);
        malloc_.read_into(sample);
        sources_.read_into(sample);
        if (!cgroup_.read_usage(sample)) {
            lost_groups_.fetch_add(1, std::memory_order_relaxed);  // relaxed: as in failures()
        }
        sample.sample_cost_ns = monotonic_ns() - sample.monotonic_ns;
        return sample;
    }

    // The resident set alone: about 1 us.
    [[nodiscard]] std::optional<std::uint64_t> rss_bytes() noexcept { return memory_.rss_bytes(); }

    // How many times a file could not be read, although it was opened anew. Any thread.
    [[nodiscard]] std::uint64_t failures() const noexcept {
        // relaxed: a count for people; nothing is decided from it
        return memory_.failures() + lost_groups_.load(std::memory_order_relaxed);
    }

    // malloc's figures may be cheap again: read them, if they were given up as dear. Any thread.
    void retry_malloc() noexcept { malloc_.retry(); }

    // Gives the descriptors back; the next sample opens them again.
    void close() noexcept {
        memory_.close();
        cgroup_.close();
    }

  private:
    const SampleSources sources_;
    ProcessMemory memory_;
    MallocReader malloc_;
    CgroupReader cgroup_;
    std::atomic<std::uint64_t> lost_groups_{0};
};

}  // namespace memguard
