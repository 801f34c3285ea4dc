#include "check.hpp"

#include <fcntl.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>

#include "fake_root.hpp"
#include "memguard/probe.hpp"

using namespace memguard;
using test::FakeRoot;

namespace {

constexpr std::uint64_t kMiB = 1024 * 1024;

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
    const FakeRoot other;
    other.write("/file", "not a number");
    LinuxProbe probe;
    static_cast<void>(probe.sample());
    const int fd = descriptor_of("/statm");
    const int opened = ::open((other.path() + "/file").c_str(), O_RDONLY);
    ::dup2(opened, fd);
    ::close(opened);
    CHECK(probe.sample().has(SampleField::rss));
    char text[3]{};
    CHECK(::pread(fd, text, sizeof text, 0) == 3 && std::string(text, 3) == "not");
    ::close(fd);
}

TEST(without_proc_the_sample_is_empty_and_failures_are_counted) {
    const FakeRoot nothing;
    LinuxProbe probe{{}, nothing.path(), Allocator{}};
    const MemorySample sample = probe.sample();
    CHECK(sample.valid == 0);
    CHECK(sample.rss_bytes == 0);
    CHECK(sample.monotonic_ns > 0);
    CHECK(probe.failures() == 2);
    CHECK(!probe.rss_bytes().has_value());
    CHECK(probe.failures() == 3);
}

TEST(smaps_and_smaps_rollup_are_never_opened) {
    const FakeRoot root;
    for (const char* name : {"statm", "status", "smaps", "smaps_rollup"}) {
        root.write(std::string{"/proc/self/"} + name, "100 25 3 1 0 5 0\n");
    }
    const int watcher = ::inotify_init1(IN_NONBLOCK);
    const auto watch = [&](const char* name) {
        const std::string path = root.path() + "/proc/self/" + name;
        return ::inotify_add_watch(watcher, path.c_str(), IN_OPEN);
    };
    const int cheap = watch("statm");
    static_cast<void>(watch("smaps"));
    static_cast<void>(watch("smaps_rollup"));
    LinuxProbe probe{{}, root.path()};
    for (int i = 0; i < 100; ++i) {
        static_cast<void>(probe.sample());
    }
    inotify_event event{};
    int opened = 0;
    while (::read(watcher, &event, sizeof event) == sizeof event) {
        CHECK(event.wd == cheap);
        ++opened;
    }
    CHECK(opened > 0);
    ::close(watcher);
}

TEST(cheap_sample_has_all_but_the_groups_other_figures) {
    LinuxProbe probe;
    const MemorySample cheap = probe.cheap_sample();
    const MemorySample whole = probe.sample();
    constexpr std::uint64_t kGroup = static_cast<std::uint64_t>(SampleField::cgroup_private) |
                                     static_cast<std::uint64_t>(SampleField::cgroup_limit) |
                                     static_cast<std::uint64_t>(SampleField::cgroup_high) |
                                     static_cast<std::uint64_t>(SampleField::cgroup_limit_hits) |
                                     static_cast<std::uint64_t>(SampleField::cgroup_oom_kills) |
                                     static_cast<std::uint64_t>(SampleField::memory_pressure);
    CHECK(cheap.valid == (whole.valid & ~kGroup));
    CHECK(cheap.cgroup_cost_ns == 0);
    CHECK(whole.cgroup_cost_ns > 0);
}

TEST(load_and_arenas_are_read_at_the_instant_of_the_sample) {
    const auto load = std::make_shared<LoadGauge>();
    ArenaCounter arenas;
    LinuxProbe probe{{load, &arenas}};
    const MemorySample before = probe.sample();
    CHECK(!before.has(SampleField::load) && !before.has(SampleField::python_arenas));
    load->set(3.5);
    arenas.begin_with(1 << 20);
    const MemorySample after = probe.sample();
    CHECK(after.has(SampleField::load) && after.load == 3.5);
    CHECK(after.has(SampleField::python_arenas) && after.python_arena_bytes == 1 << 20);
}

TEST(sample_without_sources_knows_neither_load_nor_arenas) {
    const MemorySample sample = LinuxProbe{}.sample();
    CHECK(!sample.has(SampleField::load) && !sample.has(SampleField::python_arenas));
}
