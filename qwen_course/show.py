"""Every figure and every widget of the course: plain data in, a picture out.

A `Picture` carries its own text alternative. A widget is never needed to learn
something: the static picture comes first, and controls are attached only when
somebody is there to use them. Nothing here knows models or loads them.
"""

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any

from qwen_course import models
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

        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100, bbox_inches="tight")
        plt.close(figure)
        self.png, self.alt = buffer.getvalue(), alt

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
    """Print a streamed reply piece by piece; return the Reply that comes last."""
    for item in pieces:
        if isinstance(item, Reply):
            print()
            return item
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
    for moment, piece in zip(moments, pieces, strict=False):
        axes.text(moment, 0.32, piece.text.strip(), rotation=55, fontsize=9)
    axes.text(moments[-1], -0.33, "writes one by one", va="top", ha="right")
    axes.set(xlabel="seconds since the question", ylim=(-0.8, 1.1), yticks=[])
    axes.spines[["left", "top", "right"]].set_visible(False)
    alt = "A reply on a clock: a bar where the prompt is read, then a tick a token."
    return Picture(figure, alt)
