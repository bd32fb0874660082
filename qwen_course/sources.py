"""Answers as text: the source of what a notebook defined, and back, behind a fence.

Knows Python and the sandbox; knows nothing of exercises.
"""

import ast
import inspect
import os
import symtable
import sys
import textwrap
from contextlib import suppress
from types import FunctionType, ModuleType, NoneType
from typing import Any, TypeGuard

from qwen_course import sandbox

LONGEST = 20_000  # characters of a source that is worth keeping
OWN = {"__main__", "builtins"}  # modules of what a notebook defined, and of its values
# Behind the fence no thread can be started; numpy would try when it is imported.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def source_of(name: str, answer: object) -> str:
    """Return a source that defines an answer as `name`; "" where none can be had.

    With a function come the names of the notebook that it uses: imports, functions,
    plain values. An object of another kind (a model, a tokenizer) has no source.
    """
    parts: dict[str, str] = {}  # by name, what it uses before it
    with suppress(Exception):  # an object of another kind
        _collect(parts, name, answer)
        text = "\n\n".join(parts.values()) + "\n"
        return text if len(text) <= LONGEST else ""
    return ""


def _collect(parts: dict[str, str], name: str, value: object) -> None:
    """Add the source of a name, after those of the names that it uses."""
    parts[name], uses = _definition(name, value)  # there before two call each other
    for other in sorted(uses):
        if other not in parts:
            _collect(parts, other, uses[other])
    parts[name] = parts.pop(name)  # now behind them


def _definition(name: str, value: Any) -> tuple[str, dict[str, Any]]:
    """Return the source of one name, and which names of the notebook it uses."""
    kind = type(value)
    if kind.__module__ == "__main__":  # the learner's own class: nothing of it is run
        raise ValueError(name)
    if _plain(value) and ast.literal_eval(repr(value)) == value:
        return f"{name} = {value!r}", {}
    if kind is ModuleType or value.__module__ not in OWN:
        path = [] if kind is ModuleType else [f"from {value.__module__}"]
        if path and getattr(sys.modules[value.__module__], value.__name__) is not value:
            raise ValueError(name)
        said = [f"as {name}"] if value.__name__ != name else []
        return " ".join([*path, f"import {value.__name__}", *said]), {}
    if kind is not FunctionType:
        raise ValueError(name)
    if inspect.unwrap(value).__closure__:  # a value that is no name of the notebook
        raise ValueError(name)
    text = textwrap.dedent(inspect.getsource(value)).strip()
    # ValueError for a lambda: its line may hold anything
    (_,) = (node for node in ast.parse(text).body if _named(node, value.__name__))
    if name != value.__name__:
        text += f"\n\n{name} = {value.__name__}"
    known = inspect.unwrap(value).__globals__  # a decorator has those of its library
    return text, {n: known[n] for n in _used(text) & known.keys() - {value.__name__}}


def _plain(value: object) -> bool:
    """Return whether `repr` gives this value's source, and runs nobody's code."""
    if type(value) in (list, tuple, set, dict):
        items: Any = value
        parts = (*items, *items.values()) if type(value) is dict else items
        return len(items) <= LONGEST and all(map(_plain, parts))
    return type(value) in (NoneType, bool, int, float, str, bytes)


def _named(node: ast.stmt, name: str) -> TypeGuard[ast.FunctionDef]:
    return isinstance(node, ast.FunctionDef) and node.name == name


def _used(text: str) -> set[str]:
    """Return the global names that a source reads, as Python itself sees them."""
    tables = [symtable.symtable(text, "<answer>", "exec")]
    used = {one.get_name() for one in tables[0].get_symbols() if one.is_referenced()}
    for table in tables:  # grows as it is walked
        tables += table.get_children()
        used |= {one.get_name() for one in table.get_symbols() if one.is_global()}
    return used


def define(name: str, source: str, folder: str = "") -> Any:
    """Return what a source defines as `name`; it runs here and now.

    With a folder this process first leaves network and writable files behind, for good,
    where the system allows it (Linux); only the folder stays, in memory.
    """
    if folder:
        os.environ |= ONE_THREAD
        sandbox._separate({"folder": folder, "memory_mb": 64, "use": ["namespaces"]})
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "<answer>", "exec"), space)
    return space[name]


def holds(source: str, other: str) -> bool:
    """Return whether a source has each statement of another, comments aside."""
    try:
        bodies = (ast.parse(text).body for text in (source, other))
        ours, theirs = ({ast.dump(node) for node in body} for body in bodies)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return theirs <= ours
