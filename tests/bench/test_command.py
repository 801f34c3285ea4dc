"""The command: which suites it runs, what it writes, what it exits with."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from bench.harness import QUICK, Bench
from bench.suites import Suite

from bench import command, stamp, suites

Declare = Callable[[Bench], None]
RUN = Path(__file__).resolve().parents[2] / "bench" / "run.py"


def invented(name: str, group: str, declare: Declare) -> Suite:
    module = ModuleType(name, f"What does {name} cost?")
    module.GROUP = group  # type: ignore[attr-defined]
    module.suite = declare  # type: ignore[attr-defined]
    return Suite(name, module)


def figures(*values: float, at_most: float = 1.0) -> Declare:
    """A suite whose runs find these values one after the other."""
    left = list(values)

    def declare(b: Bench) -> None:
        b.record("memguard", "cost", left.pop(0))
        b.budget("memguard", metric="cost", at_most=at_most)

    return declare


@pytest.fixture
def benches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Callable[..., int]]:
    """Put invented suites in place of the real ones; give back the command."""
    monkeypatch.setattr(stamp, "load", lambda: 0.0)

    def install(**declared: Declare) -> Callable[..., int]:
        found = [invented(name, name.partition("_")[0], d) for name, d in declared.items()]
        monkeypatch.setattr(suites, "every", lambda: found)
        return lambda *argv: command.main([*argv, "--results", str(tmp_path)])

    return install


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# --- exit codes -----------------------------------------------------------------------------


def test_met_goals_exit_with_0(benches: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert benches(ring=figures(0.9))("--check", "ring") == 0
    assert "ok     ring: cost: memguard: 0.90, goal <= 1" in capsys.readouterr().out


def test_missed_goal_exits_with_1_after_three_runs(
    benches: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benches(ring=figures(1.4, 1.3, 1.2))("--check") == 1
    assert "MISSED ring: cost: memguard: 1.20, goal <= 1 (best of 3 runs)" in (
        capsys.readouterr().out
    )


def test_no_run_is_begun_that_would_not_end_in_time(
    benches: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 25.0, 50.0])  # after two runs of 25 s a third would end at 75
    monkeypatch.setattr(command.time, "monotonic", lambda: next(clock))
    assert benches(ring=figures(1.4, 1.3))("--check", "--quick") == 1
    assert "(best of 2 runs)" in capsys.readouterr().out


def test_runs_stop_as_soon_as_all_goals_are_met(benches: Any) -> None:
    assert benches(ring=figures(1.4, 0.9))("--check") == 0


def test_missed_goal_is_told_but_not_an_error_without_check(
    benches: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benches(ring=figures(1.4))() == 0
    assert "MISSED" in capsys.readouterr().out


def test_missing_peer_fails_the_check(benches: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def declare(b: Bench) -> None:
        b.record("memguard", "cost", 1.0)
        b.absent("rival", "not installed")
        b.budget("memguard", metric="cost", ratio_to="rival", at_most=1.0)

    assert benches(ring=declare)("--check") == 1
    assert "rival is not installed" in capsys.readouterr().out


def test_unknown_suite_exits_with_2(benches: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert benches(ring=figures(0.9))("rang") == 2
    assert "no suite or group is called 'rang'" in capsys.readouterr().err


def test_unknown_option_exits_with_2() -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["--quik"])
    assert stopped.value.code == 2


def test_broken_suite_exits_with_3_and_the_others_are_still_reported(
    benches: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(b: Bench) -> None:
        raise RuntimeError("no such server")

    assert benches(breaker=broken, ring=figures(0.9))() == 3
    output = capsys.readouterr()
    assert "no such server" in output.err
    assert "failed: breaker" in output.err
    assert "## ring" in output.out


def test_what_a_suite_started_is_stopped_also_if_the_suite_fails(benches: Any) -> None:
    stopped: list[str] = []

    def broken(b: Bench) -> None:
        b.resources.callback(stopped.append, "server")
        raise RuntimeError("no figures today")

    assert benches(breaker=broken)() == 3
    assert stopped == ["server"]


def test_package_that_is_not_built_exits_with_3_and_names_the_cure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "memguard_native", None)
    monkeypatch.delitem(sys.modules, "bench.suites.ring_push", raising=False)
    assert command.main(["ring"]) == 3
    assert "make bench" in capsys.readouterr().err


def test_interrupt_exits_with_130(benches: Any) -> None:
    def interrupted(b: Bench) -> None:
        raise KeyboardInterrupt

    assert benches(ring=interrupted)() == 130


# --- selection ------------------------------------------------------------------------------


def test_group_means_its_suites_and_a_name_means_one(
    benches: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run = benches(breaker=figures(0.9), breaker_more=figures(0.9), ring=figures(0.9))
    assert run("breaker") == 0
    out = capsys.readouterr().out
    assert "## breaker\n" in out
    assert "## breaker_more" in out
    assert "## ring" not in out


def test_list_tells_group_name_and_question(
    benches: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benches(ring_push=figures(0.9))("--list") == 0
    assert capsys.readouterr().out.split() == [
        *("ring", "ring_push", "What", "does", "ring_push", "cost?")
    ]


def test_real_suites_have_a_group_and_a_question_each() -> None:
    found = suites.every()
    groups = {suite.group for suite in found}
    expected = {"breaker", "ring", "sampler", "detector", "shared", "embedding", "recycle"}
    assert groups == expected
    assert all(suite.question.endswith("?") for suite in found)
    assert [suite.name for suite in found] == list(suites.ORDER)


# --- output ---------------------------------------------------------------------------------


def test_results_of_a_group_are_json_markdown_and_picture(benches: Any, tmp_path: Path) -> None:
    assert benches(breaker=figures(0.9), breaker_more=figures(0.9))() == 0
    folder = tmp_path / stamp.interpreter()
    assert written(folder) == {"breaker.json", "breaker.md", "breaker.png"}
    report = json.loads((folder / "breaker.json").read_text())
    assert [suite["name"] for suite in report["suites"]] == ["breaker", "breaker_more"]
    assert (folder / "breaker.png").read_bytes().startswith(b"\x89PNG")


def test_results_of_another_python_stand_beside_those_of_this_one(
    benches: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = benches(ring=figures(0.9, 0.8))
    for python in ("python3.11", "python3.13"):
        monkeypatch.setattr(stamp, "interpreter", lambda python=python: python)
        assert run() == 0
    costs = []
    for python in ("python3.11", "python3.13"):
        report = json.loads((tmp_path / python / "ring.json").read_text())
        costs.append(report["suites"][0]["cases"][0]["figures"]["cost"]["min"])
    assert costs == [0.9, 0.8]


def test_part_of_a_group_does_not_replace_the_results_of_the_group(
    benches: Any, tmp_path: Path
) -> None:
    assert benches(breaker=figures(0.9), breaker_more=figures(0.9))("breaker_more") == 0
    folder = tmp_path / stamp.interpreter()
    assert written(folder) == {"breaker_more.json", "breaker_more.md", "breaker_more.png"}


def test_more_pictures_of_a_suite_lie_beside_its_results(
    benches: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = benches(ring=figures(0.9))
    (suite,) = suites.every()
    monkeypatch.setattr(
        suite.module, "PICTURES", {"curve": lambda path: path.write_text("drawn")}, raising=False
    )
    assert run() == 0
    assert (tmp_path / stamp.interpreter() / "ring_curve.png").read_text() == "drawn"


def test_missed_goal_that_does_not_bind_is_not_measured_again(benches: Any) -> None:
    def declare(b: Bench) -> None:
        runs.append(b)
        b.record("memguard", "delay", 2.0)
        b.budget("memguard", metric="delay", at_most=1.0, binding=False)

    runs: list[Bench] = []
    assert benches(detector=declare)("--check") == 0
    assert len(runs) == 1


def test_quick_results_lie_apart(benches: Any, tmp_path: Path) -> None:
    assert benches(ring=figures(0.9))("--quick") == 0
    folder = f"quick/{stamp.interpreter()}"
    assert written(tmp_path) == {f"{folder}/ring.{ending}" for ending in ("json", "md", "png")}


def test_json_dash_leaves_stdout_to_the_json(
    benches: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benches(ring=figures(0.9))("--json", "-") == 0
    output = capsys.readouterr()
    assert json.loads(output.out)["schema"] == 1
    assert "## ring" in output.err


def test_json_file_holds_the_whole_report(benches: Any, tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    assert benches(breaker=figures(0.9), ring=figures(0.9))("--json", str(path)) == 0
    assert len(json.loads(path.read_text())["suites"]) == 2


def test_busy_machine_is_warned_about_on_stderr(
    benches: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = benches(ring=figures(0.9))
    monkeypatch.setattr(stamp, "load", lambda: 1000.0)
    assert run() == 0
    assert "warning: the load average is 1000" in capsys.readouterr().err


def test_progress_is_one_line_per_run_where_nobody_watches() -> None:
    out = io.StringIO()
    progress = command.Progress("ring/ring_push, run 1", out)
    progress("round 1 of 40")
    progress.done()
    assert out.getvalue() == "ring/ring_push, run 1 ...\n"


def test_progress_rewrites_its_line_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    progress = command.Progress("ring", out)
    progress("round 1 of 40")
    progress.done()
    assert out.getvalue() == "ring ...\r\x1b[Kring: round 1 of 40\r\x1b[K"


# --- comparing ------------------------------------------------------------------------------


def test_compare_reads_two_reports(
    benches: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("a", 0.5), ("b", 0.75)):
        benches(ring=figures(value))("--json", str(tmp_path / f"{name}.json"))
    capsys.readouterr()
    paths = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert command.main(["--compare", *paths]) == 0
    assert capsys.readouterr().out == "ring memguard cost: 0.50 -> 0.75 (x1.50)\n"


@pytest.mark.parametrize("content", [None, "{", '{"schema": 7}'])
def test_compare_with_an_unreadable_report_exits_with_2(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    assert command.main(["--compare", str(path), str(path)]) == 2
    assert f"cannot read {path}" in capsys.readouterr().err


def test_script_runs_from_anywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(RUN), "--list"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "ring_push" in done.stdout


def test_quick_allows_a_suite_one_minute_and_three_runs() -> None:
    assert QUICK.suite_seconds == 60.0
    assert QUICK.seconds * command.RUNS <= QUICK.suite_seconds * 0.75  # with room for setting up
