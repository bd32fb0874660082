"""Exercises of lesson 07: one request's numbers, a p95 from buckets, limits, drift."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from numbers import Integral, Real
from statistics import fmean, median
from typing import Any

from qwen_course import monitor
from qwen_course.checks import Exercise, Wrong
from qwen_course.errors import CourseError

Answer = Callable[..., Any]


def _near(got: Any, wanted: float | None) -> bool:
    """Return whether a number, or None, is the wanted one."""
    if got is None or wanted is None:
        return got is wanted
    if not isinstance(got, Real) or isinstance(got, bool):
        return False
    return math.isclose(float(got), wanted, rel_tol=1e-6, abs_tol=1e-9)


def _note(
    got: list[Any], right: list[Any], beliefs: list[dict[str, Any]], wrong: int
) -> str:
    """Return what is to be said to the belief behind all answers, or the first wrong.

    "" when no belief explains them.
    """
    for note in beliefs[0]:
        told = [row[note] for row in beliefs]
        if all(map(_near, got, told)) and not all(map(_near, told, right)):
            return note
    first = beliefs[wrong]
    known = (
        note
        for note in first
        if _near(got[wrong], first[note]) and not _near(first[note], right[wrong])
    )
    return next(known, "")


# --- 7.1 ----------------------------------------------------------------------------

_Request = tuple[float, float, list[float], int]  # came, began, tokens' moments, prompt
_REQUESTS: tuple[_Request, ...] = (
    (10.0, 12.0, [12.5, 12.625, 12.75, 12.875, 13.75], 50),  # one slow token
    (0.0, 0.0, [0.75, 0.875, 1.125, 1.5], 100),  # no queue; do not round 133.3
    (5.0, 6.0, [6.5], 20),  # one token: no gap
    (100.0, 100.5, [101.0, 101.25, 101.75], 64),
    (20.0, 20.5, [21.5, 22.0], 30),  # two tokens: one gap
)
_KEYS = ("wait", "per_token", "decode", "prefill")


def _costs(came: float, began: float, moments: list[float], prompt: int) -> list[Any]:
    gaps = [b - a for a, b in pairwise(moments)]
    return [
        moments[0] - came,
        median(gaps) if gaps else None,
        len(gaps) / (moments[-1] - moments[0]) if gaps else None,
        prompt / (moments[0] - began),
    ]


def _cost_problem(key: str, got: Any, request: _Request) -> str:
    """Return what is wrong with one number of a request."""
    came, began, moments, prompt = request
    gaps = [b - a for a, b in pairwise(moments)]
    if not gaps and key in ("per_token", "decode"):
        return "One token has no gap: per_token and decode are None, not measured."
    if got is None and len(gaps) == 1 and key in ("per_token", "decode"):
        return "Two tokens have one gap: it is its own median, and can be measured."
    whole, decode = moments[-1] - came, moments[-1] - moments[0]
    others: dict[str, list[tuple[float | None, str]]] = {
        "wait": [
            (moments[0] - began, "The user waits in the queue, too: from `came` on."),
            (1000 * (moments[0] - came), "This is in milliseconds: stay with seconds."),
            (began - came, "This is the queue alone. The user waits for a token."),
            (whole, "This is the whole request: the wait ends with the first token."),
        ],
        "per_token": [
            (
                fmean(gaps or [0.0]),
                "This is the mean: one slow token moves it. Median!",
            ),
            (decode / len(moments), "n tokens have n - 1 gaps between them."),
            *(
                (sorted(gaps)[place], "Two gaps stand in the middle: half-way!")
                for place in (len(gaps) // 2, (len(gaps) - 1) // 2)
                if gaps
            ),
            *(
                (
                    median([moments[0] - start, *gaps]),
                    "The time to the first token is no gap: gaps lie between tokens.",
                )
                for start in (came, began)
            ),
        ],
        "decode": [
            (
                len(moments) / whole,
                "The queue and the prompt's time are in this speed.",
            ),
            (len(gaps) / whole, "The queue and the prompt's time are in this speed."),
            (
                len(moments) / (moments[-1] - began),
                "The prompt's time is in it: decoding begins with the first token.",
            ),
            (
                len(moments) / (decode or 1),
                "The first token comes from prefill: n - 1 tokens were decoded.",
            ),
            (
                1 / median(gaps or [1.0]),
                "This is 1 / per_token: slow tokens are lost. Count all seconds.",
            ),
        ],
        "prefill": [
            (
                prompt / (moments[0] - came),
                "The queue is in prefill here: the prompt is read from `began` on.",
            ),
            ((moments[0] - began) / prompt, "This is seconds a token: turn it round."),
        ],
    }
    told = [note for value, note in others[key] if _near(got, value)]
    right = dict(zip(_KEYS, _costs(*request), strict=True))[key]
    if any(_near(got, round(right, places)) for places in range(4)):
        told.append("Do not round.")
    return told[0] if told else f"{key!r} is another number."


def _check_cost(answer: Answer) -> str | None:
    for request in _REQUESTS:
        came, began, moments, prompt = request
        right = dict(zip(_KEYS, _costs(*request), strict=True))
        got = answer(came, began, [*moments], prompt)
        if not isinstance(got, dict) or got.keys() != right.keys():
            note = f"Return a dictionary with the keys {', '.join(_KEYS)}."
        else:
            wrong = [key for key in _KEYS if not _near(got[key], right[key])]
            if not wrong:
                continue
            note = _cost_problem(wrong[0], got[wrong[0]], request)
        return (
            f"{note}\n  input: came={came}, began={began}, moments={moments},"
            f" prompt_tokens={prompt}\n  expected: {right}\n  got: {got!r}"
        )
    return None


_COST_HEAD = "def cost(came, began, moments, prompt_tokens):\n"
_COST_IMPORT = "from itertools import pairwise\nfrom statistics import median\n\n\n"
_COST = """\
    gaps = [after - before for before, after in pairwise(moments)]
    return {
        "wait": moments[0] - came,
        "per_token": median(gaps) if gaps else None,
        "decode": len(gaps) / sum(gaps) if gaps else None,
        "prefill": prompt_tokens / (moments[0] - began),
    }"""


def _cost(old: str = "", new: str = "") -> str:
    return _COST_IMPORT + _COST_HEAD + _COST.replace(old, new)


COST = Exercise(
    id="7.1",
    title="what one request costs",
    minutes=10,
    stars=1,
    check=_check_cost,
    hints=(
        "Draw a line with came, began and the moments of three tokens. Which part is"
        " the queue, which is prefill, which is decoding?",
        "n tokens have n - 1 gaps. itertools.pairwise(moments) gives each pair of"
        " neighbours.",
        "wait = moments[0] - came. decode = len(gaps) / sum(gaps). prefill ="
        " prompt_tokens / (moments[0] - began). Without gaps: None.",
    ),
    solution=_cost(),
    name="cost",
    stub=_COST_HEAD
    + '''\
    """Return wait, per_token, decode and prefill of one request."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "the wait begins with the work",
            _cost("moments[0] - came", "moments[0] - began"),
            "The user waits in the queue, too",
        ),
        Wrong(
            "waiting is the queue",
            _cost("moments[0] - came", "began - came"),
            "This is the queue alone",
        ),
        Wrong(
            "the wait ends with the reply",
            _cost("moments[0] - came", "moments[-1] - came"),
            "ends with the first token",
        ),
        Wrong(
            "a mean will do",
            _cost("median(gaps) if", "sum(gaps) / len(gaps) if"),
            "This is the mean",
        ),
        Wrong(
            "speed is tokens by the whole time",
            _cost("len(gaps) / sum(gaps)", "len(moments) / (moments[-1] - came)"),
            "The queue and the prompt's time",
        ),
        Wrong(
            "speed begins with the work",
            _cost("len(gaps) / sum(gaps)", "len(moments) / (moments[-1] - began)"),
            "decoding begins with the first token",
        ),
        Wrong(
            "all tokens are decoded",
            _cost("len(gaps) / sum(gaps)", "len(moments) / sum(gaps)"),
            "n - 1 tokens were decoded",
        ),
        Wrong(
            "the queue reads the prompt",
            _cost("(moments[0] - began)", "(moments[0] - came)"),
            "The queue is in prefill here",
        ),
        Wrong(
            "what was not measured is 0",
            _cost("if gaps else None", "if gaps else 0.0"),
            "not measured",
        ),
        Wrong(
            "a speed is seconds a token",
            _cost(
                "prompt_tokens / (moments[0] - began)",
                "(moments[0] - began) / prompt_tokens",
            ),
            "turn it round",
        ),
    ),
)

