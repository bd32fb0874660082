"""The stored samples of the specialists: complete, solvable, not passed by luck."""

import json
import math
import os.path
import re
from collections import Counter
from pathlib import Path

import pytest

from qwen_course import answers, catalog, tasks

ROOT = Path(__file__).resolve().parent.parent
LANGUAGES = ["en", "es", "fr", "de", "el", "ru", "tr", "sw", "ar", "hi", "zh", "ja"]
FUNCTIONS, ALGEBRA = tasks.samples("functions"), tasks.samples("algebra")
WRONG = {  # mistakes that a model makes: each must fail
    "count_vowels": (
        "return sum(text.count(v) for v in 'aeiou')",
        "return len(set(text.lower()) & set('aeiou'))",
    ),
    "sum_of_digits": (
        "return sum(map(int, str(n)))",
        "return n % 10 + n // 10",
    ),
    "is_leap_year": (
        "return year % 4 == 0",
        "return year % 4 == 0 and year % 100 != 0",
    ),
    "clamp": ("return max(value, low)", "return min(low, max(value, high))"),
    "unique_in_order": (
        "return sorted(set(items))",
        "return [x for i, x in enumerate(items) if x not in items[i + 1:]]",
    ),
    "second_largest": (
        "return sorted(numbers)[-2] if len(numbers) > 1 else None",
        "return sorted(set(numbers))[-2]",
    ),
    "binary_to_decimal": (
        "return int(bits, 2)",
        "return sum(int(b) << i for i, b in enumerate(bits))",
    ),
    "chunk": (
        "return [items[i:i + size] for i in range(0, len(items) - size + 1, size)]",
        "return [items[i::size] for i in range(size)]",
    ),
    "rotate_left": (
        "return items[steps:] + items[:steps]",
        "return items[-steps % len(items):] + items[:-steps % len(items)]",
    ),
    "title_case": (
        "return text.title()",
        "return ' '.join(w[:1].upper() + w[1:] for w in text.split(' '))",
    ),
    "binary_search": (
        "return arr.index(target)",
        "low, high = 0, len(arr) - 1\n    while low < high:\n"
        "        m = (low + high) // 2\n        if arr[m] == target: return m\n"
        "        low, high = (m + 1, high) if arr[m] < target else (low, m - 1)\n"
        "    return -1",
    ),
    "is_balanced": (
        "return all(text.count(a) == text.count(b) for a, b in ('()', '[]', '{}'))",
        "return text.count('(') == text.count(')')",
    ),
    "median": (
        "return sorted(numbers)[len(numbers) // 2]",
        "numbers.sort()\n    n = len(numbers)\n"
        "    return (numbers[n // 2] + numbers[~(n // 2)]) / 2",
    ),
    "merge_intervals": (
        "out = []\n    for a, b in intervals:\n        if out and a <= out[-1][1]:\n"
        "            out[-1] = (out[-1][0], b)\n        else:\n"
        "            out.append((a, b))\n    return out",
        "return sorted(set(intervals))",
    ),
    "flatten": (
        "return [y for x in items for y in x]",
        "return [y for x in items for y in (flatten(x) if isinstance(x, (list, tuple))"
        " else [x])]",
    ),
}


def head(problem: tasks.Problem) -> str:
    """The name and the arguments that a question asks for, such as f(xs)."""
    return problem.question.split("`")[1]


def fails(code: str, tests: str) -> bool:
    """Whether our own code fails its tests; run here, since a sandbox takes longer."""
    space = {}
    exec(code, space)
    try:
        exec(tests, space)
    except Exception:
        return True
    return False


@pytest.mark.parametrize("task", ["functions", "algebra"])
def test_forty_questions_all_different(task):
    problems = tasks.samples(task)
    assert len({problem.question for problem in problems}) == len(problems) == 40
    assert {problem.task for problem in problems} == {task}
    assert all(problem.answer and 1 <= problem.level <= 3 for problem in problems)


def test_functions_have_the_form_that_the_lesson_needs():
    assert Counter(p.level for p in FUNCTIONS) == {1: 15, 2: 15, 3: 10}
    assert "binary_search(arr, target)" in map(head, FUNCTIONS)
    for problem in FUNCTIONS:
        assert problem.question.startswith("Write a Python function `")
        assert problem.answer.startswith(f"def {head(problem)}:\n")
        assert 3 <= len(problem.answer.splitlines()) <= 15
        asserts = [line for line in problem.tests.splitlines() if "assert " in line]
        assert 5 <= len(asserts) <= 8
        assert "import" not in problem.answer + problem.tests


def test_each_reference_solution_passes_its_hidden_tests():
    for problem in FUNCTIONS:
        verdict = answers.run_python(problem.answer, problem.tests)
        assert verdict.passed, f"{head(problem)}: {verdict.reason}"


