// Policy: one set of rules of a breaker, and the user's functions that belong to it. Immutable once
// a breaker has adopted it, so that a call can go by one set from its beginning to its end.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>  // std::ranges::all_of
#include <array>      // std::array

#include "memguard/breaker.hpp"
#include "memguard/shared_rules.hpp"

namespace memguard {

// What the user decides, as Python callables; null where the built-in rules stand alone. Our Python
// wraps the user's functions so that none of these raises, the fallback apart.
struct Outcomes {
    pybind11::object classify;         // classify(exception) -> a Verdict's number
    pybind11::object classify_result;  // classify_result(result) -> a Verdict's number
    pybind11::object reopen_after;     // reopen_after(exception or result) -> seconds or None
    pybind11::object backoff;          // backoff(attempt, exception or result) -> seconds or None
    // f(breaker, exception or result) -> why the circuit is to open, or None. Asked when a closed
    // circuit has counted a failure, any verdict, or before it admits a call.
    pybind11::object trip_on_failure;
    pybind11::object trip_on_verdict;
    pybind11::object trip_on_admission;
    pybind11::object fallback;  // called with the arguments of a rejected call
    pybind11::object on_event;  // told at once, on the thread that made a transition
    bool count_base_exceptions = false;

    // Calls `visit` with each of the callables.
    template <class Visit>
    void each(Visit visit) const {
        for (const auto member : kCallables) {
            visit(this->*member);
        }
    }

    // Whether these are the same functions.
    [[nodiscard]] bool is_same_as(const Outcomes& other) const noexcept {
        return count_base_exceptions == other.count_base_exceptions &&
               std::ranges::all_of(kCallables, [&](const auto member) {
                   return (this->*member).is(other.*member);
               });
    }

  private:
    static constexpr std::array kCallables{
        &Outcomes::classify,          &Outcomes::classify_result, &Outcomes::reopen_after,
        &Outcomes::backoff,           &Outcomes::trip_on_failure, &Outcomes::trip_on_verdict,
        &Outcomes::trip_on_admission, &Outcomes::fallback,        &Outcomes::on_event};
};

struct Policy {
    Rules rules;        // its windows are set by the breaker that adopts the policy
    Outcomes outcomes;  // changed by the garbage collector's clear alone

    [[nodiscard]] const BreakerConfig& config() const noexcept { return rules.config; }
    [[nodiscard]] SharedNumbers numbers() const noexcept { return {rules.config, rules.rates}; }
    // Whether each call is to be told to the windows, and whether its time is to be taken.
    [[nodiscard]] bool is_recording() const noexcept { return rules.windows != nullptr; }
    [[nodiscard]] bool is_timing() const noexcept { return slow_call_ns() > 0; }
    [[nodiscard]] std::int64_t slow_call_ns() const noexcept {
        return is_recording() ? rules.rates.slow_call_ns : 0;
    }
    [[nodiscard]] bool limits_in_flight() const noexcept { return config().max_in_flight > 0; }
    // Whether something is to be done before a healthy circuit admits a call.
    [[nodiscard]] bool asks_at_admission() const noexcept {
        return limits_in_flight() || outcomes.trip_on_admission;
    }
    // Whether even a success that a healthy circuit saw, and that is good, has something to tell.
    [[nodiscard]] bool asks_after_success() const noexcept {
        return is_recording() || asks_at_admission() || outcomes.trip_on_verdict;
    }
};

// A call that was admitted: its token, and the rules by which it goes to its end.
struct Call {
    Token token;
    const Policy* policy = nullptr;  // kept by the breaker
    bool is_in_flight = false;       // counted as such
    std::uint64_t forks = 0;         // fork_epoch() when that was: a child does not end it
};

}  // namespace memguard
