r"""Mathematics in a model's reply: read with a parser of our own, compared with sympy.

Nothing is ever handed to `eval` or to sympy's own parsers, which run what they read.
Knows no models and gives no verdicts: those are in `answers`.

Read are + - * / ^, brackets, |x|, fractions, roots, sin cos tan exp log ln sqrt abs,
pi, e and one-letter names, in plain text or LaTeX. Not read: inequalities, intervals,
matrices, integrals, units. Two expressions count as the same if they agree at six
points, so (x^2-1)/(x-1) is the same as x+1 though one has a gap.
"""

import random
import re
from collections.abc import Callable
from typing import Any

from .errors import CourseError

LONGEST, DEEPEST = 300, 30  # tokens of an expression, brackets in brackets
DIGITS, BITS, DEGREE = 30, 512, 200  # of a number, of a power's result; of a power
FUNCTIONS = ("sin", "cos", "tan", "exp", "log", "ln", "sqrt", "abs")
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_PLAIN: dict[str, Any] = {  # how it is written -> the same in plain characters
    r"\\(?:left|right|displaystyle|big|Big|[,;:! ])|[$`]|\\[()\[\]]": " ",
    r"\\(?:text|mathrm|textbf|mathbf) ?\{([^{}]*)\}": r" \1 ",
    r"\\[dtc]frac": r"\\frac",
    r"\\(?:cdot|times)(?![a-z])|[·×∙⋅]": "*",
    r"\\div(?![a-z])|÷": "/",
    r"\\pm(?![a-z])": "±",
    r"\\(sin|cos|tan|exp|log|ln|pi)(?![a-z])": r" \1 ",
    r"\*\*": "^",
    "[\u2212\u2013]": "-",
    "π": " pi ",
    r"(?<=\d),(?=\d{3}(?!\d))": "",
    r"_(?:\{\w+\}|\w)": "",
    "[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+": lambda m: f"^({m[0].translate(_RAISED)})",
}
_TOKEN = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+|\\?[A-Za-z]+|[-+*/^(){}\[\]|=±√])")
_NAME = re.compile(r"\s*(?:[a-zA-Z]'*|d[a-z]/d[a-z])\s*(?:\([a-z]\))?\s*$")
_APART = re.compile(r"[,;]|\bor\b|\band\b|\\quad|\\\\")
_IN_PRODUCTS = set("abcuvwxyz")  # of letters that stand together; "so" is a word
_CLOSES = {"(": ")", "{": "}", "[": "]", "|": "|"}


class Unreadable(ValueError):
    """A text that is no expression; says why."""


def boxed(text: str) -> str | None:
    r"""Return the content of the last closed \boxed{}, with nested braces, or None."""
    opened, closed = list[tuple[int, bool]](), dict[int, int]()
    for sign in re.finditer(r"\\f?boxed ?\{|\\.|[{}]", text):
        if sign[0].endswith("{") and sign[0] != "\\{":
            opened.append((sign.end(), len(sign[0]) > 1))
        elif sign[0] == "}" and opened:
            start, is_box = opened.pop()
            closed |= {start: sign.start()} if is_box else {}
    return text[max(closed) : closed[max(closed)]] if closed else None


