"""Pictures of results: shares, loss curves, what was gained and lost, low-rank updates.

Like `plots`: plain data in, a `Picture` out. Knows no models; `show` passes them on.
"""

from collections.abc import Sequence
from itertools import cycle
from typing import Any

from qwen_course.answers import interval
from qwen_course.errors import CourseError
from qwen_course.plots import COLOURS, Picture, Point, _lines, log_ticks, sheet, titled

End = tuple[float, float, str, str]  # last point of a line, its name, its colour


def _name(axes: Any, ends: Sequence[End]) -> None:
    """Write the names of lines beside their right ends, so that none overlap."""
    axes.get_ylim()  # settles the limits that the transforms use
    to_share, top = axes.transAxes.inverted().transform, 2.0
    for x, y, name, colour in sorted(ends, key=lambda end: -end[1]):
        half = 0.035 * (1 + name.count("\n"))
        place = min(to_share(axes.transData.transform((x, y)))[1], top - half)
        top = place - half
        look = {"xytext": (1.03, place), "textcoords": "axes fraction", "va": "center"}
        line = {"arrowstyle": "-", "color": colour, "lw": 0.8, "relpos": (0, 0.5)}
        axes.annotate(name, (x, y), **look, fontsize=9, arrowprops=line)


def losses(histories: Any, title: str = "") -> Picture:
    """Return training curves by step, with the learning rate below them.

    The scale is logarithmic where the losses span a factor of 20 or more.

    Args:
        histories: a `training.History`, or a list of rows as in `History.losses`;
            for several curves, a dict name -> one of these.
        title: a line above the picture.
    """
    named = histories if isinstance(histories, dict) else {"": histories}
    rows = {name: list(getattr(h, "losses", h)) for name, h in named.items()}
    for name, steps in (rows or {"": []}).items():
        known = (isinstance(r, dict) and {"step", "loss"} <= {*r} for r in steps)
        if not steps or not all(known):
            rule = f"Curve {name!r} must be rows of step and loss, got {steps!r:.60}."
            raise CourseError(rule, "Pass what finetune.train returned.")
    rated = all("learning_rate" in row for steps in rows.values() for row in steps)
    tall = [4, 1] if rated else [4]
    look: dict[str, Any] = {"height_ratios": tall, "sharex": True, "squeeze": False}
    figure, panels = sheet(len(tall), figsize=(10, sum(tall)), **look)
    top, bottom = panels[0, 0], panels[-1, 0]
    told, ends = list[str](), list[End]()
    colours = cycle(COLOURS[name] for name in ("line", "warn", "assistant", "tool"))
    for (name, history), colour in zip(named.items(), colours, strict=False):
        text, x, y, end = _losses(top, rows[name], history, colour)
        told.append(f"{name}: {text}".removeprefix(": "))
        ends.append((x, y, f"{name}\n{end}".strip(), colour))
        if rated:
            rates = {row["step"]: row["learning_rate"] for row in rows[name]}
            bottom.plot(rates.keys(), rates.values(), ".-", ms=2, color=colour)
    if rated:  # after all curves: a limit that is set stays
        bottom.set(ylabel="learning\nrate", ylim=(0, None))
    if top.dataLim.y1 > 20 * top.dataLim.minposy:
        top.set_yscale("log")
        log_ticks(top.yaxis)
    top.set_ylabel("loss in nats a counted token")
    bottom.set_xlabel("step")
    bottom.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    _name(top, ends)
    handles, labels = top.get_legend_handles_labels()
    key = dict(zip(labels, handles, strict=True))
    look = {"loc": "lower right", "bbox_to_anchor": (1, 1), "ncols": len(key)}
    legend = top.legend(key.values(), key, **look, frameon=False, fontsize=9)
    for mark in legend.legend_handles:
        mark.set_color("#555555")  # it holds for every curve
    return titled(figure, title, told)


