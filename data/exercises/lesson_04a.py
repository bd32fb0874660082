"""Exercises of lesson 04a: pass@k, the end of a hole, a fair coin, nested braces."""

from collections.abc import Callable
from math import comb
from numbers import Real

from qwen_course import answers
from qwen_course.checks import Exercise, Wrong

Answer = Callable[..., object]

# --- 4a.1 ---------------------------------------------------------------------------

_DRAWN: tuple[tuple[int, int, int, str], ...] = (
    (5, 2, 2, "10 pairs can be picked from 5, and 3 of these hold no right sample."),
    (10, 3, 5, "252 choices of 5 samples, and 21 of them hold no right one."),
    (5, 4, 3, "Only one sample fails, so three cannot all fail: the chance is 1."),
    (5, 3, 2, "Two samples fail, and both can be picked: that is 1 of 10 choices."),
    (4, 0, 2, "No sample passes, so none that passes can be picked: the chance is 0."),
)


def _other_chances(n: int, right: int, k: int) -> tuple[tuple[float, str], ...]:
    share, ways = right / n, comb(n, k)
    return (
        (
            1 - (1 - share) ** k,
            "This puts each sample back before the next is picked. The k samples are"
            " different ones: after one that fails, fewer failures are left.",
        ),
        (
            k * share,
            "k times the share is too much: it counts a choice with two right samples"
            " twice. For a larger k it is more than 1, and min() only hides that.",
        ),
        (comb(right, k) / ways, "This is the chance that all k pass. One is enough."),
        (comb(n - right, k) / ways, "This is the chance that none of the k passes."),
        (
            right * comb(n - right, k - 1) / ways,
            "This is the chance that exactly one passes. Two or more will do, too.",
        ),
        (share, "This is pass@1, the chance of a single sample: k has no part in it."),
        (
            float(right > 0) if n - right > k else -1.0,
            "One of all n samples passes, but only k are picked: that is a chance"
            " between 0 and 1. (If you divide with //, use /.)",
        ),
    )


def _near(got: object, value: float, by: float = 1e-6) -> bool:
    return isinstance(got, Real) and abs(float(got) - value) < by


def _check_chance(answer: Answer) -> str | None:
    for n, right, k, note in _DRAWN:
        expected = 1 - comb(n - right, k) / comb(n, k)
        try:
            got = answer(n, right, k)
        except ValueError as error:  # such as that of a factorial below 0
            if n - right >= k:
                raise
            got = error
        got = answers.plain(got)
        if _near(got, expected):
            continue
        if not isinstance(got, Real | ValueError):
            note = "Return one number, a share from 0 to 1."
        elif _near(got, 100 * expected):
            note = "This is in percent. Return a share, from 0 to 1."
        elif 0 < expected < 1:
            if _near(got, expected, 0.02):
                note = "Close, but not exact: count, without rounding or drawing."
            for value, other in _other_chances(n, right, k):
                note = other if _near(got, value) else note
        return (
            f"{note}\n  input: n={n}, right={right}, k={k}"
            f"\n  expected: {round(expected, 4)}\n  got: {got!r}"
        )
    return None


