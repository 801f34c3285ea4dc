// CgroupReader: what the kernel says about the memory of this process's control group.
//
// Usage is part of the cheap set of figures, 0.5 us; read_rest() adds limits, private memory,
// events and pressure, some 15 us with three levels (version 1; version 2 was not measured). Every
// figure is read again for every sample: limits change while a program runs. A process that is
// moved to another group, and a group that vanishes, are noticed by the next sample, which then
// looks for the group anew: that allocates, as the construction does; nothing else here does. Never
// throws after construction. One thread at a time; also after a fork.
#pragma once

#include <unistd.h>  // access

#include <algorithm>    // std::min
#include <array>        // std::array
#include <cstddef>      // std::size_t
#include <cstdint>      // std::uint64_t
#include <deque>        // std::deque
#include <exception>    // std::exception
#include <limits>       // std::numeric_limits
#include <memory>       // std::unique_ptr
#include <optional>     // std::optional
#include <string>       // std::string
#include <string_view>  // std::string_view

#include "memguard/cgroup_paths_linux.hpp"
#include "memguard/kept_file_linux.hpp"
#include "memguard/proc_text.hpp"
#include "memguard/sample.hpp"

namespace memguard {

class CgroupReader {
  public:
    // Another `root` before /proc and the mounts is for tests.
    explicit CgroupReader(const std::string& root = {})
        : root_(root), self_(root + "/proc/self/cgroup"), host_bytes_(host_bytes(root)) {
        look_for(detail::whole_file(root + "/proc/self/cgroup"));
    }

    // What the group is charged for. False if it was there once and cannot be read any more.
    bool read_usage(MemorySample& sample) noexcept {
        has_lost_ = false;
        if (group_) {
            has_lost_ =
                !read_twice<kNumberBytes>(group_->usage, [&](std::string_view text) noexcept {
                    return take(number_in(text), sample, SampleField::cgroup_usage,
                                &MemorySample::cgroup_usage_bytes);
                });
        }
        return !has_lost_;
    }

    // Everything else; after read_usage(), whose figure it corrects where the process was moved.
    void read_rest(MemorySample& sample) noexcept {
        std::array<char, kSelfBytes> buffer;  // not initialised: written by the read
        const std::string_view self = self_.read(buffer.data(), buffer.size());
        if (has_lost_ || (!self.empty() && self != self_text_)) {
            look_for_anew(self, sample);
        }
        if (group_) {
            read_limits(sample);
            if (group_->is_v2) {
                read_v2(sample);
            } else {
                read_v1(sample);
            }
        }
        if (pressure_) {
            read_twice<kSelfBytes>(*pressure_, [&](std::string_view text) noexcept {
                return read_pressure(text, sample);
            });
        }
    }

    // Gives the descriptors back; the next sample opens them again.
    void close() noexcept {
        self_.close();
        if (pressure_) {
            pressure_->close();
        }
        if (group_) {
            for (KeptFile* file :
                 {&group_->usage, &group_->stat, &group_->swap, &group_->events, &group_->hits}) {
                file->close();
            }
            for (std::deque<KeptFile>* files : {&group_->limits, &group_->highs}) {
                for (KeptFile& file : *files) {
                    file.close();
                }
            }
        }
    }

  private:
    struct Group {
        explicit Group(const CgroupPlace& place)
            : is_v2(place.is_v2), usage(own(place, "/memory.current", "/memory.usage_in_bytes")),
              stat(own(place, "/memory.stat", "/memory.stat")),
              swap(own(place, "/memory.swap.current", "")),
              events(own(place, "/memory.events", "/memory.oom_control")),
              hits(own(place, "", "/memory.failcnt")) {
            for (const std::string& directory : place.directories) {
                add_if_there(limits,
                             directory + (is_v2 ? "/memory.max" : "/memory.limit_in_bytes"));
                if (is_v2) {
                    add_if_there(highs, directory + "/memory.high");
                }
            }
        }

