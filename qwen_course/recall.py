"""Three questions on earlier lessons: which ones, were they right, and why.

Knows the questions in `data/recall.toml` and one file in $QWEN_COURSE_HOME (default
~/.qwen_course) with what was answered when; knows no models and no notebooks.

The rule. A right answer lifts a question by one box, a wrong one puts it into box 0.
What was right rests: 7 days in box 1, 21 in box 2, 60 above. A quiz has

1. one that was wrong, the oldest,
2. one that was right and has rested, of the lowest box the oldest,
3. new ones, by turns from the latest lesson and from further back, where each lesson
   begins at a place of its own,
4. when these are used up: all others, lowest box first, then the oldest.

What the last quiz asked is left out. No lots are drawn: the same answers on the same
days give the same quiz.
"""

import functools
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import date, timedelta
from html import escape
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from qwen_course import catalog, kept
from qwen_course.errors import CourseError
from qwen_course.weights import is_live

QUESTIONS = 3
REST = (0, 7, 21, 60)  # days in box 0, 1, 2, and in 3 and above
BACK = 2  # how far the place further back moves with each lesson
UNKNOWN = "?"  # the letter for "I do not know"
HOW = 'Answer in a new cell, ? where you do not know: recall.answer("a b ?")'
State = dict[str, dict[str, Any]]
_unkept: dict[Path | None, State] = {}  # of this process, where no file can be written


@dataclass(frozen=True)
class Choice:
    """What can be chosen; `why` it is right, or which idea makes it wrong."""

    text: str
    why: str


@dataclass(frozen=True)
class Item:
    """A question, the section of an earlier lesson that answers it, its choices."""

    id: str
    lesson: str
    section: str
    question: str
    choices: tuple[Choice, ...]
    right: Choice

    def lettered(self) -> dict[str, Choice]:
        """Return the choices by letter."""
        return dict(zip("abcd", self.choices, strict=False))

    def turned(self, times: int) -> "Item":
        """Return the item with its choices moved on: no letter to learn by heart."""
        at = times % len(self.choices)
        return replace(self, choices=self.choices[at:] + self.choices[:at])


@dataclass(frozen=True, repr=False)
class Result:
    """What was chosen for each item, None for "I do not know"; and a note, if any."""

    items: tuple[Item, ...]
    chosen: tuple[Choice | None, ...]
    note: str = ""

    @property
    def right(self) -> int:
        """How many are right."""
        pairs = zip(self.items, self.chosen, strict=True)
        return sum(choice == item.right for item, choice in pairs)

    def __repr__(self) -> str:
        """A verdict for each, why a choice is wrong, and why another one is right."""
        lines = [f"{self.right} of {len(self.items)} right", *filter(None, [self.note])]
        pairs = zip(self.items, self.chosen, strict=True)
        for number, (item, choice) in enumerate(pairs, 1):
            verdict = "right" if choice == item.right else "not yet"
            lines.append(f"\n{number}. {verdict}: {item.question}")
            if choice and choice != item.right:
                lines.append(f"   You said: {choice.text}\n   {choice.why}")
            place = f"(lesson {item.lesson}, section {item.section})"
            lines.append(f"   Right: {item.right.text}\n   {item.right.why} {place}")
        return "\n".join(lines)


