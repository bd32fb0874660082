"""Exercises of lesson 06a: mask the loss, a rank for a budget, apply and merge."""

from collections.abc import Callable, Sequence
from itertools import islice
from numbers import Real
from typing import Any

from qwen_course.checks import Exercise, Wrong

Answer = Callable[..., Any]

# --- 6a.1 ---------------------------------------------------------------------------

_START, _END, _HEADER = 151644, 151645, [77091, 198]  # Qwen's ids; 198 is a newline
_USER = [_START, 872, 198, 13048, _END, 198]
_Chat = tuple[list[int], int, int, list[int]]
_CHATS: tuple[_Chat, ...] = (
    ([*_USER, _START, *_HEADER, 9454, 13, _END, 198], _START, _END, _HEADER),
    (  # a newline in the answer, and two turns, of which one has no text
        [*_USER, _START, *_HEADER, 9454, 198, 2753, _END, 198,
         *_USER, _START, *_HEADER, _END, 198,
         *_USER, _START, *_HEADER, 2753, _END],
        _START, _END, _HEADER,
    ),
    (  # a system prompt, and a user who writes "assistant" and a newline
        [_START, 8948, 198, 2610, _END, 198, _START, 872, 198, *_HEADER, 9454, _END,
         198, _START, *_HEADER, 2753, _END, 198],
        _START, _END, _HEADER,
    ),
    (_USER, _START, _END, _HEADER),
    (  # another tokenizer: other ids, and three of them in the header
        [1, 30, 9, 41, 2, 9, 1, 31, 32, 9, 42, 43, 2, 9],
        1, 2, [31, 32, 9],
    ),
)  # fmt: skip


def _turns(ids: list[int], end: int, opening: list[int]) -> list[tuple[int, int]]:
    """Return where each turn after `opening` has its first and its last id."""
    n = len(opening)
    firsts = [i + n for i in range(len(ids)) if ids[i : i + n] == opening]
    return [(first, ids.index(end, first)) for first in firsts]


def _labels(ids: list[int], turns: list[tuple[int, int]]) -> list[int]:
    inside = {i for first, last in turns for i in range(first, last + 1)}
    return [id if i in inside else -100 for i, id in enumerate(ids)]


def _mask_problem(got: Sequence[Any], chat: _Chat) -> str:
    """Return what is wrong with labels that are not the expected ones."""
    ids, start, end, header = chat
    turns = _turns(ids, end, [start, *header])
    right = _labels(ids, turns)
    if len(got) != len(ids):
        return "Return one label for each id: -100 for those that do not count."
    if got in ([*right[1:], -100], [-100, *right[:-1]]):
        return (
            "The labels are shifted by one place. The model does that itself: a label"
            " stands where its id stands."
        )
    if got == _labels(ids, _turns(ids, end, header)):
        return "A user can write these words, too: a turn begins with <|im_start|>."
    if got == [-100 if id == end else id for id in ids]:
        return (
            "Only the id of <|im_end|> was taken out, as if it were padding. It must"
            " count, and the prompt must not."
        )
    places = range(len(ids))
    if any(g not in (id, -100) for g, id in zip(got, ids, strict=True)):
        return "A label is either the id at the same place, or -100."
    more = {i for i in places if got[i] != -100 and right[i] == -100}
    lacking = {i for i in places if got[i] == -100 and right[i] != -100}
    headers = {i for first, _ in turns for i in range(first - len(header) - 1, first)}
    if more - headers - {last + 1 for _, last in turns}:
        return "Ids that the assistant did not write count here, such as a user's."
    if more & headers:
        return "<|im_start|>assistant and its newline are the prompt: not counted."
    if more:
        return "The newline after <|im_end|> counts here. The model has stopped before."
    if any({*range(first, last + 1)} <= lacking for first, last in turns):
        return "A turn of the assistant is missing. Every one of them counts."
    if lacking & {last for _, last in turns}:
        return "<|im_end|> does not count here: so the model never learns to stop."
    return "A part of the answer is missing. All that lies within the turn counts."


def _check_mask(answer: Answer) -> str | None:
    for chat in _CHATS:
        ids, start, end, header = chat
        right = _labels(ids, _turns(ids, end, [start, *header]))
        got = answer([*ids], start, end, [*header])
        try:
            labels = [*islice(got, len(ids) + 1)]
            if not all(isinstance(label, Real) for label in labels):
                raise TypeError
        except TypeError:
            note = "Return a list of whole numbers, the labels."
        else:
            if labels == right:
                continue
            note = _mask_problem(labels, chat)
        return (
            f"{note}\n  input: ids={ids}, start={start}, end={end}, header={header}"
            f"\n  expected: {right}\n  got: {got!r}"
        )
    return None


