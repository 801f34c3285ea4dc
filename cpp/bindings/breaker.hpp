// What the guards share: a breaker as Python sees it, admission and verdict of one call.
#pragma once

#include <pybind11/critical_section.h>

#include <atomic>    // std::atomic
#include <memory>    // std::shared_ptr
#include <mutex>     // std::mutex
#include <optional>  // std::optional
#include <vector>    // std::vector

#include "event_queue.hpp"
#include "memguard/breaker.hpp"
#include "policy.hpp"
#include "state.hpp"

namespace memguard {

struct Guard;

// (breaker_id, generation, at_ns, wall_ns, from, to, reason, is_shadow, detail); from, to and
// reason as names, detail a text or None.
[[nodiscard]] pybind11::tuple to_tuple(const BreakerEvent& event, const pybind11::object& detail);

// The name of the public State.
[[nodiscard]] const char* name_of(Phase phase) noexcept;

// How a call ended. Of `exception` and `result` at most one is set; borrowed.
struct Outcome {
    Verdict verdict = Verdict::success;
    PyObject* exception = nullptr;  // only its text is kept
    PyObject* result = nullptr;
    bool is_cancellation = false;

    [[nodiscard]] PyObject* subject() const noexcept {
        return exception != nullptr ? exception : result;
    }
};

// The object behind `_core.Breaker`: the cell, its clock, and what errors tell about it.
class Breaker {
  public:
    // Whether the callers never run at once: with a GIL, whoever makes a call here holds it.
#if defined(Py_GIL_DISABLED)
    static constexpr bool kExclusive = false;
#else
    static constexpr bool kExclusive = true;
#endif

    // `clock`: null for the monotonic clock, or for the one that counts suspended time as well.
    Breaker(pybind11::str name, pybind11::object policy, std::shared_ptr<ManualClock> clock,
            bool counts_suspended_time, std::shared_ptr<EventQueue> events)
        : cell(static_cast<std::uint64_t>(monotonic_ns()) ^ reinterpret_cast<std::uintptr_t>(this)),
          name_(std::move(name)), clock_(std::move(clock)),
          counts_suspended_time_(counts_suspended_time), events_(std::move(events)),
          id_(events_->new_breaker_id()) {
        adopt(std::move(policy));
    }

    [[nodiscard]] std::int64_t now_ns() const noexcept {
        if (clock_) {
            return clock_->now_ns();
        }
        return counts_suspended_time_ ? boottime_ns() : monotonic_ns();
    }
    // The time at which a call begins or ends, as exact as the rules need it.
    [[nodiscard]] std::int64_t call_time_ns(const Policy& rules) const noexcept {
        if (!has_coarse_clock()) {
            return now_ns();
        }
        // A tick of the coarse clock is at most 10 ms, a fifth of this.
        constexpr std::int64_t kCoarseIsExact = 50 * kNsPerMs;
        const std::int64_t slow_ns = rules.slow_call_ns();
        return slow_ns == 0 || slow_ns >= kCoarseIsExact ? coarse_monotonic_ns() : monotonic_ns();
    }

    // Nanoseconds until the open period of this word is over, if it is open and that is far; else
    // 0. Reading the exact clock takes a sixth of a rejection, and far from the end a tick more or
    // less decides nothing.
    [[nodiscard]] std::int64_t far_left_ns(const Policy& rules, Word word) const noexcept {
        constexpr std::int64_t kFar = 100 * kNsPerMs;
        if (word.phase() != Phase::open) {
            return 0;
        }
        const std::int64_t now = has_coarse_clock() ? coarse_monotonic_ns() : now_ns();
        const std::int64_t left = open_left_ns(word, rules.config(), now);
        return left > kFar ? left : 0;
    }
    // Has a call that ends now taken as long as its rules call slow?
    [[nodiscard]] bool is_slow(const Call& call) const noexcept {
        const Policy& rules = *call.policy;
        return rules.is_timing() && call.token.started_ns != 0 &&
               call_time_ns(rules) - call.token.started_ns >= rules.slow_call_ns();
    }

    [[nodiscard]] PyObject* name() const noexcept { return name_.ptr(); }

    // The rules for calls that begin now. They stay valid as long as the breaker.
    [[nodiscard]] const Policy& policy() const noexcept {
        // pairs with: the release store in adopt()
        return *policy_.load(std::memory_order_acquire);
    }
    // Publishes a `_core.Policy`; calls in flight go on by theirs. One thread at a time. Sets of
    // rules are kept for the calls that may still use them, each once.
    void adopt(pybind11::object policy);
    // For the garbage collector, which no other thread runs beside.
    [[nodiscard]] const std::vector<pybind11::object>& policies() const noexcept {
        return policies_;
    }

    // The guards, which are told when the rules change.
    void add(Guard& guard);
    void remove(Guard& guard) noexcept;

