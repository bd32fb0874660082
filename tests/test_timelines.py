"""Pictures of a service: what their texts say, what they draw, what they refuse."""

import io
import math
import threading

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import near
from PIL import Image

from qwen_course import monitor, show, timelines
from qwen_course.errors import CourseError
from qwen_course.plots import COLOURS

NAN, INF = float("nan"), float("inf")
TABLE = [
    {"engine": name, "clients": n, "tokens_per_second": speed * n, "wait_p95": wait * n}
    for name, speed, wait in (("lock", 30.0, 0.1), ("vLLM", 40.0, 0.01))
    for n in (16, 1, 4)  # not in order
]
FINE = {
    "wait_seconds": 0.5, "token_p95": 0.05, "tokens_per_second": 25.0,
    "prompt_tokens": 40, "resident_mb": 900.0, "error": "", "leaked": False,
    "stop": "stop",
}  # fmt: skip


def lock(n):
    """Clients that arrive together at 100 and are served one after the other."""
    return [(100.0, 100.25 + i, 101.0 + i) for i in range(n)]


def rows(n, **changed):
    """Requests without a fault, but for what is changed."""
    return [FINE | changed for _ in range(n)]


def lines(picture):
    return picture.alt.splitlines()


def told(picture, heading):
    """What the text says of one panel of a dashboard."""
    [line] = [line for line in lines(picture) if line.startswith(heading)]
    return line.rpartition(f"{heading}: ")[2]


def every_picture():
    spans = {"lock": lock(4), "vLLM": [(0.0, 0.1, 0.2, 1.0)] * 4}
    return [
        timelines.requests({"one": (0.1, 0.4, [0.05] * 9)}, "One request"),
        timelines.gantt(spans, "Four clients"),
        timelines.throughput(TABLE, "Two engines"),
        timelines.dashboard(rows(30), monitor.Thresholds(), "A load"),
    ]


def test_show_passes_them_on():
    for name in ("requests", "gantt", "throughput", "dashboard"):
        assert getattr(show, name) is getattr(timelines, name)


def test_the_same_data_give_the_same_picture():
    first, second = every_picture(), every_picture()
    assert [p.png for p in first] == [p.png for p in second]
    assert [p.alt for p in first] == [p.alt for p in second]


def test_each_is_about_a_thousand_pixels_wide_and_bears_its_title():
    titles = ["One request", "Four clients", "Two engines", "A load"]
    for picture, title in zip(every_picture(), titles, strict=True):
        assert 950 < Image.open(io.BytesIO(picture.png)).width < 1050
        assert lines(picture)[0] == title


def test_a_request_is_told_in_numbers():
    gaps = [0.04] * 18 + [0.4, 0.4]
    made = timelines.requests({"": (0.02, 0.5, gaps)}, "One request")
    assert lines(made) == [
        "One request",
        "queue 20 ms, first token after 520 ms, whole 2.04 s, 21 tokens, "
        "40 ms between tokens (p95 400 ms)",
    ]


@pytest.mark.parametrize(
    ("gaps", "told"),
    [
        (None, "queue 1.5 s, failed after 2 s, no token"),
        ([], "queue 1.5 s, first token after 2 s, whole 2 s, 1 token"),
        (np.array([0.5]), "queue 1.5 s, first token after 2 s, whole 2.5 s, 2 tokens, "
         "500 ms between tokens (p95 500 ms)"),
    ],
)  # fmt: skip
def test_requests_without_tokens_or_with_few(gaps, told):
    assert lines(timelines.requests({"it": (1.5, 0.5, gaps)})) == [f"it: {told}"]


def test_a_request_that_takes_no_time_is_drawn():
    made = timelines.requests({"none": (0, 0, []), "failed": (0.0, 0.0, None)})
    assert "whole 0 ms, 1 token" in made.alt
    assert "failed after 0 ms" in made.alt


