// Watchdog: a thread that looks after a worker which may hang, with or without the GIL. For Linux.
//
// Over its ceiling: own memory, which is private memory without what the worker shares with its
// template, is beyond a limit. The slot then tells this and how much it is, and the supervisor is
// sent a message, once: a full queue is tried again at the next look.
// Alone: the supervisor has ended. A worker finishes its requests then and ends; one that is still
// there after the grace hangs, and is killed with the process group that it leads.
//
// start(), stop(), watch_memory(): any thread. A look allocates nothing. In the child of a fork it
// is a husk, as its thread is.
#pragma once

#include <poll.h>        // poll
#include <signal.h>      // kill
#include <sys/socket.h>  // send
#include <unistd.h>      // getpid, getpgrp

#include <atomic>      // std::atomic
#include <cstdint>     // std::int64_t
#include <functional>  // std::function
#include <limits>      // std::numeric_limits
#include <optional>    // std::optional
#include <string>      // std::string
#include <utility>     // std::move

#include "memguard/clock.hpp"
#include "memguard/file_identity.hpp"
#include "memguard/interval_thread.hpp"
#include "memguard/process_memory_linux.hpp"
#include "memguard/shared_worker.hpp"

namespace memguard {

class Watchdog {
  public:
    struct Setup {
        int control_fd = -1;  // a socket to the supervisor, which keeps whole messages
        std::string message;
        int supervisor_pidfd = -1;
        std::int64_t grace_ns = 0;
        std::int64_t interval_ns = 0;
        std::function<SharedWorker*()> find_worker;  // where to tell it; null: nowhere
        std::string root;                            // before /proc; another one is for tests
    };

    // Both descriptors are the caller's, and stay open until stop().
    explicit Watchdog(Setup setup)
        : setup_(std::move(setup)), control_(setup_.control_fd),
          supervisor_(setup_.supervisor_pidfd), memory_(setup_.root),
          thread_("memguard-watch", setup_.interval_ns, [this] { look(); }) {}

    void start() { thread_.start(); }
    void stop() noexcept {
        thread_.stop();
        if (thread_.is_abandoned()) {
            memory_.close();
        }
    }

    // From now on own memory, private memory less `offset_bytes`, may be `hard_bytes` at most;
    // none: it is not watched.
    void watch_memory(std::optional<std::int64_t> hard_bytes, std::int64_t offset_bytes) noexcept {
        std::int64_t most = kNoCeiling;
        if (!hard_bytes || __builtin_add_overflow(*hard_bytes, offset_bytes, &most)) {
            most = kNoCeiling;
        }
        // relaxed: two numbers, which order nothing; the next look sees them or the one after
        offset_bytes_.store(offset_bytes, std::memory_order_relaxed);
        most_private_bytes_.store(most, std::memory_order_relaxed);
    }

  private:
    static constexpr std::int64_t kNoCeiling = std::numeric_limits<std::int64_t>::max();

    void look() noexcept {
        look_at_memory();
        look_at_supervisor();
    }

    void look_at_memory() noexcept {
        // relaxed: as in watch_memory()
        const std::int64_t most = most_private_bytes_.load(std::memory_order_relaxed);
        std::int64_t now = 0;
        if (most != kNoCeiling) {
            MemorySample sample;
            memory_.read_into(sample);
            const auto found = sample.private_bytes();
            if (!found) {
                return;  // nothing is decided from what cannot be read
            }
            now = static_cast<std::int64_t>(*found);
        }
        const bool is_over = most != kNoCeiling && now > most;
        if (SharedWorker* const worker = setup_.find_worker()) {
            // relaxed: each is read for itself
            worker->is_over_ceiling.store(is_over ? 1 : 0, std::memory_order_relaxed);
            if (is_over) {  // the figures that led to it: the event loop may hang, and tell none
                tell_memory(*worker, now);
            }
        }
        is_message_due_ = is_message_due_ || is_over;
        if (is_message_due_ && !is_message_sent_) {
            is_message_sent_ = send_message();
        }
    }

    void tell_memory(SharedWorker& worker, std::int64_t private_bytes) const noexcept {
        const std::int64_t own_bytes =
            private_bytes - offset_bytes_.load(std::memory_order_relaxed);  // as in watch_memory()
        // relaxed: as in look_at_memory()
        worker.private_bytes.store(static_cast<std::uint64_t>(private_bytes),
                                   std::memory_order_relaxed);
        worker.own_bytes.store(static_cast<std::uint64_t>(own_bytes), std::memory_order_relaxed);
    }

    [[nodiscard]] bool send_message() const noexcept {
        return control_.is_of(setup_.control_fd) &&
               ::send(setup_.control_fd, setup_.message.data(), setup_.message.size(),
                      MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
    }

    void look_at_supervisor() noexcept {
        const std::int64_t now_ns = monotonic_ns();
        if (!alone_since_ns_ && has_supervisor_ended()) {
            alone_since_ns_ = now_ns;
        }
        if (alone_since_ns_ && now_ns - *alone_since_ns_ >= setup_.grace_ns) {
            if (::getpgrp() == ::getpid()) {
                ::kill(0, SIGKILL);
            }
            ::kill(::getpid(), SIGKILL);
        }
    }

    [[nodiscard]] bool has_supervisor_ended() const noexcept {
        struct pollfd asked{setup_.supervisor_pidfd, POLLIN, 0};
        return ::poll(&asked, 1, 0) == 1 && (asked.revents & POLLIN) != 0 &&
               supervisor_.is_of(setup_.supervisor_pidfd);
    }

    const Setup setup_;
    const FileIdentity control_;
    const FileIdentity supervisor_;
    std::atomic<std::int64_t> most_private_bytes_{kNoCeiling};
    std::atomic<std::int64_t> offset_bytes_{0};
    // Of the thread alone.
    ProcessMemory memory_;
    bool is_message_due_ = false;
    bool is_message_sent_ = false;
    std::optional<std::int64_t> alone_since_ns_;
    IntervalThread thread_;  // the last one: it ends before what it uses
};

}  // namespace memguard
