"""The words of OpenAI's chat API: a request, chunks of a reply, errors.

What every client of a language model speaks today. A streamed reply is a list of
chunks; a reply in one piece is the same chunks, folded. Knows no models and no network.
Source: platform.openai.com/docs/api-reference/chat; the fields beyond it as in vLLM.
"""

import json
import time
import uuid
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qwen_course.errors import CourseError
from qwen_course.generate import Reply, Settings

Chunk = dict[str, Any]
_Option = Literal["include_usage", "include_obfuscation"]
# Fields that change nothing here; everything else that is unknown is refused.
_IGNORED = {"user", "metadata", "store", "safety_identifier", "prompt_cache_key"}
# These may be given as what holds here anyway.
_OFF: dict[str, Any] = {"frequency_penalty": 0, "logprobs": False, "logit_bias": {}}
_OFF |= {"parallel_tool_calls": True, "response_format": {"type": "text"}}


class ApiError(Exception):
    """An error of the API: HTTP status, OpenAI's shape, headers to send along."""

    def __init__(
        self, status: int, message: str, kind: str = "invalid_request_error",
        param: str | None = None, code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Keep what the client is told."""
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}
        self.kind, self.param, self.code = kind, param, code

    def body(self) -> dict[str, Any]:
        """Return the body of the answer, in OpenAI's shape."""
        told = {"message": self.message, "type": self.kind}
        return {"error": told | {"param": self.param, "code": self.code}}


class ChatRequest(BaseModel):
    """A request to /v1/chat/completions; None means: as published for the model."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)
    model: str | None = None
    messages: list[dict[str, Any]] = Field(min_length=1, max_length=10_000)
    max_tokens: int | None = Field(None, ge=1, le=10**6)
    max_completion_tokens: int | None = Field(None, ge=1, le=10**6)  # the newer name
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    stop: str | list[str] | None = Field(None, max_length=1000)
    n: int | None = Field(None, ge=1, le=128)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stream: bool | None = None
    # One more chunk at the end, with the counts; OpenAI's padding, which is not made.
    stream_options: dict[_Option, bool] | None = None
    tools: list[dict[str, Any]] | None = Field(None, max_length=128)
    tool_choice: str | dict[str, Any] | None = None
    # Beyond OpenAI's API, as Qwen's documentation and vLLM name them:
    top_k: int | None = Field(None, ge=-1, le=10**6)  # -1 or 0: off
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=10)
    chat_template_kwargs: dict[str, Any] | None = None  # enable_thinking
    thinking_budget: int | None = Field(None, ge=0, le=10**6)

    @property
    def most_tokens(self) -> int | None:
        """Return the limit of new tokens, whichever name was used."""
        return self.max_completion_tokens or self.max_tokens

    def settings(self) -> Settings:
        """Return what `generate` calls this; ApiError for what it cannot do."""
        extra = self.model_extra or {}
        for name in sorted(extra.keys() - _IGNORED):
            if extra[name] not in (None, _OFF.get(name)):
                told = f"{name} is not supported by this server."
                raise ApiError(400, told, param=name, code="unsupported_parameter")
        if self.tool_choice not in (None, "auto", "none"):
            told = "tool_choice is auto or none here."
            raise ApiError(400, told, param="tool_choice")
        switches = self.chat_template_kwargs or {}
        for name in sorted(switches.keys() - {"enable_thinking"}):
            told = "chat_template_kwargs knows only enable_thinking here."
            raise ApiError(400, told, param=f"chat_template_kwargs.{name}")
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stop) > 16 or not all(0 < len(text) <= 1000 for text in stop):
            told = "stop must be up to 16 texts of 1 to 1000 characters."
            raise ApiError(400, told, param="stop")
        top_k = None if self.top_k is None else max(0, self.top_k)
        try:
            return Settings(
                max_new_tokens=self.most_tokens, temperature=self.temperature,
                top_p=self.top_p, top_k=top_k, min_p=self.min_p,
                repetition_penalty=self.repetition_penalty,
                presence_penalty=self.presence_penalty, stop=tuple(stop),
                seed=self.seed, thinking=switches.get("enable_thinking"),
                thinking_budget=self.thinking_budget,
            )  # fmt: skip
        except CourseError as error:
            raise ApiError(400, error.message) from None


def parse(body: bytes) -> ChatRequest:
    """Return the request in a body of JSON; ApiError names the first wrong field."""
    try:
        return ChatRequest.model_validate_json(body, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        param = ".".join(map(str, first["loc"])).removesuffix(".[key]") or None
        told = f"{param}: {first['msg']}." if param else f"The body: {first['msg']}."
        raise ApiError(400, told[:300], param=param) from None


@dataclass
class Work:
    """A request that a back end has read and counted; what it made comes to replies."""

    prompt_tokens: int
    most_tokens: int  # that may be written, all choices together
    job: Any = field(repr=False)  # the back end's own
    arrived: float = 0.0  # by time.perf_counter
    started: float = 0.0  # left the queue; 0: never
    replies: list[Reply] = field(default_factory=list)


class Backend(Protocol):
    """What makes the replies: a model in this process, or another server."""

    async def names(self) -> list[str]:
        """Return the models it offers, the default first."""

    async def prepare(self, request: ChatRequest, output_tokens: int) -> Work:
        """Return the request read and counted; ApiError says what is wrong with it."""

    def stream(self, work: Work, model: str) -> AsyncGenerator[Chunk, None]:
        """Return the chunks, usage last; closing the iterator ends the work."""

    def waiting(self) -> int:
        """Return how many requests wait."""

    async def ready(self) -> bool:
        """Return whether a request would be taken now."""

    async def close(self) -> None:
        """End all work."""


class Chunks:
    """Makes the chunks of one reply: they share an id, a moment and a model's name."""

    def __init__(self, model: str) -> None:
        """Draw the id."""
        self._same: Chunk = {"id": f"chatcmpl-{uuid.uuid4().hex}", "model": model}
        self._same |= {"object": "chat.completion.chunk", "created": int(time.time())}

    def delta(self, index: int, reason: str | None = None, **delta: Any) -> Chunk:
        """Return a chunk that adds to choice `index`, or with a reason ends it."""
        choice = {"index": index, "delta": delta, "finish_reason": reason}
        return self._same | {"choices": [choice]}

    def usage(self, replies: Iterable[Reply]) -> Chunk:
        """Return the chunk of counts that ends a reply; it has no choices."""
        made = [*replies]
        read, new = made[0].prompt_tokens, sum(reply.new_tokens for reply in made)
        thought = sum(reply.thinking_tokens for reply in made)
        counts = {"prompt_tokens": read, "completion_tokens": new}
        counts["total_tokens"] = read + new
        details = {"completion_tokens_details": {"reasoning_tokens": thought}}
        return self._same | {"choices": [], "usage": counts | details}


def fold(chunks: Iterable[Chunk]) -> dict[str, Any]:
    """Return the whole completion that a list of chunks adds up to."""
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        names = ("id", "created", "model", "usage", "system_fingerprint")
        whole |= {name: chunk[name] for name in names if chunk.get(name) is not None}
        for part in chunk.get("choices") or []:
            empty = {"role": "assistant", "content": None}
            new = {"index": part["index"], "message": empty, "finish_reason": None}
            choice = choices.setdefault(part["index"], new | {"logprobs": None})
            if ended := part.get("finish_reason"):
                choice["finish_reason"] = ended
            _add(choice["message"], part.get("delta") or {})
            if found := part.get("logprobs"):
                known = choice["logprobs"] or {"content": [], "refusal": None}
                known["content"] += found.get("content") or []
                choice["logprobs"] = known
    ordered = [choices[index] for index in sorted(choices)]
    return whole | {"object": "chat.completion", "choices": ordered}


def _add(message: dict[str, Any], delta: dict[str, Any]) -> None:
    """Add a delta to a message: texts grow, calls of tools grow by their index."""
    for name, value in delta.items():
        if name == "tool_calls":
            calls = message.setdefault("tool_calls", [])
            for part in value or []:
                while len(calls) <= part["index"]:
                    empty = {"name": "", "arguments": ""}
                    calls.append({"id": "", "type": "function", "function": empty})
                call, function = calls[part["index"]], part.get("function") or {}
                call["id"] = part.get("id") or call["id"]
                for key in ("name", "arguments"):
                    call["function"][key] += function.get(key) or ""
        elif isinstance(value, str) and name != "role":
            message[name] = (message.get(name) or "") + value


def event(data: Any) -> str:
    """Return a server-sent event; `data` is a chunk, an error, or the word [DONE]."""
    # ASCII alone: some readers of lines take U+2028 for the end of one.
    text = data if isinstance(data, str) else json.dumps(data)
    return f"data: {text}\n\n"