@pytest.mark.parametrize("value", ["None", "0", "[]", "''", "True", "args[0]"])
def test_a_function_that_does_nothing_fails(value):
    for problem in FUNCTIONS:
        name = head(problem).partition("(")[0]
        code = f"def {name}(*args):\n    return {value}"
        assert fails(code, problem.tests), name
        assert not fails(problem.answer, problem.tests)


@pytest.mark.parametrize("name", WRONG)
def test_typical_wrong_solutions_fail(name):
    problem = next(p for p in FUNCTIONS if head(p).startswith(f"{name}("))
    for body in WRONG[name]:
        assert fails(f"def {head(problem)}:\n    {body}", problem.tests), body


def test_algebra_is_what_its_recipe_writes(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "data" / "recipes"))
    import algebra
    import samples

    written = "".join(map(samples.line, algebra.stored()))
    assert written == catalog.text("samples/algebra.jsonl")


def test_algebra_starts_with_the_questions_of_the_source_document():
    function = "f(x) = x^3 + 2x^2 - 5x + 3"
    assert [(p.question, p.answer) for p in ALGEBRA[:2]] == [
        (f"Find the derivative of {function}", "3*x^2 + 4*x - 5"),
        (
            f"Find the critical points of {function}",
            "(-2 + sqrt(19))/3, (-2 - sqrt(19))/3",
        ),
    ]


def value(text: str, x: float) -> float:
    """What an expression of a question or an answer is worth at x."""
    text = re.sub(r"(?<=[\dx)])(?=[x(])", "*", text.replace("^", "**"))
    return eval(text.replace("sqr*t", "sqrt"), {"x": x, "sqrt": math.sqrt})


def test_algebra_answers_are_right_when_numbers_are_put_in():
    kinds = Counter()
    for problem in ALGEBRA:
        kind, _, rest = problem.question.partition(" ")
        if kind == "Solve":
            left, right = rest.removeprefix("the equation ").split(" = ")
            found = [value(part, 0) for part in problem.answer.split(", ")]
            assert all(abs(value(left, x) - value(right, x)) < 1e-9 for x in found)
            kind = f"{len(found)} of {len(set(found))}"
        elif kind == "Expand":
            assert "(" not in problem.answer
            for x in (-2, 0, 1, 3.5):
                assert value(rest, x) == value(problem.answer, x)
        elif "derivative" in rest:
            function = rest.partition(" = ")[2]
            for x in (-2, 0, 1, 3.5):
                slope = (value(function, x + 1e-5) - value(function, x - 1e-5)) / 2e-5
                assert abs(slope - value(problem.answer, x)) < 1e-5
        else:
            kind = "other"
        kinds[kind] += 1
    assert kinds == {"Find": 10, "Expand": 8, "1 of 1": 8, "2 of 2": 6, "other": 8}
    assert any("/" in p.answer for p in ALGEBRA if p.question.startswith("Solve"))
    assert sum("sqrt" in p.answer for p in ALGEBRA) == 4


def test_the_problems_in_words_are_worked_out():
    numbers = [list(map(int, re.findall(r"\d+", p.question))) for p in ALGEBRA[-7:]]
    speed, cinema, area, coat, three, ages, tank = numbers
    wanted = [
        speed[0] / speed[1],
        cinema[0] * cinema[2] + cinema[1],
        area[0] * (area[1] / 2 - area[0]),
        coat[0] * (100 - coat[1]) / 100,
        three[0] / 3 + 1,
        (ages[1] + ages[0]) / 2,
        tank[0] / (tank[1] - tank[2]),
    ]
    assert [int(problem.answer) for problem in ALGEBRA[-7:]] == wanted


def test_every_language_has_every_question():
    stored = json.loads(catalog.text("samples/languages.json"))
    assert list(stored["sentence"]) == LANGUAGES
    questions = stored["questions"]
    assert len({q["id"] for q in questions}) == len(questions) == 12
    assert len({q["answer"] for q in questions}) == 12
    for question in questions:
        assert list(question["text"]) == LANGUAGES
        english = re.findall(r"\d+", question["text"]["en"])
        for text in question["text"].values():
            given = [n for n in re.findall(r"\d+", text) if n != "1"]  # ja: 1 week
            assert sorted(given) == sorted(english)
            assert str(question["answer"]) not in given
    for code in LANGUAGES:  # the same instruction ends all questions of a language
        backwards = [question["text"][code][::-1] for question in questions]
        assert len(set(backwards)) == 12
        assert len(os.path.commonprefix(backwards)) >= len("数字で答えて")


def test_the_readme_names_origin_and_licence():
    rows = (ROOT / "data" / "README.md").read_text("utf-8").splitlines()
    for name in ("functions.jsonl", "algebra.jsonl", "languages.json"):
        row = next(row for row in rows if row.startswith(f"| `samples/{name}`"))
        assert "Apache-2.0" in row
    assert "not checked by native speakers" in row
