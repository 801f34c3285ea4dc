// What the user's functions are asked, and the built-in judgement where they have none. No error
// may be set, and no lock or half-made change is held: any of them may call any breaker.
#pragma once

#include "policy.hpp"
#include "state.hpp"

namespace memguard {

// The error that is set came from a function of the user's on whose answer nothing waits. Ctrl-C
// and exit in the main thread are raised there again, as soon as Python runs; all else is reported.
void hand_over(PyObject* context) noexcept;

// What an exception means. `is_cancellation` is set where it is a task's cancellation.
[[nodiscard]] Verdict classify(const ModuleState& state, const Policy& policy, PyObject* exception,
                               bool& is_cancellation) noexcept;

// What a result means.
[[nodiscard]] Verdict classify_result(const Policy& policy, PyObject* result) noexcept;

// How long a dependency that failed asked to be left alone.
[[nodiscard]] AskedWait ask_reopen_after(const Policy& policy,
                                         PyObject* exception_or_result) noexcept;

// For how long the circuit is to open for the `attempt`-th time since it closed, the first being 0.
// `exception_or_result` may be null.
[[nodiscard]] AskedWait ask_backoff(const Policy& policy, std::uint32_t attempt,
                                    PyObject* exception_or_result) noexcept;

// Why a rule of the user's, which may be null, wants the circuit to open; null if it does not.
[[nodiscard]] pybind11::object ask_rule(const pybind11::object& rule, pybind11::handle breaker,
                                        PyObject* exception_or_result) noexcept;

}  // namespace memguard