@dataclass(frozen=True, repr=False)
class Quiz:
    """The questions that open a lesson; `recall.answer` takes the letters."""

    lesson: str
    items: tuple[Item, ...]

    def __repr__(self) -> str:
        """Questions with lettered choices, and how to answer."""
        lines = ["What do you remember? Decide first, then look."]
        for number, item in enumerate(self.items, 1):
            lines.append(f"\n{number}. {item.question} (lesson {item.lesson})")
            choices = item.lettered().items()
            lines += [f"   {letter}) {choice.text}" for letter, choice in choices]
        return "\n".join([*lines, f"\n{HOW}"])

    def _repr_html_(self, opens: bool = True) -> str:
        """Questions; their choices open and say why, without a kernel too."""
        parts = ["<b>What do you remember?</b> Decide first, then look.<ol>"]
        for item in self.items:
            asked = f"{escape(item.question)} <small>(lesson {item.lesson})</small>"
            parts.append(f"<li>{asked}")
            for letter, choice in item.lettered().items():
                text = f"{letter}) {escape(choice.text)}"
                verdict = "Right." if choice == item.right else "Not this one."
                fold = f"<details><summary>{text}</summary>{verdict} "
                fold += f"{escape(choice.why)}</details>"
                parts.append(fold if opens else f"<div>{text}</div>")
            parts.append("</li>")
        return "".join([*parts, f"</ol><small>{escape(HOW)}</small>"])

    def _ipython_display_(self) -> None:
        """Show the questions and, on a live front end, letters to press."""
        if not is_live():
            raise NotImplementedError  # IPython then takes text and HTML
        import ipywidgets as widgets
        from IPython.display import HTML, display

        rows = []
        for number, item in enumerate(self.items, 1):
            letters = [*item.lettered(), UNKNOWN]
            row = widgets.ToggleButtons(options=letters, value=None)
            row.description, row.style.button_width = f"{number}.", "3em"
            rows.append(row)
        button, told = widgets.Button(description="Check"), widgets.HTML()

        def check(_: Any) -> None:
            missing = [n for n, row in enumerate(rows, 1) if row.value is None]
            if missing:
                text = f"Choose for question {missing[0]} too: ? is I do not know."
            else:
                button.disabled = True
                text = repr(_judged(self, [row.value for row in rows], date.today()))
            told.value = f"<pre style='white-space:pre-wrap'>{escape(text)}</pre>"

        button.on_click(check)
        box = widgets.VBox([*rows, button, told])
        display(HTML(self._repr_html_(opens=False)), box)


def quiz(lesson: str, today: Callable[[], date] = date.today) -> Quiz:
    """Return three questions for the start of a lesson, such as "05a".

    They are of the lessons before it. A quiz stays until it is answered, and for the
    day of its answers: a notebook can be run again. The next one asks other questions.
    """
    items, day, lesson = _before(lesson), today(), str(lesson)
    with _state() as (state, _):
        open_ = state["quiz"]
        if open_.get("lesson") != lesson or open_["answered"] not in (None, f"{day}"):
            turns = dict.fromkeys((i.id for i in _chosen(items, state, day)), 0)
            turns |= {n: r["times"] for n, r in state["items"].items() if n in turns}
            state["quiz"] = {"lesson": lesson, "turns": turns, "answered": None}
        return _shown(state["quiz"])


def answer(*letters: str, today: Callable[[], date] = date.today) -> Result:
    """Return what is right and why, for the quiz that was asked last.

    Args:
        letters: one for each question, such as "b a d"; "?" where you do not know.
        today: the day that is kept with the answers.
    """
    with _state() as (state, _):
        quiz = state["quiz"]
    if not quiz:
        raise CourseError("No quiz was asked yet.", 'Ask first: recall.quiz("05a").')
    given = re.sub(r"[\s,;.]", "", "".join(map(str, letters))).lower()
    return _judged(_shown(quiz), [*given], today())


def _judged(quiz: Quiz, given: list[str], day: date) -> Result:
    """The result of a letter for each question; the first answers are kept."""
    if len(given) != len(quiz.items):
        rule = f"A quiz of {len(quiz.items)} questions takes as many letters"
        told = f"{rule}, got {len(given)}: {' '.join(given)!r}."
        raise CourseError(told, 'Write one for each, such as recall.answer("b a ?").')
    for number, (item, letter) in enumerate(zip(quiz.items, given, strict=True), 1):
        if letter not in [*(known := item.lettered()), UNKNOWN]:
            rule = f"Question {number} has the choices {', '.join(known)}"
            raise CourseError(f"{rule}, got {letter!r}.", "? is: I do not know.")
    pairs = [*zip(quiz.items, given, strict=True)]
    chosen = tuple(item.lettered().get(letter) for item, letter in pairs)
    result = Result(quiz.items, chosen)
    with _state() as (state, notes):
        same = [*state["quiz"].get("turns", ())] == [item.id for item in quiz.items]
        if same and state["quiz"]["answered"]:
            return replace(result, note="(Your first answers to this quiz count.)")
        if same:
            state["quiz"]["answered"] = f"{day}"
        for item, choice in zip(quiz.items, chosen, strict=True):
            old = state["items"].get(item.id, {"box": 0, "times": 0})
            box = old["box"] + 1 if choice == item.right else 0
            row = {"box": box, "times": old["times"] + 1, "day": f"{day}"}
            state["items"][item.id] = row
    return replace(result, note="".join(notes))


