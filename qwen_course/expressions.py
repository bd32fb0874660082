r"""Mathematics in a model's reply: read with a parser of our own, compared with sympy.

Nothing is ever handed to `eval` or to sympy's own parsers, which run what they read.
Knows no models and gives no verdicts: those are in `answers`.

Read are + - * / ^, brackets, |x|, fractions, roots, sin cos tan exp log ln sqrt abs,
pi, e and one-letter names, in plain text or LaTeX. Not read: inequalities, intervals,
matrices, integrals, units. Two expressions count as the same if they agree at eight
points, so (x^2-1)/(x-1) is the same as x+1 though one has a gap. Roots and logarithms
of negative numbers are complex: ln(x^2) is not 2 ln(x), and log is the natural one,
unless it has a base: log_2 8.
"""

import contextlib
import random
import re
import unicodedata
from fractions import Fraction
from operator import add, mul, sub, truediv
from typing import Any

import mpmath

LONGEST, DEEPEST = 300, 30  # tokens of a text, brackets in brackets
DIGITS, BITS, DEGREE = 30, 512, 200  # of a number, of an exponent; of a power
LARGEST = 1000  # digits of a value: the sine of a larger one takes for ever
FUNCTIONS = ("sin", "cos", "tan", "exp", "log", "sqrt", "Abs")  # names of sympy
_FIGURES, _END = ".0123456789", "the end"
_CLOSES = {"(": ")", "{": "}", "[": "]", "|": "|"}
_RANKS = {"=": 1, "+": 2, "-": 2, "*": 3, "/": 3, "^": 4}  # the highest goes first
_RANKS |= dict.fromkeys((*_CLOSES.values(), _END), 0)
_IN_PRODUCTS = set("abcuvwxyz")  # of letters that stand together; "so" is a word


def _mixed(m: re.Match[str]) -> str:
    """Return a whole number before a proper fraction as their sum."""
    whole, over, under = m.groups()
    small = len(over) <= len(under) <= DIGITS and int(over) < int(under)
    return f"({whole}+{over}/{under})" if small else m[0]


def spelt(m: re.Match[str]) -> str:
    """Return a fraction that is one sign in plain signs: 2½ is 2 1/2."""
    plain = unicodedata.normalize("NFKC", m[2]).replace("\N{FRACTION SLASH}", "/")
    return plain if m[1] is None else f" {plain}"


