"""Many clients at once ask an OpenAI-compatible server; notes when each token came.

Each client is one person: it asks its next prompt when its last answer is whole. All
replies are greedy and streamed. Used by lesson 08, `cpu_serving.py` and the tests.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from qwen_course import tasks


@dataclass
class Request:
    """One request; moments in seconds since the load began."""

    client: int
    prompt: str
    arrival: float = 0.0  # when it was sent
    moments: list[float] = field(default_factory=list)  # of each piece of text
    end: float = 0.0
    tokens: int = 0  # new ones, as the server counts them
    text: str = ""
    stop: str = ""  # why it ended, or the class of the error
    error: str = ""

    @property
    def wait(self) -> float:
        """Return the seconds until the first text."""
        return (self.moments or [self.end])[0] - self.arrival


@dataclass(frozen=True)
class Load:
    """All requests of a run, in the order in which they were sent."""

    requests: list[Request] = field(repr=False)
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Return the tokens of all clients together, a second."""
        return sum(request.tokens for request in self.requests) / self.seconds


async def ask(client: Any, model: str, request: Request, clock: Any, most: int) -> None:
    """Send one request and fill in what comes back; an error is kept, not raised."""
    import openai

    request.arrival = clock()
    try:
        stream = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": request.prompt}],
            max_tokens=most, temperature=0, stream=True,
            stream_options={"include_usage": True},
            extra_body={"repetition_penalty": 1.0},  # the publisher's own may differ
        )  # fmt: skip
        async for chunk in stream:
            for choice in chunk.choices:
                if choice.delta.content:
                    request.moments.append(clock())
                    request.text += choice.delta.content
                request.stop = choice.finish_reason or request.stop
            if chunk.usage:
                request.tokens = chunk.usage.completion_tokens
    except openai.OpenAIError as error:
        request.stop, request.error = type(error).__name__, str(error)
    request.end = clock()


async def load(
    url: str, model: str, prompts: Sequence[str], clients: int,
    max_tokens: int = 60, key: str = "none",
) -> Load:  # fmt: skip
    """Return what happened when the prompts were shared out among the clients.

    In a notebook: `await load(...)`; in a script: `asyncio.run(load(...))`.
    """
    import openai

    requests = [Request(n % clients, prompt) for n, prompt in enumerate(prompts)]
    once = {"timeout": 180, "max_retries": 0}
    async with openai.AsyncOpenAI(base_url=url, api_key=key, **once) as client:
        await client.models.list()  # connected, and the client's own start is over
        started = time.perf_counter()

        def clock() -> float:
            return time.perf_counter() - started

        async def person(number: int) -> None:
            for request in requests[number::clients]:
                await ask(client, model, request, clock, max_tokens)

        await asyncio.gather(*map(person, range(clients)))
        return Load(sorted(requests, key=lambda r: r.arrival), clock())


def short_prompts(n: int = 16) -> list[str]:
    """Return different short prompts: functions to write, from the course's samples."""
    return [task.question for task in tasks.samples("functions")[:n]]
