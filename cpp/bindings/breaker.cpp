#include "breaker.hpp"

#include <algorithm>  // std::find, std::none_of

#include "asking.hpp"
#include "exceptions.hpp"
#include "guard.hpp"
#include "memguard/process.hpp"
#include "probe_scope.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

// For how long a verdict opens the circuit, if it does: asked only where it may.
AskedWait ask_wait(const Breaker& breaker, const Call& call, const Outcome& outcome,
                   bool slow) noexcept {
    if (outcome.verdict != Verdict::failure) {
        // Inconclusive probes open too, and so may a slow call.
        const bool inconclusive = call.token.is_probe() && outcome.verdict == Verdict::neutral;
        return inconclusive || slow
                   ? ask_backoff(*call.policy, breaker.cell.step(), outcome.subject())
                   : AskedWait{};
    }
    if (outcome.subject() != nullptr) {
        if (const AskedWait told = ask_reopen_after(*call.policy, outcome.subject());
            told.is_asked()) {
            return told;
        }
    }
    const Word word = breaker.cell.load();
    const auto threshold = static_cast<std::uint64_t>(call.policy->config().failure_threshold);
    const bool may_open = call.token.is_probe() || call.policy->is_recording() ||
                          (word.phase() == Phase::closed && word.failures() + 1 >= threshold);
    const std::uint32_t attempt = breaker.cell.step() + (call.token.is_probe() ? 1 : 0);
    return may_open ? ask_backoff(*call.policy, attempt, outcome.subject()) : AskedWait{};
}

// Opens the circuit if one of the user's rules wants it, and it is still in that generation.
void ask_to_trip(Breaker& breaker, py::handle self, const Policy& policy, const py::object& rule,
                 std::uint64_t generation, const Outcome& outcome) noexcept {
    const py::object why = ask_rule(rule, self, outcome.subject());
    if (why) {
        breaker.trip_by_rule(self, policy, generation, why, outcome.exception);
    }
}

// Before the admission of a call to a closed circuit.
void ask_at_admission(Breaker& breaker, py::handle self, const Policy& policy) noexcept {
    const Word word = breaker.cell.load();
    if (word.phase() != Phase::closed) {
        return;
    }
    if (policy.limits_in_flight() && breaker.in_flight(policy) >= policy.config().max_in_flight) {
        const auto why = py::reinterpret_steal<py::object>(PyUnicode_FromFormat(
            "%llu calls in flight",
            static_cast<unsigned long long>(breaker.cell.statistics().in_flight())));
        if (why) {
            breaker.trip_by_rule(self, policy, word.generation(), why, nullptr);
        } else {
            PyErr_Clear();
        }
        return;
    }
    ask_to_trip(breaker, self, policy, policy.outcomes.trip_on_admission, word.generation(), {});
}

// A lost probe may open the circuit, in the admission of whoever finds it lost.
AskedWait ask_wait_of_lost_probe(const Breaker& breaker, const Policy& policy) noexcept {
    const bool may_open =
        policy.config().lost_probe_fails && breaker.cell.load().phase() == Phase::half_open;
    return may_open ? ask_backoff(policy, breaker.cell.step() + 1, nullptr) : AskedWait{};
}

}  // namespace

BreakerCell Breaker::make_cell(std::uint64_t seed, const SharedPlace& place) {
    return place.is_shared() ? BreakerCell{seed, place.handle->rows(), place.breaker().state,
                                           place.breaker().counters.data(), place.handle->claim()}
                             : BreakerCell{seed, kExclusive};
}

Breaker::Breaker(py::str name, py::object policy, std::shared_ptr<ManualClock> clock,
                 bool counts_suspended_time, std::shared_ptr<EventQueue> events, SharedPlace place)
    : cell(make_cell(static_cast<std::uint64_t>(monotonic_ns()) ^
                         reinterpret_cast<std::uintptr_t>(this),
                     place)),
      place_(std::move(place)), name_(std::move(name)), clock_(std::move(clock)),
      counts_suspended_time_(counts_suspended_time), events_(std::move(events)),
      id_(events_->new_breaker_id()) {
    adopt(std::move(policy));
}

void Breaker::adopt(py::object adopted) {
    auto& policy = adopted.cast<Policy&>();
    const Policy* const before = policy_.load(std::memory_order_relaxed);  // relaxed: ours alone
    if (policy.rules.rates.is_recording()) {
        if (!policy.rules.windows) {
            policy.rules.windows = windows_of(policy.rules.rates);
        }
        const bool is_other = before == nullptr || before->rules.windows != policy.rules.windows;
        if (is_other && !place_.is_shared()) {
            policy.rules.windows->restart(now_ns());  // what it held, if anything, is old
        }
        holds_old_calls_ = is_other && before != nullptr;
    }
    cell.clip(policy.config(), now_ns());
    const std::scoped_lock lock{mutex_};
    if (std::none_of(policies_.begin(), policies_.end(),
                     [&](const py::object& one) { return one.is(adopted); })) {
        policies_.push_back(std::move(adopted));
    }
    // release: pairs with the acquire load in policy()
    policy_.store(&policy, std::memory_order_release);
    for (Guard* guard = guards_; guard != nullptr; guard = guard->next) {
        set_policy(*guard, policy);
    }
}

