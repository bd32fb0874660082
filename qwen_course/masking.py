"""Chat examples as tokens with a loss mask: what counts is what the model must write.

Uses the model's own template; knows no training. Shapes: [B, T] are B rows of T tokens.
"""

import contextlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from qwen_course import chat
from qwen_course.errors import CourseError

Example = Any  # a list of messages, or a dict of "messages" and, if any, "tools"
NOT_COUNTED = -100  # the label that cross-entropy leaves out


class Row(NamedTuple):
    """One text to train on; labels are its ids where the loss counts, else -100."""

    input_ids: list[int]
    labels: list[int]
    example: int  # which example it was made of


def tokenize(
    tokenizer: Any,
    examples: Sequence[Example],
    max_length: int = 1024,
    thinking: bool | None = False,
    name: str = "Example",
) -> list[Row]:
    """Return the rows of chat examples; each assistant turn is learnt exactly once.

    What counts is what the model will have to write: the tokens between the prompt,
    as serving renders it, and the end-of-turn token, which counts too. A conversation
    is one row as long as each prompt continues the text before it; templates that
    drop old thoughts (Qwen3) break that, and the turn begins a row of its own.

    Args:
        tokenizer: brings the chat template.
        examples: lists of messages, or dicts of "messages" and perhaps "tools".
        max_length: tokens; CourseError with the number of a longer example.
        thinking: goes to the template for turns without a thought. False puts the
            empty thought of Qwen3 into the prompt. None lets the model learn to write
            it, which teaches it not to think.
        name: what errors call an example.
    """
    if not isinstance(examples, Sequence) or isinstance(examples, str) or not examples:
        rule = f"examples must be a list of one or more, got {examples!r:.60}."
        hint = 'Pass [{"messages": [...]}, ...]; of a Dataset, list(dataset).'
        raise CourseError(rule, hint)
    rows: list[Row] = []
    for number, example in enumerate(examples):
        with _told(f"{name} {number}"):
            rows += _tokenize_one(tokenizer, example, number, max_length, thinking)
    return rows


@contextlib.contextmanager
def _told(place: str) -> Iterator[None]:
    """Put the place before the message of a CourseError."""
    try:
        yield
    except CourseError as error:
        raise type(error)(f"{place}: {error.message}", error.hint) from None


def _parts(example: Example) -> tuple[list[chat.Message], Any]:
    """Return messages and tools of an example."""
    messages, tools = example, None
    if isinstance(example, dict):
        if "messages" not in example:
            rule = f'an example is a dict with "messages", got {example!r:.60}.'
            raise CourseError(rule, 'Write {"messages": [{"role": ...}, ...]}.')
        messages, tools = example["messages"], example.get("tools")
    chat.validate(messages)
    return [chat.with_dicts(message) for message in messages], tools


def _tokenize_one(
    tokenizer: Any, example: Example, number: int, limit: int, thinking: bool | None
) -> list[Row]:
    messages, tools = _parts(example)
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns or turns[-1] != len(messages) - 1:
        rule = "the last message must be the assistant's: it is what is learnt."
        raise CourseError(rule, "Add the answer, or cut what follows it.")
    if turns[0] == 0:
        rule = "the first message is the assistant's: nothing is asked before it."
        raise CourseError(rule, "Put the user's message before it.")
    rows: list[Row] = []
    for turn in turns:
        message = messages[turn]
        content = message.get("content") or ""
        thought = (message.get("reasoning_content") or "").strip()
        if not isinstance(content, str):
            rule = f"message {turn}, the assistant's answer, must be one text."
            raise CourseError(rule, "Join the parts of the list.")
        if not content.strip() and not message.get("tool_calls"):
            rule = f"message {turn}, the assistant's answer, is empty."
            raise CourseError(rule, "Write an answer, or leave the example out.")
        if "</think>" in content and "</think>" in str(tokenizer.chat_template):
            rule = f"message {turn} has a thought, or its end, in its content."
            raise CourseError(rule, 'Put the thought into "reasoning_content".')
        mode = True if thought else thinking
        prompt = chat.encode(tokenizer, messages[:turn], tools, mode)
        whole = chat.encode(tokenizer, messages[: turn + 1], tools, mode, False)
        if whole[: len(prompt)] != prompt:
            rule = f"what serving asks before message {turn} is not how it is trained."
            raise CourseError(rule, "Use the template that the model is served with.")
        if thought and "</think>" not in tokenizer.decode(whole[len(prompt) :]):
            rule = f"the template leaves out the thought of message {turn}."
            raise CourseError(rule, "Leave reasoning_content out, or tune a thinker.")
        end = tokenizer.eos_token_id
        if end not in whole[len(prompt) :]:
            rule = f"the template does not end message {turn} with the token {end}."
            raise CourseError(rule, "Set tokenizer.eos_token to the end of a turn.")
        whole = whole[: len(whole) - whole[::-1].index(end)]  # up to the last end
        if len(whole) > limit:
            rule = f"{len(whole):,} tokens, {limit:,} are allowed."
            raise CourseError(rule, "Shorten it; raise max_length if there is room.")
        labels = [NOT_COUNTED] * len(prompt) + whole[len(prompt) :]
        if rows and prompt[: len(rows[-1].labels)] == rows[-1].input_ids:
            earlier = rows.pop().labels  # this row goes on where that one ended
            labels[: len(earlier)] = earlier
        rows.append(Row(whole, labels, number))
    return rows


def collate(rows: Sequence[Row], padding: int) -> tuple[Tensor, Tensor]:
    """Return input_ids and labels [B, T], padded on the right.

    No attention mask: a causal model never looks to the right, where the padding is.
    """
    ids = [torch.tensor(row.input_ids) for row in rows]
    labels = [torch.tensor(row.labels) for row in rows]
    return pad_sequence(ids, True, padding), pad_sequence(labels, True, NOT_COUNTED)


def refuse_leaks(
    examples: Sequence[Example], tests: Sequence[Example], name: str = "test"
) -> None:
    """Raise CourseError when an example asks what a test asks, whatever it answers.

    The system and user messages before each answer are compared, since each answer is
    learnt, with all of a test; a paraphrase is not found.
    """

    def questions(place: str, example: Example) -> list[str]:
        with _told(place):
            messages, _ = _parts(example)
        asked: list[list[str]] = []
        found: list[str] = []
        for message in messages:
            if message["role"] == "assistant":
                found.append(json.dumps(asked))
            elif message["role"] in ("system", "user"):
                content = message["content"]
                if isinstance(content, list):  # the API's form of the same text
                    content = "".join(str(p.get("text", p)) for p in content)
                asked.append([message["role"], content.strip()])
        return [*found, json.dumps(asked)]

    places = {questions(f"{name} {n}", test)[-1]: n for n, test in enumerate(tests)}
    for number, example in enumerate(examples):
        for asked in questions(f"Example {number}", example):
            if asked in places:
                rule = f"Example {number} asks what {name} {places[asked]} asks."
                raise CourseError(rule, "Take it out: the result would mean nothing.")
