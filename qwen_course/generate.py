"""Replies: settings, one reply, a stream of pieces, a batch.

Everything goes through one call of `model.generate`; a stopping criterion that never
stops on its own account reads the clock and hands on each new token. So a reply, a
stream and a batch differ in nothing but who listens. This module receives a loaded
model and never loads one; it knows no roles and no files.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

from qwen_course import catalog, chat
from qwen_course.errors import CourseError

Messages = list[dict[str, Any]]
_RANGES = {
    "temperature": (0, 10),
    "top_p": (0, 1),
    "top_k": (0, 1_000_000),
    "min_p": (0, 1),
    "repetition_penalty": (0.01, 10),
    "presence_penalty": (-2, 2),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to generate. None means: as published for this model and mode.

    The published values are those of data/sampling.csv, then the model's own
    generation config, then "off". `Settings(temperature=0)` is greedy.
    """

    max_new_tokens: int = 512  # hard stop, thinking counts too
    temperature: float | None = None  # 0: greedy, always the likeliest token
    top_p: float | None = None  # keep the likeliest tokens that sum to this; 1: off
    top_k: int | None = None  # keep this many tokens; 0: off
    min_p: float | None = None  # drop tokens below this share of the best; 0: off
    repetition_penalty: float | None = None  # divides seen logits; 1: off
    presence_penalty: float | None = None  # subtracted once a token was written; 0: off
    stop: tuple[str, ...] = ()  # texts that end the reply; they are not part of it
    seed: int | None = None  # same seed, same reply; None: not repeatable
    thinking: bool | None = None  # None: as the chat template decides

    def __post_init__(self) -> None:
        if type(self.max_new_tokens) is not int or self.max_new_tokens < 1:
            raise CourseError(
                f"max_new_tokens must be a whole number from 1 up, got"
                f" {self.max_new_tokens!r}.",
                "try Settings(max_new_tokens=256).",
            )
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and low <= value <= high):
                raise CourseError(
                    f"{name} must lie between {low} and {high}, got {value!r}.",
                    "leave it out to take the value published for the model.",
                )
        if isinstance(self.stop, str) or not all(
            isinstance(text, str) and text for text in self.stop
        ):
            raise CourseError(
                f"stop must be a tuple of texts, got {self.stop!r}.",
                'write stop=("Observation:",).',
            )


@dataclass(frozen=True)
class Reply:
    """A finished reply. Counts are tokens; `seconds` is from call to last token."""

    text: str  # the answer alone; "" when the thought was cut
    thinking: str
    prompt_tokens: int
    new_tokens: int  # all that the model wrote, its end-of-turn token included
    thinking_tokens: int  # between the tags
    answer_tokens: int  # of `text`, without the end-of-turn token
    seconds: float = field(repr=False)
    first_token_seconds: float = field(repr=False)
    token_seconds: tuple[float, ...] = field(repr=False)  # between tokens, second on
    stop: str  # "stop": the model ended it or a stop text came; "length": cut

    @property
    def tokens_per_second(self) -> float:
        """Return the decode speed in tokens a second, the prompt's time left out."""
        total = sum(self.token_seconds)
        return len(self.token_seconds) / total if total else 0.0


@dataclass(frozen=True)
class Piece:
    """A piece of a streamed reply; `kind` is "thinking" or "answer"."""

    text: str
    kind: str


def effective(loaded: Any, settings: Settings, prompt: str = "") -> Settings:
    """Return the settings with every None replaced by the value that will be used."""
    own = loaded.model.generation_config
    thinking = settings.thinking is not False and not prompt.endswith("</think>\n\n")
    try:
        card = catalog.find(loaded.source.name)
        modes = catalog.MODES.get(card.thinking, (False,))
        published = catalog.sampling(card, thinking if thinking in modes else modes[0])
    except CourseError:  # no card, or nothing published for it
        published = {}
    off = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
    off |= {"repetition_penalty": 1.0, "presence_penalty": 0.0}
    values: dict[str, Any] = {}
    for name, nothing in off.items():
        choices = [getattr(settings, name), published.get(name)]
        choices += [getattr(own, name, None), nothing]
        values[name] = next(value for value in choices if value is not None)
    return replace(settings, **values)


def reply(
    loaded: Any,
    messages: Messages,
    settings: Settings | None = None,
    *,
    tools: list[dict[str, Any]] | None = None,
) -> Reply:
    """Return the model's reply to a conversation."""
    return _generate(loaded, [messages], settings, tools)[0]


