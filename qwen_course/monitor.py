"""One record per reply, percentiles over the latest ones, health with reasons.

Takes whatever has the fields of a finished reply; knows nothing of models and starts
no thread. Memory is bounded: a window of records, sums and buckets since the start.
"""

import contextlib
import hmac
import json
import math
import re
import resource
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from io import BufferedIOBase
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple, TextIO, cast

from qwen_course import prometheus
from qwen_course.errors import CourseError, out_of_range, refuse

_COUNTS = ("prompt_tokens", "new_tokens", "seconds", "first_token_seconds")
_REPLY = (*_COUNTS, "token_seconds", "text", "stop")
_LEAKED = re.compile(r"</?think>|<\|\w+\|>")
_ADVICE = {  # what to do when a rule fails
    "error_rate": "count errors by class in to_frame(), mend the most frequent one",
    "canary_pass_rate": "compare weights, template, sampling with the last good run",
    "wait_p95": "see what grew: the queue (add workers) or prefill (shorten prompts)",
    "queue_p95": "add workers, make batches, or refuse requests earlier",
    "token_seconds_p95": "see what runs between tokens: a callback, another process",
    "length_share": "read replies that do not end: check template, then max_new_tokens",
    "leaked_share": "check the chat template, and who splits thinking from answer",
    "prompt_tokens_p95": "see who sends longer prompts; limit them or plan for them",
    "memory_growth": "look for what outlives a request: caches, histories, outputs",
}


@dataclass(frozen=True)
class Record:
    """What one request cost. None means "not measured", never 0."""

    when: float  # seconds since 1970, at its end
    moment: float  # the same by the monitor's clock, for rates
    request_id: str
    queue_seconds: float  # from its arrival to the start of generation
    first_token_seconds: float | None  # from the start of generation: prefill
    wait_seconds: float | None  # what the user waited for the first token: both
    token_p50: float | None  # seconds for an output token inside this reply: median
    token_p95: float | None  # one of twenty of its tokens took longer
    prompt_tokens: int | None
    new_tokens: int | None
    tokens_per_second: float | None  # decode alone: from the second token on
    prefill_per_second: float | None  # prompt tokens a second up to the first token
    seconds: float | None  # whole, queue included
    peak_memory_mb: float  # high-water mark of the process, not of this request
    resident_mb: float  # of the process, now; its peak where that is not known
    cuda_peak_mb: float | None  # high-water mark of torch's tensors; None without CUDA
    stop: str  # "stop", "length", "closed", ...; "" where there was no reply
    error: str  # class name; "" when fine
    leaked: bool  # the answer holds <think>, </think> or a token such as <|im_end|>


class Spread(NamedTuple):
    """Percentiles over requests; None where nothing was measured."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True)
class Summary:
    """Rates and percentiles of the latest requests; a Spread is of a Record's field."""

    requests: int
    errors: int
    error_rate: float | None
    error_budget_used: float | None  # errors as a share of those that are allowed
    requests_per_minute: float | None  # from the start of the first until now
    throughput: float | None  # tokens a second in that time, of all replies together
    wait_seconds: Spread
    queue_seconds: Spread
    token_p50: Spread  # is writing slow?
    token_p95: Spread  # does it stall inside replies?
    seconds: Spread
    tokens_per_second: Spread  # the one where high is good
    prompt_tokens: Spread
    new_tokens: Spread
    length_share: float | None  # of the replies: cut by max_new_tokens
    leaked_share: float | None  # of the replies
    memory_growth: float | None  # MB a 1000 requests; from 20 requests on
    canary_pass_rate: float | None  # of the latest run
    canary_n: int  # questions in that run

    def __repr__(self) -> str:
        told = []
        for name, value in vars(self).items():
            numbers = value if isinstance(value, Spread) else (value,)
            known = [f"{n:.4g}" if n is not None else "-" for n in numbers]
            told.append(f"{name} {'/'.join(known)}")
        return f"Summary({', '.join(told)}; p50/p95/p99)"


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """The worst that is still good, on a slow laptop too; None: not checked."""

    wait_p95: float | None = 30.0  # seconds
    queue_p95: float | None = 20.0  # seconds
    token_seconds_p95: float | None = 1.0  # in one of 20 replies 5 % took longer
    error_rate: float | None = 0.05
    length_share: float | None = 0.5
    leaked_share: float | None = 0.01
    prompt_tokens_p95: float | None = None  # drift: set it from your own good days
    memory_growth: float | None = 1000.0  # MB a 1000 requests: 1 MB each
    canary_pass_rate: float | None = 0.8  # at least; all others: at most
    min_requests: int = 20  # fewer are not judged

    def __post_init__(self) -> None:
        ranges: dict[str, tuple] = {"min_requests": (1, 10**6)}
        for name in _ADVICE:
            ranges[name] = (0.0, 1.0 if name.endswith(("rate", "share")) else 1e9)
        refuse(self, out_of_range(self, ranges))


