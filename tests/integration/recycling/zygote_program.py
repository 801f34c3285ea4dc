"""A process that forks workers on request: what `test_handover.py` serves with.

Run with the descriptor of a SEQPACKET socket. Each message on it is a worker's settings (JSON) with
two descriptors, the listener and the worker's control socket; the answer is the worker's pid.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys

import uvicorn
import uvloop

from memguard_native.recycling.server import RecyclingServer

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
BIG = b"x" * 10_000_000


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await websocket(receive, send)
    else:
        await PATHS[scope["path"]](receive, send)


async def lifespan(receive, send):
    assert (await receive())["type"] == "lifespan.startup"
    await send({"type": "lifespan.startup.complete"})
    assert (await receive())["type"] == "lifespan.shutdown"
    await send({"type": "lifespan.shutdown.complete"})


async def websocket(receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})


async def answer(send, body, status=200):
    headers = [(b"content-length", str(len(body)).encode()), (b"pid", str(os.getpid()).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def whole_body(receive):
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body


async def echo(receive, send):
    await answer(send, await whole_body(receive))


async def early(receive, send):
    await answer(send, b"not wanted", 413)


async def slow(receive, send):
    await asyncio.sleep(0.2)
    await answer(send, b"slow")


async def big(receive, send):
    await answer(send, BIG)


async def events(receive, send):
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await whole_body(receive)
    gone = asyncio.ensure_future(receive())
    while not gone.done():
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await asyncio.wait([gone], timeout=0.02)


PATHS = {
    "/": echo, "/healthz": echo, "/early": early, "/slow": slow, "/big": big, "/events": events
}  # fmt: skip


def receive_message(channel):
    data, ancillary, _, _ = channel.recvmsg(4096, socket.CMSG_SPACE(2 * 4), socket.MSG_CMSG_CLOEXEC)
    descriptors = [
        int.from_bytes(payload[i : i + 4], sys.byteorder)
        for _, _, payload in ancillary
        for i in range(0, len(payload), 4)
    ]
    return (json.loads(data) if data else None), descriptors


def send_message(channel, message, descriptors=()):
    socket.send_fds(channel, [json.dumps(message).encode()], list(descriptors))


async def tell(channel, message):
    """Send it as soon as there is room: the queue is as short as can be."""
    while True:
        try:
            send_message(channel, message)
        except BlockingIOError:
            await asyncio.sleep(0.001)
        else:
            return


async def work(settings, listener, control):
    refused = 0

    def hand_out(descriptor):
        nonlocal refused
        try:
            send_message(control, {"kind": "connection"}, [descriptor])
        except BlockingIOError:
            refused += 1
            return False
        return True

    async def on_startup():
        pass

    def stats():
        names = ("requests", "handed_over", "lingered", "aborted", "adopted", "tier")
        return {name: getattr(server, name) for name in names}

    def on_message():
        message, descriptors = receive_message(control)
        if message is None:
            os._exit(1)  # the test is over
        if message["kind"] == "drain":
            server.drain(
                tier=message["tier"],
                linger=message["linger"],
                deadline=loop.time() + message["seconds"],
            )
        elif message["kind"] == "connection":
            adopted = {"kind": "adopted", "sequence": message["sequence"]}
            server.adopt(descriptors[0], lambda: send_message(control, adopted))

    loop = asyncio.get_running_loop()
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="on", **settings["options"]
    )
    server = RecyclingServer(
        config, hand_out=hand_out, on_startup=on_startup, on_request=lambda: None
    )
    loop.add_reader(control.fileno(), on_message)
    serving = asyncio.ensure_future(server.serve([listener]))
    while not server.started and not serving.done():
        await asyncio.sleep(0.001)
    await tell(control, {"kind": "ready"})
    await serving
    await tell(control, {"kind": "ended", "refused": refused, **stats()})


def main():
    # Before the fork, and here only: the test itself needs none of them.
    from uvicorn.protocols.http import h11_impl, httptools_impl  # noqa: F401
    from uvicorn.protocols.websockets import auto  # noqa: F401

    channel = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        settings, descriptors = receive_message(channel)
        if settings is None:
            return
        listener, control = (socket.socket(fileno=each) for each in descriptors)
        pid = os.fork()
        if pid == 0:
            channel.close()
            control.setblocking(False)
            logging.basicConfig(level=logging.WARNING)
            with asyncio.Runner(loop_factory=LOOPS[settings["loop"]]) as runner:
                runner.run(work(settings, listener, control))
            os._exit(0)
        listener.close()
        control.close()
        send_message(channel, {"pid": pid})


if __name__ == "__main__":
    main()
