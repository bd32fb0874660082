"""Exercises of lesson 08b: steps of a batch, room in a cache, GPUs, servers."""

import math
from collections.abc import Callable, Iterable
from itertools import chain, islice
from numbers import Real
from typing import Any

from qwen_course.checks import Exercise, Wrong

Answer = Callable[..., Any]
_Beliefs = dict[str, Any]  # what to tell -> what this belief gives for one input


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _same(value: Any, other: Any) -> bool:
    """Return whether both are equal; numbers that are not whole almost so."""
    if _number(value) and _number(other):
        return math.isclose(value, other, rel_tol=1e-6)
    return type(value) is type(other) and value == other


def _believed(got: list[Any], beliefs: list[_Beliefs], note: str) -> str:
    """Return what to tell of the belief that gives all that was got, else `note`."""
    for told in beliefs[0]:
        given = [belief[told] for belief in beliefs]
        if all(map(_same, got, given)):
            return told
    return note


def _inputs(names: str, values: tuple[Any, ...]) -> str:
    named = zip(names.split(), values, strict=True)
    return ", ".join(f"{name}={value}" for name, value in named)


# --- 8b.1 ---------------------------------------------------------------------------

_ROWS: tuple[tuple[list[int], int, str], ...] = (
    (
        [4, 1, 2, 6], 2,
        "The seats hold 4 tokens, and 1 + 2 + 6: the last row is done after step 9.",
    ),
    ([1, 2, 8], 2, "8 enters after step 1, and runs to step 9."),
    ([5, 3, 4], 3, "Each row has a seat: the longest decides."),
    ([7, 2, 3, 2, 2, 3], 3, "The seats hold 7, 2 + 2 + 3 and 3 + 2."),
    ([9, 1, 1, 1, 1], 2, "All short rows pass through the second seat."),
    ([2, 3, 4], 1, "With one seat, one row runs after the other."),
    (
        [20, 30, 400, 10, 60, 20, 40, 200, 20, 60], 4,
        "The longest row enters at the start, so it alone decides.",
    ),
    (
        [3, 3, 3, 2, 4], 3,
        "Three rows are done after step 3, so both others enter at step 4: the longer"
        " one runs to step 7.",
    ),
    ([3, 6], 8, "There are fewer rows than seats: the longest row decides."),
)  # fmt: skip


def _ends(lengths: list[int], seats: int, first: int = 0, more: int = 0) -> list[int]:
    """Return after which step each row is done, if a change takes `more` steps."""
    free, ends = [first] * seats, []
    for tokens in lengths:
        seat = free.index(min(free))
        free[seat] += tokens + (more if free[seat] > first else 0)
        ends.append(free[seat])
    return ends


def _steps_beliefs(lengths: list[int], seats: int) -> _Beliefs:
    ends = _ends(lengths, seats)
    total, down = sum(lengths), sorted(lengths, reverse=True)
    parts = [lengths[i : i + seats] for i in range(0, len(lengths), seats)]
    return {
        "This batch is static: it waits for its longest row. Here a waiting row enters"
        " as soon as any row is done.": sum(map(max, parts)),
        "This is total / seats rounded up, as if no seat were ever empty. At the end"
        " there may be no row left for a seat.": math.ceil(total / seats),
        "This is total / seats rounded down, as if no seat were ever empty. And the"
        " rest takes a step, too.": total // seats,
        "This is total / seats: there is no part of a step, and a seat may be empty at"
        " the end.": total / seats,
        "This is total / seats rounded up, or the longest row. No order has fewer"
        " steps, but the order of the list may have more.": max(
            math.ceil(total / seats), max(lengths)
        ),
        "The longest rows go first here. Rows enter in the order of the list.": max(
            _ends(down, seats)
        ),
        "The shortest rows go first here. Rows enter in the order of the list.": max(
            _ends(down[::-1], seats)
        ),
        "This is one row at a time. Up to `seats` rows share a step.": total,
        "This is the longest row, as if all rows ran at once. Only `seats` can.": max(
            lengths
        ),
        "Each seat has a queue of its own here. The next row takes whichever seat is"
        " free first.": max(sum(lengths[i::seats]) for i in range(seats)),
        "A row is done in this step, and its seat is used in the same step again. It"
        " is free from the next step on.": max(_ends(lengths, seats, more=-1)),
        "A seat stays empty for a step here. The waiting row enters at the very next"
        " step.": max(_ends(lengths, seats, more=1)),
        "This is when the last row of the list is done. Another one may take longer.": (
            ends[-1]
        ),
        "This is the seat that is done first. The others still run.": (
            sorted([0] * seats + ends)[-seats]
        ),
        "This is one step too many: nobody runs any more.": max(ends) + 1,
        "One step is missing: count the first and the last one, too.": max(ends) - 1,
    }


