"""Rounds and what is read from them, with chunks that only pretend to take time."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable
from typing import Any

import pytest
from bench.harness import QUICK, Bench, Budget, Case, Effort

from bench import loops

FEW = Effort(rounds=6, seconds=1000.0, quick=True)


def pretended(nanoseconds: float, log: list[str] | None = None, name: str = "") -> loops.Chunk:
    """A chunk that claims so many nanoseconds per call."""

    def chunk(passes: int) -> int:
        if log is not None:
            log.append(name)
        return round(passes * loops.UNROLLED * nanoseconds)

    return chunk


def sampled(**rows: list[float]) -> Bench:
    """A bench whose rounds are already over; the first row is the baseline."""
    b = Bench()
    for name in rows:
        b.add(Case(name, chunk=pretended(1.0)))
    b.samples["ns"] = rows
    return b


def limit(**arguments: object) -> Budget:
    defaults = {"case": "x", "metric": "ns", "over": None, "ratio_to": None, "goal": ""}
    return Budget(**{"at_most": None, "at_least": None, **defaults, **arguments})  # type: ignore[arg-type]


# --- what is added --------------------------------------------------------------------------


def test_added_is_the_difference_to_the_baseline_of_the_same_round() -> None:
    b = sampled(bare=[20.0, 20.0, 20.0], ours=[33.0, 31.0, 35.0])
    b.effort = FEW
    added = b.summary("ours", "bare")
    assert added is not None
    assert added.minimum == 11.0


def test_slow_phase_of_the_machine_cancels_out_of_what_is_added() -> None:
    # The difference of the medians over all rounds would be 60.
    b = sampled(bare=[20.0, 20.0, 80.0, 20.0], ours=[32.0, 32.0, 92.0, 32.0])
    added = b.summary("ours", "bare")
    assert added is not None
    assert (added.minimum, added.median) == (12.0, 12.0)


def test_round_with_a_disturbed_baseline_is_not_used() -> None:
    # In the second round only the baseline was disturbed: paired, it would claim -70.
    b = sampled(bare=[20.0, 102.0, 20.0, 20.0], ours=[32.0, 32.0, 33.0, 34.0])
    added = b.summary("ours", "bare")
    assert added is not None
    assert added.minimum == 12.0


def test_ratio_of_less_than_nothing_is_not_judged() -> None:
    # The only round was one in which the baseline was disturbed.
    b = sampled(bare=[80.0], ours=[78.0], theirs=[90.0])
    b.budget("ours", over="bare", ratio_to="theirs", at_most=1.0)
    assert b.value(b.budgets[0]) is None


def test_median_is_over_the_calmer_half_of_the_rounds() -> None:
    b = sampled(bare=[1.0, 2.0, 3.0, 9.0, 9.0, 9.0], ours=[11.0, 14.0, 13.0, 99.0, 99.0, 99.0])
    added = b.summary("ours", "bare")
    assert added is not None
    assert added.median == 10.0


def test_total_is_not_reduced_by_the_baseline() -> None:
    b = sampled(bare=[20.0, 20.0], ours=[32.0, 31.0])
    total = b.summary("ours")
    assert total is not None
    assert total.minimum == 32.0  # of the calm round: the first of two equal ones


def test_case_that_was_not_measured_has_no_summary() -> None:
    b = sampled(bare=[20.0])
    b.absent("peer", "not installed", "peer")
    assert b.summary("peer", "bare") is None
    assert b.summary("bare", "peer") is None


# --- rounds ---------------------------------------------------------------------------------


def test_every_round_runs_all_cases_once_and_the_baseline_first() -> None:
    log: list[str] = []
    b = Bench(FEW)
    for name in ("bare", "one", "two"):
        b.add(Case(name, chunk=pretended(10.0, log, name), passes=30_000))
    b.run()
    assert log == ["bare", "one", "two"] * (1 + FEW.rounds)  # one pass of calibration
    assert b.baseline == "bare"
    assert b.rounds() == FEW.rounds


def test_calibration_makes_chunks_of_about_three_milliseconds() -> None:
    case = Case("x", chunk=pretended(100.0))
    case.calibrate()
    assert 2_900_000 <= case.passes * loops.UNROLLED * 100 <= 3_100_000


def test_calibration_of_a_slow_call_keeps_one_pass() -> None:
    case = Case("x", chunk=pretended(50_000_000.0))
    case.calibrate()
    assert case.passes == 1


def test_no_round_is_begun_after_the_time_is_over_but_five_are_made() -> None:
    b = Bench(Effort(rounds=1000, seconds=0.0, quick=True))
    b.add(Case("bare", chunk=pretended(10.0)))
    b.run()
    assert b.rounds() == 5


def test_quick_effort_still_makes_forty_rounds_when_there_is_time() -> None:
    assert QUICK.rounds >= 40


def test_work_before_a_chunk_is_done_before_each_and_not_timed() -> None:
    calls: list[str] = []
    b = Bench(FEW)
    b.add(Case("x", chunk=pretended(10.0), before=lambda: calls.append("before")))
    b.run()
    assert len(calls) == FEW.rounds
    assert b.samples["ns"]["x"] == pytest.approx([10.0] * FEW.rounds)


def test_garbage_collection_is_off_during_rounds_and_on_again_after_them() -> None:
    seen: list[bool] = []

    def chunk(passes: int) -> int:
        seen.append(gc.isenabled())
        return passes * 100

    b = Bench(FEW)
    b.add(Case("x", chunk=chunk))
    b.run()
    assert set(seen) == {False}
    assert gc.isenabled()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_rounds_run_on_one_core_and_the_others_are_given_back() -> None:
    before = os.sched_getaffinity(0)
    seen: list[set[int]] = []

    def chunk(passes: int) -> int:
        seen.append(os.sched_getaffinity(0))
        return passes * 100

    b = Bench(FEW)
    b.add(Case("x", chunk=chunk))
    b.run()
    assert all(len(cores) == 1 for cores in seen)
    assert os.sched_getaffinity(0) == before


def test_garbage_collection_comes_back_when_a_case_fails() -> None:
    def chunk(passes: int) -> int:
        raise RuntimeError("boom")

    b = Bench(FEW)
    b.add(Case("x", chunk=chunk))
    with pytest.raises(RuntimeError, match="boom"):
        b.run()
    assert gc.isenabled()


def test_progress_tells_every_round() -> None:
    told: list[str] = []
    b = Bench(FEW, told.append)
    b.add(Case("x", chunk=pretended(10.0)))
    b.run()
    assert told[0] == "round 1 of 6"
    assert len(told) == 6


# --- real loops -----------------------------------------------------------------------------


def counted(count: Callable[[Bench, Callable[[], None]], None]) -> tuple[int, Bench]:
    calls = 0

    def target() -> None:
        nonlocal calls
        calls += 1

    b = Bench(Effort(rounds=1, seconds=0.0, quick=True))
    count(b, target)
    (case,) = b.cases.values()
    assert case.chunk is not None
    with b.resources:
        case.chunk(7)
    return calls, b


def test_plain_case_makes_ten_calls_a_pass() -> None:
    calls, b = counted(lambda b, target: b.case("x", target))
    assert calls == 7 * loops.UNROLLED
    assert b.pin


def test_awaiting_case_makes_ten_awaits_a_pass() -> None:
    def declare(b: Bench, target: Callable[[], None]) -> None:
        async def coroutine() -> None:
            target()

        b.case("x", coroutine, "await x()", awaits=True)

    assert counted(declare)[0] == 7 * loops.UNROLLED


def test_awaiting_case_runs_in_a_loop_of_the_factory() -> None:
    made: list[asyncio.AbstractEventLoop] = []

    def factory() -> asyncio.AbstractEventLoop:
        made.append(asyncio.new_event_loop())
        return made[-1]

    async def in_the_loop() -> None:
        assert asyncio.get_running_loop() is made[0]

    b = Bench(Effort(rounds=1, seconds=1.0, quick=True), loop_factory=factory)
    b.case("x", in_the_loop, "await x()", awaits=True)
    b.run()
    assert made[0].is_closed()


def test_threaded_case_makes_ten_calls_a_pass_in_each_thread_unpinned() -> None:
    calls, b = counted(lambda b, target: b.case("x", target, threads=2))
    assert calls == 2 * 7 * loops.UNROLLED
    assert not b.pin


def test_names_of_a_case_are_local_to_its_statement() -> None:
    found: list[int] = []
    b = Bench()
    b.case("x", found.append, "x(number)", number=5)
    chunk = b.cases["x"].chunk
    assert chunk is not None
    assert chunk(1) > 0
    assert found == [5] * loops.UNROLLED


def test_two_cases_of_one_name_are_refused() -> None:
    b = sampled(x=[1.0])
    with pytest.raises(ValueError, match="two cases are called 'x'"):
        b.absent("x", "not installed")


# --- budgets --------------------------------------------------------------------------------


def test_budget_is_the_ratio_of_what_is_added() -> None:
    b = sampled(bare=[20.0], floor=[30.0], ours=[32.0])
    b.budget("ours", over="bare", ratio_to="floor", at_most=1.25)
    assert b.value(b.budgets[0]) == pytest.approx(1.2)
    assert b.budgets[0].met(1.2)
    assert not b.budgets[0].met(1.26)


def test_budget_without_denominator_is_the_difference_itself() -> None:
    b = Bench()
    b.record("trampoline", "instructions", 751.0)
    b.record("ours", "instructions", 773.0)
    b.budget("ours", over="trampoline", at_most=30.0, metric="instructions")
    assert b.value(b.budgets[0]) == 22.0


def test_budget_with_a_lower_limit_is_missed_below_it() -> None:
    assert limit(at_least=1.5).met(1.5)
    assert not limit(at_least=1.5).met(1.4)


def test_budget_that_cannot_be_judged_is_not_met() -> None:
    b = sampled(bare=[20.0], ours=[32.0])
    b.absent("peer", "not installed", "peer")
    b.budget("ours", over="bare", ratio_to="peer", at_most=1.0)
    assert b.value(b.budgets[0]) is None
    assert not b.budgets[0].met(None)
    assert not b.budgets[0].met(float("nan"))


def test_denominator_that_adds_nothing_cannot_judge() -> None:
    b = sampled(bare=[20.0], floor=[20.0], ours=[32.0])
    b.budget("ours", over="bare", ratio_to="floor", at_most=1.25)
    assert b.value(b.budgets[0]) is None


@pytest.mark.parametrize(
    ("one", "other", "at_most", "at_least"),
    [(1.3, 1.2, 1.2, 1.3), (None, 1.2, 1.2, 1.2), (None, None, None, None)],
)
def test_better_value_is_the_one_nearer_to_the_goal(
    one: float | None, other: float | None, at_most: float | None, at_least: float | None
) -> None:
    assert limit(at_most=1.0).better(one, other) == at_most
    assert limit(at_least=1.0).better(one, other) == at_least


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"at_most": 1.25}, "<= 1.25"),
        ({"at_most": 1 / 25, "ratio_to": "y"}, "<= 1/25"),
        ({"at_most": 0.45, "ratio_to": "y"}, "<= 0.45"),
        ({"at_most": 0.01}, "<= 0.01"),
        ({"at_most": 30.0}, "<= 30"),
        ({"at_least": 1.5}, ">= 1.5"),
    ],
)
def test_limit_reads_as_it_is_spoken(arguments: dict[str, Any], text: str) -> None:
    assert limit(**arguments).limit() == text


def test_budget_of_an_unknown_case_is_refused() -> None:
    b = sampled(bare=[20.0])
    with pytest.raises(ValueError, match="'bear', which is no case"):
        b.budget("bare", over="bear", at_most=1.0)


def test_budget_needs_exactly_one_limit() -> None:
    b = sampled(bare=[20.0])
    with pytest.raises(ValueError, match="one limit"):
        b.budget("bare")
    with pytest.raises(ValueError, match="one limit"):
        b.budget("bare", at_most=1.0, at_least=1.0)
