"""Recall: the item bank, the rule that chooses, what is kept, and how it looks."""

import contextlib
import json
import os
import random
import re
import subprocess
import sys
import tomllib
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_course import catalog, recall
from qwen_course.errors import CourseError

ROOT = Path(__file__).resolve().parent.parent
ROWS = tomllib.loads((ROOT / "data" / "recall.toml").read_text("utf-8"))["item"]
ITEMS = recall._items(catalog.data_dir())
NOTEBOOKS = {
    path.stem.partition("_")[0]: path
    for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))
}
LATER = [name for name in NOTEBOOKS if name > "00"]
START = date(2026, 11, 1)
each = pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)


@pytest.fixture(autouse=True)
def _nothing_in_memory(monkeypatch):
    monkeypatch.setattr(recall, "_unkept", {})


def on(day: int = 0):
    return {"today": lambda: START + timedelta(day)}


def letters(quiz: recall.Quiz, right: set[int]) -> str:
    """A letter for each question: right where its place is named, else wrong."""
    found = ""
    for place, item in enumerate(quiz.items):
        fits = [
            letter
            for letter, choice in item.lettered().items()
            if (choice == item.right) == (place in right)
        ]
        found += fits[0]
    return found


def file() -> Path:
    return Path(os.environ["QWEN_COURSE_HOME"]) / "recall.json"


# --- the bank -----------------------------------------------------------------------


def words(text: str) -> int:
    return len(text.split())


def test_ids_are_unique_and_in_the_order_of_the_course():
    ids = [row["id"] for row in ROWS]
    assert len({*ids}) == len(ids)
    assert len({row["question"] for row in ROWS}) == len(ROWS)
    lessons = [row["lesson"] for row in ROWS]
    assert lessons == sorted(lessons)
    assert all(row["id"].startswith(row["lesson"] + "-") for row in ROWS)


def test_every_lesson_has_items_and_every_later_one_two_quizzes_of_them():
    """Two: the one after a quiz must find three others."""
    counts = Counter(row["lesson"] for row in ROWS)
    taught = [name for name in NOTEBOOKS if name < "09"]
    assert {*taught} <= {*counts}
    assert {name: n for name, n in counts.items() if not 4 <= n <= 6} == {}
    for lesson in LATER:
        assert len(recall._before(lesson)) >= 2 * recall.QUESTIONS, lesson


@each
def test_item_is_complete_and_short(item):
    assert words(item.question) <= 30
    assert item.question.endswith("?")
    assert 3 <= len(item.choices) <= 4
    assert len({choice.text for choice in item.choices}) == len(item.choices)
    for choice in item.choices:
        assert 1 <= words(choice.text) <= 15
        assert 4 <= words(choice.why) <= 35
        assert choice.why.endswith((".", "?"))
    assert item.choices.count(item.right) == 1


@pytest.fixture(scope="module")
def core():
    """By lesson the numbers of its core sections."""
    found = {}
    for lesson, path in NOTEBOOKS.items():
        nb = nbformat.v4.reads(path.read_text("utf-8"))
        text = "\n".join(c.source for c in nb.cells if c.cell_type == "markdown")
        pattern = r"^## (\d+[a-z]?\.\d+) .*\(core\)$"
        found[lesson] = {*re.findall(pattern, text, re.MULTILINE)}
    return found


@each
def test_section_is_a_core_section_of_its_lesson(item, core):
    assert item.section in core[item.lesson]


def test_neither_place_nor_length_gives_the_answer_away():
    places = Counter(row["right"] for row in ROWS if len(row["choices"]) == 3)
    total = sum(places.values())
    assert all(0.25 <= places[letter] / total <= 0.42 for letter in "abc"), places
    longest = 0
    for item in ITEMS.values():
        lengths = sorted(len(choice.text) for choice in item.choices)
        longest += len(item.right.text) == lengths[-1] > lengths[-2]
    assert longest / len(ITEMS) < 0.45


@pytest.mark.parametrize("lesson", sorted({row["lesson"] for row in ROWS}))
def test_no_letter_is_right_in_a_whole_lesson(lesson):
    right = Counter(row["right"] for row in ROWS if row["lesson"] == lesson)
    assert max(right.values()) <= 3


