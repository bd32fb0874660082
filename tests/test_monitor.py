"""Monitoring: what a record holds, what a window says, and what each fault sets off."""

import hashlib
import io
import json
import math
import mmap
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from dataclasses import FrozenInstanceError, replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from qwen_course import monitor
from qwen_course.errors import CourseError
from qwen_course.generate import Reply
from qwen_course.monitor import Monitor, Thresholds, percentile

KEY = b"0123456789abcdef"
ASKED = [{"role": "user", "content": "My PIN is 4711."}]
PLAIN = Reply(
    text="It is 12.", thinking="", prompt_tokens=30, new_tokens=5, thinking_tokens=0,
    answer_tokens=4, budget_cut=False, seconds=0.9, first_token_seconds=0.5,
    token_seconds=(0.1, 0.1, 0.1, 0.1), stop="stop",
)  # fmt: skip
finite = st.floats(0, 1e6)


class Clock:
    """A clock that moves only when told; one for `clock`, one for `now`."""

    def __init__(self, time=1000.0):
        self.time = time

    def __call__(self):
        return self.time


@pytest.fixture(autouse=True)
def still_memory(monkeypatch):
    """Memory that does not move; tests that move it say so."""
    monkeypatch.setattr(monitor, "_memory", lambda: (500.0, 400.0, None))


def filled(count=40, reply=PLAIN, **options):
    """A monitor with as many records, a second apart."""
    clock = Clock()
    made = Monitor(clock=clock, now=Clock(1.7e9))
    for _ in range(count):
        clock.time += 1
        made.record(reply, **options)
    return made


def families(made):
    text = made.exposition().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(family, ending="", **labels):
    """The one sample of a family with this ending and these labels."""
    name = family.name + ending
    found = [s.value for s in family.samples if (s.name, s.labels) == (name, labels)]
    assert len(found) == 1, family
    return found[0]


# Percentiles


@given(st.lists(finite, min_size=1), st.floats(0, 1))
def test_percentile_is_numpys(values, share):
    wanted = np.percentile(values, 100 * share)
    assert percentile(values, share) == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def test_percentile_of_nothing_is_none_and_order_does_not_matter():
    assert percentile([], 0.5) is None
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile([10, 20], 0.95) == pytest.approx(19.5)
    assert percentile(iter([7]), 1) == 7


@pytest.mark.parametrize("share", [-0.1, 1.1, 95, math.nan, "0.5", None])
def test_percentile_refuses(share):
    with pytest.raises(CourseError, match="share must be from 0 to 1"):
        percentile([1, 2], share)


# One record


def test_a_record_keeps_prefill_and_decode_apart():
    made = Monitor(clock=Clock(5.0), now=Clock(1.7e9))
    row = made.record(PLAIN, queue_seconds=0.2, request_id="r1")
    assert (row.when, row.moment, row.request_id) == (1.7e9, 5.0, "r1")
    assert (row.queue_seconds, row.first_token_seconds) == (0.2, 0.5)
    assert row.wait_seconds == pytest.approx(0.7)
    assert row.seconds == pytest.approx(1.1)
    assert row.tokens_per_second == pytest.approx(10)  # not 5 tokens / 0.9 s
    assert row.prefill_per_second == pytest.approx(60)
    assert (row.prompt_tokens, row.new_tokens, row.stop) == (30, 5, "stop")
    assert (row.error, row.leaked, row.cuda_peak_mb) == ("", False, None)
    assert made.records() == [row]
    with pytest.raises(FrozenInstanceError):
        row.error = "x"


def test_a_stall_inside_a_reply_moves_its_p95_alone():
    stalled = replace(PLAIN, token_seconds=(0.01,) * 18 + (2.0, 2.0))
    row = Monitor().record(stalled)
    assert row.token_p50 == pytest.approx(0.01)
    assert row.token_p95 == pytest.approx(2.0)


