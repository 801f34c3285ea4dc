// What the kernel writes into its small text files: numbers, and lines of a name and a number.
//
// Pure functions; nothing here allocates or throws. A line without its end may have been cut, and a
// cut number is a wrong one: such a line is not taken.
#pragma once

#include <charconv>      // std::from_chars
#include <cstddef>       // std::size_t
#include <cstdint>       // std::uint64_t
#include <optional>      // std::optional
#include <string_view>   // std::string_view
#include <system_error>  // std::errc

namespace memguard {

// The number at the beginning, after blanks.
[[nodiscard]] inline std::optional<std::uint64_t> number_in(std::string_view text) noexcept {
    const std::size_t start = text.find_first_not_of(" \t");
    if (start == std::string_view::npos) {
        return std::nullopt;
    }
    text.remove_prefix(start);
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc{} ? std::optional{value} : std::nullopt;
}

// Calls `take` with each line that has its end, without that.
template <class Take>
void for_each_line(std::string_view text, Take take) noexcept(noexcept(take(text))) {
    for (std::size_t end = text.find('\n'); end != std::string_view::npos; end = text.find('\n')) {
        take(text.substr(0, end));
        text.remove_prefix(end + 1);
    }
}

// What stands on a line after `name` and a blank.
[[nodiscard]] inline std::optional<std::string_view> after_name(std::string_view line,
                                                                std::string_view name) noexcept {
    if (!line.starts_with(name) || line.size() == name.size()) {
        return std::nullopt;
    }
    const char next = line[name.size()];
    return next == ' ' || next == '\t' ? std::optional{line.substr(name.size() + 1)} : std::nullopt;
}

// The number on the first line that begins with `name` and a blank.
[[nodiscard]] inline std::optional<std::uint64_t> number_of(std::string_view text,
                                                            std::string_view name) noexcept {
    std::optional<std::uint64_t> found;
    for_each_line(text, [&](std::string_view line) noexcept {
        if (const auto rest = after_name(line, name); rest && !found) {
            found = number_in(*rest);
        }
    });
    return found;
}

}  // namespace memguard