def _check_steps(answer: Answer) -> str | None:
    got = []
    for lengths, seats, _ in _ROWS:
        try:
            got.append(answer([*lengths], seats))
        except (IndexError, ValueError) as error:
            if len(lengths) >= seats:
                raise
            got.append(error)
    right = [max(_ends(lengths, seats)) for lengths, seats, _ in _ROWS]
    wrong = [i for i, g in enumerate(got) if not _number(g) or g != right[i]]
    if not wrong:
        return None
    lengths, seats, note = _ROWS[wrong[0]]
    ran = [i for i, g in enumerate(got) if not isinstance(g, Exception)]
    given = [got[i] for i in ran]
    if wrong[0] not in ran:
        note = "There may be more seats than rows: some stay empty."
    elif not all(map(_number, given)):
        note = "Return one number, the steps."
    else:
        note = _believed(given, [_steps_beliefs(*_ROWS[i][:2]) for i in ran], note)
    return (
        f"{note}\n  input: {_inputs('lengths seats', (lengths, seats))}"
        f"\n  expected: {right[wrong[0]]}\n  got: {got[wrong[0]]!r}"
    )


_STEPS_HEAD = "def continuous_steps(lengths, seats):\n"
_STEPS = """\
    done = [0] * seats
    for tokens in lengths:
        seat = done.index(min(done))
        done[seat] += tokens
    return max(done)"""
