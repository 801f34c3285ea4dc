"""Settings: a flag, else an environment variable, else nothing; errors name where it is from."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memguard_native.cli import settings
from memguard_native.cli.settings import Setting, SettingsFormatter, add_settings, read_settings
from memguard_native.errors import ConfigError

SIZE = Setting("--max-size", "max_bytes", settings.whole, "how much", "N", "90%")
SWITCH = Setting("--fast", "is_fast", settings.yes_or_no, "hurry", None, "yes")
LIST = Setting("--name", "names", settings.text, "who", "TEXT", is_list=True)
ALL = (SIZE, SWITCH, LIST)


def read(*arguments, **environment):
    parser = argparse.ArgumentParser()
    add_settings(parser, "all", ALL)
    return read_settings(ALL, parser.parse_args(arguments), environment)


def test_what_nobody_gives_is_left_out():
    assert read().values == {}


@given(flag=st.none() | st.integers(0, 99), variable=st.none() | st.integers(0, 99))
def test_a_flag_wins_over_the_environment(flag, variable):
    arguments = [] if flag is None else ["--max-size", str(flag)]
    environment = {} if variable is None else {"MEMGUARD_MAX_SIZE": str(variable)}
    expected = variable if flag is None else flag
    assert read(*arguments, **environment).values.get("max_bytes") == expected


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["--fast"], {"MEMGUARD_FAST": "no"}, True),
        (["--no-fast"], {"MEMGUARD_FAST": "yes"}, False),
        ([], {"MEMGUARD_FAST": "0"}, False),
        ([], {"MEMGUARD_FAST": "On"}, True),
    ],
)
def test_a_switch_goes_both_ways(arguments, environment, expected):
    assert read(*arguments, **environment).values == {"is_fast": expected}


def test_a_list_is_given_by_many_flags_or_lines():
    assert read("--name", "a", "--name", "b").values == {"names": ["a", "b"]}
    assert read(MEMGUARD_NAME="a\nb").values == {"names": ["a", "b"]}


def test_an_empty_variable_gives_nothing():
    assert read(MEMGUARD_MAX_SIZE="", MEMGUARD_FAST="", MEMGUARD_NAME="").values == {}


@pytest.mark.parametrize(
    ("arguments", "environment", "origin"),
    [
        (["--max-size", "much"], {}, "--max-size"),
        ([], {"MEMGUARD_MAX_SIZE": "much"}, "MEMGUARD_MAX_SIZE"),
    ],
)
def test_a_text_that_is_not_understood_names_its_origin(arguments, environment, origin):
    with pytest.raises(ConfigError) as caught:
        read(*arguments, **environment)
    assert str(caught.value) == f"{origin} must be a whole number, got 'much'"


@pytest.mark.parametrize(
    ("field", "name"), [("max_bytes", "MEMGUARD_MAX_SIZE"), ("other", "other")]
)
def test_an_error_about_a_value_names_its_origin(field, name):
    found = read(MEMGUARD_MAX_SIZE="7")
    with pytest.raises(ConfigError) as caught, found.named():
        raise ConfigError(field, 7, "must be less")
    assert str(caught.value) == f"{name} must be less, got 7"


def test_some_can_be_picked():
    assert read("--max-size", "7", "--fast").pick([SWITCH, LIST]) == {"is_fast": True}


def test_help_has_a_line_for_each_with_its_default():
    parser = argparse.ArgumentParser(formatter_class=SettingsFormatter)
    add_settings(parser, "all", ALL)
    assert [line.split(maxsplit=1) for line in parser.format_help().splitlines()[-3:]] == [
        ["--max-size", "N  how much [90%]"],
        ["--[no-]fast", "hurry [yes]"],
        ["--name", "TEXT   who"],
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [("512MiB", "512MiB"), ("80%", "80%"), ("1048576", 1048576), ("0.8", 0.8), ("2e9", 2e9)],
)
def test_memory_is_bytes_a_share_or_a_text(text, value):
    found = settings.memory("x", text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("read_text", "text", "value"),
    [
        (settings.duration, "2h", 7200.0),
        (settings.number, "0.1", 0.1),
        (settings.optional(settings.whole), "None", None),
        (settings.optional(settings.whole), "7", 7),
        (settings.one_of("a", "b"), "b", "b"),
    ],
)
def test_texts_are_read(read_text, text, value):
    assert read_text("x", text) == value


@pytest.mark.parametrize(
    ("read_text", "allowed"),
    [
        (settings.duration, "must be a duration"),
        (settings.number, "must be a number"),
        (settings.yes_or_no, "must be yes or no"),
        (settings.one_of("a", "b"), "must be one of a, b"),
        (settings.optional(settings.whole), "must be a whole number"),
    ],
)
def test_texts_that_are_something_else_are_refused(read_text, allowed):
    with pytest.raises(ConfigError, match=f"x {allowed}.*, got 'soon'"):
        read_text("x", "soon")
