"""Exercises of lesson 05a: codes and scales by hand, size in MB, the worst column."""

from collections.abc import Callable
from decimal import Decimal
from itertools import islice
from math import isclose, isfinite
from numbers import Real
from random import Random
from typing import Any

from qwen_course import answers
from qwen_course.checks import Exercise, Wrong

Answer = Callable[..., Any]

# --- 5a.1 ---------------------------------------------------------------------------

_TENSORS: tuple[tuple[list[float], int, int, str], ...] = (  # weights, bits, group
    (
        [-0.26, 0.7, 0.31, 0.0, 0.54, 0.2, -1.4, 0.88], 4, 4,
        "The step of the first group is 0.7 / 7 = 0.1. So -0.26 is -2.6 steps: the code"
        " -3.",
    ),
    (
        [2.54, -1.01, 0.127, 0.05], 8, 2,
        "8 bits have codes from -127 to 127: the steps are 2.54 / 127 and 0.127 / 127.",
    ),
    (
        [0.9, -0.5, 0.4, -0.2, 0.12, 0.06], 2, 3,
        "2 bits leave the codes -1, 0 and 1: the steps are 0.9 and 0.2.",
    ),
    (
        [0.6, 0.22, 0.14, -0.45, -0.35], 3, 4,
        "The last group is shorter: one weight alone, with a scale of its own. All"
        " others are full: 4 and 1, not 3 and 2.",
    ),
    (
        [0.0, 0.0, 0.7, -0.2], 4, 2,
        "The weights of the first group are all 0, and so is their largest: do not"
        " divide by it. The codes are 0, the scale may be 0.",
    ),
    (
        [0.0018, -0.0006, 0.0009, -0.00012], 5, 2,
        "Real weights can be as small as these: keep all digits of a scale. 5 bits have"
        " codes from -15 to 15.",
    ),
    (
        [7.0, 2.5, -3.5, 0.5], 4, 4,
        "The step is 1. Where two codes are equally near, either is right.",
    ),
    (
        [0.7, -0.7, 0.0, -0.35, 0.0], 4, 2,
        "A group of zeros has no other weight. The first one here only adds up to 0,"
        " the second only begins with 0: both have a scale above 0.",
    ),
)  # fmt: skip


def _in_groups(weights: list[float], group: int) -> list[list[float]]:
    return [weights[i : i + group] for i in range(0, len(weights), group)]


def _numbers(values: Any, most: int) -> list[float]:
    values = list(islice(values, most + 1))
    if not all(isinstance(value, Real | Decimal) for value in values):
        raise TypeError
    return [float(value) for value in values]


def _scales_problem(got: list[float], groups: list[list[float]], bits: int) -> str:
    """Return what is wrong with the scales; "" if they are right or not known."""
    top, flat = 2 ** (bits - 1) - 1, [w for group in groups for w in group]
    if len(got) != len(groups):
        alone = "One scale for all weights: a single large one makes all steps coarse. "
        told = f"{len(groups)} groups need {len(groups)} scales, not {len(got)}."
        if not all(map(any, groups)):
            return f"{told} A group of zeros has one, too: it may be 0."
        return alone + told if len(got) == 1 else told
    if all(isclose(s, max(map(abs, flat)) / top, rel_tol=1e-3) for s in got):
        return "Each scale comes from all weights. Look at those of its group only."
    others: tuple[tuple[Callable[[list[float]], float], str], ...] = (
        (
            lambda g: max(map(abs, g)) / (top + 1),
            f"{bits} bits have {2**bits} codes. One is 0, so {top} are left on each"
            f" side if both sides are equal: divide by {top}, not {top + 1}.",
        ),
        (
            lambda g: max(map(abs, g)) / 2**bits,
            f"{bits} bits are {2**bits} codes in all, half of them for negative"
            f" weights: the last code is {top}.",
        ),
        (
            lambda g: max(map(abs, g)) / (2**bits - 1),
            f"{bits} bits are {2**bits} codes in all, half of them for negative"
            f" weights: the last code is {top}.",
        ),
        (
            lambda g: max(g) / top,
            "max() finds the largest with its sign. A negative weight can be larger"
            " without it: use abs().",
        ),
        (
            lambda g: abs(g[0]) / top,
            "This is the first weight of each group. The largest can stand anywhere.",
        ),
        (
            lambda g: (max(g) - min(g)) / (2**bits - 1),
            "These are steps from the smallest weight to the largest (zero-point)."
            " With absmax, both sides of 0 have the same steps.",
        ),
        (
            lambda g: top / max(map(abs, g)),
            "This is one divided by the scale. The scale is the step, so that"
            " code * scale is the weight again.",
        ),
        (
            lambda g: max(map(abs, g)),
            f"This is the largest weight. The scale is one step: divide by {top}.",
        ),
    )
    if all(map(any, groups)):
        for scale, told in others:
            if all(
                isclose(s, scale(g), rel_tol=1e-3)
                for s, g in zip(got, groups, strict=True)
            ):
                return told
    return ""


