"""The listener: what it is, what it takes over, and what it says where it cannot be."""

from __future__ import annotations

import errno
import logging
import os
import socket
import subprocess
import sys

import pytest

from memguard_native.errors import ConfigError
from memguard_native.recycling.listener import BoundPath, inherited_listener, open_listener, url_of

LOCAL = {"host": "127.0.0.1", "port": 0}


def is_listening(one: socket.socket) -> bool:
    return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def unix_listener(path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen()
    return made


# --- made here ------------------------------------------------------------------------------------


def test_it_listens_with_the_protocol_number_that_asyncio_looks_for():
    with open_listener(**LOCAL) as listener:
        assert is_listening(listener)
        assert listener.proto == socket.IPPROTO_TCP
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert not listener.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)


def test_connections_that_it_accepts_do_not_wait_to_be_filled():
    with (
        open_listener(**LOCAL) as listener,
        socket.create_connection(listener.getsockname(), 10),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_no_child_inherits_it_by_chance():
    with open_listener(**LOCAL) as listener:
        assert not listener.get_inheritable()


@pytest.mark.parametrize("port", [-1, 65536, True, "80"])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(ConfigError, match=r"port must be in 0\.\.65535"):
        open_listener(host="127.0.0.1", port=port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "a" * 64 + ".example", "\ud800"])
def test_a_host_that_is_none_is_refused(host):
    with pytest.raises(ConfigError, match="host must be an address of this machine"):
        open_listener(host=host, port=0)


def test_a_taken_port_is_named_with_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            OSError, match=rf"cannot listen on 127\.0\.0\.1:{port} .*; stop"
        ) as caught:
            open_listener(host="127.0.0.1", port=port)
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize(
    ("host", "is_told"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True), ("::", True)]
)
def test_who_can_be_reached_from_other_hosts_is_told(caplog, host, is_told):
    with caplog.at_level(logging.WARNING), open_listener(host=host, port=0):
        assert (f"{host} is reachable from other hosts" in caplog.text) is is_told


# --- at a path ------------------------------------------------------------------------------------


def test_a_path_can_be_listened_on_by_whoever_may_enter_its_directory(tmp_path):
    path = tmp_path / "shop.sock"
    before = os.umask(0o077)
    try:
        with open_listener(**LOCAL, uds=str(path)) as listener:
            assert is_listening(listener)
            assert path.stat().st_mode & 0o777 == 0o666
    finally:
        os.umask(before)


def test_a_path_that_nobody_listens_on_any_more_is_taken(tmp_path):
    path = tmp_path / "shop.sock"
    unix_listener(path).close()
    with open_listener(**LOCAL, uds=str(path)), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_path_that_somebody_listens_on_is_left_to_him(tmp_path):
    path = tmp_path / "shop.sock"
    with unix_listener(path), socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(OSError, match="cannot listen on "):
            open_listener(**LOCAL, uds=str(path))
        client.connect(str(path))


def test_a_file_at_the_path_is_kept(tmp_path):
    path = tmp_path / "shop.sock"
    path.write_text("mine")
    with pytest.raises(OSError, match="there is a file that is no socket"):
        open_listener(**LOCAL, uds=str(path))
    assert path.read_text() == "mine"


@pytest.mark.parametrize("path", ["", "/tmp/" + 103 * "x"])
def test_a_path_that_no_socket_can_have_is_refused(path):
    with pytest.raises(ConfigError, match="uds must be a path of 1 to 107 bytes"):
        open_listener(**LOCAL, uds=path)


def test_a_path_and_a_descriptor_are_one_too_many():
    with pytest.raises(ConfigError, match="fd must be left out with a path"):
        open_listener(**LOCAL, uds="/tmp/shop.sock", fd=3)


# --- taken over -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_a_descriptor_is_taken_whatever_its_family(tmp_path, family):
    if family == socket.AF_UNIX:
        given = unix_listener(tmp_path / "given.sock")
    else:
        given = socket.create_server(("" if family == socket.AF_INET else "::1", 0), family=family)
    given.set_inheritable(True)
    with open_listener(**LOCAL, fd=given.detach()) as listener:
        assert listener.family == family
        assert not listener.get_inheritable()
        assert is_listening(listener)


def test_a_descriptor_that_does_not_listen_is_refused_and_stays_open():
    with socket.socket() as given:
        with pytest.raises(ConfigError, match="fd must be a stream socket that listens"):
            open_listener(**LOCAL, fd=given.fileno())
        assert given.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM


