"""Exercises of lesson 04b: pictures that fit, boxes, tokens of a recording."""

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

from qwen_course.checks import Exercise, Wrong

Answer = Callable[..., Any]

# --- 4b.1 ---------------------------------------------------------------------------


def _smart_resize(
    width: int, height: int, unit: int, least: int, most: int
) -> tuple[int, int]:
    """Return the size that a Qwen-VL gives to a picture, as in the lesson."""
    wide, high = (round(side / unit) * unit for side in (width, height))
    if wide * high > most:
        shrink = math.sqrt(width * height / most)
        wide, high = (
            max(unit, math.floor(side / shrink / unit) * unit)
            for side in (width, height)
        )
    elif wide * high < least:
        grow = math.sqrt(least / (width * height))
        wide, high = (math.ceil(side * grow / unit) * unit for side in (width, height))
    return wide, high


_UNSCALED = "The model sees the resized picture, not this one: call `resize` first."
_AREA = "`resize` takes areas in pixels. A token is 32 x 32 of them."
_LEAST = "Here the lower limit works: a picture costs at least 4 tokens."
# Width, height, context, most_tokens, text_tokens; notes by result; else this note.
_CONTEXTS: tuple[tuple[tuple[int, ...], dict[int, str], str], ...] = (
    (
        (1920, 1080, 32768, 1280, 500),
        {
            15: _UNSCALED,
            16: _UNSCALED,
            6: "These are patches. Each token is made of 2 x 2 patches.",
            25: "Not every picture costs the most. This one has fewer tokens.",
            27: "The last picture is not whole: round down.",
            1224: "These are the tokens of one picture. How many pictures fit?",
            10756: _AREA,
        },
        "It is resized to 1504 x 832 pixels: 47 x 26 units, 1222 tokens.",
    ),
    (
        (640, 480, 4096, 1280, 400),
        {9: "A unit of Qwen3-VL has 32 pixels. 28 belongs to Qwen2.5-VL."},
        "The context is not for pictures alone: the text has its tokens already.",
    ),
    (
        (100, 30, 300, 1280, 0),
        {
            1: _LEAST,
            29: "Thirty pictures of 10 tokens take the 300 exactly: that fits.",
            60: _LEAST,
            75: _LEAST,
        },
        "Each picture has two marks, before and after it. For small pictures that is"
        " a large part.",
    ),
    (
        (1024, 1024, 4096, 256, 100),
        {17: "A picture may have `most_tokens` tokens. Its two marks come on top."},
        "The upper limit is a setting: here `most_tokens` makes the picture smaller.",
    ),
    (
        (640, 480, 200, 1280, 900),
        {},
        "The text is longer than the context: no picture fits, and fewer than none"
        " cannot be.",
    ),
)


def _check_pictures(answer: Answer) -> str | None:
    for case, notes, note in _CONTEXTS:
        width, height, context, most, text = case
        wide, high = _smart_resize(width, height, 32, 4 * 32**2, most * 32**2)
        expected = max(0, context - text) // (wide * high // 32**2 + 2)
        got = answer(*case, _smart_resize)
        if got == expected:
            continue
        if not isinstance(got, Real):
            note = "Return a number of pictures."
        elif got > 0 and got % 1:
            note = "A part of a picture is no picture: use // to divide."
        else:
            note = notes.get(got, note)
        return (
            f"{note}\n  input: width={width}, height={height}, context={context},"
            f" most_tokens={most}, text_tokens={text}"
            f"\n  expected: {expected}\n  got: {got!r}"
        )
    return None


_FIT_HEAD = """\
def pictures_that_fit(
    width, height, context, most_tokens, text_tokens, resize
):
"""
_RESIZED = """\
    area = 32**2
    wide, high = resize(width, height, 32, 4 * area, most_tokens * area)
"""
_DIVIDED = """\
    each = wide * high // area + 2
    return max(0, context - text_tokens) // each"""
