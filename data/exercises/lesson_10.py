"""Exercises of lesson 10: promises, scope, a grader, the format, does tuning pay."""

from collections.abc import Callable
from typing import Any

from qwen_course.answers import interval
from qwen_course.checks import Exercise, Wrong

Answer = Callable[..., Any]

# --- 10.1 ---------------------------------------------------------------------------

_PROMISES = {"right": ("at least", 0.9), "seconds": ("at most", 5.0)}
_OTHERS = {
    "tokens": ("at most", 300), "seconds": ("at least", 1), "agree": ("at least", 0.5),
    "gain": ("at least", 0),
}  # fmt: skip
_MEASURED: tuple[tuple[dict[str, Any], list[str], str], ...] = (
    (
        {"right": 0.95, "seconds": 7.0}, ["seconds"],
        "seconds may be AT MOST 5: here a large number is bad.",
    ),
    (
        {"right": 0.95, "seconds": 2.0}, [],
        "Both promises are kept: return an empty list.",
    ),
    ({"right": 0.8, "seconds": 2.0}, ["right"], "right is below its limit."),
    (
        {"seconds": 9.0, "right": 0.2}, ["right", "seconds"],
        "Both are broken. The order is that of the promises, not of the measurements.",
    ),
    (
        {"right": 0.9, "seconds": 5.0}, [],
        "A number right at its limit keeps the promise.",
    ),
    (
        {"seconds": 1.0}, ["right"],
        "What was not measured is not kept: right is missing.",
    ),
    (
        {"right": None, "seconds": 1.0}, ["right"],
        "None means that nothing was measured, so the promise is broken.",
    ),
    (
        {"right": float("nan"), "seconds": float("nan")}, ["right", "seconds"],
        "nan is no number: no comparison with it is true.",
    ),
    (
        {"right": 0.0, "seconds": 0.0, "cost": 10.0}, ["right"],
        "0 is a measurement like any other, and nobody promised a cost.",
    ),
)  # fmt: skip
_MEASURED_OTHERS: tuple[tuple[dict[str, Any], list[str], str], ...] = (
    (
        {"tokens": 200, "seconds": 2, "agree": 0.7, "gain": 1}, [],
        "Names, signs and limits are those of the promises, not of the example.",
    ),
    (
        {"agree": 0.4, "seconds": 2}, ["tokens", "agree", "gain"],
        "The order is that of the promises: what was not measured has its place, too.",
    ),
    (
        {"tokens": float("nan"), "seconds": None, "agree": 0.4, "gain": 1},
        ["tokens", "seconds", "agree"],
        "The order is that of the promises: None and nan have their place, too.",
    ),
)  # fmt: skip


def _check_broken(answer: Answer) -> str | None:
    rows = [(*row, _PROMISES) for row in _MEASURED]
    rows += [(*row, _OTHERS) for row in _MEASURED_OTHERS]
    for measured, right, note, promises in rows:
        got = answer(dict(measured), dict(promises))
        if isinstance(got, list | tuple) and list(got) == right:
            continue
        if not isinstance(got, list | tuple):
            note = "Return a list of names."
        elif right and got and list(got) == [n for n in promises if n not in right]:
            note = "These are the promises that are kept: the others are wanted."
        return (
            f"{note}\n  input: {measured}, {promises}\n  expected: {right}\n"
            f"  got: {got!r}"
        )
    return None


_BROKEN_HEAD = "def broken(measured, promises):\n"
_BROKEN = """\
    names = []
    for name, (sign, limit) in promises.items():
        value = measured.get(name)
        kept = value is not None and (
            value >= limit if sign == "at least" else value <= limit)
        if not kept:
            names.append(name)
    return names"""
