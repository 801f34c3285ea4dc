#include "snapshot.hpp"

#include "breaker.hpp"

namespace py = pybind11;

namespace memguard {
namespace {

// "closed->open" and how often, for those that happened.
py::dict transitions_of(const Statistics& statistics) {
    py::dict found;
    for (std::size_t from = 0; from < kPhases; ++from) {
        for (std::size_t to = 0; to < kPhases; ++to) {
            const auto a = static_cast<Phase>(from);
            const auto b = static_cast<Phase>(to);
            const std::uint64_t count = statistics.transitions(a, b);
            if (count > 0) {
                found[py::str("{}->{}").format(name_of(a), name_of(b))] = count;
            }
        }
    }
    return found;
}

const char* name_of(Jitter mode) noexcept {
    return mode == Jitter::full ? "full" : mode == Jitter::equal ? "equal" : "spread";
}

py::object or_none(bool is_set, const py::object& value) {
    return is_set ? value : py::none();
}

}  // namespace

const char* state_name(const CellView& view) noexcept {
    const BreakerConfig& config = view.rules.config;
    const Phase phase = view.cell.phase(config, view.now_ns);
    const bool by_hand = phase == Phase::forced_open || phase == Phase::disabled;
    return config.enforce <= 0.0 && !by_hand ? "shadow" : name_of(phase);
}

double retry_after(const CellView& view) noexcept {
    const BreakerConfig& config = view.rules.config;
    if (config.enforce <= 0.0 && view.cell.load().phase() != Phase::forced_open) {
        return 0.0;  // in shadow a call is admitted at any time
    }
    return to_seconds(view.cell.retry_after_ns(config, view.now_ns));
}

py::dict snapshot_of(const CellView& view, const py::object& details) {
    const BreakerCell& cell = view.cell;
    const Windows* const windows = view.rules.windows.get();
    const Word word = cell.load();
    const Totals totals = cell.statistics().totals(view.now_ns);
    const bool half_open = word.phase() == Phase::half_open;
    const WindowCounts counts =
        windows != nullptr ? windows->counts(view.rules.rates) : WindowCounts{};
    py::dict found;
    found["state"] = state_name(view);
    found["would_be"] = name_of(cell.phase(view.rules.config, view.now_ns));
    found["generation"] = cell.widened(word);
    found["failure_count"] = cell.failure_count();
    found["retry_after"] = retry_after(view);
    found["step"] = cell.step();
    found["probes_in_flight"] = half_open ? word.in_flight() : 0;
    found["probe_successes"] = half_open ? word.successes() : 0;
    found["in_flight"] = cell.statistics().in_flight();
    found["successes"] = windows != nullptr
                             ? py::object{py::int_(totals.successes + windows->successes())}
                             : py::object{py::none()};
    found["failures"] = totals.failures;
    found["slow"] = totals.slow;
    found["neutrals"] = totals.neutrals;
    found["cancelled"] = totals.cancelled;
    found["rejections"] = totals.rejections;
    found["unenforced"] = totals.unenforced;
    found["stale"] = totals.stale;
    found["transitions"] = totals.transitions;
    found["transitions_by_kind"] = transitions_of(cell.statistics());
    found["open_seconds"] = to_seconds(totals.open_ns);
    found["window_calls"] = counts.calls;
    found["window_failures"] = counts.failures;
    found["window_slow"] = counts.slow;
    found["details"] = details;
    return found;
}

py::dict to_dict(const SharedNumbers& numbers) {
    const BreakerConfig& c = numbers.config;
    const WindowConfig& r = numbers.rates;
    const auto seconds = [](std::int64_t ns) { return py::float_(to_seconds(ns)); };
    py::dict found;
    found["failure_threshold"] =
        or_none(c.failure_threshold != kNoThreshold, py::int_(c.failure_threshold));
    found["reset_timeout"] = seconds(c.reset_timeout_ns);
    found["max_reset_timeout"] = seconds(c.max_reset_timeout_ns);
    found["probe_timeout"] = seconds(c.probe_timeout_ns);
    found["success_threshold"] = c.success_threshold;
    found["half_open_max"] = c.half_open_max;
    found["probe_expiry"] = c.lost_probe_fails ? "failure" : "retry";
    found["jitter"] = c.jitter;
    found["jitter_mode"] = name_of(c.jitter_mode);
    found["backoff_factor"] = c.backoff_factor;
    found["lump_interval"] = seconds(c.lump_interval_ns);
    found["enforce"] = c.enforce;
    found["enforce_by_auto"] = c.enforce_by_auto;
    found["monitor_interval"] = seconds(c.monitor_interval_ns);
    found["failure_rate"] = or_none(r.failure_rate > 0.0, py::float_(r.failure_rate));
    found["slow_rate"] = or_none(r.slow_rate > 0.0, py::float_(r.slow_rate));
    found["slow_call_duration"] = or_none(r.slow_rate > 0.0, seconds(r.slow_call_ns));
    found["count_window"] = r.count_window;
    found["time_window"] = or_none(r.time_window_ns > 0, seconds(r.time_window_ns));
    found["minimum_calls"] = r.minimum_calls;
    return found;
}

}  // namespace memguard
