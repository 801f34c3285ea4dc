#include "check.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "fake_root.hpp"
#include "memguard/process_memory_linux.hpp"

using namespace memguard;
using test::FakeRoot;

namespace {

const std::uint64_t kPage = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));

bool nothing_is_swapped() noexcept {
    return false;
}

bool something_is_swapped() noexcept {
    return true;
}

// Of 100 pages 30 are shared: so many of files, the rest shared memory.
void write_process(const FakeRoot& root, std::uint64_t file_pages, std::uint64_t threads) {
    const auto kib = [](std::uint64_t pages) { return std::to_string(pages * kPage / 1024); };
    root.write("/proc/self/statm", "500 100 30 1 0 5 0\n");
    root.write("/proc/self/status", "RssAnon:\t" + kib(70) + " kB\nRssFile:\t" + kib(file_pages) +
                                        " kB\nRssShmem:\t" + kib(30 - file_pages) +
                                        " kB\nVmSwap:\t8 kB\nThreads:\t" + std::to_string(threads) +
                                        "\n");
    for (std::uint64_t i = 0; i < threads; ++i) {
        root.make_directory("/proc/self/task/" + std::to_string(i));
    }
}

MemorySample sample_of(ProcessMemory& memory) {
    MemorySample sample;
    memory.read_into(sample);
    return sample;
}

}  // namespace

TEST(statm_that_is_no_statm_is_not_valid) {
    for (const char* text :
         {"", "7", "a b c", "1 ", "1 -2 1", "99999999999999999999 ", "1 2", "1 2 ", "10 20 30 1"}) {
        CHECK(!ProcessMemory::parse_statm(text).has_value());
    }
    const auto pages = ProcessMemory::parse_statm("100 30 20 1\n");
    CHECK(pages && pages->resident == 30 && pages->shared == 20);
}

TEST(status_gives_the_fields_that_are_there) {
    MemorySample sample;
    CHECK(ProcessMemory::parse_status("Name:\tx\nThreads:\t7\nRssAnon:\t     12 kB\n", sample));
    CHECK(sample.has(SampleField::threads) && sample.threads == 7);
    CHECK(sample.has(SampleField::anon) && sample.anon_bytes == 12 * 1024);
    CHECK(!sample.has(SampleField::swap));
}

TEST(status_line_that_is_cut_is_not_taken) {
    MemorySample sample;
    CHECK(ProcessMemory::parse_status("RssAnon:\t12 kB\nRssFile:\t123", sample));
    CHECK(!sample.has(SampleField::file));
}

TEST(status_with_broken_values_is_not_valid) {
    MemorySample sample;
    CHECK(!ProcessMemory::parse_status("RssAnon:\nRssFile: x kB\nVmSwap:\t-1 kB\n\n\n", sample));
    CHECK(sample.valid == 0);
}

TEST(first_sample_is_what_statm_and_status_say) {
    const FakeRoot root;
    write_process(root, 20, 3);
    ProcessMemory memory{root.path(), &something_is_swapped};
    const MemorySample sample = sample_of(memory);
    CHECK(sample.rss_bytes == 100 * kPage && sample.anon_bytes == 70 * kPage);
    CHECK(sample.file_bytes == 20 * kPage && sample.shmem_bytes == 10 * kPage);
    CHECK(sample.swap_bytes == 8 * 1024 && sample.threads == 3);
    CHECK(memory.failures() == 0);
}

TEST(anonymous_memory_is_followed_without_status) {
    const FakeRoot root;
    write_process(root, 20, 3);
    ProcessMemory memory{root.path(), &nothing_is_swapped};
    static_cast<void>(sample_of(memory));
    root.remove("/proc/self/status");
    root.write("/proc/self/statm", "500 130 30 1 0 5 0\n");
    const MemorySample sample = sample_of(memory);
    CHECK(sample.rss_bytes == 130 * kPage && sample.anon_bytes == 100 * kPage);
    CHECK(sample.file_bytes == 20 * kPage && sample.shmem_bytes == 10 * kPage);
    CHECK(sample.has(SampleField::swap) && sample.swap_bytes == 0);
    CHECK(memory.failures() == 0);
}

