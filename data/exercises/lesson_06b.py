"""Exercises of lesson 06b: enough data, a rank for a budget, a plan of the steps."""

import math
from collections.abc import Callable
from itertools import islice
from numbers import Real
from typing import Any

from qwen_course import answers
from qwen_course.checks import Exercise, Wrong

Answer = Callable[..., Any]

# --- 6b.1 ---------------------------------------------------------------------------

_Points = list[tuple[int, int, int]]
_SIZES: tuple[tuple[_Points, str], ...] = (
    (
        [(8, 20, 100), (16, 55, 100), (32, 70, 100), (64, 78, 100), (128, 80, 100)],
        "32 examples are not clearly worse than 128. 16 are.",
    ),
    (
        [(10, 30, 100), (20, 62, 100), (40, 90, 100), (80, 72, 100)],
        "The best is 40 here: more examples made it worse.",
    ),
    (
        [(4, 3, 10), (8, 6, 10), (16, 9, 10)],
        "Take answers.interval. With it, even 3 of 10 and 9 of 10 overlap: 10 questions"
        " tell little.",
    ),
    (
        [(4, 300, 1000), (8, 600, 1000), (16, 900, 1000)],
        "1000 questions tell much: no interval overlaps the best one's.",
    ),
    (
        [(10, 270, 400), (20, 47, 50), (40, 300, 400)],
        "Each point has its own n.",
    ),
    (
        [(8, 60, 100), (16, 40, 100), (32, 66, 100)],
        "8 overlaps the best. That 16, between them, does not, changes nothing.",
    ),
    (
        [(8, 66, 100), (16, 60, 100), (32, 70, 100)],
        "8 overlaps the best, though 16 has a lower share.",
    ),
    (
        [(2, 5, 20), (4, 12, 20), (8, 15, 20), (16, 14, 20), (32, 3, 20)],
        "The best is 8 here. With 20 questions, 4 is not clearly worse.",
    ),
    ([(5, 5, 20), (10, 9, 20)], "5 of 20 and 9 of 20 overlap."),
    ([(10, 300, 1000), (20, 9, 20)], "The best one's interval is wide: only 20."),
    (
        [(5, 40, 200), (10, 300, 1000), (20, 9, 20)],
        "20 is the best. Its own lower end counts, though that of 10 is higher.",
    ),
    (
        [(2, 45, 100), (4, 11, 20), (8, 600, 1000)],
        "8 is the best. That the interval of 4 goes higher changes nothing.",
    ),
    ([(100, 0, 50)], "One point alone is the best."),
    (
        [(10, 1, 40), (20, 10, 40)],
        "Take answers.interval. With it, these two do not overlap: other kinds of"
        " intervals are wider.",
    ),
    (
        [(8, 34, 100), (16, 54, 100)],
        "There is a gap between 43.7 % and 44.3 %. Do not round the ends.",
    ),
    ([(4, 0, 10), (8, 3, 10)], "0 of 10 has an interval, too: it overlaps."),
)


def _share(point: tuple[int, int, int]) -> float:
    return point[1] / point[2]


def _smallest(points: _Points, best: tuple[int, int, int]) -> int:
    """Return the first number of examples whose interval reaches that of `best`."""
    low = answers.interval(*best[1:])[0]
    return next(p[0] for p in points if answers.interval(*p[1:])[1] >= low)


