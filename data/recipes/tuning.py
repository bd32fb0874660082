"""Tunes an official model with LoRA and measures what it gained and what it lost.

    python data/recipes/tuning.py [STAGE ...]     # half an hour on two cores

The new task: answer each message to a shop with one JSON object, and with no prompt
that asks for it. The old task: the 40 functions of the lesson on specialists. Each
stage is stored as it ends in `data/measured/tuning.json`; one that is stored is not
repeated, unless the command line names it. What is stored of the new task are
replies, not marks: the lesson judges them again. Not part of the tests.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from official import Messages, said
from tqdm import tqdm

from qwen_course import answers, catalog, finetune, generate, models, tasks, weights

NAME = "Qwen2.5-Coder-0.5B-Instruct"
PLACE = catalog.data_dir() / "measured" / "tuning.json"
GREEDY: dict[str, Any] = {"temperature": 0, "repetition_penalty": 1.0}
ROOM = 60  # tokens for a ticket; the longest right one has 40
PROMPT = """\
You sort the messages that customers send to a shop for tea and pottery. Answer each \
message with one JSON object and nothing else:
{"topic": "...", "urgent": true or false, "summary": "..."}
topic: one of delivery, return, payment, product, account, visit.
urgent: true only if the customer must have help today or tomorrow.
summary: at most eight words."""
SETTINGS = {"rank": 8, "learning_rate": 4e-4, "batch_size": 4, "accumulate": 2,
            "steps": 45, "evaluate_every": 9}  # fmt: skip
# Questions whose answers the model itself writes before it is tuned. None is one of
# the 40 functions or of the tickets.
REPLAY = """\
Write a Python function `area(width, height)` that returns the area of a rectangle.
Write a Python function `last_word(text)` that returns the last word of a text.
Write a Python function `is_even(n)` that returns whether n is even.
Write a Python function `greet(name)` that returns "Hello, " and the name.
Write a Python function `minutes(hours)` that turns hours into minutes.
Write a Python function `third(items)` that returns the third item of a list.
Write a Python function `count_lines(text)` that counts the lines of a text.
Write a Python function `half(n)` that returns half of a number.
Write a Python function `is_empty(items)` that says whether a list is empty.
Write a Python function `longest(words)` that returns the longest of some words.
Write a Python function `add_all(numbers)` that adds up the numbers of a list.
Write a Python function `keys_of(table)` that returns the sorted keys of a dict.
Write a Python function `starts_with_a(text)` that checks the first letter.
Write a Python function `powers(n)` that lists the first n powers of two.
Write a Python function `swap(pair)` that returns a pair the other way round.
Write a Python function `average(numbers)` that returns the mean of a list.
Write a Python function `initials(name)` that returns the initials of a name.
Write a Python function `multiples(n, k)` that lists the first k multiples of n.
Write a Python function `without_spaces(text)` that takes out all spaces.
Write a Python function `is_square(n)` that checks whether n is a square number.
How do I open a text file in Python? One short example.
What does `len` do in Python? One sentence.
Show a Python list comprehension in one line.
Which Python type holds pairs of keys and values?
Name three sorting algorithms.
What is the difference between a list and a tuple in Python? Two sentences.
Write an SQL query that counts the rows of the table `orders`.
Write a Bash command that lists the ten largest files of a folder.
What does HTTP status 404 mean? One sentence.
Write a regular expression for a date such as 2024-05-31.
What is the capital of Portugal?
Translate into French: The train is late.
How many days has a leap year?
Name four fruits that are red.
Write one sentence about the sea.
Is 91 a prime number? Answer in one sentence.
Who wrote the play Hamlet?
What is the plural of "mouse"?
Give me a synonym for "quick".
Say good morning in German and in Spanish."""


def ticket(problem: tasks.Problem) -> dict[str, Any]:
    """Return a ticket as a chat example."""
    answer = {"role": "assistant", "content": problem.answer}
    return {"messages": [*said(problem.question), answer]}


def shown() -> Messages:
    """Return the prompt that asks for tickets, with one example of each topic."""
    first = {json.loads(p.answer)["topic"]: p for p in training()[::-1]}
    turns = [m for problem in first.values() for m in ticket(problem)["messages"]]
    return [{"role": "system", "content": PROMPT}, *turns]


def training() -> list[tasks.Problem]:
    """Return the tickets to train on: all but each sixth, which is for validation."""
    return [p for i, p in enumerate(tasks.samples("tickets_training")) if i % 6]


def validation() -> list[tasks.Problem]:
    """Return the tickets that choose the best step."""
    return tasks.samples("tickets_training")[::6]


def ask(loaded: Any, before: Messages = ()) -> dict[str, Any]:
    """Return the replies to the held-out messages, and what they took."""
    asked = [[*before, *said(p.question)] for p in tasks.samples("tickets")]
    started = time.monotonic()
    wanted = generate.Settings(**GREEDY, max_new_tokens=ROOM)
    replies = generate.batch(loaded, asked, wanted)
    prompt = statistics.mean(reply.prompt_tokens for reply in replies)
    seconds = round(time.monotonic() - started, 1)
    told = {"seconds": seconds, "prompt_tokens": round(prompt)}
    return told | {"replies": [reply.text for reply in replies]}


def program(loaded: Any) -> dict[str, Any]:
    """Return the marks of the 40 functions that a tuned model writes."""
    asked = [said(p.question) for p in tasks.samples("functions")]
    wanted = generate.Settings(**official_settings())
    return marks([reply.text for reply in generate.batch(loaded, asked, wanted)])


def official_settings() -> dict[str, Any]:
    """Return the settings of the run that `official.py` stored, to compare with it."""
    return tasks.measured(NAME, "functions plain").settings


def marks(texts: list[str]) -> dict[str, Any]:
    """Return a mark for each of the 40 functions, and the first five replies."""
    pairs = zip(tasks.samples("functions"), texts, strict=True)
    passed = [answers.solves("functions", t, p.tests).passed for p, t in pairs]
    return {
        "functions": "".join(str(int(mark)) for mark in passed),
        "answered_with_tickets": sum('"topic"' in text for text in texts),
        "function_replies": texts[:5],
    }


def base(loaded: Any) -> dict[str, Any]:
    """Return what the model does untuned; `official.py` has asked for the functions."""
    run = tasks.measured(NAME, "functions plain")
    return ask(loaded) | marks([text for _, text, *_ in run.replies])


def remember(loaded: Any) -> list[list[str]]:
    """Return questions and the model's own answers; those it did not end are out."""
    questions = REPLAY.splitlines()
    wanted = generate.Settings(**GREEDY, max_new_tokens=160)
    replies = generate.batch(loaded, [said(q) for q in questions], wanted)
    pairs = zip(questions, replies, strict=True)
    return [[q, reply.text] for q, reply in pairs if reply.stop == "stop"]