STEPS = Exercise(
    id="8b.1",
    title="continuous batching, step by step",
    minutes=10,
    stars=2,
    check=_check_steps,
    hints=(
        "Keep one number for each seat: after which step is it free? At first all of"
        " them are 0.",
        "The next row takes the seat that is free first, and keeps it for as many"
        " steps as it has tokens.",
        "done = [0] * seats. For each row: seat = done.index(min(done)), then"
        " done[seat] += tokens. At the end max(done) are the steps.",
    ),
    solution=_STEPS_HEAD + _STEPS,
    name="continuous_steps",
    stub=_STEPS_HEAD
    + '''\
    """Return after how many steps all replies are done."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "a batch ends as a whole",
            _STEPS_HEAD + "    starts = range(0, len(lengths), seats)\n"
            "    return sum(max(lengths[i : i + seats]) for i in starts)",
            "This batch is static",
        ),
        Wrong(
            "all seats are always full",
            "import math\n\n\n"
            + _STEPS_HEAD
            + "    return math.ceil(sum(lengths) / seats)",
            "total / seats rounded up",
        ),
        Wrong(
            "the longest go first",
            _STEPS_HEAD
            + _STEPS.replace("in lengths", "in sorted(lengths, reverse=True)"),
            "The longest rows go first",
        ),
        Wrong(
            "the shortest go first",
            _STEPS_HEAD + _STEPS.replace("in lengths", "in sorted(lengths)"),
            "The shortest rows go first",
        ),
        Wrong(
            "one at a time",
            _STEPS_HEAD + "    return sum(lengths)",
            "one row at a time",
        ),
        Wrong(
            "all at once",
            _STEPS_HEAD + "    return max(lengths)",
            "as if all rows ran at once",
        ),
        Wrong(
            "each seat has a queue",
            _STEPS_HEAD
            + _STEPS.replace(
                "tokens in lengths", "i, tokens in enumerate(lengths)"
            ).replace("done.index(min(done))", "i % seats"),
            "a queue of its own",
        ),
        Wrong(
            "a seat is used twice in a step",
            _STEPS_HEAD + _STEPS.replace("+= tokens", "+= tokens - (done[seat] > 0)"),
            "in the same step again",
        ),
        Wrong(
            "a change costs a step",
            _STEPS_HEAD + _STEPS.replace("+= tokens", "+= tokens + (done[seat] > 0)"),
            "stays empty for a step",
        ),
        Wrong(
            "the last row is the last to be done",
            _STEPS_HEAD + _STEPS.replace("max(done)", "done[seat]"),
            "the last row of the list",
        ),
        Wrong(
            "the end is a step, too",
            _STEPS_HEAD + _STEPS.replace("max(done)", "max(done) + 1"),
            "one step too many",
        ),
        Wrong(
            "all seats are taken at the start",
            _STEPS_HEAD
            + _STEPS.replace(
                "[0] * seats", "[lengths[i] for i in range(seats)]"
            ).replace("in lengths:", "in lengths[seats:]:"),
            "more seats than rows",
        ),
    ),
)

# --- 8b.2 ---------------------------------------------------------------------------

_GPU = tuple[float, float, float, int, int]
_GPUS: tuple[tuple[_GPU, str], ...] = (
    (
        (24, 0.8, 15.2, 57_344, 2048),
        "vLLM may use 19.2 GB. 4.0 GB are left for the cache, and a request takes"
        " 0.117 GB.",
    ),
    (
        (80, 0.9, 16.4, 147_456, 4096),
        "55.6 GB are left for the cache, and a request takes 0.604 GB.",
    ),
    ((80, 0.9, 65.5, 262_144, 8192), "6.5 GB are left, a request takes 2.15 GB."),
    ((16, 0.9, 8.0, 147_456, 1024), "6.4 GB are left, a request takes 0.151 GB."),
    (
        (24, 0.9, 29.5, 163_840, 1024),
        "The weights do not fit: no cache is left, so no request.",
    ),
    ((24, 0.9, 16.4, 147_456, 40_960), "5.2 GB are left: one request takes 6.04 GB."),
    (
        (16, 0.9, 15.2, 57_344, 1024),
        "The weights fit into the GPU, but not into the share that vLLM may use.",
    ),
    (
        (24, 0.5, 11.0, 52_579, 19_019),
        "1.0 GB is left. One request takes a single byte more: it does not fit.",
    ),
)


def _room_beliefs(gpu: _GPU) -> _Beliefs:
    """Return the requests if a belief were true; none of them is near a whole one."""
    gpu_gb, share, weights_gb, cache_bytes, tokens = gpu
    one = cache_bytes * tokens
    left = gpu_gb * share - weights_gb
    exact = left * 1e9 / one
    room = max(0, math.floor(exact))

    def fit(gigabytes: float, size: float = one) -> int:
        return max(0, int(gigabytes * 1e9 // size))

    return {
        "The share is of the whole GPU, weights included. This takes it of what the"
        " weights leave.": fit((gpu_gb - weights_gb) * share),
        "Here 1 GB is 1,000,000,000 bytes. 2**30 bytes are a GiB.": fit(
            left * 2**30 / 1e9
        ),
        "This is rounded up: the last request does not fit as a whole.": max(
            0, math.ceil(exact)
        ),
        "This is rounded to the nearest number. A part of a request does not fit:"
        " round down.": max(0, round(exact)),
        "There is no part of a request: round down.": max(0, exact),
        "There is no part of a request: round down, to 0 at least.": exact,
        "Where the weights do not fit, there is room for 0 requests, not for fewer.": (
            math.floor(exact)
        ),
        "Where the weights do not fit, there is room for 0 requests: max(0, ...).": int(
            exact
        ),
        "One does not always fit. Where not even one fits, return 0.": max(1, room),
        "This loses the sign: where the weights do not fit, return 0.": int(
            abs(left) * 1e9 // one
        ),
        "The weights are left out. They need their place, too.": fit(gpu_gb * share),
        "share is left out: vLLM may not use the whole GPU.": fit(gpu_gb - weights_gb),
        "cache_bytes are bytes. Do not divide them by 8.": fit(left, one / 8),
        "cache_bytes are bytes. Do not multiply them by 8.": fit(left, one * 8),
        "These are tokens. A request takes `tokens` of them.": fit(left, cache_bytes),
        "These are the GB that are left. How many requests do they hold?": max(0, left),
        "This is 0 for every GPU, also where much is left. Divide GB by GB, or bytes by"
        " bytes: 1 GB is 1e9 bytes.": 0,
        "The cache holds keys and values in cache_bytes already: do not double it.": (
            fit(left, one * 2)
        ),
    }


def _check_room(answer: Answer) -> str | None:
    right = [
        max(0, int((gpu * share - weights) * 1e9 // (size * tokens)))
        for (gpu, share, weights, size, tokens), _ in _GPUS
    ]
    got = [answer(*gpu) for gpu, _ in _GPUS]
    wrong = [i for i, g in enumerate(got) if not _number(g) or g != right[i]]
    if not wrong:
        return None
    gpu, note = _GPUS[wrong[0]]
    if not all(map(_number, got)):
        note = "Return one whole number, the requests."
    else:
        note = _believed(got, [_room_beliefs(gpu) for gpu, _ in _GPUS], note)
    names = "gpu_gb share weights_gb cache_bytes tokens"
    return (
        f"{note}\n  input: {_inputs(names, gpu)}"
        f"\n  expected: {right[wrong[0]]}\n  got: {got[wrong[0]]!r}"
    )


_ROOM_HEAD = "def requests_that_fit(gpu_gb, share, weights_gb, cache_bytes, tokens):\n"
_ROOM = """\
    left = gpu_gb * share - weights_gb
    return max(0, int(left * 1e9 // (cache_bytes * tokens)))"""
ROOM = Exercise(
    id="8b.2",
    title="room in the cache",
    minutes=8,
    stars=1,
    check=_check_room,
    hints=(
        "vLLM takes its share of the GPU. The weights go in first. What is left, in"
        " GB?",
        "left = gpu_gb * share - weights_gb. One request takes cache_bytes * tokens"
        " bytes of it.",
        "Divide left * 1e9 by cache_bytes * tokens and round down with //. It is below"
        " 0 where the weights do not fit: max(0, ...).",
    ),
    solution=_ROOM_HEAD + _ROOM,
    name="requests_that_fit",
    stub=_ROOM_HEAD
    + '''\
    """Return how many requests of `tokens` tokens fit into the cache."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "the share is of what the weights leave",
            _ROOM_HEAD
            + _ROOM.replace(
                "gpu_gb * share - weights_gb", "(gpu_gb - weights_gb) * share"
            ),
            "of what the weights leave",
        ),
        Wrong("a GB is 2**30 bytes", _ROOM_HEAD + _ROOM.replace("1e9", "2**30"), "GiB"),
        Wrong(
            "rounding up is harmless",
            "import math\n\n\n"
            + _ROOM_HEAD
            + _ROOM.replace("int(", "math.ceil(").replace("//", "/"),
            "This is rounded up",
        ),
        Wrong(
            "the nearest number will do",
            _ROOM_HEAD + _ROOM.replace("int(", "round(").replace("//", "/"),
            "rounded to the nearest",
        ),
        Wrong(
            "a part of a request fits",
            _ROOM_HEAD + _ROOM.replace("int(", "(").replace("//", "/"),
            "no part of a request: round",
        ),
        Wrong(
            "the weights always fit",
            _ROOM_HEAD
            + _ROOM.replace("max(0, int(", "int(").replace("tokens)))", "tokens))"),
            "not for fewer",
        ),
        Wrong(
            "one request always fits",
            _ROOM_HEAD + _ROOM.replace("max(0", "max(1"),
            "not even one fits",
        ),
        Wrong(
            "weights take no room",
            _ROOM_HEAD + _ROOM.replace(" - weights_gb", ""),
            "The weights are left out",
        ),
        Wrong(
            "vLLM has the whole GPU",
            _ROOM_HEAD + _ROOM.replace(" * share", ""),
            "share is left out",
        ),
        Wrong(
            "bytes are bits",
            _ROOM_HEAD + _ROOM.replace("(cache_bytes", "(cache_bytes / 8"),
            "Do not divide them by 8",
        ),
        Wrong(
            "tokens are requests",
            _ROOM_HEAD + _ROOM.replace("(cache_bytes * tokens)", "cache_bytes"),
            "These are tokens",
        ),
        Wrong(
            "keys and values are counted once more",
            _ROOM_HEAD + _ROOM.replace("(cache_bytes", "(2 * cache_bytes"),
            "do not double it",
        ),
    ),
)

# --- 8b.3 ---------------------------------------------------------------------------

_HEADS: tuple[tuple[int, int, str], ...] = (
    (14, 8, "14 heads can be dealt to 1, 2 or 7 GPUs, the same number to each."),
    (32, 8, "32 heads can be halved again and again."),
    (40, 8, "40 heads can be dealt to 5 GPUs, too, 8 to each."),
    (4, 8, "More GPUs than heads: some would have none."),
    (28, 4, "28 heads can be dealt to 4 GPUs, 7 to each, but not to 3."),
    (12, 6, "12 heads can be dealt to 3 GPUs, and to 6, too."),
    (16, 1, "One GPU always works: it has all heads."),
    (48, 16, "48 heads can be dealt to 12 or 16 GPUs, too: there are more than 8."),
    (7, 6, "7 heads can be dealt to 1 GPU or to 7, and here are 6."),
)


def _sizes_beliefs(heads: int, gpus: int) -> _Beliefs:
    right = _sizes(heads, gpus)
    every = range(1, gpus + 1)
    powers = [n for n in every if n.bit_count() == 1]
    return {
        "These are the powers of two, whatever the heads are.": powers,
        "Only powers of two are here. Any size that divides the heads will do, such as"
        " 5 or 7.": [n for n in powers if n in right],
        "These divide the number of GPUs. The heads must be divisible.": _sizes(
            gpus, gpus
        ),
        "A size need not divide the number of GPUs, too: some GPUs may stay free.": (
            _sizes(math.gcd(heads, gpus), gpus)
        ),
        "1 is missing: one GPU has all heads.": right[1:],
        "All of the GPUs can be used, too: range() stops before its end.": _sizes(
            heads, gpus - 1
        ),
        "This is the test turned round: the heads must be a multiple of the size.": [
            n for n in every if n % heads == 0
        ],
        **{
            f"These divide heads // {part}, as if KV heads were asked for. Here the"
            " attention heads must be divisible.": _sizes(heads // part, gpus)
            for part in (2, 4, 5, 7, 8)
        },
        "These are heads for each GPU. Return the number of GPUs.": [
            heads // n for n in right
        ],
        "There are only `gpus` GPUs: leave out what is larger.": _sizes(heads, heads),
        "This is every size. The heads must be divisible by it.": [*every],
        "These are the sizes that are refused.": [n for n in every if n not in right],
        "This is the largest size. Return all of them, in a list.": right[-1],
        "This is [1] for any heads. Does `return` stand inside the loop?": [1],
        "This is how many there are. Return the sizes, in a list.": len(right),
        "Return the sizes, not True or False for each.": [
            heads % n == 0 for n in every
        ],
        "Sort them: the smallest size comes first.": right[::-1],
    }  # fmt: skip


def _sizes(heads: int, gpus: int) -> list[int]:
    return [n for n in range(1, gpus + 1) if heads % n == 0]


def _plain(given: Any) -> Any:
    """Return a list of what was given, if it is one of some kind."""
    if isinstance(given, str | dict) or not isinstance(given, Iterable):
        return given
    return sorted(given) if isinstance(given, set) else [*islice(given, 1000)]


def _check_sizes(answer: Answer) -> str | None:
    got = [_plain(answer(heads, gpus)) for heads, gpus, _ in _HEADS]
    right = [_sizes(heads, gpus) for heads, gpus, _ in _HEADS]
    whole = [isinstance(g, list) and all(map(_number, g)) for g in got]
    wrong = [i for i, g in enumerate(got) if not whole[i] or g != right[i]]
    if not wrong:
        return None
    heads, gpus, note = _HEADS[wrong[0]]
    if not all(whole):
        note = "Return a list of numbers."
    elif sorted(got[wrong[0]]) == right[wrong[0]]:
        note = "Sort them: the smallest size comes first."
    elif got[wrong[0]] == [*chain(*right[: wrong[0] + 1])]:
        note = (
            "Sizes of an earlier call stand here, too. A list that is made only once,"
            " such as the default of a parameter, keeps them."
        )
    beliefs = [_sizes_beliefs(heads, gpus) for heads, gpus, _ in _HEADS]
    return (
        f"{_believed(got, beliefs, note)}"
        f"\n  input: {_inputs('heads gpus', (heads, gpus))}"
        f"\n  expected: {right[wrong[0]]}\n  got: {got[wrong[0]]!r}"
    )


_SIZES_HEAD = "def parallel_sizes(heads, gpus):\n"
_SIZES = "    return [size for size in range(1, gpus + 1) if heads % size == 0]"
SIZES = Exercise(
    id="8b.3",
    title="heads for every GPU",
    minutes=5,
    stars=1,
    check=_check_sizes,
    hints=(
        "Each GPU gets the same number of heads. When is nothing left over?",
        "heads % size is what is left over. Try each size from 1 to gpus.",
        "range(1, gpus + 1) are the sizes. Keep those with heads % size == 0.",
    ),
    solution=_SIZES_HEAD + _SIZES,
    name="parallel_sizes",
    stub=_SIZES_HEAD
    + '''\
    """Return a list of the sizes that divide the heads."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "powers of two, whatever the heads",
            _SIZES_HEAD + "    return [2**i for i in range(gpus.bit_length())]",
            "whatever the heads are",
        ),
        Wrong(
            "only powers of two",
            _SIZES_HEAD + _SIZES[:-1] + " and size.bit_count() == 1]",
            "Only powers of two",
        ),
        Wrong(
            "the GPUs are divided",
            _SIZES_HEAD + _SIZES.replace("heads %", "gpus %"),
            "These divide the number of GPUs",
        ),
        Wrong(
            "no GPU may stay free",
            _SIZES_HEAD + _SIZES[:-1] + " and gpus % size == 0]",
            "some GPUs may stay free",
        ),
        Wrong(
            "1 is not parallel",
            _SIZES_HEAD + _SIZES.replace("(1,", "(2,"),
            "1 is missing",
        ),
        Wrong(
            "range includes its end",
            _SIZES_HEAD + _SIZES.replace("gpus + 1", "gpus"),
            "stops before its end",
        ),
        Wrong(
            "the size is a multiple of the heads",
            _SIZES_HEAD + _SIZES.replace("heads % size", "size % heads"),
            "the test turned round",
        ),
        Wrong(
            "KV heads count",
            _SIZES_HEAD + _SIZES.replace("heads %", "heads // 4 %"),
            "as if KV heads",
        ),
        Wrong(
            "heads for each GPU",
            _SIZES_HEAD + _SIZES.replace("[size for", "[heads // size for"),
            "heads for each GPU",
        ),
        Wrong(
            "there are always enough GPUs",
            _SIZES_HEAD + _SIZES.replace("gpus + 1", "heads + 1"),
            "There are only `gpus` GPUs",
        ),
        Wrong(
            "those that are refused",
            _SIZES_HEAD + _SIZES.replace("== 0", "!= 0"),
            "that are refused",
        ),
        Wrong(
            "the largest is asked for",
            _SIZES_HEAD + _SIZES.replace("[size", "max(size").replace("]", ")"),
            "the largest size",
        ),
    ),
)

