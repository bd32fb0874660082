"""server: bodies, clients that leave, key files, a server in a thread."""

import asyncio
import contextlib
import re
import socket
import threading
import time

import httpx
import pytest
from fastapi import FastAPI, Request
from serving import KEY, ask, post, served, until

from qwen_course import server, service
from qwen_course.errors import CourseError
from qwen_course.protocol import ApiError

LIMITS = service.Limits(
    requests_per_minute=None, tokens_per_minute=None, body_bytes=2000, seconds=20.0
)


@pytest.fixture(scope="module")
def running():
    with served(limits=LIMITS) as made:
        yield made


def request_of(*messages, kind="application/json"):
    """Return a request whose server sends these messages, then nothing more."""
    left = [*messages]

    async def receive():
        if left:
            return left.pop(0)
        await asyncio.sleep(60)

    headers = [(b"content-type", kind.encode())] if kind else []
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


def part(body, more=True):
    return {"type": "http.request", "body": body, "more_body": more}


LEFT = {"type": "http.disconnect"}


def refused(work):
    with pytest.raises(ApiError) as caught:
        asyncio.run(work)
    return caught.value.status


# -------------------------------------------------------------------------- bodies
def test_a_body_is_read_up_to_its_limit():
    parts = [part(b"123"), part(b"45"), part(b"", False)]
    assert asyncio.run(server.body_of(request_of(*parts), 5, 1)) == b"12345"
    assert refused(server.body_of(request_of(*parts), 4, 1)) == 413
    assert refused(server.body_of(request_of(*[part(b"12345")] * 3), 7, 1)) == 413
    assert refused(server.body_of(request_of(part(b"1")), 9, 0.05)) == 408
    assert refused(server.body_of(request_of(part(b"1"), LEFT), 9, 1)) == 499


@pytest.mark.parametrize(
    "kind",
    ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"],
)
def test_only_json_is_read(kind):
    request = request_of(part(b"{}", False), kind=kind)
    assert refused(server.body_of(request, 9, 1)) == 415


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"]
)
def test_json_is_known_by_its_type(kind):
    request = request_of(part(b"{}", False), kind=kind)
    assert asyncio.run(server.body_of(request, 9, 1)) == b"{}"


def test_too_long_bodies_over_the_network(running):
    long = b'{"messages": "' + b"x" * 3000 + b'"}'
    headers = {"Content-Type": "application/json"}
    answers = [post(running.url, long)]  # with its length
    answers.append(
        httpx.post(
            f"{running.url}/chat/completions", headers=headers,
            content=iter([long[:1000], long[1000:]]),  # in chunks, without
        )
    )  # fmt: skip
    for answer in answers:
        assert answer.status_code == 413
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert post(running.url, ask()).status_code == 200


def talk(running, *parts, wait=""):
    """Return what the server answers to raw bytes, until it closes."""
    address = httpx.URL(running.url)
    with socket.create_connection((address.host, address.port), timeout=60) as line:
        for sent in parts:
            line.sendall(sent)
        found = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while more := line.recv(65536):
                found += more
                if wait and wait.encode() in found:
                    break
        return found


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
HEAD += b"Content-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (HEAD, b" 413 "),
        (HEAD.replace(b"application/json", b"text/plain"), b" 415 "),
        (HEAD + b"Authorization: Bearer wrong\r\n", b" 401 "),
        (HEAD.replace(b"/chat/completions", b"/else"), b" 404 "),
    ],
    ids=["too long", "type", "key", "path"],
)
def test_whoever_is_still_sending_can_read_the_refusal(head, status, monkeypatch):
    """A line that is closed at once takes the answer with it."""
    monkeypatch.setattr(server, "DROPPED_SECONDS", 60.0)  # the machine may stand still
    limits = service.Limits(body_bytes=2000)
    keys = {"anna": KEY} if status == b" 401 " else None
    with served(limits=limits, keys=keys) as running:
        address = httpx.URL(running.url)
        with socket.create_connection((address.host, address.port), 60) as line:
            line.sendall(head + b"Content-Length: 10000\r\n\r\n" + b"x" * 5000)
            time.sleep(0.2)
            for _ in range(2):
                line.sendall(b"x" * 2500)
                time.sleep(0.2)
            assert status in line.recv(65536)


def test_a_refusal_does_not_wait_for_what_never_comes(running, monkeypatch):
    monkeypatch.setattr(server, "DROPPED_SECONDS", 0.2)
    head = HEAD.replace(b"application/json", b"text/plain")
    found = talk(running, head + b"Content-Length: 10000\r\n\r\n{", wait="415")
    assert b" 415 " in found


