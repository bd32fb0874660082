"""Exercises of lesson 00: slice a reply, know when it ended, its speed, test code."""

from collections.abc import Callable, Sequence
from numbers import Real

from qwen_course import answers
from qwen_course.checks import Exercise, Wrong
from qwen_course.generate import Reply

# --- 0.1 ----------------------------------------------------------------------------


class _Words:
    """A tokenizer of a few words: it decodes as the real one does."""

    all_special_tokens = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")

    def __init__(self) -> None:
        self.words = [*self.all_special_tokens]
        self.all_special_ids = [0, 1, 2]
        self.eos_token_id, self.pad_token_id = 1, 2

    def ids(self, *words: str) -> list[int]:
        self.words += [word for word in words if word not in self.words]
        return [self.words.index(word) for word in words]

    def decode(
        self,
        token_ids: int | Sequence[int],
        skip_special_tokens: bool = False,
        **_: object,  # such as clean_up_tokenization_spaces
    ) -> str:
        numbers = [token_ids] if isinstance(token_ids, int) else token_ids
        hidden = self.all_special_ids if skip_special_tokens else ()
        text = "".join(self.words[n] for n in numbers if n not in hidden)
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def batch_decode(
        self,
        sequences: Sequence[Sequence[int]],
        skip_special_tokens: bool = False,
        **_: object,
    ) -> list[str]:
        return [self.decode(row, skip_special_tokens) for row in sequences]

    def convert_ids_to_tokens(
        self, ids: Sequence[int], skip_special_tokens: bool = False
    ) -> list[str]:
        hidden = self.all_special_ids if skip_special_tokens else ()
        return [self.words[n] for n in ids if n not in hidden]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        return (
            "".join(tokens)
            .encode("utf-8", "surrogateescape")
            .decode("utf-8", "replace")
        )

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> int | list[int]:
        place = self.words.index
        return place(tokens) if isinstance(tokens, str) else [*map(place, tokens)]


def _turns(*question: str) -> tuple[str, ...]:
    start, end, _ = _Words.all_special_tokens
    return (start, "user", "\n", *question, end, "\n", start, "assistant", "\n")


_SLICES = (
    (
        _turns("Name a pet."),
        ("A", " cat.", "<|im_end|>"),
        "The reply begins right behind the last id of the prompt.",
    ),
    (
        _turns("Who are you?"),
        ("I am your", " ", "assistant", ".", "<|im_end|>"),
        "The word assistant may stand in an answer too: text cannot tell you where"
        " the answer begins.",
    ),
    (
        ("tra", "la"),
        (" ", "tra", "la", " ", "tra", "la", "<|im_end|>"),
        "The answer repeats the prompt: cut it off once, by its length."
        " (replace() deletes the prompt wherever it stands.)",
    ),
    (
        _turns("Count."),
        ("one", " two"),
        "This reply was cut: its last token is a word, no control token.",
    ),
    (
        _turns("What is a dessert?"),
        ("A cr", "\udcc3", "\udca8", "me."),  # the two bytes of one letter
        "A letter can be cut in two tokens: decode all ids at once, not one by one.",
    ),
    (
        ("Once upon",),
        (),
        'Nothing was written, so return "": but a slice [-0:] is the whole list.',
    ),
    (("Once upon",), (" a time.", "<|endoftext|>"), "This is a base model."),
    (
        ("Once upon",),
        (" a time.", "<|im_end|>", "<|im_start|>", "<|endoftext|>"),
        "A reply can hold several control tokens: none of them is text.",
    ),
    (
        _turns("What is new?"),
        ("One.", "\n\n", "Two,", "  three.", "<|im_end|>"),
        "A reply can have several lines: change nothing in it, not even white space.",
    ),
    (
        ("Once upon",),
        (" a time.", "<|im_start|>", " The end.", "<|im_end|>"),
        "A control token need not be the end: the text goes on behind this one.",
    ),
)