def test_many_requests_stand_on_one_clock_in_their_order():
    clean = (0.0, 0.5, [0.05] * 9)
    faults = {f"fault {n}": (0.5 * n, 0.5, [0.05] * 9) for n in range(1, 7)}
    made = timelines.requests({"clean": clean} | faults)
    assert [line.partition(":")[0] for line in lines(made)] == ["clean", *faults]
    few = timelines.requests({"clean": clean, "fault": clean})
    assert Image.open(io.BytesIO(made.png)).height < 800
    assert near(made, COLOURS["user"]) > near(few, COLOURS["user"]) / 7  # own bar each


def test_a_longer_prefill_is_a_longer_bar():
    short = timelines.requests({"it": (0.0, 0.5, [0.05] * 90)})
    long = timelines.requests({"it": (0.0, 5.0, [0.05] * 90)})
    assert near(long, COLOURS["user"]) > 3 * near(short, COLOURS["user"])


@pytest.mark.parametrize("bad", [-0.1, NAN, INF, "1", None])
@pytest.mark.parametrize("place", range(3))
def test_requests_refuse_what_no_clock_gives(bad, place):
    row = [0.1, 0.2, [0.3]]
    row[place] = [bad] if place == 2 else bad
    with pytest.raises(CourseError, match=r"'slow'.*0 or more, got") as caught:
        timelines.requests({"slow": tuple(row)})
    assert repr(bad) in caught.value.message


def test_no_request_is_refused():
    with pytest.raises(CourseError, match="no request"):
        timelines.requests({})


def test_gantt_tells_total_and_waits():
    spans = {"lock": lock(4), "batch": [(7.0, 7.5, 9.0)] * 4}
    made = timelines.gantt(spans)
    assert lines(made) == [
        "lock: 4 clients, 4 s in all; wait for the first token: "
        "median 1.75 s, p95 3.1 s",
        "batch: 4 clients, 2 s in all; wait for the first token: "
        "median 500 ms, p95 500 ms",
    ]


def test_a_gantt_begins_with_its_first_arrival_on_any_clock():
    """Runs one after the other share the axis."""
    early = timelines.gantt({"lock": lock(4), "same": lock(4)})
    moved = [tuple(time + 1000.0 for time in span) for span in lock(4)]
    late = timelines.gantt({"lock": lock(4), "same": moved})
    assert early.alt == late.alt
    assert early.png == late.png


def test_clients_stand_in_the_order_in_which_they_are_served():
    spans = lock(8)
    assert (
        timelines.gantt({"lock": spans}).png
        == timelines.gantt({"lock": spans[::-1]}).png
    )


@pytest.mark.parametrize("n", [1, 16, 32])
def test_gantt_of_one_and_of_many_clients(n):
    made = timelines.gantt({"lock": lock(n), "other": lock(1)})
    assert lines(made)[0].startswith(f"lock: {n} client{'s' * (n > 1)}, {n} s in all")
    assert Image.open(io.BytesIO(made.png)).height < 700


def test_prefill_is_drawn_where_its_start_is_known():
    without = timelines.gantt({"a": [(0.0, 1.0, 2.0)]})
    unknown = timelines.gantt({"a": [(0.0, None, 1.0, 2.0)]})
    known = timelines.gantt({"a": [(0.0, 0.1, 1.0, 2.0)]})
    assert near(without, COLOURS["user"]) == near(unknown, COLOURS["user"]) == 0
    assert near(known, COLOURS["user"]) > 1000
    assert without.alt == known.alt == unknown.alt


@pytest.mark.parametrize("nothing", [None, NAN])
def test_a_client_with_an_error_waits_and_gets_nothing(nothing):
    made = timelines.gantt({"a": [(0.0, 1.0, 2.0), (0.0, nothing, 3.0)]})
    assert lines(made) == [
        "a: 2 clients, 3 s in all; wait for the first token: median 1 s, p95 1 s; "
        "1 failed"
    ]
    alone = timelines.gantt({"a": [(0.0, nothing, 0.0)]})
    assert lines(alone) == ["a: 1 client, 0 ms in all; 1 failed"]


def test_a_clock_need_not_count_seconds():
    made = timelines.gantt({"a": [(0, 2, 10)]}, unit="steps")
    assert "10 steps in all" in made.alt


