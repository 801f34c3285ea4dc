from __future__ import annotations

import gc
import sys

import pytest

from memguard_native.memory.census import MOST_OBJECTS, Census, growth_between, take_census


class Kept:
    pass


NAME = f"{__name__}.Kept"


def census_of(*objects: object) -> Census:
    return take_census(lambda: list(objects))


def test_objects_are_counted_by_type():
    assert census_of(Kept(), Kept(), []).types[NAME][0] == 2
    assert census_of(Kept(), Kept(), []).objects == 3


def test_builtin_types_are_named_without_their_module():
    assert set(census_of([], {}, Kept()).types) == {"list", "dict", NAME}


def test_the_size_of_a_container_is_that_of_its_table():
    numbers = list(range(1000))
    assert census_of(numbers).types["list"] == (1, numbers.__sizeof__())


def test_the_size_of_a_subclass_of_a_container_is_that_of_its_table():
    class Registry(dict):
        pass

    registry = Registry((i, i) for i in range(1000))
    [(count, size_bytes)] = census_of(registry).types.values()
    assert (count, size_bytes) == (1, dict.__sizeof__(registry))


def test_no_code_of_the_user_runs():
    class Hostile(type):
        def __hash__(cls):
            raise AssertionError

        def __eq__(cls, other):
            raise AssertionError

        @property
        def __module__(cls):
            raise AssertionError

    class Thing(metaclass=Hostile):
        def __sizeof__(self):
            raise AssertionError

        @property
        def __class__(self):
            raise AssertionError

    assert [count for count, _ in census_of(Thing(), Thing()).types.values()] == [2]


def test_two_types_of_one_name_are_one_row():
    def make() -> object:
        class Local:
            pass

        return Local()

    assert [count for count, _ in census_of(make(), make()).types.values()] == [2]


def test_above_a_million_objects_nothing_is_counted_and_the_census_says_so():
    census = take_census(lambda: [None] * (MOST_OBJECTS + 1))
    assert census.types == {}
    assert census.skipped == "1,000,001 objects, more than 1,000,000"


def test_with_very_many_blocks_not_even_the_list_of_objects_is_made():
    def refuse() -> list[object]:
        raise AssertionError

    census = take_census(refuse, lambda: 50_000_000)
    assert census.skipped == "50,000,000 blocks of memory are too many to look through"


def test_the_census_of_this_process_finds_what_was_made_meanwhile():
    before = take_census()
    kept = [Kept() for _ in range(5000)]
    rows = growth_between(before, take_census())["types"]
    row = next(row for row in rows if row["type"] == NAME)
    assert row["count_growth"] == len(kept)
    assert row["bytes_growth"] == 5000 * object.__sizeof__(kept[0])


def test_types_come_by_growth_of_bytes_and_those_that_shrank_not_at_all():
    before = Census(types={"a": (1, 10), "b": (5, 50), "c": (9, 90)})
    after = Census(types={"a": (2, 20), "b": (9, 500), "c": (1, 10), "d": (1, 5)})
    assert [row["type"] for row in growth_between(before, after)["types"]] == ["b", "a", "d"]


def test_only_the_twenty_that_grew_most_are_told():
    after = Census(types={str(i): (i, i) for i in range(1, 100)})
    assert len(growth_between(Census(), after)["types"]) == 20


@pytest.mark.parametrize("skipped_first", [True, False])
def test_without_one_of_the_two_there_is_no_growth(skipped_first):
    pair = [Census(skipped="too many"), Census(objects=1)]
    before, after = pair if skipped_first else pair[::-1]
    assert growth_between(before, after) == {"skipped": "too many"}


def test_the_census_keeps_no_object_alive():
    kept = Kept()
    references = sys.getrefcount(kept)
    census = take_census(lambda: [kept])
    assert sys.getrefcount(kept) == references
    assert not any(isinstance(one, Kept) for one in gc.get_referents(census))
