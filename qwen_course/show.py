"""Every figure and every widget of the course: plain data in, a picture out.

A `Picture` carries its own text alternative. A widget is never needed to learn
something: the static picture comes first, and controls are attached only when
somebody is there to use them. Nothing here knows models or loads them.
"""

import base64
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from html import escape
from itertools import accumulate
from typing import Any

from qwen_course import models
from qwen_course.catalog import ModelCard, data_dir
from qwen_course.chat import TokenRow
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
        """Render a matplotlib figure at once and close it."""
        import matplotlib.pyplot as plt
        from PIL import Image

        full, small = io.BytesIO(), io.BytesIO()
        figure.savefig(full, format="png", dpi=100, bbox_inches="tight")
        plt.close(figure)
        image = Image.open(full).convert("RGB").quantize(64)  # a quarter of the bytes
        image.save(small, "png", optimize=True)
        self.png, self.alt = small.getvalue(), alt

    def __repr__(self) -> str:
        return f"Picture: {self.alt}"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        data = {"text/plain": repr(self)}
        data["image/png"] = base64.b64encode(self.png).decode()
        return data, {"image/png": {"alt": self.alt}}


class Page:
    """A piece of HTML with a plain-text form for places that show no HTML."""

    def __init__(self, html: str, text: str) -> None:
        """Keep both forms."""
        self.html, self.text = html, text

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.html


class Recording(Page):
    """What a cell printed on official weights; `output` is that text."""

    def __init__(self, entry: dict[str, str]) -> None:
        """Say plainly that it is a recording: which weights, when, where."""
        self.output = entry["text"]
        told = "Recorded on official weights, not computed here: "
        told += f"{entry['model']}, {entry['date']}, {entry['machine']}."
        style = f"border-left:6px solid {COLOURS['line']};padding:2px 12px"
        look = "white-space:pre-wrap;font-family:monospace"
        block = f"<pre style='{look}'>{escape(self.output)}</pre>"
        html = f"<div style='{style}'><small>{escape(told)}</small>{block}</div>"
        super().__init__(html, f"{told}\n{self.output}")


def recorded(lesson: str, cell: str) -> Recording:
    """Return what a cell of a lesson printed on official weights.

    The text is in `data/recorded/LESSON.json`, refreshed by `make test-real`.
    """
    path = data_dir() / "recorded" / f"{lesson}.json"
    entries = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if cell not in entries:
        rule = f"No recording of cell {cell!r} of lesson {lesson!r}."
        raise CourseError(rule, f"Use one of {', '.join(entries)}, or: make test-real")
    return Recording(entries[cell])


def explore(draw: Callable[..., Any], **controls: Any) -> Any:
    """Return `draw` of the first choices; on a live front end, with controls too.

    Args:
        draw: called with one keyword argument a control; returns what to show.
        controls: per argument a list of choices, or (low, high, step, start) numbers.
    """
    starts = {n: c[3] if isinstance(c, tuple) else c[0] for n, c in controls.items()}
    first = draw(**starts)
    if not models.is_live():
        return first
    import ipywidgets as widgets
    from IPython.display import display

    def control(name: str, choice: Any) -> Any:
        named = {"description": name.replace("_", " "), "continuous_update": False}
        if isinstance(choice, tuple):
            low, high, step, start = choice
            return widgets.IntSlider(min=low, max=high, step=step, value=start, **named)
        named.pop("continuous_update")
        return widgets.Dropdown(options=choice, value=choice[0], **named)

    parts = {name: control(name, choice) for name, choice in controls.items()}
    output = widgets.interactive_output(lambda **v: display(draw(**v)), parts)
    display(widgets.VBox([widgets.HBox(list(parts.values())), output]))
    return None


def write(pieces: Iterable[Piece | Reply]) -> Reply:
    """Print a streamed reply piece by piece, thinking marked; return the Reply."""
    kind = "answer"
    for item in pieces:
        if isinstance(item, Reply):
            print()
            return item
        if item.kind != kind:
            kind = item.kind
            print("[thinking]" if kind == "thinking" else "\n[answer]")
        print(item.text, end="", flush=True)
    raise ValueError("the stream ended without a Reply")


