"""Was it right? Verdicts with reasons: numbers, expressions, languages, Python code.

Knows nothing of models or messages. A wrong answer is a verdict, never an exception.
"""

import ast
import contextlib
import itertools
import json
import math
import os
import re
import unicodedata
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from . import expressions, sandbox, sources
from .errors import CourseError

_BLOCK = re.compile(  # indent, fence, tag, code up to a closing fence or the end
    r"^([ \t]*)(`{3,}|~{3,})([^`\n]*)\n(.*?)(?:^\1?[ \t]{0,3}\2[`~]*[ \t]*$|\Z)",
    re.MULTILINE | re.DOTALL,
)
_DEFINES = re.compile(r"^(async\s+def|def|class)\s+\w", re.MULTILINE)
_DIGITS = r"(?:(?:\d{1,3}(?:,\d{3})+(?!,?\d)|\d+)(?:\.\d+)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?<![A-Za-z_\d.])((?:(?<![)\]}}])[-+])?{_DIGITS}(?:[eE][-+]?\d+)?)"
    rf"(?: ?/ ?({_DIGITS}))?( ?\\?%)?"
)
_LETTER = re.compile(r"([A-Za-z])(?:_\{?\w+\}?|[₀-₉\d])? *=")
_HAN = "零一二三四五六七八九"
_CALL = "(?s)<tool_call>(.*)</tool_call>"
_SAME_AS = """exec({code}, wanted := {{}})
for xs in [[x] for x in range(-12, 31)] + [[7, 3, 9, 2], [4, -8, 12, -5, 6, 4, 15]]:
    assert [type(f([*xs])), f([*xs])] == [type(wanted["f"](xs)), wanted["f"](xs)]
"""
_PLAIN = expressions.ONE_SIGN | {  # how a number is written -> in plain characters
    "[\u2212\u2013]": "-",
    r"(?<=[=({])( ?)- (?=[\d.\\])": r"\1-",  # x = - 5
    r"(?<=-) ?\\?[$€£]": "",  # -$5
    r"(?<=[A-Za-z}])\$?\^(?:-?\d+|\{-?\d+\})": "",  # cm^2: a unit's power is no number
    r"(?<=\d)(?=\\[dtc]?frac)": " ",
    r"\\[,!;:]|(?<=\d)\{(?=,\})|(?<=\{,)\}": "",
    r"\\[dtc]?frac ?\{([^{}]+)\} ?\{([^{}]+)\}": r"\1/\2",
    r"\\[dtc]?frac ?(\d) ?(\d)": r"\1/\2",
    r"(?<=\d) ?(?:\\times|\\cdot|[×·⋅*x]) ?10 ?(?:\^|\*\*) ?\{?([-+]?\d+)\}?": r"e\1",
    r"(?<![\w.^])10 ?(?:\^|\*\*) ?\{?([-+]?\d+)\}?": r"1e\1",
    r"(?<![\w.^])(\d{1,3})\^\{?(\d{1,2})\}?(?!\.?\d|\^)": (  # 2^10
        lambda m: f"{float(m[1]) ** int(m[2]):.17g}"
    ),
    r"(?<![\w.,/])(\d+) (\d+) ?/ ?0*([1-9]\d*)": (  # 1 1/2
        lambda m: f"{float(m[1]) + float(m[2]) / float(m[3])}"
    ),
}


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, why, and for code what it printed and its seconds."""

    passed: bool
    reason: str
    output: str = field(default="", repr=False)
    seconds: float = field(default=0.0, repr=False, compare=False)


def plain(value: Any) -> Any:
    """Return a Decimal as float, numpy's bool as bool, all else as it is."""
    if isinstance(value, Decimal):
        return float(value)
    return bool(value) if type(value).__name__ in ("bool", "bool_") else value


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
    boxed = expressions.boxed(text)
    found = _NUMBER.findall(text if boxed is None else boxed) or [("nan", "", "")]
    number, divisor, percent = (part.replace(",", "") for part in found[-1])
    value = float(number) / (float(divisor or 1) or float("nan"))
    values = [value, value / 100] if percent else [value]
    return values if abs(value) < float("inf") else []


