"""The house rules that a machine can check: layers, lazy imports, versions, documented names."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import memguard_native

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "memguard_native"
CORE = ROOT / "cpp"

# Lower layers first. Packages of one layer do not import each other.
LAYERS = [
    {"_core"},
    {"errors"},
    {"segment"},
    {"breaker", "memory"},
    {"testing"},
    {"recycling"},
    {"integrations", "mcp"},
    {"gateway", "embedding", "dashboard"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

PYTHON_FILES = sorted(SOURCE.rglob("*.py"))
HEADERS = sorted((CORE / "include").rglob("*.hpp"))


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> list[str]:
    """The modules that the file imports, at its top or inside of functions."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            whole = node.module == "memguard_native"
            found += [
                f"{node.module}.{alias.name}" if whole else str(node.module) for alias in node.names
            ]
    return found


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_downwards_only(path):
    part = part_of(path)
    if part == "__init__":
        return  # the public door: names only, lazy
    for module in imports_of(path):
        if module.split(".")[0] != "memguard_native":
            continue
        target = module.partition(".")[2].partition(".")[0]
        assert target in LEVEL, f"{path}: {module} is no module of the package"
        lower = LEVEL[target] < LEVEL[part]
        assert target == part or lower, f"{path}: {part} must not import {target}"


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_every_module_has_a_docstring(path):
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


def test_every_package_has_its_layer():
    parts = {part_of(path) for path in PYTHON_FILES} - {"__init__"}
    assert parts <= set(LEVEL)


@pytest.mark.parametrize("header", HEADERS, ids=lambda p: p.name)
def test_the_core_knows_no_python(header):
    text = header.read_text()
    assert "Python.h" not in text
    assert "pybind11" not in text


@pytest.mark.parametrize("header", HEADERS, ids=lambda p: p.name)
def test_every_atomic_access_writes_its_order_and_tells_why(header):
    lines = header.read_text().splitlines()
    access = re.compile(r"\.(load|store|fetch_\w+|exchange|compare_exchange_\w+)\(")
    for number, line in enumerate(lines):
        code = line.split("//")[0]
        if not access.search(code) or "admit" in code:
            continue
        statement = " ".join(lines[number : number + 3])
        assert "memory_order_" in statement, f"{header.name}:{number + 1}: no memory order"
        around = "\n".join(lines[max(0, number - 8) : number + 3])
        assert re.search(r"//.*\b(pairs with|relaxed|acq_rel|seq_cst)", around), (
            f"{header.name}:{number + 1}: the access does not tell its partner or reason"
        )


def test_bindings_do_not_include_each_other():
    for path in (CORE / "bindings").glob("*.?pp"):
        for included in re.findall(r'#include "(bind_\w+)', path.read_text()):
            raise AssertionError(f"{path.name} includes {included}")


def test_no_static_python_objects_in_the_bindings():
    for path in (CORE / "bindings").glob("*.?pp"):
        for line in path.read_text().splitlines():
            static = re.match(
                r"\s*(static|inline)\s+Py(Object|TypeObject)\s*\*\s*\w+\s*(=|;)", line
            )
            assert not static, f"{path.name}: {line.strip()}"


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert memguard_native.__version__ == project["version"]
    newest = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is None or newest.group(1) == project["version"]


def test_the_base_install_needs_numpy_and_psutil_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=!~ ]", text)[0] for text in project["dependencies"]}
    assert names == {"numpy", "psutil"}


@pytest.mark.parametrize("name", memguard_native.__all__)
def test_every_public_name_is_documented(name):
    value = getattr(memguard_native, name)
    if name == "__version__":
        return
    assert inspect.getdoc(value), f"{name} has no docstring"


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Breaker'"):
        memguard_native.Breaker  # noqa: B018
    assert dir(memguard_native) == sorted(memguard_native.__all__)


def test_every_module_of_the_base_install_imports():
    for found in pkgutil.walk_packages([str(SOURCE)], "memguard_native."):
        if LEVEL[found.name.split(".")[1]] <= LEVEL["recycling"]:
            importlib.import_module(found.name)


FORBIDDEN_AT_IMPORT = {
    "numpy", "psutil", "asyncio", "inspect", "importlib.metadata", "argparse", "dataclasses",
    "logging", "uvicorn", "starlette", "pydantic", "orjson", "tokenizers", "mcp", "httpx",
}  # fmt: skip


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True, timeout=60
    )


def test_importing_the_package_loads_nothing_heavy():
    done = run_python("-c", "import sys, memguard_native; print(*sys.modules)")
    assert FORBIDDEN_AT_IMPORT & set(done.stdout.split()) == set()


def test_importing_the_package_takes_less_than_25_ms():
    def milliseconds() -> float:
        done = run_python("-X", "importtime", "-c", "import memguard_native")
        last = done.stderr.strip().splitlines()[-1]
        assert last.endswith("memguard_native")
        return int(last.split("|")[1]) / 1000

    times = sorted(milliseconds() for _ in range(15))
    assert times[len(times) // 2] < 25, f"median of {times} ms"
