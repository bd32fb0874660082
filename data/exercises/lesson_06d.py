"""Exercises of lesson 06d: better or not, rows of a process, training and serving."""

import math
import operator
import random
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from numbers import Integral
from typing import Any

from qwen_course import answers
from qwen_course.checks import Exercise, Wrong

Answer = Callable[..., Any]
_Beliefs = Iterable[tuple[str, list[Any]]]


def _note(got: list[Any], beliefs: _Beliefs, otherwise: str) -> str:
    """Return what the answers to all cases say of the belief behind them."""
    return next((told for told, lists in beliefs if lists == got), otherwise)


def _whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


# --- 6d.1 ---------------------------------------------------------------------------

_BETTER, _WORSE, _OPEN = "better", "worse", "cannot tell"
_OUTCOMES = (  # questions won, lost, right both times, wrong both times
    (9, 1, 12, 18),
    (6, 3, 11, 10),
    (1, 9, 20, 10),
    (5, 0, 10, 5),
    (6, 0, 14, 20),
    (9, 8, 1, 2),
    (12, 1, 2, 19),
    (0, 0, 12, 8),
    (4, 4, 6, 6),
    (0, 6, 14, 20),
    (12, 4, 24, 40),
    (23, 12, 40, 25),
    (30, 2, 5, 23),
    (3, 31, 4, 12),
    (14, 4, 80, 102),
    (5, 15, 50, 30),
    (60, 40, 150, 150),
    (70, 55, 100, 75),
    (19, 8, 30, 23),  # 5.2 %: do not round
    (20, 2, 80, 98),  # far below 5 %, yet few of all questions changed
    (13, 4, 20, 23),  # a corrected normal curve is too careful here
    (4, 0, 10, 16),  # sure by the normal curve, but not by mid-p
)


def _texts(won: int, lost: int, kept: int, never: int) -> tuple[str, str]:
    """Return before and after, the questions in any order that is always the same."""
    pairs = ["01"] * won + ["10"] * lost + ["11"] * kept + ["00"] * never
    random.Random(won).shuffle(pairs)
    return "".join(p[0] for p in pairs), "".join(p[1] for p in pairs)


def _tail(few: int, n: int) -> float:
    """Return the chance that a coin shows at most `few` heads in n throws."""
    return sum(math.comb(n, i) for i in range(few + 1)) / 2**n


def _both(few: int, n: int) -> bool:
    """Return whether both tails together make at most 5 %."""
    return 2 * _tail(few, n) <= 0.05


def _exactly(won: int, lost: int) -> float:
    return math.comb(won + lost, won) / 2 ** (won + lost)


def _verdicts(sure: Callable[[int, int, int], bool]) -> list[str]:
    """Return the verdicts if `sure(won, lost, ties)` tells what is no luck."""
    return [
        (_BETTER if up > down else _WORSE) if sure(up, down, kept + never) else _OPEN
        for up, down, kept, never in _OUTCOMES
    ]


def _apart(won: int, lost: int, kept: int, never: int) -> str:
    n = won + lost + kept + never
    before, after = answers.interval(kept + lost, n), answers.interval(kept + won, n)
    if before[1] < after[0]:
        return _BETTER
    return _WORSE if after[1] < before[0] else _OPEN


