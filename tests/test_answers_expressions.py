r"""What an attack on the judges of replies found: hangs, escapes, wrong verdicts.

The usual forms are in test_expressions.py; here are those that were once misjudged,
and whole replies in the way Qwen2.5 writes mathematics.
"""

import multiprocessing
import time

import pytest
import sympy
import test_expressions as more
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_course import answers, sources

DERIVATIVE = "3x^2+4x-5"
POINTS = "(-2 ± sqrt(19))/3"
PLUS, MINUS = r"\frac{-2 + \sqrt{19}}{3}", r"\frac{-2 - \sqrt{19}}{3}"
SAME = [
    # roots that stand apart
    (f"\\[ x_1 = {PLUS} \\]\n\\[ x_2 = {MINUS} \\]", POINTS),
    (f"First root:\n\\[ x = {PLUS} \\]\nSecond root:\n\\[ x = {MINUS} \\]", POINTS),
    (f"\\boxed{{{PLUS}}} and \\boxed{{{MINUS}}}", POINTS),
    ("x = (-2 + sqrt(19))/3\nx = (-2 - sqrt(19))/3", POINTS),
    ("- x₁ = (-2 + √19)/3\n- x₂ = (-2 - √19)/3", POINTS),
    ("1. $x = 3$\n2. $x = -2$", "3, -2"),
    ("x = 3 or\nx = -2", "3, -2"),
    (r"-\frac{2}{3} \pm \frac{\sqrt{19}}{3}", POINTS),
    (r"\frac{1}{3}(-2 \pm \sqrt{19})", POINTS),
    ("(-2+sqrt 19)/3 and (-2-sqrt 19)/3", POINTS),
    (r"x \in \left\{1, 2\right\}", "1, 2"), ("x ∈ {1, 2}", "2, 1"),
    (r"\theta \in \{\pi/3\}", "pi/3"), (r"\theta_1 \in \{1, 2\}", "1, 2"),
    (r"f(2) \in \{\sqrt{5}\}", "sqrt 5"),
    ("S = {1, 2}", "1, 2"), ("2 or 1", "{1, 2}"), ("{a, b}", "{b, a}"),
    # an equation of a curve is met by its right side and by any multiple
    ("2x-y+1=0", "y=2x+1"), ("y=2x+1", "2x-y+1=0"), ("2x+1", "y=2x+1"),
    ("$y = 1 + 2x$", "y=2x+1"), ("x+2=5", "2x+4=10"), ("x = 3", "2x+4=10"),
    # ways of writing
    (r"\frac1{2}", "1/2"), (r"\frac{1}2", "0.5"), (r"\boxed{\frac 1 2}", "1/2"),
    (r"\lvert x \rvert", "|x|"), (r"\left|x\right|", "abs(x)"), ("√3 x", "x sqrt(3)"),
    (r"\left(x+1\right)^2", "x^2+2x+1"), (r"2\pi r", "2*pi*r"), ("2x³", "2x^3"),
    ("x^{-1}", "1/x"), (r"\ln x", "log(x)"), (r"\sqrt{2}/2", "1/sqrt(2)"),
    (r"\frac{\sin x}{\cos x}", "tan x"), (r"x^{1/2}", "√x"), ("x(x+1)", "x²+x"),
    (r"\frac{dy}{dx} = 3x^2+4x-5", DERIVATIVE), ("```\n3x^2+4x-5\n```", DERIVATIVE),
    (r"f^{\prime}(x) = 3x^2+4x-5", DERIVATIVE), ("3·x²+4·x−5", DERIVATIVE),
    ("3x^2 + 4x - 5\n\nI hope this helps!", DERIVATIVE), ("2^10", "1024"),
    (r"are \(\boxed{\frac{1}{2}}\) and \(\boxed{-4}\).", "1/2, -4"),
    (r"\boxed{5\ \text{cm}}", "5"), (r"\boxed{\$12}", "12"), ("sin(pi/6)", "1/2"),
    (r"3 \cdot 10^2", "300"), ("(x-1)^50 (x+1)^50", "(x^2-1)^50"),
    # mixed numbers, roundings beside the exact value, logarithms of another base
    (r"\boxed{8\frac{1}{3}}", "25/3"), (r"2\frac12", "5/2"), (r"3\frac{5}{2}", "15/2"),
    (r"x = \frac{25}{3} \approx 8.33", "25/3"), ("π ≈ 3.14", "pi"),
    (r"x\frac12", "x/2"),
    ("72 cm$^2$", "72"), (r"2\frac{1}{3}x^3", "2/3 x^3"), (r"6\frac{1}{3} x^2", "2x^2"),
    (r"\frac{1}{\log_2 x}", "1/log_2(x)"), (r"\sqrt{2} \approx 1.414", "1.414"),
    ("10/3 ≈ 3.33", "3.33"), ("Since √16 is 4, there are 4 apples.", "4"),
    ("We take sqrt(16) and get 4 cm.", "4"),
]  # fmt: skip
DIFFERENT = [
    ("|xy|", "xy"), ("sqrt(x^2y^2)", "xy"), ("1/10^40", "2/10^40"), ("10^-31", "0"),
    ("x > 3", "3"), (r"x \leq 3", "3"), (r"x \neq 3", "3"), ("\\[\nx > 3\n\\]", "3"),
    ("x ≠ 3", "3"), ("[2, 3)", "3"), ("[2, 3)", "2, 3"), ("9^9^9", "9"),
    (r"\boxed{\begin{pmatrix} 1 & 3 \end{pmatrix}}", "3"), ("√3 m", "3"),
    (f"\\[ x_1 = {PLUS} \\]\n\\[ x_2 = 1 \\]", POINTS), ("x = 3\ny = -2", "3, -2"),
    (f"\\boxed{{{PLUS}}} and \\boxed{{1}}", POINTS), ("2x + 6 = 12\nx = 3", "6, 3"),
    (f"\\boxed{{1}} then \\boxed{{{PLUS}}}, \\boxed{{{MINUS}}}, \\boxed{{2}}", POINTS),
    ("2x+4=10", "x = 3"), ("y = 2x", "y=2x+1"), ("x-y+1=0", "y=2x+1"),
    ("y + 2x + 1 = 0", "y=2x+1"), ("2x = 0", "3x+1=0"), ("3 = 3", "2x+4=10"),
    ("0.78629964784689", "(-2+sqrt(19))/3"), ("3.14159265358979", "pi"),
    ("2.718281828459045", "e"), ("1.4142135623730951", "sqrt(2)"), ("0.333", "1/3"),
    ("sqrt(x)", "-sqrt(x)"), ("±sqrt(2)", "sqrt(2)"), ("sqrt(2)", "±sqrt(2)"),
    ("1/2x", "1/(2x)"), ("-x", "|x|"), ("log(x)/log(10)", "log(x)"), ("x", "|x|"),
    ("12 apples", "12x"), ("1 2", "12"), ("x = 3", "x = -3"), ("-x^2", "(-x)^2"),
    ("sin(x)", "sin(2x)"), ("x + 0.000000000000000000001", "x"), ("x^3", "x^2"),
    (r"\frac{1}{2}", "2"), ("f(x) = 2x", "2"), ("e", "2.7"), ("1,2,3", "123"),
    (r"\boxed{2\frac{1}{2}}", "1"), (r"\boxed{2\sqrt{5}\text{ cm}}", "5"),
    (r"\boxed{\frac{\sqrt{5}}{2}\text{ cm}}", "2"), (r"x \approx 8.33", "25/3"),
    ("≈ 0.33", "1/3"),
]  # fmt: skip
REPLIES = [  # as Qwen2.5 writes: reply, expected, right or not
    ("To find the critical points of the function \\( f(x) = x^3 + 2x^2 - 5x + 3 \\), "
     "we need to find where \\( f'(x) = 0 \\).\n\n1. **Find the derivative:**\n   \\[\n"
     "   f'(x) = 3x^2 + 4x - 5\n   \\]\n\n2. **Solve:**\n   \\[\n   x = \\frac{-4 \\pm "
     "\\sqrt{16 + 60}}{6} = \\frac{-2 \\pm \\sqrt{19}}{3}\n   \\]\n\nTherefore, the "
     "critical points are:\n\\[\nx = \\frac{-2 + \\sqrt{19}}{3} \\quad \\text{and} "
     "\\quad x = \\frac{-2 - \\sqrt{19}}{3}\n\\]", POINTS, True),
    ("The solutions are:\n\\[ x_1 = \\frac{-2 + \\sqrt{19}}{3} \\]\nand\n\\[ x_2 = "
     "\\frac{-2 - \\sqrt{19}}{3} \\]", POINTS, True),
    ("So, the critical points are \\( x = \\frac{-2 + \\sqrt{19}}{3} \\) and "
     "\\( x = \\frac{-2 - \\sqrt{19}}{3} \\).", POINTS, True),
    ("So, the critical points are approximately:\n\\[ x \\approx 0.786 \\]\n"
     "\\[ x \\approx -2.120 \\]", POINTS, False),
    ("Using the formula:\n\\[ x = \\frac{-4 + \\sqrt{76}}{6} \\]\nSo the critical "
     "point is:\n\\[ \\boxed{\\frac{-2 + \\sqrt{19}}{3}} \\]", POINTS, False),
    ("We apply the power rule to each term:\n\n- The derivative of \\(x^3\\) is "
     "\\(3x^2\\).\n- The derivative of \\(2x^2\\) is \\(4x\\).\n- The derivative of "
     "\\(-5x\\) is \\(-5\\).\n\nTherefore, the derivative is:\n\n\\[ f'(x) = 3x^2 + 4x "
     "- 5 \\]\n\nSo, the final answer is:\n\n\\[ \\boxed{f'(x) = 3x^2 + 4x - 5} \\]",
     DERIVATIVE, True),
    ("The derivative of \\(2x^2\\) is \\(4x\\). Thus\n\\[ \\boxed{3x^2 + 4x + 3} \\]",
     DERIVATIVE, False),
    ("Factor: \\((x - 3)(x + 2) = 0\\).\n\nSo \\(x - 3 = 0\\) or \\(x + 2 = 0\\).\n\n"
     "The solutions to the equation are:\n\\[ x = 3 \\]\n\\[ x = -2 \\]", "3, -2",
     True),
    ("Subtract 4 from both sides:\n\\[ 2x = 6 \\]\nDivide by 2:\n\\[ x = 3 \\]\n\n"
     "Thus, the solution is \\(\\boxed{3}\\).", "x = 3", True),
    ("Expanding gives\n\\[\n(x + 1)^2 = x^2 + 2x\n\\]", "x^2 + 2x + 1", False),
    ("The slope is 2 and the line meets the axis at 1, so the equation of the line is "
     "\\( \\boxed{y = 2x + 1} \\).", "y = 2x + 1", True),
]  # fmt: skip
DEEP = "[" * 100_000 + "]" * 100_000
HOSTILE = [
    # sines of numbers too large to reduce, and powers that reach them
    "sin(e^(10^29x))", "e^(10^29x)", "tan(2^(10^12x))", "sin(pi^(10^29 sqrt 2))",
    "cos(e^(10^6 x))", "cos(x^(10^29y))", "tan(3^(10^29 pi))", "sin(e^(200^4x))",
    "sqrt(1+sin((((e^200)^200)^200)^200))", "abs(sin(e^(10^29 sqrt 2)))^(1/3)",
    "sqrt(1+sin(3^(10^29 pi)))", "sin((e^(200x))^200)", "1+tan(3^(10^29*pi))",
    # roots and fractions that are slow to write out
    "24691357800^((1/3)^200)", "24691357800^(1/10^29)", "(9^199)^(1/3^30)",
    "/".join(f"sqrt({10**8 + i})" for i in range(2, 60)), "(1/3)^(1/99999999999999999)",
    "+".join(f"1/{p}^199" for p in range(101, 141)), "abs((-1)^(1/7)+(-2)^(1/5))",
    "*".join(f"9{p}^190" for p in range(101, 141)), "1/(1+" * 25 + "x" + ")" * 25,
    "(1+" * 25 + "x" + ")^2" * 25, "sqrt(2+" * 14 + "2" + ")" * 14, "sin(" * 25 + "x",
    "tan(" * 25 + "x" + ")" * 25, "log(" * 25 + "x" + ")" * 25, "(-1)^(x/7)", "0^x",
    "1/(sin(x)^2+cos(x)^2-1)", "sqrt[x]{y}", "sqrt[0]{y}", "sin^(10^29) x", "|" * 40,
    "\\frac{1}{" * 28 + "x" + "}" * 28, "\\frac" * 150 + "12", "((9^50)^50)^50",
    # programs and marks
    "__import__('os').system('touch hacked')", "().__class__.__mro__[1]", "f'{1}'",
    "[x for x in (1,)]", "lambda x: x", "x.__class__", "getattr(x, 'y')", "\x00",
    "\x1b[2J", "open('hacked', 'w')", "\u202e\u2066x", "x\ud800" * 30,
    "\U000e0001" * 999, "\r" * 9999, "x/log(1) + 1/|log((-1)^200)| + cos(0)^x",
    "x^200 exp(cos(0.1)) cos(1/200) cos(0) + exp(-|x|)/|log((-1)^200)|",
    # texts for the other judges
    "1 1/" + "9" * 5000, "9" * 5000 + " 1/2", "1 " * 20_000, "{" * 20_000, "5!" * 3000,
    f"<tool_call>{DEEP}</tool_call>",
    "```python\ndef f(x):\n    return " + "-" * 900 + "x",
    "```python\ndef f(x):\n    return " + "x+" * 2500 + "x\n```",
    "async" + " \n" * 50_000,
    "def f(x):\n    return " + "(" * 5000, "```" * 9999, "```\n" * 9999, "७" * 9999,
    "\n".join("`" * (3 + i) for i in range(900)), "word " * 50_000, "漢" * 50_000,
    "def f(x):\n    return 1\n" * 2000 + "print('", "\\boxed{x}" * 9999, "$x" * 9999,
    "x" + " " * 50_000 + "= 3", "_" * 9999, "'" * 9999, "999^99", "9^99^99",
    "2^" * 9999,
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SAME + more.SAME)
def test_other_forms_are_accepted(text, expected):
    verdict = answers.same_expression(text, expected)
    assert verdict.passed, verdict.reason


