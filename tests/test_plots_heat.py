"""The heat map: shares, shares with intervals, cells that were not asked."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qwen_course import answers, show
from qwen_course.errors import CourseError


def test_the_text_is_a_table_of_what_is_written():
    cells = [[(10, 10), None], [0.125, (0, 10)]]
    made = show.heat(["coder", "router"], ["code", "maths"], cells, "Who knows what")
    assert made.alt.splitlines() == [
        "Who knows what",
        "| code | maths",
        "coder | 1.00 [0.72, 1.00] | not asked",
        "router | 0.12 | 0.00 [0.00, 0.28]",
    ]
    assert made.png[1:4] == b"PNG"


def test_without_a_title_the_columns_come_first():
    assert show.heat(["a"], ["b"], [[0.5]]).alt == "| b\na | 0.50"


@settings(max_examples=12)  # each draws a picture
@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_that_of_answers(cell):
    low, high = answers.interval(*cell)
    assert show.heat(["a"], ["b"], [[cell]]).alt.endswith(f"[{low:.2f}, {high:.2f}]")


def test_a_higher_share_is_darker_up_to_the_darkest():
    def light(share, darkest=1.0):
        made = show.heat(["a"], ["b"], [[share]], darkest=darkest)
        return np.asarray(Image.open(io.BytesIO(made.png)).convert("L")).mean()

    assert light(0.9) < light(0.5) - 10 < light(0.1) - 20
    assert light(0.4, darkest=0.4) == pytest.approx(light(0.9, darkest=0.4), abs=3)


@pytest.mark.parametrize("cells", [[], [[0.1]], [[0.1, 0.2], [0.3, 0.4]]])
def test_a_table_that_does_not_fit_its_names_is_told(cells):
    with pytest.raises(CourseError, match="1 rows of 2 values"):
        show.heat(["a"], ["b", "c"], cells)
