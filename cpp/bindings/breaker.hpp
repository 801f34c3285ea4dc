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
#include "segment_handle.hpp"
#include "state.hpp"

namespace memguard {

struct Guard;

// (breaker_id, generation, at_ns, wall_ns, from, to, reason, is_shadow, pid, detail); from, to and
// reason as names, detail a text or None.
[[nodiscard]] pybind11::tuple to_tuple(const BreakerEvent& event, const pybind11::object& detail);

// The name of the public State.
[[nodiscard]] const char* name_of(Phase phase) noexcept;
[[nodiscard]] const char* name_of(Event event) noexcept;

// Text of a segment, which a stranger may have written. Raises error_already_set.
[[nodiscard]] pybind11::object text_of(std::string_view bytes);

// What errors and snapshots tell of an opening: see Breaker::details(). Raises error_already_set.
[[nodiscard]] pybind11::object details_of(const Note& note);

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

// The object behind `_core.Breaker`: the cell, its clock, and what errors tell about it. The cell
// is this process's own or lies in a segment; then what errors tell lies there too, and the numbers
// among the rules are those that were published there last.
class Breaker {
  public:
    // Whether the callers never run at once: with a GIL, whoever makes a call here holds it.
#if defined(Py_GIL_DISABLED)
    static constexpr bool kExclusive = false;
#else
    static constexpr bool kExclusive = true;
#endif

    // `clock`: null for the monotonic clock, or for the one that counts suspended time as well.
    // `place`: empty for a breaker of this process.
    Breaker(pybind11::str name, pybind11::object policy, std::shared_ptr<ManualClock> clock,
            bool counts_suspended_time, std::shared_ptr<EventQueue> events, SharedPlace place);

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

    // --- scope "host": the rules that all processes share ---------------------------------------

    [[nodiscard]] const SharedPlace& place() const noexcept { return place_; }
    // Publishes the numbers of the present rules, if others are published or none, and returns what
    // was published before, if it was something else. Called by whoever holds the file's lock.
    std::optional<SharedNumbers> publish();
    // Adopts the numbers that were published last. True if they were news. Never raises.
    bool follow() noexcept { return place_.is_shared() && follow_news(); }
    [[nodiscard]] std::uint64_t followed() const noexcept {
        return followed_.load(std::memory_order_relaxed);  // relaxed: as in follow_news()
    }
    // The rules by which a call is judged: those it began by.
    [[nodiscard]] const Policy& rules_of(const Call& call) noexcept;
    // Calls that run at once, those of processes that ended not counted where it matters.
    [[nodiscard]] std::uint64_t in_flight(const Policy& rules) const noexcept;
    // From now on lies there, as the segment so far has lost its name. Calls in flight end there,
    // as those of another era. With the GIL alone.
    void move_to(SharedPlace place);
    // Gives back the probes of processes that have ended. True if there were any.
    bool give_back_orphans(pybind11::handle self, const Policy& rules) noexcept;

    // (failure_count, opened_at, last_error, cause, detail) of the newest opening; None before the
    // first.
    [[nodiscard]] pybind11::object details(pybind11::handle self) const;
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
    [[nodiscard]] bool follow_news() noexcept;
    static BreakerCell make_cell(std::uint64_t seed, const SharedPlace& place);
    // The transition is told to this process's listeners, or to those of all processes.
    void push(const BreakerEvent& event, const pybind11::object& detail) noexcept;
    void write_note(const BreakerEvent& event, bool is_opening, const pybind11::object& last_error,
                    const pybind11::object& detail) noexcept;
    [[nodiscard]] pybind11::object shared_details(pybind11::handle self) const;

    [[nodiscard]] bool has_coarse_clock() const noexcept {
        return !clock_ && !counts_suspended_time_;
    }
    [[nodiscard]] BreakerEvent to_event(const Transition& done, const Policy& rules) noexcept;
    void record(pybind11::handle self, const BreakerEvent& event, bool is_opening,
                PyObject* exception, bool with_text, const pybind11::object& detail) noexcept;
    void tell_inline(const Policy& rules, const BreakerEvent& event,
                     const pybind11::object& detail) noexcept;
    [[nodiscard]] std::shared_ptr<Windows> windows_of(const WindowConfig& rates) const;
    [[nodiscard]] pybind11::object policy_with(const SharedNumbers& numbers) const;

    SharedPlace place_;
    pybind11::str name_;
    mutable pybind11::object details_ = pybind11::none();
    // Of the opening that `details_` is about; where they are read from a segment, of the word when
    // that was done.
    mutable std::uint64_t details_generation_ = 0;
    std::atomic<std::uint64_t> followed_{0};  // the version of the published rules
    std::atomic<bool> is_following_{false};   // one thread at a time
    std::atomic<std::int64_t> orphans_sought_ns_{0};
    bool holds_old_calls_ = false;          // shared windows that this process did not fill lately
    std::vector<SharedPlace> left_places_;  // where calls in flight may still look
    std::vector<std::shared_ptr<Windows>> left_windows_;
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
