"""How verdicts are counted, on traces and alarms made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench.detector import forecasts, tables, traces, verdicts
from bench.detector.forecasts import Told
from bench.detector.scoring import Alarm, Outcome, Score, Verdict, delay_class
from bench.detector.traces import Trace
from bench.harness import Bench
from tests.bench.recordings import recorded, rising

from memguard_native.memory.alert import Forecast

FLAT = [100.0] * 120


def leaking(mb_per_hour: float = 20.0, onset: int = 0, **labels: object) -> Trace:
    return recorded(FLAT, "leak_dict_20", mb_per_hour=mb_per_hour, onset=onset, **labels)


def healthy() -> Trace:
    return recorded(FLAT, "ok_flat")


def outcome(
    trace: Trace, *alarms: int | Alarm, suspicions: tuple[tuple[int, int], ...] = ()
) -> Outcome:
    raised = tuple(one if isinstance(one, Alarm) else Alarm(one) for one in alarms)
    return Outcome(trace, Verdict(raised, suspicions))


# --- found, missed, false -------------------------------------------------------------------


def test_leak_is_found_by_the_first_alarm_at_or_after_its_onset() -> None:
    assert outcome(leaking(onset=30), 30, 50).delay == 0
    assert outcome(leaking(onset=30), 41, 50).delay == 11


def test_alarm_before_the_onset_is_false_and_finds_nothing() -> None:
    early = outcome(leaking(onset=30), 29)
    assert early.false_alarms == 1
    assert early.missed
    assert early.delay is None


def test_leak_with_an_early_alarm_and_a_later_one_is_found_and_costs_precision() -> None:
    score = Score([outcome(leaking(onset=30), 10, 60)])
    assert score.recall == 1.0
    assert score.precision == 0.5


def test_precision_counts_traces_and_false_alerts_per_hour_counts_alarms() -> None:
    score = Score([outcome(leaking(), 5), outcome(healthy(), 1, 50, 90), outcome(healthy())])
    assert score.precision == 0.5
    assert score.false_alerts_per_healthy_hour == 3 / 4.0  # two traces of two hours
    assert score.recall == 1.0
    assert score.f1 == pytest.approx(2 / 3)


def test_recall_is_the_found_leaks_by_all_leaks() -> None:
    score = Score(
        [outcome(leaking(), 5), outcome(leaking()), outcome(leaking()), outcome(healthy())]
    )
    assert score.recall == pytest.approx(1 / 3)


def test_what_there_is_nothing_to_count_for_is_unknown_and_not_perfect() -> None:
    silent = Score([outcome(healthy())])
    assert silent.precision is None
    assert silent.recall is None
    assert silent.f1 is None
    assert silent.right_rates is None
    assert silent.median_delay(12) is None
    assert Score([outcome(leaking(), 3)]).false_alerts_per_healthy_hour is None


def test_detector_that_only_errs_has_an_f1_of_nothing() -> None:
    assert Score([outcome(leaking()), outcome(healthy(), 3)]).f1 == 0.0


# --- delays ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mb_per_hour", "least"), [(11, 12), (12, 12), (39.9, 12), (40, 40), (100, 100), (600, 600)]
)
def test_rate_belongs_to_the_class_of_the_greatest_least_below_it(
    mb_per_hour: float, least: int
) -> None:
    assert delay_class(mb_per_hour) == least


def test_delays_are_told_by_class_with_their_median_and_ninth_decile() -> None:
    slow = [outcome(leaking(15.0), delay) for delay in range(10, 110, 10)]
    score = Score([*slow, outcome(leaking(200.0), 7)])
    assert score.median_delay(12) == 55
    assert score.p90_delay(12) == 90
    assert score.median_delay(100) == 7
    assert score.median_delay(600) is None


def test_silence_is_not_fast_in_the_mean_delay() -> None:
    assert Score([outcome(leaking(onset=20), 30), outcome(leaking(onset=20))]).mean_delay == 55.0


# --- rate, cause, suspicion -----------------------------------------------------------------


def test_rates_of_steady_leaks_are_right_within_a_fifth() -> None:
    steady = leaking(100.0, is_steady=True)
    varying = leaking(100.0, is_steady=False)
    outcomes = [outcome(steady, Alarm(1, rate)) for rate in (80.0, 120.0, 79.0, 121.0)]
    assert Score([*outcomes, outcome(varying, Alarm(1, 5.0))]).right_rates == 0.5


def test_cause_is_right_if_it_is_one_of_those_that_are_accepted() -> None:
    trace = leaking(causes=("mmap", "shared-memory"))
    named = [
        outcome(trace, Alarm(1, 20.0, cause)) for cause in ("mmap", "shared-memory", "unknown")
    ]
    assert Score(named).right_causes == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("suspicion", "is_early"),
    [((30, 40), True), ((90, 95), True), ((91, 95), False), ((10, 31), True), ((10, 30), False)],
)
def test_suspicion_is_early_if_it_stands_within_an_hour_of_the_onset(
    suspicion: tuple[int, int], is_early: bool
) -> None:
    score = Score([outcome(leaking(onset=30), suspicions=(suspicion,))])
    assert score.early_suspects == float(is_early)


# --- traces ---------------------------------------------------------------------------------


def test_all_recorded_traces_are_read_with_their_labels() -> None:
    read = traces.load(traces.DEVELOPMENT)
    assert len(read) == 41
    assert sum(trace.leaks for trace in read) == 21
    by_name = {trace.name: trace for trace in read}
    leak = by_name["leak_mmap_200"]
    assert leak.causes == ("shared-memory", "mmap")
    assert leak.mb_per_hour == 200.0
    assert leak.is_steady
    assert len(leak.samples) == 420
    assert leak.samples[60].monotonic_ns / 60e9 == pytest.approx(60.0, abs=2.0)
    assert by_name["leak_late_60"].onset == 200


def test_traces_of_one_program_are_told_as_such() -> None:
    programs = [trace.program for trace in traces.load(traces.DEVELOPMENT)]
    assert programs.count("dict") == 2


def test_trace_without_its_load_is_the_same_otherwise() -> None:
    trace = recorded(FLAT, load=[1.0] * 120)
    silent = trace.without_load()
    assert all(sample.load is None for sample in silent.samples)
    assert [one.rss_bytes for one in silent.samples] == [one.rss_bytes for one in trace.samples]
    assert silent.without_load() is silent


def test_folder_without_labels_is_an_error_and_no_perfect_score(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        traces.load(tmp_path)


# --- ours, forecasts, rows ------------------------------------------------------------------


def test_our_verdict_on_a_steady_leak_has_one_alarm_with_rate_and_a_suspicion() -> None:
    verdict = verdicts.judge(recorded(rising(60.0), "leak_steady_60"))
    (alarm,) = verdict.alarms
    assert alarm.mb_per_hour == pytest.approx(60.0, rel=0.01)
    assert alarm.cause == "native-heap"
    ((begin, end),) = verdict.suspicions
    assert begin < alarm.sample
    assert end == 420


def test_our_verdict_on_constant_memory_is_silence() -> None:
    assert verdicts.judge(healthy()) == Verdict()


def test_forecasts_of_a_steady_leak_name_the_time_that_comes() -> None:
    told = list(forecasts.forecasts(recorded(rising(60.0), "leak_steady_60")))
    assert {one.true_seconds / 60 for one in told} == set(forecasts.HORIZONS_MINUTES)
    assert all(one.forecast.seconds == pytest.approx(one.true_seconds, rel=0.01) for one in told)


def test_no_forecast_is_held_against_rows_that_are_not_there() -> None:
    trace = recorded(rising(60.0, minutes=230), "leak_steady_60")
    (alarm,) = verdicts.judge(trace).alarms
    latest = max(one.true_seconds for one in forecasts.forecasts(trace)) / 60
    assert 60 <= latest < 230 - alarm.sample


def told(earliest: float, latest: float, true: float = 100.0) -> Told:
    return Told(Forecast(seconds=1.0, earliest_seconds=earliest, latest_seconds=latest,
                         limit_bytes=1, limit_source="config"), true)  # fmt: skip


def test_coverage_is_the_share_of_intervals_with_the_true_time_in_them() -> None:
    assert forecasts.coverage([told(100, 120), told(80, 100), told(101, 120), told(0, 99)]) == 0.5
    assert forecasts.median_width([told(50, 100), told(10, 100), told(0, 99)]) == 10.0


def test_row_leaves_out_what_is_not_known() -> None:
    b = Bench()
    tables.record(b, "memguard", Score([outcome(leaking(15.0), 8)]))
    assert b.samples[tables.RECALL]["memguard"] == [1.0]
    assert b.samples[tables.median_delay(12)]["memguard"] == [8]
    assert tables.median_delay(40) not in b.samples
    assert tables.FALSE_ALERTS not in b.samples


def test_spread_is_the_worst_and_the_best_of_each_figure() -> None:
    b = Bench()
    good = Score([outcome(leaking(), 8), outcome(healthy())])
    poor = Score([outcome(leaking(), 8), outcome(leaking()), outcome(healthy(), 4)])
    tables.record_spread(b, "drawn", [good, poor])
    assert b.samples[tables.PRECISION] == {"drawn, worst": [0.5], "drawn, best": [1.0]}
    assert b.samples[tables.RECALL] == {"drawn, worst": [0.5], "drawn, best": [1.0]}
    assert b.samples[tables.FALSE_ALERTS] == {"drawn, worst": [0.5], "drawn, best": [0.0]}