def _check_slice(answer: Callable[..., object]) -> str | None:
    for prompt, reply, note in _SLICES:
        tokenizer = _Words()
        prompt_ids, new_ids = tokenizer.ids(*prompt), tokenizer.ids(*reply)
        output_ids = prompt_ids + new_ids
        expected = tokenizer.decode(new_ids, skip_special_tokens=True)
        got = answer(tokenizer, [*prompt_ids], [*output_ids])
        if isinstance(got, str) and got.strip() == expected.strip():
            continue
        other = [number for number in new_ids if number not in prompt_ids]
        early = tokenizer.decode([prompt_ids[-1], *new_ids], skip_special_tokens=True)
        if not isinstance(got, str):
            note = f"Return the decoded text. This is a {type(got).__name__}."
        elif new_ids and got == tokenizer.decode(output_ids, skip_special_tokens=True):
            note = (
                "The whole sequence was decoded: the prompt is still in front."
                " (replace() finds nothing where one of the two lacks control tokens.)"
            )
        elif any(mark in got for mark in tokenizer.all_special_tokens):
            note = "Control tokens are no text: decode with skip_special_tokens=True."
        elif got.strip() and got == tokenizer.decode(other, skip_special_tokens=True):
            note = "A word of the prompt may come again in the reply: cut by place."
        elif new_ids and got == early != expected:
            note = "One id too early: the last id of the prompt is still in front."
        asked = tokenizer.decode(output_ids)
        return f"{note}\n  input: {asked!r}\n  expected: {expected!r}\n  got: {got!r}"
    return None


