from __future__ import annotations

from typing import Any

from memguard_native.memory.evidence_text import report_text

MB = 2**20


def report(**sections: Any) -> dict[str, Any]:
    base = {"schema": 1, "complete": True, "failures": [], "cost_ms": {"total": 12.34}}
    return {**base, **sections}


def test_the_last_line_tells_the_cost():
    assert report_text(report()) == "collecting this took 12.3 ms"


def test_a_report_that_is_not_complete_says_so():
    assert report_text(report(complete=False)).endswith("it is not complete")


def test_failures_are_told():
    text = report_text(report(failures=[{"source": "maps", "error": "OSError: no"}]))
    assert "maps: OSError: no" in text


def test_growing_types_are_a_table():
    row = {"type": "app.Session", "bytes_growth": 3 * MB, "count_growth": 12000}
    text = report_text(report(census={"objects": 50000, "types": [row]}))
    assert text.splitlines()[:2] == [
        "growing types, of 50,000 objects:",
        "     +3.0 MB     +12,000  app.Session",
    ]


def test_a_census_that_was_skipped_says_why():
    text = report_text(report(census={"skipped": "2,000,000 objects"}))
    assert text.startswith("growing types: not counted, 2,000,000 objects")


def site(file: str, **sizes: int) -> dict[str, Any]:
    return {"stack": [{"function": "keep", "file": file, "line": 7}], **sizes}


def test_sites_of_the_sampled_profile_are_told_by_what_lasts():
    sites = [site("a.py", lasting_bytes=5 * MB), site("b.py", lasting_bytes=0)]
    profile = {"kind": "sampled", "seconds": 120.0, "samples": 40, "sites": sites}
    text = report_text(report(profile=profile))
    assert "allocated in the first half of 120 s and still alive, by 40 samples:" in text
    assert "     +5.0 MB  a.py:7 keep" in text
    assert "b.py" not in text


def test_memory_that_no_python_code_asked_for_is_told_as_such():
    sites = [{"lasting_bytes": MB, "stack": []}]
    profile = {"kind": "sampled", "seconds": 1.0, "samples": 1, "sites": sites}
    assert "no Python code" in report_text(report(profile=profile))


def test_lines_of_tracemalloc_are_told_by_growth():
    profile = {"kind": "tracemalloc", "sites": [site("a.py", growth_bytes=2 * MB)]}
    assert "     +2.0 MB  a.py:7 keep" in report_text(report(profile=profile))


def test_nothing_that_grows_is_told_too():
    assert "growing mappings: none" in report_text(report(maps={"mappings": []}))


def test_mappings_are_told_by_what_is_in_memory_if_that_is_known():
    rows = [
        {"name": "a", "count_growth": 1, "virtual_growth_bytes": 9, "resident_growth_bytes": MB},
        {"name": "b", "count_growth": 1, "virtual_growth_bytes": MB, "resident_growth_bytes": None},
    ]
    assert report_text(report(maps={"mappings": rows})).count("+1.0 MB") == 2


def test_threads_and_descriptors_are_a_line_each_with_what_grew():
    text = report_text(
        report(
            threads={
                "before": 3,
                "after": 9,
                "python": [{"name": "worker-#", "before": 1, "after": 7}],
            },
            file_descriptors={"before": 4, "after": 4, "kinds": None},
        )
    )
    assert "threads: 3 -> 9 (worker-# 1 -> 7)" in text
    assert "file descriptors: 4 -> 4\n" in text


def test_what_the_system_does_not_tell_is_left_out():
    threads = {"before": None, "after": None, "python": []}
    assert "threads" not in report_text(report(threads=threads))
