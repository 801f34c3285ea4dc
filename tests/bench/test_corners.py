"""The corner probes: whatever a library does is an answer, and the page is made of answers only."""

from __future__ import annotations

import sys

import pytest
from bench.corners import table
from bench.corners.adapters import LIBRARIES, Breaker
from bench.corners.ask import ROOT, ProbeError, answer, answer_of, ask
from bench.corners.probes import PROBES, title

from bench import rivals

EVERY_LIBRARY = pytest.mark.parametrize("library", LIBRARIES.values(), ids=LIBRARIES)


def python(program: str, limit: float = 10.0) -> str:
    return answer_of([sys.executable, "-c", program], limit)


# --- answers --------------------------------------------------------------------------------


def test_the_answer_is_what_is_printed_last() -> None:
    assert python("print('a warning of the library'); print('yes')") == "yes"


def test_a_probe_that_hangs_is_an_answer() -> None:
    assert python("import threading; threading.Event().wait()", limit=0.5) == "hangs"


def test_a_library_that_kills_its_process_is_an_answer() -> None:
    assert python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)") == "dies of SIGKILL"


def test_a_probe_that_raises_is_no_answer() -> None:
    with pytest.raises(ProbeError, match="ZeroDivisionError"):
        python("1 / 0")


def test_a_missing_library_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    class Missing(Breaker):
        name, package = "missing", "no-such-distribution"

    monkeypatch.setitem(LIBRARIES, "missing", Missing)
    assert ask("missing", "waits.parallel") == "not installed"


def test_a_library_that_blocks_its_callers_does_not_hang() -> None:
    assert ask("pybreaker", "verdicts.late_success") == "n/a: calls run in a row"


def test_a_corner_that_cannot_be_reached_says_why() -> None:
    assert answer("pybreaker", "tries.cancelled") == "n/a: never opens"


# --- adapters -------------------------------------------------------------------------------


def test_every_rival_of_the_benchmarks_is_asked_and_ours_is_last() -> None:
    packages = {peer.package for peer in rivals.BREAKERS if peer.package}
    assert packages | {"memguard-native"} == {each.package for each in LIBRARIES.values()}
    assert list(LIBRARIES)[-1] == "memguard"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # newer Pythons about the peers
@EVERY_LIBRARY
def test_adapter_opens_after_so_many_failures_and_tries_again(library: type[Breaker]) -> None:
    breaker = library(failures=2)
    breaker.fail()
    assert (breaker.state(), breaker.reject()) == ("closed", None)
    breaker.fail(2)
    assert breaker.state() == "open"
    assert isinstance(breaker.reject(), breaker.rejection)
    breaker.let_time_pass()
    assert breaker.reject() is None
    assert breaker.state() == "closed"


# --- the page -------------------------------------------------------------------------------


def test_page_renders_from_a_dictionary_of_answers() -> None:
    answers = {
        "waits.fork": {"theirs": "child deadlocks", "ours": "ok"},
        "forms.methods": {"theirs": "all", "ours": "all"},
    }
    lines = table.page(answers, {"theirs": "1.0", "ours": None}, "2026-01-02").splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    assert rows[0] == ["probe", "theirs", "ours"]
    assert rows[2:] == [["fork during a call", "child deadlocks", "ok"], ["methods", "all", "all"]]
    assert lines[-1] == "2026-01-02: theirs 1.0, ours not installed."


def test_every_probe_has_a_title_of_its_own() -> None:
    titles = [title(probe) for probe in PROBES.values()]
    assert all(titles)
    assert len(set(titles)) == len(titles) == 23


def test_the_page_lists_every_probe_and_library() -> None:
    lines = (ROOT / "docs" / "corners.md").read_text(encoding="utf-8").splitlines()
    head, _, *rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line
    ]
    assert head == ["probe", *LIBRARIES]
    assert [row[0] for row in rows] == [title(probe) for probe in PROBES.values()]
    assert all(cell for row in rows for cell in row)