# --- 7.2 ----------------------------------------------------------------------------

_Buckets = list[tuple[float, int]]
_REACHED = "Find the first count that is at least share x total; return a number."
_INF = math.inf
_BUCKETS: tuple[tuple[_Buckets, float], ...] = (
    ([(0.1, 50), (0.5, 80), (1.0, 100), (_INF, 100)], 0.95),
    ([(0.1, 50), (0.5, 80), (1.0, 100), (_INF, 100)], 0.5),
    ([(0.2, 80), (1.0, 100), (_INF, 100)], 0.4),  # in the first bucket, from 0 on
    ([(1.0, 10), (2.0, 12), (5.0, 30), (_INF, 40)], 0.5),
    ([(1.0, 5), (2.0, 6), (_INF, 20)], 0.95),  # above the last limit
    ([(0.1, 0), (0.5, 0), (_INF, 0)], 0.95),
    ([(0.5, 50), (1.0, 50), (2.0, 100), (_INF, 100)], 0.5),  # reached exactly
    ([(1.0, 3), (2.0, 4), (_INF, 4)], 1.0),
    ([(1.0, 3), (2.0, 10), (_INF, 10)], 0.75),  # 7.5 of 10
    ([(0.5, 0), (1.0, 20), (2.0, 20), (5.0, 40), (_INF, 40)], 0.75),  # an empty bucket
    ([(0.25, 0), (1.0, 20), (_INF, 20)], 0.75),  # the first one is empty
    ([(1.0, 5), (2.0, 5), (_INF, 10)], 0.9),  # the highest finite limit is 2
    ([(0.5, 0), (2.0, 0), (_INF, 8)], 0.5),  # all are above the last limit
)


