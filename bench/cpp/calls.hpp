// The calls that the programs here count: of a function that does nothing, which the compiler
// cannot see.
#pragma once

#include <algorithm>  // std::max, std::min
#include <atomic>     // std::atomic
#include <chrono>     // std::chrono::steady_clock
#include <cstdint>    // std::uint64_t

#include "memguard/breaker_word.hpp"

namespace bench {

using Clock = std::chrono::steady_clock;
using Function = bool (*)() noexcept;

// When somebody made calls.
struct Span {
    Clock::time_point start;
    Clock::time_point end;

    // From where the first began to where the last ended.
    [[nodiscard]] Span joined(const Span& other) const {
        return {std::min(start, other.start), std::max(end, other.end)};
    }
    [[nodiscard]] double microseconds() const {
        return std::chrono::duration<double, std::micro>{end - start}.count();
    }
};

[[gnu::noinline]] inline bool target() noexcept {
    asm volatile("" ::: "memory");
    return true;
}

[[gnu::noinline, gnu::cold]] inline bool leave_to_the_cold_path() noexcept {
    asm volatile("" ::: "memory");
    return false;
}

// As a guard does: the word is loaded and compared before and after the call.
inline bool call_guarded(const std::atomic<std::uint64_t>& bits, Function function) noexcept {
    // acquire: as the guard, which pairs it with the compare_exchange of a transition
    const std::uint64_t word = bits.load(std::memory_order_acquire);
    if (!memguard::healthy(word)) [[unlikely]] {
        return leave_to_the_cold_path();
    }
    const bool result = function();
    // relaxed: only compared
    if (!result || bits.load(std::memory_order_relaxed) != word) [[unlikely]] {
        return leave_to_the_cold_path();
    }
    return result;
}

// As a breaker with a shared counter does.
inline bool call_counted(std::atomic<std::uint64_t>& counter, Function function) noexcept {
    // relaxed: a sum; nothing is decided from it
    counter.fetch_add(1, std::memory_order_relaxed);
    return function();
}

// Waits until so many have come, spinning, so that all go on within a microsecond.
inline void meet(std::atomic<unsigned>& come, unsigned expected) noexcept {
    // acq_rel: what each wrote before is seen by all after; pairs with the acquire load
    come.fetch_add(1, std::memory_order_acq_rel);
    // acquire: pairs with the release half of the fetch_add
    while (come.load(std::memory_order_acquire) < expected) {
    }
}

// Not inlined: a loop that stands twice in a program may run at two speeds.
template <auto kCall, class Word>
[[nodiscard, gnu::noinline]] Span make_calls(Word& word, std::uint64_t calls) noexcept {
    const Function volatile opaque = target;
    const Function function = opaque;
    Span span;
    span.start = Clock::now();
    for (std::uint64_t done = 0; done < calls; ++done) {
        kCall(word, function);
    }
    span.end = Clock::now();
    return span;
}

}  // namespace bench
