"""Traces of memory: CSV files with a row per sample, as `memguard replay` reads them and
`memguard watch -o` writes them.

Columns are found by name, in any order; unknown ones are ignored. `t` (seconds) must be there, and
`anon_kb` or `rss_kb`; what else is missing, or is an empty cell, is not known. A cell that holds
anything but a finite number >= 0 is an error, and so is time that runs backwards, a row with too
few or too many cells, a name that appears twice, or a file without rows: a trace that is read
half would be judged wrong and nobody would notice. Blank lines, a byte order mark and any kind of
line end are fine. Files are read row by row, however long they are.

A load that is 0 in all rows means that the program reports none.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from memguard_native.errors import TraceError
from memguard_native.memory.sample import MemorySample

COLUMNS = (
    "i", "t", "rss_kb", "anon_kb", "file_kb", "shmem_kb", "uss_kb", "pss_kb", "swap_kb", "threads",
    "arena", "uordblks", "fordblks", "hblkhd", "pyblocks", "gc0", "gc1", "gc2", "gen2_collections",
    "vsize_kb", "load",
)  # fmt: skip

_NS_PER_SECOND = 1e9
_BYTES_PER_KB = 1024
# Beyond what a 64-bit system can address: a damaged cell.
_LARGEST = 2.0**63


def read_trace(
    path: str | Path, *, minute_s: float = 60.0, with_load: bool = True
) -> Iterator[MemorySample]:
    """The samples of a trace, one by one.

    `minute_s` is how many seconds of the trace stand for a minute: the times of the samples are in
    what they stand for. `with_load=False` leaves the load out. Both clocks of a sample tell the
    time since the zero of `t`.

    Raises TraceError, also in the middle: the file cannot be read or is no trace.
    """
    path = str(path)
    with_load = with_load and _reports_load(path)
    speed = 60.0 / minute_s
    newest = 0.0
    is_empty = True
    for read in _rows(path):
        t = read.required("t")
        if t < newest:
            raise TraceError(path, read.row, "t", f"must not go back, {t:g} after {newest:g}")
        newest = t
        is_empty = False
        yield _sample(read, round(t * speed * _NS_PER_SECOND), with_load)
    if is_empty:
        raise TraceError(path, None, None, "has a header and no rows")


def _sample(read: _Row, time_ns: int, with_load: bool) -> MemorySample:
    used, mapped = read.whole("uordblks"), read.whole("hblkhd")
    return MemorySample(
        time_ns,
        time_ns,
        rss_bytes=read.kilobytes("rss_kb"),
        anon_bytes=read.kilobytes("anon_kb"),
        file_bytes=read.kilobytes("file_kb"),
        shmem_bytes=read.kilobytes("shmem_kb"),
        swap_bytes=read.kilobytes("swap_kb"),
        threads=read.whole("threads"),
        malloc_in_use_bytes=None if used is None else used + (mapped or 0),
        malloc_free_bytes=read.whole("fordblks"),
        malloc_mmap_bytes=mapped,
        malloc_age_ns=None if used is None else 0,
        python_blocks=read.whole("pyblocks"),
        load=read.number("load") if with_load else None,
    )


class TraceWriter:
    """Writes samples into a trace; each row is in the file when `add` returns.

    Raises OSError: the file cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = open(path, "w", newline="", encoding="utf-8")  # noqa: SIM115 - see close()
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)
        self._file.flush()
        self._first_ns: int | None = None
        self._count = 0

    def add(self, sample: MemorySample) -> None:
        """Write the next row; `t` counts from the first one."""
        if self._first_ns is None:
            self._first_ns = sample.monotonic_ns
        used, free = sample.malloc_in_use_bytes, sample.malloc_free_bytes
        if used is not None:
            used -= sample.malloc_mmap_bytes or 0
        cells = {
            "i": self._count,
            "t": f"{(sample.monotonic_ns - self._first_ns) / _NS_PER_SECOND:.3f}",
            "rss_kb": _kilobytes(sample.rss_bytes),
            "anon_kb": _kilobytes(sample.anon_bytes),
            "file_kb": _kilobytes(sample.file_bytes),
            "shmem_kb": _kilobytes(sample.shmem_bytes),
            "swap_kb": _kilobytes(sample.swap_bytes),
            "threads": sample.threads,
            "arena": None if used is None or free is None else used + free,
            "uordblks": used,
            "fordblks": free,
            "hblkhd": sample.malloc_mmap_bytes,
            "pyblocks": sample.python_blocks,
            "load": sample.load,
        }
        self._writer.writerow([cells.get(column) for column in COLUMNS])
        self._file.flush()
        self._count += 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> TraceWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _kilobytes(count_bytes: int | None) -> int | None:
    return None if count_bytes is None else count_bytes // _BYTES_PER_KB