def _codes_problem(got: list[float], exact: list[float], top: int) -> str:
    """Return what is wrong with the codes, of which the scales are right."""
    if len(got) != len(exact):
        return "Return one code for each weight."
    if not all(map(isfinite, got)):
        return ""
    if not all(code.is_integer() for code in got):
        return "A code is a whole number: of steps."
    if all(abs(c - abs(value)) < 0.51 for c, value in zip(got, exact, strict=True)):
        return "Only the scale has no sign. A code keeps its sign: that of its weight."
    away = [code - value for code, value in zip(got, exact, strict=True)]
    if all(abs(a) < 1.01 for a in away):
        return (
            "Round to the nearest code: int() cuts off, // goes down, ceil() goes up."
        )
    if all(-0.51 < a - shift < 0.51 for a in away for shift in [round(away[0])]):
        return f"These codes are shifted. Here 0 has the code 0: from {-top} to {top}."
    return ""


def _check_by_hand(answer: Answer) -> str | None:
    for weights, bits, group, note in _TENSORS:
        groups, top = _in_groups(weights, group), 2 ** (bits - 1) - 1
        steps = [max(map(abs, part)) / top for part in groups]
        exact = [
            weight / step if step else 0.0
            for part, step in zip(groups, steps, strict=True)
            for weight in part
        ]
        try:
            got = answer([*weights], bits, group)
        except (ZeroDivisionError, ValueError, OverflowError) as error:
            if all(steps):  # ValueError and OverflowError: round(nan), round(inf)
                raise
            got = error
        try:
            codes, scales = (_numbers(part, len(weights)) for part in got)
        except (TypeError, ValueError):
            if not isinstance(got, Exception):
                note = "Return two flat lists of numbers: codes, scales."
        else:
            got = codes, scales
            right_scales = len(scales) == len(steps) and all(
                isclose(s, step, rel_tol=1e-3) if step else isfinite(s)
                for s, step in zip(scales, steps, strict=True)
            )
            right_codes = len(codes) == len(exact) and all(
                code.is_integer() and abs(code - value) < 0.51
                for code, value in zip(codes, exact, strict=True)
            )
            if right_scales and right_codes:
                continue
            swapped = (len(codes), len(scales)) == (len(steps), len(weights))
            if swapped and len(steps) < len(weights):
                note = "The codes come first, then the scales."
            elif not right_scales:
                note = _scales_problem(scales, groups, bits) or note
            else:
                note = _codes_problem(codes, exact, top) or note
        told = [round(value) for value in exact], [float(f"{s:.4g}") for s in steps]
        return (
            f"{note}\n  input: weights={weights}, bits={bits}, group={group}"
            f"\n  expected: {told}\n  got: {got!r}"
        )
    return None


_BY_HAND_HEAD = "def quantize_by_hand(weights, bits, group):\n"
_BY_HAND = """\
    codes, scales = [], []
    for start in range(0, len(weights), group):
        part = weights[start : start + group]
        scale = max(abs(w) for w in part) / (2 ** (bits - 1) - 1)
        scales.append(scale)
        codes += [round(w / scale) if scale else 0 for w in part]
    return codes, scales"""