def _enough_beliefs(points: _Points) -> dict[str, float]:
    best = max(points, key=_share)
    right = _smallest(points, best)
    low, high = answers.interval(*best[1:])
    index = next(i for i, point in enumerate(points) if point[0] == right)
    one = "Only one of the two has its interval here, the other is a bare number."
    ends = [answers.interval(*point[1:]) for point in points]
    return {
        "This is the best point itself. A smaller one may not be clearly worse.": (
            best[0]
        ),
        "Compare with the best point: it need not be the last one.": (
            _smallest(points, points[-1])
        ),
        "This is the share. Return the number of examples.": _share(points[index]),
        "This is a place in the list. Return the number of examples.": index,
        one: next(p[0] for p in points if _share(p) >= low),
        one + " Both are uncertain.": next(
            p[0] for p, (_, top) in zip(points, ends, strict=True)
            if top >= _share(best)
        ),
        "This compares the middle of an interval: its upper end can reach the best.": (
            next(p[0] for p, e in zip(points, ends, strict=True) if sum(e) / 2 >= low)
        ),
        "The best point has the highest share, not the most right answers: n"
        " differs.": _smallest(points, max(points, key=lambda point: point[1])),
        "This is the largest number that overlaps. Find the smallest.": next(
            p[0] for p, (_, top) in zip(points[::-1], ends[::-1], strict=True)
            if top >= low
        ),
        "This looks down from the best, and stops at the first that is clearly worse."
        " Look at each.": next(
            p[0] for i, p in enumerate(points)
            if all(top >= low for _, top in ends[i : points.index(best) + 1])
        ),
        "This is the first that is clearly worse. Find the first that is not.": next(
            (p[0] for p, (_, top) in zip(points, ends, strict=True) if top < low), -1
        ),
        "This is the lowest share that overlaps. Find the smallest number.": min(
            (_share(p), p[0]) for p, (_, top) in zip(points, ends, strict=True)
            if top >= low
        )[1],
        "A fixed distance will not do: how much is clear depends on n.": next(
            p[0] for p in points if _share(p) >= _share(best) - 0.1
        ),
    }  # fmt: skip


def _check_enough(answer: Answer) -> str | None:
    got = [answer([*points]) for points, _ in _SIZES]
    right = [_smallest(points, max(points, key=_share)) for points, _ in _SIZES]
    plain = [isinstance(g, Real) and not isinstance(g, bool) for g in got]
    wrong = [i for i, g in enumerate(got) if not plain[i] or g != right[i]]
    if not wrong:
        return None
    points, note = _SIZES[wrong[0]]
    if not all(plain):
        note = "Return one number of examples, as it stands in the points."
    else:
        beliefs = [_enough_beliefs(points) for points, _ in _SIZES]
        same = (told for told in beliefs[0] if [b[told] for b in beliefs] == got)
        note = next(same, note)
    ends = []
    for examples, k, n in points:
        low, high = answers.interval(k, n)
        ends.append(f"({examples}, {k}, {n}): {low:.1%} to {high:.1%}")
    return (
        f"{note}\n  input: {'; '.join(ends)}"
        f"\n  expected: {right[wrong[0]]}\n  got: {got[wrong[0]]!r}"
    )


_ENOUGH_HEAD = "from qwen_course import answers\n\n\ndef enough(points):\n"
_ENOUGH = """\
    best = max(points, key=lambda point: point[1] / point[2])
    low = answers.interval(best[1], best[2])[0]
    for i, (examples, k, n) in enumerate(points):
        if answers.interval(k, n)[1] >= low:
            return examples"""
