"""A back end on a model in this process: waiting requests are generated side by side.

One worker thread takes the oldest waiting row and with it all that may share its batch.
A batch runs until its last row is done, and only then come the next ones ("dynamic
batching"; vLLM lets new rows in at every token, "continuous batching").
"""

import asyncio
import json
import threading
import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from qwen_course import chat, generate
from qwen_course.errors import CourseError, MalformedMessages, TooLong
from qwen_course.generate import Piece, Reply, Row
from qwen_course.protocol import ApiError, ChatRequest, Chunk, Chunks, Work

_CALL = "<tool_call>"


@dataclass(eq=False)
class _Job:
    row: Row
    work: Work
    hear: Any  # takes a Piece, the Reply or an error; from any thread

    @property
    def tokens(self) -> int:
        """Return the places that it may fill in the cache."""
        return len(self.row.prompt) + self.row.most


class Local:
    """A back end on a loaded model.

    Args:
        loaded: as `models.load` gives it.
        batch: rows in a batch; 1 makes a queue of single requests.
        batch_tokens: places in the cache of a batch (rows x longest row).
        waiting: rows that may wait; more get status 503, of one request 400.
        window: seconds without a newcomer after which a batch starts.
    """

    def __init__(
        self, loaded: Any, *, batch: int = 16, batch_tokens: int = 32_768,
        waiting: int = 64, window: float = 0.002,
    ) -> None:  # fmt: skip
        """Start the worker."""
        if batch < 1:
            raise CourseError(f"A batch of {batch} holds no row.", "take 1 or more.")
        self.loaded, self.batch, self.batch_tokens = loaded, batch, batch_tokens
        self.most_waiting, self.window = waiting, window
        self._waiting: list[_Job] = []
        self._running: list[_Job] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    async def names(self) -> list[str]:
        """Return the model's name, then its role."""
        source = self.loaded.source
        return [*dict.fromkeys([source.name, source.role])]

    async def prepare(self, request: ChatRequest, output_tokens: int) -> Work:
        """Return the request as rows of tokens, made in a thread of its own."""
        return await asyncio.to_thread(self._prepare, request, output_tokens)

    def _prepare(self, request: ChatRequest, output_tokens: int) -> Work:
        settings, n = request.settings(), request.n or 1
        if n > max(1, self.most_waiting):
            raise ApiError(400, f"n is at most {self.most_waiting} here.", param="n")
        tools = request.tools if request.tool_choice != "none" else None
        messages = [*map(_plain, request.messages)]
        try:
            rows = [Row(self.loaded, messages, settings, tools) for _ in range(n)]
        except CourseError as error:  # about the request, in words for its sender
            told = f"{error.message} {error.hint[:1].upper()}{error.hint[1:]}".strip()
            told = told.replace("max_new_tokens", "max_tokens")  # the API's name
            about = isinstance(error, MalformedMessages | TooLong)
            code = "context_length_exceeded" if isinstance(error, TooLong) else None
            param = "messages" if about else None
            raise ApiError(400, told, param=param, code=code) from None
        for number, row in enumerate(rows):
            row.most = min(row.most, output_tokens)
            if row.settings.seed is not None:  # else all n replies were the same
                seed = (row.settings.seed + number) % 2**63
                row.settings = generate.replace(row.settings, seed=seed)
        return Work(len(rows[0].prompt), sum(row.most for row in rows), (rows, tools))

    async def stream(self, work: Work, model: str) -> AsyncGenerator[Chunk, None]:
        """Return the chunks of the reply; closing the iterator ends its rows."""
        loop = asyncio.get_running_loop()
        items: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()
        rows, tools = work.job
        jobs = []
        for index, row in enumerate(rows):

            def hear(item: Any, index: int = index) -> None:
                with suppress(RuntimeError):  # the loop has ended: nobody listens
                    loop.call_soon_threadsafe(items.put_nowait, (index, item))

            row.hear = hear
            jobs.append(_Job(row, work, hear))
        work.arrived = time.perf_counter()
        self._enter(jobs)
        chunks, calls = Chunks(model), [_Calls(bool(tools)) for _ in rows]
        try:
            for index in range(len(rows)):
                yield chunks.delta(index, role="assistant", content="")
            while len(work.replies) < len(rows):
                index, item = await items.get()
                if isinstance(item, ApiError):
                    raise item
                if isinstance(item, Exception):
                    raise ApiError(500, "The model failed.", "server_error") from item
                if isinstance(item, Reply):
                    work.replies.append(item)
                    for delta in calls[index].end():
                        yield chunks.delta(index, **delta)
                    called = calls[index].found and item.stop == "stop"
                    yield chunks.delta(index, "tool_calls" if called else item.stop)
                elif item.kind == "thinking":
                    yield chunks.delta(index, reasoning_content=item.text)
                elif text := calls[index].put(item):
                    yield chunks.delta(index, content=text)
            yield chunks.usage(work.replies)
        finally:
            self._leave(jobs)

    def _enter(self, jobs: list[_Job]) -> None:
        with self._changed:
            if self._closed:
                raise _closing()
            if len(self._waiting) + len(jobs) > self.most_waiting:
                told = f"{len(self._waiting)} requests are waiting: try again later."
                wait = {"Retry-After": "1"}
                raise ApiError(503, told, "server_error", None, "overloaded", wait)
            self._waiting += jobs
            self._changed.notify()

    def _leave(self, jobs: list[_Job]) -> None:
        """End rows that nobody waits for any more; a batch drops them at its token."""
        with self._changed:
            for job in jobs:
                job.row.stop = job.row.stop or "closed"
            self._waiting = [job for job in self._waiting if job not in jobs]

    def _take(self) -> list[_Job]:
        """Return the next batch, taken off the queue; [] when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            full = lambda: len(self._waiting) >= self.batch or self._closed  # noqa: E731
            here, end = 0, time.monotonic() + 10 * self.window
            while here < len(self._waiting) < self.batch and time.monotonic() < end:
                here = len(self._waiting)  # more came: perhaps they are not the last
                self._changed.wait_for(full, self.window)
            if self._closed or not self._waiting:  # a lone one can have left
                return []
            first, *others = self._waiting
            taken, longest = [first], first.tokens
            used = first.row.settings  # a seed is kept by going alone
            for job in others if not used.temperature or used.seed is None else []:
                alike = job.row.sampling == first.row.sampling
                widest = max(longest, job.tokens)
                fits = widest * (len(taken) + 1) <= self.batch_tokens
                if alike and fits and len(taken) < self.batch:
                    taken.append(job)
                    longest = widest
            self._waiting = [job for job in self._waiting if job not in taken]
            self._running = taken
        return taken

    def _work(self) -> None:
        while not self._closed:
            if not (jobs := self._take()):
                continue
            for job in jobs:
                job.work.started = job.work.started or time.perf_counter()
            try:
                generate.side_by_side(self.loaded, [job.row for job in jobs])
            except Exception as error:  # theirs; the worker goes on
                for job in jobs:
                    job.hear(error)
            finally:
                with self._changed:
                    self._running = []

    def waiting(self) -> int:
        """Return how many rows wait."""
        return len(self._waiting)

    async def ready(self) -> bool:
        """Return whether the worker lives."""
        return self._thread.is_alive() and not self._closed

    async def close(self) -> None:
        """End the rows that run, refuse those that wait, stop the worker."""
        with self._changed:
            self._closed = True
            for job in [*self._waiting, *self._running]:
                job.row.stop = job.row.stop or "closed"
                job.hear(_closing())
            self._waiting.clear()
            self._changed.notify_all()
        await asyncio.to_thread(self._thread.join)


def _closing() -> ApiError:
    return ApiError(503, "The server is closing.", "server_error")


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose parts of text are joined, as the templates want it."""
    parts = message.get("content")
    if isinstance(parts, list):
        kinds = [part.get("type") if isinstance(part, dict) else None for part in parts]
        if any(kind != "text" for kind in kinds):
            told = f"This model reads text only, got parts {kinds!r:.80}."
            raise ApiError(400, told, param="messages")
        texts = [part.get("text") for part in parts]
        if not all(isinstance(text, str) for text in texts):
            raise ApiError(400, "A text part needs a text.", param="messages")
        message = message | {"content": "".join(texts)}
    if message.get("role") == "developer":  # OpenAI's newer word for it
        message = message | {"role": "system"}
    return message


