"""What a unit of load takes: found from changes, so that nothing slow is put down to the load."""

from __future__ import annotations

import numpy as np
import pytest

from memguard_native.memory.load_correction import memory_per_load, without_load

from .courses import ramp

NAN = np.nan


def random_load(minutes: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 100, minutes)


def blocks_of_eight(values: np.ndarray) -> np.ndarray:
    return np.repeat(values, 8)


# --- what is found -------------------------------------------------------------------------------


def test_the_memory_of_the_load_is_found():
    load = random_load(60)
    assert memory_per_load(100 + 0.5 * load, load) == pytest.approx(0.5)


def test_a_leak_beside_it_does_not_change_it():
    load = random_load(60)
    assert memory_per_load(ramp(60, 300) + 0.5 * load, load) == pytest.approx(0.5, rel=0.01)


def test_jumps_and_collections_beside_it_do_not_change_it():
    load = random_load(200)
    other = np.where(np.arange(200) > 120, 400, 0) + np.arange(200) % 25 * 2.0
    assert memory_per_load(other + 0.5 * load, load) == pytest.approx(0.5, rel=0.1)


def test_growth_in_proportion_to_a_ramp_of_load_is_not_put_down_to_it():
    # A leak of each request's, on a morning on which traffic grows: a fit of memory over load would
    # explain all of it.
    load = np.arange(200.0)
    assert memory_per_load(100 + 2 * load, load) == 0


def test_a_ramp_of_load_with_fractions_is_as_even_as_one_without():
    load = np.cumsum(np.full(200, 0.1))
    assert memory_per_load(100 + 2 * load, load) == 0


def test_growth_beside_a_noisy_ramp_of_load_is_not_put_down_to_it():
    load = np.arange(300.0) + random_load(300)
    noise = np.random.default_rng(2).uniform(0, 20, 300)
    assert memory_per_load(ramp(300, 120) + noise, load) == pytest.approx(0, abs=0.01)


def test_memory_that_falls_with_the_load_is_none_of_it():
    load = random_load(60)
    assert memory_per_load(500 - 0.5 * load, load) == 0


def test_memory_that_does_not_move_is_none_of_the_load():
    assert memory_per_load(np.full(60, 100.0), random_load(60)) == 0


def test_constant_load_takes_nothing():
    assert memory_per_load(ramp(60, 30), np.full(60, 7.0)) == 0


def test_of_memory_that_moves_by_itself_nothing_is_put_down_to_the_load():
    noise = np.random.default_rng(3).uniform(0, 100, 300)
    assert memory_per_load(noise, random_load(300)) == 0


@pytest.mark.parametrize(("noise", "is_found"), [(1.0, True), (2.0, False)])
def test_the_load_must_explain_a_fifth_of_the_movement(noise: float, is_found: bool):
    # Of two independent movements, one as large and one twice as large as that of the load, 29 and
    # 11 % go with the load: 1 - noise / sqrt(1 + noise**2).
    draw = np.random.default_rng(4)
    load, other = draw.normal(0, 10, (2, 360))
    found = memory_per_load(500 + load + noise * other, load)
    assert found == (pytest.approx(1, rel=0.2) if is_found else 0)


# --- how much must be known ----------------------------------------------------------------------


def test_twenty_changes_of_load_are_enough_and_nineteen_are_not():
    load = random_load(21)
    assert memory_per_load(0.5 * load, load) == pytest.approx(0.5)
    assert memory_per_load(0.5 * load[:20], load[:20]) == 0


def test_minutes_in_which_the_load_does_not_change_are_no_changes():
    load = np.repeat(random_load(20), 2)
    assert memory_per_load(0.5 * load, load) == 0


def test_changes_are_those_between_neighbours_that_are_known():
    # As with a sample every two minutes.
    load = random_load(60)
    memory = 0.5 * load
    memory[1::2] = load[1::2] = NAN
    assert memory_per_load(memory, load) == pytest.approx(0.5)


def test_minutes_of_which_load_or_memory_is_not_known_are_left_out():
    load, memory = random_load(60), 0.5 * random_load(60)
    load[10], memory[20] = NAN, NAN
    assert memory_per_load(memory, load) == pytest.approx(0.5)


def test_nothing_known_is_nothing_found():
    assert memory_per_load(np.full(60, NAN), np.full(60, NAN)) == 0
    assert memory_per_load(np.zeros(0), np.zeros(0)) == 0


def test_a_load_that_is_a_mean_over_minutes_is_found_in_medians_of_eight_minutes():
    # Eleven blocks have the ten changes that are asked for.
    level = random_load(11)
    noise = np.random.default_rng(5).uniform(0, 10, 88)
    load = blocks_of_eight(level)
    assert memory_per_load(100 + 2 * load + noise, load) == pytest.approx(2, rel=0.1)
    assert memory_per_load((100 + 2 * load + noise)[8:], load[8:]) == 0


def test_blocks_are_counted_from_the_newest_minute():
    load = np.r_[[1.0, 2.0, 3.0], blocks_of_eight(random_load(14))]
    noise = np.random.default_rng(6).uniform(0, 10, len(load))
    assert memory_per_load(100 + 2 * load + noise, load) == pytest.approx(2, rel=0.1)


def test_a_block_with_a_minute_missing_is_left_out():
    load = blocks_of_eight(random_load(14))
    memory = 100 + 2 * load
    memory[16:18] = NAN
    memory[18:24] += 5_000
    assert memory_per_load(memory, load) == pytest.approx(2)


# --- what is taken off ---------------------------------------------------------------------------


def test_the_least_load_of_three_minutes_is_taken_off():
    values, load = np.full(6, 100.0), np.array([5.0, 1, 9, 8, 7, 30])
    assert without_load(values, load, 2.0).tolist() == [90, 98, 98, 98, 86, 86]


def test_a_peak_of_load_that_memory_does_not_show_makes_no_hole():
    load = np.full(10, 3.0)
    load[5] = 500
    assert without_load(np.full(10, 100.0), load, 1.0).tolist() == [97] * 10


def test_a_load_that_is_not_known_for_a_minute_is_bridged():
    load = np.array([4.0, NAN, NAN, 2.0])
    assert without_load(np.full(4, 10.0), load, 1.0).tolist() == [6, 6, 6, 8]


def test_where_no_load_is_known_for_three_minutes_memory_without_it_is_not_known():
    load = np.array([4.0, NAN, NAN, NAN, 2.0])
    corrected = without_load(np.full(5, 10.0), load, 1.0)
    assert np.isnan(corrected).tolist() == [False, False, False, True, False]


def test_without_a_dependence_nothing_is_taken_off():
    values = ramp(10, 60)
    assert without_load(values, np.full(10, NAN), 0.0).tolist() == values.tolist()


def test_neither_memory_nor_load_is_changed():
    values, load = ramp(10, 60), random_load(10)
    before = values.copy(), load.copy()
    without_load(values, load, 1.0)
    assert (values == before[0]).all()
    assert (load == before[1]).all()