_CHANCE_HEAD = "def chance_of_one(n, right, k):\n"
_WITH_COMB = "from math import comb\n\n\n" + _CHANCE_HEAD
CHANCE = Exercise(
    id="4a.1",
    title="one of k tries",
    minutes=8,
    stars=2,
    check=_check_chance,
    hints=(
        "Ask the opposite: what is the chance that all k samples fail?",
        "math.comb(n, k) counts the ways to pick k of n. In how many of them are all k"
        " picked from the n - right samples that fail?",
        "1 - comb(n - right, k) / comb(n, k), with `from math import comb`. If fewer"
        " than k fail, that comb is 0.",
    ),
    solution=_WITH_COMB + "    return 1 - comb(n - right, k) / comb(n, k)",
    name="chance_of_one",
    stub=_CHANCE_HEAD
    + '''\
    """Return the chance that one or more of k samples pass."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "each try is a new draw",
            _CHANCE_HEAD + "    return 1 - (1 - right / n) ** k",
            "puts each sample back",
        ),
        Wrong(
            "k tries are k times as good",
            _CHANCE_HEAD + "    return k * right / n",
            "more than 1",
        ),
        Wrong(
            "k tries are k times as good, up to 1",
            _CHANCE_HEAD + "    return min(1, k * right / n)",
            "more than 1",
        ),
        Wrong(
            "all k must pass",
            _WITH_COMB + "    return comb(right, k) / comb(n, k)",
            "that all k pass",
        ),
        Wrong(
            "the chance of failure is the result",
            _WITH_COMB + "    return comb(n - right, k) / comb(n, k)",
            "none of the k passes",
        ),
        Wrong(
            "at least one is exactly one",
            _WITH_COMB + "    return right * comb(n - right, k - 1) / comb(n, k)",
            "exactly one",
        ),
        Wrong(
            "a question is solved if any sample passes",
            _CHANCE_HEAD + "    return 1 if right else 0",
            "only k are picked",
        ),
        Wrong(
            "// divides too",
            _WITH_COMB + "    return 1 - comb(n - right, k) // comb(n, k)",
            "only k are picked",
        ),
        Wrong(
            "there are always k samples that fail",
            "from math import factorial as f\n\n\n"
            + _CHANCE_HEAD
            + "    bad = n - right\n"
            + "    return 1 - f(bad) * f(n - k) / f(bad - k) / f(n)",
            "cannot all fail",
        ),
    ),
)

# --- 4a.2 ---------------------------------------------------------------------------

_RETURN = "\n    return total"
_SUM_UP = "if x > 0:\n        total += x"
_HOLES: tuple[tuple[str, str, str, str], ...] = (  # written, after, expected, note
    (
        "total += x\n    return total\n", "    return total\n", "total += x",
        "The line `return total` stands after the hole already: cut before it.",
    ),
    (
        "total += x\n    return total\nprint(f([1]))", _RETURN, "total += x",
        "`after` begins with a line break, so its first line is empty. The first line"
        " that holds something is `return total`.",
    ),
    (
        _SUM_UP + _RETURN, _RETURN, _SUM_UP,
        "A hole may hold several lines: the end of a line is not the end of the hole.",
    ),
    (
        "total += x\n    return total\nprint(f([1]))" + _RETURN, _RETURN, "total += x",
        "The model goes on repeating. The first time counts.",
    ),
    (
        "total += x\n    total = abs(total)\n    print(total)\n",
        "\n    total = abs(total)" + _RETURN, "total += x",
        "The model repeats a part of `after` only. Its first line is enough.",
    ),
    (
        "total += x\nreturn total\n\nprint(f([1, 2]))", _RETURN, "total += x",
        "The line is repeated with another indent: leave the spaces around it aside.",
    ),
    (
        "if not xs:\n        return xs\n    return x\n", "\n    return x\n",
        "if not xs:\n        return xs",
        "Compare whole lines: `return x` is also a part of `return xs`.",
    ),
    (
        "if not xs:\n        return total\n    print(total)" + _RETURN,
        "\n    print(total)" + _RETURN, "if not xs:\n        return total",
        "The hole may well hold a line that stands further down in `after`. Only the"
        " first one tells where the hole ends.",
    ),
    (
        "total += x\n\n    count += 1\n    return total", "\n\n" + _RETURN,
        "total += x\n\n    count += 1",
        "An empty line is no repeat, though `after` begins with one.",
    ),
    (
        "total += 2 * x", _RETURN, "total += 2 * x",
        "Nothing is repeated here, so all of it belongs into the hole.",
    ),
    (
        "total += x<|endoftext|>import os\n    return total", _RETURN, "total += x",
        "<|endoftext|> ends the text. What a model writes after it is another text.",
    ),
    (
        "total += x\n    return total<|endoftext|>", _RETURN, "total += x",
        "The last line is `return total`, and <|endoftext|> is no part of it: take"
        " that away first, then compare lines.",
    ),
    (
        "total += x\n\n    return total\n", "\n  \n", "total += x\n\n    return total",
        "Nothing but white space stands after the hole, so there is nothing to repeat.",
    ),
    ("    return total", _RETURN, "", "The first line is the repeat: an empty hole."),
    (
        "total += x \t\n    return total  \nprint(1)", "\n    return total ",
        "total += x",
        "Spaces can stand behind a line, too: they do not matter when you compare, and"
        " at the end of the result they go.",
    ),
    (
        "    total += x\n    return total", _RETURN, "    total += x",
        "The spaces at the start are the indent of the line: they must stay.",
    ),
    (
        "\n    total += x\n    n += 1\n    return total", _RETURN,
        "\n    total += x\n    n += 1",
        "White space at the start stays, a line break too.",
    ),
    (
        "total += x<|endoftext|>import os\nimport re<|endoftext|>", _RETURN,
        "total += x",
        "All from the first <|endoftext|> on goes, the lines below it too.",
    ),
    (
        "total += x\n<|endoftext|>import os", "\n", "total += x",
        "No line of `after` to look for: but <|endoftext|> ends the text all the same.",
    ),
    (
        "if not xs:\n        return\n    return total", _RETURN,
        "if not xs:\n        return",
        "Compare whole lines: `return` is only a part of `return total`.",
    ),
    (
        "if not xs:\n        return total  # none\n    return total", _RETURN,
        "if not xs:\n        return total  # none",
        "Compare whole lines: with a comment behind it, it is another line.",
    ),
    (
        "total += x\n    return total", "\n    " + _RETURN, "total += x",
        "A line of spaces is blank too: the first one that is not is `return total`.",
    ),
    (
        "total += x  \n    # now count\n    n += 1\n    m += n" + _RETURN, _RETURN,
        "total += x  \n    # now count\n    n += 1\n    m += n",
        "Above the cut every line stays as it is, with the spaces behind it. Only at"
        " the very end of the result white space goes.",
    ),
    (
        'total += x.count("<|im_end|>")' + _RETURN, _RETURN,
        'total += x.count("<|im_end|>")',
        "Only <|endoftext|> ends the text. Code may speak of another control token.",
    ),
    (
        "total += x\n\n\ndef g(xs):\n    return xs", _RETURN,
        "total += x\n\n\ndef g(xs):\n    return xs",
        "No line equals `return total`, so nothing is cut: neither empty lines, nor a"
        " smaller indent, nor a `def` are an end.",
    ),
)  # fmt: skip


def _without_repeats(written: str, after: str) -> str:
    first = after.strip().split("\n")[0].strip()
    lines = written.split("\n")
    return "\n".join(line for line in lines if line.strip() != first).rstrip()


def _check_middle(answer: Answer) -> str | None:
    for written, after, expected, note in _HOLES:
        try:
            got = answer(written, after)
        except (IndexError, ValueError) as error:  # such as that of list.index
            got = error
        if got == expected:
            continue
        if not isinstance(got, str | Exception):
            note = "Return the text that belongs into the hole."
        elif str(got).rstrip() == expected:
            note = "White space is left at the end: take it off."
        elif got == expected.replace("\n", ""):
            note = "The lines are joined, but their line breaks are lost."
        elif got == _without_repeats(written, after) and "<|" not in got:
            note = "The repeated line is gone. What follows it must go too."
        return (
            f"{note}\n  input: written={written!r}, after={after!r}"
            f"\n  expected: {expected!r}\n  got: {got!r}"
        )
    return None


_MIDDLE_HEAD = "def cut_middle(written, after):\n"
_NO_END = '    written = written.split("<|endoftext|>")[0]\n'
_FIND_FIRST = """\
    first = after.strip().split("\\n")[0].strip()
"""
_BY_LINE = """\
    kept = []
    for line in written.split("\\n"):
        if first and line.strip() == first:
            break
        kept.append(line)
    return "\\n".join(kept).rstrip()"""
_CUT_LINES = _NO_END + _FIND_FIRST + _BY_LINE
MIDDLE = Exercise(
    id="4a.2",
    title="stop at the end of the hole",
    minutes=10,
    stars=2,
    check=_check_middle,
    hints=(
        "Which line of `after` will the model write first when it runs on?",
        'after.strip().split("\\n")[0] is the first line that is not empty. Go through'
        " the lines of `written` until one equals it, both stripped.",
        'First written.split("<|endoftext|>")[0]. Keep lines in a list until the repeat'
        ' comes; then "\\n".join(...) and rstrip(). Without a first line never stop.',
    ),
    solution=_MIDDLE_HEAD + _CUT_LINES,
    name="cut_middle",
    stub=_MIDDLE_HEAD
    + '''\
    """Return the part of `written` that belongs into the hole."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "a hole is one line",
            _MIDDLE_HEAD + '    return written.split("\\n")[0].rstrip()',
            "may hold several lines",
        ),
        Wrong(
            "the model repeats all that stands after the hole",
            _MIDDLE_HEAD + "    return written.split(after)[0].rstrip()",
            "a part of `after` only",
        ),
        Wrong(
            "the indent is repeated too",
            _MIDDLE_HEAD
            + _CUT_LINES.replace("line.strip() ==", "line ==").replace(
                'after.strip().split("\\n")[0].strip()',
                'next((x for x in after.split("\\n") if x.strip()), "")',
            ),
            "another indent",
        ),
        Wrong(
            "the first place where the words stand is the repeat",
            _MIDDLE_HEAD
            + _NO_END
            + _FIND_FIRST
            + "    return written.split(first)[0].rstrip()",
            "Compare whole lines",
        ),
        Wrong(
            "a repeated line begins with the same words",
            _MIDDLE_HEAD
            + _CUT_LINES.replace(
                "line.strip() == first", "line.strip().startswith(first)"
            ),
            "Compare whole lines",
        ),
        Wrong(
            "any line of `after` is the repeat",
            _MIDDLE_HEAD
            + _CUT_LINES.replace('.split("\\n")[0].strip()', '.split("\\n")')
            .replace("first and", "line.strip() and")
            .replace("== first", "in [x.strip() for x in first]"),
            "further down",
        ),
        Wrong(
            "`after` begins with its first line",
            _MIDDLE_HEAD + _CUT_LINES.replace("after.strip()", "after"),
            "its first line is empty",
        ),
        Wrong(
            "the last repeat is the end",
            _MIDDLE_HEAD
            + _FIND_FIRST
            + """\
    lines = written.rstrip().split("\\n")
    found = [place for place, x in enumerate(lines) if x.strip() == first]
    return "\\n".join(lines[: found[-1]])""",
            "The first time counts",
        ),
        Wrong(
            "<|endoftext|> is never seen",
            _MIDDLE_HEAD + _FIND_FIRST + _BY_LINE,
            "another text",
        ),
        Wrong(
            "<|endoftext|> is a line's business at the end",
            _MIDDLE_HEAD
            + _FIND_FIRST
            + _BY_LINE.replace(".rstrip()", '.split("<|endoftext|>")[0].rstrip()'),
            "take that away first",
        ),
        Wrong(
            "every model runs past the hole",
            _MIDDLE_HEAD
            + _NO_END
            + _FIND_FIRST
            + """\
    lines = written.split("\\n")
    place = [line.strip() for line in lines].index(first)
    return "\\n".join(lines[:place]).rstrip()""",
            "Nothing is repeated here",
        ),
        Wrong(
            "an empty line equals an empty line",
            _MIDDLE_HEAD + _CUT_LINES.replace("first and ", ""),
            "nothing to repeat",
        ),
        Wrong(
            "the repeated line belongs to the hole",
            _MIDDLE_HEAD
            + _NO_END
            + _FIND_FIRST
            + """\
    kept = []
    for line in written.split("\\n"):
        kept.append(line)
        if line.strip() == first:
            break
    return "\\n".join(kept).rstrip()""",
            "cut before it",
        ),
        Wrong(
            "white space never matters",
            _MIDDLE_HEAD + _CUT_LINES.replace(".rstrip()", ".strip()"),
            "they must stay",
        ),
    ),
)

# --- 4a.3 ---------------------------------------------------------------------------


def _by_coin(n: int, wins: int) -> float:
    """Return the chance of a split at least as uneven, to either side."""
    most = max(wins, n - wins)
    return min(1.0, 2 * sum(comb(n, i) for i in range(most, n + 1)) / 2**n)


def _least(n: int, enough: Callable[[int, int], bool]) -> int | None:
    """Return the smallest number of wins, from one half up, that is enough."""
    return next((w for w in range((n + 1) // 2, n + 1) if enough(n, w)), None)


# No other rule is right for the first five.
_CHANGED = (10, 8, 6, 20, 100, 17, 22, 5, 1, 0)
_OTHER_RULES: tuple[tuple[Callable[[int, int], bool], str], ...] = (
    (
        lambda n, w: _by_coin(n, w) <= 0.1,
        "This looks to one side only. The new way could as well have lost so many:"
        " count both ends.",
    ),
    (lambda n, w: 2 * w > n, "More than half is no proof: a coin does that often."),
    (
        lambda n, w: 20 * w >= 19 * n,
        "This asks for 95 % of the wins. The 5 % are the chance that a coin does it.",
    ),
    (
        lambda n, w: comb(n, w) / 2**n <= 0.05,
        "This is the chance of exactly that split. Add all splits that are more uneven,"
        " at both ends.",
    ),
    (
        lambda n, w: 2 * comb(n, w) / 2**n <= 0.05,
        "These are exactly that split and its mirror image. Add the more uneven ones.",
    ),
    (
        lambda n, w: _by_coin(n, w + 1) <= 0.05,
        "At least as uneven: the split itself counts too, not only those beyond it.",
    ),
    (
        lambda n, w: (2 * w - n) ** 2 >= 1.96**2 * n,
        "This is the normal curve. It comes near for large numbers; here, add up the"
        " real chances.",
    ),
)


def _check_wins(answer: Answer) -> str | None:
    gots = [answer(n) for n in _CHANGED]
    for n, got in zip(_CHANGED, gots, strict=True):
        expected = _least(n, lambda n, w: _by_coin(n, w) <= 0.05)
        if got == expected:
            continue
        if got is not None and not isinstance(got, Real):
            note = "Return a whole number, or None."
        elif got is not None and got % 1:
            note = "This is no number of wins. Compare chances, but return the wins."
        elif expected is None:
            note = (
                f"Even if all {n} are won, the chance by coin is {_by_coin(n, n):g}:"
                " no number is enough, so None."
            )
        elif got == 2 * expected - n:
            note = "This is the lead, wins minus losses. Return the wins."
        elif got is not None and 2 * got < n:
            note = (
                "So few wins are uneven too, but to the other side: they speak for the"
                " old way. The new one must win more than half."
            )
        elif got == n:
            note = "Not all must be won. Return the smallest number that is enough."
        else:
            note = (
                f"{expected} wins have a chance of {_by_coin(n, expected):.4f} by coin,"
                f" {expected - 1} wins {_by_coin(n, expected - 1):.4f}."
            )
        for enough, other in _OTHER_RULES:
            if gots[:5] == [_least(n, enough) for n in _CHANGED[:5]]:
                note = other
        return f"{note}\n  input: changed={n}\n  expected: {expected}\n  got: {got!r}"
    return None


_WINS_HEAD = "import math\n\n\ndef wins_needed(changed):\n"
_BY_COIN = """\
    for wins in range(changed + 1):
        ways = sum(math.comb(changed, n) for n in range(wins, changed + 1))
        if 2 * ways / 2**changed <= 0.05:
            return wins
    return None"""
WINS = Exercise(
    id="4a.3",
    title="more than luck",
    minutes=12,
    stars=3,
    check=_check_wins,
    hints=(
        "Toss `changed` coins. How many of the 2**changed rows of heads and tails hold"
        " at least `wins` heads? And how many at least `wins` tails?",
        "sum(math.comb(changed, n) for n in range(wins, changed + 1)) counts one end,"
        " and the other end has as many.",
        "Go through wins = 0, 1, 2, ... and return the first one for which both ends,"
        " divided by 2**changed, make at most 0.05. If there is none, return None.",
    ),
    solution=_WINS_HEAD + _BY_COIN,
    name="wins_needed",
    stub='''\
def wins_needed(changed):
    """Return the smallest number of wins that a coin has in at most 5 %
    of the cases, counting both sides; None if there is none."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "only wins can come by luck",
            _WINS_HEAD + _BY_COIN.replace("2 * ways", "ways"),
            "to one side only",
        ),
        Wrong(
            "the majority is better",
            _WINS_HEAD + "    return changed // 2 + 1",
            "More than half is no proof",
        ),
        Wrong(
            "95 % sure means 95 % of the wins",
            _WINS_HEAD + "    return -(-95 * changed // 100)",
            "95 % of the wins",
        ),
        Wrong(
            "the chance of a result is that of exactly this result",
            _WINS_HEAD
            + """\
    for wins in range((changed + 1) // 2, changed + 1):
        if math.comb(changed, wins) / 2**changed <= 0.05:
            return wins""",
            "Add all splits",
        ),
        Wrong(
            "both sides, but exactly this result",
            _WINS_HEAD
            + """\
    for wins in range((changed + 1) // 2, changed + 1):
        if 2 * math.comb(changed, wins) / 2**changed <= 0.05:
            return wins""",
            "its mirror image",
        ),
        Wrong(
            "the result itself does not count",
            _WINS_HEAD + _BY_COIN.replace("range(wins,", "range(wins + 1,"),
            "the split itself counts",
        ),
        Wrong(
            "every number of coins is a normal curve",
            _WINS_HEAD
            + """\
    wins = -(-(changed / 2 + 1.96 * changed**0.5 / 2) // 1)
    return int(wins) if wins <= changed else None""",
            "normal curve",
        ),
        Wrong(
            "winning all is always enough",
            _WINS_HEAD + _BY_COIN.replace("None", "changed"),
            "Even if all",
        ),
        Wrong(
            "every uneven split is a win",
            _WINS_HEAD
            + """\
    for wins in range(changed + 1):
        ways = sum(math.comb(changed, n) for n in range(min(wins, changed - wins) + 1))
        if 2 * ways / 2**changed <= 0.05:
            return wins""",
            "to the other side",
        ),
        Wrong(
            "the lead is what counts",
            _WINS_HEAD + _BY_COIN.replace("return wins", "return 2 * wins - changed"),
            "This is the lead",
        ),
        Wrong(
            "one loss is a refutation",
            _WINS_HEAD + "    return changed if changed > 5 else None",
            "Not all must be won",
        ),
    ),
)

