"""Exercises of lesson 05c: a format for a machine, the longest context, a price."""

from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any

from qwen_course import answers, catalog
from qwen_course.checks import Exercise, Wrong

Answer = Callable[..., Any]
_IMPORT = "from qwen_course import catalog\n\n\n"


def _note(answers: list[Any], beliefs: dict[str, list[Any]], otherwise: str) -> str:
    """What the answers to all cases say of the belief behind them."""
    return next((n for n, told in beliefs.items() if told == answers), otherwise)


# --- 5c.1 ---------------------------------------------------------------------------

_FORMATS = ("bf16", "q8_0", "q4_k_m")  # most bits first
_MACHINES = [
    (name, memory_gb, context)
    for name in ("Qwen3-8B", "Qwen3-0.6B", "Qwen3-4B", "Qwen2.5-7B-Instruct",
                 "Qwen2.5-Coder-0.5B-Instruct")
    for memory_gb in (0.7, 1.6, 3.2, 6.4, 9.0, 12.8)
    for context in (1024, 8192, 32_768)
] + [  # bf16 takes exactly this
    ("Qwen3-0.6B", 2.131623936, 8192), ("Qwen3-0.6B", 2.1316, 8192),
    ("Qwen3-0.6B", 1.34, 1500), ("Qwen3-0.6B", 1.38, 1500),
]  # fmt: skip


def _first(fits: Iterable[tuple[str, bool]]) -> str | None:
    return next((name for name, does in fits if does), None)


def _check_best(answer: Answer) -> str | None:
    cards = {name: catalog.find(name) for name in {name for name, *_ in _MACHINES}}
    needs: list[dict[str, catalog.Memory]] = [
        {f: catalog.memory(cards[name], f, context) for f in _FORMATS}
        for name, _, context in _MACHINES
    ]
    limits = [memory_gb for _, memory_gb, _ in _MACHINES]
    rows = [*zip(needs, limits, strict=True)]
    expected = [_first((f, m.total_gb <= gb) for f, m in r.items()) for r, gb in rows]
    got = [answer(cards[name], *rest) for name, *rest in _MACHINES]
    if got == expected:
        return None
    small = [
        _first((f, r[f].total_gb <= gb) for f in reversed(_FORMATS)) for r, gb in rows
    ]
    bare = [_first((f, m.weights_gb <= gb) for f, m in r.items()) for r, gb in rows]
    cache = [_first((f, m.kv_cache_gb <= gb) for f, m in r.items()) for r, gb in rows]
    below = [_first((f, m.total_gb < gb) for f, m in r.items()) for r, gb in rows]
    twice = [
        _first((f, m.total_gb + m.kv_cache_gb <= gb) for f, m in r.items())
        for r, gb in rows
    ]
    one_context = [
        _first(
            (f, catalog.memory(cards[name], f, 4096).total_gb <= gb) for f in _FORMATS
        )
        for name, gb, _ in _MACHINES
    ]
    layers = []
    for (name, gb, _), row in zip(_MACHINES, needs, strict=True):
        count = catalog.parameters(cards[name]).non_embedding
        sizes = {f: count * catalog.BITS[f][0] / 8e9 for f in _FORMATS}
        layers.append(
            _first((f, sizes[f] + row[f].kv_cache_gb <= gb) for f in _FORMATS)
        )
    beliefs: dict[str, list[Any]] = {
        "The KV cache lies in the same memory: count it too.": bare,
        "This is the smallest format that fits. Best is the one with most bits.": small,
        "The embedding tables lie in memory, too: not only the layers.": layers,
        "Where nothing fits, return None.": [f or "q4_k_m" for f in expected],
        "Return None itself, not a text.": [f or "None" for f in expected],
        "This looks at the cache alone: count the weights, too.": cache,
        "total_gb holds the cache already: here it counts twice.": twice,
        "`at most` means: exactly memory_gb fits, too.": below,
        "This is not the cache of this context: give `context` to memory().": (
            one_context
        ),
        "This is None each time: return the name, do not print it.": [None] * len(got),
        "This is always the same format: try them one after the other.": (
            [got[0]] * len(got)
        ),
    }
    wrong = next(i for i, pair in enumerate(zip(got, expected, strict=True))
                 if pair[0] != pair[1])  # fmt: skip
    name, memory_gb, context = _MACHINES[wrong]
    sizes_told = {f: round(m.total_gb, 6) for f, m in needs[wrong].items()}
    note = _note(got, beliefs, f"The needs in GB are {sizes_told}.")
    if not all(isinstance(f, str | None) for f in got):
        note = "Return the name of one format, a text, or None."
    return (
        f"{note}\n  input: {name}, memory_gb={memory_gb}, context={context}"
        f"\n  expected: {expected[wrong]!r}\n  got: {got[wrong]!r}"
    )


