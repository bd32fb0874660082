"""Asks official weights the pupils' questions of lesson 10; keeps replies and counts.

    python data/recipes/tutor.py [MODEL]  # minutes on two cores

The first 20 questions of the lesson (its own cell makes them), one worked example in
the prompt, greedy, float32. Results: data/measured/tutor.json. Not part of the tests.
"""

import contextlib
import datetime
import io
import json
import re
import sys
from pathlib import Path

from qwen_course import catalog, generate, models, tasks, weights

ROOT = Path(__file__).resolve().parents[2]
LESSON = ROOT / "notebooks" / "10_capstone.ipynb"
N = 20


def questions() -> tuple[list[tasks.Problem], list[str]]:
    """Return the problems of the lesson and the questions as pupils type them."""
    cells = json.loads(LESSON.read_text("utf-8"))["cells"]
    source = next("".join(c["source"]) for c in cells if c["id"] == "s3-class")
    names: dict = {"tasks": tasks}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(source, names)
    return names["own"][:N], names["asked"][:N]


def main(model: str = "Qwen2.5-Coder-0.5B-Instruct") -> None:
    """Ask, count, and store."""
    problems, asked = questions()
    shown = tasks.draw("chain", 1, seed=1, levels=[3], held_out=False)[0]
    answer = f"{shown.thinking}\nThe last digit is {shown.answer}."
    example = [
        {"role": "user", "content": shown.question},
        {"role": "assistant", "content": answer},
    ]
    loaded = models.load(model, dtype="float32")
    settings = generate.Settings(temperature=0, thinking=False, max_new_tokens=80)
    texts = []
    for start in range(0, N, 5):
        talks = [
            [*example, {"role": "user", "content": text}]
            for text in asked[start : start + 5]
        ]
        texts += [reply.text for reply in generate.batch(loaded, talks, settings)]
    right = [
        re.findall(r"\d+", text)[-1:] == [problem.answer]
        for text, problem in zip(texts, problems, strict=True)
    ]
    found = {
        "model": loaded.source.name,
        "sha256": weights.GGUF[loaded.source.name].sha256,
        "dtype": "float32",
        "date": datetime.date.today().isoformat(),
        "example": shown.question,
        "right": sum(right),
        "n": N,
        "rows": [
            {"asked": text, "answer": problem.answer, "said": said, "right": good}
            for text, problem, said, good in zip(
                asked, problems, texts, right, strict=True
            )
        ],
    }
    place = catalog.data_dir() / "measured" / "tutor.json"
    place.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