def batch(
    loaded: Any, conversations: Sequence[Messages], settings: Settings | None = None
) -> list[Reply]:
    """Return one reply a conversation, generated side by side.

    Prompts are padded on the left, so that every row ends where its answer begins.
    """
    return _generate(loaded, conversations, settings, None) if conversations else []


def stream(
    loaded: Any,
    messages: Messages,
    settings: Settings | None = None,
    *,
    tools: list[dict[str, Any]] | None = None,
) -> Iterator[Piece | Reply]:
    """Yield pieces of text as they are written, and the whole Reply last.

    No piece ends inside a character. Closing the iterator stops the generation.
    """
    items: queue.SimpleQueue[Any] = queue.SimpleQueue()
    cancelled = threading.Event()

    def on_token(rows: Any) -> bool:
        items.put(int(rows[0, -1]))
        return cancelled.is_set()

    def work() -> None:
        try:
            items.put(_generate(loaded, [messages], settings, tools, on_token)[0])
        except BaseException as error:  # handed to the reader below
            items.put(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    writer = _Writer(loaded.tokenizer, settings or Settings())
    try:
        while True:
            item = items.get()
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, Reply):
                if rest := writer.rest(item):
                    yield rest
                yield item
                return
            if piece := writer.put(item):
                yield piece
    finally:
        cancelled.set()
        thread.join()


class _Writer:
    """Turn token ids into labelled pieces: whole characters, no tags, no stop text."""

    def __init__(self, tokenizer: Any, settings: Settings) -> None:
        from tokenizers.decoders import DecodeStream

        self.tokenizer = tokenizer
        self.decoder = DecodeStream(skip_special_tokens=True)
        self.tags = _think_ids(tokenizer)
        self.kind, self.held, self.written = "answer", "", ""
        self.stops = settings.stop
        self.hold = max(map(len, settings.stop), default=1) - 1  # a stop text's start

    def put(self, token: int) -> Piece | None:
        """Return the piece that this token completes, None when there is none yet."""
        if token in self.tags:
            self.kind = ("thinking", "answer")[self.tags.index(token)]
            self.held = ""
            return None
        self.held += self.decoder.step(self.tokenizer.backend_tokenizer, token) or ""
        if self.kind == "thinking":
            text, self.held = self.held, ""
            return Piece(text, "thinking") if text else None
        if not self.written:
            self.held = self.held.lstrip("\n")
        if any(stop in self.held for stop in self.stops):
            return None  # `rest` brings what stood before it
        cut = max(len(self.held) - self.hold, 0)
        text, self.held = self.held[:cut], self.held[cut:]
        self.written += text
        return Piece(text, "answer") if text else None

    def rest(self, reply: Reply) -> Piece | None:
        """Return what is left of the answer once the reply is complete."""
        text = reply.text[len(self.written) :]
        return Piece(text, "answer") if text else None


def _think_ids(tokenizer: Any) -> tuple[int, ...]:
    """Return the ids of <think> and </think>, () where they are ordinary text."""
    added = tokenizer.get_added_vocab()
    tags = ("<think>", "</think>")
    return tuple(added[tag] for tag in tags) if set(tags) <= added.keys() else ()


