"""Pictures of rounding and of speed: what their texts say, what they refuse."""

import numpy as np
import pytest
from pictures import near, pixels

from qwen_course import gauges, show
from qwen_course.errors import CourseError
from qwen_course.plots import COLOURS

WEIGHTS = np.random.default_rng(0).normal(size=(30, 20))
THOUGHT = ["2*3=6.", "6*2=13, keep 3.", "3*7=21, keep 1."]
POINTS = [("bf16", 0.99, 10.8), ("Q4_K_M", 0.4, 49.0)]
ROWS = [("int8", 2.61, 2.5, 2.74), ("cache", 0.98, 0.95, 1.01), ("fp32", 0.5, 0.4, 0.6)]


def halves(weights, bits):
    """Round to 2**bits - 1 levels, one scale, 0 in the middle."""
    step = np.abs(weights).max() / (2 ** (bits - 1) - 1)
    return np.round(weights / step) * step


def every_picture():
    rounded = halves(WEIGHTS, 3)
    return [
        gauges.bits(WEIGHTS, rounded, THOUGHT, 1, 3, "Three bits"),
        gauges.roofline(POINTS, 32.7, "Two cores"),
        gauges.bars(ROWS, "times faster", "What helped", 1.0),
    ]


def test_show_passes_them_on():
    assert (show.bits, show.bars) == (gauges.bits, gauges.bars)
    assert show.roofline is gauges.roofline


def test_the_same_data_give_the_same_picture():
    first, second = every_picture(), every_picture()
    assert [p.png for p in first] == [p.png for p in second]
    assert [p.alt for p in first] == [p.alt for p in second]


def test_bits_tells_levels_error_and_the_first_wrong_line():
    made = gauges.bits([0.0, 0.6, -1.0], [0, 1, -1], THOUGHT, 1, 2, "Two bits")
    assert made.alt.splitlines() == [
        "Two bits",
        "2 bits: 3 levels, relative error 0.343",  # 0.4 / sqrt(1.36)
        "✓ 2*3=6.",
        "✗ 6*2=13, keep 3.  <- first wrong line",
        "  3*7=21, keep 1.",
    ]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_levels_are_the_different_values_that_are_left(bits):
    rounded = halves(WEIGHTS, bits)
    number = len(set(rounded.ravel().tolist()))
    told = gauges.bits(WEIGHTS, rounded, [], None, bits).alt
    assert told.startswith(f"{bits} bits: {number} levels, relative error 0.")


def test_groups_with_scales_of_their_own_are_told():
    rounded = np.stack([halves(row, 2) for row in WEIGHTS])
    number = len(set(rounded.ravel().tolist()))
    assert number > 30  # one or two a group, and the 0 of all
    told = gauges.bits(WEIGHTS, rounded, [], None, 2).alt
    assert told.startswith(f"2 bits: {number} levels in all groups, ")


def test_weights_that_did_not_change_have_no_error():
    zeros = np.zeros(4)
    assert gauges.bits(zeros, zeros, [], None, 8).alt.endswith(
        "1 levels, relative error 0.000"
    )


def test_right_lines_are_all_ticked_and_no_mark_is_left():
    made = gauges.bits(WEIGHTS, WEIGHTS, ["$1 and $2", "", "x" * 99], None, 8)
    assert [line[0] for line in made.alt.splitlines()[1:]] == ["✓"] * 3
    assert "wrong" not in made.alt
    assert near(made, COLOURS["warn"]) == 0


def test_without_lines_the_picture_is_narrower():
    alone = gauges.bits(WEIGHTS, WEIGHTS, [], None, 8)
    beside = gauges.bits(WEIGHTS, WEIGHTS, THOUGHT, 0, 8)
    assert pixels(alone).shape[1] < 0.7 * pixels(beside).shape[1]
    assert near(beside, COLOURS["warn"]) > 50


@pytest.mark.parametrize(
    ("weights", "rounded", "wrong", "rule"),
    [
        ([], [], None, "got 0 and 0"),
        ([1.0, 2.0], [1.0], None, "got 2 and 1"),
        ([1.0], [float("nan")], None, "finite"),
        ([1.0], [1.0], 3, "a place in 3 lines, got 3"),
        ([1.0], [1.0], -1, "got -1"),
    ],
)
def test_bits_refuses(weights, rounded, wrong, rule):
    with pytest.raises(CourseError, match=rule):
        gauges.bits(weights, rounded, THOUGHT, wrong, 2)


def test_roofline_tells_a_line_a_point():
    assert gauges.roofline(POINTS, 32.7, "Two cores").alt.splitlines() == [
        "Two cores",
        "Roof: 32.7 GB/s, divided by the GB read for a token",
        "bf16: 10.8 tokens/s, 32.7% of the roof, 0.990 GB a token",
        "Q4_K_M: 49.0 tokens/s, 59.9% of the roof, 0.400 GB a token",
    ]


def test_a_point_above_the_roof_is_named_and_coloured():
    under, over = (gauges.roofline(POINTS, width) for width in (32.7, 16))
    assert "above" not in under.alt
    named = [line for line in over.alt.splitlines() if "above the roof" in line]
    assert len(named) == 1
    assert named[0].startswith("Q4_K_M: 49.0 tokens/s, 122.5% of the roof")
    assert "measure the bandwidth again" in named[0]
    assert near(under, COLOURS["warn"]) == 0 < 50 < near(over, COLOURS["warn"])


@pytest.mark.parametrize(("size", "speed"), [(0.002, 70), (0.37, 81), (100, 0.05)])
def test_the_share_is_speed_times_bytes_by_bandwidth(size, speed):
    told = gauges.roofline([("a", size, speed)], 20.0).alt
    assert f"{size * speed / 20:.1%} of the roof" in told
    assert ("above the roof" in told) == (size * speed > 20)


@pytest.mark.parametrize(
    ("points", "bandwidth"),
    [
        ([], 20),
        (POINTS, 0),
        (POINTS, float("nan")),
        ([("a", 0, 5)], 20),
        ([("a", 1, -5)], 20),
        ([("a", 1, float("inf"))], 20),
    ],
)
def test_roofline_refuses(points, bandwidth):
    with pytest.raises(CourseError, match="must be above 0"):
        gauges.roofline(points, bandwidth)


def test_bars_tell_every_number_and_what_is_below():
    assert gauges.bars(ROWS, "times faster", "What helped", 1.0).alt.splitlines() == [
        "What helped",
        "In times faster:",
        "int8: 2.61 [2.50, 2.74]",
        "cache: 0.980 [0.950, 1.01], below 1, 1 is within the interval",
        "fp32: 0.500 [0.400, 0.600], below 1",
    ]


def test_bars_without_a_reference_compare_nothing():
    made = gauges.bars([("a", -2.0, -3, 1234.5)], "tokens/s")
    assert made.alt.splitlines()[1:] == ["a: -2.00 [-3.00, 1,234]"]
    assert near(made, COLOURS["warn"]) == 0


@pytest.mark.parametrize(
    "rows", [[], [("a", 1, 2, 3)], [("a", 1, 0, 0.5)], [("a", float("nan"), 0, 1)]]
)
def test_bars_refuse(rows):
    with pytest.raises(CourseError, match="low end, high end, got"):
        gauges.bars(rows, "tokens/s")
