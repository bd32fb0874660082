"""Was it right? Verdicts with reasons: numbers, and Python code run in `sandbox`.

Knows nothing of models or messages. A wrong answer is a verdict, never an exception.
"""

import ast
import contextlib
import itertools
import json
import math
import os
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

from . import sandbox
from .errors import CourseError

_BLOCK = re.compile(  # indent, fence, tag, code up to a closing fence or the end
    r"^([ \t]*)(`{3,}|~{3,})([^`\n]*)\n(.*?)(?:^\1?[ \t]{0,3}\2[`~]*[ \t]*$|\Z)",
    re.MULTILINE | re.DOTALL,
)
_DEFINES = re.compile(r"^(async\s+def|def|class)\s+\w", re.MULTILINE)
_DIGITS = r"(?:(?:\d{1,3}(?:,\d{3})+(?![\d,])|\d+)(?:\.\d+)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?<![\w.])((?:(?<![)\]}}])[-+])?{_DIGITS}(?:[eE][-+]?\d+)?)"
    rf"(?: ?/ ?({_DIGITS}))?( ?\\?%)?"
)
_CALL = "(?s)<tool_call>(.*)</tool_call>"
_SAME_AS = """exec({code}, wanted := {{}})
for xs in [[x] for x in range(-12, 31)] + [[7, 3, 9, 2], [4, -8, 12, -5, 6, 4, 15]]:
    assert [type(f([*xs])), f([*xs])] == [type(wanted["f"](xs)), wanted["f"](xs)]
"""
_PLAIN: dict[str, Any] = {  # how a number is written -> the same in plain characters
    "[\u2212\u2013]": "-",
    r"(?<=-) ?\\?[$€£]": "",  # -$5
    r"(?<=[A-Za-z}])\^(?:\d+|\{-?\d+\})": "",  # cm^2: a unit's power is no number
    r"(?<=\d)(?=\\[dtc]?frac)": " ",
    r"\\[,!;:]|(?<=\d)\{(?=,\})|(?<=\{,)\}": "",
    r"\\[dtc]?frac ?\{([^{}]+)\} ?\{([^{}]+)\}": r"\1/\2",
    r"(?<=\d) ?(?:\\times|\\cdot|×|\*|x) ?10 ?(?:\^|\*\*) ?\{?([-+]?\d+)\}?": r"e\1",
    r"(?<![\w.^])10 ?(?:\^|\*\*) ?\{?([-+]?\d+)\}?": r"1e\1",
    r"(?<![\w.,/])(\d+) (\d+) ?/ ?0*([1-9]\d*)": (  # 1 1/2
        lambda m: f"{int(m[1]) + int(m[2]) / int(m[3])}"
    ),
}


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, why, and for code what it printed and its seconds."""

    passed: bool
    reason: str
    output: str = field(default="", repr=False)
    seconds: float = field(default=0.0, repr=False, compare=False)


def same_number(text: str, expected: float | str, tolerance: float = 1e-6) -> Verdict:
    r"""Return whether the answer's number is within the tolerance of the expected one.

    It is the number in the last \boxed{}, else the last of the text: 1,234.5 or 6e-3
    or 2 x 10^5 or 3/4; 25% may stand for 25 or 0.25. The tolerance is absolute.
    """
    wanted, found = _last_number(str(expected)), _last_number(str(text))
    if not wanted or not isinstance(tolerance, int | float) or not tolerance >= 0:
        rule = f"Not a finite number: expected={expected!r} or tolerance={tolerance!r}."
        raise CourseError(rule, "Give numbers; a tolerance is 0 or more.")
    if not found:
        return Verdict(False, f"no number in the answer, expected {expected}")
    pairs = zip if len(found) == len(wanted) else itertools.product
    passed = any(abs(a - b) <= tolerance for a, b in pairs(found, wanted))
    return Verdict(passed, f"got {found[0]:.15g}, expected {expected}")


def _last_number(text: str) -> list[float]:
    """Return the values that the last number may stand for: two with %, else one."""
    for pattern, plain in _PLAIN.items():
        text = re.sub(pattern, plain, text)
    boxed = re.findall(r"\\boxed ?\{((?:[^{}]|\{[^{}]*\})*)\}", text)
    found = _NUMBER.findall(boxed[-1] if boxed else text) or [("nan", "", "")]
    number, divisor, percent = (part.replace(",", "") for part in found[-1])
    value = float(number) / (float(divisor or 1) or float("nan"))
    values = [value, value / 100] if percent else [value]
    return values if abs(value) < float("inf") else []


def extract_code(text: str) -> str:
    """Return the Python code of a model's answer, "" if there is none.

    Blocks tagged python, py or ipython count, else blocks without a tag. Those that
    define a function or class are joined in order (a later version wins, examples of
    use drop out, and so does a broken block beside a good one); if none defines any,
    the last block counts. An unclosed fence ends with the text. No fence: the text.
    """
    text = text.replace("\r\n", "\n") if isinstance(text, str) else ""
    blocks: dict[str, list[str]] = {"python": [], "": []}
    for indent, _, tag, code in _BLOCK.findall(text):
        tag = (tag.lower().split() or [""])[0].strip("{}.")
        code = re.sub(f"^{indent}", "", code, flags=re.MULTILINE)
        tag = "python" if re.match(r"i?py(thon)?[23]?\b", tag) else tag
        blocks.setdefault(tag, []).append(code)
    found = blocks["python"] or blocks[""]
    if not any(blocks.values()):
        found = [text] if _parses(text) or _DEFINES.search(text) else []
    chosen = [code for code in found if _DEFINES.search(code)] or found[-1:]
    return "\n".join([code for code in chosen if _parses(code)] or chosen[-1:])


def _parses(code: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "\d" in a model's code is not our warning
        with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            return bool(ast.parse(code).body)
    return False


def run_python(
    code: str, tests: str, seconds: float = 5, memory_mb: int = 512
) -> Verdict:
    """Return whether the code passes the tests (asserts as text) in the sandbox.

    The code can import the standard library alone, reads an empty input, and may
    print 1 MB and start 32 processes; `sandbox` says what is not covered. Raises
    CourseError for a bad limit or for tests that are not Python or run nothing;
    whatever the code does gives a verdict.
    """
    for name, value, least in (("seconds", seconds, 0.1), ("memory_mb", memory_mb, 64)):
        if not isinstance(value, int | float) or not least <= value <= 1e6:
            rule = f"{name} must be a number from {least} to 1,000,000, not {value!r}."
            raise CourseError(rule, f"Leave {name} out for the usual limit.")
    try:
        tree = ast.parse(tests + "")  # bytes are no text
        compile(tree, "<tests>", "exec")
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise CourseError(f"The tests are not Python: {error}.", "Mend them.") from None
    kinds = {*map(type, ast.walk(tree))}
    quiet = {ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign}
    if not kinds & {ast.Assert, ast.Raise} or {*map(type, tree.body)} <= quiet:
        hint = 'Write "assert f(1) == 2", and call the functions that hold tests.'
        raise CourseError("The tests assert nothing that is run.", hint)
    if not hasattr(os, "fork"):
        raise CourseError("The sandbox needs Linux or macOS.", "Use WSL on Windows.")
    if not isinstance(code, str) or not code.strip():
        return Verdict(False, "the answer holds no code")
    report = sandbox.run(code, tests, seconds, int(memory_mb))
    weak = [what for what, how in report["active"].items() if "not fully" in how]
    note = f" (weaker isolation here: {', '.join(weak)} not fully restricted)"
    reason = report["reason"] + (note if weak else "")
    return Verdict(report["passed"], reason, report["output"], report["seconds"])


def solves(task: str, text: str, expected: str) -> Verdict:
    """Return whether an answer (without thinking) solves a problem of `tasks`.

    So does the same tool call, and code whose f returns the same, number by number.
    """
    got, wanted = text.strip(), expected.strip()
    if task == "code" and got != wanted and "def f" in got:
        return run_python(extract_code(got), _SAME_AS.format(code=repr(wanted)))
    call, right = (re.fullmatch(_CALL, whole) for whole in (got, wanted))
    with contextlib.suppress(ValueError):
        if call and right and json.loads(call[1]) == json.loads(right[1]):
            return Verdict(True, "the same call")
    return Verdict(got == wanted, f"got {got!r:.200}, expected {wanted!r:.200}")


def interval(right: int, n: int) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a share, by Wilson's formula (1927)."""
    if not 0 <= right <= n or not n:
        rule = f"A share is so many right answers of n, got {right!r} of {n!r}."
        raise CourseError(rule, "n is at least 1, and right between 0 and n.")
    z, share = 1.96, right / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = ((middle + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def isolation() -> dict[str, str]:
    """Return what the sandbox restricts on this machine, and by which means."""
    return dict(sandbox.run("", "assert True", 5, 512)["active"])
