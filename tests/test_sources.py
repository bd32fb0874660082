"""Sources: what a notebook defined comes back from text, with all that it uses."""

import linecache
import math
import os
import sys
import textwrap
from collections import Counter
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_course import sources

numbers = count()


def notebook(*cells: str) -> dict:
    """The names of a notebook after its cells; the sources can be looked up."""
    space: dict = {"__name__": "__main__"}
    for cell in cells:
        source, name = textwrap.dedent(cell), f"<cell {next(numbers)}>"
        lines = source.splitlines(keepends=True)
        linecache.cache[name] = (len(source), None, lines, name)
        exec(compile(source, name, "exec"), space)
    return space


def again(name: str, answer: object) -> object:
    source = sources.source_of(name, answer)
    assert source
    return sources.define(name, source)


def test_a_function_alone():
    space = notebook(
        "x = 1", 'def double(x):\n    """Twice."""\n    return 2 * x  # so'
    )
    source = sources.source_of("double", space["double"])
    assert source == 'def double(x):\n    """Twice."""\n    return 2 * x  # so\n'
    assert sources.define("double", source)(3) == 6


def test_with_all_that_it_uses():
    space = notebook(
        "import math\nimport os.path as places\nfrom collections import Counter as C",
        "FACTORS = {'a': [1, 2.5], 'b': (None, True)}\nLIMIT = 10",
        "def other(x):\n    return min(x, LIMIT)",
        """
        def half(x):
            return other(x) / 2

        def f(x):
            parts = [half(y) for y in FACTORS['a']]
            return math.floor(sum(parts)), C('aab')['a'], places.join('a', 'b'), x
        """,
    )
    for name in ("f", "half"):
        assert again(name, space[name])(5) == space[name](5)
    source = sources.source_of("f", space["f"])
    assert source.index("def other") < source.index("def f")
    assert "import math\n" in source


def test_recursion_and_two_functions_that_call_each_other():
    space = notebook(
        "def even(n):\n    return n == 0 or odd(n - 1)",
        "def odd(n):\n    return n != 0 and even(n - 1)",
    )
    assert again("even", space["even"])(10) is True
    assert again("odd", space["odd"])(10) is False


def test_parameters_are_not_names_of_the_notebook_but_defaults_are():
    space = notebook("x = open\nn = 5", "def f(x, y=n, n=3):\n    return [x, y, n]")
    assert sources.source_of("f", space["f"]).startswith("n = 5\n\ndef f")
    assert again("f", space["f"])(1) == [1, 5, 3]


def test_decorators_and_annotations():
    space = notebook(
        "from typing import Any\nimport functools",
        "def twice(f):\n    @functools.wraps(f)\n    def g(x: int) -> int:\n"
        "        return f(f(x))\n    return g",
        "@twice\ndef add(x: Any) -> Any:\n    return x + 1",
    )
    assert again("add", space["add"])(1) == space["add"](1) == 3


def test_names_inside_a_function_are_its_own():
    space = notebook(
        "import torch\nn = 3\nrow = card = word = open  # nothing of these is used",
        """
        def f(rows):
            best = max(rows, key=lambda card: card * n)
            return best, sum(row > 1 for row in rows), [word for word in rows]
        """,
    )
    assert sources.source_of("f", space["f"]).startswith("n = 3\n\ndef f")
    assert again("f", space["f"])([1, 2]) == (2, 1, [1, 2])


def test_behind_a_decorator_of_a_library_the_names_are_the_notebook_s():
    space = notebook(
        "import functools\nn = 5\ndef other(x):\n    return x + n",
        "@functools.cache\ndef g(x):\n    return 1",
        "import torch\n@torch.no_grad()\ndef f(x):\n    return other(x)",
    )
    assert "def other" in sources.source_of("f", space["f"])
    assert again("f", space["f"])(1) == 6


def test_what_a_definition_needs_comes_before_it():
    space = notebook(
        "base = 2\ndef scale(x):\n    return base * x",
        "def a(x, f=scale):\n    return f(x)",
        "def b(x, g=a):\n    return g(x) + scale(x)",
        "def c(x):\n    return scale(b(x)) + a(x) + base",
    )
    for name in "abc":
        assert again(name, space[name])(3) == space[name](3)


