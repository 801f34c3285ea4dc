"""The README's code runs and prints what it says; its figures are those of bench/results."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest

from bench import readme

from . import snippets
from .servers import embed_process

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()

BLOCKS = snippets.blocks_of(ROOT / "README.md")
NEEDS_A_SERVER = "openai.OpenAI("


@pytest.mark.parametrize(("code", "printed"), BLOCKS, ids=range(len(BLOCKS)))
def test_the_code_runs_and_prints_what_is_written_below_it(code, printed, tmp_path):
    with contextlib.ExitStack() as stack:
        if NEEDS_A_SERVER in code:
            server = stack.enter_context(embed_process(tmp_path))
            code = code.replace("http://127.0.0.1:7997", server.url)
        done = snippets.run(code)
    assert (done.returncode, done.stdout) == (0, printed), done.stderr


def test_there_are_as_many_examples_as_sections_that_promise_one():
    assert len(BLOCKS) == 4


@pytest.mark.parametrize("name", readme.BLOCKS)
def test_the_figures_are_those_of_the_newest_results(name):
    assert readme.figures_in(TEXT, name) == readme.BLOCKS[name]()


def test_every_link_into_the_repository_leads_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for document in ("README.md", "CONTRIBUTING.md"):
        named = re.findall(r"^\$ make (\w+)", (ROOT / document).read_text(), re.MULTILINE)
        assert set(named) <= targets