# --- 8b.4 ---------------------------------------------------------------------------

_Crowd = tuple[float, float, int] | tuple[float, float, int, float]
_CROWDS: tuple[tuple[_Crowd, str], ...] = (  # without a load: 0.7
    ((2.5, 6, 4), "15 requests are in flight. A server is to hold 2.8 of them."),
    ((3, 12, 8, 0.8), "36 requests are in flight. A server is to hold 6.4 of them."),
    ((40, 9, 64), "360 requests are in flight. A server is to hold 44.8 of them."),
    ((12, 5, 9, 0.6), "60 requests are in flight. A server is to hold 5.4 of them."),
    ((0.1, 5, 16), "0.5 requests are in flight: one server will do."),
    ((4, 2, 8, 0.5), "8 are in flight, 4 for each server: two servers, exactly."),
    ((6, 2, 8, 0.5), "12 are in flight, 4 for each server: three servers, exactly."),
    (
        (6.01, 2, 8, 0.5),
        "12.02 are in flight, 4 for each server: three do not hold the last 0.02.",
    ),
    ((0, 5, 16), "At night nobody asks. One server must run, to be ready."),
    ((3.5, 1.5, 2, 0.9), "5.25 are in flight. A server is to hold 1.8 of them."),
)


def _servers(flight: float, room: float) -> int:
    return max(1, math.ceil(flight / room))


