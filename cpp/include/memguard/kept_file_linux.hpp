// KeptFile: a small file of the kernel's that stays open, and whose present content can be read.
//
// pread on an open descriptor costs 0.5 to 1 us where open, read and close cost 5. Never throws
// after construction, never allocates. One thread at a time; it may be used after a fork, in the
// child as in the parent: a descriptor of /proc/self describes the process that opened it, and so
// is opened anew there.
#pragma once

#include <fcntl.h>     // open
#include <sys/stat.h>  // fstat
#include <unistd.h>    // pread, close

#include <array>        // std::array
#include <cstddef>      // std::size_t
#include <cstdint>      // std::uint64_t
#include <string>       // std::string
#include <string_view>  // std::string_view
#include <utility>      // std::move

#include "memguard/file_identity.hpp"
#include "memguard/process.hpp"

namespace memguard {

class KeptFile {
  public:
    explicit KeptFile(std::string path) noexcept : path_(std::move(path)) {}
    ~KeptFile() { close(); }
    KeptFile(const KeptFile&) = delete;
    KeptFile& operator=(const KeptFile&) = delete;

    // The content, or nothing if it cannot be read.
    [[nodiscard]] std::string_view read(char* buffer, std::size_t size) noexcept {
        if (!is_open()) {
            return {};
        }
        const ::ssize_t bytes = ::pread(fd_, buffer, size, 0);
        return bytes > 0 ? std::string_view{buffer, static_cast<std::size_t>(bytes)}
                         : std::string_view{};
    }

    // How many names it has in the file system: of a directory, its sub-directories and 2. 0 if it
    // cannot be told.
    [[nodiscard]] std::uint64_t links() noexcept {
        struct stat now{};
        for (int attempt = 0; attempt < 2; ++attempt) {
            if (is_open() && ::fstat(fd_, &now) == 0 && identity_.is_of(now)) {
                return now.st_nlink;
            }
            close();
        }
        return 0;
    }

    // The next reading opens the file anew.
    void close() noexcept {
        // Programs that become daemons close all descriptors, and our number may have been given to
        // another file since: that one is not ours to close.
        if (fd_ >= 0 && identity_.is_of(fd_)) {
            ::close(fd_);
        }
        fd_ = -1;
    }

  private:
    [[nodiscard]] bool is_open() noexcept {
        if (fd_ < 0 || opened_by_ != fork_epoch()) {
            open();
        }
        return fd_ >= 0;
    }

    void open() noexcept {
        close();
        opened_by_ = fork_epoch();
        fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
        identity_ = FileIdentity{fd_};
        if (fd_ >= 0 && !identity_.is_known()) {
            ::close(fd_);
            fd_ = -1;
        }
    }

    std::string path_;
    int fd_ = -1;
    std::uint64_t opened_by_ = 0;
    FileIdentity identity_;
};

// Gives the content to `parse`; if that returns false, opens the file anew and tries once more.
// Whether one of the two was to its liking.
template <std::size_t kBufferBytes, class Parse>
bool read_twice(KeptFile& file, Parse parse) noexcept {
    std::array<char, kBufferBytes> buffer;  // not initialised: written by the read
    if (parse(file.read(buffer.data(), buffer.size()))) {
        return true;
    }
    file.close();
    return parse(file.read(buffer.data(), buffer.size()));
}

}  // namespace memguard
