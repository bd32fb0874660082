"""service: the whole of it over HTTP, with the real client; limits; attacks."""

import asyncio
import contextlib
import hmac
import json
import logging
import random
import socket
import threading
import time
from collections import Counter
from dataclasses import replace

import httpx
import openai
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from limits.storage import MemoryStorage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from serving import (
    FREE,
    KEY,
    Endless,
    Held,
    ask,
    client,
    endless,
    known,
    pocket,
    post,
    served,
    until,
)
from tiny import scripted

from qwen_course import batching, generate, monitor, server, service, upstream
from qwen_course.errors import CourseError
from qwen_course.generate import Settings
from qwen_course.protocol import ApiError, ChatRequest, fold
from qwen_course.service import ChatService, Limits

SECRET = "my-secret-word"
QUESTIONS = ["Hello", "Who are you?", "What colour is snow?", "Name three colours."]
QUESTIONS += ["What is the capital of France?", "Good morning.", "Are you Qwen3?"]


@pytest.fixture(scope="module")
def running():
    with served(keys={"me": KEY, "you": "another-key-of-ours"}) as made:
        yield made


def events(url, body):
    """Return the chunks of a streamed request, each checked by the client's types."""
    answer = post(url, body | {"stream": True})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    *lines, last = answer.text.strip().split("\n\n")
    assert last == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk, strict=True)
    assert len({chunk["id"] for chunk in chunks}) == 1
    return chunks


