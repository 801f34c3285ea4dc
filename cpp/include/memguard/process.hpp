// Notices a fork: the same memory may be running in another process than the one that wrote it.
#pragma once

#include <atomic>   // std::atomic
#include <cstdint>  // std::uint64_t

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>  // pthread_atfork
#include <unistd.h>   // getpid
#elif defined(_WIN32)
#include <process.h>  // _getpid
#endif

namespace memguard {

namespace detail {
// The one global of the core: a fork happens to the process, not to an object.
inline std::atomic<std::uint64_t> forks{0};
}  // namespace detail

// How many forks lie between this process and the one that asked first. An object that keeps the
// number tells by it whether it was made by this process or copied from a parent. Costs 1 ns, where
// getpid() is a system call; does not see a clone() that bypasses the C library's fork().
[[nodiscard]] inline std::uint64_t fork_epoch() noexcept {
#if defined(__unix__) || defined(__APPLE__)
    [[maybe_unused]] static const int registered = ::pthread_atfork(nullptr, nullptr, [] {
        // relaxed: runs in the child of a fork, which has one thread
        detail::forks.fetch_add(1, std::memory_order_relaxed);
    });
#endif
    // relaxed: changes only where there is no second thread
    return detail::forks.load(std::memory_order_relaxed);
}

[[nodiscard]] inline std::uint32_t current_pid() noexcept {
#if defined(_WIN32)
    return static_cast<std::uint32_t>(::_getpid());
#else
    return static_cast<std::uint32_t>(::getpid());
#endif
}

}  // namespace memguard
