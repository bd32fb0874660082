"""The shape of the package: who imports whom, how large, what is public, how light."""

import ast
import functools
import json
import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from qwen_course import catalog

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "qwen_course"
MODULES = {path.stem: path for path in sorted(PACKAGE.glob("*.py"))}
LEVELS = [  # a module imports from lower levels only; `errors` is below all
    {"errors"},
    {"catalog", "kept", "prometheus", "sandbox", "expressions", "replies"},
    {"chat", "weights", "tasks", "room", "monitor"}
    | {"certificate", "sources", "symptoms"},
    {"models", "quantize", "masking", "answers", "charts"},
    {"generate", "training"},
    {"finetune", "protocol", "plots"},
    {"gauges", "curves", "timelines", "batching", "upstream", "server"},
    {"service"},
    {"show", "checks", "recall"},  # leaves: imported by __main__ and by notebooks alone
    {"__main__"},
]
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
LEAVES = {"show", "checks", "recall", "__main__"}
LINES, LINES_OF_A_FILE = 7000, 400  # of code; of a file, all lines
IMPORT_SECONDS = 0.2
MAY_PRINT = {"show", "__main__", "models"}
PUBLIC = {  # fixed names with their first parameters, as notebooks call them
    "catalog": {
        "cards": "",
        "find": "name",
        "parameters": "card",
        "memory": "card dtype context batch",
        "suggest": "task",
    },
    "models": {
        "start": "seed",
        "profile": "",
        "resolve": "role profile",
        "load": "role profile",
        "fetch": "",
    },
    "chat": {
        "render": "tokenizer messages tools thinking add_generation_prompt",
        "token_table": "tokenizer text",
        "split_thinking": "text",
        "reasoning_prompt": "problem",
        "coding_prompt": "task",
        "multilingual_prompt": "query languages",
        "encode": "tokenizer messages",
    },
    "replies": {"Settings": "", "Piece": "", "Reply": ""},  # `generate` passes them on
    "monitor": {"Monitor": "", "Thresholds": ""},
    "service": {"Limits": "", "ChatService": "", "create_app": "service"},
    "generate": {
        "reply": "loaded messages settings",
        "stream": "loaded messages settings",
        "batch": "loaded conversations settings",
    },
    "quantize": {
        "quantize_tensor": "weight scheme",
        "quantize_model": "loaded scheme",
        "model_size_mb": "model",
        "perplexity": "loaded texts",
        "compare": "reference other texts",
    },
    "finetune": {
        "LoraSettings": "",
        "train": "loaded examples settings",
        "save": "tuned folder",
        "load": "loaded folder",
        "merge": "tuned",
    },
    "masking": {"tokenize": "tokenizer examples"},
    "answers": {
        "extract_code": "text",
        "run_python": "code tests seconds memory_mb",
        "same_number": "text expected",
        "same_expression": "text expected",
    },
    "checks": {
        "check": "exercise_id answer",
        "hint": "exercise_id",
        "solution": "exercise_id",
        "progress": "",
    },
    "recall": {"quiz": "lesson", "answer": ""},
}
LATER: set[str] = set()  # names that come with the lesson that needs them


@functools.cache
def tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text("utf-8"))


def imported(module: ast.Module) -> set[str]:
    """The modules of this package that a module imports, anywhere in its source."""
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = node.module or ""
            if node.level:
                start = f"qwen_course.{start}".rstrip(".")
            paths = [f"{start}.{alias.name}" for alias in node.names]
        else:
            continue
        parts = [path.split(".") for path in paths]
        found |= {p[1] for p in parts if p[0] == "qwen_course" and len(p) > 1}
    return found & set(LEVEL)


def faults_of(name: str, module: ast.Module) -> list[str]:
    """What a module imports against the table."""
    return [
        f"{name} (level {LEVEL[name]}) imports {other} (level {LEVEL[other]})"
        for other in sorted(imported(module))
        if LEVEL[other] >= LEVEL[name] or (other in LEAVES and name != "__main__")
    ]


def test_every_module_has_a_level():
    assert set(MODULES) - {"__init__"} <= set(LEVEL)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "__init__"])
def test_imports_point_one_way(name):
    assert faults_of(name, tree(name)) == []


def test_the_package_itself_imports_none_of_its_modules():
    assert imported(tree("__init__")) == set()


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("from qwen_course import generate", "generate (level 4)"),
        ("def f():\n    from qwen_course.checks import check", "checks (level 8)"),
        ("from . import show", "show (level 8)"),
        ("from .generate import reply", "generate (level 4)"),
        ("import qwen_course.models", "models (level 3)"),
    ],
)
def test_the_table_finds_a_wrong_import(source, fault):
    told = faults_of("chat", ast.parse(source))
    assert told == [f"chat (level 2) imports {fault}"]


def code_lines(path):
    """Count the lines that are neither blank, comment nor docstring."""
    source = path.read_text("utf-8").splitlines()
    plain = {n for n, line in enumerate(source, 1) if line.strip()[:1] not in ("", "#")}
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree(path.stem)):
        if isinstance(node, kinds) and ast.get_docstring(node):
            text = node.body[0]
            plain -= set(range(text.lineno, text.end_lineno + 1))
    return len(plain)


def test_size():
    lengths = {
        name: len(path.read_text("utf-8").splitlines())
        for name, path in MODULES.items()
    }
    assert {name: n for name, n in lengths.items() if n > LINES_OF_A_FILE} == {}
    assert sum(map(code_lines, MODULES.values())) <= LINES, lengths


