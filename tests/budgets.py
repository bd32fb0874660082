"""Does each lesson keep to its budget: python tests/budgets.py [NAME ...]

    QWEN_COURSE_PROFILE=small python tests/budgets.py --store   # official weights

Runs lessons two at a time, each on one thread, on an otherwise idle machine with two
cores. Time is counted in units: one unit is a fixed piece of work (a pocket model
writes, Python counts), timed just before and after the lesson, beside the other one. So
a slower machine has the same budget. A lesson may take 1.3 times what data/budgets.json
says; `--store` writes that file.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time

import refresh_notebooks as tool
import torch
from make_pages import lesson_names

from qwen_course import catalog, generate, models

SLACK = 1.3
PLACE = catalog.data_dir() / "budgets.json"


def unit() -> float:
    """Seconds that the fixed piece of work takes here and now, the best of three."""
    torch.set_num_threads(1)
    loaded = models.load("pocket-thinking")
    wanted = generate.Settings(temperature=0, max_new_tokens=60)
    question = [
        {"role": "user", "content": "Start with 3, add 4. What is the last digit?"}
    ]
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        generate.batch(loaded, [question] * 32, wanted)
        sum(number % 7 for number in range(3_000_000))
        taken.append(time.perf_counter() - started)
    return min(taken)


def measure(name: str) -> tuple[str, dict[str, float]]:
    """The name of a lesson; its units, minutes and memory."""
    path = tool.ROOT / "notebooks" / f"{name}.ipynb"
    before = unit()
    seconds, gigabytes, _ = tool.execute(tool.read(path), path.parent, name)
    one = (before + unit()) / 2
    found = {"units": seconds / one, "minutes": seconds / 60, "memory_gb": gigabytes}
    return name, {key: round(value, 1) for key, value in found.items()}


def over(name: str, now: dict[str, float], budget: dict[str, float]) -> list[str]:
    """What is beyond the budget, in words."""
    return [
        f"{name}: {key} {now[key]:g}, the budget is {SLACK:g} x {budget[key]:g}"
        for key in ("units", "memory_gb")
        if now[key] > SLACK * budget[key]
    ]


def main(names: list[str], store: bool) -> list[str]:
    """Measure lessons; returns what is over its budget."""
    profile = os.environ.get("QWEN_COURSE_PROFILE", "pocket")
    budgets = json.loads(PLACE.read_text("utf-8")) if PLACE.exists() else {}
    told = []
    chosen = [n for n in lesson_names() if n.startswith(tuple(names) or "")]
    # the longest first, so that the two end together
    chosen.sort(key=lambda n: -budgets.get(n, {}).get(profile, {}).get("units", 0))
    with multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
        for name, now in pool.imap_unordered(measure, chosen):
            print(f"{name}, {profile}: {now}", flush=True)
            if store:
                budgets.setdefault(name, {})[profile] = now
                text = json.dumps(budgets, indent=1, sort_keys=True)
                PLACE.write_text(f"{text}\n", "utf-8")
            elif profile not in budgets.get(name, {}):
                told.append(f"{name}: no budget for the profile {profile}")
            else:
                told += over(name, now, budgets[name][profile])
    return told


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="beginnings of lessons' names")
    parser.add_argument("--store", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("QWEN_COURSE_PROFILE", "pocket")
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    sys.exit("\n".join(main(options.names, options.store)) or None)