def test_the_whole_time_may_be_given():
    assert Monitor().record(PLAIN, queue_seconds=1, seconds=7.5).seconds == 7.5


def test_what_was_not_measured_is_none():
    row = Monitor().record(error="TimeoutError", queue_seconds=3.0)
    unknown = ("first_token_seconds", "wait_seconds", "token_p50", "token_p95")
    unknown += ("prompt_tokens", "new_tokens", "tokens_per_second", "seconds")
    assert [getattr(row, name) for name in unknown] == [None] * len(unknown)
    assert (row.stop, row.error, row.queue_seconds) == ("", "TimeoutError", 3.0)
    one = replace(PLAIN, token_seconds=(), new_tokens=1)
    row = Monitor().record(one)
    assert (row.token_p50, row.tokens_per_second) == (None, None)
    upstream = SimpleNamespace(
        text="Hi", stop=None, seconds=2.0, prompt_tokens=None, new_tokens=None,
        first_token_seconds=None, token_seconds=(),
    )  # fmt: skip
    row = Monitor().record(upstream)
    assert (row.wait_seconds, row.prefill_per_second) == (None, None)
    assert (row.seconds, row.stop) == (2.0, "unknown")


@pytest.mark.parametrize(
    ("text", "leaked"),
    [
        ("<think>\nHm.", True),
        ("Hm.\n</think>\n\n12", True),
        ("12<|im_end|>", True),
        ("<|vision_start|>", True),
        ("a < b and |x| > 3, I think", False),
        ("List<String> x; x |> f", False),
        ("", False),
        (None, False),
    ],
)
def test_leaks(text, leaked):
    assert Monitor().record(replace(PLAIN, text=text)).leaked is leaked


def test_memory_in_mb_on_linux_and_on_macos(monkeypatch):
    monkeypatch.undo()  # the real one
    usage = SimpleNamespace(ru_maxrss=2_000_000)
    monkeypatch.setattr(monitor.resource, "getrusage", lambda _: usage)
    monkeypatch.setattr(sys, "platform", "linux")
    assert Monitor().record(PLAIN).peak_memory_mb == pytest.approx(2048)
    usage.ru_maxrss = 1  # behind what the process holds now
    record = Monitor().record(PLAIN)
    assert record.peak_memory_mb == record.resident_mb > 10

    def missing(path):
        raise FileNotFoundError(path)

    usage.ru_maxrss = 2_000_000
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(monitor.Path, "read_bytes", missing)  # no /proc
    record = Monitor().record(PLAIN)
    assert record.peak_memory_mb == record.resident_mb == pytest.approx(2)


def test_memory_grows_with_what_is_held(monkeypatch):
    monkeypatch.undo()
    before = Monitor().record(PLAIN)
    held = mmap.mmap(-1, 64_000_000)  # from the system: malloc may hand out held pages
    np.frombuffer(held, np.uint8).fill(1)
    after = Monitor().record(PLAIN)
    assert held[-1] == 1
    assert after.resident_mb - before.resident_mb == pytest.approx(64, abs=16)
    assert after.peak_memory_mb >= before.peak_memory_mb > 10


