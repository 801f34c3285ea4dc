"""`broken_hooks()`: nothing on the uvicorns that are supported, and the name of what is missing."""

from __future__ import annotations

import pytest
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from memguard_native.recycling.contract import broken_hooks


def test_the_newest_uvicorn_has_every_hook():
    assert broken_hooks() == [], uvicorn.__version__


@pytest.mark.parametrize("base", [H11Protocol, HttpToolsProtocol])
def test_a_protocol_of_the_users_own_may_derive_from_uvicorns(base):
    assert broken_hooks(type("Own", (base,), {})) == []


def test_a_parser_that_tells_the_end_of_a_message_before_its_body_is_found_out():
    class Hasty(HttpToolsProtocol):
        def on_headers_complete(self):
            super().on_headers_complete()
            self.on_message_complete()

    problem = broken_hooks(Hasty)[0]
    assert problem.startswith(f"{Hasty.__qualname__} as expected (plain: ")


@pytest.mark.parametrize("base", [H11Protocol, HttpToolsProtocol])
def test_an_answer_that_is_not_told_is_found_out(base):
    class Silent(base):
        def on_response_complete(self):
            """Says nothing to the recorder that lies above."""

        def connection_made(self, transport):
            super().connection_made(transport)
            self.on_response_complete = lambda: None

    assert broken_hooks(Silent)


@pytest.mark.parametrize("base", [H11Protocol, HttpToolsProtocol])
def test_a_timer_that_is_not_kept_is_found_out(base):
    class Forgetful(base):
        def on_response_complete(self):
            super().on_response_complete()
            self.timeout_keep_alive_task = None

    assert any("timeout_keep_alive_task" in problem for problem in broken_hooks(Forgetful))


def test_an_upgrade_that_is_not_passed_on_is_found_out():
    class Deaf(HttpToolsProtocol):
        def handle_websocket_upgrade(self):
            """Drops it."""

    assert broken_hooks(Deaf) == [f"{Deaf.__qualname__} as expected (upgrade: [])"]


def test_another_constructor_is_found_out():
    class Other(HttpToolsProtocol):
        def __init__(self, config, state):
            super().__init__(config, state, {})

    names = ("server_state", "app_state", "_loop")
    assert broken_hooks(Other) == [f"{Other.__qualname__}({name}=)" for name in names]


def test_what_a_changed_uvicorn_raises_is_told_and_not_raised():
    class Raising(H11Protocol):
        def connection_made(self, transport):
            raise LookupError("gone")

    assert broken_hooks(Raising) == [f"{Raising.__qualname__} (LookupError('gone'))"]


def test_the_exchange_leaves_no_trace_in_the_access_log(caplog):
    with caplog.at_level("DEBUG"):
        broken_hooks()
    assert caplog.records == []