@dataclass(frozen=True)
class Failure:
    """A rule that does not hold, and what to do next."""

    rule: str
    value: float
    limit: float
    recommendation: str


@dataclass(frozen=True)
class Health:
    """What was checked, and what failed."""

    status: str  # "unhealthy": errors or canaries failed; "degraded": another rule
    # did; "unknown": none failed, but requests are too few; else "healthy"
    failures: tuple[Failure, ...]
    checked: tuple[str, ...]  # rules with a limit and a value
    note: str = ""  # how many requests are needed

    @property
    def healthy(self) -> bool:
        """Return whether there were enough requests and no rule failed."""
        return self.status == "healthy"

    def __repr__(self) -> str:
        told = [f"{f.rule} {f.value:.3g}, limit {f.limit:.3g}" for f in self.failures]
        return f"Health({'; '.join(filter(None, [self.status, *told, self.note]))})"


def percentile(values: Iterable[float], share: float) -> float | None:
    """Return a percentile, linear between values as numpy's; None without values."""
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise CourseError(f"share must be from 0 to 1, got {share!r}.", "p95 is 0.95.")
    if not (ordered := sorted(values)):
        return None
    place = share * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place % 1)


def _spread(values: Iterable[float | None]) -> Spread:
    known = sorted(value for value in values if value is not None)
    return Spread(*(percentile(known, share) for share in (0.5, 0.95, 0.99)))