_SLICE_HEAD = "def answer_only(tokenizer, prompt_ids, output_ids):\n"
SLICE = Exercise(
    id="0.1",
    title="slice the reply by tokens",
    minutes=5,
    stars=1,
    check=_check_slice,
    hints=(
        "Both arguments are lists of ids. The output begins with all of the prompt.",
        "output_ids[len(prompt_ids):] are the new ids; decode only these.",
        "The last new id is <|im_end|>: skip_special_tokens=True leaves it out.",
    ),
    solution=_SLICE_HEAD
    + """\
    new_ids = output_ids[len(prompt_ids):]
    return tokenizer.decode(new_ids, skip_special_tokens=True)""",
    name="answer_only",
    stub=_SLICE_HEAD
    + '''\
    """Return the text that the model wrote, without the prompt."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "generate returns only the answer",
            _SLICE_HEAD
            + "    return tokenizer.decode(output_ids, skip_special_tokens=True)",
            "The whole sequence was decoded",
        ),
        Wrong(
            "the prompt can be removed from the text",
            _SLICE_HEAD
            + """\
    text = tokenizer.decode(output_ids, skip_special_tokens=True)
    prompt = tokenizer.decode(prompt_ids, skip_special_tokens=True)
    return text.replace(prompt, "")""",
            "replace() deletes the prompt wherever it stands",
        ),
        Wrong(
            "the prompt with its control tokens stands in the decoded text",
            _SLICE_HEAD
            + """\
    text = tokenizer.decode(output_ids, skip_special_tokens=True)
    return text.replace(tokenizer.decode(prompt_ids), "")""",
            "The whole sequence was decoded",
        ),
        Wrong(
            "the answer begins after the word assistant",
            _SLICE_HEAD
            + """\
    text = tokenizer.decode(output_ids, skip_special_tokens=True)
    return text.split("assistant")[-1]""",
            "may stand in an answer too",
        ),
        Wrong(
            "control tokens are not decoded anyway",
            _SLICE_HEAD + "    return tokenizer.decode(output_ids[len(prompt_ids):])",
            "skip_special_tokens=True",
        ),
    ),
)

# --- 0.2 ----------------------------------------------------------------------------


def _reply(
    text: str, stop: str, new_tokens: int, thinking: str = "", closed: bool = False
) -> Reply:
    thought, answer = len(thinking.split()), len(text.split())
    return Reply(
        text, thinking, 40, new_tokens, thought, answer, closed, 1.0, 0.1, (0.1,), stop
    )  # fmt: skip


_REPLIES = (
    (_reply("Paris", "stop", 2), True, "Short is not cut: the model ended it."),
    (
        _reply("A model reads text. It writes text.", "length", 10),
        False,
        "A cut can fall right behind a full stop: the text does not tell.",
    ),
    (
        _reply("", "length", 512, thinking="The user wants an introduction."),
        False,
        "The limit came inside the thought: there is no answer at all.",
    ),
    (
        _reply("", "stop", 1),
        True,
        "The model ended it at once. An empty answer, but nothing was cut.",
    ),
    (
        _reply("print('Hello')", "stop", 512),
        True,
        "It is long and holds no full stop, yet the model ended it by itself.",
    ),
    (
        _reply("A large language model is", "length", 5),
        False,
        "Few tokens can be cut too: the limit was 5.",
    ),
    (
        _reply("Four.", "stop", 30, thinking="Two and two", closed=True),
        True,
        "Only the thought was cut, by its budget. The model ended the reply itself.",
    ),
    (
        _reply("Two and two is", "length", 30, thinking="Two and two", closed=True),
        False,
        "A thought and the start of an answer: the limit came inside the answer.",
    ),
)


def _check_finished(answer: Callable[[Reply], object]) -> str | None:
    for reply, expected, note in _REPLIES:
        got = answer(reply)
        got = answers.plain(got)
        if got == reply.stop:
            note = "Return True or False, not the field itself: compare it."
        elif not isinstance(got, bool):
            note = "Return True or False."
        elif got == expected:
            continue
        return f"{note}\n  input: {reply}\n  expected: {expected}\n  got: {got!r}"
    return None


FINISHED = Exercise(
    id="0.2",
    title="finished, or only stopped?",
    minutes=3,
    stars=1,
    check=_check_finished,
    hints=(
        "Neither the text nor its length tells. Print a Reply: which field is left?",
        "One field of a Reply says why it ended.",
        'reply.stop is "stop" where the model ended it, and "length" where it was cut.',
    ),
    solution='def finished(reply):\n    return reply.stop == "stop"',
    name="finished",
    stub='''\
def finished(reply):
    """Return True if the model itself ended this reply."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "a finished answer ends with a full stop",
            'def finished(reply):\n    return reply.text.endswith(".")',
            "Short is not cut",
        ),
        Wrong(
            "any text is an answer",
            'def finished(reply):\n    return reply.text != ""',
            "A cut can fall right behind a full stop",
        ),
        Wrong(
            "below the usual limit means finished",
            "def finished(reply):\n    return reply.new_tokens < 512",
            "A cut can fall right behind a full stop",
        ),
        Wrong(
            "a reply that is not empty or did not reach the limit",
            'def finished(reply):\n    return reply.text[-1:] not in (".", "")'
            ' or reply.stop == "stop"',
            "Few tokens can be cut too",
        ),
    ),
)

# --- 0.3 ----------------------------------------------------------------------------


_SPEEDS = (
    (11, 3.0, 5.0, "Count what was written after the first token, and its time."),
    (5, 6.0, 8.0, "Count what was written after the first token, and its time."),
    (2, 1.0, 1.5, "Of two tokens, one came after the first: it has a speed."),
    (11, 1.0, 4.0, "A speed need not be a whole number: do not round it."),
    (1, 0.5, 0.5, "One token alone has no decode speed: return 0.0."),
)


def _check_speed(answer: Callable[[int, float, float], object]) -> str | None:
    for tokens, first, seconds, note in _SPEEDS:
        got = answer(tokens, first, seconds)
        waited, later = seconds - first, tokens - 1
        expected = later / waited if later else 0.0
        got = answers.plain(got)
        if not isinstance(got, Real):
            note = "Return a number."
        elif abs(got - expected) < 1e-6:
            continue
        elif later:
            faults = (
                (tokens / seconds, "This counts the time in which it read the prompt."),
                (later / seconds, "This counts the time in which it read the prompt."),
                (
                    tokens / waited,
                    "The first token came out of reading the prompt: it is not"
                    " counted.",
                ),
                (
                    waited / later,
                    "These are seconds per token: turn the fraction round.",
                ),
                (-expected, "No speed is negative: the first token came earlier."),
            )
            known = [fault for value, fault in faults if abs(got - value) < 1e-6]
            note = (*known, note)[0]
        asked = f"new_tokens={tokens}, first_token_seconds={first}, seconds={seconds}"
        return f"{note}\n  input: {asked}\n  expected: {expected:g}\n  got: {got}"
    return None


_SPEED_HEAD = "def decode_speed(new_tokens, first_token_seconds, seconds):\n"
SPEED = Exercise(
    id="0.3",
    title="decode speed without the prompt",
    minutes=5,
    stars=2,
    check=_check_speed,
    hints=(
        "Draw the time line: the first tick stands at the end of the bar.",
        "After the first token there are new_tokens - 1 more."
        " They took seconds - first_token_seconds.",
        "One token alone has no decode time: return 0.0, do not divide.",
    ),
    solution=_SPEED_HEAD
    + """\
    if new_tokens < 2:
        return 0.0
    return (new_tokens - 1) / (seconds - first_token_seconds)""",
    name="decode_speed",
    stub=_SPEED_HEAD
    + '''\
    """Return tokens per second of decoding; 0.0 for a single token."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "all tokens over all seconds is the decode speed",
            _SPEED_HEAD + "    return new_tokens / seconds",
            "it read the prompt",
        ),
        Wrong(
            "the first token is decoded like the others",
            _SPEED_HEAD + "    return new_tokens / (seconds - first_token_seconds)",
            "The first token came out of reading the prompt",
        ),
        Wrong(
            "the prompt's time is the decode time",
            _SPEED_HEAD + "    return new_tokens / first_token_seconds",
            "Count what was written after the first token",
        ),
    ),
)