BROKEN = Exercise(
    id="10.1",
    title="which promises are broken",
    minutes=10,
    stars=1,
    check=_check_broken,
    hints=(
        "Ask of each promise: is it KEPT? Everything else is broken, also what nobody"
        " measured.",
        "measured.get(name) is None where the name is missing. A comparison with nan is"
        " False, so write the comparison that must be True.",
        "For each name: value = measured.get(name). It is kept if value is not None and"
        " (value >= limit for \"at least\", value <= limit for \"at most\").",
    ),
    solution=_BROKEN_HEAD + _BROKEN,
    name="broken",
    stub=_BROKEN_HEAD
    + '''\
    """Return the names of the promises that are not kept, in their order."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "more is always better",
            _BROKEN_HEAD
            + _BROKEN.replace("value <= limit", "value >= limit"),
            "AT MOST 5",
        ),
        Wrong(
            "what is missing is fine",
            _BROKEN_HEAD
            + _BROKEN.replace("value is not None and (", "value is None or ("),
            "What was not measured",
        ),
        Wrong(
            "the limit itself is bad",
            _BROKEN_HEAD
            + _BROKEN.replace("value >= limit", "value > limit").replace(
                "value <= limit", "value < limit"
            ),
            "right at its limit",
        ),
        Wrong(
            "ask whether it is broken: nan slips through",
            _BROKEN_HEAD
            + """\
    names = []
    for name, (sign, limit) in promises.items():
        value = measured.get(name)
        if value is None or (
                value < limit if sign == "at least" else value > limit):
            names.append(name)
    return names""",
            "nan is no number",
        ),
        Wrong(
            "0 counts as missing",
            _BROKEN_HEAD + _BROKEN.replace("value is not None and", "value and"),
            "0 is a measurement",
        ),
        Wrong(
            "the order of the measurements",
            _BROKEN_HEAD
            + """\
    names = [name for name, value in measured.items() if name in promises
             and not (value is not None and (value >= promises[name][1]
             if promises[name][0] == "at least" else value <= promises[name][1]))]
    return names + [name for name in promises if name not in measured]""",
            "The order is that of the promises",
        ),
        Wrong(
            "says only whether all hold",
            _BROKEN_HEAD + _BROKEN.replace("return names", "return not names"),
            "Return a list",
        ),
    ),
)  # fmt: skip

# --- 10.2 ---------------------------------------------------------------------------

_ASK = "What is the last digit?"
_OPERATIONS = ["add 4", "add 7", "double it", "multiply by 7"]
_TYPED: tuple[tuple[str, bool, str], ...] = (
    (f"Start with 3, add 4, then double it. {_ASK}", True, "This is a chain of two."),
    (
        f"Start with 0, add 7, double it, then multiply by 7. {_ASK}", True,
        "0 is a digit, and three operations are fine.",
    ),
    (
        f"Start with 3, then add 4. {_ASK}", False,
        "One operation only: the tutor promises two or more.",
    ),
    (
        f"Start with 5, add 4, add 7, double it, then multiply by 7. {_ASK}", True,
        "Two operations or more: four are fine, too.",
    ),
    (
        f"Start with 3, then add 4, double it. {_ASK}", False,
        "'then' stands before the first operation, not before the last.",
    ),
    (
        f"Start with 12, add 4, then double it. {_ASK}", False,
        "The model knows starts of one digit, 12 has two.",
    ),
    (
        f"Start with 3, add 4, then halve it. {_ASK}", False,
        "'halve it' is not in the list of operations.",
    ),
    (
        f"Start with 3, add 4, then add 4. {_ASK}", False,
        "The model never saw the same operation twice.",
    ),
    (
        f"Start with 3, add 4, double it, then add 4. {_ASK}", False,
        "'add 4' comes twice, if not twice in a row.",
    ),
    (
        f"Start with 3, add 4, add 4, then double it. {_ASK}", False,
        "'add 4' comes twice: look at all operations, not at the last alone.",
    ),
    (
        f"Start with 3, add 4, then double it? {_ASK}", False,
        "A full stop ends the chain, no other sign.",
    ),
    (
        "Start with 3, add 4, then double it. What is the first digit?", False,
        "It asks for another thing: the end of the question must fit, too.",
    ),
    (
        f"Please start. Start with 3, add 4, then double it. {_ASK}", False,
        "Something stands before 'Start with'.",
    ),
    (
        f"Start with 3, add 4, then double it. {_ASK} And write a poem.", False,
        "Something stands behind the question.",
    ),
    (
        f"Start with 3, add 4, double it. {_ASK}", False,
        "'then' is missing before the last operation: the model knows it only with.",
    ),
    (
        f"Start with 3, then add 4, then double it. {_ASK}", False,
        "'then' stands before the last operation alone.",
    ),
    ("", False, "An empty text is no chain."),
    (
        f"Start with x, add 4, then double it. {_ASK}", False,
        "x is no digit.",
    ),
    (
        f"Start with , add 4, then double it. {_ASK}", False,
        "The digit is missing.",
    ),
    (
        f"Start with 3, add 4, then then double it. {_ASK}", False,
        "'then' stands there twice.",
    ),
    (
        f"Start with 3,add 4, then double it. {_ASK}", False,
        "A comma and a space stand before each operation: here is no space.",
    ),
    (
        f"Start with 3, add 4, then double it. {_ASK}\n", False,
        "A line break stands behind the question: that is another text.",
    ),
    (
        f"start with 3, add 4, then double it. {_ASK}", False,
        "Small and capital letters are different signs.",
    ),
    (
        f"Start with 3, add 4, then double. {_ASK}", False,
        "'double' is only a part of an operation.",
    ),
    (
        f"Start with 03, add 4, then double it. {_ASK}", False,
        "03 has two digits: the start is one.",
    ),
    (
        f"Start with  3, add 4, then double it. {_ASK}", False,
        "Two spaces stand before the digit: that is another text.",
    ),
    (
        f"Start with 3, add 4 , then double it. {_ASK}", False,
        "A space stands before the comma: that is another text.",
    ),
    (
        f"Start with 3, add 4, thendouble it. {_ASK}", False,
        "A space stands behind 'then': here is none.",
    ),
    (
        f"Start with 3, add 4, then double it {_ASK}", False,
        "The full stop is missing.",
    ),
    (f"Start with 3. {_ASK}", False, "There is no operation at all."),
    (
        f"Start with Start with 3, add 4, then double it. {_ASK}", False,
        "'Start with' stands there twice: take it off once, at the beginning.",
    ),
    (
        f"Start with 3, add 4, then double it. {_ASK}. {_ASK}", False,
        "The question stands there twice: take it off once, at the end.",
    ),
    (
        f"Start with 3, add 4, then double it.. {_ASK}", False,
        "There are two full stops: the form has one.",
    ),
    (
        f"Start with 3, add 4 then double it. {_ASK}", False,
        "A comma and a space stand before 'then', too: here is no comma.",
    ),
    (
        f"Start with 3, Add 4, then double it. {_ASK}", False,
        "'Add 4' is not in the list: small and capital letters are different signs.",
    ),
)  # fmt: skip
_HALVE = ["halve it", "add 4"]


def _check_scope(answer: Answer) -> str | None:
    other = (
        f"Start with 9, add 4, then halve it. {_ASK}",
        True,
        "What may be done is what the list says, not what the example says.",
    )
    rows = [(*row, _OPERATIONS) for row in _TYPED] + [(*other, _HALVE)]
    given = list(_OPERATIONS)  # the same list each time, as in a notebook
    for text, right, note, operations in rows:
        got = answer(text, given if operations is _OPERATIONS else list(operations))
        if given != _OPERATIONS:
            return "Your code changed the list of operations. Leave it as it is."
        if got is not right:
            if not isinstance(got, bool):
                note = "Return True or False."
            return (
                f"{note}\n  input: {text!r}, {operations}\n  expected: {right}\n"
                f"  got: {got!r}"
            )
    return None


_SCOPE_HEAD = "def in_scope(text, operations):\n"
_SCOPE = """\
    first, end = "Start with ", ". What is the last digit?"
    if not (text.startswith(first) and text.endswith(end)):
        return False
    digit, *steps = text[len(first):-len(end)].split(", ")
    if len(digit) != 1 or digit not in "0123456789" or len(steps) < 2:
        return False
    if not steps[-1].startswith("then "):
        return False
    steps[-1] = steps[-1].removeprefix("then ")
    known = all(step in operations for step in steps)
    return known and len(set(steps)) == len(steps)"""
SCOPE = Exercise(
    id="10.2",
    title="is it a question for this tutor",
    minutes=15,
    stars=2,
    check=_check_scope,
    hints=(
        "Take off the start and the end first. What is left, parted at the commas, is a"
        " digit and the operations.",
        'text.startswith("Start with "), text.endswith(". What is the last digit?");'
        ' the middle .split(", "). Only the last part begins with "then ".',
        "Then five questions: one digit? two or more operations? does the last begin"
        " with 'then '? is each in the list? is none there twice (len(set(steps)))?",
    ),
    solution=_SCOPE_HEAD + _SCOPE,
    name="in_scope",
    stub=_SCOPE_HEAD
    + '''\
    """Return whether the text is a chain that the model was trained on."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "how it begins is enough",
            _SCOPE_HEAD + '    return text.startswith("Start with ")',
            "One operation only",
        ),
        Wrong(
            "the start may have two digits",
            _SCOPE_HEAD
            + _SCOPE.replace('len(digit) != 1 or digit not in "0123456789"',
                             "not digit.isdigit()"),
            "12 has two",
        ),
        Wrong(
            "any operation will do",
            _SCOPE_HEAD + _SCOPE.replace("return known and", "return"),
            "not in the list",
        ),
        Wrong(
            "an operation may come twice",
            _SCOPE_HEAD
            + _SCOPE.replace("return known and len(set(steps)) == len(steps)",
                             "return known"),
            "the same operation twice",
        ),
        Wrong(
            "'then' does not matter",
            _SCOPE_HEAD
            + _SCOPE.replace(
                '    if not steps[-1].startswith("then "):\n        return False\n', ""
            ),
            "'then' is missing",
        ),
        Wrong(
            "look for the words anywhere",
            _SCOPE_HEAD
            + """\
    if "Start with " not in text or "What is the last digit?" not in text:
        return False
    middle = text.split("Start with ")[1].split(". What is")[0]
    digit, *steps = middle.split(", ")
    steps[-1:] = [s.removeprefix("then ") for s in steps[-1:]]
    return (digit in "0123456789" and len(digit) == 1 and len(steps) > 1
            and all(s in operations for s in steps)
            and len(set(steps)) == len(steps))""",
            "Something stands before",
        ),
        Wrong(
            "'then' is taken off everywhere",
            _SCOPE_HEAD
            + _SCOPE.replace(
                '    steps[-1] = steps[-1].removeprefix("then ")',
                '    steps = [step.removeprefix("then ") for step in steps]',
            ),
            "the last operation alone",
        ),
    ),
)  # fmt: skip

# --- 10.3 ---------------------------------------------------------------------------

_GRADED: tuple[tuple[list[tuple[str, str]], list[str], list[int], str], ...] = (
    (
        [("6", "stop"), ("The last digit is 4.", "stop"), ("7", "stop")],
        ["6", "4", "2"], [2, 1, 0],
        "6 and 4 are right (words around a number do not matter), 7 is wrong.",
    ),
    (
        [("16", "stop")], ["6"], [0, 1, 0],
        "16 is another number than 6. Compare whole numbers.",
    ),
    (
        [("3 times 2 is 6", "stop")], ["6"], [1, 0, 0],
        "The last number counts: 6.",
    ),
    (
        [("", "stop"), ("I cannot say.", "stop")], ["1", "1"], [0, 0, 2],
        "A reply without a number is no answer, not a wrong one.",
    ),
    (
        [("6", "length")], ["6"], [0, 0, 1],
        "This reply was cut: whatever stands there is no answer.",
    ),
    (
        [("Let me think", "length")], ["6"], [0, 0, 1],
        "This one was cut and holds no number: it is one reply, so count it once.",
    ),
    (
        [("It is 4+8=**12**!", "stop"), ("(7)", "stop")], ["12", "7"], [2, 0, 0],
        "Signs may stand around a number, and it may have two digits.",
    ),
    (
        [("3 times 12 is 36, so it ends in 6, I think.", "stop")], ["6"], [1, 0, 0],
        "The last number counts, not the largest, and words may follow it: 6.",
    ),
    (
        [("1", "stop"), ("2", "stop")], ["2", "1"], [0, 2, 0],
        "Each reply has its own answer: the first belongs to the first.",
    ),
    (
        [("12 times 12\nis 144.\nThat is all.", "stop")], ["144"], [1, 0, 0],
        "A reply can have several lines, and a number three digits: 144.",
    ),
    ([("2", "stop")], ["22"], [0, 1, 0], "2 is only a part of 22."),
    (
        [("3", "stop"), ("3", "stop")], ["3", "4"], [1, 1, 0],
        "Two replies can be equal: each is compared with its own answer.",
    ),
    (
        [("6 plus 3 is 9.", "stop")], ["6"], [0, 1, 0],
        "6 is a number of this reply, but not the last: that is 9.",
    ),
    (
        [("0", "stop"), ("10 ends in 0.", "stop")], ["0", "7"], [1, 1, 0],
        "0 is a number like any other, though Python takes the number 0 for False.",
    ),
    ([], [], [0, 0, 0], "No replies: three times 0."),
)  # fmt: skip
_KINDS = ("right", "wrong", "no answer")


def _check_grade(answer: Answer) -> str | None:
    before = [0, 0, 0]
    for replies, answers, counts, note in _GRADED:
        before = [old + new for old, new in zip(before, counts, strict=True)]
        right = dict(zip(_KINDS, counts, strict=True))
        got = answer([*replies], [*answers])
        if got != right:
            if not isinstance(got, dict) or set(got) != set(_KINDS):
                note = f"Return a dictionary with the keys {', '.join(_KINDS)}."
            elif counts == [2, 1, 0] and not got["right"]:
                note = 'Nothing is right? The number 6 never equals the text "6".'
            elif [got[kind] for kind in _KINDS] == before != counts:
                note = "The counts of an earlier call are in these: begin each at 0."
            return (
                f"{note}\n  input: {replies}, {answers}\n  expected: {right}\n"
                f"  got: {got!r}"
            )
    return None


_GRADE_HEAD = "import re\n\n\ndef grade(replies, answers):\n"
_GRADE = """\
    counts = {"right": 0, "wrong": 0, "no answer": 0}
    for (text, stop), answer in zip(replies, answers, strict=True):
        numbers = re.findall(r"\\d+", text)
        if stop == "length" or not numbers:
            counts["no answer"] += 1
        elif numbers[-1] == answer:
            counts["right"] += 1
        else:
            counts["wrong"] += 1
    return counts"""
GRADE = Exercise(
    id="10.3",
    title="right, wrong, no answer",
    minutes=10,
    stars=1,
    check=_check_grade,
    hints=(
        "Three kinds, and the order of the questions matters: first ask whether there"
        " is an answer at all.",
        'import re; re.findall(r"\\d+", text) gives all whole numbers of a text, as'
        " texts.",
        'Cut (stop == "length") or without a number: "no answer". Else compare the last'
        " number with the answer, both as texts.",
    ),
    solution=_GRADE_HEAD + _GRADE,
    name="grade",
    stub="""\
def grade(replies, answers):
    \"\"\"Return how many are "right", "wrong" and "no answer".\"\"\"
    raise NotImplementedError""",
    wrong=(
        Wrong(
            "the answer stands somewhere in the text",
            _GRADE_HEAD + _GRADE.replace("numbers[-1] == answer", "answer in text"),
            "16 is another number",
        ),
        Wrong(
            "the first number counts",
            _GRADE_HEAD + _GRADE.replace("numbers[-1]", "numbers[0]"),
            "The last number counts",
        ),
        Wrong(
            "without an answer it is wrong",
            _GRADE_HEAD
            + _GRADE.replace('counts["no answer"] += 1', 'counts["wrong"] += 1'),
            "no answer, not a wrong one",
        ),
        Wrong(
            "a cut reply counts",
            _GRADE_HEAD + _GRADE.replace('stop == "length" or ', ""),
            "This reply was cut",
        ),
        Wrong(
            "the text must be the answer alone",
            _GRADE_HEAD + _GRADE.replace("numbers[-1] == answer", "text == answer"),
            "words around a number",
        ),
        Wrong(
            "the last sign counts, not the last number",
            _GRADE_HEAD
            + _GRADE.replace("numbers[-1] == answer", "numbers[-1][-1] == answer"),
            "16 is another number",
        ),
    ),
)

# --- 10.4 ---------------------------------------------------------------------------


def _row(name: str, mb: float, right: int, n: int) -> dict[str, Any]:
    return {"name": name, "mb": mb, "right": right, "n": n}


_FORMATS: tuple[tuple[list[dict[str, Any]], float, str | None, str], ...] = (
    (
        [_row("fp32", 3.0, 100, 100), _row("int8", 0.9, 99, 100)], 0.9, "int8",
        "Both are good enough, int8 is smaller.",
    ),
    (
        [_row("int4", 0.5, 93, 100), _row("int8", 0.9, 99, 100)], 0.9, "int8",
        "93 of 100 is above 0.9, but its interval begins at 0.86: that is no promise.",
    ),
    (
        [_row("int4", 0.5, 10, 10), _row("int8", 0.9, 99, 100)], 0.9, "int8",
        "10 of 10 is only ten questions: the interval begins at 0.72.",
    ),
    (
        [_row("int3", 0.4, 60, 100), _row("int2", 0.3, 10, 100)], 0.9, None,
        "None of them is good enough: return None.",
    ),
    (
        [_row("int8", 0.9, 99, 100), _row("int4", 0.5, 100, 100),
         _row("int6", 0.7, 100, 100)], 0.9, "int4",
        "The smallest wins, wherever it stands in the list.",
    ),
    (
        [_row("a", 0.5, 190, 200), _row("b", 0.5, 199, 200)], 0.9, "b",
        "They are equally small: then take the one with the better interval.",
    ),
    (
        [_row("a", 0.5, 20, 20), _row("b", 0.5, 99, 100), _row("c", 0.5, 1740, 2000)],
        0.8, "b",
        "Of equally small ones neither the share nor the number of right answers nor"
        " the width decides, but the lower end.",
    ),
    (
        [_row("int8", 0.9, 190, 200), _row("mixed", 0.95, 1999, 2000)], 0.9, "int8",
        "Both are good enough, int8 is smaller: how much better mixed is does not"
        " matter.",
    ),
    (
        [_row("int8", 0.9, 99, 100)], interval(99, 100)[0], "int8",
        "A lower end exactly at the floor is good enough.",
    ),
    (
        [_row("int4", 0.5, 188, 200), _row("int8", 0.9, 199, 200)], 0.9, "int8",
        "The interval of 188 of 200 begins at 0.898, below 0.9: do not round.",
    ),
    (
        [_row("b", 0.5, 199, 200), _row("a", 0.5, 190, 200)], 0.9, "b",
        "The first of two equally small ones has the higher lower end. Keep that end"
        " whenever you keep a name.",
    ),
    (
        [_row("fp32", 3.0, 100, 100), _row("c", 0.5, 188, 200),
         _row("d", 0.5, 190, 200)], 0.8, "d",
        "c and d are equally small, and d is better than c. How good the large fp32 was"
        " does not matter: keep the lower end whenever you keep a name.",
    ),
    ([], 0.5, None, "There is no format at all: return None."),
)  # fmt: skip


def _check_format(answer: Answer) -> str | None:
    for rows, floor, right, note in _FORMATS:
        got = answer([dict(row) for row in rows], floor, interval)
        if got != right:
            if got is not None and not isinstance(got, str):
                note = "Return the name of the format alone, a text, or None."
            elif got is None and len(rows) > 1:
                note = (
                    "You return nothing, or None. Yet some hold: the smallest of those,"
                    " not of all, is wanted."
                )
            return (
                f"{note}\n  input: {rows}, {floor}\n  expected: {right!r}\n"
                f"  got: {got!r}"
            )
    return None


_FORMAT_HEAD = "def smallest_format(formats, floor, interval):\n"
_FORMAT = """\
    good = []
    for row in formats:
        low, _ = interval(row["right"], row["n"])
        if low >= floor:
            good.append((row["mb"], -low, row["name"]))
    return min(good)[2] if good else None"""
FORMAT = Exercise(
    id="10.4",
    title="the smallest format that holds",
    minutes=12,
    stars=2,
    check=_check_format,
    hints=(
        "Leave out what cannot promise the floor, then take the smallest of the rest.",
        "low, high = interval(right, n). low is what you may promise.",
        'Collect (row["mb"], -low, row["name"]) of the good ones. min() of such a list'
        " is the smallest, and of equals the one with the highest low.",
    ),
    solution=_FORMAT_HEAD + _FORMAT,
    name="smallest_format",
    stub=_FORMAT_HEAD
    + '''\
    """Return the name of the smallest good enough format, or None."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "the share itself is compared",
            _FORMAT_HEAD
            + _FORMAT.replace('interval(row["right"], row["n"])',
                              'row["right"] / row["n"], 0'),
            "that is no promise",
        ),
        Wrong(
            "the upper end is compared",
            _FORMAT_HEAD + _FORMAT.replace("low, _ =", "_, low ="),
            "that is no promise",
        ),
        Wrong(
            "the best one, whatever its size",
            _FORMAT_HEAD
            + _FORMAT.replace('(row["mb"], -low, row["name"])',
                              '(-low, row["mb"], row["name"])'),
            "int8 is smaller",
        ),
        Wrong(
            "the first that is good enough",
            _FORMAT_HEAD + _FORMAT.replace("min(good)[2]", "good[0][2]"),
            "int8 is smaller",
        ),
        Wrong(
            "of equals, the first",
            _FORMAT_HEAD + _FORMAT.replace("-low, ", "0, "),
            "equally small",
        ),
        Wrong(
            "fails where none is good",
            _FORMAT_HEAD + _FORMAT.replace(" if good else None", ' if good else ""'),
            "return None",
        ),
    ),
)  # fmt: skip