def test_broken_http_is_answered_and_harms_nobody(running):
    assert b" 400 " in talk(running, b"\x16\x03\x01 nonsense\r\n\r\n")
    assert b" 400 " in talk(running, HEAD + b"Content-Length: x\r\n\r\n")
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n"
    assert b" 200 " not in talk(running, chunked)
    lying = HEAD + b"Content-Length: 99\r\n\r\n{}"
    address = httpx.URL(running.url)
    with socket.create_connection((address.host, address.port)) as line:
        line.sendall(lying)  # and leaves
    assert post(running.url, ask()).status_code == 200


def test_a_slow_body_is_a_408():
    limits = service.Limits(seconds=0.2)
    with served(limits=limits) as running:
        slow = talk(running, HEAD + b"Content-Length: 99\r\n\r\n{", wait="slowly")
        assert b" 408 " in slow
        assert b"The body came too slowly." in slow


# ----------------------------------------------------------- clients that leave
def test_work_goes_on_while_the_client_stays_and_ends_when_it_leaves():
    ended = []

    async def work(seconds):
        try:
            await asyncio.sleep(seconds)
            return "done"
        finally:
            ended.append(seconds)

    async def fails():
        raise ApiError(400, "no")

    stays = request_of()
    assert asyncio.run(server.unless_left(stays, work(0.01))) == "done"
    assert refused(server.unless_left(request_of(LEFT), work(5))) == 499
    assert refused(server.unless_left(request_of(), fails())) == 400
    assert ended == [0.01, 5]

    async def cancelled():
        task = asyncio.ensure_future(server.unless_left(request_of(), work(6)))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(cancelled())
    assert ended == [0.01, 5, 6]


def events_with(receive, send, seconds=5.0):
    """Return which of an Events' two generators were closed."""
    closed = []

    async def source():
        try:
            while True:
                yield "chunk"
        finally:
            closed.append("source")

    async def told(chunks):
        try:
            async for chunk in chunks:
                await asyncio.sleep(0)
                yield chunk
        finally:
            closed.append("events")

    async def story():
        chunks = source()
        await anext(chunks)
        response = server.Events(told(chunks), chunks, seconds, {})
        with contextlib.suppress(OSError):
            await response({"type": "http"}, receive, send)
        return [*closed]

    return asyncio.run(story())


async def never():
    await asyncio.sleep(60)


def test_events_end_the_generation_however_they_end():
    async def left():
        return LEFT

    async def sent(message):
        await asyncio.sleep(0)

    async def stuck(message):  # a client that reads nothing
        await asyncio.sleep(60)

    async def gone(message):
        raise OSError("gone")

    assert "source" in events_with(left, sent)
    assert "source" in events_with(left, stuck)  # before the first event
    assert "source" in events_with(never, stuck, 0.05)
    assert "source" in events_with(never, gone)


# --------------------------------------------------------------------- files, threads
def test_keys_are_read_from_a_file(tmp_path):
    file = tmp_path / "keys"
    lines = ["# ours", "anna: abcdefgh12345678 # new", "", "  ben :  sk:a#b  "]
    file.write_text("\n".join([*lines, "only-a-key#1"]), "utf-8-sig")  # with a mark
    assert server.read_keys(file) == {
        "anna": "abcdefgh12345678", "ben": "sk:a#b", "key 5": "only-a-key#1",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "# nothing\n\n", None, b"\xff\xfe\xff"])
def test_a_file_without_keys_is_refused(tmp_path, text):
    file = tmp_path / "keys"
    if isinstance(text, bytes):
        file.write_bytes(text)
    elif text is not None:
        file.write_text(text)
    with pytest.raises(CourseError, match="key file"):
        server.read_keys(file)


def test_two_clients_of_one_name_are_refused_not_mixed_up(tmp_path):
    file = tmp_path / "keys"
    file.write_text("anna: abcdefgh12345678\nanna: 12345678abcdefgh\n")
    with pytest.raises(CourseError, match="anna"):
        server.read_keys(file)


def test_no_thread_stays_and_the_port_is_free_again():
    before = {*threading.enumerate()}
    with served() as running:
        assert post(running.url, ask()).status_code == 200
        port = httpx.URL(running.url).port
    assert until(lambda: not {*threading.enumerate()} - before)
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_an_address_of_the_newer_kind_is_written_in_brackets():
    with server.running(FastAPI(), host="::1") as url:
        assert re.fullmatch(r"http://\[::1\]:\d+/v1", url)
        assert httpx.get(f"{url}/x").status_code == 404
    with server.listening("[::1]", 0) as listener:
        assert server.address("[::1]", listener).startswith("http://[::1]:")


def test_a_port_in_use_is_told():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CourseError, match=str(port)):
            with server.running(FastAPI(), port=port):
                pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_application_that_fails_to_start_is_told():
    @contextlib.asynccontextmanager
    async def broken(_):
        raise ValueError("no")
        yield

    with pytest.raises(CourseError, match="did not start"):
        with server.running(FastAPI(lifespan=broken)):
            pass