def timeline(pieces: Sequence[Piece], reply: Reply) -> Picture:
    """Return a streamed reply on a clock: a bar while it reads, a tick a token."""
    import matplotlib.pyplot as plt

    first = reply.first_token_seconds
    moments = [*accumulate(reply.token_seconds, initial=first)]
    figure, axes = plt.subplots(figsize=(10, 2.2))
    axes.barh(0, first, 0.5, color=COLOURS["user"], hatch="///", edgecolor="white")
    axes.text(0, -0.33, f"reads {reply.prompt_tokens} prompt tokens at once", va="top")
    axes.vlines(moments, -0.25, 0.25, color=COLOURS["assistant"], lw=3)
    place = 0.0
    for moment, piece in zip(moments, pieces, strict=False):
        place = max(moment, place + moments[-1] / 60)  # so that no words overlap
        axes.text(place, 0.32, piece.text.strip(), rotation=55, fontsize=9)
    axes.text(moments[-1], -0.33, "writes one by one", va="top", ha="right")
    axes.set(xlabel="seconds since the question", ylim=(-0.8, 1.1), yticks=[])
    axes.spines[["left", "top", "right"]].set_visible(False)
    alt = "A reply on a clock: a bar where the prompt is read, then a tick a token."
    return Picture(figure, alt)


_LINES = {  # so that an author can be told without seeing colours
    "template": "dotted",
    "system": "double",
    "user": "solid",
    "assistant": "dashed",
    "tool": "groove",
}


def _token(text: str, author: str, extra: str = "") -> str:
    style = f"color:#000;background:{COLOURS[author]}77;{extra}"
    style += f"border-bottom:3px {_LINES[author]} #333"
    return f"<code style='{style}'>{escape(text)}</code>"


def ribbon(rows: Sequence[TokenRow], title: str = "", typed: range = range(0)) -> Page:
    """Return a prompt as a ribbon of tokens, coloured by whom the model takes for it.

    Control tokens are bold. Each change of author is also written as a word.

    Args:
        rows: as `chat.token_table` gives them.
        title: a line above the ribbon.
        typed: places of the tokens that a person typed, whoever the model takes for
            their author; they stand between two triangles and under a line.
    """
    counts = Counter(row.author for row in rows)
    authors = {name: f"{name} {counts[name]}" for name in _LINES if counts[name]}
    lines = [title, f"{len(rows)} tokens: {', '.join(authors.values())}"]
    key = " ".join(_token(told, name) for name, told in authors.items())
    parts = [f"<b>{escape(title)}</b><br>{len(rows)} tokens: {key}<br>"]
    last = ""
    for place, row in enumerate(rows):
        if row.author != last:
            last = row.author
            lines.append(f"{last:>9} | ")
            parts.append(f" <small>{last}</small> ")
        text = "▶" * (place in typed[:1]) + row.text + "◀" * (place in typed[-1:])
        lines[-1] += text
        extra = "font-weight:bold;" * row.special
        extra += f"border-top:3px solid {COLOURS['warn']};" * (place in typed)
        parts.append(_token(text, row.author, extra))
        parts.append("<br>" * (row.author == "template" and row.text.endswith("\\n")))
    style = "background:#fff;color:#000;padding:8px;line-height:2"
    html = f"<div style='{style}'>{''.join(parts)}</div>"
    return Page(html, "\n".join(lines).lstrip())


def table(rows: Sequence[dict[str, Any]], title: str = "") -> Page:
    """Return rows of equal keys as a table; as text, a line a row."""
    cells = [[str(value) for value in row.values()] for row in rows]
    lines = [title] * bool(title) + [" | ".join(row) for row in [[*rows[0]], *cells]]
    style = "style='text-align:left;vertical-align:top'"
    html = f"<table><caption><b>{escape(title)}</b></caption>"
    for kind, row in [("th", [*rows[0]]), *(("td", row) for row in cells)]:
        parts = (f"<{kind} {style}>{escape(text)}</{kind}>" for text in row)
        html += f"<tr>{''.join(parts)}</tr>"
    return Page(f"{html}</table>", "\n".join(lines))


