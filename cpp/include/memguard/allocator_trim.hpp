// trim_allocators(): asks the allocators of this process to give free memory back to the system.
//
// Whichever are there is found out by name, at each call: glibc's malloc_trim is absent from other
// C libraries, jemalloc and mimalloc are usually preloaded. All that are there are asked: a process
// with jemalloc preloaded has glibc's malloc_trim too, which then finds nothing.
#pragma once

#include <cstddef>   // std::size_t
#include <optional>  // std::optional

#if !defined(_WIN32)
#include <dlfcn.h>  // dlsym
#endif

namespace memguard {

// `look_up(name)` returns the address of a function, or nullptr. Whether memory was given back; for
// jemalloc and mimalloc, which do not tell, whether they were asked. None: no such allocator.
template <class LookUp>
std::optional<bool> trim_allocators(LookUp look_up) noexcept {
    using MallocTrim = int(std::size_t);
    using MallCtl = int(const char*, void*, std::size_t*, void*, std::size_t);
    using Collect = void(bool);
    std::optional<bool> given_back;
    const auto note = [&](bool was) { given_back = given_back.value_or(false) || was; };
    if (auto* const trim = reinterpret_cast<MallocTrim*>(look_up("malloc_trim"))) {
        note(trim(0) == 1);
    }
    if (auto* const control = reinterpret_cast<MallCtl*>(look_up("mallctl"))) {
        // 4096 is MALLCTL_ARENAS_ALL, since jemalloc 5.
        note(control("arena.4096.purge", nullptr, nullptr, nullptr, 0) == 0);
    }
    if (auto* const collect = reinterpret_cast<Collect*>(look_up("mi_collect"))) {
        collect(true);
        note(true);
    }
    return given_back;
}

inline std::optional<bool> trim_allocators() noexcept {
#if defined(_WIN32)
    return std::nullopt;
#else
    return trim_allocators([](const char* name) { return ::dlsym(RTLD_DEFAULT, name); });
#endif
}

}  // namespace memguard
