// ProcessOwner: which process owns something in shared memory, in one word, and whether it lives.
//
// A process number alone is given out again; together with the time of its start it is not. One
// word, so that it is claimed by one compare-and-swap: two writes would lose it to a kill between
// them. Only for processes of the same namespace of process numbers.
#pragma once

#include <cstdint>   // std::uint64_t
#include <optional>  // std::optional

#if defined(__linux__)
#include <fcntl.h>   // open
#include <unistd.h>  // read, close, getpid

#include <cerrno>   // errno
#include <cstdio>   // std::snprintf
#include <cstdlib>  // std::strtoull
#include <cstring>  // std::strrchr
#endif

namespace memguard {

class ProcessOwner {
  public:
    static constexpr unsigned kPidBits = 22;  // the kernel's limit
    static constexpr unsigned kStartBits = 42;

    constexpr ProcessOwner() noexcept = default;
    constexpr explicit ProcessOwner(std::uint64_t bits) noexcept : bits_(bits) {}
    // `start_ticks`: of the kernel's clock, since the machine's start.
    constexpr ProcessOwner(std::uint64_t pid, std::uint64_t start_ticks) noexcept
        : bits_((pid & ((std::uint64_t{1} << kPidBits) - 1)) << kStartBits |
                (start_ticks & ((std::uint64_t{1} << kStartBits) - 1))) {}

    [[nodiscard]] constexpr std::uint64_t bits() const noexcept { return bits_; }
    [[nodiscard]] constexpr bool is_none() const noexcept { return bits_ == 0; }
    [[nodiscard]] constexpr std::uint64_t pid() const noexcept { return bits_ >> kStartBits; }
    constexpr bool operator==(const ProcessOwner&) const noexcept = default;

#if defined(__linux__)
    // The process that runs this; none if /proc does not say.
    [[nodiscard]] static ProcessOwner self() noexcept {
        const auto pid = static_cast<std::uint64_t>(::getpid());
        const Found found = look_up(pid);
        return found.is_alive ? ProcessOwner{pid, found.start_ticks} : ProcessOwner{};
    }

    // Whether its process has ended. A killed one that nobody waited for is a zombie, and dead.
    // What cannot be found out counts as alive: then leases and heartbeats decide.
    [[nodiscard]] bool is_dead() const noexcept {
        if (is_none()) {
            return false;
        }
        const Found found = look_up(pid());
        return found.is_known &&
               !(found.is_alive && ProcessOwner{pid(), found.start_ticks} == *this);
    }
#else
    // Shared memory is for Linux so far: elsewhere nobody owns anything.
    [[nodiscard]] static ProcessOwner self() noexcept { return {}; }
    [[nodiscard]] bool is_dead() const noexcept { return false; }
#endif

  private:
#if defined(__linux__)
    struct Found {
        bool is_known = false;
        bool is_alive = false;
        std::uint64_t start_ticks = 0;
    };

    // 10 us: open, read and close of /proc/<pid>/stat.
    [[nodiscard]] static Found look_up(std::uint64_t pid) noexcept {
        char path[32];
        std::snprintf(path, sizeof path, "/proc/%llu/stat", static_cast<unsigned long long>(pid));
        const int file = ::open(path, O_RDONLY | O_CLOEXEC);
        if (file < 0) {
            return {errno == ENOENT, false, 0};
        }
        char text[1024];
        const ssize_t length = ::read(file, text, sizeof text - 1);
        const int error = errno;
        ::close(file);
        if (length <= 0) {
            return {length < 0 && error == ESRCH, false, 0};
        }
        text[length] = '\0';
        // The name, in parentheses, may hold anything; what follows it does not. The state is the
        // 3rd field, the start the 22nd.
        const char* field = std::strrchr(text, ')');
        if (field == nullptr || field[1] != ' ') {
            return {};
        }
        field += 2;
        const char state = *field;
        for (int skipped = 3; skipped < 22; ++skipped) {
            field = std::strchr(field, ' ');
            if (field == nullptr) {
                return {};
            }
            ++field;
        }
        const bool has_ended = state == 'Z' || state == 'X' || state == 'x';
        return {true, !has_ended, std::strtoull(field, nullptr, 10)};
    }
#endif

    std::uint64_t bits_ = 0;
};

}  // namespace memguard