@pytest.mark.parametrize(
    "span",
    [
        (1.0, 0.5, 2.0), (0.0, 3.0, 2.0), (0.0, 2.0, 1.0, 3.0), (0.0, 1.0),
        (0.0, 0.0, 0.0, 0.0, 0.0), (None, 1.0, 2.0), (0.0, 1.0, None), (),
    ],
)  # fmt: skip
def test_gantt_refuses_times_that_do_not_rise(span):
    with pytest.raises(CourseError, match=r"'lock'.*must rise"):
        timelines.gantt({"lock": [span]})


def test_gantt_refuses_other_input():
    for nothing in ({}, {"lock": []}):
        with pytest.raises(CourseError, match="needs a client"):
            timelines.gantt(nothing)
    with pytest.raises(CourseError, match="0 or more, got inf"):
        timelines.gantt({"lock": [(0.0, 1.0, INF)]})


@settings(max_examples=6)
@given(st.lists(st.lists(st.floats(0, 1e6), min_size=3, max_size=4), min_size=1))
def test_any_rising_times_are_drawn(spans):
    made = timelines.gantt({"a": [sorted(span) for span in spans[:32]]})
    assert made.alt.startswith(f"a: {len(spans[:32])} client")


def test_throughput_tells_each_point():
    assert lines(timelines.throughput(TABLE)) == [
        "lock, 1 client: 30 tokens/s, p95 wait 100 ms",
        "lock, 4 clients: 120 tokens/s, p95 wait 400 ms",
        "lock, 16 clients: 480 tokens/s, p95 wait 1.6 s",
        "vLLM, 1 client: 40 tokens/s, p95 wait 10 ms",
        "vLLM, 4 clients: 160 tokens/s, p95 wait 40 ms",
        "vLLM, 16 clients: 640 tokens/s, p95 wait 160 ms",
    ]
    assert timelines.throughput(pd.DataFrame(TABLE)).png == (
        timelines.throughput(TABLE).png
    )


def test_rows_may_come_from_a_generator():
    assert timelines.throughput(row for row in TABLE).alt == (
        timelines.throughput(TABLE).alt
    )


def test_throughput_leaves_out_what_was_not_measured():
    holes = [
        {"engine": "a", "clients": 1, "tokens_per_second": None, "wait_p95": NAN},
        {"engine": "a", "clients": 4, "tokens_per_second": 0},
        {"engine": "a", "clients": 16, "tokens_per_second": 7.0, "wait_p95": 1.0},
    ]
    wanted = [
        "a, 1 client: not measured",
        "a, 4 clients: 0 tokens/s",
        "a, 16 clients: 7 tokens/s, p95 wait 1 s",
    ]
    assert lines(timelines.throughput(holes)) == wanted
    assert lines(timelines.throughput(pd.DataFrame(holes))) == wanted


def test_more_engines_than_looks_are_drawn():
    many = [TABLE[0] | {"engine": f"engine {n}"} for n in range(7)]
    assert len(lines(timelines.throughput(many))) == 7


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ([], "one client or more"),
        ([TABLE[0] | {"clients": 0}], "one client or more"),
        ([TABLE[0] | {"clients": None}], "0 or more, got None"),
        ([TABLE[0] | {"wait_p95": -1}], r"lock, wait_p95.*got -1"),
        ([{"clients": 1}], "with engine, clients"),
        ([("lock", 1)], "must be dicts"),
    ],
)
def test_throughput_refuses(table, told):
    with pytest.raises(CourseError, match=told):
        timelines.throughput(table)


