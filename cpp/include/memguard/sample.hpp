// MemorySample: what one look at the memory of this process found.
//
// Fixed size, made of 64-bit words alone, trivially copyable: a ring stores it word by word, and a
// shared file can hold it as it is. A field that could not be read is 0 and has its bit cleared in
// `valid`; the two times are always set.
#pragma once

#include <cstdint>      // std::uint64_t
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
    malloc = 1U << 6,  // in use, free, mmap and their age: read by one call, valid together
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
    std::uint64_t malloc_in_use_bytes = 0;  // by the program, mapped blocks included
    std::uint64_t malloc_free_bytes = 0;    // kept by malloc, to be given out again
    std::uint64_t malloc_mmap_bytes =
        0;                            // the part of malloc_in_use_bytes that has maps of its own
    std::int64_t malloc_age_ns = 0;   // 0: read for this sample; else carried over from before
    std::int64_t sample_cost_ns = 0;  // what taking this sample took

    [[nodiscard]] constexpr bool has(SampleField field) const noexcept {
        return (valid & static_cast<std::uint64_t>(field)) != 0;
    }

    constexpr void mark(SampleField field) noexcept { valid |= static_cast<std::uint64_t>(field); }
};

static_assert(std::is_trivially_copyable_v<MemorySample> &&
              std::is_standard_layout_v<MemorySample>);
static_assert(sizeof(MemorySample) == 14 * sizeof(std::uint64_t), "no padding between the words");

}  // namespace memguard
