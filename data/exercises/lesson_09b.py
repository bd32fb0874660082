"""Exercises of lesson 09b: pick a parser, find a version, put a box back."""

import math
from collections.abc import Callable
from itertools import islice
from numbers import Real
from typing import Any

from qwen_course.checks import Exercise, Wrong

Answer = Callable[..., Any]

# --- 9b.1 ---------------------------------------------------------------------------

_JSON = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
_XML = (
    "<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n"
    "</function>\n</tool_call>"
)
_TEXTS: tuple[tuple[str, str, str], ...] = (  # text, parser, what to say if it is wrong
    (_JSON, "hermes", "JSON inside the tags is what hermes reads."),
    (_XML, "qwen3_coder", "XML inside the tags is what qwen3_coder reads."),
    ("It is sunny in Oslo.", "", 'There is no call in it: "" is right.'),
    (
        f"I look it up.\n\n{_JSON}", "hermes",
        "There can be words before the call: look for the tag.",
    ),
    (
        _JSON.replace("\n", ""), "hermes",
        "The call can follow its tag without a line break, too.",
    ),
    (
        _XML.replace("Oslo", '{"name": "Oslo"}'), "qwen3_coder",
        "A value inside XML can be JSON: only what follows the tag says the form.",
    ),
    (
        _JSON.replace("Oslo", "<function=Oslo>"), "hermes",
        "An argument inside JSON can hold <function=: only what follows the tag says"
        " the form.",
    ),
    (
        '{"name": "weather", "arguments": {"city": "Oslo"}}', "",
        "There are no tags around this call: neither parser finds it.",
    ),
    (
        "A call begins with <function=NAME>, in tags.", "",
        "There are no tags around this <function=: it is a sentence.",
    ),
    (
        "I would write <tool_call>, and then the call.", "",
        "After this tag there is no call, but a sentence.",
    ),
    (
        _XML.replace("<tool_call>\n", "<tool_call> \n\n  "), "qwen3_coder",
        "Several spaces and line breaks can stand between tag and call.",
    ),
    (
        f"A call begins with <tool_call>, like so: {_JSON}", "",
        "Only the first tag counts, and after that one there is no call.",
    ),
    (
        f"{_XML}\n{_JSON}", "qwen3_coder",
        "Here are two calls: only the first tag counts.",
    ),
    (
        "<tool_call>\n<parameter=city>\nOslo\n</parameter>\n</tool_call>", "",
        "Not every < is a call: <function= must follow the tag.",
    ),
    (
        "<tool_call>\n<functions>weather</functions>\n</tool_call>", "",
        "<functions> is not <function=.",
    ),
    (
        "<tool_call>\n<function=weather>...", "qwen3_coder",
        "The closing tag is missing. What follows the first tag counts, not what ends"
        " the call.",
    ),
    (
        '<tool_call>\n{"arguments": {"city": "Os', "hermes",
        "The reply was cut. A { behind the first tag is enough.",
    ),
    (
        "<tool_call>\n{", "hermes",
        "The reply was cut. A { behind the first tag is enough.",
    ),
    (
        "<tool_call>\n<function=", "qwen3_coder",
        "The reply was cut. <function= behind the first tag is enough.",
    ),
    ("<tool_call>\n", "", "Nothing follows this tag: the reply was cut."),
    (
        'Use these: {"city": "Oslo"}', "",
        "There is no tag in it. find() gives -1 then, and -1 is a place, too.",
    ),
)  # fmt: skip


def _check_parser(answer: Answer) -> str | None:
    for text, right, note in _TEXTS:
        got = answer(text)
        if got == right:
            continue
        if not isinstance(got, str) or got not in ("hermes", "qwen3_coder", ""):
            note = 'Return one of the texts "hermes", "qwen3_coder" and "".'
        elif right and got and text in (_JSON, _XML):
            note += " The two names are exchanged."
        return f"{note}\n  input: {text!r}\n  expected: {right!r}\n  got: {got!r}"
    return None


