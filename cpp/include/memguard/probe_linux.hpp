// LinuxProbe: memory of this process from /proc/self/statm, /proc/self/status and mallinfo2.
//
// The files are opened once and read with pread: 1 us for statm, 7 us for status, whatever the size
// of the process. Never throws, never allocates: what cannot be read is marked as not valid and
// counted. One thread at a time; it may be used after a fork, in the child as in the parent.
#pragma once

#include <dlfcn.h>     // dlsym
#include <fcntl.h>     // open
#include <sys/stat.h>  // fstat
#include <time.h>      // clock_gettime
#include <unistd.h>    // pread, close, sysconf

#include <algorithm>     // std::min
#include <array>         // std::array
#include <atomic>        // std::atomic
#include <charconv>      // std::from_chars
#include <cstddef>       // std::size_t
#include <cstdint>       // std::uint64_t
#include <optional>      // std::optional
#include <string_view>   // std::string_view
#include <system_error>  // std::errc

#include "memguard/call_budget.hpp"
#include "memguard/clock.hpp"
#include "memguard/process.hpp"
#include "memguard/sample.hpp"

namespace memguard {

// A file under /proc/self that stays open. read() gives its present content.
class KeptFile {
  public:
    // `path` must outlive this object.
    explicit KeptFile(const char* path) noexcept : path_(path) {}
    ~KeptFile() { close(); }
    KeptFile(const KeptFile&) = delete;
    KeptFile& operator=(const KeptFile&) = delete;

    // The content, or nothing if it cannot be read. Opens the file if it is not open in this
    // process: after a fork a descriptor still describes the parent.
    [[nodiscard]] std::string_view read(char* buffer, std::size_t size) noexcept {
        if (fd_ < 0 || opened_by_ != fork_epoch()) {
            open();
        }
        if (fd_ < 0) {
            return {};
        }
        const ::ssize_t bytes = ::pread(fd_, buffer, size, 0);
        return bytes > 0 ? std::string_view{buffer, static_cast<std::size_t>(bytes)}
                         : std::string_view{};
    }

    // The next read() opens the file anew.
    void close() noexcept {
        if (fd_ >= 0 && is_ours()) {
            ::close(fd_);
        }
        fd_ = -1;
    }

  private:
    void open() noexcept {
        close();
        opened_by_ = fork_epoch();
        fd_ = ::open(path_, O_RDONLY | O_CLOEXEC);
        if (fd_ >= 0 && ::fstat(fd_, &identity_) != 0) {
            ::close(fd_);
            fd_ = -1;
        }
    }

    // Programs that become daemons close all descriptors, and our number may have been given to
    // another file since: that one is not ours to close.
    [[nodiscard]] bool is_ours() const noexcept {
        struct stat now{};
        return ::fstat(fd_, &now) == 0 && now.st_dev == identity_.st_dev &&
               now.st_ino == identity_.st_ino;
    }

    const char* path_;
    int fd_ = -1;
    std::uint64_t opened_by_ = 0;
    struct stat identity_{};
};

// malloc's own figures, under a budget. Absent with musl, with glibc before 2.33 (its mallinfo
// wraps at 4 GiB) and where another allocator was preloaded, of whose blocks glibc knows nothing.
class MallocReader {
  public:
    // As struct mallinfo2 of glibc's ABI: <malloc.h> of an older glibc does not have it.
    struct Info {
        std::size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks,
            keepcost;
    };
    using Function = Info (*)();

    explicit MallocReader(Function function = find()) noexcept : function_(function) {}

    // Fills the malloc fields of a sample whose monotonic_ns is set.
    void read_into(MemorySample& sample) noexcept {
        if (function_ == nullptr) {
            return;
        }
        if (budget_.due()) {
            // The processor time of this thread: on a busy machine the time by the clock would
            // count the waiting for a processor, and one long wait would switch the reading off.
            const std::int64_t start_ns = thread_cpu_ns();
            last_ = function_();
            budget_.record(thread_cpu_ns() - start_ns);
            read_at_ns_ = sample.monotonic_ns;
            has_read_ = true;
        }
        if (has_read_) {
            sample.malloc_in_use_bytes = last_.uordblks + last_.hblkhd;
            sample.malloc_free_bytes = last_.fordblks;
            sample.malloc_mmap_bytes = last_.hblkhd;
            sample.malloc_age_ns = static_cast<std::uint64_t>(sample.monotonic_ns - read_at_ns_);
            sample.mark(SampleField::malloc);
        }
    }

  private:
    [[nodiscard]] static Function find() noexcept {
        for (const char* foreign : {"mallctl", "mi_process_info"}) {  // jemalloc, mimalloc
            if (::dlsym(RTLD_DEFAULT, foreign) != nullptr) {
                return nullptr;
            }
        }
        return reinterpret_cast<Function>(::dlsym(RTLD_DEFAULT, "mallinfo2"));
    }

    [[nodiscard]] static std::int64_t thread_cpu_ns() noexcept {
        struct timespec now{};
        ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
        return now.tv_sec * kNsPerSecond + now.tv_nsec;
    }

