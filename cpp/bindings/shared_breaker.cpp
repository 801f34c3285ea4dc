// What a breaker does that lies in a segment: rules and reasons that all processes share, probes of
// those that ended.
#include <algorithm>  // std::find
#include <utility>    // std::exchange

#include "breaker.hpp"
#include "guard.hpp"

namespace py = pybind11;

namespace memguard {

// The present rules with these numbers; one that there is already, if it is the same.
py::object Breaker::policy_with(const SharedNumbers& numbers) const {
    const Policy& present = policy();
    const SharedNumbers wanted = numbers.with_own_of(present.numbers());
    const RuleWords words = encode(wanted);
    for (const py::object& one : policies_) {
        const auto& kept = one.cast<const Policy&>();
        if (encode(kept.numbers()) == words && kept.numbers().has_same_own(wanted) &&
            kept.outcomes.is_same_as(present.outcomes)) {
            return one;
        }
    }
    auto made = std::make_unique<Policy>();
    made->rules.config = wanted.config;
    made->rules.rates = wanted.rates;
    made->outcomes = present.outcomes;
    return py::cast(std::move(made));
}

std::optional<SharedNumbers> Breaker::publish() {
    SharedRules& shared = place_.breaker().rules;
    const SharedRules::Published found = shared.read();
    const Rules& mine = policy().rules;
    const SharedNumbers numbers = policy().numbers();
    const bool is_same = found.numbers && encode(*found.numbers) == encode(numbers);
    const bool is_other_size = !found.numbers || !found.numbers->rates.same_windows(mine.rates);
    // Also where the numbers are the same: rules that count calls for a function of this process's
    // own come and go without a change of them.
    if (mine.windows && (is_other_size || holds_old_calls_)) {
        mine.windows->restart(now_ns());
    }
    if (!is_same) {
        cell.clip(mine.config, now_ns());
    }
    // relaxed: as in follow()
    followed_.store(is_same ? found.version : shared.publish(numbers), std::memory_order_relaxed);
    return is_same ? std::nullopt : found.numbers;
}

void Breaker::move_to(SharedPlace place) {
    const std::scoped_lock lock{mutex_};
    left_places_.push_back(std::move(place_));
    place_ = std::move(place);
    SharedBreaker& shared = place_.breaker();
    cell.move_to(place_.handle->rows(), shared.state, shared.counters.data(),
                 place_.handle->claim());
    for (const py::object& one : policies_) {
        auto& windows = one.cast<Policy&>().rules.windows;
        if (windows) {
            left_windows_.push_back(std::exchange(windows, nullptr));
        }
    }
    for (const py::object& one : policies_) {
        auto& rules = one.cast<Policy&>().rules;
        if (rules.rates.is_recording()) {
            rules.windows = windows_of(rules.rates);
        }
    }
    for (Guard* guard = guards_; guard != nullptr; guard = guard->next) {
        guard->word = &cell.word();
    }
    followed_.store(0, std::memory_order_relaxed);  // relaxed: as in follow_news()
    details_generation_ = 0;
}

bool Breaker::follow_news() noexcept {
    const SharedRules& shared = place_.breaker().rules;
    // relaxed, all: only compared; the rules are published by adopt()
    if (shared.version() == followed_.load(std::memory_order_relaxed) ||
        is_following_.exchange(true, std::memory_order_acquire)) {
        return false;
    }
    bool is_adopted = false;
    const SharedRules::Published found = shared.read();
    try {
        if (found.numbers) {
            py::object adopted = policy_with(*found.numbers);
            is_adopted = &adopted.cast<const Policy&>() != &policy();
            adopt(std::move(adopted));
        } else {
            // relaxed: a count
            place_.handle->segment().header().repairs.fetch_add(1, std::memory_order_relaxed);
        }
        followed_.store(found.version, std::memory_order_relaxed);
    } catch (py::error_already_set& error) {
        error.discard_as_unraisable("memguard_native: adopting the rules of other processes");
    }
    is_following_.store(false, std::memory_order_release);  // pairs with the exchange above
    return is_adopted;
}

const Policy& Breaker::rules_of(const Call& call) noexcept {
    // Where other processes publish rules, this one may have been the last to learn of them: a call
    // that began by what it took for the present ones goes by what they are.
    const bool began_by_present = call.policy == &policy();
    return follow() && began_by_present ? policy() : *call.policy;
}

std::uint64_t Breaker::in_flight(const Policy& rules) const noexcept {
    if (place_.is_shared() && cell.statistics().in_flight() >= rules.config().max_in_flight) {
        place_.handle->segment().forget_flights_of_the_dead(place_.index);
    }
    return cell.statistics().in_flight();
}

bool Breaker::give_back_orphans(py::handle self, const Policy& rules) noexcept {
    // Looking costs as much as a hundred rejections.
    constexpr std::int64_t kInterval = 10 * kNsPerMs;
    // relaxed, both: one of the callers of each interval looks
    std::int64_t sought_ns = orphans_sought_ns_.load(std::memory_order_relaxed);
    const std::int64_t real_ns = monotonic_ns();
    if (!place_.is_shared() || real_ns - sought_ns < kInterval ||
        !orphans_sought_ns_.compare_exchange_strong(sought_ns, real_ns,
                                                    std::memory_order_relaxed)) {
        return false;
    }
    bool found = false;
    const std::uint64_t generation = cell.load().generation();
    place_.handle->segment().each_orphaned_probe(
        place_.index, generation, [&](std::uint64_t count) {
            found = true;
            for (; count > 0; --count) {
                announce(self, cell.give_back_orphan(rules.rules, generation, now_ns()));
            }
        });
    return found;
}

// Read once for each state of the word, as a rejection is made of it.
py::object Breaker::shared_details(py::handle self) const {
    const Word word = cell.load();
    const std::uint64_t generation = cell.widened(word) + 1;  // from 1 on: 0 is "never read"
    {
        const py::scoped_critical_section lock{self};
        if (details_generation_ == generation) {
            return details_;
        }
    }
    Note note;
    SharedNotes::Buffer buffer;
    const bool is_found = place_.breaker().notes.read_opening(generation - 1, note, buffer);
    py::object details = is_found ? details_of(note) : py::none();
    const bool is_open = word.phase() == Phase::open || word.phase() == Phase::forced_open;
    if (!is_open ||
        (is_found && note.generation == generation - 1)) {  // else it may be written now
        const py::scoped_critical_section lock{self};
        details_generation_ = generation;
        details_ = details;
    }
    return details;
}

void Breaker::write_note(const BreakerEvent& event, bool is_opening, const py::object& last_error,
                         const py::object& detail) noexcept {
    // What cannot be encoded, a lone surrogate, is left out.
    const auto bytes = [](py::handle text) -> std::string_view {
        Py_ssize_t length = 0;
        const char* const found =
            PyUnicode_Check(text.ptr()) ? PyUnicode_AsUTF8AndSize(text.ptr(), &length) : nullptr;
        if (found == nullptr) {
            PyErr_Clear();
            return {};
        }
        return {found, static_cast<std::size_t>(length)};
    };
    Note note{event.generation,
              is_opening,
              event.reason(),
              event.wall_ns,
              cell.failure_count(),
              {},
              {},
              {}};
    if (!last_error.is_none()) {
        note.error_type = bytes(PyTuple_GET_ITEM(last_error.ptr(), 0));
        note.error_text = bytes(PyTuple_GET_ITEM(last_error.ptr(), 1));
    }
    if (detail) {
        note.detail = bytes(detail);
    }
    place_.breaker().notes.write(note);
}

}  // namespace memguard