def _bucket_percentile(
    buckets: _Buckets,
    share: float,
    above: bool = False,
    start: tuple[float, int] = (0.0, 0),
) -> float | None:
    rank = share * buckets[-1][1]
    if not buckets[-1][1]:
        return None
    low, before = start
    for limit, count in buckets:
        if count > rank or (count == rank and not above):
            if limit == _INF or count == before:
                return low
            return low + (limit - low) * (rank - before) / (count - before)
        low, before = limit, count
    return low if low < _INF else buckets[-2][0]


def _bucket_beliefs(buckets: _Buckets, share: float) -> dict[str, float | None]:
    """Return what each belief gives, by what is to be said to it."""
    right = _bucket_percentile(buckets, share)
    total = buckets[-1][1]
    place = next(i for i, b in enumerate(buckets) if b[1] >= share * total)
    limit, count = buckets[place]
    low, before = buckets[place - 1] if place else (0.0, 0)
    if not total or limit == _INF:
        values = [right] * 5
    else:
        part = (share * total - before) / (count - before)
        whole = low + (limit - low) * share * total / count
        values = [limit, low, (low + limit) / 2, whole, limit * part]
    values.append(_own_counts(buckets, share) if total else right)
    notes = (
        "This is the bucket's upper end. Go into it, in proportion.",
        "This is the bucket's lower end. Go into it, in proportion.",
        "Not the middle: go into the bucket in proportion.",
        "A part of this bucket is wanted: take off what the buckets before it hold.",
        "The bucket begins at the limit of the one before it, not at 0.",
        "The counts are cumulative: each holds those of the buckets before it.",
    )
    told: dict[str, float | None] = dict(zip(notes, values, strict=True))
    endless = "The last bucket has no upper end: all that one can say is its lower end."
    told[endless] = _INF if total and limit == _INF else right
    above = "Values were counted, if all above the highest finite limit: return that."
    told[above] = right if any(count for _, count in buckets[:-1]) else None
    told["Nothing was counted: there is no percentile, return None."] = right or 0.0
    told |= {
        "A count that is exactly the share has reached it: do not go on.": (
            _bucket_percentile(buckets, share, above=True)
        ),
        "share is from 0 to 1, not in percent.": (
            _bucket_percentile(buckets, share / 100)
        ),
        **{
            f"share x total need not be whole: this rounds it {way}.": (
                _bucket_percentile(buckets, rounded(share * total) / (total or 1))
            )
            for way, rounded in {"up": math.ceil, "down": math.floor}.items()
        },
        "All values count, those of the infinite bucket, too.": (
            _bucket_percentile(buckets[:-1], share)
        ),
        "The first bucket begins at 0, with nothing counted before it.": (
            _bucket_percentile(buckets, share, start=buckets[0])
        ),
    }
    return told


