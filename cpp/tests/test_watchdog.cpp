// A worker over its ceiling, and one whose supervisor has ended: with real processes and sockets.
#include "check.hpp"

#include <fcntl.h>        // open
#include <poll.h>         // poll
#include <sys/socket.h>   // socketpair
#include <sys/syscall.h>  // SYS_pidfd_open
#include <sys/wait.h>     // waitpid
#include <unistd.h>       // fork

#include <atomic>   // std::atomic
#include <chrono>   // std::chrono::milliseconds
#include <csignal>  // kill
#include <string>   // std::string
#include <thread>   // std::this_thread

#include "fake_root.hpp"
#include "memguard/watchdog.hpp"

using namespace memguard;
using test::FakeRoot;

namespace {

constexpr std::int64_t kMb = 1 << 20;
constexpr std::int64_t kHour = 3600 * kNsPerSecond;

// A process that lives until it is told to end.
class Supervisor {
  public:
    Supervisor() {
        CHECK(::pipe(lifeline_) == 0);
        pid_ = ::fork();
        if (pid_ == 0) {
            ::close(lifeline_[1]);
            char end = 0;
            static_cast<void>(!::read(lifeline_[0], &end, 1));
            ::_exit(0);
        }
        ::close(lifeline_[0]);
        pidfd_ = static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0));
        CHECK(pidfd_ >= 0);
    }
    ~Supervisor() {
        end();
        ::close(pidfd_);
        ::waitpid(pid_, nullptr, 0);
    }
    Supervisor(const Supervisor&) = delete;
    Supervisor& operator=(const Supervisor&) = delete;

    void end() {
        if (lifeline_[1] >= 0) {
            ::close(lifeline_[1]);
            lifeline_[1] = -1;
        }
    }
    [[nodiscard]] int pidfd() const { return pidfd_; }

  private:
    int lifeline_[2] = {-1, -1};
    int pidfd_ = -1;
    pid_t pid_ = -1;
};

// The two ends of a control channel: the worker's, and the supervisor's.
struct Channel {
    Channel() { CHECK(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0); }
    ~Channel() {
        ::close(ends[0]);
        ::close(ends[1]);
    }
    Channel(const Channel&) = delete;
    Channel& operator=(const Channel&) = delete;

    // The next message within the time; empty: none came.
    [[nodiscard]] std::string receive(int timeout_ms) const {
        struct pollfd asked{ends[1], POLLIN, 0};
        if (::poll(&asked, 1, timeout_ms) != 1) {
            return {};
        }
        char text[64];
        const ssize_t length = ::recv(ends[1], text, sizeof text, 0);
        return length > 0 ? std::string(text, static_cast<std::size_t>(length)) : std::string{};
    }

    int ends[2] = {-1, -1};
};

constexpr int kLong = 20'000;  // ms: waited for what has to come

// A process with 100 MB of private memory, and what watches it.
struct Fixture {
    Fixture() { write_memory(100); }

    // Half of it anonymous, the rest shared and swapped out.
    void write_memory(std::int64_t mb) const {
        const auto page = ::sysconf(_SC_PAGESIZE);
        const auto kib = [](std::int64_t bytes) { return std::to_string(bytes / 1024); };
        const std::int64_t bytes = mb * kMb;
        root.write("/proc/self/statm", "0 " + std::to_string(bytes * 3 / 4 / page) + " " +
                                           std::to_string(bytes / 4 / page) + " 0 0 0 0\n");
        root.write("/proc/self/status",
                   "RssAnon:\t" + kib(bytes / 2) + " kB\nRssFile:\t0 kB\nRssShmem:\t" +
                       kib(bytes / 4) + " kB\nVmSwap:\t" + kib(bytes / 4) + " kB\nThreads:\t1\n");
    }

    [[nodiscard]] Watchdog::Setup setup() {
        Watchdog::Setup setup;
        setup.control_fd = channel.ends[0];
        setup.message = "over";
        setup.supervisor_pidfd = supervisor.pidfd();
        setup.grace_ns = kHour;
        setup.interval_ns = kNsPerMs;
        setup.find_worker = [this] {
            looks.fetch_add(1);
            return &worker;
        };
        setup.root = root.path();
        return setup;
    }

    // Until `count` more looks have begun after this.
    void wait_for_looks(int count = 3) const {
        const int seen = looks.load();
        while (looks.load() < seen + count) {
            std::this_thread::sleep_for(std::chrono::milliseconds{1});
        }
    }