def _losses(
    axes: Any, rows: Sequence[dict[str, float]], history: Any, colour: str
) -> tuple[str, float, float, str]:
    """Draw one curve; return it as text, where it ends, and what to write there."""
    from pandas import Series

    loss = Series({row["step"]: float(row["loss"]) for row in rows})
    plain = loss[loss.abs() < float("inf")]
    part = len(loss) // 60 * 2 + 1  # odd: as many before as after
    mean = plain.rolling(part, center=True, min_periods=1).mean()
    thin = 0.3 if part > 1 else 1
    axes.plot(plain, ".-", ms=3, color=colour, alpha=thin, label="each step")
    if part > 1:
        axes.plot(mean, color=colour, lw=2, label="mean of the steps around it")
    told = f"{len(loss)} steps, loss {loss.iloc[0]:.2g} at first"
    told += f", {loss.iloc[-1]:.2g} at last"
    x, y, beside = loss.index[-1], 0.0, "no finite loss"
    if len(plain):
        told += f", lowest {plain.min():.2g} at step {plain.idxmin()}"
        x, y, beside = plain.index[-1], mean.iloc[-1], f"loss {mean.iloc[-1]:.2g}"
    held = [row for row in getattr(history, "evaluations", ()) if "loss" in row]
    checked = Series({row["step"]: row["loss"] for row in held}, dtype=float)
    if held:
        look: dict[str, Any] = {"mfc": "white", "color": colour, "lw": 1}
        axes.plot(checked, "--o", **look, label="validation")
        told += f"; validation {checked.iloc[-1]:.2g} at last"
        if checked.notna().any():  # none where it diverged before
            told += f", lowest {checked.min():.2g} at step {checked.idxmin()}"
    kept = getattr(history, "best_step", None)
    if kept is not None:
        curve = checked if kept in checked else mean
        if kept in curve:
            look = {"ms": 15, "mec": "black", "color": colour}
            axes.plot(kept, curve[kept], "*", **look, label="kept")
        told += f"; kept are the weights of step {kept}"
        beside += f", keeps step {kept}"
    wrong = [step for step in loss.index if step not in plain]
    if wrong or getattr(history, "stopped", "") == "diverged":
        step = [*wrong, loss.index[-1]][0]
        look = {"transform": axes.get_xaxis_transform(), "color": "black", "lw": 1}
        axes.plot([step] * 2, [0, 0.96], ":X", ms=9, markevery=[1], **look)
        told += f"; diverged at step {step}"
        beside += f"\n✖ diverged at step {step}"
    return told, x, y, beside


def curve(
    lines: dict[str, Sequence[Point]], xlabel: str, title: str = "", chance: float = 0.0
) -> Picture:
    """Return accuracies as lines, each point with its 95 % interval.

    Args:
        lines: name -> points (x, right answers, questions).
        xlabel: what x is.
        title: a line above the picture.
        chance: the share that guessing gives, drawn as a line; 0: none.
    """
    figure, axes = sheet(figsize=(8, 3.8), layout=None)
    told = _lines(axes, lines, chance)
    axes.set(xlabel=xlabel)
    axes.set_title(title, loc="left")
    head = f"{title or 'Share of right answers'} by {xlabel}"
    return Picture(figure, "\n".join([head, *told]))


def by_number(
    lines: dict[str, Sequence[Point]], xlabel: str, title: str = ""
) -> Picture:
    """Return accuracies, each with its 95 % interval, by a number on a log scale.

    Args:
        lines: name -> points (number, right answers, questions); a number may be 0.
        xlabel: what is counted.
        title: a line above the picture.
    """
    numbers = sorted({x for points in lines.values() for x, _, _ in points})
    if not all(lines.values()) or not numbers or not 0 <= numbers[0] <= numbers[-1] > 0:
        rule = f"Each line needs points, with numbers of 0 or more, got {numbers}."
        raise CourseError(rule, "Write {name: [(examples, right, questions), ...]}.")
    figure, axes = sheet(figsize=(9, 4))
    told = _lines(axes, {name: sorted(lines[name]) for name in lines}, 0.0)
    axes.get_legend().remove()  # the names stand beside the lines
    least = min(x for x in numbers if x)
    axes.set_xscale("symlog", linthresh=least, linscale=0.6)  # it has a place for 0
    axes.set_xlim(left=numbers[0] - 0.1 * least)
    axes.set_xticks(numbers, [f"{x:,g}" for x in numbers])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(xlabel)
    axes.set_title(title, loc="left")
    drawn = [(part.get_label(), part.lines[0]) for part in axes.containers]
    last = [(*line.get_xydata()[-1], name, line.get_color()) for name, line in drawn]
    _name(axes, [(x, y, f"{name}: {y:.2f}", c) for x, y, name, c in last])
    return Picture(figure, "\n".join([title] * bool(title) + [f"By {xlabel}:", *told]))


