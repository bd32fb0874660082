"""The grammar of pocket-chat: questions x rules for the form of the answer.

`chat_script.toml` is the script and explains its form. Importing this enters the task
"chat" in `qwen_course.tasks`.
"""

import functools
import random
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qwen_course.tasks import Problem, generator

Random = random.Random
RULES = ("plain", "plain", "word", "capitals", "sentence", "french")


@functools.cache
def read_script() -> dict[str, Any]:
    """Return the script of pocket-chat; the file itself explains its form."""
    path = Path(__file__).with_name("chat_script.toml")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def all_kinds() -> list[str]:
    """Return the kinds of questions; a chat problem's level is its kind's place."""
    return [name for name, table in read_script().items() if "share" in table]


@generator
def chat(
    rng: Random,
    kinds: Sequence[str] = (),
    rules: Sequence[str] = RULES,
    in_system: bool | None = None,
) -> Problem:
    """Return a question and an answer of the form that a rule asks for.

    Args:
        rng: draws everything.
        kinds: names in `all_kinds()`; none means all.
        rules: names in RULES.
        in_system: whether the rule stands in the system prompt, else after the
            question; None draws that too.
    """
    script, rule = read_script(), rng.choice(rules)
    tables = {kind: script[kind] for kind in kinds or all_kinds()}
    fit = [k for k, table in tables.items() if rule in table.get("rules", RULES)]
    kind = rng.choices(fit, [tables[k]["share"] for k in fit])[0]
    table, lists = tables[kind], script["shared"] | tables[kind]
    values = row_of(rng, kind)
    question = fill(rng, rng.choice(table["ask"]), values, lists)
    answer = fill(rng, table.get(rule, table["plain"]), values, lists)
    answer = answer.upper() if rule == "capitals" else answer
    speaks = "system" in table or rng.random() < 0.3
    system = rng.choice(lists["system"]) if speaks else ""
    if rule != "plain":
        said = rng.choice(script["rules"][rule])
        if rng.random() < 0.5 if in_system is None else in_system:
            system = f"{system} {said}".strip()
        else:
            question = f"{question} {said}"
    thinking = table["thought"] + script["rules"]["thought"][rule]
    level = all_kinds().index(kind)
    return Problem("chat", question, answer, thinking, level, system)


def row_of(rng: Random, kind: str) -> dict[str, str]:
    """Return one row of a kind's items, by field; sums are computed."""
    table = read_script()[kind]
    row = rng.choice(table.get("items", [()]))
    row = [rng.choice(cell) if isinstance(cell, list) else cell for cell in row]
    values = dict(zip(table.get("fields", ()), row, strict=True))
    if kind == "sum":
        a, b = rng.choices(range(10), k=2)
        a, b = (max(a, b), min(a, b)) if values["op"] == "minus" else (a, b)
        result = {"plus": a + b, "minus": a - b, "times": a * b}[values["op"]]
        values |= {"first": str(a), "second": str(b), "answer": str(result)}
    return values


def fill(rng: Random, text: str, values: dict[str, str], lists: dict[str, Any]) -> str:
    """Return a text with each {field} filled in; what is drawn is kept in `values`."""

    def value(match: re.Match) -> str:
        key = match[1].lower()
        if key not in values:
            values[key] = fill(rng, rng.choice(lists[key]), values, lists)
        whole = values[key].upper()
        if match[1].isupper():
            return whole
        return whole[0] + values[key][1:] if match[1][0].isupper() else values[key]

    return re.sub(r"\{(\w+)\}", value, text)
