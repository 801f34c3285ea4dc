// Allocator: the malloc of this process by name, and what it tells of itself.
//
// glibc:    mallinfo2. In use and free are exact. Absent before glibc 2.33, whose mallinfo wraps at
//           4 GiB. Found by dlsym: the core must load where there is none.
// jemalloc: mallctl. In use is what the program holds; free is what is resident beyond that.
// mimalloc: mi_process_info. It tells what is committed and not how much of that is free: all of it
//           counts as in use, none as free, so that live memory is private memory there.
// unknown:  musl, tcmalloc, a sanitizer's: nothing is told.
//
// The one in use is the one in whose library malloc itself lies: a program may well contain a
// jemalloc that only a part of it uses. MallocReader asks it under a CallBudget. Nothing here
// allocates or throws; one thread at a time, but retry() may be called by any.
#pragma once

#include <dlfcn.h>     // dlsym, dladdr
#include <sys/auxv.h>  // getauxval
#include <time.h>      // clock_gettime

#include <atomic>   // std::atomic
#include <cstddef>  // std::size_t
#include <cstdint>  // std::uint64_t

#include "memguard/call_budget.hpp"
#include "memguard/clock.hpp"
#include "memguard/sample.hpp"

namespace memguard {

struct MallocFigures {
    std::uint64_t in_use_bytes = 0;
    std::uint64_t free_bytes = 0;
    std::uint64_t mmap_bytes = 0;
};

class Allocator {
  public:
    // As struct mallinfo2 of glibc's ABI: <malloc.h> of an older glibc does not have it.
    struct Info {
        std::size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks,
            keepcost;
    };
    using Mallinfo2 = Info (*)();
    using Mallctl = int (*)(const char* name, void* old, std::size_t* old_bytes, void* fresh,
                            std::size_t fresh_bytes);
    using ProcessInfo = void (*)(std::size_t* elapsed_ms, std::size_t* user_ms,
                                 std::size_t* system_ms, std::size_t* rss, std::size_t* peak_rss,
                                 std::size_t* commit, std::size_t* peak_commit,
                                 std::size_t* page_faults);

    Allocator() noexcept = default;  // unknown
    explicit Allocator(Mallinfo2 function) noexcept : glibc_(function) {}
    explicit Allocator(Mallctl function) noexcept : jemalloc_(function) {}
    explicit Allocator(ProcessInfo function) noexcept : mimalloc_(function) {}

    [[nodiscard]] static Allocator of_this_process() noexcept {
        const void* const library = library_of(::dlsym(RTLD_DEFAULT, "malloc"));
        if (const auto mallctl = function_of<Mallctl>(library, "mallctl")) {
            return Allocator{mallctl};
        }
        if (const auto process_info = function_of<ProcessInfo>(library, "mi_process_info")) {
            return Allocator{process_info};
        }
        void* const mallinfo2 = ::dlsym(RTLD_DEFAULT, "mallinfo2");
        // In a program that is not position-independent the address of malloc can be that of the
        // program's own jump to it, which looks like a malloc of the program's.
        const bool is_glibc = library == library_of(mallinfo2) ||
                              library == library_of(reinterpret_cast<void*>(::getauxval(AT_PHDR)));
        if (mallinfo2 != nullptr && is_glibc) {
            return Allocator{reinterpret_cast<Mallinfo2>(mallinfo2)};
        }
        return Allocator{};
    }

    [[nodiscard]] const char* name() const noexcept {
        return glibc_ != nullptr      ? "glibc"
               : jemalloc_ != nullptr ? "jemalloc"
               : mimalloc_ != nullptr ? "mimalloc"
                                      : "unknown";
    }

    [[nodiscard]] bool tells() const noexcept {
        return glibc_ != nullptr || jemalloc_ != nullptr || mimalloc_ != nullptr;
    }

    // False if it does not tell: `figures` are as before.
    bool read(MallocFigures& figures) const noexcept {
        if (glibc_ != nullptr) {
            const Info info = glibc_();
            figures = {info.uordblks + info.hblkhd, info.fordblks, info.hblkhd};
            return true;
        }
        return jemalloc_ != nullptr ? read_jemalloc(figures) : read_mimalloc(figures);
    }