class _Row:
    """One row, read by the names of its columns."""

    __slots__ = ("_cells", "_path", "_places", "row")

    def __init__(self, path: str, places: dict[str, int], row: int, cells: list[str]) -> None:
        self._path = path
        self._places = places
        self._cells = cells
        self.row = row

    def number(self, column: str) -> float | None:
        place = self._places.get(column)
        if place is None:
            return None
        text = self._cells[place]
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        # float() takes "1_000", which no other reader of CSV does.
        if not 0.0 <= value <= _LARGEST or "_" in text:
            problem = f"must be a finite number >= 0, or nothing, got {text!r}"
            raise TraceError(self._path, self.row, column, problem)
        return value

    def required(self, column: str) -> float:
        value = self.number(column)
        if value is None:
            raise TraceError(self._path, self.row, column, "must be a number, got nothing")
        return value

    def whole(self, column: str) -> int | None:
        value = self.number(column)
        return None if value is None else round(value)

    def kilobytes(self, column: str) -> int | None:
        value = self.number(column)
        return None if value is None else round(value * _BYTES_PER_KB)


def _reports_load(path: str) -> bool:
    # A pass of its own, which ends at the first load: whether a program tells its load is not
    # known before it tells one, and a program that tells it may well begin idle.
    return any(read.number("load") for read in _rows(path))


def _rows(path: str) -> Iterator[_Row]:
    with _problems_of(path), open(path, newline="", encoding="utf-8-sig") as file:
        if not file.seekable():
            raise TraceError(path, None, None, "must be a file: it is read twice")
        lines = filter(None, csv.reader(file, strict=True))
        header = [name.strip() for name in next(lines, [])]
        places = _places(path, header)
        for row, cells in enumerate(lines):
            if len(cells) != len(header):
                _refuse_width(path, row, header, len(cells))
            yield _Row(path, places, row, cells)


def _places(path: str, header: list[str]) -> dict[str, int]:
    if not header:
        raise TraceError(path, None, None, "is empty")
    for name in COLUMNS:
        if header.count(name) > 1:
            raise TraceError(path, None, name, "appears twice in the header")
    found = {name: header.index(name) for name in COLUMNS if name in header}
    if "t" not in found:
        raise TraceError(path, None, "t", "is missing from the header")
    if "anon_kb" not in found and "rss_kb" not in found:
        raise TraceError(path, None, "anon_kb", "is missing from the header, and so is rss_kb")
    return found


def _refuse_width(path: str, row: int, header: list[str], width: int) -> None:
    column = header[width] if width < len(header) else None
    problem = f"has {width} cells, the header has {len(header)}"
    raise TraceError(path, row, column, problem)


@contextmanager
def _problems_of(path: str) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError:
        raise TraceError(path, None, None, "is no text in UTF-8") from None
    except csv.Error as error:
        raise TraceError(path, None, None, f"is no CSV: {error}") from None
    except OSError as error:
        raise TraceError(path, None, None, error.strerror or str(error)) from None