def same_expression(text: str, expected: str) -> Verdict:
    r"""Return whether an answer is worth what is expected: an expression or solutions.

    The last \boxed{} counts, else the end of the text; `expressions` says what can be
    read. Solutions are compared as a set, each exactly: 0.786 is not (sqrt(19) - 2)/3.
    An equation such as 2x + 4 = 10 is the same as any multiple of it; of "x = 2" only
    the right side counts, and "y = 2x" is met by 2x and by 4x - 2y = 0. Raises
    CourseError when `expected` cannot be read.
    """
    expected = str(expected)
    text = str(text) if "." in expected else expressions.ROUNDED.sub("", str(text))
    if "e" not in expected.lower():
        text = expressions.SCIENTIFIC.sub(r"*10^{\1}", text)
    verdict = _same(text, expected, expressions.is_equation(expected))
    if not verdict.passed and expressions.is_curve(expected):
        other = _same(text, expected, equation=True)
        return other if other.passed else verdict
    return verdict


def _same(text: str, expected: str, equation: bool) -> Verdict:
    try:
        wanted = expressions.read(expected, equation)
    except expressions.Unreadable as error:
        rule = f"The expected answer {expected!r:.80} cannot be read: {error}."
        raise CourseError(rule, "Write it like 3x^2 + 4x - 5, or 1/2, -3.") from None
    try:
        found = _in_reply(text, equation, len(wanted))
    except expressions.Unreadable as error:
        number = len(wanted) == 1 and wanted[0].is_Rational
        if number and not expressions.compares(text):  # "12 apples"
            return same_number(text, float(wanted[0]), 1e-9)
        return Verdict(False, f"cannot be read: {error}")
    told = f"read {', '.join(map(str, found)):.200}"
    reason = f"{told}, expected {', '.join(map(str, wanted)):.200}"
    compare = expressions.proportional if equation else expressions.same
    left = list(wanted)
    for value in found:
        verdicts = [compare(value, other) for other in left]
        if not any(passed for passed, _ in verdicts):
            alone = len(wanted) == len(found) == 1
            notes = [n for _, n in verdicts if n and (alone or n.startswith("close"))]
            return Verdict(False, "; ".join([reason, *notes[:1]]))
        left.pop([passed for passed, _ in verdicts].index(True))
    if left:
        return Verdict(False, f"{reason}; missing {', '.join(map(str, left)):.100}")
    return Verdict(True, f"{told}, the same as expected")


def _in_reply(text: str, equation: bool = False, count: int = 1) -> list[Any]:
    r"""Return the expressions that a reply ends with: its last \boxed{}, else its end.

    Without a box the last lines are tried from below: the whole line, its formulas
    between dollars, then what follows a colon, "is" or "are". Where `count` solutions
    are asked for, earlier boxes, or lines for the same letter, are added up to it.
    """
    boxes, found, letter = expressions.boxes(text), list[Any](), list[str]()
    groups = [[box or ""] for box in boxes[::-1]] or _ends(text)
    problem = expressions.Unreadable("no expression in the answer")
    for pieces in groups:
        for piece in pieces:
            try:
                values = expressions.read(piece, equation)
            except expressions.Unreadable as error:
                problem = error if boxes or len(groups) == len(pieces) == 1 else problem
                continue
            own = _LETTER.findall(piece)[-1:]
            if not found or boxes or (own and own == letter):
                found = [value for value in values if value not in found] + found
                letter = own
            break
        if len(found) >= count or (boxes and not found):
            break
    if not found:
        raise problem
    return found


