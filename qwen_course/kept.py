"""The learner's own files: where they lie, locked, read, replaced as a whole.

In $QWEN_COURSE_HOME (default ~/.qwen_course). Knows JSON, not what it means.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def place(name: str) -> Path | None:
    """Return where a file lies; None in tests, which never touch the learner's own.

    Raises RuntimeError where nobody is at home.
    """
    home = os.environ.get("QWEN_COURSE_HOME")
    if not home and "PYTEST_CURRENT_TEST" in os.environ:
        return None
    return Path(home or "~/.qwen_course").expanduser() / name


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Return a context in which no other process changes the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read(path: Path, meaning: Callable[[Any], T]) -> T | None:
    """Return what the JSON means; None without a file, or with a broken one.

    A broken one, for which `meaning` fails too, becomes `*.json.broken`, or
    `*.json.broken2` beside an older one, and so on.
    """
    try:
        return meaning(json.loads(path.read_text("utf-8-sig")))  # editors' mark
    except FileNotFoundError:
        pass
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError):
        names = (Path(f"{path}.broken{number}") for number in chain([""], count(2)))
        path.replace(next(name for name in names if not name.exists()))
    return None


def write(path: Path, content: Any) -> None:
    """Replace the file as a whole, or leave it as it is."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(content, indent=1), "utf-8")
    draft.replace(path)