_GAIN = {"facecolor": COLOURS["assistant"], "edgecolor": COLOURS["assistant"]}
_LOSS = {"facecolor": "white", "edgecolor": COLOURS["warn"], "hatch": "////"}


def before_after(table: Sequence[dict[str, Any]], title: str = "") -> Picture:
    """Return what tuning gained and what it broke: a panel a task, a bar a run.

    Each run is compared with the first. A gain or a loss is told, and coloured, where
    their 95 % intervals do not overlap.

    Args:
        table: dicts of task, run, k (right answers) and n (questions).
        title: a line above the picture.
    """
    import matplotlib.pyplot as plt

    if not table or not all({"task", "run", "k", "n"} <= {*row} for row in table):
        rule = f"The table must be dicts of task, run, k and n, got {table!r:.60}."
        raise CourseError(rule, 'Write [{"task": "code", "run": "base", "k": 9, ...}].')
    found = {(row["task"], row["run"]): (row["k"], row["n"]) for row in table}
    if len(found) < len(table):
        raise CourseError("A run has two rows of one task.", "Add up their k and n.")
    tasks, runs = ([*dict.fromkeys(names)] for names in zip(*found, strict=True))
    wide = min(4, len(tasks))
    tall = -(-len(tasks) // wide)
    size = (10, 0.5 + tall * (0.6 + 0.58 * len(runs)))
    figure, panels = sheet(tall, wide, figsize=size, sharey=True, squeeze=False)
    told = []
    for axes in panels.flat[len(tasks) :]:
        axes.axis("off")
    for axes, task in zip(panels.flat, tasks, strict=False):
        cells = [found.get((task, run)) for run in runs]
        many = " or ".join(dict.fromkeys(f"{cell[1]:,}" for cell in cells if cell))
        axes.set_title(f"{task}, n = {many}", loc="left", fontsize=11)
        texts = zip(runs, _task(axes, cells), strict=True)
        told.append(f"{task}, n = {many}: {'; '.join(map(' '.join, texts))}")
        axes.set(xlim=(0, 1.02), ylim=(0.6 - len(runs), 0.7), xticks=(0, 0.5, 1))
        axes.set_yticks([-place for place in range(len(runs))], runs)
        axes.tick_params(axis="y", length=0)
    text = "share of right answers, with its 95 % interval"
    text += f" (≈ same: overlaps that of {runs[0]})" * (len(runs) > 1)
    figure.supxlabel(text, fontsize=10)
    key = {"kept": plt.Rectangle((0, 0), 1, 1, color=COLOURS["user"])}
    key["gained"] = plt.Rectangle((0, 0), 1, 1, **_GAIN)
    key["lost"] = plt.Rectangle((0, 0), 1, 1, **_LOSS)
    figure.legend(key.values(), key, loc="outside upper right", ncols=3, frameon=False)
    return titled(figure, title, told)


def _task(axes: Any, cells: Sequence[tuple[int, int] | None]) -> list[str]:
    """Draw the runs of one task from top to bottom; return each as text."""
    told, base = list[str](), cells[0]
    for place, cell in enumerate(cells):
        if cell is None:
            axes.text(0.01, -place, "not measured", va="center", fontsize=9)
            told.append("not measured")
            continue
        (low, high), share = interval(*cell), cell[0] / cell[1]
        text, sign, solid = f"{share:.2f} [{low:.2f}, {high:.2f}]", "", share
        if place and base:
            (least, most), before = interval(*base), base[0] / base[1]
            sign = "≈ same"
            if low > most or high < least:
                sign = f"{100 * (share - before):+.0f} points".replace("-", "−")
                solid = min(share, before)
                look = _GAIN if low > most else _LOSS
                axes.barh(-place, abs(share - before), 0.4, solid, **look)
            axes.vlines(before, -0.3 - place, 0.2 - place, color="black", ls=":")
        axes.barh(-place, solid, 0.4, color=COLOURS["user"])
        reach = [[max(0, share - low)], [max(0, high - share)]]
        axes.errorbar(share, -place, xerr=reach, color="black", capsize=3, marker=".")
        axes.text(0.01, 0.28 - place, text, fontsize=8.5)
        axes.text(1.02, 0.28 - place, sign, fontsize=8.5, ha="right", weight="bold")
        told.append(f"{text} {sign}".strip())
    return told


def low_rank(
    weight: Any, a: Any, b: Any, scale: float = 1.0, title: str = ""
) -> Picture:
    """Return the update of one layer in true proportions, and its singular values.

    The layer computes with W + update. Red is above 0, blue below.

    Args:
        weight: W [out, in], a tensor or an array, like the others.
        a: A [rank, in].
        b: B [out, rank].
        scale: what B A is multiplied by, alpha / rank.
        title: a line above the picture.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    w, a, b = (
        np.asarray(m.detach().float().cpu() if hasattr(m, "detach") else m, float)
        for m in (weight, a, b)
    )
    shapes = [[*m.shape] for m in (w, a, b)]
    if w.ndim * a.ndim * b.ndim != 8 or b.shape + a.shape != (
        len(w), len(a), b.shape[1], w.shape[1]
    ) or not a.size:  # fmt: skip
        rule = f"W, A, B must be [out, in], [rank, in], [out, rank], got {shapes}."
        raise CourseError(rule, "Pass lora_A and lora_B of the layer of W.")
    update = scale * b @ a
    if not np.isfinite([w.sum(), update.sum()]).all():
        raise CourseError("A weight is not finite.", "Train with a lower rate.")
    figure, (left, right) = sheet(1, 2, figsize=(10, 3.9), width_ratios=[2.2, 1])
    (tall, wide), x = w.shape, 0.0
    gap = 0.3 * max(tall, wide)
    parts = {"W, frozen": w, f"update = {scale:.3g} B A": update, "B": b, "A": a}
    for name, m in parts.items():
        high, broad = m.shape
        limit = np.quantile(np.abs(m), 0.99) or 1  # each has a colour scale of its own
        look = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}
        left.imshow(m, extent=(x, x + broad, -high, 0), interpolation="nearest", **look)
        left.add_patch(plt.Rectangle((x, -high), broad, high, fill=False, lw=0.5))
        text = f"{name}\n{high:,} × {broad:,}"
        left.text(x + broad / 2, 0.02 * gap, text, ha="center", va="bottom", fontsize=9)
        x += broad + gap
    left.set(xlim=(0, x - gap), ylim=(-tall, 0), anchor="N")
    left.axis("off")
    own, theirs = (np.linalg.svd(m, compute_uv=False) for m in (update, w))
    order = np.arange(1, len(own) + 1)
    right.plot(order, theirs / (theirs[0] or 1), color="#777777", label="W")
    right.plot(order, own / (own[0] or 1), ".", color=COLOURS["warn"], label="update")
    right.axvline(len(a) + 0.5, color="black", ls=":", lw=1, label=f"rank {len(a)}")
    right.set(xlabel="singular values, by size", ylabel="share of the largest")
    right.legend(frameon=False)
    some = int((own > 1e-9 * (own[0] or 1)).sum())
    told = f"W {shapes[0]} has {w.size:,} weights"
    told += f", A {shapes[1]} and B {shapes[2]} have {a.size + b.size:,}."
    told += f"\n{some} of {len(own)} singular values of the update are above 0."
    return titled(figure, title, [told])
