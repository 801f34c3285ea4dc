"""What a sample holds besides the kernel's figures: load, CPython's arenas, malloc by its name."""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import threading
from pathlib import Path

import pytest

from memguard_native import _core

counts_arenas = pytest.mark.skipif(
    _core.python_arena_bytes() is None, reason="this interpreter has no arenas, or they are hidden"
)
MIB = 2**20


def run(code: str, **environ: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environ},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- load ----------------------------------------------------------------------------------------


def test_a_gauge_is_unknown_until_it_is_set():
    gauge = _core.LoadGauge()
    assert gauge.value is None
    gauge.set(0)
    assert gauge.value == 0.0


def test_a_gauge_adds_from_nothing():
    gauge = _core.LoadGauge()
    gauge.add(2)
    gauge.add(-0.5)
    assert gauge.value == 1.5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_load_that_is_not_finite_is_refused(value):
    gauge = _core.LoadGauge()
    for change in (gauge.set, gauge.add):
        with pytest.raises(ValueError, match="a load must be a finite number"):
            change(value)
    assert gauge.value is None


def test_a_gauge_loses_nothing_between_threads():
    gauge = _core.LoadGauge()

    def come_and_go() -> None:
        for _ in range(5000):
            gauge.add(1)
            gauge.add(-1)
        gauge.add(1)

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert gauge.value == 4.0


def test_a_gauge_lives_as_long_as_its_sampler():
    sampler = _core.Sampler(interval=3600.0, capacity=8, load=_core.LoadGauge())
    gc.collect()
    sampler.start()
    assert sampler.wait_for_sample(after=0, timeout=30.0)
    samples, _ = sampler.samples_after(0)
    sampler.stop()
    assert samples[0][_core.SAMPLE_FIELDS.index("load")] is None


def test_the_native_thread_reads_the_gauge():
    gauge = _core.LoadGauge()
    gauge.set(12.5)
    sampler = _core.Sampler(interval=3600.0, capacity=8, load=gauge)
    sampler.start()
    assert sampler.wait_for_sample(after=0, timeout=30.0)
    samples, _ = sampler.samples_after(0)
    sampler.stop()
    assert samples[0][_core.SAMPLE_FIELDS.index("load")] == 12.5


# --- arenas --------------------------------------------------------------------------------------

COUNT_BY_STATISTICS = """
import gc, os, re, sys, tempfile
from memguard_native import _core

def by_statistics():
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        sys._debugmallocstats()
        os.dup2(kept, 2)
        os.close(kept)
        file.seek(0)
        found = re.search(rb"(\\d+) arenas \\* (\\d+) bytes/arena", file.read())
    return int(found[1]) * int(found[2])
"""


@counts_arenas
def test_arenas_are_counted_exactly_as_they_come_and_go():
    run(
        COUNT_BY_STATISTICS.replace("\\\\", "\\")
        + """
before = _core.python_arena_bytes()
assert before == by_statistics() > 0
many = [object() for _ in range(2_000_000)]
during = _core.python_arena_bytes()
assert during == by_statistics() > before + 20 * 2**20
del many
gc.collect()
after = _core.python_arena_bytes()
assert after == by_statistics() < during - 15 * 2**20
"""
    )


@counts_arenas
def test_arenas_older_than_the_import_are_taken_off_when_they_go():
    run(
        """
many = [object() for _ in range(2_000_000)]
"""
        + COUNT_BY_STATISTICS.replace("\\\\", "\\")
        + """
before = _core.python_arena_bytes()
assert before == by_statistics()
del many
gc.collect()
after = _core.python_arena_bytes()
assert after == by_statistics() < before - 15 * 2**20
"""
    )


@counts_arenas
def test_arenas_are_counted_on_in_the_child_of_a_fork():
    run(
        """
        import os
        from memguard_native import _core
        from memguard_native.memory.probe import NativeProbe
        probe = NativeProbe()
        before = probe.sample().python_arena_bytes
        pid = os.fork()
        if pid == 0:
            same = _core.python_arena_bytes() == before
            many = [object() for _ in range(1_000_000)]
            grown = probe.sample().python_arena_bytes > before + 10 * 2**20
            os._exit(0 if same and grown else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert _core.python_arena_bytes() == before
        """
    )


