"""An OpenAI-compatible chat service: keys, limits, streaming, metrics.

Covered: API keys, rates and tokens per key, sizes of bodies, prompts and replies, time,
a bounded queue, clients that leave, forged control tokens (see `chat.encode`), errors
that tell the sender's mistake and nothing else, no texts in logs.
Not covered: TLS and slow headers (put a reverse proxy in front), users and billing (a
gateway), several processes (give `storage` a Redis address), and prompt injection by
plain words, which no filter can take out: never let a reply do what its reader may not.
"""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import math
import re
import threading
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from qwen_course import protocol
from qwen_course.errors import CourseError, out_of_range, refuse
from qwen_course.monitor import Monitor
from qwen_course.protocol import ApiError, Backend, ChatRequest, Chunk, Work
from qwen_course.replies import Reply
from qwen_course.server import Answers, Events, body_of, unless_left

# Of a reply whose client has left nothing is known.
_LEFT = SimpleNamespace(**dict.fromkeys(Reply.__annotations__) | {"stop": "closed"})
_RANGES = {
    "input_tokens": (1, 10**7), "output_tokens": (1, 10**6), "choices": (1, 128),
    "body_bytes": (100, 10**9), "requests_per_minute": (1, 10**9),
    "tokens_per_minute": (1, 10**12), "seconds": (0.01, 86_400.0),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one client may ask for. Of rates None means: no limit."""

    input_tokens: int = 8192  # of a prompt, template included
    output_tokens: int = 1024  # of a reply, thought included
    choices: int = 4  # replies to one request (n)
    body_bytes: int = 1_000_000
    seconds: float = 120.0  # for a request, from its body to its last token
    requests_per_minute: int | None = 60
    tokens_per_minute: int | None = 100_000  # read, and asked for as max_tokens
    storage: str = "memory://"  # where `limits` counts; Redis for several processes

    def __post_init__(self) -> None:
        refuse(self, out_of_range(self, _RANGES))


class ChatService:
    """Who may ask, how much, and what comes back; knows no HTTP.

    Args:
        backend: a batching.Local or an upstream.Upstream.
        limits: for each key alike.
        keys: name of a client -> its key; None: everybody is let in.
        monitor: gets a record of each request that was let in.
    """

    def __init__(
        self, backend: Backend, limits: Limits | None = None,
        keys: Mapping[str, str] | None = None, monitor: Monitor | None = None,
    ) -> None:  # fmt: skip
        """Keep hashes of the keys, not the keys."""
        from limits import RateLimitItemPerMinute, strategies
        from limits.errors import ConfigurationError
        from limits.storage import storage_from_string

        strong = (re.fullmatch(r"[!-~]{16,}", key) for key in (keys or {}).values())
        if keys is not None and not (keys and all(strong)):
            rule = "A key must have 16 or more letters, digits and signs, no spaces."
            made = 'python -c "import secrets; print(secrets.token_urlsafe())"'
            raise CourseError(rule, f"make one: {made}")
        self.backend, self.limits = backend, limits or Limits()
        self.monitor = monitor or Monitor()
        self._keys = {name: _digest(key) for name, key in (keys or {}).items()}
        try:
            self._storage: Any = storage_from_string(self.limits.storage)
            self._limiters = {  # a time for each request, two counts for all tokens
                "requests": strategies.MovingWindowRateLimiter(self._storage),
                "tokens": strategies.SlidingWindowCounterRateLimiter(self._storage),
            }
        except (ConfigurationError, ValueError, NotImplementedError) as error:
            scheme = self.limits.storage.partition(":")[0]  # the rest holds a password
            rule = f"Rates cannot be counted in {scheme!r}: {type(error).__name__}."
            hint = 'write "memory://", or "redis://HOST:6379" and install redis.'
            raise CourseError(rule, hint) from None
        self._spending = threading.Lock()  # the storage in memory loses hits without
        most = {"requests": self.limits.requests_per_minute}
        most["tokens"] = self.limits.tokens_per_minute
        self._rates = {n: RateLimitItemPerMinute(m, 1, n) for n, m in most.items() if m}

    def client(self, authorization: str | None) -> str:
        """Return the name behind an Authorization header; ApiError 401 without one."""
        if not self._keys:
            return "local"
        kind, _, key = (authorization or "").partition(" ")
        given, found = _digest(key.strip() if kind.lower() == "bearer" else ""), ""
        for name, known in self._keys.items():  # all of them: no time tells which
            if hmac.compare_digest(given, known):
                found = name
        if not found:
            told = "Give a valid key in the header Authorization: Bearer KEY."
            sign = {"WWW-Authenticate": "Bearer"}
            raise ApiError(401, told, param=None, code="invalid_api_key", headers=sign)
        return found

    def spend(self, client: str, what: str, cost: int = 1) -> dict[str, str]:
        """Return headers on what is left; ApiError 429 when that is less than `cost`.

        Requests are counted exactly: of any 60 seconds, none holds more than the limit.

        Args:
            client: a name, as `client` gave it.
            what: "requests" (one at a time) or "tokens".
            cost: how many of them.
        """
        if not (rate := self._rates.get(what)):
            return {}
        limiter = self._limiters[what]
        if cost > rate.amount:
            told = f"This asks for {cost} {what}, the limit is {rate.amount} a minute."
            raise ApiError(400, told, param="max_tokens", code="tokens_exceed_limit")
        with self._spending:
            taken = limiter.hit(rate, client, cost=cost)
            reset, left = limiter.get_window_stats(rate, client)
            seconds = max(0.0, reset - time.time())
            if not taken:  # the oldest request leaves at `reset`
                wait = self._wait(rate, client, cost) if what == "tokens" else seconds
        headers = {f"x-ratelimit-limit-{what}": str(rate.amount)}
        headers[f"x-ratelimit-remaining-{what}"] = str(max(0, left))
        headers[f"x-ratelimit-reset-{what}"] = f"{seconds:.3f}s"
        if not taken:
            whole = max(1, math.floor(wait + 1e-3) + 1)  # seconds since 1970 are rough
            told = f"Rate limit: {rate.amount} {what} a minute. Try again in {whole} s."
            headers["Retry-After"] = str(whole)
            code = "rate_limit_exceeded"
            raise ApiError(429, told, what, None, code, headers)
        return headers

    def _wait(self, rate: Any, client: str, cost: int) -> float:
        """Return the seconds until `cost` tokens are let in, if nothing else is spent.

        A minute's count fades evenly over the next one: see `limits`, sliding window.
        """
        # The counts of two minutes, and the seconds for which each still counts.
        window = self._storage.get_sliding_window(rate.key_for(client), 60)
        before, fades, now, ends = window
        free = rate.amount - cost + 1  # what counts less is let in
        if now < free:
            return fades - 60 * (free - now) / max(1, before)
        return ends - 60 * free / now  # not before this minute fades too

    def late(self) -> ApiError:
        """Return what a client is told whose time is up."""
        told = f"Not done within {self.limits.seconds:g} s: ask for fewer tokens."
        return ApiError(504, told, "server_error", None, "timeout")

    async def admit(
        self, client: str, body: bytes
    ) -> tuple[ChatRequest, Work, str, dict[str, str]]:
        """Return request, work, model and headers, or ApiError with what is wrong."""
        headers = await asyncio.to_thread(self.spend, client, "requests", 1)
        request, limits = protocol.parse(body), self.limits
        if (request.n or 1) > limits.choices:
            raise ApiError(400, f"n is at most {limits.choices}.", param="n")
        if (request.most_tokens or 1) > limits.output_tokens:
            told = f"max_tokens is at most {limits.output_tokens}."
            raise ApiError(400, told, param="max_tokens")
        names = await self.backend.names()
        model = request.model or (names or [""])[0]
        if model not in names:
            told = f"No model {model!r:.80}. This server has: {', '.join(names)}."
            raise ApiError(404, told, param="model", code="model_not_found")
        work = await self.backend.prepare(request, limits.output_tokens)
        if work.prompt_tokens > limits.input_tokens:
            told = f"The prompt has {work.prompt_tokens} tokens, at most "
            told += f"{limits.input_tokens} are read: shorten it."
            raise ApiError(400, told, param="messages", code="context_length_exceeded")
        cost = work.prompt_tokens + work.most_tokens
        headers |= await asyncio.to_thread(self.spend, client, "tokens", cost)
        return request, work, model, headers

    async def chunks(
        self, request: ChatRequest, work: Work, model: str, end: float
    ) -> AsyncGenerator[Chunk, None]:
        """Return the chunks of a reply, in time or not at all, and record how it went.

        The counts come last, if the request does not say otherwise. `end` is on the
        loop's clock.
        """
        options, error, fault = request.stream_options or {}, "", True
        counted = not request.stream or options.get("include_usage")
        stream = self.backend.stream(work, model)
        begun = time.perf_counter()
        try:
            while True:
                async with asyncio.timeout_at(end):
                    chunk = await anext(stream, None)
                if chunk is None:
                    break
                if counted or chunk.get("choices") or not chunk.get("usage"):
                    yield chunk
        except TimeoutError:
            error = "TimeoutError"
            raise self.late() from None
        except ApiError as problem:
            fault = problem.status >= 500  # else the sender's
            known = problem.code or type(problem).__name__
            cause = problem.__cause__
            error = type(cause).__name__ if cause else known
            raise
        except Exception as problem:
            error = type(problem).__name__
            raise
        finally:
            await stream.aclose()
            waited = (work.started or time.perf_counter()) - (work.arrived or begun)
            ended: list[Any] = [*work.replies] or [_LEFT]
            for reply in [None] * fault if error else ended:
                self.monitor.record(
                    reply, queue_seconds=max(0.0, waited), error=error,
                    messages=request.messages,
                )  # fmt: skip


def create_app(service: ChatService, hosts: tuple[str, ...] = ()) -> FastAPI:
    """Return the application of a service.

    Args:
        service: answers the requests.
        hosts: names that the Host header may have, so that no web page can reach a
            service on loopback under a name of its own; (): any name.
    """
    from prometheus_client import CollectorRegistry, Counter, generate_latest
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        yield
        await service.backend.close()

    app = FastAPI(title="qwen_course", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.close = service.backend.close
    if hosts:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*hosts])
    limits, registry = service.limits, CollectorRegistry()
    answers = Counter("qwen_answers", "By status", ["status"], registry=registry)
    app.add_middleware(Answers, count=answers)  # added last, so the outermost

    @app.exception_handler(ApiError)
    async def told(_: Request, error: ApiError) -> JSONResponse:
        return JSONResponse(error.body(), error.status, error.headers)

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def unknown(request: Request, error: Any) -> JSONResponse:
        text = f"No {request.method} {request.url.path[:80]} here."
        body = ApiError(error.status_code, text).body()
        return JSONResponse(body, error.status_code, error.headers)

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Tell that the process answers."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """Tell whether a request would be taken."""
        ready = await service.backend.ready()
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        """Give the counts in Prometheus' format; needs a key."""
        service.client(request.headers.get("authorization"))
        service.monitor.waiting(service.backend.waiting())
        text = service.monitor.exposition() + generate_latest(registry)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        """List the models."""
        service.client(request.headers.get("authorization"))
        names = await service.backend.names()
        same = {"object": "model", "created": 0, "owned_by": "qwen_course"}
        return {"object": "list", "data": [{"id": name} | same for name in names]}

    kind = {"application/json": {"schema": ChatRequest.model_json_schema()}}
    content = {"content": kind, "required": True}

    @app.post("/v1/chat/completions", openapi_extra={"requestBody": content})
    async def complete(request: Request) -> Response:
        """Reply to a conversation, at once or as server-sent events."""
        client = service.client(request.headers.get("authorization"))
        body = await body_of(request, limits.body_bytes, limits.seconds)
        end = asyncio.get_running_loop().time() + limits.seconds
        try:
            async with asyncio.timeout_at(end):  # an upstream may not answer
                asked, work, model, headers = await service.admit(client, body)
            stream = service.chunks(asked, work, model, end)
            try:
                # What fails before the first chunk still has a status.
                first = await unless_left(request, anext(stream))
                if not asked.stream:
                    whole = await unless_left(request, _gather(first, stream))
                    return JSONResponse(whole, headers=headers)
            except BaseException:
                await stream.aclose()
                raise
        except ApiError:
            raise
        except TimeoutError:
            raise service.late() from None
        except Exception as error:
            raise _hidden(error) from None
        headers |= {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return Events(_events(first, stream), stream, limits.seconds + 10, headers)

    return app


def _hidden(error: Exception) -> ApiError:
    """Return what a client is told of a fault of ours; the log gets its kind alone."""
    logging.getLogger(__name__).error("failed: %s", type(error).__name__)
    return ApiError(500, "The server failed.", "server_error")


async def _events(
    first: Chunk, stream: AsyncGenerator[Chunk, None]
) -> AsyncGenerator[str, None]:
    """Return the events of a reply; an error that comes too late for a status too."""
    try:
        yield protocol.event(first)
        async for chunk in stream:
            yield protocol.event(chunk)
        yield protocol.event("[DONE]")
    except ApiError as error:
        yield protocol.event(error.body())
    except Exception as error:
        yield protocol.event(_hidden(error).body())


async def _gather(first: Chunk, stream: AsyncGenerator[Chunk, None]) -> dict[str, Any]:
    return protocol.fold([first] + [chunk async for chunk in stream])


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()