@pytest.mark.parametrize("fd", [-1, True, "3", 99999])
def test_a_descriptor_that_is_no_socket_is_refused(fd):
    with pytest.raises(ConfigError, match="fd must be"):
        open_listener(**LOCAL, fd=fd)


def test_a_datagram_socket_is_refused():
    with (
        socket.socket(type=socket.SOCK_DGRAM) as given,
        pytest.raises(ConfigError, match="must be a stream socket that listens"),
    ):
        open_listener(**LOCAL, fd=given.fileno())


# Descriptors 3 and up are those of whoever runs the tests, so a process of its own is handed them.
ACTIVATED = """
import os, socket, sys
os.environ["LISTEN_PID"] = sys.argv[2].replace("own", str(os.getpid()))
os.environ["LISTEN_FDS"] = sys.argv[1]
from memguard_native.errors import ConfigError
from memguard_native.recycling.listener import inherited_listener, url_of
try:
    place = {"host": "127.0.0.1", "port": int(os.environ.get("PORT", "0"))}
    if len(sys.argv) > 3:
        place["uds"] = sys.argv[3]
    found = inherited_listener(**place)
except ConfigError as error:
    print(error)
else:
    inheritable = found is not None and found.get_inheritable()
    print("none" if found is None else f"{found.fileno()} {url_of(found)} {inheritable}")
print("LISTEN_FDS" in os.environ, sum(os.path.exists(f"/proc/self/fd/{n}") for n in (3, 4)))
"""


def activated(*listeners, pid="own", count=None, uds=(), port=0, names=""):
    """What a process finds that is started like one of systemd's, with these from 3 on."""
    numbers = [one.fileno() for one in listeners]
    moves = [f"os.dup2({number}, {100 + place})" for place, number in enumerate(numbers)]
    moves += [f"os.dup2({100 + place}, {3 + place})" for place in range(len(numbers))]
    moves += [f"os.close({100 + place})" for place in range(len(numbers))]
    # Nothing else may be open from 3 on.
    moves += [f"os.closerange({3 + len(numbers)}, 100)"]
    program = f"import os; {'; '.join(moves)}\n{ACTIVATED}"
    given = str(len(numbers)) if count is None else count
    done = subprocess.run(
        [sys.executable, "-c", program, given, pid, *uds],
        pass_fds=numbers,
        env={**os.environ, "PORT": str(port), "LISTEN_FDNAMES": names},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.splitlines()


def test_systemds_socket_is_taken_and_its_variables_are_gone():
    with socket.create_server(("127.0.0.1", 0)) as given:
        found, rest = activated(given)
        assert found == f"3 {url_of(given)} False"
        assert rest == "False 1"


def test_a_socket_for_another_process_is_left_alone():
    with socket.create_server(("127.0.0.1", 0)) as given:
        assert activated(given, pid="1") == ["none", "True 1"]


def test_a_socket_that_is_handed_over_twice_counts_once():
    with socket.create_server(("127.0.0.1", 0)) as given, given.dup() as again:
        assert activated(given, again) == [f"3 {url_of(given)} False", "False 1"]


KEPT = "memguard-listener"


def test_a_socket_that_systemd_has_kept_is_taken_for_the_same_address():
    with socket.create_server(("127.0.0.1", 0)) as kept:
        port = kept.getsockname()[1]
        assert activated(kept, names=KEPT, port=port)[0] == f"3 {url_of(kept)} False"


def test_a_socket_that_systemd_has_kept_is_closed_where_the_address_was_set_anew():
    with socket.create_server(("127.0.0.1", 0)) as kept:
        port = kept.getsockname()[1] ^ 1
        assert activated(kept, names=KEPT, port=port) == ["none", "False 0"]


def test_another_address_can_be_listened_on_although_systemd_still_keeps_the_old_one():
    with socket.create_server(("0.0.0.0", 0)) as kept:
        port = kept.getsockname()[1]
        assert activated(kept, names=KEPT, port=port)[0] == "none"
        open_listener(host="127.0.0.1", port=port).close()


def test_a_socket_unit_sets_the_address_also_where_its_socket_was_kept():
    with socket.create_server(("127.0.0.1", 0)) as given, given.dup() as kept:
        port = given.getsockname()[1] ^ 1
        found, rest = activated(given, kept, names=f"shop.socket:{KEPT}", port=port)
        assert (found, rest) == (f"3 {url_of(given)} False", "False 1")


def test_two_sockets_are_one_too_many():
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as other,
    ):
        assert "LISTEN_FDS must be 1" in activated(one, other)[0]


