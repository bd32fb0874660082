"""Train a pocket model well and badly; store the curves that an exercise shows.

    python data/recipes/broken_runs.py     # 3 minutes on one core

A run that is stored is not repeated. Each is named after what was done to it. Rates
alone do not tell: what a rate does depends on alpha, on the rank, and on whether all
weights are trained.
"""

import json
from dataclasses import replace
from typing import Any

from lora import HERE, example
from tqdm import tqdm

from qwen_course import finetune, models, tasks

PLACE = HERE.parent / "samples" / "broken_runs.json"
BASE = "pocket-generalist-echo"
FIRST: dict[str, Any] = {
    "rank": 8, "alpha": 16, "learning_rate": 3e-3, "batch_size": 8, "steps": 60,
    "evaluate_every": 5,
}  # fmt: skip
RUNS: tuple[tuple[str, str, int, dict[str, Any]], ...] = (  # the first four are shown
    ("healthy", "tool", 400, {}),
    ("overfits", "maths", 16, {"full": True, "learning_rate": 1e-3}),
    ("rate too low", "tool", 400, {"learning_rate": 1e-5}),
    ("rate too high", "tool", 400, {"learning_rate": 0.3}),
    ("healthy", "tool", 60, {"full": True, "learning_rate": 1e-3, "seed": 1}),
    ("healthy", "tool", 400, {"alpha": 0.1, "learning_rate": 0.1, "seed": 2}),
    ("healthy", "tool", 400, {"learning_rate": 1e-3, "batch_size": 2, "seed": 3}),
    ("healthy", "tool", 200, {"full": True, "learning_rate": 1e-4, "seed": 4}),
    ("overfits", "maths", 8, {"full": True, "seed": 1}),
    ("overfits", "maths", 24, {"full": True, "learning_rate": 5e-4, "seed": 2}),
    ("overfits", "maths", 8, {"learning_rate": 1e-2, "seed": 3}),
    ("rate too low", "tool", 400, {"alpha": 0.002, "seed": 1}),
    ("rate too low", "tool", 400, {"learning_rate": 1e-4, "alpha": 0.5, "seed": 2}),
    ("rate too low", "tool", 8, {"learning_rate": 3e-6, "batch_size": 2, "seed": 3}),
    ("rate too high", "tool", 400, {"learning_rate": 0.1, "seed": 1}),
    ("rate too high", "french", 400, {"full": True, "learning_rate": 0.1, "seed": 2}),
    ("rate too high", "tool", 400, {"learning_rate": 0.1, "rank": 2, "seed": 3}),
)


def without_thought(task: str, n: int, **options: Any) -> list[dict[str, Any]]:
    """Return examples. Answers of maths alone are new to the model: it has to think."""
    problems = tasks.draw(task, n, **options)
    return [example(replace(problem, thinking="")) for problem in problems]


def run(cause: str, task: str, n: int, changed: dict[str, Any]) -> dict[str, Any]:
    """Return the curves of one training, and how it was made."""
    settings = finetune.LoraSettings(**FIRST | changed)
    history = finetune.train(
        models.load(BASE),
        without_thought(task, n, seed=settings.seed, held_out=False),
        settings,
        validation=without_thought(task, 40, seed=7),
    )
    curves = {
        "loss": [row["loss"] for row in history.losses],
        "validation_loss": [row["loss"] for row in history.evaluations],
        "learning_rate": [row["learning_rate"] for row in history.losses],
    }
    made: dict[str, Any] = plan(cause, task, n, changed)
    return made | {name: [float(f"{x:.4g}") for x in c] for name, c in curves.items()}


def plan(cause: str, task: str, n: int, changed: dict[str, Any]) -> dict[str, Any]:
    """Return how a run is made, as it is stored."""
    return {"cause": cause, "task": task, "examples": n, "changed": changed}


if __name__ == "__main__":
    stored = json.loads(PLACE.read_text("utf-8")) if PLACE.exists() else []
    rows = []
    for made in tqdm(RUNS):
        found = [row for row in stored if row | plan(*made) == row]
        rows.append(json.dumps(found[0] if found else run(*made)))
    PLACE.write_text("[\n" + ",\n".join(rows) + "\n]\n", "utf-8")