@pytest.mark.parametrize(("text", "expected"), DIFFERENT + more.DIFFERENT)
def test_what_is_not_the_same_is_refused(text, expected):
    verdict = answers.same_expression(text, expected)
    assert not verdict.passed
    assert verdict.reason.rstrip("; ") == verdict.reason


@pytest.mark.parametrize(("reply", "expected", "right"), REPLIES + more.REPLIES)
def test_replies_as_qwen_writes_them(reply, expected, right):
    verdict = answers.same_expression(reply, expected)
    assert verdict.passed is right, verdict.reason


def judges(text):
    """Return whether one of the judges accepts the text."""
    answers.extract_code(text)
    sources.definitions(text)
    answers.language(text)
    call = "<tool_call>{}</tool_call>"
    tests = "assert f(1) == 'never'"
    verdicts = [
        answers.same_expression(text, DERIVATIVE),
        answers.same_expression(text, POINTS),
        answers.same_expression(text, "y = 2x + 1"),
        answers.same_expression(text, "17"),
        answers.same_number(text, 17.25),
        answers.speaks(text, "el"),
        answers.solves("call", text, call),
        answers.solves("algebra", text, "2x + 4 = 10"),
        answers.solves("languages", text, "17"),
    ]
    if "def f" in text:
        verdicts.append(answers.solves("functions", text, tests))
    return any(verdict.passed for verdict in verdicts)


