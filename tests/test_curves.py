"""Pictures of tuning: what their texts say, what they draw, what they refuse."""

import io
import math
import re
from html import unescape
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fakes import qwen_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import near
from PIL import Image

from qwen_course import answers, curves, masking, plots, show
from qwen_course.errors import CourseError
from qwen_course.plots import COLOURS

NAN, INF = float("nan"), float("inf")
TABLE = [
    {"task": "tool", "run": "base", "k": 0, "n": 100},
    {"task": "tool", "run": "tuned", "k": 100, "n": 100},
    {"task": "maths", "run": "base", "k": 97, "n": 100},
    {"task": "maths", "run": "tuned", "k": 3, "n": 100},
]
POINTS = [(0, 0, 40), (100, 30, 40), (25, 8, 40)]
MESSAGES = [
    {"role": "user", "content": "What is the sum of 1 and 2?"},
    {"role": "assistant", "content": "3 <b>\nIt is."},
]


def rows(*values):
    """Rows of a training, as `History.losses` holds them."""
    return [
        {"step": step, "loss": value, "learning_rate": 0.1 / step}
        for step, value in enumerate(values, 1)
    ]


def history(values, held=(), best_step=None, stopped="finished"):
    """What the pictures read of a `training.History`."""
    evaluations = tuple({"step": step, "loss": loss} for step, loss in held)
    return SimpleNamespace(
        losses=tuple(rows(*values)), evaluations=evaluations, stopped=stopped,
        best_step=len(values) if best_step is None else best_step,
    )  # fmt: skip


def matrices(rank=3):
    """W, A and B of a layer, seeded."""
    numbers = np.random.default_rng(0)
    shapes = (24, 10), (rank, 10), (24, rank)
    return [numbers.normal(size=shape) for shape in shapes]


def every_picture():
    return [
        curves.losses(history([4, 2, 1], [(2, 2.5), (3, 2.25)]), "A curve"),
        curves.before_after(TABLE, "Gained and lost"),
        curves.low_rank(*matrices(), 2.0, "A layer"),
        curves.by_number({"tuned": POINTS}, "examples", "Many"),
    ]


def test_show_passes_them_on():
    for name in ("losses", "before_after", "low_rank", "by_number"):
        assert getattr(show, name) is getattr(curves, name)


@pytest.fixture(scope="module")
def pictures():
    return every_picture()


def test_the_same_data_give_the_same_picture(pictures):
    for first, second in zip(pictures, every_picture(), strict=True):
        assert (first.png, first.alt) == (second.png, second.alt)


def test_pictures_fit_a_notebook(pictures):
    for picture in pictures:
        assert Image.open(io.BytesIO(picture.png)).width < 1100
        assert len(picture.png) < 60_000


def test_no_figure_stays_open():
    import matplotlib.pyplot as plt

    open_before = plt.get_fignums()
    for wrong in (TABLE[0] | {"k": 101}, TABLE[0] | {"n": 0}):
        with pytest.raises(CourseError):
            curves.before_after([wrong])
    curves.losses(rows(1))
    assert plt.get_fignums() == open_before


# losses


def test_a_curve_tells_first_last_lowest_and_kept():
    held = [(2, 2.5), (4, 2.75)]
    made = curves.losses(history([4, 2, 1, 1.5], held, best_step=2), "A curve")
    assert made.alt.splitlines() == [
        "A curve",
        "4 steps, loss 4 at first, 1.5 at last, lowest 1 at step 3; "
        "validation 2.8 at last, lowest 2.5 at step 2; "
        "kept are the weights of step 2",
    ]


def test_several_curves_each_have_a_line_and_a_name():
    made = curves.losses({"slow": rows(3, 2), "fast": history([3, 1], best_step=2)})
    slow, fast = made.alt.splitlines()
    assert slow == "slow: 2 steps, loss 3 at first, 2 at last, lowest 2 at step 2"
    assert fast.startswith("fast: 2 steps")
    assert fast.endswith("kept are the weights of step 2")
    assert min(near(made, COLOURS["line"]), near(made, COLOURS["warn"])) > 50


@pytest.mark.parametrize(
    ("values", "stopped", "told"),
    [
        ([3, 2, NAN], "diverged", "loss 3 at first, nan at last, lowest 2 at step 2"),
        ([3, INF, 9], "finished", "diverged at step 2"),
        ([NAN], "diverged", "1 steps, loss nan at first, nan at last; kept"),
        ([3, 9], "diverged", "diverged at step 2"),  # its gradient was not finite
        ([3, 2], "early", "2 steps"),
    ],
)
def test_a_diverged_run_is_drawn_and_told(values, stopped, told):
    made = curves.losses(history(values, best_step=0, stopped=stopped))
    assert told in made.alt
    assert ("diverged" in made.alt) == (stopped != "early")
    assert "kept are the weights of step 0" in made.alt


