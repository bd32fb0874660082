"""show and plots: curves with intervals, the thought scrubber, the fold of a stream."""

import ipykernel  # noqa: F401 (what makes a process a notebook)
import ipywidgets as widgets
import matplotlib.pyplot as plt
import pytest
from tiny import scripted

from qwen_course import generate, show
from qwen_course.errors import CourseError
from qwen_course.generate import Settings

HI = [{"role": "user", "content": "Hi"}]
THOUGHT = "<think>\nlet me see\n</think>\n\nFour <b>."
POINTS = [(0, 2, 20), (8, 10, 20), (16, 20, 20)]


def test_a_curve_tells_its_numbers():
    picture = show.curve({"with": POINTS, "without": POINTS[:2]}, "steps", "Two", 0.1)
    assert picture.alt.splitlines() == [
        "Two by steps",
        "with: 0: 0.10, 8: 0.50, 16: 1.00",
        "without: 0: 0.10, 8: 0.50",
    ]
    assert picture.png[1:4] == b"PNG"


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        (0, "cut after 0 of 3 tokens: answers 7, wrong"),
        (3, "cut after 3 of 3 tokens: answers 4, right"),
    ],
)
def test_the_scrubber_tells_where_the_answer_changes(kept, told):
    thought, given = ["1+", "3=4", ".\n"], ["7", "7", "4", "4"]
    picture = show.scrubber(thought, given, "4", kept, POINTS)
    assert told in picture.alt
    assert "changes at 2 tokens" in picture.alt
    assert "0: 0.10" in picture.alt


def stream(**options):
    wanted = Settings(max_new_tokens=99, **options)
    return generate.stream(scripted(THOUGHT), HI, wanted)


def test_a_stream_is_printed_with_its_kinds(monkeypatch, capsys):
    monkeypatch.setenv("QWEN_COURSE_LIVE", "0")
    reply = show.write(stream())
    assert reply.text == "Four <b>."
    assert capsys.readouterr().out == "[thinking]\nlet me see\n[answer]\nFour <b>.\n"


@pytest.mark.parametrize(
    ("options", "title"),
    [
        ({}, "thought, 12 tokens"),
        ({"thinking_budget": 4}, "thought, 4 tokens, cut by the budget"),
    ],
)
def test_on_a_live_notebook_the_thought_folds(monkeypatch, capsys, options, title):
    monkeypatch.setenv("QWEN_COURSE_LIVE", "1")
    shown, opened = [], []
    monkeypatch.setattr("IPython.display.display", shown.append)
    old = widgets.HTML.__init__

    def html(self, *args, **kwargs):
        old(self, *args, **kwargs)
        self.observe(lambda change: opened.append(change["new"][:14]), "value")

    monkeypatch.setattr(widgets.HTML, "__init__", html)
    reply = show.write(stream(**options))
    (box,) = shown
    fold, answer = box.children
    assert opened.index("<details open>") < opened.index("<details><summ")
    assert fold.value.startswith(f"<details><summary>{title}</summary>")
    assert reply.thinking.strip() in fold.value
    if not options:
        assert "Four &lt;b&gt;." in answer.value
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("choice", "kind"), [
    ((1, 9, 2, 5), widgets.IntSlider), ((0.1, 1.0, 0.1, 0.5), widgets.FloatSlider),
])  # fmt: skip
def test_a_slider_of_fractions_gives_fractions(monkeypatch, choice, kind):
    monkeypatch.setenv("QWEN_COURSE_LIVE", "1")
    shown, drawn = [], []
    monkeypatch.setattr("IPython.display.display", shown.append)
    show.explore(lambda a: drawn.append(a), a=choice)
    slider = next(box for box in shown if isinstance(box, widgets.VBox))
    slider = slider.children[0].children[0]
    assert type(slider) is kind
    assert (slider.min, slider.max, slider.step, slider.value) == (
        choice[0], choice[1], choice[2], choice[3]
    )  # fmt: skip
    assert drawn == [choice[3]]


def test_a_dollar_is_a_token_and_no_formula():
    """Maths is full of them; one that is no formula would be an error."""
    same = [show.rivals([(0, [(text, 0.5), ("b", 0.3)])]) for text in ("$$", "$x$")]
    plain = show.rivals([(0, [("x", 0.5), ("b", 0.3)])])
    assert len({picture.png for picture in (*same, plain)}) == 3


def test_what_is_no_share_is_refused_before_anything_is_drawn():
    before = plt.get_fignums()
    for draw in (
        lambda: show.curve({"a": [(1, 0, 0)]}, "x"),
        lambda: show.curve({"a": [(1, 5, 4)]}, "x"),
        lambda: show.heat(["a"], ["b"], [[(5, 4)]]),
        lambda: show.table([]),
        lambda: show.table([{"a": 1, "b": 2}, {"a": 1}]),
    ):
        with pytest.raises(CourseError):
            draw()
    assert plt.get_fignums() == before


def test_without_a_thought_there_is_no_fold(monkeypatch):
    monkeypatch.setenv("QWEN_COURSE_LIVE", "1")
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    show.write(generate.stream(scripted("Four."), HI, Settings(max_new_tokens=9)))
    (box,) = shown
    assert [part.value.count("Four.") for part in box.children] == [1]


def test_a_stream_that_was_read_says_how_to_get_another():
    pieces = stream()
    show.write(pieces)
    with pytest.raises(CourseError, match=r"was read is empty.*\n.*generate\.stream"):
        show.write(pieces)


def test_a_table_puts_each_value_under_its_heading():
    page = show.table([{"model": "A", "right": 9}, {"right": 1, "model": "B"}], "Two")
    assert str(page).splitlines() == ["Two", "model | right", "A | 9", "B | 1"]
