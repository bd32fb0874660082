"""Run the notebooks, store their outputs in a normal form, derive the solved copies.

    python tests/refresh_notebooks.py [NAME ...] [--lesson-only] [--check]

NAME is the start of a notebook's name ("02" is enough); without one, all are run. A
notebook is written only when it ran without an error and without text on stderr.
`--check` runs nothing: it fails where a stored solved copy is not the derived one.

What a notebook gets here, and nobody writes by hand: the lines between the markers of
its first cell (badge, minutes, memory; from data/timings.json), execution counts 1..n,
and in notebooks/solutions/ a copy that holds the exercises, solved.
"""

import argparse
import copy
import json
import math
import os
import platform
import re
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from qwen_course import catalog, checks

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "urls"
]["Repository"]
SETUP_SOURCE = f"""\
# The same in every notebook: find the course; on Colab, fetch it first.
import importlib.util
import pathlib
import sys

if importlib.util.find_spec("qwen_course") is None:
    address = "{ADDRESS}"
    above = pathlib.Path.cwd().parents
    clones = [path for path in above if (path / "qwen_course").is_dir()]
    course = clones[0] if clones else pathlib.Path("qwen-course").resolve()
    if not course.is_dir():
        !git clone -q --depth 1 {{address}} "{{course}}"
    wanted = ("gguf", "trl", "py3langid", "bitsandbytes", "limits",
              "deprecated")
    needs = [n for n in wanted if not importlib.util.find_spec(n)]
    %pip install -q --no-deps -e "{{course}}" {{" ".join(needs)}}
    sys.path.insert(0, str(course))
    %cd -q {{course}}/notebooks

from qwen_course import checks, models

session = models.start(seed=0)"""
CARD_START, CARD_END = "<!-- card: written by make notebooks -->", "<!-- /card -->"
WIDGET = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
MEASURE = """\
import json, resource, sys
from qwen_course import models
print(json.dumps([
    resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    models.resolve("chat").profile, sys.prefix
]))"""
CELL_SECONDS = 1800  # a slow machine on official weights


class Refused(Exception):
    """The notebook must not be stored; says which cell, and why."""


def tags(cell: Any) -> list[str]:
    """The tags of a cell."""
    return list(cell.metadata.get("tags", []))


def badge(path: str) -> str:
    """The Colab badge of a notebook, by its path below notebooks/."""
    site = "https://colab.research.google.com"
    place = f"{ADDRESS.removeprefix('https://')}/blob/main/notebooks/{path}"
    return f"[![Open in Colab]({site}/assets/colab-badge.svg)]({site}/{place})".replace(
        f"{site}/github.com", f"{site}/github"
    )


def card(path: str, timings: dict[str, Any]) -> str:
    """The generated lines of a first cell: badge and, for a lesson, what it takes."""
    row = timings.get(Path(path).stem)
    lines = [CARD_START, badge(path)]
    if row:
        lines += [
            "",
            f"**Runs in** about {row['minutes']:g} min · "
            f"**memory** {row['memory_gb']:g} GB · measured on {row['machine']}, "
            f"profile {row['profile']}",
        ]
    return "\n".join([*lines, CARD_END])


def with_card(source: str, new: str) -> str:
    """The first cell with `new` between its markers, put below the title if absent."""
    if CARD_START not in source:
        title, _, rest = source.partition("\n")
        source = f"{title}\n\n{CARD_START}{CARD_END}\n\n{rest.strip()}".rstrip()
    pattern = re.escape(CARD_START) + ".*?" + re.escape(CARD_END)
    return re.sub(pattern, lambda _: new, source, count=1, flags=re.DOTALL)


def execute(nb: Any, folder: Path, name: str) -> tuple[float, float, str]:
    """Run all cells in place; returns seconds, peak gigabytes, profile."""
    with tempfile.TemporaryDirectory() as home:
        clean = {
            "HF_HUB_OFFLINE": "1",
            "IPYTHONDIR": home,
            "QWEN_COURSE_HOME": home,
            "QWEN_COURSE_LIVE": "0",  # no progress bars, no live widgets
        }
        client = NotebookClient(
            nb,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
            store_widget_state=False,
            record_timing=False,
            skip_cells_with_tag="nbval-skip",
        )
        measure = nbformat.v4.new_code_cell(MEASURE, id="measure")
        nb.cells.append(measure)
        started = time.monotonic()
        index = 0
        try:
            with client.setup_kernel(env=os.environ | clean):
                for index, cell in enumerate(nb.cells):
                    if cell is measure:
                        seconds = time.monotonic() - started
                    client.execute_cell(cell, index)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            where = f"{name}, cell {index} ({nb.cells[index].id})"
            raise Refused(f"{where}: {error}") from None
        finally:
            nb.cells.pop()
    peak, profile, prefix = json.loads(measure.outputs[0].text)
    if prefix != sys.prefix:
        raise Refused(f"{name}: the kernel python3 is {prefix}, not {sys.prefix}")
    return seconds, peak / (2**30 if sys.platform == "darwin" else 2**20), profile


