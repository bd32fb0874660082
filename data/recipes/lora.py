"""Tune a pocket model in many ways; store what it learnt and what it forgot.

    python data/recipes/lora.py

The new task is tool calls in Qwen's form, the old ones are maths, code and French.
Each run varies one thing of `FIRST`. Results go to data/measured/lora.json, which
lesson 06a shows; a run that is stored is not repeated. Half an hour on one core.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))  # the recipes also run uninstalled

from qwen_course import answers, chat, finetune, generate, models, tasks  # noqa: E402

PLACE = HERE.parent / "measured" / "lora.json"
OLD = ("maths", "code", "french")
N_TESTS = 200  # held-out problems of each task
FIRST: dict[str, Any] = {  # what a run does, unless it says otherwise
    "base": "pocket-generalist-echo", "examples": 400, "replay": 200, "seed": 0,
    "rank": 16, "alpha": 32, "learning_rate": 2e-3, "batch_size": 16, "steps": 300,
    "warm_up": 0.05,
}  # fmt: skip


def example(problem: tasks.Problem) -> dict[str, Any]:
    """Return a problem as a chat example; calls of tools are no text but fields."""
    message: dict[str, Any] = {"role": "assistant", "content": problem.answer}
    if calls := chat.parse_tool_calls(problem.answer):
        functions = [{"type": "function", "function": call} for call in calls]
        message |= {"content": "", "tool_calls": functions}
    if problem.thinking:
        message["reasoning_content"] = problem.thinking
    return {"messages": [{"role": "user", "content": problem.question}, message]}


def solved(loaded: models.Loaded, task: str) -> int:
    """Return how many of N_TESTS held-out problems a model solves, greedy."""
    problems = tasks.draw(task, N_TESTS, seed=5)
    asked = [[{"role": "user", "content": p.question}] for p in problems]
    settings = generate.Settings(
        max_new_tokens=80, temperature=0, thinking=task == "maths"
    )
    replies = generate.batch(loaded, asked, settings)
    return sum(
        answers.solves(task, reply.text, problem.answer).passed
        for reply, problem in zip(replies, problems, strict=True)
    )


def run(changed: dict[str, Any]) -> dict[str, Any]:
    """Return what one training learnt and forgot."""
    plan = FIRST | changed
    base = models.load(plan["base"])
    problems = tasks.draw("tool", plan["examples"], seed=plan["seed"], held_out=False)
    for task in OLD if plan["replay"] else ():
        problems += tasks.draw(task, plan["replay"], seed=plan["seed"], held_out=False)
    examples = list(map(example, problems))
    names = set(finetune.LoraSettings.__dataclass_fields__)
    settings = {name: value for name, value in plan.items() if name in names}
    if settings.get("new_tokens"):
        rows = [r for e in examples[: plan["examples"]] for r in ids(base, e)]
        settings["new_tokens"] = tuple(sorted(set(rows)))
    history = finetune.train(base, examples, finetune.LoraSettings(**settings))
    right = {task: solved(history.tuned, task) for task in ("tool", *OLD)}
    loss = sum(row["loss"] for row in history.losses[-20:]) / 20
    return {
        "changed": changed,
        "solved": right,
        "n": N_TESTS,
        "stopped": history.stopped,
        "trained_parameters": history.trainable,
        "loss": round(loss, 4),
    }


def ids(base: models.Loaded, example: dict[str, Any]) -> list[int]:
    """Return all token ids of an example."""
    return chat.encode(base.tokenizer, example["messages"], None, False, False)


def plans() -> list[dict[str, Any]]:
    """Return what each run changes."""
    other = {"base": "pocket-generalist-3x"}
    attention = ("q_proj", "k_proj", "v_proj", "o_proj")
    gated = ("gate_proj", "up_proj", "down_proj")
    found: list[dict[str, Any]] = [{}, {"replay": 0}]
    found += [{"full": True, "learning_rate": 1e-3, "replay": n} for n in (0, 200)]
    found += [other | {"replay": 0}, other | {"replay": 0, "new_tokens": True}]
    found += [{"examples": n} for n in (12, 25, 50, 100, 200)]
    found += [{"replay": n} for n in (25, 50, 100, 400)]
    found += [{"rank": n, "alpha": 2 * n} for n in (1, 2, 4, 8, 64)]
    found += [{"targets": names} for names in (("q_proj", "v_proj"), attention, gated)]
    found += [{"alpha": n} for n in (4, 16, 128)]
    found = [plan | {"seed": 0} for plan in found]
    again: list[dict[str, Any]] = [{}, {"replay": 0}, other | {"replay": 0}]
    again += [{"examples": n} for n in (12, 25, 50, 100, 200)]
    found += [plan | {"seed": 1} for plan in again]
    return found


def main() -> None:
    """Run what is not stored yet."""
    models.quiet()
    torch.set_num_threads(1)
    stored: dict[str, Any] = {"first": FIRST, "bases": {}, "runs": {}}
    if PLACE.exists():
        stored = json.loads(PLACE.read_text("utf-8"))
    for plan in tqdm(plans()):
        base = plan.get("base", FIRST["base"])
        if base not in stored["bases"]:
            loaded = models.load(base)
            right = {task: solved(loaded, task) for task in ("tool", *OLD)}
            stored["bases"][base] = right
        if json.dumps(plan) not in stored["runs"]:
            stored["runs"][json.dumps(plan)] = run(plan)
            PLACE.write_text(json.dumps(stored, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
