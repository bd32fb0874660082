"""Every figure and every widget of the course: plain data in, a picture out.

A `Picture` carries its own text alternative. A widget is never needed to learn
something: the static picture comes first, and controls are attached only when
somebody is there to use them. Nothing here knows models or loads them.
"""

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from html import escape
from typing import Any

from qwen_course import models
from qwen_course.catalog import data_dir
from qwen_course.chat import TokenRow, token_table
from qwen_course.curves import before_after, by_number, curve, losses, low_rank
from qwen_course.errors import CourseError
from qwen_course.gauges import bars, bits, roofline
from qwen_course.generate import Piece, Reply

# isort: off
from qwen_course.plots import COLOURS, Picture, Step, family, heat, occlusion
from qwen_course.plots import rival, rivals, scrubber, skyline, timeline, written

# isort: on
from qwen_course.timelines import dashboard, gantt, requests, throughput


class Page:
    """A piece of HTML with a plain-text form for places that show no HTML."""

    def __init__(self, html: str, text: str, output: str = "") -> None:
        """Keep both forms, and of a recording what its cell printed."""
        self.html, self.text, self.output = html, text, output

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return self.html


def recorded(lesson: str, cell: str) -> Page:
    """Return what a cell of a lesson printed on official weights; that is its `output`.

    The text is in `data/recorded/LESSON.json`, refreshed by `make test-real`.
    """
    path = data_dir() / "recorded" / f"{lesson}.json"
    entries = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if cell not in entries:
        rule = f"No recording of cell {cell!r} of lesson {lesson!r}."
        raise CourseError(rule, f"Use one of {', '.join(entries)}, or: make test-real")
    entry = entries[cell]
    told = "Recorded on official weights, not computed here: "
    told += f"{entry['model']}, {entry['date']}, {entry['machine']}."
    style = f"border-left:6px solid {COLOURS['line']};padding:2px 12px"
    look = "white-space:pre-wrap;font-family:monospace"
    block = f"<pre style='{look}'>{escape(entry['text'])}</pre>"
    html = f"<div style='{style}'><small>{escape(told)}</small>{block}</div>"
    return Page(html, f"{told}\n{entry['text']}", entry["text"])


def explore(draw: Callable[..., Any], **controls: Any) -> Any:
    """Return `draw` of the first choices; on a live front end, with controls too.

    Args:
        draw: called with one keyword argument a control; returns what to show.
        controls: per argument a list of choices, or (low, high, step, start) numbers.
    """
    starts = {n: c[3] if isinstance(c, tuple) else c[0] for n, c in controls.items()}
    if not models.is_live():
        return draw(**starts)
    import ipywidgets as widgets
    import matplotlib.pyplot as plt
    from IPython.display import display

    def control(name: str, choice: Any) -> Any:
        named = {"description": name.replace("_", " "), "continuous_update": False}
        if isinstance(choice, tuple):
            low, high, step, start = choice
            whole = all(isinstance(number, int) for number in choice)
            slider = widgets.IntSlider if whole else widgets.FloatSlider
            return slider(min=low, max=high, step=step, value=start, **named)
        named.pop("continuous_update")
        places = [(str(option), place) for place, option in enumerate(choice)]
        return widgets.Dropdown(options=places, value=0, **named)  # None is a choice

    turn = threading.Lock()

    def draw_for(**set_to: float) -> None:
        lists = {n: c for n, c in controls.items() if not isinstance(c, tuple)}
        # Newer kernels call this in threads, and one may flush what another draws.
        with turn, plt.ioff():
            display(draw(**set_to | {n: c[set_to[n]] for n, c in lists.items()}))

    parts = {name: control(name, choice) for name, choice in controls.items()}
    output = widgets.interactive_output(draw_for, parts)
    display(widgets.VBox([widgets.HBox(list(parts.values())), output]))
    return None


def live(
    draw: Callable[[], Picture], running: Callable[[], bool], seconds: float = 0.5
) -> Picture | None:
    """Return the picture that `draw` gives when `running` is over.

    On a live front end it stands there from the start and is drawn again in place;
    Ctrl-C, or the button that interrupts a cell, ends the watching, not what runs.

    Args:
        draw: makes the picture of now.
        running: whether there is more to come, such as `thread.is_alive`.
        seconds: from one picture to the next.
    """
    shown = None
    if models.is_live():
        from IPython.display import display

        shown = display(draw(), display_id=True)
    with suppress(KeyboardInterrupt):
        while running():
            time.sleep(seconds)
            if shown:
                shown.update(draw())
    last = draw()
    if shown is None:
        return last
    shown.update(last)
    return None


def write(pieces: Iterable[Piece | Reply]) -> Reply:
    """Print a streamed reply piece by piece, thinking marked; return the Reply.

    On a live notebook the thought stands in a fold, which closes when the answer comes.
    """
    put, kind = _print, "answer"
    if models.is_live() and "ipykernel" in sys.modules:
        put = _Fold().put
    for item in pieces:
        if isinstance(item, Reply):
            put("\n", "", item)
            return item
        put(item.text, item.kind if item.kind != kind else "", None)
        kind = item.kind
    rule = "The stream ended without a Reply: one that was read is empty."
    raise CourseError(rule, "make a new one with generate.stream.")