class _Parser:
    """Reads one expression by recursive descent; `sign` is what ± means this time."""

    def __init__(self, text: str, sign: int) -> None:
        self.tokens, self.sign, self.depth, place = list[str](), sign, 0, 0
        while text[place:].strip():
            if not (found := _TOKEN.match(text, place)):
                raise Unreadable(f"{text[place:].strip()[:20]!r} is not mathematics")
            place = found.end()
            self.tokens += self.split(found[1])
            if len(self.tokens) > LONGEST:
                raise Unreadable(f"more than {LONGEST} signs")

    @staticmethod
    def split(token: str) -> list[str]:
        """Return the letters of a product such as xy; a known word stays whole."""
        word = token.removeprefix("\\")
        if word in (*FUNCTIONS, "pi", "frac") or not word.isalpha():
            return [word]
        if len(word) > 2 or (len(word) == 2 and not {*word} <= _IN_PRODUCTS):
            raise Unreadable(f"the word {word[:20]!r} is not mathematics")
        return [*word]

    def next(self) -> str:
        return self.tokens[0] if self.tokens else ""

    def take(self, wanted: str = "") -> str:
        if not self.tokens or wanted not in ("", self.tokens[0]):
            raise Unreadable(f"{wanted or 'more'!r} is missing")
        return self.tokens.pop(0)

    def whole(self) -> Any:
        value = self.sum()
        if self.tokens:
            raise Unreadable(f"{self.next()!r} stands where an operation should")
        return value

    def sum(self) -> Any:
        value = self.product()
        while self.next() in ("+", "-", "±") and self.tokens:
            sign = {"+": 1, "-": -1, "±": self.sign}[self.take()]
            value += sign * self.product()
        return value

    def product(self) -> Any:
        value = self.signed()
        while (sign := self.next()) and sign not in "+-±)}]|=^":
            if sign[0] in "0123456789.":
                raise Unreadable(f"the number {sign} follows without an operation")
            if sign in "*/":
                self.take()
            factor = self.signed()
            value = value / factor if sign == "/" else value * factor
        return value

    def signed(self) -> Any:
        if self.next() and self.next() in "+-±":
            self.deeper()
            sign = {"+": 1, "-": -1, "±": self.sign}[self.take()]
            value = sign * self.signed()
            self.depth -= 1
            return value
        return self.raised(self.atom())

    def raised(self, base: Any) -> Any:
        if self.next() != "^":
            return base
        self.take()
        self.deeper()
        exponent = self.signed()
        self.depth -= 1
        return _power(base, exponent)

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unreadable(f"more than {DEEPEST} brackets in brackets")

    def bracket(self, opening: str) -> Any:
        self.deeper()
        value = self.sum()
        self.take(_CLOSES[opening])
        self.depth -= 1
        return value

    def argument(self) -> Any:
        """Return a group in braces, or one sign: both parts of frac12."""
        token = self.take()
        if token in ("{", "("):
            return self.bracket(token)
        if token.isdigit() and len(token) > 1:
            self.tokens.insert(0, token[1:])
            token = token[0]
        self.tokens.insert(0, token)
        return self.atom()

    def atom(self) -> Any:
        import sympy

        token = self.take()
        if token[0] in "0123456789.":
            if len(token) > DIGITS:
                raise Unreadable(f"a number of more than {DIGITS} digits")
            return sympy.Rational(token)
        if token in "({[|":
            value = self.bracket(token)
            return sympy.Abs(value) if token == "|" else value
        if token == "frac":
            self.deeper()
            over, under = self.argument(), self.argument()
            self.depth -= 1
            return over / under
        if token in FUNCTIONS or token == "√":
            return self.function(token)
        names = {"pi": sympy.pi, "e": sympy.E}
        if token not in names and not (len(token) == 1 and token.isalpha()):
            raise Unreadable(f"{token!r} stands where a value should")
        return names.get(token) or sympy.Symbol(token, real=True)

    def function(self, name: str) -> Any:
        import sympy

        self.deeper()
        root, power = sympy.Integer(2), None
        if name == "sqrt" and self.next() == "[":
            root = self.bracket(self.take())
        elif self.next() == "^":  # sin^2 x
            self.take()
            power = self.atom()
        if self.next() in ("(", "{"):
            value = self.bracket(self.take())
        else:  # sin 2x, sqrt 19
            value = self.raised(self.atom())
            while len(self.next()) == 1 and self.next().isalpha():
                value *= self.raised(self.atom())
        self.depth -= 1
        if name in ("sqrt", "√"):
            return _power(value, 1 / root)
        if name == "exp":
            return _power(sympy.E, value)
        made = {"ln": sympy.log, "abs": sympy.Abs}.get(name) or getattr(sympy, name)
        return made(value) if power is None else _power(made(value), power)


def _power(base: Any, exponent: Any) -> Any:
    """Return a power, or refuse one that would take for ever to write out."""
    import sympy

    powers = exponent.atoms(sympy.Pow, sympy.exp)
    if any(not power.exp.is_Rational for power in powers):
        raise Unreadable("a power in the exponent of a power")
    degree = abs(exponent) if exponent.is_Rational else sympy.Integer(1)
    inner = [abs(p.exp) for p in base.atoms(sympy.Pow) if p.exp.is_Rational]
    if degree * max([sympy.Integer(1), *inner]) > DEGREE:
        raise Unreadable(f"a power above {DEGREE}")
    if degree * _bits(base) > 8 * BITS or _bits(exponent) > BITS:
        raise Unreadable("a number too large to write out")
    return base**exponent


def _bits(expression: Any) -> int:
    """Return the bits of all numbers in an expression."""
    import sympy

    numbers = expression.atoms(sympy.Rational)
    return sum(max(abs(n.p).bit_length(), n.q.bit_length()) for n in numbers)


def read(text: str, equation: bool = False) -> list[Any]:
    """Return the expressions of a text: one, or all solutions that it lists.

    Of "f'(x) = 2x" and of "a = b = 2x" the last side counts; ± gives two.

    Args:
        text: plain or LaTeX, without words around it.
        equation: read "left = right" as left - right instead.

    Raises:
        Unreadable: says why.
    """
    if len(text) > 20 * LONGEST:
        raise Unreadable("a very long text")
    text = text.strip().strip(".:").strip()
    for pattern, plain in _PLAIN.items():
        text = re.sub(pattern, plain, text)
    text = text.replace("\\{", "{").replace("\\}", "}").strip()
    if "," in text and _wrapped(text):  # a set or a pair
        text = text[1:-1]
    found: list[Any] = []
    for part in _APART.split(text):
        if not part.strip():
            continue
        *before, last = part.split("=")
        for sign in (1, -1) if "±" in part else (1,):
            value = _finite(last, sign)
            if equation:
                if len(before) != 1:
                    raise Unreadable("it holds no equation")
                value = _finite(before[0], sign) - value
            if value not in found:
                found.append(value)
    if not 0 < len(found) <= 12:
        raise Unreadable("nothing to read" if not found else "more than 12 values")
    return found


