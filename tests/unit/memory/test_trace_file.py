"""Traces: what is read, what is refused and how that is said, and that what is written is read."""

from __future__ import annotations

import os
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memguard_native.errors import MemguardError, TraceError
from memguard_native.memory.sample import MemorySample
from memguard_native.memory.trace_file import COLUMNS, TraceWriter, read_trace


@pytest.fixture
def trace(tmp_path):
    """trace(text) is the path of a file that holds it."""

    def trace(text: str | bytes) -> str:
        path = tmp_path / "x.csv"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return trace


def problem_of(path, **options) -> TraceError:
    with pytest.raises(TraceError) as caught:
        list(read_trace(path, **options))
    assert isinstance(caught.value, MemguardError)
    assert caught.value.path == str(path)
    return caught.value


FULL = ",".join(COLUMNS) + "\n0,0.5,400,100,50,20,0,0,5,3,9000,7000,2000,1000,77,1,2,3,4,999,2.5\n"


def test_every_column_has_its_place(trace):
    (sample,) = read_trace(trace(FULL))
    assert sample == MemorySample(
        500_000_000,
        500_000_000,
        rss_bytes=400 * 1024,
        anon_bytes=100 * 1024,
        file_bytes=50 * 1024,
        shmem_bytes=20 * 1024,
        swap_bytes=5 * 1024,
        threads=3,
        malloc_in_use_bytes=8000,
        malloc_free_bytes=2000,
        malloc_mmap_bytes=1000,
        malloc_age_ns=0,
        python_blocks=77,
        load=2.5,
    )
    assert sample.private_bytes == 125 * 1024


def test_columns_are_found_by_name_and_unknown_ones_ignored(trace):
    (sample,) = read_trace(trace("colour,rss_kb,t\nblue,2,1\n"))
    assert (sample.monotonic_ns, sample.rss_bytes) == (10**9, 2048)


def test_what_is_missing_or_empty_is_not_known(trace):
    (sample,) = read_trace(trace("t,anon_kb,rss_kb,uordblks\n1,,7,\n"))
    assert sample.anon_bytes is None
    assert sample.rss_bytes == 7 * 1024
    assert sample.malloc_in_use_bytes is None
    assert sample.malloc_age_ns is None
    assert sample.load is None


def test_minutes_can_be_compressed(trace):
    samples = read_trace(trace("t,rss_kb\n0.25,1\n0.5,1\n"), minute_s=0.25)
    assert [sample.monotonic_ns for sample in samples] == [60 * 10**9, 120 * 10**9]


@pytest.mark.parametrize(
    "text",
    [
        "\ufefft,rss_kb\n1,2\n",
        "t,rss_kb\r\n1,2\r\n",
        "t,rss_kb\r1,2",
        " t , rss_kb \n1, 2 \n",
        "\n\nt,rss_kb\n\n1,2\n\n",
        't,"rss_kb"\n"1","2"\n',
        "t,rss_kb\n1.0e0,2.0\n",
    ],
    ids=["byte order mark", "CRLF", "CR", "blanks", "blank lines", "quotes", "decimals"],
)
def test_these_are_fine(trace, text):
    (sample,) = read_trace(trace(text))
    assert (sample.monotonic_ns, sample.rss_bytes) == (10**9, 2048)


@pytest.mark.parametrize(
    "cell",
    ["abc", "nan", "NaN", "inf", "-inf", "-1", "1e400", "1e30", "1_000", "0x10", "1 2", "é"],
)
def test_a_bad_cell_names_its_row_and_column(trace, cell):
    path = trace(f"t,rss_kb,threads\n0,1,1\n1,{cell},1\n")
    error = problem_of(path)
    assert (error.row, error.column) == (1, "rss_kb")
    told = f"{path}, row 1, column rss_kb: must be a finite number >= 0, or nothing, got {cell!r}"
    assert str(error) == told


def test_time_must_be_told_and_must_not_go_back(trace):
    error = problem_of(trace("t,rss_kb\n,1\n"))
    assert (error.row, error.column, error.problem) == (0, "t", "must be a number, got nothing")
    error = problem_of(trace("t,rss_kb\n5,1\n5,1\n4,1\n"))
    assert (error.row, error.column, error.problem) == (2, "t", "must not go back, 4 after 5")


def test_a_row_must_have_as_many_cells_as_the_header(trace):
    error = problem_of(trace("t,rss_kb,threads\n0,1,1\n1,2\n"))
    assert (error.row, error.column) == (1, "threads")
    assert error.problem == "has 2 cells, the header has 3"
    error = problem_of(trace("t,rss_kb\n0,1,1\n"))
    assert (error.row, error.column) == (0, None)


