"""`memguard recycle`: what it asks, of whom, and what it makes of the answer."""

from __future__ import annotations

import json

import pytest

from memguard_native import segment
from memguard_native.cli.main import main
from memguard_native.recycling import control

from .supervisors import supervisor


def agree(request):
    number = request["number"]
    return {"schema": 1, "asked": [0, 1] if number is None else [number]}


@pytest.mark.parametrize(
    ("arguments", "number", "told"), [(["1"], 1, "1"), (["0"], 0, "0"), (["--all"], None, "0, 1")]
)
def test_a_worker_or_all_are_asked_for(capsys, arguments, number, told):
    with supervisor(agree) as asked:
        assert main(["recycle", *arguments]) == 0
    assert asked == [{"command": "recycle", "number": number, "reason": "manual"}]
    expected = f"to be replaced: {told}; memguard workers shows how it goes\n"
    assert capsys.readouterr().out == expected


def test_programs_are_told_the_answer(capsys):
    with supervisor(agree):
        assert main(["recycle", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": 1, "asked": [1]}


def test_what_the_supervisor_refuses_is_one_sentence(capsys):
    with supervisor(lambda _: {"schema": 1, "error": "no worker 7 is ready; there are: 0, 1"}):
        assert main(["recycle", "7"]) == 1
    error = capsys.readouterr().err
    assert "no worker 7 is ready; there are: 0, 1; see memguard workers" in error


@pytest.mark.parametrize("arguments", [[], ["0", "--all"], ["first"]])
def test_one_or_all_must_be_said(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(["recycle", *arguments])
    assert caught.value.code == 2
    assert "usage: memguard recycle [OPTIONS] NUMBER | --all" in capsys.readouterr().err


def test_with_several_supervisors_one_must_be_named(capsys, monkeypatch):
    with supervisor(agree) as asked:
        (own,) = control.find_supervisors("default")
        other = segment.directory() / "default.7.control"
        monkeypatch.setattr(control, "find_supervisors", lambda _: [own, other])
        assert main(["recycle", "0"]) == 2
        numbers = f"{control.pid_of(own)}, 7"
        assert f"--pid must be one of {numbers}, got None" in capsys.readouterr().err
        assert asked == []
        assert main(["recycle", "0", "--pid", str(control.pid_of(own))]) == 0


def test_without_a_supervisor_it_fails(capsys):
    assert main(["recycle", "--all"]) == 1
    assert "no supervisor runs; memguard serve starts one" in capsys.readouterr().err