def _of_verdicts(got: list[str], right: list[str], otherwise: str) -> str:
    uneven = [up != down for up, down, *_ in _OUTCOMES]
    majority = _verdicts(lambda up, down, _: up != down)
    if all(g == m for g, m, u in zip(got, majority, uneven, strict=True) if u):
        return "More won than lost is no proof: ask how often a coin does that."
    mirror = {_BETTER: _WORSE, _WORSE: _BETTER, _OPEN: _OPEN}
    ties = "Ties are counted. A question with the same result twice tells nothing."
    split = "This is the chance of exactly this split. Add those that are more uneven."
    beliefs: _Beliefs = (
        (
            "These are the intervals of two separate samples. It is the same questions"
            " twice: only those that changed tell something.",
            [_apart(*case) for case in _OUTCOMES],
        ),
        (
            ties,
            _verdicts(lambda up, down, same: _both(min(up, down), up + down + same)),
        ),
        (
            ties,
            _verdicts(
                lambda up, down, same: _both(
                    min(up, down) + same // 2, up + down + same
                )
            ),
        ),
        (
            "This test is one-sided. Tuning can do harm, too: both tails count.",
            _verdicts(lambda up, down, _: _tail(min(up, down), up + down) <= 0.05),
        ),
        (
            "Tuning can make a model worse: say so where losses are more than luck.",
            [_OPEN if verdict == _WORSE else verdict for verdict in right],
        ),
        (
            "Where more is lost than won, tuning did harm: that is not better.",
            [_BETTER if verdict == _WORSE else verdict for verdict in right],
        ),
        (
            "5 % is 0.05.",
            _verdicts(lambda up, down, _: 2 * _tail(min(up, down), up + down) <= 0.5),
        ),
        (split, _verdicts(lambda up, down, _: _exactly(up, down) <= 0.05)),
        (split, _verdicts(lambda up, down, _: 2 * _exactly(up, down) <= 0.05)),
        (
            "The split itself belongs to the tail: range(few + 1).",
            _verdicts(lambda up, down, _: _both(min(up, down) - 1, up + down)),
        ),
        (
            "This counts only half of the cases that are as uneven (mid-p). Count them"
            " whole.",
            _verdicts(
                lambda up, down, _: (
                    2 * _tail(min(up, down), up + down) - _exactly(up, down) <= 0.05
                )
            ),
        ),
        (
            "This is the normal curve. It is too sure here: count exactly.",
            _verdicts(lambda up, down, _: abs(up - down) > 1.96 * (up + down) ** 0.5),
        ),
        (
            "This is a corrected normal curve. It is close, no more: count exactly.",
            _verdicts(
                lambda up, down, _: abs(up - down) - 1 > 1.96 * (up + down) ** 0.5
            ),
        ),
        (
            f'"{_BETTER}" and "{_WORSE}" are swapped: won is right after tuning only.',
            [mirror[verdict] for verdict in right],
        ),
    )
    return _note(got, beliefs, otherwise)


def _check_verdict(answer: Answer) -> str | None:
    texts = [_texts(*case) for case in _OUTCOMES]
    right = _verdicts(lambda up, down, _: _both(min(up, down), up + down))
    got = [answer(*pair) for pair in texts]
    expected = [(*case[:2], said) for case, said in zip(_OUTCOMES, right, strict=True)]
    formed = [
        isinstance(g, tuple | list)
        and len(g) == 3
        and _whole(g[0])
        and _whole(g[1])
        and isinstance(g[2], str)
        and g[2] in (_BETTER, _WORSE, _OPEN)
        for g in got
    ]
    wrong = [i for i, e in enumerate(expected) if not formed[i] or tuple(got[i]) != e]
    if not wrong:
        return None
    first = wrong[0]
    if not all(formed):
        first = formed.index(False)
        note = f'Return won, lost and "{_BETTER}", "{_WORSE}" or "{_OPEN}".'
    elif counted := [i for i in wrong if tuple(got[i][:2]) != _OUTCOMES[i][:2]]:
        first = counted[0]
        beliefs: _Beliefs = (
            (
                "won and lost are swapped. Won is wrong before and right after.",
                [(lost, won) for won, lost, *_ in _OUTCOMES],
            ),
            (
                "This compares two totals. Go through the pairs: 9 won and 1 lost is"
                " not 8 won.",
                [(max(0, up - down), max(0, down - up)) for up, down, *_ in _OUTCOMES],
            ),
            (
                "These are all right answers, after and before. Only changes count.",
                [(up + k, down + k) for up, down, k, _ in _OUTCOMES],
            ),
            (
                "These are right and wrong answers after tuning. Look at before, too.",
                [(up + k, down + z) for up, down, k, z in _OUTCOMES],
            ),
        )
        counts = [tuple(g[:2]) for g in got]
        other = 'A question is won if "0" becomes "1", and lost if "1" becomes "0".'
        note = _note(counts, beliefs, other)
    else:
        won, lost = _OUTCOMES[first][:2]
        chance = min(100.0, 200 * _tail(min(won, lost), won + lost))
        note = f"A coin is as uneven as {won} to {lost}, or more, in {chance:.1f} % of"
        note += " the cases."
        if not won + lost:
            note = f'No question changed: "{_OPEN}".'
        note = _of_verdicts([g[2] for g in got], right, note)
    won, lost, kept, never = _OUTCOMES[first]
    shown = f"before={texts[first][0]!r}, after={texts[first][1]!r}"
    if len(texts[first][0]) > 40:
        shown = f"{won + lost + kept + never} questions, {won} won, {lost} lost"
    return (
        f"{note}\n  input: {shown}\n  expected: {expected[first]}"
        f"\n  got: {got[first]!r:.200}"
    )