def test_cuda_is_asked_only_where_torch_is_loaded(monkeypatch):
    monkeypatch.undo()
    peaks = [3e9, 1e9]
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 2,
        max_memory_allocated=peaks.__getitem__,
    )
    torch = ModuleType("torch")
    torch.cuda = cuda
    monkeypatch.setitem(sys.modules, "torch", torch)
    assert Monitor().record(PLAIN).cuda_peak_mb == pytest.approx(4000)
    cuda.is_available = lambda: False
    assert Monitor().record(PLAIN).cuda_peak_mb is None
    monkeypatch.delitem(sys.modules, "torch")
    assert Monitor().record(PLAIN).cuda_peak_mb is None
    assert "torch" not in sys.modules


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({}, "class name"),
        ({"error": "no such file: x"}, "class name"),
        ({"reply": PLAIN, "error": "what the user wrote"}, "class name"),
        ({"reply": PLAIN, "error": None}, "class name"),
        ({"reply": "Hello"}, "lacks prompt_tokens"),
        ({"reply": PLAIN, "queue_seconds": -1}, "got -1"),
        ({"reply": PLAIN, "queue_seconds": math.nan}, "got nan"),
        ({"reply": PLAIN, "seconds": "3"}, "got '3'"),
        ({"reply": PLAIN, "queue_seconds": None}, "got None"),
        ({"error": "ValueError", "queue_seconds": None}, "got None"),
        ({"reply": PLAIN, "queue_seconds": "3"}, "got '3'"),
        ({"reply": replace(PLAIN, seconds=math.inf)}, "got inf"),
        ({"reply": replace(PLAIN, token_seconds=(0.1, -0.1, 5))}, "got -0.1"),
        ({"reply": replace(PLAIN, token_seconds=(0.1, math.nan))}, "got nan"),
    ],
)
def test_record_refuses(given, rule):
    made = Monitor()
    with pytest.raises(CourseError, match=rule):
        made.record(**given)
    assert made.records() == []


# The window


@settings(max_examples=50, deadline=None)
@given(st.lists(finite, max_size=60), st.integers(1, 30), st.integers(1, 40))
def test_the_window_holds_the_latest(waits, window, last):
    made = Monitor(window=window)
    for wait in waits:
        made.record(replace(PLAIN, first_token_seconds=wait))
    kept = waits[-window:]
    assert [row.wait_seconds for row in made.records()] == kept
    seen = made.summary()
    assert seen.requests == len(kept)
    assert seen.wait_seconds.p95 == percentile(kept, 0.95)
    assert made.summary(last).wait_seconds.p50 == percentile(kept[-last:], 0.5)
    if kept:
        low, middle, high = seen.wait_seconds
        assert min(kept) <= low <= middle <= high <= max(kept) * (1 + 1e-9)


def test_a_summary_of_nothing_knows_nothing():
    seen = Monitor().summary()
    assert (seen.requests, seen.errors, seen.canary_n) == (0, 0, 0)
    unknown = {k: v for k, v in vars(seen).items() if v not in (0, (None,) * 3)}
    assert set(unknown.values()) == {None}


def test_rates_shares_and_budget():
    made = filled(8)  # the first began 0.9 s before second 1
    made.record(replace(PLAIN, stop="length", text="12</think>"))
    made.record(error="OutOfMemoryError", queue_seconds=9.0)
    made._clock.time += 2.1
    seen = made.summary()
    assert (seen.requests, seen.errors, seen.error_rate) == (10, 1, 0.1)
    assert seen.error_budget_used == pytest.approx(10)
    assert made.summary(objective=0.9).error_budget_used == pytest.approx(1)
    assert seen.requests_per_minute == pytest.approx(60)
    assert seen.throughput == pytest.approx(4.5)
    assert seen.length_share == seen.leaked_share == pytest.approx(1 / 9)
    assert seen.queue_seconds.p50 == 0
    assert seen.wait_seconds.p99 == 0.5  # the failed one has no wait
    assert seen.tokens_per_second.p50 == pytest.approx(10)
    assert "\n" not in repr(seen)
    assert "error_rate 0.1" in repr(seen)
    made._clock.time += 10  # nobody asks: the rate falls
    assert made.summary().requests_per_minute == pytest.approx(30)


def test_growth_is_a_slope_not_a_jump(monkeypatch):
    def growth(megabytes):
        made = Monitor()
        for number in megabytes:
            monkeypatch.setattr(monitor, "_memory", lambda n=number: (900, n, None))
            made.record(PLAIN)
        return made.summary().memory_growth

    noise = np.random.default_rng(0).normal(0, 0.2, 200)
    assert growth([100] * 19) is None
    assert growth(100 + noise) == pytest.approx(0, abs=10)
    assert growth(100 + 3.0 * np.arange(200) + noise) == pytest.approx(3000, rel=0.05)
    filled_cache = np.where(np.arange(200) < 105, 100, 900)
    assert growth(filled_cache + noise) == pytest.approx(0, abs=20)


