// A directory that stands for the root of the file system, with the files that a test writes.
#pragma once

#include "check.hpp"

#include <cstdlib>     // mkdtemp
#include <filesystem>  // std::filesystem
#include <fstream>     // std::ofstream
#include <string>      // std::string

namespace memguard::test {

class FakeRoot {
  public:
    ~FakeRoot() { std::filesystem::remove_all(path_); }
    FakeRoot() = default;
    FakeRoot(const FakeRoot&) = delete;
    FakeRoot& operator=(const FakeRoot&) = delete;

    // In place: a descriptor that is kept sees the new content, as with a file of the kernel's.
    void write(const std::string& path, const std::string& content) const {
        std::filesystem::create_directories(std::filesystem::path{path_ + path}.parent_path());
        std::ofstream{path_ + path, std::ios::trunc} << content;
    }

    void make_directory(const std::string& path) const {
        std::filesystem::create_directories(path_ + path);
    }

    // A file or a whole directory.
    void remove(const std::string& path) const { std::filesystem::remove_all(path_ + path); }

    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    std::string path_ = [] {
        char path[] = "/tmp/memguard-root-XXXXXX";
        CHECK(::mkdtemp(path) != nullptr);
        return std::string{path};
    }();
};

}  // namespace memguard::test