ENOUGH = Exercise(
    id="6b.1",
    title="how many are enough",
    minutes=10,
    stars=2,
    check=_check_enough,
    hints=(
        "Find the best point first: the highest share right / n. Where does its"
        " interval begin?",
        "No other share is higher. So another interval overlaps the best one's if its"
        " upper end reaches the best one's lower end.",
        "low = answers.interval(best[1], best[2])[0]. Then go through the points, and"
        " return the first whose answers.interval(right, n)[1] >= low.",
    ),
    solution=_ENOUGH_HEAD
    + _ENOUGH.replace("i, (examples, k, n)", "examples, k, n").replace(
        "enumerate(points)", "points"
    ),
    name="enough",
    stub=_ENOUGH_HEAD.removeprefix("from qwen_course import answers\n\n\n")
    + '''\
    """Return the smallest number of examples that is not clearly worse."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "the best share decides",
            _ENOUGH_HEAD + "    return max(points, key=lambda p: p[1] / p[2])[0]",
            "the best point itself",
        ),
        Wrong(
            "the last point is the best",
            _ENOUGH_HEAD
            + _ENOUGH.replace(
                "max(points, key=lambda point: point[1] / point[2])", "points[-1]"
            ),
            "need not be the last",
        ),
        Wrong(
            "the share is asked for",
            _ENOUGH_HEAD + _ENOUGH.replace("return examples", "return k / n"),
            "This is the share",
        ),
        Wrong(
            "the place is asked for",
            _ENOUGH_HEAD + _ENOUGH.replace("return examples", "return i"),
            "a place in the list",
        ),
        Wrong(
            "the whole point is asked for",
            _ENOUGH_HEAD + _ENOUGH.replace("return examples", "return points[i]"),
            "Return one number of examples",
        ),
        Wrong(
            "only the best share is uncertain",
            _ENOUGH_HEAD + _ENOUGH.replace("answers.interval(k, n)[1]", "k / n"),
            "a bare number",
        ),
        Wrong(
            "only the other share is uncertain",
            _ENOUGH_HEAD
            + _ENOUGH.replace(
                "answers.interval(best[1], best[2])[0]", "best[1] / best[2]"
            ),
            "a bare number",
        ),
        Wrong(
            "the middle of an interval counts",
            _ENOUGH_HEAD
            + _ENOUGH.replace(
                "answers.interval(k, n)[1]", "sum(answers.interval(k, n)) / 2"
            ),
            "the middle of an interval",
        ),
        Wrong(
            "the most right answers are best",
            _ENOUGH_HEAD + _ENOUGH.replace("point[1] / point[2]", "point[1]"),
            "not the most right answers",
        ),
        Wrong(
            "the largest that overlaps",
            _ENOUGH_HEAD
            + _ENOUGH.replace("enumerate(points)", "enumerate(points[::-1])"),
            "This is the largest number",
        ),
        Wrong(
            "all above it must overlap, too",
            _ENOUGH_HEAD
            + _ENOUGH.replace(
                "if answers.interval(k, n)[1] >= low",
                "if all(answers.interval(*p[1:])[1] >= low for p in points[i:last])",
            ).replace("    for", "    last = points.index(best) + 1\n    for"),
            "stops at the first",
        ),
        Wrong(
            "the first that is worse",
            _ENOUGH_HEAD
            + _ENOUGH.replace(">= low", "< low").replace(
                "return examples", "return examples\n    return -1"
            ),
            "first that is clearly worse. Find",
        ),
        Wrong(
            "ten points are a difference",
            _ENOUGH_HEAD
            + _ENOUGH.replace(
                "answers.interval(k, n)[1] >= low", "k / n >= best[1] / best[2] - 0.1"
            ),
            "A fixed distance",
        ),
    ),
)

# --- 6b.2 ---------------------------------------------------------------------------

_Shapes = list[tuple[int, int]]
_SMALL: _Shapes = [(896, 896), (896, 128), (896, 128), (896, 896)]  # Qwen2.5-0.5B
_ALL: _Shapes = [
    (1024, 2048), (1024, 1024), (1024, 1024), (2048, 1024),
    (1024, 3072), (1024, 3072), (3072, 1024),
]  # Qwen3-0.6B  # fmt: skip
_BUDGETS: tuple[tuple[_Shapes, int, int, float], ...] = (
    (_SMALL, 24, 2, 9.0),
    (_SMALL, 24, 2, 20.0),
    (_SMALL, 24, 4, 20.0),
    ([(64, 192)], 4, 4, 0.131072),  # 32 fits exactly
    (_ALL, 28, 2, 42.0),
    (_ALL, 28, 2, 20.0),
    (_ALL, 28, 4, 1.0),
    ([(512, 64), (64, 512)], 6, 2, 0.22),
    ([(1024, 8)], 4, 2, 0.1),
    ([(512, 64), (64, 512)], 6, 2, 0.005),
    ([(512, 64), (64, 512)], 6, 2, 0.02),  # only 1 fits
    ([(64, 192)], 4, 4, 17.0),  # above 64: 4096
    ([(8, 8)], 1, 2, 34.0),  # 2**20
    ([(4096, 4096)], 36, 2, 37.74872),  # 16 bytes too few for 64
)


def _largest(one: float, budget_mb: float) -> int:
    """Return the largest power of two of which each needs `one` bytes; 0 if none."""
    rank = 0
    while max(1, 2 * rank) * one <= budget_mb * 1e6:
        rank = max(1, 2 * rank)
    return rank


def _check_rank(answer: Answer) -> str | None:
    got = [answer([*shapes], *rest) for shapes, *rest in _BUDGETS]
    whole = [isinstance(g, Real) and not isinstance(g, bool) for g in got]
    most = max((g for g, is_so in zip(got, whole, strict=True) if is_so), default=0)
    right, others = [], []
    beliefs = (
        "W stays as it is. Only A [rank, in] and B [out, rank] are new: they have"
        " rank * (in + out) weights, not in * out.",
        "Only A is counted: B has weights, too, rank * out of them.",
        "Only B is counted: A has weights, too, rank * in of them.",
        "The frozen weights are counted, too. They do not belong to the adapter.",
        "This is the adapter of one layer. There are `layers` of them.",
        "Only the first shape is counted: each has an adapter of its own.",
        "Here 1 MB is 1,000,000 bytes. 2**20 bytes are a MiB.",
        "bytes_per_weight is left out: a weight takes 2 bytes or 4.",
        "Rank 1 does not fit everywhere. Where nothing fits, return 0.",
        "This is the exponent: the rank is 2 to the power of it.",
        "This is the first rank that does not fit. Go down to the power below.",
        "A rank that takes exactly the budget fits.",
        "This is the largest whole number. Ranks are powers of two here.",
        "Return the rank, not the MB that it takes.",
        "Do not stop at a rank of your choice: go on while it fits.",
    )
    for shapes, layers, size, budget in _BUDGETS:
        sums = [n + m for n, m in shapes]
        frozen = layers * size * sum(n * m for n, m in shapes)
        one = layers * size * sum(sums)
        best = _largest(one, budget)
        right.append(best)
        others.append((
            _largest(frozen, budget),
            _largest(layers * size * sum(n for n, _ in shapes), budget),
            _largest(layers * size * sum(m for _, m in shapes), budget),
            _largest(one, budget - frozen / 1e6),
            _largest(size * sum(sums), budget),
            _largest(layers * size * sums[0], budget),
            _largest(one, budget * 2**20 / 1e6),
            _largest(layers * sum(sums), budget),
            max(1, best),
            max(0, best.bit_length() - 1),
            max(1, 2 * best) if best * one < budget * 1e6 else best,
            _largest(one, budget * (1 - 1e-9)),
            int(budget * 1e6 // one),
            best * one / 1e6,
            min(most, best) if most else -1,
        ))  # fmt: skip
    wrong = [i for i, g in enumerate(got) if not whole[i] or g != right[i]]
    if not wrong:
        return None
    shapes, layers, size, budget = _BUDGETS[wrong[0]]
    best, one = right[wrong[0]], layers * size * sum(n + m for n, m in shapes)
    named = zip(beliefs, zip(*others, strict=True), strict=True)
    if not all(whole):
        note = "Return a whole number, the rank."
    elif not (note := next((told for told, ranks in named if [*ranks] == got), "")):
        note = f"Rank {max(1, best)} takes {max(1, best) * one / 1e6:.8g} MB."
        if best:
            note = f"{note[:-1]}, rank {2 * best} {2 * best * one / 1e6:.8g} MB."
    return (
        f"{note}\n  input: shapes={shapes}, layers={layers}, bytes_per_weight={size},"
        f" budget_mb={budget}\n  expected: {best}\n  got: {got[wrong[0]]!r}"
    )


_RANK_HEAD = "def largest_rank(shapes, layers, bytes_per_weight, budget_mb):\n"
_RANK = """\
    weights = layers * sum(n + m for n, m in shapes)
    one = weights * bytes_per_weight
    rank = 1
    while rank * one <= budget_mb * 1e6:
        rank = 2 * rank
    return rank // 2"""
RANK = Exercise(
    id="6b.2",
    title="a rank for a budget",
    minutes=10,
    stars=1,
    check=_check_rank,
    hints=(
        "How many weights does one adapter have with rank 1? A is [1, in], B is"
        " [out, 1].",
        "With rank r it is r * (in + out). Add up the shapes, then count all layers and"
        " the bytes of a weight.",
        "Begin with rank 1 and double it while rank * bytes <= budget_mb * 1e6. The"
        " last one that fits is half of where you stop; 1 // 2 is 0.",
    ),
    solution=_RANK_HEAD + _RANK,
    name="largest_rank",
    stub=_RANK_HEAD
    + '''\
    """Return the largest power of two that fits as rank, or 0."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "an update is as large as W",
            _RANK_HEAD + _RANK.replace("n + m", "n * m"),
            "not in * out",
        ),
        Wrong(
            "an adapter is A",
            _RANK_HEAD + _RANK.replace("n + m", "n"),
            "Only A is counted",
        ),
        Wrong(
            "an adapter is B",
            _RANK_HEAD + _RANK.replace("n + m", "m"),
            "Only B is counted",
        ),
        Wrong(
            "the frozen weights are part of it",
            _RANK_HEAD
            + _RANK.replace(
                "    rank = 1",
                "    frozen = layers * sum(n * m for n, m in shapes)\n"
                "    budget_mb -= frozen * bytes_per_weight / 1e6\n    rank = 1",
            ),
            "frozen weights are counted",
        ),
        Wrong(
            "one layer is all",
            _RANK_HEAD + _RANK.replace("layers * ", ""),
            "of one layer",
        ),
        Wrong(
            "one shape is all",
            _RANK_HEAD + _RANK.replace("in shapes", "in shapes[:1]"),
            "Only the first shape",
        ),
        Wrong(
            "a MB is 2**20 bytes",
            _RANK_HEAD + _RANK.replace("1e6", "2**20"),
            "are a MiB",
        ),
        Wrong(
            "a weight is a byte",
            _RANK_HEAD + _RANK.replace(" * bytes_per_weight", ""),
            "is left out",
        ),
        Wrong(
            "rank 1 always fits",
            _RANK_HEAD + _RANK.replace("rank // 2", "max(1, rank // 2)"),
            "return 0",
        ),
        Wrong(
            "rounding up is harmless",
            _RANK_HEAD
            + _RANK.replace("rank * one <= ", "rank * one < ").replace(
                "rank // 2", "rank"
            ),
            "does not fit. Go down",
        ),
        Wrong(
            "some room must be left",
            _RANK_HEAD + _RANK.replace("<=", "<"),
            "takes exactly",
        ),
        Wrong(
            "any rank will do",
            _RANK_HEAD + "    weights = layers * sum(n + m for n, m in shapes)\n"
            "    return int(budget_mb * 1e6 // (weights * bytes_per_weight))",
            "largest whole number",
        ),
    ),
)

# --- 6b.3 ---------------------------------------------------------------------------

_Plan = tuple[int, int, int, int, float]
_PLANS: tuple[_Plan, ...] = (  # examples, batch_size, accumulate, epochs, warm_up
    (100, 8, 1, 1, 0.1),
    (100, 8, 2, 3, 0.1),
    (64, 8, 4, 2, 0.25),  # no step is filled up
    (10, 4, 1, 10, 0.33),
    (1000, 4, 8, 2, 0.03),
    (3, 8, 2, 1, 0.1),
    (50, 5, 4, 6, 0.0),
    (70, 3, 5, 4, 0.45),
    (1025, 8, 16, 1, 0.1),  # one row is left over
)


def _planned(plan: _Plan) -> tuple[int, int, int]:
    examples, batch_size, accumulate, epochs, warm_up = plan
    rows = batch_size * accumulate
    steps = math.ceil(examples * epochs / rows)
    return steps, round(warm_up * steps), steps * rows


def _plan_beliefs(plan: _Plan) -> tuple[dict[str, float], ...]:
    """Return what steps, warm-up and rows would be if a belief were true."""
    n, batch, accumulate, epochs, share = plan
    size = batch * accumulate
    right, warm, rows = _planned(plan)
    steps: dict[str, float] = {
        "accumulate is left out: batch_size rows are one part, and the weights change"
        " only after `accumulate` parts.": math.ceil(n * epochs / batch),
        "These are the parts. A step is one change of the weights, after `accumulate`"
        " parts.": right * accumulate,
        "This is rounded down: so the last examples are not seen often enough.": (
            n * epochs // size
        ),
        "Each epoch is rounded up here. A step may take rows from two epochs: round up"
        " once, at the end.": math.ceil(n / size) * epochs,
        "This is one epoch.": math.ceil(n / size),
        "There is no half step: round up.": n * epochs / size,
        "Round up, but do not add a step where nothing is left over.": (
            n * epochs // size + 1
        ),
        "Only the warm-up is rounded to the nearest number. Steps are rounded up.": (
            round(n * epochs / size)
        ),
    }
    warms: dict[str, float] = {
        "The share is of all steps, and the rate rises once: not once an epoch.": (
            round(share * right) * epochs
        ),
        "The share is of the steps of the whole training, not of one epoch's.": round(
            share * math.ceil(n / size)
        ),
        "Take the nearest whole number: this is rounded down.": int(share * right),
        "Take the nearest whole number: this is rounded up.": math.ceil(share * right),
        "The share is of the steps, not of the examples.": round(share * n * epochs),
        "The share is of the steps, not of their parts.": round(
            share * right * accumulate
        ),
        "Warm-up is a number of steps, not a share.": share,
        "There is no half step: round the warm-up to a whole number.": share * right,
        "0 is a whole number, too: there may be no warm-up.": max(1, warm),
    }
    read: dict[str, float] = {
        "The last step is filled up from the next epoch: its rows are read, too.": (
            n * epochs
        ),
        "accumulate is missing in the rows: a step reads `accumulate` parts.": (
            right * batch
        ),
        "Each example counts as often as it is read.": n,
        "Rows of the warm-up are read, too.": rows - warm * size,
    }
    return steps, warms, read


def _check_plan(answer: Answer) -> str | None:
    got = [answer(*plan) for plan in _PLANS]
    right = [_planned(plan) for plan in _PLANS]
    plain = []
    for given in got:
        try:
            plain.append(() if isinstance(given, dict) else tuple(islice(given, 4)))
        except TypeError:
            plain.append(())
    if plain == right:
        return None
    wrong = next(i for i, pair in enumerate(zip(plain, right, strict=True))
                 if pair[0] != pair[1])  # fmt: skip
    note = "Return three whole numbers: steps, warm-up steps, rows read."
    if all(len(p) == 3 and all(isinstance(v, Real) for v in p) for p in plain):
        # Steps first: warm-up and rows depend on them.
        part = next(k for k in range(3) if any(
            p[k] != r[k] for p, r in zip(plain, right, strict=True)
        ))  # fmt: skip
        note = (
            "A step takes batch_size * accumulate rows.",
            "The steps are right. The warm-up is their share `warm_up`, to the nearest"
            " whole number.",
            "Steps and warm-up are right. A step reads batch_size * accumulate rows.",
        )[part]
        beliefs = [_plan_beliefs(plan)[part] for plan in _PLANS]
        for told in beliefs[0]:
            if [b[told] for b in beliefs] == [p[part] for p in plain]:
                note = told
        if all({*p} == {*r} for p, r in zip(plain, right, strict=True)):
            note = "The order is: steps, warm-up steps, rows read."
    names = ("examples", "batch_size", "accumulate", "epochs", "warm_up")
    told = ", ".join(f"{n}={v}" for n, v in zip(names, _PLANS[wrong], strict=True))
    return f"{note}\n  input: {told}\n  expected: {right[wrong]}\n  got: {got[wrong]!r}"


_PLAN_HEAD = (
    "import math\n\n\n"
    "def training_plan(examples, batch_size, accumulate, epochs, warm_up):\n"
)
_PLAN = """\
    rows = batch_size * accumulate
    steps = math.ceil(examples * epochs / rows)
    return steps, round(warm_up * steps), steps * rows"""
PLAN = Exercise(
    id="6b.3",
    title="plan the steps",
    minutes=8,
    stars=1,
    check=_check_plan,
    hints=(
        "How many rows does one step take? And how many rows are to be read in all"
        " epochs together?",
        "steps = math.ceil(examples * epochs / rows): round up once, at the end. What"
        " is the share warm_up of these steps?",
        "round(warm_up * steps) is the warm-up. The last step is filled up, so"
        " steps * rows are read.",
    ),
    solution=_PLAN_HEAD + _PLAN,
    name="training_plan",
    stub=_PLAN_HEAD.removeprefix("import math\n\n\n")
    + '''\
    """Return the steps, the warm-up steps and the rows read."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "a batch is a step",
            _PLAN_HEAD + _PLAN.replace("batch_size * accumulate", "batch_size"),
            "accumulate is left out",
        ),
        Wrong(
            "each part is a step",
            _PLAN_HEAD + _PLAN.replace("return steps,", "return steps * accumulate,"),
            "These are the parts",
        ),
        Wrong(
            "rows left over are dropped",
            _PLAN_HEAD
            + _PLAN.replace("math.ceil(", "").replace("epochs / rows)", "epochs//rows"),
            "This is rounded down: so",
        ),
        Wrong(
            "each epoch is rounded up",
            _PLAN_HEAD
            + _PLAN.replace(
                "math.ceil(examples * epochs / rows)",
                "math.ceil(examples / rows) * epochs",
            ),
            "Each epoch is rounded up",
        ),
        Wrong(
            "epochs do not count",
            _PLAN_HEAD + _PLAN.replace(" * epochs", ""),
            "This is one epoch",
        ),
        Wrong(
            "there is always a step more",
            _PLAN_HEAD
            + _PLAN.replace(
                "math.ceil(examples * epochs / rows)", "examples * epochs // rows + 1"
            ),
            "nothing is left over",
        ),
        Wrong(
            "each epoch warms up",
            _PLAN_HEAD
            + _PLAN.replace(
                "round(warm_up * steps)", "round(warm_up * steps) * epochs"
            ),
            "not once an epoch",
        ),
        Wrong(
            "the first epoch warms up",
            _PLAN_HEAD
            + _PLAN.replace(
                "round(warm_up * steps)", "round(warm_up * math.ceil(examples / rows))"
            ),
            "not of one epoch's",
        ),
        Wrong(
            "int() rounds",
            _PLAN_HEAD + _PLAN.replace("round(", "int("),
            "number: this is rounded down",
        ),
        Wrong(
            "warm-up is rounded up",
            _PLAN_HEAD + _PLAN.replace("round(", "math.ceil("),
            "number: this is rounded up",
        ),
        Wrong(
            "warm-up is a share of the examples",
            _PLAN_HEAD
            + _PLAN.replace("warm_up * steps", "warm_up * examples * epochs"),
            "not of the examples",
        ),
        Wrong(
            "nothing is filled up",
            _PLAN_HEAD + _PLAN.replace("steps * rows", "examples * epochs"),
            "filled up from the next epoch",
        ),
        Wrong(
            "a step reads a batch",
            _PLAN_HEAD + _PLAN.replace("steps * rows", "steps * batch_size"),
            "missing in the rows",
        ),
        Wrong(
            "an example is seen once",
            _PLAN_HEAD + _PLAN.replace("steps * rows", "examples"),
            "as often as it is read",
        ),
    ),
)

EXERCISES = (ENOUGH, RANK, PLAN)