@given(st.lists(st.floats(0, 1e30) | st.just(NAN) | st.just(INF), min_size=1))
@settings(max_examples=5, deadline=None)
def test_any_losses_make_a_picture(values):
    finite = [value for value in values if np.isfinite(value)]
    told = curves.losses(rows(*values)).alt
    assert ("lowest" in told) == bool(finite)
    assert ("diverged" in told) == (len(finite) < len(values))


@pytest.mark.parametrize(("lowest", "kind"), [(0.3, "linear"), (0.2, "log")])
def test_the_scale_is_logarithmic_beyond_a_factor_of_20(monkeypatch, lowest, kind):
    drawn = []
    monkeypatch.setattr(plots, "Picture", lambda figure, alt: drawn.append(figure))
    curves.losses(rows(5.0, 3.0, lowest))
    assert drawn[0].axes[0].get_yscale() == kind


def test_every_learning_rate_is_inside_its_panel(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "Picture", lambda figure, alt: drawn.append(figure))
    low = rows(3.0, 2.0, 1.0)
    high = [row | {"learning_rate": 5.0} for row in low]
    curves.losses({"low": low, "high": high})
    assert drawn[0].axes[-1].get_ylim()[1] >= 5.0


@pytest.mark.parametrize(
    "data", [[], {}, {"a": []}, history([]), [{"step": 1}], [{"loss": 2.0}]]
)
def test_what_is_no_curve_is_refused(data):
    with pytest.raises(CourseError, match="must be rows of step and loss") as error:
        curves.losses(data)
    assert "finetune.train" in error.value.hint


# before_after


def test_each_task_tells_shares_intervals_and_changes():
    assert curves.before_after(TABLE, "Gained and lost").alt.splitlines() == [
        "Gained and lost",
        "tool, n = 100: base 0.00 [0.00, 0.04]; tuned 1.00 [0.96, 1.00] +100 points",
        "maths, n = 100: base 0.97 [0.92, 0.99]; tuned 0.03 [0.01, 0.08] −94 points",
    ]


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=5, deadline=None)
def test_a_change_is_told_only_where_intervals_part(before, after):
    table = [{"task": "a", "run": str(k), "k": k, "n": 60} for k in {before, after}]
    told = curves.before_after(table).alt
    if before != after:
        low, high = sorted((before, after))
        most, least = answers.interval(low, 60)[1], answers.interval(high, 60)[0]
        assert ("points" in told) == (least > most)
        assert ("≈ same" in told) == (least <= most)


def test_gains_and_losses_have_their_colours():
    made = curves.before_after(TABLE)
    swapped = curves.before_after([row | {"k": 50} for row in TABLE])
    for name in ("assistant", "warn"):
        assert near(made, COLOURS[name]) > near(swapped, COLOURS[name]) + 500


def test_what_was_not_measured_is_told_and_n_may_differ():
    table = [*TABLE[:3], {"task": "code", "run": "tuned", "k": 1, "n": 2000}]
    told = curves.before_after([*table, TABLE[1] | {"run": "more", "n": 400}]).alt
    assert "maths, n = 100: base 0.97 [0.92, 0.99]; tuned not measured" in told
    assert "code, n = 2,000: base not measured; tuned 0.00 [0.00, 0.00]" in told
    assert told.startswith("tool, n = 100 or 400")


def test_more_than_four_tasks_go_on_below():
    many = [row | {"task": f"task {n}"} for n in range(6) for row in TABLE[:2]]
    small, large = (
        Image.open(io.BytesIO(curves.before_after(table).png))
        for table in (TABLE, many)
    )
    assert large.height > 1.6 * small.height
    assert large.width == pytest.approx(small.width, abs=20)


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ([], "dicts of task, run, k and n"),
        ([{"task": "a", "run": "b", "k": 1}], "dicts of task, run, k and n"),
        ([TABLE[0], TABLE[0]], "two rows of one task"),
        ([TABLE[0] | {"k": 101}], "got 101 of 100"),
        ([TABLE[0] | {"n": 0}], "got 0 of 0"),
    ],
)
def test_a_table_that_is_none_is_refused(table, told):
    with pytest.raises(CourseError, match=told) as error:
        curves.before_after(table)
    assert error.value.hint


# low_rank


@pytest.mark.parametrize("rank", [1, 3, 10, 12])
def test_the_update_has_no_more_singular_values_than_the_rank(rank):
    told = curves.low_rank(*matrices(rank), 0.5, "A layer").alt.splitlines()
    assert told == [
        "A layer",
        f"W [24, 10] has 240 weights, A [{rank}, 10] and B [24, {rank}] "
        f"have {34 * rank}.",
        f"{min(rank, 10)} of 10 singular values of the update are above 0.",
    ]


