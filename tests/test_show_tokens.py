"""The picture of a text with its rivals, and its buttons, on made-up candidates."""

import sys

import pytest

from qwen_course import show

CANDIDATES = [("Oh", 0.5), (" a<b", 0.25), ("x" * 20, 0.1), ("\\n", 0.002)]


def grow(choices):
    """Three tokens, each with the same candidates; the first unless chosen."""
    taken = [*choices, 0, 0, 0][:3]
    return [(place, CANDIDATES) for place in taken]


def test_the_picture_tells_its_text():
    made = show.rivals(grow([0, 1]), "a title")
    assert made.png.startswith(b"\x89PNG")
    head, *lines = made.alt.splitlines()
    assert head.startswith("3 tokens with their rivals")
    assert lines[1] == "Oh 50%, [·a<b 25%], xxxxxxxxxxx… 10%, \\n <1%"
    assert [line.index("[") for line in lines] == [0, 8, 0]


@pytest.mark.parametrize(
    ("text", "p", "written"),
    [
        (" rain", 0.256, ("·rain", "26%")),
        ("an understanding", 1.0, ("an·understa…", "100%")),
        ("!", 0.0099, ("!", "<1%")),
        ("!", 0.01, ("!", "1%")),
    ],
)
def test_how_a_candidate_is_written(text, p, written):
    assert show.rival(text, p) == written


def test_without_a_front_end_it_is_the_picture_alone(monkeypatch):
    monkeypatch.setenv("QWEN_COURSE_LIVE", "0")
    made = show.branch(grow, "a title")
    assert made.alt == show.rivals(grow([])).alt


def live(monkeypatch, grow):
    """What `branch` displays on a live front end: the picture, texts, columns."""
    shown = []
    monkeypatch.setenv("QWEN_COURSE_LIVE", "1")
    monkeypatch.setattr("IPython.display.display", lambda *parts: shown.extend(parts))
    assert show.branch(grow) is None
    picture, box = shown
    assert isinstance(picture, show.Picture)
    return box.children


def test_a_click_branches(monkeypatch):
    texts, columns = live(monkeypatch, grow)
    buttons = [column.children for column in columns.children]
    assert [len(rows) for rows in buttons] == [4, 4, 4]
    assert [row.description for row in buttons[0]] == [
        "▶ Oh 50%", "·a<b 25%", "xxxxxxxxxxx… 10%", "\\n <1%"]  # fmt: skip
    buttons[1][1].click()
    assert "<b>1</b> OhOhOh" in texts.value
    assert "<b>2</b> Oh a&lt;bOh" in texts.value
    columns.children[0].children[2].click()  # a new branch starts from the last one
    columns.children[2].children[1].click()
    assert texts.value.endswith(f"<b>4</b> {'x' * 20}Oh a&lt;b")
    taken = [
        [row.description[0] == "▶" for row in c.children] for c in columns.children
    ]
    assert [rows.index(True) for rows in taken] == [2, 0, 1]


def test_a_button_is_its_bar(monkeypatch):
    texts, columns = live(monkeypatch, grow)
    classes = [set(row._dom_classes) for row in columns.children[0].children]
    assert [{"rival", "bar-50", "taken"}, {"rival", "bar-25"}] == classes[:2]
    for n in (0, 25, 50, 100):
        assert f".bar-{n} {{--bar: {n}%}}" in texts.value
    assert "<script" not in texts.value


def test_widgets_are_imported_only_for_somebody(monkeypatch):
    monkeypatch.setenv("QWEN_COURSE_LIVE", "0")
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    assert show.branch(grow).alt
