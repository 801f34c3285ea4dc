"""Memory of the GPUs that this process uses: from torch if it is in use, else from NVML.

torch is asked only if the program has imported it and CUDA is initialised: nothing here imports
torch or makes a CUDA context, which would take hundreds of megabytes. What torch tells is what its
tensors hold; what its cache keeps free is left out, as free blocks of malloc are. Without torch the
extra `gpu` (nvidia-ml-py) tells what the driver counts for this process. Where that cannot be told
(no driver, a container with process numbers of its own, MIG, WSL) it stays unknown.

Never raises. For one thread, which needs the GIL and is not the sampler's: a driver can take
milliseconds, and one that takes longer than SLOWEST is not asked again. Its cost was not measured.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from memguard_native.errors import ConfigError

SLOWEST = 0.25
"""Seconds that a reading may take; after one that took longer there is none."""


class GpuReader:
    """Reads the memory of the GPUs, summed up.

    `mode` is "auto" or None, which reads nothing. `clock` tells seconds.

    Raises ConfigError: another mode.
    """

    def __init__(
        self, mode: str | None = "auto", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if mode not in ("auto", None):
            raise ConfigError("gpu", mode, "must be 'auto' or None")
        self._clock = clock
        self._is_on = mode == "auto"
        self._nvml: _Nvml | None = None

    def read(self) -> int | None:
        """Bytes now; None where they cannot be told."""
        if not self._is_on:
            return None
        source = _torch_bytes if _torch_cuda() is not None else self._own_nvml().read
        start = self._clock()
        try:
            found = source()
        except Exception:  # noqa: BLE001 - drivers raise what they like, and a guard must go on
            found = None
        self._is_on = self._clock() - start <= SLOWEST
        return found

    def _own_nvml(self) -> _Nvml:
        # A library that was initialised before a fork does not work in the child.
        if self._nvml is None or self._nvml.pid != os.getpid():
            self._nvml = _Nvml()
        return self._nvml


def _torch_cuda() -> Any:
    """torch.cuda, if it is initialised."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    try:
        return cuda if cuda is not None and cuda.is_initialized() else None
    except Exception:  # noqa: BLE001 - a torch that is only half imported
        return None


def _torch_bytes() -> int | None:
    cuda = _torch_cuda()
    if cuda is None:
        return None
    return sum(int(cuda.memory_allocated(device)) for device in range(cuda.device_count()))


class _Nvml:
    """The driver's word on one process; initialised here, which is not timed: it happens once."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self._pynvml: Any = None
        try:
            self._pynvml = importlib.import_module("pynvml")
            self._pynvml.nvmlInit()
        except Exception:  # noqa: BLE001 - not installed, no driver, a driver of another version
            self._pynvml = None

    def read(self) -> int | None:
        if self._pynvml is None:
            return None
        nvml = self._pynvml
        found: int | None = None
        for index in range(nvml.nvmlDeviceGetCount()):
            device = nvml.nvmlDeviceGetHandleByIndex(index)
            for process in nvml.nvmlDeviceGetComputeRunningProcesses(device):
                if process.pid == self.pid and process.usedGpuMemory is not None:
                    found = (found or 0) + int(process.usedGpuMemory)
        return found
