"""What the supervisor waits for: descriptors with what to call, and signals."""

from __future__ import annotations

import os
import selectors
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any


class Selection:
    """A selector whose keys carry what to call."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()

    def add(self, file: Any, call: Callable[[], object]) -> None:
        """Call it whenever there is something to read; nothing happens if it is there already."""
        with suppress(KeyError):
            self.selector.register(file, selectors.EVENT_READ, lambda _mask: call())

    def remove(self, file: Any) -> None:
        """Call no more; nothing happens if it is not there."""
        with suppress(KeyError, ValueError):
            self.selector.unregister(file)

    def wait(self, timeout: float) -> None:
        """Call what is due, for at most so long."""
        for key, mask in self.selector.select(timeout):
            key.data(mask)

    def close(self) -> None:
        """Call nothing any more."""
        self.selector.close()


class SignalPipe:
    """Has `on_signal(number)` called by a selection for each of these signals, until `close()`.

    Handlers do nothing but write to a pipe. For the main thread.
    """

    def __init__(
        self,
        selection: Selection,
        numbers: Iterable[signal.Signals],
        on_signal: Callable[[int], object],
    ) -> None:
        self._selection = selection
        self._on_signal = on_signal
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        selection.add(self._reading, self._read)
        self._descriptor_before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, lambda *_: None) for number in numbers}

    def _read(self) -> None:
        for number in os.read(self._reading, 256):
            self._on_signal(number)

    def close(self) -> None:
        """All is as it was before."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._descriptor_before)
        self._selection.remove(self._reading)
        os.close(self._reading)
        os.close(self._writing)
