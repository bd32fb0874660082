"""Pictures of a service: requests on a clock, clients side by side, speed, health.

Like `plots`: plain data in, a `Picture` out. Knows no models; `show` passes them on.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate, cycle
from numbers import Real
from operator import itemgetter
from typing import Any

from qwen_course.errors import CourseError
from qwen_course.monitor import percentile
from qwen_course.plots import COLOURS, Picture, sheet, titled

Request = tuple[float, float, Sequence[float] | None]  # queue, prefill, between tokens
Span = Sequence[float | None]  # arrival, start (may be left out), first token, end
_Client = tuple[float, float, float, float, bool]  # the four, and whether it failed
_WAIT: dict[str, Any] = {"fc": "#DDDDDD", "hatch": "////", "ec": "#888888", "lw": 0}
_READ: dict[str, Any] = {"fc": COLOURS["user"], "hatch": "....", "ec": "black", "lw": 0}
_WRITE: dict[str, Any] = {"fc": COLOURS["assistant"], "lw": 0}
_FAILED: dict[str, Any] = {"color": "black", "mec": "white", "clip_on": False}


def requests(rows: Mapping[str, Request], title: str = "") -> Picture:
    """Return requests on one clock: bars for queue and prefill, then a line a token.

    Below each stand its numbers; of one or two requests, with brackets.

    Args:
        rows: name -> seconds in the queue; seconds of prefill, from there to the first
            token; seconds between tokens as in `Reply.token_seconds`, or None: it
            failed, no token came.
        title: a line above the picture.
    """
    if not rows:
        raise CourseError("There is no request to draw.", "give one row or more.")
    moments, texts = dict[str, list[float]](), dict[str, list[str]]()
    for name, (queue, prefill, gaps) in rows.items():
        known = [_check(name, gap) for gap in (() if gaps is None else gaps)]
        first = _check(name, queue) + _check(name, prefill)
        moments[name] = [*accumulate(known, initial=first)]
        texts[name] = _request(queue, moments[name], None if gaps is None else known)
    long = max(times[-1] for times in moments.values()) or 1.0
    brackets = len(rows) <= 2
    step = 3.4 if brackets else 1.9
    figure, axes = sheet(figsize=(10, 1.5 + 0.29 * step * len(rows)))
    for place, (name, (queue, prefill, gaps)) in enumerate(rows.items()):
        y, times = -place * step, moments[name]
        axes.barh(y, queue, 0.8, **_WAIT)
        axes.barh(y, prefill, 0.8, left=queue, **_READ)
        if gaps is None:
            axes.plot(times[0], y, "X", ms=11, **_FAILED)
        else:
            thick = max(0.3, min(2.5, 500 / len(times) * times[-1] / long))
            axes.vlines(times, y - 0.4, y + 0.4, color=COLOURS["assistant"], lw=thick)
        if not brackets:
            axes.text(0, y - 0.5, ", ".join(texts[name]), va="top", fontsize=9)
            continue
        ends = (queue, times[0], times[-1])
        for lane, (end, text) in enumerate(zip(ends, texts[name], strict=False)):
            _bracket(axes, y - 0.75 - 0.7 * lane, end, long, text)
    axes.set(xlim=(0, 1.01 * long), ylim=(0.8 - step * len(rows), 0.6))
    axes.set_yticks([-step * place for place in range(len(rows))], rows)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("seconds since the request came")
    axes.spines["left"].set_visible(False)
    parts = {"waits in the queue": _WAIT, "prefill: reads the prompt": _READ}
    _key(figure, parts | {"writes: a line a token": _WRITE})
    told = [f"{name}: {', '.join(texts[name])}".removeprefix(": ") for name in rows]
    return titled(figure, title, told)


def _request(queue: float, moments: list[float], gaps: list[float] | None) -> list[str]:
    """Return what is told of a request: queue, first token, the whole."""
    first, told = _amount(moments[0]), [f"queue {_amount(queue)}"]
    if gaps is None:
        return [*told, f"failed after {first}, no token"]
    whole = f"whole {_amount(moments[-1])}, {_count(len(moments), 'token')}"
    if gaps:
        median, late = (_amount(percentile(gaps, share)) for share in (0.5, 0.95))
        whole += f", {median} between tokens (p95 {late})"
    return [*told, f"first token after {first}", whole]


def _bracket(axes: Any, y: float, end: float, long: float, text: str) -> None:
    """Draw a bracket from 0 to `end`, its text beside it or, without room, on it."""
    ticks = [y + 0.18, y, y, y + 0.18]
    axes.plot([0, 0, end, end], ticks, color="black", lw=1, clip_on=False)
    look: dict[str, Any] = {"va": "center", "fontsize": 9}
    if end / long + 0.0085 * len(text) < 1:
        axes.text(end + 0.008 * long, y, text, **look)
    else:
        look |= {"ha": "center", "bbox": {"color": "white", "pad": 1}}
        axes.text(end / 2, y, text, **look)


def gantt(
    spans: Mapping[str, Sequence[Span]], title: str = "", unit: str = "s"
) -> Picture:
    """Return clients served at once: a panel a way of serving, a row a client.

    Args:
        spans: name of the way -> per client (arrival, first token, end) or (arrival,
            start of its prefill, first token, end), on any clock: a panel begins with
            its first arrival. A first token of None: the client got an error.
        title: a line above the picture.
        unit: of the clock.
    """
    if not spans or not all(map(len, spans.values())):
        rule = f"Each way of serving needs a client, got {spans}."
        raise CourseError(rule, "leave out what was not run.")
    ways = {name: _clients(name, rows) for name, rows in spans.items()}
    clients = [client for rows in ways.values() for client in rows]
    longest = max(client[3] for client in clients) or 1.0
    tall = min(0.3, max(0.07, 1.7 / max(map(len, ways.values()))))  # inches a client
    heights = [0.35 + tall * len(rows) for rows in ways.values()]
    look: dict[str, Any] = {"height_ratios": heights, "sharex": True, "squeeze": False}
    figure, panels = sheet(len(ways), figsize=(10, 1.3 + sum(heights)), **look)
    told = []
    for axes, (name, rows) in zip(panels.flat, ways.items(), strict=True):
        for place, (arrival, start, first, end, failed) in enumerate(rows):
            axes.barh(-place, start - arrival, 0.8, left=arrival, **_WAIT)
            axes.barh(-place, first - start, 0.8, left=start, **_READ)
            axes.barh(-place, end - first, 0.8, left=first, **_WRITE)
            if failed:
                axes.plot(end, -place, "X", ms=min(11, 90 * tall), **_FAILED)
        told.append(f"{name}: {_served(rows, unit)}")
        axes.set_title(told[-1], loc="left", fontsize=10)
        axes.axvline(max(row[3] for row in rows), color="black", ls=":", lw=1.5)
        axes.set(ylim=(0.4 - len(rows), 0.6), ylabel="client")
        axes.set_yticks([0, 1 - len(rows)], [1, len(rows)])
    axes.set(xlim=(0, 1.01 * longest), xlabel=f"{unit} (dotted: all are served)")
    marks = {"waits": _WAIT, "prefill": _READ, "gets its tokens": _WRITE}
    if not any(client[1] < client[2] for client in clients):
        del marks["prefill"]
    _key(figure, marks)
    return titled(figure, title, told)


def _clients(name: str, spans: Sequence[Span]) -> list[_Client]:
    """Return complete spans since the first arrival, first served first."""
    made = list[_Client]()
    for span in spans:
        times: list[Any] = [None if _missing(t) else _check(name, t) for t in span]
        if len(times) == 3:
            times.insert(1, None)
        known = [time for time in times if time is not None]
        if len(times) != 4 or None in times[::3] or known != sorted(known):
            rule = f"{name!r}: the 3 or 4 times of a client must rise, got {span!r}."
            raise CourseError(rule, "give (arrival, first token, end) on one clock.")
        arrival, start, first, end = times
        stop = end if first is None else first
        start = stop if start is None else start
        made.append((arrival, start, stop, end, first is None))
    zero = min(client[0] for client in made)
    moved = [(a - zero, b - zero, c - zero, d - zero, e) for a, b, c, d, e in made]
    return sorted(moved, key=lambda client: client[2:])


def _served(rows: Sequence[_Client], unit: str) -> str:
    """Return what a panel of `gantt` shows, as text."""
    whole = max(row[3] for row in rows)
    told = f"{_count(len(rows), 'client')}, {_amount(whole, unit)} in all"
    waits = [first - arrival for arrival, _, first, _, failed in rows if not failed]
    if waits:
        ends = (percentile(waits, share) for share in (0.5, 0.95))
        median, late = (_amount(wait, unit) for wait in ends)
        told += f"; wait for the first token: median {median}, p95 {late}"
    lost = len(rows) - len(waits)
    return told + f"; {lost} failed" * bool(lost)


_LOOKS = (("o", "-", "line"), ("s", "--", "warn"), ("^", "-.", "assistant"),
          ("D", ":", "tool"), ("v", "-", "system"))  # fmt: skip


def throughput(table: Any, title: str = "") -> Picture:
    """Return speed and waiting against the number of clients, a line an engine.

    Args:
        table: rows (dicts, or a data frame) of engine; clients; tokens_per_second, of
            all clients together; wait_p95, the 95th percentile of the seconds to the
            first token. None: not measured.
        title: a line above the picture.
    """
    rows = _rows(table, "engine", "clients")
    clients = {_check("clients", row["clients"]): f"{row['clients']:g}" for row in rows}
    if not rows or min(clients) < 1:
        rule = f"Rows must be of one client or more, got {rows}."
        raise CourseError(rule, "measure one client first.")
    engines = dict.fromkeys(row["engine"] for row in rows)
    rows.sort(key=lambda row: row["clients"])
    columns = {"tokens_per_second": "tokens per second, all clients together"}
    columns["wait_p95"] = "wait for the first token, s (p95)"
    told, marks = list[str](), dict[str, Any]()
    figure, panels = sheet(1, 2, figsize=(10, 4))
    for engine, (mark, dash, colour) in zip(engines, cycle(_LOOKS), strict=False):
        marks[engine] = {"marker": mark, "ls": dash, "color": COLOURS[colour], "ms": 8}
        own = [row for row in rows if row["engine"] == engine]
        for axes, column in zip(panels, columns, strict=True):
            known = [row for row in own if row.get(column) is not None]
            values = [_check(f"{engine}, {column}", row[column]) for row in known]
            axes.plot([row["clients"] for row in known], values, **marks[engine])
        told += [f"{engine}, {_speed(row)}" for row in own]
    for axes, heading in zip(panels, columns.values(), strict=True):
        axes.set(xscale="log", xlabel="clients at once", ylim=(0, None))
        axes.set_title(heading, loc="left", fontsize=11)
        axes.set_xticks([*clients], clients.values())
        axes.set_xticks([], minor=True)
        if 0 < 20 * axes.dataLim.y0 < axes.dataLim.y1:
            axes.set(yscale="log", ylim=(axes.dataLim.y0 / 1.5, axes.dataLim.y1 * 1.5))
            axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
    _key(figure, marks)
    return titled(figure, title, told)


def _speed(row: dict[str, Any]) -> str:
    """Return a row of `throughput` as text."""
    speed, wait = row.get("tokens_per_second"), row.get("wait_p95")
    told = "not measured" if speed is None else f"{_number(speed)} tokens/s"
    told += "" if wait is None else f", p95 wait {_amount(wait)}"
    return f"{_count(row['clients'], 'client')}: {told}"


_ROLLING = 20  # requests that a line tells of
_PANELS = {  # column -> heading, name of its threshold in monitor.Thresholds
    "wait_seconds": ("wait for the first token, s", "wait_p95"),
    "token_p95": ("time for a token, p95 of a reply, s", "token_seconds_p95"),
    "tokens_per_second": ("decode speed of a reply, tokens/s", ""),
    "prompt_tokens": ("tokens in", "prompt_tokens_p95"),
    "resident_mb": ("memory of the process, MB", ""),
    "error": ("share of errors", "error_rate"),
    "leaked": ("share of replies with a leaked tag", "leaked_share"),
    "stop": ("share of replies cut by max_new_tokens", "length_share"),
}
_SHARES: dict[str, Any] = {  # of a row: whether it counts; None: there was no reply
    "error": lambda row: bool(row["error"]),
    "leaked": lambda row: row["leaked"] if row.get("stop", True) else None,
    "stop": lambda row: row["stop"] == "length" if row["stop"] else None,
}


def dashboard(table: Any, thresholds: Any = None, title: str = "") -> Picture:
    """Return what a monitor saw, request by request: a panel a number.

    Lines tell of the last 20 requests: the median and the bad end (95th percentile, of
    speed the 5th), or a share. Black triangles are beyond the threshold.

    Args:
        table: `Monitor.to_frame()`, or such rows as dicts, oldest first; None, NaN or
            no such column: not measured.
        thresholds: `monitor.Thresholds`, or a dict with some of its names.
        title: a line above the picture.
    """
    rows = _rows(table)
    limits, known = thresholds or {}, {name for _, name in _PANELS.values() if name}
    if not isinstance(limits, Mapping):
        limits = {name: getattr(limits, name) for name in known}
    if unknown := ", ".join({*limits} - known):
        rule = f"No panel for a threshold of {unknown}."
        raise CourseError(rule, f"use some of {', '.join(sorted(known))}.")
    figure, panels = sheet(4, 2, figsize=(10, 7.6))
    told = [_count(len(rows), "request")]
    places = zip(panels.flat, _PANELS.items(), strict=True)
    for axes, (column, (heading, name)) in places:
        axes.set_title(heading, loc="left", fontsize=10)
        told.append(f"{heading}: {_panel(axes, rows, column, limits.get(name))}")
        axes.set_xlim(0.5, max(len(rows), 2) + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in panels[-1]:
        axes.set_xlabel("request")
    marks: dict[str, dict[str, Any]] = {
        "a request": {"marker": ".", "ls": "", "color": COLOURS["line"]},
        "median, share": {"lw": 2, "color": COLOURS["line"]},
        "bad end": {"ls": ":", "color": COLOURS["line"]},
        "threshold": {"ls": "--", "color": COLOURS["warn"]},
        "beyond it": {"marker": "^", "ls": "", "color": "black"},
    }
    _key(figure, marks)
    return titled(figure, title, told)


def _panel(axes: Any, rows: list[Any], column: str, limit: float | None) -> str:
    """Draw one number of each request; return what is seen, as text."""
    from pandas import Series

    share, end = column in _SHARES, 0.05 if column == "tokens_per_second" else 0.95
    value = _SHARES.get(column, itemgetter(column))
    values = [value(row) if column in row else None for row in rows]
    each = Series(values, range(1, len(values) + 1), dtype=float)
    each = each.where(each.abs() < float("inf"))
    if not each.count():
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
        axes.set_yticks([])
        return "not measured"
    last = each.rolling(_ROLLING, min_periods=1)
    line, watched = (last.mean(),) * 2 if share else (last.median(), each)
    told = f"{each.mean():.0%} of all"
    if not share:
        told = f"median {_number(each.median())}, "
        told += f"p{100 * end:.0f} {_number(each.quantile(end))}"
        axes.plot(each, ".", ms=5, color=COLOURS["line"], alpha=0.4)
        axes.plot(last.quantile(end), ":", color=COLOURS["line"])
    axes.plot(line, ".-", ms=4, color=COLOURS["line"], lw=2)
    recent = f"{line.iloc[-1]:.0%}" if share else _number(line.iloc[-1])
    told += f", last {min(_ROLLING, len(each))}: {recent}"
    if limit is not None:
        beyond = watched > limit
        if share:
            beyond &= each.index >= _ROLLING  # of fewer, one can be a half
        axes.plot(watched[beyond], "^", ms=5, color="black")
        axes.axhline(limit, color=COLOURS["warn"], ls="--")
        told += f"; {beyond.sum()} beyond {limit:g}"
    if column != "resident_mb":  # where what it grows by is more than how much it is
        axes.set_ylim(*((-0.05, 1.05) if share else (0, None)))
    return told


def _rows(table: Any, *columns: str) -> list[dict[str, Any]]:
    """Return a frame or a sequence of dicts as dicts with columns; None is missing."""
    rows = table.to_dict("records") if hasattr(table, "to_dict") else [*table]
    for row in rows:
        if not isinstance(row, dict) or not {*columns} <= {*row}:
            rule = f"Rows must be dicts{' with ' * bool(columns)}{', '.join(columns)}, "
            raise CourseError(f"{rule}got {row!r}.", "pass a data frame or such rows.")
    return [{n: None if _missing(v) else v for n, v in row.items()} for row in rows]


def _missing(value: Any) -> bool:
    """Return whether nothing was measured: None, or NaN as pandas writes it."""
    return value is None or value != value


def _check(name: str, value: Any) -> float:
    """Return a number that a clock or a counter gives; refuse any other."""
    number = float(value) if isinstance(value, Real) else -1.0
    if not 0 <= number < float("inf"):  # NaN is not
        rule = f"{name!r}: numbers must be finite, 0 or more, got {value!r}."
        raise CourseError(rule, "give what was measured.")
    return number


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}{'s' * (number != 1)}"


def _amount(value: Any, unit: str = "s") -> str:
    """Return a time with its unit: less than a second in ms."""
    if unit == "s" and value < 0.9995:
        return f"{_number(1000 * value)} ms"
    return f"{_number(value)} {unit}"


def _number(value: Any) -> str:
    """Return a number with three digits or, above 100, whole."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def _key(figure: Any, marks: dict[str, Any]) -> None:
    """Write below a figure what each mark or pattern means."""
    import matplotlib.pyplot as plt

    boxes = {n: plt.Rectangle((0, 0), 1, 1, **m) for n, m in marks.items() if "fc" in m}
    look = {"loc": "outside lower center", "ncols": len(marks), "frameon": False}
    lines = {n: plt.Line2D([], [], **m) for n, m in marks.items() if n not in boxes}
    figure.legend((boxes | lines).values(), marks, fontsize=9, **look)
    figure.get_layout_engine().set(h_pad=0.08)  # inches
