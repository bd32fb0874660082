"""Chat examples as tokens with a loss mask: what counts is what the model must write.

Uses the model's own template; knows no training. Shapes: [B, T] are B rows of T tokens.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

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
) -> list[Row]:
    """Return the rows of chat examples: every turn of the assistant counts, once.

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
    """
    if not isinstance(examples, Sequence) or isinstance(examples, str) or not examples:
        rule = f"examples must be a list of one or more, got {examples!r:.60}."
        raise CourseError(rule, 'Pass [{"messages": [...]}, ...].')
    rows: list[Row] = []
    for number, example in enumerate(examples):
        try:
            rows += _tokenize_one(tokenizer, example, number, max_length, thinking)
        except CourseError as error:
            raise type(error)(
                f"Example {number}: {error.message}", error.hint
            ) from None
    return rows


def _parts(example: Example) -> tuple[list[chat.Message], Any]:
    """Return messages and tools of an example."""
    if isinstance(example, dict):
        return example.get("messages", []), example.get("tools")
    return example, None


def _tokenize_one(
    tokenizer: Any, example: Example, number: int, limit: int, thinking: bool | None
) -> list[Row]:
    messages, tools = _parts(example)
    chat.validate(messages)
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns or turns[-1] != len(messages) - 1:
        rule = "the last message must be the assistant's: it is what is learnt."
        raise CourseError(rule, "Add the answer, or cut what follows it.")
    rows: list[Row] = []
    for turn in turns:
        message = messages[turn]
        content = message.get("content") or ""
        thought = message.get("reasoning_content") or "<think>" in content
        if not (content and content.strip()) and not message.get("tool_calls"):
            rule = f"message {turn}, the assistant's answer, is empty."
            raise CourseError(rule, "Write an answer, or leave the example out.")
        mode = True if thought else thinking
        prompt = chat.encode(tokenizer, messages[:turn], tools, mode)
        whole = chat.encode(tokenizer, messages[: turn + 1], tools, mode, False)
        if whole[: len(prompt)] != prompt:
            rule = f"what serving asks before message {turn} is not how it is trained."
            raise CourseError(rule, "Use the template that the model is served with.")
        end = tokenizer.eos_token_id
        if end not in whole[len(prompt) :]:
            rule = f"the template does not end message {turn} with the token {end}."
            raise CourseError(rule, "Set tokenizer.eos_token to the end of a turn.")
        whole = whole[: len(whole) - whole[::-1].index(end)]  # up to the last end
        if len(whole) > limit:
            rule = f"{len(whole):,} tokens, {limit:,} are allowed."
            raise CourseError(rule, "Shorten it, or raise max_length.")
        labels = [NOT_COUNTED] * len(prompt) + whole[len(prompt) :]
        if rows and prompt[: len(rows[-1].labels)] == rows[-1].input_ids:
            earlier = rows.pop().labels
            labels[: len(earlier)] = earlier
        rows.append(Row(whole, labels, number))
    return rows


def collate(rows: Sequence[Row], padding: int) -> tuple[Tensor, Tensor]:
    """Return input_ids and labels [B, T], padded on the right.

    No attention mask: a causal model never looks to the right, where the padding is.
    """
    width = max(len(row.labels) for row in rows)
    input_ids = torch.full((len(rows), width), padding)
    labels = torch.full((len(rows), width), NOT_COUNTED)
    for i, row in enumerate(rows):
        input_ids[i, : len(row.labels)] = torch.tensor(row.input_ids)
        labels[i, : len(row.labels)] = torch.tensor(row.labels)
    return input_ids, labels


def refuse_leaks(examples: Sequence[Example], tests: Sequence[Example]) -> None:
    """Raise CourseError when a test stands among the examples, answer or not."""

    def question(example: Example) -> str:
        messages, _ = _parts(example)
        asked = [m for m in messages if m["role"] in ("system", "user")]
        return json.dumps([[m["role"], str(m["content"]).strip()] for m in asked])

    places = {question(test): number for number, test in enumerate(tests)}
    for number, example in enumerate(examples):
        if (found := places.get(question(example))) is not None:
            rule = f"Example {number} asks what test {found} asks."
            raise CourseError(rule, "Take it out: the result would mean nothing.")