def family(cards: Sequence[ModelCard], labels: Sequence[str] = ()) -> Picture:
    """Return models on a time line by parameters, some with their names.

    From a mixture of experts (MoE), the parameters at work on a token hang below.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(10, 4.6))
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
    axes.spines[["top", "right"]].set_visible(False)
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
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(10, 4.4))
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
    axes.spines[["top", "right"]].set_visible(False)
    return Picture(figure, f"Memory against {limit_gb:.1f} GB: {'; '.join(told)}.")


Step = tuple[int, Sequence[tuple[str, float]]]  # place of the taken one, candidates
_COLUMNS = 6  # tokens in a line of the picture


def _rival(text: str, p: float) -> tuple[str, str]:
    """Return a candidate as it is written: a dot for a space, never 0 %."""
    text = text.replace(" ", "·")
    short = text if len(text) < 13 else text[:11] + "…"
    return short, "<1%" if p < 0.01 else f"{p:.0%}"


def _written(steps: Sequence[Step]) -> str:
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
    import matplotlib.pyplot as plt

    count, most = len(steps), max(len(candidates) for _, candidates in steps)
    lines = -(-count // _COLUMNS)
    figure, panels = plt.subplots(lines, figsize=(10, 1.9 * lines), squeeze=False)
    figure.subplots_adjust(hspace=0.02)
    for place, (taken, candidates) in enumerate(steps):
        axes, x = panels[place // _COLUMNS, 0], place % _COLUMNS
        axes.text(x, 0.8, _rival(*candidates[taken])[0], weight="bold", fontsize=12)
        for y, candidate in enumerate(candidates):
            colours = ["#EEEEEE", COLOURS["assistant" if y == taken else "user"]]
            axes.barh([-y, -y], [0.9, 0.9 * candidate[1]], left=x, color=colours)
            text, p = _rival(*candidate)
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
        told = [" ".join(_rival(*candidate)) for candidate in candidates]
        told[taken] = f"[{told[taken]}]"
        alt.append(", ".join(told))
    return Picture(figure, "\n".join(alt))


def branch(grow: Callable[[list[int]], Sequence[Step]], title: str = "") -> Any:
    """Return the rivals of a text; on a live front end, with a button for each of them.

    A click takes that candidate instead, and the text goes on from there.

    Args:
        grow: called with the places of the candidates to take first; returns the steps
            of a whole text, which goes on by itself after them.
        title: a line above the picture.
    """
    steps = grow([])
    first = rivals(steps, title)
    if not models.is_live():
        return first
    import ipywidgets as widgets
    from IPython.display import display

    look = f".rival {{--colour: {COLOURS['user']}; text-align: left; background-image: "
    look += "linear-gradient(90deg, var(--colour) var(--bar), #0000 var(--bar))}"
    look += f".taken {{--colour: {COLOURS['assistant']}; font-weight: bold}}"
    look += "".join(f".bar-{n} {{--bar: {n}%}}" for n in range(101))
    texts = [f"<style>{look}</style>Click a bar to branch there."]
    told, columns = widgets.HTML(), widgets.HBox()
    columns.layout.flex_flow = "row wrap"
    wide, narrow = widgets.Layout(width="auto"), widgets.Layout(width="16%")

    def button(path: list[int], text: str, p: float, taken: bool) -> Any:
        name = "▶ " * taken + " ".join(_rival(text, p))
        made = widgets.Button(description=name, layout=wide)
        for kind in ["rival", f"bar-{100 * p:.0f}"] + ["taken"] * taken:
            made.add_class(kind)
        made.on_click(lambda _: draw(grow(path)))
        return made

    def draw(steps: Sequence[Step]) -> None:
        texts.append(f"<b>{len(texts)}</b> {escape(_written(steps))}")
        told.value = "<br>".join(texts)
        path, parts = list[int](), []
        for taken, candidates in steps:
            pairs = enumerate(candidates)
            rows = [button([*path, y], *pair, y == taken) for y, pair in pairs]
            parts.append(widgets.VBox(rows, layout=narrow))
            path.append(taken)
        columns.children = parts

    draw(steps)
    display(first, widgets.VBox([told, columns]))
    return None