        static std::string own(const CgroupPlace& place, const char* v2, const char* v1) {
            return place.directories.front() + (place.is_v2 ? v2 : v1);
        }

        static void add_if_there(std::deque<KeptFile>& files, const std::string& path) {
            if (::access(path.c_str(), R_OK) == 0) {
                files.emplace_back(path);
            }
        }

        bool is_v2;
        KeptFile usage;
        KeptFile stat;
        KeptFile swap;                // version 2 alone
        KeptFile events;              // of version 1: the file that counts kills
        KeptFile hits;                // version 1 alone
        std::deque<KeptFile> limits;  // of the group and of those above it
        std::deque<KeptFile> highs;
    };

    static constexpr std::size_t kNumberBytes = 64;
    static constexpr std::size_t kEventBytes = 512;
    static constexpr std::size_t kSelfBytes = 4096;   // a line per hierarchy of version 1
    static constexpr std::size_t kStatBytes = 16384;  // 40 to 60 lines
    // Version 1's word for no limit is some 2^63, rounded down to a page.
    static constexpr std::uint64_t kBeyondAnyMemory = std::uint64_t{1} << 62;

    // Of this machine; where it does not tell, what nobody has.
    [[nodiscard]] static std::uint64_t host_bytes(const std::string& root) {
        const auto kib = number_of(detail::whole_file(root + "/proc/meminfo"), "MemTotal:");
        return kib ? *kib * 1024 : kBeyondAnyMemory;
    }

    void look_for(std::string self_text) {
        self_text_ = std::move(self_text);
        self_text_.resize(std::min(self_text_.size(), kSelfBytes));
        group_.reset();
        pressure_.reset();
        std::string directory;
        if (const auto place = find_cgroup(root_, self_text_)) {
            group_ = std::make_unique<Group>(*place);
            directory = place->is_v2 ? place->directories.front() : "";
        }
        const std::string own = directory + "/memory.pressure";
        if (!directory.empty() && has_pressure(own)) {
            pressure_ = std::make_unique<KeptFile>(own);
        } else if (has_pressure(root_ + "/proc/pressure/memory")) {
            pressure_ = std::make_unique<KeptFile>(root_ + "/proc/pressure/memory");
        }
    }

    // Where the kernel keeps none, the file is there and cannot be read.
    [[nodiscard]] static bool has_pressure(const std::string& path) {
        MemorySample nobodys;
        return read_pressure(detail::whole_file(path), nobodys);
    }

    void look_for_anew(std::string_view self, MemorySample& sample) noexcept {
        try {
            look_for(std::string{self});
        } catch (const std::exception&) {  // std::bad_alloc: the next sample may have more luck
            group_.reset();
            self_text_.clear();
        }
        sample.valid &= ~static_cast<std::uint64_t>(SampleField::cgroup_usage);
        sample.cgroup_usage_bytes = 0;
        read_usage(sample);
    }

    static bool take(std::optional<std::uint64_t> value, MemorySample& sample, SampleField field,
                     std::uint64_t MemorySample::* member) noexcept {
        if (value) {
            sample.*member = *value;
            sample.mark(field);
        }
        return value.has_value();
    }

    // The smallest of the numbers in the files: "max" is none, nor is what no host can hold.
    [[nodiscard]] std::uint64_t smallest(std::deque<KeptFile>& files) const noexcept {
        std::uint64_t found = kNone;
        for (KeptFile& file : files) {
            read_twice<kNumberBytes>(file, [&](std::string_view text) noexcept {
                const auto bytes = number_in(text);
                found = std::min(found, bytes.value_or(kNone));
                return bytes.has_value() || text.starts_with("max");
            });
        }
        return found;
    }

    void take_limit(std::uint64_t bytes, MemorySample& sample, SampleField field,
                    std::uint64_t MemorySample::* member) const noexcept {
        if (bytes <= host_bytes_) {
            sample.*member = sample.has(field) ? std::min(sample.*member, bytes) : bytes;
            sample.mark(field);
        }
    }