class _Calls:
    """Holds back what may be a call of a tool, and reads it at the end."""

    def __init__(self, wanted: bool) -> None:
        self.wanted, self.held, self.found = wanted, "", False

    def put(self, piece: Piece) -> str:
        """Return the text that can be shown now."""
        if not self.wanted:
            return piece.text
        self.held += piece.text
        place, size = self.held.find(_CALL), len(self.held)
        if place < 0:  # perhaps it begins in the last characters
            sizes = range(len(_CALL) - 1, 0, -1)
            place = size - next((n for n in sizes if self.held.endswith(_CALL[:n])), 0)
        place = len(self.held[:place].rstrip())
        ready, self.held = self.held[:place], self.held[place:]
        return ready

    def end(self) -> Iterator[dict[str, Any]]:
        """Return the last deltas: the calls, or the text that was none."""
        found = chat.parse_tool_calls(self.held) if _CALL in self.held else []
        self.found = bool(found)
        if self.held and not found:
            yield {"content": self.held}
        for index, call in enumerate(found):
            arguments = json.dumps(call["arguments"], ensure_ascii=False)
            function = {"name": call["name"], "arguments": arguments}
            made = {"index": index, "id": f"call_{uuid.uuid4().hex[:24]}"}
            yield {"tool_calls": [made | {"type": "function", "function": function}]}
