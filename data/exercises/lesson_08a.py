"""Exercises of lesson 08a: pad a batch, choose it, read a stream, tell when to come."""

import json
import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

from qwen_course.checks import Exercise, Wrong

Answer = Callable[..., Any]

# --- 8a.1 ---------------------------------------------------------------------------

_Rows = list[list[int]]
_BATCHES: tuple[tuple[_Rows, int], ...] = (
    ([[5, 6, 7], [8]], 0),
    ([[1, 2], [3, 4]], 9),  # nothing to pad
    ([[4], [7, 0, 7, 2], [0, 6]], 0),  # prompts hold the id of the padding
    ([[3, 3, 3, 3, 3]], 1),
    ([[7], [4, 7, 0], [2, 0]], 7),  # the padding is not 0
    ([[8], [8, 9], [8]], 0),  # two prompts are equal
)


def _padded(rows: _Rows, pad: int, left: bool = True) -> tuple[_Rows, _Rows]:
    width, ids, mask = max(map(len, rows)), [], []
    for row in rows:
        gap, own = width - len(row), [1] * len(row)
        ids.append([pad] * gap + row if left else row + [pad] * gap)
        mask.append([0] * gap + own if left else own + [0] * gap)
    return ids, mask


def _of_lists(part: Any) -> bool:
    return isinstance(part, list) and all(isinstance(row, list) for row in part)


def _pad_problem(got: Any, rows: _Rows, pad: int) -> str:
    """Return what is wrong with a pair that is not the expected one."""
    parts = got if isinstance(got, tuple) else ()
    sizes = [len(part) for part in parts if _of_lists(part)]
    if len(sizes) == 2 and max(sizes) > len(rows):
        ends = [part[-len(rows) :] for part in parts]
        if ends == [*_padded(rows, pad)]:
            return (
                "Rows of an earlier call stand here, too. A list that is made only"
                " once, such as the default of a parameter, keeps them."
            )
    if sizes == [len({*map(tuple, rows)})] * 2 != [len(rows)] * 2:
        return "Two prompts can be equal: each has its own row."
    if sizes != [len(rows)] * 2:
        return "Return two lists of rows: the ids and the mask."
    ids, mask = parts
    (right, marks), (other, _) = _padded(rows, pad), _padded(rows, pad, left=False)
    if {*map(len, ids)} != {len(right[0])}:
        return "Each row must be as long as the longest prompt: no more, no less."
    if ids == other != right:
        return (
            "The padding stands on the right. The model writes after the last token,"
            " so a short prompt would go on from padding."
        )
    if ids == _padded(rows, 0)[0] != right:
        return "These rows are filled with 0. The padding is `pad`."
    if ids != right and sorted(ids) == sorted(right):
        return "The rows stand in another order: keep that of the prompts."
    if ids != right:
        return "A prompt has lost or changed tokens: the padding stands before them."
    if mask == [[1 - mark for mark in row] for row in marks]:
        return "The mask is the wrong way round: 1 means that the model reads it."
    if mask == [[int(id != pad) for id in row] for row in right]:
        return (
            "The mask was made from the ids. A prompt can hold the id of the padding"
            " itself: count its tokens instead."
        )
    if not any(0 in row for row in mask):
        return "The mask hides nothing: it must be 0 on the padding."
    return "The mask has one number for each id: 0 on padding, else 1."


def _check_pad(answer: Answer) -> str | None:
    for rows, pad in _BATCHES:
        given = [[*row] for row in rows]
        got, right = answer(given, pad), _padded(rows, pad)
        got = tuple(got) if isinstance(got, list) and len(got) == 2 else got
        shown = (
            f"\n  input: rows={rows}, pad={pad}\n  expected: {right}\n  got: {got!r}"
        )
        if given != rows:
            return f"The caller's rows were changed: make new lists.{shown}"
        if not (isinstance(got, tuple) and all(map(_of_lists, got)) and got == right):
            return _pad_problem(got, rows, pad) + shown
    return None


_PAD_HEAD = "def pad_left(rows, pad):\n"
_PAD = """\
    width = max(len(row) for row in rows)
    gaps = [width - len(row) for row in rows]
    ids = [[pad] * gap + row for gap, row in zip(gaps, rows, strict=True)]
    mask = [[0] * gap + [1] * (width - gap) for gap in gaps]
    return ids, mask"""