def test_dashboard_tells_each_panel():
    slow = rows(10, wait_seconds=4.0, tokens_per_second=5.0)
    limits = {"wait_p95": 2.0, "error_rate": 0.05}
    made = timelines.dashboard(rows(30) + slow, limits, "A load")
    assert lines(made) == [
        "A load",
        "40 requests",
        "wait for the first token, s: median 0.5, p95 4, last 20: 2.25; 10 beyond 2",
        "time for a token, p95 of a reply, s: median 0.05, p95 0.05, last 20: 0.05",
        "decode speed of a reply, tokens/s: median 25, p5 5, last 20: 15",
        "tokens in: median 40, p95 40, last 20: 40",
        "memory of the process, MB: median 900, p95 900, last 20: 900",
        "share of errors: 0% of all, last 20: 0%; 0 beyond 0.05",
        "share of replies with a leaked tag: 0% of all, last 20: 0%",
        "share of replies cut by max_new_tokens: 0% of all, last 20: 0%",
    ]


def test_what_is_beyond_has_another_mark():
    fine, bad = rows(30), rows(10, wait_seconds=4.0)
    without = timelines.dashboard(fine + bad)
    within = timelines.dashboard(fine + bad, {"wait_p95": 4.0})
    beyond = timelines.dashboard(fine + bad, {"wait_p95": 3.0})
    assert told(within, "wait for the first token, s").endswith("0 beyond 4")
    assert near(without, COLOURS["warn"]) < near(within, COLOURS["warn"])  # the line
    assert near(beyond, "#000000") > near(within, "#000000") + 100


def test_dashboard_shares_are_of_replies():
    """A request that failed has no reply that could be cut, or leak."""
    failed = rows(30, error="TimeoutError", stop="", wait_seconds=None)
    cut = rows(10, stop="length", leaked=True)
    limits = {"error_rate": 0.6, "length_share": 0.9, "leaked_share": 0.4}
    made = timelines.dashboard(failed + cut, limits)
    assert told(made, "share of errors") == "75% of all, last 20: 50%; 18 beyond 0.6"
    for heading in ("share of replies cut by max_new_tokens", "share of replies with"):
        assert "100%" in next(line for line in lines(made) if heading in line)
    assert "10 beyond 0.9" in made.alt
    none = timelines.dashboard(rows(30, error="TimeoutError", stop=""))
    assert told(none, "share of replies with a leaked tag") == "not measured"


def test_a_share_of_few_requests_is_not_marked():
    made = timelines.dashboard(rows(19, error="OSError"), {"error_rate": 0.1})
    assert told(made, "share of errors") == "100% of all, last 19: 100%; 0 beyond 0.1"


@pytest.mark.parametrize("table", [[], pd.DataFrame(), pd.DataFrame(columns=[*FINE])])
def test_dashboard_before_the_first_request(table):
    made = timelines.dashboard(table, monitor.Thresholds())
    assert lines(made)[0] == "0 requests"
    assert made.alt.count("not measured") == 8


@pytest.mark.parametrize("make", [list, pd.DataFrame])
def test_dashboard_with_holes(make):
    nothing = dict.fromkeys(FINE)
    made = timelines.dashboard(make([*rows(2), nothing, *rows(1, prompt_tokens=INF)]))
    assert told(made, "tokens in") == "median 40, p95 40, last 4: 40"
    assert told(made, "share of errors") == "0% of all, last 4: 0%"
    alone = timelines.dashboard(make([nothing]))
    assert alone.alt.count("not measured") == 7  # no error is known where none is told
    assert told(timelines.dashboard(make([{"stop": "stop"}])), "share of errors") == (
        "not measured"
    )


def test_dashboard_of_a_monitor():
    """Its columns and the names of its thresholds are what the panels want."""
    watched = monitor.Monitor()
    for n in range(25):
        reply = Reply("</think>" if n > 20 else "yes")
        watched.record(reply, queue_seconds=0.5)
    watched.record(error="TimeoutError")
    made = timelines.dashboard(watched.to_frame(), monitor.Thresholds(wait_p95=0.5))
    assert "not measured" not in made.alt
    assert told(made, "wait for the first token, s").startswith("median 0.75, ")
    assert told(made, "wait for the first token, s").endswith("; 25 beyond 0.5")
    assert told(made, "share of errors").startswith("4% of all, last 20: 5%")
    assert told(made, "share of replies with a leaked tag").startswith("16% of all")


