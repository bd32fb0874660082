"""Exercises of lesson 06a: mask the loss, apply and merge, clean the data."""

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
    (  # a role that begins with the same id
        [1, 31, 33, 9, 41, 2, 9, 1, 31, 32, 9, 42, 2, 9],
        1, 2, [31, 32, 9],
    ),
    (  # the header after an id that ends with 1, a longer role, an answer with its id
        [1, 30, 9, 41, 31, 32, 9, 43, 2, 9, 1, 31, 32, 33, 9, 44, 2, 9,
         1, 31, 32, 9, 42, 31, 2, 9],
        1, 2, [31, 32, 9],
    ),
    (  # the assistant begins, and has two turns in a row with the same text; id 0
        [1, 31, 32, 9, 0, 41, 2, 9, 1, 30, 9, 42, 2, 9, 1, 31, 32, 9, 0, 41, 2, 9,
         1, 31, 32, 9, 0, 41, 2, 9],
        1, 2, [31, 32, 9],
    ),
    (  # a text that begins and ends with a newline, and has an id twice in a row
        [1, 30, 9, 41, 2, 9, 1, 31, 32, 9, 9, 42, 42, 9, 2, 9],
        1, 2, [31, 32, 9],
    ),
    (  # the assistant writes the header's ids, too
        [1, 32, 31, 9, 43, 2, 9, 1, 31, 32, 9, 41, 31, 32, 9, 44, 2, 9],
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
    alike = [i for i in range(len(ids)) if ids[i : i + 2] == [start, header[0]]]
    firsts = [i + 1 + len(header) for i in alike]
    if got == _labels(ids, [(first, ids.index(end, first)) for first in firsts]):
        return "Another role can begin with the same id: compare the whole header."
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
    return "A part of the answer is missing. All within the turn counts, newlines too."


def _check_mask(answer: Answer) -> str | None:
    for chat in _CHATS:
        ids, start, end, header = chat
        right = _labels(ids, _turns(ids, end, [start, *header]))
        parts = [int(str(id)) for id in (start, end)]  # equal, but other objects
        got = answer([*ids], *parts, [*header])
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

_Matrix = list[list[float]]
_ADAPTED: tuple[tuple[_Matrix, _Matrix, _Matrix, float, _Matrix], ...] = (
    (  # all shapes are [3, 3]: here a wrong order gives numbers, not an error
        [[1, 2, 0], [0, 1, 0], [3, 0, 1]], [[1, 0, 2], [0, 1, 0], [1, 1, 0]],
        [[1, 2, 0], [0, 1, 0], [0, 0, 1]], 12, [[1, 1, 0], [2, -1, 1]],
    ),
    ([[1, 0, 2], [0, 1, 0]], [[1, -1, 2]], [[2], [1]], 4, [[1, 2, 3]]),
    (
        [[1, 0], [0, 1], [1, 1]], [[1, 2], [0, 1], [1, 0], [3, 1]],
        [[1, 0, 0, 1], [0, 1, 0, 2], [0, 0, 1, 0]], 10, [[1, 0], [0, 1], [2, 2]],
    ),
    ([[0.5, 0, 1], [0, 2, 1]], [[0.25, 1, 0], [0, 0.5, 1]], [[1, 2], [0.25, 1]], 1,
     [[1, 1, 0], [0, 1, 2]]),
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
        (W + B @ A / rank, "alpha is missing: alpha / rank."),
        (W + B @ A / scale, "Upside down: it is alpha / rank, not rank / alpha."),
        (W + B @ A * (scale // 1), "alpha / rank need not be whole: / instead of //."),
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
    id="6a.2",
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

# --- 6a.3 ---------------------------------------------------------------------------

_Messages = list[dict[str, str]]
_ROLES = ("system", "user", "assistant", "tool")
_REASONS = ("role", "no answer", "empty", "too long", "leak")


def _said(role: str) -> Callable[[str], dict[str, str]]:
    return lambda text: {"role": role, "content": text}


_system, _user, _says, _tool = map(_said, ("system", "user", "assistant", "tool"))


_TESTS = ["What is 2 + 2?", "Name a river."]
_DATA: tuple[tuple[list[_Messages], list[str], int, str], ...] = (
    (
        [
            [_user("Hi"), _says("Hello!")],
            [{"role": "assist", "content": "Hi"}, _says("Hello!")],
            [_user("Are you there?")],
            [_system("Go."), _user("2 + 3?"), _says("I count."), _tool("5"),
             _says("5")],
            [_user("2 + 3?"), {"role": "function", "content": "5"}, _says("5")],
        ],
        _TESTS, 20,
        "Rows 1 and 4 have a role that the template does not know; row 2 has no answer;"
        " row 3 is right: results of tools have the role tool.",
    ),
    (
        [[_user("a"), _says("")], [_user("a"), _says(" \n")], [_user("a"), _says("0")],
         [_user(""), _says("0")], [_user("a"), _says("!")]],
        _TESTS, 20,
        "Spaces and newlines alone are an empty answer, too. In row 3 the user's"
        " message is empty, not the answer. Row 4 is right: split() gives a word.",
    ),
    (
        [
            [_user("one two three"), _says("four five")],
            [_user("one two three"), _says("four five six")],
            [_user("one"), _says("internationalisation telecommunication")],
            [_system("one two three four"), _user("a"), _says("b")],
            [_user("one   two"), _says("three four five")],
            [_user("one\ntwo\nthree"), _says("four\nfive six")],
            [_user("one"), _says("two"), _tool("three four five"), _says("six")],
            [_user(" one two\n"), _says("three four five ")],
            [_user(""), _says("one two three four five")],
            [_user("2 + 3 ?"), _says("= 5")],
            [_user("one-two isn't"), _says("three four five")],
        ],
        _TESTS, 5,
        "Count the words of all messages of a row, also of the system prompt and of"
        " tools. Exactly `longest` words are allowed. Between two words are spaces or"
        " newlines, one or more, and nothing else: a + is a word. What stands around a"
        " text, or an empty one, makes no word.",
    ),
    (
        [
            [_user("What is 2 + 2?"), _says("4")],
            [_user(" what IS  2 + 2?\n"), _says("4")],
            [_system("Be short."), _user("Name a river."),
             _says("Rhine")],
            [_user("Hi"), _says("Hello!"), _user("name a river."), _says("Nile")],
            [_user("Name a river. It must be in Asia."), _says("Indus")],
            [_user("Ask me something."), _says("Name a river.")],
            [_user("Name a river."), _says("Nile"), _user("Thanks."), _says("Bye.")],
            [_user("What is 2 + 2 + 2?"), _says("6")],
            [_user("say hi!"), _says("Hi!")],
            [_user("Name   a river."), _says("Nile")],
            [_user("Please name a river."), _says("Nile")],
            [_system("Name a river."), _user("Go."), _says("Nile")],
            [_user("Which?"), _says("This."), _tool("Name a river."), _says("Nile")],
            [_user("Is what 2 + 2?"), _says("4")],
            [_user("What is 2 - 2?"), _says("0")],
            [_user("NAME\nA RIVER."), _says("Nile")],
            [_user("What is 2+2?"), _says("4")],
            [_user("Name a river"), _says("Nile")],
            [_user("Name a river.\nIt must be long."), _says("Nile")],
        ],
        [*_TESTS, " Say\n hi!\n"], 20,
        "A row leaks if any user's message has the words of a test, all of them, in"
        " this order, and no others. Compare both texts in lower case, split at"
        " spaces and newlines: a full stop belongs to its word.",
    ),
    (
        [[_user("Hi"), _says("Hello!"), _user("Bye")], [_user("Hi"), _says("Hello!")]],
        [], 20,
        "Row 0 has an answer, but not at the end: its last message is the user's.",
    ),
    (
        [
            [{"role": "human", "content": "4"}, _user("Name a river.")],
            [_user("Name a river.")],
            [_user("Name a river."), _says(" ")],
            [_user("Name a river."), _says("Nile or Rhine or Indus")],
            [_user("Name a river."), _says(""), _user("one two three four")],
            [_user("one two three four five six seven"), _says("")],
            [_user("Name a river."), {"role": "bot", "content": "Nile"}],
        ],
        _TESTS, 6,
        "If a row has several faults, the first of the list counts: role, no answer,"
        " empty, too long, leak.",
    ),
    (
        [
            [_user("Hi"), _says(""), _user("Hello?"), _says("Hello!")],
            [_user("Hi"), _says("Hello!"), _user("Bye"), _says("")],
        ],
        [], 20,
        "Every answer of the assistant is learnt, not only the last. In row 0 the first"
        " one is empty, in row 1 the second.",
    ),
    (
        [
            [_user("2 + 3?"), _says("I count."), _tool("5")],
            [_system("Be short.")],
            [{"role": "User", "content": "Hi"}, _says("Hello!")],
            [_user("Hi"), _says("")],
            [_user("Hi"), _says("")],
            [_user("no no no no"), _says("yes yes yes")],
        ],
        _TESTS, 6,
        "Row 0 ends with a result, row 1 with a system prompt: no answer. \"User\" is"
        " not user. Rows 3 and 4 are alike, and both are bad. Row 5 has 7 words: one"
        " that stands there twice counts twice.",
    ),
)  # fmt: skip


def _faults(messages: _Messages, tests: list[str], longest: int) -> list[str]:
    """Return all reasons to leave a row out, the one that counts first."""
    words = [m["content"].lower().split() for m in messages]
    said = [m["content"].strip() for m in messages if m["role"] == "assistant"]
    asked = [w for m, w in zip(messages, words, strict=True) if m["role"] == "user"]
    found = (
        any(m["role"] not in _ROLES for m in messages),
        messages[-1]["role"] != "assistant",
        not all(said),
        sum(map(len, words)) > longest,
        any(test.lower().split() in asked for test in tests),
    )
    return [reason for reason, is_so in zip(_REASONS, found, strict=True) if is_so]


def _check_rows(answer: Answer) -> str | None:
    for rows, tests, longest, note in _DATA:
        faults = [_faults(row, tests, longest) for row in rows]
        right = {i: found[0] for i, found in enumerate(faults) if found}
        got = answer([[{**m} for m in row] for row in rows], [*tests], longest)
        if isinstance(got, dict) and got == right:
            continue
        if not isinstance(got, dict):
            note = "Return a dictionary: the number of a row -> the reason."
        elif got == {i + 1: reason for i, reason in right.items()}:
            note = "Rows count from 0."
        elif {i: reason for i, reason in got.items() if reason} == right:
            note = "Only bad rows have a place here: leave the good ones out."
        elif any(reason not in _REASONS for reason in got.values()):
            note = 'A reason is "role", "no answer", "empty", "too long" or "leak".'
        return (
            f"{note}\n  input: rows={rows}, tests={tests}, longest={longest}"
            f"\n  expected: {right}\n  got: {got!r}"
        )
    return None


_ROWS_HEAD = "def bad_rows(rows, tests, longest):\n"
_ROWS = """\
    tests = [test.lower().split() for test in tests]
    bad = {}
    for i, row in enumerate(rows):
        words = [m["content"].lower().split() for m in row]
        roles = [m["role"] for m in row]
        pairs = list(zip(roles, words, strict=True))
        if not set(roles) <= {"system", "user", "assistant", "tool"}:
            bad[i] = "role"
        elif roles[-1] != "assistant":
            bad[i] = "no answer"
        elif ("assistant", []) in pairs:
            bad[i] = "empty"
        elif sum(map(len, words)) > longest:
            bad[i] = "too long"
        elif any(("user", test) in pairs for test in tests):
            bad[i] = "leak"
    return bad"""
ROWS = Exercise(
    id="6a.3",
    title="clean the data",
    minutes=15,
    stars=2,
    check=_check_rows,
    hints=(
        "Go through the rows with enumerate, and ask for one fault after the other, in"
        " the order of the list: if, elif, elif ...",
        "text.split() gives the words, without any spaces: an empty list for a text of"
        " spaces. Its length is the number of words.",
        "Two texts ask the same if a.lower().split() == b.lower().split(). Compare each"
        " user's message with each test.",
    ),
    solution=_ROWS_HEAD + _ROWS,
    name="bad_rows",
    stub=_ROWS_HEAD
    + '''\
    """Return the reason for each bad row, by its number."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "any role will do",
            _ROWS_HEAD + _ROWS.replace("not set(roles) <= {", "not set(roles) and {"),
            "does not know",
        ),
        Wrong(
            "tools have no role",
            _ROWS_HEAD + _ROWS.replace(', "tool"}', "}"),
            "does not know",
        ),
        Wrong(
            "a row with an answer somewhere has an answer",
            _ROWS_HEAD
            + _ROWS.replace('roles[-1] != "assistant"', '"assistant" not in roles'),
            "but not at the end",
        ),
        Wrong(
            "an empty answer has no characters",
            _ROWS_HEAD
            + _ROWS.replace(
                '("assistant", []) in pairs',
                'any(m == {"role": "assistant", "content": ""} for m in row)',
            ),
            "Spaces and newlines alone",
        ),
        Wrong(
            "only the last answer is learnt",
            _ROWS_HEAD + _ROWS.replace('("assistant", []) in pairs', "not words[-1]"),
            "not only the last",
        ),
        Wrong(
            "only the answer has a length",
            _ROWS_HEAD + _ROWS.replace("sum(map(len, words))", "len(words[-1])"),
            "Count the words of all",
        ),
        Wrong(
            "characters are words",
            _ROWS_HEAD
            + _ROWS.replace(
                "sum(map(len, words))", 'sum(len(m["content"]) for m in row)'
            ),
            "Count the words of all",
        ),
        Wrong(
            "the limit itself is too long",
            _ROWS_HEAD + _ROWS.replace("> longest", ">= longest"),
            "Count the words of all",
        ),
        Wrong(
            "another case is another question",
            _ROWS_HEAD + _ROWS.replace(".lower().split()", ".split()"),
            "has the words of a test",
        ),
        Wrong(
            "a space more is another question",
            _ROWS_HEAD
            + _ROWS.replace("[test.lower().split() for", "[test.lower() for").replace(
                'any(("user", test) in pairs for test in tests)',
                'any(m["content"].lower() in tests for m in row)',
            ),
            "has the words of a test",
        ),
        Wrong(
            "the first message is the question",
            _ROWS_HEAD
            + _ROWS.replace('("user", test) in pairs', 'pairs[0] == ("user", test)'),
            "has the words of a test",
        ),
        Wrong(
            "a question within another is the same",
            _ROWS_HEAD
            + _ROWS.replace(
                '("user", test) in pairs',
                '" ".join(test) in " ".join(words[-2])',
            ),
            "has the words of a test",
        ),
        Wrong(
            "the last fault counts",
            _ROWS_HEAD + _ROWS.replace("elif", "if"),
            "the first of the list counts",
        ),
        Wrong(
            "rows count from 1",
            _ROWS_HEAD + _ROWS.replace("enumerate(rows)", "enumerate(rows, 1)"),
            "Rows count from 0",
        ),
        Wrong(
            "the numbers are enough",
            _ROWS_HEAD + _ROWS.replace("return bad", "return list(bad)"),
            "Return a dictionary",
        ),
    ),
)

EXERCISES = (MASK, MERGE, ROWS)
