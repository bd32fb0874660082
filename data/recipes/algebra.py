"""Writes the stored samples of school algebra: `python data/recipes/algebra.py`.

The answers are sympy's, as plain text that `answers.same_expression` reads. No model of
this course was trained on any of these questions.
"""

import random

import sympy
from samples import line

from qwen_course import catalog, tasks

SEED = 0
X = sympy.Symbol("x")
CUBIC = X**3 + 2 * X**2 - 5 * X + 3
WORDS = (  # a question about three numbers, and what is zero for the right answer x
    (
        "A cyclist covers {a} km in {b} hours. What is her average speed in km/h?",
        "b*x - a",
    ),
    (
        "A cinema ticket costs {b} euros and a bag of popcorn costs {c} euros. "
        "How many euros do {a} tickets and one bag of popcorn cost?",
        "a*b + c - x",
    ),
    (
        "A rectangle is {b} cm wide and its perimeter is {a} cm. "
        "What is its area in square centimetres?",
        "2*b + 2*x/b - a",
    ),
    (
        "A coat costs {a} euros. Its price falls by {b}0 percent. "
        "How many euros does it cost now?",
        "a*(10 - b)/10 - x",
    ),
    (
        "The sum of three consecutive whole numbers is {a}. "
        "What is the largest of them?",
        "x + (x - 1) + (x - 2) - a",
    ),
    (
        "Mia is {b} years older than Leo. Together they are {a} years old. "
        "How old is Mia?",
        "x + (x - b) - a",
    ),
    (
        "A tank holds {a} litres and is empty. Each minute {b} litres flow in and "
        "{c} litres flow out. After how many minutes is the tank full?",
        "(b - c)*x - a",
    ),
)


def written(expression: sympy.Expr) -> str:
    """Return an expression as in a school book: 3x^2 + 4x - 5."""
    return plain(expression).replace("*", "")


def plain(expression: sympy.Expr, order: str | None = None) -> str:
    """Return an expression as in an answer: 3*x^2 + 4*x - 5."""
    return sympy.sstr(expression, order=order).replace("**", "^")


def solutions(expression: sympy.Expr) -> str:
    """Return where an expression is zero, the largest first: 3/2, -1."""
    found = sorted(sympy.solve(expression, X), reverse=True)
    return ", ".join(plain(sympy.together(value), "none") for value in found)


def number(rng: random.Random, largest: int = 9) -> int:
    """Return a number that is not 0, in both directions up to the largest."""
    return rng.randint(1, largest) * rng.choice((-1, 1))


def derivative_of(polynomial: sympy.Expr) -> tasks.Problem:
    """Return the question for a derivative."""
    question = f"Find the derivative of f(x) = {written(polynomial)}"
    answer = plain(sympy.diff(polynomial, X))
    degree = int(sympy.degree(polynomial, X))
    return tasks.Problem("algebra", question, answer, level=degree - 1)


def derivative(rng: random.Random) -> tasks.Problem:
    """Return the question for the derivative of a polynomial of degree 2 to 4."""
    degree = rng.randint(2, 4)
    terms = [rng.randint(-9, 9) * X**power for power in range(degree)]
    return derivative_of(rng.randint(1, 5) * X**degree + sum(terms))


def expansion(rng: random.Random) -> tasks.Problem:
    """Return a product to expand: two binomials, one with a trinomial, or a cube."""
    level = rng.randint(1, 3)
    left, right = (rng.randint(1, 4) * X + number(rng) for _ in range(2))
    if level == 2:
        right = X**2 + number(rng) * X + number(rng)
    product = f"({written(left)})({written(right)})"
    if level == 3:
        product, right = f"({written(left)})^3", left**2
    answer = plain(sympy.expand(left * right))
    return tasks.Problem("algebra", f"Expand {product}", answer, level=level)


def linear(rng: random.Random) -> tasks.Problem:
    """Return a linear equation; its solution is whole at level 1, else a fraction."""
    right = rng.randint(-3, 3) * X + number(rng, 20)
    left = rng.randint(4, 9) * X + number(rng, 20)
    answer = solutions(left - right)
    question = f"Solve the equation {written(left)} = {written(right)}"
    return tasks.Problem("algebra", question, answer, level=1 + ("/" in answer))


def quadratic(rng: random.Random) -> tasks.Problem:
    """Return a quadratic equation with two solutions, irrational at level 2."""
    discriminant = 0
    while discriminant <= 0:
        a, b, c = rng.randint(1, 3), number(rng), number(rng)
        discriminant = b * b - 4 * a * c
    polynomial = a * X**2 + b * X + c
    answer = solutions(polynomial)
    question = f"Solve the equation {written(polynomial)} = 0"
    return tasks.Problem("algebra", question, answer, level=1 + ("sqrt" in answer))


def in_words(rng: random.Random, question: str, zero: str) -> tasks.Problem:
    """Return a problem told in words whose answer is a positive whole number."""
    while True:
        numbers = {"a": rng.randint(20, 120), "b": rng.randint(3, 9)}
        numbers["c"] = rng.randint(2, 8)
        found = sympy.solve(sympy.sympify(zero).subs(numbers), X)
        if found and found[0].is_Integer and found[0] > 0:
            told = question.format(**numbers)
            return tasks.Problem("algebra", told, str(found[0]), level=1)


LEVELS = {  # how hard the problems of a kind are, one number for each problem
    derivative: (1, 1, 1, 2, 2, 3, 3, 3, 3),
    expansion: (1, 1, 1, 1, 2, 2, 3, 3),
    linear: (1, 1, 1, 1, 2, 2, 2, 2),
    quadratic: (1, 1, 1, 2, 2, 2),
}


def stored() -> list[tasks.Problem]:
    """Return the problems of data/samples/algebra.jsonl; the first two are classics."""
    rng = random.Random(f"algebra {SEED}")
    critical = f"Find the critical points of f(x) = {written(CUBIC)}"
    answer = solutions(sympy.diff(CUBIC, X))
    first = [derivative_of(CUBIC), tasks.Problem("algebra", critical, answer, level=3)]
    problems = {problem.question: problem for problem in first}
    for make, levels in LEVELS.items():
        for level in levels:
            problem = first[0]
            while problem.level != level or problem.question in problems:
                problem = make(rng)
            problems[problem.question] = problem
    return [*problems.values(), *(in_words(rng, *words) for words in WORDS)]


if __name__ == "__main__":
    path = catalog.data_dir() / "samples" / "algebra.jsonl"
    path.write_text("".join(map(line, stored())), encoding="utf-8")