    FakeRoot root;
    Supervisor supervisor;
    Channel channel;
    SharedWorker worker;
    std::atomic<int> looks{0};
};

}  // namespace

TEST(own_memory_at_the_ceiling_is_none_beyond_it) {
    Fixture made;
    Watchdog watchdog{made.setup()};
    watchdog.watch_memory(60 * kMb, 40 * kMb);
    watchdog.start();
    made.wait_for_looks();
    CHECK(made.worker.is_over_ceiling.load() == 0);
    CHECK(made.channel.receive(0).empty());
}

TEST(own_memory_over_the_ceiling_is_told_in_the_slot_and_by_one_message) {
    Fixture made;
    Watchdog watchdog{made.setup()};
    watchdog.watch_memory(60 * kMb, 40 * kMb - 1);
    watchdog.start();
    CHECK(made.channel.receive(kLong) == "over");
    CHECK(made.worker.is_over_ceiling.load() == 1);
    CHECK(made.worker.private_bytes.load() == 100 * kMb);
    CHECK(made.worker.own_bytes.load() == 60 * kMb + 1);
    watchdog.watch_memory(50 * kMb, 40 * kMb);  // a new look at what is its own
    made.wait_for_looks();
    CHECK(made.channel.receive(0).empty());
}

TEST(memory_that_grows_while_it_is_watched_is_seen_and_so_is_what_is_given_back) {
    Fixture made;
    Watchdog watchdog{made.setup()};
    watchdog.watch_memory(120 * kMb, 0);
    watchdog.start();
    made.wait_for_looks();
    CHECK(made.worker.is_over_ceiling.load() == 0);
    made.write_memory(140);
    CHECK(made.channel.receive(kLong) == "over");
    made.write_memory(100);
    while (made.worker.is_over_ceiling.load() != 0) {
        std::this_thread::yield();
    }
}

TEST(memory_is_not_watched_before_it_is_asked_for_nor_after_it_was_taken_back) {
    Fixture made;
    Watchdog watchdog{made.setup()};
    watchdog.start();
    made.wait_for_looks();
    CHECK(made.worker.is_over_ceiling.load() == 0);
    watchdog.watch_memory(1, 0);
    CHECK(made.channel.receive(kLong) == "over");
    watchdog.watch_memory(std::nullopt, 0);
    made.wait_for_looks();
    CHECK(made.worker.is_over_ceiling.load() == 0);
}

TEST(an_offset_below_zero_counts_as_own_memory_and_none_overflows) {
    Fixture made;
    Watchdog watchdog{made.setup()};
    constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
    watchdog.watch_memory(kMost, kMost);
    watchdog.start();
    made.wait_for_looks();
    CHECK(made.worker.is_over_ceiling.load() == 0);
    watchdog.watch_memory(120 * kMb, -30 * kMb);
    CHECK(made.channel.receive(kLong) == "over");
}

TEST(a_message_that_finds_the_queue_full_is_sent_when_there_is_room) {
    Fixture made;
    while (::send(made.channel.ends[0], "busy", 4, MSG_DONTWAIT) == 4) {
    }
    Watchdog watchdog{made.setup()};
    watchdog.watch_memory(1, 0);
    watchdog.start();
    made.wait_for_looks();
    std::string last;
    while (last != "over") {
        last = made.channel.receive(kLong);
        CHECK(last == "busy" || last == "over");
    }
    made.wait_for_looks();
    CHECK(made.channel.receive(0).empty());
}

TEST(a_message_that_is_due_is_sent_although_memory_was_given_back_meanwhile) {
    Fixture made;
    int busy = 0;
    while (::send(made.channel.ends[0], "busy", 4, MSG_DONTWAIT) == 4) {
        ++busy;
    }
    Watchdog watchdog{made.setup()};
    watchdog.watch_memory(1, 0);
    watchdog.start();
    made.wait_for_looks();
    watchdog.watch_memory(200 * kMb, 0);
    made.wait_for_looks();
    for (int i = 0; i < busy; ++i) {
        CHECK(made.channel.receive(kLong) == "busy");
    }
    CHECK(made.channel.receive(kLong) == "over");
}

TEST(memory_that_cannot_be_read_decides_nothing) {
    Fixture made;
    Watchdog watchdog{made.setup()};
    made.root.remove("/proc");
    watchdog.watch_memory(1, 0);
    watchdog.start();
    CHECK(made.channel.receive(50).empty());
    CHECK(made.looks.load() == 0);
    made.write_memory(100);
    CHECK(made.channel.receive(kLong) == "over");
}