# --- 10.5 ---------------------------------------------------------------------------


def _marks(text: str) -> list[bool]:
    """Return the marks that a text of + and - writes."""
    return [sign == "+" for sign in text]


_OLD = "+" * 95 + "-" * 5
_PAIRS: tuple[tuple[str, str, str, str, str], ...] = (
    (
        "-" * 60 + "+" * 40, "+" * 95 + "-" * 5, _OLD, _OLD,
        "it pays|60 were won, 5 were lost: far more than chance, and the old is kept.",
    ),
    (
        "-" * 60 + "+" * 40, "+" * 100, _OLD, "+" * 70 + "-" * 30,
        "it forgets|The new is won, but 25 of 100 old ones are gone.",
    ),
    (
        "+" * 50 + "-" * 50, "+" * 52 + "-" * 48, _OLD, _OLD,
        "no gain|2 won and none lost: less than twice the square root of 2.",
    ),
    (
        "+-" * 50, "-+" * 50, _OLD, _OLD,
        "no gain|50 won and 50 lost: nothing is gained, although all has changed.",
    ),
    (
        "+" * 90 + "-" * 10, "-" * 80 + "+" * 20, _OLD, "-" * 100,
        "no gain|It got worse. Look at the gain first.",
    ),
    (
        "-" * 60 + "+" * 40, "+" * 100, _OLD, "+" * 90 + "-" * 10,
        "it pays|5 of 100 old ones are lost: 5 % is still allowed, of all, not of the"
        " right ones.",
    ),
    (
        "-" * 60 + "+" * 40, "+" * 100, "+" * 10 + "-" * 10, "+" * 8 + "-" * 12,
        "it forgets|2 of 20 old ones are lost: that is 10 %, not 2.",
    ),
    (
        "-" * 10 + "+" * 90, "+" * 100, _OLD, _OLD,
        "it pays|10 won, none lost: 10 is more than twice the square root of 10. Those"
        " that stayed as they were do not count.",
    ),
    (
        "-" * 9, "+" * 9, "+" * 80 + "-" * 20, "+" * 100,
        "it pays|20 of the old ones are won, so none is gone.",
    ),
    (
        "-" * 9, "+" * 9, "+" * 38, "+" * 36 + "--",
        "it forgets|2 of 38 are 5.3 %, more than 5 %: do not round.",
    ),
    (
        "---", "+++", _OLD, _OLD,
        "no gain|3 won, none lost: 3 is less than twice the square root of 3, 3.46.",
    ),
    (
        "----+", "++++-", _OLD, _OLD,
        "no gain|4 won, 1 lost: 3 is less than twice the square root of 5.",
    ),
    (
        "----+", "+++++", _OLD, _OLD,
        "no gain|4 won, none lost: 4 is not more than twice the square root of 4.",
    ),
    (
        "-----+", "++++++", _OLD, _OLD,
        "it pays|5 won, none lost: 5 is more than twice the square root of 5.",
    ),
    (
        "-" * 7 + "+", "+" * 7 + "-", _OLD, _OLD,
        "it pays|7 won, 1 lost: 6 is more than twice the square root of 8, 5.66. Do not"
        " round.",
    ),
    (
        "-" * 20 + "+" * 10, "+" * 20 + "-" * 10, _OLD, _OLD,
        "no gain|20 won, 10 lost: 10 is less than twice the square root of 30.",
    ),
    (
        "+-" * 5, "+-" * 5, _OLD, _OLD,
        "no gain|Nothing has changed, and 0 is not more than 0.",
    ),
    (
        "-" * 9, "+" * 9, _OLD, "-" * 6 + "+" * 94,
        "it pays|Of the old ones 95 were right, then 94: 1 is gone, for what was newly"
        " won counts, too.",
    ),
    (
        "-" * 9, "+" * 9, "+" * 20, "+" * 19 + "-",
        "it pays|1 of 20 is 5 %, still allowed. Subtract numbers, not shares: to Python"
        " 1 - 0.95 is a little more than 0.05.",
    ),
)  # fmt: skip


