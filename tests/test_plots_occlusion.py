"""The occlusion map, on a made-up picture and made-up falls."""

import io

import numpy as np
from PIL import Image

from qwen_course import show

UNDER = [["", "red"], ["blue", "blue"]]
WHITE = Image.new("RGB", (40, 40), "white")


def test_the_map_tells_the_strongest_cells():
    falls = [[-0.1, 0.25], [0.0, 0.9]]
    made = show.occlusion(WHITE, falls, "blue", UNDER, "Which bar is tallest?")
    assert made.alt.splitlines() == [
        "Which bar is tallest?",
        "Cells whose cover lowers 'blue' most:",
        "row 2, column 2, over blue: 0.90",
        "row 1, column 2, over red: 0.25",
        "row 2, column 1, over blue: 0.00",
    ]


def test_a_rise_and_an_empty_cell_are_told():
    tall = WHITE.resize((40, 80))
    made = show.occlusion(tall, [[-0.2], [-0.3]], "2", [[""], [""]])
    assert made.alt.startswith("Cells whose cover lowers '2' most:")
    assert "row 1, column 1, over nothing: -0.20" in made.alt


def test_a_cell_that_counts_is_darker():
    def light(fall):
        made = show.occlusion(WHITE, np.full((2, 2), fall), "blue", UNDER)
        return np.asarray(Image.open(io.BytesIO(made.png)).convert("L")).mean()

    assert light(0.9) < light(0.1) - 10