TEST(threads_are_counted_without_status) {
    const FakeRoot root;
    write_process(root, 20, 3);
    ProcessMemory memory{root.path(), &nothing_is_swapped};
    static_cast<void>(sample_of(memory));
    root.make_directory("/proc/self/task/99");
    CHECK(sample_of(memory).threads == 4);
}

TEST(division_of_shared_pages_is_read_again_when_their_sum_moves) {
    const FakeRoot root;
    write_process(root, 20, 3);
    ProcessMemory memory{root.path(), &nothing_is_swapped};
    static_cast<void>(sample_of(memory));
    write_process(root, 5, 3);
    CHECK(sample_of(memory).file_bytes == 20 * kPage);  // the sum is the same
    root.write("/proc/self/statm", "500 101 31 1 0 5 0\n");
    CHECK(sample_of(memory).file_bytes == 5 * kPage);
}

TEST(division_of_shared_pages_is_at_most_10_samples_old) {
    const FakeRoot root;
    write_process(root, 20, 3);
    ProcessMemory memory{root.path(), &nothing_is_swapped};
    static_cast<void>(sample_of(memory));
    write_process(root, 5, 3);
    for (int i = 1; i < 10; ++i) {
        CHECK(sample_of(memory).file_bytes == 20 * kPage);
    }
    CHECK(sample_of(memory).file_bytes == 5 * kPage);
}

TEST(status_is_read_for_every_sample_where_the_host_swaps) {
    const FakeRoot root;
    write_process(root, 20, 3);
    ProcessMemory memory{root.path(), &something_is_swapped};
    static_cast<void>(sample_of(memory));
    write_process(root, 5, 3);
    CHECK(sample_of(memory).file_bytes == 5 * kPage);
}

TEST(status_is_read_for_every_sample_where_statm_counts_otherwise) {
    const FakeRoot root;
    write_process(root, 20, 3);
    root.write("/proc/self/statm", "500 100 29 1 0 5 0\n");
    ProcessMemory memory{root.path(), &nothing_is_swapped};
    static_cast<void>(sample_of(memory));
    root.write("/proc/self/status", "Threads:\t9\n");
    CHECK(sample_of(memory).threads == 9);
}

TEST(status_is_read_for_every_sample_where_the_directory_counts_no_threads) {
    const FakeRoot root;
    write_process(root, 20, 3);
    root.remove("/proc/self/task/1");
    ProcessMemory memory{root.path(), &nothing_is_swapped};
    CHECK(sample_of(memory).threads == 3);
    write_process(root, 20, 4);
    root.remove("/proc/self/task");
    CHECK(sample_of(memory).threads == 4);
}

TEST(file_that_vanished_is_counted_and_read_again_when_it_is_back) {
    const FakeRoot root;
    ProcessMemory memory{root.path(), &nothing_is_swapped};
    CHECK(!memory.rss_bytes().has_value());
    CHECK(memory.failures() == 1);
    write_process(root, 20, 1);
    CHECK(memory.rss_bytes() == 100 * kPage);
    CHECK(memory.failures() == 1);
}

TEST(shared_memory_of_this_process_is_told_from_its_files) {
    ProcessMemory memory;
    static_cast<void>(sample_of(memory));
    const MemorySample before = sample_of(memory);
    constexpr std::size_t kBytes = 8 << 20;
    void* const shared = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    const MemorySample after = sample_of(memory);
    ::munmap(shared, kBytes);
    CHECK(after.shmem_bytes >= before.shmem_bytes + kBytes);
    CHECK(after.file_bytes < before.file_bytes + kBytes / 2);
}
