#include "check.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "fake_root.hpp"
#include "memguard/cgroup_linux.hpp"

using namespace memguard;
using test::FakeRoot;

namespace {

constexpr std::uint64_t kMiB = 1024 * 1024;
const std::string kV1Max = "9223372036854771712";

// Mounts of both versions, as systemd's hybrid set-up has them; a test writes the files of one.
void write_host(const FakeRoot& root) {
    root.write("/proc/meminfo", "MemTotal:       1048576 kB\nMemFree: 1 kB\n");
    root.write("/proc/self/mountinfo",
               "22 1 0:20 / /proc rw - proc proc rw\n"
               "31 23 0:28 / /cg/v2 rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
               "35 31 0:32 / /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
               "36 31 0:33 / /cg/memory rw shared:3 master:1 - cgroup cgroup rw,memory\n");
    root.write("/proc/pressure/memory",
               "some avg10=0.00 avg60=0.00 avg300=0.00 total=777\nfull avg10=0.00 total=5\n");
}

void be_in(const FakeRoot& root, const std::string& v2, const std::string& v1) {
    root.write("/proc/self/cgroup",
               "5:cpu,cpuacct:" + v1 + "\n4:memory:" + v1 + "\n0::" + v2 + "\n");
}

void write_v2(const FakeRoot& root, const std::string& group, const std::string& max,
              const std::string& high = "max", std::uint64_t current = 100 * kMiB) {
    const std::string directory = "/cg/v2" + group;
    root.write(directory + "/memory.current", std::to_string(current) + "\n");
    root.write(directory + "/memory.max", max + "\n");
    root.write(directory + "/memory.high", high + "\n");
    root.write(directory + "/memory.swap.current", "3000\n");
    root.write(directory + "/memory.stat", "anon 1000000\nfile 900\nanon_thp 5\nshmem 20000\n");
    root.write(directory + "/memory.events", "low 0\nhigh 1\nmax 7\noom 3\noom_kill 2\n");
    root.write(directory + "/memory.pressure",
               "some avg10=0.00 avg60=0.00 avg300=0.00 total=1234\nfull avg10=0.00 total=9\n");
}

void write_v1(const FakeRoot& root, const std::string& group, const std::string& limit,
              const std::string& more = "") {
    const std::string directory = "/cg/memory" + group;
    root.write(directory + "/memory.usage_in_bytes", "52428800\n");
    root.write(directory + "/memory.limit_in_bytes", limit + "\n");
    root.write(directory + "/memory.failcnt", "11\n");
    root.write(directory + "/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n");
    root.write(directory + "/memory.stat", "cache 5\nrss 1\ntotal_cache 9\ntotal_rss 600\n" + more);
}

MemorySample sample_of(CgroupReader& reader) {
    MemorySample sample;
    static_cast<void>(reader.read_usage(sample));
    reader.read_rest(sample);
    return sample;
}

MemorySample sample_of(const FakeRoot& root) {
    CgroupReader reader{root.path()};
    return sample_of(reader);
}

bool has_limit(const MemorySample& sample, std::uint64_t bytes) {
    return sample.has(SampleField::cgroup_limit) && sample.cgroup_limit_bytes == bytes;
}

}  // namespace

// --- the two versions

TEST(v2_group_tells_everything) {
    const FakeRoot root;
    write_host(root);
    be_in(root, "/app", "/");
    write_v2(root, "/app", std::to_string(512 * kMiB), std::to_string(400 * kMiB));
    const MemorySample sample = sample_of(root);
    CHECK(sample.has(SampleField::cgroup_usage) && sample.cgroup_usage_bytes == 100 * kMiB);
    CHECK(has_limit(sample, 512 * kMiB));
    CHECK(sample.has(SampleField::cgroup_high) && sample.cgroup_high_bytes == 400 * kMiB);
    CHECK(sample.has(SampleField::cgroup_private) && sample.cgroup_private_bytes == 1'023'000);
    CHECK(sample.has(SampleField::cgroup_limit_hits) && sample.cgroup_limit_hits == 7);
    CHECK(sample.has(SampleField::cgroup_oom_kills) && sample.cgroup_oom_kills == 2);
    CHECK(sample.has(SampleField::memory_pressure) && sample.memory_pressure_us == 1234);
}

