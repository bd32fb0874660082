"""Exercises of lesson 04c: parameters at work, claims by intervals, an even load."""

from collections.abc import Callable, Collection
from numbers import Real
from typing import Any

from qwen_course import answers
from qwen_course.checks import Exercise, Wrong

Answer = Callable[..., Any]

# --- 4c.1 ---------------------------------------------------------------------------

_BODY = {"embed_tokens": 1000, "0.self_attn": 400}  # names of weights, shortened
_SPARSE = {"0.mlp.gate": 16} | {f"0.mlp.experts.{n}.up": 100 for n in range(4)}
_TWO_LAYERS = {
    f"{layer}.mlp.experts.{n}.{part}": size
    for layer in (0, 1)
    for n in (0, 1)
    for part, size in (("gate", 100), ("up", 100), ("down", 50))
}
_MANY = {f"model.layers.0.moe.experts.{n}.up_proj.weight": 3 for n in range(16)}
# Sizes, experts, chosen, note.
_NETS: tuple[tuple[dict[str, int], int, int, str], ...] = (
    (
        _BODY | _SPARSE, 4, 1,
        "The experts hold 400, a quarter of that works: 100. All the rest works: 1416.",
    ),
    (
        _BODY | _SPARSE | {"1.mlp.up": 400}, 4, 2,
        "Layer 1 has no experts: its mlp works for each token, all of its 400.",
    ),
    (
        _BODY | _SPARSE | {"0.mlp.shared_experts.0.up": 80}, 4, 2,
        "A shared expert is not chosen: it works for each token. Its name has no"
        " `.experts.`.",
    ),
    (_BODY | _SPARSE, 4, 4, "All four experts are chosen, so every parameter works."),
    (
        _BODY | _TWO_LAYERS, 2, 1,
        "Two layers have experts, and each expert has three weights, two of them of"
        " the same size. The router takes 1 of 2 in each layer, so half of 1000"
        " works.",
    ),
    (
        {"model.embed_tokens.weight": 1000} | _MANY, 16, 10,
        "Each of the 16 experts holds 3, and 10 of them work: 30. (10 is no divisor of"
        " 16, and 16 is none of 3.)",
    ),
)  # fmt: skip


def _check_at_work(answer: Answer) -> str | None:
    for sizes, experts, chosen, note in _NETS:
        total = sum(sizes.values())
        inside = sum(n for name, n in sizes.items() if ".experts." in name)
        working = inside * chosen // experts
        expected = total - inside + working
        got = answer(dict(sizes), experts, chosen)
        if got == expected:
            continue
        if not isinstance(got, Real) or 0 < got < 1:
            note = "Return a number of parameters."
        elif chosen == 1 and experts == 4:
            others = {
                total * chosen // 4: "Only experts rest. Embeddings, attention and the"
                " router work for each token.",
                total: "These are all parameters: what must be in memory.",
                working: "These are the experts alone. The rest works too.",
                inside - working: "These rest. Count what works.",
                total - inside: "The chosen experts are left out.",
                expected - 1000: "Embeddings are parameters at work, too.",
                expected - 12: "The router must look at each token: it works whole.",
                expected - 16: "The router must look at each token: it works whole.",
            }
            note = others.get(got, note)
        elif got == total - inside + inside // experts:
            note = f"This counts one expert in each layer. Here it is {chosen}."
        return (
            f"{note}\n  input: sizes={sizes}, experts={experts}, chosen={chosen}"
            f"\n  expected: {expected}\n  got: {got!r}"
        )
    return None


