"""The socket that a service listens on: made here, or taken over from whoever started the service.

The supervisor holds it for as long as the service lives and every worker inherits it, so its accept
queue outlives them all: who waits in it is nobody's to lose. It is never made with SO_REUSEPORT:
closing one of several such listeners drops the connections that wait in its queue.

For the supervisor's main thread, at start; Linux.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

from memguard_native.errors import ConfigError

logger = logging.getLogger("memguard_native.recycling")

_FIRST_INHERITED = 3  # of systemd's protocol
# Whoever may open the directory may connect, as with a port of this host; a proxy is another user.
_UDS_MODE = 0o666
LISTENER_NAME = "memguard-listener"
"""What systemd calls one that it keeps for us."""
_LONGEST_UDS = 107  # bytes, of sockaddr_un


def open_listener(
    *, host: str, port: int, uds: str | None = None, fd: int | None = None, backlog: int = 2048
) -> socket.socket:
    """A listening stream socket that no child inherits unless it is told to.

    At `host` and `port` (0: the system chooses), else at the path `uds`, else the descriptor `fd`.
    At `uds`, a socket that nobody listens on any more is replaced.

    Raises:
        ConfigError: both `uds` and `fd`, a host that is none, a port or a path that cannot be one,
            a descriptor that is no listening stream socket.
        OSError: nothing can listen there; the text names the place.
    """
    if uds is not None and fd is not None:
        raise ConfigError("fd", fd, f"must be left out with a path to listen on ({uds!r})")
    if fd is not None:
        listener = _adopt(fd)
    elif uds is not None:
        listener = _bind_path(uds)
    else:
        listener = _bind_address(host, port)
    try:
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    _warn_if_reachable(listener)
    return listener


class BoundPath:
    """The socket file at a path, as it is now: `remove()` leaves that of somebody else alone.

    Raises OSError: it is gone.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        # Open until then: else the next file there, made once nobody listens on this one any more,
        # may have its number.
        self._file = os.open(path, os.O_PATH | os.O_NOFOLLOW)

    def remove(self) -> None:
        """Remove it, if it is still the one that it was; once."""
        with suppress(OSError):
            if os.path.samestat(os.lstat(self._path), os.fstat(self._file)):
                os.unlink(self._path)
        os.close(self._file)


def inherited_listener(*, host: str, port: int, uds: str | None = None) -> socket.socket | None:
    """The socket that systemd hands over (LISTEN_FDS, LISTEN_PID); None: none is meant for us.

    With a path, only one that is reached there. Else one of a socket unit has its own address, and
    one that systemd has kept for us over a restart counts where that is `host` and `port`: they may
    have been set anew.

    The variables are removed: descriptor 3 may be another file the next time. One socket that is
    handed over twice, by a socket unit and from the store, counts once.

    Raises ConfigError: several sockets, or one that is no listening stream socket.
    """
    inherited = _take_inherited()
    if uds is not None:
        found = [one for one, _ in inherited if _is_reached_at(one, uds)][:1]
    else:
        found = [one for one, name in inherited if name != LISTENER_NAME or _is_at(one, host, port)]
    for one, name in inherited:
        if one not in found:
            if name == LISTENER_NAME and uds is None:
                # Whoever keeps it has it open still, and nothing could be bound beside it.
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
            one.close()
    if not found:
        return None
    first, *others = found
    if others:
        for one in found:
            one.close()
        allowed = "must be 1 (one ListenStream= for each service)"
        raise ConfigError("LISTEN_FDS", len(found), allowed)
    return _checked("LISTEN_FDS", _FIRST_INHERITED, first)