_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
ONE_SIGN: dict[str, Any] = {  # pattern -> in plain signs
    r"((?<=\d) ?)?([¼-¾⅐-⅞])": spelt,
    "[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+": lambda m: f"^{{{m[0].translate(_RAISED)}}}",
}
_REWRITE: dict[str, Any] = {
    r"\\(?:text|mathrm|textbf|mathbf) ?\{([^{}]*)\}": r" \1 ",
    **ONE_SIGN,  # after \text{x²}, for it puts braces there
    r"(?<=\d)[eE]([-+]\d\d)(?!\d)": r"*10^{\1}",  # 1e-07
    r"(?<![A-Za-z\\])([A-Za-z])_(?:\{(\w+)\}|(\w))": r" \1_\2\3 ",  # x_1, not log_2
    r"(?<=\d),(?=\d{3}(?!\d))|(?<! [A-Za-z])(?<!log)_(?:\{\w+\}|\w)": "",
    r"\\[dtc]?frac\s*(\w)\s*(\w)": r"\\frac{\1}{\2}",  # \frac12
    r"(?<![\w.^}])(\d+)\s*\\[dtc]?frac\s*\{(\d+)\}\s*\{(\d+)\}"  # 8\frac13, no factor
    r"(?!\s*(?:[a-z]\b(?!\s[a-z])|[(^]|\\(?:pi|sqrt|left|cdot)))": _mixed,
}
SCIENTIFIC = re.compile(r"(?<=\d)[eE]([-+]\d)(?!\.?\d)")  # 2e-3, where e is no number
ROUNDED = re.compile(r"(?<=[\dπ)}])\s*(?:≈|\\approx(?![a-z]))\s*[-−]?\d+(?:\.\d+)?")
_TOKEN = re.compile(
    r"(?<!\S)[A-Za-z]_\w+|[0-9]+(?:\.[0-9]+)?|\.[0-9]+|\*\*|\\?[A-Za-z]+|\\.|\S"
)
_SIGNS = {sign: plain for plain, signs in {  # how a sign is written -> in plain text
    "*": r"\cdot \times · × ∙ ⋅", "/": r"\div ÷", "-": "\u2212 \u2013", "^": "**",
    "|": r"\lvert \rvert \vert", "±": r"\pm", ",": r"; or and \quad \\",
    "{": r"\{", "}": r"\}", "frac": r"\dfrac \tfrac \cfrac", "sqrt": "√",
    "pi": "π", "log": r"ln \ln", "Abs": "abs",
    "": r"$ ` \left \right \big \Big \displaystyle \, \; \: \! \( \) \[ \]",
}.items() for sign in signs.split()}  # fmt: skip
_NAME = re.compile(r"\s*(?:[a-zA-Z]'*|d[a-z]/d[a-z])\s*(?:\([a-z]\))?\s*$")
_RELATES = re.compile(  # also intervals, and powers and roots that were refused
    r"[<>≤≥≠∞]|(?<!\\)[\[\]]|\^.*\^|\\(?:[lg]eq?|neq?|infty|begin)(?![a-z])"
    r"|(?:√|sqrt)(?![^=]*[a-z],? \$?\d)[^=]*$"
    r"|\\(?:sec|csc|cot|[dt]?binom|gcd|lfloor|lceil|int|sum|prod|lim|[bp]?mod)(?![a-z])"
    r"|(?:arc|\ba)(?:sin|cos|tan)|(?:sin|cos|tan)h"
)
_GAPS = (AttributeError, TypeError, ValueError, ArithmeticError, RecursionError)


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


def read(text: str, equation: bool = False) -> list[Any]:
    """Return the expressions of a text: one, or all solutions that it lists.

    Of "f'(x) = 2x" and of "a = b = 2x" the last side counts; ± gives two. As an
    equation, "left = right" is read as left - right. Raises Unreadable.
    """
    plain = re.sub(r" (?:in|∈) \{", " = {", _plain(text))
    plain = re.sub(r"^[a-zA-Z]+(?:_\w+)? = (?=\{.*,)", "", plain)  # x = {1, 2}
    if "," in plain and _CLOSES.get(plain[0]) == plain[-1]:  # a set or a pair
        with contextlib.suppress(Unreadable):
            return _solutions(plain[1:-1], equation)
    return _solutions(plain, equation)


def _plain(text: str) -> str:
    """Return a text in plain signs, with spaces between: 2πx is "2 pi x"."""
    if len(text) > 20 * LONGEST:
        raise Unreadable("a very long text")
    text = re.sub(r"^[.:]+(?!\d)", "", text.strip().rstrip(".:"))
    for pattern, better in _REWRITE.items():
        text = re.sub(pattern, better, text)
    tokens = list[str]()
    for token in _TOKEN.findall(text):
        word = _SIGNS.get(token, token.removeprefix("\\"))
        tokens += word if {*word} <= _IN_PRODUCTS and len(word) == 2 else [word]
    tokens = [token for token in tokens if token.strip()]
    if len(tokens) > LONGEST:
        raise Unreadable(f"more than {LONGEST} signs")
    return " ".join(tokens)


def _solutions(plain: str, equation: bool) -> list[Any]:
    """Return the expressions between the commas of a plain text, each of them once."""
    found = list[Any]()
    for part in filter(str.strip, plain.split(",")):
        if equation and part.count("=") != 1:
            raise Unreadable("it holds no equation")
        part = part if equation else part.split("=")[-1]
        for sign in "+-" if "±" in part else "+":
            value = _whole(part.replace("±", sign))
            found += [] if value in found else [value]
    if not 0 < len(found) <= 12:
        raise Unreadable("more than 12 values" if found else "nothing to read")
    return found


