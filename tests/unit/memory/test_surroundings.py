"""What limits this process besides its group, as this system tells it."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from memguard_native.errors import ConfigError
from memguard_native.memory.surroundings import read_surroundings

resource = pytest.importorskip("resource", reason="Windows has no such limits")


def test_memory_of_the_host_is_what_psutil_says():
    assert read_surroundings({}).host_bytes == psutil.virtual_memory().total


def test_addresses_are_those_that_psutil_counts():
    assert read_surroundings({}).address_space_bytes == pytest.approx(
        psutil.Process().memory_info().vms, abs=2**22
    )


def test_the_variable_is_a_size():
    assert read_surroundings({"MEMGUARD_LIMIT": "1GiB"}).variable_bytes == 2**30


@pytest.mark.parametrize("environ", [{}, {"MEMGUARD_LIMIT": ""}])
def test_without_the_variable_nothing_is_configured(environ):
    assert read_surroundings(environ).variable_bytes is None


def test_a_variable_that_is_no_size_is_refused_by_its_name():
    with pytest.raises(ConfigError, match=r"^MEMGUARD_LIMIT must be a size"):
        read_surroundings({"MEMGUARD_LIMIT": "much"})


def test_a_limit_on_addresses_is_found_also_when_it_is_set_later():
    code = (
        "import resource\n"
        "from memguard_native.memory.surroundings import read_surroundings\n"
        "assert read_surroundings().address_space_limit_bytes is None\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**34, resource.RLIM_INFINITY))\n"
        "assert read_surroundings().address_space_limit_bytes == 2**34\n"
    )
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        code = code.replace("is None", "is not None")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={**os.environ})