# --- which are asked ----------------------------------------------------------------


@pytest.mark.parametrize("lesson", LATER)
def test_the_first_quiz_of_a_lesson_is_always_the_same(lesson, tmp_path, monkeypatch):
    first = recall.quiz(lesson, **on())
    assert len(first.items) == recall.QUESTIONS
    assert all(item.lesson < lesson for item in first.items)
    assert recall.quiz(lesson, **on(400)) == first
    monkeypatch.setenv("QWEN_COURSE_HOME", str(tmp_path / "another"))
    assert recall.quiz(lesson, **on(7)) == first


def test_new_ones_come_from_the_latest_lesson_and_from_further_back():
    asked = recall.quiz("05a", **on())
    assert [item.lesson for item in asked.items] == ["04c", "04a", "04c"]
    assert {item.lesson for item in recall.quiz("00b", **on()).items} == {"00"}
    assert recall.quiz("90", **on()).items[0].lesson == max(r["lesson"] for r in ROWS)


def test_the_capstone_comes_after_the_clinic_and_before_the_bonus():
    asked = recall.quiz("10", **on())
    assert [item.id for item in asked.items[::2]] == ["09b-parser", "09b-exclaim"]
    assert asked.items[1].lesson < "09"
    earlier = {row["lesson"] for row in ROWS} - {"10"}
    assert {i.lesson for i in recall._before("10")} == earlier
    assert len(recall._before("90")) == len(ROWS)


def test_the_stored_notebooks_repeat_no_question(tmp_path, monkeypatch):
    """Each is run with nothing answered; its letters are not all the same."""
    taught, asked = sorted({row["lesson"] for row in ROWS})[1:], Counter()
    for lesson in taught:
        monkeypatch.setenv("QWEN_COURSE_HOME", str(tmp_path / lesson))
        quiz = recall.quiz(lesson, **on())
        asked.update(item.id for item in quiz.items)
        assert len({*letters(quiz, {0, 1, 2})}) > 1, lesson
    assert asked.most_common(1)[0][1] == 1, asked.most_common(3)


@pytest.mark.parametrize("lesson", LATER)
def test_the_stored_notebook_shows_the_quiz_of_today_s_words(lesson):
    notebook = nbformat.read(NOTEBOOKS[lesson], as_version=4)
    (shown,) = (c.outputs[0].data for c in notebook.cells if c.id == "recall")
    quiz = recall.quiz(lesson, **on())
    assert shown["text/plain"] == repr(quiz)
    assert shown["text/html"] == quiz._repr_html_()


def test_a_quiz_stays_until_it_is_answered_and_for_that_day():
    first = recall.quiz("03", **on())
    assert recall.quiz("03", **on(9)) == first
    recall.answer(letters(first, {0, 1, 2}), **on(9))
    assert recall.quiz("03", **on(9)) == first
    following = recall.quiz("03", **on(10))
    assert not {*following.items} & {*first.items}


def test_one_that_was_wrong_one_that_has_rested_and_new_ones():
    first = recall.quiz("05a", **on())
    recall.answer(letters(first, {0}), **on())
    second = recall.quiz("05b", **on(1))
    recall.answer(letters(second, {0, 1, 2}), **on(1))
    third = recall.quiz("05c", **on(2))
    assert third.items[0].id == first.items[1].id  # was wrong, as the next one
    assert not {i.id for i in third.items[1:]} & {i.id for i in first.items}
    recall.answer(letters(third, {0, 1, 2}), **on(2))
    fourth = recall.quiz("06a", **on(7))  # box 1 rests for a week
    assert [i.id for i in fourth.items[:2]] == [first.items[2].id, first.items[0].id]
    old = {i.id for i in (*first.items, *second.items, *third.items)}
    assert fourth.items[2].id not in old


