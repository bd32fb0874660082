"""Replies: one reply, a stream of pieces, a batch.

All go through one call of `model.generate`, whose stopping criterion hands each new
token to its row, and differ only in who listens. Knows no roles, loads nothing.
"""

import functools
import math
import queue
import threading
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from qwen_course import catalog, chat
from qwen_course.errors import CourseError, TooLong
from qwen_course.replies import EARLY_STOP, Piece, Reply, Settings
from qwen_course.room import Room

Messages = list[dict[str, Any]]
_ONE_AT_A_TIME = threading.Lock()  # torch has one random generator


@functools.lru_cache
def _published(name: str, thinking: bool, data: Path) -> dict[str, Any]:
    """Return what is published for a mode of a model; {} for one without a card."""
    try:
        card = catalog.find(name)
        modes = catalog.MODES.get(card.thinking, (False,))
        mode = thinking if thinking in modes else modes[0]
        return {**catalog.sampling(card, mode), "thinking": mode}
    except CourseError:  # no card, or nothing published for it
        return {}


def effective(loaded: Any, settings: Settings, prompt: str = "") -> Settings:
    """Return the settings with each None replaced by the value used after `prompt`."""
    own = loaded.model.generation_config
    thinking = settings.thinking is not False and not prompt.endswith("</think>\n\n")
    published = _published(loaded.source.name, thinking, catalog.data_dir())
    if published.get("thinking") and settings.temperature == 0:
        told = f"{loaded.source.name} should not think at temperature=0, says its "
        told += "publisher: it may repeat itself without end. Leave temperature out."
        warnings.warn(told, stacklevel=2)
    values: dict[str, Any] = {"temperature": 0.0 if own.do_sample is False else 1.0}
    values |= {"top_p": 1.0, "top_k": 0, "min_p": 0.0}
    values |= {"repetition_penalty": 1.0, "presence_penalty": 0.0}
    for name, off in values.items():
        choices = getattr(settings, name), published.get(name), getattr(own, name, None)
        chosen = next((choice for choice in choices if choice is not None), off)
        values[name] = type(off)(chosen)  # the library takes no int for a float
    return replace(settings, **values)


def reply(
    loaded: Any, messages: Messages, settings: Settings | None = None, tools: Any = None
) -> Reply:
    """Return the model's reply to a conversation."""
    if isinstance(loaded.model, Room):
        *_, last = stream(loaded, messages, settings, tools)
        return last  # type: ignore[return-value]
    return side_by_side(loaded, _rows(loaded, [messages], settings, tools))[0]


def batch(
    loaded: Any, conversations: Sequence[Messages], settings: Settings | None = None
) -> list[Reply]:
    """Return one reply a conversation, generated side by side, padded on the left."""
    if isinstance(loaded.model, Room):  # the server makes the batch
        settings = _checked(conversations, settings)
        with ThreadPoolExecutor(16) as pool:
            return [*pool.map(lambda m: reply(loaded, m, settings), conversations)]
    rows = _rows(loaded, conversations, settings, None)
    return side_by_side(loaded, rows) if rows else []


def stream(
    loaded: Any, messages: Messages, settings: Settings | None = None, tools: Any = None
) -> Generator[Piece | Reply, None, None]:
    """Return an iterator over pieces of text as they are written, the Reply last.

    No piece ends inside a character, and the pieces of a kind make the Reply's text of
    that kind. Closing the iterator stops the generation.
    """
    if isinstance(loaded.model, Room):
        chat.validate(messages)
        return loaded.model.stream(messages, _checked([messages], settings), tools)
    rows = _rows(loaded, [messages], settings, tools)  # what is wrong is said now
    items: queue.SimpleQueue[Any] = queue.SimpleQueue()
    rows[0].hear = items.put

    def work() -> None:
        try:
            side_by_side(loaded, rows)
        except BaseException as error:  # raised again by the reader
            items.put(error)

    def read() -> Generator[Piece | Reply, None, None]:
        thread, item = threading.Thread(target=work, daemon=True), None
        try:
            thread.start()  # inside: a Ctrl-C can come before it returns
            while not isinstance(item, Reply):
                item = items.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            rows[0].stop = rows[0].stop or "closed"
            if thread.is_alive():
                thread.join()

    return read()