class Halves(io.StringIO):
    """A file that lets another thread run in the middle of a line."""

    def write(self, text):
        super().write(text[:20])
        time.sleep(0)
        return super().write(text[20:])


def test_sixteen_threads_lose_nothing():
    log = Halves()
    made = Monitor(window=10_000, log=log)
    start, inside, count = threading.Barrier(16), [], made._metrics.add

    def alone(record):
        inside.append(record)
        time.sleep(0)
        if inside == [record]:  # else it is not counted, and the sums below are wrong
            count(record)
        inside.remove(record)

    made._metrics.add = alone

    def work(number):
        start.wait()
        for place in range(60):
            failed = place % 6 == 0
            made.record(
                None if failed else PLAIN, error="Timeout" if failed else "",
                request_id=f"{number}-{place}",
            )  # fmt: skip
            if place % 20 == 0:
                made.summary()
                made.exposition()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = {f"{n}-{place}" for n in range(16) for place in range(60)}
    assert {row.request_id for row in made.records()} == wanted
    logged = [line["request_id"] for line in lines(log)]
    assert sorted(logged) == sorted(wanted)
    requests = families(made)["qwen_requests"]
    assert value(requests, "_total", stop="stop", error="") == 800
    assert value(requests, "_total", stop="", error="Timeout") == 160
    assert made.summary().errors == 160
    assert made.log_errors == 0


def test_memory_is_bounded_whatever_the_labels():
    made, failed = Monitor(window=50), 0

    def work(count):
        nonlocal failed
        for _ in range(count):
            failed += 1
            made.record(error=f"Error{failed}", request_id=f"request {failed}")
            made.record(replace(PLAIN, stop=f"reason {failed}"))
            made.record_canary(1, 2)

    work(500)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    work(2000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 100_000  # the 4000 records would take 2 MB
    assert len(made.records()) == 50
    requests = families(made)["qwen_requests"]
    counts = [s.value for s in requests.samples if s.name.endswith("_total")]
    assert sum(counts) == 5000
    assert len(counts) < 30


# Prometheus


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(finite, finite), max_size=30))
def test_histograms_agree_with_the_records(times):
    made = Monitor()
    for first, gap in times:
        whole = first + gap
        made.record(
            replace(
                PLAIN, first_token_seconds=first, seconds=whole, token_seconds=[gap]
            )
        )
    seen = families(made)
    for name, field in {
        "qwen_wait_seconds": "wait_seconds",
        "qwen_token_seconds": "token_p50",
        "qwen_request_seconds": "seconds",
    }.items():
        values = [getattr(row, field) for row in made.records()]
        buckets = [s for s in seen[name].samples if s.name.endswith("_bucket")]
        assert len(buckets) > 10
        for bucket in buckets:
            assert bucket.value == sum(v <= float(bucket.labels["le"]) for v in values)
        assert value(seen[name], "_count") == len(times)
        assert value(seen[name], "_sum") == pytest.approx(sum(values))


def test_counters_and_gauges():
    made = Monitor(window=2)
    for _ in range(3):  # more than the window: counters run on
        made.record(PLAIN)
    made.record(replace(PLAIN, stop="length"))
    made.record(error="TimeoutError")
    assert math.isnan(value(families(made)["qwen_canary_pass_ratio"]))
    made.record_canary(3, 4)
    made.waiting(7)
    seen = families(made)
    assert value(seen["qwen_requests"], "_total", stop="stop", error="") == 3
    assert value(seen["qwen_requests"], "_total", stop="length", error="") == 1
    assert value(seen["qwen_requests"], "_total", stop="", error="TimeoutError") == 1
    assert value(seen["qwen_prompt_tokens"], "_total") == 120
    assert value(seen["qwen_new_tokens"], "_total") == 20
    assert value(seen["qwen_waiting_requests"]) == 7
    assert value(seen["qwen_canary_pass_ratio"]) == 0.75
    assert value(seen["qwen_resident_memory_bytes"]) == 4e8


