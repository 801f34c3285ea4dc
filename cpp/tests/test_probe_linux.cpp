#include "check.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "memguard/probe.hpp"

using namespace memguard;

namespace {

constexpr std::uint64_t kMiB = 1024 * 1024;

// A file with this content, under a path of its own.
class FakeFile {
  public:
    explicit FakeFile(const std::string& content) { write(content); }
    ~FakeFile() { ::unlink(path_.c_str()); }
    void write(const std::string& content) const {
        const int fd = ::open(path_.c_str(), O_WRONLY | O_TRUNC);
        CHECK(::write(fd, content.data(), content.size()) ==
              static_cast<::ssize_t>(content.size()));
        ::close(fd);
    }
    void remove() const { ::unlink(path_.c_str()); }
    [[nodiscard]] const char* path() const { return path_.c_str(); }

  private:
    std::string path_ = make();
    static std::string make() {
        char path[] = "/tmp/memguard-test-XXXXXX";
        ::close(::mkstemp(path));
        return path;
    }
};

MallocReader no_malloc() {
    return MallocReader{nullptr};
}

int open_descriptors() {
    int count = 0;
    for (int fd = 0; fd < 256; ++fd) {
        count += ::fcntl(fd, F_GETFD) != -1 ? 1 : 0;
    }
    return count;
}

int descriptor_of(const char* name) {
    for (int fd = 0; fd < 256; ++fd) {
        char target[256];
        const std::string link = "/proc/self/fd/" + std::to_string(fd);
        const ::ssize_t length = ::readlink(link.c_str(), target, sizeof target);
        if (length > 0 && std::string{target, static_cast<std::size_t>(length)}.ends_with(name)) {
            return fd;
        }
    }
    return -1;
}

// Maps and touches this much; unmapped when it goes.
class Touched {
  public:
    explicit Touched(std::uint64_t bytes)
        : bytes_(bytes), memory_(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0)) {}
    ~Touched() { ::munmap(memory_, bytes_); }

  private:
    std::uint64_t bytes_;
    void* memory_;
};

bool near(std::uint64_t a, std::uint64_t b, std::uint64_t by) {
    return (a > b ? a - b : b - a) <= by;
}