def test_a_right_answer_lifts_by_a_box_a_wrong_one_puts_back():
    day, boxes = 0, []
    first = recall.quiz("00b", **on()).items[0].id
    while len(boxes) < 5:
        quiz = recall.quiz("00b", **on(day))
        ids = [item.id for item in quiz.items]
        fails = first in ids and len(boxes) == 3
        right = {0, 1, 2} - ({ids.index(first)} if fails else set())
        recall.answer(letters(quiz, right), **on(day))
        if first in ids:
            row = json.loads(file().read_text())["items"][first]
            boxes.append(row["box"])
            assert row["times"] == len(boxes)
        day += 100
    assert boxes == [1, 2, 3, 0, 1]


def test_the_choices_move_on_each_time_an_item_is_asked():
    item = next(iter(ITEMS.values()))
    turned = [item.turned(times) for times in range(len(item.choices) + 1)]
    assert turned[-1] == turned[0] == item
    assert {*turned[1].choices} == {*item.choices}
    assert len({one.choices for one in turned}) == len(item.choices)
    assert all(one.right == item.right for one in turned)


steps = st.tuples(
    st.sampled_from(LATER),
    st.one_of(st.none(), st.sets(st.integers(0, 2))),  # None: left open
    st.integers(0, 30),  # days that pass
)


@settings(max_examples=60)
@given(history=st.lists(steps, max_size=25))
def test_never_the_same_item_twice_in_a_row(history, tmp_path_factory):
    """Whatever was asked and answered before: a new quiz has three other items."""
    folder, day, last = tmp_path_factory.mktemp("home"), 0, recall.Quiz("", ())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QWEN_COURSE_HOME", str(folder))
        for lesson, right, pause in history:
            quiz = recall.quiz(lesson, **on(day))
            ids = {item.id for item in quiz.items}
            assert len(ids) == recall.QUESTIONS
            assert all(item.lesson < lesson for item in quiz.items)
            if ids & {item.id for item in last.items}:
                assert quiz == last, "another quiz shares an item"
            if right is not None:
                told = recall.answer(letters(quiz, right), **on(day))
                assert told.right == len(right)
            last, day = quiz, day + pause


def test_a_year_of_quizzes_asks_every_item_and_the_hard_ones_more_often():
    """One learner, right in 8 of 10, but never on one item."""
    rng, seen, hard = random.Random(0), Counter(), "00-slice"
    for day in range(365):
        quiz = recall.quiz("90", **on(day))
        right = {n for n, i in enumerate(quiz.items) if rng.random() < 0.8}
        right -= {n for n, i in enumerate(quiz.items) if i.id == hard}
        recall.answer(letters(quiz, right), **on(day))
        seen.update(item.id for item in quiz.items)
    assert {*seen} == {*ITEMS}
    assert seen.most_common(1)[0][0] == hard


# --- answers ------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{0} {1} {2}", "{0}{1}{2}", "{0}, {1}; {2}\n"])
def test_letters_in_any_form(form):
    quiz = recall.quiz("02", **on())
    given = letters(quiz, {0, 2})
    for text in (form.format(*given), form.format(*given).upper()):
        told = recall.answer(text, **on())
        assert told.right == 2
    assert recall.answer(*given, **on()).right == 2


def test_a_result_explains_each_choice():
    quiz = recall.quiz("02", **on())
    told = recall.answer(letters(quiz, {0})[:2] + "?", **on())
    assert told.chosen[2] is None
    assert told.right == 1
    text = repr(told)
    assert text.startswith("1 of 3 right\n\n1. right: ")
    wrong = told.chosen[1]
    for said in (wrong.text, wrong.why, *(item.right.why for item in quiz.items)):
        assert said in text
    assert text.count("You said") == 1
    assert f"(lesson {quiz.items[0].lesson}, section {quiz.items[0].section})" in text


def test_only_the_first_answers_count():
    quiz = recall.quiz("02", **on())
    recall.answer(letters(quiz, {0, 1, 2}), **on())
    kept = file().read_text()
    again = recall.answer("???", **on(5))
    assert again.right == 0
    assert "first answers" in repr(again)
    assert file().read_text() == kept


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "got 0"),
        ("a b", "got 2: 'a b'"),
        ("abca", "got 4"),
        ("a x a", "Question 2 has the choices a, b, c"),
        ("a b 3", "got '3'"),
    ],
)
def test_a_wrong_answer_form_names_what_it_got(given, said):
    recall.quiz("02", **on())
    with pytest.raises(CourseError, match=re.escape(said)):
        recall.answer(given, **on())
    assert json.loads(file().read_text())["items"] == {}