def _wrapped(text: str) -> bool:
    """Return whether the first bracket closes at the very end."""
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign in "({[") - (sign in ")}]")
        if depth <= 0:
            return place == len(text) - 1 > 0
    return False


def _finite(text: str, sign: int) -> Any:
    import sympy

    try:
        value = _Parser(text, sign).whole()
    except (RecursionError, OverflowError, ZeroDivisionError, TypeError) as error:
        raise Unreadable(f"{error}") from None
    if value.has(sympy.zoo, sympy.nan, sympy.oo):
        raise Unreadable("it divides by zero")
    return value


def is_equation(text: str) -> bool:
    """Return whether a text is an equation, and not a name with its value."""
    left, sign, _ = text.partition("=")
    return bool(sign) and not _NAME.match(re.sub(r"_(?:\{\w+\}|\w)", "", left))


def in_reply(text: str, equation: bool = False) -> list[Any]:
    r"""Return the expressions that a reply ends with: its last \boxed{}, else its end.

    Without a box the last lines are tried from below: formulas between dollars or
    \[ \], then the whole line, then what follows a colon, "is" or "are".
    """
    tried = [content] if (content := boxed(text)) is not None else _ends(text)
    problem = Unreadable("no expression in the answer")
    for piece in tried:
        try:
            return read(piece, equation)
        except Unreadable as error:
            problem = error if len(tried) == 1 else problem
    raise problem


def _ends(text: str) -> list[str]:
    text = text[-4000:]
    displays = re.findall(r"(?s)\\\[(.*?)\\\]|\$\$(.*?)\$\$", text)
    text = re.sub(r"(?s)\\\[(.*?)\\\]|\$\$(.*?)\$\$", r"\n\1\2\n", text)
    tried: list[str] = []
    lines = [line.strip().strip("*# ") for line in text.splitlines()]
    for line in [line for line in lines if line][:-7:-1]:
        line = line.rstrip(".").strip("*")
        inline = re.findall(r"\$(.+?)\$|\\\((.+?)\\\)", line)
        tried += [line, ", ".join(map("".join, inline))]
        tried += ["".join(pair) for pair in inline[::-1]]
        parts = re.split(r":|\b(?:is|are|get|to)\b", line)[:0:-1]
        tried += [part.strip(" *") for part in parts]
    return [piece for piece in tried if piece.strip()] or ["".join(d) for d in displays]


def same(one: Any, other: Any) -> tuple[bool, str]:
    """Return whether two expressions are worth the same, and where they differ.

    They are compared to 30 digits at six points, negative and positive.
    """
    names = sorted(one.free_symbols | other.free_symbols, key=str)
    rng, usable = random.Random(0), 0
    for place in range(6 if names else 1):
        point = {name: _number(rng, place) for name in names}
        values = [_value(side, point) for side in (one, other)]
        if None in values:
            continue
        usable += 1
        a, b = values
        apart = abs(a - b)
        if apart > 1e-30 * max(1, abs(a)):
            where = ", ".join(f"{n} = {v}" for n, v in point.items())
            told = f"at {where} they give {_short(a)} and {_short(b)}"
            near = apart < 0.01 * max(1, abs(b)) and not names
            told = f"close to, but not exactly {other}" if near else told
            return False, told if near or names else ""
    return usable >= min(3, 6 if names else 1), "" if usable else "not comparable"


def _short(value: Any) -> str:
    import mpmath

    return str(mpmath.nstr(value, 6))


def _number(rng: random.Random, place: int) -> Any:
    import sympy

    return sympy.Rational(rng.randint(2, 40), 13) * (-1) ** place


def _value(expression: Any, point: dict[Any, Any]) -> Any:
    """Return the value at a point as a complex number of mpmath, None for a gap."""
    import mpmath

    try:
        with mpmath.workdps(40):
            return mpmath.mpmathify(expression.evalf(40, subs=point))
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return None


def proportional(one: Any, other: Any) -> bool:
    """Return whether two equations, as left - right, differ by a constant factor."""
    if not one.free_symbols or one.free_symbols != other.free_symbols:
        return False
    return same(one / _at(one), other / _at(other))[0]


def _at(expression: Any) -> Any:
    names = sorted(expression.free_symbols, key=str)
    return expression.subs({n: place + 5 for place, n in enumerate(names)}) or 1


def needs(text: str, reader: Callable[[str], list[Any]]) -> list[Any]:
    """Return what `reader` reads in an expected answer; CourseError if it cannot."""
    try:
        return reader(text)
    except Unreadable as error:
        rule = f"The expected answer {text!r:.80} cannot be read: {error}."
        raise CourseError(
            rule, "Write it like 3x^2 + 4x - 5, or like 1/2, -3."
        ) from None