def _before(lesson: str) -> list[Item]:
    """All items of earlier lessons, in the order of the course."""
    items = [i for i in _items(catalog.data_dir()).values() if i.lesson < str(lesson)]
    if items and re.fullmatch(r"\d\d[a-z]?", str(lesson)):
        return items
    rule = f"A quiz opens a lesson after 00, such as '05a', got {lesson!r}."
    raise CourseError(rule, "Take the number in the notebook's name.")


@functools.cache
def _items(_: Path) -> dict[str, Item]:
    """Every item by its id, in the order of the course; one reading a data folder."""
    rows = tomllib.loads(catalog.text("recall.toml"))["item"]
    for row in rows:
        row["choices"] = tuple(Choice(*pair) for pair in row["choices"])
        row["right"] = row["choices"]["abcd".index(row["right"])]
    return {row["id"]: Item(**row) for row in rows}


def _chosen(items: list[Item], state: State, day: date) -> list[Item]:
    """Three items by the rule at the top of this module."""
    age = {name: (row["box"], row["day"]) for name, row in state["items"].items()}
    last = state["quiz"].get("turns", {})

    def rested(item: Item) -> bool:
        box, since = age[item.id]
        days = REST[min(box, len(REST) - 1)]
        return day >= date.fromisoformat(since) + timedelta(days)

    others = [item for item in items if item.id not in last]
    new = [item for item in others if item.id not in age]
    old = sorted((i for i in others if i.id in age), key=lambda i: age[i.id])
    wrong = [item for item in old if age[item.id][0] == 0][:1]
    right = [item for item in old if age[item.id][0] > 0 and rested(item)][:1]
    return [*dict.fromkeys([*wrong, *right, *_by_turns(new, items), *old])][:QUESTIONS]


def _by_turns(new: list[Item], before: list[Item]) -> list[Item]:
    """New items, by turns from the latest lesson and from further back."""
    latest = sorted(new, key=lambda item: item.lesson, reverse=True)
    lessons = [[*items] for _, items in groupby(before, lambda item: item.lesson)]
    first = [item for items in lessons for item in items[:2]]  # the next lesson's
    later = [item for items in lessons for item in items[2:]]
    at = BACK * len(lessons)
    back = [i for i in [*later[at:], *later[:at], *first] if i in new]
    return [*dict.fromkeys(chain.from_iterable(zip(latest, back, strict=True)))]


def _shown(quiz: dict[str, Any]) -> Quiz:
    """A kept quiz, letter for letter as it was asked."""
    items = _items(catalog.data_dir())
    shown = [items[name].turned(times) for name, times in quiz["turns"].items()]
    return Quiz(quiz["lesson"], tuple(shown))


@contextmanager
def _state() -> Iterator[tuple[State, list[str]]]:
    """Lend what is kept, to read or to change; then a note if it cannot be written."""
    path, notes = None, list[str]()
    with ExitStack() as stack:
        with suppress(OSError, RuntimeError):  # RuntimeError: nobody's home
            path = kept.place("recall.json")
        state, trouble = _unkept.get(path), None
        if path:
            try:
                stack.enter_context(kept.locked(path))
            except OSError as error:
                trouble = error
            try:
                state = state or kept.read(path, _meaning)
            except OSError as error:
                trouble = error
        state = state or _unkept.setdefault(path, {"items": {}, "quiz": {}})
        before = json.dumps(state)
        yield state, notes
        if path is None or json.dumps(state) == before:
            return
        try:
            if trouble:  # what another process or an unread file holds would be lost
                raise trouble
            kept.write(path, state)
            _unkept.pop(path, None)
        except OSError as error:
            _unkept[path] = state
            notes.append(f"(Your answers are not saved: {error})")


def _meaning(found: Any) -> State:
    """What the file holds."""
    state: State = {"items": {}, "quiz": {}}
    for name, row in found["items"].items():
        day = date.fromisoformat(row["day"]).isoformat()
        row = {"box": int(row["box"]), "times": int(row["times"]), "day": day}
        state["items"][name] = row
    quiz = found["quiz"]
    if quiz and {*quiz["turns"]} <= {*_items(catalog.data_dir())}:
        turns = {name: int(times) for name, times in quiz["turns"].items()}
        state["quiz"] = {"lesson": str(quiz["lesson"]), "turns": turns,
                         "answered": quiz["answered"]}  # fmt: skip
    return state