def test_arenas_are_unknown_where_malloc_does_their_work():
    code = """
    from memguard_native import _core
    many = [object() for _ in range(500_000)]
    assert _core.python_arena_bytes() is None
    assert _core.Probe().sample()[_core.SAMPLE_FIELDS.index("python_arena_bytes")] is None
    """
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        run(code)  # it refuses PYTHONMALLOC=malloc
    else:
        run(code, PYTHONMALLOC="malloc")


@counts_arenas
def test_arenas_are_counted_with_the_debug_hooks_of_the_allocator():
    assert (
        int(
            run(
                "from memguard_native import _core; print(_core.python_arena_bytes())",
                PYTHONMALLOC="debug",
            )
        )
        >= MIB // 4
    )


# --- malloc --------------------------------------------------------------------------------------

MALLOC = """
import ctypes
from memguard_native import _core
from memguard_native.memory.probe import NativeProbe
malloc = ctypes.CDLL(None).malloc
malloc.restype = ctypes.c_void_p
malloc.argtypes = [ctypes.c_size_t]
# Two probes: the first reading warms an allocator up, may be dear, and is carried over for that.
before = NativeProbe().sample().malloc_in_use_bytes
kept = [ctypes.memset(malloc(1000), 1, 1000) for _ in range(80_000)]
after = NativeProbe().sample().malloc_in_use_bytes
print(_core.allocator_name(), (after or 0) - (before or 0))
"""


# An allocator that calls itself mimalloc: 100 bytes are committed for each call of malloc.
FAKE_MIMALLOC = """
#include <stddef.h>
static size_t committed;
#ifdef IS_MALLOC
extern void* __libc_malloc(size_t);
void* malloc(size_t bytes) { committed += 100; return __libc_malloc(bytes); }
#endif
void mi_process_info(size_t* a, size_t* b, size_t* c, size_t* d, size_t* e, size_t* current_commit,
                     size_t* f, size_t* g) {
    *a = *b = *c = *d = *e = *f = *g = 1;
    *current_commit = committed;
}
"""


def compiled(folder: Path, *options: str) -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler; `make test` installs one")
    library = folder / "libmi.so"
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library), *options]
    subprocess.run(command, input=FAKE_MIMALLOC, text=True, check=True, timeout=60)
    return str(library)


def jemalloc() -> str:
    for folder in (
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
    ):
        if found := sorted(Path(folder).glob("libjemalloc.so.*")):
            return str(found[0])
    pytest.skip("jemalloc is not installed; `make test` installs it")


@pytest.mark.skipif(not _core.HAS_NATIVE_PROBE, reason="there is no native probe here")
class TestAllocator:
    def test_glibc_tells_what_is_in_use(self):
        if not os.confstr("CS_GNU_LIBC_VERSION"):
            pytest.skip("this C library is not glibc")
        name, grown = run(MALLOC, LD_PRELOAD="").split()
        assert name == "glibc"
        assert 80e6 < int(grown) < 86e6

    def test_jemalloc_that_is_preloaded_is_asked_itself(self):
        name, grown = run(MALLOC, LD_PRELOAD=jemalloc()).split()
        assert name == "jemalloc"
        assert 80e6 < int(grown) < 88e6

    def test_mimalloc_that_is_preloaded_is_asked_itself(self, tmp_path):
        """By a stand-in: the real one commits 32 MiB at a time, or a whole GiB at once."""
        name, grown = run(MALLOC, LD_PRELOAD=compiled(tmp_path, "-DIS_MALLOC")).split()
        assert name == "mimalloc"
        assert 8e6 <= int(grown) < 16e6

    def test_an_allocator_that_only_a_library_uses_is_not_the_one_in_use(self, tmp_path):
        """Its names are there for all, but malloc is another's."""
        code = f"""
        import ctypes
        ctypes.CDLL({compiled(tmp_path)!r}, ctypes.RTLD_GLOBAL)
        ctypes.CDLL(None).mi_process_info
        from memguard_native import _core
        print(_core.allocator_name())
        """
        assert run(code, LD_PRELOAD="").strip() == "glibc"


def test_the_name_of_the_allocator_is_a_known_one():
    assert re.fullmatch("glibc|jemalloc|mimalloc|unknown", _core.allocator_name())