_WORK_HEAD = "def parameters_at_work(sizes, experts, chosen):\n"
_INSIDE = """\
    inside = sum(n for name, n in sizes.items() if ".experts." in name)
"""
_REST = "    return sum(sizes.values()) - inside + inside * chosen // experts"
AT_WORK = Exercise(
    id="4c.1",
    title="parameters at work",
    minutes=8,
    stars=2,
    check=_check_at_work,
    hints=(
        "Divide the weights into two groups: those of experts, and all others. Which"
        " group works whole?",
        'The experts: sum(n for name, n in sizes.items() if ".experts." in name).',
        "Of the experts, chosen of experts work: inside * chosen // experts. Add all"
        " others.",
    ),
    solution=_WORK_HEAD + _INSIDE + _REST,
    name="parameters_at_work",
    stub=_WORK_HEAD
    + '''\
    """Return how many parameters work on one token."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "one of four experts is a quarter of the model",
            _WORK_HEAD + "    return sum(sizes.values()) * chosen // experts",
            "Only experts rest",
        ),
        Wrong(
            "what is in memory is at work",
            _WORK_HEAD + "    return sum(sizes.values())",
            "what must be in memory",
        ),
        Wrong(
            "only experts work",
            _WORK_HEAD + _INSIDE + "    return inside * chosen // experts",
            "the experts alone",
        ),
        Wrong(
            "all experts rest",
            _WORK_HEAD + _INSIDE + "    return sum(sizes.values()) - inside",
            "chosen experts are left out",
        ),
        Wrong(
            "embeddings do not count",
            _WORK_HEAD
            + _INSIDE
            + _REST
            + "\\\n"
            + '        - sum(n for name, n in sizes.items() if "embed" in name)',
            "Embeddings are parameters",
        ),
        Wrong(
            "all of an mlp is experts",
            _WORK_HEAD + _INSIDE.replace(".experts.", ".mlp.") + _REST,
            "The router must look",
        ),
        Wrong(
            "each layer has experts",
            _WORK_HEAD
            + _INSIDE.replace("in name)", "in name or 'mlp.up' in name)")
            + _REST,
            "Layer 1 has no experts",
        ),
        Wrong(
            "a shared expert is one of the experts",
            _WORK_HEAD + _INSIDE.replace(".experts.", "expert") + _REST,
            "A shared expert is not chosen",
        ),
    ),
)

# --- 4c.3 ---------------------------------------------------------------------------

_Interval = tuple[float, float]
_MEASURED: tuple[tuple[dict[str, _Interval], str], ...] = (
    (
        {"maths": (0.89, 0.98), "generalist": (0.09, 0.23)},
        "All of 0.89 to 0.98 lies above 0.23: maths is better, as (better, worse).",
    ),
    (
        {"maths": (0.89, 0.98), "continued": (0.90, 0.98)},
        "The intervals overlap, from 0.90 to 0.98. It may be luck that one is ahead.",
    ),
    (
        {"a": (0.50, 0.70), "b": (0.65, 0.85)},
        "Each middle lies outside the other interval, and still they overlap: both may"
        " be 0.68.",
    ),
    (
        {"a": (0.40, 0.60), "b": (0.60, 0.80)},
        "They touch: both may be 0.60. There must be a gap.",
    ),
    (
        {"b": (0.25, 0.50), "a": (0.10, 0.30), "c": (0.45, 0.70)},
        "Only c and a are apart. Look at every pair: b overlaps with both.",
    ),
    (
        {"a": (0.6, 0.8), "b": (0.1, 0.3), "c": (0.85, 0.95)},
        "Here all three are apart: that makes three claims.",
    ),
    (
        {"guessing": (0.20, 0.20), "blind": (0.13, 0.28), "seeing": (0.95, 1.0)},
        "Guessing is known exactly, so its interval has no width. It is a row like the"
        " others: blind is not shown to differ from it, seeing is.",
    ),
    (
        {
            "guessing": (0.25, 0.25),
            "stubborn": (0.05, 0.15),
            "a": (0.30, 0.402),
            "b": (0.404, 0.60),
        },
        "Look at every pair. Guessing can be better, too: here it beats stubborn. And a"
        " small gap is a gap: 0.402 is below 0.404.",
    ),
    (
        {"coin": (0.5, 0.5), "dice": (0.25, 0.25), "a": (0.5, 0.7), "b": (0.5, 0.7)},
        "a and b have the same interval: both are better than dice. So is the coin,"
        " though both are exact. But a and b only touch the coin: that is no gap.",
    ),
)


def _check_claims(answer: Answer) -> str | None:
    for intervals, note in _MEASURED:
        expected = {
            (better, worse)
            for better, (low, _) in intervals.items()
            for worse, (_, high) in intervals.items()
            if low > high
        }
        got = answer(dict(intervals))
        try:
            rows = [(better, worse) for better, worse in got]
            pairs = set(rows)
        except (TypeError, ValueError):
            note, pairs = "Return a list of pairs: (better, worse).", set()
        else:
            listed = isinstance(got, Collection)
            if pairs == expected and len(rows) == len(pairs) and listed:
                continue
            if not listed:
                note = "This can be read only once. Make a list of it: list(...)."
            elif pairs == expected:
                note = "A pair stands here twice. Each claim is made once."
            elif pairs == {(worse, better) for better, worse in expected}:
                note = "The better one comes first in a pair."
            elif any(a == b for a, b in pairs):
                note = "No model is better than itself."
            elif any((b, a) in pairs for a, b in pairs):
                note = "A pair stands here in both orders: only one can be better."
        return (
            f"{note}\n  input: {intervals}\n  expected: {sorted(expected)}"
            f"\n  got: {got!r}"
        )
    return None


_CLAIMS_HEAD = "def allowed_claims(intervals):\n"


def _pairs(condition: str, pair: str = "a, b") -> str:
    return (
        f"{_CLAIMS_HEAD}    pairs = []\n"
        "    for a, (low, high) in intervals.items():\n"
        "        for b, (least, most) in intervals.items():\n"
        f"            if {condition}:\n"
        f"                pairs.append(({pair}))\n"
        "    return pairs"
    )


CLAIMS = Exercise(
    id="4c.3",
    title="what the intervals allow",
    minutes=8,
    stars=2,
    check=_check_claims,
    hints=(
        "When is all of one interval above all of another? Compare two numbers only.",
        "a is better than b if the low end of a is above the high end of b.",
        "Two loops over intervals.items(), one inside the other: if low > most, append"
        " (a, b). Equal ends are no gap.",
    ),
    solution=_pairs("low > most")
    .replace("(low, high)", "(low, _)")
    .replace("(least, most)", "(_, most)"),
    name="allowed_claims",
    stub=_CLAIMS_HEAD
    + '''\
    """Return the pairs (better, worse) whose intervals are apart."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "the higher share is better",
            _pairs("low + high > least + most"),
            "may be luck",
        ),
        Wrong(
            "a middle outside the other interval is enough",
            _pairs("low + high > 2 * most and least + most < 2 * low"),
            "Each middle lies outside",
        ),
        Wrong(
            "touching is apart",
            _pairs("a != b and low >= most"),
            "There must be a gap",
        ),
        Wrong(
            "the best is better than all",
            _CLAIMS_HEAD
            + """\
    order = sorted(intervals, key=intervals.get)
    (low, _), (_, high) = intervals[order[-1]], intervals[order[0]]
    return [(order[-1], b) for b in order[:-1]] if low > high else []""",
            "Look at every pair",
        ),
        Wrong(
            "only neighbours are compared",
            _CLAIMS_HEAD
            + """\
    order = sorted(intervals, key=intervals.get)
    pairs = zip(order[1:], order)
    return [(a, b) for a, b in pairs if intervals[a][0] > intervals[b][1]]""",
            "Look at every pair",
        ),
        Wrong(
            "an interval without width is no measurement",
            _pairs("low > most and low < high and least < most"),
            "a row like the others",
        ),
        Wrong(
            "the worse one comes first",
            _pairs("low > most", "b, a"),
            "comes first in a pair",
        ),
        Wrong(
            "apart is all that counts",
            _pairs("low > most or high < least"),
            "in both orders",
        ),
    ),
)

# --- 4c.2 ---------------------------------------------------------------------------

_Routed = tuple[list[tuple[int, ...]], list[list[float]]]
_BATCHES: tuple[tuple[_Routed, str], ...] = (
    (
        ([(0, 1), (0, 2)], [[0.6, 0.1, 0.1, 0.1, 0.1], [0.4, 0.3, 0.1, 0.1, 0.1]]),
        "f is 1, 0.5, 0.5, 0, 0 and P is 0.5, 0.2, 0.1, 0.1, 0.1:"
        " 5 * (0.5 + 0.1 + 0.05).",
    ),
    (
        ([(0, 1), (2, 3)], [[0.4, 0.4, 0.1, 0.1], [0.1, 0.1, 0.4, 0.4]]),
        "All is even: f is 0.5 and P is 0.25 for each of the four experts.",
    ),
    (
        ([(0,), (1,), (0,)], [[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]]),
        "One expert is chosen for each token: f is 2/3 and 1/3, P is 0.6 and 0.4.",
    ),
    (
        (
            [(2, 0, 3), (1, 3, 0), (3, 2, 1)],
            [
                [0.2, 0.1, 0.4, 0.25, 0.05],
                [0.3, 0.4, 0.05, 0.15, 0.1],
                [0.05, 0.2, 0.3, 0.4, 0.05],
            ],
        ),
        "Three experts are chosen for each token: f is 2/3, 2/3, 2/3, 1 and 0.",
    ),
    (([(1,)], [[0.3, 0.7]]), "A single token is a batch too: f is 0 and 1."),
    (
        ([(0,), (1,), (1,)], [[0.9, 0.1], [0.4, 0.6], [0.45, 0.55]]),
        "Expert 1 is chosen more often, but expert 0 has the higher P: f is 1/3 and"
        " 2/3, P is 0.583 and 0.417. Multiply the two of the same expert.",
    ),
)


def _check_balance(answer: Answer) -> str | None:
    for (chosen, probabilities), note in _BATCHES:
        tokens, experts = len(chosen), len(probabilities[0])
        counts = [sum(e in row for row in chosen) for e in range(experts)]
        f = [count / tokens for count in counts]
        mean = [sum(row[e] for row in probabilities) / tokens for e in range(experts)]
        expected = experts * sum(a * b for a, b in zip(f, mean, strict=True))
        pairs = zip(chosen, probabilities, strict=True)
        inside = sum(row[e] for picks, row in pairs for e in picks)
        got = answer([*chosen], [[*row] for row in probabilities])
        got = answers.plain(got)
        if isinstance(got, Real) and abs(got - expected) < 1e-6:
            continue
        others = (
            (expected / experts, "Times the number of experts, so that the even value"
             " is the number of chosen ones."),
            (expected / len(chosen[0]), "f is a share of tokens, not of choices: with"
             " two experts a token the f add up to 2."),
            (expected / experts * len(chosen[0]), "E is the number of all experts."),
            (experts * sum(mean[row[0]] for row in chosen) / tokens, "This counts the"
             " first choice of each token. All that it chose count."),
            (expected * tokens, "Divide by the number of tokens, both f and P."),
            (expected * tokens**2, "Divide by the number of tokens, both f and P."),
            (experts * sum(a * a for a in f), "One of the factors is the mean"
             " probability P, not f once more."),
            (experts * sum(b * b for b in mean), "One of the factors is f, the share"
             " of tokens that chose the expert."),
            (experts * inside / tokens, "P is a mean over all tokens, also over those"
             " that did not choose the expert."),
            (experts * sum(f) * sum(mean), "Multiply f and P of each expert first, then"
             " add up the products."),
            (max(f), "This is the busiest expert. The loss sums over all of them."),
        )  # fmt: skip
        if not isinstance(got, Real):
            note = "Return a number."
        else:
            note = next((told for v, told in others if abs(got - v) < 1e-9), note)
        told = f"chosen={chosen}, probabilities={probabilities}"
        return f"{note}\n  input: {told}\n  expected: {expected:.4g}\n  got: {got!r}"
    return None


_LOSS_HEAD = "def balance_loss(chosen, probabilities):\n"
_F_AND_P = """\
    tokens, experts = len(chosen), len(probabilities[0])
    total = 0
    for e in range(experts):
        f = sum(e in row for row in chosen) / tokens
        p = sum(row[e] for row in probabilities) / tokens
"""
BALANCE = Exercise(
    id="4c.2",
    title="an even load",
    minutes=10,
    stars=2,
    check=_check_balance,
    hints=(
        "Go through the experts. For each one you need two shares: f and P.",
        "f: sum(e in row for row in chosen) / len(chosen). P: the mean of row[e] over"
        " the rows of probabilities.",
        "Sum f * P over the experts, then multiply by their number.",
    ),
    solution=_LOSS_HEAD
    + _F_AND_P
    + "        total += f * p\n    return experts * total",
    name="balance_loss",
    stub=_LOSS_HEAD
    + '''\
    """Return the load-balancing loss of one layer."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "the sum is enough",
            _LOSS_HEAD + _F_AND_P + "        total += f * p\n    return total",
            "Times the number of experts",
        ),
        Wrong(
            "f is a share of all choices",
            _LOSS_HEAD
            + _F_AND_P.replace("chosen) / tokens", "chosen) / tokens / len(chosen[0])")
            + "        total += f * p\n    return experts * total",
            "not of choices",
        ),
        Wrong(
            "P is a sum",
            _LOSS_HEAD
            + _F_AND_P.replace("probabilities) / tokens", "probabilities)")
            + "        total += f * p\n    return experts * total",
            "Divide by the number of tokens",
        ),
        Wrong(
            "the load alone says it",
            _LOSS_HEAD
            + _F_AND_P
            + "        total += f * f\n    return experts * total",
            "not f once more",
        ),
        Wrong(
            "the probabilities alone say it",
            _LOSS_HEAD
            + _F_AND_P
            + "        total += p * p\n    return experts * total",
            "One of the factors is f",
        ),
        Wrong(
            "the busiest expert is the loss",
            _LOSS_HEAD + _F_AND_P + "        total = max(total, f)\n    return total",
            "This is the busiest expert",
        ),
    ),
)

EXERCISES = (AT_WORK, BALANCE, CLAIMS)
