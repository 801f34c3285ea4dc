"""A small service behind uvicorn, with its memory monitored or not.

Run as `python -m bench.monitored_app --port N [--framework fastapi] [--monitored [bytes]]`.
"""

from __future__ import annotations

import argparse
from typing import Any

import uvicorn

# 60 times as often as by default: what a sample costs would be seen in seconds.
INTERVAL = 1.0
BODY = b'{"answer":42}'


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """The least that an ASGI application can do."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": BODY})


def fastapi_app() -> Any:
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/")
    async def answer() -> dict[str, int]:
        return {"answer": 42}

    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--framework", choices=["none", "fastapi"], default="none")
    parser.add_argument("--monitored", choices=["requests", "bytes"], nargs="?", const="requests")
    options = parser.parse_args()
    app = fastapi_app() if options.framework == "fastapi" else bare
    if options.monitored:
        from memguard_native import MemoryMonitor
        from memguard_native.integrations.asgi import MemoryMonitorMiddleware

        app = MemoryMonitorMiddleware(app, MemoryMonitor(INTERVAL), unit=options.monitored)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
