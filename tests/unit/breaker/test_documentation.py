"""docs/breaker.md shows the whole public surface on one screen, and names tests that exist."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from memguard_native import CircuitBreaker

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/breaker.md").read_text()
SCREEN = PAGE.partition("```python\n")[2].partition("```")[0]
RULES = re.findall(r"^\| (R\d+) \| .* \| (.*) \|$", PAGE, re.MULTILINE)


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def test_the_screen_shows_every_argument_with_its_default():
    for name, parameter in inspect.signature(CircuitBreaker).parameters.items():
        if name == "name":
            continue
        default = parameter.default
        if default is None and name in ("minimum_calls", "probe_timeout", "max_reset_timeout"):
            continue  # the page shows what stands there then
        shown = repr(default).replace("'", '"')
        assert f"{name}={shown}" in SCREEN, name


def test_the_screen_shows_every_public_attribute():
    public = {name for name in vars(CircuitBreaker) if not name.startswith("_")}
    assert public <= words(SCREEN)


def test_it_fits_on_one_screen():
    assert len(SCREEN.splitlines()) <= 40


def test_every_file_of_the_package_is_named():
    for file in (ROOT / "src/memguard_native/breaker").glob("[!_]*.py"):
        assert f"`{file.name}`" in PAGE, file.name


@pytest.mark.parametrize(("rule", "tests"), RULES, ids=[rule for rule, _ in RULES])
def test_the_tests_of_a_rule_exist(rule, tests):
    code = "\n".join(file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
    names = re.findall(r"`(\w+)`", tests)
    assert names, rule
    for name in names:
        assert re.search(rf"^(async )?def {name}\(", code, re.MULTILINE), name


def test_every_rule_is_there():
    assert [rule for rule, _ in RULES] == [f"R{n}" for n in range(1, 21)]