_PARSER_HEAD = "def parser_for(text):\n"
_PARSER = """\
    inside = text.partition("<tool_call>")[2].lstrip()
    if inside.startswith("{"):
        return "hermes"
    return "qwen3_coder" if inside.startswith("<function=") else \"\""""
_ANYWHERE = """\
    if "<tool_call>" not in text:
        return ""
    return "{}" if "{}" in text else "{}\""""
PARSER = Exercise(
    id="9b.1",
    title="pick the parser",
    minutes=8,
    stars=1,
    check=_check_parser,
    hints=(
        "What stands directly behind the first <tool_call>? Nothing else counts.",
        'text.partition("<tool_call>")[2] is all that follows the first tag, and is'
        ' "" if there is none. Take away the spaces at its start.',
        'With inside = text.partition("<tool_call>")[2].lstrip(): "{" at its start is'
        ' for hermes, "<function=" for qwen3_coder, all else for neither.',
    ),
    solution=_PARSER_HEAD + _PARSER,
    name="parser_for",
    stub=_PARSER_HEAD
    + '''\
    """Return the parser that finds the call: its name in vLLM, or ""."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "a brace means JSON",
            _PARSER_HEAD + _ANYWHERE.format("hermes", "{", "qwen3_coder"),
            "A value inside XML can be JSON",
        ),
        Wrong(
            "<function= means XML",
            _PARSER_HEAD + _ANYWHERE.format("qwen3_coder", "<function=", "hermes"),
            "An argument inside JSON",
        ),
        Wrong(
            "the names are the other way round",
            _PARSER_HEAD
            + _PARSER.replace("hermes", "?")
            .replace("qwen3_coder", "hermes")
            .replace("?", "qwen3_coder"),
            "exchanged",
        ),
        Wrong(
            "a reply is nothing but its call",
            _PARSER_HEAD
            + '    if text.startswith("<tool_call>{"):\n        return "hermes"\n'
            + '    if text.startswith("<tool_call>\\n{"):\n        return "hermes"\n'
            + '    return "qwen3_coder" * text.startswith("<tool_call>\\n<function=")',
            "words before the call",
        ),
        Wrong(
            "a call begins on a new line",
            _PARSER_HEAD
            + _PARSER.replace('"<tool_call>"', '"<tool_call>\\n"').replace(
                ".lstrip()", ""
            ),
            "without a line break",
        ),
        Wrong(
            "what is not XML is JSON",
            _PARSER_HEAD
            + '    return "qwen3_coder" if "<function=" in text else "hermes"',
            "There is no call in it",
        ),
        Wrong(
            "bare JSON is a call",
            _PARSER_HEAD
            + _PARSER.replace(
                'text.partition("<tool_call>")[2]', 'text.split("<tool_call>")[-1]'
            ),
            "no tags around this call",
        ),
        Wrong(
            "any tag holds a call",
            _PARSER_HEAD
            + _PARSER.replace(
                'startswith("<function=") else ""',
                'startswith("<") or not inside else "hermes"',
            ).replace("    if inside", "    if not inside: return ''\n    if inside"),
            "but a sentence",
        ),
        Wrong(
            "yes or no is enough",
            _PARSER_HEAD + '    return "<function=" in text',
            "Return one of the texts",
        ),
    ),
)

# --- 9b.2 ---------------------------------------------------------------------------

_NEEDS = {
    "Qwen2.5-7B": "4.37", "Qwen3-8B": "4.51", "Qwen3-VL-8B": "4.57",
    "Qwen3.5-4B": "5.2", "Qwen3.6-27B": "5.8", "Qwen3-ASR": "", "A": "4.9",
    "B": "5.15", "C": "4.51.3", "E": "4.51.10",
}  # fmt: skip
_LISTS: tuple[tuple[list[str], str | None], ...] = (
    (["Qwen2.5-7B", "Qwen3-8B"], "4.51"),
    (["Qwen3.5-4B", "Qwen3-8B"], "5.2"),
    (["Qwen3-8B"], "4.51"),
    (["A", "Qwen3-8B"], "4.51"),
    (["Qwen3.6-27B", "B", "Qwen2.5-7B"], "5.15"),
    (["C", "Qwen3-8B"], "4.51.3"),
    (["Qwen3-8B", "C"], "4.51.3"),
    (["E", "C"], "4.51.10"),
    (["E", "Qwen3-VL-8B"], "4.57"),
    (["Qwen3.5-4B", "E"], "5.2"),
    (["Qwen3-8B", "Qwen3-ASR"], None),
    (["Qwen3-ASR", "Qwen3-8B"], None),
    (["Qwen3-8B", "D"], None),
)


def _version(text: str) -> list[int]:
    return [int(part) for part in text.split(".")]


def _version_problem(got: Any, names: list[str], right: str | None) -> str:
    """Return what is wrong with a version that is not the expected one."""
    if right is None:
        return "What one model needs is not known: None, for nobody can promise it."
    if got is None:
        return "You return nothing, or None: yet all of these are in the table."
    if not isinstance(got, str):
        return 'Return the version as the table writes it, such as "4.51".'
    known = [_NEEDS[name] for name in names]
    if got in names:
        return "That is the model's name: the version that it needs is wanted."
    if got not in known:
        return "No model of this list needs that version: use the list's own."
    if got == max(known):
        return "Versions are not texts, nor decimals: 4.9 is older than 4.51."
    if got.count(".") > right.count("."):
        return "A version of more parts need not be newer: 4.51.10 is older than 4.57."
    if _version(got)[:2] == _version(str(right))[:2]:
        return "Compare all parts of a version, as whole numbers, from the left."
    if got == min(known, key=_version):
        return "With this version the newest model of the list does not load."
    return "The place in the list says nothing: take the newest that is needed."


def _check_version(answer: Answer) -> str | None:
    for names, right in _LISTS:
        got = answer([*names], dict(_NEEDS))
        if got == right and isinstance(got, str | None):
            continue
        note = _version_problem(got, names, right)
        needs = {name: _NEEDS.get(name, "(not there)") for name in names}
        return f"{note}\n  input: {needs}\n  expected: {right!r}\n  got: {got!r}"
    return None


_VERSION_HEAD = "def smallest_version(names, needs):\n"
_KNOWN = """\
    versions = [needs.get(name) for name in names]
    if not all(versions):
        return None
"""
_NEWEST = """\
    def parts(version):
        return [int(part) for part in version.split(".")]

    return max(versions, key=parts)"""
VERSION = Exercise(
    id="9b.2",
    title="one version for all",
    minutes=8,
    stars=2,
    check=_check_version,
    hints=(
        "Every model of the list must load. So is the oldest or the newest of their"
        " versions the answer?",
        'As texts "4.9" is larger than "4.51". [4, 9] and [4, 51], lists of whole'
        " numbers, compare rightly.",
        "Return None for a name that is missing or has an empty text. Then"
        " max(versions, key=parts), where parts('4.51') is [4, 51].",
    ),
    solution=_VERSION_HEAD + _KNOWN + _NEWEST,
    name="smallest_version",
    stub=_VERSION_HEAD
    + '''\
    """Return the oldest version that loads all models, None if unknown."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "texts compare like versions",
            _VERSION_HEAD + _KNOWN + "    return max(versions)",
            "Versions are not texts",
        ),
        Wrong(
            "a version is a number with a point",
            _VERSION_HEAD
            + _KNOWN
            + "    return max(versions, key=lambda v: float(v[:4]))",
            "Versions are not texts",
        ),
        Wrong(
            "the smallest of them",
            _VERSION_HEAD + _KNOWN + _NEWEST.replace("max", "min"),
            "the newest model of the list does not load",
        ),
        Wrong(
            "the last model is the newest",
            _VERSION_HEAD + _KNOWN + "    return versions[-1]",
            "the newest model of the list does not load",
        ),
        Wrong(
            "the newest of the whole table",
            _VERSION_HEAD
            + _KNOWN
            + _NEWEST.replace("(versions,", "([v for v in needs.values() if v],"),
            "use the list's own",
        ),
        Wrong(
            "who is not in the table needs nothing",
            _VERSION_HEAD
            + "    versions = [needs[name] for name in names if needs.get(name)]\n"
            + _NEWEST,
            "not known",
        ),
        Wrong(
            "two parts are enough",
            _VERSION_HEAD
            + _KNOWN
            + _NEWEST.replace('version.split(".")]', 'version.split(".")[:2]]').replace(
                "max(versions", "max(reversed(versions)"
            ),
            "Compare all parts",
        ),
        Wrong(
            "parts are the answer",
            _VERSION_HEAD
            + _KNOWN
            + "    return max([int(p) for p in v.split('.')] for v in versions)",
            "as the table writes it",
        ),
    ),
)

# --- 9b.3 ---------------------------------------------------------------------------

_Box = tuple[int, ...]
_BOXES: tuple[tuple[_Box, str, _Box, _Box], ...] = (
    ((750, 750, 850, 800), "qwen3_vl", (1920, 1080), (1504, 832)),
    ((987, 546, 1119, 582), "qwen2_5_vl", (1920, 1080), (1316, 728)),
    ((108, 905, 331, 957), "qwen2_5_vl", (1080, 1920), (728, 1316)),
    ((23, 117, 501, 988), "qwen2_vl", (640, 480), (644, 476)),
    ((305, 7, 610, 999), "qwen3_vl", (480, 640), (480, 640)),
    ((500, 500, 750, 1000), "qwen3_vl", (1920, 1080), (1504, 832)),
)


def _scaled(box: _Box, to: _Box, grid: _Box) -> list[int]:
    return [round(v * to[i % 2] / grid[i % 2]) for i, v in enumerate(box)]


def _box_problem(got: list[Any], case: tuple[_Box, str, _Box, _Box]) -> str:
    """Return what is wrong with a box that is not the expected one."""
    box, kind, size, resized = case
    thousand = (1000, 1000)
    grid, other = (resized, thousand) if kind == "qwen2_5_vl" else (thousand, resized)
    turned, right = (size[::-1], grid[::-1]), _scaled(box, size, grid)
    sides = _scaled((box[2] - box[0], box[3] - box[1]), size, grid)
    told = (
        (box, "These are still the model's numbers, not pixels of the picture."),
        (
            _scaled(box, size, other),
            f"{kind} writes "
            + ("pixels of the resized picture." if grid == resized else "0 to 1000."),
        ),
        (_scaled(box, resized, grid), "The box is wanted in the original picture."),
        (_scaled(box, turned[0], turned[1]), "Width and height are exchanged."),
        (_scaled(box, size[::-1], grid), "Width and height are exchanged."),
        (_scaled(box, size, turned[1]), "Width and height are exchanged."),
        (_scaled(box, (size[0],) * 2, (grid[0],) * 2), "Two of them are heights."),
        (
            [*right[:2], right[0] + sides[0], right[1] + sides[1]],
            "Round each edge by itself, not the width or the height.",
        ),
        (
            [int(v * size[i % 2] / grid[i % 2]) for i, v in enumerate(box)],
            "Round to the nearest pixel: int() cuts off.",
        ),
        (
            [math.ceil(v * size[i % 2] / grid[i % 2]) for i, v in enumerate(box)],
            "Round to the nearest pixel, not up.",
        ),
        (
            [min(v, size[i % 2] - 1) for i, v in enumerate(right)],
            "1000 is the far edge, as many pixels as the side has: do not cut it.",
        ),
        (_scaled(box, size, (999, 999)), "The numbers go from 0 to 1000, not 999."),
        (
            [right[0], right[1], right[2] - right[0], right[3] - right[1]],
            "Right and bottom are wanted, not width and height of the box.",
        ),
        (
            [right[1], right[0], right[3], right[2]],
            "The order is left, top, right, bottom: x before y.",
        ),
    )
    for wrong, note in told:
        if got == list(wrong):
            return note
    if max(abs(a - b) for a, b in zip(got, right, strict=True)) <= 8:
        return "Round once, at the end: here something was rounded before."
    return "Divide by what the numbers refer to, times the original size."


def _check_box(answer: Answer) -> str | None:
    for case in _BOXES:
        box, kind, size, resized = case
        grid = resized if kind == "qwen2_5_vl" else (1000, 1000)
        right = _scaled(box, size, grid)
        got = answer(box, kind, size, resized)
        try:
            numbers = [*islice(got, 5)]
            if len(numbers) != 4 or not all(isinstance(v, Real) for v in numbers):
                raise TypeError
        except TypeError:
            note = "Return a list of four numbers: left, top, right, bottom."
        else:
            if numbers == right:
                continue
            if [round(v) for v in numbers] == right:
                note = "Return whole pixels: round each number."
            else:
                note = _box_problem(numbers, case)
        return (
            f"{note}\n  input: box={box}, model_type={kind!r}, size={size},"
            f" resized={resized}\n  expected: {right}\n  got: {got!r}"
        )
    return None


_BOX_HEAD = "def box_in_pixels(box, model_type, size, resized):\n"
_GRID = '    grid = resized if model_type == "qwen2_5_vl" else (1000, 1000)\n'
_PIXELS = """\
    return [round(v * size[i % 2] / grid[i % 2]) for i, v in enumerate(box)]"""
BOX = Exercise(
    id="9b.3",
    title="put a box back",
    minutes=8,
    stars=2,
    check=_check_box,
    hints=(
        "Which size do the model's numbers refer to? Numbers 0 and 2 are horizontal,"
        " 1 and 3 are vertical.",
        "grid is resized for qwen2_5_vl, else (1000, 1000). Each number is a share of"
        " one side of the grid; that share of the picture's side is wanted.",
        "[round(v * size[i % 2] / grid[i % 2]) for i, v in enumerate(box)]",
    ),
    solution=_BOX_HEAD + _GRID + _PIXELS,
    name="box_in_pixels",
    stub=_BOX_HEAD
    + '''\
    """Return a model's box as whole pixels of the original picture."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "every Qwen writes thousandths",
            _BOX_HEAD + "    grid = (1000, 1000)\n" + _PIXELS,
            "pixels of the resized picture",
        ),
        Wrong(
            "every Qwen writes pixels of the resized picture",
            _BOX_HEAD + "    grid = resized\n" + _PIXELS,
            "qwen3_vl writes 0 to 1000",
        ),
        Wrong(
            "Qwen2-VL writes what Qwen2.5-VL writes",
            _BOX_HEAD + _GRID.replace('== "qwen2_5_vl"', '!= "qwen3_vl"') + _PIXELS,
            "qwen2_vl writes 0 to 1000",
        ),
        Wrong(
            "they are pixels already",
            _BOX_HEAD + "    return list(box)",
            "still the model's numbers",
        ),
        Wrong(
            "the resized picture is what I have",
            _BOX_HEAD + _GRID + _PIXELS.replace("* size", "* resized"),
            "in the original picture",
        ),
        Wrong(
            "height comes first",
            _BOX_HEAD
            + _GRID
            + _PIXELS.replace("size[i % 2]", "size[1 - i % 2]").replace(
                "grid[i % 2]", "grid[1 - i % 2]"
            ),
            "Width and height are exchanged",
        ),
        Wrong(
            "one scale for all four",
            _BOX_HEAD + _GRID + _PIXELS.replace("[i % 2]", "[0]"),
            "Two of them are heights",
        ),
        Wrong(
            "int() rounds",
            _BOX_HEAD + _GRID + _PIXELS.replace("round", "int"),
            "int() cuts off",
        ),
        Wrong(
            "the scale may be rounded",
            _BOX_HEAD
            + _GRID
            + _PIXELS.replace(
                "v * size[i % 2] / grid[i % 2]",
                "v * round(size[i % 2] / grid[i % 2], 2)",
            ),
            "Round once",
        ),
        Wrong(
            "numbers need no rounding",
            _BOX_HEAD + _GRID + _PIXELS.replace("round", "float"),
            "whole pixels",
        ),
    ),
)

EXERCISES = (PARSER, VERSION, BOX)
