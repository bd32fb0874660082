"""A model on somebody else's server: replies by URL and key, no weights here.

For a room of laptops without weights: the teacher's machine runs
`python -m qwen_course serve`, or the company has vLLM. Knows no roles and no templates:
the server renders the prompt.
"""

import time
from collections.abc import Generator, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from qwen_course.errors import CourseError
from qwen_course.replies import Piece, Reply, Settings

_PLAIN = ("temperature", "top_p", "presence_penalty", "seed")  # names of OpenAI's API
_KEY = "set QWEN_COURSE_ROOM_KEY to the key you got."
_EXTRA = ("top_k", "min_p", "repetition_penalty", "thinking_budget")  # beyond it


def connect(
    client: Any, url: str, key: str, hints: tuple[str, str], **options: Any
) -> Any:
    """Return an openai client of a server; hints are for a bad key, a bad address."""
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        rule = "The key for the server holds a character that no key can have."
        raise CourseError(rule, hints[0])
    try:
        there = urlsplit(url)
        # .port raises for one that cannot be; http://http:// has an empty one
        whole = there.port != 0 and there.hostname and there.netloc[-1] != ":"
        if not whole or there.scheme not in ("http", "https") or url.split() != [url]:
            raise ValueError("http://, host or port is missing, or it holds a space")
        return client(base_url=url, api_key=key or "none", **options)
    except ImportError as error:  # ALL_PROXY names a SOCKS proxy
        rule = f"The proxy of this machine cannot be used: {error}"
        raise CourseError(rule, "unset ALL_PROXY, or set NO_PROXY.") from None
    except Exception as error:  # httpx.InvalidURL: not an OpenAIError
        rule = f"{url!r} is no address of a server: {error}"
        raise CourseError(rule, hints[1]) from None


def from_outside(
    started: float, moments: list[float], usage: dict[str, Any], stop: str,
    text: str, thinking: str = "",
) -> Reply:  # fmt: skip
    """Return a server's reply; a piece that came at a moment may be several tokens."""
    new = usage.get("completion_tokens") or len(moments)
    details = usage.get("completion_tokens_details")
    thought = (isinstance(details, dict) and details.get("reasoning_tokens")) or 0
    seconds = time.perf_counter() - started
    return Reply(
        text=text, thinking=thinking, prompt_tokens=usage.get("prompt_tokens") or 0,
        new_tokens=new, thinking_tokens=thought, answer_tokens=new - thought,
        budget_cut=False, seconds=seconds,
        first_token_seconds=moments[0] if moments else seconds,
        token_seconds=tuple(b - a for a, b in pairwise(moments)), stop=stop,
    )  # fmt: skip


