// What the guards share: a breaker as Python sees it, admission and verdict of one call.
#pragma once

#include <pybind11/critical_section.h>

#include <memory>    // std::shared_ptr
#include <optional>  // std::optional

#include "memguard/breaker.hpp"
#include "state.hpp"

namespace memguard {

// The object behind `_core.Breaker`: the cell, its clock, and what errors tell about it.
class Breaker {
  public:
    Breaker(pybind11::str name, const BreakerConfig& config, std::shared_ptr<ManualClock> clock)
        : cell(config), name_(std::move(name)), clock_(std::move(clock)) {}

    [[nodiscard]] std::int64_t now_ns() const noexcept {
        return clock_ ? clock_->now_ns() : monotonic_ns();
    }
    [[nodiscard]] PyObject* name() const noexcept { return name_.ptr(); }

    // (failure_count, opened_at, last_error) of the newest opening; None before the first.
    [[nodiscard]] pybind11::object details(pybind11::handle self) const {
        const pybind11::scoped_critical_section lock{self};
        return details_;
    }
    // Called by the one who opened the circuit. `exception` may be null. Never raises.
    void record_opening(pybind11::handle self, PyObject* exception) noexcept;

    BreakerCell cell;

  private:
    pybind11::str name_;
    pybind11::object details_ = pybind11::none();
    std::shared_ptr<ManualClock> clock_;
};

// One admitted call. A call made inside a probe of the same breaker is `nested`: it runs under the
// outer call's token and gives no verdict of its own.
struct Call {
    Token token{};
    bool nested = false;
    PyObject* scope_reset = nullptr;  // the ContextVar's reset token of a probe, owned
};

// The cold part of an admission. On rejection raises CircuitOpenError and returns nothing.
// `self` is the Python object of `breaker`.
[[nodiscard]] std::optional<Call> enter(const ModuleState& state, Breaker& breaker,
                                        pybind11::handle self) noexcept;

// The verdict of a call. `exception` is what it raised, if it did: only its text is kept.
void leave(const ModuleState& state, Breaker& breaker, pybind11::handle self, Call& call,
           Verdict verdict, PyObject* exception = nullptr) noexcept;

// The same for a call that raised: takes the exception, classifies it, and raises it again.
void leave_raising(const ModuleState& state, Breaker& breaker, pybind11::handle self,
                   Call& call) noexcept;

// Raises CircuitOpenError for a rejected call.
void raise_open_error(const ModuleState& state, const Breaker& breaker, pybind11::handle self,
                      const Admission& rejection) noexcept;

}  // namespace memguard
