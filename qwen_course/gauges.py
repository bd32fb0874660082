"""Pictures of rounding and of speed: weights and their levels, the roofline, gains.

Like `plots`: plain data in, a `Picture` out. Knows no models; `show` passes them on.
"""

from collections.abc import Sequence
from itertools import cycle
from textwrap import wrap
from typing import Any

from qwen_course.errors import CourseError
from qwen_course.plots import COLOURS, Picture, log_ticks, sheet, titled

Point = tuple[str, float, float]  # name, GB read for a token, tokens per second
Row = tuple[str, float, float, float]  # name, value, low and high end of its interval


def bits(
    weights: Any, rounded: Any, lines: Sequence[str], wrong: int | None, bits: int,
    title: str = "",
) -> Picture:  # fmt: skip
    """Return weights before and after rounding, beside what the model then writes.

    Args:
        weights: the weights of one layer, a numpy array or a list.
        rounded: the same weights after rounding.
        lines: a chain of thought of the rounded model; empty: only the weights.
        wrong: place of the first wrong line; None: every line is right.
        bits: bits a weight.
        title: a line above the picture.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    before, after = (np.asarray(w, dtype=float).ravel() for w in (weights, rounded))
    if not 0 < before.size == after.size or not np.isfinite([before, after]).all():
        rule = "weights and rounded must be finite and as many, not 0, got "
        hint = "give one layer, and the same layer after rounding."
        raise CourseError(f"{rule}{before.size} and {after.size}.", hint)
    if wrong is not None and wrong not in range(len(lines)):
        rule = f"wrong must be None or a place in {len(lines)} lines, got {wrong!r}."
        raise CourseError(rule, "count lines from 0; None when every line is right.")
    levels, counts = np.unique(after, return_counts=True)
    error = np.linalg.norm(before - after) / (np.linalg.norm(before) or 1)
    told = f"{bits} bits: {len(levels):,} levels"
    told += " in all groups" * (len(levels) > 2**bits)  # each group has its own scale
    told += f", relative error {error:.3f}"
    figure = plt.figure(figsize=(10 if lines else 6, 4.4), layout="constrained")
    grid = figure.add_gridspec(2, 2 if lines else 1)
    top = figure.add_subplot(grid[0, 0])
    bottom = figure.add_subplot(grid[1, 0], sharex=top)
    widest = max(np.abs(before).max(), np.abs(after).max()) or 1
    bins = np.linspace(-widest, widest, 82)  # one of them is around 0
    top.hist(before, bins, color=COLOURS["user"])
    top.set_title(f"{before.size:,} weights of one layer", loc="left", fontsize=11)
    if len(levels) <= 256:  # few enough to be drawn one by one
        thick = max(1.0, 5 - len(levels) / 8)
        bottom.vlines(levels, 0, counts, color=COLOURS["line"], lw=thick)
    else:
        bottom.hist(after, bins, color=COLOURS["line"])
    bottom.set_title(told, loc="left", fontsize=11)
    foot = -0.08 * bottom.get_ylim()[1]  # a tick a level: many are too rare to see
    bottom.vlines(levels, foot, foot / 4, color="black", lw=0.8)
    bottom.set(ylim=(1.4 * foot, None), xlabel="value of a weight (ticks: the levels)")
    for axes in (top, bottom):
        axes.set_ylabel("weights")
        axes.spines[["top", "right"]].set_visible(False)
    written = _thought(figure.add_subplot(grid[:, 1]), lines, wrong) if lines else []
    return titled(figure, title, [told, *written])


def _thought(axes: Any, lines: Sequence[str], wrong: int | None) -> list[str]:
    """Write lines, right ones ticked, the first wrong one marked; return them."""
    row, told, right = 0, list[str](), len(lines) if wrong is None else wrong
    look: dict[str, Any] = {"family": "monospace", "fontsize": 11, "va": "top"}
    for place, line in enumerate(lines):
        colour, sign, end = COLOURS["assistant"], "✓", ""
        if place == right:
            colour, sign, end = COLOURS["warn"], "✗", "  <- first wrong line"
        elif place > right:
            colour, sign = "#707070", " "
        look |= {"color": colour, "weight": "normal" if place > right else "bold"}
        axes.text(0, -row, sign, **look)
        told.append(f"{sign} {line}{end}")
        mark = end.strip().replace(" ", "\N{NO-BREAK SPACE}")
        for part in wrap(f"{line}  {mark}", 44, subsequent_indent="  ") or [""]:
            axes.text(0.05, -row, part, parse_math=False, **look)
            row += 1
    axes.set(xlim=(0, 1), ylim=(-max(row, 14), 0.5))
    axes.set_title("what the model then writes", loc="left", fontsize=11)
    axes.axis("off")
    return told


def roofline(points: Sequence[Point], bandwidth: float, title: str = "") -> Picture:
    """Return measured speeds under the roof that the memory's bandwidth sets.

    To write a token, all weights are read once: no more than bandwidth / GB a token.

    Args:
        points: name, GB read for a token, tokens per second; all above 0.
        bandwidth: what the memory delivers, in GB per second.
        title: a line above the picture.
    """
    import matplotlib.pyplot as plt

    numbers = [bandwidth, *(value for _, *pair in points for value in pair)]
    if not points or not all(0 < value < float("inf") for value in numbers):
        rule = f"Points, GB, speeds and bandwidth must be above 0, got {numbers}."
        raise CourseError(rule, "leave out what was not measured.")
    figure, axes = plt.subplots(figsize=(10, 4.6), layout="constrained")
    ends = [min(x for _, x, _ in points) / 1.6, max(x for _, x, _ in points) * 1.6]
    for part, dash in ((1.0, "-"), (0.5, ":")):
        name = f"roof: {bandwidth:g} GB/s" if part == 1 else "half of the roof"
        roof = [part * bandwidth / x for x in ends]
        axes.plot(ends, roof, dash, color="black", lw=2 * part, label=name)
    told = [f"Roof: {bandwidth:g} GB/s, divided by the GB read for a token"]
    for (label, x, y), mark in zip(points, cycle("os^Dv*PphX<"), strict=False):
        name = f"{label}: {_number(y)} tokens/s, {y * x / bandwidth:.1%} of the roof"
        look = {"ms": 11, "ls": "", "mec": COLOURS["line"], "mew": 2, "mfc": "none"}
        if y * x > bandwidth:
            name += "\nabove the roof: measure the bandwidth again"
            look |= {"mec": "black", "mew": 1, "mfc": COLOURS["warn"]}
        axes.plot(x, y, mark, label=name, **look)
        told.append(f"{name}, {_number(x)} GB a token".replace("\n", ", "))
    axes.set(xscale="log", yscale="log", xlim=ends)
    axes.set(xlabel="GB read for a token", ylabel="tokens per second")
    for axis in (axes.xaxis, axes.yaxis):
        log_ticks(axis)
    axes.grid(alpha=0.3)
    beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}
    axes.legend(**beside, frameon=False, fontsize=9)
    return titled(figure, title, told)


def bars(
    rows: Sequence[Row], unit: str, title: str = "", reference: float | None = None
) -> Picture:
    """Return what helped and by how much: a bar a row, a whisker for its interval.

    Args:
        rows: name, value, low and high end of the interval; the first row on top.
        unit: what is measured.
        title: a line above the picture.
        reference: where nothing is gained; bars that end below it are hatched.
    """
    wrong = [row for row in rows if not row[2] <= row[1] <= row[3]]
    if wrong or not rows:
        rule = f"Rows must be name, value, low end, high end, got {wrong}."
        raise CourseError(rule, "low <= value <= high; without interval, value thrice.")
    figure, axes = sheet(figsize=(10, 1.3 + 0.42 * len(rows)))
    told = [f"In {unit}:"]
    for place, (label, value, low, high) in enumerate(rows):
        sign, look = "", {"color": COLOURS["user"], "hatch": ""}
        if reference is not None and value < reference:
            sign, look = f", below {reference:g}", {"color": "#DDDDDD", "hatch": "///"}
        if reference is not None and low <= reference <= high:
            sign += f", {reference:g} is within the interval"
        axes.barh(-place, value, 0.7, edgecolor="black", **look)
        reach = [[value - low], [high - value]]
        axes.errorbar(value, -place, xerr=reach, color="black", capsize=4)
        text = _number(value)
        text += f" [{_number(low)}, {_number(high)}]" if low < high else ""
        beside = axes.get_yaxis_transform()  # a column of its own, clear of the bars
        axes.text(1.02, -place, text, va="center", transform=beside)
        told.append(f"{label}: {text}{sign}")
    if reference is not None:
        name = f"{reference:g}: no gain"
        axes.axvline(reference, color=COLOURS["warn"], lw=2, label=name)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    axes.set_xlabel(unit)
    axes.set_yticks([-place for place in range(len(rows))], [row[0] for row in rows])
    return titled(figure, title, told)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")