class Room:
    """A model behind an OpenAI-compatible server, in the place of a model in memory.

    `generate.reply`, `stream` and `batch` work with it. What looks inside a model
    (logits, weights, a cache) does not, and says so.
    """

    dtype = "on a server"

    def __init__(self, url: str, key: str, name: str = "") -> None:
        """Keep the address (as in http://10.0.0.5:8000/v1), the key, the model."""
        try:
            import openai
        except ImportError:
            rule = "Replies from a server need the package openai."
            raise CourseError(rule, "python -m pip install openai") from None
        self.url, self.name = url, name
        self.device = SimpleNamespace(type=url)
        hints = (_KEY, "export QWEN_COURSE_ROOM=http://TEACHER:8000/v1")
        self._client = connect(openai.OpenAI, url, key, hints, timeout=120)

    def __call__(self, *_: Any, **__: Any) -> Any:
        """Raise what __getattr__ raises: there are no logits here."""
        return self.forward()

    def __getattr__(self, name: str) -> Any:
        told = f"{self.name} runs on the server {self.url}: it has no {name!r} here. "
        raise AttributeError(told + 'Load a pocket model: models.load("pocket-chat").')

    def names(self) -> list[str]:
        """Return the names of the models that the server offers."""
        try:
            found = self._client.with_options(timeout=5.0, max_retries=0).models.list()
            return [model.id for model in found.data or []]
        except Exception as error:
            raise self._told(error) from None

    def stream(
        self, messages: list[dict[str, Any]], settings: Settings | None, tools: Any
    ) -> Generator[Piece | Reply, None, None]:
        """Return an iterator over pieces as the server sends them, the Reply last.

        Its `budget_cut` is False always, and tags and the end-of-turn token are in its
        `answer_tokens`: a server does not tell.
        """
        from transformers.utils import get_json_schema

        asked = settings or Settings()
        if asked.thinking_budget is not None and asked.thinking_cut != "cut":
            rule = "A server closes a thought that is cut in its own way."
            raise CourseError(
                rule, 'leave thinking_cut out, or load "pocket-thinking".'
            )
        body: dict[str, Any] = {n: getattr(asked, n) for n in _PLAIN}
        body |= {"max_tokens": asked.max_new_tokens, "stop": [*asked.stop] or None}
        if tools:
            body["tools"] = [get_json_schema(t) if callable(t) else t for t in tools]
        extra = {n: getattr(asked, n) for n in _EXTRA}
        if asked.thinking is not None:
            extra["chat_template_kwargs"] = {"enable_thinking": asked.thinking}
        body = {name: value for name, value in body.items() if value is not None}
        body["extra_body"] = {n: v for n, v in extra.items() if v is not None}
        body |= {"model": self.name, "messages": messages, "stream": True}
        body["stream_options"] = {"include_usage": True}
        return self._read(body)

    def _read(self, body: dict[str, Any]) -> Generator[Piece | Reply, None, None]:
        started = time.perf_counter()
        texts, moments = {"thinking": "", "answer": ""}, list[float]()
        calls: dict[int, list[str]] = {}
        ended, usage = "closed", None
        try:
            with self._client.chat.completions.create(**body) as chunks:
                for chunk in chunks:
                    usage = chunk.usage or usage
                    for choice in chunk.choices or []:
                        ended = choice.finish_reason or ended
                        for piece in _pieces(choice.delta, calls):
                            moments.append(time.perf_counter() - started)
                            texts[piece.kind] += piece.text
                            yield piece
            if ended == "closed":
                told = f"The server {self.url} broke off in the middle of a reply."
                raise CourseError(told, "ask again; see the server's own messages.")
            for name, arguments in calls.values():  # as the model itself wrote them
                call = f'{{"name": "{name}", "arguments": {arguments or "{}"}}}'
                piece = Piece(f"<tool_call>\n{call}\n</tool_call>", "answer")
                texts["answer"] += piece.text
                yield piece
        except Exception as error:
            raise self._told(error) from None
        counted = usage.model_dump() if usage else {}
        stop = "length" if ended == "length" else "stop"
        yield from_outside(
            started, moments, counted, stop, texts["answer"], texts["thinking"]
        )

    def _told(self, error: Exception) -> CourseError:
        """Return what went wrong, and what to do, in words of the course."""
        import openai

        if isinstance(error, CourseError):
            return error
        if isinstance(error, openai.AuthenticationError):
            rule = f"The server {self.url} refuses the key."
            return CourseError(rule, _KEY)
        if isinstance(error, openai.APIStatusError):
            body = error.body if isinstance(error.body, dict) else {}
            told = body.get("message") or f"status {error.status_code}"
            wait = error.response.headers.get("retry-after")
            hint = f"try again in {wait} s." if wait else "change what it names."
            if error.status_code == 404:
                hint = "is the address whole, as http://TEACHER:8000/v1?"
            return CourseError(f"The server {self.url} answers: {told}", hint)
        if type(error) is openai.APIError:  # told in the middle of a reply
            rule = f"The server {self.url} broke off: {error}"
            return CourseError(rule, "change what it names, or ask again.")
        if isinstance(error, openai.OpenAIError):
            rule = f"No answer from the server {self.url}: {error}"
            return CourseError(rule, "check the address; is the server running?")
        rule = f"{self.url} answers in no way of OpenAI's API: {type(error).__name__}."
        return CourseError(
            rule, "is it the address of a model's server, ending in /v1?"
        )


def _pieces(delta: Any, calls: dict[int, list[str]]) -> Sequence[Piece]:
    """Return the pieces of a delta; calls of tools are gathered, name and arguments."""
    if delta is None:  # some servers end a reply so
        return []
    for call in delta.tool_calls or []:
        known = calls.setdefault(call.index, ["", ""])
        known[0] += (call.function and call.function.name) or ""
        known[1] += (call.function and call.function.arguments) or ""
    extra = delta.model_extra or {}  # vLLM's name changed
    thought = extra.get("reasoning_content") or extra.get("reasoning")
    found = [(thought, "thinking"), (delta.content, "answer")]
    return [Piece(text, kind) for text, kind in found if text]
