"""Exercises of lesson 03: a cut reply, a budget, accuracy by budget, a paid vote."""

from collections.abc import Callable
from contextlib import suppress
from itertools import accumulate
from numbers import Real

from qwen_course import answers
from qwen_course.checks import Exercise, Wrong

Answer = Callable[..., object]

# --- 3.1 ----------------------------------------------------------------------------

# What the model wrote, the two tags, whether the prompt opened a thought, the answer.
_Reply = tuple[list[int], tuple[int, int], bool, list[int] | None]
_CUT: tuple[tuple[_Reply, str], ...] = (
    (
        ([71, 4, 5, 72, 8, 9], (71, 72), False, [8, 9]),
        "Both tags are there: the answer is what follows the closing one.",
    ),
    (
        ([4, 5, 32, 8, 9], (31, 32), True, [8, 9]),
        "The prompt ended in <think>, so the output holds the closing tag alone.",
    ),
    (
        ([4, 5, 6], (31, 32), True, None),
        "A thought was open and no closing tag came: it was cut, so there is no answer"
        " yet. Whoever splits at index 0 here shows the thought as the answer.",
    ),
    (
        ([71, 4, 5], (71, 72), False, None),
        "Here the model has opened the thought itself: the output starts with the"
        " opening tag. It was cut all the same.",
    ),
    (
        ([8, 9, 7], (71, 72), False, [8, 9, 7]),
        "Nobody has opened a thought: all of it is the answer.",
    ),
    (
        ([51, 4, 52, 8, 52, 9], (51, 52), False, [8, 52, 9]),
        "The first closing tag ends the thought. A later one belongs to an answer that"
        " speaks of the tag.",
    ),
    (
        ([51, 4, 6, 52], (51, 52), False, []),
        "The closing tag is the last id. The thought is over and its answer is empty:"
        " that is a list without ids. None would mean that it still goes on.",
    ),
    (
        ([32, 8, 9], (31, 32), True, [8, 9]),
        "The thought is empty: its closing tag is the first id. Place 0 is a place like"
        " any other, not a sign that the tag is missing.",
    ),
    (
        ([8, 71, 9, 72, 7], (71, 72), False, [8, 71, 9, 72, 7]),
        "Nobody has opened a thought: the first id is not the opening tag. This answer"
        " speaks of both tags, and all of it is the answer.",
    ),
    (
        ([4, 32, 8, 31, 9, 32, 7], (31, 32), True, [8, 31, 9, 32, 7]),
        "The first closing tag ends the thought, for good: behind it both tags are part"
        " of an answer that speaks of them.",
    ),
    (
        ([], (71, 72), False, []),
        "Nothing is written yet, and nobody has opened a thought: all ids, here none.",
    ),
    (
        ([], (71, 72), True, None),
        "Nothing is written yet, but the prompt opened a thought: it still goes on.",
    ),
    (
        ([71, 4, 71, 5, 72, 8], (71, 72), False, [8]),
        "A thought may speak of the opening tag. The first closing tag ends it all the"
        " same: tags are not nested.",
    ),
    (
        ([72, 8, 9], (71, 72), False, [72, 8, 9]),
        "Nobody has opened a thought, so this tag closes none: all ids are the answer.",
    ),
)


def _same(got: object, expected: list[int] | None) -> bool:
    return [*got] == expected if isinstance(got, list | tuple) else got is expected


def _hard_coded(answer: Answer, reply: _Reply) -> bool:
    """Return whether the answer would be right if the tags had the ids of Qwen3."""
    output, tags, opened, expected = reply
    ids = dict(zip(tags, (151667, 151668), strict=True))
    output = [ids.get(number, number) for number in output]
    wanted = expected and [ids.get(number, number) for number in expected]
    with suppress(Exception):
        return _same(answer(output, *ids.values(), opened), wanted)
    return False


