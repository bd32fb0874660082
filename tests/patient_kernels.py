"""Kernels that a busy machine does not disturb: pytest -p tests.patient_kernels --nbval

They talk through files, not ports: a free port is found, closed, and taken only seconds
later, and two runs beside each other found the same one. And what a cell printed may
come late, if the machine stood still: nbval waits 5 s for it, a course's test longer.
"""

import itertools
import os
import tempfile
from typing import Any

import nbval.kernel
from jupyter_client.manager import KernelManager

SECONDS = 60  # to the next message of a kernel that has said how a cell ended
FOLDER = tempfile.TemporaryDirectory()  # short: a socket's path has 107 letters at most
numbers = itertools.count()


def manager(**options: Any) -> KernelManager:
    """Return a manager whose kernel listens in files."""
    place = os.path.join(FOLDER.name, str(next(numbers)))
    return KernelManager(transport="ipc", ip=place, **options)


def pytest_itemcollected(item: Any) -> None:
    """Let a cell wait longer for what its kernel has still to say."""
    if hasattr(item, "output_timeout"):
        item.output_timeout = SECONDS


nbval.kernel.KernelManager = manager
