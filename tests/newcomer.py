"""Time a newcomer's path: python3 tests/newcomer.py [--store]. Needs a package index.

Clones this checkout into a new folder with an empty home, installs and fetches as
`make lab` does, and runs lesson 00 with its first exercise solved. What the machine
took is measured; what the reader takes is counted by the rule of README's table.
`--store` keeps both in data/measured/newcomer.json: README's paragraph comes from it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / "data" / "measured" / "newcomer.json"
FIRST_ANSWER, FIRST_EXERCISE = "s1-first", "0.1"
INSIDE = f"""
import json, os, sys, time
sys.path.insert(0, "tests")
import nbformat
import refresh_notebooks as tool
from nbclient import NotebookClient
path = tool.ROOT / "notebooks" / "00_start_here.ipynb"
nb, solutions = tool.read(path), tool.lesson_exercises(path.stem)
client = NotebookClient(nb, timeout=600, kernel_name="python3",
                        resources={{"metadata": {{"path": str(path.parent)}}}})
started, found = time.monotonic(), {{}}
with client.setup_kernel():
    for index, cell in enumerate(nb.cells):
        if "exercise" in tool.tags(cell):
            cell.source = solutions[{FIRST_EXERCISE!r}].solution
        client.execute_cell(cell, index)
        if cell.id == {FIRST_ANSWER!r}:
            found["answer"] = time.monotonic() - started
        if f'checks.check("{FIRST_EXERCISE}"' in cell.source:
            assert "correct" in str(cell.outputs), cell.outputs
            found["exercise"] = time.monotonic() - started
            break
print(json.dumps(found))
"""


def run(folder: Path, home: Path, *command: str) -> tuple[float, str]:
    """Seconds that a command took, and what it printed."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("QWEN_COURSE")}
    clean |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    started = time.monotonic()
    done = subprocess.run(
        command, cwd=folder, env=clean, stdout=subprocess.PIPE, text=True, check=True
    )
    return time.monotonic() - started, done.stdout


def reading(stop: str) -> float:
    """Minutes of reading lesson 00 up to a cell, by the rule of README's table."""
    import make_pages as pages

    name, cells = "00_start_here", {}
    for cell_id, cell in pages.cells_of(name).items():
        cells[cell_id] = cell
        if cell_id == stop or f'checks.check("{stop}"' in "".join(cell["source"]):
            break
    return sum(pages.minutes_of_cells(cells.values()).values())


def main(store: bool) -> None:
    """Walk the path and print what each step took."""
    with tempfile.TemporaryDirectory() as place:
        home, clone = Path(place, "home"), Path(place, "course")
        home.mkdir()
        took = {
            "clone": run(ROOT, home, "git", "clone", "-q", str(ROOT), str(clone))[0]
        }
        took["install"] = run(clone, home, "make", "install")[0]
        took["fetch"] = run(clone, home, "make", "fetch")[0]
        _, text = run(clone, home, ".venv/bin/python", "-c", INSIDE)
        inside = json.loads(text.splitlines()[-1])
    ready = took["clone"] + took["install"] + took["fetch"]
    minutes = {
        "machine": {
            "ready": ready / 60,
            "answer": (ready + inside["answer"]) / 60,
            "exercise": (ready + inside["exercise"]) / 60,
        },
        "reading": {
            "answer": reading(FIRST_ANSWER),
            "exercise": reading(FIRST_EXERCISE),
        },
    }
    rounded = {
        k: {n: round(m, 1) for n, m in row.items()} for k, row in minutes.items()
    }
    print(json.dumps(rounded, indent=1))
    if store:
        PLACE.write_text(json.dumps(rounded, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", action="store_true")
    main(parser.parse_args().store)