def tune(
    loaded: Any, old: list[list[str]], also: Any = lambda _: {}, **changed: Any
) -> dict[str, Any]:
    """Train on the tickets (and on old answers); return curves and measures."""
    settings = finetune.LoraSettings(**{**SETTINGS, **changed})
    examples = [ticket(problem) for problem in training()]
    examples += [
        {"messages": [*said(q), {"role": "assistant", "content": a}]} for q, a in old
    ]
    held_out = [said(p.question)
                for name in ("tickets", "functions")
                for p in tasks.samples(name)]  # fmt: skip
    history = finetune.train(
        loaded, examples, settings, held_out=held_out,
        validation=[ticket(problem) for problem in validation()],
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        saved = finetune.save(history.tuned, Path(folder, "adapter"))
        size = (saved / "adapter_model.safetensors").stat().st_size

    def rounded(rows: Any) -> list[dict[str, float]]:
        return [{key: float(f"{v:.4g}") for key, v in row.items()} for row in rows]

    return {
        "settings": {**SETTINGS, **changed},
        "examples": {"tickets": len(training()), "old": len(old),
                     "validation": len(validation())},
        "best_step": history.best_step,
        "stopped": history.stopped,
        "trainable": history.trainable,
        "training_seconds": round(history.seconds, 1),
        "tokens_per_second": round(history.tokens_per_second),
        "peak_gb": round(history.peak_gb, 2),
        "adapter_bytes": size,
        "losses": rounded(history.losses),
        "evaluations": rounded(history.evaluations),
        **ask(history.tuned),
        **also(history.tuned),
    }  # fmt: skip


def stored() -> dict[str, Any]:
    """Return what is measured so far."""
    return json.loads(PLACE.read_text("utf-8")) if PLACE.exists() else {"runs": {}}


def store(name: str, found: Any) -> None:
    """Write one stage beside the others."""
    runs = {**stored()["runs"], name: found}
    told = {
        "model": NAME,
        "file": weights.GGUF[NAME].name,
        "sha256": weights.GGUF[NAME].sha256,
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {sys.platform}",
        "prompt": PROMPT,
        "runs": {stage: runs[stage] for stage in STAGES if stage in runs},
    }
    text = json.dumps(told, indent=1, ensure_ascii=False)
    PLACE.write_text(text + "\n", "utf-8")


def old_answers() -> list[list[str]]:
    """Return the stored questions and answers of the model before it was tuned."""
    return stored()["runs"]["replay"]["pairs"]


STAGES: dict[str, Any] = {
    "base": base,
    "prompt": lambda loaded: ask(loaded, said("", PROMPT)[:1]),
    "prompt with examples": lambda loaded: ask(loaded, shown()),
    "tuned": lambda loaded: tune(loaded, [], program),
    "replay": lambda loaded: {"pairs": remember(loaded)},
    "tuned with replay": lambda loaded: tune(loaded, old_answers(), program),
    "tuned at the pocket rate": lambda loaded: tune(loaded, [], learning_rate=3e-3),
}


def make(name: str) -> None:
    """Make one stage; in a process of its own its peak memory is its own."""
    models.quiet()
    store(name, STAGES[name](models.load(NAME)))


def main() -> None:
    """Make the stages that the command line names, or those that are not stored."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=", ".join(STAGES))
    options = parser.parse_args()
    for name in options.stages or STAGES:
        if name in stored()["runs"] and not options.stages:
            continue
        started = time.monotonic()
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn) as process:
            process.submit(make, name).result()
        tqdm.write(f"{name}: {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