TEST(a_worker_without_a_slot_is_watched_as_well) {
    Fixture made;
    Watchdog::Setup setup = made.setup();
    setup.find_worker = []() -> SharedWorker* { return nullptr; };
    Watchdog watchdog{std::move(setup)};
    watchdog.watch_memory(1, 0);
    watchdog.start();
    CHECK(made.channel.receive(kLong) == "over");
}

TEST(a_descriptor_whose_number_another_file_has_got_is_not_written_to) {
    Fixture made;
    Channel clients;
    Watchdog watchdog{made.setup()};
    CHECK(::dup2(clients.ends[0], made.channel.ends[0]) == made.channel.ends[0]);
    watchdog.watch_memory(1, 0);
    watchdog.start();
    made.wait_for_looks();
    CHECK(made.worker.is_over_ceiling.load() == 1);
    CHECK(clients.receive(0).empty());
}

TEST(a_worker_whose_supervisor_lives_is_left_alone) {
    Fixture made;
    Watchdog::Setup setup = made.setup();
    setup.grace_ns = 0;
    Watchdog watchdog{std::move(setup)};
    watchdog.start();
    made.wait_for_looks();
}

TEST(a_readable_file_that_has_got_the_pidfds_number_is_no_end_of_the_supervisor) {
    Fixture made;
    Watchdog::Setup setup = made.setup();
    setup.grace_ns = 0;
    Watchdog watchdog{std::move(setup)};
    const int file = ::open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    CHECK(::dup2(file, made.supervisor.pidfd()) == made.supervisor.pidfd());
    ::close(file);
    watchdog.start();
    made.wait_for_looks();
}

TEST(stop_within_the_grace_lets_the_worker_live) {
    Fixture made;
    Watchdog watchdog{made.setup()};
    watchdog.start();
    made.supervisor.end();
    made.wait_for_looks();
    watchdog.stop();
    watchdog.stop();
    const int at_the_end = made.looks.load();
    std::this_thread::sleep_for(std::chrono::milliseconds{10});
    CHECK(made.looks.load() == at_the_end);
}

#if !defined(                                                                                      \
    __SANITIZE_THREAD__)  // it forbids to start threads in the child of a process with threads
namespace {

// The signal that ended a process whose body hangs; its own child ends with it, or is told to live.
struct Ended {
    int signal;
    bool child_lives;
};

Ended hang_without_supervisor(bool leads_a_group) {
    int pids[2];
    CHECK(::pipe(pids) == 0);
    const pid_t worker = ::fork();
    if (worker == 0) {
        ::alarm(30);  // a child that is not killed is a failure, not a hanging test
        if (leads_a_group) {
            ::setpgid(0, 0);
        }
        const pid_t child = ::fork();
        if (child == 0) {
            ::close(pids[0]);
            ::close(pids[1]);
            ::alarm(30);
            for (;;) {
                ::pause();
            }
        }
        CHECK(::write(pids[1], &child, sizeof child) == sizeof child);
        Fixture made;
        Watchdog::Setup setup = made.setup();
        setup.grace_ns = 20 * kNsPerMs;
        Watchdog watchdog{std::move(setup)};
        watchdog.start();
        made.supervisor.end();
        for (;;) {
            ::pause();
        }
    }
    pid_t child = 0;
    CHECK(::read(pids[0], &child, sizeof child) == sizeof child);
    ::close(pids[0]);
    ::close(pids[1]);
    const int child_pidfd = static_cast<int>(::syscall(SYS_pidfd_open, child, 0));
    int status = 0;
    CHECK(::waitpid(worker, &status, 0) == worker);
    struct pollfd asked{child_pidfd, POLLIN, 0};
    const bool lives = ::poll(&asked, 1, leads_a_group ? kLong : 50) == 0;
    ::close(child_pidfd);
    ::kill(child, SIGKILL);
    return {WIFSIGNALED(status) ? WTERMSIG(status) : 0, lives};
}

}  // namespace

TEST(a_worker_that_hangs_after_its_supervisors_end_is_killed_with_its_group) {
    const Ended ended = hang_without_supervisor(true);
    CHECK(ended.signal == SIGKILL && !ended.child_lives);
}

TEST(a_worker_that_leads_no_group_is_killed_alone) {
    const Ended ended = hang_without_supervisor(false);
    CHECK(ended.signal == SIGKILL && ended.child_lives);
}
#endif
