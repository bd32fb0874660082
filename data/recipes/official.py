"""Asks official models the questions of the lesson on specialists, keeps the replies.

    python data/recipes/official.py [MODEL ...] [--runs TEXT] [--speed]

What is kept in `data/measured/MODEL.json` are replies, not marks: the lesson judges
them again each time it runs. A run that is stored is not repeated; delete its entry to
have it anew. Takes about an hour for both models on two cores, so it is not part of
the tests.
"""

import argparse
import datetime
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from qwen_course import catalog, chat, generate, models, tasks, weights

MODELS = ("Qwen2.5-Coder-0.5B-Instruct", "Qwen2.5-Coder-1.5B-Instruct")
ROWS = 120  # replies side by side
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
AT_ONCE = "Give the final answer only, within \\boxed{}. Do not explain."
STEPS = "Think step by step. Then write the answer, one digit, on a line of its own."
BINARY_SEARCH = (
    "Create a Python function to implement a binary search algorithm with detailed "
    "comments."
)
CACHE = (
    "Create a class that manages a simple in-memory cache with TTL (time-to-live) "
    "support.\nThe cache should support get, set, delete operations and automatically "
    "expire entries."
)
CONSTRAINTS = (
    "- Thread-safe operations\n- Configurable default TTL\n- Memory-efficient cleanup "
    "of expired entries\n- Support for custom serialization"
)
ENERGY = "What are the benefits of renewable energy for the environment?"
EXPLAIN = "Explain in {}, in two sentences, what renewable energy is."
TONGUES = {
    "en": "English", "es": "Spanish", "fr": "French", "de": "German", "el": "Greek",
    "ru": "Russian", "tr": "Turkish", "sw": "Swahili", "ar": "Arabic", "hi": "Hindi",
    "zh": "Chinese", "ja": "Japanese",
}  # fmt: skip
Messages = list[dict[str, Any]]


def said(text: str, system: str = "") -> Messages:
    """Return a conversation of one question, with a system prompt if there is one."""
    start = [{"role": "system", "content": system}] if system else []
    return [*start, {"role": "user", "content": text}]


def holes(problem: tasks.Problem) -> tuple[str, str, str]:
    """Return a solution in three parts: before a hidden line, the line, after it.

    Hidden is the longest line below the first, without its indent and line break.
    """
    lines = problem.answer.split("\n")
    place = max(range(1, len(lines)), key=lambda number: len(lines[number].strip()))
    hidden = lines[place].strip()
    indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
    before = "\n".join([*lines[:place], indent])
    return before, hidden, "\n" + "\n".join(lines[place + 1 :])


def runs() -> Iterator[tuple[str, dict[str, Any], list[tuple[str, Messages]]]]:
    """Yield each run: its name, its settings, and (item, conversation) pairs."""
    greedy = {"temperature": 0, "repetition_penalty": 1}
    code = greedy | {"max_new_tokens": 300, "stop": ("```\n",)}
    pure = code | {"top_p": 1, "top_k": 0}  # nothing but the temperature
    functions = {p.question: p for p in tasks.samples("functions")}
    yield "functions plain", code, [(q, said(q)) for q in functions]
    algebra = [p.question for p in tasks.samples("algebra")]
    long = greedy | {"max_new_tokens": 500}
    yield "algebra boxed", long, [(q, said(q, BOXED)) for q in algebra]
    asked = json.loads(catalog.text("samples/languages.json"))["questions"]
    pairs = [(f"{row['id']} {code}", said(text))
             for row in asked for code, text in row["text"].items()]  # fmt: skip
    yield "languages", greedy | {"max_new_tokens": 40}, pairs
    for temperature, n in ((0.8, 5), (0.2, 5), (1.2, 5)):
        pairs = [(q, said(q)) for q in functions for _ in range(n)]
        values = pure | {"temperature": temperature, "seed": 0}
        yield f"functions at {temperature}", values, pairs
    wordy = code | {"max_new_tokens": 600}
    pairs = [(q, chat.coding_prompt(q)) for q in functions]
    yield "functions coding prompt", wordy, pairs
    pairs = [(q, chat.reasoning_prompt(q)) for q in functions]
    yield "functions five steps", wordy, pairs
    pairs = [(q, chat.reasoning_prompt(q)) for q in algebra]
    yield "algebra five steps", long, pairs
    yield "algebra plain", long, [(q, said(q)) for q in algebra]
    short = greedy | {"max_new_tokens": 80}
    yield "algebra at once", short, [(q, said(q, AT_ONCE)) for q in algebra]
    one = greedy | {"max_new_tokens": 600, "stop": ("```\n",)}
    yield "binary search", one, [("binary search", said(BINARY_SEARCH))]
    more = one | {"temperature": 0.8, "top_p": 1, "top_k": 0, "seed": 0}
    more["max_new_tokens"] = 1000
    plain = said(f"{CACHE}\n\nConstraints:\n{CONSTRAINTS}")
    pairs = [("plain", plain)] * 5
    pairs += [("prompt", chat.coding_prompt(CACHE, constraints=CONSTRAINTS))] * 5
    yield "cache", more, pairs
    together = [("en", "zh", "es"), ("fr", "de", "ru"), ("el", "ar", "hi")]
    pairs = [(" ".join(codes), chat.multilingual_prompt(ENERGY, codes))
             for codes in together]  # fmt: skip
    yield "energy", greedy | {"max_new_tokens": 700}, pairs
    asked = {code: said(EXPLAIN.format(name)) for code, name in TONGUES.items()}
    values = {"max_new_tokens": 160, "seed": 0}  # the published sampling values
    pairs = [(code, asked[code]) for code in TONGUES for _ in range(5)]
    yield "explain", values, pairs
    levels = {"levels": [2, 3, 4]}
    for task, system, room in (
        ("chain", STEPS, 200),
        ("code", "", 200),
        ("french", "Answer with the translation only.", 60),
    ):
        drawn = tasks.draw(task, 100, seed=4, **levels if task == "chain" else {})
        pairs = [(p.question, said(p.question, system)) for p in drawn]
        end = {"stop": ("```\n",)} if task == "code" else {}
        yield f"matrix {task}", greedy | {"max_new_tokens": room} | end, pairs