def url_of(listener: socket.socket, *, is_tls: bool = False) -> str:
    """ "http://127.0.0.1:8000", "http://[::1]:8000" or "unix:/run/shop.sock"."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        path = os.fsdecode(name)
        return f"unix:{'@' + path[1:] if path.startswith(chr(0)) else path}"
    host, port = name[:2]
    return f"{'https' if is_tls else 'http'}://{_place(host, port)}"


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# --- made here ------------------------------------------------------------------------------------


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise ConfigError("port", port, "must be in 0..65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError("host", host, "must be an address of this machine") from error
    return found[0][0], found[0][4]


def _bind_address(host: str, port: int) -> socket.socket:
    family, address = _resolve(host, port)
    # asyncio sets TCP_NODELAY only where it sees this protocol number; without it each request on a
    # kept connection takes 40 ms longer (uvicorn#3149).
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections have it from here, whatever the event loop does.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _cannot_listen(_place(host, port), error) from error
    return listener


def _bind_path(path: str) -> socket.socket:
    if not 0 < len(os.fsencode(path)) <= _LONGEST_UDS:
        raise ConfigError("uds", path, f"must be a path of 1 to {_LONGEST_UDS} bytes")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_unused(Path(path))
        listener.bind(path)
        os.chmod(path, _UDS_MODE)  # whatever the umask
    except OSError as error:
        listener.close()
        raise _cannot_listen(path, error) from error
    return listener


def _remove_unused(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises OSError: there is another kind of file."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise OSError(errno.EEXIST, "there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
        visitor.setblocking(False)  # a full queue is somebody, too
        refused = visitor.connect_ex(os.fspath(path)) == errno.ECONNREFUSED
    if refused:
        path.unlink(missing_ok=True)


def _cannot_listen(place: str, error: OSError) -> OSError:
    text = f"cannot listen on {place} ({error.strerror or error})"
    if error.errno == errno.EADDRINUSE:
        text += "; stop what listens there (ss -ltnp, ss -lxp), or choose another place"
    elif error.errno == errno.EACCES:
        text += "; choose a port from 1024 on, or a directory of this user"
    return OSError(error.errno, text)


def _warn_if_reachable(listener: socket.socket) -> None:
    if listener.family not in (socket.AF_INET, socket.AF_INET6):
        return
    host = listener.getsockname()[0]
    if not host.removeprefix("::ffff:").startswith("127.") and host != "::1":
        logger.warning(
            "%s is reachable from other hosts, and there is no authentication but the "
            "application's own",
            host,
        )


# --- taken over -----------------------------------------------------------------------------------


def _adopt(fd: int) -> socket.socket:
    if not isinstance(fd, int) or isinstance(fd, bool) or fd < 0:
        raise ConfigError("fd", fd, "must be a descriptor >= 0")
    try:
        return _checked("fd", fd, socket.socket(fileno=fd))
    except OSError:
        raise ConfigError("fd", fd, "must be an open socket") from None


def _checked(field: str, fd: int, listener: socket.socket) -> socket.socket:
    is_stream = listener.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
    if not is_stream or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        listener.detach()  # not ours to close
        raise ConfigError(field, fd, "must be a stream socket that listens")
    listener.set_inheritable(False)
    return listener


def _is_at(listener: socket.socket, host: str, port: int) -> bool:
    family, address = _resolve(host, port)
    if listener.family != family:
        return False
    here = listener.getsockname()
    return bool(here[0] == address[0] and port in (0, here[1]))


def _take_inherited() -> list[tuple[socket.socket, str]]:
    """What systemd hands over and the names of that, each socket once, a unit's before what it has
    kept; the variables that tell of it are removed."""
    variables = {
        name: os.environ.get(name) for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    }
    if variables["LISTEN_PID"] != str(os.getpid()):
        return []
    for name in variables:
        os.environ.pop(name, None)
    text = variables["LISTEN_FDS"] or ""
    if not text.isascii() or not text.isdecimal():
        raise ConfigError("LISTEN_FDS", text, "must be a number of descriptors")
    names = (variables["LISTEN_FDNAMES"] or "").split(":")
    found: dict[int, tuple[socket.socket, str]] = {}
    for place in range(int(text)):
        fd = _FIRST_INHERITED + place
        name = names[place] if place < len(names) else ""
        try:
            one = socket.socket(fileno=fd)
        except OSError:
            raise ConfigError("LISTEN_FDS", text, "must count sockets only") from None
        one.set_inheritable(False)
        if found.setdefault(os.fstat(fd).st_ino, (one, name))[0] is not one:
            one.close()
    return list(found.values())


def _is_reached_at(listener: socket.socket, path: str) -> bool:
    """Whether who connects to the path comes to this listener: not where the file is gone, or where
    another service has put its own."""
    if listener.family != socket.AF_UNIX or listener.getsockname() != path:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
        visitor.setblocking(False)
        error = visitor.connect_ex(path)
        # With a full queue it cannot be seen whose it is.
        return error == errno.EAGAIN or (error == 0 and _owner(visitor) == _owner(listener))


def _owner(one: socket.socket) -> bytes:
    """Who has called listen(), as both ends know it."""
    return one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