PAD = Exercise(
    id="8a.1",
    title="pad a batch",
    minutes=8,
    stars=1,
    check=_check_pad,
    hints=(
        "The width is the length of the longest row: max(len(row) for row in rows).",
        "A row lacks width - len(row) tokens. [pad] * 3 is a list of three.",
        "ids: [pad] * gap + row. mask: [0] * gap + [1] * len(row).",
    ),
    solution=_PAD_HEAD + _PAD,
    name="pad_left",
    stub=_PAD_HEAD
    + '''\
    """Return the ids, all of one length, and the mask."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "padding goes to the end",
            _PAD_HEAD
            + _PAD.replace("[pad] * gap + row", "row + [pad] * gap").replace(
                "[0] * gap + [1] * (width - gap)", "[1] * (width - gap) + [0] * gap"
            ),
            "stands on the right",
        ),
        Wrong(
            "padding is what has its id",
            _PAD_HEAD
            + _PAD.replace(
                "[[0] * gap + [1] * (width - gap) for gap in gaps]",
                "[[int(i != pad) for i in row] for row in ids]",
            ),
            "made from the ids",
        ),
        Wrong(
            "1 hides a token",
            _PAD_HEAD
            + _PAD.replace(
                "[0] * gap + [1] * (width - gap)", "[1] * gap + [0] * (width - gap)"
            ),
            "the wrong way round",
        ),
        Wrong(
            "padding can be read",
            _PAD_HEAD + _PAD.replace("[0] * gap + [1] * (width - gap)", "[1] * width"),
            "hides nothing",
        ),
        Wrong(
            "rows are cut to the shortest",
            _PAD_HEAD
            + _PAD.replace("max(len", "min(len").replace(
                "gap + row", "gap + row[:width]"
            ),
            "as long as the longest",
        ),
        Wrong(
            "one place of padding more",
            _PAD_HEAD + _PAD.replace("for row in rows)", "for row in rows) + 1"),
            "as long as the longest",
        ),
        Wrong(
            "the ids are enough",
            _PAD_HEAD + _PAD.replace("return ids, mask", "return ids"),
            "Return two lists of rows",
        ),
        Wrong(
            "the lists of the caller can be used",
            _PAD_HEAD
            + "    width = max(map(len, rows))\n"
            + "    mask = [[0] * (width - len(r)) + [1] * len(r) for r in rows]\n"
            + "    for row in rows:\n"
            + "        while len(row) < width:\n"
            + "            row.insert(0, pad)\n"
            + "    return rows, mask",
            "make new lists",
        ),
    ),
)

# --- 8a.2 ---------------------------------------------------------------------------

_Job = tuple[str, str, int]
_QUEUES: tuple[tuple[list[_Job], int, int, str], ...] = (
    (
        [("a", "greedy", 100), ("b", "greedy", 60), ("c", "greedy", 80)], 8, 1000,
        "All three fit: take them all, the oldest first.",
    ),
    (
        [("a", "warm", 100), ("b", "greedy", 60), ("c", "warm", 80)], 8, 1000,
        "b has another kind than the oldest: one batch has one set of sampling values.",
    ),
    (
        [(name, "greedy", 10) for name in "abcde"], 3, 1000,
        "At most `rows` requests go into a batch.",
    ),
    (
        [("a", "greedy", 10), ("b", "greedy", 10)], 1, 1000,
        "At most `rows` requests go into a batch. Here that is one, the oldest.",
    ),
    (
        [("a", "greedy", 100), ("b", "greedy", 20), ("c", "greedy", 20)], 8, 200,
        "A batch is padded: it takes its rows times the longest of them. a, b and c"
        " together take 3 * 100 places.",
    ),
    (
        [("a", "greedy", 40), ("b", "greedy", 300), ("c", "greedy", 50)], 8, 200,
        "b does not fit, and waits. A later, shorter one may still fit.",
    ),
    (
        [("a", "greedy", 900), ("b", "greedy", 10)], 8, 500,
        "The oldest always goes, even if it is too long: else it waits for ever.",
    ),
    (
        [("a", "greedy", 90), ("b", "greedy", 20), ("c", "greedy", 10)], 2, 1000,
        "Oldest first: who puts short ones first lets long ones wait for ever.",
    ),
    (
        [("a", "greedy", 40), ("b", "greedy", 80), ("c", "greedy", 40),
         ("d", "greedy", 40)], 8, 200,
        "b was taken, so it is the longest from now on: c would make it 3 * 80.",
    ),
    (
        [("a", "warm", 10), ("b", "greedy", 10), ("c", "warm", 10)], 2, 1000,
        "`rows` limits the batch, not the queue. b stays, so c is the second row.",
    ),
    (
        [("a", "warm", 80), ("b", "greedy", 300), ("c", "warm", 100)], 8, 200,
        "b stays: it is neither a row of this batch nor its longest. So a and c fit.",
    ),
    (
        [("d", "warm", 10), ("c", "greedy", 10), ("b", "greedy", 10),
         ("a", "warm", 10), ("e", "greedy", 10)], 8, 1000,
        "The kind of the oldest counts, not that of most: here it is warm.",
    ),
    (
        [("a", "greedy", 40), ("b", "greedy", 300), ("c", "greedy", 50)], 2, 200,
        "b stays, so it is no row of this batch: c is the second of two.",
    ),
)  # fmt: skip


def _batch(waiting: list[_Job], rows: int, places: int) -> list[str]:
    name, kind, longest = waiting[0]
    taken = [name]
    for name, other, tokens in waiting[1:]:
        widest = max(longest, tokens)
        fits = widest * (len(taken) + 1) <= places
        if other == kind and fits and len(taken) < rows:
            taken.append(name)
            longest = widest
    return taken


def _check_batch(answer: Answer) -> str | None:
    for waiting, rows, places, note in _QUEUES:
        got, right = answer([*waiting], rows, places), _batch(waiting, rows, places)
        got = [*got] if isinstance(got, tuple) else got
        if got == right:
            continue
        if not isinstance(got, list) or not all(isinstance(n, str) for n in got):
            note = "Return a list of names."
        elif sorted(got) == sorted(right):
            note = "These are the right ones in another order: keep that of the queue."
        elif len(got) > len(waiting):
            note = (
                "Names of an earlier call stand here, too. A list that is made only"
                " once, such as the default of a parameter, keeps them."
            )
        elif waiting[0][0] not in got:
            note = _QUEUES[6][3]
        return (
            f"{note}\n  input: waiting={waiting}, rows={rows}, places={places}"
            f"\n  expected: {right}\n  got: {got!r}"
        )
    return None


_BATCH_HEAD = "def next_batch(waiting, rows, places):\n"
_BATCH = """\
    name, kind, longest = waiting[0]
    taken = [name]
    for name, other, tokens in waiting[1:]:
        widest = max(longest, tokens)
        if len(taken) == rows:
            break
        if other == kind and widest * (len(taken) + 1) <= places:
            taken.append(name)
            longest = widest
    return taken"""
BATCH = Exercise(
    id="8a.2",
    title="choose the next batch",
    minutes=12,
    stars=2,
    check=_check_batch,
    hints=(
        "Begin with the oldest, whatever its size: taken = [waiting[0][0]]. Then look"
        " at the others, one after the other.",
        "Before you take one, compute what the batch would need: (len(taken) + 1) rows,"
        " each as long as the longest of them, this one included.",
        "One that does not fit is skipped: it must not change the longest, and the"
        " loop goes on.",
    ),
    solution=_BATCH_HEAD + _BATCH,
    name="next_batch",
    stub=_BATCH_HEAD
    + '''\
    """Return the names of those that are generated next."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "a batch takes the sum of its tokens",
            _BATCH_HEAD
            + _BATCH.replace(
                "widest = max(longest, tokens)", "widest = longest + tokens"
            ).replace("widest * (len(taken) + 1)", "widest"),
            "rows times the longest",
        ),
        Wrong(
            "the first that does not fit ends it",
            _BATCH_HEAD
            + _BATCH.replace(
                "            longest = widest\n",
                "            longest = widest\n"
                "        elif other == kind:\n            break\n",
            ),
            "A later, shorter one may still fit",
        ),
        Wrong(
            "any two requests can share a batch",
            _BATCH_HEAD + _BATCH.replace("other == kind and ", ""),
            "another kind than the oldest",
        ),
        Wrong(
            "what is too long cannot go",
            _BATCH_HEAD
            + _BATCH.replace("taken = [name]", "taken = [name] * (longest <= places)"),
            "The oldest always goes",
        ),
        Wrong(
            "a batch has no limit of rows",
            _BATCH_HEAD + _BATCH.replace("len(taken) == rows", "len(taken) < 0"),
            "At most `rows` requests",
        ),
        Wrong(
            "one row more",
            _BATCH_HEAD + _BATCH.replace("len(taken) == rows", "len(taken) > rows"),
            "At most `rows` requests",
        ),
        Wrong(
            "the short ones first",
            _BATCH_HEAD
            + "    waiting = waiting[:1] + sorted(waiting[1:], key=lambda j: j[2])\n"
            + _BATCH,
            "lets long ones wait",
        ),
        Wrong(
            "one that was skipped counts as the longest",
            _BATCH_HEAD
            + _BATCH.replace(
                "        if len(taken) == rows",
                "        longest = widest\n        if len(taken) == rows",
            ),
            "A later, shorter one may still fit",
        ),
        Wrong(
            "the new row takes no place",
            _BATCH_HEAD + _BATCH.replace("(len(taken) + 1)", "len(taken)"),
            "rows times the longest",
        ),
        Wrong(
            "the requests themselves",
            _BATCH_HEAD
            + _BATCH.replace(
                "return taken", "return [j for j in waiting if j[0] in taken]"
            ),
            "list of names",
        ),
    ),
)

# --- 8a.3 ---------------------------------------------------------------------------


def _chunk(ended: str | None = None, index: int = 0, **delta: Any) -> str:
    choice = {"index": index, "delta": delta, "finish_reason": ended}
    return "data: " + json.dumps({"choices": [choice]})


_ROLE = _chunk(role="assistant", content="")
_TRUST = (
    "A stream can fail after its status 200 was sent. Raise RuntimeError with the"
    " message: half an answer must not pass for a whole one."
)
_NO_JSON = (
    "Skip the lines without data: at their beginning. And data: [DONE] ends the"
    " stream; it is no JSON."
)
_STREAMS: tuple[tuple[list[str], tuple[str, str | None] | str, str], ...] = (
    (
        [_ROLE, _chunk(content="Good"), _chunk(content=" day"), _chunk(content="\n"),
         _chunk("stop"), "data: [DONE]"],
        ("Good day\n", "stop"), "Join the contents of all deltas, in their order.",
    ),
    (
        [_ROLE, _chunk(reasoning_content="A"), _chunk(reasoning=" sum."),
         _chunk(content="4", reasoning_content=None), _chunk("length"), "data: [DONE]"],
        ("4", "length"),
        "reasoning_content (vLLM: reasoning) is the thought, not a part of the answer."
        " A delta can have both keys: take its content in any case.",
    ),
    (
        [": ping", _ROLE.replace("data: ", "data:"), _chunk(content=None),
         _chunk(content="Hi").replace("data: ", "data:"), ": no data: yet",
         _chunk("stop"), "data:[DONE]"],
        ("Hi", "stop"),
        "Lines that do not begin with data: are skipped; the space after it may lack,"
        " before [DONE] too.",
    ),
    (
        [_ROLE, _chunk(content="Hi"), _chunk("stop"),
         'data: {"choices": [], "usage": {"completion_tokens": 2}}', "data: [DONE]"],
        ("Hi", "stop"),
        "The chunk with the usage comes last and has no choices.",
    ),
    (
        [_ROLE, _chunk(content="the data: [DONE]"), _chunk(content=" 5"),
         _chunk("stop"), "data: [DONE]"],
        ("the data: [DONE] 5", "stop"),
        "The text itself can hold data: and [DONE]. Only the line's beginning counts.",
    ),
    (
        [_ROLE, _chunk(content="No"), _chunk(content=" no"), _chunk(content=" no"),
         _chunk("stop", content=" no"), "data: [DONE]"],
        ("No no no no", "stop"),
        "Pieces can be equal, and the chunk with the finish_reason can hold text, too.",
    ),
    (
        [_ROLE, _chunk(content="An error"), _chunk("stop"), "data: [DONE]"],
        ("An error", "stop"),
        "The text itself can hold the word error. Ask the chunk, after json.loads.",
    ),
    (
        [_ROLE, _chunk(content="Half"),
         'data: {"error": {"message": "The model failed.", "code": null}}'],
        "RuntimeError: The model failed.", _TRUST,
    ),
)  # fmt: skip


def _sent(lines: list[str]) -> list[str]:
    """Return the lines as a server sends them: an empty one behind each of data."""
    return [
        part
        for line in lines
        for part in ([line, ""] if line.startswith("data:") else [line])
    ]


def _events_got(answer: Answer, lines: list[str]) -> tuple[Any, str]:
    """Return what the answer gives for lines, and what its error means."""
    try:
        got = answer(_sent(lines))
        return tuple(got) if isinstance(got, list) else got, ""
    except NotImplementedError:
        raise
    except RuntimeError as error:
        return f"RuntimeError: {error}", ""
    except Exception as error:
        case = [lines for lines, _, _ in _STREAMS].index(lines)
        if case >= 4:  # text that looks like something else, and the error
            return error, _STREAMS[case][2]
        if isinstance(error, json.JSONDecodeError):
            return error, _STREAMS[case][2] if case == 2 else _NO_JSON
        if isinstance(error, IndexError) and case >= 2:
            return error, _STREAMS[case][2]
        lacks = error.args == ("content",) or "NoneType" in str(error)
        if isinstance(error, KeyError | TypeError) and lacks:
            return error, 'A delta may lack "content", or have None there.'
        raise


def _bare(pair: tuple[Any, ...]) -> str:
    """Return the first of a pair, a text, without its white space."""
    return "".join("".join(map(str, pair[:1])).split())


def _check_events(answer: Answer) -> str | None:
    for case, (lines, right, note) in enumerate(_STREAMS):
        got, told = _events_got(answer, lines)
        if got == right:
            continue
        raised = isinstance(got, str) and got.startswith("RuntimeError: ")
        before = "".join(row[1][0] for row in _STREAMS[:case])
        if not told and raised:
            told = "" if case >= 3 else "No chunk here has an error, so raise none."
        elif not told and not isinstance(got, tuple) and isinstance(right, tuple):
            told = "Return two values: the answer and its finish_reason."
        elif not told and case and got[:1] == (before + right[0],):
            told = (
                "The text of an earlier call stands here, too. A list that is made only"
                " once, such as the default of a parameter, keeps it."
            )
        elif not told and isinstance(right, tuple) and got[:1] == right[:1]:
            told = "The finish_reason is that of the chunk that has one."
        elif not told and isinstance(right, tuple) and got == right[::-1]:
            told = "The answer comes first, then its finish_reason."
        elif not told and isinstance(right, tuple) and _bare(got) == _bare(right):
            told = (
                "White space at the ends is a part of the text, of each piece too:"
                " leave it as it is."
            )
        shown = "\n         ".join(lines)
        return f"{told or note}\n  input: {shown}\n  expected: {right}\n  got: {got!r}"
    return None


_EVENTS_HEAD = "def read_stream(lines):\n"
_EVENTS = """\
    import json

    text, ended = "", None
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            break
        chunk = json.loads(data)
        if "error" in chunk:
            raise RuntimeError(chunk["error"]["message"])
        for choice in chunk["choices"]:
            text += choice["delta"].get("content") or ""
            ended = choice["finish_reason"] or ended
    return text, ended"""
EVENTS = Exercise(
    id="8a.3",
    title="read a stream",
    minutes=15,
    stars=2,
    check=_check_events,
    hints=(
        'Skip what does not begin with "data:". Take that off with removeprefix, then'
        ' strip the spaces. "[DONE]" ends it; all else is JSON.',
        'A chunk with "error" has no choices: raise RuntimeError(chunk["error"]'
        '["message"]). Else: for choice in chunk["choices"], which may be empty.',
        'choice["delta"].get("content") or "" is a text in every case. Keep the'
        " finish_reason that is not None.",
    ),
    solution=_EVENTS_HEAD + _EVENTS,
    name="read_stream",
    stub=_EVENTS_HEAD
    + '''\
    """Return the answer and its finish_reason."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "every line of data is JSON",
            _EVENTS_HEAD + _EVENTS.replace('data == "[DONE]"', "not data"),
            "it is no JSON",
        ),
        Wrong(
            "every chunk has a choice",
            _EVENTS_HEAD
            + _EVENTS.replace(
                'for choice in chunk["choices"]:',
                'for choice in [chunk["choices"][0]]:',
            ),
            "has no choices",
        ),
        Wrong(
            "every delta has a content",
            _EVENTS_HEAD + _EVENTS.replace('.get("content") or ""', '["content"]'),
            'may lack "content"',
        ),
        Wrong(
            "a content is never None",
            _EVENTS_HEAD
            + _EVENTS.replace('.get("content") or ""', '.get("content", "")'),
            'may lack "content"',
        ),
        Wrong(
            "the thought is a part of the answer",
            _EVENTS_HEAD
            + _EVENTS.replace(
                'choice["delta"].get("content") or ""',
                '"".join(v or "" for k, v in choice["delta"].items() if k != "role")',
            ),
            "is the thought",
        ),
        Wrong(
            "the last piece is the answer",
            _EVENTS_HEAD + _EVENTS.replace("text += ", "text = "),
            "Join the contents",
        ),
        Wrong(
            "the last finish_reason counts",
            _EVENTS_HEAD
            + _EVENTS.replace(
                'for choice in chunk["choices"]:',
                'for choice in chunk["choices"] or [{"delta": {}}]:',
            ).replace(
                'choice["finish_reason"] or ended', 'choice.get("finish_reason")'
            ),
            "of the chunk that has one",
        ),
        Wrong(
            "a space always follows",
            _EVENTS_HEAD
            + _EVENTS.replace('startswith("data:")', 'startswith("data")').replace(
                'removeprefix("data:").strip()', 'partition("data:")[2][1:]'
            ),
            "the space after it may lack",
        ),
        Wrong(
            "data: stands once in a line",
            _EVENTS_HEAD
            + _EVENTS.replace('removeprefix("data:")', 'split("data:")[1]'),
            "Only the line's beginning counts",
        ),
        Wrong(
            "a stream that began with 200 ends well",
            _EVENTS_HEAD
            + _EVENTS.replace(
                'raise RuntimeError(chunk["error"]["message"])', "continue"
            ),
            "half an answer",
        ),
        Wrong(
            "a stream has no errors",
            _EVENTS_HEAD
            + _EVENTS.replace('if "error" in chunk', 'if "errors" in chunk'),
            "half an answer",
        ),
        Wrong(
            "the text is enough",
            _EVENTS_HEAD + _EVENTS.replace("return text, ended", "return text"),
            "Return two values",
        ),
    ),
)

