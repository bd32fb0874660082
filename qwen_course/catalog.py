"""Knows the Qwen family as data: what exists, how large it is, what fits, what to pick.

Does not know: weights, tokenizers, this machine. `data/*.csv` names every source.
"""

import csv
import difflib
import os
from contextlib import suppress
from dataclasses import dataclass, make_dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from qwen_course.errors import CourseError, UnknownModel

EXACT = ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe")  # text only: see parameters
# Only every fourth layer has a KV cache; the others keep a small constant state.
HYBRID = ("qwen3_next", "qwen3_5", "qwen3_5_moe", "qwen4_exp")
# Bits a weight, scales included: of the layers, of the input embedding, of the head.
BITS: dict[str, tuple[float, float, float]] = {
    "fp32": (32, 32, 32), "bf16": (16, 16, 16), "fp16": (16, 16, 16),
    "int8": (8, 16, 16), "int4": (4 + 16 / 32, 16, 16),  # a 16-bit scale for 32 weights
    "nf4": (4 + 8 / 64 + 32 / (64 * 256), 16, 16),  # QLoRA's double quantization
    "q8_0": (8.5, 8.5, 8.5), "q4_k_m": (4.81, 4.5, 6.5625),  # GGUF, as official files
}  # fmt: skip
# A K-quant block holds 256 weights of a row; rows of 896 (0.5B) get larger formats.
UNEVEN = {"q4_k_m": (5.53, 5.5, 8.5)}
MODES = {"always": (True,), "hybrid": (True, False)}  # thinking; all others (False,)
# Task -> tags that serve it, best first: parts of `variant`, or "thinking" (suggest).
TASKS = {
    "chat": "chat", "translation": "chat", "reasoning": "thinking", "base": "base",
    "maths": "thinking math chat", "code": "coder chat", "vision": "vl omni",
    "audio": "audio omni", "embedding": "embedding", "reranking": "reranker",
}  # fmt: skip
# The columns of `data/models.csv`, which become the fields of a ModelCard.
COLUMNS = {
    str: "repo_id generation variant license released languages thinking model_type "
    "transformers_min source",
    bool: "tie_embeddings verified",
    float: "params_total_b params_active_b non_embedding_b",
    int: "layers hidden heads_q heads_kv head_dim intermediate vocab_size n_experts "
    "experts_per_token shared_expert_intermediate context_native context_extended",
}
_FIELDS = [(name, kind) for kind, names in COLUMNS.items() for name in names.split()]
_Row: Any = make_dataclass("_Row", _FIELDS, frozen=True, repr=False)


class ModelCard(_Row):
    """One checkpoint, a row of `data/models.csv`; None or "" where no source says."""

    @property
    def name(self) -> str:
        """The repository id without `Qwen/`."""
        return self.repo_id.removeprefix("Qwen/")

    def __repr__(self) -> str:
        licence = self.license or "licence unknown"
        return f"ModelCard({self.name}, {self.params_total_b:g}B, {licence})"


@dataclass(frozen=True)
class Parameters:
    """Exact counts; `embedding` is the input matrix and the output one if untied."""

    total: int
    active: int
    embedding: int
    non_embedding: int


@dataclass(frozen=True)
class Memory:
    """Memory in GB (1e9 bytes)."""

    weights_gb: float
    kv_cache_gb: float
    total_gb: float


@dataclass(frozen=True)
class Suggestion:
    """A card, and in one sentence why."""

    card: ModelCard
    reason: str


def data_dir() -> Path:
    """The folder `data/` of this course; `QWEN_COURSE_DATA` overrides it."""
    default = Path(__file__).resolve().parent.parent / "data"
    return Path(os.environ.get("QWEN_COURSE_DATA") or default)


def text(name: str) -> str:
    """A file of `data/`, such as "models.csv", as text."""
    path = data_dir() / name
    if not path.is_file():
        hint = "Run from a full clone, or set QWEN_COURSE_DATA to its data/ folder."
        raise CourseError(f"{name} is not in the data folder {path.parent}.", hint)
    return path.read_text(encoding="utf-8")


def _rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text(name).splitlines()))


def card_from(row: dict[str, str]) -> ModelCard:
    """The card of a row of text; KeyError or ValueError where the row is wrong."""
    values: dict[str, Any] = {}
    for name, kind in _FIELDS:
        read = {"yes": True, "no": False}.__getitem__ if kind is bool else kind
        values[name] = read(row[name]) if row[name] or kind is str else None
    return ModelCard(**values)


