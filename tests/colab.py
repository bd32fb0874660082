"""Run the lessons on Colab's set of packages: .venv-colab/bin/python tests/colab.py.

Meant for the environment of `make test-colab`, where the course is not installed. Each
lesson runs in a copy of the tracked files, two at a time, with a module `google.colab`
that only marks the place. The first lesson alone: its setup cell installs what Colab
lacks. At the end every package of the beginning must be there in its old version.
What this does not show: Colab's Python 3.13 and its torch (they are as installed here).
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
CELL_SECONDS = 600
BROUGHT = {
    "qwen-course", "gguf", "trl", "py3langid", "bitsandbytes", "limits", "deprecated"
}  # fmt: skip


def installed() -> dict[str, str]:
    """Versions by package, read anew from the environment's folder."""
    found = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format=freeze", "--exclude-editable"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return dict(line.split("==") for line in found.splitlines() if "==" in line)


def copied(folder: Path) -> Path:
    """The tracked files, elsewhere: what a clone would bring."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout
    for name in names.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder / "notebooks"


def run(path: Path) -> str:
    """Run a notebook as it stands; returns "" or the first error."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as home:
        marks = {
            "PYTHONPATH": str(ROOT / "tests" / "standin"),
            "QWEN_COURSE_HOME": home,
            "QWEN_COURSE_PROFILE": "pocket",
            "QWEN_COURSE_LIVE": "0",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "IPYTHONDIR": home,
        }
        client = NotebookClient(
            notebook, timeout=CELL_SECONDS, kernel_name="python3",
            resources={"metadata": {"path": str(path.parent)}},
            skip_cells_with_tag="nbval-skip",
        )  # fmt: skip
        started, index = time.monotonic(), 0
        try:
            with client.setup_kernel(env=os.environ | marks):
                for index, cell in enumerate(notebook.cells):
                    client.execute_cell(cell, index)
        except Exception as error:  # a dead kernel, a cell's error: both are told
            text = f"cell {index} ({notebook.cells[index].id}): {error}"
            print(f"{path.stem}: FAILED, {text[-3000:]}", flush=True)
            return text
    print(f"{path.stem}: {time.monotonic() - started:.0f} s", flush=True)
    return ""


def main(start: str, workers: int) -> str:
    """Run all lessons; returns what is wrong, or ""."""
    if sys.prefix == sys.base_prefix:
        return "an environment of its own is needed: make test-colab"
    remove = [sys.executable, "-m", "pip", "uninstall", "-q", "-y", *sorted(BROUGHT)]
    subprocess.run(remove, check=True, capture_output=True)  # of an earlier run
    before = installed()
    with tempfile.TemporaryDirectory() as folder:
        lessons = sorted(copied(Path(folder)).glob(f"{start}*.ipynb"))
        if not lessons:
            return f"no lesson begins with {start!r}"
        wrong = [run(lessons[0])]
        with ThreadPoolExecutor(workers) as pool:
            wrong += pool.map(run, lessons[1:])
    after = installed()
    changed = {name: version for name, version in before.items()
               if after.get(name) != version}  # fmt: skip
    if changed:
        return f"the setup cell replaced {changed}"
    more = {name.lower() for name in after.keys() - before.keys()} - BROUGHT
    if more:
        return f"the setup cell brought more than it should: {sorted(more)}"
    failed = sum(bool(text) for text in wrong)
    print(
        f"{len(lessons) - failed} of {len(lessons)} lessons ran; nothing was replaced."
    )
    return f"{failed} lessons failed" if failed else ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("start", nargs="?", default="", help="of the notebooks' names")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    sys.exit(main(options.start, options.workers) or None)