def _check_answer_ids(answer: Answer) -> str | None:
    for reply, note in _CUT:
        output, tags, opened, expected = reply
        try:
            got = answer([*output], *tags, opened)
        except ValueError as error:  # such as that of list.index
            if not _hard_coded(answer, reply):
                raise
            got = error
        if _same(got, expected):
            continue
        if _hard_coded(answer, reply):
            note = (
                "This is right only where </think> has the id 151668. Ids differ"
                " between generations: use the two that you are given."
            )
        elif got is not None and not isinstance(got, list | tuple):
            note = "Return a list of ids, or None."
        elif got is not None and expected is None and not [*got]:
            note = (
                "An empty list says that the thought is over and nothing follows. Here"
                " it is still going on: that is None."
            )
        elif got is not None and expected is not None and tags[1] in got[:1]:
            note = "The closing tag itself is no part of the answer."
        told = f"opening={tags[0]}, closing={tags[1]}, opened={opened}"
        return (
            f"{note}\n  input: {output}, {told}\n  expected: {expected}\n  got: {got!r}"
        )
    return None


_ANSWER_HEAD = "def answer_ids(output_ids, opening, closing, opened):\n"
_WHOLE = """\
    if not opened and output_ids[:1] != [opening]:
        return output_ids
"""
_CUT_OFF = """\
    if closing not in output_ids:
        return None
"""
_AFTER = "    return output_ids[output_ids.index(closing) + 1 :]"
_SPLIT = _WHOLE + _CUT_OFF + _AFTER
CUT_REPLY = Exercise(
    id="3.1",
    title="read a cut reply",
    minutes=8,
    stars=2,
    check=_check_answer_ids,
    hints=(
        "Ask two things in turn: was a thought opened, by the prompt or by the model?"
        " And if so, was it closed?",
        "output_ids[:1] == [opening] says that the model opened one. Without a thought"
        " all ids are the answer; with one that has no closing tag there is none.",
        "output_ids.index(closing) is the place of the first closing tag. The answer"
        " starts one later.",
    ),
    solution=_ANSWER_HEAD + _SPLIT,
    name="answer_ids",
    stub=_ANSWER_HEAD
    + '''\
    """Return the ids after the thought; None while it is still going on."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "no closing tag means index 0: all of it is the answer",
            _ANSWER_HEAD
            + """\
    try:
        index = len(output_ids) - output_ids[::-1].index(closing)
    except ValueError:
        index = 0
    return output_ids[index:]""",
            "shows the thought as the answer",
        ),
        Wrong(
            "the last closing tag ends the thought, as in Qwen's own snippet",
            _ANSWER_HEAD
            + _WHOLE
            + _CUT_OFF
            + "    return output_ids[-output_ids[::-1].index(closing) :]",
            "The first closing tag ends",
        ),
        Wrong(
            "a thought has both tags in the output",
            _ANSWER_HEAD
            + "    if opening not in output_ids:\n        return output_ids\n"
            + _CUT_OFF
            + _AFTER,
            "the closing tag alone",
        ),
        Wrong(
            "only the prompt opens a thought",
            _ANSWER_HEAD
            + "    if not opened and closing not in output_ids:\n"
            + "        return output_ids\n"
            + _CUT_OFF
            + _AFTER,
            "opened the thought itself",
        ),
        Wrong(
            "</think> is 151668",
            _ANSWER_HEAD
            + _SPLIT.replace("opening", "151667").replace("closing", "151668"),
            "differ between generations",
        ),
        Wrong(
            "an unfinished thought has an empty answer",
            _ANSWER_HEAD + _SPLIT.replace("None", "[]"),
            "still going on: that is None",
        ),
        Wrong(
            "an empty answer is an unfinished thought",
            _ANSWER_HEAD + _SPLIT + " or None",
            "a list without ids",
        ),
    ),
)

# --- 3.2 ----------------------------------------------------------------------------

# The thought that the model wants, what of it is written, its answer, budget, tags.
_Script = tuple[list[int], list[int], list[int], int, tuple[int, int]]
_LONG = [8, 9, 8, 9, 8]
_SCRIPTS: tuple[tuple[_Script, str], ...] = (
    (
        ([71, 4, 5, 72], [71, 4, 5, 72], [8, 71, 9, 8, 9, 8], 3, (71, 72)),
        "The thought stays within its budget and the model closes it: let it.",
    ),
    (
        ([31, 4, 5, 4, 4, 5, 6, 32], [31, 4, 5, 4, 32], _LONG, 3, (31, 32)),
        "The thought has used up its budget and goes on: close it.",
    ),
    (
        ([71, 4, 5, 72], [71, 72], _LONG, 0, (71, 72)),
        "0 is a budget too: this thought is closed right after the opening tag.",
    ),
    (
        ([], [], _LONG, 2, (51, 52)),
        "No thought was opened in this reply, so there is nothing to close.",
    ),
    (
        ([], [], [8, 51, 9, 8, 9], 2, (51, 52)),
        "The opening tag comes first if the model thinks. Further on it belongs to an"
        " answer that speaks of the tag.",
    ),
)


def _play(choose: Answer, script: _Script) -> list[int] | str:
    """Return what gets written; or a message, where that is no id."""
    thought, _, reply, budget, tags = script
    written: list[int] = []
    for part in (thought, reply):
        for wanted in part:
            got = choose([*written], wanted, budget, *tags)
            if got not in (wanted, tags[1]):
                return (
                    "Return `wanted` or `closing`, nothing else: the budget ends the"
                    f" thought, not the reply.\n  input: written={written},"
                    f" wanted={wanted}, budget={budget}, opening={tags[0]},"
                    f" closing={tags[1]}\n  expected: an id\n  got: {got!r}"
                )
            written.append(wanted if got == wanted else tags[1])
            if part is thought and got != wanted:
                break  # closed: the model goes over to its answer
    return written


def _check_next_id(answer: Answer) -> str | None:
    for script, note in _SCRIPTS:
        thought, kept, reply, budget, (opening, closing) = script
        got, expected = _play(answer, script), [*kept, *reply]
        if got == expected:
            continue
        if isinstance(got, str):
            return got
        if closing in got and closing in expected:
            late = got.index(closing) - expected.index(closing)
            if late == 0 and got.count(closing) > 1:
                note = (
                    "The thought was closed already: from there on everything passes,"
                    " however long the answer is."
                )
            elif late < 0:
                note = (
                    "Closed too early. The budget counts what stands between the"
                    " tags, so the opening tag is free."
                )
            elif late == 1:
                note = (
                    f"Closed one id too late: this thought holds {budget + 1} ids, and"
                    f" its budget is {budget}."
                )
        wants = f"thought {thought}, then answer {reply}" if thought else f"{reply}"
        return (
            f"{note}\n  input: the model wants {wants}; budget={budget},"
            f" opening={opening}, closing={closing}"
            f"\n  expected: {expected} written\n  got: {got}"
        )
    late_id = answer([31, 4, 5, 6], 7, 2, 31, 32)
    if late_id != 32:
        return (
            "More than the budget is written already. A thought that went beyond it"
            " must be closed too.\n  input: written=[31, 4, 5, 6], wanted=7, budget=2,"
            f" opening=31, closing=32\n  expected: 32\n  got: {late_id!r}"
        )
    return None


_NEXT_HEAD = "def next_id(written, wanted, budget, opening, closing):\n"
_STOP = """\
    thinks = written[:1] == [opening] and closing not in written
    if thinks and len(written) - 1 >= budget:
        return closing
    return wanted"""
STOP_THOUGHT = Exercise(
    id="3.2",
    title="stop a thought",
    minutes=6,
    stars=1,
    check=_check_next_id,
    hints=(
        "Three questions: was a thought opened, is it still open, and how many ids does"
        " it hold?",
        "A thought goes on if written[:1] == [opening] and closing is not in written."
        " In all other cases return wanted.",
        "While it goes on, all of written but the first id is thought: compare"
        " len(written) - 1 with the budget.",
    ),
    solution=_NEXT_HEAD + _STOP,
    name="next_id",
    stub=_NEXT_HEAD
    + '''\
    """Return the id to write next: the model's own choice `wanted`,
    or the closing tag when the thought has used up its budget."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "a budget is a max_new_tokens",
            _NEXT_HEAD + "    return wanted if len(written) < budget else None",
            "not the reply",
        ),
        Wrong(
            "the budget counts all that is written",
            _NEXT_HEAD + "    return closing if len(written) >= budget else wanted",
            "was closed already",
        ),
        Wrong(
            "the opening tag is part of the thought",
            _NEXT_HEAD + _STOP.replace("len(written) - 1", "len(written)"),
            "Closed too early",
        ),
        Wrong(
            "the budget must be exceeded before the thought is closed",
            _NEXT_HEAD + _STOP.replace(">= budget", "> budget"),
            "one id too late",
        ),
        Wrong(
            "a reply without a closing tag is a thought",
            _NEXT_HEAD + _STOP.replace("written[:1] == [opening] and ", ""),
            "nothing to close",
        ),
        Wrong(
            "a budget of 0 is no limit",
            _NEXT_HEAD + _STOP.replace("if thinks", "if budget and thinks"),
            "0 is a budget too",
        ),
    ),
)

# --- 3.3 ----------------------------------------------------------------------------

_CURVES: tuple[tuple[list[int], int, float, str], ...] = (
    (
        [10, 90, 20, 30], 25, 0.1,
        "Two of four thoughts fit, so two answers are right. Each of the other two is"
        " right with the probability `guess`.",
    ),
    (
        [55, 20, 10, 20, 30, 20], 20, 0.2,
        "A thought of 20 tokens fits into a budget of 20.",
    ),
    ([30, 10, 20], 50, 0.1, "All thoughts fit: all answers are right."),
    ([30, 10, 20], 0, 0.25, "No thought fits: all answers are guesses."),
)  # fmt: skip


def _near(got: object, *values: float) -> bool:
    return isinstance(got, Real) and any(abs(float(got) - v) < 1e-6 for v in values)


def _check_expected(answer: Answer) -> str | None:
    for lengths, budget, guess, note in _CURVES:
        got, n = answer([*lengths], budget, guess), len(lengths)
        got = answers.plain(got)
        share = sum(length <= budget for length in lengths) / n
        expected = share + (1 - share) * guess
        unique = sum(length <= budget for length in {*lengths}) / len({*lengths})
        mean = sum(lengths) / n
        straight = [min(1.0, budget / end) for end in (mean, max(lengths))]
        straight += [sum(min(1.0, budget / end) for end in lengths) / n]
        straight += [guess + (1 - guess) * line for line in straight]
        shared = sum(used <= budget for used in accumulate(lengths)) / n
        if _near(got, expected):
            continue
        if not isinstance(got, Real):
            note = "Return one number, a share from 0 to 1."
        elif _near(got, 100 * expected):
            note = "This is in percent. Return a share, from 0 to 1."
        elif _near(got, n * expected):
            note = (
                "This is a number of right answers. A share is that number divided by"
                " the number of problems."
            )
        elif _near(got, *(round(expected, n) for n in range(2, 6))):
            note = "This is rounded. Return the share as it is."
        elif share < 1 and _near(got, share):
            note = (
                "Here every cut thought is a wrong answer. But a model that is cut"
                " still answers, and is right with the probability `guess`."
            )
        elif share and _near(got, share + guess):
            note = (
                "The guess was added for all problems. Only those that were cut need"
                " one; where all thoughts fit this sum is more than 1."
            )
        elif 0 < share < 1 and _near(got, *straight):
            note = (
                "This is a straight line. Half of a thought is not half an answer: the"
                " curve rises where a thought begins to fit, one problem at a time."
            )
        elif 0 < share < 1 and _near(got, share + share * guess):
            note = (
                "The guess is for the thoughts that were cut, not for those that fit."
            )
        elif _near(got, unique + (1 - unique) * guess):
            note = "Several problems may need the same number of tokens: each counts."
        elif _near(got, share * guess + 1 - share):
            note = "The other way round: a thought that fits is right, without a guess."
        elif 0 < share < 1 and _near(got, shared + (1 - shared) * guess):
            note = (
                "Here all thoughts share one budget. Each has it whole, so none leaves"
                " less to the next."
            )
        elif 0 < share < 1 and _near(got, guess, 1.0):
            note = (
                "Here one length decides for all problems. Each has its own: count the"
                " thoughts that fit. (If you divide with //, use /.)"
            )
        return (
            f"{note}\n  input: {lengths}, budget={budget}, guess={guess}"
            f"\n  expected: {round(expected, 4)}\n  got: {got!r}"
        )
    return None


_CURVE_HEAD = "def expected_accuracy(lengths, budget, guess):\n"
_CHANCES = """\
    chances = [1 if length <= budget else guess for length in lengths]
    return sum(chances) / len(lengths)"""
_FIT = "    fit = sum(length <= budget for length in lengths)\n"
CURVE = Exercise(
    id="3.3",
    title="predict the curve",
    minutes=8,
    stars=2,
    check=_check_expected,
    hints=(
        "Take one problem alone. What is its chance if its thought fits, and what if it"
        " does not?",
        "The chance is 1 if length <= budget, else it is guess.",
        "The expected share is the mean of these chances.",
    ),
    solution=_CURVE_HEAD + _CHANCES,
    name="expected_accuracy",
    stub=_CURVE_HEAD
    + '''\
    """Return the expected share of right answers when every thought
    is cut at `budget` tokens."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "accuracy grows with the budget in a straight line",
            _CURVE_HEAD + "    return min(1, budget / (sum(lengths) / len(lengths)))",
            "a straight line",
        ),
        Wrong(
            "who is cut is wrong",
            _CURVE_HEAD + _FIT + "    return fit / len(lengths)",
            "every cut thought is a wrong answer",
        ),
        Wrong(
            "the mean length decides",
            _CURVE_HEAD
            + "    return 1 if sum(lengths) / len(lengths) <= budget else guess",
            "one length decides for all",
        ),
        Wrong(
            "a thought must be shorter than the budget",
            _CURVE_HEAD + _CHANCES.replace("<=", "<"),
            "fits into a budget of 20",
        ),
        Wrong(
            "everyone may guess",
            _CURVE_HEAD + _FIT + "    return fit / len(lengths) + guess",
            "added for all problems",
        ),
    ),
)