def cards() -> list[ModelCard]:
    """Every checkpoint of the catalogue, in the order of `data/models.csv`."""
    return [card_from(row) for row in _rows("models.csv")]


def generations() -> list[dict[str, str]]:
    """The generations as rows of `data/generations.csv`, oldest first."""
    return _rows("generations.csv")


def find(name: str) -> ModelCard:
    """The card of a repository id or short name, in upper or lower case."""
    known = {card.name.casefold(): card for card in cards()}
    wanted = str(name).strip().casefold().removeprefix("qwen/")
    if wanted not in known:
        near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4)
        names = ", ".join(known[key].name for key in near) or "none"
        rule = f"No model {name!r} in the catalogue. Nearest names: {names}."
        hint = "Use one of these, or: " if near else "See them all: "
        raise UnknownModel(rule, f"{hint}python -m qwen_course models")
    return known[wanted]


def _check_card(card: Any) -> None:
    if not isinstance(card, ModelCard):
        raise CourseError(f"Not a model card: {card!r:.60}.", "Use catalog.find(name).")


def _dims(card: ModelCard, names: str) -> list[Any]:
    if missing := [name for name in names.split() if getattr(card, name) is None]:
        rule = f"{card.name}: data/models.csv lacks {', '.join(missing)}."
        raise CourseError(rule, "Pick a card that has them, or add them with source.")
    return [getattr(card, name) for name in names.split()]


def parameters(card: ModelCard) -> Parameters:
    """Exact counts from the architecture; `active` leaves out idle experts."""
    _check_card(card)
    if card.model_type not in EXACT:
        rule = f"{card.name}: exact only for {', '.join(EXACT)}, not {card.model_type}."
        raise CourseError(rule, f"Use the published {card.params_total_b:g} billion.")
    layers, hidden, width, vocab = _dims(card, "layers hidden intermediate vocab_size")
    q, kv, head, tied = _dims(card, "heads_q heads_kv head_dim tie_embeddings")
    # Qwen3 normalises queries and keys per head; before it, q, k and v had a bias.
    extra = 2 * head if card.model_type.startswith("qwen3") else (q + 2 * kv) * head
    attention = 2 * hidden * (q + kv) * head + extra
    mlp, idle = 3 * hidden * width, 0
    if card.model_type.endswith("moe"):
        experts, used = _dims(card, "n_experts experts_per_token")
        idle = (experts - used) * mlp
        mlp = experts * (mlp + hidden)  # + hidden: the router has a row per expert
        if card.model_type == "qwen2_moe":  # one more expert for all, behind a gate
            mlp += 3 * hidden * _dims(card, "shared_expert_intermediate")[0] + hidden
    body = layers * (attention + mlp + 2 * hidden) + hidden
    embedding = vocab * hidden * (1 if tied else 2)
    total = body + embedding
    return Parameters(total, total - layers * idle, embedding, body)


def _check(dtype: str, context: int, batch: int = 1) -> None:
    if dtype not in BITS:
        raise CourseError(f"Unknown dtype {dtype!r}.", f"Use one of {', '.join(BITS)}.")
    if not all(isinstance(n, int) and n > 0 for n in (context, batch)):
        rule = f"context and batch are at least 1, got {context!r} and {batch!r}."
        raise CourseError(rule, "Give whole numbers, such as context=4096, batch=1.")


def memory(
    card: ModelCard, dtype: str = "bf16", context: int = 4096, batch: int = 1
) -> Memory:
    """Memory in GB (1e9 bytes) of weights and KV cache; activations come on top.

    All experts count. int8, int4 and nf4 hold the layers, embeddings stay in 16 bit;
    the GGUF formats hold both; of tied embeddings one table counts, as head. The cache
    has 16 bit (fp32: 32). int8's scales (one a row) are left out. Architectures that
    are not EXACT count with their published, rounded size, encoders included.
    """
    _check_card(card)
    _check(dtype, context, batch)
    longest = max(card.context_native or 0, card.context_extended or 0)
    if 0 < longest < context:
        rule = f"{card.name} reads at most {longest:,} tokens, got {context:,}."
        raise CourseError(rule, "Shorten the context, or pick another card.")
    layers, heads, head = _dims(card, "layers heads_kv head_dim")
    table, tied = (card.vocab_size or 0) * (card.hidden or 0), card.tie_embeddings
    exact = card.model_type in EXACT
    total = parameters(card).total if exact else round(card.params_total_b * 1e9)
    larger = UNEVEN if (card.hidden or 0) % 256 else {}
    inner, first, last = larger.get(dtype, BITS[dtype])
    body = total - table * (1 if tied else 2)
    weights = (body * inner + table * (last if tied else first + last)) / 8e9
    cached = layers // 4 if card.model_type in HYBRID else layers
    wide = 32 if dtype == "fp32" else 16
    kv_cache = 2 * cached * heads * head * context * batch * wide / 8e9  # keys, values
    return Memory(weights, kv_cache, weights + kv_cache)