def _whole(plain: str) -> Any:
    """Return the one expression that a plain text is; it has a value."""
    tokens = [*plain.split(), _END]
    try:
        value = _operations(tokens, _RANKS["="], 0)
        if tokens != [_END]:
            raise Unreadable(f"{tokens[0]!r} stands where an operation should")
        if _bits(value) > 8 * BITS:
            raise Unreadable("numbers too large to write out")
        if re.search("oo|nan", str(value)):  # 1/log(1) fails here, when it is written
            raise Unreadable("it divides by zero")
    except _GAPS as error:
        raise Unreadable(str(error) or "it has no value") from None
    return value


def _operations(tokens: list[str], least: int, depth: int) -> Any:
    """Return the value of the first tokens, up to an operation of a rank below.

    Takes these tokens off the list. Side by side is a product; = is a minus.
    """
    if depth > DEEPEST:
        raise Unreadable(f"more than {DEEPEST} brackets in brackets")
    value = _operand(tokens, depth)
    while _RANKS.get(tokens[0], _RANKS["*"]) >= least:
        if tokens[0][0] in _FIGURES:
            raise Unreadable(f"the number {tokens[0]} follows without an operation")
        sign = tokens.pop(0) if tokens[0] in _RANKS else "*"
        tower = sign == "^"  # 2^3^4 is 2^(3^4), but 8/4/2 is (8/4)/2
        other = _operations(tokens, _RANKS[sign] + (not tower), depth + tower)
        work = {"^": _power, "*": mul, "/": truediv, "+": add, "-": sub, "=": sub}
        value = work[sign](value, other)
    return value


def _operand(tokens: list[str], depth: int) -> Any:
    """Return the value of a number, a name, a bracket, a fraction or a function."""
    import sympy

    token = tokens.pop(0)
    if token in FUNCTIONS:
        return _function(token, tokens, depth + 1)
    if token in ("+", "-"):
        value = _operations(tokens, _RANKS["^"], depth + 1)
        return -value if token == "-" else value
    if token in _CLOSES:
        value = _operations(tokens, _RANKS["+"], depth + 1)
        if tokens.pop(0) != _CLOSES[token]:
            raise Unreadable(f"{_CLOSES[token]!r} is missing")
        return sympy.Abs(value, evaluate=False) if token == "|" else value
    if token == "frac":
        return _operand(tokens, depth + 1) / _operand(tokens, depth + 1)
    if token[0] in _FIGURES:
        if len(token) > DIGITS:
            raise Unreadable(f"a number of more than {DIGITS} digits")
        return sympy.Rational(token)
    if not re.fullmatch(r"[a-zA-Z](?:_\w+)?|pi", token):
        why = "is not mathematics" if token.isalpha() else "stands where a value should"
        raise Unreadable(f"{token[:20]!r} {why}")
    return {"pi": sympy.pi, "e": sympy.E}.get(token) or sympy.Symbol(token, real=True)


def _function(name: str, tokens: list[str], depth: int) -> Any:
    """Return a root, or a function of a bracket or of what follows: sin 2x."""
    import sympy

    root, power, base = sympy.Integer(2), sympy.Integer(1), sympy.E
    if name == "sqrt" and tokens[0] == "[":
        root = _operand(tokens, depth)
    elif name == "log" and tokens[0] == "_":  # log_2 8
        tokens.pop(0)
        base = _operand(tokens, depth)
    if tokens[0] == "^":  # sin^2 x
        tokens.pop(0)
        power = _operand(tokens, depth)
    if tokens[0] in ("(", "{"):
        value = _operand(tokens, depth)
    else:
        value = _operations(tokens, _RANKS["^"], depth)
        while name != "sqrt" and re.fullmatch(r"[a-zA-Z](?:_\w+)?", tokens[0]):
            value *= _operations(tokens, _RANKS["^"], depth)
    if name == "sqrt":
        return _power(value, power / root)
    if name == "exp":
        return _power(sympy.E, value * power)
    made = getattr(sympy, name)(value, evaluate=False)  # to evaluate can be slow
    if base != sympy.E:
        made /= sympy.log(base, evaluate=False)
    return _power(made, power)


