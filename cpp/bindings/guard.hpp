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
    std::atomic<const Policy*> policy;       // the breaker's present one, here to save a load
    Breaker* breaker;                        // kept alive by `core`
    PyObject* core;                          // the _core.Breaker
    PyObject* owner;                         // the CircuitBreaker, for people
    PyObject*
        on_reject;  // told the arguments of a call that is rejected at its first step, or null
    PyObject* dict;
    PyObject* weakrefs;
    Guard* previous;  // in the breaker's list of guards
    Guard* next;
    Form form;

    // The rules for a call that begins now.
    [[nodiscard]] const Policy& current_policy() const noexcept {
        // pairs with: the release store in set_policy()
        return *policy.load(std::memory_order_acquire);
    }
};

// From now on calls of the guard go by these rules, which decide also which code runs them. Any
// code is right under any rules, for the calls that are on their way into it.
void set_policy(Guard& guard, const Policy& policy) noexcept;

inline Guard* as_guard(PyObject* self) noexcept {
    return reinterpret_cast<Guard*>(self);
}

}  // namespace memguard