def test_before_training_the_update_is_zero():
    w, a, b = matrices()
    told = curves.low_rank(w, a, 0 * b).alt
    assert "0 of 10 singular values of the update are above 0." in told


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_do_as_well_as_arrays_and_stay_as_they_are(dtype):
    tensors = [torch.tensor(m, dtype=dtype) for m in matrices()]
    tensors[1].requires_grad_(True)
    same = [tensor.detach().clone() for tensor in tensors]
    made = curves.low_rank(*tensors, 2.0)
    assert made.alt == curves.low_rank(*matrices(), 2.0).alt
    assert all(map(torch.equal, tensors, same))


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("change", [np.transpose, np.ravel, lambda m: m[:0]])
def test_shapes_that_do_not_fit_are_refused(place, change):
    parts = matrices()
    parts[place] = change(parts[place])
    with pytest.raises(CourseError, match=r"must be \[out, in\]"):
        curves.low_rank(*parts)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_weights_that_are_not_finite_are_refused(place):
    parts = matrices()
    parts[place][0, 0] = NAN
    with pytest.raises(CourseError, match="not finite"):
        curves.low_rank(*parts)


# by_number


def test_points_are_told_in_order():
    made = curves.by_number({"tuned": POINTS, "base": [(100, 1, 40)]}, "examples", "M")
    assert made.alt.splitlines() == [
        "M",
        "By examples:",
        "tuned: 0: 0.00, 25: 0.20, 100: 0.75",
        "base: 100: 0.03",
    ]


@pytest.mark.parametrize(
    "lines", [{}, {"a": []}, {"a": [(0, 1, 2)]}, {"a": [(-1, 1, 2), (3, 1, 2)]}]
)
def test_numbers_that_fit_no_log_scale_are_refused(lines):
    with pytest.raises(CourseError, match="numbers of 0 or more"):
        curves.by_number(lines, "examples")


@pytest.mark.parametrize(("right", "n"), [(5, 4), (0, 0), (-1, 3)])
def test_what_is_no_share_is_refused(right, n):
    with pytest.raises(CourseError, match=f"got {right} of {n}"):
        curves.by_number({"a": [(10, right, n)]}, "examples")


@pytest.mark.parametrize("ys", [[1, 1, 1], [0, 0.01, 0.02], [1, 0.5, 0]])
def test_names_beside_lines_never_overlap(ys):
    import matplotlib.pyplot as plt
    from matplotlib.text import Text

    figure, axes = plt.subplots(figsize=(9, 4))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    curves._name(axes, [(1, y, f"{y}\ntwo lines", "k") for y in ys])
    figure.canvas.draw()
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without its line
    plt.close(figure)
    places = sorted((box.y0, box.y1) for box in boxes)
    assert all(low[1] < high[0] + 2 for low, high in pairwise(places))


# mask


def test_the_mask_stars_what_counts_and_only_that():
    tokenizer = qwen_tokenizer("qwen3")
    row = masking.tokenize(tokenizer, [{"messages": MESSAGES}])[0]
    made = show.mask(tokenizer, row, "A title")
    title, head, *lines = made.text.splitlines()
    number = sum(label != masking.NOT_COUNTED for label in row.labels)
    assert title == "A title"
    told = f"{number} of {len(row.labels)} tokens count in the loss"
    assert head == f"{told} (lines with *)"
    starred = "".join(line.partition(" | ")[2] for line in lines if line[0] == "*")
    assert starred == "3 <b>\\nIt is.<|im_end|>"
    assert made.html.count(": counts'") == number
    assert made.html.count(": read only'") == len(row.labels) - number
    told = re.sub(r"<[^>]*>", "", made.html.partition("like this</code>")[2])
    assert unescape(told) == "".join(line.partition(" | ")[2] for line in lines)


def test_a_pair_of_ids_and_labels_will_do():
    tokenizer = qwen_tokenizer("qwen3")
    row = masking.tokenize(tokenizer, [{"messages": MESSAGES}])[0]
    pair = torch.tensor(row.input_ids), torch.tensor(row.labels)
    assert show.mask(tokenizer, pair).text == show.mask(tokenizer, row).text


@pytest.mark.parametrize("row", [([], []), ([1, 2], [1])])
def test_a_row_without_a_label_for_each_id_is_refused(row):
    with pytest.raises(CourseError, match="as many labels as ids"):
        show.mask(qwen_tokenizer("qwen3"), row)


def test_a_mask_takes_one_row():
    tokenizer = qwen_tokenizer("qwen3")
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    rows = masking.tokenize(tokenizer, [talk])
    for wrong in (rows, rows * 2, rows * 3, masking.collate(rows, 0)):
        with pytest.raises(CourseError, match=r"\n.*masking\.tokenize"):
            show.mask(tokenizer, wrong)


def test_a_training_that_diverged_before_its_first_check():
    nothing = history([2.0, math.nan], held=[(2, math.nan)])
    assert "validation" in show.losses(nothing).alt
    assert "lowest" not in show.losses(nothing).alt.partition("validation")[2]


def test_numbers_alone_are_no_curve():
    with pytest.raises(CourseError, match="rows of step and loss"):
        show.losses([1.5, 1.0])