template <class Body>
int exit_status_of_child(Body&& body) {
    const ::pid_t child = ::fork();
    if (child == 0) {
        ::_exit(body());
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TEST(sample_of_this_process_has_every_field) {
    LinuxProbe probe;
    const MemorySample sample = probe.sample();
    for (const SampleField field : {SampleField::rss, SampleField::anon, SampleField::file,
                                    SampleField::shmem, SampleField::swap, SampleField::threads}) {
        CHECK(sample.has(field));
    }
    CHECK(sample.rss_bytes > 0);
    CHECK(sample.monotonic_ns > 0);
    CHECK(sample.wall_ns > 0);
    CHECK(sample.sample_cost_ns > 0);
    CHECK(probe.failures() == 0);
}

TEST(sample_follows_anonymous_memory) {
    LinuxProbe probe;
    const MemorySample before = probe.sample();
    const Touched memory{64 * kMiB};
    const MemorySample after = probe.sample();
    CHECK(near(after.anon_bytes - before.anon_bytes, 64 * kMiB, kMiB));
    CHECK(near(after.rss_bytes - before.rss_bytes, 64 * kMiB, kMiB));
}

TEST(sample_counts_threads) {
    LinuxProbe probe;
    std::thread{[] {}}.join();  // with the first thread ThreadSanitizer starts one of its own
    const std::uint64_t before = probe.sample().threads;
    std::uint64_t inside = 0;
    std::thread{[&] { inside = probe.sample().threads; }}.join();
    CHECK(inside == before + 1);
}

TEST(descriptors_are_kept_and_closed_on_exec) {
    LinuxProbe probe;
    static_cast<void>(probe.sample());
    const int open = open_descriptors();
    for (int i = 0; i < 10; ++i) {
        static_cast<void>(probe.sample());
    }
    CHECK(open_descriptors() == open);
    for (const char* name : {"/statm", "/status"}) {
        const int fd = descriptor_of(name);
        CHECK(fd >= 0);
        CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    }
}

TEST(destruction_gives_the_descriptors_back) {
    const int open = open_descriptors();
    {
        static_cast<void>(LinuxProbe{}.sample());
    }
    CHECK(open_descriptors() == open);
}

TEST(child_of_a_fork_sees_its_own_memory) {
    LinuxProbe probe;
    static_cast<void>(probe.sample());
    CHECK(exit_status_of_child([&] {
              const Touched memory{64 * kMiB};
              const MemorySample own = probe.sample();
              const MemorySample fresh = LinuxProbe{}.sample();
              const auto rss = probe.rss_bytes();
              // The parent is 64 MiB smaller; sanitizers make the two differ by some pages.
              return near(own.rss_bytes, fresh.rss_bytes, 16 * kMiB) &&
                             near(own.anon_bytes, fresh.anon_bytes, 16 * kMiB) &&
                             near(*rss, fresh.rss_bytes, 16 * kMiB)
                         ? 0
                         : 1;
          }) == 0);
}

TEST(descriptor_closed_under_our_feet_is_opened_again) {
    LinuxProbe probe;
    static_cast<void>(probe.sample());
    ::close(descriptor_of("/statm"));
    ::close(descriptor_of("/status"));
    const MemorySample sample = probe.sample();
    CHECK(sample.has(SampleField::rss));
    CHECK(sample.has(SampleField::anon));
    CHECK(probe.failures() == 0);
}

TEST(descriptor_taken_over_by_another_file_is_not_closed) {
    const FakeFile other{"not a number"};
    LinuxProbe probe;
    static_cast<void>(probe.sample());
    const int fd = descriptor_of("/statm");
    const int opened = ::open(other.path(), O_RDONLY);
    ::dup2(opened, fd);
    ::close(opened);
    CHECK(probe.sample().has(SampleField::rss));
    char text[3]{};
    CHECK(::pread(fd, text, sizeof text, 0) == 3 && std::string(text, 3) == "not");
    ::close(fd);
}

TEST(file_that_vanished_clears_the_bits_and_is_counted) {
    LinuxProbe probe{"/nonexistent/statm", "/nonexistent/status", no_malloc()};
    const MemorySample sample = probe.sample();
    CHECK(sample.valid == 0);
    CHECK(sample.rss_bytes == 0);
    CHECK(sample.monotonic_ns > 0);
    CHECK(probe.failures() == 2);
    CHECK(!probe.rss_bytes().has_value());
    CHECK(probe.failures() == 3);
}

TEST(file_that_comes_back_is_read_again) {
    const FakeFile statm{""};
    LinuxProbe probe{statm.path(), "/nonexistent/status", no_malloc()};
    CHECK(!probe.rss_bytes().has_value());
    statm.write("100 25 3 1 0 5 0\n");
    CHECK(probe.rss_bytes() == 25 * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)));
}

TEST(statm_that_is_no_statm_is_not_valid) {
    for (const char* text : {"", "7", "a b c", "1 ", "1 -2", "99999999999999999999 "}) {
        CHECK(!LinuxProbe::parse_resident_pages(text).has_value());
    }
    CHECK(LinuxProbe::parse_resident_pages("10 20 30\n") == 20);
}

TEST(status_gives_the_fields_that_are_there) {
    MemorySample sample;
    CHECK(LinuxProbe::parse_status("Name:\tx\nThreads:\t7\nRssAnon:\t     12 kB\n", sample));
    CHECK(sample.has(SampleField::threads) && sample.threads == 7);
    CHECK(sample.has(SampleField::anon) && sample.anon_bytes == 12 * 1024);
    CHECK(!sample.has(SampleField::swap));
}