def suggest(
    *, task: str, memory_gb: float, commercial: bool = True,
    thinking: bool | None = None, language: str | None = None,
    context: int = 4096, dtype: str = "bf16", limit: int = 5,
) -> list[Suggestion]:  # fmt: skip
    """The cards that fit in `memory_gb` (1e9 bytes), best first, each with its reason.

    Best: made for the task, then newest generation, then most parameters. Commercial
    use admits Apache-2.0 only; the first reason names what that bars. Cards without a
    memory figure are left out. `thinking` None takes any; `language` is in English.
    """
    spoken = {g["generation"]: g["language_names"].split("; ") for g in generations()}
    spoken |= {"en": ["English"], "en, zh": ["English", "Chinese"]}  # maths models
    listed = sorted(set().union(*spoken.values()))
    if task not in TASKS:
        raise CourseError(f"Unknown task {task!r}.", f"Use one of {', '.join(TASKS)}.")
    if language not in (None, *listed):
        hint = f"Use one of {', '.join(listed)}."
        raise CourseError(f"No source lists the language {language!r}.", hint)
    if not isinstance(memory_gb, int | float) or not memory_gb > 0:
        rule = f"memory_gb is a number above 0, got {memory_gb!r}."
        raise CourseError(rule, "Give gigabytes, such as memory_gb=8.")
    _check(dtype, context)
    ages, fits = list(spoken), []
    for card in cards():
        tags, modes = set(card.variant.split("/")), MODES.get(card.thinking, (False,))
        if thinking is not False and True in modes and tags & {"chat", "reasoning"}:
            tags.add("thinking")
        rank = [i for i, tag in enumerate(TASKS[task].split()) if tag in tags]
        names = [None, *spoken.get(card.languages, spoken[card.generation])]
        raw = task != "base" and tags & {"base", "reward-model"}
        if rank and not raw and language in names and thinking in (None, *modes):
            with suppress(CourseError):  # too long a context, or dimensions unknown
                need = memory(card, dtype, context).total_gb
                order = (rank[0], -ages.index(card.generation), -card.params_total_b)
                fits.append((*order, card.name, need, card))
    fits = sorted(row for row in fits if row[-2] <= memory_gb)
    notes = {row["license"]: row for row in _rows("licences.csv")}
    shut = [key for key in notes if commercial and notes[key]["commercial"] == "no"]
    traps = [c for *_, c in fits if c.license and c.license in shut][:3]
    barred = ", ".join(f"{c.name} ({c.license})" for c in traps)
    end = f"; fits, but its licence bars it: {barred}" if barred else ""
    found: list[Suggestion] = []
    for *_, need, card in [row for row in fits if row[-1].license not in shut]:
        active = f", {card.params_active_b:g}B at work" if card.params_active_b else ""
        reason = (
            f"{need:.1f} of {memory_gb:g} GB in {dtype} at {context:,} tokens{active}; "
            f"{card.generation}, {card.released or 'month unknown'}; licence "
            f"{card.license or 'unknown'}: {notes[card.license]['note']}"
        )
        found.append(Suggestion(card, reason if found else reason + end))
    return found[: max(limit, 0)]


def sampling(card: ModelCard, thinking: bool) -> dict[str, float | str | None]:
    """The published sampling values of a mode and their source; None: not named."""
    _check_card(card)
    mode = "thinking" if thinking else "plain"
    for row in _rows("sampling.csv"):
        fits = fnmatchcase(card.repo_id, row.pop("pattern")) and row.pop("mode") == mode
        if fits and thinking in MODES.get(card.thinking, (False,)):
            source, top_k = row.pop("source"), row.pop("top_k")
            values = {key: float(text) if text else None for key, text in row.items()}
            return {**values, "top_k": int(top_k) if top_k else None, "source": source}
    rule = f"No source has {mode} values for {card.name} (thinking: {card.thinking!r})."
    raise CourseError(rule, "Ask for its other mode, or give the values yourself.")