# --- 0.4 ----------------------------------------------------------------------------


def _median(numbers: Sequence[float]) -> float:
    ordered, half = sorted(numbers), len(numbers) // 2
    return (ordered[half] + ordered[~half]) / 2


def _unsorted(numbers: Sequence[float]) -> float:
    half = len(numbers) // 2
    return (numbers[half] + numbers[~half]) / 2


def _upper(numbers: Sequence[float]) -> float:
    return sorted(numbers)[len(numbers) // 2]


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


_BROKEN = (
    (_unsorted, "forgets to sort", "Every list in your tests is in order."),
    (
        _upper,
        "takes the upper of the two middle numbers",
        "No list in your tests is of even length with two different middle numbers.",
    ),
    (
        _mean,
        "returns the mean",
        "In your lists the mean equals the median: put in one very large number.",
    ),
)


_EMPTY = "the list is empty"


def _documented(
    median: Callable[..., float], seen: list[list[float]] | None = None
) -> Callable[..., float]:
    """Return it with what all share: a docstring, type hints, no empty list."""

    def documented(numbers: Sequence[float]) -> float:
        """Return the median."""
        if seen is not None:
            seen.append([*numbers])
        if not len(numbers):
            raise ValueError(_EMPTY)
        return median(numbers)

    return documented


def _bare(numbers):  # type: ignore[no-untyped-def]  # right too, by the task
    if not len(numbers):
        return None
    ordered, half = sorted(numbers), len(numbers) // 2
    return ordered[half] if len(numbers) % 2 else _median(numbers)


def _check_tests(answer: Callable[[Callable[..., float]], object]) -> str | None:
    try:
        got = answer(_documented(_median))
    except ValueError as error:
        if str(error) != _EMPTY:
            raise
        return (
            "The task leaves [] open: here it raises a ValueError. Test numbers only."
            "\n  input: a right median\n  expected: no error\n"
            f"  got: ValueError: {error}"
        )
    except AssertionError as error:
        return (
            "Your tests reject a right median.\n  input: a right median\n"
            f"  expected: no AssertionError\n  got: AssertionError {error}".rstrip()
        )
    try:
        answer(_bare)
    except Exception as error:
        return (
            "Your tests reject another right median. It has no docstring and no type"
            " hints, returns 2 and not 2.0 for [3, 1, 2], and None for []: test numbers"
            " only.\n  input: a right median, written in another way\n"
            f"  expected: no error\n  got: {type(error).__name__} {error}".rstrip()
        )
    for broken, what, note in _BROKEN:
        raised, seen = "no error", list[list[float]]()
        try:
            answer(_documented(broken, seen))
        except AssertionError:
            continue
        except Exception as error:
            raised = f"{type(error).__name__}: {error}"
            note = "The mistake is seen, but a test says so by an AssertionError."
        else:
            if not seen:
                note = "Your tests never call the `median` that they are given."
            elif any(
                broken(numbers) != _median(numbers) for numbers in seen if numbers
            ):
                note = (
                    "Your tests got a wrong number here and let it pass: write one"
                    " `assert` for each comparison. (`assert (test, text)` with both in"
                    " brackets is always true.)"
                )
        if isinstance(got, bool):
            note = "A comparison that is returned tests nothing: write assert."
        return (
            f"{note}\n  input: a median that {what}\n"
            f"  expected: AssertionError\n  got: {raised}"
        )
    return None


_TESTS_HEAD = "def test_median(median):\n"
TESTS = Exercise(
    id="0.4",
    title="tests that catch wrong code",
    minutes=8,
    stars=2,
    check=_check_tests,
    hints=(
        "Think of lazy ways to write median, and of a list on which each goes wrong.",
        "Three lazy ways: no sorting, one middle number only, the mean instead.",
        "You need a list out of order, one of even length, and one with a very large"
        " number.",
    ),
    solution=_TESTS_HEAD
    + """\
    assert median([3, 1, 2]) == 2
    assert median([4, 1, 3, 2]) == 2.5
    assert median([1, 2, 900]) == 2""",
    name="test_median",
    stub=_TESTS_HEAD
    + '''\
    """Raise AssertionError if `median` is wrong, else do nothing."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "one example is enough",
            _TESTS_HEAD + "    assert median([1, 2, 3]) == 2",
            "Every list in your tests is in order",
        ),
        Wrong(
            "lists of odd length are enough",
            _TESTS_HEAD + "    assert median([3, 1, 2]) == 2",
            "even length",
        ),
        Wrong(
            "evenly spaced numbers are enough",
            _TESTS_HEAD
            + """\
    assert median([3, 1, 2]) == 2
    assert median([4, 1, 3, 2]) == 2.5""",
            "the mean equals the median",
        ),
        Wrong(
            "the empty list has one right answer",
            _TESTS_HEAD + "    assert median([]) is None",
            "The task leaves [] open",
        ),
        Wrong(
            "an error on the empty list shows that median is right",
            _TESTS_HEAD
            + """\
    try:
        median([])
    except ValueError:
        return""",
            "Every list in your tests is in order",
        ),
        Wrong(
            "a test returns whether it passed",
            _TESTS_HEAD + "    return median([3, 1, 2]) == 2",
            "write assert",
        ),
        Wrong(
            "the median of an even list is one of its numbers",
            _TESTS_HEAD + "    assert median([1, 2, 3, 4]) == 3",
            "reject a right median",
        ),
    ),
)

EXERCISES = [SLICE, FINISHED, SPEED, TESTS]
