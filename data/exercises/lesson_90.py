"""Exercises of lesson 90: a blind guess, a split by hash, labels, a whole thought."""

import builtins
import math
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from numbers import Real
from unittest.mock import patch

from qwen_course import tasks
from qwen_course.checks import Exercise, Wrong

# --- 90.1 ---------------------------------------------------------------------------

_BLIND = (
    (list("10009"), list("07777799"), "Find the answer that was most frequent."),
    (list("0123456789") + ["4"], list("0123456789"), "Ten digits, equally often."),
    (list("334"), list("3333"), "Not every set of answers has ten kinds."),
    (list("2225678"), list("1345"), "A favourite may never be right."),
    (
        list("1331215"),
        list("113444499"),
        "The most frequent answer need not stand side by side, nor be the first that"
        " comes again: count each one in all of training.",
    ),
)


def _check_blind(answer: Callable[..., object]) -> str | None:
    for training, tests, note in _BLIND:
        favourite = max(training, key=training.count)
        expected = tests.count(favourite) / len(tests)
        got = answer([*training], [*tests])
        value = float(got) if isinstance(got, Real) else math.nan
        if abs(value - expected) < 1e-9:
            continue
        if not isinstance(got, Real):
            note = "Return one number, the share."
        elif value == tests.count(favourite):
            note = "That is how many it gets right. A share is a part of all tests."
        elif value == 0:
            note = (
                "Nothing is right? Compare the tests with the favourite itself, a text:"
                " no number, and no pair of answer and count. Divide with /, not //."
            )
        elif value > 1 and abs(value - 100 * expected) < 1:
            note = "Return a share, from 0 to 1, not per cent."
        elif value == tests.count(favourite) / len(training):
            note = "It is asked the tests: their number divides, not that of training."
        elif value == training.count(favourite) / len(training):
            note = (
                "That is its share in training. Count how often the favourite is right"
                " in the tests."
            )
        elif value == tests.count(max(training)) / len(tests):
            note = "That is the largest answer of training, not the most frequent one."
        elif value == tests.count(sorted(training)[len(training) // 2]) / len(tests):
            note = (
                "That is the answer in the middle when training is sorted, not the most"
                " frequent one."
            )
        elif value == 0.5:
            note = (
                "Right or wrong are two outcomes, but not equally likely ones: nobody"
                " flips a coin here, it is one answer among several."
            )
        elif value == max(map(tests.count, tests)) / len(tests):
            note = (
                "You looked at the answers of the tests to choose the guess. Only the"
                " training answers are known before."
            )
        elif value == 1 / len({*training}):
            note = (
                "That is a draw among all kinds of answers. A blind guess does better"
                " or worse when some answers are more frequent than others."
            )
        return (
            f"{note}\n  input: training={''.join(training)}, tests={''.join(tests)}"
            f"\n  expected: {expected:g}\n  got: {got!r}"
        )
    return None


BLIND = Exercise(
    id="90.1",
    title="the score of a blind guess",
    minutes=5,
    stars=1,
    check=_check_blind,
    hints=(
        "A model that never reads the question learns one thing: which answer was most"
        " frequent in training.",
        "max(training, key=training.count) is that answer.",
        "Then count how often it is right in the tests.",
    ),
    solution='''\
def blind_share(training, tests):
    """Return the share of tests that training's favourite gets right."""
    favourite = max(training, key=training.count)
    return tests.count(favourite) / len(tests)''',
    name="blind_share",
    stub='''\
def blind_share(training, tests):
    """Return the share of tests that training's favourite gets right."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "right or wrong: chance is 50 %",
            "def blind_share(training, tests):\n    return 0.5",
            "nobody flips a coin",
        ),
        Wrong(
            "chance is one of the number of kinds",
            "def blind_share(training, tests):\n    return 1 / len(set(training))",
            "a draw among all kinds",
        ),
        Wrong(
            "the favourite may be taken from the tests",
            "def blind_share(training, tests):\n"
            "    favourite = max(tests, key=tests.count)\n"
            "    return tests.count(favourite) / len(tests)",
            "looked at the answers of the tests",
        ),
    ),
)

# --- 90.2 ---------------------------------------------------------------------------


class _InAnotherRun(str):
    """A question with the hash() that another run of Python might give it."""

    def __hash__(self) -> int:
        return _another_hash(str(self))

    def __eq__(self, other: object) -> bool:
        return self is other  # what was kept in a list is gone


def _another_hash(value: object) -> int:
    """The hash() of another run: of texts and what holds them it is another."""
    if isinstance(value, str | bytes):
        text = value if isinstance(value, bytes) else str.encode(value)
        return int.from_bytes(text[::-1][:8].ljust(8, b"?"), "big")
    if isinstance(value, tuple | frozenset):
        return _HASH(tuple(map(_another_hash, value)))
    return _HASH(value)


_HASH = hash


def _questions() -> list[str]:
    """Questions of both sides of the course's split, which answers may well repeat."""
    return [
        problem.question
        for level in (2, 3, 4)
        for held_out, number in ((True, 30), (False, 270))
        for problem in tasks.draw("chain", number, held_out=held_out, levels=[level])
    ]


def _uneven(questions: list[str], first: list[bool]) -> str:
    """Return of which kind of question far more or fewer than 10 % are in the tests."""
    starts = [f"those that start with {q[11]}" for q in questions]
    lengths = [f"those of {q.count(', ')} operations" for q in questions]
    for kinds in (starts, lengths):
        held = Counter(k for k, chosen in zip(kinds, first, strict=True) if chosen)
        for kind, number in Counter(kinds).items():
            part, most = held[kind] / number, sum(first) / len(first) + 0.15
            if not 0 < part < most:
                return f"; of {kind} {part:.0%}"
    return ""


def _check_split(answer: Callable[[str], object]) -> str | None:
    questions = _questions()
    first = [bool(answer(question)) for question in questions]
    again = [bool(answer(question)) for question in reversed(questions)][::-1]
    with patch.object(builtins, "hash", _another_hash):
        other = [bool(answer(_InAnotherRun(question))) for question in questions[::-1]]
    other.reverse()
    for second, how, note in (
        (
            again, "twice",
            "The same question was in the tests, then in training: a model would be"
            " asked what it was taught. Neither chance nor order may decide.",
        ),
        (
            other, "in two runs",
            "hash() of a text is another number in each run of Python, and what a list"
            " or dictionary has kept is gone: tomorrow the model of today would meet"
            " its training problems in the tests.",
        ),
    ):  # fmt: skip
        if first != second:
            place = [a == b for a, b in zip(first, second, strict=True)].index(False)
            return (
                f"{note}\n  input: {questions[place]!r}, {how}\n  expected: the same"
                f" both times\n  got: {first[place]}, {second[place]}"
            )
    share, uneven = sum(first) / len(first), _uneven(questions, first)
    if 0.05 < share < 0.15 and not uneven:
        return None
    if share <= 0.05:
        note = "Too few are in the tests."
    elif not uneven:
        note = "Too many are in the tests: True is for one in ten, False for the rest."
    else:
        note = (
            "The split depends on the kind of question: the tests would have too many"
            " of one kind and none of another."
        )
    return (
        f"{note}\n  input: {len(questions)} chains of 2 to 4 operations\n  expected:"
        f" about 10 % in the tests, of each kind\n  got: {share:.0%}{uneven}"
    )


SPLIT = Exercise(
    id="90.2",
    title="held out for ever",
    minutes=8,
    stars=2,
    check=_check_split,
    hints=(
        "You need a number that depends on every letter of the question, and on nothing"
        " else: not on the day, not on a list, not on chance.",
        "hashlib.md5(question.encode()).hexdigest() is such a number, in base 16.",
        "int(text, 16) reads it; one of ten is divisible by 10.",
    ),
    solution='''\
import hashlib


def for_tests(question):
    """Return True for about one question in ten, for ever the same."""
    digest = hashlib.md5(question.encode()).hexdigest()
    return int(digest, 16) % 10 == 0''',
    name="for_tests",
    stub='''\
def for_tests(question):
    """Return True for about one question in ten, for ever the same."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "a random split is a clean split",
            "import random\n\n\n"
            "def for_tests(question):\n"
            "    return random.random() < 0.1",
            "asked what it was taught",
        ),
        Wrong(
            "hash() is a property of the text",
            "def for_tests(question):\n    return hash(question) % 10 == 0",
            "another number in each run",
        ),
        Wrong(
            "any property of the text will do",
            "def for_tests(question):\n    return len(question) % 10 == 0",
            "depends on the kind of question",
        ),
    ),
)

# --- 90.3 ---------------------------------------------------------------------------

_ROWS = (
    ([5, 6, 7], [8, 9], 7),
    ([4, 5, 4, 0, 6], [0, 4, 9, 2], 9),
    ([3], [7, 7, 1], 12),
    ([1, 2], [3, 4], 4),
)


def _check_labels(answer: Callable[..., object]) -> str | None:
    for read, write, width in _ROWS:
        start, end = len(read), len(read) + len(write)
        expected = [-100] * start + write + [-100] * (width - end)
        given = answer([*read], [*write], width)
        got = list(islice(given, 99)) if isinstance(given, Iterable) else [given]
        if got == expected:
            continue
        note = "Labels stand where the token stands that they tell."
        if given is None:
            note = "You return nothing: return the labels."
        elif got == [0 if label == -100 else label for label in expected]:
            note = "0 is a token, too: only -100 says that a place does not count."
        elif got == expected[end:] + expected[:end]:
            note = "The padding fills the end of the row, not its beginning."
        elif (
            got == [-100 if i in read else i for i in [*read, *write]] + expected[end:]
        ):
            note = "Ids can occur in both: what is read is known by its place alone."
        elif width == end and (len(got) != width or not {*got} - {-100}):
            note = "This row is full: its padding is empty."
        elif [i for i in got if i != -100] == [*dict.fromkeys(write)] != write:
            note = "An id can occur twice in `write`: each of its places counts."
        elif got == expected[1:]:
            note = (
                "You moved the labels by hand, and one is missing. The loss itself"
                " looks one place ahead."
            )
        elif len(got) != width:
            note = f"The row has {width} places, so it needs {width} labels, not"
            note += f" {len(got)}."
        elif got[:start] == read:
            note = (
                "The question is read, not learnt: counted, it would train the model"
                " to write questions."
            )
        elif got[start - 1 : end - 1] == write:
            note = (
                "You moved the labels by hand. The loss itself looks one place ahead:"
                " moved twice, each place must tell the token after the next."
            )
        elif any(got) and all(
            label in (-100, right) for label, right in zip(got, expected, strict=True)
        ):
            note = "All ids of `write` count: here some are left out."
        elif got[:end] == expected[:end]:
            note = "Padding is no text: a label there teaches it to write padding."
        return (
            f"{note}\n  input: read={read}, write={write}, width={width}"
            f"\n  expected: {expected}\n  got: {given!r}"
        )
    return None


LABELS = Exercise(
    id="90.3",
    title="label what counts",
    minutes=5,
    stars=1,
    check=_check_labels,
    hints=(
        "Three parts: what is read, what is written, and what fills the row.",
        "Only the middle part keeps its ids. How long is the last part?",
        "[-100] * 3 is a list of three labels that do not count.",
    ),
    solution='''\
def labels_of(read, write, width):
    """Return the labels of one row; -100 where nothing counts."""
    padding = width - len(read) - len(write)
    return [-100] * len(read) + write + [-100] * padding''',
    name="labels_of",
    stub='''\
def labels_of(read, write, width):
    """Return the labels of one row; -100 where nothing counts."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "every token of the text counts",
            "def labels_of(read, write, width):\n"
            "    text = read + write\n"
            "    return text + [-100] * (width - len(text))",
            "The question is read, not learnt",
        ),
        Wrong(
            "the label of a place is the next token",
            "def labels_of(read, write, width):\n"
            "    labels = [-100] * (len(read) - 1) + write\n"
            "    return labels + [-100] * (width - len(labels))",
            "looks one place ahead",
        ),
        Wrong(
            "padding is text, too",
            "def labels_of(read, write, width):\n"
            "    labels = [-100] * len(read) + write\n"
            "    return labels + [0] * (width - len(labels))",
            "Padding is no text",
        ),
        Wrong(
            "labels are the answer alone",
            "def labels_of(read, write, width):\n    return write",
            "places, so it needs",
        ),
    ),
)