# --- 4a.4 ---------------------------------------------------------------------------

_HALF = r"\boxed{\frac{1}{2}}"
_BOXES: tuple[tuple[str, str | None, str], ...] = (
    (
        r"So it is $\boxed{42}$.", "42",
        r"Return what stands between the braces of \boxed{}, without them.",
    ),
    (
        f"So it is ${_HALF}$.", r"\frac{1}{2}",
        "The first closing brace need not be that of the box: count the braces.",
    ),
    (
        r"$\boxed{5}$, as in the set $S_{5}$.", "5",
        "The last closing brace of the text need not be that of the box.",
    ),
    (
        r"First $\boxed{12}$. I forgot to halve, so $\boxed{6}$.", "6",
        "A model may correct itself: the last box counts.",
    ),
    (
        r"$\boxed{\sqrt{\frac{x^{2}}{3}}}$", r"\sqrt{\frac{x^{2}}{3}}",
        "Braces go as deep as they like. A pattern for one level finds one level.",
    ),
    ("The answer is 42.", None, "There is no box, so there is no content: None."),
    (r"So $\boxed{}$.", "", 'The box is there, and empty: "". None would say no box.'),
    (
        r"So the answer is $\boxed{\frac{1}{2}", None,
        "The reply was cut inside the box: what it holds is not known, so None.",
    ),
    (
        rf"So {_HALF}. As a decimal number, \boxed{{\text{{about }} 0.", r"\frac{1}{2}",
        "The last box is not closed. The one before it is, so that one counts.",
    ),
    (
        r"It is $\boxed{12$. No, $\boxed{13}$.", "13",
        "A box that is never closed does not hide a later one that is.",
    ),
    (
        r"The solutions are $\boxed{\{1, 2\}}$.", r"\{1, 2\}",
        r"\{ and \} are signs that are printed: they stay in the content.",
    ),
    (
        r"$\boxed{\left\{ x > 0 \right.}$", r"\left\{ x > 0 \right.",
        r"\{ is a printed sign and opens nothing: do not count it.",
    ),
    (
        r"$\boxed{\left. x > 0 \right\}}$", r"\left. x > 0 \right\}",
        r"\} is a printed sign and closes nothing: do not count it.",
    ),
    (
        r"One half is \frac{1}{2}}, and so $\boxed{", None,
        "What stands before the first box is in no box, even if a brace is left over.",
    ),
    (
        "$\\boxed{x = 1,\ny = 2}$", "x = 1,\ny = 2",
        "A box may go on in the next line.",
    ),
    (
        "It is $\\boxed{8}$.\n\nA check: $8 = 2^{3}$.", "8",
        "More text may follow the box: look for the last box, not in the last lines.",
    ),
    (
        r"It costs $\boxed{\$5}$.", r"\$5",
        "Only a brace ends the box. A dollar sign may stand in it.",
    ),
)  # fmt: skip


