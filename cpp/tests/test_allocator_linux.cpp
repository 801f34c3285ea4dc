#include "check.hpp"

#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "memguard/allocator_linux.hpp"

using namespace memguard;

namespace {

// What the fake allocators below answer, and how often they were asked.
Allocator::Info fake_info{};
int fake_calls = 0;
std::int64_t fake_cost_ns = 0;

std::int64_t thread_cpu_ns() {
    struct timespec now{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * kNsPerSecond + now.tv_nsec;
}

Allocator::Info fake_mallinfo() {
    ++fake_calls;
    for (const std::int64_t start = thread_cpu_ns(); thread_cpu_ns() - start < fake_cost_ns;) {
    }
    return fake_info;
}

Allocator fake_glibc(std::int64_t cost_ns) {
    fake_info = {};
    fake_info.uordblks = 1000;
    fake_info.hblkhd = 500;
    fake_info.fordblks = 70;
    fake_calls = 0;
    fake_cost_ns = cost_ns;
    return Allocator{&fake_mallinfo};
}

bool fake_has_statistics = true;
std::uint64_t fake_epoch = 0;
std::size_t fake_resident = 0;

int fake_mallctl(const char* name, void* old, std::size_t* old_bytes, void* fresh, std::size_t) {
    if (!fake_has_statistics) {
        return 2;  // ENOENT
    }
    const std::string_view asked{name};
    if (asked == "epoch") {
        CHECK(fresh != nullptr);
        ++fake_epoch;
        return 0;
    }
    CHECK(fake_epoch > 0);  // else the figures are old ones
    const std::size_t value = asked == "stats.allocated" ? 5000 : fake_resident;
    CHECK(*old_bytes == sizeof value);
    std::memcpy(old, &value, sizeof value);
    return 0;
}

void fake_process_info(std::size_t*, std::size_t*, std::size_t*, std::size_t*, std::size_t*,
                       std::size_t* commit, std::size_t*, std::size_t*) {
    *commit = 9000;
}

MemorySample sample_at(MallocReader& reader, std::int64_t now_ns) {
    MemorySample sample;
    sample.monotonic_ns = now_ns;
    reader.read_into(sample);
    return sample;
}

}  // namespace

TEST(glibc_in_use_counts_heap_and_mapped_blocks) {
    MallocReader reader{fake_glibc(0)};
    const MemorySample sample = sample_at(reader, 1);
    CHECK(sample.has(SampleField::malloc));
    CHECK(sample.malloc_in_use_bytes == 1500);
    CHECK(sample.malloc_free_bytes == 70);
    CHECK(sample.malloc_mmap_bytes == 500);
    CHECK(sample.malloc_age_ns == 0);
}

TEST(jemalloc_free_is_what_is_resident_and_not_allocated) {
    fake_has_statistics = true;
    fake_resident = 8000;
    MallocReader reader{Allocator{&fake_mallctl}};
    const MemorySample sample = sample_at(reader, 1);
    CHECK(sample.has(SampleField::malloc));
    CHECK(sample.malloc_in_use_bytes == 5000 && sample.malloc_free_bytes == 3000);
    CHECK(sample.malloc_mmap_bytes == 0);
}

TEST(jemalloc_whose_blocks_are_not_all_resident_has_nothing_free) {
    fake_has_statistics = true;
    fake_resident = 4000;
    MallocFigures figures;
    CHECK(Allocator{&fake_mallctl}.read(figures));
    CHECK(figures.in_use_bytes == 5000 && figures.free_bytes == 0);
}

TEST(jemalloc_without_statistics_tells_nothing) {
    fake_has_statistics = false;
    MallocReader reader{Allocator{&fake_mallctl}};
    CHECK(!sample_at(reader, 1).has(SampleField::malloc));
}

TEST(mimalloc_counts_all_that_is_committed_as_in_use) {
    MallocReader reader{Allocator{&fake_process_info}};
    const MemorySample sample = sample_at(reader, 1);
    CHECK(sample.has(SampleField::malloc));
    CHECK(sample.malloc_in_use_bytes == 9000 && sample.malloc_free_bytes == 0);
}

TEST(unknown_allocator_means_no_malloc_fields) {
    MallocReader reader{Allocator{}};
    CHECK(!sample_at(reader, 1).has(SampleField::malloc));
}

TEST(allocators_have_their_names) {
    CHECK(std::string_view{Allocator{&fake_mallinfo}.name()} == "glibc");
    CHECK(std::string_view{Allocator{&fake_mallctl}.name()} == "jemalloc");
    CHECK(std::string_view{Allocator{&fake_process_info}.name()} == "mimalloc");
    CHECK(std::string_view{Allocator{}.name()} == "unknown");
}

TEST(dear_figures_are_carried_over_with_their_age) {
    MallocReader reader{fake_glibc(300'000)};
    static_cast<void>(sample_at(reader, 1000));
    fake_info.uordblks = 2000;
    for (int i = 1; i < 10; ++i) {
        const MemorySample sample = sample_at(reader, 1000 + i);
        CHECK(sample.has(SampleField::malloc));
        CHECK(sample.malloc_in_use_bytes == 1500);
        CHECK(sample.malloc_age_ns == static_cast<std::uint64_t>(i));
    }
    CHECK(fake_calls == 1);
    CHECK(sample_at(reader, 2000).malloc_in_use_bytes == 2500);
    CHECK(fake_calls == 2);
}

TEST(figures_over_6_ms_are_not_read_again_before_a_retry) {
    MallocReader reader{fake_glibc(11'000'000)};
    for (int i = 0; i < 200; ++i) {
        static_cast<void>(sample_at(reader, i));
    }
    CHECK(fake_calls == 1);
    fake_cost_ns = 0;
    reader.retry();
    CHECK(sample_at(reader, 300).malloc_age_ns == 0);
    CHECK(sample_at(reader, 301).malloc_age_ns == 0);
    CHECK(fake_calls == 3);
}

#if defined(__GLIBC__)
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
// Sanitizers bring an allocator of their own, of whose blocks glibc knows nothing.
TEST(malloc_of_another_library_is_unknown) {
    CHECK(std::string_view{Allocator::of_this_process().name()} == "unknown");
}
#else
TEST(figures_of_this_process_follow_malloc) {
    const Allocator allocator = Allocator::of_this_process();
    CHECK(std::string_view{allocator.name()} == "glibc");
    MallocFigures before;
    MallocFigures during;
    MallocFigures after;
    CHECK(allocator.read(before));
    std::vector<void*> blocks;
    for (int i = 0; i < 10'000; ++i) {
        blocks.push_back(std::malloc(1000));
    }
    CHECK(allocator.read(during));
    for (void* block : blocks) {
        std::free(block);
    }
    CHECK(allocator.read(after));
    CHECK(during.in_use_bytes - before.in_use_bytes > 10'000'000);
    CHECK(during.in_use_bytes - before.in_use_bytes < 10'700'000);
    CHECK(after.in_use_bytes < before.in_use_bytes + 500'000);
}
#endif
#endif
