"""Settings of a command: a flag, else an environment variable, else nothing.

`--max-memory` is `MEMGUARD_MAX_MEMORY` in the environment. What is given by neither is left out, so
a default is written where it is used, and nowhere else. Errors name the flag or the variable that
the value came from.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "MEMGUARD_"

Reader = Callable[[str, str], Any]
"""Makes a value of the name of its origin and a text; raises ConfigError."""


class Setting(NamedTuple):
    """One setting of a command."""

    flag: str
    """ "--max-memory". What has not been added to a parser is read from its variable alone."""
    field: str
    """What it is called where it goes to."""
    read: Reader
    help: str
    metavar: str | None = None
    """None: a switch, --flag and --no-flag, whose variable says yes or no."""
    default: str = ""
    """Of where it goes to, as `help` shows it."""
    is_list: bool = False
    """It may be given more than once; in its variable by lines."""

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return PREFIX + self.flag.removeprefix("--").replace("-", "_").upper()


class Given(NamedTuple):
    """The values that were given, by field, and what gave them."""

    values: dict[str, Any]
    origins: dict[str, str]

    def pick(self, settings: Iterable[Setting]) -> dict[str, Any]:
        """Those of `settings` alone."""
        names = [one.field for one in settings]
        return {name: self.values[name] for name in names if name in self.values}

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors about a field name what gave its value, while this is entered."""
        from memguard_native.errors import ConfigError

        try:
            yield
        except ConfigError as error:
            origin = self.origins.get(error.field)
            if origin is None:
                raise
            raise ConfigError(origin, error.value, error.allowed) from error


class SettingsFormatter(argparse.HelpFormatter):
    """Help with a line for each setting, as wide as a line of code, wherever it is shown."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=100)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction):
            return f"--[no-]{action.option_strings[0].removeprefix('--')}"
        return super()._format_action_invocation(action)


def add_settings(parser: argparse.ArgumentParser, title: str, settings: Iterable[Setting]) -> None:
    """Add their flags to the parser, as one group of its help."""
    group = parser.add_argument_group(title)
    for one in settings:
        text = (f"{one.help} [{one.default}]" if one.default else one.help).replace("%", "%%")
        if one.metavar is None:
            group.add_argument(
                one.flag, dest=one.field, help=text, action=argparse.BooleanOptionalAction
            )
        else:
            action = "append" if one.is_list else "store"
            group.add_argument(
                one.flag, dest=one.field, metavar=one.metavar, help=text, action=action
            )


def read_settings(
    settings: Iterable[Setting], options: argparse.Namespace, environment: Mapping[str, str]
) -> Given:
    """What flags and environment give. An empty variable gives nothing.

    Raises ConfigError: a text that its setting does not understand.
    """
    found = Given({}, {})
    for one in settings:
        given = getattr(options, one.field, None)
        if given is not None:
            _keep(found, one, one.flag, given)
        elif environment.get(one.variable):
            text = environment[one.variable]
            _keep(found, one, one.variable, text.splitlines() if one.is_list else text)
    return found


def _keep(found: Given, setting: Setting, origin: str, given: Any) -> None:
    found.origins[setting.field] = origin
    if isinstance(given, bool):
        found.values[setting.field] = given
    elif setting.is_list:
        found.values[setting.field] = [setting.read(origin, text) for text in given]
    else:
        found.values[setting.field] = setting.read(origin, given)


# --- readers --------------------------------------------------------------------------------------


def text(_origin: str, given: str) -> str:
    """As it is."""
    return given


def whole(origin: str, given: str) -> int:
    """A whole number; what is allowed, its user decides."""
    from memguard_native.errors import ConfigError

    try:
        return int(given)
    except ValueError:
        raise ConfigError(origin, given, "must be a whole number") from None


def number(origin: str, given: str) -> float:
    """A number."""
    from memguard_native.errors import ConfigError

    try:
        return float(given)
    except ValueError:
        raise ConfigError(origin, given, "must be a number") from None


def duration(origin: str, given: str) -> float:
    """Seconds."""
    from memguard_native.cli.durations import parse_duration

    return parse_duration(origin, given)


def memory(_origin: str, given: str) -> int | float | str:
    """Bytes, a share such as 0.8, or a text that the policy understands: "512MiB", "80%"."""
    if given.isascii() and given.isdecimal():
        return int(given)
    try:
        return float(given)
    except ValueError:
        return given


def one_of(*words: str) -> Reader:
    """One of these words."""

    def read(origin: str, given: str) -> str:
        from memguard_native.errors import ConfigError

        if given not in words:
            raise ConfigError(origin, given, f"must be one of {', '.join(words)}")
        return given

    return read


def yes_or_no(origin: str, given: str) -> bool:
    """True or False."""
    from memguard_native.errors import ConfigError

    word = given.strip().lower()
    if word in ("1", "yes", "true", "on"):
        return True
    if word in ("0", "no", "false", "off"):
        return False
    raise ConfigError(origin, given, "must be yes or no")


def optional(read: Reader) -> Reader:
    """The same, or "none"."""
    return lambda origin, given: None if given.strip().lower() == "none" else read(origin, given)
