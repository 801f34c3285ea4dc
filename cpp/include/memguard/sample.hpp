// MemorySample: what one look at the memory of this process found.
//
// Fixed size, made of 64-bit words alone, trivially copyable: a ring stores it word by word, and a
// shared file can hold it as it is. A field that could not be read is 0 and has its bit cleared in
// `valid`; the two times are always set.
#pragma once

#include <cstdint>      // std::uint64_t
#include <optional>     // std::optional
#include <type_traits>  // std::is_trivially_copyable_v

namespace memguard {

// The bits of MemorySample::valid.
enum class SampleField : std::uint64_t {
    rss = 1U << 0,
    anon = 1U << 1,
    file = 1U << 2,
    shmem = 1U << 3,
    swap = 1U << 4,
    threads = 1U << 5,
    python_arenas = 1U << 6,
    malloc = 1U << 7,  // in use, free, mmap and their age: read by one call, valid together
    python_blocks = 1U << 8,
    load = 1U << 9,
    gpu = 1U << 10,
    cgroup_usage = 1U << 11,
    cgroup_private = 1U << 12,
    cgroup_limit = 1U << 13,
    cgroup_high = 1U << 14,
    cgroup_limit_hits = 1U << 15,
    cgroup_oom_kills = 1U << 16,
    memory_pressure = 1U << 17,
};

struct MemorySample {
    std::uint64_t valid = 0;
    std::int64_t monotonic_ns = 0;
    std::int64_t wall_ns = 0;  // since 1970-01-01 UTC
    std::uint64_t rss_bytes = 0;
    std::uint64_t anon_bytes = 0;
    std::uint64_t file_bytes = 0;
    std::uint64_t shmem_bytes = 0;
    std::uint64_t swap_bytes = 0;
    std::uint64_t threads = 0;
    std::uint64_t python_arena_bytes = 0;   // what CPython's own allocator holds
    std::uint64_t malloc_in_use_bytes = 0;  // by the program, mapped blocks included
    std::uint64_t malloc_free_bytes = 0;    // kept by malloc, to be given out again
    std::uint64_t malloc_mmap_bytes =
        0;                            // the part of malloc_in_use_bytes that has maps of its own
    std::uint64_t malloc_age_ns = 0;  // 0: read for this sample; else carried over from before
    std::uint64_t python_blocks = 0;  // allocated by CPython's allocator; needs the GIL
    std::uint64_t gpu_bytes = 0;
    // Of the control group of this process; the limits are the smallest ones up the tree.
    std::uint64_t cgroup_usage_bytes = 0;    // the page cache included
    std::uint64_t cgroup_private_bytes = 0;  // anonymous, shared memory and swapped out
    std::uint64_t cgroup_limit_bytes = 0;    // beyond it the kernel kills
    std::uint64_t cgroup_high_bytes = 0;     // beyond it the kernel slows down
    std::uint64_t cgroup_limit_hits = 0;     // so far
    std::uint64_t cgroup_oom_kills = 0;      // so far
    std::uint64_t memory_pressure_us = 0;    // so far: time in which some task waited for memory
    double load = 0.0;                       // in flight at this instant, in a unit of the user's
    std::int64_t sample_cost_ns = 0;  // what taking this sample took, without its cgroup's figures
    std::int64_t cgroup_cost_ns = 0;  // what those took

    [[nodiscard]] constexpr bool has(SampleField field) const noexcept {
        return (valid & static_cast<std::uint64_t>(field)) != 0;
    }

    // What this process alone is charged for, as far as it is known: of the three parts the first
    // is needed.
    [[nodiscard]] constexpr std::optional<std::uint64_t> private_bytes() const noexcept {
        return has(SampleField::anon) ? std::optional{anon_bytes + shmem_bytes + swap_bytes}
                                      : std::nullopt;
    }

    constexpr void mark(SampleField field) noexcept { valid |= static_cast<std::uint64_t>(field); }
};

static_assert(std::is_trivially_copyable_v<MemorySample> &&
              std::is_standard_layout_v<MemorySample>);
static_assert(sizeof(MemorySample) == 26 * sizeof(std::uint64_t), "no padding between the words");

}  // namespace memguard
