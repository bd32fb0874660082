"""Knows the Qwen family as data: what exists, how large it is, what fits, what to pick.

Does not know: weights, files, tokenizers, this machine. It reads `data/*.csv` (each
row names its source) and does arithmetic. 1 GB is 1e9 bytes everywhere.
"""

import csv
import difflib
import os
from contextlib import suppress
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from qwen_course.errors import CourseError, UnknownModel

# Text-only architectures, whose parameter count is closed-form arithmetic here.
EXACT = ("qwen2", "qwen2_moe", "qwen3", "qwen3_moe")
# Only every fourth layer has a KV cache; the others keep a small constant state.
HYBRID = ("qwen3_next", "qwen3_5", "qwen3_5_moe", "qwen4_exp")
# Bits a weight. int4: groups of 32 weights share one 16-bit scale, 4 + 16 / 32.
BITS = {"fp32": 32.0, "bf16": 16.0, "fp16": 16.0, "int8": 8.0, "int4": 4.5}
MODES = {"always": (True,), "hybrid": (True, False)}  # thinking; all others (False,)
# Task -> tags that serve it, best first. A card's tags are the parts of `variant`,
# and "thinking" for a chat or reasoning model that can think.
TASKS = {
    "chat": "chat", "translation": "chat", "reasoning": "thinking", "base": "base",
    "maths": "thinking math chat", "code": "coder chat", "vision": "vl omni",
    "audio": "audio omni", "embedding": "embedding", "reranking": "reranker",
}  # fmt: skip


@dataclass(frozen=True, repr=False)
class ModelCard:
    """One checkpoint, a row of `data/models.csv`; None or "" where no source says."""

    repo_id: str
    generation: str
    variant: str
    params_total_b: float
    params_active_b: float | None
    non_embedding_b: float | None
    layers: int | None
    hidden: int | None
    heads_q: int | None
    heads_kv: int | None
    head_dim: int | None
    intermediate: int | None
    vocab_size: int | None
    tie_embeddings: bool | None
    n_experts: int | None
    experts_per_token: int | None
    context_native: int | None
    context_extended: int | None
    license: str
    released: str
    languages: str
    thinking: str
    shared_expert_intermediate: int | None
    model_type: str
    transformers_min: str
    source: str
    verified: bool

    @property
    def name(self) -> str:
        """The repository id without `Qwen/`."""
        return self.repo_id.removeprefix("Qwen/")

    def __repr__(self) -> str:
        """Name, size and licence in one line."""
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


def _rows(name: str) -> list[dict[str, str]]:
    path = data_dir() / name
    if not path.is_file():
        hint = "Run from a full clone, or set QWEN_COURSE_DATA to its data/ folder."
        raise CourseError(f"{name} is not in the data folder {path.parent}.", hint)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def card_from(row: dict[str, str]) -> ModelCard:
    """The card of a row of text; KeyError or ValueError where the row is wrong."""
    values: dict[str, Any] = {}
    for field in fields(ModelCard):
        kind, text = str(field.type), row[field.name]
        if "str" in kind or (not text and "None" in kind):
            values[field.name] = text if "str" in kind else None
        elif "bool" in kind:
            values[field.name] = {"yes": True, "no": False}[text]
        else:
            values[field.name] = float(text) if "float" in kind else int(text)
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
    if wanted in known:
        return known[wanted]
    near = difflib.get_close_matches(wanted, known, n=3, cutoff=0.4)
    names = ", ".join(known[key].name for key in near) or "none"
    rule = f"No model {name!r} in the catalogue. Nearest names: {names}."
    raise UnknownModel(rule, "Use one of these, or: python -m qwen_course models")


def _dims(card: ModelCard, names: str) -> list[Any]:
    if missing := [name for name in names.split() if getattr(card, name) is None]:
        rule = f"{card.name}: data/models.csv lacks {', '.join(missing)}."
        raise CourseError(rule, "Pick a card that has them, or add them with source.")
    return [getattr(card, name) for name in names.split()]