TEST(v1_group_tells_everything_but_high) {
    const FakeRoot root;
    write_host(root);
    be_in(root, "/", "/app");
    write_v1(root, "/app", std::to_string(64 * kMiB), "total_shmem 30\ntotal_swap 7\n");
    const MemorySample sample = sample_of(root);
    CHECK(sample.cgroup_usage_bytes == 50 * kMiB);
    CHECK(has_limit(sample, 64 * kMiB));
    CHECK(!sample.has(SampleField::cgroup_high));
    CHECK(sample.cgroup_private_bytes == 637);
    CHECK(sample.has(SampleField::cgroup_limit_hits) && sample.cgroup_limit_hits == 11);
    CHECK(sample.has(SampleField::cgroup_oom_kills) && sample.cgroup_oom_kills == 4);
    CHECK(sample.memory_pressure_us == 777);  // the host's: version 1 has none of a group
}

TEST(v1_without_shared_memory_and_swap_in_its_statistics_counts_the_rest) {
    const FakeRoot root;
    write_host(root);
    be_in(root, "/", "/app");
    write_v1(root, "/app", kV1Max);
    CHECK(sample_of(root).cgroup_private_bytes == 600);
}

TEST(v2_without_the_controller_of_swap_counts_the_rest) {
    const FakeRoot root;
    write_host(root);
    be_in(root, "/app", "/");
    write_v2(root, "/app", "max");
    root.remove("/cg/v2/app/memory.swap.current");
    CHECK(sample_of(root).cgroup_private_bytes == 1'020'000);
}

TEST(hybrid_is_read_where_the_files_of_memory_are) {
    const FakeRoot root;
    write_host(root);
    be_in(root, "/user.slice", "/app");
    root.write("/cg/v2/user.slice/cgroup.procs", "");
    write_v1(root, "/app", std::to_string(64 * kMiB));
    CHECK(has_limit(sample_of(root), 64 * kMiB));
    write_v2(root, "/user.slice", std::to_string(32 * kMiB));
    CHECK(has_limit(sample_of(root), 32 * kMiB));
}

TEST(group_without_files_of_memory_is_charged_to_the_nearest_above) {
    const FakeRoot root;
    write_host(root);
    be_in(root, "/pod/app/inner", "/");
    root.write("/cg/v2/pod/app/inner/cgroup.procs", "");
    write_v2(root, "/pod/app", "max", "max", 5 * kMiB);
    write_v2(root, "/pod", std::to_string(256 * kMiB));
    const MemorySample sample = sample_of(root);
    CHECK(sample.cgroup_usage_bytes == 5 * kMiB);
    CHECK(has_limit(sample, 256 * kMiB));
}

// --- limits

TEST(smallest_limit_up_the_tree_counts) {
    const FakeRoot root;
    write_host(root);
    be_in(root, "/a/b/c", "/a/b/c");
    write_v2(root, "/a/b/c", std::to_string(512 * kMiB), "max");
    write_v2(root, "/a/b", std::to_string(128 * kMiB), std::to_string(90 * kMiB));
    write_v2(root, "/a", std::to_string(256 * kMiB), std::to_string(95 * kMiB));
    const MemorySample sample = sample_of(root);
    CHECK(has_limit(sample, 128 * kMiB));
    CHECK(sample.cgroup_high_bytes == 90 * kMiB);
}

TEST(v1_limit_above_the_mount_counts_too) {
    const FakeRoot root;
    write_host(root);
    be_in(root, "/", "/app");
    write_v1(root, "/app", std::to_string(64 * kMiB), "hierarchical_memory_limit 33554432\n");
    CHECK(has_limit(sample_of(root), 32 * kMiB));
    write_v1(root, "/app", std::to_string(16 * kMiB), "hierarchical_memory_limit 33554432\n");
    CHECK(has_limit(sample_of(root), 16 * kMiB));
}

TEST(max_is_no_limit) {
    const FakeRoot root;
    write_host(root);
    be_in(root, "/app", "/");
    write_v2(root, "/app", "max", "max");
    const MemorySample sample = sample_of(root);
    CHECK(!sample.has(SampleField::cgroup_limit) && sample.cgroup_limit_bytes == 0);
    CHECK(!sample.has(SampleField::cgroup_high));
    CHECK(sample.has(SampleField::cgroup_usage));
}

TEST(limit_that_no_host_can_hold_is_none) {
    const FakeRoot root;
    write_host(root);
    be_in(root, "/", "/app");
    for (const std::string& limit :
         {kV1Max, std::string{"9223372036854775807"}, std::to_string(1024 * kMiB + 1)}) {
        write_v1(root, "/app", limit, "hierarchical_memory_limit " + limit + "\n");
        CHECK(!sample_of(root).has(SampleField::cgroup_limit));
    }
    write_v1(root, "/app", std::to_string(1024 * kMiB));
    CHECK(has_limit(sample_of(root), 1024 * kMiB));
}

