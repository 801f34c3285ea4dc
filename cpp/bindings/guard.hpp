// The guarded callable's layout, which what it returns reads too.
#pragma once

#include <atomic>   // std::atomic
#include <cstdint>  // std::uint64_t

#include "breaker.hpp"

namespace memguard {

// What kind of function a guard is of: decides where admission and verdict fall.
enum class Form : int { function, coroutine, generator, async_generator };

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
    Form form;
};

inline Guard* as_guard(PyObject* self) noexcept {
    return reinterpret_cast<Guard*>(self);
}

}  // namespace memguard
