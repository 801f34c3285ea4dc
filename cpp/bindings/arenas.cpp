// Counts the arenas of CPython's allocator of small objects: a hook around the functions that get
// and give back an arena, which run once for a MiB of objects or so.
//
// The hook is the process's, as the functions are: it counts the arenas of all interpreters, stays
// for good (arenas that it saw come will go through it), and holds no Python object. What was there
// before it comes from the allocator's own statistics, read once; they are those of the current
// interpreter, so from 3.12 on, where each may have an allocator of its own, the sum stays unknown
// if others exist already. It also stays unknown where that allocator is not in use: PYTHONMALLOC,
// a build without the GIL, an object allocator that was replaced before the import (tracemalloc
// from the start of the process).
#include <Python.h>

#include "arenas.hpp"

#if !defined(_WIN32) && !defined(Py_GIL_DISABLED)
#include <dlfcn.h>  // dlsym

#include <cstdio>       // std::FILE, open_memstream
#include <cstdlib>      // std::free
#include <optional>     // std::optional
#include <string_view>  // std::string_view

#include "memguard/proc_text.hpp"
#define MEMGUARD_COUNTS_ARENAS 1
#endif

namespace memguard {
namespace {

ArenaCounter counter;

#if defined(MEMGUARD_COUNTS_ARENAS)

PyObjectArenaAllocator wrapped;  // written once, before the hook is there

void* count_alloc(void*, std::size_t bytes) {
    void* const arena = wrapped.alloc(wrapped.ctx, bytes);
    if (arena != nullptr) {
        counter.add(static_cast<std::int64_t>(bytes));
    }
    return arena;
}

void count_free(void*, void* arena, std::size_t bytes) {
    wrapped.free(wrapped.ctx, arena, bytes);
    counter.add(-static_cast<std::int64_t>(bytes));
}

// "4 arenas * 1048576 bytes/arena     =            4,194,304"
std::optional<std::int64_t> total_of(std::string_view statistics) {
    constexpr std::string_view kTimes = " arenas * ";
    std::optional<std::int64_t> total;
    for_each_line(statistics, [&](std::string_view line) {
        const std::size_t at = line.find(kTimes);
        if (at == std::string_view::npos) {
            return;
        }
        const auto count = number_in(line);
        const auto bytes = number_in(line.substr(at + kTimes.size()));
        if (count && bytes) {
            total = static_cast<std::int64_t>(*count * *bytes);
        }
    });
    return total;
}

std::optional<std::int64_t> arena_bytes_by_statistics() {
    using Statistics = int (*)(std::FILE*);
    const auto statistics =
        reinterpret_cast<Statistics>(::dlsym(RTLD_DEFAULT, "_PyObject_DebugMallocStats"));
    if (statistics == nullptr) {
        return std::nullopt;
    }
    char* text = nullptr;
    std::size_t bytes = 0;
    std::FILE* const out = ::open_memstream(&text, &bytes);
    if (out == nullptr) {
        return std::nullopt;
    }
    const bool is_in_use = statistics(out) != 0;
    std::optional<std::int64_t> total;
    if (std::fclose(out) == 0 && is_in_use) {
        total = total_of({text, bytes});
    }
    std::free(text);
    return total;
}

bool are_all_arenas_of_this_interpreter() {
#if PY_VERSION_HEX < 0x030C0000
    return true;
#else
    return PyInterpreterState_Next(PyInterpreterState_Head()) == nullptr;
#endif
}

void hook() {
    const auto before =
        are_all_arenas_of_this_interpreter() ? arena_bytes_by_statistics() : std::nullopt;
    if (!before) {
        return;
    }
    PyObject_GetArenaAllocator(&wrapped);
    PyObjectArenaAllocator counting{nullptr, count_alloc, count_free};
    PyObject_SetArenaAllocator(&counting);
    counter.begin_with(*before);
}

#endif

}  // namespace

void count_python_arenas() {
#if defined(MEMGUARD_COUNTS_ARENAS)
    // Once in a process, also if it is imported again or by another interpreter: a hook around a
    // hook of somebody's around ours would call itself.
    static const bool hooked = [] {
        hook();
        return true;
    }();
    static_cast<void>(hooked);
#endif
}

const ArenaCounter& python_arenas() noexcept {
    return counter;
}

}  // namespace memguard
