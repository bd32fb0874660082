"""Exercises of lesson 00b: merge by hand, temperature, top-p, loss, interval."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from qwen_course import answers
from qwen_course.checks import Exercise, Wrong

# --- 0b.1 ---------------------------------------------------------------------------

_NOT_THE_LONGEST = (
    "These pieces are in the vocabulary, but no merge leads there: a tokenizer does not"
    " look for the longest entry that fits, it does its merges in order. Merge 1 takes"
    " the w before merge 4 or 5 can."
)
_MERGED_AGAIN = (
    "A merged piece merges on: merge 4 takes the `ne` that merge 3 has made."
)
_PIECES = {
    "news": {
        "new s": "",
        "ne w s": _MERGED_AGAIN,
        "n e w s": "Merges 3 and 4 fit here. No merge at all is the start.",
    },
    "newer": {
        "ne we r": "",
        "new e r": _NOT_THE_LONGEST,
        "new er": "Nobody has merged `e r`: there are only the seven pairs.",
    },
    "lowest": {
        "lo we st": "",
        "low est": _NOT_THE_LONGEST,
        "lo we s t": "Merge 6 fits too: go through the list to its end.",
    },
}


def _check_pieces(answer: Mapping[str, object]) -> str | None:
    for word, known in _PIECES.items():
        expected, given = next(iter(known)), answer.get(word, "")
        whole = isinstance(given, str) or not isinstance(given, Iterable)
        got = " ".join(map(str, [given] if whole else given))
        got = " ".join(got.split())
        if got == expected:
            continue
        note = known.get(got, "Do the merges of the list in their order, 1 to 7.")
        if got.replace(" ", "") != word:
            note = "The pieces must give the word again, with spaces between them."
        # The pieces themselves are the solution: the message must not hold them.
        pieces = f"{len(expected.split())} pieces"
        return f"{note}\n  input: {word!r}\n  expected: {pieces}\n  got: {got!r}"
    return None


PIECES = Exercise(
    id="0b.1",
    title="merge by hand",
    minutes=5,
    stars=1,
    check=_check_pieces,
    hints=(
        "Take merge 1 and look for its pair in the letters, then merge 2, and so on.",
        "newer: merge 1 glues w and e, so the letters are n e we r. Is there still a w"
        " for merge 4?",
        "lowest: after merge 1 it is l o we s t, after merge 2 lo we s t.",
    ),
    solution="""\
pieces = {
    "news": "new s",
    "newer": "ne we r",
    "lowest": "lo we st",
}""",
    name="pieces",
    stub="""\
