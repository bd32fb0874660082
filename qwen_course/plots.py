"""Pictures: plain data in, a picture with its own text alternative out.

Drawn with matplotlib; `show` passes them on. Knows no models and no front end.
"""

import base64
import io
from collections.abc import Sequence
from itertools import accumulate, cycle
from typing import Any

from qwen_course.answers import interval
from qwen_course.catalog import ModelCard
from qwen_course.errors import CourseError
from qwen_course.generate import Piece, Reply

# Colour-blind safe (Okabe and Ito); every use has a text or a pattern beside it.
COLOURS = {
    "template": "#BBBBBB",
    "system": "#E69F00",
    "user": "#56B4E9",
    "assistant": "#009E73",
    "tool": "#CC79A7",
    "warn": "#D55E00",
    "line": "#0072B2",
}


class Picture:
    """A picture with a text alternative: PNG where it shows, the text elsewhere."""

    def __init__(self, figure: Any, alt: str) -> None:
        """Close a matplotlib figure and render it at once."""
        import matplotlib.pyplot as plt
        from PIL import Image

        full, small = io.BytesIO(), io.BytesIO()
        for text in figure.findobj(plt.Text):
            if "$" in text.get_text() and "mathdefault" not in text.get_text():
                text.set_parse_math(False)  # a token is no formula; an axis' 10^3 is
        plt.close(figure)  # before an error can leave it open
        figure.savefig(full, format="png", dpi=100, bbox_inches="tight")
        image = Image.open(full).convert("RGB").quantize(64)  # a quarter of the bytes
        image.save(small, "png", optimize=True)
        self.png, self.alt = small.getvalue(), alt

    def __repr__(self) -> str:
        return f"Picture: {self.alt}"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        data = {"text/plain": repr(self)}
        data["image/png"] = base64.b64encode(self.png).decode()
        return data, {"image/png": {"alt": self.alt}}