def _own_counts(buckets: _Buckets, share: float) -> float:
    """Return the percentile if each count were of its own bucket alone."""
    total, seen, low = sum(count for _, count in buckets), 0, 0.0
    for limit, count in buckets:
        if seen + count >= share * total:
            break
        low, seen = limit, seen + count
    if limit == _INF:
        return low
    return low + (limit - low) * (share * total - seen) / count


def _check_buckets(answer: Answer) -> str | None:
    right = [_bucket_percentile(*case) for case in _BUCKETS]
    got = [answer([*buckets], share) for buckets, share in _BUCKETS]
    same = [*map(_near, got, right)]
    if all(same):
        return None
    wrong = same.index(False)
    beliefs = [_bucket_beliefs(*case) for case in _BUCKETS]
    note = _note(got, right, beliefs, wrong)
    buckets, share = _BUCKETS[wrong]
    return (
        f"{note or _REACHED}\n  input: buckets={buckets}, share={share}"
        f"\n  expected: {right[wrong]}\n  got: {got[wrong]!r}"
    )


_BUCKET_HEAD = "def bucket_percentile(buckets, share):\n"
_BUCKET = """\
    total = buckets[-1][1]
    if total == 0:
        return None
    rank = share * total
    low, before = 0.0, 0
    for limit, count in buckets:
        if count >= rank:
            if limit == float("inf"):
                return low
            return low + (limit - low) * (rank - before) / (count - before)
        low, before = limit, count"""


def _bucket(old: str = "", new: str = "") -> str:
    return _BUCKET_HEAD + _BUCKET.replace(old, new)


