"""A leaking program over two generations: what the first learns is what the second begins with."""

from __future__ import annotations

from pathlib import Path

import pytest

from memguard_native.memory.detector import Detector
from memguard_native.memory.inheritance import Inheritance, InheritanceState
from memguard_native.memory.learning import Learning
from memguard_native.memory.learnt import find_learnt, keep_learnt
from memguard_native.memory.trace_file import read_trace
from memguard_native.segment import attach

TRACES = Path(__file__).parents[2] / "traces"
REQUESTS_PER_MINUTE = 100


def live_through(trace, learnt, minutes=420):
    """What a process that behaves as `trace` leaves, and what it makes of what it inherits."""
    detector = Detector(threshold_mb_per_hour=10.0, warm_up_minutes=5.0)
    learning, inheritance = Learning(10.0), Inheritance(learnt)
    left, verdicts = None, []
    for sample in read_trace(TRACES / f"{trace}.csv", minute_s=0.25):
        if not detector.add(sample):
            continue
        verdicts.append(inheritance.observe(detector.series))
        leak = detector.leak
        left = learning.step(
            detector.series,
            state="learning" if detector.is_learning else "steady" if leak is None else "alert",
            growth=None if leak is None else leak.growth,
            window_minutes=None if leak is None else leak.window_minutes,
            per_load_mb=detector.per_load_mb,
            requests=REQUESTS_PER_MINUTE * (detector.series.minute + 1),
        )
        if detector.series.minute + 1 == minutes:
            break
    return left, verdicts


@pytest.mark.parametrize(
    ("trace", "rate"),
    [("leak_dict_12", 12.2), ("leak_lru_method_60", 55.6), ("leak_mmap_200", 200.0)],
)
def test_a_successor_of_a_leak_knows_it_at_once_and_confirms_it_in_half_an_hour(trace, rate):
    left, verdicts = live_through(trace, None)
    assert {verdict.state for verdict in verdicts} == {InheritanceState.none}
    assert left.rate_mb_per_hour == pytest.approx(rate, rel=0.2)
    per_1000 = rate / (60 * REQUESTS_PER_MINUTE) * 1000
    assert left.mb_per_1000_requests == pytest.approx(per_1000, rel=0.25)

    core = attach().core
    assert keep_learnt(core, left)
    core.release_slot()
    found = find_learnt(core)
    _, verdicts = live_through(trace, found, minutes=60)
    assert verdicts[0].state is InheritanceState.inherited
    confirmed = next(one for one in verdicts if one.state is InheritanceState.confirmed)
    assert verdicts.index(confirmed) <= 40
    assert confirmed.rate_mb_per_hour == pytest.approx(rate, rel=0.5)
    assert confirmed.recycling_cures, "the second begins where the first had begun"


@pytest.mark.parametrize("trace", ["ok_idle", "ok_asgi", "ok_sawtooth_gc", "ok_load_ramp"])
def test_a_successor_that_was_mended_drops_it(trace):
    left, _ = live_through("leak_lru_method_60", None)
    _, verdicts = live_through(trace, left, minutes=60)
    assert verdicts[-1].state is InheritanceState.dropped


def test_a_healthy_process_leaves_nothing_to_inherit():
    left, _ = live_through("ok_asgi", None)
    assert left.state == "steady"
    assert Inheritance(left).verdict.state is InheritanceState.none