@pytest.mark.parametrize(
    ("text", "column", "problem"),
    [
        ("", None, "is empty"),
        ("\n\n", None, "is empty"),
        ("\ufeff", None, "is empty"),
        ("t,rss_kb\n", None, "has a header and no rows"),
        ("i,rss_kb\n1,1\n", "t", "is missing from the header"),
        ("t;rss_kb\n1;1\n", "t", "is missing from the header"),
        ("t,swap_kb\n1,1\n", "anon_kb", "is missing from the header, and so is rss_kb"),
        ("t,rss_kb,rss_kb\n1,1,1\n", "rss_kb", "appears twice in the header"),
        (b"\xff\xfe\x00t", None, "is no text in UTF-8"),
        ('t,rss_kb\n1,"2', None, "is no CSV: unexpected end of data"),
        ("t,rss_kb\n" + "1" * 200_000, None, "is no CSV: field larger than field limit (131072)"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(trace, text, column, problem):
    error = problem_of(trace(text))
    assert (error.row, error.column, error.problem) == (None, column, problem)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    assert problem_of(tmp_path / "none.csv").problem == "No such file or directory"
    assert problem_of(tmp_path).problem == "Is a directory"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)  # so that opening it does not wait
    try:
        assert problem_of(path).problem == "must be a file: it is read twice"
    finally:
        os.close(descriptor)


def test_a_load_that_is_zero_throughout_is_unknown(trace):
    assert [one.load for one in read_trace(trace("t,rss_kb,load\n0,1,0\n1,1,0.0\n"))] == [None] * 2


def test_a_load_that_begins_at_zero_is_known(trace):
    path = trace("t,rss_kb,load\n0,1,0\n1,1,0\n2,1,3\n")
    assert [one.load for one in read_trace(path)] == [0, 0, 3]
    assert [one.load for one in read_trace(path, with_load=False)] == [None] * 3


def test_a_file_is_read_row_by_row(trace):
    path = trace("t,rss_kb,load\n" + "".join(f"{row},1000,1\n" for row in range(200_000)))
    tracemalloc.start()
    try:
        for _sample in read_trace(path):
            pass
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < os.path.getsize(path) / 10


def test_an_error_in_the_middle_comes_after_the_rows_before_it(trace):
    samples = read_trace(trace("t,rss_kb\n0,1\n1,x\n"))
    assert next(samples).rss_bytes == 1024
    with pytest.raises(TraceError):
        next(samples)


# --- writing --------------------------------------------------------------------------------------


def kilobytes():
    return st.none() | st.integers(0, 2**40).map(lambda value: value * 1024)


def whole():
    return st.none() | st.integers(0, 2**40)


@given(
    st.fixed_dictionaries(
        {
            "rss_bytes": kilobytes(),
            "anon_bytes": kilobytes(),
            "file_bytes": kilobytes(),
            "shmem_bytes": kilobytes(),
            "swap_bytes": kilobytes(),
            "threads": whole(),
            "python_blocks": whole(),
            "load": st.none() | st.floats(0.5, 1e6),
        }
    ),
    st.none() | st.tuples(st.integers(0, 2**40), st.integers(0, 2**40), whole()),
)
def test_what_is_written_is_read(tmp_path_factory, known, malloc):
    sample = MemorySample(0, 0, **known)
    if malloc is not None:
        used, mapped, free = malloc
        sample = sample._replace(
            malloc_in_use_bytes=used + mapped,
            malloc_mmap_bytes=mapped,
            malloc_free_bytes=free,
            malloc_age_ns=0,
        )
    path = tmp_path_factory.getbasetemp() / "written.csv"
    with TraceWriter(path) as writer:
        writer.add(sample)
    assert list(read_trace(path)) == [sample]


def test_time_counts_from_the_first_row(tmp_path):
    with TraceWriter(tmp_path / "x.csv") as writer:
        for at in (100.0, 160.25, 220.5):
            writer.add(MemorySample(round(at * 1e9), 0, rss_bytes=1024))
    times = [sample.monotonic_ns / 1e9 for sample in read_trace(tmp_path / "x.csv")]
    assert times == [0, 60.25, 120.5]


def test_each_row_is_in_the_file_at_once(tmp_path):
    path = tmp_path / "x.csv"
    with TraceWriter(path) as writer:
        assert path.read_text().splitlines() == [",".join(COLUMNS)]
        writer.add(MemorySample(0, 0, rss_bytes=2048, threads=3))
        assert path.read_text().splitlines()[1:] == ["0,0.000,2" + "," * 7 + "3" + "," * 11]