def _generate(
    loaded: Any,
    conversations: Sequence[Messages],
    settings: Settings | None,
    tools: list[dict[str, Any]] | None,
    on_token: Callable[[Any], bool] | None = None,
) -> list[Reply]:
    """Generate for all conversations at once; the one call of `model.generate`."""
    import torch
    from transformers import GenerationConfig

    started = time.perf_counter()
    model, tokenizer = loaded.model, loaded.tokenizer
    settings = settings or Settings()
    prompts = [
        chat.encode(tokenizer, messages, tools=tools, thinking=settings.thinking)
        for messages in conversations
    ]
    width = max(map(len, prompts))
    _need_room(model, width, settings.max_new_tokens)
    tails = [tokenizer.decode(prompt[-8:]) for prompt in prompts]
    wanted = asdict(effective(loaded, settings, tails[0]))
    padding = tokenizer.pad_token_id
    rows = [[padding] * (width - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    stops = {tokenizer.eos_token_id, padding}
    own = model.generation_config.eos_token_id
    stops |= set(own) if isinstance(own, list) else {own}
    config = {
        name: wanted[name] for name in ("max_new_tokens", "repetition_penalty")
    } | {"eos_token_id": sorted(stops - {None}), "pad_token_id": padding}
    if wanted["temperature"]:
        sampled = ("temperature", "top_p", "top_k", "min_p")
        config |= {"do_sample": True} | {name: wanted[name] for name in sampled}
    else:  # the library's own defaults, so that it finds nothing to warn about
        config |= {"do_sample": False, "temperature": 1.0, "top_p": 1.0, "top_k": 50}
    processors = []
    if wanted["presence_penalty"]:
        processors.append(_presence_penalty(width, wanted["presence_penalty"]))
    clock = _Clock(tokenizer, width, settings.stop, on_token)
    with _seeded(model, settings.seed):
        output = model.generate(
            input_ids=torch.tensor(rows, device=model.device),
            attention_mask=torch.tensor(mask, device=model.device),
            generation_config=GenerationConfig(**config),
            logits_processor=processors,
            stopping_criteria=[clock],
        )
    times = [moment - started for moment in clock.moments]
    return [
        _read(tokenizer, output[row, width:].tolist(), stops, settings.stop, times,
              len(prompts[row]), tails[row], clock.stopped.get(row))
        for row in range(len(prompts))
    ]  # fmt: skip


def _need_room(model: Any, prompt_tokens: int, new_tokens: int) -> None:
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if limit and prompt_tokens + new_tokens > limit:
        raise CourseError(
            f"{prompt_tokens} prompt tokens + max_new_tokens={new_tokens} is more than"
            f" the model's {limit} positions.",
            "shorten the conversation or lower max_new_tokens.",
        )


class _Clock:
    """A stopping criterion that notes when tokens come, and sees the stop texts."""

    def __init__(
        self,
        tokenizer: Any,
        width: int,
        texts: tuple[str, ...],
        on_token: Callable[[Any], bool] | None,
    ) -> None:
        self.tokenizer, self.width, self.texts = tokenizer, width, texts
        self.on_token = on_token
        self.moments: list[float] = []
        self.stopped: dict[int, int] = {}  # row -> tokens when a stop text was seen
        self.reach = max((len(text.encode()) for text in texts), default=0) + 1

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        import torch

        self.moments.append(time.perf_counter())
        count = len(self.moments)
        done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        if self.on_token and self.on_token(input_ids):
            done[:] = True
        if self.texts:
            last = input_ids[:, max(self.width, input_ids.shape[1] - self.reach) :]
            for row, text in enumerate(self.tokenizer.batch_decode(last)):
                if any(stop in text for stop in self.texts):
                    self.stopped.setdefault(row, count)
                    done[row] = True
        return done


def _presence_penalty(width: int, penalty: float) -> Callable[[Any, Any], Any]:
    """Return a processor: `penalty` off the logit of every token already written.

    As OpenAI's API and vLLM define it: only the reply counts, not the prompt, and
    once is as much as many times. transformers has no such processor.
    """

    def process(input_ids: Any, scores: Any) -> Any:
        written = input_ids[:, width:]
        lowered = scores.gather(1, written) - penalty
        return scores.scatter(1, written, lowered)

    return process


@contextmanager
def _seeded(model: Any, seed: int | None) -> Iterator[None]:
    """Seed torch for one generation and put the generators back afterwards."""
    import torch

    if seed is None:
        yield
        return
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _read(
    tokenizer: Any,
    ids: list[int],
    stops: set[int],
    texts: tuple[str, ...],
    times: list[float],
    prompt_tokens: int,
    tail: str,
    stopped: int | None,
) -> Reply:
    """Return the Reply for one row of generated ids."""
    ends = [place + 1 for place, token in enumerate(ids) if token in stops]
    ended = stopped or (ends[0] if ends else None)
    ids = ids[: ended or len(times)]
    body = ids[:-1] if ends and ended == ends[0] else ids
    tags, opened = _think_ids(tokenizer), tail.endswith("<think>\n")
    text = tokenizer.decode(body, skip_special_tokens=True)
    parts = chat.Parts("", text, True)
    thought = 0
    if tags and (opened or set(tags) & set(body)):
        parts = chat.split_thinking(text, opened)
        first = body.index(tags[0]) + 1 if tags[0] in body else 0
        closed = tags[1] in body
        last = len(body) - body[::-1].index(tags[1]) if closed else len(body)
        thought = max(0, last - closed - first)
        body = body[last:]
    answer = parts.answer.lstrip("\n")
    if found := [answer.find(stop) for stop in texts if stop in answer]:
        answer = answer[: min(found)]
    token_times = times[: len(ids)]
    return Reply(
        text=answer,
        thinking=parts.thinking,
        prompt_tokens=prompt_tokens,
        new_tokens=len(ids),
        thinking_tokens=thought,
        answer_tokens=len(body),
        seconds=token_times[-1],
        first_token_seconds=token_times[0],
        token_seconds=tuple(b - a for a, b in pairwise(token_times)),
        stop="stop" if ended else "length",
    )