_INSIDE = "low + (limit - low) * (rank - before) / (count - before)"
BUCKETS = Exercise(
    id="7.2",
    title="a p95 from buckets",
    minutes=12,
    stars=2,
    check=_check_buckets,
    hints=(
        "Counts are cumulative. Of 100 requests the 95th is wanted: which is the first"
        " bucket whose count is at least 95?",
        "That bucket begins at the limit of the one before it (the first at 0). It"
        " holds count - before requests; yours is number rank - before of them.",
        "low + (limit - low) * (rank - before) / (count - before). In the bucket with"
        " limit inf, return low. With nothing counted, None.",
    ),
    solution=_bucket(),
    name="bucket_percentile",
    stub=_BUCKET_HEAD
    + '''\
    """Return the percentile that Prometheus reads from buckets."""
    raise NotImplementedError''',
    wrong=(
        Wrong("a bucket is its limit", _bucket(_INSIDE, "limit"), "upper end. Go into"),
        Wrong("a bucket is its start", _bucket(_INSIDE, "low"), "lower end. Go into"),
        Wrong(
            "a bucket is its middle",
            _bucket(_INSIDE, "(low + limit) / 2"),
            "Not the middle",
        ),
        Wrong(
            "the part is of all requests",
            _bucket("(rank - before) / (count - before)", "rank / count"),
            "take off what the buckets before it hold",
        ),
        Wrong(
            "each bucket begins at 0",
            _bucket("low + (limit - low) *", "limit *"),
            "not at 0",
        ),
        Wrong(
            "each count is its own bucket's",
            _BUCKET_HEAD
            + """\
    total = sum(count for _, count in buckets)
    if total == 0:
        return None
    low, seen = 0.0, 0
    for limit, count in buckets:
        if seen + count >= share * total:
            if limit == float("inf"):
                return low
            return low + (limit - low) * (share * total - seen) / count
        low, seen = limit, seen + count""",
            "The counts are cumulative",
        ),
        Wrong(
            "above the last limit it is infinite",
            _bucket("return low\n", "return limit\n"),
            "has no upper end",
        ),
        Wrong(
            "nothing is 0",
            _bucket("return None", "return 0.0"),
            "there is no percentile",
        ),
    ),
)

# --- 7.3 ----------------------------------------------------------------------------

_RULES = (
    "token_seconds_p95", "prompt_tokens_p95", "leaked_share", "memory_growth",
    "canary_pass_rate",
)  # fmt: skip
# Measured with the lesson's `day`, pocket-thinking, 2 cores shared by others.
_GOOD_DAYS: dict[str, tuple[float, ...]] = {
    "quiet day": (0.0145, 33.0, 0.0, 7.0, 1.0),
    "busy day": (0.0327, 32.0, 0.0, 0.0, 1.0),
    "busiest day": (3 * 0.0327, 33.0, 0.0, 0.0, 1.0),  # as slow as three busy ones
}
_BAD_DAYS: dict[str, tuple[float, ...]] = {
    "slow disk": (0.2785, 33.0, 0.0, 0.0, 1.0),
    "10x longer": (0.0123, 257.5, 0.15, 0.0, 1.0),
    "template": (0.018, 30.0, 0.9, 0.0, 0.05),
    "2 bits": (0.0112, 33.0, 0.0, 7.2, 0.65),
    "thoughts leak": (0.0075, 33.0, 1.0, 0.0, 0.0),
    "memory leaks": (0.0076, 33.0, 0.0, 6300.0, 1.0),
}
_MEANT = {  # the rule that is there for a fault
    "slow disk": "token_seconds_p95",
    "10x longer": "prompt_tokens_p95",
    "template": "canary_pass_rate",
    "2 bits": "canary_pass_rate",
    "thoughts leak": "leaked_share",
    "memory leaks": "memory_growth",
}


def _fired(limits: monitor.Thresholds, values: Sequence[float]) -> list[str]:
    """Return the rules that fail on a day."""
    failed = []
    for rule, value in zip(_RULES, values, strict=True):
        limit = getattr(limits, rule)
        if limit is not None:
            low = rule == "canary_pass_rate"
            if value < limit if low else value > limit:
                failed.append(rule)
    return failed