@pytest.mark.parametrize(
    ("count", "text"), [("x", "must be a number of descriptors"), ("2", "must count sockets only")]
)
def test_a_count_that_is_wrong_is_refused(count, text):
    with socket.create_server(("127.0.0.1", 0)) as given:
        assert text in activated(given, count=count)[0]


def test_what_does_not_listen_is_refused():
    with socket.socket() as given:
        assert "LISTEN_FDS must be a stream socket that listens" in activated(given)[0]


def test_the_listener_of_a_path_that_systemd_has_kept_is_taken_again(tmp_path):
    path = tmp_path / "shop.sock"
    with unix_listener(path) as kept:
        assert activated(kept, uds=[str(path)]) == [f"3 unix:{path} False", "False 1"]


def test_a_listener_whose_path_is_gone_is_not_taken_again(tmp_path):
    path = tmp_path / "shop.sock"
    with unix_listener(path) as kept:
        path.unlink()
        assert activated(kept, uds=[str(path)]) == ["none", "False 0"]


def test_a_listener_whose_path_has_become_a_file_is_not_taken_again(tmp_path):
    path = tmp_path / "shop.sock"
    with unix_listener(path) as kept:
        path.unlink()
        path.write_text("mine")
        assert activated(kept, uds=[str(path)]) == ["none", "False 0"]


LISTEN = """
import socket, sys
made = socket.socket(socket.AF_UNIX)
made.bind(sys.argv[1])
made.listen()
print("listening", flush=True)
sys.stdin.read()
"""


def test_a_listener_whose_path_another_service_has_taken_is_not_taken_again(tmp_path):
    path = tmp_path / "shop.sock"
    with unix_listener(path) as kept:
        path.unlink()
        with subprocess.Popen(
            [sys.executable, "-c", LISTEN, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as other:
            assert other.stdout.readline() == b"listening\n"
            assert activated(kept, uds=[str(path)]) == ["none", "False 0"]
            other.stdin.close()


def test_a_listener_with_a_full_queue_is_taken_again(tmp_path):
    path = tmp_path / "shop.sock"
    with unix_listener(path) as kept, socket.socket(socket.AF_UNIX) as client:
        kept.listen(0)
        client.connect(str(path))
        assert activated(kept, uds=[str(path)]) == [f"3 unix:{path} False", "False 1"]


def test_the_file_of_a_path_is_removed(tmp_path):
    path = tmp_path / "shop.sock"
    with unix_listener(path):
        BoundPath(str(path)).remove()
    assert not path.exists()


@pytest.mark.parametrize("is_still_open", [True, False])
def test_the_file_that_another_service_has_put_at_the_path_is_kept(tmp_path, is_still_open):
    """Once nobody holds the first one open, a file system may give its number to the second."""
    path = tmp_path / "shop.sock"
    ours = unix_listener(path)
    bound = BoundPath(str(path))
    if not is_still_open:
        ours.close()
    path.unlink()
    with unix_listener(path):
        bound.remove()
        assert path.exists()
    ours.close()


def test_another_listener_that_systemd_has_kept_is_closed(tmp_path):
    path = tmp_path / "shop.sock"
    with socket.create_server(("127.0.0.1", 0)) as kept:
        assert activated(kept, uds=[str(path)]) == ["none", "False 0"]


def test_without_systemd_there_is_none(monkeypatch):
    monkeypatch.delenv("LISTEN_PID", raising=False)
    assert inherited_listener(host="127.0.0.1", port=0) is None


# --- its URL --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "is_tls", "url"),
    [
        ("127.0.0.1", False, "http://127.0.0.1:{}"),
        ("::1", False, "http://[::1]:{}"),
        ("127.0.0.1", True, "https://127.0.0.1:{}"),
    ],
)
def test_its_url_can_be_copied(host, is_tls, url):
    with open_listener(host=host, port=0) as listener:
        assert url_of(listener, is_tls=is_tls) == url.format(listener.getsockname()[1])


def test_the_url_of_a_path_is_its_path(tmp_path):
    with unix_listener(tmp_path / "a.sock") as listener:
        assert url_of(listener) == f"unix:{tmp_path}/a.sock"


def test_the_url_of_an_abstract_name_is_written_with_an_at():
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0memguard-{os.getpid()}")
        assert url_of(listener) == f"unix:@memguard-{os.getpid()}"
