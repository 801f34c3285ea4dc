"""What a worker puts around any ASGI application.

`WorkerApplication` counts what is in flight, and answers `/healthz` and `/readyz` where the
application does not. `answering_close` and `counting_answers` stand in for what the HTTP protocol
does where it is not one of ours.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

CLOSE = (b"connection", b"close")
HEALTH_ROUTES = frozenset({"/healthz", "/readyz", "/health", "/ready", "/metrics"})
"""Asked by machines at their own pace: they are no load, and no reason to replace a worker."""


def is_health_route(scope: Scope) -> bool:
    """Whether the request's path, below the root path, is one of `HEALTH_ROUTES`."""
    return scope["path"][len(scope.get("root_path", "")) :] in HEALTH_ROUTES


class WorkerApplication:
    """`app`, counted, with routes for health where it has none.

    `begin()` is called before each request and WebSocket, and what it returned is given to
    `end(begun)` after the application's work on it; not for health routes.
    `liveness()` answers `/healthz` and `readiness()` answers `/readyz`: None for 200, or the reason
    for 503. They are asked only where `app` answers the path with 404.
    """

    def __init__(
        self,
        app: Application,
        *,
        begin: Callable[[], int],
        end: Callable[[int], None],
        readiness: Callable[[], str | None],
        liveness: Callable[[], str | None],
    ) -> None:
        self.app = app
        self._begin = begin
        self._end = end
        self._checks = {"/healthz": liveness, "/readyz": readiness}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on, and count."""
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
        elif is_health_route(scope):
            if kind == "http" and scope["method"] in ("GET", "HEAD"):
                send = self._answering(scope, send)
            await self.app(scope, receive, send)
        else:
            begun = self._begin()
            try:
                await self.app(scope, receive, send)
            finally:
                self._end(begun)

    def _answering(self, scope: Scope, send: Send) -> Send:
        """`send`, with our answer instead of a 404."""
        check = self._checks.get(scope["path"][len(scope.get("root_path", "")) :])
        if check is None:
            return send
        is_replaced = False

        async def answer(message: Message) -> None:
            nonlocal is_replaced
            if message["type"] == "http.response.start" and message["status"] == 404:
                is_replaced = True
                await _send_health(check(), send)
            elif not is_replaced:
                await send(message)

        return answer


async def _send_health(problem: str | None, send: Send) -> None:
    answer = {"status": "ok"} if problem is None else {"status": "unavailable", "reason": problem}
    body = json.dumps(answer).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    status = 200 if problem is None else 503
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def answering_close(app: Application) -> Application:
    """`app`, whose answers over HTTP/1 all say `Connection: close`; the server then closes."""

    async def close_after_answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def close(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [h for h in message.get("headers", ()) if h[0].lower() != b"connection"]
                message = {**message, "headers": [*headers, CLOSE]}
            await send(message)

        # HTTP/2 forbids the header.
        is_http_1 = scope["type"] == "http" and scope["http_version"].startswith("1")
        await app(scope, receive, close if is_http_1 else send)

    return close_after_answer


def counting_answers(app: Application, answered: Callable[[Scope], None]) -> Application:
    """`app`; `answered(scope)` is called after each complete answer over HTTP."""

    async def count_answers(scope: Scope, receive: Receive, send: Send) -> None:
        async def count(message: Message) -> None:
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                answered(scope)

        await app(scope, receive, count if scope["type"] == "http" else send)

    return count_answers
