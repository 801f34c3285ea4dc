"""When all workers together have too much memory, and who goes for that."""

from __future__ import annotations

import pytest

from memguard_native.recycling.group_rule import GroupRule

MAX, REARM, INTERVAL = 1000, 900, 10.0
GROWTH = {1: 5, 2: 50, 3: 7}


class Looks:
    """A rule that is fed a figure every `INTERVAL`."""

    def __init__(self, max_bytes: int | None = MAX, confirm_samples: int = 3) -> None:
        self.rule = GroupRule(
            max_bytes,
            confirm_samples=confirm_samples,
            hysteresis=REARM / MAX,
            sample_interval=INTERVAL,
        )
        self.now = 0.0
        self.growth = dict(GROWTH)
        self.present = {1, 2, 3}

    def look(self, *figures: int | None) -> int | None:
        for taken_bytes in figures:
            self.now += INTERVAL
            self.rule.look(self.now, taken_bytes, self.growth, self.present)
        return self.rule.chosen


@pytest.fixture
def looks() -> Looks:
    return Looks()


def test_the_worker_that_has_grown_most_is_chosen_after_samples_in_a_row(looks):
    assert [looks.look(1001) for _ in range(3)] == [None, None, 2]


def test_a_worker_is_chosen_at_a_time(looks):
    looks.look(1001, 1001, 1001)
    assert looks.rule.chosen_at == looks.now


def test_one_figure_below_begins_the_row_again(looks):
    assert looks.look(1001, 1001, 1000, 1001, 1001) is None


def test_looks_within_the_interval_are_one(looks):
    for _ in range(50):
        looks.rule.look(5.0, 2000, looks.growth, looks.present)
    assert looks.rule.chosen is None


def test_without_a_limit_nobody_is_chosen():
    assert Looks(max_bytes=None).look(*[10**12] * 5) is None


def test_where_memory_is_not_known_nobody_is_chosen(looks):
    assert looks.look(*[None] * 5) is None


def test_nobody_is_chosen_where_nobody_is_ready(looks):
    looks.growth = {}
    assert looks.look(1001, 1001, 1001) is None


def test_who_is_chosen_stays_chosen(looks):
    looks.look(1001, 1001, 1001)
    looks.growth[3] = 1000
    assert looks.look(1001, 1001, 1001) == 2


def test_the_choice_is_withdrawn_below_the_hysteresis_at_once(looks):
    looks.look(1001, 1001, 1001)
    assert looks.look(REARM) == 2
    looks.rule.look(looks.now + 0.1, REARM - 1, looks.growth, looks.present)
    assert looks.rule.chosen is None


def test_when_it_is_gone_the_next_one_needs_samples_in_a_row_again(looks):
    looks.look(1001, 1001, 1001)
    looks.present.discard(2)
    del looks.growth[2]
    assert [looks.look(1001) for _ in range(3)] == [None, None, 3]


def test_as_long_as_it_drains_nobody_else_is_chosen(looks):
    looks.look(1001, 1001, 1001)
    del looks.growth[2]
    assert looks.look(*[1001] * 6) == 2


def test_figures_of_the_time_when_it_was_still_there_do_not_count_against_the_next_one(looks):
    looks.look(1001, 1001, 1001)
    del looks.growth[2]
    looks.look(1001, 1001)  # it drains, and has its memory still
    looks.present.discard(2)
    assert [looks.look(1001) for _ in range(3)] == [None, None, 3]
