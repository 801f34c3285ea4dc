"""The adapters of the peers do what the suites believe, and a missing peer is a row."""

from __future__ import annotations

import asyncio

import pytest
from bench.harness import Bench
from bench.suites import instructions

from bench import callgrind, redis_server, rivals, servers

PEERS = pytest.mark.parametrize("peer", rivals.BREAKERS, ids=lambda peer: peer.module)


@PEERS
def test_closed_peer_passes_arguments_and_result(peer: rivals.Peer) -> None:
    assert peer.load().closed(lambda a, b: (a, b))(1, b=2) == (1, 2)


@PEERS
def test_closed_peer_never_trips(peer: rivals.Peer) -> None:
    guarded = peer.load().closed(rivals.fail)
    for _ in range(200):
        with pytest.raises(rivals.SimulatedOutageError):
            guarded()


@PEERS
@pytest.mark.parametrize("form", ["closed_async", "context", "time_window"])
def test_peer_has_a_form_or_says_why_not(peer: rivals.Peer, form: str) -> None:
    adapter = peer.load()
    assert hasattr(adapter, form) is not (form in getattr(adapter, "UNSUPPORTED", {}))


def having(form: str) -> pytest.MarkDecorator:
    found = [peer for peer in rivals.BREAKERS if hasattr(peer.load(), form)]
    return pytest.mark.parametrize("peer", found, ids=lambda peer: peer.module)


@having("closed_async")
def test_closed_peer_guards_coroutine_functions(peer: rivals.Peer) -> None:
    async def seven() -> int:
        return 7

    assert asyncio.run(peer.load().closed_async(seven)()) == 7


@having("context")
def test_context_of_a_peer_passes_failures_and_never_trips(peer: rivals.Peer) -> None:
    x, statement = peer.load().context()
    failing = compile(statement.replace("pass", "rivals.fail()"), "<bench>", "exec")
    for _ in range(200):
        with pytest.raises(rivals.SimulatedOutageError):
            exec(failing, {"x": x, "rivals": rivals})
    exec(statement, {"x": x})


@having("time_window")
def test_peer_with_a_window_of_time_passes_arguments_and_result(peer: rivals.Peer) -> None:
    assert peer.load().time_window(lambda a, b: (a, b), 60)(1, b=2) == (1, 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # newer Pythons about the peers
@PEERS
def test_opened_peer_rejects_again_and_again(peer: rivals.Peer) -> None:
    guarded, rejection, before = peer.load().opened()
    for _ in range(20):
        if before is not None:
            before()
        with pytest.raises(rejection):
            guarded()


def test_pybreaker_with_redis_keeps_its_state_there_and_never_trips() -> None:
    import redis

    with redis_server.running() as server, redis.Redis(servers.HOST, server.port) as client:
        guarded = rivals.WITH_REDIS.load().closed(rivals.fail, client)
        for _ in range(20):
            with pytest.raises(rivals.SimulatedOutageError):
                guarded()
        assert client.get("bench:pybreaker:state") == b"closed"


def test_breaker_that_never_opens_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="did not open within 1000 failures"):
        rivals.open_by_failures(rivals.fail, KeyError)


def test_missing_peer_is_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        rivals, "BREAKERS", (rivals.Peer("none", "no such peer", "no-such-distribution"),)
    )
    b = Bench()
    assert list(rivals.each(b, "closed")) == []
    assert b.cases["no such peer"].absent == "not installed"
    assert b.cases["no such peer"].package == "no-such-distribution"


def test_form_that_a_peer_lacks_is_a_row_that_says_why() -> None:
    b = Bench()
    names = [peer.name for peer, _ in rivals.each(b, "closed_async")]
    assert "pybreaker" not in names
    assert b.cases["pybreaker"].absent == "guards tornado coroutines only"


def test_version_comes_from_what_is_installed() -> None:
    assert rivals.version("pybreaker") == "1.4.1"
    assert rivals.version("no-such-distribution") is None


# --- callgrind ------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["summary: 29830765", "totals: 29830765"])
def test_total_is_read_from_a_profile(line: str) -> None:
    assert callgrind.read_total(f"events: Ir\nfn=(1) main\n1 2\n{line}\n") == 29_830_765


def test_profile_without_total_is_an_error() -> None:
    with pytest.raises(callgrind.CallgrindError, match="no total"):
        callgrind.read_total("events: Ir\n")


def test_missing_valgrind_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callgrind.shutil, "which", lambda _: None)
    with pytest.raises(callgrind.CallgrindError, match="apt-get install valgrind"):
        callgrind.instructions("x()", "def x(): pass")


def test_slope_ignores_start_and_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callgrind, "_total", lambda program, passes: 9_000_000 + 520 * passes)
    assert callgrind.count_all({"a": ("x()", ""), "b": ("x()", "")}) == {"a": 520.0, "b": 520.0}


def test_instructions_suite_judges_the_difference_to_the_trampoline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    costs = dict(zip(instructions.CALLS | instructions.AWAITS, (5, 7, 9, 5, 7, 15), strict=True))
    monkeypatch.setattr(callgrind, "count_all", lambda cases: {n: float(costs[n]) for n in cases})
    b = Bench()
    instructions.suite(b)
    assert [b.value(budget) for budget in b.budgets] == [2.0, pytest.approx(0.2)]