def parameters(card: ModelCard) -> Parameters:
    """Exact parameter counts from the architecture fields, by arithmetic.

    They equal what transformers builds. `active`: without a token's unused experts.
    """
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
    active = body + embedding - layers * idle
    return Parameters(body + embedding, active, embedding, body)


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

    All experts count. int8 and int4 hold the layers, embeddings stay in 16 bit; int4
    is 4.5 bits with its scales, int8's (one a row) are left out. The cache is 16 bit
    (fp32: 32) for each layer with full attention, one in four from Qwen3-Next on.
    Without exact arithmetic the published, rounded size counts, encoders included.
    """
    _check(dtype, context, batch)
    longest = max(card.context_native or 0, card.context_extended or 0) or context
    if context > longest:
        rule = f"{card.name} reads at most {longest:,} tokens, got {context:,}."
        raise CourseError(rule, "Shorten the context, or pick another card.")
    layers, heads, head = _dims(card, "layers heads_kv head_dim")
    matrices = 1 if card.tie_embeddings else 2
    embedding = (card.vocab_size or 0) * (card.hidden or 0) * matrices
    exact = card.model_type in EXACT
    total = parameters(card).total if exact else round(card.params_total_b * 1e9)
    bits = BITS[dtype]
    weights = ((total - embedding) * bits + embedding * max(16, bits)) / 8e9
    cached = layers // 4 if card.model_type in HYBRID else layers
    numbers = 2 * cached * heads * head * context * batch  # keys and values
    kv_cache = numbers * (4 if dtype == "fp32" else 2) / 1e9
    return Memory(weights, kv_cache, weights + kv_cache)


def suggest(
    *, task: str, memory_gb: float, commercial: bool = True,
    thinking: bool | None = None, language: str | None = None,
    context: int = 4096, dtype: str = "bf16", limit: int = 5,
) -> list[Suggestion]:  # fmt: skip
    """The cards that fit in `memory_gb` (1e9 bytes), best first, each with its reason.

    Best: made for the task, then newest generation, then most parameters. Commercial
    use admits Apache-2.0 only (an unknown licence is no permission); the first reason
    names what that bars. Cards without a memory figure are left out. `thinking` None
    takes any; `language` is an English name that a source lists for the generation.
    """
    spoken = {g["generation"]: g["language_names"].split("; ") for g in generations()}
    spoken |= {"en": ["English"], "en, zh": ["English", "Chinese"]}  # maths models
    listed = sorted({name for names in spoken.values() for name in names})
    if task not in TASKS:
        raise CourseError(f"Unknown task {task!r}.", f"Use one of {', '.join(TASKS)}.")
    if language not in (None, *listed):
        hint = f"Use one of {', '.join(listed)}."
        raise CourseError(f"No source lists the language {language!r}.", hint)
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
                fits.append((order, card.name, need, card))
    fits = sorted(row for row in fits if row[2] <= memory_gb)
    notes = {row["license"]: row for row in _rows("licences.csv")}
    shut = [key for key in notes if commercial and notes[key]["commercial"] == "no"]
    barred = [f"{c.name} ({c.license})" for *_, c in fits if c.license in shut]
    barred = [name for name in barred if not name.endswith("()")][:3]
    traps = f"; fits, but its licence bars it: {', '.join(barred)}" if barred else ""
    found: list[Suggestion] = []
    for *_, need, card in [row for row in fits if row[3].license not in shut][:limit]:
        active = f", {card.params_active_b:g}B at work" if card.params_active_b else ""
        reason = (
            f"{need:.1f} of {memory_gb:g} GB in {dtype} at {context:,} tokens{active}; "
            f"{card.generation}, {card.released or 'month unknown'}; licence "
            f"{card.license or 'unknown'}: {notes[card.license]['note']}"
        )
        found.append(Suggestion(card, reason if found else reason + traps))
    return found


def sampling(card: ModelCard, thinking: bool) -> dict[str, float | str | None]:
    """The published sampling values of a mode and their source; None: not named."""
    mode = "thinking" if thinking else "plain"
    if thinking not in MODES.get(card.thinking, (False,)):
        rule = f"{card.name} has no {mode} mode (its thinking: {card.thinking!r})."
        raise CourseError(rule, f"Ask for thinking={not thinking}.")
    for row in _rows("sampling.csv"):
        if fnmatchcase(card.repo_id, row.pop("pattern")) and row.pop("mode") == mode:
            source, top_k = row.pop("source"), row.pop("top_k")
            values = {key: float(text) if text else None for key, text in row.items()}
            return {**values, "top_k": int(top_k) if top_k else None, "source": source}
    rule = f"data/sampling.csv has no values for {card.name} ({mode})."
    raise CourseError(rule, "Read its model card, and give the values yourself.")
