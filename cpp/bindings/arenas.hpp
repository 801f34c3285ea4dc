// The bytes in the arenas of CPython's own allocator, counted by a hook.
#pragma once

#include "memguard/arena_counter.hpp"

namespace memguard {

// Hooks the arena allocator, the first time that it is called in this process. Under the GIL.
void count_python_arenas();

// Unknown where there is no hook. Any thread, no GIL.
[[nodiscard]] const ArenaCounter& python_arenas() noexcept;

}  // namespace memguard