  private:
    // Where the library or the program begins that has this address; null for none.
    [[nodiscard]] static const void* library_of(const void* address) noexcept {
        ::Dl_info found{};
        return address != nullptr && ::dladdr(address, &found) != 0 ? found.dli_fbase : nullptr;
    }

    // The function, if it lies in that library.
    template <class Function>
    [[nodiscard]] static Function function_of(const void* library, const char* name) noexcept {
        void* const found = ::dlsym(RTLD_DEFAULT, name);
        return found != nullptr && library_of(found) == library ? reinterpret_cast<Function>(found)
                                                                : nullptr;
    }

    bool read_jemalloc(MallocFigures& figures) const noexcept {
        std::uint64_t epoch = 1;
        std::size_t epoch_bytes = sizeof epoch;
        // Its figures are those of the last time that somebody advanced the epoch.
        if (jemalloc_("epoch", &epoch, &epoch_bytes, &epoch, sizeof epoch) != 0) {
            return false;
        }
        const auto figure = [this](const char* name, std::size_t& value) noexcept {
            std::size_t bytes = sizeof value;
            return jemalloc_(name, &value, &bytes, nullptr, 0) == 0;
        };
        std::size_t allocated = 0;
        std::size_t resident = 0;
        if (!figure("stats.allocated", allocated) || !figure("stats.resident", resident)) {
            return false;  // built without statistics
        }
        figures = {allocated, resident > allocated ? resident - allocated : 0, 0};
        return true;
    }

    bool read_mimalloc(MallocFigures& figures) const noexcept {
        if (mimalloc_ == nullptr) {
            return false;
        }
        std::size_t commit = 0;
        std::size_t other[7]{};
        mimalloc_(&other[0], &other[1], &other[2], &other[3], &other[4], &commit, &other[5],
                  &other[6]);
        figures = {commit, 0, 0};
        return true;
    }

    Mallinfo2 glibc_ = nullptr;
    Mallctl jemalloc_ = nullptr;
    ProcessInfo mimalloc_ = nullptr;
};

class MallocReader {
  public:
    explicit MallocReader(const Allocator& allocator) noexcept : allocator_(allocator) {}

    // Fills the malloc fields of a sample whose monotonic_ns is set.
    void read_into(MemorySample& sample) noexcept {
        if (!allocator_.tells()) {
            return;
        }
        // relaxed: a wish; a sample more or less until it is seen decides nothing
        if (retry_.load(std::memory_order_relaxed) &&
            retry_.exchange(false, std::memory_order_relaxed)) {
            budget_ = CallBudget{};
        }
        if (budget_.due()) {
            // The processor time of this thread: on a busy machine the time by the clock would
            // count the waiting for a processor, and one long wait would switch the reading off.
            const std::int64_t start_ns = thread_cpu_ns();
            if (allocator_.read(last_)) {
                read_at_ns_ = sample.monotonic_ns;
                has_read_ = true;
            }
            budget_.record(thread_cpu_ns() - start_ns);
        }
        if (has_read_) {
            sample.malloc_in_use_bytes = last_.in_use_bytes;
            sample.malloc_free_bytes = last_.free_bytes;
            sample.malloc_mmap_bytes = last_.mmap_bytes;
            sample.malloc_age_ns = static_cast<std::uint64_t>(sample.monotonic_ns - read_at_ns_);
            sample.mark(SampleField::malloc);
        }
    }

    // Something was done about the free blocks: the next reading may be cheap again. Any thread.
    void retry() noexcept {
        // relaxed: as in read_into()
        retry_.store(true, std::memory_order_relaxed);
    }

  private:
    [[nodiscard]] static std::int64_t thread_cpu_ns() noexcept {
        struct timespec now{};
        ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
        return now.tv_sec * kNsPerSecond + now.tv_nsec;
    }

    const Allocator allocator_;
    CallBudget budget_;
    MallocFigures last_{};
    std::int64_t read_at_ns_ = 0;
    bool has_read_ = false;
    std::atomic<bool> retry_{false};
};

}  // namespace memguard