TEST(v1_word_for_no_limit_is_none_also_where_the_host_does_not_tell_its_memory) {
    const FakeRoot root;
    write_host(root);
    root.remove("/proc/meminfo");
    be_in(root, "/", "/app");
    write_v1(root, "/app", kV1Max);
    CHECK(!sample_of(root).has(SampleField::cgroup_limit));
}

TEST(limit_that_changes_is_read_again) {
    const FakeRoot root;
    write_host(root);
    be_in(root, "/app", "/");
    write_v2(root, "/app", "max");
    CgroupReader reader{root.path()};
    CHECK(!sample_of(reader).has(SampleField::cgroup_limit));
    root.write("/cg/v2/app/memory.max", "1048576\n");
    CHECK(has_limit(sample_of(reader), kMiB));
    root.write("/cg/v2/app/memory.max", "max\n");
    CHECK(!sample_of(reader).has(SampleField::cgroup_limit));
}

// --- where the group is

TEST(mount_of_a_part_of_the_hierarchy_shows_the_rest_of_the_name) {
    const FakeRoot root;
    write_host(root);
    root.write("/proc/self/mountinfo", "36 31 0:33 /docker/abc /cg/memory rw - cgroup cgroup "
                                       "rw,memory\n");
    be_in(root, "/", "/docker/abc/inner");
    write_v1(root, "/inner", std::to_string(64 * kMiB));
    CHECK(has_limit(sample_of(root), 64 * kMiB));
    be_in(root, "/", "/docker/abc");
    write_v1(root, "", std::to_string(48 * kMiB));
    CHECK(has_limit(sample_of(root), 48 * kMiB));
}

TEST(mount_under_another_name_is_the_group_itself) {
    const FakeRoot root;
    write_host(root);
    root.write("/proc/self/mountinfo", "36 31 0:33 /kubepods/x /cg/memory rw - cgroup cgroup "
                                       "rw,memory\n");
    be_in(root, "/", "/docker/k/kubepods/x");
    write_v1(root, "", std::to_string(48 * kMiB));
    CHECK(has_limit(sample_of(root), 48 * kMiB));
}

TEST(group_outside_of_the_namespace_is_unknown) {
    const FakeRoot root;
    write_host(root);
    be_in(root, "/../x", "/../x");
    write_v2(root, "", std::to_string(48 * kMiB));
    write_v2(root, "/../x", std::to_string(32 * kMiB));  // a stranger's: above the mount
    write_v1(root, "", std::to_string(48 * kMiB));
    const MemorySample sample = sample_of(root);
    CHECK(!sample.has(SampleField::cgroup_usage));
    CHECK(!sample.has(SampleField::cgroup_limit));
    CHECK(sample.memory_pressure_us == 777);  // the host's
}

TEST(group_outside_of_the_namespace_is_found_in_a_mount_from_outside) {
    const FakeRoot root;
    write_host(root);
    root.write("/proc/self/mountinfo", "31 23 0:28 /.. /cg/v2 rw - cgroup2 cgroup2 rw\n");
    be_in(root, "/../x", "/");
    write_v2(root, "/x", std::to_string(32 * kMiB));
    CHECK(has_limit(sample_of(root), 32 * kMiB));
}

TEST(mount_point_with_a_blank_in_its_name_is_found) {
    const FakeRoot root;
    write_host(root);
    root.write("/proc/self/mountinfo", "31 23 0:28 / /cg/my\\040v2 rw - cgroup2 cgroup2 rw\n");
    be_in(root, "/app", "/");
    root.write("/cg/my v2/app/memory.current", "4096\n");
    CHECK(sample_of(root).cgroup_usage_bytes == 4096);
}

TEST(damaged_files_of_proc_mean_no_group) {
    for (const char* text :
         {"", "\n\n", "0::", "0:", "x", "0::no-slash\n", "::::\n", "4:memory\n"}) {
        const FakeRoot root;
        write_host(root);
        root.write("/proc/self/cgroup", text);
        CHECK(!sample_of(root).has(SampleField::cgroup_usage));
    }
    const FakeRoot root;
    write_host(root);
    be_in(root, "/app", "/app");
    write_v2(root, "/app", "max");
    root.write("/proc/self/mountinfo", "31 - cgroup2\n - \n31 23 0:28 / - cgroup2 x rw\n\\");
    CHECK(!sample_of(root).has(SampleField::cgroup_usage));
}

// --- what happens meanwhile

