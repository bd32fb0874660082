"""A back end on another OpenAI-compatible server: vLLM, llama.cpp, Ollama.

Requests are passed on as they came, chunks as they come. The client library tries again
where that is safe: before the first chunk, when the server cannot be reached, is busy
or fails. Knows no models: the other server renders the prompt and counts its tokens.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator
from typing import Any

from qwen_course.chat import validate
from qwen_course.errors import CourseError
from qwen_course.protocol import ApiError, ChatRequest, Chunk, Work
from qwen_course.room import connect, from_outside

# The shape of all of Qwen's control tokens; some templates write <KEY> for a key.
_CONTROL = re.compile(r"<\|[a-z0-9_]+\|>|(?<=')\|[a-z0-9_]+\|(?=')")
_WHOLE = "write it whole, as http://127.0.0.1:8001/v1."
SECONDS = 60.0  # without a chunk for so long the other server counts as dead
FRESH_SECONDS = 10.0  # a list of models holds
BYTES_A_TOKEN = 3  # of English about 4, of other languages less: an estimate


class Upstream:
    """A back end on another server.

    Args:
        url: its address with the version, as in http://127.0.0.1:8001/v1.
        key: its own key; clients of this service never see it.
        retries: times that a request is sent again before its first chunk.
        client: an openai.AsyncOpenAI in place of a new one, for tests.
    """

    def __init__(
        self, url: str, key: str = "", *, retries: int = 2, client: Any = None
    ) -> None:
        """Make the client; nothing is sent yet."""
        import openai

        self._waiting = 0
        self._names, self._fresh = list[str](), 0.0  # fresh until then
        hints = "set QWEN_COURSE_UPSTREAM_KEY to the key you got.", _WHOLE
        how = {"timeout": SECONDS, "max_retries": retries}
        self._client = client or connect(openai.AsyncOpenAI, url, key, hints, **how)

    async def names(self) -> list[str]:
        """Return the models that the other server listed in the last ten seconds."""
        if time.monotonic() >= self._fresh:
            try:
                names = [model.id async for model in self._client.models.list()]
            except Exception as error:
                told = _told(error)  # the client asked for no list: no fault of its own
                failed = ApiError(502, "The upstream server failed.", "upstream")
                raise (told if told.status > 499 else failed) from error
            self._names, self._fresh = names, time.monotonic() + FRESH_SECONDS
        return self._names

    async def prepare(self, request: ChatRequest, output_tokens: int) -> Work:
        """Return the request with its tokens estimated from its bytes.

        Text of a control token is refused: the other server would take it for one. So
        is a template of the client's own, which could make one.
        """
        # In a thread, for ten thousand messages take it most of a second.
        return await asyncio.to_thread(self._prepare, request, output_tokens)

    def _prepare(self, request: ChatRequest, output_tokens: int) -> Work:
        sent, system = request.messages, {"role": "system"}
        contents = [message.get("content") for message in sent]
        parted = [content for content in contents if isinstance(content, list)]
        # OpenAI's newer word for system is developer.
        known = [m | system if m.get("role") == "developer" else m for m in sent]
        try:
            validate(known)
        except CourseError as error:
            if not parted:  # parts with images are the other server's to judge
                raise ApiError(400, error.message, param="messages") from None
        body = request.model_dump(exclude_unset=True)
        # Any field may reach the other server's template, which may join the texts of
        # parts; stop texts do not.
        joined = ["".join(map(_text, parts)) for parts in parted]
        if found := _CONTROL.search(repr([body | {"stop": None}, joined])):
            told = f"The request holds the control token {found[0]}."
            raise ApiError(400, told, param="messages", code="control_token")
        if body.get("chat_template") is not None:
            told = "chat_template is not passed on."
            raise ApiError(400, told, param="chat_template")
        most = min(request.most_tokens or 512, output_tokens)  # 512: as here at home
        body.pop("max_completion_tokens", None)
        body |= {"max_tokens": most, "stream": True}
        body["stream_options"] = {"include_usage": True}
        text = repr([sent, request.tools])
        read = len(text.encode("utf-8", "replace")) // BYTES_A_TOKEN
        return Work(read, most * (request.n or 1), body)

    async def stream(self, work: Work, model: str) -> AsyncGenerator[Chunk, None]:
        """Return the chunks of the other server; closing the iterator hangs up."""
        work.arrived = work.started = time.perf_counter()
        moments, usage, ended, texts = list[float](), dict[str, Any](), "closed", []
        known = {"messages": work.job["messages"], "stream": True}
        rest = {name: v for name, v in work.job.items() if name not in known}
        self._waiting += (waits := 1)
        try:
            async with await self._client.chat.completions.create(
                model=model, **known, extra_body=rest | {"model": model}
            ) as chunks:
                async for made in chunks:
                    self._waiting -= waits
                    waits = 0
                    chunk = made.model_dump(exclude_unset=True)
                    usage = chunk.get("usage") or usage
                    for choice in chunk.get("choices") or []:
                        ended = choice.get("finish_reason") or ended
                        delta = choice.get("delta") or {}
                        if any(delta[name] for name in delta if name != "role"):
                            moments.append(time.perf_counter() - work.started)
                            texts.append(delta.get("content") or "")
                    yield chunk
            if ended == "closed":
                raise ApiError(502, "The upstream server broke off.", "upstream")
        except Exception as error:
            raise _told(error) from error
        finally:
            self._waiting -= waits
            if moments or ended != "closed":
                seen = work.started, moments, usage, ended, "".join(texts)
                work.replies.append(from_outside(*seen))

    def waiting(self) -> int:
        """Return how many requests wait for the other server's answer."""
        return self._waiting

    async def ready(self) -> bool:
        """Return whether the other server answers within two seconds."""
        try:
            quick = self._client.with_options(timeout=2, max_retries=0)
            return bool([model.id async for model in quick.models.list()])
        except Exception:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _text(part: Any) -> str:
    """Return the text of a part of a content, if it has one."""
    return str(part.get("text") or "") if isinstance(part, dict) else ""


def _told(error: Exception) -> ApiError:
    """Return what the client is told: its own mistakes in full, ours in one word."""
    import openai

    if isinstance(error, ApiError):
        return error
    if "Timeout" in type(error).__name__:  # the client's, or its network library's
        return ApiError(504, "The upstream server did not answer in time.", "upstream")
    if isinstance(error, openai.RateLimitError):
        wait = {"Retry-After": error.response.headers.get("retry-after", "1")}
        told = "The upstream server is busy."
        return ApiError(503, told, "upstream", None, "overloaded", wait)
    status = getattr(error, "status_code", None)
    if isinstance(error, openai.APIStatusError) and status in (400, 404, 422):
        body = error.body if isinstance(error.body, dict) else {}
        told = str(body.get("message") or "The upstream server refuses this request.")
        param, code = body.get("param"), body.get("code")
        return ApiError(status, told[:500], param=param, code=code)
    return ApiError(502, "The upstream server failed.", "upstream")