class Row:
    """A reply in the making: takes tokens, gives pieces of text, knows when to stop.

    Making one says what is wrong with the conversation. `hear`, when set, is called
    with each `Piece` and, when the row ends, with its `Reply`; setting `stop` to
    "closed" ends the row at the next token, without a Reply.
    """

    hear: Callable[[Piece | Reply], Any] | None = None

    def __init__(self, loaded: Any, messages: Any, settings: Settings, tools: Any):
        tokenizer, thinking = loaded.tokenizer, settings.thinking
        prompt = chat.encode(tokenizer, messages, tools=tools, thinking=thinking)
        parts = [m["content"] for m in messages if isinstance(m.get("content"), list)]
        if any(part["type"] != "text" for content in parts for part in content):
            rule = "generate reads text alone; a message holds a picture or the like."
            raise CourseError(rule, "use loaded.processor, as lesson 04b does.")
        limit = loaded.model.config.get_text_config().max_position_embeddings
        self.most = settings.max_new_tokens or max(1, min(512, limit - len(prompt)))
        total = len(prompt) + self.most
        if total > limit:
            rule = f"Prompt + max_new_tokens: {total}, the model has {limit} positions."
            raise TooLong(rule, "shorten the conversation or lower max_new_tokens.")
        tail = tokenizer.decode(prompt[-8:])
        opened = tail.endswith("<think>\n")
        switch = "enable_thinking" in str(tokenizer.chat_template)
        if thinking not in (None, opened) and not (thinking and switch):
            rule = f"This chat template knows no {thinking=}; it ends in {tail!r}."
            raise CourseError(rule, "leave thinking out, or take another model.")
        own = loaded.model.generation_config.eos_token_id
        self.ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
        self.ends |= {*own} if isinstance(own, list) else {own}
        added = tokenizer.get_added_vocab()
        self.opening, self.closing = map(added.get, ("<think>", "</think>"))
        self.tags = [tag for tag in (self.opening, self.closing) if tag is not None]
        if settings.thinking_budget is not None and self.closing is None:
            rule = f"{loaded.source.name} has no token </think> that ends a thought."
            raise CourseError(rule, "leave thinking_budget out, or take a thinker.")
        self.ends |= {added[text] for text in settings.stop if text in added}
        self.settings = effective(loaded, settings, tail)
        self.decode = tokenizer.backend_tokenizer.decode
        self.prompt, self.kind = prompt, "thinking" if opened else "answer"
        self.texts = {"thinking": "", "answer": ""}
        self.count = {"thinking": 0, "answer": 0}
        self.moments: list[float] = []  # when each token came
        self.pending: list[int] = []  # tokens of a character that is not whole yet
        self.held, self.stop = "", ""  # held: perhaps the start of a stop text
        self.encode = functools.partial(tokenizer.encode, add_special_tokens=False)
        self.thought = [prompt[-1]] if opened else []  # tokens after the opening tag
        self.forced: list[int] = []  # tokens that must come next
        self.injected, self.cut = 0, False

    @property
    def sampling(self) -> tuple[Any, ...]:
        """Return the sampling values, which rows that are made side by side share."""
        used = self.settings
        drawn = used.temperature and (used.top_p, used.top_k, used.min_p, used.seed)
        return used.temperature, used.repetition_penalty, used.presence_penalty, drawn

    def put(self, token: int) -> Piece | None:
        """Return the piece that this token completes, None when there is none yet."""
        self.moments.append(time.perf_counter())
        kind, stops = self.kind, self.settings.stop
        forced = bool(self.forced) and self.forced.pop(0) == token
        self.injected += forced
        if token in self.ends:
            self.stop = "stop"
        elif token == self.opening and not self.texts["answer"] + self.held:
            self.kind = "thinking"
        elif token == self.closing and kind == "thinking":  # later ones are text
            self.kind = "answer"
        elif not forced:
            self.count[kind] += 1
            self.pending.append(token)
            self.thought += [token] * (kind == "thinking")
        if len(self.moments) == self.most:
            self.stop = self.stop or "length"
        last = self.stop or self.kind != kind  # no more text of this kind
        text = self.decode(self.pending, skip_special_tokens=True)
        if text.endswith("\ufffd") and not last:
            return None
        self.pending.clear()
        self.held += text.rstrip("\ufffd")
        if not self.texts[kind]:
            self.held = self.held.lstrip("\n" if kind == "answer" else None)
        hold = 0 if last else max(map(len, stops), default=1) - 1
        ready = self.held[: max(0, len(self.held) - hold)]
        if found := [self.held.find(stop) for stop in stops if stop in self.held]:
            self.stop, ready = "stop", self.held[: min(found)]
        ready = ready.rstrip() if kind == "thinking" else ready
        self.held = "" if last else self.held[len(ready) :]
        self.texts[kind] += ready
        return Piece(ready, kind) if ready else None

    def guide(self, scores: Any) -> None:
        """Make the budget hold: change the scores [vocabulary] of the next token."""
        thinks = self.kind == "thinking" and not self.cut
        ends = thinks and self.count["thinking"] == self.settings.thinking_budget
        if ends and scores.argmax() != self.closing:  # else it ends here by itself
            self.cut, self.forced = True, self.closing_words()
        if ends or self.forced:
            token = self.forced[0] if self.forced else self.closing
            scores.fill_(-math.inf)
            scores[token] = 0.0
        elif self.cut:  # no second thought, and the closing tag only once
            scores[self.tags] = -math.inf

    def closing_words(self) -> list[int]:
        """Return the tokens that close a thought; an empty one as the templates do."""
        thought = self.decode(self.thought)
        words = "" if thought.endswith("\n") else "\n"
        words = words if thought.strip() else "\n\n"[len(thought) :]
        words = words if self.settings.thinking_cut == "cut" else EARLY_STOP
        return [*self.encode(words), self.closing, *self.encode("\n\n")]

    def reply(self, started: float) -> Reply:
        """Return what was written; seconds count from `started`."""
        times = [moment - started for moment in self.moments]
        return Reply(
            text=self.texts["answer"], thinking=self.texts["thinking"],
            prompt_tokens=len(self.prompt), new_tokens=len(times), stop=self.stop,
            thinking_tokens=self.count["thinking"], answer_tokens=self.count["answer"],
            injected_tokens=self.injected, budget_cut=self.cut,
            seconds=times[-1] if times else 0.0,  # none: closed before the first
            first_token_seconds=times[0] if times else 0.0,
            token_seconds=tuple(b - a for a, b in pairwise(times)),
        )  # fmt: skip