def test_a_number_is_a_lesson_and_its_quiz_stays():
    assert recall.quiz(10) == recall.quiz(10) == recall.quiz("10")


def test_there_must_be_a_quiz_to_answer():
    with pytest.raises(CourseError, match=r'recall.quiz\("05a"\)'):
        recall.answer("a b c")


@pytest.mark.parametrize("lesson", ["00", "", "lora", "5a", 5, None, "05A "])
def test_an_unknown_lesson_is_named(lesson):
    with pytest.raises(CourseError, match=re.escape(f"got {lesson!r}")):
        recall.quiz(lesson)


# --- what is kept -------------------------------------------------------------------


def test_state_survives_a_restart():
    quiz = recall.quiz("05a", **on())
    program = """if True:
    from datetime import date
    from qwen_course import recall
    print(recall.answer("a b ?", today=lambda: date(2026, 11, 1)).items[0].id)
    """
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == quiz.items[0].id
    kept = json.loads(file().read_text())
    assert [*kept["items"]] == [item.id for item in quiz.items]
    assert kept["quiz"]["answered"] == "2026-11-01"
    assert not [*file().parent.glob("*.new")]


def good() -> dict:
    return {
        "items": {"00-stop": {"box": 1, "times": 1, "day": "2026-11-01"}},
        "quiz": {"lesson": "01", "turns": {"00-stop": 0}, "answered": None},
    }


def test_the_good_file_of_the_next_tests_is_good():
    file().parent.mkdir()
    file().write_text(json.dumps(good()))
    assert [item.id for item in recall.quiz("01", **on()).items] == ["00-stop"]


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[1]",
        b"null",
        b"\xff\xfe",
        b"{}",
        json.dumps(good() | {"items": {"00-stop": 3}}).encode(),
        json.dumps(good() | {"items": {"00-stop": {"box": 1}}}).encode(),
        json.dumps(good()).replace("2026-11-01", "yesterday").encode(),
        json.dumps(good()).replace('"box": 1', '"box": "high"').encode(),
        json.dumps(good() | {"quiz": {"turns": 5}}).encode(),
        json.dumps(good() | {"quiz": {"turns": {"00-stop": 0}}}).encode(),
    ],
)
def test_a_broken_file_is_put_aside(content):
    file().parent.mkdir()
    file().write_bytes(content)
    assert len(recall.quiz("01", **on()).items) == recall.QUESTIONS
    assert file().with_name("recall.json.broken").read_bytes() == content
    assert json.loads(file().read_text())["quiz"]["lesson"] == "01"


def test_a_file_that_vanishes_before_the_answer_is_no_fault():
    quiz = recall.quiz("01", **on())
    file().unlink()
    told = recall._judged(quiz, ["?"] * recall.QUESTIONS, on()["today"]())
    assert told.items == quiz.items


def test_an_item_that_the_course_no_longer_has_is_no_fault():
    file().parent.mkdir()
    old = json.loads(json.dumps(good()).replace("00-stop", "00-gone"))
    file().write_text(json.dumps(old))
    assert len(recall.quiz("01", **on()).items) == recall.QUESTIONS
    assert not file().with_name("recall.json.broken").exists()
    assert "00-gone" in json.loads(file().read_text())["items"]


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QWEN_COURSE_HOME", str(tmp_path / "file" / "below"))
    quiz = recall.quiz("02", **on())
    told = recall.answer(letters(quiz, {0}), **on())
    assert "not saved" in repr(told)
    assert told.right == 1
    following = recall.quiz("03", **on(1))  # in memory it goes on
    assert not {i.id for i in following.items} & {i.id for i in quiz.items}


def test_a_full_disk(monkeypatch):
    recall.quiz("01", **on())

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        quiz = recall.quiz("05a", **on())
        told = recall.answer(letters(quiz, {1}), **on())
        assert told.items == quiz.items
        assert "No space left" in repr(told)
    recall.quiz("05b", **on(1))
    kept = json.loads(file().read_text())  # space again: nothing was lost
    assert {*kept["items"]} == {item.id for item in quiz.items}