def error_of(answer, status):
    """Return the error of an answer, which must have OpenAI's shape."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert {*error} == {"message", "type", "param", "code"}
    return error


# ------------------------------------------------------- every answer is OpenAI's
THINK = {"chat_template_kwargs": {"enable_thinking": True}}
ANSWERS = {
    "plain": {},
    "by role": {"model": "chat"},
    "three": {"n": 3},
    "stop": {"stop": ["help"]},
    "seed": {"temperature": 1.2, "top_p": 0.9, "seed": 3},
    "no thought": {"chat_template_kwargs": {"enable_thinking": False}},
    "thought": THINK,
    "budget": THINK | {"thinking_budget": 2},
    "tools": {"tools": [{"type": "function", "function": {"name": "f"}}]},
    "newer name": {"max_completion_tokens": 3},
}
SETTINGS = {
    "stop": {"stop": ("help",)},
    "seed": {"temperature": 1.2, "top_p": 0.9, "seed": 3},
    "no thought": {"thinking": False},
    "thought": {"thinking": True},
    "budget": {"thinking": True, "thinking_budget": 2},
    "newer name": {"max_new_tokens": 3},
}


@pytest.mark.parametrize("case", ANSWERS)
def test_answers_are_right_and_of_openai_s_types(running, case):
    body = ask() | ANSWERS[case]
    whole = post(running.url, body)
    assert whole.status_code == 200, whole.text
    made = ChatCompletion.model_validate(whole.json(), strict=True)
    assert len(made.choices) == body.get("n", 1)
    if case != "tools":
        direct = known(**SETTINGS.get(case, {}))
        for choice in made.choices:
            assert choice.message.content == direct.text
            assert choice.finish_reason == direct.stop
            thought = (choice.message.model_extra or {}).get("reasoning_content", "")
            assert thought == direct.thinking
        assert made.usage.completion_tokens == direct.new_tokens * len(made.choices)
        assert made.usage.prompt_tokens == direct.prompt_tokens
        details = made.usage.completion_tokens_details
        assert details.reasoning_tokens == direct.thinking_tokens * len(made.choices)
    chunks = events(running.url, body | {"stream_options": {"include_usage": True}})
    again = fold(chunks)
    assert again["choices"] == whole.json()["choices"]
    assert again["usage"] == whole.json()["usage"]
    assert chunks[-1]["choices"] == []
    plain = events(running.url, body)
    assert not any(chunk.get("usage") for chunk in plain)


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_of_a_tool_reaches_the_client(stream):
    text = (
        '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
    )
    tools = [{"type": "function", "function": {"name": "weather"}}]
    with served(batching.Local(scripted(text))) as here:
        made = client(here.url).chat.completions.create(
            model="chat", tools=tools, stream=stream, **ask() | {"max_tokens": 99}
        )
        if stream:
            whole = fold([chunk.model_dump(exclude_unset=True) for chunk in made])
            made = ChatCompletion.model_validate(whole, strict=True)
    (call,) = made.choices[0].message.tool_calls
    assert made.choices[0].finish_reason == "tool_calls"
    assert json.loads(call.function.arguments) == {"city": "Köln"}


def test_the_real_client_reads_a_stream(running):
    chunks = client(running.url).chat.completions.create(
        model="pocket-chat", stream=True, **ask()
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == known().text


def test_models_and_their_absence(running):
    names = [model.id for model in client(running.url).models.list()]
    assert names == ["pocket-chat", "chat"]
    error = error_of(post(running.url, ask() | {"model": "gpt-9"}), 404)
    assert (error["param"], error["code"]) == ("model", "model_not_found")


# ------------------------------------------------------------- streams and batches
def prompts(count):
    """Return texts of several alphabets, known questions among them."""
    rng = random.Random(8)
    letters = (
        "abc xyz 0123456789+*=?!.,\n\t éüßçñøλΩжя中文字日本語한국어🙂👩‍🚀🇫🇷\u200d\u0301"
    )
    made = ["Answer in French only. What colour is the sky?", *QUESTIONS]
    while len(made) < count:
        made.append("".join(rng.choices(letters, k=rng.randint(1, 30))) or "x")
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "warm"),
    [
        ("pocket-chat", 70, {}),
        ("pocket-thinking", 60, THINK),
        ("pocket-translator", 60, {}),
        ("pocket-chat", 10, {"temperature": 2.0, "top_k": 0, "top_p": 1.0, "seed": 5}),
    ],
)
def test_a_stream_is_the_whole_text_whatever_is_asked(name, count, warm):
    """With a high temperature replies hold pieces of characters, too."""
    texts = prompts(count)

    async def story(url):
        here, turns = client(url, kind=openai.AsyncOpenAI), asyncio.Semaphore(16)

        async def both(text):
            body = ask(text) | warm
            extra = {n: body.pop(n) for n in ("top_k", *THINK) if n in body}
            body |= {"model": name, "extra_body": extra}
            async with turns:
                whole = await here.chat.completions.create(**body)
                stream = await here.chat.completions.create(stream=True, **body)
                chunks = [c.model_dump(exclude_unset=True) async for c in stream]
            streamed = fold(chunks)["choices"][0]
            assert streamed == whole.model_dump(exclude_unset=True)["choices"][0]
            return whole.choices[0].message

        async with here:
            return await asyncio.gather(*map(both, texts))

    with served(batching.Local(pocket(name))) as here:
        messages = asyncio.run(story(here.url))
    wanted = {"temperature": 0, "max_new_tokens": 24} | warm
    wanted["thinking"] = wanted.pop("chat_template_kwargs", {}).get("enable_thinking")
    alone = [ask(text)["messages"] for text in texts]
    if "seed" in warm:
        direct = [known(text, **wanted) for text in texts]
    else:
        direct = generate.batch(pocket(name), alone, Settings(**wanted))
    for message, reply in zip(messages, direct, strict=True):
        thought = (message.model_extra or {}).get("reasoning_content", "")
        assert (message.content, thought) == (reply.text, reply.thinking)
    if name == "pocket-translator" or "seed" in warm:
        assert not "".join(reply.text for reply in direct).isascii()


@pytest.mark.slow
def test_a_seed_holds_among_fifteen_others(running):
    warm = {"temperature": 1.3, "top_p": 1.0}
    direct = known("Hello", seed=4, **warm)

    async def story():
        here = client(running.url, kind=openai.AsyncOpenAI)

        async def one(text, **more):
            body = ask(text) | warm | more
            made = await here.chat.completions.create(model="chat", **body)
            return made.choices[0].message.content

        others = [one(text) for text in (QUESTIONS * 3)[:15]]
        async with here:
            return (await asyncio.gather(one("Hello", seed=4), *others))[0]

    assert {asyncio.run(story()) for _ in range(3)} == {direct.text}


# ---------------------------------------------------------------- keys, hosts, paths
def test_who_has_no_key_learns_nothing(running):
    base = running.url.removesuffix("/v1")
    wrong = [None, "", "Bearer", f"Bearer {KEY[:-1]}", f"Basic {KEY}", KEY,
             f"Bearer {KEY} {KEY}", "Bearer é"]  # fmt: skip
    for authorization in wrong:
        headers = {"Authorization": authorization.encode()} if authorization else {}
        for method, path in (
            ("GET", "/metrics"), ("GET", "/v1/models"), ("POST", "/v1/chat/completions")
        ):  # fmt: skip
            answer = httpx.request(method, base + path, headers=headers, timeout=60)
            error = error_of(answer, 401)
            assert error["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"
        assert httpx.get(f"{base}/healthz", headers=headers, timeout=60).json() == {
            "status": "ok"
        }
        assert httpx.get(f"{base}/readyz", headers=headers, timeout=60).json() == {
            "ready": True
        }
    for key in (KEY, "another-key-of-ours"):
        assert post(running.url, ask(), key=key).status_code == 200
    headers = {"Authorization": f"bearer   {KEY}"}
    text = httpx.get(f"{base}/metrics", headers=headers, timeout=60).text
    assert "qwen_wait_seconds_bucket" in text
    assert 'qwen_answers_total{status="401"}' in text


def test_every_key_is_compared(monkeypatch):
    keys = {f"client {n}": f"key-number-{n:010}" for n in range(20)}
    made, compared = ChatService(None, keys=keys), []
    real = hmac.compare_digest
    monkeypatch.setattr(
        hmac, "compare_digest", lambda a, b: compared.append(1) or real(a, b)
    )
    for key in (keys["client 0"], keys["client 19"], "none of them"):
        compared.clear()
        if key in keys.values():
            assert keys[made.client(f"Bearer {key}")] == key
        else:
            with pytest.raises(ApiError):
                made.client(f"Bearer {key}")
        assert len(compared) == 20


@pytest.mark.parametrize("key", ["", "short", "has a space in it", "ümlaut-ümlaut-üm"])
def test_weak_keys_are_refused(key):
    with pytest.raises(CourseError, match="16 or more"):
        ChatService(None, keys={"me": "a-good-key-of-ours", "you": key})
    with pytest.raises(CourseError):
        ChatService(None, keys={})


def test_other_hosts_paths_and_methods():
    with served(hosts=("127.0.0.1", "localhost", "::1", "[::1]")) as here:
        base = here.url.removesuffix("/v1")
        for host, status in (
            ("127.0.0.1:9", 200), ("localhost", 200), ("evil.example", 400),
            ("localhost.evil.example", 400), ("127.0.0.1@evil.example", 400),
            ("[::1]:80", 200),
        ):  # fmt: skip
            answer = httpx.get(f"{base}/healthz", headers={"Host": host}, timeout=60)
            assert answer.status_code == status, host
        error_of(httpx.get(f"{base}/etc/passwd", timeout=60), 404)
        answer = httpx.get(f"{base}/v1/chat/completions", timeout=60)
        error_of(answer, 405)
        assert answer.headers["allow"] == "POST"
        error_of(post(here.url, ask(), headers={"Content-Type": "text/plain"}), 415)
        assert httpx.get(f"{base}/docs", timeout=60).status_code == 404
        assert "server" not in answer.headers


# ------------------------------------------------------------------------- limits
def test_what_is_too_much_is_refused_with_its_limit():
    limits = replace(FREE, input_tokens=50, output_tokens=30, choices=2)
    with served(limits=limits) as here:
        for more, param, told in (
            (ask("Hello " * 200), "messages", "at most 50"),
            ({"max_tokens": 31}, "max_tokens", "at most 30"),
            ({"max_completion_tokens": 31}, "max_tokens", "at most 30"),
            ({"n": 3}, "n", "at most 2"),
        ):
            error = error_of(post(here.url, ask() | more), 400)
            assert error["param"] == param
            assert told in error["message"]
        open_ended = ask("Hello")
        del open_ended["max_tokens"]
        assert post(here.url, open_ended).json()["usage"]["completion_tokens"] <= 30


@pytest.mark.parametrize(
    "more",
    [
        {"input_tokens": 0}, {"seconds": 0}, {"choices": "2"}, {"body_bytes": None},
        {"requests_per_minute": 0}, {"tokens_per_minute": 1.5},
        {"output_tokens": True},
    ],
)  # fmt: skip
def test_bad_limits_are_refused(more):
    with pytest.raises(CourseError, match=next(iter(more))):
        Limits(**more)


class Kept(MemoryStorage):
    """A storage that keeps its address."""

    STORAGE_SCHEME = ["kept"]
    seen: list[str] = []

    def __init__(self, uri=None, **more):
        self.seen.append(uri)
        super().__init__(uri, **more)


def test_the_storage_is_passed_through_or_refused():
    ChatService(None, Limits(storage="kept://user:word@host:1/x"))
    assert Kept.seen == ["kept://user:word@host:1/x"]
    bad = ["nonsense", "", "mysql://user:word@host", "redis://user:word@host:x"]
    for url in bad:
        with pytest.raises(CourseError, match="counted") as caught:
            ChatService(None, Limits(storage=url))
        assert "word" not in str(caught.value)


class Clock:
    """Stands in for time.time."""

    def __init__(self, now=1.8e9):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(time, "time", made)
    return made


def limited(**rates):
    none = {"requests_per_minute": None, "tokens_per_minute": None}
    return ChatService(None, Limits(**none | rates))


class SlowCounter(Counter):
    """Gives other threads time to count between two steps of one."""

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        time.sleep(0.001)


def test_threads_get_exactly_what_is_there(clock):
    made, taken = limited(tokens_per_minute=20), []
    made._storage.storage = SlowCounter()
    start = threading.Barrier(16)

    def spend():
        start.wait()
        for _ in range(3):
            with contextlib.suppress(ApiError):
                made.spend("me", "tokens")
                taken.append(1)

    threads = [threading.Thread(target=spend) for _ in range(16)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(taken) == 20


def test_headers_tell_what_is_left_and_when_to_come_again(clock):
    made = limited(requests_per_minute=2)
    headers = made.spend("me", "requests", 1)
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "1"
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    made.spend("me", "requests", 1)
    with pytest.raises(ApiError) as caught:
        made.spend("me", "requests", 1)
    error = caught.value
    assert (error.status, error.code) == (429, "rate_limit_exceeded")
    assert error.headers["x-ratelimit-remaining-requests"] == "0"
    assert 1 <= int(error.headers["Retry-After"]) <= 61
    assert made.spend("you", "requests", 1)["x-ratelimit-remaining-requests"] == "1"
    assert limited().spend("me", "requests", 1) == {}
    with pytest.raises(ApiError) as caught:
        limited(tokens_per_minute=9).spend("me", "tokens", 10)
    assert caught.value.status == 400  # waiting would not help


@given(st.integers(1, 4), st.lists(st.integers(0, 40), max_size=40))
def test_no_60_seconds_hold_more_requests_than_the_limit(amount, pauses):
    clock, let_in = Clock(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", clock)
        made = limited(requests_per_minute=amount)
        for seconds in pauses:
            clock.now += seconds + 0.01  # never 60 s to the dot
            inside = [moment for moment in let_in if clock.now - moment <= 60]
            told, headers = 0, {}
            try:
                headers = made.spend("me", "requests")
            except ApiError as error:
                told = int(error.headers["Retry-After"])
            if len(inside) == amount:
                assert 0 < told - (inside[0] + 60 - clock.now) <= 1
                continue
            let_in.append(clock.now)
            left = int(headers["x-ratelimit-remaining-requests"])
            assert left == amount - len(inside) - 1


STEPS = st.lists(
    st.tuples(st.floats(0, 90), st.integers(1, 10), st.sampled_from("ab")), max_size=40
)


@given(st.integers(10, 40), STEPS)
@example(10, [(0.0, 1, "a"), (2.0, 10, "a")])
def test_the_limiter_lets_in_no_more_and_tells_the_truth(amount, steps):
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", clock)
        made, spent = limited(tokens_per_minute=amount), Counter()
        for seconds, cost, who in steps:
            clock.now += seconds
            fits, rate = made._limiters["tokens"].test, made._rates["tokens"]
            minute = int(clock.now // 60)
            try:
                headers = made.spend(who, "tokens", cost)
            except ApiError as error:
                wait, now = int(error.headers["Retry-After"]), clock.now
                assert not fits(rate, who, cost=cost)
                clock.now = now + wait
                assert fits(rate, who, cost=cost)  # after that it is let in,
                clock.now = now + max(0, wait - 1.01)
                assert not fits(rate, who, cost=cost)  # but not a second before
                clock.now = now
                continue
            spent[who, minute] += cost
            assert spent[who, minute] <= amount
            left = int(headers["x-ratelimit-remaining-tokens"])
            assert left == 0 or fits(rate, who, cost=left)
            assert not fits(rate, who, cost=left + 1)


def test_the_limiter_s_memory_is_bounded_by_its_clients(clock):
    made = limited(requests_per_minute=10**6, tokens_per_minute=10**9)
    for _ in range(30):
        clock.now += 31
        for client_number in range(20):
            made.spend(f"client {client_number}", "requests")
            made.spend(f"client {client_number}", "tokens", 3)
    kept = made._storage
    times = lambda: sum(len(times) for times in kept.events.values())  # noqa: E731
    # Of 30 two minutes' counts and one that goes, or times; a thread clears them.
    few = lambda: len(kept.storage) <= 20 * 3 and times() <= 20 * 2  # noqa: E731
    assert until(lambda: made.spend("client 0", "tokens", 1) and few())


def test_a_limited_client_is_told_over_http():
    limits = replace(FREE, requests_per_minute=3, tokens_per_minute=10_000)
    with served(limits=limits, keys={"me": KEY, "you": "another-key-of-ours"}) as here:
        answers = [post(here.url, ask() | {"max_tokens": 1}) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200] * 3 + [429] * 2
        error_of(last := answers[-1], 429)
        assert int(last.headers["retry-after"]) >= 1
        assert last.headers["x-ratelimit-limit-requests"] == "3"
        good = answers[0].headers
        tokens = known().prompt_tokens + 1
        assert good["x-ratelimit-remaining-tokens"] == str(10_000 - tokens)
        with pytest.raises(openai.RateLimitError):
            client(here.url).chat.completions.create(model="chat", **ask())
        assert post(here.url, ask(), key="another-key-of-ours").status_code == 200


# -------------------------------------------------- time, leaving, faults, logs
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_ends_in_time_and_frees_its_row(stream):
    with served(Endless(), replace(FREE, seconds=2.0)) as here:
        answer = post(here.url, endless(stream=stream))
        if stream:
            assert answer.status_code == 200
            last = answer.text.strip().split("\n\n")[-1]
            error = json.loads(last.removeprefix("data: "))["error"]
        else:
            error = error_of(answer, 504)
        assert error["code"] == "timeout"
        assert until(lambda: not here.backend._running)
        (record,) = here.monitor.records()
        assert (record.error, record.stop) == ("TimeoutError", "")
        assert post(here.url, ask() | {"max_tokens": 1}).status_code == 200


def test_a_silent_upstream_takes_no_longer_than_the_limit(monkeypatch):
    monkeypatch.setattr(upstream, "SECONDS", 60.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # never answers
        other = upstream.Upstream(f"http://127.0.0.1:{silent.getsockname()[1]}/v1")
        with served(other, replace(FREE, seconds=0.5)) as here:
            error = error_of(post(here.url, ask()), 504)
    assert error["code"] == "timeout"


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_ends_the_row(stream):
    with served(Endless()) as here:
        with httpx.Client(timeout=0.3) as http:
            address = f"{here.url}/chat/completions"
            body = endless(stream=stream)
            with contextlib.suppress(httpx.ReadTimeout):
                with http.stream("POST", address, json=body) as got:
                    lines = got.iter_lines()
                    assert [next(lines) for _ in range(8)]
                    assert stream
        assert until(lambda: not here.backend._running)
        assert until(lambda: [r.stop for r in here.monitor.records()]) == ["closed"]
        assert post(here.url, ask() | {"max_tokens": 1}).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_the_queue_takes_the_request_off_it(stream):
    local = Held(pocket())
    with served(local) as here:
        first = threading.Thread(target=post, args=(here.url, ask()))
        first.start()
        assert local.reached.wait(60)
        with httpx.Client(timeout=0.3) as http:
            with pytest.raises(httpx.ReadTimeout):
                http.post(f"{here.url}/chat/completions", json=ask(stream=stream))
        assert until(lambda: local.waiting() == 0)
        local.go.set()
        first.join()
        assert [len(jobs) for jobs in local.batches] == [1]


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_before_the_first_chunk_ends_the_work(stream):
    ended = []

    class Late(batching.Local):
        """Gives its first chunk late, as a busy upstream server does."""

        async def stream(self, work, model):
            try:
                await asyncio.sleep(30)
                yield {}
            finally:
                ended.append(work)

    with served(Late(pocket())) as here:
        address = f"{here.url}/chat/completions"
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(address, json=ask(stream=stream), timeout=0.2)
        assert until(lambda: ended, 20)
        assert until(lambda: [r.stop for r in here.monitor.records()]) == ["closed"]


def test_a_full_queue_is_a_503():
    local = Held(pocket(), waiting=2)
    with served(local) as here:
        threads = [threading.Thread(target=post, args=(here.url, ask()))]
        threads[0].start()
        assert local.reached.wait(60)
        threads += [threading.Thread(target=post, args=(here.url, ask(n=2)))]
        threads[1].start()
        assert until(lambda: local.waiting() == 2)
        answer = post(here.url, ask())
        assert error_of(answer, 503)["code"] == "overloaded"
        assert answer.headers["retry-after"] == "1"
        local.go.set()
        [thread.join() for thread in threads]


class Broken:
    """A model that fails with a secret in its words."""

    def __getattr__(self, name):
        return getattr(pocket().model, name)

    def generate(self, **more):
        raise ValueError(SECRET)


class BrokenLater(batching.Local):
    """A back end that fails in preparing, or in the middle of a stream."""

    where = "stream"

    async def prepare(self, *asked):
        if self.where == "prepare":
            raise RuntimeError(SECRET)
        return await super().prepare(*asked)

    async def stream(self, work, model):
        async for chunk in super().stream(work, model):
            yield chunk
        raise RuntimeError(SECRET)


@pytest.mark.parametrize("stream", [False, True])
def test_no_fault_tells_more_than_that_it_happened(stream, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    body = ask(f"Say {SECRET}") | {"stream": stream}
    answers = []
    with served(batching.Local(replace(pocket(), model=Broken()))) as here:
        answers.append(post(here.url, body))
        assert [r.error for r in here.monitor.records()] == ["ValueError"]
    later = BrokenLater(pocket())
    with served(later) as here:
        answers.append(post(here.url, body))
        later.where = "prepare"
        answers.append(post(here.url, body))
        assert here.monitor.records()[0].error == "RuntimeError"
    for number, answer in enumerate(answers):
        in_time = stream and number < 2
        assert answer.status_code == (200 if in_time else 500)
        text = answer.text.strip().split("\n\n")[-1].removeprefix("data: ")
        error = json.loads(text)["error"]
        assert error["type"] == "server_error"
        assert SECRET not in answer.text
    logged = caplog.text + "".join(capfd.readouterr())
    assert SECRET not in logged
    assert "RuntimeError" in logged


def test_no_content_is_logged_unless_asked(tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "log"
    made = ChatService(
        batching.Local(pocket()), FREE, monitor=monitor.Monitor(log=file)
    )
    with server.running(service.create_app(made)) as url:
        for more in ({}, {"stream": True}, {"top_p": 7}, {"n": 99}, {"model": "x"}):
            post(url, ask(f"Say {SECRET}") | more)
        post(url, f'{{"messages": "{SECRET}"'.encode())
        metrics = httpx.get(url.replace("/v1", "/metrics"), timeout=60).text
    text = caplog.text + "".join(capfd.readouterr()) + metrics + file.read_text()
    assert len(file.read_text().splitlines()) == 2
    assert SECRET not in text
    assert known().text not in text


def test_malformed_conversations_are_400s(running):
    for messages in (
        [], [{}], [5], "Hi", None, {"role": "user"},
        [{"role": "robot", "content": "Hi"}], [{"role": "user", "content": None}],
        [{"role": "user", "content": 5}], [{"role": "user", "content": {"a": 1}}],
        [{"role": "user", "content": [{"type": ["text"]}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
        [{"role": "user", "content": [[]]}],
        [{"role": ["user"], "content": "Hi"}], [{"role": {}, "content": "Hi"}],
        [{"role": "assistant", "content": None, "tool_calls": [{"function": 5}]}],
        [{"role": "assistant", "tool_calls": {"a": 1}}],
    ):  # fmt: skip
        error_of(post(running.url, ask() | {"messages": messages}), 400)
    deep = b'{"messages": [{"role": "user", "content": ' + b"[" * 9000
    for body in (
        b"", b"{", b"[]", b"NaN", deep, deep + b"]" * 9000 + b"}]}", b"\xff",
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "Hi"}], "seed": 1e999}',
        b'{"messages": [{"role": "user", "content": NaN}]}',
        b'{"messages": [{"role": "user", "content": "Hi"}], "tools": [{"a": 1e999}]}',
        b'{"messages": [{"role": "user", "content": "Hi"}], "n": ' + b"9" * 999 + b"}",
    ):  # fmt: skip
        answer = post(running.url, body)
        assert answer.status_code in (200, 400), body[:80]
        if answer.status_code == 400:
            error_of(answer, 400)
    assert post(running.url, ask()).status_code == 200


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize(
    "tools",
    [
        [{}],
        [{"type": "function"}],
        [{"function": 5}],
        [TOOL | {"x": [1, None]}],
        [{"function": {"name": "f" * 9, "parameters": {"\x00": [[[]]]}}}],
    ],
)
def test_strange_tools_are_answered(running, tools):
    assert post(running.url, ask() | {"tools": tools}).status_code in (200, 400)


# --------------------------------------------------------------------- attacks
@pytest.mark.slow
def test_schemathesis_finds_no_fault():
    import schemathesis
    from hypothesis import HealthCheck
    from hypothesis import settings as examples
    from schemathesis.checks import not_a_server_error

    limits = replace(FREE, output_tokens=8, choices=2)
    made = ChatService(batching.Local(pocket()), limits, {"me": KEY})
    app = service.create_app(made)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    seen, known_fields = Counter(), {*ChatRequest.model_fields}

    def attack(case):
        answer = case.call(headers={"Authorization": f"Bearer {KEY}"})
        seen[case.operation.path, answer.status_code] += 1
        case.validate_response(answer, checks=[not_a_server_error])

    def attack_deeper(case):
        """Replace what every random request is refused for."""
        if isinstance(case.body, dict):
            body = {n: v for n, v in case.body.items() if n in known_fields}
            case.body = body | ask() | {"model": None, "max_tokens": 2}
        attack(case)

    for result in schema.get_all_operations():
        strategy = result.ok().as_strategy()
        for attacker in (attack, attack_deeper):
            few = examples(max_examples=100, suppress_health_check=[*HealthCheck],
                           database=None, derandomize=True)  # fmt: skip
            few(given(strategy)(attacker))()
    asyncio.run(made.backend.close())
    print(seen)
    assert {path for path, _ in seen} >= {"/v1/chat/completions", "/metrics"}
    assert seen["/v1/chat/completions", 200] > 10
    assert seen["/v1/chat/completions", 400] > 100
    assert not [code for _, code in seen if code >= 500]


@pytest.mark.slow
def test_sixty_four_clients_that_misbehave():
    expected = {text: known(text).text for text in QUESTIONS}
    local = batching.Local(pocket(), waiting=24)
    limits = replace(FREE, body_bytes=20_000, input_tokens=500)
    counts = Counter()

    async def one(url, number, http):
        rng = random.Random(number)
        address = f"{url}/chat/completions"
        key = {"Authorization": f"Bearer {KEY}"}
        for _ in range(5):
            text = rng.choice(QUESTIONS)
            body = ask(text)
            kind = rng.choice(
                ["plain", "plain", "stream", "cancel", "leave", "no key", "oversize",
                 "malformed", "long", "type"]
            )  # fmt: skip
            counts[kind] += 1
            if kind in ("plain", "stream"):
                for _ in range(200):
                    body["stream"] = kind == "stream"
                    answer = await http.post(address, json=body, headers=key)
                    if answer.status_code != 503:
                        break
                    error_of(answer, 503)
                    assert answer.headers["retry-after"] == "1"
                    counts["full"] += 1
                    await asyncio.sleep(rng.random() / 5)
                assert answer.status_code == 200, answer.text
                if kind == "stream":
                    *lines, last = answer.text.strip().split("\n\n")
                    assert last == "data: [DONE]"
                    whole = fold(json.loads(line[6:]) for line in lines)
                else:
                    whole = answer.json()
                assert whole["choices"][0]["message"]["content"] == expected[text]
                counts["right"] += 1
            elif kind == "cancel":
                async with http.stream(
                    "POST", address, json=body | {"stream": True}, headers=key
                ) as answer:
                    assert answer.status_code in (200, 503)
                    async for _ in answer.aiter_lines():
                        if rng.random() < 0.3:
                            break
            elif kind == "leave":
                late = http.post(address, json=body, headers=key)
                try:
                    async with asyncio.timeout(rng.random() / 10):
                        answer = await late
                    assert answer.status_code in (200, 503)
                except TimeoutError:
                    counts["left"] += 1
            else:
                wrong = {"content": json.dumps(body), "headers": dict(key)}
                wrong["headers"]["Content-Type"] = "application/json"
                status = {"no key": 401, "oversize": 413, "malformed": 400,
                          "long": 400, "type": 415}[kind]  # fmt: skip
                if kind == "no key":
                    wrong["headers"]["Authorization"] = "Bearer wrong"
                elif kind == "oversize":
                    wrong["content"] = json.dumps(ask("x" * 30_000))
                elif kind == "malformed":
                    wrong["content"] = wrong["content"][: rng.randrange(40)]
                elif kind == "long":
                    wrong["content"] = json.dumps(ask("Hello " * 900))
                else:
                    wrong["headers"]["Content-Type"] = "text/plain"
                error_of(await http.post(address, **wrong), status)
                counts["refused"] += 1

    async def story(url):
        most = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(timeout=60, limits=most) as http:
            await asyncio.gather(*(one(url, number, http) for number in range(64)))

    peak = []
    with served(local, limits, {"me": KEY}) as here:
        watched = threading.Event()

        def watch():
            while not watched.wait(0.005):
                peak.append(local.waiting())

        thread = threading.Thread(target=watch)
        thread.start()
        asyncio.run(story(here.url))
        watched.set()
        thread.join()
        assert until(lambda: local.waiting() == 0 and not local._running)
        assert (
            post(here.url, ask()).json()["choices"][0]["message"]["content"]
            == (expected["Hello"])
        )
        assert len(here.monitor.records()) <= 1000
    print(counts, "most waiting:", max(peak))
    assert max(peak) <= 24
    assert counts["right"] == counts["plain"] + counts["stream"]
    assert counts["refused"] > 100
    assert not local._thread.is_alive()


def test_a_closing_server_answers_who_waits(caplog):
    local, answers = Endless(batch=1), []

    def one(url):
        answers.append(post(url, endless()).status_code)

    before = {*threading.enumerate()}
    with served(local) as here:
        threads = [threading.Thread(target=one, args=(here.url,)) for _ in range(4)]
        [thread.start() for thread in threads]
        assert until(lambda: local._running and local.waiting() == 3)
    [thread.join(60) for thread in threads]
    assert answers == [503] * 4
    assert "Traceback" not in caplog.text
    assert not local._thread.is_alive()
    assert until(lambda: not {*threading.enumerate()} - before)
