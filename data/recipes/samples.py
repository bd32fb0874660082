"""Writes the stored samples of the language tasks: `python data/recipes/samples.py`."""

import dataclasses
import json

import common

from qwen_course import tasks

OF_A_TASK, OF_A_LEVEL = 200, 18


def stored() -> dict[str, list[tasks.Problem]]:
    """Return the problems of each file in data/samples, by the file's stem.

    All are held out but `chain_of_one`: all 130 chains of one operation, which are in
    training and measured apart.
    """
    levels = range(2, 13)
    chains = [tasks.draw("chain", OF_A_LEVEL, levels=[level]) for level in levels]
    names = ("maths", "code", "french", "echo", "tool")
    return {
        "chain": sum(chains, []),
        "chain_of_one": tasks.draw("chain", 130, held_out=False, levels=[1]),
        "facts": tasks.draw("facts", OF_A_TASK, held_out=False),
        **{name: tasks.draw(name, OF_A_TASK) for name in names},
    }


def line(problem: tasks.Problem) -> str:
    """Return a problem as a line of JSON, without empty fields."""
    fields = {k: v for k, v in dataclasses.asdict(problem).items() if v}
    return json.dumps(fields, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name, problems in stored().items():
        path = common.POCKET.parent / "samples" / f"{name}.jsonl"
        path.write_text("".join(map(line, problems)), encoding="utf-8")
