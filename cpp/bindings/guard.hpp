// The guarded callable's layout, which the guarded coroutine reads too.
#pragma once

#include <atomic>   // std::atomic
#include <cstdint>  // std::uint64_t

#include "breaker.hpp"

namespace memguard {

struct Guard {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    PyObject* function;                      // never null: see guard_clear
    const std::atomic<std::uint64_t>* word;  // of `breaker`, here to save a load
    Breaker* breaker;                        // kept alive by `core`
    PyObject* core;                          // the _core.Breaker
    PyObject* owner;                         // the CircuitBreaker, for people
    PyObject* dict;
    PyObject* weakrefs;
};

// Awaits `coroutine` (stolen) under the guard. Null with an exception set if out of memory.
[[nodiscard]] PyObject* new_guarded_coroutine(const ModuleState& state, Guard* guard,
                                              PyObject* coroutine) noexcept;

}  // namespace memguard