// Rules that need the same windows share them.
std::shared_ptr<Windows> Breaker::windows_of(const WindowConfig& rates) const {
    for (const py::object& one : policies_) {
        const Rules& rules = one.cast<const Policy&>().rules;
        if (rules.windows && rules.rates.same_windows(rates)) {
            return rules.windows;
        }
    }
    if (place_.is_shared()) {
        return std::shared_ptr<Windows>(place_.handle->new_windows(place_.index, rates));
    }
    return std::make_shared<Windows>(rates, kExclusive);
}

void Breaker::add(Guard& guard) {
    const std::scoped_lock lock{mutex_};
    guard.next = guards_;
    guard.previous = nullptr;
    if (guards_ != nullptr) {
        guards_->previous = &guard;
    }
    guards_ = &guard;
    set_policy(guard, policy());
}

void Breaker::remove(Guard& guard) noexcept {
    const std::scoped_lock lock{mutex_};
    (guard.previous != nullptr ? guard.previous->next : guards_) = guard.next;
    if (guard.next != nullptr) {
        guard.next->previous = guard.previous;
    }
}

std::uint64_t Breaker::successes() const {
    std::uint64_t sum = cell.statistics().totals(0).successes;
    std::vector<py::object> policies;
    {
        const std::scoped_lock lock{mutex_};
        policies = policies_;  // another thread's adopt() may move them
    }
    std::vector<const Windows*> seen;
    for (const py::object& one : policies) {
        const Windows* const windows = one.cast<const Policy&>().rules.windows.get();
        if (windows != nullptr && std::find(seen.begin(), seen.end(), windows) == seen.end()) {
            seen.push_back(windows);
            sum += windows->successes();
            if (place_.is_shared()) {
                break;  // windows of all sizes count there in the same rows
            }
        }
    }
    return sum;
}

Breaker* breaker_of(const ModuleState& state, PyObject* core) noexcept {
    if (Py_TYPE(core) != state.breaker_type) {
        return nullptr;
    }
    // pybind11's cast looks the type up by name, which costs as much as the rest of an attempt.
    return reinterpret_cast<py::detail::instance*>(core)
        ->get_value_and_holder()
        .value_ptr<Breaker>();
}

void Breaker::trip_by_rule(py::handle self, const Policy& rules, std::uint64_t generation,
                           const py::object& why, PyObject* exception) noexcept {
    const AskedWait asked = ask_backoff(rules, cell.step(), exception);
    const Transition done = cell.trip_by_rule(rules.rules, generation, now_ns(), asked);
    if (done.opened()) {
        clip_to_present_rules(rules);
        announce(self, done, exception, why);
    }
}

std::optional<Call> enter(const ModuleState& state, Breaker& breaker, py::handle self,
                          const Policy& given, Asker asker) noexcept {
    const Policy& policy = breaker.follow() ? breaker.policy() : given;
    // What an open circuit does all day. Nothing can change, so nothing is looked at.
    const Word seen = breaker.cell.load();
    const std::int64_t left = breaker.far_left_ns(policy, seen);
    if (left > 0 && policy.config().enforce >= 1.0) [[likely]] {
        breaker.cell.statistics().count_rejection();
        raise_open_error(state, breaker, self, {seen, Decision::rejected_open, Event::none, left});
        return std::nullopt;
    }
    if (breaker.prober_is_stuck()) {
        asker = Asker::prober;
    }
    if (policy.asks_at_admission()) {
        ask_at_admission(breaker, self, policy);
    }
    const AskedWait asked = ask_wait_of_lost_probe(breaker, policy);
    const auto now = [&] { return breaker.now_ns(); };
    Admission admission = breaker.cell.admit(policy.rules, now, asker, asked);
    if (admission.decision == Decision::rejected_probing &&
        breaker.give_back_orphans(self, policy)) {
        admission = breaker.cell.admit(policy.rules, now, asker, asked);
    }
    breaker.announce(self, {admission.before, admission.next, admission.event});
    Token token;
    if (admission.decision == Decision::admitted) {
        token = admission.token();
    } else {
        if (admission.awaits_prober) {
            breaker.call_prober();
        }
        try {
            // Where there is room for another probe a call inside a probe is one of its own.
            if (admission.decision == Decision::rejected_probing &&
                inside_probe(state, breaker, admission.next)) {
                return Call{{admission.next.generation(), TokenKind::nested}, &policy};
            }
        } catch (py::error_already_set& error) {
            error.restore();
            return std::nullopt;
        }
        const bool is_forced = admission.decision == Decision::rejected_forced;
        if (is_forced || asker == Asker::prober || breaker.cell.draw_enforced(policy.config())) {
            breaker.cell.statistics().count_rejection();
            raise_open_error(state, breaker, self, admission);
            return std::nullopt;
        }
        breaker.cell.statistics().count_unenforced();
        token = {admission.next.generation(), TokenKind::unrecorded};
    }
    token.started_ns = policy.is_timing() ? breaker.call_time_ns(policy) : 0;
    if (!policy.limits_in_flight()) {
        return Call{token, &policy};
    }
    breaker.cell.statistics().begin_flight();
    return Call{token, &policy, true, fork_epoch()};
}