def normalise(nb: Any, old: Any = None) -> None:
    """Bring a notebook that has run into the stored form, in place."""
    nb.nbformat, nb.nbformat_minor = 4, 5
    nb.metadata = nbformat.from_dict(copy.deepcopy(METADATA))
    before = {cell.id: cell for cell in old.cells} if old else {}
    count = 0
    for cell in nb.cells:
        known = tags(cell)
        cell.metadata = nbformat.from_dict({"tags": known} if known else {})
        if cell.cell_type != "code":
            continue
        if "nbval-skip" in known:
            cell.execution_count, cell.outputs = None, []
            continue
        count += 1
        last = before.get(cell.id)
        if "nbval-ignore-output" in known and last and last.source == cell.source:
            cell.outputs = copy.deepcopy(last.outputs) or cell.outputs
        cell.outputs = _outputs(cell, count)
        cell.execution_count = count


def _outputs(cell: Any, count: int) -> list[Any]:
    kept: list[Any] = []
    for output in cell.outputs:
        if output.output_type == "stream":
            if output.name == "stderr":
                raise Refused(f"cell {cell.id} wrote to stderr: {output.text[:300]!r}")
            if kept and kept[-1].output_type == "stream":
                kept[-1].text += output.text
                continue
        elif "data" in output:
            output.data.pop(WIDGET, None)
            if not output.data:
                continue
        if output.output_type == "execute_result":
            output.execution_count = count
        kept.append(output)
    return kept


def update_timings(
    timings: dict[str, Any], name: str, seconds: float, gigabytes: float, row: Any
) -> bool:
    """Store minutes and memory in halves; False when within 20 % of what is there."""
    raw = {"minutes": seconds / 60, "memory_gb": gigabytes}
    new = {key: max(1, math.ceil(value * 2)) / 2 for key, value in raw.items()}
    old = timings.get(name)
    same = old and all(old.get(key) == value for key, value in row.items())
    slack = {key: 0.2 * old[key] for key in raw} if same else {}
    # What is stored was rounded up by at most a half.
    if same and all(
        -0.5 - slack[key] <= raw[key] - old[key] <= slack[key] or new[key] == old[key]
        for key in raw
    ):
        return False
    timings[name] = (old or {}) | new | row
    return True


def machine() -> str:
    """The machine in a few words: cores and memory."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{os.cpu_count()} cores, {round(pages / 2**30)} GB, {platform.system()}"


def derive(lesson: Any, name: str, exercises: dict[str, checks.Exercise]) -> Any:
    """The solved copy of a lesson, not yet run: title, setup, and each exercise."""
    title = lesson.cells[0].source.partition("\n")[0].removeprefix("# ")
    text = (
        f"# Solutions: {title}\n\n{card(f'solutions/{name}_solutions.ipynb', {})}\n\n"
        f"One way to solve each exercise of [{title}](../{name}.ipynb), with its "
        "verdict.\nTry first: a hint is one click away in the lesson."
    )
    cells = [
        nbformat.v4.new_markdown_cell(text, id="title"),
        _code(SETUP_SOURCE, "setup", "setup", "nbval-ignore-output"),
    ]
    for place, cell in enumerate(lesson.cells):
        if "exercise" not in tags(cell):
            continue
        task, check = lesson.cells[place - 1], lesson.cells[place + 1]
        exercise_id = exercise_of(task)
        if exercise_id not in exercises:
            raise Refused(
                f"{name}, cell {task.id}: no exercise {exercise_id!r} in data"
            )
        source = re.sub(r"\]\((?!https?:|#|mailto:)", "](../", task.source)
        solution = exercises[exercise_id].solution.strip("\n")
        cells += [
            nbformat.v4.new_markdown_cell(source, id=task.id),
            _code(solution, f"{cell.id}-solution", "solution"),
            _code(check.source, check.id),
        ]
    return nbformat.v4.new_notebook(
        cells=cells, metadata=copy.deepcopy(METADATA), nbformat=4, nbformat_minor=5
    )


def _code(source: str, cell_id: str, *names: str) -> Any:
    metadata = {"tags": list(names)} if names else {}
    return nbformat.v4.new_code_cell(source, id=cell_id[:64], metadata=metadata)


def exercise_of(task: Any) -> str:
    """The id of the exercise that a card describes, "" if it is no card."""
    match = re.match(r"### Exercise (\d+[a-z]?\.\d+) - ", task.source)
    return match[1] if match else ""


def drift(stored: Any, derived: Any) -> list[str]:
    """Where a stored solved copy differs from the derived one; outputs do not count."""
    told = []
    pairs = [[(c.cell_type, c.id, c.source, tags(c)) for c in nb.cells] for nb in
             (stored, derived)]  # fmt: skip
    if len(pairs[0]) != len(pairs[1]):
        told.append(f"{len(pairs[0])} cells are stored, {len(pairs[1])} are derived")
    told += [
        f"cell {new[1]} is not what the lesson and data/exercises give"
        for old, new in zip(*pairs, strict=False)
        if old != new
    ]
    return told


def unsolved(nb: Any) -> list[str]:
    """The check cells of a solved copy whose stored output is not *correct*."""
    told = []
    for cell in nb.cells:
        if cell.cell_type == "code" and cell.source.startswith("checks.check("):
            texts = [o.data.get("text/plain", "") for o in cell.outputs if "data" in o]
            if not any(text.startswith("correct") for text in texts):
                told.append(f"cell {cell.id} shows {texts!r}, not correct")
    return told


def lesson_of(name: str) -> str:
    """The number of the lesson that a notebook belongs to, such as "00" or "00b"."""
    return name.partition("_")[0]


def lesson_exercises(name: str) -> dict[str, checks.Exercise]:
    """The exercises of the lesson that a notebook's name starts with, by id."""
    return checks._lessons(catalog.data_dir()).get(lesson_of(name), {})


