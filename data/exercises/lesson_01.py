"""Exercises of lesson 01: what fits, tied embeddings, the KV cache, a licence."""

from collections.abc import Callable
from numbers import Real

from qwen_course import answers, catalog
from qwen_course.checks import Exercise, Wrong

# --- 1.1 ----------------------------------------------------------------------------

_MACHINES = (
    (
        (30.5, 3.3, 4.5, 8.0),
        "Active parameters set the speed. In memory, all experts must be held: the"
        " next token may need any of them.",
    ),
    (
        (8.0, 8.0, 4.5, 4.1),
        "4.5 bits are more than 4: 8 * 4.5 / 8 = 4.5 GB, so do not round the bits.",
    ),
    ((4.0, 4.0, 4.5, 8.0), "4 billion weights of 4.5 bits: 4 * 4.5 / 8 = 2.25 GB."),
    ((5.0, 0.1, 16.0, 10.4), "10 GB. The weights alone are asked: no reserve."),
    ((7.6, 7.6, 16.0, 8.0), "A weight of 16 bits takes 2 bytes, not 1."),
    ((6.0, 0.5, 4.5, 4.0), "Eight bits are a byte: 6 * 4.5 / 8 = 3.375 GB."),
    (
        (30.5, 3.3, 4.5, 17.5),
        "17.2 GB. The active weights are a part of the total: do not add them. And"
        " round nothing.",
    ),
    (
        (8.04, 8.04, 8.0, 8.0),
        "8.04 billion bytes are 8.04 GB: a GB is 1000 ** 3 bytes here, not 1024 ** 3."
        " And round nothing.",
    ),
    ((235.0, 22.0, 4.5, 80.0), "All 235 billion weights count."),
)


def _check_fits(answer: Callable[..., object]) -> str | None:
    for values, note in _MACHINES:
        total, _, bits, memory = values
        expected, got = total * bits / 8 <= memory, answer(*values)
        got = answers.plain(got)
        if got is expected:
            continue
        if not isinstance(got, bool):
            note = "Return True or False."
        names = ("total_b", "active_b", "bits", "memory_gb")
        asked = ", ".join(f"{n}={v}" for n, v in zip(names, values, strict=True))
        return f"{note}\n  input: {asked}\n  expected: {expected}\n  got: {got!r}"
    return None