class Reply:
    """What a monitor reads of a reply."""

    prompt_tokens, new_tokens, stop = 7, 3, "length"
    seconds, first_token_seconds, token_seconds = 0.45, 0.25, (0.1, 0.1)

    def __init__(self, text):
        self.text = text


def test_dashboard_refuses_a_threshold_without_a_panel():
    with pytest.raises(CourseError, match=r"wait_p59.*\n.*wait_p95") as caught:
        timelines.dashboard(rows(1), {"wait_p59": 1.0})
    assert "error_rate" in caught.value.hint
    with pytest.raises(CourseError, match="must be dicts"):
        timelines.dashboard([1, 2])


def test_explore_redraws_a_fault():
    """Fault buttons need no widget of their own."""
    clean = (0.0, 0.5, [0.05] * 9)
    faults = {"long prompt": (0.0, 5.0, [0.05] * 9), "busy queue": (3.0, 0.5, [0.05])}

    def draw(fault):
        return timelines.requests({"clean": clean, fault: faults[fault]})

    made = show.explore(draw, fault=[*faults])
    assert [line.partition(":")[0] for line in lines(made)] == ["clean", "long prompt"]


class Counter:
    """A load that runs for n looks at it, and the pictures drawn meanwhile."""

    def __init__(self, n):
        self.left, self.drawn = n, 0

    def running(self):
        self.left -= 1
        return self.left >= 0

    def draw(self):
        self.drawn += 1
        return f"picture {self.drawn} with {self.left} to come"


def test_live_draws_once_when_nobody_watches(monkeypatch):
    monkeypatch.setenv("QWEN_COURSE_LIVE", "0")
    load = Counter(3)
    assert show.live(load.draw, load.running, 0) == "picture 1 with -1 to come"


@pytest.fixture
def screen(monkeypatch):
    """What stands on a live front end, oldest first."""
    shown = []

    class Handle:
        def update(self, picture):
            shown.append(picture)

    def display(picture, display_id):
        assert display_id is True  # else it could not be updated
        shown.append(picture)
        return Handle()

    monkeypatch.setenv("QWEN_COURSE_LIVE", "1")
    monkeypatch.setattr("IPython.display.display", display)
    return shown


def test_live_draws_again_in_place_and_leaves_the_last(screen):
    load = Counter(3)
    assert show.live(load.draw, load.running, 0) is None
    left = [int(picture.split()[3]) for picture in screen]
    assert left == [3, 2, 1, 0, -1]


def test_live_waits_between_pictures(screen, monkeypatch):
    slept = []
    monkeypatch.setattr(show.time, "sleep", slept.append)
    load = Counter(2)
    show.live(load.draw, load.running, 0.25)
    assert slept == [0.25, 0.25]


def test_an_interrupt_ends_the_watching_alone(screen, monkeypatch):
    done = threading.Event()
    load = threading.Thread(target=done.wait)
    load.start()
    presses = iter([None, KeyboardInterrupt])

    def sleep(seconds):
        if press := next(presses):
            raise press

    monkeypatch.setattr(show.time, "sleep", sleep)
    try:
        assert show.live(lambda: f"alive {load.is_alive()}", load.is_alive) is None
        assert screen == ["alive True"] * 3  # at first, after a sleep, at last
    finally:
        done.set()
        load.join()


def test_a_frame_that_went_through_a_file_gives_the_same_dashboard():
    kept = monitor.Monitor()
    kept.record(Reply("</think> yes"))
    for _ in range(3):
        kept.record(error="TimeoutError")
    frame = kept.to_frame()
    whole = show.dashboard(frame)
    again = pd.read_csv(io.StringIO(frame.to_csv(index=False)))
    holes = [row | {"stop": math.nan} if row["error"] else row
             for row in frame.to_dict("records")]  # fmt: skip
    for heading in (
        "share of replies with a leaked tag",
        "share of replies cut by max_new_tokens",
    ):
        wanted = told(whole, heading)
        assert "100% of all" in wanted
        assert told(show.dashboard(again), heading) == wanted
        assert told(show.dashboard(holes), heading) == wanted
