#include "check.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <optional>
#include <thread>
#include <vector>

#include "memguard/clock.hpp"
#include "memguard/probe.hpp"
#include "memguard/sampler.hpp"

using namespace memguard;

namespace {

constexpr std::int64_t kHour = 3600 * kNsPerSecond;

// What a fake probe was asked, shared with the test.
struct Script {
    std::atomic<int> samples{0};
    std::atomic<int> closes{0};
    std::atomic<bool> hold{false};
    std::atomic<int> takes_ms{0};
    std::atomic<bool> sees_signal_blocked{false};
};

// A probe that finds as many bytes as it was asked times.
class FakeProbe {
  public:
    explicit FakeProbe(Script& script) : script_(&script) {}

    MemorySample sample() noexcept {
        sigset_t blocked;
        ::pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
        // relaxed in all of these: counters and switches of a test, which order nothing
        script_->sees_signal_blocked.store(::sigismember(&blocked, SIGTERM) == 1 &&
                                               ::sigismember(&blocked, SIGSEGV) == 0,
                                           std::memory_order_relaxed);
        MemorySample sample;
        sample.monotonic_ns = monotonic_ns();
        sample.rss_bytes = static_cast<std::uint64_t>(
            script_->samples.fetch_add(1, std::memory_order_relaxed) + 1);
        std::this_thread::sleep_for(
            std::chrono::milliseconds{script_->takes_ms.load(std::memory_order_relaxed)});
        while (script_->hold.load(std::memory_order_relaxed)) {
            std::this_thread::yield();
        }
        return sample;
    }

    void close() noexcept { script_->closes.fetch_add(1, std::memory_order_relaxed); }

  private:
    Script* script_;
};

using FakeSampler = Sampler<FakeProbe>;

std::vector<MemorySample> samples_of(const FakeSampler& sampler) {
    std::vector<MemorySample> samples(sampler.samples().capacity());
    samples.resize(sampler.samples().snapshot(samples.data(), samples.size()).count);
    return samples;
}

}  // namespace

TEST(sampler_that_was_not_started_takes_no_sample) {
    Script script;
    FakeSampler sampler{kNsPerMs, 8, script};
    CHECK(!sampler.wait_for_sample(0, 20 * kNsPerMs));
    CHECK(sampler.samples().pushed() == 0);
}

TEST(first_sample_is_taken_at_once) {
    Script script;
    FakeSampler sampler{kHour, 8, script};
    sampler.start();
    CHECK(sampler.wait_for_sample(0, kHour));
    CHECK(sampler.samples().pushed() == 1);
    CHECK(samples_of(sampler)[0].rss_bytes == 1);
}

TEST(samples_keep_to_the_interval) {
    Script script;
    FakeSampler sampler{5 * kNsPerMs, 64, script};
    const std::int64_t started = monotonic_ns();
    sampler.start();
    CHECK(sampler.wait_for_sample(20, kHour));
    sampler.stop();
    const auto samples = samples_of(sampler);
    for (std::size_t i = 0; i <= 20; ++i) {
        CHECK(samples[i].monotonic_ns - started >= static_cast<std::int64_t>(i) * 5 * kNsPerMs);
    }
}

TEST(time_that_samples_take_does_not_add_up) {
    constexpr std::int64_t kPeriod = 20 * kNsPerMs;
    Script script;
    script.takes_ms.store(5, std::memory_order_relaxed);  // relaxed: a switch
    FakeSampler sampler{kPeriod, 64, script};
    sampler.start();
    CHECK(sampler.wait_for_sample(20, kHour));
    sampler.stop();
    const auto samples = samples_of(sampler);
    // How late half of them are at most, measured from one that was in time. Did the five
    // milliseconds add up, they would lie 0, 5, 10 and 15 ms beside any of them.
    std::int64_t least = kPeriod;
    for (const MemorySample& in_time : samples) {
        std::vector<std::int64_t> late;
        for (const MemorySample& sample : samples) {
            const std::int64_t apart = (sample.monotonic_ns - in_time.monotonic_ns) % kPeriod;
            late.push_back(apart < 0 ? apart + kPeriod : apart);
        }
        std::sort(late.begin(), late.end());
        least = std::min(least, late[late.size() / 2]);
    }
    CHECK(least < 8 * kNsPerMs);
}

TEST(sampler_that_was_held_up_does_not_make_up_for_what_it_missed) {
    Script script;
    script.hold.store(true, std::memory_order_relaxed);  // relaxed: a switch
    FakeSampler sampler{20 * kNsPerMs, 64, script};
    sampler.start();
    std::this_thread::sleep_for(std::chrono::milliseconds{210});
    const std::int64_t released = monotonic_ns();
    script.hold.store(false, std::memory_order_relaxed);
    CHECK(sampler.wait_for_sample(3, kHour));
    sampler.stop();
    const auto samples = samples_of(sampler);
    // The next one waits for a point of the grid after the hold-up, and so does each that follows.
    CHECK(samples[1].monotonic_ns >= released);
    CHECK(samples[2].monotonic_ns - released >= 20 * kNsPerMs);
    CHECK(samples[3].monotonic_ns - released >= 40 * kNsPerMs);
}

TEST(second_start_starts_nothing) {
    Script script;
    FakeSampler sampler{kHour, 8, script};
    sampler.start();
    sampler.start();
    CHECK(sampler.wait_for_sample(0, kHour));
    CHECK(!sampler.wait_for_sample(1, 20 * kNsPerMs));
}