pieces = {
    "news": ...,  # such as "ne w s"
    "newer": ...,
    "lowest": ...,
}""",
    wrong=(
        Wrong(
            "a token is the longest entry of the vocabulary that fits",
            'pieces = {"news": "new s", "newer": "new e r", "lowest": "low est"}',
            "does not look for the longest entry",
        ),
        Wrong(
            "tokens are stems and endings",
            'pieces = {"news": "new s", "newer": "new er", "lowest": "low est"}',
            "Nobody has merged `e r`",
        ),
        Wrong(
            "a piece that was merged is done",
            'pieces = {"news": "ne w s", "newer": "ne we r", "lowest": "lo we st"}',
            "A merged piece merges on",
        ),
        Wrong(
            "a token is a letter",
            'pieces = {"news": list("news"), "newer": list("newer"),'
            ' "lowest": list("lowest")}',
            "No merge at all is the start",
        ),
        Wrong(
            "one round of the list ends at the first merges that fit",
            'pieces = {"news": "new s", "newer": "ne we r", "lowest": "lo we s t"}',
            "go through the list to its end",
        ),
    ),
)

# --- 0b.2 ---------------------------------------------------------------------------

_HEATED = (
    ((0.5, 0.3, 0.2), 1.0, "Temperature 1 changes nothing."),
    (
        (0.8, 0.2),
        0.5,
        "Below 1 the likeliest gains: 0.8 is 4 times 0.2, and must become 16 times it.",
    ),
    (
        (0.81, 0.16, 0.01, 0.02),
        2.0,
        "At 2 each probability becomes its square root; then divide by their sum.",
    ),
    (
        (0.4, 0.2, 0.4),
        0.25,
        "At 0.25 each probability goes to the fourth power. Two of them can be equal:"
        " each has its place in the list.",
    ),
)


def _heat(probabilities: Sequence[float], power: float) -> list[float]:
    raised = [p**power for p in probabilities]
    return [p / sum(raised) for p in raised]


_ROUNDED = "Right, but rounded: return the numbers as they are."


def _numbers(got: object) -> TypeGuard[Sequence[Any]]:
    parts = got if isinstance(got, list | tuple) else ["no list"]
    return all(hasattr(part, "__float__") for part in parts)


def _close(got: Any, expected: Sequence[float], far: float = 1e-6) -> bool:
    return (
        _numbers(got)
        and len(got) == len(expected)
        and all(abs(float(a) - b) < far for a, b in zip(got, expected, strict=True))
    )


def _check_heat(answer: Callable[..., object]) -> str | None:
    for given, temperature, note in _HEATED:
        got = answer([*given], temperature)
        expected = _heat(given, 1 / temperature)
        if _close(got, expected):
            continue
        soft = [math.exp(p / temperature) for p in given]
        logits = [math.log(p) / temperature for p in given]
        if not _numbers(got) or len(got) != len(given):
            note = "Return a list, one probability for each that was given."
        elif _close(got, [p / sum(soft) for p in soft]):
            note = (
                "Here probabilities went into softmax as if they were logits. The logit"
                " of a probability is its logarithm."
            )
        elif _close(got, logits):
            note = "These are the logits, divided. Softmax is still missing."
        elif _close(got, given):
            note = (
                "Nothing changed. Temperature divides the logits; dividing all"
                " probabilities by one number leaves them as they were."
            )
        elif _close(got, _heat(given, temperature)):
            note = "The wrong way round: low temperatures sharpen, high ones flatten."
        elif _close(got, expected, 0.006):
            note = _ROUNDED
        elif abs(sum(got) - 1) > 1e-6:
            note = f"The sum is {sum(got):.3f}: probabilities must sum to 1 again."
        told = [round(p, 4) for p in expected]
        return (
            f"{note}\n  input: {[*given]}, temperature {temperature:g}"
            f"\n  expected: {told}\n  got: {got!r}"
        )
    return None


_HEAT_HEAD = "def reheat(probabilities, temperature):\n"
HEAT = Exercise(
    id="0b.2",
    title="turn the heat up",
    minutes=5,
    stars=2,
    check=_check_heat,
    hints=(
        "Three steps: back to logits, divide, softmax. What undoes exp?",
        "The logarithm of a probability is a logit of it (up to a constant).",
        "exp(log(p) / T) is p ** (1 / T). Then divide by the sum of all.",
    ),
    solution=_HEAT_HEAD
    + """\
    raised = [p ** (1 / temperature) for p in probabilities]
    return [p / sum(raised) for p in raised]""",
    name="reheat",
    stub="import math\n\n\n"
    + _HEAT_HEAD
    + '''\
    """Return the probabilities at another temperature; these are at 1."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "temperature divides the probabilities",
            _HEAT_HEAD
            + """\
    divided = [p / temperature for p in probabilities]
    return [p / sum(divided) for p in divided]""",
            "Nothing changed",
        ),
        Wrong(
            "what was divided needs no new sum",
            _HEAT_HEAD + "    return [p / temperature for p in probabilities]",
            "must sum to 1 again",
        ),
        Wrong(
            "a higher temperature makes the model surer",
            _HEAT_HEAD
            + """\
    raised = [p ** temperature for p in probabilities]
    return [p / sum(raised) for p in raised]""",
            "The wrong way round",
        ),
        Wrong(
            "probabilities are logits",
            "import math\n\n\n"
            + _HEAT_HEAD
            + """\
    raised = [math.exp(p / temperature) for p in probabilities]
    return [p / sum(raised) for p in raised]""",
            "as if they were logits",
        ),
    ),
)

# --- 0b.3 ---------------------------------------------------------------------------

_SNOW = {"white": 0.5, "grey": 0.25, "blue": 0.125, "cold": 0.125}
_DRAWS: tuple[tuple[dict[str, float], float, str], ...] = (
    (_SNOW, 0.6, "white alone has 0.5: not yet 0.6, so the next one must come in."),
    (_SNOW, 0.75, "0.5 + 0.25 is 0.75: reached, so the list ends here."),
    (_SNOW, 0.3, "The likeliest token stays, whatever p is."),
    (
        {"rain": 0.0625, "snow": 0.1875, "sun": 0.75},
        0.8,
        "The tokens come in any order: sort them, likeliest first.",
    ),
    (_SNOW, 1.0, "With p = 1 nothing is cut."),
    (
        {"left": 0.25, "right": 0.25, "up": 0.25, "down": 0.25},
        0.5,
        "Two of the four sum to 0.5, so two stay: as likely as the last one that came"
        " in is no reason to come in too.",
    ),
)