    // Successes ever, where calls are counted.
    [[nodiscard]] std::uint64_t successes() const;

    // (failure_count, opened_at, last_error, cause, detail) of the newest opening; None before the
    // first.
    [[nodiscard]] pybind11::object details(pybind11::handle self) const {
        const pybind11::scoped_critical_section lock{self};
        return details_;
    }
    // Called by the one who made the transition, if it was one, at once: the event is told, and of
    // an opening it is kept why. `exception` may be null. No error may be set. Never raises.
    void announce(pybind11::handle self, const Transition& done, PyObject* exception = nullptr,
                  const pybind11::object& detail = {}) noexcept;
    // Called by the one who made other rules apply.
    void announce_other_rules() noexcept;
    // After an opening by these rules: they may allow more than those that replaced them.
    void clip_to_present_rules(const Policy& rules) noexcept {
        if (&rules != &policy()) {
            cell.clip(policy().config(), now_ns());
        }
    }
    // Opens the circuit, if it is closed and still of this generation. Never raises.
    void trip_by_rule(pybind11::handle self, const Policy& rules, std::uint64_t generation,
                      const pybind11::object& why, PyObject* exception) noexcept;

    // A caller was turned away because the active probe is due: its thread is woken, once.
    void call_prober() noexcept {
        // relaxed: a hint; the prober also looks by itself
        if (!prober_is_called_.exchange(true, std::memory_order_relaxed)) {
            events_->wake();
        }
    }
    void prober_came() noexcept {
        prober_is_called_.store(false, std::memory_order_relaxed);  // relaxed: as above
    }

    // So many active probes hang that no other is started: calls probe, as if there were none.
    void set_prober_is_stuck(bool is_stuck) noexcept {
        prober_is_stuck_.store(is_stuck, std::memory_order_relaxed);  // relaxed: as above
    }
    [[nodiscard]] bool prober_is_stuck() const noexcept {
        return prober_is_stuck_.load(std::memory_order_relaxed);  // relaxed: as above
    }

    // The number of this breaker in its events.
    [[nodiscard]] std::uint64_t id() const noexcept { return id_; }

    BreakerCell cell;

  private:
    [[nodiscard]] bool has_coarse_clock() const noexcept {
        return !clock_ && !counts_suspended_time_;
    }
    [[nodiscard]] BreakerEvent to_event(const Transition& done, const Policy& rules) noexcept;
    void record_opening(pybind11::handle self, const BreakerEvent& event, PyObject* exception,
                        bool with_text, const pybind11::object& detail) noexcept;
    void tell_inline(const Policy& rules, const BreakerEvent& event,
                     const pybind11::object& detail) noexcept;
    [[nodiscard]] std::shared_ptr<Windows> windows_of(const WindowConfig& rates) const;

    pybind11::str name_;
    pybind11::object details_ = pybind11::none();
    std::uint64_t details_generation_ = 0;  // of the opening that `details_` is about
    std::shared_ptr<ManualClock> clock_;
    bool counts_suspended_time_;
    std::shared_ptr<EventQueue> events_;
    std::uint64_t id_;
    std::atomic<const Policy*> policy_{nullptr};
    std::atomic<bool> prober_is_called_{false};
    std::atomic<bool> prober_is_stuck_{false};
    mutable std::mutex mutex_;  // of what follows; no Python runs under it
    std::vector<pybind11::object> policies_;
    Guard* guards_ = nullptr;
};

// The breaker behind a `_core.Breaker`; null for all else, one that was never initialised included.
[[nodiscard]] Breaker* breaker_of(const ModuleState& state, PyObject* core) noexcept;

// The cold part of an admission under these rules. On rejection raises CircuitOpenError and returns
// nothing. `self` is the Python object of `breaker`.
[[nodiscard]] std::optional<Call> enter(const ModuleState& state, Breaker& breaker,
                                        pybind11::handle self, const Policy& policy,
                                        Asker asker = Asker::caller) noexcept;

// The end of a call. No error may be set.
void leave(Breaker& breaker, pybind11::handle self, const Call& call,
           const Outcome& outcome) noexcept;

// The same for a call that ended with this exception, which is classified.
void leave_failing(const ModuleState& state, Breaker& breaker, pybind11::handle self,
                   const Call& call, PyObject* exception) noexcept;

// The same for a call that raised: takes the exception, judges it, and raises it again.
void leave_raising(const ModuleState& state, Breaker& breaker, pybind11::handle self,
                   const Call& call) noexcept;

// The same for a call that returned `result`, which is judged.
void leave_returning(Breaker& breaker, pybind11::handle self, const Call& call,
                     PyObject* result) noexcept;

// Raises CircuitOpenError for a rejected call.
void raise_open_error(const ModuleState& state, const Breaker& breaker, pybind11::handle self,
                      const Admission& rejection) noexcept;

}  // namespace memguard
