"""What a worker puts around an application: counts, health routes, and stand-ins for hooks."""

from __future__ import annotations

import asyncio
import json

import pytest

from memguard_native.recycling.asgi import (
    HEALTH_ROUTES,
    WorkerApplication,
    answering_close,
    counting_answers,
)


def scope(path="/", *, kind="http", method="GET", version="1.1", root_path=""):
    return {
        "type": kind,
        "path": root_path + path,
        "root_path": root_path,
        "method": method,
        "http_version": version,
    }


def sent_by(application, scope):
    sent = []

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        sent.append(message)

    asyncio.run(application(scope, receive, send))
    return sent


def answering(status, *parts, headers=()):
    async def app(scope, receive, send):
        start = {"type": "http.response.start", "status": status, "headers": list(headers)}
        await send(start)
        for number, part in enumerate(parts):
            more = number < len(parts) - 1
            await send({"type": "http.response.body", "body": part, "more_body": more})

    return app


class Work:
    """Counts as a monitor does."""

    def __init__(self):
        self.begun = 0
        self.ended = []

    def begin(self):
        self.begun += 1
        return self.begun

    def end(self, begun):
        self.ended.append(begun)


def worker(app, work=None, *, readiness=None, liveness=None):
    work = work or Work()
    return WorkerApplication(
        app,
        begin=work.begin,
        end=work.end,
        readiness=lambda: readiness,
        liveness=lambda: liveness,
    )


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_requests_and_websockets_are_counted(kind):
    work = Work()
    sent_by(worker(answering(200, b""), work), scope("/search", kind=kind))
    assert (work.begun, work.ended) == (1, [1])


def test_a_request_that_fails_has_ended_too():
    async def app(scope, receive, send):
        raise LookupError("broken")

    work = Work()
    with pytest.raises(LookupError):
        sent_by(worker(app, work), scope())
    assert work.ended == [1]


@pytest.mark.parametrize("path", sorted(HEALTH_ROUTES))
@pytest.mark.parametrize("root_path", ["", "/api"])
def test_health_routes_are_not_counted(path, root_path):
    work = Work()
    sent_by(worker(answering(200, b""), work), scope(path, root_path=root_path))
    assert work.begun == 0


def test_the_lifespan_is_passed_on_and_not_counted():
    work = Work()
    sent = sent_by(worker(answering(200, b"seen"), work), {"type": "lifespan"})
    assert (len(sent), work.begun) == (2, 0)


def test_a_missing_health_route_is_answered():
    start, body = sent_by(worker(answering(404, b"none", b"at all")), scope("/healthz"))
    assert start["status"] == 200
    assert json.loads(body["body"]) == {"status": "ok"}
    assert dict(start["headers"])[b"content-length"] == str(len(body["body"])).encode()


def test_a_reason_is_answered_with_503():
    app = worker(answering(404, b""), readiness="no worker is ready")
    start, body = sent_by(app, scope("/readyz"))
    assert start["status"] == 503
    assert json.loads(body["body"]) == {"status": "unavailable", "reason": "no worker is ready"}


def test_liveness_and_readiness_are_asked_apart():
    app = worker(answering(404, b""), readiness="draining", liveness=None)
    assert sent_by(app, scope("/healthz"))[0]["status"] == 200


@pytest.mark.parametrize("status", [200, 401, 500])
def test_an_application_with_a_route_of_its_own_answers_itself(status):
    app = answering(status, b"own")
    assert sent_by(worker(app, readiness="ignored"), scope("/readyz")) == sent_by(app, scope())


def test_only_the_two_routes_are_answered():
    assert sent_by(worker(answering(404, b"none")), scope("/health"))[0]["status"] == 404


def test_a_post_to_a_missing_health_route_is_not_answered():
    app = worker(answering(404, b"none"))
    assert sent_by(app, scope("/healthz", method="POST"))[0]["status"] == 404


def test_an_answer_is_told_to_be_the_last_of_its_connection():
    app = answering(200, b"", headers=[(b"Connection", b"keep-alive"), (b"x", b"1")])
    start, _ = sent_by(answering_close(app), scope())
    assert start["headers"] == [(b"x", b"1"), (b"connection", b"close")]


@pytest.mark.parametrize("which", [scope(version="2"), scope(kind="websocket")])
def test_the_header_is_left_out_where_it_is_not_allowed(which):
    app = answering(200, b"")
    assert sent_by(answering_close(app), which) == sent_by(app, which)


def test_an_answer_counts_once_it_is_complete():
    told = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"1", "more_body": True})
        told.append("half")
        await send({"type": "http.response.body", "body": b"2"})

    sent_by(counting_answers(app, lambda scope: told.append(scope["path"])), scope("/a"))
    assert told == ["half", "/a"]


def test_an_answer_that_is_broken_off_does_not_count():
    async def app(scope, receive, send):
        await send({"type": "http.response.body", "more_body": True})

    told = []
    sent_by(counting_answers(app, told.append), scope())
    assert told == []
