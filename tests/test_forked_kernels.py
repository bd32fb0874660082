"""Forked kernels are as strict as others: a wrong, dying or endless cell is found."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent
CELLS = {  # what runs, what is stored
    "passes a right output": ("print(2)", "2\n"),
    "fails a wrong output": ("print(2)", "3\n"),
    "passes without the course": (
        "import sys\nprint('qwen_course' in sys.modules)",
        "False\n",
    ),
    "passes in its folder": (
        "import pathlib\nprint(pathlib.Path('passes in its folder.ipynb').exists())",
        "True\n",
    ),
    "fails a kernel that dies": ("print(2)\n__import__('os')._exit(3)", "2\n"),
    "fails a cell without end": ("print(2)\nwhile True: pass", "2\n"),
}


@pytest.mark.slow
def test_each_cell_gets_its_verdict_and_no_kernel_stays(tmp_path: Path):
    for name, (source, stored) in CELLS.items():
        output = nbformat.v4.new_output("stream", name="stdout", text=stored)
        cell = nbformat.v4.new_code_cell(source, outputs=[output], execution_count=1)
        nb = nbformat.v4.new_notebook(cells=[cell])
        nbformat.write(nb, tmp_path / f"{name}.ipynb")
    options = ["-p", "nbval.plugin", "-p", "tests.forked_kernels", "-rA", "-v"]
    options += ["-p", "tests.patient_kernels", "--nbval", "--nbval-current-env"]
    options += ["--nbval-cell-timeout", "6"]
    mark = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "MARK": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, tmp_path],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env={**os.environ, **mark},
    )  # fmt: skip
    said = {
        Path(line.partition(" ")[2].partition(".ipynb")[0]).name: line[:4].lower()
        for line in done.stdout.splitlines()
        if line.startswith(("PASSED ", "FAILED "))
    }
    assert said == {name: name[:4] for name in CELLS}, done.stdout[-3000:]
    left = [process for process in psutil.process_iter() if marked(process, mark)]
    assert psutil.wait_procs(left, timeout=20)[1] == []


def marked(process: psutil.Process, mark: dict[str, str]) -> bool:
    """Whether a process was started for the test with this mark."""
    try:
        return process.environ().items() >= mark.items()
    except psutil.Error:
        return False