_BEST = "def best(card, memory_gb, context):\n"
_LOOP = '    for name in ("bf16", "q8_0", "q4_k_m"):\n'
_NEED = "        need = catalog.memory(card, name, context)\n"


def _best(
    condition: str, loop: str = _LOOP, need: str = _NEED, end: str = "None"
) -> str:
    return (
        f"{_IMPORT}{_BEST}{loop}{need}        if {condition} <= memory_gb:\n"
        f"            return name\n    return {end}"
    )


BEST = Exercise(
    id="5c.1",
    title="a format for a machine",
    minutes=8,
    stars=1,
    check=_check_best,
    hints=(
        "Begin with the format that has most bits. When may you stop?",
        "catalog.memory(card, name, context).total_gb counts weights and cache.",
        "A loop over the three names, most bits first: return the first whose total_gb"
        " is at most memory_gb. After the loop: return None.",
    ),
    solution=_best("need.total_gb"),
    name="best",
    stub=_BEST
    + '''\
    """Return the best format that fits in memory_gb, or None."""
    raise NotImplementedError''',
    wrong=(
        Wrong("only weights need memory", _best("need.weights_gb"), "The KV cache"),
        Wrong(
            "smaller is better",
            _best("need.total_gb", '    for name in ("q4_k_m", "q8_0", "bf16"):\n'),
            "the smallest format",
        ),
        Wrong(
            "a model is its layers",
            _best(
                "layers * catalog.BITS[name][0] / 8e9 + need.kv_cache_gb",
                "    layers = catalog.parameters(card).non_embedding\n" + _LOOP,
            ),
            "embedding tables lie in memory",
        ),
        Wrong(
            "4 bits always fit",
            _best("need.total_gb", end='"q4_k_m"'),
            "Where nothing fits",
        ),
        Wrong(
            "4 bits for all",
            _BEST + '    return "q4_k_m"',
            "always the same format",
        ),
    ),
)

# --- 5c.2 ---------------------------------------------------------------------------

_ROOMS = (  # so few that a loop over all lengths ends in time, too
    ("Qwen3-0.6B", "bf16", 0.3),
    ("Qwen3-0.6B", "bf16", 1.6),
    ("Qwen3-0.6B", "bf16", 2.131623936),  # 8192 tokens take exactly this
    ("Qwen3-0.6B", "bf16", 6.4),
    ("Qwen3-0.6B", "q4_k_m", 1.6),
    ("Qwen2.5-1.5B-Instruct", "bf16", 3.2),
    ("Qwen2.5-1.5B-Instruct", "q4_k_m", 1.6),
    ("Qwen3-8B", "q4_k_m", 30.0),  # context_extended
    ("Qwen3.5-0.8B", "q4_k_m", 1.6),  # not all layers have a cache
)


def _longest(card: catalog.ModelCard) -> int:
    return max(card.context_native or 0, card.context_extended or 0)


