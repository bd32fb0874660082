"""Problems have one right answer, splits never mix, checkers refuse what is wrong."""

import ast
import json
import math
import random
import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_course import answers, catalog, tasks
from qwen_course.errors import CourseError

LANGUAGE = ("chain", "maths", "code", "french", "echo", "tool")
STORED = (*LANGUAGE, "chain_of_one")
seeds = st.integers(0, 10**9)


def result_of(question: str) -> int:
    """The whole result of a chain, read from its words alone."""
    result = int(re.match(r"Start with (\d), ", question)[1])
    words = question.partition(", ")[2].partition(". What is the last digit?")[0]
    for word in words.replace("then ", "").split(", "):
        if word.startswith("add "):
            result += int(word.removeprefix("add "))
        else:
            number = {"double it": 2, "triple it": 3}.get(word)
            result *= number or int(word.removeprefix("multiply by "))
    return result


@given(seeds, st.integers(1, 12))
def test_a_chain_ends_in_the_last_digit_of_the_whole_result(seed, level):
    problem = tasks.chain(random.Random(seed), levels=[level])
    assert int(problem.answer) == result_of(problem.question) % 10
    lines = problem.thinking.split("\n")
    assert len(lines) == level == problem.level
    for line in lines:
        first, sign, second, result, keep = re.fullmatch(
            r"(\d)([+*])(\d)=(\d+)(?:, keep (\d))?\.", line
        ).groups()
        numbers = int(first), int(second)
        assert int(result) == (sum(numbers) if sign == "+" else math.prod(numbers))
        assert keep == (result[-1] if len(result) > 1 else None)


def test_the_wording_of_a_chain():
    told = {p.question for p in tasks.draw("chain", 130, held_out=False, levels=[1])}
    assert len(told) == 130
    assert "Start with 8, double it. What is the last digit?" in told
    longer = tasks.draw("chain", 1, seed=4, levels=[3])[0].question
    assert re.fullmatch(
        r"Start with \d, [^,]+, [^,]+, then [^,]+\. What is the last digit\?", longer
    )


def wanted(question: str, numbers: list[int]):
    """What the function of a code question returns, read from its words alone."""
    kept, change, name = re.fullmatch(
        r"Write a Python function f\(xs\): keep the (.*?)(?:, (.*))? and return the "
        r"(.*)\.",
        question,
    ).groups()
    limit = int(kept[-1]) if kept[-1].isdigit() else 0
    tests = {
        "even": lambda x: x % 2 == 0,
        "odd": lambda x: x % 2 == 1,
        "positive": lambda x: x > 0,
        "negative": lambda x: x < 0,
        "numbers greater": lambda x: x > limit,
        "numbers less": lambda x: x < limit,
        "multiples": lambda x: x % limit == 0,
    }
    (test,) = [f for word, f in tests.items() if kept.startswith(word)]
    n = int(re.search(r"\d|$", change or "")[0] or 0)
    changes = {
        "square": lambda x: x * x,
        "double": lambda x: 2 * x,
        "add": lambda x: x + n,
        "subtract": lambda x: x - n,
        "multiply": lambda x: x * n,
        "none": lambda x: x,
    }
    value = changes[(change or "none").split()[0]]
    collect = {"sum": sum, "product": math.prod, "list": list, "set": set}
    collect["sorted list"] = sorted
    return collect[name]([value(x) for x in numbers if test(x)])


@given(seeds, st.lists(st.integers(-30, 30), max_size=8))
def test_the_code_does_what_the_words_say(seed, numbers):
    problem = tasks.code(random.Random(seed))
    names: dict = {}
    exec(problem.answer, names)
    assert names["f"](numbers) == wanted(problem.question, numbers)


@pytest.mark.parametrize(
    ("english", "french"),
    [
        (
            "A grey boy finds two pretty houses.",
            "Un garçon gris trouve deux jolies maisons.",
        ),
        (
            "The pretty train buys the grey key.",
            "Le joli train achète la clé grise.",
        ),
        (
            "The flower draws a big blue boy.",
            "La fleur dessine un grand garçon bleu.",
        ),
    ],
)
def test_french_agrees(english, french):
    problems = tasks.draw("french", 3, seed=1)
    found = {p.question: p.answer for p in problems}
    assert found[f"Translate into French: {english}"] == french


@given(seeds)
def test_french_words_agree_in_number_and_gender(seed):
    problem = tasks.french(random.Random(seed))
    words = problem.answer.lower().rstrip(".").split()
    feminine = {row.split()[1] for row in tasks.NOUNS.split(",") if row.endswith("1")}
    heads = {row.split()[1] for row in tasks.NOUNS.split(",")}
    plural_determiners = {"les", "deux", "trois", "quatre"}
    starts = [i for i, word in enumerate(words) if word in
              plural_determiners | {"le", "la", "un", "une"}]  # fmt: skip
    assert len(starts) == 2
    for start in starts:
        phrase = words[start : start + 4]
        plural = phrase[0] in plural_determiners
        (head,) = [w for w in phrase if w in heads or w.removesuffix("s") in heads][:1]
        assert head.endswith("s") == plural
        if not plural:
            assert (phrase[0] in ("la", "une")) == (head in feminine)


@given(seeds)
def test_a_tool_call_is_json_with_words_of_the_question(seed):
    problem = tasks.tool(random.Random(seed))
    call = json.loads(problem.answer.split("\n")[1])
    assert set(call) == {"name", "arguments"}
    assert all(str(value) in problem.question for value in call["arguments"].values())


