// ArenaCounter: bytes in the arenas of CPython's allocator, counted by who hooks that allocator.
//
// The core knows no Python: the hook adds and subtracts, a probe reads. Any thread, no lock: an
// arena has a MiB, so this is written once per thousands of objects.
#pragma once

#include <atomic>    // std::atomic
#include <cstdint>   // std::int64_t
#include <optional>  // std::optional

namespace memguard {

class ArenaCounter {
  public:
    void add(std::int64_t bytes) noexcept {
        // relaxed: a sum by itself, which orders nothing
        bytes_.fetch_add(bytes, std::memory_order_relaxed);
    }

    // From here on the sum is complete: `bytes` were there before the first add().
    void begin_with(std::int64_t bytes) noexcept {
        add(bytes);
        // release: pairs with the acquire load in bytes(), which then sees the sum with them
        is_complete_.store(true, std::memory_order_release);
    }

    // Nothing before begin_with().
    [[nodiscard]] std::optional<std::uint64_t> bytes() const noexcept {
        // acquire: pairs with the release store in begin_with()
        if (!is_complete_.load(std::memory_order_acquire)) {
            return std::nullopt;
        }
        // relaxed: as in add()
        return static_cast<std::uint64_t>(bytes_.load(std::memory_order_relaxed));
    }

  private:
    std::atomic<std::int64_t> bytes_{0};
    std::atomic<bool> is_complete_{false};
};

}  // namespace memguard
