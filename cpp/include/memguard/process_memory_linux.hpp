// ProcessMemory: resident set, its parts, swap and threads of this process from /proc/self.
//
// statm tells the resident set and how much of it is anonymous: 0.8 us. How the rest divides into
// mapped files and shared memory only status tells, which takes 6 us because the kernel writes 50
// other lines with it. That division is kept as long as the sum of the two has not moved by a page,
// for at most 10 samples; the threads are counted by their directory, 0.3 us, as long as status
// agrees with it; and nothing of ours is swapped out where the host has nothing swapped out, 0.3
// us. Where one of these does not hold, status is read. The cost does not grow with the process.
//
// Never throws after construction, never allocates. One thread at a time; also after a fork.
#pragma once

#include <sys/sysinfo.h>  // sysinfo
#include <unistd.h>       // sysconf

#include <array>        // std::array
#include <atomic>       // std::atomic
#include <cstddef>      // std::size_t
#include <cstdint>      // std::uint64_t
#include <optional>     // std::optional
#include <string>       // std::string
#include <string_view>  // std::string_view

#include "memguard/kept_file_linux.hpp"
#include "memguard/proc_text.hpp"
#include "memguard/sample.hpp"

namespace memguard {

// Whether anything at all is swapped out on this host. True where it cannot be told.
[[nodiscard]] inline bool host_swaps() noexcept {
    struct sysinfo now{};
    return ::sysinfo(&now) != 0 || now.freeswap != now.totalswap;
}

class ProcessMemory {
  public:
    using HostSwaps = bool (*)() noexcept;

    // Reads `root`/proc/self: another root, and another word on swapping, are for tests.
    explicit ProcessMemory(const std::string& root = {}, HostSwaps swaps = &host_swaps)
        : statm_(root + "/proc/self/statm"), status_(root + "/proc/self/status"),
          threads_(root + "/proc/self/task"), host_swaps_(swaps) {}

    void read_into(MemorySample& sample) noexcept {
        const auto pages = read_statm();
        if (pages) {
            sample.rss_bytes = pages->resident * page_bytes_;
            sample.anon_bytes = (pages->resident - pages->shared) * page_bytes_;
            sample.mark(SampleField::rss);
            sample.mark(SampleField::anon);
        }
        if (!pages || !take_kept(*pages, sample)) {
            read_status(pages, sample);
        }
    }

    // The resident set alone: about 1 us.
    [[nodiscard]] std::optional<std::uint64_t> rss_bytes() noexcept {
        const auto pages = read_statm();
        return pages ? std::optional{pages->resident * page_bytes_} : std::nullopt;
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
        threads_.close();
    }

    struct Pages {
        std::uint64_t resident;
        std::uint64_t shared;  // of them: mapped files and shared memory
    };

    // The second and the third number of /proc/self/statm.
    [[nodiscard]] static std::optional<Pages> parse_statm(std::string_view text) noexcept {
        const std::size_t first = text.find(' ');
        const std::size_t second = text.find(' ', first + 1);
        if (first == std::string_view::npos || second == std::string_view::npos) {
            return std::nullopt;
        }
        const auto resident = number_in(text.substr(first));
        const auto shared = number_in(text.substr(second));
        if (!resident || !shared || *shared > *resident) {
            return std::nullopt;
        }
        return Pages{*resident, *shared};
    }

    // Takes the lines of /proc/self/status that we know, in any order; false if there is none.
    static bool parse_status(std::string_view text, MemorySample& sample) noexcept {
        const std::uint64_t valid_before = sample.valid;
        sample.valid &= ~kStatusFields;
        for_each_line(text, [&](std::string_view line) noexcept {
            for (const StatusLine& known : kStatusLines) {
                if (!line.starts_with(known.name)) {
                    continue;
                }
                if (const auto value = number_in(line.substr(known.name.size()))) {
                    sample.*known.member = *value * known.unit;
                    sample.mark(known.field);
                }
            }
        });
        const bool found = (sample.valid & kStatusFields) != 0;
        sample.valid |= valid_before;
        return found;
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
    static constexpr std::uint64_t kStatusFields = static_cast<std::uint64_t>(SampleField::anon) |
                                                   static_cast<std::uint64_t>(SampleField::file) |
                                                   static_cast<std::uint64_t>(SampleField::shmem) |
                                                   static_cast<std::uint64_t>(SampleField::swap) |
                                                   static_cast<std::uint64_t>(SampleField::threads);
    static constexpr std::size_t kStatmBytes = 256;  // seven numbers
    // status has 1.5 KB; the list of supplementary groups in it can be long.
    static constexpr std::size_t kStatusBytes = 16 * 1024;
    // As often at least: a file's page that went as one of shared memory came would not be seen.
    static constexpr int kStatusEvery = 10;
    static constexpr std::uint64_t kLinksOfAnEmptyDirectory = 2;

    // What status said when it was read last.
    struct Kept {
        std::uint64_t shared_pages;
        std::uint64_t file_bytes;
        std::uint64_t shmem_bytes;
        int samples_left;
    };

    [[nodiscard]] std::optional<Pages> read_statm() noexcept {
        std::optional<Pages> pages;
        count(read_twice<kStatmBytes>(statm_, [&](std::string_view text) noexcept {
            pages = parse_statm(text);
            return pages.has_value();
        }));
        return pages;
    }

    bool take_kept(const Pages& pages, MemorySample& sample) noexcept {
        if (!kept_ || kept_->samples_left == 0 || kept_->shared_pages != pages.shared ||
            host_swaps_()) {
            return false;
        }
        const std::uint64_t links = threads_.links();
        if (links <= kLinksOfAnEmptyDirectory) {
            return false;
        }
        --kept_->samples_left;
        sample.file_bytes = kept_->file_bytes;
        sample.shmem_bytes = kept_->shmem_bytes;
        sample.swap_bytes = 0;
        sample.threads = links - kLinksOfAnEmptyDirectory;
        for (const SampleField field :
             {SampleField::file, SampleField::shmem, SampleField::swap, SampleField::threads}) {
            sample.mark(field);
        }
        return true;
    }

    void read_status(const std::optional<Pages>& pages, MemorySample& sample) noexcept {
        count(read_twice<kStatusBytes>(
            status_, [&](std::string_view text) noexcept { return parse_status(text, sample); }));
        // Where statm or the directory counts otherwise (not every kernel's directory has a name
        // per thread), and for once where a page or a thread came or went meanwhile, status is read
        // for the next sample as well.
        const bool is_whole =
            pages && sample.has(SampleField::file) && sample.has(SampleField::shmem) &&
            sample.has(SampleField::threads) &&
            sample.file_bytes + sample.shmem_bytes == pages->shared * page_bytes_ &&
            threads_.links() == sample.threads + kLinksOfAnEmptyDirectory;
        kept_ = is_whole ? std::optional{Kept{pages->shared, sample.file_bytes, sample.shmem_bytes,
                                              kStatusEvery - 1}}
                         : std::nullopt;
    }

    void count(bool was_read) noexcept {
        if (!was_read) {
            failures_.fetch_add(1, std::memory_order_relaxed);  // relaxed: as in failures()
        }
    }

    KeptFile statm_;
    KeptFile status_;
    KeptFile threads_;
    const HostSwaps host_swaps_;
    std::optional<Kept> kept_;
    const std::uint64_t page_bytes_ = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
    std::atomic<std::uint64_t> failures_{0};
};

}  // namespace memguard