def _servers_beliefs(
    rate: float, seconds: float, seats: int, load: float = 0.7
) -> _Beliefs:
    flight, room = rate * seconds, seats * load
    exact = flight / room
    down = "This is rounded down: so the servers are too full. Round up."
    return {
        down: max(1, int(exact)),
        f"{down} And at least one must run.": int(exact),
        "This is rounded to the nearest number: it may be too few. Round up.": max(
            1, round(exact)
        ),
        "There is no part of a server: round up.": max(1, exact),
        "There is no part of a server: round up, to 1 at least.": exact,
        "load is left out: with all seats busy on average, people must wait.": (
            _servers(flight, seats)
        ),
        "load is multiplied: fewer servers for a smaller load? Divide by it.": _servers(
            flight * load, seats
        ),
        "load is the part that is busy, not the part that is free.": _servers(
            flight, seats * (1 - load)
        ),
        "load is 0.7 only where none is given.": _servers(flight, seats * 0.7),
        "The seconds are left out. In flight are rate x seconds.": _servers(rate, room),
        "Rate and seconds are multiplied, not divided.": _servers(rate / seconds, room),
        "The rate is of requests a second, not a minute: do not divide by 60.": (
            _servers(flight / 60, room)
        ),
        "The rate is of requests a second, not a minute: do not multiply by 60.": (
            _servers(flight * 60, room)
        ),
        "At least one server must run, even if nobody asks.": math.ceil(exact),
        "seats is left out: a server holds several requests.": _servers(flight, load),
        "These are the requests in flight. How many servers hold them?": flight,
        "The requests in flight are rounded up first. Round once, at the end.": (
            _servers(math.ceil(flight), room)
        ),
        "The seats in use are rounded down first. Round once, at the end.": _servers(
            flight, max(1, int(room))
        ),
        "The seats in use are rounded first. Round once, at the end.": _servers(
            flight, max(1, round(room))
        ),
        "Round up, but do not add a server where nothing is left over.": (
            math.floor(exact) + 1
        ),
    }


