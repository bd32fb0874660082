"""Exercises of lesson 05b: timings in pairs, drafts that pay, the roof of decoding."""

from collections.abc import Callable
from numbers import Real
from statistics import mean, median
from typing import Any

from qwen_course import answers
from qwen_course.checks import Exercise, Wrong

Answer = Callable[..., Any]
_Others = tuple[tuple[float, str], ...]  # what a wrong way gives, and what to tell


def _told(got: Any, others: _Others, near: float, note: str) -> str:
    """Return what belongs to the value that was got; `note` if it is none of these."""
    if not isinstance(got, Real):
        return "Return one number."
    return next((told for value, told in others if abs(got - value) < near), note)


# --- 5b.1 ---------------------------------------------------------------------------

_TIMINGS: tuple[tuple[list[float], str], ...] = (  # seconds: A B A B ...
    (
        [3.0, 3.2, 6.0, 3.6, 3.4, 2.2, 6.0, 6.4, 3.6, 2.4],
        "The five ratios are 0.94, 1.67, 1.55, 0.94 and 1.5. In order of size,"
        " 1.5 is the one in the middle.",
    ),
    (
        [3.0, 4.0, 3.6, 4.0, 1.2, 4.0, 1.4, 4.0],
        "The ratios are 0.75, 0.9, 0.3 and 0.35. With four of them the median is"
        " halfway between the two in the middle.",
    ),
    (
        [6.0, 7.5, 4.0, 2.0, 9.0, 6.0],
        "The ratios are 0.8, 2 and 1.5. Put the ratios in order, not the pairs.",
    ),
    ([5.0, 1.6], "There is one pair, so its ratio is the median: 3.125."),
)


