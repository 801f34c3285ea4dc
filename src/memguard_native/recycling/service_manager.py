"""Tells systemd how the service is (sd_notify), if it wants to know: `Type=notify` units.

A datagram for each message, to the socket that NOTIFY_SOCKET names. Without it every method does
nothing; a message that cannot be sent is left out, because a service does not depend on who watches
it. Nothing here blocks. For the supervisor's main thread.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from array import array
from collections.abc import Callable, Mapping

from memguard_native.recycling.listener import LISTENER_NAME

logger = logging.getLogger("memguard_native.recycling")


class ServiceManager:
    """The one that `environment` (default: the process's) tells of."""

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        variables = os.environ if environment is None else environment
        self._address = _address(variables.get("NOTIFY_SOCKET", ""))
        self._wants_watchdog = bool(variables.get("WATCHDOG_USEC")) and variables.get(
            "WATCHDOG_PID", str(os.getpid())
        ) == str(os.getpid())
        self._monotonic_ns = monotonic_ns
        self._status: str | None = None

    def ready(self) -> None:
        """All workers serve, at first or after `reloading()`."""
        self._tell("READY=1")

    def status(self, text: str) -> None:
        """One line for people, sent only when it changes."""
        if text != self._status:
            self._status = text
            self._tell(f"STATUS={' '.join(text.splitlines())}")

    def reloading(self) -> None:
        """Workers are replaced because somebody asked; until `ready()`."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={self._monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service ends."""
        self._tell("STOPPING=1")

    def watchdog(self) -> None:
        """It lives. To be called more often than every WATCHDOG_USEC, only while that is true."""
        if self._wants_watchdog:
            self._tell("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """Starting or stopping may take so much longer, from now on."""
        self._tell(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def keep_listener(self, fd: int) -> None:
        """Have the listener kept over a restart of the service (FileDescriptorStoreMax=1).

        It comes back as `listener.inherited_listener()`, with all who wait in its queue.
        """
        # First what an earlier run may have left there, at another address: there is room for one.
        self._tell(f"FDSTOREREMOVE=1\nFDNAME={LISTENER_NAME}")
        self._tell(f"FDSTORE=1\nFDNAME={LISTENER_NAME}", fd)

    def _tell(self, message: str, fd: int | None = None) -> None:
        if self._address is None:
            return
        rights = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [fd]))] if fd is not None else []
        )
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendmsg([message.encode()], rights, socket.MSG_DONTWAIT, self._address)
        except OSError as error:
            logger.debug("the service manager was not told %r: %s", message, error)


def _address(name: str) -> str | None:
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None
