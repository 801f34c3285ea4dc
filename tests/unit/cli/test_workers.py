"""`memguard workers`: what supervisors say, as a page and for programs."""

from __future__ import annotations

import copy
import json
import os
import re
import time
from pathlib import Path

import pytest

from memguard_native.cli.main import main

from .supervisors import SERVICE, supervisor

PAGE = Path(__file__).parents[3] / "docs/command-line.md"


@pytest.fixture
def service():
    """What the supervisor answers; a test may change it."""
    found = copy.deepcopy(SERVICE)
    found["recycles"][0]["at"] = time.time() - 120.0
    return found


def shown(capsys, service, *arguments):
    with supervisor(lambda _: service) as asked:
        assert main(["workers", *arguments]) == 0
    assert asked == [{"command": "workers"}]
    return capsys.readouterr().out


def test_the_service_and_its_workers_are_shown(service, capsys):
    lines = shown(capsys, service).splitlines()
    assert lines[0] == (
        "shop.web:app at http://127.0.0.1:8000: 1 of 2 workers ready, up 2 h 11 min "
        "(process 4710, zygote)"
    )
    assert re.split(r"  +", lines[3]) == [
        *("0", "4731", "ready", "13 min", "8204", "1", "12", "61.0", "512.0", "0.1 s", "steady")
    ]
    assert lines[4].endswith("alert, 103.4 MB/h, limit in 2 h 01 min")
    assert "draining (leak)" in lines[4]
    assert re.split(r"  +", lines[5])[:3] == ["1", "-", "starting"]


def test_what_was_replaced_is_shown_newest_first(service, capsys):
    for number in range(7):
        service["recycles"].append(service["recycles"][0] | {"number": number})
    out = shown(capsys, service)
    rows = out[out.index("REPLACED") :].splitlines()[1:6]
    assert [row.split()[3] for row in rows] == ["6", "5", "4", "3", "2"]
    assert re.split(r"  +", rows[0]) == [
        *("2 min ago", "6", "memory", "0.09 s", "0.05 s", "11", "0", "451.0")
    ]


def test_the_totals_are_the_last_line(service, capsys):
    assert shown(capsys, service).splitlines()[-1] == (
        "replaced: 1 memory, 3 requests; connections: 41 handed over, 0 aborted; "
        "too few workers for 0 s"
    )


def test_before_anything_was_replaced_nothing_is_told_of_it(service, capsys):
    service["recycles"], service["totals"]["recycles"] = [], {}
    out = shown(capsys, service)
    assert "REPLACED" not in out
    assert "replaced: none; " in out


def test_programs_are_told_what_the_supervisor_says(service, capsys):
    assert json.loads(shown(capsys, service, "--json")) == service


def test_what_a_service_calls_itself_does_no_harm_to_a_terminal(service, capsys):
    service["supervisor"]["app"] = "\x1b[2J"
    assert "\x1b" not in shown(capsys, service)


def test_watching_asks_again_until_it_is_interrupted(service, capsys, monkeypatch):
    naps = []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 3:
            raise KeyboardInterrupt

    with supervisor(lambda _: service) as asked:
        monkeypatch.setattr(time, "sleep", nap)
        assert main(["workers", "--watch", "2"]) == 130
    assert (len(asked), naps) == (3, [2.0, 2.0, 2.0])


def test_a_watch_of_nothing_is_refused(capsys):
    assert main(["workers", "--watch", "0"]) == 2
    assert "--watch must be seconds above 0" in capsys.readouterr().err


def test_without_a_supervisor_it_says_how_to_start_one(capsys):
    assert main(["workers"]) == 1
    expected = "memguard: namespace 'default': no supervisor runs; memguard serve starts one\n"
    assert capsys.readouterr().err == expected


def test_supervisors_of_other_namespaces_are_named(service, capsys):
    with supervisor(lambda _: service, namespace="shop"):
        assert main(["workers"]) == 1
        assert "no supervisor runs; give --namespace one of shop" in capsys.readouterr().err
        assert main(["workers", "--namespace", "shop"]) == 0


def test_a_number_that_no_supervisor_has_is_told_with_those_that_there_are(service, capsys):
    with supervisor(lambda _: service):
        assert main(["workers", "--pid", str(os.getpid())]) == 0
        assert main(["workers", "--pid", "1"]) == 1
    expected = f"no supervisor has process number 1; give --pid one of {os.getpid()}"
    assert expected in capsys.readouterr().err


def test_the_documented_page_is_the_page(service, capsys):
    _, _, rest = PAGE.read_text().partition("$ memguard workers\n")
    assert rest.partition("```")[0] == shown(capsys, service)
