// Sampler<Probe>: a thread that samples a probe at an interval into a ring.
//
// It knows nothing of Python: it goes on while a C library holds the GIL, and takes no GIL itself.
// start() and stop(): any thread; stop() joins. samples(), wait_for_sample(): any thread.
// After a fork only the thread that forked lives on. In the child the object is a husk: its thread
// is never joined or destroyed (std::terminate), nor are the mutex and the condition variables that
// it may have held: they are left to leak, and a fresh object takes over.
#pragma once

#include <chrono>              // std::chrono::steady_clock
#include <condition_variable>  // std::condition_variable
#include <cstddef>             // std::size_t
#include <cstdint>             // std::int64_t
#include <memory>              // std::unique_ptr
#include <mutex>               // std::mutex
#include <thread>              // std::thread
#include <utility>             // std::forward

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>  // pthread_sigmask
#include <signal.h>   // sigset_t
#endif

#include "memguard/process.hpp"
#include "memguard/ring.hpp"
#include "memguard/sample.hpp"

namespace memguard {

// While it lives, threads that are created take no asynchronous signal: a signal that is delivered
// to a helper thread does not interrupt the sleep or select() of the main thread.
class BlockSignals {
  public:
#if defined(__unix__) || defined(__APPLE__)
    BlockSignals() noexcept {
        sigset_t all;
        ::sigfillset(&all);
        for (const int own_fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP}) {
            ::sigdelset(&all,
                        own_fault);  // raised by the thread itself: a handler reports the crash
        }
        ::pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    ~BlockSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
    BlockSignals(const BlockSignals&) = delete;
    BlockSignals& operator=(const BlockSignals&) = delete;

  private:
    sigset_t before_;
#endif
};

template <class Probe>
class Sampler {
    using Clock = std::chrono::steady_clock;

  public:
    // Takes a sample every `interval_ns` > 0 once it is started, and keeps the newest `capacity`.
    template <class... ProbeArguments>
    Sampler(std::int64_t interval_ns, std::size_t capacity, ProbeArguments&&... arguments)
        : interval_(interval_ns), probe_(std::forward<ProbeArguments>(arguments)...),
          ring_(capacity), thread_(std::make_unique<Thread>()) {}

    ~Sampler() { stop(); }
    Sampler(const Sampler&) = delete;
    Sampler& operator=(const Sampler&) = delete;

    // Starts the thread, which samples at once; does nothing if it was started before. Throws
    // std::system_error if the system gives no thread. A stopped sampler is not started again.
    void start() {
        if (abandoned()) {
            return;
        }
        const std::lock_guard lock(thread_->mutex);
        if (thread_->started || thread_->stopping) {
            return;
        }
        const BlockSignals blocked;
        thread_->handle = std::thread([this] { run(); });
        thread_->started = true;
    }

    // Wakes everybody who waits and joins the thread; of several callers one joins, and the others
    // may return earlier. In a child of the process that made it: gives up what can be given up.
    void stop() noexcept {
        if (abandoned()) {
            static_cast<void>(thread_.release());  // leaks: see the contract above
            probe_.close();
            return;
        }
        std::thread handle;
        {
            const std::lock_guard lock(thread_->mutex);
            thread_->stopping = true;
            handle.swap(thread_->handle);
        }
        thread_->stop_requested.notify_all();
        thread_->sample_taken.notify_all();
        if (handle.joinable()) {
            handle.join();
        }
    }

    // Waits until more than `after` samples were ever taken: true. False when `timeout_ns` is over,
    // and at once when it is stopped, or belongs to the parent of this process.
    [[nodiscard]] bool wait_for_sample(std::uint64_t after, std::int64_t timeout_ns) noexcept {
        if (abandoned()) {
            return false;
        }
        std::unique_lock lock(thread_->mutex);
        thread_->sample_taken.wait_until(
            lock, Clock::now() + std::chrono::nanoseconds{timeout_ns},
            [&] { return thread_->stopping || ring_.pushed() > after; });
        return !thread_->stopping && ring_.pushed() > after;
    }

    [[nodiscard]] const HistoryRing<MemorySample>& samples() const noexcept { return ring_; }

    // For what may be read of a probe while the thread uses it.
    [[nodiscard]] const Probe& probe() const noexcept { return probe_; }

    // For what any thread may ask of it meanwhile.
    [[nodiscard]] Probe& probe() noexcept { return probe_; }

  private:
    struct Thread {
        std::mutex mutex;  // guards the four below; never held during a sample
        std::thread handle;
        bool started = false;
        bool stopping = false;
        std::condition_variable stop_requested;
        std::condition_variable sample_taken;
    };

    [[nodiscard]] bool abandoned() const noexcept { return owner_ != fork_epoch(); }

    void run() noexcept {
#if defined(__linux__)
        ::pthread_setname_np(::pthread_self(), "memguard-sample");  // 15 letters are allowed
#endif
        Clock::time_point due = Clock::now();
        std::unique_lock lock(thread_->mutex);
        while (!thread_->stopping) {
            lock.unlock();
            ring_.push(probe_.sample());
            lock.lock();
            thread_->sample_taken.notify_all();
            // Kept to a grid, so that lateness does not add up; what was missed is not made up for.
            const Clock::time_point now = Clock::now();
            due += interval_ * ((now - due) / interval_ + 1);
            thread_->stop_requested.wait_until(lock, due, [&] { return thread_->stopping; });
        }
    }

    const std::chrono::nanoseconds interval_;
    const std::uint64_t owner_ = fork_epoch();
    Probe probe_;  // used by the thread alone while it runs
    HistoryRing<MemorySample> ring_;
    std::unique_ptr<Thread> thread_;
};

}  // namespace memguard
