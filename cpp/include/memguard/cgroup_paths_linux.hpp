// Finds the control group that this process's memory is charged to.
//
// /proc/self/cgroup names the group within its hierarchy, /proc/self/mountinfo tells where that is
// mounted and which part of it. Version 2 wins where both are mounted and it has the files of
// memory. Allocates, and may throw std::bad_alloc: not for a sampling path.
#pragma once

#include <fcntl.h>   // open
#include <unistd.h>  // read, access

#include <cstddef>      // std::size_t
#include <optional>     // std::optional
#include <string>       // std::string
#include <string_view>  // std::string_view
#include <vector>       // std::vector

#include "memguard/proc_text.hpp"

namespace memguard {

struct CgroupPlace {
    bool is_v2 = false;
    // From the group up to where its hierarchy is mounted: limits hold for all that is below.
    std::vector<std::string> directories;
};

namespace detail {

// Empty if it cannot be read.
[[nodiscard]] inline std::string whole_file(const std::string& path) {
    std::string text;
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return text;
    }
    char buffer[4096];
    for (::ssize_t bytes = 0; (bytes = ::read(fd, buffer, sizeof buffer)) > 0;) {
        text.append(buffer, static_cast<std::size_t>(bytes));
    }
    ::close(fd);
    return text;
}

[[nodiscard]] inline std::vector<std::string_view> split(std::string_view text, char by) {
    std::vector<std::string_view> parts;
    for (std::size_t end = text.find(by); end != std::string_view::npos; end = text.find(by)) {
        parts.push_back(text.substr(0, end));
        text.remove_prefix(end + 1);
    }
    parts.push_back(text);
    return parts;
}

[[nodiscard]] inline bool lists(std::string_view names, std::string_view name) {
    for (const std::string_view one : split(names, ',')) {
        if (one == name) {
            return true;
        }
    }
    return false;
}

// mountinfo writes blanks, line ends and backslashes in paths as \ooo.
[[nodiscard]] inline std::string unescaped(std::string_view text) {
    std::string plain;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const auto digit = [&](std::size_t at) {
            return text[i + at] >= '0' && text[i + at] < '8';
        };
        if (text[i] == '\\' && i + 3 < text.size() && digit(1) && digit(2) && digit(3)) {
            plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                       (text[i + 3] - '0'));
            i += 3;
        } else {
            plain += text[i];
        }
    }
    return plain;
}

struct CgroupMount {
    std::string root;   // the part of the hierarchy that is mounted
    std::string point;  // where
};

[[nodiscard]] inline std::vector<CgroupMount> cgroup_mounts(std::string_view mountinfo,
                                                            bool is_v2) {
    std::vector<CgroupMount> mounts;
    for (const std::string_view line : split(mountinfo, '\n')) {
        const std::size_t separator = line.find(" - ");
        if (separator == std::string_view::npos) {
            continue;
        }
        const auto before = split(line.substr(0, separator), ' ');
        const auto after = split(line.substr(separator + 3), ' ');
        if (before.size() < 6 || after.size() < 3) {
            continue;
        }
        if (is_v2 ? after[0] == "cgroup2" : after[0] == "cgroup" && lists(after[2], "memory")) {
            mounts.push_back({unescaped(before[3]), unescaped(before[4])});
        }
    }
    return mounts;
}

// The group's name within its hierarchy.
[[nodiscard]] inline std::optional<std::string_view> cgroup_name(std::string_view self_cgroup,
                                                                 bool is_v2) {
    for (const std::string_view line : split(self_cgroup, '\n')) {
        const std::size_t first = line.find(':');
        const std::size_t second = line.find(':', first + 1);
        if (first == std::string_view::npos || second == std::string_view::npos) {
            continue;
        }
        const std::string_view controllers = line.substr(first + 1, second - first - 1);
        if (is_v2 ? line.starts_with("0::") : lists(controllers, "memory")) {
            return line.substr(second + 1);
        }
    }
    return std::nullopt;
}

// Where below the mount point the group lies: "" for the mount point itself, nothing if it cannot
// be seen from there.
[[nodiscard]] inline std::optional<std::string> below_mount(std::string_view name,
                                                            std::string_view mounted) {
    if (mounted == "/") {
        mounted = "";
    }
    const bool is_below =
        name.starts_with(mounted) && (name.size() == mounted.size() || name[mounted.size()] == '/');
    std::string_view rest = is_below ? name.substr(mounted.size()) : name;
    // "/../x": the process was put into a group outside of its namespace. What is mounted here is
    // neither that group nor above it.
    for (const std::string_view part : split(rest, '/')) {
        if (part == "..") {
            return std::nullopt;
        }
    }
    // A container that was given its own group alone, under a name of another namespace.
    if (!is_below || rest == "/") {
        rest = "";
    }
    return std::string{rest};
}

// All of a place, if there are the files of memory in it; a group without them is charged to the
// nearest one above that has them.
[[nodiscard]] inline std::optional<CgroupPlace> place_at(const std::string& point,
                                                         std::string below, bool is_v2) {
    const char* const usage = is_v2 ? "/memory.current" : "/memory.usage_in_bytes";
    CgroupPlace place{is_v2, {}};
    while (true) {
        const std::string directory = point + below;
        if (!place.directories.empty() || ::access((directory + usage).c_str(), R_OK) == 0) {
            place.directories.push_back(directory);
        }
        if (below.empty()) {
            break;
        }
        below.resize(below.rfind('/'));
    }
    return place.directories.empty() ? std::nullopt : std::optional{std::move(place)};
}

}  // namespace detail

// `self_cgroup` is the text of /proc/self/cgroup; `root` stands before every path.
[[nodiscard]] inline std::optional<CgroupPlace> find_cgroup(const std::string& root,
                                                            std::string_view self_cgroup) {
    const std::string mountinfo = detail::whole_file(root + "/proc/self/mountinfo");
    for (const bool is_v2 : {true, false}) {
        const auto name = detail::cgroup_name(self_cgroup, is_v2);
        if (!name) {
            continue;
        }
        for (const detail::CgroupMount& mount : detail::cgroup_mounts(mountinfo, is_v2)) {
            const auto below = detail::below_mount(*name, mount.root);
            if (!below) {
                continue;
            }
            if (auto place = detail::place_at(root + mount.point, *below, is_v2)) {
                return place;
            }
        }
    }
    return std::nullopt;
}

}  // namespace memguard