def _check_longest(answer: Answer) -> str | None:
    got: list[Any] = []
    exact, weightless, unlimited, native, usual, ends = [], [], [], [], [], []
    cards = {name: catalog.find(name) for name in {name for name, *_ in _ROOMS}}
    for name, dtype, memory_gb in _ROOMS:
        card = cards[name]
        need = catalog.memory(card, dtype, 1)
        room, limit = memory_gb - need.weights_gb, _longest(card)
        exact.append(min(limit, max(0, int(room / need.kv_cache_gb + 1e-9))))
        weightless.append(min(limit, int(memory_gb / need.kv_cache_gb + 1e-9)))
        unlimited.append(max(0, int(room / need.kv_cache_gb + 1e-9)))
        native.append(min(card.context_native, exact[-1]))
        usual.append(max(0, int(room / need.kv_cache_gb / 4096)))
        ends.append(limit)
        tokens = answer(card, dtype, memory_gb)
        got.append(answers.plain(tokens))
    whole = [isinstance(a, Real) and float(a).is_integer() for a in got]
    told = [int(a) if is_so else 0 for a, is_so in zip(got, whole, strict=True)]
    if told == exact and all(whole):
        return None
    pairs = zip(told, exact, whole, strict=True)
    wrong = next(i for i, (a, b, is_so) in enumerate(pairs) if not is_so or a != b)
    beliefs = {
        "The weights lie there before the first token: the cache gets the rest.": (
            weightless
        ),
        "The model itself has a limit: context_native, or context_extended.": unlimited,
        "memory() of 4,096 tokens was taken for that of one: give it the context 1.": (
            usual
        ),
        "Some models read more than context_native: up to context_extended.": native,
    }
    name, dtype, memory_gb = _ROOMS[wrong]
    note = "Look at weights, at the cache of one token, and at the model's limit."
    if not all(isinstance(a, Real) for a in got):
        note = "Return a number of tokens."
    elif not all(whole):
        note = "Tokens are whole: a part of a token does not count."
    elif any(a < 0 for a in told):
        note = "If not even the weights fit, no token does: 0."
    elif all(a in (b, b + 1) for a, b in zip(told, exact, strict=True)):
        note = "This is the first context that does not fit: one token less."
    elif all(a in (b, b - 1) for a, b in zip(told, exact, strict=True)):
        note = "One token more still fits: what takes exactly memory_gb does. (Many"
        note += " small sums are not exact: multiply.)"
    elif all(a and a & (a - 1) == 0 and a < end or a == b
             for a, b, end in zip(told, exact, ends, strict=True)):  # fmt: skip
        note = "Not only powers of two: the exact number of tokens."
    note = _note(got, beliefs, note)
    return (
        f"{note}\n  input: {name}, dtype={dtype!r}, memory_gb={memory_gb}"
        f"\n  expected: {exact[wrong]}\n  got: {got[wrong]!r}"
    )


