// IntervalThread: a thread that does one piece of work at an interval.
//
// It knows nothing of Python: it goes on while a C library holds the GIL, and takes no GIL itself.
// start(), stop(), wait_until(): any thread; stop() joins.
// After a fork only the thread that forked lives on. In the child the object is a husk: its thread
// is never joined or destroyed (std::terminate), nor are the mutex and the condition variables that
// it may have held: they are left to leak, and a fresh object takes over.
#pragma once

#include <chrono>              // std::chrono::steady_clock
#include <condition_variable>  // std::condition_variable
#include <cstdint>             // std::int64_t
#include <functional>          // std::function
#include <memory>              // std::unique_ptr
#include <mutex>               // std::mutex
#include <thread>              // std::thread
#include <utility>             // std::move

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>  // pthread_sigmask
#include <signal.h>   // sigset_t
#endif

#include "memguard/process.hpp"

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

class IntervalThread {
    using Clock = std::chrono::steady_clock;

  public:
    // Calls `work`, which throws nothing, every `interval_ns` > 0 once it is started. `name`: of
    // the thread, at most 15 letters.
    IntervalThread(const char* name, std::int64_t interval_ns, std::function<void()> work)
        : name_(name), interval_(interval_ns), work_(std::move(work)),
          thread_(std::make_unique<Thread>()) {}

    ~IntervalThread() { stop(); }
    IntervalThread(const IntervalThread&) = delete;
    IntervalThread& operator=(const IntervalThread&) = delete;

    // Starts the thread, which works at once; does nothing if it was started before. Throws
    // std::system_error if the system gives no thread. A stopped one is not started again.
    void start() {
        if (is_abandoned()) {
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
        if (is_abandoned()) {
            static_cast<void>(thread_.release());  // leaks: see the contract above
            return;
        }
        std::thread handle;
        {
            const std::lock_guard lock(thread_->mutex);
            thread_->stopping = true;
            handle.swap(thread_->handle);
        }
        thread_->stop_requested.notify_all();
        thread_->worked.notify_all();
        if (handle.joinable()) {
            handle.join();
        }
    }

    // Waits until `condition()`, asked after each piece of work, holds: true. False when
    // `timeout_ns` is over, and at once when it is stopped, or belongs to the parent of this
    // process.
    template <class Condition>
    [[nodiscard]] bool wait_until(Condition condition, std::int64_t timeout_ns) noexcept {
        if (is_abandoned()) {
            return false;
        }
        std::unique_lock lock(thread_->mutex);
        thread_->worked.wait_until(lock, Clock::now() + std::chrono::nanoseconds{timeout_ns},
                                   [&] { return thread_->stopping || condition(); });
        return !thread_->stopping && condition();
    }

    // Whether this is a child of the process that made it.
    [[nodiscard]] bool is_abandoned() const noexcept { return owner_ != fork_epoch(); }

  private:
    struct Thread {
        std::mutex mutex;  // guards the three below; never held during the work
        std::thread handle;
        bool started = false;
        bool stopping = false;
        std::condition_variable stop_requested;
        std::condition_variable worked;
    };

    void run() noexcept {
#if defined(__linux__)
        ::pthread_setname_np(::pthread_self(), name_);
#endif
        Clock::time_point due = Clock::now();
        std::unique_lock lock(thread_->mutex);
        while (!thread_->stopping) {
            lock.unlock();
            work_();
            lock.lock();
            thread_->worked.notify_all();
            // Kept to a grid, so that lateness does not add up; what was missed is not made up for.
            const Clock::time_point now = Clock::now();
            due += interval_ * ((now - due) / interval_ + 1);
            thread_->stop_requested.wait_until(lock, due, [&] { return thread_->stopping; });
        }
    }

    const char* const name_;
    const std::chrono::nanoseconds interval_;
    const std::function<void()> work_;
    const std::uint64_t owner_ = fork_epoch();
    std::unique_ptr<Thread> thread_;
};

}  // namespace memguard
