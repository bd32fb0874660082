"""Kill it at random moments, run it again: python tests/steady.py fetch|lessons [SEED]

`fetch` asks for the official weights again and again into a cache of its own, kills
that 20 times, and each time nothing may look whole that is not; then it lets one end.
`lessons` starts the lessons in random order with one home for all of them, kills each
kernel within a cell, and leaves what lies there. `make steady` then runs all lessons
strictly in that same home.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import refresh_notebooks as tool
from make_pages import lesson_names
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from qwen_course import weights

KILLS = 20
NAME = "Qwen2.5-Coder-0.5B-Instruct"


def fetch(order: random.Random) -> None:
    """Kill a download 20 times; nothing half may be taken for the weights."""
    file = weights.GGUF[NAME]
    with tempfile.TemporaryDirectory() as place:
        clean = os.environ | {"QWEN_COURSE_CACHE": place, "QWEN_COURSE_LIVE": "0"}
        command = [sys.executable, "-m", "qwen_course", "fetch", NAME]
        whole, kills, started = Path(place, file.name), 0, time.monotonic()
        subprocess.run(command, env=clean, check=True, stdout=subprocess.DEVNULL)
        longest = time.monotonic() - started
        whole.unlink()
        while kills < KILLS:
            process = subprocess.Popen(command, env=clean, stdout=subprocess.DEVNULL)
            moment = order.uniform(0, longest)
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.kill()
                kills += 1
                seen = sorted(path.name for path in Path(place).iterdir())
                print(f"killed after {moment:.1f} s: {seen}", flush=True)
            process.wait()
            if whole.exists():
                assert weights.sha256(whole) == file.sha256, "not the right bytes"
                whole.unlink()
        for _ in range(3):  # an index may be out of reach for a moment
            if not subprocess.run(command, env=clean).returncode:
                break
        assert weights.sha256(whole) == file.sha256
        left = {path.name for path in Path(place).iterdir()}
        assert left == {file.name, f".{file.name}.lock"}, f"left behind: {left}"
    print(f"fetch: killed {kills} times, then whole, nothing left behind")


def break_off(name: str, order: random.Random, home: str) -> str:
    """Run a lesson up to a random cell and kill its kernel within it; says where."""
    path = tool.ROOT / "notebooks" / f"{name}.ipynb"
    notebook = tool.read(path)
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    last, moment = order.choice(code[1:]), order.uniform(0, 2)
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "QWEN_COURSE_HOME": home,
        "QWEN_COURSE_LIVE": "0", "QWEN_COURSE_PROFILE": "pocket",
    }  # fmt: skip
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", allow_errors=True,
        resources={"metadata": {"path": str(path.parent)}},
        skip_cells_with_tag="nbval-skip",
    )  # fmt: skip
    with client.setup_kernel(env=environment):
        number = client.km.provisioner.pid
        for index in code[: code.index(last)]:
            client.execute_cell(notebook.cells[index], index)
        timer = threading.Timer(moment, os.kill, (number, signal.SIGKILL))
        timer.start()
        try:
            client.execute_cell(notebook.cells[last], last)
            timer.join()
        except (DeadKernelError, asyncio.CancelledError, RuntimeError):
            pass
    return f"{name}: killed {moment:.1f} s into cell {notebook.cells[last].id}"


def lessons(order: random.Random) -> None:
    """Break off every lesson once, in random order, with one home for all."""
    home = os.environ["QWEN_COURSE_TEST_HOME"]
    names = lesson_names()
    order.shuffle(names)
    for name in names:
        started = time.monotonic()
        told = break_off(name, order, home)
        print(f"{told}, after {time.monotonic() - started:.0f} s", flush=True)


if __name__ == "__main__":
    seed = int(sys.argv[2]) if sys.argv[2:] else 0
    {"fetch": fetch, "lessons": lessons}[sys.argv[1]](random.Random(seed))