_VERDICT_HEAD = "import math\n\n\ndef paired_verdict(before, after):\n"
_VERDICT = """\
    pairs = list(zip(before, after, strict=True))
    won = pairs.count(("0", "1"))
    lost = pairs.count(("1", "0"))
    changed = won + lost
    ways = sum(math.comb(changed, n) for n in range(min(won, lost) + 1))
    if 2 * ways / 2**changed > 0.05:
        return won, lost, "cannot tell"
    return won, lost, "better" if won > lost else "worse\""""
VERDICT = Exercise(
    id="6d.1",
    title="better, worse, or luck",
    minutes=12,
    stars=2,
    check=_check_verdict,
    hints=(
        "zip(before, after) gives the pairs. Which two pairs tell something, and which"
        " two do not?",
        "Toss a coin for each question that changed. How often is it as uneven as your"
        " result, or more, to either side?",
        "sum(math.comb(changed, n) for n in range(min(won, lost) + 1)) counts one tail."
        " Twice that, divided by 2**changed, must be at most 0.05.",
    ),
    solution=_VERDICT_HEAD + _VERDICT,
    name="paired_verdict",
    stub="def paired_verdict(before, after):\n"
    '''\
    """Return (won, lost, verdict): "better", "worse" or "cannot tell"."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "two totals are enough",
            _VERDICT_HEAD
            + _VERDICT.replace(
                'pairs.count(("0", "1"))',
                'max(0, after.count("1") - before.count("1"))',
            ).replace(
                'pairs.count(("1", "0"))',
                'max(0, before.count("1") - after.count("1"))',
            ),
            "compares two totals",
        ),
        Wrong(
            "right answers are wins",
            _VERDICT_HEAD
            + _VERDICT.replace('pairs.count(("0", "1"))', 'after.count("1")').replace(
                'pairs.count(("1", "0"))', 'before.count("1")'
            ),
            "all right answers",
        ),
        Wrong(
            "what is wrong after tuning is lost",
            _VERDICT_HEAD
            + _VERDICT.replace('pairs.count(("0", "1"))', 'after.count("1")').replace(
                'pairs.count(("1", "0"))', 'after.count("0")'
            ),
            "Look at before, too",
        ),
        Wrong(
            "0 and then 1 is a loss",
            _VERDICT_HEAD
            + _VERDICT.replace("before, after, strict", "after, before, strict"),
            "won and lost are swapped",
        ),
        Wrong(
            "intervals that overlap settle it",
            "from qwen_course import answers\n\n\n"
            "def paired_verdict(before, after):\n"
            + "".join(_VERDICT.splitlines(keepends=True)[:3])
            + """\
    low, high = answers.interval(before.count("1"), len(before))
    least, most = answers.interval(after.count("1"), len(after))
    if least <= high and low <= most:
        return won, lost, "cannot tell"
    return won, lost, "better" if won > lost else "worse\"""",
            "two separate samples",
        ),
        Wrong(
            "every question is a throw",
            _VERDICT_HEAD + _VERDICT.replace("won + lost", "len(before)"),
            "Ties are counted",
        ),
        Wrong(
            "a tie is half a win",
            _VERDICT_HEAD
            + _VERDICT.replace("won + lost", "len(before)").replace(
                "min(won, lost)", "min(won, lost) + (changed - won - lost) // 2"
            ),
            "Ties are counted",
        ),
        Wrong(
            "only gains can be luck",
            _VERDICT_HEAD + _VERDICT.replace("2 * ways", "ways"),
            "one-sided",
        ),
        Wrong(
            "more won than lost is better",
            _VERDICT_HEAD
            + _VERDICT.replace("2 * ways / 2**changed > 0.05", "won == lost"),
            "is no proof",
        ),
        Wrong(
            "tuning does no harm",
            _VERDICT_HEAD + _VERDICT.replace('"worse"', '"cannot tell"'),
            "can make a model worse",
        ),
        Wrong(
            "the chance is that of this split",
            _VERDICT_HEAD
            + _VERDICT.replace("range(min(won, lost) + 1)", "[min(won, lost)]"),
            "exactly this split",
        ),
        Wrong(
            "the result itself is no part of the tail",
            _VERDICT_HEAD
            + _VERDICT.replace("range(min(won, lost) + 1)", "range(min(won, lost))"),
            "The split itself",
        ),
        Wrong(
            "every count is a normal curve",
            _VERDICT_HEAD
            + _VERDICT.replace(
                "2 * ways / 2**changed > 0.05",
                "abs(won - lost) <= 1.96 * changed**0.5",
            ),
            "normal curve",
        ),
    ),
)

# --- 6d.3 ---------------------------------------------------------------------------

_STEPS = (  # process, processes, step, batch_size, rows
    (0, 2, 0, 8, 100),
    (1, 2, 0, 8, 100),
    (1, 2, 3, 8, 100),
    (2, 4, 1, 8, 100),
    (0, 1, 2, 4, 100),
    (1, 2, 12, 8, 99),
    (0, 3, 5, 6, 10),
    (1, 3, 1, 9, 5),
    (2, 3, 7, 6, 20),
    (3, 4, 25, 4, 30),
    (0, 2, 1, 8, 4),  # a row twice
)
_UNEVEN = ((0, 3, 0, 8, 100), (1, 2, 4, 7, 100), (0, 4, 0, 6, 100), (0, 4, 1, 2, 60))


def _dealt(first: int, k: int, n: int, size: int, rows: int) -> list[int]:
    """Return what process k of n gets of a batch that begins at the place `first`."""
    return [place % rows for place in range(first + k, first + size, n)]


def _taken(k: int, n: int, step: int, size: int, rows: int) -> list[int]:
    return _dealt(step * size, k, n, size, rows)


def _of_rows(got: list[Any], otherwise: str) -> str:
    beliefs: dict[str, Callable[[int, int, int, int, int], list[int]]] = {
        "This is the whole batch. If every process takes it, they all compute the same"
        " gradient: with more machines, no more is learnt.": (
            lambda k, n, s, b, r: _taken(0, 1, s, b, r)
        ),
        "These are rows that follow each other. Here process k takes every"
        " `processes`-th row.": (
            lambda k, n, s, b, r: _dealt(s * b + k * (b // n), 0, 1, b // n, r)
        ),
        "There is no row `rows`: after the last row comes row 0 again.": (
            lambda k, n, s, b, r: [*range(s * b + k, (s + 1) * b, n)]
        ),
        "The batch is cut off at the last row. Go on with row 0, so that it is full.": (
            lambda k, n, s, b, r: [i for i in range(s * b + k, (s + 1) * b, n) if i < r]
        ),
        "Each round begins with row 0 here. Batches just go on: the circle has no"
        " start.": (lambda k, n, s, b, r: _taken(k, n, s % -(-r // b), b, r)),
        "`step` is left out: every step would train on the same rows.": (
            lambda k, n, s, b, r: _taken(k, n, 0, b, r)
        ),
        "Here each process takes batch_size rows. batch_size is for all processes"
        " together.": (lambda k, n, s, b, r: _taken(k, n, s, b * n, r)),
        "This is a batch of its own for each process. batch_size is for all processes"
        " together.": (lambda k, n, s, b, r: _dealt((s * n + k) * b, 0, 1, b, r)),
        "Processes count from 0: process 0 takes the first row.": (
            lambda k, n, s, b, r: _dealt(s * b - 1, k, n, b, r)
        ),
        "Steps count from 0: step 0 takes the first rows.": (
            lambda k, n, s, b, r: _taken(k, n, s - 1, b, r)
        ),
        "This sorts by row number. What counts is the place in the batch: the two"
        " differ as soon as the rows begin again.": (
            lambda k, n, s, b, r: [i for i in _taken(0, 1, s, b, r) if i % n == k]
        ),
        "A step moves on by the whole batch, not by the rows of one process.": (
            lambda k, n, s, b, r: _dealt(s * (b // n), k, n, b, r)
        ),
        "The last row of the batch is missing: range() leaves out its end.": (
            lambda k, n, s, b, r: _dealt(s * b, k, n, b - 1, r)
        ),
        "Rows count from 0, too: the last one is `rows` - 1.": (
            lambda k, n, s, b, r: [i + 1 for i in _taken(k, n, s, b, r)]
        ),
        "This is sorted. Leave the rows in the order of the batch.": (
            lambda k, n, s, b, r: sorted(_taken(k, n, s, b, r))
        ),
    }
    lists = ((told, [rule(*case) for case in _STEPS]) for told, rule in beliefs.items())
    return _note(got, lists, otherwise)


def _row_numbers(got: Any) -> bool:
    return (
        isinstance(got, list | tuple | range)
        and len(got) < 1000
        and all(_whole(row) for row in got)
    )


def _check_rows(answer: Answer) -> str | None:
    right: list[Any] = [_taken(*case) for case in _STEPS]
    got: list[Any] = []
    for case in _STEPS:
        try:
            got.append(answer(*case))
        except ValueError as error:
            got.append(error)
    lists = [[*g] if _row_numbers(g) else g for g in got]
    formed = [_row_numbers(g) for g in got]
    wrong = [i for i, f in enumerate(formed) if not f or lists[i] != right[i]]
    names = ("process", "processes", "step", "batch_size", "rows")
    if wrong:
        first = wrong[0]
        case, share = _STEPS[first], len(right[first])
        note = f"In this step the batch is {_taken(0, 1, *case[2:])}."
        if not all(formed):
            first = formed.index(False)
            case, share = _STEPS[first], len(right[first])
            note = "Return a list of row numbers."
            if isinstance(got[first], ValueError):
                note = f"This batch can be shared: {share} rows a process. What raised"
                note += " the ValueError?"
        else:
            note = _of_rows(lists, note)
        shown, expected, found = case, f"{right[first]}", got[first]
    else:
        for shown in _UNEVEN:
            try:
                found = answer(*shown)
            except ValueError:
                continue
            note = f"{shown[3]} rows cannot be shared evenly by {shown[1]} processes."
            expected = "ValueError"
            if isinstance(found, ValueError) or found is ValueError:
                note = "Raise the ValueError, do not return it."
            break
        else:
            return None
    told = ", ".join(f"{n}={v}" for n, v in zip(names, shown, strict=True))
    return f"{note}\n  input: {told}\n  expected: {expected}\n  got: {found!r:.200}"


_ROWS_HEAD = "def rows_of(process, processes, step, batch_size, rows):\n"
_UNSHARED = """\
    if batch_size % processes:
        raise ValueError("batch_size cannot be shared evenly")
"""
_ROWS = """\
    first = step * batch_size
    places = range(first + process, first + batch_size, processes)
    return [place % rows for place in places]"""
_PLACES = "range(first + process, first + batch_size, processes)"
ROWS = Exercise(
    id="6d.3",
    title="who takes which rows",
    minutes=10,
    stars=2,
    check=_check_rows,
    hints=(
        "Write down the batch of step 0, and of step 1. Then deal it out like cards:"
        " first process 0, then process 1, ...",
        "The batch is at the places step * batch_size to (step + 1) * batch_size - 1."
        " range() takes a third number, too: how far to go on.",
        "range(first + process, first + batch_size, processes), and place % rows for"
        " each of them. Before that: if batch_size % processes, raise ValueError.",
    ),
    solution=_ROWS_HEAD + _UNSHARED + _ROWS,
    name="rows_of",
    stub=_ROWS_HEAD
    + '''\
    """Return the row numbers that one process works on in one step."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "every process takes the batch",
            _ROWS_HEAD
            + _UNSHARED
            + _ROWS.replace(_PLACES, "range(first, first + batch_size)"),
            "This is the whole batch",
        ),
        Wrong(
            "a share is a block",
            _ROWS_HEAD
            + _UNSHARED
            + """\
    share = batch_size // processes
    first = step * batch_size + process * share
    return [place % rows for place in range(first, first + share)]""",
            "These are rows that follow",
        ),
        Wrong(
            "the rows never end",
            _ROWS_HEAD + _UNSHARED + _ROWS.replace("place % rows", "place"),
            "There is no row",
        ),
        Wrong(
            "the last batch is shorter",
            _ROWS_HEAD
            + _UNSHARED
            + _ROWS.replace(
                "place % rows for place in places",
                "place for place in places if place < rows",
            ),
            "is cut off",
        ),
        Wrong(
            "each round begins anew",
            _ROWS_HEAD
            + _UNSHARED
            + _ROWS.replace("= step *", "= step % -(-rows // batch_size) *"),
            "Each round begins",
        ),
        Wrong(
            "a step is like the one before",
            _ROWS_HEAD + _UNSHARED + _ROWS.replace("step * batch_size", "0"),
            "`step` is left out",
        ),
        Wrong(
            "each process takes batch_size rows",
            _ROWS_HEAD
            + _UNSHARED
            + "    batch_size = batch_size * processes\n"
            + _ROWS,
            "Here each process takes batch_size rows",
        ),
        Wrong(
            "each process takes a batch of its own",
            _ROWS_HEAD
            + _UNSHARED
            + """\
    first = (step * processes + process) * batch_size
    return [place % rows for place in range(first, first + batch_size)]""",
            "a batch of its own for each",
        ),
        Wrong(
            "processes count from 1",
            _ROWS_HEAD
            + _UNSHARED
            + _ROWS.replace("= step * batch_size", "= step * batch_size - 1"),
            "Processes count from 0",
        ),
        Wrong(
            "steps count from 1",
            _ROWS_HEAD + _UNSHARED + _ROWS.replace("= step", "= (step - 1)"),
            "Steps count from 0",
        ),
        Wrong(
            "the row number tells whose it is",
            _ROWS_HEAD
            + _UNSHARED
            + """\
    first = step * batch_size
    batch = [place % rows for place in range(first, first + batch_size)]
    return [row for row in batch if row % processes == process]""",
            "sorts by row number",
        ),
        Wrong(
            "a step moves on by one share",
            _ROWS_HEAD
            + _UNSHARED
            + _ROWS.replace("step * batch_size", "step * (batch_size // processes)"),
            "A step moves on",
        ),
        Wrong(
            "uneven shares do no harm",
            _ROWS_HEAD + _ROWS,
            "rows cannot be shared",
        ),
        Wrong(
            "the rows must be shared evenly",
            _ROWS_HEAD + _UNSHARED.replace("batch_size %", "rows %") + _ROWS,
            "This batch can be shared",
        ),
    ),
)

# --- 6d.2 ---------------------------------------------------------------------------

_OPENED = ["<|im_start|>", "assistant", "\n"]
_EMPTY = ["<think>", "\n\n", "</think>", "\n\n"]


def _turn(role: str, *words: str) -> list[str]:
    return ["<|im_start|>", role, "\n", *words, "<|im_end|>", "\n"]


_ASKED = _turn("user", "Is", " it", " late", "?")
_PROMPTS: tuple[
    tuple[list[str], list[str], str], ...
] = (  # trained, served, what is up
    (_ASKED + _OPENED, _ASKED + _OPENED, "The two are equal: return None."),
    (
        _ASKED + _OPENED,
        _turn("system", "Be", " brief", ".") + _ASKED + _OPENED,
        "Serving sends a system turn, training had none.",
    ),
    (
        _ASKED + _OPENED,
        _ASKED + _OPENED[:2],
        "Serving leaves out the newline after assistant.",
    ),
    (
        _ASKED + _OPENED,
        _ASKED + _OPENED + _EMPTY,
        "Serving sends an empty thought, which training never showed.",
    ),
    (
        _turn("user", "Is", " it", " late", "?") + _OPENED,
        _turn("user", " Is", " it", " late", " ?") + _OPENED,
        "Serving sends spaces that training had not. The first one counts.",
    ),
    (
        _ASKED + _OPENED + _EMPTY,
        _ASKED + _OPENED + ["<think>", "\n", "\n", *_EMPTY[2:]],
        "The text is the same, the tokens are not: the model reads tokens.",
    ),
    (
        _turn("user", "a", "a", "b") + _OPENED,
        _turn("user", "a", "b", "a") + _OPENED,
        "The same tokens in another order are another prompt.",
    ),
    (["Question", ":", " Is", " it", " late", "?"], _ASKED, "They differ at once."),
    (
        _turn("user", "Hi", "\n") + _OPENED,
        _turn("user", "Hi", " \n") + _OPENED,
        'A space before the newline makes another token of it: " \\n".',
    ),
    (
        _turn("user", "Hi") + _OPENED,
        _turn("User", "Hi") + _OPENED,
        "A capital letter makes another token.",
    ),
    ([], _OPENED, "Training put nothing before the answer."),
    (_OPENED, [], "Serving sends nothing."),
    ([], [], "Both are empty, so they are equal."),
)


def _differences(
    a: Sequence[str], b: Sequence[str], differ: Callable[[Any, Any], Any] = operator.ne
) -> list[tuple[Any, ...]]:
    pairs = enumerate(zip_longest(a, b))
    return [(i, x, y) for i, (x, y) in pairs if differ(x, y)]


def _differs(
    a: Sequence[str], b: Sequence[str], differ: Callable[[Any, Any], Any] = operator.ne
) -> tuple[Any, ...] | None:
    return next(iter(_differences(a, b, differ)), None)


def _stripped(a: list[str], b: list[str]) -> tuple[Any, ...] | None:
    pairs = _differences(a, b)
    return next(
        (p for p in pairs if (p[1] or "").strip() != (p[2] or "").strip()), None
    )


def _of_difference(got: list[Any], otherwise: str) -> str:
    def pick(rule: Callable[[list[str], list[str]], Any]) -> list[Any]:
        return [rule(trained, served) for trained, served, _ in _PROMPTS]

    def joined(a: list[str], b: list[str]) -> tuple[Any, ...] | None:
        return None if "".join(a) == "".join(b) else _differs(a, b)

    def missing(a: list[str], b: list[str]) -> tuple[Any, ...] | None:
        return next((d for d in _differences(a, b) if d[1] and d[1] not in b), None)

    right = pick(_differs)
    lengths = "Equal lengths are no proof: compare token by token."
    text = "The model reads tokens, not text: compare the tokens, not the joined text."
    blank = 'White space is a token, too: "\\n" can be all that differs.'
    beliefs: _Beliefs = (
        (lengths, pick(lambda a, b: None if len(a) == len(b) else _differs(a, b))),
        (
            lengths,
            pick(
                lambda a, b: (
                    None
                    if len(a) == len(b)
                    else _differences(a, b)[-abs(len(a) - len(b))]
                )
            ),
        ),
        (
            "This stops at the end of the shorter list. What only one of them has is a"
            " difference, too, for example the last newline.",
            pick(lambda a, b: _differs(a[: len(b)], b[: len(a)])),
        ),
        (text, pick(joined)),
        (text, pick(lambda a, b: _differs("".join(a), "".join(b)))),
        (blank, pick(_stripped)),
        (
            "This is the last difference. The first one shows where it begins.",
            pick(lambda a, b: next(iter(_differences(a, b)[::-1]), None)),
        ),
        (
            "Places count from 0: the first token has place 0.",
            [place and (place[0] + 1, *place[1:]) for place in right],
        ),
        (
            "The tokens are swapped: first the one of training, then that of serving.",
            pick(lambda a, b: _differs(b, a)),
        ),
        (
            "The order counts: look at the same place in both lists, not anywhere.",
            pick(missing),
        ),
        (
            'Where one list has ended, its token is None, not "".',
            [p and (p[0], p[1] or "", p[2] or "") for p in right],
        ),
        (
            "Place 0 is a place, and counts as false in Python: test `is None`.",
            [place if place and place[0] else None for place in right],
        ),
    )
    return _note(got, beliefs, otherwise)


def _is_place(got: Any) -> bool:
    return got is None or (
        isinstance(got, tuple | list)
        and len(got) == 3
        and _whole(got[0])
        and all(token is None or isinstance(token, str) for token in got[1:])
    )


def _check_difference(answer: Answer) -> str | None:
    sent = [  # equal tokens are different objects, as those of two tokenizers are
        (trained, [(token + " ")[:-1] for token in served])
        for trained, served, _ in _PROMPTS
    ]
    got = [answer([*trained], [*served]) for trained, served in sent]
    formed = [_is_place(g) for g in got]
    places = [tuple(g) if f and g else g for g, f in zip(got, formed, strict=True)]
    right = [_differs(trained, served) for trained, served, _ in _PROMPTS]
    wrong = [i for i, f in enumerate(formed) if not f or places[i] != right[i]]
    if not wrong:
        return None
    trained, served, note = _PROMPTS[wrong[0]]
    if all(formed):
        note = _of_difference(places, note)
        if places == [_differs(a, b, operator.is_not) for a, b in sent]:
            note = "Tokens are the same if they are equal: == and !=, not `is`."
    else:
        wrong = [formed.index(False)]
        trained, served, _ = _PROMPTS[wrong[0]]
        note = "Return None, or three values: place, token of training, of serving."
    return (
        f"{note}\n  input: trained={trained}, served={served}"
        f"\n  expected: {right[wrong[0]]}\n  got: {got[wrong[0]]!r:.200}"
    )


_DIFFERENCE_HEAD = "def first_difference(trained, served):\n"
_ZIPPED = "from itertools import zip_longest\n\n\n" + _DIFFERENCE_HEAD
_DIFFERENCE = """\
    for place, (a, b) in enumerate(zip_longest(trained, served)):
        if a != b:
            return place, a, b
    return None"""
_BY_LENGTH = """\
    if len(trained) == len(served):
        return None
"""
DIFFERENCE = Exercise(
    id="6d.2",
    title="the first token that differs",
    minutes=8,
    stars=1,
    check=_check_difference,
    hints=(
        "Go through both lists side by side, from place 0. What if one of them ends"
        " first?",
        "zip() stops at the end of the shorter list. itertools.zip_longest goes on and"
        " fills up with None.",
        "for place, (a, b) in enumerate(zip_longest(trained, served)): at the first"
        " a != b, return place, a, b. After the loop: return None.",
    ),
    solution=_ZIPPED + _DIFFERENCE,
    name="first_difference",
    stub=_DIFFERENCE_HEAD
    + '''\
    """Return None, or (place, token of training, token of serving)."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "equal lengths are equal prompts",
            _ZIPPED + _BY_LENGTH + _DIFFERENCE,
            "Equal lengths are no proof",
        ),
        Wrong(
            "what is longer differs at its end",
            _DIFFERENCE_HEAD
            + _BY_LENGTH
            + """\
    place = min(len(trained), len(served))
    if place < len(trained):
        return place, trained[place], None
    return place, None, served[place]""",
            "Equal lengths are no proof",
        ),
        Wrong(
            "zip sees everything",
            _DIFFERENCE_HEAD + _DIFFERENCE.replace("zip_longest", "zip"),
            "the end of the shorter list",
        ),
        Wrong(
            "the same text is the same prompt",
            _ZIPPED
            + """\
    if "".join(trained) == "".join(served):
        return None
"""
            + _DIFFERENCE,
            "The model reads tokens",
        ),
        Wrong(
            "characters are as good as tokens",
            _ZIPPED
            + _DIFFERENCE.replace(
                "zip_longest(trained, served)",
                'zip_longest("".join(trained), "".join(served))',
            ),
            "The model reads tokens",
        ),
        Wrong(
            "white space does not matter",
            _ZIPPED
            + _DIFFERENCE.replace("a != b", '(a or "").strip() != (b or "").strip()'),
            "White space is a token",
        ),
        Wrong(
            "any difference will do",
            _ZIPPED
            + """\
    found = None
    for place, (a, b) in enumerate(zip_longest(trained, served)):
        if a != b:
            found = place, a, b
    return found""",
            "the last difference",
        ),
        Wrong(
            "the first token has place 1",
            _ZIPPED
            + _DIFFERENCE.replace("return place, a, b", "return place + 1, a, b"),
            "Places count from 0",
        ),
        Wrong(
            "the tokens may stand in any order",
            _ZIPPED + _DIFFERENCE.replace("return place, a, b", "return place, b, a"),
            "The tokens are swapped",
        ),
        Wrong(
            "a token that occurs somewhere is there",
            _DIFFERENCE_HEAD
            + """\
    for place, token in enumerate(trained):
        if token not in served:
            there = served[place] if place < len(served) else None
            return place, token, there
    return None""",
            "The order counts",
        ),
        Wrong(
            "no token is an empty token",
            _ZIPPED
            + _DIFFERENCE.replace(
                "zip_longest(trained, served)",
                'zip_longest(trained, served, fillvalue="")',
            ),
            "its token is None",
        ),
        Wrong(
            "0 means nothing was found",
            _ZIPPED
            + """\
    pairs = list(zip_longest(trained, served))
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), 0)
    return (place, *pairs[place]) if place else None""",
            "Place 0 is a place",
        ),
    ),
)

EXERCISES = (VERDICT, DIFFERENCE, ROWS)