@given(seeds)
def test_an_echo_is_in_its_question(seed):
    problem = tasks.echo(random.Random(seed))
    assert problem.question == f"Repeat: {problem.answer}"


@pytest.mark.parametrize("task", LANGUAGE)
def test_the_split_never_mixes(task):
    rng = random.Random(0)
    trained_on = {tasks.training(task, rng).question for _ in range(300)}
    tested = {problem.question for problem in tasks.draw(task, 150)}
    assert len(tested) == 150
    assert all(map(tasks.held_out, tested))
    assert not tested & trained_on
    drawn = tasks.draw(task, 50, held_out=False)
    assert not {problem.question for problem in drawn} & tested


def test_the_same_seed_draws_the_same():
    assert tasks.draw("french", 20, seed=3) == tasks.draw("french", 20, seed=3)
    assert tasks.draw("french", 20, seed=3) != tasks.draw("french", 20, seed=4)


def test_about_one_question_in_ten_is_held_out():
    share = sum(tasks.held_out(str(i)) for i in range(5000)) / 5000
    assert 0.08 < share < 0.12


@pytest.mark.parametrize(
    ("task", "n", "options"),
    [
        ("cooking", 1, {}),
        ("chain", 131, {"held_out": False, "levels": [1]}),
        ("chain", 1, {"levels": [1]}),
    ],
)
def test_what_cannot_be_drawn_is_an_error(task, n, options):
    with pytest.raises(CourseError, match="What to do"):
        tasks.draw(task, n, **options)


@pytest.mark.parametrize("name", STORED)
def test_samples_are_held_out_and_belong_to_their_generator(name):
    problems = tasks.samples(name)
    assert len(problems) >= 130
    assert len({problem.question for problem in problems}) == len(problems)
    task = name.removesuffix("_of_one")
    assert {problem.task for problem in problems} == {task}
    if name == "chain_of_one":
        assert not any(map(tasks.is_for_tests, problems))
    else:
        assert all(map(tasks.is_for_tests, problems))
    assert problems[:20] == problems_of_recipe()[name][:20]


def problems_of_recipe():
    """What data/recipes/samples.py would write."""
    sys.path.insert(0, str(catalog.data_dir() / "recipes"))
    import samples

    return samples.stored()


def test_samples_that_are_not_there():
    with pytest.raises(CourseError, match="chain, "):
        tasks.samples("cooking")


@pytest.mark.parametrize("name", STORED)
def test_a_checker_takes_the_right_answer_and_refuses_others(name):
    problems = tasks.samples(name)
    for problem, other in zip(problems, problems[1:] + problems[:1], strict=True):
        right = problem.answer
        assert answers.solves(problem.task, f" {right}\n", right).passed
        if problem.task != "code" and other.answer != right:
            assert not answers.solves(problem.task, other.answer, right).passed
        assert not answers.solves(problem.task, "", right).passed


CODE = "def f(xs):\n    return [2 * x for x in xs if x > 3]"


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("def f(ys):\n    return [y + y for y in ys if y >= 4]", True),
        (f"Here it is:\n```python\n{CODE}\n```\nGood luck!", True),
        ("def f(xs):\n    return tuple(2 * x for x in xs if x > 3)", False),
        ("def f(xs):\n    return [2 * x for x in xs if x > 4]", False),
        ("def f(xs):\n    return [2 * x for x in xs", False),
        ("def f(xs):\n    raise ValueError", False),
        ("42", False),
    ],
)
def test_code_is_judged_by_what_it_returns(text, passed):
    assert answers.solves("code", text, CODE).passed == passed


CALL = '<tool_call>\n{"name": "go", "arguments": {"to": "Rome", "n": 2}}\n</tool_call>'


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ('<tool_call>{"arguments":{"n":2,"to":"Rome"},"name":"go"}</tool_call>', True),
        (CALL.replace("Rome", "Oslo"), False),
        (CALL.replace("2", '"2"'), False),
        (CALL + "\n" + CALL, False),
        (CALL.replace("}}", "}"), False),
        ("Rome", False),
    ],
)
def test_a_tool_call_is_judged_as_json(text, passed):
    assert answers.solves("tool", text, CALL).passed == passed


def test_a_task_is_only_a_standard_library_away():
    program = (
        "import sys, qwen_course.tasks as t; t.draw('chain', 5); print(sorted({'torch',"
        " 'transformers', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True,
                          text=True, check=True)  # fmt: skip
    assert ast.literal_eval(done.stdout) == []


@pytest.mark.parametrize("levels", [3, [], [0], [13], [20, 3], [1.5]])
def test_levels_must_be_numbers_of_operations(levels):
    with pytest.raises(CourseError, match=r"levels must be .*\n.*levels=\[3\]"):
        tasks.draw("chain", 2, levels=levels)


@pytest.mark.parametrize("levels", [{2, 3}, [2.0], 3.0, [[3]], 3, [], None, [True]])
def test_levels_are_numbers_of_operations(levels):
    with pytest.raises(CourseError, match="levels must be numbers of operations"):
        tasks.draw("chain", 2, levels=levels)


@pytest.mark.parametrize("name", ["chart", "cooking", "../samples/maths"])
def test_samples_name_what_is_stored(name):
    with pytest.raises(CourseError, match="No samples of") as caught:
        tasks.samples(name)
    assert "chart" not in caught.value.hint
    assert "maths" in caught.value.hint