# --- 90.4 ---------------------------------------------------------------------------

_THOUGHTS = ((0.02, 34), (0.1, 1), (0.0, 40), (0.1, 25), (2.303, 1), (0.005, 110))


def _check_whole(answer: Callable[[float, int], object]) -> str | None:
    for loss, tokens in _THOUGHTS:
        expected, got = math.exp(-loss * tokens), answer(loss, tokens)
        value = float(got) if isinstance(got, Real) else math.nan
        if abs(value - expected) < 1e-5:
            continue
        note = "Probabilities of one token after the other are multiplied."
        if not isinstance(got, Real):
            note = "Return one number, a probability."
        elif value > 1:
            note = "More than 1 is no probability. Look at the sign, and at p times p."
        elif value < 0 or value == -loss * tokens:
            note = "That is log p, so no probability: exp() is missing."
        elif min(abs(value - base ** (-loss * tokens)) for base in (2, 10)) < 1e-6:
            note = "A loss has the natural logarithm, of base e."
        elif abs(value - math.exp(-loss)) < 1e-6:
            note = (
                "That is one token. The thought is right only if all of them are, and"
                " each one is a new chance to fail."
            )
        elif abs(value - math.exp(-loss / tokens)) < 1e-6:
            note = "The loss is that of each token already: do not share it out."
        elif abs(value - 1 + expected) < 1e-6:
            note = "That is the chance of an error. All right is the other one."
        elif any(
            abs(value - error) < 1e-9
            for error in (1 - loss, 1 - loss * tokens, (1 - loss) ** tokens)
        ):
            note = (
                "A loss is no error rate: it is -log p, and p = exp(-loss). Close to 0"
                " the two look alike."
            )
        elif any(abs(value - e ** (-loss * tokens)) < 1e-9 for e in (2.7, 2.72, 2.718)):
            note = "These digits of e are too few: take math.exp."
        elif value in [round(expected, digits) for digits in range(1, 6)]:
            note = "Do not round: return the probability as it is."
        return (
            f"{note}\n  input: loss={loss}, tokens={tokens}"
            f"\n  expected: {expected:.4f}\n  got: {got!r}"
        )
    return None


WHOLE = Exercise(
    id="90.4",
    title="is a small loss small enough?",
    minutes=5,
    stars=2,
    check=_check_whole,
    hints=(
        "loss = -log p. What is p of one token? (lesson 00b)",
        "All tokens must be right: p times p times p, once for each token.",
        "exp(-loss) ** tokens is the same as exp(-loss * tokens).",
    ),
    solution='''\
import math


def whole_thought(loss, tokens):
    """Return the probability that all tokens are right."""
    return math.exp(-loss * tokens)''',
    name="whole_thought",
    stub='''\
def whole_thought(loss, tokens):
    """Return the probability that all tokens are right."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "the mean probability of a token is the share of right answers",
            "import math\n\n\n"
            "def whole_thought(loss, tokens):\n"
            "    return math.exp(-loss)",
            "each one is a new chance to fail",
        ),
        Wrong(
            "a loss is an error rate",
            "def whole_thought(loss, tokens):\n    return 1 - loss",
            "no error rate",
        ),
        Wrong(
            "error rates of tokens add up",
            "def whole_thought(loss, tokens):\n    return 1 - loss * tokens",
            "no error rate",
        ),
    ),
)

EXERCISES = [BLIND, SPLIT, LABELS, WHOLE]