def read(path: Path) -> Any:
    """A notebook, as it is stored (nbformat.read mends cell ids in silence)."""
    return nbformat.v4.reads(path.read_text("utf-8"))


def write(nb: Any, path: Path) -> None:
    """Store a notebook; all of it or nothing."""
    nbformat.validate(nb)
    path.parent.mkdir(exist_ok=True)
    draft = path.with_suffix(".new")
    nbformat.write(nb, draft)
    draft.replace(path)


def refresh(path: Path, lesson_only: bool = False) -> None:
    """Run a lesson and its solved copy, and store both; raises Refused."""
    name = path.stem
    place = catalog.data_dir() / "timings.json"
    timings = json.loads(place.read_text("utf-8")) if place.exists() else {}
    old = read(path)
    nb = copy.deepcopy(old)
    seconds, gigabytes, profile = execute(nb, path.parent, name)
    normalise(nb, old)
    row = {"cells": len(nb.cells), "profile": profile, "machine": machine()}
    changed = update_timings(timings, name, seconds, gigabytes, row)
    nb.cells[0].source = with_card(nb.cells[0].source, card(path.name, timings))
    write(nb, path)
    if changed:
        place.write_text(json.dumps(timings, indent=1, sort_keys=True) + "\n", "utf-8")
    print(f"{name}: {seconds:.0f} s, {gigabytes:.1f} GB, profile {profile}")
    exercises = lesson_exercises(name)
    if lesson_only or not exercises:
        return
    target = solution_path(path)
    solved = derive(nb, name, exercises)
    target.parent.mkdir(exist_ok=True)
    seconds, *_ = execute(solved, target.parent, target.stem)
    normalise(solved, read(target) if target.exists() else None)
    if problems := unsolved(solved):
        raise Refused(f"{target.stem}: " + "; ".join(problems))
    write(solved, target)
    print(f"{target.stem}: {seconds:.0f} s")


def solution_path(path: Path) -> Path:
    """Where the solved copy of a lesson is stored."""
    return path.parent / "solutions" / f"{path.stem}_solutions.ipynb"


def check_drift(path: Path) -> list[str]:
    """What is wrong with the stored solved copy of a lesson; runs nothing."""
    exercises, target = lesson_exercises(path.stem), solution_path(path)
    if not exercises:
        return []
    if not target.exists():
        return [f"{target.name} is missing: make notebooks"]
    return drift(read(target), derive(read(path), path.stem, exercises))


def main() -> int:
    """Refresh or check the notebooks that the arguments name; 1 if one is refused."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--check", action="store_true", help="run nothing, compare")
    parser.add_argument("--lesson-only", action="store_true", help="no solved copies")
    parser.add_argument("--folder", type=Path, default=ROOT / "notebooks")
    options = parser.parse_args()
    paths = sorted(options.folder.resolve().glob("[0-9][0-9]*_*.ipynb"))
    chosen = [p for p in paths if p.stem.startswith(tuple(options.names or [""]))]
    if not chosen:
        print(f"no notebook matches {options.names} in {options.folder}")
        return 1
    failed = False
    for path in chosen:
        try:
            if options.check:
                problems = check_drift(path)
                if problems:
                    raise Refused(f"{path.stem}: " + "; ".join(problems))
            else:
                refresh(path, options.lesson_only)
        except Refused as problem:
            failed = True
            print(f"REFUSED {problem}", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