    Function function_;
    CallBudget budget_;
    Info last_{};
    std::int64_t read_at_ns_ = 0;
    bool has_read_ = false;
};

class LinuxProbe {
  public:
    LinuxProbe() noexcept : LinuxProbe("/proc/self/statm", "/proc/self/status", MallocReader{}) {}

    // Other files and another malloc, for tests. The paths must outlive this object.
    LinuxProbe(const char* statm_path, const char* status_path, MallocReader malloc) noexcept
        : statm_(statm_path), status_(status_path), malloc_(malloc) {}

    // Everything: about 8 us.
    [[nodiscard]] MemorySample sample() noexcept {
        MemorySample sample;
        sample.monotonic_ns = monotonic_ns();
        sample.wall_ns = wall_ns();
        if (const auto rss = rss_bytes()) {
            sample.rss_bytes = *rss;
            sample.mark(SampleField::rss);
        }
        read_twice<kStatusBytes>(status_,
                                 [&](std::string_view text) { return parse_status(text, sample); });
        malloc_.read_into(sample);
        sample.sample_cost_ns = monotonic_ns() - sample.monotonic_ns;
        return sample;
    }

    // The resident set alone: about 1 us.
    [[nodiscard]] std::optional<std::uint64_t> rss_bytes() noexcept {
        std::optional<std::uint64_t> rss;
        read_twice<kStatmBytes>(statm_, [&](std::string_view text) {
            rss = parse_resident_pages(text);
            return rss.has_value();
        });
        return rss ? std::optional{*rss * page_bytes_} : std::nullopt;
    }

    // How many times a file could not be read, although it was opened anew. Any thread.
    [[nodiscard]] std::uint64_t failures() const noexcept {
        // relaxed: a count for people; nothing is decided from it
        return failures_.load(std::memory_order_relaxed);
    }

    // Gives the descriptors back; the next sample opens them again.
    void close() noexcept {
        statm_.close();
        status_.close();
    }

    // The second number of /proc/self/statm.
    [[nodiscard]] static std::optional<std::uint64_t>
    parse_resident_pages(std::string_view text) noexcept {
        const std::size_t space = text.find(' ');
        return space == std::string_view::npos ? std::nullopt : number(text.substr(space + 1));
    }

    // Takes the lines of /proc/self/status that we know, in any order; false if there is none.
    static bool parse_status(std::string_view text, MemorySample& sample) noexcept {
        const std::uint64_t valid_before = sample.valid;
        while (!text.empty()) {
            const std::size_t end = text.find('\n');
            if (end == std::string_view::npos) {
                break;  // without its end a line may be cut, and a cut number is a wrong one
            }
            parse_status_line(text.substr(0, end), sample);
            text.remove_prefix(end + 1);
        }
        return sample.valid != valid_before;
    }

  private:
    struct StatusLine {
        std::string_view name;
        SampleField field;
        std::uint64_t MemorySample::* member;
        std::uint64_t unit;
    };
    static constexpr std::array<StatusLine, 5> kStatusLines{{
        {"RssAnon:", SampleField::anon, &MemorySample::anon_bytes, 1024},
        {"RssFile:", SampleField::file, &MemorySample::file_bytes, 1024},
        {"RssShmem:", SampleField::shmem, &MemorySample::shmem_bytes, 1024},
        {"VmSwap:", SampleField::swap, &MemorySample::swap_bytes, 1024},
        {"Threads:", SampleField::threads, &MemorySample::threads, 1},
    }};
    static constexpr std::size_t kStatmBytes = 256;  // seven numbers
    // status has 1.5 KB; the list of supplementary groups in it can be long.
    static constexpr std::size_t kStatusBytes = 16 * 1024;

    static void parse_status_line(std::string_view line, MemorySample& sample) noexcept {
        for (const StatusLine& known : kStatusLines) {
            if (line.starts_with(known.name)) {
                if (const auto value = number(line.substr(known.name.size()))) {
                    sample.*known.member = *value * known.unit;
                    sample.mark(known.field);
                }
                return;
            }
        }
    }

    // The number at the start of the text, after blanks.
    [[nodiscard]] static std::optional<std::uint64_t> number(std::string_view text) noexcept {
        text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
        std::uint64_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        return error == std::errc{} ? std::optional{value} : std::nullopt;
    }

    // A descriptor can go bad under our feet (closed, or now another file's): then opening the file
    // again is worth one try.
    template <std::size_t kBufferBytes, class Parse>
    void read_twice(KeptFile& file, Parse&& parse) noexcept {
        std::array<char, kBufferBytes> buffer;  // not initialised: written by the read
        if (parse(file.read(buffer.data(), buffer.size()))) {
            return;
        }
        file.close();
        if (!parse(file.read(buffer.data(), buffer.size()))) {
            failures_.fetch_add(1, std::memory_order_relaxed);  // relaxed: as in failures()
        }
    }

    KeptFile statm_;
    KeptFile status_;
    MallocReader malloc_;
    std::uint64_t page_bytes_ = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    std::atomic<std::uint64_t> failures_{0};
};

}  // namespace memguard
