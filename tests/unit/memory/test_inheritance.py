"""What a successor makes of what its predecessor has learnt."""

from __future__ import annotations

import numpy as np
import pytest

from memguard_native.memory.inheritance import Inheritance, InheritanceState
from memguard_native.memory.learnt import Learnt
from memguard_native.memory.minutes import MinuteSeries
from memguard_native.memory.sample import MemorySample

MB = 2**20
LEAK = Learnt(state="alert", cause="native-heap", rate_mb_per_hour=24.0)


def sample(minute, live_mb, *, free_mb=0.0, load=None):
    return MemorySample(
        monotonic_ns=round(minute * 60e9),
        wall_ns=0,
        anon_bytes=round((live_mb + free_mb) * MB),
        malloc_in_use_bytes=0,
        malloc_free_bytes=round(free_mb * MB),
        load=load,
    )


def observe(learnt, live_mb, minutes, *, every=1, **more):
    """The verdict after each minute that has a sample; `more`: functions of the minute."""
    inheritance, series, verdicts = Inheritance(learnt), MinuteSeries(), []
    for minute in range(0, minutes, every):
        extra = {name: value(minute) for name, value in more.items()}
        series.add(sample(minute, live_mb(minute), **extra))
        verdicts.append(inheritance.observe(series))
    return verdicts


def ramp(rate, start=100.0):
    return lambda minute: start + rate * minute / 60


@pytest.mark.parametrize(
    "learnt",
    [
        None,
        Learnt(state="steady", rate_mb_per_hour=24.0),
        Learnt(state="suspect", rate_mb_per_hour=24.0),
        Learnt(state="alert"),
        Learnt(state="alert", rate_mb_per_hour=0.0),
    ],
)
def test_there_is_nothing_to_inherit_from_a_process_that_did_not_leak(learnt):
    verdict = observe(learnt, ramp(24), 60)[-1]
    assert verdict.state is InheritanceState.none
    assert verdict.rate_mb_per_hour is None


def test_the_inherited_rate_is_there_before_the_first_sample():
    verdict = Inheritance(LEAK).verdict
    assert verdict.state is InheritanceState.inherited
    assert verdict.rate_mb_per_hour == 24.0
    assert (verdict.rate_low_mb_per_hour, verdict.rate_high_mb_per_hour) == (12.0, 48.0)
    assert verdict.cause == "native-heap"
    assert "24 MB/h (native-heap)" in verdict.text


def test_it_is_confirmed_after_half_an_hour_of_the_same_growth():
    verdicts = observe(LEAK, ramp(24), 60)
    assert {verdict.state for verdict in verdicts[:29]} == {InheritanceState.inherited}
    assert {verdict.state for verdict in verdicts[29:]} == {InheritanceState.confirmed}
    confirmed = verdicts[29]
    assert confirmed.rate_mb_per_hour == pytest.approx(24.0, rel=0.05)
    assert confirmed.window_minutes == 30
    assert confirmed.growth.grown_mb == pytest.approx(11.0, abs=1.0)
    assert confirmed.cause == "native-heap"


@pytest.mark.parametrize(
    ("rate", "state"),
    [
        (-10, "dropped"),
        (0, "dropped"),
        (11, "dropped"),
        (13, "confirmed"),
        (46, "confirmed"),
        (51, "dropped"),
    ],
)
def test_half_to_twice_the_inherited_rate_is_the_same_leak(rate, state):
    verdict = observe(LEAK, ramp(rate), 31)[-1]
    assert verdict.state == state
    assert (verdict.rate_mb_per_hour is None) == (state == "dropped")


def test_what_is_given_back_is_not_in_the_floor():
    def saw_tooth(minute):
        return 100 + 8 * (minute % 8)

    assert observe(LEAK, saw_tooth, 31)[-1].state is InheritanceState.dropped

    def leaking_saw_tooth(minute):
        return ramp(24)(minute) + 4 * (minute % 2)

    assert observe(LEAK, leaking_saw_tooth, 31)[-1].state is InheritanceState.confirmed


def test_a_jump_is_no_leak():
    verdict = observe(LEAK, lambda minute: 100.0 if minute < 15 else 112.0, 31)[-1]
    assert verdict.state is InheritanceState.dropped


def test_the_verdict_is_given_once():
    changing = observe(LEAK, lambda minute: ramp(24)(min(minute, 30)), 300)
    assert changing[-1] is changing[29]


def test_half_an_hour_begins_when_the_predecessors_start_up_would_be_over():
    learnt = Learnt(state="alert", rate_mb_per_hour=24.0, warm_up_minutes=20.4)

    def with_start_up(minute):
        return ramp(24)(minute) + 20 * min(minute, 20)

    verdicts = observe(learnt, with_start_up, 60)
    assert verdicts[48].state is InheritanceState.inherited
    assert verdicts[49].state is InheritanceState.confirmed
    assert observe(LEAK, with_start_up, 60)[-1].state is InheritanceState.dropped