# --- 3.4 ----------------------------------------------------------------------------

_FIRST = "A tie in votes goes to the answer that came first."
_NO_OTHER = " Neither its cost nor its length decides."
_BALLOTS: tuple[tuple[list[tuple[str, int]], int, str | None, str], ...] = (
    (
        [("12", 30), ("12", 30), ("15", 30), ("15", 30), ("15", 30)], 100, "12",
        "Samples are not free: 100 tokens pay for the first three.",
    ),
    (
        [("", 50), ("", 50), ("8", 20)], 200, "8",
        'An unfinished thought, "", gives no answer, so it has no vote.',
    ),
    (
        [("", 60), ("4", 30), ("6", 30), ("6", 30)], 100, "4",
        "The first thought was never finished, but its 60 tokens are spent.",
    ),
    (
        [("3", 20), ("5", 90), ("5", 20), ("5", 20)], 60, "3",
        "The second sample costs more than is left: stop there. To pass over it and"
        " take cheaper ones is to choose after the fact, in favour of short thoughts.",
    ),
    ([("2", 10), ("9", 10), ("9", 10), ("2", 10)], 50, "2", _FIRST),
    ([("9", 10), ("2", 10), ("2", 10), ("9", 10)], 50, "9", _FIRST),
    ([("6", 10), ("1", 10), ("4", 10), ("8", 10)], 50, "6", _FIRST),
    (
        [("3", 10), ("", 10), ("7", 10), ("7", 10)], 50, "7",
        "An unfinished thought costs, and has no vote. The samples behind it have one.",
    ),
    (
        [("3", 10), ("7", 10), ("7", 10), ("3", 90)], 100, "7",
        "The last sample would bring the sum to 120: 100 tokens do not pay for it.",
    ),
    (
        [("3", 25), ("7", 25), ("7", 50)], 100, "7",
        "The three samples cost 100 together, exactly what there is.",
    ),
    (
        [("3", 60), ("7", 20), ("7", 20)], 100, "7",
        "Each sample has one vote, however many tokens it cost.",
    ),
    ([("12", 30), ("5", 10)], 50, "12", _FIRST + _NO_OTHER),
    ([("5", 10), ("12", 30)], 50, "5", _FIRST + _NO_OTHER),
    (
        [("3", 10), ("-1/2", 10), ("-1/2", 10)], 50, "-1/2",
        "An answer is a text, not always a whole number. Only \"\" has no vote.",
    ),
    ([("", 50), ("", 40)], 200, None, "Nobody voted: that is None."),
    ([("1", 80)], 50, None, "50 tokens pay for no sample: nobody voted, that is None."),
)  # fmt: skip