def _check_limits(answer: Any) -> str | None:
    if not isinstance(answer, dict) or {*answer} != {*_RULES}:
        return (
            f"Keep a dictionary with the keys {', '.join(_RULES)}.\n  got: {answer!r}"
        )
    try:
        limits = monitor.Thresholds(**answer)
    except CourseError as error:
        return f"Thresholds refuses this: {error.message}\n  got: {answer!r}"
    for day, values in (_GOOD_DAYS | _BAD_DAYS).items():
        fired, note = _fired(limits, values), ""
        shown = [round(value, 4) for value in values]
        measured = dict(zip(_RULES, shown, strict=True))
        if day in _GOOD_DAYS and fired:
            note = f"A good day ({day}) raises a false alarm: {', '.join(fired)}."
            if day == "busiest day":
                note = "Too tight: a day three times as slow as the busy one has"
                note += f" {fired[0]} {measured[fired[0]]}. Leave room above that."
        elif day in _BAD_DAYS and _MEANT[day] not in fired:
            rule = _MEANT[day]
            way = "raise" if rule == "canary_pass_rate" else "lower"
            note = f"{day!r} is not caught by {rule}: {way} that limit."
            if answer[rule] is None:
                note = f"None switches {rule} off: so {day!r} is not seen."
        if note:
            return f"{note}\n  that day: {measured}\n  your limits: {answer}"
    if answer["canary_pass_rate"] > 0.95:
        return (
            "One wrong canary of 20 would wake you, and a model that is right in 98 of"
            " 100 cases has one on every third day. Ask for less than all."
            f"\n  got: canary_pass_rate={answer['canary_pass_rate']}"
        )
    if answer["memory_growth"] <= 7:
        return (
            "Memory is never quite still: leave room above the 7 MB of a good day."
            f"\n  got: memory_growth={answer['memory_growth']}"
        )
    if answer["prompt_tokens_p95"] <= 33:
        return (
            "Users ask a little longer on some days: leave room above 33 tokens."
            f"\n  got: prompt_tokens_p95={answer['prompt_tokens_p95']}"
        )
    return None


_LIMITS = """\
my_limits = {
    "token_seconds_p95": 0.15,
    "prompt_tokens_p95": 100,
    "leaked_share": 0.01,
    "memory_growth": 500.0,
    "canary_pass_rate": 0.8,
}"""


def _limits(rule: str, limit: str) -> str:
    lines = _LIMITS.split("\n")
    place = next(i for i, line in enumerate(lines) if rule in line)
    lines[place] = f'    "{rule}": {limit},'
    return "\n".join(lines)


LIMITS = Exercise(
    id="7.3",
    title="choose the limits",
    minutes=12,
    stars=2,
    check=_check_limits,
    hints=(
        "Go through the columns one by one. What is the worst value of a good day, and"
        " what the value of the fault that the column is there for?",
        "A limit lies between the two, not at either end: tomorrow may be busier than"
        " the busiest day so far.",
        "0.15 s lies between 0.033 and 0.279. Do the same for the others. Of 20"
        " canaries one or two may fail by chance.",
    ),
    solution=_LIMITS,
    name="my_limits",
    stub="""\
my_limits = {
    "token_seconds_p95": ...,
    "prompt_tokens_p95": ...,
    "leaked_share": ...,
    "memory_growth": ...,
    "canary_pass_rate": ...,
}""",
    wrong=(
        Wrong(
            "the defaults will do",
            _limits("token_seconds_p95", "1.0"),
            "'slow disk' is not caught",
        ),
        Wrong(
            "long prompts are the users' business",
            _limits("prompt_tokens_p95", "300"),
            "'10x longer' is not caught",
        ),
        Wrong(
            "the limit is a quiet day's value",
            _limits("token_seconds_p95", "0.0145"),
            "A good day (busy day) raises a false alarm",
        ),
        Wrong(
            "the limit is the busy day's value",
            _limits("token_seconds_p95", "0.0327"),
            "three times as slow as the busy one has token_seconds_p95",
        ),
        Wrong(
            "all canaries must be right",
            _limits("canary_pass_rate", "1.0"),
            "One wrong canary of 20",
        ),
        Wrong(
            "half of the canaries is enough",
            _limits("canary_pass_rate", "0.5"),
            "'2 bits' is not caught",
        ),
        Wrong(
            "what is not needed is None",
            _limits("memory_growth", "None"),
            "None switches memory_growth off",
        ),
        Wrong(
            "a leak is a large number",
            _limits("memory_growth", "10000.0"),
            "'memory leaks' is not caught",
        ),
        Wrong(
            "no growth at all",
            _limits("memory_growth", "0.0"),
            "A good day (quiet day) raises a false alarm: memory_growth",
        ),
        Wrong(
            "a share is in percent",
            _limits("leaked_share", "1"),
            "'thoughts leak' is not caught",
        ),
        Wrong(
            "a rate is in percent",
            _limits("canary_pass_rate", "80"),
            "Thresholds refuses this",
        ),
        Wrong(
            "33 tokens, and no more",
            _limits("prompt_tokens_p95", "33"),
            "leave room above 33 tokens",
        ),
    ),
)