def test_two_monitors_do_not_share_metrics():
    first, second = filled(3), filled(1)
    assert value(families(first)["qwen_new_tokens"], "_total") == 15
    assert value(families(second)["qwen_new_tokens"], "_total") == 5


def test_without_the_package_the_rest_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    made = filled(30)
    made.record_canary(1, 1)
    made.waiting(2)
    assert made.health().healthy
    with pytest.raises(CourseError, match="pip install prometheus-client"):
        made.exposition()


def test_importing_loads_nothing_heavy():
    program = (
        "import sys, qwen_course.monitor\n"
        "heavy = {'torch', 'numpy', 'pandas', 'prometheus_client'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# The log


def lines(log):
    return [json.loads(line) for line in log.getvalue().splitlines()]


def test_the_log_omits_what_was_written():
    log = io.StringIO()
    row = Monitor(log=log, now=Clock(5.0)).record(PLAIN, messages=ASKED)
    (line,) = lines(log)
    assert line == vars(row)
    assert "4711" not in log.getvalue()
    assert PLAIN.text not in log.getvalue()


def test_the_log_keeps_what_was_written_when_told_to(tmp_path):
    path = tmp_path / "log.jsonl"
    odd = replace(PLAIN, text="ναι\u2028\n\ud800")  # a lone surrogate is no UTF-8
    made = Monitor(log=str(path), content="keep")
    made.record(odd, messages=ASKED)
    made.record(error="ValueError")
    first, second = map(json.loads, path.read_text("utf-8").splitlines())
    assert (first["messages"], first["text"]) == (ASKED, odd.text)
    assert (second["messages"], second["text"]) == (None, None)
    assert made.log_errors == 0


def test_a_keyed_hash_finds_equal_texts_and_depends_on_the_key():
    def logged(key, content):
        log = io.StringIO()
        asked = [{"role": "user", "content": content}]
        Monitor(log=log, content="hash", key=key).record(PLAIN, messages=asked)
        assert str(content) not in log.getvalue()
        return lines(log)[0]["messages"]

    assert logged(KEY, "4711") == logged(KEY, "4711") != logged(KEY, "4712")
    assert logged(KEY, "4711") != logged(b"another key of 16", "4711")
    parts = [{"type": "text", "text": "4711"}]
    assert logged(KEY, parts) == logged(KEY, parts) != logged(KEY, "4711")
    call = {"role": "assistant", "tool_calls": [{"id": "1"}]}  # has no content
    log = io.StringIO()
    Monitor(log=log, content="hash", key=KEY).record(PLAIN, messages=[call])
    assert len(lines(log)[0]["messages"]) == 1


def test_a_bare_hash_of_a_pin_is_no_secret():
    """Why the hash has a key: ten thousand guesses take milliseconds."""

    def guess(digest):
        guesses = (f"{number:04d}" for number in range(10_000))
        tried = {hashlib.sha256(text.encode()).hexdigest(): text for text in guesses}
        return tried.get(digest)

    log = io.StringIO()
    pin = [{"role": "user", "content": "4711"}]
    Monitor(log=log, content="hash", key=KEY).record(PLAIN, messages=pin)
    assert guess(hashlib.sha256(b"4711").hexdigest()) == "4711"
    assert guess(lines(log)[0]["messages"][0]) is None


class FullDisk(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


def test_a_broken_disk_loses_no_reply(tmp_path):
    closed = io.StringIO()
    closed.close()
    folder = tmp_path / "logs"
    folder.mkdir()
    gone = Monitor(log=folder / "log.jsonl")
    shutil.rmtree(folder)
    for made in (Monitor(log=FullDisk()), Monitor(log=closed), gone):
        assert made.record(PLAIN).new_tokens == 5
        assert made.record(PLAIN).error == ""
        assert made.log_errors == 2
        assert made.summary().requests == 2


def test_a_log_may_be_rotated_while_it_is_written(tmp_path):
    path, old = tmp_path / "log.jsonl", tmp_path / "log.jsonl.1"
    made = Monitor(log=path)
    made.record(PLAIN)
    path.rename(old)
    made.record(PLAIN)
    assert len(old.read_text().splitlines()) == len(path.read_text().splitlines()) == 1


# Health

SLOW = replace(PLAIN, seconds=48.0, first_token_seconds=2.0, token_seconds=(0.2,) * 230)
STALLS = replace(PLAIN, token_seconds=(0.05,) * 18 + (3.0, 3.0))
LONG = replace(PLAIN, prompt_tokens=300)
FAULTS = {
    "wait_p95": ("degraded", replace(PLAIN, first_token_seconds=40.0), {}),
    "queue_p95": ("degraded", PLAIN, {"queue_seconds": 25.0}),
    "token_seconds_p95": ("degraded", STALLS, {}),
    "length_share": ("degraded", replace(PLAIN, stop="length"), {}),
    "leaked_share": ("degraded", replace(PLAIN, text="So.</think>12"), {}),
    "error_rate": ("unhealthy", None, {"error": "RuntimeError"}),
    "prompt_tokens_p95": ("degraded", LONG, {}),
}
LIMITS = Thresholds(prompt_tokens_p95=100)


def test_a_clean_service_is_healthy():
    made = filled()
    made.record_canary(19, 20)
    found = made.health(LIMITS)
    assert (found.status, found.failures, found.note) == ("healthy", (), "")
    assert found.healthy
    rules = set(vars(LIMITS)) - {"min_requests"}
    assert set(found.checked) == rules
    assert repr(found) == "Health(healthy)"


def test_a_slow_laptop_is_healthy_by_default():
    assert filled(reply=SLOW).health().healthy  # 5 tokens a second, 48 seconds each


@pytest.mark.parametrize("rule", FAULTS)
def test_each_fault_sets_off_its_rule_and_no_other(rule):
    status, reply, options = FAULTS[rule]
    found = filled(reply=reply, **options).health(LIMITS)
    assert [failure.rule for failure in found.failures] == [rule]
    assert found.status == status
    assert not found.healthy
    (failure,) = found.failures
    assert failure.value > failure.limit == getattr(LIMITS, rule)
    assert len(failure.recommendation) > 20
    assert f"{rule} {failure.value:.3g}, limit" in repr(found)
    off = filled(reply=reply, **options).health(replace(LIMITS, **{rule: None}))
    assert off.healthy
    assert rule not in off.checked


def test_a_leak_of_memory_is_found(monkeypatch):
    held = iter(range(400, 10_000, 5))
    monkeypatch.setattr(monitor, "_memory", lambda: (9000, next(held), None))
    found = filled().health()
    assert [failure.rule for failure in found.failures] == ["memory_growth"]
    assert found.failures[0].value == pytest.approx(5000)
    assert found.status == "degraded"


def test_failed_canaries_are_found_even_before_there_are_requests():
    for made in (filled(), Monitor()):
        made.record_canary(20, 20)
        made.record_canary(10, 20)  # the latest counts
        assert (made.summary().canary_pass_rate, made.summary().canary_n) == (0.5, 20)
        found = made.health()
        assert [failure.rule for failure in found.failures] == ["canary_pass_rate"]
        assert found.status == "unhealthy"
        made.record_canary(16, 20)
        assert not made.health().failures


def test_few_requests_are_unknown():
    found = filled(19).health()
    assert (found.status, found.checked) == ("unknown", ())
    assert found.note == "19 of the 20 requests needed"
    assert not found.healthy
    assert filled(20).health().healthy
    assert filled(3).health(Thresholds(min_requests=3)).healthy
    assert filled(40).health(last_n=19).status == "unknown"


def test_a_limit_itself_is_still_good():
    made = filled(queue_seconds=25.0)
    assert made.health(Thresholds(queue_p95=25.0)).healthy
    assert not made.health(Thresholds(queue_p95=24.9)).healthy


def test_health_looks_at_the_latest():
    made = filled(40)
    for _ in range(20):
        made.record(replace(PLAIN, stop="length"))
    assert made.health().healthy  # a third
    assert made.health(last_n=30).status == "degraded"


def test_the_frame_has_a_row_a_record():
    made = filled(3)
    made.record(error="TimeoutError")
    frame = made.to_frame()
    assert frame.shape == (4, len(vars(made.records()[0])))
    assert frame["error"].tolist() == ["", "", "", "TimeoutError"]
    assert frame["wait_seconds"].isna().tolist() == [False, False, False, True]
    assert frame["wait_seconds"].mean() == 0.5
    assert list(Monitor().to_frame().columns) == list(frame.columns)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (lambda: Monitor(window=0), "window must be a whole number"),
        (lambda: Monitor(window=None), "window must be a whole number"),
        (lambda: Monitor(content="yes"), "content is"),
        (lambda: Monitor(content="hash"), "with a key"),
        (lambda: Monitor(content="hash", key=b"short"), "with a key"),
        (lambda: Monitor(content="hash", key="0123456789abcdef"), "with a key"),
        (lambda: Monitor(log="no/such/folder/log"), "folder that exists"),
        (lambda: Monitor(log="."), "folder that exists"),
        (lambda: Monitor(log="/proc/log"), "a file to write"),
        (lambda: Monitor(log=io.BytesIO()), "takes no text"),
        (lambda: Monitor(log=5), "5 takes no text"),
        (lambda: Monitor().records(0), "last_n must be a whole number"),
        (lambda: Monitor().summary(-1), "last_n must be a whole number"),
        (lambda: Monitor().summary(objective=1), "objective must be between"),
        (lambda: Monitor().summary(objective="99"), "objective must be between"),
        (lambda: Monitor().health({"wait_p95": 1}), "Thresholds"),
        (
            lambda: Monitor().record_canary(3, 2),
            "passed must be a whole number, 0 to 2",
        ),
        (lambda: Monitor().record_canary(0, 0), "n must be a whole number"),
        (lambda: Monitor().record_canary(0.5, 1), "passed must be a whole number"),
        (lambda: Monitor().waiting(-1), "n must be a whole number"),
        (lambda: Thresholds(error_rate=1.5), "error_rate must be a number, 0.0 to 1.0"),
        (lambda: Thresholds(canary_pass_rate=80), "canary_pass_rate"),
        (lambda: Thresholds(wait_p95=-1), "wait_p95"),
        (lambda: Thresholds(wait_p95=math.nan), "wait_p95"),
        (lambda: Thresholds(memory_growth="1 MB"), "memory_growth"),
        (lambda: Thresholds(min_requests=0), "min_requests must be a whole number"),
        (lambda: Thresholds(min_requests=None), "min_requests"),
    ],
)
def test_wrong_arguments_are_refused(wrong, rule):
    with pytest.raises(CourseError, match=rule) as told:
        wrong()
    assert told.value.hint
    assert "0123456789abcdef" not in str(told.value)


def test_a_column_that_was_never_measured_is_numbers_too():
    kept = Monitor()
    assert kept.to_frame().empty
    kept.record(error="TimeoutError")
    frame = kept.to_frame()
    assert frame["prompt_tokens"].dtype == float
    assert frame["cuda_peak_mb"].isna().all()
    frame["cuda_peak_mb"].round(1)
    assert frame["error"].tolist() == ["TimeoutError"]


def test_what_went_well_is_never_another_error():
    kept = Monitor()
    for number in range(30):
        kept.record(error=f"E{number}")
    kept.record(PLAIN)
    lines = kept.exposition().decode().splitlines()
    assert [line for line in lines if 'error=""' in line and 'stop="stop"' in line]