def _kept(given: Mapping[str, float], top_p: float) -> dict[str, float]:
    kept: dict[str, float] = {}
    for name in sorted(given, key=lambda name: -given[name]):
        if sum(kept.values()) < top_p:
            kept[name] = given[name]
    return {name: p / sum(kept.values()) for name, p in kept.items()}


def _check_nucleus(answer: Callable[..., object]) -> str | None:
    for given, top_p, note in _DRAWS:
        got, expected = answer(dict(given), top_p), _kept(given, top_p)
        if isinstance(got, dict) and got.keys() <= given.keys():
            alike = sorted(given[name] for name in got)
            if alike == sorted(given[name] for name in expected):
                total = sum(alike)  # of equally likely tokens any may stay
                expected = {name: given[name] / total for name in got}
        below = {name for name, p in given.items() if p >= top_p}
        if not isinstance(got, dict):
            note = "Return a dictionary, token to probability."
        elif got.keys() == expected.keys():
            shares, right = [got[name] for name in expected], [*expected.values()]
            if _close(shares, right):
                continue
            note = "The right tokens, but they must share the whole: divide by the sum."
            if _close(shares, right, 0.006):
                note = _ROUNDED
            elif not _numbers(shares):
                note = "Return a number for each token."
        elif got.keys() == below:
            note = (
                "This cuts each token whose own probability is below p. It is the *sum*"
                " that must reach p: add them up, likeliest first."
            )
        elif got.keys() == {*list(expected)[:-1]}:
            note = (
                "One too few: the token that carries the sum up to p belongs to it,"
                " else less than p is left."
            )
        told = {name: round(p, 4) for name, p in expected.items()}
        return (
            f"{note}\n  input: {dict(given)}, top_p={top_p:g}"
            f"\n  expected: {told}\n  got: {got!r}"
        )
    return None


_NUCLEUS_HEAD = "def nucleus(probabilities, top_p):\n"
_SORTED = "    ranked = sorted(probabilities.items(), key=lambda pair: -pair[1])\n"
_SHARE = """
    return {name: p / sum(kept.values()) for name, p in kept.items()}"""