def _power(base: Any, exponent: Any) -> Any:
    """Return a power, or refuse one that would take for ever to write out."""
    import sympy

    kinds = (sympy.Pow, sympy.exp)
    if any(not power.exp.is_Rational for power in exponent.atoms(*kinds)):
        raise Unreadable("a power in the exponent of a power")
    exponents = [exponent, *(power.exp for power in base.atoms(*kinds))]
    degree, *inner = (1 if e.free_symbols else abs(_value(e, {})) for e in exponents)
    if degree * max([1, *inner]) > DEGREE:
        raise Unreadable(f"a power above {DEGREE}")
    if degree * _bits(base) > 8 * BITS or _bits(exponent) > BITS:
        raise Unreadable("a number too large to write out")
    return base**exponent


def _bits(expression: Any) -> int:
    """Return the bits of all numbers in an expression."""
    numbers = [atom for atom in expression.atoms() if atom.is_Rational]
    return sum(max(abs(n.p).bit_length(), n.q.bit_length()) for n in numbers)


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
    pairs = _pairs(one, other)
    for point, a, b in pairs:
        if not _close(a, b):
            where = ", ".join(f"{name} = {value}" for name, value in point.items())
            if where:
                return False, f"at {where} they give {_short(a)} and {_short(b)}"
            near = abs(a - b) < 0.01 * max(1, abs(b))
            return False, f"close to, but not exactly {other}" if near else ""
    enough = 4 if one.free_symbols | other.free_symbols else 1
    return len(pairs) >= enough, "" if pairs else "not comparable"


def proportional(one: Any, other: Any) -> tuple[bool, str]:
    """Return whether two equations, as left - right, differ by a constant factor."""
    pairs = [(a, b) for _, a, b in _pairs(one, other)]
    if one.free_symbols != other.free_symbols or len(pairs) < 4 or 0 in pairs[0]:
        return False, ""
    first, second = pairs[0]
    return all(_close(a * second, b * first) for a, b in pairs), ""


def _pairs(one: Any, other: Any) -> list[tuple[dict[Any, Any], Any, Any]]:
    """Return points and what both expressions give there; gaps are left out."""
    names = sorted(one.free_symbols | other.free_symbols, key=str)
    rng, pairs = random.Random(0), []
    with mpmath.workdps(100):
        for place in range(8 if names else 1):
            signs = [1, -1][place : place + 1] or [1, -1]  # all +, all -, then mixed
            sizes = [rng.randint(2, 40) * rng.choice(signs) for _ in names]
            values = [Fraction(size, 13) for size in sizes]
            point = dict(zip(names, values, strict=True))
            with contextlib.suppress(*_GAPS):
                pairs.append((point, _value(one, point), _value(other, point)))
    return pairs


def _value(expression: Any, point: dict[Any, Any]) -> Any:
    """Return the value at a point as a number of mpmath, at a fixed precision.

    Sympy's own evalf adds digits until it is sure: of sin(e^(10^9)) it never is.
    """
    if not expression.args:  # a name, a number, pi
        return mpmath.mpmathify(point.get(expression) or expression.evalf(110))
    values = [_value(part, point) for part in expression.args]
    name = type(expression).__name__
    theirs = {"Pow": "power", "Abs": "fabs", "Add": "fsum", "Mul": "fprod"}
    name = theirs.get(name, name)
    whole = name in ("fsum", "fprod")
    value = getattr(mpmath, name)(*([values] if whole else values))
    if not abs(value) < mpmath.mpf(10) ** LARGEST:
        raise OverflowError("too large")
    return value


def _close(a: Any, b: Any) -> bool:
    return bool(abs(a - b) <= max(1e-30 * max(abs(a), abs(b)), 1e-70))


def _short(value: Any) -> str:
    return str(mpmath.nstr(mpmath.chop(value), 6)).removesuffix(".0")
