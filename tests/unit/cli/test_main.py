"""The command line: codes, one-sentence errors, and how little `--version` imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

import memguard_native
from memguard_native.cli import embed
from memguard_native.cli.main import main
from memguard_native.errors import ConfigError


def fail_with(monkeypatch, error: BaseException) -> None:
    def run(options):
        raise error

    monkeypatch.setattr(embed, "run", run)


@pytest.mark.parametrize("arguments", [["--version"], ["--version", "embed"]])
def test_the_version_is_the_packages(capsys, arguments):
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"memguard {memguard_native.__version__}\n"


def test_without_a_command_the_help_is_shown_as_wrong_usage(capsys):
    assert main([]) == 2
    captured = capsys.readouterr()
    assert "embed" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["embed", "--nonsense"], ["embed", "--port", "x"]]
)
def test_wrong_usage_exits_with_2(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: memguard" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["embed", "--help"]])
def test_help_is_a_result(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    assert "usage: memguard" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError("port", 7, "must be 8"), 2, "memguard: port must be 8, got 7\n"),
        (OSError("taken"), 1, "memguard: OSError: taken\n"),
        (ValueError("7"), 1, "memguard: ValueError: 7\n"),
    ],
)
def test_an_error_is_one_sentence_and_a_code(monkeypatch, capsys, error, code, text):
    fail_with(monkeypatch, error)
    assert main(["embed"]) == code
    assert capsys.readouterr().err == text


def test_verbose_adds_the_traceback(monkeypatch, capsys):
    fail_with(monkeypatch, OSError("taken"))
    assert main(["embed", "-v"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_exits_with_130(monkeypatch):
    fail_with(monkeypatch, KeyboardInterrupt())
    assert main(["embed"]) == 130


def test_the_module_runs_as_the_command():
    command = [sys.executable, "-m", "memguard_native", "--version"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    assert shown.stdout == f"memguard {memguard_native.__version__}\n"


def test_the_version_is_shown_without_importing_what_commands_need():
    code = (
        "import sys; from memguard_native.cli.main import main; main(['--version']); "
        "heavy = {'argparse', 'logging', 'asyncio', 'numpy', 'psutil', 'uvicorn', 'starlette'}; "
        "sys.exit(repr(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