TEST(status_line_that_is_cut_is_not_taken) {
    MemorySample sample;
    CHECK(LinuxProbe::parse_status("RssAnon:\t12 kB\nRssFile:\t123", sample));
    CHECK(!sample.has(SampleField::file));
}

TEST(status_with_broken_values_is_not_valid) {
    MemorySample sample;
    CHECK(!LinuxProbe::parse_status("RssAnon:\nRssFile: x kB\nVmSwap:\t-1 kB\n\n\n", sample));
    CHECK(sample.valid == 0);
}

namespace {

// What the fake mallinfo2 below answers, and how often it was asked.
MallocReader::Info fake_info{};
int fake_calls = 0;
std::int64_t fake_cost_ns = 0;

MallocReader::Info fake_mallinfo() {
    ++fake_calls;
    struct timespec now{};
    const auto cpu_ns = [&] {
        ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
        return now.tv_sec * kNsPerSecond + now.tv_nsec;
    };
    for (const std::int64_t start = cpu_ns(); cpu_ns() - start < fake_cost_ns;) {
    }
    return fake_info;
}

LinuxProbe probe_with_fake_malloc(std::int64_t cost_ns) {
    fake_info = {};
    fake_info.uordblks = 1000;
    fake_info.hblkhd = 500;
    fake_info.fordblks = 70;
    fake_calls = 0;
    fake_cost_ns = cost_ns;
    return LinuxProbe{"/proc/self/statm", "/proc/self/status", MallocReader{&fake_mallinfo}};
}

}  // namespace

TEST(malloc_in_use_counts_heap_and_mapped_blocks) {
    LinuxProbe probe = probe_with_fake_malloc(0);
    const MemorySample sample = probe.sample();
    CHECK(sample.has(SampleField::malloc));
    CHECK(sample.malloc_in_use_bytes == 1500);
    CHECK(sample.malloc_free_bytes == 70);
    CHECK(sample.malloc_mmap_bytes == 500);
    CHECK(sample.malloc_age_ns == 0);
}

TEST(dear_malloc_figures_are_carried_over_with_their_age) {
    LinuxProbe probe = probe_with_fake_malloc(300'000);
    const MemorySample first = probe.sample();
    fake_info.uordblks = 2000;
    MemorySample last;
    for (int i = 1; i < 10; ++i) {
        last = probe.sample();
        CHECK(last.has(SampleField::malloc));
        CHECK(last.malloc_in_use_bytes == 1500);
        CHECK(last.malloc_age_ns == last.monotonic_ns - first.monotonic_ns);
    }
    CHECK(fake_calls == 1);
    CHECK(probe.sample().malloc_in_use_bytes == 2500);
    CHECK(fake_calls == 2);
}

TEST(malloc_figures_over_10_ms_are_not_read_again) {
    LinuxProbe probe = probe_with_fake_malloc(11'000'000);
    for (int i = 0; i < 200; ++i) {
        static_cast<void>(probe.sample());
    }
    CHECK(fake_calls == 1);
}

TEST(no_mallinfo_means_no_malloc_fields) {
    LinuxProbe probe{"/proc/self/statm", "/proc/self/status", no_malloc()};
    const MemorySample sample = probe.sample();
    CHECK(sample.has(SampleField::rss));
    CHECK(!sample.has(SampleField::malloc));
}

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// The sanitizers bring an allocator of their own, which glibc's figures do not see.
TEST(malloc_figures_follow_malloc) {
    LinuxProbe probe;
    const MemorySample before = probe.sample();
    std::vector<void*> blocks;
    for (int i = 0; i < 10'000; ++i) {
        blocks.push_back(std::malloc(1000));
    }
    const MemorySample during = probe.sample();
    for (void* block : blocks) {
        std::free(block);
    }
    const MemorySample after = probe.sample();
    CHECK(near(during.malloc_in_use_bytes - before.malloc_in_use_bytes, 10'000'000, 500'000));
    CHECK(near(after.malloc_in_use_bytes, before.malloc_in_use_bytes, 500'000));
}
#endif
