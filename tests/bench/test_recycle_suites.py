"""The suites of the group "recycle": what they declare, how they judge, what they show."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bench.harness import Bench, Effort
from bench.recycle import runs, servers
from bench.recycle.lives import Shortage
from bench.recycle.load import Load
from bench.recycle.results import Answer, Cause, Failed, Failure, Result
from bench.suites import recycle, recycle_cost, recycle_protocol, recycle_start

from bench import pictures, readme, report, stamp, suites

TINY = Effort(rounds=1, seconds=1.0, quick=True)


def run(
    latency: float = 0.01,
    *,
    failed: int = 0,
    extra: int = 0,
    below: float = 0.0,
    recycles: int = 2,
    answers: int = 100,
) -> runs.Run:
    result = Result(
        started_at=0.0,
        ended_at=1.0,
        answers=tuple(Answer(0.009 * n, latency, 7) for n in range(answers)),
        failures=(Failed(0.5, Failure.reset, 1),) * failed,
        connections={Cause.first: 8, Cause.chosen: 0, Cause.silent: extra},
    )
    return runs.Run(result, [0.25] * recycles, Shortage(below, 0.0))


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], runs.Run]], None]:
    """No server runs: what a load on one comes to is said by the name of its kind and its limit."""

    @contextlib.contextmanager
    def running(kind: servers.Kind, setting: servers.Setting, **_: Any) -> Iterator[Any]:
        limit = "no limit" if setting.max_requests == servers.NO_LIMIT else "limit"
        yield SimpleNamespace(what=f"{kind.name}, {limit}", port=1, lives=SimpleNamespace(all=[]))

    def serve(outcome: Callable[[str], runs.Run]) -> None:
        def measured(running: Any, load: Load, *, renews: bool = False) -> runs.Run:
            return outcome(running.what)

        monkeypatch.setattr(servers, "running", running)
        monkeypatch.setattr(servers, "turns_of", lambda milliseconds: 1)
        monkeypatch.setattr(runs, "measured", measured)
        monkeypatch.setattr(runs, "settle", lambda running: None)

    return serve


def verdicts(b: Bench) -> list[bool]:
    return [report.gate_report(budget, [b])["met"] for budget in b.budgets]


def test_group_has_a_suite_per_question() -> None:
    assert [suite.name for suite in suites.select(["recycle"])] == [
        "recycle",
        "recycle_cost",
        "recycle_protocol",
        "recycle_start",
    ]


def test_others_may_fail_and_ours_may_not(served: Any) -> None:
    served(lambda what: run() if "memguard" in what else run(failed=3, extra=1, below=0.5))
    b = Bench(TINY)
    recycle.suite(b)
    assert verdicts(b) == [True] * 6
    assert b.samples[recycle.PER_RECYCLE]["uvicorn, by limit"] == [1.5]
    assert b.samples["failed: reset"]["hypercorn, by limit"] == [3]
    assert "memguard serve, by limit" not in b.samples["failed: reset"]


@pytest.mark.parametrize(
    ("found", "missed"),
    [
        ({"failed": 1}, recycle.PER_RECYCLE),
        ({"extra": 1}, recycle.EXTRA),
        ({"below": 0.001}, recycle.BELOW),
    ],
)
def test_every_goal_of_ours_is_nothing_at_all(
    served: Any, found: dict[str, Any], missed: str
) -> None:
    served(lambda what: run(**found))
    b = Bench(TINY)
    recycle.suite(b)
    gates = [report.gate_report(budget, [b]) for budget in b.budgets]
    assert {gate["metric"] for gate in gates if not gate["met"]} == {missed}


def test_server_that_replaced_nobody_has_no_figure_for_it(served: Any) -> None:
    served(lambda what: run(recycles=0))
    b = Bench(TINY)
    recycle.suite(b)
    assert recycle.PER_RECYCLE not in b.samples
    assert verdicts(b)[0] is False


def test_missing_server_is_a_row_that_says_so(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    served(lambda what: run())
    monkeypatch.setattr(servers, "is_installed", lambda kind: kind is not servers.HYPERCORN)
    b = Bench(TINY)
    recycle.suite(b)
    assert b.cases["hypercorn, by limit"].absent == "not installed: hypercorn"


@pytest.mark.parametrize(
    ("replacing", "expected"),
    [
        (run(0.019, answers=96), [True] * 6),
        (run(0.021), [False, *[True] * 5]),
        (run(0.160), [False, False, *[True] * 4]),
        (run(answers=94), [True, True, False, *[True] * 3]),
        (run(failed=1, extra=1, below=0.1), [*[True] * 3, *[False] * 3]),
    ],
)
def test_replacing_is_judged_beside_replacing_none(
    served: Any, replacing: runs.Run, expected: list[bool]
) -> None:
    served(lambda what: run(recycles=0) if "no limit" in what else replacing)
    b = Bench(TINY)
    recycle_cost.suite(b)
    assert verdicts(b) == expected


@pytest.mark.parametrize(("answers", "is_met"), [(981, True), (979, False)])
def test_protocol_may_cost_two_per_cent(
    served: Any, monkeypatch: pytest.MonkeyPatch, answers: int, is_met: bool
) -> None:
    served(lambda what: run(answers=answers if "memguard" in what else 1000))
    monkeypatch.setattr(recycle_protocol, "_processor_seconds", lambda running: 0.0)
    b = Bench(TINY)
    # Of processor time there is none here to divide by.
    monkeypatch.setattr(recycle_protocol, "_loaded", rates_of(recycle_protocol._loaded))
    recycle_protocol.suite(b)
    assert verdicts(b) == [is_met]


def rates_of(loaded: Callable[..., tuple[float, float]]) -> Callable[..., tuple[float, float]]:
    return lambda *arguments: (loaded(*arguments)[0], 1.0)


def test_failure_where_nothing_is_replaced_is_an_error(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    served(lambda what: run(failed=1))
    monkeypatch.setattr(recycle_protocol, "_processor_seconds", lambda running: 0.0)
    with pytest.raises(RuntimeError, match="nothing is replaced"):
        recycle_protocol.suite(Bench(TINY))


@pytest.mark.parametrize(("boot", "own_mib", "is_met"), [(0.09, 12.5, True), (0.11, 12.7, False)])
def test_new_worker_is_judged_by_its_boot_and_its_memory(
    served: Any, monkeypatch: pytest.MonkeyPatch, boot: float, own_mib: float, is_met: bool
) -> None:
    @contextlib.contextmanager
    def running(
        kind: servers.Kind, setting: servers.Setting, on_ready: Callable[[Any], None]
    ) -> Iterator[Any]:
        lives = [SimpleNamespace(pid=1, boot=boot)] * 3
        for life in lives:
            on_ready(life)
        yield SimpleNamespace(what=kind.name, port=1, lives=SimpleNamespace(all=lives))

    served(lambda what: run())
    monkeypatch.setattr(servers, "running", running)
    info = SimpleNamespace(uss=own_mib * 2**20)
    process = SimpleNamespace(memory_full_info=lambda: info)
    monkeypatch.setattr(recycle_start.psutil, "Process", lambda pid: process)
    b = Bench(TINY)
    recycle_start.suite(b)
    assert verdicts(b) == [is_met] * 2


# --- what is shown ----------------------------------------------------------------------------


def document(served: Any) -> dict[str, Any]:
    served(lambda what: run() if "memguard" in what else run(0.02, failed=3, below=0.5))
    b = Bench(TINY)
    recycle.suite(b)
    b.absent("another, by limit", "not installed: another", "another")
    (suite,) = suites.select(["recycle_start"])
    named = suites.Suite("recycle", recycle)
    assert suite.group == named.group
    made = report.whole(stamp.stamp(), False, [report.suite_report(named, [b])])
    found: dict[str, Any] = json.loads(json.dumps(made))
    return found


def test_report_has_what_each_server_went_through(served: Any) -> None:
    (suite,) = document(served)["suites"]
    assert suite["counted"] == [recycle.PER_RECYCLE, recycle.BELOW]
    line = suite["timelines"]["uvicorn, by limit"]
    assert line["moments"] == {"failed requests": [0.5] * 3, "replaced workers": [0.25] * 2}
    assert line["values"][:9] == [20.0] * 9
    assert line["values"][-1] is None


def test_picture_shows_counts_from_zero_and_a_strip_for_each_server(
    served: Any, tmp_path: Path
) -> None:
    made = document(served)
    drawn = pictures._drawable(made["suites"][0])
    assert len(drawn) == 2 + len(made["suites"][0]["timelines"])
    pictures.draw(made, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_readme_has_a_row_per_server_and_the_goals(
    served: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recycle.json").write_text(json.dumps(document(served)))
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    lines = readme.render_recycling().splitlines()
    assert "| uvicorn, by limit | 2.00 | 1.50 | 0 | 0.50 | 0.11 | 20.0 | 20.0 |" in lines
    ours = next(line for line in lines if line.startswith("| **memguard serve, by limit**"))
    assert ours.startswith("| **memguard serve, by limit** | 2.00 | 0 | 0 | 0 |")
    assert "| another, by limit (not installed: another) |" + " - |" * 7 in lines
    goal = "failed requests per recycle: memguard serve, by limit"
    assert f"| recycle | {goal} | <= 0 | 0.00 | yes |" in lines


def test_readme_is_filled_block_by_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "README.md"
    blocks = ["<!-- figures: by x -->\nold\n<!-- end of figures -->"]
    blocks.append("<!-- recycling figures: by x -->\nold\n<!-- end of recycling figures -->")
    page.write_text("\nbetween\n".join(blocks))
    monkeypatch.setattr(readme, "README", page)
    filled = {"figures": lambda: "new\n", "recycling figures": lambda: "newer\n"}
    monkeypatch.setattr(readme, "BLOCKS", filled)
    readme.main()
    text = page.read_text()
    assert readme.figures_in(text) == "new\n"
    assert readme.figures_in(text, "recycling figures") == "newer\n"
    assert "between" in text


def test_missing_block_is_named() -> None:
    with pytest.raises(ValueError, match="no block of recycling figures"):
        readme.figures_in("", "recycling figures")