# --- 7.4 ----------------------------------------------------------------------------

_Series = tuple[list[float], float, float, float]  # values, mean, slack, limit
_SERIES: tuple[_Series, ...] = (
    ([0, 1, 0, 1, 0, 2, 3, 3], 0.5, 0.5, 3.0),  # a drift from number 5 on
    ([5, 5, 5, 5], 5, 1, 3),  # none
    ([0, 0, 0, 0, 0, 0, 4, 4], 2, 0, 3),  # long below, then above: not held against it
    ([2, 2, 2, 2], 1, 0, 3),  # exactly at the limit is no alarm
    ([0, 0, 0, 0, 0], 3, 0, 2),  # only upwards
    ([9, 1, 9], 1, 1, 3),  # at once, and once more
    ([], 1, 0, 3),  # no value, no alarm
    ([2, 2, 2, 2, 2, 2], 1, 0.9, 0.55),
    ([2.5, 0, 2.5, 0, 2.5, 0, 2.5], 1, 0, 3),  # up and down
    ([0, 0, 0, 4], 2, 1, 0.5),  # the slack must not make a debt
    ([3, 0.5, 3], 1, 0, 3),  # a good value takes off its part, not all
)


def _cusum(values: Sequence[float], mean: float, slack: float, limit: float,
           floor: bool = True, least: bool = False,
           reset: bool = False) -> int | None:  # fmt: skip
    total = 0.0
    for number, value in enumerate(values):
        total += value - mean - slack
        total = 0.0 if reset and value <= mean + slack else total
        total = max(0.0, total) if floor else total
        if total > limit or (least and total == limit):
            return number
    return None


def _last_alarm(values: Sequence[float], mean: float, slack: float,
                limit: float) -> int | None:  # fmt: skip
    total, found = 0.0, None
    for number, value in enumerate(values):
        total = max(0.0, total + value - mean - slack)
        found = number if total > limit else found
    return found


def _begin(values: Sequence[float], mean: float, slack: float,
           limit: float) -> int | None:  # fmt: skip
    """Return the first value after s was 0 for the last time before the alarm."""
    total, start = 0.0, 0
    for number, value in enumerate(values):
        total = max(0.0, total + value - mean - slack)
        start = start if total else number + 1
        if total > limit:
            return start
    return None


def _cusum_beliefs(series: _Series) -> dict[str, int | None]:
    """Return what each belief gives, by what is to be said to it."""
    values, mean, slack, limit = series
    right = _cusum(*series)
    away = [abs(value - mean) for value in values]
    return {
        "This is where the drift begins. Return where s is above the limit.": (
            _begin(*series)
        ),
        "Values count from 0.": None if right is None else right + 1,
        "Without an alarm, return None.": -1 if right is None else right,
        "0 is a number, too, that of the first value: `or` takes it for nothing.": (
            right or None
        ),
        "This stops at the first value: return None only after the loop.": (
            0 if right == 0 else None
        ),
        "Add the value first, then ask whether s is above the limit.": (
            None if right is None or right + 1 == len(values) else right + 1
        ),
        "This is the first value that is equal: take the place from enumerate().": (
            None if right is None else values.index(values[right])
        ),
        "Take the `mean` that is given, not that of these values.": _cusum(
            values, fmean(values or [mean]), slack, limit
        ),
        "The sum must not fall below 0: a long good time would hide a drift.": _cusum(
            *series, floor=False
        ),
        "The alarm is above the limit, not at it.": _cusum(*series, least=True),
        "The slack is missing: take it off each time.": _cusum(values, mean, 0, limit),
        "The slack is taken off, not added.": _cusum(values, mean, -slack, limit),
        "This starts anew at each good value. A good value only takes its part off.": (
            _cusum(*series, reset=True)
        ),
        "This is the last alarm. Stop at the first.": _last_alarm(*series),
        "Return the place of the value, not the value.": (
            None if right is None else values[right]
        ),
        "Take the mean off each value.": _cusum(values, 0, slack, limit),
        "Each value is looked at alone: add up what is above the mean.": next(
            (i for i, value in enumerate(values) if value - mean > limit), None
        ),
        "Only a rise is looked for: smaller values are no alarm.": _cusum(
            away, 0, slack, limit
        ),
    }