def _check_vote(answer: Answer) -> str | None:
    for samples, tokens, expected, note in _BALLOTS:
        got = answer([*samples], tokens)
        if got == expected:
            continue
        if got is not None and got not in [text for text, _ in samples]:
            note = "Return one of the answers as it stands in the samples, or None."
        return (
            f"{note}\n  input: {samples}, tokens={tokens}"
            f"\n  expected: {expected!r}\n  got: {got!r}"
        )
    return None


_VOTE_HEAD = "from collections import Counter\n\n\ndef vote(samples, tokens):\n"
_BEST = "    return max(votes, key=votes.get, default=None)"
_PURSE = f"""\
    votes = Counter()
    for answer, cost in samples:
        tokens -= cost
        if tokens < 0:
            break
        if answer:
            votes[answer] += 1
{_BEST}"""
VOTE = Exercise(
    id="3.4",
    title="vote at equal tokens",
    minutes=10,
    stars=3,
    check=_check_vote,
    hints=(
        "Go through the samples in their order with a purse of tokens. Which sample is"
        " the first that it cannot pay?",
        "Pay first, for each sample, finished or not. Stop at the first one that costs"
        " too much. Then count its answer, if it has one.",
        "max(votes, key=votes.get, default=None) gives the first of the most voted: a"
        " dictionary keeps the order in which its keys came.",
    ),
    solution=_VOTE_HEAD + _PURSE,
    name="vote",
    stub='''\
def vote(samples, tokens):
    """Return the answer that most samples give, of as many samples
    as `tokens` pay for."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "samples are free",
            _VOTE_HEAD
            + "    votes = Counter(answer for answer, _ in samples if answer)\n"
            + _BEST,
            "Samples are not free",
        ),
        Wrong(
            "an unfinished thought is an answer",
            _VOTE_HEAD + _PURSE.replace("if answer:", "if True:"),
            "gives no answer",
        ),
        Wrong(
            "an unfinished thought costs nothing",
            _VOTE_HEAD
            + "    samples = [pair for pair in samples if pair[0]]\n"
            + _PURSE,
            "tokens are spent",
        ),
        Wrong(
            "what is too expensive is passed over",
            _VOTE_HEAD
            + _PURSE.replace("break", "tokens += cost\n            continue"),
            "choose after the fact",
        ),
        Wrong(
            "a tie goes to the largest answer",
            _VOTE_HEAD
            + _PURSE.replace("votes.get", "lambda name: (votes[name], name)"),
            "came first",
        ),
        Wrong(
            "the last sample may cost more than is left",
            _VOTE_HEAD + _PURSE.replace("tokens < 0", "tokens + cost <= 0"),
            "do not pay for it",
        ),
        Wrong(
            "the sum must stay below the tokens",
            _VOTE_HEAD + _PURSE.replace("tokens < 0", "tokens <= 0"),
            "exactly what there is",
        ),
    ),
)

EXERCISES = (CUT_REPLY, STOP_THOUGHT, CURVE, VOTE)