def _check_servers(answer: Answer) -> str | None:
    got = [answer(*crowd) for crowd, _ in _CROWDS]
    right = [
        _servers(rate * seconds, seats * (load[0] if load else 0.7))
        for (rate, seconds, seats, *load), _ in _CROWDS
    ]
    wrong = [i for i, g in enumerate(got) if not _number(g) or g != right[i]]
    if not wrong:
        return None
    crowd, note = _CROWDS[wrong[0]]
    if not all(map(_number, got)):
        note = "Return one whole number, the servers."
    else:
        note = _believed(got, [_servers_beliefs(*crowd) for crowd, _ in _CROWDS], note)
    told = _inputs(
        "requests_per_second seconds_a_request seats load", (*crowd, 0.7)[:4]
    )
    return (
        f"{note}\n  input: {told}"
        f"\n  expected: {right[wrong[0]]}\n  got: {got[wrong[0]]!r}"
    )


_SERVERS_HEAD = (
    "import math\n\n\n"
    "def replicas(requests_per_second, seconds_a_request, seats, load=0.7):\n"
)
_SERVERS = """\
    flight = requests_per_second * seconds_a_request
    return max(1, math.ceil(flight / (seats * load)))"""
SERVERS = Exercise(
    id="8b.4",
    title="how many servers",
    minutes=8,
    stars=2,
    check=_check_servers,
    hints=(
        "How many requests are in flight at the same time, on average? Each stays for"
        " seconds_a_request.",
        "flight = requests_per_second * seconds_a_request. One server is to hold"
        " seats * load of them.",
        "Divide, and round up with math.ceil, once at the end. Nobody asks at night:"
        " max(1, ...).",
    ),
    solution=_SERVERS_HEAD + _SERVERS,
    name="replicas",
    stub=_SERVERS_HEAD.removeprefix("import math\n\n\n")
    + '''\
    """Return how many servers are needed."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "rounding down will do",
            _SERVERS_HEAD + _SERVERS.replace("math.ceil", "int"),
            "This is rounded down",
        ),
        Wrong(
            "the nearest number will do",
            _SERVERS_HEAD + _SERVERS.replace("math.ceil", "round"),
            "rounded to the nearest",
        ),
        Wrong(
            "all seats can be busy",
            _SERVERS_HEAD + _SERVERS.replace("(seats * load)", "seats"),
            "load is left out",
        ),
        Wrong(
            "load is a part of the requests",
            _SERVERS_HEAD + _SERVERS.replace("/ (seats * load)", "* load / seats"),
            "load is multiplied",
        ),
        Wrong(
            "load is what is free",
            _SERVERS_HEAD + _SERVERS.replace("* load)", "* (1 - load))"),
            "not the part that is free",
        ),
        Wrong(
            "load is always 0.7",
            _SERVERS_HEAD + _SERVERS.replace("* load", "* 0.7"),
            "only where none is given",
        ),
        Wrong(
            "a request takes no time",
            _SERVERS_HEAD + _SERVERS.replace(" * seconds_a_request", ""),
            "The seconds are left out",
        ),
        Wrong(
            "a long request lowers the rate",
            _SERVERS_HEAD + _SERVERS.replace(" * seconds", " / seconds"),
            "multiplied, not divided",
        ),
        Wrong(
            "the rate is per minute",
            _SERVERS_HEAD + _SERVERS.replace("seconds_a_", "1 / 60 * seconds_a_"),
            "do not divide by 60",
        ),
        Wrong(
            "no requests, no server",
            _SERVERS_HEAD + _SERVERS.replace("max(1, ", "(")[:-1] + ")",
            "even if nobody asks",
        ),
        Wrong(
            "a server holds one request",
            _SERVERS_HEAD + _SERVERS.replace("(seats * load)", "load"),
            "seats is left out",
        ),
        Wrong(
            "seats are whole",
            _SERVERS_HEAD + _SERVERS.replace("(seats * load)", "int(seats * load)"),
            "are rounded down first",
        ),
    ),
)

EXERCISES = (STEPS, ROOM, SIZES, SERVERS)