def _checked(conversations: Any, settings: Any) -> Settings:
    """Return the settings, or raise what is wrong with the kind of either."""
    if not isinstance(conversations, list | tuple):
        rule = f"A batch is a list of conversations, got {conversations!r:.60}."
        raise CourseError(rule, "write [conversation, conversation].")
    settings = Settings() if settings is None else settings
    if not isinstance(settings, Settings):
        rule = f"settings must be generate.Settings, got {settings!r:.60}."
        raise CourseError(rule, "write generate.Settings(max_new_tokens=64).")
    return settings


def _rows(loaded: Any, conversations: Any, settings: Any, tools: Any) -> list[Row]:
    """Return a row a conversation, or raise what is wrong with one of them."""
    settings = _checked(conversations, settings)
    return [Row(loaded, messages, settings, tools) for messages in conversations]


def side_by_side(loaded: Any, rows: Sequence[Row]) -> list[Reply]:
    """Return the reply of each row, all generated in one batch padded on the left.

    Rows may differ in length limit, stop texts and budget, not in sampling values.
    """
    import torch
    from transformers import GenerationConfig

    if any(row.sampling != rows[0].sampling for row in rows):
        rule = "One batch has one set of sampling values; these prompts need two."
        raise CourseError(rule, "batch those that think apart from the others.")
    started = time.perf_counter()
    device, wanted = loaded.model.device, rows[0].settings
    width = max(len(row.prompt) for row in rows)
    # The padding repeats the row's first token: one of its own would get a penalty.
    lines = [row.prompt[:1] * (width - len(row.prompt)) + row.prompt for row in rows]
    ids = torch.tensor(lines, device=device)
    gaps = torch.tensor([width - len(row.prompt) for row in rows], device=device)
    mask = (torch.arange(width, device=device) >= gaps[:, None]).long()
    names = ["repetition_penalty", "temperature", "top_p", "top_k", "min_p"]
    config = {name: getattr(wanted, name) for name in names}
    if not wanted.temperature:  # greedy: the library warns of values but its own
        config |= {"temperature": 1.0, "top_p": 1.0, "top_k": 50, "min_p": None}
    config["do_sample"] = bool(wanted.temperature)
    config["pad_token_id"] = loaded.tokenizer.pad_token_id
    config["return_dict_in_generate"] = True

    # Rows that are done leave when they are half of all: the others go on faster. Not
    # where drawn tokens depend on all rows, nor where a model keeps more than a cache.
    text = loaded.model.config.get_text_config()
    plain = {"full_attention"} >= {*(getattr(text, "layer_types", None) or ())}
    shrinks = plain and text is loaded.model.config and not wanted.temperature
    live = list(rows)

    def watch(input_ids: Any, scores: Any, **_: Any) -> Any:
        for row, token in zip(live, input_ids[:, -1].tolist(), strict=True):
            if not row.stop:
                piece = row.put(token)
                if row.hear and piece:
                    row.hear(piece)
                if row.hear and row.stop:  # the others may go on
                    row.hear(row.reply(started))
        done = torch.tensor([bool(row.stop) for row in live], device=device)
        return done | (shrinks and len(live) >= 8 and 2 * done.sum() >= len(live))

    def penalise(input_ids: Any, scores: Any) -> Any:
        # As in vLLM the prompt is free, and once written is as much as many times.
        written, penalty = input_ids[:, width:], wanted.presence_penalty
        return scores.scatter(1, written, scores.gather(1, written) - penalty)

    def guide(input_ids: Any, scores: Any) -> Any:
        for row, line in zip(live, scores, strict=True):
            if not row.stop:
                row.guide(line)
        return scores

    processors = [penalise] * bool(wanted.presence_penalty)
    budgets = [row.settings.thinking_budget for row in rows]
    processors += [guide] * any(budget is not None for budget in budgets)
    devices = range(torch.cuda.device_count())
    alone = _ONE_AT_A_TIME if wanted.temperature else nullcontext()
    # torch copies a frozen output head for each row whose hidden state has gaps around
    # it, as the last of a prompt has: 18 GB for 60 rows of a tuned 0.5B.
    whole = loaded.model.get_output_embeddings().register_forward_pre_hook(
        lambda _, given: (given[0].contiguous(),)
    )
    seeded = torch.random.fork_rng(devices, enabled=wanted.seed is not None)
    with alone, seeded, whole:
        if wanted.seed is not None:
            torch.manual_seed(wanted.seed)
        cache = None
        while live:
            config["max_new_tokens"] = max(row.most - len(row.moments) for row in live)
            made = loaded.model.generate(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                generation_config=GenerationConfig(**config),
                logits_processor=processors,
                stopping_criteria=[watch],
            )
            left = [place for place, row in enumerate(live) if not row.stop]
            live = [live[place] for place in left]
            ids, cache = made.sequences[left], made.get("past_key_values")
            new = ids.shape[1] - mask.shape[1]
            mask = torch.nn.functional.pad(mask[left], (0, new), value=1)
            if live and cache is not None:
                cache.batch_select_indices(torch.tensor(left, device=device))
    return [row.reply(started) for row in rows]