def _check_cusum(answer: Answer) -> str | None:
    right = [_cusum(*series) for series in _SERIES]
    got = [answer([*values], *rest) for values, *rest in _SERIES]
    if odd := [
        g for g in got if isinstance(g, bool) or not isinstance(g, Integral | None)
    ]:
        return (
            "Return the number of a value (from 0), or None without an alarm."
            f"\n  got: {odd[0]!r}"
        )
    if got == right:
        return None
    beliefs = [_cusum_beliefs(series) for series in _SERIES]
    wrong = next(i for i in range(len(got)) if got[i] != right[i])
    same = (told for told in beliefs[0] if [b[told] for b in beliefs] == got)
    note = next(same, "s = max(0, s + value - mean - slack).")
    values, mean, slack, limit = _SERIES[wrong]
    return (
        f"{note}\n  input: values={values}, mean={mean}, slack={slack},"
        f" limit={limit}\n  expected: {right[wrong]}\n  got: {got[wrong]!r}"
    )


_CUSUM_HEAD = "def first_alarm(values, mean, slack, limit):\n"
_CUSUM = """\
    total = 0.0
    for number, value in enumerate(values):
        total = max(0.0, total + value - mean - slack)
        if total > limit:
            return number
    return None"""


def _alarm(old: str = "", new: str = "") -> str:
    return _CUSUM_HEAD + _CUSUM.replace(old, new)


CUSUM = Exercise(
    id="7.4",
    title="a drift that no single value shows",
    minutes=12,
    stars=2,
    check=_check_cusum,
    hints=(
        "Keep one number, the sum s. It begins at 0. What does each value add to it?",
        "Each value adds value - mean - slack. That may be negative, but s itself never"
        " falls below 0.",
        "s = max(0, s + value - mean - slack); if s > limit: return the number from"
        " enumerate(values). After the loop: return None.",
    ),
    solution=_alarm(),
    name="first_alarm",
    stub=_CUSUM_HEAD
    + '''\
    """Return the number of the first value with an alarm, or None."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "the sum may fall",
            _alarm("max(0.0, total + value - mean - slack)",
                   "total + value - mean - slack"),
            "must not fall below 0",
        ),
        Wrong("at the limit is beyond it", _alarm("> limit", ">= limit"), "not at it"),
        Wrong("no slack", _alarm(" - slack", ""), "The slack is missing"),
        Wrong("no mean", _alarm(" - mean", ""), "Take the mean off"),
        Wrong(
            "one value is enough",
            _alarm("max(0.0, total + value - mean - slack)", "value - mean"),
            "looked at alone",
        ),
        Wrong(
            "any change is a drift",
            _alarm("value - mean - slack", "abs(value - mean) - slack"),
            "Only a rise",
        ),
        Wrong(
            "the first value has number 1",
            _alarm("return number", "return number + 1"),
            "Values count from 0",
        ),
        Wrong(
            "no alarm is False",
            _alarm("return None", "return False"),
            "or None without an alarm",
        ),
    ),
)  # fmt: skip

EXERCISES = (COST, BUCKETS, LIMITS, CUSUM)
