"""Counts since the start, as Prometheus reads them; knows only a record's fields.

Needs the package prometheus-client, which it imports when Metrics are made.
"""

import math
from collections.abc import Sequence
from typing import Any

_STOPS = ("", "stop", "length", "closed", "tool_calls", "content_filter", "unknown")
_ERRORS = 20  # classes told apart as labels; the rest: "other", also for stop reasons
_WAIT = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320)  # seconds, buckets
_TOKEN = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)


class Metrics:
    """What Prometheus reads: counts since the start; it makes rates and percentiles."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = to = CollectorRegistry()
        labels, told = ("stop", "error"), "Requests that ended"
        self.requests = Counter("qwen_requests", told, labels, registry=to)
        self.read = Counter("qwen_prompt_tokens", "Tokens read", registry=to)
        self.written = Counter("qwen_new_tokens", "Tokens written", registry=to)

        def timed(name: str, about: str, buckets: Sequence[float]) -> Any:
            name = f"qwen_{name}_seconds"
            return Histogram(name, about, buckets=buckets, registry=to)

        self.wait = timed("wait", "Queue and prefill of a request", _WAIT)
        self.whole = timed("request", "Whole request, queue included", _WAIT)
        self.token = timed("token", "An output token: median of a reply", _TOKEN)
        self.waiting = Gauge("qwen_waiting_requests", "In the queue", registry=to)
        told = "Memory that the process holds"
        self.memory = Gauge("qwen_resident_memory_bytes", told, registry=to)
        told = "Questions passed in the latest run"
        self.canary = Gauge("qwen_canary_pass_ratio", told, registry=to)
        self.canary.set(math.nan)  # not measured yet
        self.errors = {""}  # no error is never "other"

    def add(self, record: Any) -> None:
        """Count a record; a pair of labels is a time series, so they are bounded."""
        known = record.error in self.errors or len(self.errors) < _ERRORS
        error = record.error if known else "other"
        self.errors.add(error)
        stop = record.stop if record.stop in _STOPS else "other"
        self.requests.labels(stop, error).inc()
        self.read.inc(record.prompt_tokens or 0)
        self.written.inc(record.new_tokens or 0)
        pairs = (self.wait, record.wait_seconds), (self.whole, record.seconds)
        for histogram, value in (*pairs, (self.token, record.token_p50)):
            if value is not None:
                histogram.observe(value)

    def text(self, resident_mb: float) -> bytes:
        """Return all of it in the text format."""
        from prometheus_client import generate_latest

        self.memory.set(resident_mb * 1e6)
        return generate_latest(self.registry)
