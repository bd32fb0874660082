"""Tune the pocket thinker on answers without thoughts; count what is left of thinking.

    python data/recipes/thinking_lost.py

Each run varies the share of examples with a thought, and how an answer without one is
rendered. Results go to data/measured/thinking_lost.json, which lesson 06c shows; a run
that is stored is not repeated. Three minutes on one core.
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

from qwen_course import answers, finetune, generate, models, tasks  # noqa: E402

PLACE = HERE.parent / "measured" / "thinking_lost.json"
BASE, LEVELS, N_EXAMPLES, N_TESTS = "pocket-thinking", [2, 3, 4], 300, 300
GENTLE = {"steps": 40, "learning_rate": 2e-3}
LONG = {"steps": 200, "learning_rate": 5e-3}
PLANS: list[dict[str, Any]] = [
    *({"share": s, "thinking": None, **GENTLE} for s in (0, 0.1, 0.25, 0.5, 0.75, 0.9)),
    {"share": 0, "thinking": False, **GENTLE},
    *({"share": s, "thinking": False, **LONG} for s in (0, 0.25, 0.75)),
]


def example(problem: tasks.Problem, thought: bool) -> list[dict[str, str]]:
    """Return a chain as a conversation, answered with or without its thought."""
    message = {"role": "assistant", "content": problem.answer}
    if thought:
        message["reasoning_content"] = problem.thinking
    return [{"role": "user", "content": problem.question}, message]


def counts(loaded: models.Loaded, temperature: float) -> dict[str, int]:
    """Return how many of N_TESTS held-out chains got a thought, how many are right."""
    problems = tasks.draw("chain", N_TESTS, seed=5, levels=LEVELS)
    asked = [[{"role": "user", "content": p.question}] for p in problems]
    settings = generate.Settings(
        max_new_tokens=120, temperature=temperature, top_k=0, top_p=1.0, seed=0,
        thinking=True,
    )  # fmt: skip
    replies = generate.batch(loaded, asked, settings)
    right = [
        answers.same_number(reply.text, problem.answer).passed
        for reply, problem in zip(replies, problems, strict=True)
    ]
    return {"thought": sum(bool(r.thinking) for r in replies), "right": sum(right)}


def run(plan: dict[str, Any]) -> dict[str, Any]:
    """Return what one training left of thinking, greedy and sampled."""
    problems = tasks.draw("chain", N_EXAMPLES, seed=1, levels=LEVELS, held_out=False)
    with_thought = round(plan["share"] * N_EXAMPLES)
    examples = [example(p, i < with_thought) for i, p in enumerate(problems)]
    names = ("steps", "learning_rate", "thinking")
    settings = finetune.LoraSettings(
        rank=8, batch_size=16, **{name: plan[name] for name in names}
    )
    tuned = finetune.train(models.load(BASE), examples, settings).tuned
    return {**plan, "greedy": counts(tuned, 0), "sampled": counts(tuned, 1.0)}


def main() -> None:
    """Run what is not stored yet."""
    models.quiet()
    torch.set_num_threads(1)
    stored: dict[str, Any] = {"base": BASE, "n": N_TESTS, "runs": []}
    if PLACE.exists():
        stored = json.loads(PLACE.read_text("utf-8"))
    done = [{name: run[name] for name in PLANS[0]} for run in stored["runs"]]
    for plan in tqdm([plan for plan in PLANS if plan not in done]):
        stored["runs"].append(run(plan))
        PLACE.write_text(json.dumps(stored, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