def _print(text: str, begins: str, reply: Reply | None) -> None:
    if begins:
        print("[thinking]" if begins == "thinking" else "\n[answer]")
    print(text, end="", flush=True)


class _Fold:
    """A reply in the making on a live notebook: a fold for the thought, the answer.

    The fold is plain HTML: unlike the Accordion of ipywidgets, keys open it too.
    """

    def __init__(self) -> None:
        import ipywidgets as widgets
        from IPython.display import display

        self.parts = {"thinking": widgets.HTML(), "answer": widgets.HTML()}
        self.texts = {"thinking": "", "answer": ""}
        self.box, self.kind = widgets.VBox([self.parts["answer"]]), "answer"
        self.title = ""
        display(self.box)

    def put(self, text: str, begins: str, reply: Reply | None) -> None:
        self.kind = begins or self.kind
        if begins == "thinking":
            self.title = "thinking ..."
            self.box.children = [self.parts["thinking"], self.parts["answer"]]
        if reply and self.title:
            cut = ", cut by the budget" * reply.budget_cut
            ended = cut or ", not finished" * (not reply.text)
            self.title = f"thought, {reply.thinking_tokens} tokens{ended}"
        self.texts[self.kind] += text
        look = "white-space:pre-wrap;line-height:1.4"
        told = {
            kind: f"<div style='{look}'>{escape(text)}</div>"
            for kind, text in self.texts.items()
        }
        self.parts["answer"].value = told["answer"]
        if self.title and (begins or reply or self.kind == "thinking"):
            opened = " open" * (self.kind == "thinking")
            head = f"<details{opened}><summary>{self.title}</summary>"
            self.parts["thinking"].value = f"{head}{told['thinking']}</details>"


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


def mask(tokenizer: Any, row: Sequence[Any], title: str = "") -> Page:
    """Return a training text as a ribbon: strong and bold is what counts in the loss.

    Hover over a token for its id and author. As text, counted lines begin with a star.

    Args:
        tokenizer: the one that made the row.
        row: a `masking.Row`, or a pair of ids and labels, -100 where nothing counts.
        title: a line above the ribbon.
    """
    try:
        ids, labels = ([*map(int, part)] for part in row[:2])
    except (TypeError, ValueError, RuntimeError):  # a list of rows, a batch
        rule = f"Not a row of ids and labels: {row!r:.60}."
        raise CourseError(rule, "Pass a row of masking.tokenize.") from None
    if not len(ids) == len(labels) > 0:
        rule = f"A row has as many labels as ids, not 0, got {len(labels)}, {len(ids)}."
        raise CourseError(rule, "Pass a row of masking.tokenize.")
    counted = [int(label) >= 0 for label in labels]
    told = f"{sum(counted)} of {len(counted)} tokens count in the loss"
    lines, last = [title, f"{told} (lines with *)"], ("", False)
    strong = f"background:{COLOURS['assistant']};font-weight:bold;"
    strong += "border-bottom:3px solid #333"
    key = f"<code style='color:#000;{strong}'>like this</code>"
    parts = [f"<b>{escape(title)}</b><br>{told}: {key}<br>"]
    for token, counts in zip(token_table(tokenizer, ids), counted, strict=True):
        if (token.author, counts) != last:
            last = token.author, counts
            lines.append(f"{'*' if counts else ' '} {token.author:>9} | ")
        lines[-1] += token.text
        style = f"color:#000;{strong}" if counts else "color:#666;background:#eee"
        hover = f"id {token.id}, {token.author}: {'counts' if counts else 'read only'}"
        parts.append(f"<code title='{hover}' style='{style}'>{escape(token.text)}")
        parts.append("</code>" + "<br>" * token.text.endswith("\\n"))
    style = "background:#fff;color:#000;padding:8px;line-height:2"
    html = f"<div style='{style}'>{''.join(parts)}</div>"
    return Page(html, "\n".join(lines).lstrip())


def table(rows: Sequence[dict[str, Any]], title: str = "") -> Page:
    """Return rows of equal keys as a table; as text, a line a row."""
    if not rows:
        raise CourseError("There is no row to show.", "Give dicts with the same keys.")
    if any(row.keys() != rows[0].keys() for row in rows):
        rule = f"Rows must have the keys {', '.join(map(str, rows[0]))}."
        raise CourseError(rule, "Give dicts with the same keys.")
    cells = [[str(row[key]) for key in rows[0]] for row in rows]
    lines = [title] * bool(title) + [" | ".join(row) for row in [[*rows[0]], *cells]]
    style = "style='text-align:left;vertical-align:top'"
    html = f"<table><caption><b>{escape(title)}</b></caption>"
    for kind, row in [("th", [*rows[0]]), *(("td", row) for row in cells)]:
        parts = (f"<{kind} {style}>{escape(text)}</{kind}>" for text in row)
        html += f"<tr>{''.join(parts)}</tr>"
    return Page(f"{html}</table>", "\n".join(lines))


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
        name = "▶ " * taken + " ".join(rival(text, p))
        made = widgets.Button(description=name, layout=wide)
        for kind in ["rival", f"bar-{100 * p:.0f}"] + ["taken"] * taken:
            made.add_class(kind)
        made.on_click(lambda _: draw(grow(path)))
        return made

    def draw(steps: Sequence[Step]) -> None:
        texts.append(f"<b>{len(texts)}</b> {escape(written(steps))}")
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
