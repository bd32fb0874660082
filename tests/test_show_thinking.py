"""show and plots: curves with intervals, the thought scrubber, the fold of a stream."""

import ipykernel  # noqa: F401 (what makes a process a notebook)
import ipywidgets as widgets
import pytest
from tiny import scripted

from qwen_course import generate, show
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


def test_without_a_thought_there_is_no_fold(monkeypatch):
    monkeypatch.setenv("QWEN_COURSE_LIVE", "1")
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    show.write(generate.stream(scripted("Four."), HI, Settings(max_new_tokens=9)))
    (box,) = shown
    assert [part.value.count("Four.") for part in box.children] == [1]