def _growth(mb: Sequence[float]) -> float | None:
    """Return by how many MB memory grows in 1000 requests, None for fewer than 20."""
    if (size := len(mb) // 10) < 2:
        return None
    blocks = [median(mb[i : i + size]) for i in range(len(mb) % 10, len(mb), size)]
    # Not the mean step: one jump, as of a cache that is filled, is no leak.
    return median(b - a for a, b in pairwise(blocks)) / size * 1000


def _memory() -> tuple[float, float, float | None]:
    """Return MB (1e6 bytes): the process's peak, what it holds now, CUDA's peak."""
    unit = 1024 if sys.platform == "linux" else 1  # Linux counts KiB, macOS bytes
    peak = now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    with contextlib.suppress(OSError):  # only Linux has it
        pages = int(Path("/proc/self/statm").read_bytes().split()[1])
        now = pages * resource.getpagesize() / 1e6
        peak = max(peak, now)  # the kernel counts the peak a little later
    cuda = getattr(sys.modules.get("torch"), "cuda", None)  # not imported for this
    if cuda is None or not cuda.is_available():
        return peak, now, None
    used = sum(map(cuda.max_memory_allocated, range(cuda.device_count())))
    return peak, now, used / 1e6


def _whole(name: str, value: Any, low: int, high: float = math.inf) -> int:
    if not isinstance(value, int) or not low <= value <= high:
        rule = f"{name} must be a whole number, {low} to {high}, got {value!r}."
        raise CourseError(rule, "give a count.")
    return value


class Monitor:
    """Records of requests, from any number of threads.

    The log gets a JSON line a request. Texts stay out of it (content "omit"), or come
    as keyed hashes, so that equal ones can be found ("hash"), or as they are ("keep").
    A path is opened for each line: logrotate may move the file, this class does not.
    `log_errors` counts lines that could not be written: a full disk costs no reply.
    """

    def __init__(
        self, window: int = 1000, clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time, log: str | Path | TextIO | None = None,
        content: str = "omit", key: bytes | None = None,
    ) -> None:  # fmt: skip
        """Keep the latest `window` records; `key` is for content "hash"."""
        safe = content != "hash" or (isinstance(key, bytes) and len(key) >= 16)
        if content not in ("omit", "hash", "keep") or not safe:
            rule = f'content is "omit", "keep", or "hash" with a key; got {content!r}.'
            raise CourseError(rule, "make a key with secrets.token_bytes(32), keep it.")
        try:
            if isinstance(log, str | Path):
                (log := Path(log)).open("a").close()
            elif log and (isinstance(log, BufferedIOBase) or not hasattr(log, "write")):
                raise TypeError(f"{log!r:.60} takes no text")
        except (OSError, TypeError) as error:
            rule = f"log must be a file to write, in a folder that exists: {error}"
            raise CourseError(rule, 'write log="requests.jsonl".') from None
        self._records = deque[Record](maxlen=_whole("window", window, 1))
        self._canary = 0, 0  # of the latest run: passed, n
        self._clock, self._now, self._log = clock, now, cast(Any, log)
        self._content, self._key = content, key or b""
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self.log_errors, self._metrics = 0, cast(Any, None)
        with contextlib.suppress(ImportError):  # only exposition() needs the package
            self._metrics = prometheus.Metrics()

    def record(
        self,
        reply: Any = None,  # has a Reply's fields, None in those it does not know
        *,
        queue_seconds: float = 0.0,
        error: str = "",  # class name; needed where there was no reply
        messages: Any = None,  # what the user sent, for the log
        seconds: float | None = None,  # whole; None: queue and the reply's seconds
        request_id: str = "",  # finds the request in other logs
    ) -> Record:
        """Return the record of a request that has ended, which is kept and logged."""
        named = isinstance(error, str) and error.isidentifier()  # not user's words
        if not named and (error != "" or reply is None):
            rule = f"There must be a reply or an error's class name, got {error!r:.50}."
            raise CourseError(rule, "write error=type(problem).__name__.")
        lacks = [name for name in _REPLY if not hasattr(reply, name)]
        if reply is not None and lacks:
            rule = f"The reply lacks {', '.join(lacks)}: {type(reply).__name__}."
            raise CourseError(rule, "give what generate.reply returns, or the like.")
        got = {name: getattr(reply, name, None) for name in _REPLY}
        times = sorted(got["token_seconds"] or ())
        writing, (prompt, new, generation, first) = sum(times), map(got.get, _COUNTS)
        known = (n for n in (seconds, prompt, new, generation, first) if n is not None)
        for number in (queue_seconds, writing, *times[:1], *known):
            if not isinstance(number, int | float) or not 0 <= number < math.inf:
                rule = f"Times and counts must be finite, 0 or more, got {number!r}."
                raise CourseError(rule, "take differences of one monotonic clock.")
        if seconds is None and generation is not None:
            seconds = queue_seconds + generation
        peak, resident, cuda = _memory()
        record = Record(
            when=self._now(), moment=self._clock(), request_id=request_id,
            queue_seconds=queue_seconds, first_token_seconds=first, seconds=seconds,
            wait_seconds=None if first is None else queue_seconds + first,
            token_p50=percentile(times, 0.5), token_p95=percentile(times, 0.95),
            prompt_tokens=prompt, new_tokens=new,
            tokens_per_second=len(times) / writing if writing else None,
            prefill_per_second=prompt / first if prompt and first else None,
            peak_memory_mb=peak, resident_mb=resident, cuda_peak_mb=cuda,
            stop="" if reply is None else str(got["stop"] or "unknown"), error=error,
            leaked=bool(_LEAKED.search(got["text"] or "")),
        )  # fmt: skip
        with self._lock:
            self._records.append(record)
            if self._metrics:
                self._metrics.add(record)
        if self._log is not None:
            self._write(record, messages, got["text"])
        return record

    def _write(self, record: Record, messages: Any, text: str | None) -> None:
        line = dict(vars(record))
        if self._content == "keep":
            line |= {"messages": messages, "text": text}
        elif self._content == "hash":
            sent = [self._hash(message.get("content")) for message in messages or ()]
            line |= {"messages": sent, "text": self._hash(text)}
        try:
            opened = self._log.open("a") if isinstance(self._log, Path) else None
            with self._writing, opened or contextlib.nullcontext(self._log) as file:
                file.write(json.dumps(line, default=str) + "\n")  # ASCII
                file.flush()
        except (OSError, ValueError):  # ValueError: the file has been closed
            with self._lock:
                self.log_errors += 1

    def _hash(self, content: Any) -> str:
        """Return the HMAC-SHA-256 of a text: without the key no guess can be tested."""
        text = content if isinstance(content, str) else json.dumps(content, default=str)
        return hmac.digest(self._key, text.encode("utf-8", "replace"), "sha256").hex()

    def record_canary(self, passed: int, n: int) -> None:
        """Keep how many of n questions passed that the model is known to answer."""
        self._canary = _whole("passed", passed, 0, _whole("n", n, 1)), n
        if self._metrics:
            self._metrics.canary.set(passed / n)

    def waiting(self, n: int) -> None:
        """Tell Prometheus how many requests are in the queue now."""
        n = _whole("n", n, 0)
        if self._metrics:
            self._metrics.waiting.set(n)

    def records(self, last_n: int | None = None) -> list[Record]:
        """Return the latest records, oldest first; None: all of the window."""
        start = 0 if last_n is None else -_whole("last_n", last_n, 1)
        with self._lock:
            return list(self._records)[start:]

    def summary(self, last_n: int | None = None, *, objective: float = 0.99) -> Summary:
        """Return rates and percentiles; objective 0.99 allows one error in a 100."""
        if not isinstance(objective, int | float) or not 0 < objective < 1:
            rule = f"objective must be between 0 and 1, got {objective!r}."
            raise CourseError(rule, "write 0.99 for one error in a hundred.")
        spreads = [field.name for field in fields(Summary) if field.type is Spread]
        rows = self.records(last_n)
        done = [row for row in rows if row.stop]
        since = min((row.moment - (row.seconds or 0) for row in rows), default=math.inf)
        span = self._clock() - since
        errors = sum(bool(row.error) for row in rows)
        written = sum(row.new_tokens or 0 for row in rows)
        passed, n = self._canary
        return Summary(
            requests=len(rows), errors=errors,
            error_rate=errors / len(rows) if rows else None,
            error_budget_used=errors / len(rows) / (1 - objective) if rows else None,
            requests_per_minute=len(rows) / span * 60 if span > 0 else None,
            throughput=written / span if span > 0 else None,
            length_share=fmean(r.stop == "length" for r in done) if done else None,
            leaked_share=fmean(r.leaked for r in done) if done else None,
            memory_growth=_growth([row.resident_mb for row in rows]),
            canary_pass_rate=passed / n if n else None, canary_n=n,
            **{name: _spread(getattr(row, name) for row in rows) for name in spreads},
        )  # fmt: skip

    def health(
        self, thresholds: Thresholds | None = None, last_n: int | None = None
    ) -> Health:
        """Return whether the latest requests keep within the limits, and why not."""
        limits = Thresholds() if thresholds is None else thresholds
        if not isinstance(limits, Thresholds):
            rule = f"thresholds must be monitor.Thresholds, got {limits!r:.60}."
            raise CourseError(rule, "write monitor.Thresholds(wait_p95=2.0).")
        seen = self.summary(last_n)
        values = vars(seen) | {"prompt_tokens_p95": seen.prompt_tokens.p95}
        values["wait_p95"] = seen.wait_seconds.p95
        values["queue_p95"] = seen.queue_seconds.p95
        values["token_seconds_p95"] = seen.token_p95.p95
        few = seen.requests < limits.min_requests
        checked, failures = [], []
        for rule, advice in _ADVICE.items():
            value, limit = values[rule], getattr(limits, rule)
            canary = rule == "canary_pass_rate"  # has its own n
            if value is not None and limit is not None and (canary or not few):
                checked.append(rule)
                if value < limit if canary else value > limit:
                    failures.append(Failure(rule, value, limit, advice))
        bad = {"error_rate", "canary_pass_rate"} & {f.rule for f in failures}
        status = "unhealthy" if bad else "degraded" if failures else "healthy"
        status = "unknown" if few and not failures else status
        note = f"{seen.requests} of the {limits.min_requests} requests needed"
        return Health(status, tuple(failures), tuple(checked), note if few else "")

    def to_frame(self) -> Any:
        """Return a pandas frame, a row a record; what was not measured is NaN."""
        import pandas as pd

        df = pd.DataFrame(map(vars, self.records()), columns=[*Record.__annotations__])
        return df.astype({name: float for name in df if df[name].isna().all()})

    def exposition(self) -> bytes:
        """Return what was counted since the start, in Prometheus' text format 0.0.4."""
        if self._metrics is None:
            rule = "The Prometheus format needs the package prometheus-client."
            raise CourseError(rule, "python -m pip install prometheus-client")
        return self._metrics.text(resident_mb=_memory()[1])