NUCLEUS = Exercise(
    id="0b.3",
    title="top-p by hand",
    minutes=7,
    stars=2,
    check=_check_nucleus,
    hints=(
        "Sort, likeliest first. Take tokens in until their sum has reached top_p.",
        "Ask *before* you take a token in: is the sum still below top_p? The first one"
        " always comes in.",
        "At the end divide each p by the sum of the kept ones.",
    ),
    solution=_NUCLEUS_HEAD
    + _SORTED
    + """\
    kept = {}
    for name, p in ranked:
        if sum(kept.values()) < top_p:
            kept[name] = p"""
    + _SHARE,
    name="nucleus",
    stub=_NUCLEUS_HEAD
    + '''\
    """Return the tokens that top-p keeps, with their new probabilities."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "top-p cuts the tokens whose probability is below p",
            _NUCLEUS_HEAD
            + "    kept = {n: p for n, p in probabilities.items() if p >= top_p}"
            + _SHARE,
            "whose own probability is below p",
        ),
        Wrong(
            "the sum of what is kept must not exceed p",
            _NUCLEUS_HEAD
            + _SORTED
            + """\
    kept = {}
    for name, p in ranked:
        if sum(kept.values()) + p <= top_p:
            kept[name] = p
        else:
            break"""
            + _SHARE,
            "One too few",
        ),
        Wrong(
            "what is kept keeps its probability",
            _NUCLEUS_HEAD
            + _SORTED
            + """\
    kept = {}
    for name, p in ranked:
        if sum(kept.values()) < top_p:
            kept[name] = p
    return kept""",
            "must share the whole",
        ),
        Wrong(
            "the tokens come sorted",
            _NUCLEUS_HEAD
            + """\
    kept = {}
    for name, p in probabilities.items():
        if sum(kept.values()) < top_p:
            kept[name] = p"""
            + _SHARE,
            "in any order",
        ),
    ),
)

# --- 0b.4 ---------------------------------------------------------------------------

_LONG = (0.5,) * 2000
_TEXTS = (
    (
        (0.5,),
        "Half sure is a loss of log 2 = 0.693, and as unsure as between 2 tokens.",
    ),
    (
        (0.5, 0.5, 0.5, 0.5),
        "A longer text of the same words is not harder: take the mean.",
    ),
    ((0.5, 0.125), "The two losses are log 2 and log 8; their mean is log 4."),
    (
        (0.5, 0.0625, 0.5),
        "The losses are log 2, log 16 and log 2; their mean is log 4. Each counts.",
    ),
    (
        (0.8, 0.25),
        "The mean of the two losses is log 5 / 2 = 0.805, the perplexity 2.236: neither"
        " need be a whole number.",
    ),
    ((1.0, 1.0), "A model that is sure and right has loss 0 and perplexity 1."),
    (
        (1.0, 0.0625),
        "A sure token has loss 0 and counts too: the mean of 0 and log 16 is log 4.",
    ),
    (
        _LONG,
        "The product of so many probabilities is 0 to a computer: add logarithms.",
    ),
)  # fmt: skip


def _surprise_fault(got: Sequence[float], given: Sequence[float]) -> str:
    """Return what is misunderstood, "" where it cannot be told."""
    n, loss, perplexity = len(given), *_surprise(given)
    first = (  # where the first number is wrong
        (
            1 - sum(given) / n,
            "This is the mean of 1 - p, an error rate. The loss is -log p, without"
            " an upper end: a right token at 0.001 costs far more than one at 0.1.",
        ),
        (
            loss / math.log(2),
            "This counts bits. Here log is the natural one, as in every framework.",
        ),
        (loss / math.log(10), "This is log10. Here log is the natural one, math.log."),
        (
            -math.log(sum(given) / n),
            "Logarithm first, then the mean: the logarithm of the mean lets easy"
            " tokens hide a hard one.",
        ),
        (-loss, "No loss is negative: log p is below 0, so the loss is -log p."),
        (perplexity, "The other way round: the loss first, then the perplexity."),
    )
    second = (
        (
            sum(1 / p for p in given) / n,
            "Perplexity is exp of the mean loss, not the mean of 1 / p.",
        ),
        (2**loss, "exp undoes the natural logarithm; 2 ** x would undo log2."),
        (1 / perplexity, "Perplexity is exp(loss), never below 1: not exp(-loss)."),
    )
    right = abs(got[0] - loss) < 1e-6
    value, known = (got[1], second) if right else (got[0], first)
    for fault, note in known:
        if abs(value - fault) < 1e-6:
            return note
    return _ROUNDED if _close(got, (loss, perplexity), 0.006) else ""


def _surprise(given: Sequence[float]) -> tuple[float, float]:
    loss = -sum(map(math.log, given)) / len(given)
    return loss, math.exp(loss)


def _check_surprise(answer: Callable[..., object]) -> str | None:
    for given, note in _TEXTS:
        expected = _surprise(given)
        try:
            got = answer([*given])
        except (ArithmeticError, ValueError) as error:
            if given is not _LONG:
                raise
            return f"{note}\n  input: 2000 times 0.5\n  got: {error!r}"
        if _close(got, expected):
            continue
        if not _numbers(got) or len(got) != 2:
            note = "Return two numbers: the loss and the perplexity."
        else:
            note = _surprise_fault([*map(float, got)], given) or note
        asked = "2000 times 0.5" if given is _LONG else [*given]
        told = tuple(round(value, 4) for value in expected)
        return f"{note}\n  input: {asked}\n  expected: {told}\n  got: {got!r}"
    return None


_SURPRISE_HEAD = "import math\n\n\ndef surprise(probabilities):\n"
SURPRISE = Exercise(
    id="0b.4",
    title="how surprised is the model?",
    minutes=5,
    stars=1,
    check=_check_surprise,
    hints=(
        "One loss a token, -math.log(p); then the mean of all losses.",
        "The perplexity undoes the logarithm: math.exp(loss).",
        "[0.5] gives (0.693, 2): as unsure as between two equal tokens.",
    ),
    solution=_SURPRISE_HEAD
    + """\
    losses = [-math.log(p) for p in probabilities]
    loss = sum(losses) / len(losses)
    return loss, math.exp(loss)""",
    name="surprise",
    stub=_SURPRISE_HEAD
    + '''\
    """Return loss and perplexity, from the right tokens' probabilities."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "the loss is the error rate",
            _SURPRISE_HEAD
            + """\
    loss = sum(1 - p for p in probabilities) / len(probabilities)
    return loss, math.exp(loss)""",
            "an error rate",
        ),
        Wrong(
            "a longer text has a larger loss",
            _SURPRISE_HEAD
            + """\
    loss = -sum(math.log(p) for p in probabilities)
    return loss, math.exp(loss)""",
            "take the mean",
        ),
        Wrong(
            "the mean comes first, then the logarithm",
            _SURPRISE_HEAD
            + """\
    loss = -math.log(sum(probabilities) / len(probabilities))
    return loss, math.exp(loss)""",
            "Logarithm first",
        ),
        Wrong(
            "perplexity is the mean of 1 / p",
            _SURPRISE_HEAD
            + """\
    loss = -sum(map(math.log, probabilities)) / len(probabilities)
    return loss, sum(1 / p for p in probabilities) / len(probabilities)""",
            "not the mean of 1 / p",
        ),
        Wrong(
            "loss is counted in bits",
            _SURPRISE_HEAD
            + """\
    loss = -sum(map(math.log2, probabilities)) / len(probabilities)
    return loss, 2**loss""",
            "This counts bits",
        ),
    ),
)

# --- 0b.5 ---------------------------------------------------------------------------


_MODELS = (
    ((9, 10), (7, 10), False, "With ten questions each, luck alone does that."),
    ((180, 200), (140, 200), True, "The same shares on 200 questions: no luck now."),
    (
        (90, 100),
        (80, 100),
        False,
        "The other model's share has an interval too: its end lies above the start of"
        " this one.",
    ),
    (
        (140, 200),
        (180, 200),
        False,
        "The intervals lie apart, but here the *other* model is the better one.",
    ),
    (
        (10, 10),
        (150, 200),
        False,
        "10 of 10 does not prove 100 %: look where its interval starts.",
    ),
    (
        (90, 100),
        (100, 200),
        True,
        "The intervals lie apart. Each model has its own number of questions, and the"
        " shares count, not the right answers.",
    ),
    (
        (1900, 2000),
        (1800, 2000),
        True,
        "Five points can be clear, with questions enough.",
    ),
    (
        (10, 10),
        (1, 10),
        True,
        "Ten questions can be enough: only the ends of the intervals decide.",
    ),
    (
        (91, 100),
        (79, 100),
        False,
        "These overlap. Each model has an interval of its own: do not pool the two.",
    ),
)


def _wide(right: int, n: int) -> tuple[float, float]:
    return right / n - 0.125, right / n + 0.125


_WIDER = (
    (
        (6, 8),
        (4, 8),
        False,
        "These two touch: ours starts where theirs ends. That is not above it.",
    ),
    (
        (501, 1000),
        (250, 1000),
        True,
        "The gap is small, a tenth of a point, but it is one: round no end.",
    ),
    (
        (180, 200),
        (140, 200),
        False,
        "Another interval was handed in, a wider one: call `interval`, no other.",
    ),
)


def _check_better(answer: Callable[..., object]) -> str | None:
    cases = [(answers.interval, *case) for case in _MODELS]
    cases += [(_wide, *case) for case in _WIDER]
    for interval, ours, theirs, expected, note in cases:
        got = answer(ours, theirs, interval)
        got = answers.plain(got)
        if got is expected:
            continue
        if not isinstance(got, bool):
            note = "Return True or False."
        models = []
        for right, n in (ours, theirs):
            low, high = interval(right, n)
            models.append(f"{right} of {n} ({low:.0%} to {high:.0%})")
        asked = " against ".join(models)
        return f"{note}\n  input: {asked}\n  expected: {expected}\n  got: {got!r}"
    return None


_BETTER_HEAD = "def clearly_better(ours, theirs, interval):\n"
BETTER = Exercise(
    id="0b.5",
    title="better, or lucky?",
    minutes=6,
    stars=2,
    check=_check_better,
    hints=(
        "Draw both intervals as bars, one above the other. When is one wholly above?",
        "low, high = interval(*ours) gives the ends for our model.",
        "Compare the low end of ours with the high end of theirs.",
    ),
    solution=_BETTER_HEAD + "    return interval(*ours)[0] > interval(*theirs)[1]",
    name="clearly_better",
    stub=_BETTER_HEAD
    + '''\
    """Return True if our whole interval lies above theirs."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "the higher share is better",
            _BETTER_HEAD + "    return ours[0] / ours[1] > theirs[0] / theirs[1]",
            "luck alone",
        ),
        Wrong(
            "only our own share is uncertain",
            _BETTER_HEAD + "    return interval(*ours)[0] > theirs[0] / theirs[1]",
            "has an interval too",
        ),
        Wrong(
            "intervals that lie apart are enough",
            _BETTER_HEAD
            + """\
    (low, high), (other_low, other_high) = interval(*ours), interval(*theirs)
    return low > other_high or high < other_low""",
            "the *other* model is the better one",
        ),
        Wrong(
            "a difference of ten points is always clear, a smaller one never",
            _BETTER_HEAD
            + """\
    gap = ours[0] / ours[1] - theirs[0] / theirs[1]
    return gap > 0.1 and ours[1] > 10""",
            "Five points can be clear",
        ),
    ),
)

EXERCISES = [PIECES, HEAT, NUCLEUS, SURPRISE, BETTER]