def _ends(text: str) -> list[list[str]]:
    """Return the pieces of the last lines that may be the answer, line by line."""
    text = re.sub(r"(?s)\\\[(.*?)\\\]|\$\$(.*?)\$\$", r"\n\1\2\n", text[-4000:])
    groups: list[list[str]] = []
    lines = [line.strip().strip("*# ") for line in text.splitlines()]
    for line in [line for line in lines if line][:-7:-1]:
        line = line.rstrip(".").strip("*")
        inline = [*map("".join, re.findall(r"\$(.+?)\$|\\\((.+?)\\\)", line))]
        parts = re.split(r":|\b(?:is|are|get|to)\b", line)[:0:-1]
        tried = [line, ", ".join(inline), *inline[::-1]]
        tried += [part.strip(" *") for part in parts]
        groups.append([piece for piece in tried if piece.strip()])
    return groups


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
        found = [text] if sources.tree(text) or _DEFINES.search(text) else []
    chosen = [code for code in found if _DEFINES.search(code)] or found[-1:]
    return "\n".join([code for code in chosen if sources.tree(code)] or chosen[-1:])


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
    runs = [n for n in tree.body if isinstance(n, sandbox.TESTS)]
    quiet = all(isinstance(getattr(n, "value", n), ast.Constant) for n in runs)
    if quiet or not {ast.Assert, ast.Raise} & {*map(type, ast.walk(tree))}:
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
    For "functions" and "cache" the tests are what is expected; of their programs, and
    of those for "code", the `sources.definitions` count.
    """
    got, wanted = text.strip(), expected.strip()
    if task == "algebra":
        return same_expression(text, expected)
    if task == "languages":
        if not any(sign.isdigit() for sign in text):  # such as "八条腿", eight legs
            text = text.translate({ord(c): str(n) for n, c in enumerate(_HAN)})
        return same_number(text, expected)
    if task in ("functions", "cache"):
        return run_python(sources.definitions(extract_code(text)), expected)
    if task == "code" and got != wanted and "def " in got:
        code = sources.definitions(extract_code(got))
        return run_python(code, _SAME_AS.format(code=repr(wanted)))
    call, right = (re.fullmatch(_CALL, whole) for whole in (got, wanted))
    with contextlib.suppress(ValueError, RecursionError):
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
    return max(0.0, min(low, share)), min(1.0, max(high, share))  # but for rounding


def pass_at_k(n: int, right: int, k: int) -> float:
    """Return the chance that of k samples at least one passes, by n that were drawn.

    The unbiased estimate of Chen et al. (2021), arXiv 2107.03374, section 2.1.
    """
    if not (0 <= right <= n and 1 <= k <= n):
        rule = f"Of n samples right ones pass, k are picked: got {n}, {right}, {k}."
        raise CourseError(rule, "right is between 0 and n, k between 1 and n.")
    return 1 - math.comb(n - right, k) / math.comb(n, k)


@dataclass(frozen=True)
class Language:
    """The likeliest language of a text, and the share of its letters by script."""

    code: str  # such as "el"; "" when there are too few letters to tell
    scripts: dict[str, float]


SCRIPTS = {  # language -> scripts it is written in; those of one script are told apart
    "ar": {"ARABIC"}, "de": {"LATIN"}, "el": {"GREEK"}, "en": {"LATIN"},
    "es": {"LATIN"}, "fr": {"LATIN"}, "hi": {"DEVANAGARI"}, "it": {"LATIN"},
    "ja": {"CJK", "HIRAGANA", "KATAKANA"}, "ko": {"HANGUL"}, "pt": {"LATIN"},
    "ru": {"CYRILLIC"}, "sw": {"LATIN"}, "tr": {"LATIN"}, "zh": {"CJK"},
}  # fmt: skip
_SHARED = {"KATAKANA-HIRAGANA": "KATAKANA", "IDEOGRAPHIC": "CJK"}  # the marks ー and 々
_ENOUGH = 20  # letters from which py3langid is asked


def language(text: str) -> Language:
    """Return the language of a text, one of SCRIPTS, by py3langid and Unicode."""
    import py3langid

    text = unicodedata.normalize("NFKC", text)  # full and half width
    names = [unicodedata.name(c, "?").split()[0] for c in text if c.isalpha()]
    names = [_SHARED.get(name, name) for name in names]
    scripts = {name: names.count(name) / len(names) for name in sorted(set(names))}
    if len(names) < _ENOUGH and not {"CJK", "HIRAGANA"} & {*scripts}:
        return Language("", scripts)
    ranked = [code for code, _ in py3langid.rank(text)]
    return Language(next(code for code in ranked if code in SCRIPTS), scripts)


def speaks(text: str, code: str) -> Verdict:
    """Return whether a text is in a language, and in no other script besides.

    Up to 5 % of the letters may be of a foreign script: names, units. A foreign word
    in the same script is not seen, and of fewer than 20 letters the script alone says.
    """
    if code not in SCRIPTS:
        rule = f"Unknown language {code!r}."
        raise CourseError(rule, f"Use one of {', '.join(SCRIPTS)}.")
    found = language(text)
    if not found.scripts:
        return Verdict(False, "no letters")
    foreign = {s: p for s, p in found.scripts.items() if s not in SCRIPTS[code]}
    if sum(foreign.values()) > 0.05:
        told = ", ".join(f"{p:.0%} {s.title()}" for s, p in foreign.items())
        return Verdict(False, f"of the letters are {told.replace('Cjk', 'Han')}")
    if found.code not in ("", code):
        return Verdict(False, f"the script fits, the words look like {found.code!r}")
    return Verdict(True, f"{code!r}" if found.code else "the script fits; too short")


def isolation() -> dict[str, str]:
    """Return what the sandbox restricts on this machine, and by which means."""
    return dict(sandbox.run("", "assert True", 5, 512)["active"])