_FITS_HEAD = "def fits(total_b, active_b, bits, memory_gb):\n"
FITS = Exercise(
    id="1.1",
    title="does the MoE fit?",
    minutes=4,
    stars=1,
    check=_check_fits,
    hints=(
        "Which of the two numbers of a MoE must lie in memory before the first token?",
        "A billion weights of 8 bits take 1 GB. How much at 4.5 bits?",
        "The weights take total_b * bits / 8 GB; active_b is not needed.",
    ),
    solution=_FITS_HEAD + "    return total_b * bits / 8 <= memory_gb",
    name="fits",
    stub=_FITS_HEAD
    + '''\
    """Return True if the weights fit; sizes in billions, memory in GB."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "active parameters are the memory",
            _FITS_HEAD + "    return active_b * bits / 8 <= memory_gb",
            "all experts must be held",
        ),
        Wrong(
            "bits are bytes",
            _FITS_HEAD + "    return total_b * bits <= memory_gb",
            "4 * 4.5 / 8",
        ),
        Wrong(
            "a billion parameters take 1 GB",
            _FITS_HEAD + "    return total_b <= memory_gb",
            "takes 2 bytes",
        ),
        Wrong(
            "a 4-bit weight takes a whole byte, a 16-bit weight two",
            _FITS_HEAD + "    return total_b * (2 if bits > 8 else 1) <= memory_gb",
            "Eight bits are a byte",
        ),
    ),
)

# --- 1.2 ----------------------------------------------------------------------------

_SHARES = (
    (
        (440_467_456, 151_936, 1024, True),
        "Tied means one table for the way in and the way out: count it once.",
    ),
    (
        (6_946_071_552, 151_936, 4096, False),
        "Untied means two tables of the same size: count both.",
    ),
    ((600, 100, 4, True), "The share is table(s) / (body + table(s))."),
    (
        (400, 100, 4, False),
        "`tied` decides, not the size: this one is small, and untied.",
    ),
)


def _check_share(answer: Callable[..., object]) -> str | None:
    for values, note in _SHARES:
        body, vocabulary, hidden, tied = values
        tables = vocabulary * hidden * (1 if tied else 2)
        expected, got = tables / (body + tables), answer(*values)
        got = answers.plain(got)
        if isinstance(got, Real) and abs(got - expected) < 1e-9:
            continue
        if not isinstance(got, Real):
            note = "Return a number between 0 and 1."
        elif abs(got - 100 * expected) < 0.5:
            note = "A share lies between 0 and 1: no per cent."
        elif got > 1:
            note = "A share is at most 1: divide by all parameters of the model."
        elif abs(got - tables / body) < 1e-9:
            note = "The whole is body and tables together, not the body alone."
        elif abs(got - body / (body + tables)) < 1e-9:
            note = "This is the share of the body. The vocabulary's is the rest."
        elif got == 0:
            note = "// drops what is behind the point: a share needs /."
        elif abs(got - expected) < 0.006:
            note = "Right, but rounded: return the number as it is."
        asked = f"body={body}, vocabulary={vocabulary}, hidden={hidden}, tied={tied}"
        return f"{note}\n  input: {asked}\n  expected: {expected:.4f}\n  got: {got}"
    return None


_SHARE_HEAD = "def vocabulary_share(body, vocabulary, hidden, tied):\n"
SHARE = Exercise(
    id="1.2",
    title="how much of it is vocabulary?",
    minutes=5,
    stars=2,
    check=_check_share,
    hints=(
        "One table has a row per token of the vocabulary, hidden numbers a row.",
        "How many such tables are there if the embeddings are tied? And if not?",
        "tables = vocabulary * hidden * (1 if tied else 2); divide by body + tables.",
    ),
    solution=_SHARE_HEAD
    + """\
    tables = vocabulary * hidden * (1 if tied else 2)
    return tables / (body + tables)""",
    name="vocabulary_share",
    stub=_SHARE_HEAD
    + '''\
    """Return embedding parameters / all parameters, between 0 and 1."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "there are always two tables",
            _SHARE_HEAD
            + """\
    tables = 2 * vocabulary * hidden
    return tables / (body + tables)""",
            "count it once",
        ),
        Wrong(
            "the output head is not a table of its own",
            _SHARE_HEAD
            + """\
    tables = vocabulary * hidden
    return tables / (body + tables)""",
            "count both",
        ),
        Wrong(
            "the body is the whole",
            _SHARE_HEAD
            + """\
    return vocabulary * hidden * (1 if tied else 2) / body""",
            "not the body alone",
        ),
        Wrong(
            "the question is for the number of parameters",
            _SHARE_HEAD + "    return vocabulary * hidden * (1 if tied else 2)",
            "at most 1",
        ),
    ),
)

# --- 1.3 ----------------------------------------------------------------------------


def _check_cache(answer: Callable[..., object]) -> str | None:
    for name in ("Qwen3-14B", "Qwen2.5-0.5B-Instruct", "Qwen1.5-7B-Chat", "Qwen3-8B"):
        card = catalog.find(name)
        values = (card.layers, card.heads_q, card.heads_kv, card.head_dim)
        layers, queries, pairs, head = (value or 0 for value in values)
        expected, got = 2 * 2 * layers * pairs * head, answer(*values)
        if got == expected and not isinstance(got, bool):
            continue
        faults = {
            2 * 2 * layers * queries * head: "Query heads are not kept: they are used"
            " once, for their own token. Only key and value heads are cached (GQA).",
            2 * layers * queries * head: "Query heads are not kept, only key and value"
            " heads (GQA). And keys *and* values are kept, each number in 2 bytes.",
            2 * layers * pairs * head: "One factor 2 is missing: keys *and* values are"
            " kept, and each number takes 2 bytes.",
            layers * pairs * head: "These are numbers of the keys alone. Values are"
            " kept too, and each number takes 2 bytes.",
            2 * 2 * pairs * head: "This is one layer. Each layer has its own cache.",
            2 * 4 * layers * pairs * head: "A number takes 2 bytes here, not 4.",
            2 * 16 * layers * pairs * head: "These are bits. 2 bytes a number.",
            expected / 1024: "These are kB (of 1024 bytes). Return bytes.",
            expected / 1000: "These are kB. Return bytes.",
            2 * 2 * layers * pairs: "A head keeps head_dim numbers, not one.",
            2 * 2 * layers * (queries + pairs) * head: "Query heads are not kept.",
        }
        known = faults.get(got) if isinstance(got, int | float) else None
        note = known or "Keys and values, in every layer, for each key and value head."
        asked = f"{name}: layers={layers}, heads_q={queries}, heads_kv={pairs},"
        asked += f" head_dim={head}"
        return f"{note}\n  input: {asked}\n  expected: {expected}\n  got: {got}"
    return None


_CACHE_HEAD = "def kv_bytes(layers, heads_q, heads_kv, head_dim):\n"
CACHE = Exercise(
    id="1.3",
    title="KV cache bytes per token",
    minutes=6,
    stars=2,
    check=_check_cache,
    hints=(
        "What must be remembered of an old token, so that a new one can look at it?",
        "Per layer: one key and one value for each key and value head.",
        "2 (keys, values) * layers * heads_kv * head_dim * 2 bytes.",
    ),
    solution=_CACHE_HEAD + "    return 2 * layers * heads_kv * head_dim * 2",
    name="kv_bytes",
    stub=_CACHE_HEAD
    + '''\
    """Return bytes of KV cache for one token, at 2 bytes a number."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "every query head keeps its own keys and values",
            _CACHE_HEAD + "    return 2 * layers * heads_q * head_dim * 2",
            "Query heads are not kept",
        ),
        Wrong(
            "only one of keys and values is kept",
            _CACHE_HEAD + "    return layers * heads_kv * head_dim * 2",
            "One factor 2 is missing",
        ),
        Wrong(
            "a number is a byte, and keys are all there is",
            _CACHE_HEAD + "    return layers * heads_kv * head_dim",
            "keys alone",
        ),
        Wrong(
            "one cache serves all layers",
            _CACHE_HEAD + "    return 2 * heads_kv * head_dim * 2",
            "Each layer has its own",
        ),
    ),
)