def _check_paired(answer: Answer) -> str | None:
    for seconds, note in _TIMINGS:
        a, b = seconds[::2], seconds[1::2]
        ratios = [x / y for x, y in zip(a, b, strict=True)]
        expected = median(ratios)
        got = answer([*seconds])
        got = answers.plain(got)
        if isinstance(got, Real) and abs(got - expected) < 0.006:
            continue
        others: _Others = (
            (1 / expected, "This is B / A. How many times as fast is B? A / B."),
            (
                mean(a) / mean(b),
                "This is the ratio of the means. One slow run changes a mean as much as"
                " it likes: it must not.",
            ),
            (
                min(a) / min(b),
                "This is the ratio of the shortest runs. They come from two moments:"
                " the machine may have been busier in one of them.",
            ),
            (
                median(a) / median(b),
                "These are two medians, each of one side: pairs are torn apart. Divide"
                " first, pair by pair.",
            ),
            (mean(ratios), "This is the mean of the ratios. One odd pair moves it."),
            (max(ratios), "This is the best pair. It was chosen by luck."),
            (
                median(x / y for x, y in zip(seconds, seconds[1:], strict=False)),
                "Each run belongs to one pair: the first A to the first B, and so on.",
            ),
            (
                median(x / y for x, y in zip(seconds, seconds[len(a) :], strict=False)),
                "A and B ran in turns: the first half of the times is not A's.",
            ),
            (
                expected - 1,
                "This tells how much faster. One and a half times as fast is the ratio"
                " 1.5, not 0.5.",
            ),
            (
                median(x - y for x, y in zip(a, b, strict=True)),
                "These are differences, in seconds. How many times as fast? Divide.",
            ),
            (
                a[len(a) // 2] / b[len(b) // 2],
                "The pairs are not sorted: this is the one in the middle of the row.",
            ),
        )
        note = _told(got, others, 0.001, note)
        return f"{note}\n  input: {seconds}\n  expected: {expected:.4g}\n  got: {got!r}"
    return None


_PAIRED_HEAD = "from statistics import mean, median\n\n\ndef paired_ratio(seconds):\n"
_PAIRED = """\
    pairs = zip(seconds[::2], seconds[1::2], strict=True)
    return median(a / b for a, b in pairs)"""


def _of_both(function: str) -> str:
    ratio = f"{function}(seconds[::2]) / {function}(seconds[1::2])"
    return f"{_PAIRED_HEAD}    return {ratio}"


PAIRED = Exercise(
    id="5b.1",
    title="timings in pairs",
    minutes=8,
    stars=2,
    check=_check_paired,
    hints=(
        "Which two runs had the same machine? Compare these, pair by pair.",
        "seconds[::2] are the runs of A, seconds[1::2] those of B; zip() makes pairs.",
        "statistics.median of a / b over the pairs.",
    ),
    solution=_PAIRED_HEAD.replace("mean, ", "") + _PAIRED,
    name="paired_ratio",
    stub="def paired_ratio(seconds):\n"
    '''\
    """Return how many times as fast B is as A, from seconds of A B A B."""
    raise NotImplementedError''',
    wrong=(
        Wrong("the mean is fair", _of_both("mean"), "ratio of the means"),
        Wrong("the shortest run is the true one", _of_both("min"), "shortest runs"),
        Wrong("the order does not matter", _of_both("median"), "torn apart"),
        Wrong(
            "faster is B / A",
            _PAIRED_HEAD + _PAIRED.replace("a / b", "b / a"),
            "This is B / A",
        ),
        Wrong(
            "the mean of the ratios will do",
            _PAIRED_HEAD + _PAIRED.replace("median(a / b", "mean(a / b"),
            "One odd pair",
        ),
        Wrong(
            "the best pair shows what B can do",
            _PAIRED_HEAD + _PAIRED.replace("median(a / b", "max(a / b"),
            "chosen by luck",
        ),
        Wrong(
            "every two neighbours are a pair",
            _PAIRED_HEAD
            + _PAIRED.replace("seconds[::2], ", "seconds, ").replace(
                "seconds[1::2], strict=True", "seconds[1:]"
            ),
            "belongs to one pair",
        ),
        Wrong(
            "the median is the one in the middle of the row",
            _PAIRED_HEAD
            + "    ratios = [a / b for a, b in zip(seconds[::2], seconds[1::2])]\n"
            "    return ratios[len(ratios) // 2]",
            "not sorted",
        ),
        Wrong(
            "of an even number, the upper one is the median",
            _PAIRED_HEAD + "    pairs = zip(seconds[::2], seconds[1::2])\n"
            "    ratios = sorted(a / b for a, b in pairs)\n"
            "    return ratios[len(ratios) // 2]",
            "halfway between",
        ),
    ),
)

# --- 5b.2 ---------------------------------------------------------------------------

_DRAFTS: tuple[tuple[float, int, float, str], ...] = (  # accepted, drafted, draft_cost
    (
        0.6, 4, 0.05,
        "A pass gives 1 + 0.6 + 0.6**2 + 0.6**3 + 0.6**4 = 2.31 tokens, and takes as"
        " long as 1 + 4 * 0.05 = 1.2 passes.",
    ),
    (
        0.5, 3, 0.0,
        "Prompt lookup drafts for nothing: 1 + 0.5 + 0.25 + 0.125 tokens a pass.",
    ),
    (
        0.3, 8, 0.1,
        "Few are accepted, and each draft costs: below 1 it is slower than before.",
    ),
    (
        1.0, 4, 0.1,
        "All four are accepted, and one comes from the big model: 5 tokens. (The closed"
        " formula divides by 1 - accepted: that is 0 here.)",
    ),
    (
        0.0, 5, 0.02,
        "No draft is right. The big model still adds its own token, in each pass.",
    ),
    (
        0.9, 20, 0.02,
        "Each of the 20 drafts counts: 1 + 0.9 + 0.9**2 + ... + 0.9**20 = 8.91 tokens a"
        " pass, in the time of 1 + 20 * 0.02 = 1.4 passes.",
    ),
)  # fmt: skip


def _check_speedup(answer: Answer) -> str | None:
    for accepted, drafted, cost, note in _DRAFTS:
        passes = 1 + drafted * cost
        powers = [accepted**i for i in range(drafted + 1)]
        expected = sum(powers) / passes
        try:
            got = answer(accepted, drafted, cost)
        except ZeroDivisionError as error:
            if accepted != 1:
                raise
            got = error
        got = answers.plain(got)
        if isinstance(got, Real) and abs(got - expected) < 0.006:
            continue
        others: _Others = (
            (
                drafted * accepted / passes,
                "Drafts do not count one by one: after the first wrong one, all others"
                " are thrown away. And the big model adds a token.",
            ),
            (
                drafted * accepted,
                "Drafts do not count one by one: after the first wrong one, all others"
                " are thrown away. And they cost time.",
            ),
            (
                (1 + drafted * accepted) / passes,
                "Drafts do not count one by one: after the first wrong one, all others"
                " are thrown away.",
            ),
            (
                (sum(powers) - 1) / passes,
                "The big model adds a token of its own in each pass: where the draft"
                " was wrong, or after the last one.",
            ),
            (
                (sum(powers) - powers[-1]) / passes,
                f"One is missing: with all {drafted} drafts accepted, a pass gives"
                f" {drafted + 1} tokens.",
            ),
            (
                sum(powers),
                "These are the tokens of a pass. The drafts cost time, too.",
            ),
            (
                sum(powers) / (1 + cost),
                "The cost is that of one draft, and there are several of them.",
            ),
            (
                sum(powers) / (drafted * cost or 1),
                "The pass of the big model itself takes time, too: 1.",
            ),
            (
                passes / sum(powers),
                "Upside down: tokens divided by time, not time by tokens.",
            ),
            (
                sum(powers) / (passes + cost),
                "The draft model writes only the drafts. The last token is the big"
                " model's.",
            ),
            (
                1 / (1 - accepted or 1) / passes,
                f"This is a draft without end: it has {drafted} tokens.",
            ),
            (
                sum(powers) / (1 + (sum(powers) - 1) * cost),
                "Every draft costs time, also those that are thrown away.",
            ),
            (
                (drafted + 1) / passes,
                "This is the most that a pass can give, if all drafts are accepted.",
            ),
            (
                (1 + drafted * powers[-1]) / passes,
                "All drafts or none: but a part of them can be accepted, too.",
            ),
        )
        if not isinstance(got, ZeroDivisionError) and accepted not in (0, 1):
            note = _told(got, others, 0.006, note)
        asked = f"accepted={accepted}, drafted={drafted}, draft_cost={cost}"
        return f"{note}\n  input: {asked}\n  expected: {expected:.4g}\n  got: {got!r}"
    return None


_SPEEDUP_HEAD = "def draft_speedup(accepted, drafted, draft_cost):\n"
_SPEEDUP = """\
    tokens = sum(accepted**i for i in range(drafted + 1))
    return tokens / (1 + drafted * draft_cost)"""
SPEEDUP = Exercise(
    id="5b.2",
    title="do drafts pay",
    minutes=10,
    stars=3,
    check=_check_speedup,
    hints=(
        "What is the chance that the first draft counts? The second counts only if the"
        " first one does.",
        "The i-th draft counts with accepted**i. Sum these chances for i from 1 to"
        " drafted, and add 1 for the token of the big model.",
        "tokens = sum(accepted**i for i in range(drafted + 1)), since accepted**0 is 1."
        " The time is 1 + drafted * draft_cost. Divide.",
    ),
    solution=_SPEEDUP_HEAD + _SPEEDUP,
    name="draft_speedup",
    stub=_SPEEDUP_HEAD
    + '''\
    """Return how many times as fast decoding with drafts is, expected."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "drafts count one by one",
            _SPEEDUP_HEAD
            + "    return drafted * accepted / (1 + drafted * draft_cost)",
            "Drafts do not count one by one",
        ),
        Wrong(
            "the big model only judges",
            _SPEEDUP_HEAD + _SPEEDUP.replace("range(", "range(1, "),
            "a token of its own",
        ),
        Wrong(
            "if all drafts are accepted, there are no more tokens",
            _SPEEDUP_HEAD + _SPEEDUP.replace("drafted + 1", "drafted"),
            "One is missing",
        ),
        Wrong(
            "drafts take no time",
            _SPEEDUP_HEAD + _SPEEDUP.replace(" / (1 + drafted * draft_cost)", ""),
            "The drafts cost time",
        ),
        Wrong(
            "one draft costs as much as all",
            _SPEEDUP_HEAD + _SPEEDUP.replace("drafted * ", ""),
            "several of them",
        ),
        Wrong(
            "the drafts take all the time",
            _SPEEDUP_HEAD + _SPEEDUP.replace("1 + drafted *", "drafted *"),
            "itself takes time",
        ),
        Wrong(
            "all drafts are accepted",
            _SPEEDUP_HEAD + "    return (drafted + 1) / (1 + drafted * draft_cost)",
            "the most that a pass can give",
        ),
        Wrong(
            "all drafts or none",
            _SPEEDUP_HEAD + "    tokens = 1 + drafted * accepted**drafted\n"
            "    return tokens / (1 + drafted * draft_cost)",
            "All drafts or none",
        ),
        Wrong(
            "a rate is never 1",
            _SPEEDUP_HEAD
            + "    tokens = (1 - accepted ** (drafted + 1)) / (1 - accepted)\n"
            "    return tokens / (1 + drafted * draft_cost)",
            "closed formula",
        ),
    ),
)

# --- 5b.3 ---------------------------------------------------------------------------

_ROOFS: tuple[tuple[int, int, float, float, str], ...] = (
    (
        630_167_424, 136_134_656, 16, 32.7,
        "Read are 494,032,768 weights of 2 bytes, 0.99 GB for each token.",
    ),
    (
        630_167_424, 136_134_656, 4.5, 32.7,
        "4.5 bits are 0.5625 bytes a weight, and that for 494,032,768 weights.",
    ),
    (
        8_190_735_360, 622_329_856, 16, 3350,
        "Qwen3-8B on a card with 3,350 GB/s reads 7.57 billion weights of 2 bytes.",
    ),
    (
        8_190_735_360, 622_329_856, 16, 38,
        "Do not round: on a slow machine it is 2.51 tokens a second.",
    ),
    (
        32_762_123_264, 777_912_320, 16, 5,
        "Do not round: with 5 GB/s, Qwen3-32B reaches 0.07816 tokens a second.",
    ),
)  # fmt: skip


def _check_roof(answer: Answer) -> str | None:
    for parameters, embedding, bits, bandwidth, note in _ROOFS:
        read = (parameters - embedding) * bits / 8
        expected = bandwidth * 1e9 / read
        got = answer(parameters, embedding, bits, bandwidth)
        got = answers.plain(got)
        near = 0.002 * expected
        if isinstance(got, Real) and abs(got - expected) < 1e-6 * expected:
            continue
        others = (
            (expected * 8, "8 bits are one byte: divide by 8 once."),
            (
                expected / 8,
                "Bandwidth is in bytes. `bits` are bits: 8 of them are a byte.",
            ),
            (
                expected * read / parameters / bits * 8,
                "The embedding is counted. Of it, decoding looks up one row a token.",
            ),
            (
                expected * 2**30 / 1e9,
                "1 GB/s is 1,000,000,000 bytes a second. 2**30 bytes are a GiB.",
            ),
            (expected / 1e9, "1 GB/s is 1,000,000,000 bytes a second."),
            (
                bandwidth * 1e9 / (parameters - embedding),
                "This takes a weight for a byte, whatever its bits are."
                if bits > 8
                else "A weight may take less than a byte, as here: use bits / 8.",
            ),
            (
                bandwidth * 1e9 / (parameters - embedding) / 2,
                "Not all weights have 16 bits: look at `bits`.",
            ),
            (
                bandwidth * 1e9 / (parameters - 2 * embedding) / bits * 8,
                "The output head is as large as the embedding, but it is read for each"
                " token.",
            ),
            (
                bandwidth * 1e9 / embedding / bits * 8,
                "This reads the embedding alone. Decoding reads all the rest.",
            ),
        )
        note = _told(got, others, near, note)
        if isinstance(got, Real) and abs(got * expected - 1) < 0.005:
            note = "These are seconds for a token. Return tokens for a second."
        if any(got == round(expected, n) for n in range(7)):
            note = "Do not round: on a slow machine it is 0.07816 tokens a second."
        return (
            f"{note}\n  input: parameters={parameters}, embedding={embedding},"
            f" bits={bits}, bandwidth_gb_s={bandwidth}"
            f"\n  expected: {expected:.8g}\n  got: {got!r}"
        )
    return None


_ROOF_HEAD = "def decode_roof(parameters, embedding, bits, bandwidth_gb_s):\n"
_ROOF = """\
    bytes_read = (parameters - embedding) * bits / 8
    return bandwidth_gb_s * 1e9 / bytes_read"""
ROOF = Exercise(
    id="5b.3",
    title="the roof of decoding",
    minutes=6,
    stars=1,
    check=_check_roof,
    hints=(
        "For each token the memory delivers all weights once, but not the embedding."
        " How many bytes is that?",
        "bytes_read = (parameters - embedding) * bits / 8. The bandwidth is"
        " bandwidth_gb_s * 1e9 bytes a second.",
        "Bytes a second, divided by bytes a token, are tokens a second.",
    ),
    solution=_ROOF_HEAD + _ROOF,
    name="decode_roof",
    stub=_ROOF_HEAD
    + '''\
    """Return the tokens per second that decoding can reach at most."""
    raise NotImplementedError''',
    wrong=(
        Wrong("bits are bytes", _ROOF_HEAD + _ROOF.replace(" / 8", ""), "are a byte"),
        Wrong(
            "all parameters are read",
            _ROOF_HEAD + _ROOF.replace("(parameters - embedding)", "parameters"),
            "The embedding is counted",
        ),
        Wrong(
            "only the embedding is read",
            _ROOF_HEAD + _ROOF.replace("(parameters - embedding)", "embedding"),
            "the embedding alone",
        ),
        Wrong(
            "a GB is 2**30 bytes", _ROOF_HEAD + _ROOF.replace("1e9", "2**30"), "a GiB"
        ),
        Wrong(
            "seconds for a token",
            _ROOF_HEAD + "    return 1 / (bandwidth_gb_s * 1e9) * "
            "(parameters - embedding) * bits / 8",
            "These are seconds",
        ),
        Wrong(
            "a weight is a byte",
            _ROOF_HEAD + _ROOF.replace(" * bits / 8", ""),
            "whatever its bits are",
        ),
        Wrong(
            "a weight has whole bytes",
            _ROOF_HEAD + _ROOF.replace("* bits / 8", "* max(1, bits // 8)"),
            "less than a byte",
        ),
    ),
)

EXERCISES = (PAIRED, SPEEDUP, ROOF)
