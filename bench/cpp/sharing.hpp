// A segment and the processes that share it, for programs that fork: Linux only, as segments are.
#pragma once

#include <sched.h>      // sched_getaffinity, sched_setaffinity
#include <sys/mman.h>   // mmap, memfd_create
#include <sys/prctl.h>  // prctl
#include <sys/wait.h>   // waitpid
#include <unistd.h>     // fork, ftruncate, _exit

#include <atomic>   // std::atomic
#include <csignal>  // SIGKILL
#include <cstddef>  // std::size_t
#include <cstdint>  // std::uint32_t, std::uint64_t
#include <cstdio>   // std::perror, std::fprintf
#include <cstdlib>  // std::exit
#include <new>      // placement new

#include "memguard/breaker.hpp"
#include "memguard/clock.hpp"
#include "memguard/process_owner.hpp"
#include "memguard/segment.hpp"

namespace bench {

[[noreturn]] inline void give_up(const char* call) {
    std::perror(call);
    std::exit(1);
}

inline void* map_shared(std::size_t bytes, int flags, int file) {
    void* const mapped =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | flags, file, 0);
    if (mapped == MAP_FAILED) {
        give_up("mmap");
    }
    return mapped;
}

// What the processes of a program tell each other; made before the first fork.
template <class Notes>
Notes& new_notes() {
    return *new (map_shared(sizeof(Notes), MAP_ANONYMOUS, -1)) Notes;
}

// A file with a segment in it, in memory as those of a host are.
class SegmentFile {
  public:
    SegmentFile() : file_(::memfd_create("memguard-bench", MFD_CLOEXEC)) {
        if (file_ < 0 || ::ftruncate(file_, static_cast<off_t>(memguard::Segment::kBytes)) != 0) {
            give_up("memfd_create");
        }
        memguard::Segment::format(map(), {}, 1, 1, memguard::wall_ns());
    }

    // Mapped once more, at an address of its own: each process does so for itself.
    [[nodiscard]] void* map() const { return map_shared(memguard::Segment::kBytes, 0, file_); }

  private:
    int file_;  // open as long as the program runs
};

// A breaker of the segment as one process uses it, with a mapping and a slot of its own.
class Sharer {
  public:
    explicit Sharer(const SegmentFile& file, std::size_t breaker = 0)
        : segment_(file.map()),
          row_(segment_.claim_slot(memguard::ProcessOwner::self(), memguard::monotonic_ns(),
                                   memguard::wall_ns())),
          claim_(segment_.claim_of(row())),
          cell_(1, {row_, memguard::kSlots, memguard::kSharedRows}, segment_.breaker(breaker).state,
                segment_.breaker(breaker).counters.data(), claim_) {}

    [[nodiscard]] memguard::BreakerCell& cell() noexcept { return cell_; }
    [[nodiscard]] const memguard::Rules& rules() const noexcept { return rules_; }

    // A call that fails, as a guard tells it.
    void fail() noexcept {
        // acquire: as the guard, which pairs it with the compare_exchange of a transition
        const std::uint64_t word = cell_.word().load(std::memory_order_acquire);
        const memguard::Token token =
            memguard::healthy(word)
                ? memguard::Token{memguard::Word{word}.generation()}
                : cell_.admit(rules_, [] { return memguard::monotonic_ns(); }).token();
        cell_.settle(rules_, token, {memguard::Verdict::failure}, memguard::monotonic_ns());
    }

  private:
    [[nodiscard]] std::uint32_t row() const noexcept {
        return row_.load(std::memory_order_relaxed);  // relaxed: this process's own number
    }

    memguard::Segment segment_;
    std::atomic<std::uint32_t> row_;
    std::atomic<std::uint64_t> claim_;
    memguard::BreakerCell cell_;
    memguard::Rules rules_;
};

// Keeps this process on one of the cores that it may use: those that spin at the same time need one
// each, and are put on the same by a kernel that saw them sleep.
inline void stay_on_core(unsigned number) {
    cpu_set_t allowed;
    if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
        give_up("sched_getaffinity");
    }
    for (std::size_t core = 0; core < CPU_SETSIZE; ++core) {
        if (CPU_ISSET(core, &allowed) && number-- == 0) {
            cpu_set_t own;
            CPU_ZERO(&own);
            CPU_SET(core, &own);
            if (::sched_setaffinity(0, sizeof own, &own) != 0) {
                give_up("sched_setaffinity");
            }
            return;
        }
    }
    std::fprintf(stderr, "there are fewer cores than processes\n");
    std::exit(1);
}

// Does the work in a child, which ends with it, and at the latest with this process: one that spins
// would else do so for ever.
template <class Work>
pid_t in_child(Work work) {
    const pid_t child = ::fork();
    if (child < 0) {
        give_up("fork");
    }
    if (child == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        work();
        ::_exit(0);
    }
    return child;
}

inline void wait_for(pid_t child) {
    int status = 0;
    if (::waitpid(child, &status, 0) != child || status != 0) {
        std::fprintf(stderr, "a child ended with status %d\n", status);
        std::exit(1);
    }
}

}  // namespace bench
