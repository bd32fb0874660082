"""HTTP around the service: bodies, clients that leave, keys of a file, running it.

Knows no conversations; those are `service`'s.
"""

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from qwen_course.errors import CourseError
from qwen_course.protocol import ApiError

T = TypeVar("T")

DROPPED_BYTES, DROPPED_SECONDS = 1_000_000, 1.0  # read of a body that is refused
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")


def refuse_itself(url: str, host: str, listener: socket.socket) -> None:
    """Raise CourseError if the address of another server is that of this one."""
    there, here = urlsplit(url), {"0.0.0.0", "::", host.strip("[]"), *LOOPBACK}
    if there.port == listener.getsockname()[1] and there.hostname in here:
        rule = f"--upstream {url} is the address of this server itself."
        raise CourseError(rule, "give this one another port, as --port 8001.")


class Events(StreamingResponse):
    """Server-sent events; hangs up on a client that does not read them in time."""

    def __init__(
        self, events: Any, source: Any, seconds: float, headers: dict[str, str]
    ) -> None:
        """Keep what makes the events: closing `source` ends the generation."""
        super().__init__(events, headers=headers, media_type="text/event-stream")
        self.seconds, self.events, self.source = seconds, events, source

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Send the events; end the generation, whatever comes."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.seconds):
                    await super().__call__(scope, receive, send)
        finally:
            await self.events.aclose()
            await self.source.aclose()  # the events may never have begun


class Answers:
    """Counts the answers by their status; reads what is still sent before one goes out.

    A line that is closed while bytes come may take the answer that says why with it
    (RFC 9112, section 9.6), whether a body was too long, of a wrong type or unwanted.
    """

    def __init__(self, app: Any, count: Any) -> None:
        self.app, self.count = app, count

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on; drop what of its body nobody has read, up to a limit."""
        more = scope["type"] == "http"

        async def reading() -> Any:
            nonlocal more
            message = await receive()
            more = message.get("more_body", False)
            return message

        async def answering(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.count.labels(str(message["status"])).inc()
            dropped = 0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DROPPED_SECONDS):
                    while more and dropped < DROPPED_BYTES:
                        dropped += len((await reading()).get("body", b""))
            await send(message)

        await self.app(scope, reading, answering)


async def body_of(request: Request, most: int, seconds: float) -> bytes:
    """Return the body of a request, of `most` bytes at most."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # which no web page may send here unasked
        raise ApiError(415, "The Content-Type must be application/json.")
    parts = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                parts += part
                if len(parts) > most:
                    raise ApiError(413, f"A body has at most {most} bytes.")
    except TimeoutError:
        raise ApiError(408, "The body came too slowly.") from None
    except ClientDisconnect:
        raise ApiError(499, "The client has left.") from None  # nobody reads it
    return bytes(parts)


async def unless_left(request: Request, work: Awaitable[T]) -> T:
    """Return what the work gives; end it when the client has left."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(left())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ApiError(499, "The client has left.")  # nobody reads it
        return task.result()
    finally:
        for one in (task, watch):
            one.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


def read_keys(path: str | Path) -> dict[str, str]:
    """Return name -> key of a file with lines `name: key` or `key`; # is a remark."""
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()  # editors' mark
    except (OSError, UnicodeDecodeError) as error:
        told = f"The key file {path} cannot be read: {type(error).__name__}."
        raise CourseError(told, "write one key a line, as name: key.") from None
    keys = {}
    for number, line in enumerate(lines, 1):
        if text := re.split(r"(?:^|\s)#", line)[0].strip():  # a key may hold a #
            name, named, key = text.partition(":")
            name, key = (name.strip(), key) if named else (f"key {number}", text)
            if name in keys:
                told = f"The key file {path} has two keys for {name!r}."
                raise CourseError(told, "give each client a name of its own.")
            keys[name] = key.strip()
    if not keys:
        raise CourseError(f"The key file {path} holds no keys.", "write one a line.")
    return keys


@contextlib.contextmanager
def running(app: FastAPI, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Return a context in which the application runs in a thread; gives its address.

    Port 0 takes a free one. The address ends in /v1, as the openai client wants it.
    """
    server, listener = _server(app, "warning"), listening(host, port)
    listen = {"sockets": [listener]}
    thread = threading.Thread(target=server.run, kwargs=listen, daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise CourseError("The server did not start.", "see what it printed.")
            time.sleep(0.01)
        yield address(host, listener)
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def address(host: str, listener: socket.socket) -> str:
    """Return the address of a server that listens there; it ends in /v1."""
    bare = host.strip("[]")
    return (
        f"http://{f'[{bare}]' if ':' in bare else bare}:{listener.getsockname()[1]}/v1"
    )


def serve(app: FastAPI, listener: socket.socket) -> None:
    """Run the application here, at what `listening` gave, until Ctrl-C."""
    _server(app, "info").run(sockets=[listener])


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens; CourseError where none can."""
    try:
        kind = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host.strip("[]"), port), family=kind)
    except (OSError, OverflowError) as error:
        told = f"No server can listen at {host}, port {port}: {error}."
        hint = "stop the other one, or take another port; 0 takes a free one."
        raise CourseError(told, hint) from None


def _server(app: FastAPI, level: str) -> Any:
    import uvicorn

    class Server(uvicorn.Server):
        async def shutdown(self, sockets: Any = None) -> None:
            # First, so that whoever waits gets an answer and not a broken line.
            if close := getattr(app.state, "close", None):
                await close()
            await super().shutdown(sockets)

    return Server(
        uvicorn.Config(
            app, log_level=level, access_log=False, server_header=False,
            limit_concurrency=512, timeout_graceful_shutdown=5, ws="none",
        )
    )  # fmt: skip
