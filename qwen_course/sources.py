"""Python as text: the source of what a notebook defined, and what a text defines.

Knows Python and the sandbox; knows nothing of exercises.
"""

import ast
import inspect
import os
import symtable
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterable
from contextlib import suppress
from types import FunctionType, ModuleType, NoneType
from typing import Any

from qwen_course import sandbox

LONGEST = 20_000  # characters of a source that is worth keeping
OWN = {"__main__", "builtins"}  # modules of what a notebook defined, and of its values
# Behind the fence no thread can be started; numpy would try when it is imported.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_PARSING = threading.Lock()  # to silence warnings is not safe in threads
_DEFINING = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_ASKING = {"print", "input", "open", "exec", "eval", "breakpoint", "sys", "stdin", "os"}
_ASKING |= {"argv", "argparse", "io", "fileinput", "subprocess", "getpass", "tkinter"}


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
        home, _, leaf = value.__name__.rpartition(".")  # from package import module
        if kind is not ModuleType:
            home, leaf = value.__module__, value.__name__
        if home and getattr(sys.modules[home], leaf) is not value:
            raise ValueError(name)
        said = [f"from {home}"] * bool(home) + [f"import {leaf}"]
        return " ".join([*said, *[f"as {name}"] * (leaf != name)]), {}
    inner = inspect.unwrap(value)  # a decorator has the names of its library
    if kind is not FunctionType or inner.__closure__:  # what it holds has no name
        raise ValueError(name)
    text = textwrap.dedent(inspect.getsource(value)).strip()
    if [getattr(node, "name", "") for node in ast.parse(text).body] != [value.__name__]:
        raise ValueError(name)
    if name != value.__name__:
        text += f"\n\n{name} = {value.__name__}"
    known = inner.__globals__
    return text, {n: known[n] for n in _used(text) & known.keys() - {value.__name__}}


def _plain(value: object) -> bool:
    """Return whether `repr` gives this value's source, and runs nobody's code."""
    if type(value) in (list, tuple, set, dict):
        items: Any = value
        parts = (*items, *items.values()) if type(value) is dict else items
        return len(items) <= LONGEST and all(map(_plain, parts))
    return type(value) in (NoneType, bool, int, float, str, bytes)


def _used(text: str) -> set[str]:
    """Return the global names that a source reads, as Python itself sees them."""
    tables = [symtable.symtable(text, "<answer>", "exec")]
    used = {one.get_name() for one in tables[0].get_symbols() if one.is_referenced()}
    for table in tables:  # grows as it is walked
        tables += table.get_children()
        used |= {one.get_name() for one in table.get_symbols() if one.is_global()}
    return used


def leave(folder: str) -> None:
    """Leave network and writable files behind, for good, and other processes.

    Only the folder stays, in memory; it is the children that see no process. Where the
    system does not allow it (Linux alone does), all stays as it is.
    """
    os.environ |= ONE_THREAD
    sandbox._separate({"folder": folder, "memory_mb": 64, "use": ["namespaces"]})


def define(name: str, source: str) -> Any:
    """Return what a source defines as `name`; it runs here and now."""
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


def tree(code: str) -> ast.Module | None:
    """Return the syntax tree of a program, None if it is no Python or empty."""
    with _PARSING, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "\d" in a model's code is not our warning
        with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            program = ast.parse(code)
            return program if program.body else None
    return None


def _defines(node: ast.stmt, own: set[str]) -> bool:
    """Return whether a statement sets names, and calls nothing with those of `own`."""
    if isinstance(node, ast.Try):  # import this, else that
        blocks = [node.body, node.orelse, *(one.body for one in node.handlers)]
        return all(_defines(n, own) for block in blocks for n in block)
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return isinstance(node, _DEFINING | ast.Import | ast.ImportFrom | ast.Pass)
    parts = [] if isinstance(node.value, ast.Lambda) else [*ast.walk(node)]
    return ast.Call not in map(type, parts) or not own & _names(parts, ast.Load)


def _names(parts: Iterable[ast.AST], use: type) -> set[str]:
    """Return the names that are read (ast.Load) or set (ast.Store)."""
    return {n.id for n in parts if isinstance(n, ast.Name) and type(n.ctx) is use}


def definitions(code: str) -> str:
    """Return a program's imports, functions, classes and constants.

    Constants may call what is imported or built in, Counter() and the like. A cut end
    drops out, and examples of use, of which a wrong one would fail a right function.
    """
    lines = code.split("\n")
    starts = [n for n, line in enumerate(lines) if line[:1].strip()][1:][-40:]
    programs = ("\n".join(lines[:end]) for end in [len(lines), *reversed(starts)])
    if not (program := next(filter(None, map(tree, programs)), None)):
        return code
    own = _ASKING | {n.name for n in program.body if isinstance(n, _DEFINING)}
    kept = list[str]()
    with suppress(RecursionError):  # in a very long sum, say
        for node in program.body:
            if _defines(node, own):
                kept.append(ast.unparse(node))
            else:
                own |= _names(ast.walk(node), ast.Store)
        return "\n\n".join(kept)
    return code