_MASK_HEAD = "def loss_labels(ids, start, end, header):\n"
_OPENING = "    opening = [start, *header]\n"
_MASK = """\
    labels = [-100] * len(ids)
    for i in range(len(ids)):
        if ids[i : i + len(opening)] == opening:
            first = i + len(opening)
            last = ids.index(end, first)
            labels[first : last + 1] = ids[first : last + 1]
    return labels"""
MASK = Exercise(
    id="6a.1",
    title="mask the loss",
    minutes=12,
    stars=2,
    check=_check_mask,
    hints=(
        "Begin with -100 for each id. Then look for the places where a turn of the"
        " assistant begins: which ids stand there, one after the other?",
        "A turn begins after [start, *header] and ends with the next `end`, which"
        " counts. What is the first place after a header at i?",
        "first = i + 1 + len(header), last = ids.index(end, first), and then"
        " labels[first : last + 1] = ids[first : last + 1]. Do it for each turn.",
    ),
    solution=_MASK_HEAD + _OPENING + _MASK,
    name="loss_labels",
    stub=_MASK_HEAD
    + '''\
    """Return a label for each id: the id, or -100 where no loss counts."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "the header is the assistant's",
            _MASK_HEAD
            + _OPENING
            + _MASK.replace(
                "labels[first : last + 1] = ids[first", "labels[i : last + 1] = ids[i"
            ),
            "are the prompt",
        ),
        Wrong(
            "only <|im_start|> is the prompt",
            _MASK_HEAD
            + _OPENING
            + _MASK.replace("first = i + len(opening)", "first = i + 1"),
            "are the prompt",
        ),
        Wrong(
            "the end of a turn is no text",
            _MASK_HEAD + _OPENING + _MASK.replace("last + 1", "last"),
            "never learns to stop",
        ),
        Wrong(
            "a turn ends with its newline",
            _MASK_HEAD + _OPENING + _MASK.replace("last + 1", "last + 2"),
            "has stopped before",
        ),
        Wrong(
            "a label is the next id",
            _MASK_HEAD
            + _OPENING
            + _MASK.replace("return labels", "return labels[1:] + [-100]"),
            "shifted by one",
        ),
        Wrong(
            "only the last turn counts",
            _MASK_HEAD
            + _OPENING
            + _MASK.replace(
                "            first =",
                "            labels = [-100] * len(ids)\n            first =",
            ),
            "A turn of the assistant is missing",
        ),
        Wrong(
            "only the first turn counts",
            _MASK_HEAD
            + _OPENING
            + _MASK.replace("    return", "            break\n    return"),
            "A turn of the assistant is missing",
        ),
        Wrong(
            "all but the padding counts",
            _MASK_HEAD + "    return [-100 if id == end else id for id in ids]",
            "as if it were padding",
        ),
        Wrong(
            "all ids count",
            _MASK_HEAD + "    return list(ids)",
            "did not write",
        ),
        Wrong(
            "users' turns count as well",
            _MASK_HEAD + "    opening = [start]\n" + _MASK,
            "did not write",
        ),
        Wrong(
            "the word assistant begins a turn",
            _MASK_HEAD + "    opening = header\n" + _MASK,
            "A user can write",
        ),
        Wrong(
            "no newline counts",
            _MASK_HEAD
            + _OPENING
            + _MASK.replace(
                "return labels",
                "return [-100 if id == header[-1] else id for id in labels]",
            ),
            "A part of the answer",
        ),
        Wrong(
            "labels say yes or no",
            _MASK_HEAD
            + _OPENING
            + _MASK.replace("return labels", "return [int(id >= 0) for id in labels]"),
            "at the same place, or -100",
        ),
        Wrong(
            "what does not count is left out",
            _MASK_HEAD
            + _OPENING
            + _MASK.replace("return labels", "return [id for id in labels if id >= 0]"),
            "one label for each id",
        ),
    ),
)

# --- 6a.2 ---------------------------------------------------------------------------

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
)


def _largest(one: float, budget_mb: float) -> int:
    """Return the largest power of two of which each needs `one` bytes; 0 if none."""
    rank = 0
    while max(1, 2 * rank) * one <= budget_mb * 1e6:
        rank = max(1, 2 * rank)
    return rank


def _check_rank(answer: Answer) -> str | None:
    got = [answer([*shapes], *rest) for shapes, *rest in _BUDGETS]
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
        ))  # fmt: skip
    whole = [isinstance(g, Real) and not isinstance(g, bool) for g in got]
    wrong = [i for i, g in enumerate(got) if not whole[i] or g != right[i]]
    if not wrong:
        return None
    named = zip(beliefs, zip(*others, strict=True), strict=True)
    note = next((told for told, ranks in named if [*ranks] == got), "")
    shapes, layers, size, budget = _BUDGETS[wrong[0]]
    best, one = right[wrong[0]], layers * size * sum(n + m for n, m in shapes)
    if not all(whole):
        note = "Return a whole number, the rank."
    elif not note:
        note = f"Rank {max(1, best)} takes {max(1, best) * one / 1e6:.3g} MB."
        if best:
            note = f"{note[:-1]}, rank {2 * best} {2 * best * one / 1e6:.3g} MB."
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
    id="6a.2",
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

# --- 6a.3 ---------------------------------------------------------------------------

_Matrix = list[list[float]]
_ADAPTED: tuple[tuple[_Matrix, _Matrix, _Matrix, float, _Matrix], ...] = (
    (  # all shapes are [3, 3]: here a wrong order gives numbers, not an error
        [[1, 2, 0], [0, 1, 0], [3, 0, 1]], [[1, 0, 2], [0, 1, 0], [1, 1, 0]],
        [[1, 2, 0], [0, 1, 0], [0, 0, 1]], 12, [[1, 1, 0], [2, -1, 1]],
    ),
    ([[1, 0, 2], [0, 1, 0]], [[1, -1, 2]], [[2], [1]], 4, [[1, 2, 3]]),
    (
        [[1, 0], [0, 1], [1, 1]], [[1, 2], [0, 1], [1, 0], [3, 1]],
        [[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 0]], 8, [[1, 0], [0, 1], [2, 2]],
    ),
)  # fmt: skip


def _merge_problem(output: Any, merged: Any, W: Any, update: Any, x: Any, scale: float,
                   A: Any, B: Any) -> str:  # fmt: skip
    """Return what is wrong with an output and a merged weight; "" if nothing is."""
    import numpy as np  # a notebook has it; definitions must load without it

    def same(a: Any, b: Any) -> bool:
        return bool(a.shape == b.shape and np.allclose(a, b, atol=1e-4))

    weight, rank = W + update, len(A)
    right = x @ weight.T, weight
    if same(output, right[0]) and same(merged, right[1]):
        return ""
    if same(output, right[1]) and same(merged, right[0]):
        return "The output comes first, then the merged weight."
    if same(output, x @ W.T) or same(merged, W):
        return "One of the two is without the update: both have it."
    by_rank = "Divide alpha by the rank, the number of rows of A."
    weights = [
        (W + update * rank, by_rank),
        *((W + update * rank / n, by_rank) for n in W.shape),
        (
            W + update * rank**0.5,
            "Divide alpha by the rank, not by its square root (rsLoRA does).",
        ),
        (W + B @ A, "alpha is missing: alpha / rank."),
        (
            W + update * scale,
            "alpha / rank is there twice: for A and for B. Once is right.",
        ),
        (update, "This is the update alone: W is missing."),
        (W + 2 * update, "The update is there twice: it was in W already."),
    ]
    if len({*W.shape, rank}) == 1:
        told = "A @ B is another matrix: B [out, r] @ A [r, in] has W's shape."
        weights.append((W + A @ B * scale, told))
    others = [(x @ w.T, w, told) for w, told in weights]
    others.append((right[0].T, right[1].T, "This is transposed."))
    if W.shape[0] == W.shape[1]:
        told = "x has a token in each row, W an output: it is x @ W.T."
        others.append((x @ weight, weight, told))
        others.append((right[0], W + update.T, "The update is transposed here."))
    for first, second, told in others:
        if (same(output, right[0]) or same(output, first)) and (
            same(merged, right[1]) or same(merged, second)
        ):
            return told
    return "W + B @ A * alpha / rank is the merged weight, x @ merged.T the output."


def _check_merge(answer: Answer) -> str | None:
    import numpy as np

    for *matrices, alpha, inputs in _ADAPTED:
        W, A, B = (np.array(rows, dtype=float) for rows in matrices)
        x = np.array(inputs, dtype=float)
        scale = alpha / len(A)
        update = B @ A * scale
        given = W.copy(), A.copy(), B.copy()
        got = answer(*given, alpha, x.copy())
        try:
            output, merged = (np.asarray(part, dtype=float) for part in got)
            if output.ndim != 2 or merged.ndim != 2:
                raise ValueError
        except (TypeError, ValueError):
            note = "Return two arrays: the output, and the merged weight."
        else:
            note = _merge_problem(output, merged, W, update, x, scale, A, B)
            if not all(map(np.array_equal, given, (W, A, B))):
                note = "W, A or B was changed in place. Leave them as they were: a += b"
                note += " changes an array, a = a + b makes a new one."
        if not note:
            continue
        names = ("W", "A", "B", "alpha", "x")
        values = zip(names, (*matrices, alpha, inputs), strict=True)
        told = ", ".join(f"{name}={value}" for name, value in values)
        right = (x @ (W + update).T).round(4).tolist(), (W + update).round(4).tolist()
        return f"{note}\n  input: {told}\n  expected: {right}\n  got: {got!r}"
    return None


_MERGE_HEAD = "def apply_and_merge(W, A, B, alpha, x):\n"
_MERGE = """\
    scale = alpha / len(A)
    output = x @ W.T + x @ A.T @ B.T * scale
    merged = W + B @ A * scale
    return output, merged"""
MERGE = Exercise(
    id="6a.3",
    title="apply and merge",
    minutes=10,
    stars=2,
    check=_check_merge,
    hints=(
        "Write down the shapes. Which product of A [r, in] and B [out, r] has the shape"
        " of W [out, in]?",
        "The update is B @ A * (alpha / r), and r is the number of rows of A. A layer"
        " computes x @ weight.T.",
        "merged = W + B @ A * scale: a new array. The output is x @ merged.T, or"
        " x @ W.T + x @ A.T @ B.T * scale.",
    ),
    solution=_MERGE_HEAD + _MERGE,
    name="apply_and_merge",
    stub=_MERGE_HEAD
    + '''\
    """Return the output of the adapted layer, and the merged weight."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "alpha is the scale",
            _MERGE_HEAD + _MERGE.replace("alpha / len(A)", "alpha"),
            "Divide alpha by the rank",
        ),
        Wrong(
            "there is no scale",
            _MERGE_HEAD + _MERGE.replace("alpha / len(A)", "1"),
            "alpha is missing",
        ),
        Wrong(
            "A comes first",
            _MERGE_HEAD
            + _MERGE.replace("B @ A", "A @ B").replace("A.T @ B.T", "B.T @ A.T"),
            "is another matrix",
        ),
        Wrong(
            "only the merged weight has another order",
            _MERGE_HEAD + _MERGE.replace("B @ A", "A @ B"),
            "is another matrix",
        ),
        Wrong(
            "both A and B are scaled",
            _MERGE_HEAD
            + _MERGE.replace("x @ A.T @ B.T", "x @ (scale * A).T @ B.T").replace(
                "B @ A", "scale * B @ A"
            ),
            "for A and for B",
        ),
        Wrong(
            "the adapter replaces W",
            _MERGE_HEAD + _MERGE.replace("x @ W.T + ", "").replace("W + ", ""),
            "W is missing",
        ),
        Wrong(
            "W can be changed",
            _MERGE_HEAD
            + _MERGE.replace("    merged = W + B", "    W += B").replace(
                "output, merged", "output, W"
            ),
            "changed in place",
        ),
        Wrong(
            "the adapter stays after merging",
            _MERGE_HEAD
            + _MERGE.replace(
                "    output = x @ W.T", "    output = x @ (W + B @ A * scale).T"
            ),
            "it was in W already",
        ),
        Wrong(
            "a layer computes x @ W",
            _MERGE_HEAD
            + _MERGE.replace("x @ W.T", "x @ W").replace("x @ A.T @ B.T", "x @ B @ A"),
            "it is x @ W.T",
        ),
        Wrong(
            "an output is a column",
            _MERGE_HEAD + _MERGE.replace("output, merged", "output.T, merged"),
            "This is transposed",
        ),
        Wrong(
            "merging changes the weight only",
            _MERGE_HEAD + _MERGE.replace(" + x @ A.T @ B.T * scale", ""),
            "without the update",
        ),
        Wrong(
            "the weight comes first",
            _MERGE_HEAD + _MERGE.replace("output, merged", "merged, output"),
            "The output comes first",
        ),
    ),
)

EXERCISES = (MASK, RANK, MERGE)