def _check_pays(answer: Answer) -> str | None:
    for before, after, old_before, old_after, told in _PAIRS:
        right, note = told.split("|")
        got = answer(*map(_marks, (before, after, old_before, old_after)))
        if got == right:
            continue
        if got not in ("it pays", "it forgets", "no gain"):
            note = 'Return one of "it pays", "it forgets", "no gain".'
        pairs = [*zip(before, after, strict=True)]
        won, lost = pairs.count(("-", "+")), pairs.count(("+", "-"))
        return (
            f"{note}\n  input: new task, {len(pairs)} questions, {won} won, {lost} "
            f"lost; old task, {old_before.count('+')} right of {len(old_before)}, then "
            f"{old_after.count('+')}\n  expected: {right!r}\n  got: {got!r}"
        )
    return None


_PAYS_HEAD = "def verdict(before, after, old_before, old_after):\n"
_PAYS = """\
    pairs = list(zip(before, after, strict=True))
    won = pairs.count((False, True))
    lost = pairs.count((True, False))
    if won - lost <= 2 * (won + lost) ** 0.5:
        return "no gain"
    gone = sum(old_before) - sum(old_after)
    if gone > 0.05 * len(old_before):
        return "it forgets"
    return "it pays\""""
PAYS = Exercise(
    id="10.5",
    title="does tuning pay",
    minutes=12,
    stars=2,
    check=_check_pays,
    hints=(
        "Compare question by question: only those count that changed. zip(before,"
        " after) gives the pairs.",
        "The gain is real when won - lost is more than 2 times the square root of won"
        " + lost. Look at that first, at the old task second.",
        "sum(old_before) counts the marks that are True. Gone are sum(old_before) -"
        " sum(old_after); 5 % of len(old_before) are allowed.",
    ),
    solution=_PAYS_HEAD + _PAYS,
    name="verdict",
    stub=_PAYS_HEAD
    + '''\
    """Return "it pays", "it forgets" or "no gain"."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "any gain is a gain",
            _PAYS_HEAD
            + _PAYS.replace("won - lost <= 2 * (won + lost) ** 0.5", "won <= lost"),
            "2 won and none lost",
        ),
        Wrong(
            "count only what was won",
            _PAYS_HEAD
            + _PAYS.replace("won - lost <= 2 * (won + lost) ** 0.5",
                            "won <= 2 * won ** 0.5"),
            "nothing is gained",
        ),
        Wrong(
            "the old task does not matter",
            _PAYS_HEAD + _PAYS.replace("if gone > 0.05 * len(old_before)", "if False"),
            "old ones are gone",
        ),
        Wrong(
            "the old task is looked at first",
            _PAYS_HEAD
            + """\
    pairs = list(zip(before, after, strict=True))
    won = pairs.count((False, True))
    lost = pairs.count((True, False))
    if sum(old_before) - sum(old_after) > 0.05 * len(old_before):
        return "it forgets"
    return "it pays" if won - lost > 2 * (won + lost) ** 0.5 else "no gain\"""",
            "Look at the gain first",
        ),
        Wrong(
            "nothing may be lost",
            _PAYS_HEAD + _PAYS.replace("0.05 * len(old_before)", "0"),
            "5 % is still allowed",
        ),
        Wrong(
            "five questions, not five percent",
            _PAYS_HEAD + _PAYS.replace("0.05 * len(old_before)", "5"),
            "10 %, not 2",
        ),
        Wrong(
            "without the root",
            _PAYS_HEAD + _PAYS.replace(" ** 0.5", " ** 0"),
            "3 is less than twice",
        ),
    ),
)  # fmt: skip

EXERCISES = [BROKEN, SCOPE, GRADE, FORMAT, PAYS]
