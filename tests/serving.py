"""For tests of the service: pocket models, a running server, its clients."""

import contextlib
import copy
import threading
import time
from dataclasses import replace
from functools import lru_cache

import httpx
import openai

from qwen_course import batching, generate, models, server, service
from qwen_course.generate import Settings

KEY = "a-key-of-the-tests-0"
FREE = service.Limits(
    requests_per_minute=None, tokens_per_minute=None, output_tokens=2000
)


def ask(text="Hello", **more):
    """Return a greedy request of one message; a text makes the conversation."""
    messages = [{"role": "user", "content": text}]
    return {"messages": messages, "temperature": 0, "max_tokens": 24} | more


def endless(**more):
    """Return a request that an Endless answers for seconds."""
    return ask() | {"max_tokens": 1900} | more


@lru_cache
def pocket(name="pocket-chat"):
    models.quiet()
    return models.load(name)


def known(text="Hello", name="pocket-chat", **more):
    """Return the direct reply to the request that `ask` makes."""
    wanted = Settings(**({"temperature": 0, "max_new_tokens": 24} | more))
    return generate.reply(pocket(name), ask(text)["messages"], wanted)


class Watched(batching.Local):
    """Keeps how many rows each batch had."""

    def __init__(self, *args, **more):
        self.batches = []
        super().__init__(*args, **more)

    def _take(self):
        if jobs := super()._take():
            self.batches.append([*jobs])
        return jobs


class Held(Watched):
    """Its model waits before each batch until it is let go."""

    def __init__(self, *args, **more):
        self.go, self.reached = threading.Event(), threading.Event()
        super().__init__(*args, **more)

    def _take(self):
        if jobs := super()._take():
            self.reached.set()
            self.go.wait(120)
        return jobs


class Endless(batching.Local):
    """Its replies go on until their limit, or until their client leaves.

    A token takes 4 ms or more, so that a reply takes seconds on any machine.
    """

    def __init__(self, **more):
        model = copy.deepcopy(pocket().model)
        model.generation_config.eos_token_id = None
        model.register_forward_hook(lambda *_: time.sleep(0.004))
        super().__init__(replace(pocket(), model=model), **more)

    def _prepare(self, *asked):
        work = super()._prepare(*asked)
        for row in work.job[0]:
            row.ends = set()
        return work


@contextlib.contextmanager
def served(backend=None, limits=FREE, keys=None, hosts=(), **more):
    """Return a context with a running service: an object with url and service."""
    import torch

    backend = backend or batching.Local(pocket(), **more)
    made = service.ChatService(backend, limits, keys)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # server and clients need the other processors
    try:
        with server.running(service.create_app(made, hosts)) as url:
            made.url = url
            yield made
    finally:
        torch.set_num_threads(threads)


def post(url, body=None, key=KEY, **more):
    """Return the answer of a raw request."""
    headers = {"Authorization": f"Bearer {key}"} | more.pop("headers", {})
    given = {"content": body} if isinstance(body, bytes) else {"json": body}
    if isinstance(body, bytes):
        headers = {"Content-Type": "application/json"} | headers
    address = f"{url}/chat/completions"
    return httpx.post(address, headers=headers, timeout=30, **given, **more)


def client(url, key=KEY, kind=openai.OpenAI):
    return kind(base_url=url, api_key=key, max_retries=0, timeout=30)


def until(holds, seconds=60.0):
    """Return whether something comes to hold within the time."""
    end = time.monotonic() + seconds
    while not (now := holds()) and time.monotonic() < end:
        time.sleep(0.01)
    return now