TEST(process_that_is_moved_is_followed_by_the_next_sample) {
    const FakeRoot root;
    write_host(root);
    be_in(root, "/one", "/");
    write_v2(root, "/one", std::to_string(64 * kMiB), "max", 1000);
    write_v2(root, "/two", std::to_string(32 * kMiB), "max", 2000);
    CgroupReader reader{root.path()};
    CHECK(sample_of(reader).cgroup_usage_bytes == 1000);
    be_in(root, "/two", "/");
    const MemorySample moved = sample_of(reader);
    CHECK(moved.cgroup_usage_bytes == 2000);
    CHECK(has_limit(moved, 32 * kMiB));
}

TEST(group_that_vanishes_is_lost_and_found_again) {
    const FakeRoot root;
    write_host(root);
    be_in(root, "/app", "/");
    write_v2(root, "/app", "max");
    CgroupReader reader{root.path()};
    MemorySample sample;
    CHECK(reader.read_usage(sample));
    root.write("/cg/v2/app/memory.current", "");  // what a removed group's file reads like
    MemorySample lost;
    CHECK(!reader.read_usage(lost));
    reader.read_rest(lost);
    CHECK(!lost.has(SampleField::cgroup_usage));
    write_v2(root, "/app", std::to_string(8 * kMiB));
    const MemorySample found = sample_of(reader);
    CHECK(found.has(SampleField::cgroup_usage) && has_limit(found, 8 * kMiB));
}

TEST(files_that_vanish_leave_their_fields_unknown) {
    const FakeRoot root;
    write_host(root);
    be_in(root, "/app", "/");
    write_v2(root, "/app", std::to_string(64 * kMiB));
    for (const char* name : {"stat", "events", "pressure", "max", "high", "swap.current"}) {
        root.remove(std::string{"/cg/v2/app/memory."} + name);
    }
    root.remove("/proc/pressure");
    CgroupReader reader{root.path()};
    const MemorySample sample = sample_of(reader);
    CHECK(sample.valid == static_cast<std::uint64_t>(SampleField::cgroup_usage));
}

TEST(pressure_that_the_kernel_does_not_keep_for_groups_is_the_hosts) {
    const FakeRoot root;
    write_host(root);
    be_in(root, "/app", "/");
    write_v2(root, "/app", "max");
    root.write("/cg/v2/app/memory.pressure", "");
    CHECK(sample_of(root).memory_pressure_us == 777);
}

TEST(without_proc_nothing_is_known) {
    const FakeRoot root;
    CgroupReader reader{root.path()};
    CHECK(sample_of(reader).valid == 0);
}

TEST(descriptors_are_kept_and_given_back) {
    const auto open = [] {
        const std::filesystem::directory_iterator all{"/proc/self/fd"};
        return std::distance(begin(all), end(all));
    };
    const FakeRoot root;
    write_host(root);
    be_in(root, "/a/b", "/");
    write_v2(root, "/a/b", "max");
    write_v2(root, "/a", "max");
    const auto before = open();
    {
        CgroupReader reader{root.path()};
        static_cast<void>(sample_of(reader));
        const auto during = open();
        CHECK(during > before);
        for (int i = 0; i < 10; ++i) {
            static_cast<void>(sample_of(reader));
        }
        CHECK(open() == during);
        reader.close();
        CHECK(open() == before);
        CHECK(sample_of(reader).has(SampleField::cgroup_usage));
        CHECK(open() == during);
    }
    CHECK(open() == before);
}

TEST(child_of_a_fork_reads_the_group_that_it_is_in) {
    const FakeRoot root;
    write_host(root);
    be_in(root, "/one", "/");
    write_v2(root, "/one", "max", "max", 1000);
    write_v2(root, "/two", "max", "max", 2000);
    CgroupReader reader{root.path()};
    static_cast<void>(sample_of(reader));
    be_in(root, "/two", "/");
    const ::pid_t child = ::fork();
    if (child == 0) {
        ::_exit(sample_of(reader).cgroup_usage_bytes == 2000 ? 0 : 1);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    CHECK(status == 0);
}

TEST(group_of_this_process_can_be_read) {
    if (::access("/proc/self/cgroup", R_OK) != 0 ||
        !find_cgroup("", detail::whole_file("/proc/self/cgroup"))) {
        return;  // a container that mounts no groups
    }
    CgroupReader reader;
    const MemorySample sample = sample_of(reader);
    CHECK(sample.has(SampleField::cgroup_usage) && sample.cgroup_usage_bytes > 0);
    CHECK(sample.has(SampleField::cgroup_private));
}