def judge_all(pipe):
    try:
        wrong = [text[:60] for text in HOSTILE if judges(text)]
        pipe.send((wrong, time.process_time()))
    except BaseException as error:
        pipe.send((f"{type(error).__name__} escaped: {error}", 0))
        raise


def test_hostile_replies_do_no_harm(tmp_path, monkeypatch):
    """A child judges them all with a minute's work: none may hang, raise or write."""
    assert len(HOSTILE) >= 50
    monkeypatch.chdir(tmp_path)
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    child = context.Process(target=judge_all, args=(theirs,))
    child.start()
    theirs.close()  # so that a child that dies ends the wait
    accepted, seconds = mine.recv() if mine.poll(600) else ("it hangs", 0)
    child.kill()
    child.join()
    assert accepted == []
    assert seconds < 60  # of work, however busy the machine is
    assert list(tmp_path.iterdir()) == []


@given(st.text(alphabet="xy123()^*/+-=|±√.,{}\\ es", max_size=30))
def test_no_text_raises(text):
    assert isinstance(answers.same_expression(text, POINTS), answers.Verdict)


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=5), st.permutations(range(5)))
@settings(deadline=None)
def test_the_order_of_terms_does_not_count(numbers, order):
    """Of a random polynomial in two letters, as plain text and as LaTeX."""
    x, y = sympy.symbols("x y", real=True)
    terms = [n * x**place * y ** (place % 2) for place, n in enumerate(numbers)]
    total, shuffled = sum(terms), [terms[n] for n in order if n < len(terms)]
    for text in (" + ".join(f"({term})" for term in shuffled), sympy.latex(total)):
        assert answers.same_expression(text, str(sympy.factor(total))).passed
        assert not answers.same_expression(f"{text} + 1", str(total)).passed


@pytest.mark.parametrize(("text", "number"), [
    (r"\frac12", 0.5), (r"\boxed{\dfrac34}", 0.75), ("2^10", 1024), ("2^{10}", 1024),
    (r"\boxed{\frac{1}{2}}", 0.5), ("3 1/2", 3.5), ("x^2 = 49", 49),
])  # fmt: skip
def test_numbers_in_short_latex(text, number):
    assert answers.same_number(text, number).passed, answers.same_number(text, number)


def test_the_reason_names_the_mix_of_scripts():
    text = "Η ηλιακή ενέργεια είναι 可再生能源 και δεν τελειώνει ποτέ."
    verdict = answers.speaks(text, "el")
    assert not verdict.passed
    assert verdict.reason == "of the letters are 11% Han"