void leave(Breaker& breaker, py::handle self, const Call& call, const Outcome& outcome) noexcept {
    if (call.is_in_flight && call.forks == fork_epoch()) {
        breaker.cell.statistics().end_flight();
    }
    if (!call.token.counts()) {
        return;
    }
    const Policy& policy = breaker.rules_of(call);
    const Ending ending{outcome.verdict, breaker.is_slow(call), outcome.is_cancellation};
    const AskedWait asked = ask_wait(breaker, call, outcome, ending.slow);
    const Transition done =
        breaker.cell.settle(policy.rules, call.token, ending, breaker.now_ns(), asked);
    if (done.opened()) {
        breaker.clip_to_present_rules(policy);
    }
    breaker.announce(self, done, outcome.exception);
    const bool is_closed = !call.token.is_probe() && !done.is_news() && done.event != Event::stale;
    if (!is_closed) {
        return;
    }
    if (outcome.verdict == Verdict::failure) {
        ask_to_trip(breaker, self, policy, policy.outcomes.trip_on_failure, call.token.generation,
                    outcome);
    }
    ask_to_trip(breaker, self, policy, policy.outcomes.trip_on_verdict, call.token.generation,
                outcome);
}

void leave_failing(const ModuleState& state, Breaker& breaker, py::handle self, const Call& call,
                   PyObject* exception) noexcept {
    Outcome outcome;
    outcome.exception = exception;
    if (call.token.counts()) {
        outcome.verdict = classify(state, *call.policy, exception, outcome.is_cancellation);
    }
    leave(breaker, self, call, outcome);
}

void leave_raising(const ModuleState& state, Breaker& breaker, py::handle self,
                   const Call& call) noexcept {
    PyObject* const exception = take_exception();
    leave_failing(state, breaker, self, call, exception);
    put_exception(exception);
}

void leave_returning(Breaker& breaker, py::handle self, const Call& call,
                     PyObject* result) noexcept {
    Outcome outcome;
    outcome.result = result;
    if (call.token.counts()) {
        outcome.verdict = classify_result(*call.policy, result);
    }
    leave(breaker, self, call, outcome);
}

void raise_open_error(const ModuleState& state, const Breaker& breaker, py::handle self,
                      const Admission& rejection) noexcept {
    try {
        PyObject* circuit_state = state.state_open;
        PyObject* reason = state.state_open;
        if (rejection.decision == Decision::rejected_probing) {
            circuit_state = state.state_half_open;
            reason = state.reason_probing;
        } else if (rejection.decision == Decision::rejected_forced) {
            circuit_state = reason = state.state_forced_open;
        }
        auto seconds = py::reinterpret_steal<py::object>(
            PyFloat_FromDouble(static_cast<double>(rejection.retry_after_ns) / kNsPerSecond));
        py::object details = breaker.details(self);
        PyObject* error = state.open_error_type->tp_alloc(state.open_error_type, 0);
        if (!seconds || error == nullptr) {
            Py_XDECREF(error);
            throw py::error_already_set();
        }
        // By hand, and not by PyTuple_Pack: a rejection is mostly the making of its error.
        PyObject* const args = PyTuple_New(5);
        if (args == nullptr) {
            Py_DECREF(error);
            throw py::error_already_set();
        }
        PyTuple_SET_ITEM(args, 0, Py_NewRef(breaker.name()));
        PyTuple_SET_ITEM(args, 1, seconds.release().ptr());
        PyTuple_SET_ITEM(args, 2, Py_NewRef(reason));
        PyTuple_SET_ITEM(args, 3, Py_NewRef(circuit_state));
        PyTuple_SET_ITEM(args, 4, details.release().ptr());
        reinterpret_cast<PyBaseExceptionObject*>(error)->args = args;
        put_exception(error);
    } catch (py::error_already_set& error) {
        error.restore();
    }
}

}  // namespace memguard