# --- 1.4 ----------------------------------------------------------------------------

_SHOP = (
    ("Qwen3-4B", "Apache-2.0 allows commercial use."),
    (
        "Qwen2.5-3B-Instruct",
        "The weights are open, their licence is Qwen Research: not for commercial use.",
    ),
    (
        "Qwen2.5-72B-Instruct",
        "The Qwen licence sets conditions: above 100 million users a month you must"
        " ask. That is not 'without asking anybody'.",
    ),
    ("Qwen2.5-7B-Instruct", "Its 3B sister has another licence; the 7B is Apache-2.0."),
    ("Qwen3-32B", "Size is no matter of licence: this one is Apache-2.0."),
    (
        "Qwen1.5-7B-Chat",
        "No source for its licence was read. Unknown is no permission: read the"
        " model's page first.",
    ),
    ("Qwen3.8-2.4T-A95B", "Its own licence sets conditions for large businesses."),
    (
        "Qwen2-72B-Instruct",
        "Tongyi Qianwen is the older Qwen licence: a condition too.",
    ),
    (
        "Qwen3.8-Flash-Next",
        "This licence is in few lists. Name what is allowed, not what is forbidden.",
    ),
    (
        "Qwen3.5-397B-A17B",
        "Neither size nor generation decides: this one is large, and Apache-2.0.",
    ),
)


def _check_sell(answer: Callable[..., object]) -> str | None:
    cards = {card.name: card for card in catalog.cards()}
    for name, note in _SHOP:
        card = cards[name]
        expected, got = card.license == "Apache-2.0", answer(card)
        got = answers.plain(got)
        if got is expected:
            continue
        if not isinstance(got, bool):
            note = "Return True or False."
        asked = f"{name}, license={card.license!r}"
        return f"{note}\n  input: {asked}\n  expected: {expected}\n  got: {got!r}"
    return None


_SELL_HEAD = "def may_sell(card):\n"
SELL = Exercise(
    id="1.4",
    title="may I sell with it?",
    minutes=4,
    stars=1,
    check=_check_sell,
    hints=(
        "Open weights are not a licence. Look at card.license of several cards.",
        "Which licence of the table above allows commercial use without a condition?",
        'Only "Apache-2.0" does. An empty licence means: nobody has looked yet.',
    ),
    solution=_SELL_HEAD + '    return card.license == "Apache-2.0"',
    name="may_sell",
    stub=_SELL_HEAD
    + '''\
    """Return True if you may sell a service with it, asking nobody."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "open weights are free for all uses",
            _SELL_HEAD + "    return True",
            "Qwen Research: not for commercial use",
        ),
        Wrong(
            "only a research licence forbids it",
            _SELL_HEAD + '    return "Research" not in card.license',
            "sets conditions",
        ),
        Wrong(
            "all of Qwen2.5 has the licence of the 3B",
            _SELL_HEAD + '    return card.generation != "Qwen2.5"',
            "Its 3B sister",
        ),
        Wrong(
            "an unknown licence is no problem",
            _SELL_HEAD + '    return card.license in ("Apache-2.0", "")',
            "Unknown is no permission",
        ),
    ),
)

EXERCISES = [FITS, SHARE, CACHE, SELL]