def ask(
    loaded: Any, pairs: list[tuple[str, Messages]], values: dict[str, Any]
) -> list[list[Any]]:
    """Return [item, text, new tokens, stop] for each reply."""
    replies = []
    for first in range(0, len(pairs), ROWS):
        wanted = dict(values)
        if "seed" in wanted:
            wanted["seed"] += first
        part = [messages for _, messages in pairs[first : first + ROWS]]
        replies += generate.batch(loaded, part, generate.Settings(**wanted))
    return [[item, reply.text, reply.new_tokens, reply.stop]
            for (item, _), reply in zip(pairs, replies, strict=True)]  # fmt: skip


@torch.inference_mode()
def fill(loaded: Any, room: int = 64) -> list[list[Any]]:
    """Return [item, text, new tokens, stop] for the hidden line of each function."""
    tokenizer, found = loaded.tokenizer, []
    ends = {tokenizer.convert_tokens_to_ids(t) for t in ("<|endoftext|>", "<|im_end|>")}
    for problem in tasks.samples("functions"):
        before, _, after = holes(problem)
        text = f"<|fim_prefix|>{before}<|fim_suffix|>{after}<|fim_middle|>"
        ids = torch.tensor([tokenizer.encode(text)])
        output = loaded.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=room,
            do_sample=False, repetition_penalty=1.0, eos_token_id=sorted(ends),
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        new = output[0, ids.shape[1] :].tolist()
        stop = "stop" if new[-1] in ends else "length"
        written = tokenizer.decode([token for token in new if token not in ends])
        found.append([problem.question, written, len(new), stop])
    return found


def measure(name: str, only: str) -> None:
    """Make the runs of one model that are not stored yet; store after each."""
    place = catalog.data_dir() / "measured" / f"{name}.json"
    stored = json.loads(place.read_text("utf-8")) if place.exists() else {"runs": {}}
    loaded = models.load(name)
    todo: list[tuple[str, dict[str, Any], Callable[[], list[list[Any]]]]] = [
        (run, values, lambda pairs=pairs, values=values: ask(loaded, pairs, values))
        for run, values, pairs in runs()
    ]
    todo.insert(3, ("holes", {"max_new_tokens": 64}, lambda: fill(loaded)))
    for run, values, work in tqdm(todo, name):
        if run in stored["runs"] or only not in run:
            continue
        started = time.monotonic()
        replies = work()
        seconds = round(time.monotonic() - started, 1)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        row = {"settings": values, "seconds": seconds, "peak_gb": round(peak, 2)}
        stored["runs"][run] = row | {"replies": replies}
        told = {
            "model": name,
            "file": weights.GGUF[name].name,
            "sha256": weights.GGUF[name].sha256,
            "date": datetime.date.today().isoformat(),
            "machine": f"{os.cpu_count()} cores, {sys.platform}",
        }
        write(place, told | {k: v for k, v in stored.items() if k not in told})
        tqdm.write(f"{name}: {run}, {len(replies)} replies in {seconds:.0f} s")


def write(place: Path, stored: dict[str, Any]) -> None:
    """Store what was measured, a line a reply."""
    place.parent.mkdir(exist_ok=True)
    head = {key: value for key, value in stored.items() if key != "runs"}
    lines = [json.dumps(head, ensure_ascii=False)[:-1] + ', "runs": {']
    for run, row in stored["runs"].items():
        about = {key: value for key, value in row.items() if key != "replies"}
        start = json.dumps({run: about}, ensure_ascii=False)[1:-2]
        rows = [json.dumps(reply, ensure_ascii=False) for reply in row["replies"]]
        lines += [start + ', "replies": [', ",\n".join(rows), "]},"]
    lines[-1] = "]}}}"
    place.write_text("\n".join(lines) + "\n", "utf-8")


def speed(rounds: int = 5, tokens: int = 48) -> None:
    """Measure the models in turn, A B A B; store the median speed and the ratio."""
    found: dict[str, list[float]] = {name: [] for name in MODELS}
    wanted = generate.Settings(temperature=0, max_new_tokens=tokens)
    for _ in range(rounds):
        for name in MODELS:
            reply = generate.reply(models.load(name), said(BINARY_SEARCH), wanted)
            found[name].append(reply.tokens_per_second)
    medians = {name: statistics.median(values) for name, values in found.items()}
    ratios = [a / b for a, b in zip(*found.values(), strict=True)]
    told = {"tokens_per_second": {n: round(v, 1) for n, v in medians.items()},
            "ratio": round(statistics.median(ratios), 2), "rounds": rounds}  # fmt: skip
    place = catalog.data_dir() / "measured" / "speed.json"
    place.write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    tqdm.write(f"{told}")


def main() -> None:
    """Measure the models named on the command line, or both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--runs", default="", help="only runs whose name holds this")
    parser.add_argument("--speed", action="store_true", help="compare the speeds alone")
    options = parser.parse_args()
    models.quiet()
    if options.speed:
        speed()
        return
    for name in options.names or MODELS:
        measure(name, options.runs)


if __name__ == "__main__":
    main()
