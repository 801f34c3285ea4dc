"""What applications may tell the worker that they run in, and what they may not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from memguard_native.errors import ConfigError
from memguard_native.recycling import worker
from memguard_native.recycling.reasons import MEMORY_REASONS, Reason, comes_before


def test_without_a_supervisor_an_application_may_tell_all_the_same():
    assert not worker.is_supervised()
    worker.count(inputs=3, tokens=700)
    worker.ask()
    worker.ask("manual")
    worker.load_from(lambda: 1.0)
    assert not worker.is_supervised()


@pytest.mark.parametrize("value", [-1, 1.0, "1", True, None])
@pytest.mark.parametrize("name", ["inputs", "tokens"])
def test_what_is_counted_is_a_whole_number(name, value):
    with pytest.raises(ConfigError) as refused:
        worker.count(**{name: value})
    assert str(refused.value) == f"{name} must be an int >= 0, got {value!r}"


@pytest.mark.parametrize("reason", ["memory", "crash", "", None, 1])
def test_an_application_asks_only_for_reasons_of_its_own(reason):
    with pytest.raises(ConfigError) as refused:
        worker.ask(reason)
    assert (refused.value.field, refused.value.value) == ("reason", reason)
    assert refused.value.allowed == "must be one of 'backend', 'manual'"


def test_telling_imports_neither_uvicorn_nor_numpy():
    code = (
        "import sys; from memguard_native.recycling import worker; worker.count(tokens=1); "
        "sys.exit(bool({'uvicorn', 'numpy'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- which reason counts --------------------------------------------------------------------------


@pytest.mark.parametrize("reason", Reason)
def test_the_first_reason_counts(reason):
    assert comes_before(reason, None)
    assert not comes_before(reason, reason)
    assert not comes_before(reason, Reason.requests)


@pytest.mark.parametrize("asked", sorted(MEMORY_REASONS))
def test_a_reason_of_memory_which_may_be_held_back_holds_up_no_other(asked):
    assert comes_before(Reason.lifetime, asked)
    assert not comes_before(Reason.memory, asked)


@pytest.mark.parametrize("reason", sorted(MEMORY_REASONS - {Reason.memory}))
def test_a_limit_that_is_too_low_holds_up_no_leak(reason):
    assert comes_before(reason, Reason.memory)
    assert not any(comes_before(reason, asked) for asked in MEMORY_REASONS - {Reason.memory})