def test_another_name():
    space = notebook("def mine(x):\n    return x + 1")
    assert again("double", space["mine"])(1) == 2


def test_the_last_definition_counts():
    space = notebook("def f():\n    return 1", "def f():\n    return 2")
    assert again("f", space["f"])() == 2


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False,
            allow_infinity=False) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
        | st.tuples(inner, inner),
        max_leaves=8,
    )
)  # fmt: skip
def test_plain_values(value):
    assert again("answer", value) == value


def test_functions_of_libraries():
    assert again("root", math.sqrt) is math.sqrt
    assert again("Counter", Counter) is Counter


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: x,
        object(),
        notebook("class A: pass\na = A()")["a"],
        notebook("thing = object()\ndef f():\n    return thing")["f"],
        eval("lambda: 1", {"__name__": "__main__"}),
        float("nan"),
        "x" * (sources.LONGEST + 1),
    ],
)
def test_what_has_no_source(answer):
    assert sources.source_of("answer", answer) == ""


def test_a_closure_has_no_source_that_runs():
    """A decorator without functools.wraps gives one: its source names what is gone."""
    space = notebook(
        "def deco(f):\n    def inner(x):\n        return f(x)\n    return inner",
        "@deco\ndef double(x):\n    return 2 * x",
    )
    assert space["double"](3) == 6
    assert sources.source_of("double", space["double"]) == ""


def test_nothing_of_an_object_is_run():
    odd = notebook("""
        def stop(*_):
            raise SystemExit

        class Odd:
            __getattribute__ = __repr__ = __eq__ = __hash__ = __len__ = stop

        odd = object.__new__(Odd)
        """)["odd"]
    for answer in (odd, [odd], {"a": (1, odd)}):
        assert sources.source_of("answer", answer) == ""
    endless = []
    endless.append(endless)
    assert sources.source_of("answer", endless) == ""


def test_statements_of_another_source():
    solution = "import math\n\ndef f(x):\n    return math.sqrt(x)\n"
    assert sources.holds(solution, solution)
    assert sources.holds(
        "def f(x):  # mine\n    return math.sqrt( x )\nimport math", solution
    )
    assert not sources.holds("def f(x):\n    return x ** 0.5", solution)
    assert not sources.holds("def f(", solution)
    assert not sources.holds(
        "def f(y):\n    return math.sqrt(y)\nimport math", solution
    )


@pytest.mark.skipif(sys.platform != "linux", reason="the fence: Linux only")
def test_behind_the_fence(tmp_path):
    """In a process of its own: there is no way back."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"failed"
        try:
            source = "import os\nos.sched_yield()\ndef f(x):\n    return x + 1"
            folder = tmp_path / "fence"
            folder.mkdir()
            sources.leave(str(folder))
            said = b"%d" % sources.define("f", source)(1)
            try:
                (tmp_path / "left").write_text("")
            except OSError:
                said += b" locked"
        finally:
            os.write(send, said)
            os._exit(0)
    os.waitpid(child, 0)
    said = os.read(receive, 100)
    os.close(receive)
    os.close(send)
    assert said.startswith(b"2")
    left = (tmp_path / "left").exists()
    assert said.endswith(b"locked") != left  # where namespaces are missing: written


def test_a_module_of_a_package_is_imported_as_the_solutions_do():
    space = notebook("from os import path", "def f(x):\n    return path.basename(x)")
    source = sources.source_of("f", space["f"])
    assert source.startswith("import posixpath as path\n")  # its own name
    space = notebook(
        "from qwen_course import catalog\nimport xml.sax as s",
        "def f(x):\n    return catalog.find(x).name, s.__name__",
    )
    source = sources.source_of("f", space["f"])
    assert "from qwen_course import catalog\n" in source
    assert "from xml import sax as s\n" in source
    assert sources.define("f", source)("Qwen3-8B") == ("Qwen3-8B", "xml.sax")