def _check_boxed(answer: Answer) -> str | None:
    for text, expected, note in _BOXES:
        try:
            got = answer(text)
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            if expected is not None:
                raise
            got = error  # such as that of [][-1]
        if got == expected:
            continue
        if isinstance(got, list | tuple):
            note = "Return one text, or None."
        return f"{note}\n  input: {text!r}\n  expected: {expected!r}\n  got: {got!r}"
    return None


_BOX_HEAD = "def last_boxed(text):\n"
_WITH_RE = "import re\n\n\n" + _BOX_HEAD
_COUNT_BRACES = r"""
    for part in reversed(text.split("\\boxed{")[1:]):
        depth, escaped = 1, False
        for place, sign in enumerate(part):
            if escaped or sign == "\\":
                escaped = not escaped
                continue
            depth += (sign == "{") - (sign == "}")
            if depth == 0:
                return part[:place]
    return None""".lstrip("\n")


def _search(pattern: str) -> str:
    return (
        f"    found = re.findall(r'{pattern}', text)\n"
        "    return found[-1] if found else None"
    )


BOXED = Exercise(
    id="4a.4",
    title="what is in the box",
    minutes=10,
    stars=2,
    check=_check_boxed,
    hints=(
        "Go through the text behind the opening brace, sign by sign. When is the box"
        " closed?",
        r'Start at depth 1; "{" adds one, "}" takes one away. At depth 0 the content'
        r" ends. A backslash and the sign after it are passed over.",
        r'text.split("\\boxed{")[1:] holds what follows each opening. Try them from the'
        " last to the first; if none is closed, return None.",
    ),
    solution=_BOX_HEAD + _COUNT_BRACES,
    name="last_boxed",
    stub=_BOX_HEAD
    + '''\
    """Return the content of the last closed box, or None."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "the content has no braces",
            _WITH_RE + _search(r"\\boxed\{([^}]*)\}"),
            "The first closing brace",
        ),
        Wrong(
            "the last brace of the line closes the box",
            _WITH_RE + _search(r"\\boxed\{(.*)\}"),
            "The last closing brace",
        ),
        Wrong(
            "the first box holds the answer",
            _BOX_HEAD
            + _COUNT_BRACES.replace("reversed(", "(").replace("(text", "list(text"),
            "the last box counts",
        ),
        Wrong(
            "braces are nested once",
            _WITH_RE + _search(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}"),
            "finds one level",
        ),
        Wrong(
            "no box is an empty box",
            _BOX_HEAD + _COUNT_BRACES.replace("return None", 'return ""'),
            "There is no box",
        ),
        Wrong(
            "there is always a box",
            _WITH_RE + "    return re.findall(r'\\\\boxed{(.*?)}(?=[.$,])', text)[-1]",
            "There is no box",
        ),
        Wrong(
            "an empty box is no box",
            _BOX_HEAD + _COUNT_BRACES.replace("part[:place]", "part[:place] or None"),
            "The box is there",
        ),
        Wrong(
            "what is cut is the answer all the same",
            _BOX_HEAD + _COUNT_BRACES.replace("    return None", "        return part"),
            "cut inside the box",
        ),
        Wrong(
            "only the last box is looked at",
            _BOX_HEAD + _COUNT_BRACES.replace("[1:])", "[1:][-1:])"),
            "The one before it",
        ),
        Wrong(
            "printed braces can be taken away",
            _BOX_HEAD
            + r"""
    text = text.replace("\\{", "").replace("\\}", "")
""".lstrip("\n")
            + _COUNT_BRACES,
            "they stay in the content",
        ),
        Wrong(
            "every brace counts",
            _BOX_HEAD + _COUNT_BRACES.replace(r'sign == "\\"', "False"),
            "opens nothing",
        ),
        Wrong(
            "the braces are a part of the content",
            _BOX_HEAD
            + _COUNT_BRACES.replace("part[:place]", '"{" + part[: place + 1]'),
            "without them",
        ),
    ),
)

EXERCISES = (CHANCE, MIDDLE, WINS, BOXED)