# --- 8a.4 ---------------------------------------------------------------------------

_Past = tuple[list[float], float, int, float, str]
_PAST: tuple[_Past, ...] = (
    (
        [10.0, 20.0, 30.0], 40.0, 5, 60.0,
        "Only three of five were used: it may come now, so return 0.",
    ),
    (
        [10.0, 20.0, 30.0], 40.0, 3, 60.0,
        "The oldest of the three, from second 10, is forgotten at 70.",
    ),
    (
        [10.0, 20.0, 28.0], 35.0, 3, 30.0,
        "Here the window is 30 s: the request from second 10 is forgotten at 40.",
    ),
    (
        [10.0, 20.0, 30.0], 75.0, 3, 60.0,
        "The request from second 10 is older than the window: it counts no more.",
    ),
    (
        [0.0, 20.0, 30.0], 60.0, 3, 60.0,
        "The request from second 0 is 60 s old now: exactly then it is forgotten.",
    ),
    (
        [10.005, 20.0], 40.0, 2, 60.0,
        "30.005 s: round up. Who comes back too early is refused again.",
    ),
    (
        [10.25, 20.0], 40.5, 2, 60.0,
        "29.75 s: round once, at the end.",
    ),
    ([], 5.0, 1, 60.0, "Nobody has asked yet: return 0."),
    (
        [10.0, 40.0, 50.0], 75.0, 2, 60.0,
        "The request from second 10 counts no more. Of the other two, the one from"
        " second 40 is forgotten first, at 100.",
    ),
    (
        [10.0, 20.0, 30.0, 35.0], 40.0, 2, 60.0,
        "Four came in before the limit was set to 2. Three must be forgotten first.",
    ),
)  # fmt: skip


