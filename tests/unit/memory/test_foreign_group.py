"""The control group of another process, on trees of files made up for it."""

from __future__ import annotations

import pytest

from memguard_native.memory.foreign_group import GroupFigures, group_of

MB = 2**20
HOST_MB = 8192


@pytest.fixture
def proc(tmp_path):
    """proc(line) is a /proc whose process 42 is in that group."""

    def proc(*lines: str):
        root = tmp_path / "proc"
        (root / "42").mkdir(parents=True)
        (root / "42" / "cgroup").write_text("".join(f"{line}\n" for line in lines))
        (root / "meminfo").write_text(f"MemTotal: {HOST_MB * 1024} kB\n")
        return root

    return proc


@pytest.fixture
def group(tmp_path):
    """group("a/b", memory.max=...) writes files of a group."""

    def group(path: str, **files: str):
        directory = tmp_path / "cgroups" / path
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (directory / name.replace("__", ".")).write_text(f"{text}\n")
        return tmp_path / "cgroups"

    return group


def test_version_2_takes_the_smallest_limit_up_the_tree(proc, group):
    group("", cgroup__controllers="memory")
    group("a", memory__max=str(100 * MB), memory__current=str(90 * MB),
          memory__stat=f"anon {40 * MB}\nfile {30 * MB}\nshmem {MB}",
          memory__swap__current=f"{MB}")  # fmt: skip
    cgroups = group("a/b", memory__max=str(200 * MB), memory__current=str(MB))
    found = group_of(proc("0::/a/b"), 42, cgroups)
    assert found == GroupFigures(100 * MB, 90 * MB, 42 * MB)


def test_version_1_counts_the_whole_tree_below(proc, group):
    cgroups = group(
        "memory/a",
        memory__limit_in_bytes=str(300 * MB),
        memory__usage_in_bytes=str(200 * MB),
        memory__stat=f"rss 1\ntotal_rss {150 * MB}\ntotal_swap {2 * MB}",
    )
    found = group_of(proc("7:cpu:/x", "5:memory:/a", "0::/"), 42, cgroups)
    assert found == GroupFigures(300 * MB, 200 * MB, 152 * MB)


@pytest.mark.parametrize("limit", ["max", str(HOST_MB * MB), str(2**63 - 4096)])
def test_what_is_not_below_the_memory_of_the_host_is_no_limit(proc, group, limit):
    group("", cgroup__controllers="memory")
    cgroups = group("a", memory__max=limit, memory__current=str(MB))
    assert group_of(proc("0::/a"), 42, cgroups) == GroupFigures(None, MB, None)


@pytest.mark.parametrize("path", ["/../elsewhere", "/gone"])
def test_a_group_outside_of_what_is_seen_is_that_at_the_top(proc, group, path):
    cgroups = group("", cgroup__controllers="memory", memory__max=str(MB))
    assert group_of(proc(f"0::{path}"), 42, cgroups).limit_bytes == MB


def test_without_control_groups_nothing_is_known(proc, tmp_path):
    assert group_of(proc("0::/"), 42, tmp_path / "none") == GroupFigures()
    assert group_of(tmp_path / "none", 42, tmp_path) == GroupFigures()