@pytest.mark.parametrize("minutes", [1e6, 90.0])
def test_no_start_up_is_waited_for_longer_than_an_hour_and_a_half(minutes):
    learnt = Learnt(state="alert", rate_mb_per_hour=24.0, warm_up_minutes=minutes)
    verdicts = observe(learnt, ramp(24), 121)
    assert verdicts[118].state is InheritanceState.inherited
    assert verdicts[119].state is InheritanceState.confirmed


def test_fragmentation_is_looked_for_in_private_memory():
    learnt = Learnt(state="alert", cause="fragmentation", rate_mb_per_hour=24.0)
    growing = {"free_mb": ramp(24, start=5.0)}
    assert observe(learnt, ramp(0), 31, **growing)[-1].state is InheritanceState.confirmed
    assert observe(LEAK, ramp(0), 31, **growing)[-1].state is InheritanceState.dropped


def test_what_the_load_takes_is_taken_off_with_the_inherited_coefficient():
    def load(minute):
        return 1.0 * minute

    def healthy(minute):
        return 100 + 0.4 * load(minute)

    knowing = Learnt(state="alert", rate_mb_per_hour=24.0, mb_per_load=0.4)
    assert observe(knowing, healthy, 31, load=load)[-1].state is InheritanceState.dropped
    assert observe(LEAK, healthy, 31, load=load)[-1].state is InheritanceState.confirmed


@pytest.mark.parametrize(("every", "minute"), [(2, 30), (5, 60), (10, 120)])
def test_samples_far_apart_take_as_long_as_their_blocks_need(every, minute):
    verdicts = observe(LEAK, ramp(24), 200, every=every)
    states = [verdict.state for verdict in verdicts]
    first = states.index(InheritanceState.confirmed) * every
    assert minute - every <= first <= minute + every


def test_what_cannot_be_seen_in_two_hours_is_dropped():
    verdicts = observe(LEAK, ramp(24), 241, every=40)
    assert verdicts[-1].state is InheritanceState.dropped


@pytest.mark.parametrize("seed", range(5))
def test_noise_that_is_given_back_does_not_flip_the_verdict(seed):
    noise = np.random.default_rng(seed).gamma(2.0, 1.0, 60)
    verdict = observe(LEAK, lambda minute: ramp(24)(minute) + noise[minute], 31)[-1]
    assert verdict.state is InheritanceState.confirmed


# --- does recycling cure it? ----------------------------------------------------------------------


def grown(baseline_mb, retained_mb):
    return Learnt(
        state="alert", rate_mb_per_hour=24.0, baseline_mb=baseline_mb, retained_mb=retained_mb
    )


def test_a_restart_that_gave_memory_back_is_what_recycling_is_for():
    verdict = observe(grown(100.0, 220.0), ramp(24, start=105.0), 31)[-1]
    assert verdict.state is InheritanceState.confirmed
    assert verdict.recycling_cures is True
    assert verdict.given_back_mb == pytest.approx(115.0, abs=0.1)
    assert "the restart gave back 115 of the 120 MB" in verdict.text


@pytest.mark.parametrize("start", [170.0, 220.0, 300.0])
def test_recycling_does_not_cure_if_the_same_leak_goes_on_where_the_predecessor_ended(start):
    verdict = observe(grown(100.0, 220.0), ramp(24, start=start), 31)[-1]
    assert verdict.recycling_cures is False
    assert "recycling does not cure it" in verdict.text
    assert "the leak is in the baseline or in start-up" in verdict.text


def test_half_of_the_growth_given_back_is_enough():
    assert observe(grown(100.0, 220.0), ramp(24, start=160.0), 31)[-1].recycling_cures is True
    assert observe(grown(100.0, 220.0), ramp(24, start=160.1), 31)[-1].recycling_cures is False


def test_nothing_is_said_of_recycling_without_the_same_slope():
    verdict = observe(grown(100.0, 220.0), ramp(0, start=220.0), 31)[-1]
    assert verdict.state is InheritanceState.dropped
    assert verdict.recycling_cures is None


@pytest.mark.parametrize(
    ("baseline_mb", "retained_mb"), [(None, 220.0), (100.0, None), (210.0, 220.0), (300.0, 220.0)]
)
def test_nothing_is_said_of_recycling_where_the_predecessor_had_hardly_grown(
    baseline_mb, retained_mb
):
    verdict = observe(grown(baseline_mb, retained_mb), ramp(24, start=220.0), 31)[-1]
    assert verdict.state is InheritanceState.confirmed
    assert verdict.recycling_cures is None
    assert "recycling" not in verdict.text
