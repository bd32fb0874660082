"""Exercises proven: wrong answers rejected, right ones accepted, no slip let by.

`tests/proofs/NN.toml` holds answers that learners would give: `right`, in other styles
than the solution's, and `wrong`, beside those in data/exercises. `says` are words of
the verdict that name the mistake.
"""

import ast
import tomllib
from pathlib import Path

import mutants
import pytest

from qwen_course import catalog, checks, sources

FOLDER = Path(__file__).resolve().parent / "proofs"
LESSONS = checks._lessons(catalog.data_dir())
EXERCISES = {name: task for tasks in LESSONS.values() for name, task in tasks.items()}
FILES = {
    lesson: tomllib.loads(path.read_text("utf-8"))
    for lesson in LESSONS
    if (path := FOLDER / f"{lesson}.toml").exists()
}
RIGHT, WRONG, NAMED = 10, 5, 3  # at least so many of each exercise
each = pytest.mark.parametrize("name", EXERCISES)


def rows(kind: str, name: str) -> list[dict[str, str]]:
    return [
        row
        for file in FILES.values()
        for row in file.get(kind, [])
        if row["exercise"] == name
    ]


def wrong(name: str) -> list[dict[str, str]]:
    given = [
        {"belief": w.belief, "source": w.source, "says": w.fragment}
        for w in EXERCISES[name].wrong
    ]
    return [*given, *rows("wrong", name)]


def different(programs: list[str]) -> int:
    """How many there are when comments and spaces do not count."""
    return len({ast.dump(ast.parse(program)) for program in programs})


def test_each_lesson_has_its_file_and_each_row_its_exercise():
    assert list(FILES) == list(LESSONS)
    assert {path.stem for path in FOLDER.iterdir()} == set(LESSONS)
    for lesson, file in FILES.items():
        for kind, keys in {
            "right": {"exercise", "style", "source"},
            "wrong": {"exercise", "belief", "source"},
            "equal": {"exercise", "mutant", "why"},
        }.items():
            for row in file.get(kind, []):
                assert row["exercise"] in LESSONS[lesson], row
                assert keys <= row.keys() <= keys | {"says"}, row
                assert all(text.strip() for text in row.values()), row


@each
def test_right_answers_in_other_styles_are_accepted(name):
    task, given = EXERCISES[name], rows("right", name)
    programs = [task.solution, *(row["source"] for row in given)]
    assert different(programs) == len(programs) > RIGHT
    for row in given:
        told = checks._judge(task, sources.define(task.name, row["source"]), 10)
        assert told.status == "correct", (row["style"], told)


@each
def test_wrong_answers_are_rejected_and_most_are_named(name):
    task, given, named = EXERCISES[name], wrong(name), 0
    own = {row.belief: row.fragment for row in task.wrong}
    assert different([row["source"] for row in given]) == len(given) >= WRONG
    for row in given:
        told = checks._judge(task, sources.define(task.name, row["source"]), 10)
        assert told.status in ("not yet", "your code raised"), (row["belief"], told)
        assert row.get("says", "") in told.message, (row["belief"], told)
        named += "says" in row
        if row["belief"] in own:  # those of the definitions are told apart, too
            others = {*own.values()} - {row["says"]}
            assert told.status == "not yet", (row["belief"], told)
            assert not any(other in told.message for other in others), told
    assert named >= NAMED
    assert named >= 0.6 * len(given)


@pytest.mark.mutants
@each
def test_no_slip_in_the_solution_passes_unless_it_is_right_too(name):
    known = {row["mutant"] for row in rows("equal", name)}
    assert set(mutants.passed(EXERCISES[name])) == known


def test_mutants_of_a_program():
    lines = ["def f(x):", '    """Text."""', "    if x < 3:", "        x += 1"]
    found = mutants.mutants("\n".join([*lines, "    return [x][0:]"]))
    assert sorted(name.partition(" ")[2] for name in found) == [
        "0 -> 1",
        "1 -> 2",
        "3 -> 4",
        "Add -> Sub",
        "Lt -> LtE",
        "condition turned round",
        "slice without its start",
        "without: if x < 3:",
        "without: return [x][0:]",
        "without: x += 1",
    ]
