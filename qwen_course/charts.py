"""Bar charts: drawn at random, asked about, turned into pictures. For pocket-vision.

A picture is drawn from its bars again, so only the bars are kept. Split like `tasks`:
by a hash, here of the bars. Knows no models.
"""

import random
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from .tasks import Problem, Random, held_out

COLOURS = {  # as red, green, blue
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 80, 220),
    "orange": (245, 150, 30),
    "purple": (140, 60, 170),
}
HEIGHTS = range(2, 13)


@dataclass(frozen=True)
class Chart:
    """A bar chart: the colour and the height of each bar, from left to right."""

    bars: tuple[tuple[str, int], ...]


def chart(rng: Random) -> Chart:
    """Return two to four bars: rising, falling or mixed, no two alike in any way."""
    number, trend = rng.randint(2, 4), rng.choice(["up", "down", "mixed"])
    heights = rng.sample(HEIGHTS, number)
    if trend != "mixed":
        heights.sort(reverse=trend == "down")
    colours = rng.sample(list(COLOURS), number)
    return Chart(tuple(zip(colours, heights, strict=True)))


def training(rng: Random) -> Chart:
    """Return one chart of the training split, drawn with the caller's generator."""
    while held_out(str((found := chart(rng)).bars)):
        pass
    return found


def draw(n: int, seed: int = 0) -> list[Chart]:
    """Return n different charts that no training sees; see `tasks.draw`."""
    rng, found = random.Random(f"chart {seed}"), dict[Chart, None]()
    while len(found) < n:
        if held_out(str((drawn := chart(rng)).bars)):
            found[drawn] = None
    return list(found)


def questions(chart: Chart) -> list[Problem]:
    """Return all that can be asked about a chart: four questions, then each pair."""
    number, heights = len(chart.bars), [height for _, height in chart.bars]
    rising = sorted(heights)
    trends = {tuple(rising): "up", tuple(rising[::-1]): "down"}
    by_height = sorted(chart.bars, key=lambda bar: bar[1])
    pairs = {
        "How many bars are there?": str(number),
        "Which bar is tallest?": by_height[-1][0],
        "Which bar is shortest?": by_height[0][0],
        "Is the trend up, down or mixed?": trends.get(tuple(heights), "mixed"),
    }
    for (one, height), (other, other_height) in permutations(chart.bars, 2):
        taller = one if height > other_height else other
        pairs[f"Which bar is taller, {one} or {other}?"] = taller
    return [Problem("chart", *pair, level=number) for pair in pairs.items()]


def picture(chart: Chart, size: int = 112) -> Any:
    """Return the picture of a chart, a PIL image of size x size pixels."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (size, size), "white")
    pen, margin = ImageDraw.Draw(image), size // 14
    base, inside = size - margin, size - 2 * margin
    pen.line([(margin, margin), (margin, base), (base, base)], fill="black")
    step = inside / len(chart.bars)
    for place, (colour, height) in enumerate(chart.bars):
        left, top = margin + (place + 0.15) * step, base - height * inside / 13
        pen.rectangle([left, top, left + 0.7 * step, base], fill=COLOURS[colour])
    return image
