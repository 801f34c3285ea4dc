// FileIdentity: which file a descriptor stands for. Its number alone is given out again: a program
// that closes what is not its own leaves us with the number of another file, a client's connection
// maybe.
#pragma once

#include <sys/stat.h>  // fstat

namespace memguard {

class FileIdentity {
  public:
    // Of no file.
    FileIdentity() noexcept = default;
    // Of no file, if the descriptor is not open.
    explicit FileIdentity(int descriptor) noexcept {
        struct stat now{};
        is_known_ = ::fstat(descriptor, &now) == 0;
        device_ = now.st_dev;
        inode_ = now.st_ino;
    }

    [[nodiscard]] bool is_known() const noexcept { return is_known_; }

    // Whether the descriptor stands for that file still.
    [[nodiscard]] bool is_of(int descriptor) const noexcept {
        struct stat now{};
        return ::fstat(descriptor, &now) == 0 && is_of(now);
    }
    [[nodiscard]] bool is_of(const struct stat& now) const noexcept {
        return is_known_ && now.st_dev == device_ && now.st_ino == inode_;
    }

  private:
    bool is_known_ = false;
    dev_t device_ = 0;
    ino_t inode_ = 0;
};

}  // namespace memguard