def test_no_module_for_odds_and_ends():
    assert not {"utils", "util", "helpers", "common", "misc"} & set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_module_docstring(name):
    docstring = ast.get_docstring(tree(name))
    assert docstring, f"{name} says nothing about itself"
    assert len(docstring.splitlines()[0]) > 20


@pytest.mark.parametrize("name", sorted(set(MODULES) - MAY_PRINT))
def test_library_code_prints_nothing(name):
    calls = [
        node.lineno
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]
    assert calls == [], f"{name} prints in lines {calls}"


@pytest.mark.parametrize("name", MODULES)
def test_input_is_refused_by_raise(name):
    lines = [n.lineno for n in ast.walk(tree(name)) if isinstance(n, ast.Assert)]
    assert lines == [], f"{name} has assert in lines {lines}: python -O drops it"


def parameters(node: ast.stmt) -> list[str]:
    if not isinstance(node, ast.FunctionDef):
        return []
    return [
        a.arg for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    ]


@pytest.mark.parametrize("name", [name for name in PUBLIC if name in MODULES])
def test_public_surface(name):
    defined = {
        node.name: node
        for node in tree(name).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }
    for wanted, first in PUBLIC[name].items():
        if f"{name}.{wanted}" in LATER:
            assert wanted not in defined, "it is here: take it out of LATER"
            continue
        assert wanted in defined, f"{name}.{wanted} is a fixed name"
        names = parameters(defined[wanted])[: len(first.split())]
        assert names == first.split(), f"{name}.{wanted}"
        assert ast.get_docstring(defined[wanted]), f"{name}.{wanted} has no docstring"


def test_all_modules_of_the_surface_exist():
    assert set(PUBLIC) <= set(MODULES)


def rows(path: str, heading: str) -> list[list[str]]:
    """The cells of the table below a heading of a page, without its first lines."""
    text = (ROOT / path).read_text("utf-8").partition(f"{heading}\n")[2]
    lines = text[text.index("\n| ") + 1 :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_readme_maps_the_modules_that_there_are():
    named = [cells[0].strip("`") for cells in rows("README.md", "## The package")]
    assert sorted(named) == sorted(set(MODULES) - {"__init__"})
    assert [
        cells for cells in rows("README.md", "## The package") if not cells[1]
    ] == []
    assert "python -m qwen_course" in (ROOT / "README.md").read_text("utf-8")


DATA_ROWS = rows("data/README.md", "# data/")


def patterns(cell: str) -> list[str]:
    """What a row of data/README.md speaks of; a folder counts for later names, too."""
    found, folder = [], ""
    for name in re.findall(r"`([^`]+)`", cell):
        folder = name.rpartition("/")[0] or folder
        path = name if "/" in name else f"{folder}/{name}".lstrip("/")
        found.append(path + "*" * path.endswith("/"))
    return found


def test_each_file_of_data_is_in_a_row_and_each_row_has_a_file():
    told = [pattern for cells in DATA_ROWS for pattern in patterns(cells[0])]
    data = ROOT / "data"
    files = {
        path.relative_to(data).as_posix()
        for path in data.rglob("*")
        if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & {*path.parts}
    } - {"README.md"}
    missing = [f for f in files if not any(fnmatchcase(f, one) for one in told)]
    assert sorted(missing) == [], "data/README.md has no row for these"
    empty = [one for one in told if not any(fnmatchcase(f, one) for f in files)]
    assert empty == [], "these rows of data/README.md speak of no file"


@pytest.mark.parametrize("cells", DATA_ROWS, ids=lambda cells: cells[0][:40])
def test_each_row_of_data_says_what_from_where_under_which_licence(cells):
    assert len(cells) == 4
    assert all(cells)
    assert cells[3].startswith("Apache-2.0")


def test_official_models_are_listed_with_their_licence():
    """Those that fill roles and those with a file of their own; others by name."""
    told = rows("data/README.md", "## Official models that the course can download")
    weights = json.loads(catalog.text("weights.json"))
    roles = json.loads(catalog.text("roles.json"))
    names = {name for choice in roles.values() for name in choice.values()}
    assert sorted(cells[0] for cells in told) == sorted(names | set(weights))
    for name, fills, fetched, licence in told:
        assert licence == (catalog.find(name).license or "unknown"), name
        if name in weights:
            assert f"{weights[name]['size']:,} bytes" in fetched
        for role, choice in roles.items():
            sizes = [size for size, model in choice.items() if model == name]
            assert (role in fills) == bool(sizes), (name, role)
            assert all(f"({size})" in fills for size in sizes), (name, role)


def run(program: str) -> str:
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_package_is_light():
    """The best of five runs: a busy machine is no reason to fail."""
    program = (
        "import sys, time\nstart = time.perf_counter()\nimport qwen_course\n"
        "print(time.perf_counter() - start)\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    runs = [run(program).splitlines() for _ in range(5)]
    assert {loaded for _, loaded in runs} == {"[]"}
    assert min(float(seconds) for seconds, _ in runs) < IMPORT_SECONDS


@pytest.mark.parametrize("name", ["catalog", "chat", "answers", "checks", "recall"])
def test_modules_that_need_no_model_load_no_torch(name):
    program = (
        f"import sys, qwen_course.{name}\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert run(program) == "[]"