def _wait(moments: list[float], now: float, most: int, window: float) -> int:
    recent = [moment for moment in moments if now - moment < window]
    return math.ceil(recent[-most] + window - now) if len(recent) >= most else 0


def _check_wait(answer: Answer) -> str | None:
    for moments, now, most, window, note in _PAST:
        got, right = (
            answer([*moments], now, most, window),
            _wait(moments, now, most, window),
        )
        if got == right and isinstance(got, Integral) and not isinstance(got, bool):
            continue
        recent = [moment for moment in moments if now - moment < window]
        if not isinstance(got, Real) or isinstance(got, bool):
            note = "Return a number of seconds, 0 if it may come now."
        elif got == right:
            note = "Return a whole number: the header Retry-After knows no fractions."
        elif right and got == math.ceil(recent[-1] + window - now) and most > 1:
            note = (
                "It need not wait for the newest to be forgotten: one place is enough."
            )
        elif right and got == now - recent[-most] != right:
            note = "This is how long ago it came in, not how long it still counts."
        elif right and not got:
            note = f"All {most} places are used: it has to wait."
        return (
            f"{note}\n  input: moments={moments}, now={now}, most={most},"
            f" window={window}\n  expected: {right}\n  got: {got!r}"
        )
    return None


_WAIT_HEAD = "def retry_after(moments, now, most, window):\n"
_WAIT = """\
    import math

    recent = [moment for moment in moments if now - moment < window]
    if len(recent) < most:
        return 0
    return math.ceil(recent[-most] + window - now)"""