def sheet(
    *grid: int, figsize: Any, layout: Any = "constrained", **how: Any
) -> tuple[Any, Any]:
    """Return a figure that pyplot does not keep, and axes open above and on the right.

    The rest is as for `plt.subplots`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=figsize, layout=layout)
    panels = figure.subplots(*grid, **how)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def log_ticks(axis: Any) -> None:
    """Tick a logarithmic axis at 1, 2, 5, 10, 20, ..., written in full."""
    from matplotlib.ticker import LogLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_ticks([], minor=True)


def titled(figure: Any, title: str, told: Sequence[str]) -> Picture:
    """Return a picture with a title above it; its text tells the title, then `told`."""
    figure.suptitle(title, x=0.02, ha="left")
    return Picture(figure, "\n".join([*[title] * bool(title), *told]))


def timeline(pieces: Sequence[Piece], reply: Reply) -> Picture:
    """Return a streamed reply on a clock: a bar while it reads, a tick a token."""
    first = reply.first_token_seconds
    moments = [*accumulate(reply.token_seconds, initial=first)]
    figure, axes = sheet(figsize=(10, 2.2), layout=None)
    axes.barh(0, first, 0.5, color=COLOURS["user"], hatch="///", edgecolor="white")
    axes.text(0, -0.33, f"reads {reply.prompt_tokens} prompt tokens at once", va="top")
    axes.vlines(moments, -0.25, 0.25, color=COLOURS["assistant"], lw=3)
    place = 0.0
    for moment, piece in zip(moments, pieces, strict=False):
        place = max(moment, place + moments[-1] / 60)  # so that no words overlap
        axes.text(place, 0.32, piece.text.strip(), rotation=55, fontsize=9)
    axes.text(moments[-1], -0.33, "writes one by one", va="top", ha="right")
    axes.set(xlabel="seconds since the question", ylim=(-0.8, 1.1), yticks=[])
    axes.spines["left"].set_visible(False)
    alt = "A reply on a clock: a bar where the prompt is read, then a tick a token."
    return Picture(figure, alt)


def family(cards: Sequence[ModelCard], labels: Sequence[str] = ()) -> Picture:
    """Return models on a time line by parameters, some with their names.

    From a mixture of experts (MoE), the parameters at work on a token hang below.
    """
    figure, axes = sheet(figsize=(10, 4.6), layout=None)
    dated = [card for card in cards if card.released]
    for card in dated:
        year, month = map(int, card.released.split("-"))
        x, size, active = year + month / 12, card.params_total_b, card.params_active_b
        axes.plot(x, size, "D" if active else "o", color=COLOURS["line"], alpha=0.7)
        if active:
            axes.plot([x, x], [active, size], ":", color=COLOURS["warn"], zorder=0)
            axes.plot(x, active, "o", color=COLOURS["warn"], mfc="white")
        if card.name in labels:
            axes.text(x, size * 1.25, card.name, ha="center", fontsize=9)
    axes.set(yscale="log", ylabel="billion parameters")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_title("● dense   ◆ MoE, all its experts   ○ MoE, at work", loc="left")
    sizes = sorted(card.params_total_b for card in dated)
    alt = f"{len(dated)} models by month, {sizes[0]:g} to {sizes[-1]:,.0f} billion"
    return Picture(figure, f"{alt} parameters; from a MoE hangs its active part.")


def skyline(
    towers: Sequence[tuple[str, float, float]], limit_gb: float, title: str = ""
) -> Picture:
    """Return models as towers, weights with the KV cache on top, below or above a line.

    Args:
        towers: name, weights in GB, KV cache in GB. What rises above three times the
            line is cut, and its number stands at the cut.
        limit_gb: the memory that may be used, in GB.
        title: a line above the picture.
    """
    figure, axes = sheet(figsize=(10, 4.4), layout=None)
    top, told = 3 * limit_gb, []
    axes.axhline(limit_gb, color=COLOURS["warn"], lw=2.5)
    text = f"my machine: {limit_gb:.1f} GB usable"
    axes.text(-0.45, limit_gb * 1.03, text, color=COLOURS["warn"], weight="bold")
    for x, (name, weights, cache) in enumerate(towers):
        total, fits = weights + cache, weights + cache <= limit_gb
        axes.bar(x, weights, 0.62, color=COLOURS["user" if fits else "template"])
        axes.bar(x, cache, 0.62, weights, color=COLOURS["system"], hatch="///")
        told.append(f"{name} {total:.1f} GB {'fits' if fits else 'is too big'}")
        sign = "fits" if fits else "too big" + " ↑" * (total > top)
        label, place = f"{total:.1f} GB\n{sign}", min(total, top) + top * 0.015
        axes.text(x, place, label, ha="center", bbox={"color": "white", "pad": 1})
    names = [name.replace("-Instruct", "").replace("-", "\n", 1) for name, *_ in towers]
    axes.set_xticks(range(len(names)), names)
    axes.set(ylim=(0, top), ylabel="GB")
    axes.set_title(f"{title}   ▆ weights   ▨ KV cache".strip(), loc="left", pad=30)
    return Picture(figure, f"Memory against {limit_gb:.1f} GB: {'; '.join(told)}.")


Step = tuple[int, Sequence[tuple[str, float]]]  # place of the taken one, candidates
_COLUMNS = 6  # tokens in a line of the picture


def rival(text: str, p: float) -> tuple[str, str]:
    """Return a candidate as it is written: a dot for a space, never 0 %."""
    text = text.replace(" ", "·")
    short = text if len(text) < 13 else text[:11] + "…"
    return short, "<1%" if p < 0.01 else f"{p:.0%}"


def written(steps: Sequence[Step]) -> str:
    """Return the text of the taken candidates."""
    return "".join(candidates[taken][0] for taken, candidates in steps)


def rivals(steps: Sequence[Step], title: str = "") -> Picture:
    """Return a text as a road through its rivals: a column a token, a bar a candidate.

    A full bar is probability 1. The taken candidate is green and bold, and a line leads
    to the next one. A space is written as a dot.

    Args:
        steps: per token the place of the candidate that was taken, and the candidates,
            likeliest first, each with its probability.
        title: a line above the picture.
    """
    count, most = len(steps), max(len(candidates) for _, candidates in steps)
    lines = -(-count // _COLUMNS)
    figure, panels = sheet(lines, figsize=(10, 1.9 * lines), squeeze=False, layout=None)
    figure.subplots_adjust(hspace=0.02)
    for place, (taken, candidates) in enumerate(steps):
        axes, x = panels[place // _COLUMNS, 0], place % _COLUMNS
        axes.text(x, 0.8, rival(*candidates[taken])[0], weight="bold", fontsize=12)
        for y, candidate in enumerate(candidates):
            colours = ["#EEEEEE", COLOURS["assistant" if y == taken else "user"]]
            axes.barh([-y, -y], [0.9, 0.9 * candidate[1]], left=x, color=colours)
            text, p = rival(*candidate)
            weight = "bold" if y == taken else "normal"
            look = {"va": "center", "family": "monospace", "weight": weight}
            axes.text(x + 0.02, -y, text, fontsize=9, **look)
            axes.text(x + 0.89, -y, p, fontsize=9, ha="right", **look)
        if x + 1 < _COLUMNS and place + 1 < count:
            road = [-taken, -steps[place + 1][0]]
            axes.plot([x + 0.9, x + 1], road, color=COLOURS["assistant"], lw=2.5)
    for axes in panels.flat:
        axes.set(xlim=(0, _COLUMNS), ylim=(0.4 - most, 1.4))
        axes.axis("off")
    panels[0, 0].set_title(title, loc="left", pad=12)
    alt = [f"{count} tokens with their rivals, in brackets what was taken"]
    for taken, candidates in steps:
        told = [" ".join(rival(*candidate)) for candidate in candidates]
        told[taken] = f"[{told[taken]}]"
        alt.append(", ".join(told))
    return Picture(figure, "\n".join(alt))


Cell = float | tuple[int, int] | None  # a share, (right answers, questions), not asked


def heat(
    rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell]],
    title: str = "", darkest: float = 1.0,
) -> Picture:  # fmt: skip
    """Return shares as a heat map: the higher, the darker, and each written out.

    Args:
        rows: names, from top to bottom.
        columns: names, from left to right.
        cells: by row and column a share; (right answers, questions), which adds the
            95 % interval; or None, for what was not asked.
        title: a line above the picture.
        darkest: the share that is darkest.
    """
    import matplotlib.pyplot as plt

    if [*map(len, cells)] != [len(columns)] * len(rows):
        rule = f"cells must be {len(rows)} rows of {len(columns)} values."
        raise CourseError(rule, "Give a row of cells for each name in rows.")
    two_lines = any(isinstance(cell, tuple) for line in cells for cell in line)
    tall = 0.55 if two_lines else 0.36
    figure, axes = sheet(figsize=(2.2 + 1.15 * len(columns), 0.8 + tall * len(rows)))
    told = [" | ".join(["", *columns]).lstrip()]
    for y, line in enumerate(cells):
        texts = []
        for x, cell in enumerate(line):
            share, text = _share(cell)
            dark = min(1.0, share / darkest)
            look: dict[str, Any] = {"hatch": "//" if cell is None else ""}
            colour = plt.get_cmap("Blues")(0.9 * dark)
            axes.add_patch(plt.Rectangle((x, y), 1, 1, fc=colour, ec="white", **look))
            look = {"ha": "center", "va": "center", "fontsize": 9}
            look["color"] = "white" if dark > 0.6 else "black"
            axes.text(x + 0.5, y + 0.5, text.replace(" [", "\n["), **look)
            texts.append(text)
        told.append(" | ".join([rows[y], *texts]))
    axes.set(xlim=(0, len(columns)), ylim=(len(rows), 0))
    axes.set_xticks([x + 0.5 for x in range(len(columns))], columns)
    axes.set_yticks([y + 0.5 for y in range(len(rows))], rows)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return titled(figure, title, told)


def _share(cell: Cell) -> tuple[float, str]:
    """Return the share of a cell, and how it is written."""
    if isinstance(cell, tuple):
        low, high = interval(*cell)
        share = cell[0] / cell[1]
        return share, f"{share:.2f} [{low:.2f}, {high:.2f}]"
    return cell or 0.0, "not asked" if cell is None else f"{cell:.2f}"


Point = tuple[float, int, int]  # x, right answers, questions


def _lines(axes: Any, lines: dict[str, Sequence[Point]], chance: float) -> list[str]:
    """Draw shares with their intervals; return the numbers as text, a line each."""
    looks, told = cycle(zip("os^D", ("-", "--", ":", "-."), strict=True)), []
    names = cycle(["assistant", "warn", "line", "tool"])
    each = zip(lines.items(), looks, names, strict=False)
    for (name, points), (mark, dash), colour in each:
        ends = [interval(right, n) for _, right, n in points]
        x, shares = [p[0] for p in points], [right / n for _, right, n in points]
        look = {"color": COLOURS[colour], "marker": mark, "linestyle": dash}
        below = [max(0, s - low) for s, (low, _) in zip(shares, ends, strict=True)]
        above = [max(0, high - s) for s, (_, high) in zip(shares, ends, strict=True)]
        axes.errorbar(x, shares, [below, above], capsize=3, label=name, **look)
        parts = [f"{a:g}: {share:.2f}" for a, share in zip(x, shares, strict=True)]
        told.append(f"{name}: {', '.join(parts)}")
    if chance:
        axes.axhline(chance, color="#777777", lw=1, label=f"guessing, {chance:.0%}")
    axes.set(ylim=(-0.03, 1.05), ylabel="share of right answers")
    axes.legend(frameon=False, loc="best")
    return told


def scrubber(
    thought: Sequence[str], given: Sequence[str], right: str, kept: int,
    points: Sequence[Point],
) -> Picture:  # fmt: skip
    """Return a thought cut after `kept` tokens, its answer, and a dot on the curve.

    Args:
        thought: the tokens of the whole thought.
        given: the answer after 0, 1, ... all tokens of the thought.
        right: the right answer.
        kept: how many tokens are kept; what is lost is grey and struck through.
        points: accuracy of many problems by budget, (budget, right answers, questions).
    """
    import numpy as np

    figure, (top, bottom) = sheet(2, figsize=(10, 5.4), height_ratios=[1.25, 1])
    top.axis("off")
    row, column, width = 0, 0.0, 96.0
    for place, token in enumerate(thought):
        shown = token.replace("\n", "↵")
        lost = place >= kept
        colour = "#999999" if lost else "black"
        look = {"family": "monospace", "fontsize": 11, "va": "center"}
        top.text(column, -row, shown, color=colour, **look)
        if lost:
            top.plot([column, column + len(shown)], [-row, -row], color=colour, lw=1)
        column += len(shown)
        if token.endswith("\n") or column > width:
            row, column = row + 1, 0.0
    row += 1 + bool(column)
    sign = "right" if given[kept] == right else "wrong"
    for place, answer in enumerate(given):
        fits = answer == right
        left = place * width / len(given)
        look = {"color": COLOURS["assistant" if fits else "warn"]}
        look |= {"hatch": "" if fits else "////", "edgecolor": "white"}
        top.barh(-row, 0.92 * width / len(given), 0.8, left=left, **look)
        top.text(left, -row - 0.9, answer[:2], fontsize=8, va="center")
        if place == kept:
            top.plot(left + width / len(given) / 2, -row + 0.75, "v", color="black")
    told = f"cut after {kept} of {len(thought)} tokens: answers {given[kept]}, {sign}"
    top.set(xlim=(-0.5, width + 6), ylim=(-row - 1.6, 0.8))
    top.set_title(f"{told} (solid: right, hatched: wrong)", loc="left")
    numbers = _lines(bottom, {"many problems": points}, 0.0)
    places, shares = zip(*((x, good / n) for x, good, n in points), strict=True)
    height = np.interp(kept, places, shares)
    bottom.plot(kept, height, "o", ms=14, color=COLOURS["line"], label="this cut")
    bottom.legend(frameon=False)
    bottom.set(xlabel="thinking budget in tokens")
    flips = [str(n) for n in range(1, len(given)) if given[n] != given[n - 1]]
    alt = f"The thought, {told}. The answer changes at {', '.join(flips)} tokens."
    return Picture(figure, "\n".join([alt, *numbers]))


def occlusion(
    image: Any, falls: Any, answer: str, under: Sequence[Sequence[str]], title: str = ""
) -> Picture:
    """Return an image beside the same one under a map of what an answer hangs on.

    Args:
        image: a PIL image.
        falls: how far the probability of the answer falls when a cell is covered, by
            row and column; the darker the cell, the further. Below 0: it rises.
        answer: the answer, as text.
        under: what each cell shows, as text; "" for nothing.
        title: a line above the picture.
    """
    import numpy as np

    falls = np.round(falls, 2) + 0.0  # the sum makes 0.00 of -0.00
    rows, columns = falls.shape
    high, wide = image.height / rows, image.width / columns
    figure, panels = sheet(1, 2, figsize=(7.6, 4.1))
    shadow = np.zeros((rows, columns, 4))
    shadow[..., 3] = 0.7 * falls.clip(0, 1)
    panels[1].set_title(f'fall of "{answer}" when a cell is covered', fontsize=10)
    for axes in panels:
        axes.imshow(image)
        axes.axis("off")
    panels[1].imshow(shadow, extent=(0, image.width, image.height, 0))
    for row, column in np.ndindex(rows, columns):
        place = (column + 0.5) * wide, (row + 0.5) * high
        look = {"ha": "center", "va": "center", "fontsize": 9}
        look |= {"bbox": {"color": "white", "alpha": 0.75, "pad": 1}}
        panels[1].text(*place, f"{falls[row, column]:.2f}", **look)
    told = [f"Cells whose cover lowers {answer!r} most:"]
    for place in np.argsort(-falls, axis=None, kind="stable")[:3]:
        row, column = divmod(int(place), columns)
        what = under[row][column] or "nothing"
        where = f"row {row + 1}, column {column + 1}, over {what}"
        told.append(f"{where}: {falls[row, column]:.2f}")
    return titled(figure, title, told)
