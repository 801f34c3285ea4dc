from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from memguard_native.memory.maps import (
    Mappings,
    MemoryMap,
    compare_memory_maps,
    read_memory_map,
)

SMAPS = """\
55d0-55d2 r--p 00000000 08:01 1   /usr/lib/libc.so.6
Size:                  8 kB
Rss:                   4 kB
7f00-7f10 rw-p 00000000 00:00 0
Rss:                  12 kB
7f10-7f20 rw-p 00000000 00:00 0 \n\
Rss:                   8 kB
8000-8001 rw-s 00000000 00:01 5   /dev/shm/psm_secret (deleted)
Rss:                   1 kB
8001-8002 rw-s 00000000 00:01 5   /memfd:queue (deleted)
Rss:                   1 kB
9000-9001 rw-s 00000000 00:00 0
Rss:                   1 kB
a000-a002 r--p 00000000 08:01 7   /data/customer smith.npy
Rss:                   2 kB
b000-b001 rw-p 00000000 00:00 0   [heap]
Rss:                   3 kB
"""
ROLLUP = """\
55d0-ffff ---p 00000000 00:00 0  [rollup]
Rss:                  32 kB
Pss:                  30 kB
Anonymous:            20 kB
Swap:                  7 kB
"""


def proc_with(folder: Path, smaps: str) -> Path:
    mappings = [line for line in smaps.splitlines() if not line.startswith(("Rss", "Size"))]
    (folder / "maps").write_text("\n".join(mappings) + "\n")
    (folder / "smaps").write_text(smaps)
    (folder / "smaps_rollup").write_text(ROLLUP)
    return folder


def test_mappings_of_one_name_are_added_up(tmp_path):
    found = read_memory_map(proc_with(tmp_path, SMAPS)).by_name
    assert found["anonymous rw-"] == Mappings(count=2, virtual_bytes=0x20, resident_bytes=20 * 1024)


def test_libraries_are_told_by_path_and_other_files_only_by_folder_and_suffix(tmp_path):
    assert set(read_memory_map(proc_with(tmp_path, SMAPS)).by_name) == {
        "/usr/lib/libc.so.6",
        "anonymous rw-",
        "anonymous rw-, shared",
        "/dev/shm/*",
        "memfd",
        "/data/*.npy",
        "[heap]",
    }


def test_the_totals_are_those_of_the_rollup(tmp_path):
    totals = read_memory_map(proc_with(tmp_path, SMAPS)).totals_bytes
    assert totals == {"rss": 32768, "pss": 30720, "anonymous": 20480, "swap": 7168}


def test_of_very_many_mappings_the_resident_bytes_are_not_read(tmp_path):
    line = "7f00-7f10 rw-p 00000000 00:00 0\n"
    found = read_memory_map(proc_with(tmp_path, line * 5000 + "Rss: 9 kB\n"))
    assert not found.is_resident_known
    assert found.by_name["anonymous rw-"] == Mappings(count=5000, virtual_bytes=5000 * 16)


def test_mappings_come_by_growth_and_those_that_did_not_grow_not_at_all():
    before = MemoryMap(by_name={"a": Mappings(count=1, virtual_bytes=9, resident_bytes=9)})
    after = MemoryMap(
        by_name={
            "a": Mappings(count=1, virtual_bytes=9, resident_bytes=9),
            "b": Mappings(count=1, virtual_bytes=9, resident_bytes=5),
            "c": Mappings(count=1, virtual_bytes=1, resident_bytes=8),
        }
    )
    rows = compare_memory_maps(before, after)["mappings"]
    assert [(row["name"], row["resident_growth_bytes"]) for row in rows] == [("c", 8), ("b", 5)]


def test_where_the_resident_bytes_are_not_known_the_virtual_ones_count():
    after = MemoryMap(by_name={"b": Mappings(count=1, virtual_bytes=9)}, is_resident_known=False)
    [row] = compare_memory_maps(MemoryMap(), after)["mappings"]
    assert (row["resident_growth_bytes"], row["virtual_growth_bytes"]) == (None, 9)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="there is no /proc")
def test_a_mapping_of_this_process_is_found():
    size_bytes = 32 * 2**20
    before = read_memory_map()
    with mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as block:
        block[::4096] = b"x" * (size_bytes // 4096)
        rows = compare_memory_maps(before, read_memory_map())["mappings"]
    assert rows[0]["name"] == "anonymous rw-"
    assert rows[0]["resident_growth_bytes"] >= size_bytes


def test_without_proc_it_is_an_error(tmp_path):
    with pytest.raises(OSError, match="maps"):
        read_memory_map(tmp_path)