WAIT = Exercise(
    id="8a.4",
    title="say when to come back",
    minutes=10,
    stars=2,
    check=_check_wait,
    hints=(
        "First leave out what counts no more: keep the moments with"
        " now - moment < window.",
        "Fewer than `most` are left: return 0. Else one of them must be forgotten"
        " first: which?",
        "If exactly `most` count, the oldest of them. In general recent[-most]; it is"
        " forgotten at recent[-most] + window. math.ceil rounds up.",
    ),
    solution=_WAIT_HEAD + _WAIT,
    name="retry_after",
    stub=_WAIT_HEAD
    + '''\
    """Return the seconds to wait, a whole number."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "half a second less does no harm",
            _WAIT_HEAD + _WAIT.replace("math.ceil(", "int("),
            "round up",
        ),
        Wrong(
            "all must be forgotten first",
            _WAIT_HEAD + _WAIT.replace("recent[-most]", "recent[-1]"),
            "one place is enough",
        ),
        Wrong(
            "old requests count for ever",
            _WAIT_HEAD + _WAIT.replace(" if now - moment < window", ""),
            "counts no more",
        ),
        Wrong(
            "one more than the limit",
            _WAIT_HEAD + _WAIT.replace("len(recent) < most", "len(recent) <= most"),
            "it has to wait",
        ),
        Wrong(
            "who asks again waits a whole window",
            _WAIT_HEAD
            + _WAIT.replace("math.ceil(recent[-most] + window - now)", "int(window)"),
            "is forgotten at 70",
        ),
        Wrong(
            "a second more is safer",
            _WAIT_HEAD + _WAIT.replace("math.ceil(recent", "1 + int(recent"),
            "is forgotten at 70",
        ),
        Wrong(
            "the oldest decides",
            _WAIT_HEAD + _WAIT.replace("recent[-most]", "recent[0]"),
            "Three must be forgotten first",
        ),
        Wrong(
            "seconds have fractions",
            _WAIT_HEAD + _WAIT.replace("math.ceil(", "float("),
            "a whole number",
        ),
        Wrong(
            "nothing to wait for is None",
            _WAIT_HEAD + _WAIT.replace("return 0", "return None"),
            "0 if it may come now",
        ),
    ),
)

EXERCISES = (PAD, BATCH, EVENTS, WAIT)
