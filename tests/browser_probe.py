"""What a lesson's kernel tells the browser test: what is to be shown for which value.

The test puts `watch()` before a lesson's cells and `tell(...)` after them. What a
widget draws is asked of the same function with the same values, not of the widget.
"""

import contextlib
import hashlib
import io
import json
from typing import Any

from IPython import get_ipython
from PIL import Image

from qwen_course import recall, show
from qwen_course.plots import rival, written

MADE: list[dict[str, Any]] = []


def watch() -> None:
    """Keep what the widgets of a lesson are made from, in order; change nothing."""
    first = get_ipython().execution_count  # this is cell 0, and all are run once
    plain = {name: getattr(show, name) for name in ("explore", "branch", "write")}

    def keep(kind: str, **parts: Any) -> dict[str, Any]:
        cell = get_ipython().execution_count - first
        MADE.append({"kind": kind, "cell": cell, **parts})
        return MADE[-1]

    def explore(draw: Any, **controls: Any) -> Any:
        keep("explore", draw=draw, controls=controls)
        return plain["explore"](draw, **controls)

    def branch(grow: Any, title: str = "") -> Any:
        keep("branch", grow=grow, title=title)
        return plain["branch"](grow, title)

    def write(pieces: Any) -> Any:
        made = keep("write")
        made["reply"] = plain["write"](pieces)
        return made["reply"]

    show.explore, show.branch, show.write = explore, branch, write


def tell(lesson: str) -> None:
    """Print, as JSON, what to do with each widget and what must be seen then."""
    plans = [PLANS[m["kind"]](m) | {"cell": m["cell"]} for m in MADE]
    quiz = _quiz(lesson) if lesson != "00" else None
    print("PLAN" + json.dumps({"widgets": plans, "quiz": quiz}))


def seen(draw: Any, values: dict[str, Any]) -> dict[str, Any]:
    """What `draw` shows and prints for these values."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        made = draw(**values)
    found = {"printed": printed.getvalue(), "png": "", "alt": "", "html": ""}
    if isinstance(made, show.Picture):
        found |= {"png": hashlib.sha256(made.png).hexdigest(), "alt": made.alt}
        found["coarse"] = coarse(made.png)
    else:
        found["html"] = made._repr_html_()
    return found


def coarse(png: bytes) -> list[int]:
    """A picture in few greys, for one whose low bits differ from run to run."""
    image = Image.open(io.BytesIO(png)).convert("L")
    return list(image.resize((48, 48), Image.Resampling.BOX).tobytes())


def _explore(made: dict[str, Any]) -> dict[str, Any]:
    draw, controls = made["draw"], made["controls"]
    values = {n: c[3] if isinstance(c, tuple) else c[0] for n, c in controls.items()}
    plan = {"kind": "explore", "first": seen(draw, values), "parts": [], "steps": []}
    for name, control in controls.items():
        slider = isinstance(control, tuple)
        if slider:
            low, high, step, start = control
            choices = [*range(low, high + 1, step)]
            place = choices.index(start)
            far = (place + len(choices) // 2) % len(choices)
            near = far + 1 if far + 1 < len(choices) else far - 1
            part = {"kind": "slider", "low": low, "high": high}
        else:
            choices, far = [*control], 1
            near = 2 if len(choices) > 2 else 0
            part = {"kind": "choice", "labels": [str(choice) for choice in choices]}
        plan["parts"].append(part | {"label": name.replace("_", " ")})
        for how, place in (("mouse", far), ("keys", near)):
            values[name] = choices[place]
            step = {"part": len(plan["parts"]) - 1, "how": how, "place": place}
            step |= {"value": str(choices[place]), "seen": seen(draw, values)}
            plan["steps"].append(step | {"by": near - far})
    return plan


def _branch(made: dict[str, Any]) -> dict[str, Any]:
    path, steps, plan = [], made["grow"]([]), {"kind": "branch", "steps": []}
    first = seen(lambda: show.rivals(steps, made["title"]), {})
    plan |= {"first": first, "texts": [written(steps)]}
    for how in ("mouse", "keys"):
        column = next(  # the next token that has a rival
            n
            for n, (_, candidates) in enumerate(steps)
            if n >= len(path) and len(candidates) > 1
        )
        other = 1 if steps[column][0] != 1 else 0
        path = [taken for taken, _ in steps[:column]] + [other]
        name = " ".join(rival(*steps[column][1][other]))
        steps = made["grow"](path)
        plan["texts"].append(written(steps))
        step = {"how": how, "column": column, "row": other, "name": name}
        shape = [[taken, len(candidates)] for taken, candidates in steps]
        plan["steps"].append(step | {"text": written(steps), "shape": shape})
    return plan


def _write(made: dict[str, Any]) -> dict[str, Any]:
    reply = made["reply"]
    found = {"thinking": reply.thinking, "text": reply.text}
    return found | {"kind": "write", "tokens": reply.thinking_tokens}


PLANS = {"explore": _explore, "branch": _branch, "write": _write}


def _quiz(lesson: str) -> dict[str, Any]:
    """Letters to press: a right one, a wrong one, and ?; and the verdicts."""
    items = recall.quiz(lesson).items
    right = next(k for k, v in items[0].lettered().items() if v == items[0].right)
    wrong = next(k for k, v in items[1].lettered().items() if v != items[1].right)
    letters = [right, wrong, "?"][: len(items)]
    pairs = zip(items, letters, strict=True)
    chosen = tuple(item.lettered().get(letter) for item, letter in pairs)
    told = [repr(recall.Result(items, chosen, note)) for note in ("", AGAIN)]
    return {"letters": letters, "told": told, "questions": [i.question for i in items]}


AGAIN = "(Your first answers to this quiz count.)"