BY_HAND = Exercise(
    id="5a.1",
    title="quantise by hand",
    minutes=12,
    stars=2,
    check=_check_by_hand,
    hints=(
        "Do one group first. Which is its largest weight, without the sign? With 4 bits"
        " that weight gets the code 7 or -7.",
        "scale = max(abs(w) for w in part) / (2 ** (bits - 1) - 1), and a code is"
        " round(w / scale).",
        "for start in range(0, len(weights), group): part = weights[start : start +"
        " group]. If the scale is 0, all codes are 0.",
    ),
    solution=_BY_HAND_HEAD + _BY_HAND,
    name="quantize_by_hand",
    stub=_BY_HAND_HEAD
    + '''\
    """Return two lists: a code for each weight, a scale for each group."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "half of 2**bits is the last code",
            _BY_HAND_HEAD
            + _BY_HAND.replace("(2 ** (bits - 1) - 1)", "2 ** (bits - 1)"),
            "are left on each side",
        ),
        Wrong(
            "all 2**bits codes are on one side",
            _BY_HAND_HEAD + _BY_HAND.replace("(2 ** (bits - 1) - 1)", "(2**bits - 1)"),
            "half of them for negative",
        ),
        Wrong(
            "one scale is enough",
            _BY_HAND_HEAD + "    group = len(weights)\n" + _BY_HAND,
            "One scale for all",
        ),
        Wrong(
            "each group has the scale of the whole",
            _BY_HAND_HEAD + _BY_HAND.replace("w in part) /", "w in weights) /"),
            "of its group only",
        ),
        Wrong(
            "int() rounds",
            _BY_HAND_HEAD + _BY_HAND.replace("round(", "int("),
            "Round to the nearest",
        ),
        Wrong(
            "// rounds",
            _BY_HAND_HEAD + _BY_HAND.replace("round(w / scale)", "int(w // scale)"),
            "Round to the nearest",
        ),
        Wrong(
            "the largest weight is positive",
            _BY_HAND_HEAD + _BY_HAND.replace("abs(w) for", "w for"),
            "use abs()",
        ),
        Wrong(
            "steps go from the smallest to the largest",
            _BY_HAND_HEAD
            + _BY_HAND.replace(
                "max(abs(w) for w in part)", "(max(part) - min(part))"
            ).replace("(2 ** (bits - 1) - 1)", "(2**bits - 1)"),
            "(zero-point)",
        ),
        Wrong(
            "codes begin at 0",
            _BY_HAND_HEAD
            + _BY_HAND.replace(
                "round(w / scale)", "round(w / scale) + 2 ** (bits - 1)"
            ),
            "codes are shifted",
        ),
        Wrong(
            "every group holds something else than 0",
            _BY_HAND_HEAD + _BY_HAND.replace(" if scale else 0", ""),
            "do not divide by it",
        ),
    ),
)

# --- 5a.2 ---------------------------------------------------------------------------

_FORMATS: tuple[tuple[int, int, int, int, int, str], ...] = (
    (
        494_032_768, 136_134_656, 4, 64, 16,
        "Qwen2.5-0.5B: 136 million weights have 16 bits, the other 358 million have"
        " 4 + 16 / 64 bits.",
    ),
    (
        596_049_920, 155_582_464, 8, 32, 32,
        "Qwen3-0.6B: a scale of 32 bits for 32 weights is one bit more for each.",
    ),
    (
        596_049_920, 0, 3, 128, 16,
        "No embedding is set apart here: all weights have 3 + 16 / 128 bits.",
    ),
    (
        1_000_000, 200_000, 4, 32, 16,
        "Do not round: a small file has less than one MB.",
    ),
)  # fmt: skip


def _other_sizes(
    total: int, embedding: int, bits: int, group: int, scale_bits: int
) -> tuple[tuple[float, str], ...]:
    rest, each = total - embedding, bits + scale_bits / group
    size = rest * each + embedding * 16
    bytes_of_mb = 8 * 10**6
    return (
        (
            size * 1000 / 1024 * 1000 / 1024 / bytes_of_mb,
            "Here 1 MB is 1,000,000 bytes. 2**20 bytes are a MiB.",
        ),
        (size / 1000 / bytes_of_mb, "This is in GB. 1 GB is 1,000 MB."),
        (size / 10**6, "These are bits: 8 of them are a byte."),
        (
            (rest * bits + embedding * 16) / bytes_of_mb,
            "The scales are missing: each group keeps one, beside its codes.",
        ),
        (
            (rest * (bits + scale_bits) + embedding * 16) / bytes_of_mb,
            "A scale is shared by all weights of a group. This counts one a weight.",
        ),
        (
            total * each / bytes_of_mb,
            "The embedding is not quantised: it stays in 16 bits.",
        ),
        (
            rest * each / bytes_of_mb,
            "The embedding is left out. It is in the file, too, in 16 bits.",
        ),
        (
            (total * each + embedding * 16) / bytes_of_mb,
            "`parameters` are all, those of the embedding too: here it counts twice.",
        ),
        (
            (size + embedding * scale_bits / group) / bytes_of_mb,
            "The embedding has no scales: it stays in 16 bits.",
        ),
        (
            (rest * (bits + 8 * scale_bits / group) + embedding * 16) / bytes_of_mb,
            "`scale_bits` are bits, too: 8 of them are a byte.",
        ),
        (
            total * bits / bytes_of_mb,
            "Scales are missing here, and the embedding is not quantised.",
        ),
        (
            (rest * each + embedding * 32) / bytes_of_mb,
            "The embedding has 16 bits a number, which is 2 bytes.",
        ),
    )


def _check_size(answer: Answer) -> str | None:
    for *sizes, note in _FORMATS:
        total, embedding, bits, group, scale_bits = sizes
        rest = total - embedding
        expected = (rest * (bits + scale_bits / group) + embedding * 16) / 8e6
        got = answer(*sizes)
        got = answers.plain(got)
        if isinstance(got, Real) and isclose(got, expected, rel_tol=1e-9):
            continue
        if not isinstance(got, Real):
            note = "Return a number, the size in MB."
        else:
            for value, told in _other_sizes(*sizes):
                note = told if abs(got - value) < 0.0002 * value else note
            if any(got in (round(expected, n), int(expected)) for n in range(6)):
                note = "Do not round: return all digits, as for files below one MB."
        return (
            f"{note}\n  input: parameters={total}, embedding={embedding}, bits={bits},"
            f" group={group}, scale_bits={scale_bits}"
            f"\n  expected: {expected:.10g}\n  got: {got!r}"
        )
    return None


_SIZE_HEAD = "def size_in_mb(parameters, embedding, bits, group, scale_bits):\n"
_SIZE = """\
    quantised = (parameters - embedding) * (bits + scale_bits / group)
    return (quantised + embedding * 16) / 8 / 1e6"""
SIZE = Exercise(
    id="5a.2",
    title="how large is the file",
    minutes=8,
    stars=1,
    check=_check_size,
    hints=(
        "Count bits first. How many does one quantised weight take, its share of the"
        " scale included?",
        "A quantised weight has bits + scale_bits / group bits, one of the embedding"
        " has 16. How many are there of each?",
        "((parameters - embedding) * (bits + scale_bits / group) + embedding * 16)"
        " bits; 8 are a byte, 1e6 bytes are a MB.",
    ),
    solution=_SIZE_HEAD + _SIZE,
    name="size_in_mb",
    stub=_SIZE_HEAD
    + '''\
    """Return the size of a quantised model in MB, scales included."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "4 bits are 4 bits",
            _SIZE_HEAD + _SIZE.replace("(bits + scale_bits / group)", "bits"),
            "scales are missing",
        ),
        Wrong(
            "each weight has a scale",
            _SIZE_HEAD + _SIZE.replace(" / group", ""),
            "one a weight",
        ),
        Wrong(
            "a MB is 2**20 bytes",
            _SIZE_HEAD + _SIZE.replace("1e6", "2**20"),
            "are a MiB",
        ),
        Wrong("sizes are in GB", _SIZE_HEAD + _SIZE.replace("1e6", "1e9"), "in GB"),
        Wrong(
            "bits are bytes", _SIZE_HEAD + _SIZE.replace(" / 8", ""), "These are bits"
        ),
        Wrong(
            "the embedding is quantised",
            _SIZE_HEAD
            + "    return parameters * (bits + scale_bits / group) / 8 / 1e6",
            "not quantised",
        ),
        Wrong(
            "the embedding is no part of the file",
            _SIZE_HEAD + _SIZE.replace(" + embedding * 16", ""),
            "is left out",
        ),
        Wrong(
            "the embedding is no part of the parameters",
            _SIZE_HEAD + _SIZE.replace("(parameters - embedding)", "parameters"),
            "counts twice",
        ),
        Wrong(
            "what is not quantised has 32 bits",
            _SIZE_HEAD + _SIZE.replace("embedding * 16", "embedding * 32"),
            "which is 2 bytes",
        ),
    ),
)

# --- 5a.3 ---------------------------------------------------------------------------

_Matrix = list[list[float]]
_WEIGHTS = (
    "Here are the largest weights. Large is not inexact: look at weights - rounded."
)
_INPUTS = (
    "Here the activations are largest. But these weights are hardly changed by the"
    " rounding."
)
_ERRORS = (
    "Here the rounding errors are largest. But they are multiplied by small"
    " activations."
)
_MEAN = (
    "This column is the worst on average. Look for the largest change: for one token,"
    " another column reaches -8."
)
_SIGN = (
    "Here the errors or activations above 0 are largest. An error below 0, or an"
    " activation, changes the output as much: use the sizes, without the sign. (Or"
    " columns pile up: put each one into a copy of the weights.)"
)
_ONCE = (
    "A product changes by error times activation, each of them once and without the"
    " sign: no square, and no range from the smallest to the largest."
)


def _layer(seed: int) -> tuple[_Matrix, _Matrix]:
    """Return weights [8, 12] and activations [20, 12], their columns of three sizes."""
    draw = Random(seed).random
    sizes = [(0.5, 2, 8)[int(3 * draw())] for _ in range(12)]
    weights = [[round(2 * draw() - 1, 3) for _ in sizes] for _ in range(8)]
    inputs = [[round(s * (2 * draw() - 1) ** 5, 3) for s in sizes] for _ in range(20)]
    return weights, inputs


_TOKENS = [
    [5.0, 0.1, 0.1, 0.2], [-4.9, 0.2, 0.1, 0.3], [4.8, -8.0, 0.2, 0.1],
    [-5.0, 0.1, -0.1, 7.0], [4.9, 0.1, 0.3, 0.2],
]  # fmt: skip
_LAYERS: tuple[tuple[_Matrix, _Matrix, dict[int, str]], ...] = (
    (  # five rows, two columns: here a row is no column
        [[0.7, 0.13], [0.7, 0.31], [0.7, -0.21], [-0.7, 0.52], [0.7, -0.26]],
        [[0.5, 1.0], [0.1, -2.0], [0.2, 2.0], [1.0, 6.0]],
        {0: _WEIGHTS},
    ),
    (
        [[0.7, 0.104, 0.245, -0.27], [-0.7, 0.3, 0.045, 0.63], [0.7, -0.2, 0.1, 0.1]],
        [[1.0, 0.5, -1.1, 6.0], [-0.8, 9.0, 0.9, -5.0]],
        {0: _WEIGHTS, 1: _INPUTS, 2: _ERRORS},
    ),
    (
        [[0.13, 0.23, 0.7, 0.33], [0.21, 0.52, -0.7, 0.11], [0.41, -0.32, 0.7, 0.22]],
        _TOKENS,
        {0: _MEAN, 3: _SIGN},
    ),
    (  # the same, with the errors of the worst column below 0
        [[0.13, -0.23, 0.7, 0.33], [0.21, -0.52, -0.7, 0.11], [0.41, 0.32, 0.7, 0.22]],
        _TOKENS,
        {0: _MEAN, 3: _SIGN},
    ),
    (
        [[0.12, 0.24, 0.248, 0.7], [0.31, 0.34, 0.352, 0.7]],
        [[10.0, 1.0, 0.5, 0.1], [1.0, -6.0, 1.0, 0.2], [0.3, 2.0, 4.5, 0.1]],
        {0: _ONCE, 2: _ONCE},
    ),
    (*_layer(173), {}),  # each other measure has another worst column here
)  # fmt: skip


def _check_column(answer: Answer) -> str | None:
    import numpy as np  # a notebook has it; definitions must load without it

    for rows, inputs, notes in _LAYERS:
        weights, activations = np.array(rows), np.array(inputs)
        step = abs(weights).max(axis=1, keepdims=True) / 7
        rounded = np.round(weights / step) * step
        change = abs(weights - rounded).max(axis=0) * abs(activations).max(axis=0)
        expected = int(change.argmax())
        got = answer(weights.copy(), rounded.copy(), activations.copy())
        if isinstance(got, Real) and got == expected:
            continue
        if not isinstance(got, Real):
            note = "Return one number: that of the column, from 0."
        elif got not in range(len(change)):
            note = (
                "There is no such column: they count from 0. Is it a row, a token, or a"
                " place in the flattened matrix? axis=0 goes down a column."
            )
        else:
            note = notes.get(
                int(got),
                f"With column {got} rounded, no output changes by more than"
                f" {change[int(got)]:.2g}. With column {expected} one changes by"
                f" {change[expected]:.2g}.",
            )
        told = f"weights={rows}, activations={inputs}, rounded to 4 bits by row"
        if not notes:
            told = f"weights {weights.shape} and activations {activations.shape}"
        return f"{note}\n  input: {told}\n  expected: {expected}\n  got: {got!r}"
    return None


_COLUMN_HEAD = "def worst_column(weights, rounded, activations):\n"
_COLUMN = """\
    error = abs(weights - rounded).max(axis=0)
    size = abs(activations).max(axis=0)
    return (error * size).argmax()"""
COLUMN = Exercise(
    id="5a.3",
    title="find the outlier column",
    minutes=10,
    stars=3,
    check=_check_column,
    hints=(
        "An output is a sum over columns: weight times activation. By how much does one"
        " product change, if the weight changes by e and the activation is x?",
        "For each column take the largest e of all rows and the largest x of all"
        " tokens, both without the sign: abs(...).max(axis=0).",
        "Multiply the two, column by column. argmax() of the product is the column.",
    ),
    solution=_COLUMN_HEAD + _COLUMN,
    name="worst_column",
    stub=_COLUMN_HEAD
    + '''\
    """Return the column whose rounding can change an output most."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "large weights are hurt most",
            _COLUMN_HEAD + "    return abs(weights).max(axis=0).argmax()",
            "Large is not inexact",
        ),
        Wrong(
            "the largest error hurts most",
            _COLUMN_HEAD + "    return abs(weights - rounded).max(axis=0).argmax()",
            "multiplied by small",
        ),
        Wrong(
            "the largest activation hurts most",
            _COLUMN_HEAD + "    return abs(activations).max(axis=0).argmax()",
            "hardly changed",
        ),
        Wrong(
            "the mean tells it",
            _COLUMN_HEAD + _COLUMN.replace("max", "mean").replace("argmean", "argmax"),
            "worst on average",
        ),
        Wrong(
            "squares tell it",
            _COLUMN_HEAD
            + _COLUMN.replace(
                "abs(weights - rounded).max", "((weights - rounded)**2).sum"
            ).replace("abs(activations).max", "(activations**2).sum"),
            "worst on average",
        ),
        Wrong(
            "only activations above 0 count",
            _COLUMN_HEAD + _COLUMN.replace("abs(activations)", "activations"),
            "above 0",
        ),
        Wrong(
            "a column is a row",
            _COLUMN_HEAD + "    return abs(weights - rounded).max(axis=1).argmax()",
            "no such column",
        ),
        Wrong(
            "argmax() of a matrix is a column",
            _COLUMN_HEAD + "    return abs(weights - rounded).argmax()",
            "no such column",
        ),
        Wrong(
            "all rows add up",
            _COLUMN_HEAD + _COLUMN.replace("rounded).max", "rounded).sum"),
            "no output changes by more than",
        ),
    ),
)

EXERCISES = (BY_HAND, SIZE, COLUMN)
