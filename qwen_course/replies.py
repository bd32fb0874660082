"""What is asked and what comes back: settings, a piece, a reply.

Plain data that `generate`, a classroom's server and the service share. Knows no models.
"""

from dataclasses import dataclass, field

from qwen_course.errors import out_of_range, refuse

# Source: Qwen3's documentation, getting_started/quickstart.md, "Thinking Budget".
EARLY_STOP = """

Considering the limited time by the user, I have to give the solution \
based on the thinking directly now.
"""
_RANGES = {
    "max_new_tokens": (1, 10**6), "top_k": (0, 10**6), "seed": (0, 2**63 - 1),
    "thinking_budget": (0, 10**6),
    "temperature": (0.0, 10.0), "top_p": (0.0, 1.0), "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 10.0), "presence_penalty": (-2.0, 2.0),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to generate. None means: as published for this model and mode.

    The published values are those of data/sampling.csv, then the model's own
    generation config, then "off". `Settings(temperature=0)` is greedy.

    A thought that has used up its budget is closed and the model answers: at once
    ("cut"), or after the sentence EARLY_STOP ("official", as Qwen3's documentation
    does it in two calls). The budget counts what the model itself wrote between the
    tags; that documentation counts the opening tag too.
    """

    max_new_tokens: int | None = None  # hard stop, with thought; None: 512, if they fit
    temperature: float | None = None  # 0: greedy, always the likeliest token
    top_p: float | None = None  # keep the likeliest tokens that sum to this; 1: off
    top_k: int | None = None  # keep this many tokens; 0: off
    min_p: float | None = None  # drop tokens below this share of the best; 0: off
    repetition_penalty: float | None = None  # divides seen logits; 1: off
    presence_penalty: float | None = None  # subtracted once a token was written; 0: off
    stop: tuple[str, ...] = ()  # texts that end the reply (a thought too), left out
    seed: int | None = None  # same seed, same reply; None: not repeatable
    thinking: bool | None = None  # None: as the chat template decides
    thinking_budget: int | None = None  # tokens of thought; None: no limit
    thinking_cut: str = "cut"  # how a thought is closed: "cut" or "official"

    def __post_init__(self) -> None:
        rules = out_of_range(self, _RANGES)
        if not isinstance(self.thinking, bool | None):
            rules["thinking"] = "True, False or None"
        if self.thinking is False and self.thinking_budget is not None:
            rules["thinking_budget"] = "None where thinking is switched off"
        if self.thinking_cut not in ("cut", "official"):
            rules["thinking_cut"] = '"cut" or "official"'
        texts = self.stop if isinstance(self.stop, tuple | list) else [None]
        if not all(isinstance(text, str) and text for text in texts):
            rules["stop"] = 'a tuple of texts, such as ("Observation:",)'
        refuse(self, rules)
        object.__setattr__(self, "stop", tuple(self.stop))


@dataclass(frozen=True)
class Reply:
    """A finished reply. Counts are tokens; seconds run from the start of generation."""

    text: str  # the answer alone; "" when the thought was cut
    thinking: str
    prompt_tokens: int
    new_tokens: int  # all after the prompt, tags and end-of-turn token included
    thinking_tokens: int  # between the tags, by the model itself
    answer_tokens: int  # after them, without the end-of-turn token
    budget_cut: bool  # the thought used up its budget and was closed
    seconds: float = field(repr=False)
    first_token_seconds: float = field(repr=False)
    token_seconds: tuple[float, ...] = field(repr=False)  # between tokens, second on
    stop: str  # "stop": the model ended it or a stop text came; "length": cut
    injected_tokens: int = field(default=0, repr=False)  # that closed the thought, tag
    # included; in new_tokens, but in no other count, and not in the texts

    @property
    def tokens_per_second(self) -> float:
        """Return the decode speed in tokens a second, the prompt's time left out."""
        total = sum(self.token_seconds)
        return len(self.token_seconds) / total if total else 0.0


@dataclass(frozen=True)
class Piece:
    """A piece of a streamed reply; `kind` is "thinking" or "answer"."""

    text: str
    kind: str