TEST(stop_is_quick_and_idempotent_and_final) {
    Script script;
    FakeSampler sampler{kHour, 8, script};
    sampler.start();
    CHECK(sampler.wait_for_sample(0, kHour));
    const std::int64_t start = monotonic_ns();
    sampler.stop();
    sampler.stop();
    CHECK(monotonic_ns() - start < kNsPerSecond);
    sampler.start();
    CHECK(!sampler.wait_for_sample(0, kHour));
    CHECK(sampler.samples().pushed() == 1);
}

TEST(stop_wakes_those_who_wait_for_a_sample) {
    Script script;
    FakeSampler sampler{kHour, 8, script};
    sampler.start();
    CHECK(sampler.wait_for_sample(0, kHour));
    std::vector<std::thread> waiters;
    for (int i = 0; i < 2; ++i) {
        waiters.emplace_back([&] { CHECK(!sampler.wait_for_sample(1, kHour)); });
    }
    sampler.stop();
    for (std::thread& waiter : waiters) {
        waiter.join();
    }
}

TEST(stop_during_a_sample_waits_for_its_end) {
    Script script;
    script.hold.store(true, std::memory_order_relaxed);  // relaxed: a switch
    FakeSampler sampler{kHour, 8, script};
    sampler.start();
    while (script.samples.load(std::memory_order_relaxed) == 0) {
        std::this_thread::yield();
    }
    std::thread release{[&] { script.hold.store(false, std::memory_order_relaxed); }};
    sampler.stop();
    release.join();
    CHECK(sampler.samples().pushed() == 1);
}

TEST(stop_from_several_threads_is_safe) {
    for (int round = 0; round < 50; ++round) {
        Script script;
        FakeSampler sampler{kNsPerMs, 8, script};
        sampler.start();
        std::vector<std::thread> stoppers;
        for (int i = 0; i < 3; ++i) {
            stoppers.emplace_back([&] { sampler.stop(); });
        }
        for (std::thread& stopper : stoppers) {
            stopper.join();
        }
    }
}

TEST(destruction_stops_the_thread) {
    Script script;
    {
        FakeSampler sampler{kNsPerMs, 8, script};
        sampler.start();
        CHECK(sampler.wait_for_sample(0, kHour));
    }
    const int samples = script.samples.load(std::memory_order_relaxed);  // relaxed: a counter
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
    CHECK(script.samples.load(std::memory_order_relaxed) == samples);
}

TEST(sampler_thread_takes_no_signals_but_its_own_faults) {
    Script script;
    sigset_t before;
    sigset_t after;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &before);
    FakeSampler sampler{kHour, 8, script};
    sampler.start();
    ::pthread_sigmask(SIG_SETMASK, nullptr, &after);
    CHECK(sampler.wait_for_sample(0, kHour));
    CHECK(
        script.sees_signal_blocked.load(std::memory_order_relaxed));  // relaxed: set before a push
    CHECK(::sigismember(&after, SIGTERM) == ::sigismember(&before, SIGTERM));
}

TEST(native_probe_is_sampled) {
    Sampler<NativeProbe> sampler{kHour, 8};
    sampler.start();
    CHECK(sampler.wait_for_sample(0, kHour));
    MemorySample sample;
    CHECK(sampler.samples().snapshot(&sample, 1).count == 1);
    CHECK(sample.has(SampleField::rss) == kNativeProbe);
}

#if !defined(                                                                                      \
    __SANITIZE_THREAD__)  // it forbids to start threads in the child of a process with threads
namespace {

template <class Body>
int exit_status_of_child(Body&& body) {
    const ::pid_t child = ::fork();
    if (child == 0) {
        ::alarm(10);  // a child that hangs is a failure, not a hanging test
        ::_exit(body() ? 0 : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TEST(child_of_a_fork_abandons_the_thread_of_its_parent) {
    Script script;
    std::optional<FakeSampler> sampler{std::in_place, kNsPerMs, 8U, script};
    sampler->start();
    CHECK(sampler->wait_for_sample(0, kHour));
    for (int round = 0; round < 20; ++round) {
        CHECK(exit_status_of_child([&] {
                  const bool waited = sampler->wait_for_sample(1U << 30, kHour);
                  sampler->start();
                  sampler->stop();
                  sampler->stop();
                  sampler.reset();
                  // relaxed: one thread is left
                  return !waited && script.closes.load(std::memory_order_relaxed) >= 1;
              }) == 0);
    }
    CHECK(sampler->wait_for_sample(sampler->samples().pushed(), kHour));
}

TEST(child_of_a_fork_starts_a_sampler_of_its_own_and_so_does_its_child) {
    Script script;
    FakeSampler parents{kNsPerMs, 8, script};
    parents.start();
    CHECK(exit_status_of_child([&] {
              FakeSampler own{kNsPerMs, 8, script};
              own.start();
              const bool child_samples = own.wait_for_sample(2, 5 * kNsPerSecond);
              const int grandchild = exit_status_of_child([&] {
                  FakeSampler grandchilds{kNsPerMs, 8, script};
                  grandchilds.start();
                  return grandchilds.wait_for_sample(2, 5 * kNsPerSecond);
              });
              return child_samples && grandchild == 0;
          }) == 0);
}
#endif
