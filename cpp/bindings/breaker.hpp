// What the guards share: a breaker as Python sees it, admission and verdict of one call.
#pragma once

#include <pybind11/critical_section.h>

#include <memory>    // std::shared_ptr
#include <optional>  // std::optional

#include "event_queue.hpp"
#include "memguard/breaker.hpp"
#include "state.hpp"

namespace memguard {

// What the user decides about outcomes, as Python callables; null where the built-in rules stand
// alone. Our Python wraps the user's functions so that none of these raises.
struct Outcomes {
    pybind11::object classify;         // classify(exception) -> a Verdict's number
    pybind11::object classify_result;  // classify_result(result) -> a Verdict's number
    pybind11::object reopen_after;     // reopen_after(exception or result) -> seconds or None
    pybind11::object fallback;         // called with the arguments of a rejected call
    pybind11::object on_event;         // told at once, on the thread that made a transition
    bool count_base_exceptions = false;
};

// (breaker_id, generation, at_ns, wall_ns, from, to, reason), the last three as names.
[[nodiscard]] pybind11::tuple to_tuple(const BreakerEvent& event);

// The name of the public State.
[[nodiscard]] const char* name_of(Phase phase) noexcept;

// The object behind `_core.Breaker`: the cell, its clock, and what errors tell about it.
class Breaker {
  public:
    // Whether the callers never run at once: with a GIL, whoever makes a call here holds it.
#if defined(Py_GIL_DISABLED)
    static constexpr bool kExclusive = false;
#else
    static constexpr bool kExclusive = true;
#endif

    Breaker(pybind11::str name, const BreakerConfig& config, const WindowConfig& rates,
            Outcomes judges, std::shared_ptr<ManualClock> clock, std::shared_ptr<EventQueue> events)
        : cell(config,
               static_cast<std::uint64_t>(monotonic_ns()) ^ reinterpret_cast<std::uintptr_t>(this),
               make_windows(rates)),
          outcomes(std::move(judges)), name_(std::move(name)), clock_(std::move(clock)),
          events_(std::move(events)), id_(events_->new_breaker_id()) {}

    [[nodiscard]] std::int64_t now_ns() const noexcept {
        return clock_ ? clock_->now_ns() : monotonic_ns();
    }
    // Whether each call is to be told to the windows, and whether its time is to be taken.
    [[nodiscard]] bool is_recording() const noexcept { return cell.windows() != nullptr; }
    [[nodiscard]] bool is_timing() const noexcept { return slow_call_ns() > 0; }
    [[nodiscard]] std::int64_t slow_call_ns() const noexcept {
        return is_recording() ? cell.windows()->config().slow_call_ns : 0;
    }
    // The time at which a call begins or ends, as exact as the rules need it.
    [[nodiscard]] std::int64_t call_time_ns() const noexcept {
        if (clock_) {
            return clock_->now_ns();
        }
        // A tick of the coarse clock is at most 10 ms, a fifth of this.
        constexpr std::int64_t kCoarseIsExact = 50 * kNsPerMs;
        const std::int64_t slow_ns = slow_call_ns();
        return slow_ns == 0 || slow_ns >= kCoarseIsExact ? coarse_monotonic_ns() : monotonic_ns();
    }

    // The time for an admission. Reading the exact clock takes a sixth of a rejection, and far from
    // the end of an open period a tick more or less decides nothing.
    [[nodiscard]] std::int64_t admission_time_ns() const noexcept {
        constexpr std::int64_t kFar = 100 * kNsPerMs;
        if (!clock_) {
            const std::int64_t now_ns = coarse_monotonic_ns();
            const Word word = cell.load();
            if (word.phase() == Phase::open && open_left_ns(word, cell.config(), now_ns) > kFar) {
                return now_ns;
            }
        }
        return this->now_ns();
    }
    // Has a call that ends now taken as long as the rules call slow?
    [[nodiscard]] bool is_slow(Token token) const noexcept {
        return is_timing() && call_time_ns() - token.started_ns >= slow_call_ns();
    }

    [[nodiscard]] PyObject* name() const noexcept { return name_.ptr(); }

    // (failure_count, opened_at, last_error, cause) of the newest opening; None before the
    // first.
    [[nodiscard]] pybind11::object details(pybind11::handle self) const {
        const pybind11::scoped_critical_section lock{self};
        return details_;
    }
    // Called by the one who opened the circuit. `exception` may be null. Never raises.
    void record_opening(pybind11::handle self, PyObject* exception, Event cause) noexcept;
    // Called by the one who made the transition. No error may be set. Never raises.
    void tell(const Transition& done) noexcept;

    // The number of this breaker in its events.
    [[nodiscard]] std::uint64_t id() const noexcept { return id_; }

    BreakerCell cell;
    Outcomes outcomes;  // changed by the garbage collector's clear alone

  private:
    [[nodiscard]] static std::unique_ptr<Windows> make_windows(const WindowConfig& rates) {

        return rates.has_rules() ? std::make_unique<Windows>(rates, kExclusive) : nullptr;
    }

    pybind11::str name_;
    pybind11::object details_ = pybind11::none();
    std::shared_ptr<ManualClock> clock_;
    std::shared_ptr<EventQueue> events_;
    std::uint64_t id_;
};

// The cold part of an admission. On rejection raises CircuitOpenError and returns nothing.
// `self` is the Python object of `breaker`.
[[nodiscard]] std::optional<Token> enter(const ModuleState& state, Breaker& breaker,
                                         pybind11::handle self) noexcept;

// The verdict of a call. `exception` is what it raised, if it did: only its text is kept.
// `told_ns`: how long the dependency asked to be left alone.
void leave(Breaker& breaker, pybind11::handle self, Token token, Verdict verdict,
           PyObject* exception = nullptr, std::int64_t told_ns = kConfiguredWait) noexcept;

// The same for a call that ended with this exception, which is classified. No error may be set.
void leave_failing(const ModuleState& state, Breaker& breaker, pybind11::handle self, Token token,
                   PyObject* exception) noexcept;

// The same for a call that raised: takes the exception, judges it, and raises it again.
void leave_raising(const ModuleState& state, Breaker& breaker, pybind11::handle self,
                   Token token) noexcept;

// The same for a call that returned `result`.
void leave_returning(Breaker& breaker, pybind11::handle self, Token token,
                     PyObject* result) noexcept;

// Marks the running code as part of a probe: calls it makes through the same breaker are nested.
// Returns what leave_scope() takes; null for other calls. Never raises; an error set stays set.
[[nodiscard]] PyObject* enter_scope(const ModuleState& state, const Breaker& breaker,
                                    Token token) noexcept;
void leave_scope(const ModuleState& state, PyObject*& scope) noexcept;

class ProbeScope {
  public:
    ProbeScope(const ModuleState& state, const Breaker& breaker, Token token) noexcept
        : state_(state), scope_(enter_scope(state, breaker, token)) {}
    ~ProbeScope() { leave_scope(state_, scope_); }
    ProbeScope(const ProbeScope&) = delete;
    ProbeScope& operator=(const ProbeScope&) = delete;

  private:
    const ModuleState& state_;
    PyObject* scope_;
};

// Raises CircuitOpenError for a rejected call.
void raise_open_error(const ModuleState& state, const Breaker& breaker, pybind11::handle self,
                      const Admission& rejection) noexcept;

}  // namespace memguard