def test_without_a_folder_of_their_own_tests_write_nothing(monkeypatch, tmp_path):
    monkeypatch.delenv("QWEN_COURSE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    quiz = recall.quiz("02", **on())
    assert recall.answer("???", **on()).items == quiz.items
    assert not (tmp_path / "person").exists()
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    recall.quiz("02", **on())
    assert (tmp_path / "person" / ".qwen_course" / "recall.json").exists()


# --- how it looks -------------------------------------------------------------------


def test_a_quiz_as_text_and_as_html():
    quiz = recall.quiz("05a", **on())
    text, html = repr(quiz), quiz._repr_html_()
    for item in quiz.items:
        assert item.question in text
        for letter, choice in item.lettered().items():
            assert f"   {letter}) {choice.text}\n" in text
            assert choice.why not in text
    assert html.count("<details>") == sum(len(item.choices) for item in quiz.items)
    assert html.count("Right.") == recall.QUESTIONS
    assert html.count("<li>") == html.count("</li>") == recall.QUESTIONS
    assert 'recall.answer("a b ?")' in text


@each
def test_html_is_escaped(item):
    html = recall.Quiz("90", (item,))._repr_html_()
    bare = re.sub(r"</?(b|ol|li|small|details|summary)>", "", html)
    assert "<" not in bare
    assert ">" not in bare


def test_where_nobody_watches_a_quiz_is_shown_as_text_and_html():
    from IPython.core.interactiveshell import InteractiveShell

    quiz = recall.quiz("05a", **on())
    data, _ = InteractiveShell.instance().display_formatter.format(quiz)
    assert data == {"text/plain": repr(quiz), "text/html": quiz._repr_html_()}


@pytest.fixture
def live(monkeypatch):
    """What a live front end was given to show."""
    monkeypatch.setenv("QWEN_COURSE_LIVE", "1")
    shown: list = []
    monkeypatch.setattr("IPython.display.display", lambda *parts: shown.extend(parts))
    return shown


def test_on_a_live_front_end_letters_are_pressed(live):
    quiz = recall.quiz("05a")
    quiz._ipython_display_()
    page, box = live
    assert "<details>" not in page.data  # no look before the choice
    *rows, button, told = box.children
    assert [row.value for row in rows] == [None] * recall.QUESTIONS
    rows[0].value = "a"
    button.click()
    assert "Choose for question 2 too" in told.value
    with contextlib.suppress(FileNotFoundError):
        assert json.loads(file().read_text())["items"] == {}
    for row, letter in zip(rows, letters(quiz, {0, 1}), strict=True):
        row.value = letter
    button.click()
    assert "2 of 3 right" in told.value
    assert button.disabled
    kept = json.loads(file().read_text())["items"]
    assert [kept[item.id]["box"] for item in quiz.items] == [1, 1, 0]


def test_an_older_quiz_can_still_be_answered_by_its_buttons(live):
    recall.quiz("05a")._ipython_display_()
    recall.quiz("05b")
    *rows, button, _ = live[1].children
    for row in rows:
        row.value = recall.UNKNOWN
    button.click()
    kept = json.loads(file().read_text())
    assert len(kept["items"]) == recall.QUESTIONS
    assert (kept["quiz"]["lesson"], kept["quiz"]["answered"]) == ("05b", None)


@pytest.mark.parametrize("trouble", ["no locks here", "a folder in the lock's place"])
def test_what_cannot_be_locked_is_not_written_over(monkeypatch, capsys, trouble):
    """Some network folders know no locks, and sudo leaves a lock of its own."""
    recall.quiz("05a")
    recall.answer("???")
    before = file().read_text()
    assert len(json.loads(before)["items"]) == 3
    if trouble == "no locks here":

        def none(*_):
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr("fcntl.flock", none)
    else:
        file().with_suffix(".lock").unlink()
        file().with_suffix(".lock").mkdir()
    recall._unkept.clear()  # as in a new kernel
    capsys.readouterr()
    quiz = recall.quiz("05b")
    recall.answer(letters(quiz, {0}))
    assert file().read_text() == before