    void read_limits(MemorySample& sample) noexcept {
        take_limit(smallest(group_->limits), sample, SampleField::cgroup_limit,
                   &MemorySample::cgroup_limit_bytes);
        take_limit(smallest(group_->highs), sample, SampleField::cgroup_high,
                   &MemorySample::cgroup_high_bytes);
    }

    void read_v2(MemorySample& sample) noexcept {
        read_twice<kStatBytes>(group_->stat, [&](std::string_view text) noexcept {
            const auto anon = number_of(text, "anon");
            const auto shmem = number_of(text, "shmem");  // not in anon, but in file
            if (!anon || !shmem) {
                return false;
            }
            return take(*anon + *shmem + swapped_v2(), sample, SampleField::cgroup_private,
                        &MemorySample::cgroup_private_bytes);
        });
        read_twice<kEventBytes>(group_->events, [&](std::string_view text) noexcept {
            const bool hits = take(number_of(text, "max"), sample, SampleField::cgroup_limit_hits,
                                   &MemorySample::cgroup_limit_hits);
            return take(number_of(text, "oom_kill"), sample, SampleField::cgroup_oom_kills,
                        &MemorySample::cgroup_oom_kills) &&
                   hits;
        });
    }

    // Without the controller of swap there is no such file.
    [[nodiscard]] std::uint64_t swapped_v2() noexcept {
        std::array<char, kNumberBytes> buffer;  // not initialised: written by the read
        return number_in(group_->swap.read(buffer.data(), buffer.size())).value_or(0);
    }

    void read_v1(MemorySample& sample) noexcept {
        read_twice<kStatBytes>(group_->stat, [&](std::string_view text) noexcept {
            // Also counts limits above the mount point, which we cannot see.
            take_limit(number_of(text, "hierarchical_memory_limit").value_or(kNone), sample,
                       SampleField::cgroup_limit, &MemorySample::cgroup_limit_bytes);
            const auto anon = number_of(text, "total_rss");
            if (!anon) {
                return false;
            }
            const std::uint64_t rest = number_of(text, "total_shmem").value_or(0) +
                                       number_of(text, "total_swap").value_or(0);
            return take(*anon + rest, sample, SampleField::cgroup_private,
                        &MemorySample::cgroup_private_bytes);
        });
        read_twice<kEventBytes>(group_->events, [&](std::string_view text) noexcept {
            return take(number_of(text, "oom_kill"), sample, SampleField::cgroup_oom_kills,
                        &MemorySample::cgroup_oom_kills);
        });
        read_twice<kNumberBytes>(group_->hits, [&](std::string_view text) noexcept {
            return take(number_in(text), sample, SampleField::cgroup_limit_hits,
                        &MemorySample::cgroup_limit_hits);
        });
    }

    // "some avg10=0.00 avg60=0.00 avg300=0.00 total=MICROSECONDS"
    static bool read_pressure(std::string_view text, MemorySample& sample) noexcept {
        constexpr std::string_view kTotal = "total=";
        std::optional<std::uint64_t> waited_us;
        for_each_line(text, [&](std::string_view line) noexcept {
            const std::size_t at = line.find(kTotal);
            if (line.starts_with("some ") && at != std::string_view::npos) {
                waited_us = number_in(line.substr(at + kTotal.size()));
            }
        });
        return take(waited_us, sample, SampleField::memory_pressure,
                    &MemorySample::memory_pressure_us);
    }

    static constexpr std::uint64_t kNone = std::numeric_limits<std::uint64_t>::max();

    const std::string root_;
    KeptFile self_;
    std::string self_text_;  // what it said when the group was looked for
    const std::uint64_t host_bytes_;
    std::unique_ptr<Group> group_;
    std::unique_ptr<KeptFile> pressure_;  // the group's, else the host's; null: neither
    bool has_lost_ = false;               // the group, between read_usage() and read_rest()
};

}  // namespace memguard
