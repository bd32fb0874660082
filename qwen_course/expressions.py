r"""Mathematics in a model's reply: read with a parser of our own, compared with sympy.

Nothing is ever handed to `eval` or to sympy's own parsers, which run what they read.
Knows no models and gives no verdicts: those are in `answers`.

Read are + - * / ^, brackets, |x|, fractions, roots, sin cos tan exp log ln sqrt abs,
pi, e and one-letter names, in plain text or LaTeX. Not read: inequalities, intervals,
matrices, integrals, units. Two expressions count as the same if they agree at eight
points, so (x^2-1)/(x-1) is the same as x+1 though one has a gap. Roots and logarithms
of negative numbers are complex: ln(x^2) is not 2 ln(x), and log is the natural one.
"""

import contextlib
import random
import re
from typing import Any

LONGEST, DEEPEST = 300, 30  # tokens of an expression, brackets in brackets
LARGEST = 1000  # digits of a value: the sine of a larger one takes for ever
DIGITS, BITS, DEGREE = 30, 512, 200  # of a number, of a power's result; of a power
FUNCTIONS = ("sin", "cos", "tan", "exp", "log", "ln", "sqrt", "abs")
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_PLAIN: dict[str, Any] = {  # how it is written -> the same in plain characters
    r"\\(?:left|right|displaystyle|big|Big|[,;:! ])|[$`]|\\[()\[\]]": " ",
    r"\\(?:text|mathrm|textbf|mathbf) ?\{([^{}]*)\}": r" \1 ",
    r"\\[dtc]frac": r"\\frac",
    r"\\(?:cdot|times)(?![a-z])|[·×∙⋅]": "*",
    r"\\div(?![a-z])|÷": "/",
    r"\\[lr]vert(?![a-z])": "|",
    r"(?:\\in(?![a-z])|∈)(?=\s*\\?\{)": "=",  # x in {1, 2}
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
_RELATES = re.compile(  # also intervals, and powers that were refused
    r"[<>≤≥≠∞]|(?<!\\)[\[\]]|\^.*\^|\\(?:[lg]eq?|neq?|infty|begin)(?![a-z])"
)
_GAPS = (AttributeError, TypeError, ValueError, ArithmeticError)
_CLOSES = {"(": ")", "{": "}", "[": "]", "|": "|"}


class Unreadable(ValueError):
    """A text that is no expression; says why."""


def boxed(text: str) -> str | None:
    r"""Return the content of the last closed \boxed{}, with nested braces, or None."""
    return (boxes(text) or [None])[-1]


def boxes(text: str) -> list[str | None]:
    r"""Return the contents of all closed \boxed{}, in order."""
    opened, closed = list[tuple[int, bool]](), dict[int, int]()
    for sign in re.finditer(r"\\f?boxed ?\{|\\.|[{}]", text):
        if sign[0].endswith("{") and sign[0] != "\\{":
            opened.append((sign.end(), len(sign[0]) > 1))
        elif sign[0] == "}" and opened:
            start, is_box = opened.pop()
            closed |= {start: sign.start()} if is_box else {}
    return [text[start:end] for start, end in sorted(closed.items())]


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
        terms = [self.product()]
        while self.next() in ("+", "-", "±") and self.tokens:
            sign = {"+": 1, "-": -1, "±": self.sign}[self.take()]
            terms.append(sign * self.product())
        return _joined("Add", terms)

    def product(self) -> Any:
        factors = [self.signed()]
        while (sign := self.next()) and sign not in "+-±)}]|=^":
            if sign[0] in "0123456789.":
                raise Unreadable(f"the number {sign} follows without an operation")
            if sign in "*/":
                self.take()
            factor = self.signed()
            factors.append(1 / factor if sign == "/" else factor)
        return _joined("Mul", factors)

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
            return sympy.Abs(value, evaluate=False) if token == "|" else value
        if token == "frac":
            self.deeper()
            over, under = self.argument(), self.argument()
            self.depth -= 1
            return _joined("Mul", [over, 1 / under])
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
            roots = ("sqrt", "√")  # of sqrt 3 x the root ends at the 3
            while len(self.next()) == 1 and self.next().isalpha() and name not in roots:
                value *= self.raised(self.atom())
        self.depth -= 1
        if name in ("sqrt", "√"):
            return _power(value, 1 / root)
        if name == "exp":
            return _power(sympy.E, value)
        kind = {"ln": "log", "abs": "Abs"}.get(name, name)
        made = getattr(sympy, kind)(value, evaluate=False)  # to evaluate can be slow
        return made if power is None else _power(made, power)


def _joined(kind: str, parts: list[Any]) -> Any:
    """Return a sum or product, or refuse one with numbers that are slow to write."""
    import sympy

    if len(parts) > 1 and sum(map(_bits, parts)) > 2 * BITS:
        raise Unreadable("numbers too large to write out")
    return getattr(sympy, kind)(*parts)


def _power(base: Any, exponent: Any) -> Any:
    """Return a power, or refuse one that would take for ever to write out."""
    import sympy

    powers = exponent.atoms(sympy.Pow, sympy.exp)
    if any(not power.exp.is_Rational for power in powers):
        raise Unreadable("a power in the exponent of a power")
    degree = _size(exponent)
    inner = [_size(power.exp) for power in base.atoms(sympy.Pow, sympy.exp)]
    if degree * max([1, *inner]) > DEGREE:
        raise Unreadable(f"a power above {DEGREE}")
    if degree * _bits(base) > 8 * BITS or _bits(exponent) > BITS // 4:
        raise Unreadable("a number too large to write out")
    return base**exponent


def _size(exponent: Any) -> Any:
    return 1 if exponent.free_symbols else abs(_value(exponent, {}))


def _bits(expression: Any) -> int:
    """Return the bits of all numbers in an expression."""
    import sympy

    numbers = expression.atoms(sympy.Rational)
    return sum(max(abs(n.p).bit_length(), n.q.bit_length()) for n in numbers)


def read(text: str, equation: bool = False) -> list[Any]:
    """Return the expressions of a text: one, or all solutions that it lists.

    Of "f'(x) = 2x" and of "a = b = 2x" the last side counts; ± gives two. As an
    equation, "left = right" is read as left - right. Raises Unreadable.
    """
    if len(text) > 20 * LONGEST:
        raise Unreadable("a very long text")
    text = text.strip().strip(".:").strip()
    for pattern, plain in _PLAIN.items():
        text = re.sub(pattern, plain, text)
    text = text.replace("\\{", "{").replace("\\}", "}").strip()
    text = re.sub(r"^[a-zA-Z]\s*=\s*(?=\{.*,)", "", text)
    if "," in text and _wrapped(text):  # a set or a pair
        text = text[1:-1]
    found: list[Any] = []
    for part in _APART.split(text):
        if not part.strip():
            continue
        sides = part.split("=")
        if equation and len(sides) != 2:
            raise Unreadable("it holds no equation")
        for sign in (1, -1) if "±" in part else (1,):
            value = _finite(sides if equation else sides[-1:], sign)
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
            return place == len(text) - 1 > 0 and _CLOSES.get(text[0]) == sign
    return False


def _finite(sides: list[str], sign: int) -> Any:
    import sympy

    try:
        values = [_Parser(side, sign).whole() for side in sides]
        value = values[0] - values[1] if len(sides) == 2 else values[0]
        str(value)  # to put terms in order, sympy computes: 1/log(1) fails here
    except (RecursionError, *_GAPS) as error:
        raise Unreadable(str(error) or "it has no value") from None
    if value.has(sympy.zoo, sympy.nan, sympy.oo):
        raise Unreadable("it divides by zero")
    return value


def is_equation(text: str) -> bool:
    """Return whether a text is an equation, and not a name with its value."""
    left, sign, _ = text.partition("=")
    return bool(sign) and not _NAME.match(re.sub(r"_(?:\{\w+\}|\w)", "", left))


def is_curve(text: str) -> bool:
    """Return whether a text is like y = 2x + 1: an equation as well as a value."""
    with contextlib.suppress(Unreadable):
        return "=" in text and len(read(text, True)[0].free_symbols) > 1
    return False


def compares(text: str) -> bool:
    """Return whether the answer's last line with a number is an inequality or so."""
    lines = [line for line in text.splitlines() if re.search(r"\d", line)]
    return bool(_RELATES.search(boxed(text) or (lines or [""])[-1]))


def same(one: Any, other: Any) -> tuple[bool, str]:
    """Return whether two expressions are worth the same, and where they differ.

    They are compared to 30 digits at eight points, negative and positive.
    """
    from mpmath import chop, nstr

    pairs = _pairs(one, other)
    for point, a, b in pairs:
        if not _close(a, b):
            where = ", ".join(f"{n} = {v}" for n, v in point.items())
            told = [nstr(chop(value), 6).removesuffix(".0") for value in (a, b)]
            if where:
                return False, f"at {where} they give {' and '.join(told)}"
            near = abs(a - b) < 0.01 * max(1, abs(b))
            return False, f"close to, but not exactly {other}" if near else ""
    enough = 4 if one.free_symbols | other.free_symbols else 1
    return len(pairs) >= enough, "" if pairs else "not comparable"


def proportional(one: Any, other: Any) -> bool:
    """Return whether two equations, as left - right, differ by a constant factor."""
    pairs = [(a, b) for _, a, b in _pairs(one, other)]
    if one.free_symbols != other.free_symbols or len(pairs) < 4 or 0 in pairs[0]:
        return False
    first, second = pairs[0]
    return all(_close(a * second, b * first) for a, b in pairs)


def _pairs(one: Any, other: Any) -> list[tuple[dict[Any, Any], Any, Any]]:
    """Return points and what both expressions give there; gaps are left out."""
    import mpmath
    import sympy

    names = sorted(one.free_symbols | other.free_symbols, key=str)
    rng, pairs = random.Random(0), []
    with mpmath.workdps(100):
        for place in range(8 if names else 1):
            signs = [1, -1][place : place + 1] or [1, -1]  # all +, all -, then mixed
            point = {
                name: sympy.Rational(rng.randint(2, 40) * rng.choice(signs), 13)
                for name in names
            }
            with contextlib.suppress(*_GAPS):
                pairs.append((point, _value(one, point), _value(other, point)))
    return pairs


def _value(expression: Any, point: dict[Any, Any]) -> Any:
    """Return the value at a point as a number of mpmath, at a fixed precision.

    Sympy's own evalf adds digits until it is sure: of sin(e^(10^9)) it never is.
    """
    import mpmath

    if expression in point or not expression.args:
        return mpmath.mpmathify(point.get(expression, expression).evalf(110))
    values = [_value(part, point) for part in expression.args]
    kind = type(expression).__name__
    if kind in ("Add", "Mul"):
        value = (mpmath.fsum if kind == "Add" else mpmath.fprod)(values)
    else:
        kind = {"Pow": "power", "Abs": "fabs"}.get(kind, kind)
        value = getattr(mpmath, kind)(*values)
    if not abs(value) < mpmath.mpf(10) ** LARGEST:
        raise OverflowError("too large")
    return value


def _close(a: Any, b: Any) -> bool:
    return bool(abs(a - b) <= max(1e-30 * max(abs(a), abs(b)), 1e-70))