_LONG = "def longest(card, dtype, memory_gb):\n"
_ONE = "    need = catalog.memory(card, dtype, 1)\n"
_LIMIT = "    limit = max(card.context_native, card.context_extended or 0)\n"
_ROOM = "    room = memory_gb - need.weights_gb\n"
_HEAD = _IMPORT + _LONG + _ONE + _LIMIT
LONGEST = Exercise(
    id="5c.2",
    title="the longest context",
    minutes=10,
    stars=2,
    check=_check_longest,
    hints=(
        "The cache grows by the same amount with each token. How large is it for one?",
        "catalog.memory(card, dtype, 1) gives the weights and the cache of one token.",
        "int((memory_gb - weights_gb) / kv_cache_gb), but not below 0, and not above"
        " the model's own limit.",
    ),
    solution=_HEAD
    + _ROOM
    + "    return min(limit, max(0, int(room / need.kv_cache_gb)))",
    name="longest",
    stub=_LONG
    + '''\
    """Return how many tokens fit in memory_gb beside the weights."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "all memory is for the cache",
            _HEAD + "    return min(limit, int(memory_gb / need.kv_cache_gb))",
            "The weights lie there",
        ),
        Wrong(
            "memory is the only limit",
            _IMPORT
            + _LONG
            + _ONE
            + _ROOM
            + "    return max(0, int(room / need.kv_cache_gb))",
            "The model itself has a limit",
        ),
        Wrong(
            "too little memory gives a negative context",
            _HEAD + _ROOM + "    return min(limit, int(room // need.kv_cache_gb))",
            "not even the weights fit",
        ),
        Wrong(
            "rounding up is harmless",
            _HEAD
            + _ROOM
            + "    return min(limit, max(0, int(room / need.kv_cache_gb) + 1))"
            + " if room > 0 else 0",
            "one token less",
        ),
        Wrong(
            "contexts are powers of two",
            _HEAD
            + _ROOM
            + "    tokens = max(0, int(room / need.kv_cache_gb))\n"
            + "    return min(limit, 2 ** (tokens.bit_length() - 1) if tokens else 0)",
            "Not only powers of two",
        ),
        Wrong(
            "a division gives tokens",
            _HEAD + _ROOM + "    return min(limit, max(0, room / need.kv_cache_gb))",
            "Tokens are whole",
        ),
    ),
)

# --- 5c.3 ---------------------------------------------------------------------------

_BILLS = (  # tokens a second, watts, dollars per kWh, price of the machine, its hours
    (10.0, 30.0, 0.30, 600.0, 10_000.0),
    (50.0, 20.0, 0.25, 900.0, 15_000.0),
    (2.0, 5.0, 0.20, 80.0, 8_000.0),
    (1000.0, 700.0, 0.15, 30_000.0, 26_000.0),
)


def _check_dollars(answer: Answer) -> str | None:
    for bill in _BILLS:
        speed, watts, tariff, price, hours = bill
        power, machine = watts / 1000 * tariff, price / hours
        tokens = speed * 3600 / 1e6  # millions an hour
        expected = (power + machine) / tokens
        got = answer(*bill)
        got = answers.plain(got)
        if isinstance(got, Real) and abs(got - expected) <= 1e-6 * expected:
            continue
        beliefs = (
            (expected / 1e6, "This is for one token, not for a million."),
            (expected * 3600, "The speed is in seconds, the costs are per hour."),
            ((1000 * power + machine) / tokens, "A kWh is 1,000 watts for an hour:"
             " divide the watts by 1,000."),
            (power / tokens, "The machine's price is left out: spread it over its"
             " hours."),
            (machine / tokens, "The electricity is left out."),
            ((power + price) / tokens, "The whole machine in one hour? Divide its price"
             " by its hours."),
            (1 / expected, "Upside down: dollars per token, not tokens per dollar."),
            (power + machine, "This is the cost of an hour: how many tokens are that?"),
            (expected * 60, "An hour has 3,600 seconds, not 60."),
            ((power * hours + price) / tokens, "This is the cost of the machine's whole"
             " life, divided by the tokens of an hour."),
            (100 * expected, "These are cents: return dollars."),
        )  # fmt: skip
        note = "Work out the cost of an hour, then the tokens of an hour."
        if not isinstance(got, Real):
            note = "Return a number of dollars."
        elif any(abs(got - round(expected, n)) < 1e-9 for n in range(9)):
            note = "This is rounded: return all digits."
        else:
            near = (n for v, n in beliefs if abs(got - v) <= 1e-6 * abs(v))
            note = next(near, note)
        names = "tokens_per_second, watts, usd_per_kwh, price, hours"
        return f"{note}\n  input: {names} = {bill}\n  expected: {expected:.4f}\n" + (
            f"  got: {got!r}"
        )
    return None


_BILL = "def dollars(tokens_per_second, watts, usd_per_kwh, price, hours):\n"
_HOUR = "    an_hour = watts / 1000 * usd_per_kwh + price / hours\n"
_MILLIONS = "    millions = tokens_per_second * 3600 / 1e6\n"
_END = "    return an_hour / millions"
DOLLARS = Exercise(
    id="5c.3",
    title="a million tokens in dollars",
    minutes=5,
    stars=1,
    check=_check_dollars,
    hints=(
        "What does one hour cost? Two parts: electricity, and a share of the price.",
        "Electricity of an hour: watts / 1000 * usd_per_kwh. Machine: price / hours.",
        "Tokens of an hour: tokens_per_second * 3600. Divide by a million, then divide"
        " the cost of the hour by that.",
    ),
    solution=_BILL + _HOUR + _MILLIONS + _END,
    name="dollars",
    stub=_BILL
    + '''\
    """Return the cost of a million tokens in dollars."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "watts are kilowatts",
            _BILL + _HOUR.replace(" / 1000", "") + _MILLIONS + _END,
            "A kWh is 1,000 watts",
        ),
        Wrong(
            "running costs nothing but electricity",
            _BILL + _HOUR.replace(" + price / hours", "") + _MILLIONS + _END,
            "price is left out",
        ),
        Wrong(
            "electricity is free",
            _BILL + "    an_hour = price / hours\n" + _MILLIONS + _END,
            "electricity is left out",
        ),
        Wrong(
            "seconds are hours",
            _BILL + _HOUR + _MILLIONS.replace(" * 3600", "") + _END,
            "The speed is in seconds",
        ),
        Wrong(
            "a token is a million",
            _BILL + _HOUR + _MILLIONS.replace(" / 1e6", "") + _END,
            "for one token",
        ),
        Wrong(
            "the machine is paid in its first hour",
            _BILL + _HOUR.replace("price / hours", "price") + _MILLIONS + _END,
            "in one hour",
        ),
        Wrong(
            "tokens per dollar",
            _BILL + _HOUR + _MILLIONS + "    return millions / an_hour",
            "Upside down",
        ),
    ),
)

EXERCISES = (BEST, LONGEST, DOLLARS)