PICTURES = Exercise(
    id="4b.1",
    title="pictures that fit",
    minutes=10,
    stars=2,
    check=_check_pictures,
    hints=(
        "What does one picture cost? First its size after `resize`, then its tokens,"
        " then its two marks.",
        "The unit is 32 pixels, so a token is 32**2 pixels: resize(width, height, 32,"
        " 4 * 32**2, most_tokens * 32**2) gives the new width and height.",
        "each = wide * high // 32**2 + 2. The room is context - text_tokens, but never"
        " less than 0; divide with //.",
    ),
    solution=_FIT_HEAD + _RESIZED + _DIVIDED,
    name="pictures_that_fit",
    stub=_FIT_HEAD
    + '''\
    """Return how many pictures of this size fit beside the text."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "the model sees the original picture",
            _FIT_HEAD + "    wide, high, area = width, height, 32**2\n" + _DIVIDED,
            "not this one",
        ),
        Wrong(
            "a patch is a token",
            _FIT_HEAD + _RESIZED + _DIVIDED.replace("area +", "16**2 +"),
            "2 x 2 patches",
        ),
        Wrong(
            "a limit in tokens is an area",
            _FIT_HEAD
            + _RESIZED.replace("most_tokens * area", "most_tokens")
            + _DIVIDED,
            "areas in pixels",
        ),
        Wrong(
            "all generations have one unit",
            _FIT_HEAD + _RESIZED.replace("32", "28") + _DIVIDED,
            "has 32 pixels",
        ),
        Wrong(
            "every picture costs the most",
            _FIT_HEAD + "    return max(0, context - text_tokens) // (most_tokens + 2)",
            "has fewer tokens",
        ),
        Wrong(
            "the context is for pictures",
            _FIT_HEAD + _RESIZED + _DIVIDED.replace(" - text_tokens", ""),
            "not for pictures alone",
        ),
        Wrong(
            "the marks are free",
            _FIT_HEAD + _RESIZED + _DIVIDED.replace(" + 2", ""),
            "has two marks",
        ),
        Wrong(
            "a small picture stays small",
            _FIT_HEAD + _RESIZED.replace("4 * area", "0") + _DIVIDED,
            "the lower limit works",
        ),
        Wrong(
            "the lower limit is always 256 tokens",
            _FIT_HEAD + _RESIZED.replace("4 *", "256 *") + _DIVIDED,
            "the lower limit works",
        ),
        Wrong(
            "the limits are constants",
            _FIT_HEAD + _RESIZED.replace("most_tokens", "1280") + _DIVIDED,
            "is a setting",
        ),
        Wrong(
            "the text always fits",
            _FIT_HEAD
            + _RESIZED
            + _DIVIDED.replace(
                "max(0, context - text_tokens)", "(context - text_tokens)"
            ),
            "fewer than none",
        ),
        Wrong(
            "half a picture is a picture",
            _FIT_HEAD + _RESIZED + _DIVIDED.replace(") // each", ") / each"),
            "use // to divide",
        ),
    ),
)

# --- 4b.2 ---------------------------------------------------------------------------

_Box = tuple[int, int, int, int]
_Size = tuple[int, int]
_LABELS: tuple[tuple[_Box, _Size, _Size, str], ...] = (
    (
        (987, 546, 1119, 582), (1920, 1080), (1316, 728),
        "Each number is a part of the resized width or height: in thousandths, that is"
        " what Qwen3-VL writes.",
    ),
    (
        (0, 0, 1316, 728), (1920, 1080), (1316, 728),
        "This box is the whole picture: from 0 to 1000 on both sides.",
    ),
    (
        (100, 50, 300, 200), (640, 480), (644, 476),
        "This picture was resized too, though by a few pixels only.",
    ),
    (
        (50, 100, 200, 300), (480, 640), (476, 644),
        "An upright picture: the width comes first, though it is the shorter side.",
    ),
)  # fmt: skip


def _other_boxes(
    box: _Box, size: _Size, resized: _Size, right: list[float]
) -> tuple[tuple[list[float], str], ...]:
    left, top, far, low = right
    return (
        (
            [1000 * v / size[i % 2] for i, v in enumerate(box)],
            "This divides by the original size. Qwen2.5-VL wrote pixels of the resized"
            " picture.",
        ),
        (
            [1000 * v / resized[1 - i % 2] for i, v in enumerate(box)],
            "Left and right belong to the width, top and bottom to the height. An array"
            " has it the other way.",
        ),
        (
            [1000 * v / max(resized) for v in box],
            "One scale for both sides: but 1000 is the whole width and the whole"
            " height.",
        ),
        (
            [v * size[i % 2] / resized[i % 2] for i, v in enumerate(box)],
            "These are pixels of the original, half of the way: Qwen3-VL writes"
            " thousandths.",
        ),
        (
            [value / 1000 for value in right],
            "These are parts of 1. Qwen3-VL writes parts of 1000.",
        ),
        (
            [left, top, far - left, low - top],
            "The box has two corners: left, top, right, bottom. This has a corner and a"
            " size.",
        ),
        ([top, left, low, far], "x comes first: left, top, right, bottom."),
        ([left, far, top, low], "Corner by corner: left, top, then right, bottom."),
        ([1.024 * value for value in right], "A whole side is 1000, not 1024."),
        ([value / 10 for value in right], "This is in percent, a whole side is 1000."),
    )


def _check_box(answer: Answer) -> str | None:
    for box, size, resized, note in _LABELS:
        exact = [1000 * v / resized[i % 2] for i, v in enumerate(box)]
        expected = [round(value) for value in exact]
        got = answer(box, size, resized)
        try:  # + 0: a text is no number
            numbers = [float(value + 0) for value in got]
        except (TypeError, ValueError):
            numbers = []
        if numbers == expected:
            continue
        if len(numbers) != 4:
            note = "Return four numbers: left, top, right, bottom."
        elif exact != expected and _close(numbers, exact, 2):
            note = "Off by a little: round once, at the end, with round()."
        else:
            for other, meaning in _other_boxes(box, size, resized, exact):
                by = 0.01 if max(other) < 2 else 1
                note = meaning if _close(numbers, other, by) else note
        return (
            f"{note}\n  input: box={box}, size={size}, resized={resized}"
            f"\n  expected: {expected}\n  got: {got!r}"
        )
    return None


def _close(numbers: list[float], others: list[float], by: float) -> bool:
    return all(abs(a - b) < by for a, b in zip(numbers, others, strict=True))


_BOX_HEAD = "def convert_box(box, size, resized):\n"


def _box(value: str) -> str:
    return _BOX_HEAD + f"    return [{value} for i, v in enumerate(box)]"


_CORNERS = """\
    wide, high = resized
    scale = (1000 / wide, 1000 / high) * 2
    left, top, right, low = (round(v * s) for v, s in zip(box, scale))
"""
BOXES = Exercise(
    id="4b.2",
    title="a box for the next generation",
    minutes=8,
    stars=2,
    check=_check_box,
    hints=(
        "Which of the two sizes do the old numbers belong to? You need only one.",
        "Divide left and right by the resized width, top and bottom by the resized"
        " height. What must the right edge of the picture become?",
        "round(1000 * v / resized[i % 2]) for i, v in enumerate(box): i % 2 is 0 for"
        " left and right, 1 for top and bottom.",
    ),
    solution=_box("round(1000 * v / resized[i % 2])"),
    name="convert_box",
    stub=_BOX_HEAD
    + '''\
    """Return a box of Qwen2.5-VL as Qwen3-VL writes it."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "the numbers are pixels of the original",
            _box("round(1000 * v / size[i % 2])"),
            "divides by the original size",
        ),
        Wrong(
            "y comes first, as in an array",
            _box("round(1000 * v / resized[1 - i % 2])"),
            "An array",
        ),
        Wrong(
            "one scale for both sides",
            _box("round(1000 * v / max(resized))"),
            "One scale",
        ),
        Wrong(
            "Qwen3-VL writes pixels",
            _box("round(v * size[i % 2] / resized[i % 2])"),
            "half of the way",
        ),
        Wrong(
            "relative means a fraction",
            _box("round(v / resized[i % 2], 3)"),
            "parts of 1.",
        ),
        Wrong(
            "int() rounds",
            _box("int(1000 * v / resized[i % 2])"),
            "round once",
        ),
        Wrong(
            "nothing need be rounded",
            _box("1000 * v / resized[i % 2]"),
            "round once",
        ),
        Wrong(
            "a box is a corner and a size",
            _BOX_HEAD + _CORNERS + "    return left, top, right - left, low - top",
            "a corner and a size",
        ),
        Wrong(
            "a box begins with y",
            _BOX_HEAD + _CORNERS + "    return top, left, low, right",
            "x comes first",
        ),
        Wrong(
            "999 is the largest",
            _box("min(999, round(1000 * v / resized[i % 2]))"),
            "from 0 to 1000",
        ),
        Wrong(
            "the numbers are thousandths already",
            _BOX_HEAD + "    return list(box)",
            "what Qwen3-VL writes",
        ),
    ),
)

# --- 4b.3 ---------------------------------------------------------------------------

_RECORDINGS: tuple[tuple[float, str], ...] = (
    (2, "200 frames, then 100, then 50 tokens, and two marks: 52."),
    (30, "A piece of 30 seconds is 750 tokens and two marks."),
    (75, "It is cut into 30 + 30 + 15 seconds: 752 + 752 + 377."),
    (0.333, "33 frames: 33 becomes 17, and 17 becomes 8. Use the two formulas."),
    (0.353, "35 frames: 35 becomes 18, and 18 becomes 9. The formulas are not alike."),
    (30.004, "These are 3000.4 frames, so 3000 whole ones: one piece, no second."),
    (0.387, "These are 38.7 frames. Only whole ones count, so 38: round down."),
    (
        90.014,
        "9001 frames: three whole pieces and one of a single frame. That has no token,"
        " but its two marks.",
    ),
)


def _piece_tokens(frames: int) -> int:
    """Return the tokens of a piece, as the encoder of Qwen2-Audio counts."""
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


def _check_sound(answer: Answer) -> str | None:
    for seconds, note in _RECORDINGS:
        frames = int(seconds * 100)
        pieces = [3000] * (frames // 3000) + [frames % 3000] * (frames % 3000 > 0)
        tokens = sum(map(_piece_tokens, pieces))
        expected, got = tokens + 2 * len(pieces), answer(seconds)
        if got == expected:
            continue
        others = {
            tokens: "Each piece has two marks, before and after it.",
            tokens + 2: "A piece has at most 30 seconds, and its own two marks.",
            expected + 2 * (seconds == 30): "A rest of 0 frames is no piece.",
            frames + 2 * len(pieces): "These are frames. Their number is halved twice.",
            sum((f - 1) // 2 + 1 for f in pieces) + 2 * len(pieces): "The frames are"
            " halved twice: once by a convolution, once by pooling.",
            752 * -(-frames // 3000): "The last piece is not filled up to 30 seconds.",
            752 * (frames // 3000) if seconds > 1 else None: "What is left after the"
            " whole pieces is a piece.",
        }
        note = others.get(got, note) if isinstance(got, Real) else "Return a number."
        return f"{note}\n  input: {seconds}\n  expected: {expected}\n  got: {got!r}"
    return None


_SOUND_HEAD = "def sound_tokens(seconds):\n    frames = int(seconds * 100)\n"
_CUT = """\
    pieces = [3000] * (frames // 3000)
    if frames % 3000:
        pieces.append(frames % 3000)
"""
_COUNT = "    return sum(((f - 1) // 2 + 1 - 2) // 2 + 1 + 2 for f in pieces)"
SOUND = Exercise(
    id="4b.3",
    title="tokens of a recording",
    minutes=8,
    stars=2,
    check=_check_sound,
    hints=(
        "First make a list of the pieces, in frames. All but the last have 3,000.",
        "frames // 3000 pieces are whole; frames % 3000 is what is left, if anything.",
        "For each piece: halve with (n - 1) // 2 + 1, then with (n - 2) // 2 + 1, and"
        " add 2 for the marks.",
    ),
    solution=_SOUND_HEAD + _CUT + _COUNT,
    name="sound_tokens",
    stub="def sound_tokens(seconds):\n"
    + '''\
    """Return the tokens of a recording for Qwen2-Audio."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "a sound has no marks",
            _SOUND_HEAD + _CUT + _COUNT.replace(" + 2 for", " for"),
            "two marks, before and after",
        ),
        Wrong(
            "one pair of marks is enough",
            _SOUND_HEAD + _CUT + _COUNT.replace(" + 2 for", " for") + " + 2",
            "its own two marks",
        ),
        Wrong(
            "a frame is a token",
            _SOUND_HEAD + _CUT + "    return sum(f + 2 for f in pieces)",
            "These are frames",
        ),
        Wrong(
            "only the convolution halves",
            _SOUND_HEAD + _CUT + _COUNT.replace("((f - 1) // 2 + 1 - 2)", "(f - 1)"),
            "once by pooling",
        ),
        Wrong(
            "a recording is one piece",
            _SOUND_HEAD + "    pieces = [frames]\n" + _COUNT,
            "its own two marks",
        ),
        Wrong(
            "each piece has 30 seconds",
            _SOUND_HEAD + "    return 752 * -(-frames // 3000)",
            "not filled up",
        ),
        Wrong(
            "what is left does not count",
            _SOUND_HEAD + "    return 752 * (frames // 3000)",
            "What is left",
        ),
    ),
)

EXERCISES = (PICTURES, BOXES, SOUND)
