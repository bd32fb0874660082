"""Every stored notebook keeps the rules of the course; nothing is run here.

A rule is a function that yields what is wrong, in words. Each is shown to find a
fault: a small notebook that keeps all rules is broken in one place, and the rule must
say so. What the cells compute is compared by nbval (make test), not here.
"""

import ast
import copy
import functools
import json
import math
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
import refresh_notebooks as tool
from IPython.core.inputtransformer2 import TransformerManager

from qwen_course import catalog, checks

NOTEBOOKS = tool.ROOT / "notebooks"
STORED = sorted(
    [*NOTEBOOKS.glob("*.ipynb"), *NOTEBOOKS.glob("solutions/*.ipynb")], key=str
)
TAGS = {
    "setup",
    "exercise",
    "solution",
    "rebuild",
    "nbval-ignore-output",
    "nbval-skip",
    "raises-exception",
}
# 61 cells: 60, and the quiz that opens each lesson after 00.
LINES, REBUILD_LINES, COLUMNS, WORDS, CELLS, KILOBYTES = 25, 40, 79, 120, (25, 61), 300
SECTION = re.compile(r"## (\d+[a-z]?)\.(\d+) \S.* \((core|deeper)\)$")
FORBIDDEN = {  # in sources and in outputs
    "a path of one machine": r"(?<![\w./~-])/(home|root|tmp|work|Users|content)/",
    "a Windows path": r"\b[A-Z]:\\Users",
    "what looks like a token": r"\b(hf_|gh[pousr]_|sk-|AKIA)[A-Za-z0-9_-]{16,}",
}
FORBIDDEN_IN_CODE = {
    "!pip (use %pip)": r"!\s*pip\b",
    "a star import": r"^\s*from\s+\S+\s+import\s+\*",
    "a blanket warning filter": r"(filterwarnings|simplefilter)\(\s*.ignore.\s*\)",
    # Left open it is closed when Python tidies up, on whatever loop runs then: that
    # took the reader off another client's socket, and its cell waited for ever.
    "an AsyncOpenAI without async with": r"^(?!\s*async with ).*AsyncOpenAI\(",
}
CLASSES = re.compile(  # names of transformers, not of models
    r"(Qwen|QwQ)[\d_]*\w*(Config|Model|ForCausalLM|ForConditionalGeneration|Tokenizer"
    r"|TokenizerFast|Processor|Attention|MLP|RMSNorm|DecoderLayer|RotaryEmbedding"
    r"|ProcessorPil|Encoder|Block|Experts|Router)$"
)
FORMATS = ("-GGUF", "-AWQ", "-FP8", "-GPTQ-Int4", "-GPTQ-Int8", "-MLX")
ENGLISH = ("-style", "-like", "-family", "-generation", "-specific", "-only")


@dataclass
class Stored:
    """A notebook with all that the rules compare it with."""

    path: Path
    nb: Any
    exercises: dict[str, checks.Exercise]
    timings: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def solved(self) -> bool:
        return self.path.parent.name == "solutions"

    @property
    def lesson(self) -> str:
        return tool.lesson_of(self.name)

    @property
    def code(self) -> list[Any]:
        return [cell for cell in self.nb.cells if cell.cell_type == "code"]

    @property
    def text(self) -> list[Any]:
        return [cell for cell in self.nb.cells if cell.cell_type == "markdown"]


Rule = Callable[[Stored], Iterator[str]]
RULES: dict[str, Rule] = {}


def rule(function: Rule) -> Rule:
    RULES[function.__name__] = function
    return function


def headings(source: str) -> list[str]:
    """The headings of a markdown cell, without those inside fences."""
    bare = re.sub(r"^(```|~~~).*?^\1", "", source, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^#{1,6} .*", bare, re.MULTILINE)


def prose(source: str) -> str:
    """Markdown without comments, tags and addresses: what a learner reads."""
    bare = re.sub(r"<!--.*?-->|<[^>]+>", " ", source, flags=re.DOTALL)
    return re.sub(r"\]\([^)]*\)", "] ", bare)


def plain(cell: Any) -> str:
    """The source of a cell as Python, magics translated."""
    return TransformerManager().transform_cell(cell.source)


def tree(cell: Any) -> ast.Module:
    try:
        return ast.parse(plain(cell))
    except SyntaxError:
        return ast.Module([], [])  # the rule on code that does not parse tells it


def output_text(cell: Any) -> str:
    """All that the outputs of a cell say in text."""
    parts = []
    for output in cell.get("outputs", []):
        parts.append(output.get("text", ""))
        parts += output.get("traceback", [])
        parts += [v for k, v in output.get("data", {}).items() if "text" in k]
    return "\n".join(map(str, parts))


def signatures(source: str) -> set[str]:
    """Every function and class that a source defines at the top, with parameters."""
    return {
        f"{node.name}({ast.unparse(node.args) if hasattr(node, 'args') else ''})"
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    }


# --- form ---------------------------------------------------------------------------


@rule
def valid_format(nb: Stored) -> Iterator[str]:
    version = (nb.nb.nbformat, nb.nb.nbformat_minor)
    if version != (4, 5):
        yield f"nbformat is {version}, not (4, 5)"
        return
    try:
        with warnings.catch_warnings(action="ignore"):
            nbformat.validate(copy.deepcopy(nb.nb))  # it mends what it finds
    except nbformat.ValidationError as error:
        yield f"not a valid notebook: {error.message}"
    ids = [cell.get("id", "") for cell in nb.nb.cells]
    yield from (
        f"two cells have the id {i!r}" for i in sorted({*ids}) if ids.count(i) > 1
    )
    for name in ids:
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name) or re.fullmatch(
            r"[0-9a-f]{8}(-.*)?", name
        ):
            yield f"cell id {name!r} says nothing: use one such as 's2-render'"


@rule
def normal_metadata(nb: Stored) -> Iterator[str]:
    if "widgets" in nb.nb.metadata:
        yield "metadata.widgets is stored: GitHub cannot show such a notebook"
    if {k: v for k, v in nb.nb.metadata.items() if k != "widgets"} != tool.METADATA:
        yield "the notebook's metadata is not the normal form: make notebooks"
    for cell in nb.nb.cells:
        if set(cell.metadata) - {"tags"}:
            yield f"cell {cell.id} has metadata beside its tags: make notebooks"


@rule
def known_tags(nb: Stored) -> Iterator[str]:
    for cell in nb.nb.cells:
        for tag in set(tool.tags(cell)) - TAGS:
            yield f"cell {cell.id} has the tag {tag!r}; known: {sorted(TAGS)}"


@rule
def code_parses(nb: Stored) -> Iterator[str]:
    for cell in nb.code:
        try:
            ast.parse(plain(cell))
        except SyntaxError as error:
            yield f"cell {cell.id} is not Python: {error}"


@rule
def sizes(nb: Stored) -> Iterator[str]:
    for cell in nb.code:
        limit = REBUILD_LINES if "rebuild" in tool.tags(cell) else LINES
        lines = cell.source.split("\n")
        if len(lines) > limit:
            yield f"cell {cell.id} has {len(lines)} lines, at most {limit}"
        for number, line in enumerate(lines, 1):
            if len(line) > COLUMNS:
                yield f"cell {cell.id}, line {number}: {len(line)} columns, at most 79"
    for cell in nb.text:
        words = len(prose(cell.source).split())
        if words > WORDS:
            yield f"cell {cell.id} has {words} words, at most {WORDS}"
    least, most = CELLS
    if not nb.solved and not least <= len(nb.nb.cells) <= most:
        yield f"{len(nb.nb.cells)} cells, not {least} to {most}"
    kilobytes = len(nbformat.writes(nb.nb).encode()) / 1000
    if kilobytes > KILOBYTES:
        yield f"{kilobytes:.0f} kB, at most {KILOBYTES}"


# --- outputs ------------------------------------------------------------------------


@rule
def outputs_stored(nb: Stored) -> Iterator[str]:
    ran = [cell for cell in nb.code if "nbval-skip" not in tool.tags(cell)]
    counts = [cell.execution_count for cell in ran]
    if counts != list(range(1, len(ran) + 1)):
        yield f"execution counts are {counts}, not 1 to {len(ran)}: make notebooks"
    shown = sum(bool(cell.outputs) for cell in nb.code)
    if shown * 2 < len(nb.code):
        yield f"{shown} of {len(nb.code)} code cells show something, at least half must"


@rule
def no_errors(nb: Stored) -> Iterator[str]:
    for cell in nb.code:
        failed = any(output.output_type == "error" for output in cell.outputs)
        if failed != ("raises-exception" in tool.tags(cell)):
            yield f"cell {cell.id} " + (
                "shows an error, and has no tag raises-exception"
                if failed
                else "has the tag raises-exception, and shows no error"
            )


@rule
def comparable_outputs(nb: Stored) -> Iterator[str]:
    for cell in nb.code:
        for output in cell.outputs:
            if output.get("name") == "stderr":
                yield f"cell {cell.id} shows stderr: {output.text[:60]!r}"
            if tool.WIDGET in output.get("data", {}):
                yield f"cell {cell.id} stores a view of a widget: make notebooks"
        if found := re.search(r"\b0x[0-9a-f]{6,}", output_text(cell)):
            yield f"cell {cell.id} shows the address of an object: {found[0]}"
    names = [
        output.get("name")
        for cell in nb.code
        for output in [*cell.outputs, {}]  # {} parts the cells
    ]
    for name, following in zip(names, names[1:], strict=False):
        if name and name == following:
            yield f"two {name} outputs in a row: make notebooks joins them"


@rule
def ignored_outputs(nb: Stored) -> Iterator[str]:
    ignored = [c for c in nb.code if "nbval-ignore-output" in tool.tags(c)]
    most = math.floor(len(nb.code) / 4)
    if len(ignored) > most:
        yield f"{len(ignored)} cells with nbval-ignore-output, at most {most} (25 %)"
    for cell in ignored:
        if "setup" not in tool.tags(cell) and not re.search(
            r"# .*\w+\W+\w+\W+\w+", cell.source
        ):
            yield f"cell {cell.id} is not compared, and no comment gives the reason"


@rule
def alternatives(nb: Stored) -> Iterator[str]:
    for cell in nb.text:
        for alt in re.findall(r"!\[([^\]]*)\]\(", cell.source):
            if not alt.strip():
                yield f"cell {cell.id} has an image without alternative text"
        for image in re.findall(r"<img\b[^>]*>", cell.source):
            if not re.search(r"\balt=[\"'][^\"']*\w", image):
                yield f"cell {cell.id} has an <img> without alternative text"
    for cell in nb.code:
        for output in cell.outputs:
            for kind in output.get("data", {}):
                told = output.get("metadata", {}).get(kind, {})
                alt = told.get("alt", "") if isinstance(told, dict) else ""
                if kind.startswith("image/") and not str(alt).strip():
                    yield f"cell {cell.id} shows an {kind} without alternative text"
            html = str(output.get("data", {}).get("text/html", ""))
            for image in re.findall(r"<img\b[^>]{,2000}", html):
                if not re.search(r"\balt=[\"'][^\"']*\w", image):
                    yield f"cell {cell.id} shows an <img> without alternative text"


# --- frame --------------------------------------------------------------------------


@rule
def setup_cell(nb: Stored) -> Iterator[str]:
    tagged = [cell for cell in nb.nb.cells if "setup" in tool.tags(cell)]
    if len(tagged) != 1 or nb.nb.cells[1:2] != tagged:
        yield "the second cell, and it alone, must have the tag setup"
    elif tagged[0].source != tool.SETUP_SOURCE:
        yield "the setup cell is not tool.SETUP_SOURCE, word for word"


@rule
def first_cell(nb: Stored) -> Iterator[str]:
    first = nb.nb.cells[0]
    if first.cell_type != "markdown" or not first.source.startswith("# "):
        yield "the first cell must be markdown and begin with the title, '# ...'"
        return
    parts = nb.path.parts[-2:] if nb.solved else nb.path.parts[-1:]
    wanted = tool.card("/".join(parts), {} if nb.solved else nb.timings)
    if wanted not in first.source:
        yield "the card in the first cell is not the generated one: make notebooks"
    if nb.solved:
        return
    if "able to" not in first.source:
        yield "the first cell does not say what one will be able to do"
    if "need" not in first.source.lower():
        yield "the first cell does not say what the lesson needs ('Needs: ...')"
    if not nb.timings.get(nb.name):
        yield "data/timings.json has no row for it: make notebooks"
    elif nb.timings[nb.name].get("cells") != len(nb.nb.cells):
        yield "data/timings.json counts other cells than the notebook has: run it again"
    if nb.nb.cells[2].cell_type != "markdown" or "\n- " not in nb.nb.cells[2].source:
        yield "the third cell must list the objectives, '- ...'"


@rule
def last_cells(nb: Stored) -> Iterator[str]:
    if nb.solved:
        return
    end = nb.nb.cells[-5:]
    if not any("learnt" in "".join(headings(c.source)) for c in end):
        yield "no heading with 'learnt' in the last five cells"
    status = f'checks.progress("{nb.lesson}")'
    if not any(c.cell_type == "code" and status in c.source for c in end):
        yield f"no cell {status} among the last five"
    if end[-1].cell_type != "markdown" or "next" not in end[-1].source.lower():
        yield "the last cell must name the next lesson"


@rule
def heading_order(nb: Stored) -> Iterator[str]:
    found = [(cell, line) for cell in nb.text for line in headings(cell.source)]
    titles = [cell for cell, line in found if line.startswith("# ")]
    if len(titles) != 1:
        yield f"{len(titles)} titles ('# ...'), not one"
    level = 0
    for cell, line in found:
        depth = len(line) - len(line.lstrip("#"))
        if depth > level + 1 and not (nb.solved and line.startswith("### Exercise")):
            yield f"cell {cell.id} jumps from heading level {level} to {depth}"
        level = depth


@rule
def sections(nb: Stored) -> Iterator[str]:
    if nb.solved:
        return
    lines = [
        h for cell in nb.text for h in headings(cell.source) if h.startswith("## ")
    ]
    numbered = [place for place, line in enumerate(lines) if re.match(r"## \d", line)]
    if not numbered:
        yield "no section '## N.M Title (core)'"
        return
    for line in lines[numbered[0] : numbered[-1] + 1]:
        if not SECTION.match(line):
            yield f"section {line!r} is not '## N.M Title (core)' or '... (deeper)'"
    lesson = nb.lesson.removeprefix("0")
    want = [f"{lesson}.{number}" for number in range(1, len(numbered) + 1)]
    have = [lines[place].split()[1] for place in numbered]
    if have != want:
        yield f"sections are numbered {have}, not {want}"


# --- exercises ----------------------------------------------------------------------


@rule
def exercises_complete(nb: Stored) -> Iterator[str]:
    cells = nb.nb.cells
    stubs = [place for place, cell in enumerate(cells) if "exercise" in tool.tags(cell)]
    if nb.solved:
        if stubs:
            yield "a solved copy holds no cell with the tag exercise"
        return
    if not 3 <= len(stubs) <= 5:
        yield f"{len(stubs)} exercises, not 3 to 5"
    ids = [tool.exercise_of(cells[place - 1]) for place in stubs]
    if ids != list(nb.exercises):
        yield f"exercises are {ids}, in data/exercises {list(nb.exercises)}"
    cards = [c.id for c in nb.text if c.source.startswith("### Exercise")]
    if len(cards) != len(stubs):
        yield f"{len(cards)} cards '### Exercise N.M - title', {len(stubs)} stubs"
    for place, name in zip(stubs, ids, strict=True):
        if name in nb.exercises:
            yield from (
                f"exercise {name}: {problem}"
                for problem in _exercise(
                    nb.exercises[name], cells[place - 1 : place + 3]
                )
            )


def _exercise(exercise: checks.Exercise, cells: list[Any]) -> Iterator[str]:
    task, stub, check, *after = cells
    if f" - {exercise.title}" not in task.source.partition("\n")[0]:
        yield f"the card's title is not {exercise.title!r}"
    if f"{exercise.minutes} min" not in task.source:
        yield f"the card does not say '{exercise.minutes} min'"
    if task.source.count("★") != exercise.stars:
        yield f"the card shows not {exercise.stars} of 3 stars, such as ★☆☆"
    if "```" not in task.source and "`" not in task.source:
        yield "the card has no worked input and output in `code`"
    hint = [c for c in after if c.cell_type == "markdown" and not tool.exercise_of(c)]
    near = "".join(cell.source for cell in [task, *hint])
    if "<details" not in near:
        yield "no hint in a collapsed <details>, in the card or below the check"
    if stub.source.strip() != exercise.stub.strip():
        yield "the stub is not the stub in data/exercises"
    wanted = f'checks.check("{exercise.id}", {exercise.name})'
    if check.cell_type != "code" or check.source.strip() != wanted:
        yield f"the cell after the stub is not {wanted}"
    elif "not attempted" not in output_text(check):
        yield "the stored verdict of the stub is not 'not attempted'"
    if not exercise.hints or not all(hint.strip() for hint in exercise.hints):
        yield "data/exercises has no hint, or an empty one"
    if len(exercise.wrong) < 2:
        yield f"data/exercises has {len(exercise.wrong)} wrong answers, at least 2"
    if not signatures(exercise.stub) <= signatures(exercise.solution):
        yield "the solution has not the stub's signature"


@rule
def exercises_independent(nb: Stored) -> Iterator[str]:
    if nb.solved:
        return
    for name, exercise in nb.exercises.items():
        for cell in nb.code:
            call = f'checks.check("{name}"'
            if "exercise" in tool.tags(cell) or call in cell.source:
                continue
            used = {
                node.id for node in ast.walk(tree(cell)) if isinstance(node, ast.Name)
            }
            if exercise.name in used:
                yield f"cell {cell.id} uses {exercise.name}, the answer of {name}"


@rule
def solved_copy(nb: Stored) -> Iterator[str]:
    if nb.solved:
        origin = nb.path.parent.parent / f"{nb.name.removesuffix('_solutions')}.ipynb"
        if not nb.name.endswith("_solutions") or not origin.exists():
            yield "it is the solved copy of no lesson"
        yield from tool.unsolved(nb.nb)
        return
    target = tool.solution_path(nb.path)
    if not nb.exercises:
        return
    if not target.exists():
        yield f"{target.name} is missing: make notebooks"
        return
    try:
        derived = tool.derive(nb.nb, nb.name, nb.exercises)
    except tool.Refused as problem:
        yield str(problem)
        return
    yield from (f"solved copy: {p}" for p in tool.drift(tool.read(target), derived))


# --- content ------------------------------------------------------------------------


@rule
def forbidden(nb: Stored) -> Iterator[str]:
    for cell in nb.nb.cells:
        for what, pattern in FORBIDDEN.items():
            if found := re.search(pattern, f"{cell.source}\n{output_text(cell)}"):
                yield f"cell {cell.id} holds {what}: {found[0]}"
    for cell in nb.code:
        for what, pattern in FORBIDDEN_IN_CODE.items():
            if re.search(pattern, cell.source, re.MULTILINE):
                yield f"cell {cell.id} holds {what}"
        if "sys.path" in cell.source and "setup" not in tool.tags(cell):
            yield f"cell {cell.id} touches sys.path: only the setup cell may"


@functools.cache
def public_functions() -> set[str]:
    """The public functions of all modules of the package."""
    return {
        node.name
        for path in (tool.ROOT / "qwen_course").glob("*.py")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
    }


@rule
def own_names(nb: Stored) -> Iterator[str]:
    for cell in nb.code:
        if "rebuild" in tool.tags(cell):
            continue
        for node in ast.walk(tree(cell)):
            if isinstance(node, ast.FunctionDef) and node.name in public_functions():
                yield f"cell {cell.id} defines {node.name}, a name of the package"


@functools.cache
def model_names() -> tuple[set[str], set[str]]:
    """Short names of the catalogue, and its generations."""
    cards = catalog.cards()
    return {card.name for card in cards}, {c.generation.split()[0] for c in cards}


def known_model(word: str) -> bool:
    """Whether a word is a catalogue name, a generation, or what names begin with."""
    names, generations = model_names()
    for ending in (*FORMATS, *ENGLISH):
        word = word.removesuffix(ending)
    if word in {"Qwen", *names, *generations} or CLASSES.match(word):
        return True
    return any(name.startswith(f"{word}-") for name in names)


@rule
def models_exist(nb: Stored) -> Iterator[str]:
    for cell in nb.nb.cells:
        # QwenLM/ is the publisher's account, in links
        pattern = r"\b(?:Qwen(?!LM/)|QwQ|QVQ|CodeQwen)[\w.\-]*"
        for word in re.findall(pattern, cell.source):
            if not known_model(word.rstrip(".-_")):
                yield f"cell {cell.id} names {word!r}: not in data/models.csv"


@rule
def links_exist(nb: Stored) -> Iterator[str]:
    for cell in nb.text:
        found = re.findall(r"\]\(([^)\s]+)", cell.source)
        found += re.findall(r"\b(?:href|src)=[\"']([^\"']+)", cell.source)
        for link in found:
            if re.match(r"[a-z]+:|#", link):
                continue
            if not (nb.path.parent / link.partition("#")[0]).exists():
                yield f"cell {cell.id} links to {link}, and there is no such file"


@rule
def one_address(nb: Stored) -> Iterator[str]:
    project = tool.ADDRESS.rpartition("/")[2]
    for cell in nb.nb.cells:
        pattern = rf"github(?:\.com)?/([\w.-]+/{project})\b"
        for found in re.findall(pattern, cell.source):
            if not tool.ADDRESS.endswith(f"/{found}"):
                yield f"cell {cell.id} points to {found}, the course is {tool.ADDRESS}"


# --- the setup cell -----------------------------------------------------------------


class FakeShell:
    """IPython on a machine with git and pip; notes what it is told."""

    def __init__(self):
        self.told = []

    def system(self, command: str) -> None:
        self.told.append(f"!{command}")

    def run_line_magic(self, name: str, line: str) -> None:
        self.told.append(f"%{name} {line}")


def run_setup(monkeypatch, folder: Path, known: set[str]) -> tuple[FakeShell, dict]:
    """Run the setup cell where only the packages in `known` are installed."""
    shell = FakeShell()
    space: dict[str, Any] = {"get_ipython": lambda: shell}
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: object() if name in known else None
    )
    source = tool.SETUP_SOURCE.partition("\nfrom qwen_course")[0]
    program = TransformerManager().transform_cell(source)
    exec(program, space)
    return shell, space


def test_setup_cell_on_colab(monkeypatch, tmp_path):
    shell, space = run_setup(monkeypatch, tmp_path, {"torch", "trl"})
    assert shell.told == [
        '!git clone -q --depth 1 {address} "{course}"',
        '%pip install -q --no-deps -e "{course}" {" ".join(needs)}',
        "%cd -q {course}/notebooks",
    ]
    assert space["address"] == tool.ADDRESS
    assert space["course"] == tmp_path / "qwen-course"
    assert space["needs"] == [
        "gguf", "py3langid", "bitsandbytes", "limits", "deprecated"
    ]  # fmt: skip
    assert space["sys"].path == [str(tmp_path / "qwen-course")]


def test_setup_cell_in_a_clone_that_is_not_installed(monkeypatch, tmp_path):
    place = tmp_path / "notebooks" / "solutions"
    place.mkdir(parents=True)
    (tmp_path / "qwen_course").mkdir()
    shell, space = run_setup(monkeypatch, place, set())
    assert space["course"] == tmp_path
    assert not any("clone" in line for line in shell.told)


def test_setup_cell_does_nothing_where_the_course_is_installed(monkeypatch, tmp_path):
    shell, space = run_setup(monkeypatch, tmp_path, {"qwen_course"})
    assert shell.told == []
    assert space["sys"].path == []


# --- the stored notebooks -----------------------------------------------------------


@functools.cache
def stored(path: Path) -> Stored:
    place = catalog.data_dir() / "timings.json"
    timings = json.loads(place.read_text("utf-8")) if place.exists() else {}
    return Stored(path, tool.read(path), tool.lesson_exercises(path.stem), timings)


def test_there_are_lessons():
    names = [tool.lesson_of(path.stem) for path in STORED if path.parent == NOTEBOOKS]
    # A letter puts a lesson beside others of its number; from 90 on: bonus lessons.
    main = sorted({name[:2] for name in names if int(name[:2]) < 90})
    assert main == [f"{n:02}" for n in range(len(main))]
    assert len(main) >= 3


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_notebook(path, name):
    problems = list(RULES[name](stored(path)))
    assert not problems, f"{path.name} breaks {name}:\n  " + "\n  ".join(problems)


def test_the_source_map_names_cells_that_exist():
    for row in catalog._rows("source_map.csv"):
        if row["lesson"]:
            nb = tool.read(NOTEBOOKS / f"{row['lesson']}.ipynb")
            assert row["cell"] in {cell.id for cell in nb.cells}, row


def test_each_lesson_with_exercises_has_a_notebook():
    lessons = {tool.lesson_of(path.stem) for path in STORED}
    paths = catalog.data_dir().glob("exercises/lesson_*.py")
    data = {path.stem.removeprefix("lesson_") for path in paths}
    assert data <= lessons


# --- each rule finds its fault ------------------------------------------------------


STUB = "def {}(x):\n    raise NotImplementedError"
TIMINGS = {"minutes": 0.5, "memory_gb": 0.5, "machine": "2 cores", "profile": "small"}


def toy_exercise(name: str) -> checks.Exercise:
    answer = f"double_{name[-1]}"
    return checks.Exercise(
        id=name,
        title="double it",
        minutes=5,
        stars=1,
        check=lambda answer: None if answer(2) == 4 else "expected: 4",
        hints=("Add it to itself.",),
        solution=f"def {answer}(x):\n    return x + x",
        name=answer,
        stub=STUB.format(answer),
        wrong=(checks.Wrong("a", "b", "c"), checks.Wrong("d", "e", "f")),
    )


def text_cell(name: str, source: str) -> Any:
    return nbformat.v4.new_markdown_cell(source, id=name)


def code_cell(name: str, source: str, shown: str = "", *tags: str) -> Any:
    data = {"text/plain": shown}
    outputs = [nbformat.v4.new_output("execute_result", data)] if shown else []
    metadata = {"tags": list(tags)} if tags else {}
    cell = nbformat.v4.new_code_cell(source, id=name, outputs=outputs)
    cell.metadata = nbformat.from_dict(metadata)
    return cell


def toy(folder: Path, lesson: str = "09") -> Stored:
    """A notebook that keeps every rule, with its solved copy, in a folder."""
    name, number = f"{lesson}_toy", lesson.removeprefix("0")
    timings = {name: TIMINGS | {"cells": 35}}
    card = tool.card(f"{name}.ipynb", timings)
    intro = "You will be able to double. Needs: nothing. About Qwen3-0.6B and Qwen2.5."
    cells = [
        text_cell("title", f"# Toy\n\n{card}\n\n{intro}"),
        code_cell("setup", tool.SETUP_SOURCE, "Session", "setup"),
        text_cell("objectives", "You learn\n\n- to double"),
        text_cell("s1", f"## {number}.1 Numbers (core)\n\n[next]({name}.ipynb)"),
    ]
    for place in range(8):
        cells += [
            text_cell(f"s1-text-{place}", "Look at the number."),
            code_cell(f"s1-number-{place}", f"{place} + 1", str(place + 1)),
        ]
    pictures = f"## {number}.2 Pictures (deeper)\n\n![a cat]({name}.ipynb)"
    cells.append(text_cell("s2", pictures))
    cells.append(
        code_cell(
            "s2-time", "# the time differs in every run\n1", "1", "nbval-ignore-output"
        )
    )
    cells[-1].outputs[0].data["image/png"] = "aGVsbG8="
    cells[-1].outputs[0].metadata["image/png"] = {"alt": "a bar of height 1"}
    ids = [f"{number}.{n}" for n in (1, 2, 3)]
    exercises = {task: toy_exercise(task) for task in ids}
    for task, made in exercises.items():
        told = (
            f"### Exercise {task} - double it\n\n5 min, ★☆☆. `double(2)` gives `4`.\n"
            "<details><summary>Hint</summary>Add.</details>"
        )
        place = f"e{task[-1]}"
        check = f'checks.check("{task}", {made.name})'
        cells += [
            text_cell(f"{place}-task", told),
            code_cell(f"{place}-stub", made.stub, "", "exercise"),
            code_cell(f"{place}-check", check, "not attempted: replace"),
        ]
    cells += [
        text_cell("end", "## What you learnt\n\n- to double"),
        code_cell("status", f'checks.progress("{lesson}")', "0 of 3 correct"),
        text_cell("next", "Next: nothing."),
    ]
    cells.insert(4, text_cell("s1-more", "One more sentence."))
    nb = nbformat.v4.new_notebook(cells=cells, nbformat_minor=5)
    tool.normalise(nb)
    path = folder / f"{name}.ipynb"
    solved = tool.derive(nb, name, exercises)
    for cell in solved.cells:
        if cell.cell_type == "code" and "solution" not in tool.tags(cell):
            output = nbformat.v4.new_output(
                "execute_result", {"text/plain": "correct: it"}
            )
            cell.outputs = [output]
    tool.normalise(solved)
    path.parent.mkdir(exist_ok=True)
    tool.write(nb, path)
    (folder / "solutions").mkdir()
    tool.write(solved, tool.solution_path(path))
    return Stored(path, nb, exercises, timings)


def cell_of(nb: Stored, name: str) -> Any:
    return next(cell for cell in nb.nb.cells if cell.id == name)


def put(name: str, source: str) -> Callable[[Stored], None]:
    """A fault: the source of a cell is another."""
    return lambda nb: cell_of(nb, name).update(source=source)


def swap(name: str, old: str, new: str) -> Callable[[Stored], None]:
    """A fault: a part of the source of a cell is another."""

    def break_(nb: Stored) -> None:
        cell = cell_of(nb, name)
        assert old in cell.source
        cell.source = cell.source.replace(old, new)

    return break_


def show(cell: str, **output: Any) -> Callable[[Stored], None]:
    """A fault: a cell has one more output."""
    return lambda nb: cell_of(nb, cell).outputs.append(nbformat.from_dict(output))


def tag(name: str, *tags: str) -> Callable[[Stored], None]:
    """A fault: a cell has other tags."""
    return lambda nb: cell_of(nb, name).metadata.update(tags=list(tags))


def exercise(**fields: Any) -> Callable[[Stored], None]:
    """A fault: the definition of exercise 9.1 is another."""

    def break_(nb: Stored) -> None:
        changed = toy_exercise("9.1").__dict__ | fields
        nb.exercises["9.1"] = checks.Exercise(**changed)

    return break_


def rename(name: str, new: str) -> Callable[[Stored], None]:
    return lambda nb: cell_of(nb, name).update(id=new)


def all_ignored(nb: Stored) -> None:
    for cell in nb.code:
        cell.metadata["tags"] = [*tool.tags(cell), "nbval-ignore-output"]


def stripped(nb: Stored) -> None:
    for cell in nb.code:
        cell.outputs = []


def as_solution(nb: Stored) -> None:
    nb.path = tool.solution_path(nb.path)
    nb.nb = tool.read(nb.path)


def unsolved(nb: Stored) -> None:
    as_solution(nb)
    nb.code[-1].outputs[0].data["text/plain"] = "not yet: it"


def drifted(nb: Stored) -> None:
    path = tool.solution_path(nb.path)
    solved = tool.read(path)
    solved.cells[3].source += "  # better"
    tool.write(solved, path)


LONG = "x = 1\n" * 26
FAULTS: list[tuple[str, str, Callable[[Stored], None]]] = [
    ("valid_format", "nbformat is", lambda nb: nb.nb.update(nbformat_minor=4)),
    ("valid_format", "two cells", rename("s1-text-1", "s1-text-0")),
    ("valid_format", "says nothing", rename("s1-text-1", "1a2b3c4d")),
    ("valid_format", "says nothing", rename("s1-text-1", "deadbeef")),
    ("valid_format", "not a valid", lambda nb: nb.nb.cells[3].pop("metadata")),
    ("normal_metadata", "metadata.widgets",
     lambda nb: nb.nb.metadata.update(widgets={})),
    ("normal_metadata", "normal form",
     lambda nb: nb.nb.metadata.language_info.update(version="3.11")),
    ("normal_metadata", "beside its tags",
     lambda nb: cell_of(nb, "setup").metadata.update(execution={})),
    ("known_tags", "'hard'", tag("s1-number-1", "hard")),
    ("code_parses", "not Python", put("s1-number-1", "1 +")),
    ("sizes", "27 lines", put("s1-number-1", LONG)),
    ("sizes", "80 columns", put("s1-number-1", "x = '" + "a" * 74 + "'")),
    ("sizes", "130 words", put("s1-text-1", "word " * 130)),
    ("sizes", "20 cells", lambda nb: nb.nb.update(cells=nb.nb.cells[:20])),
    ("sizes", "kB", show("s1-number-1", output_type="stream", text="a" * 400_000)),
    ("outputs_stored", "execution counts",
     lambda nb: cell_of(nb, "setup").update(execution_count=None)),
    ("outputs_stored", "show something", stripped),
    ("no_errors", "has no tag", show("s1-number-1", output_type="error", traceback=[])),
    ("no_errors", "shows no error", tag("s1-number-1", "raises-exception")),
    ("comparable_outputs", "stderr",
     show("s1-number-1", output_type="stream", name="stderr", text="Warning")),
    ("comparable_outputs", "view of a widget",
     show("s1-number-1", output_type="display_data", data={tool.WIDGET: {}})),
    ("comparable_outputs", "address",
     show("s1-number-1", output_type="stream", name="stdout", text="at 0x7f00aa11")),
    ("comparable_outputs", "two stdout", lambda nb: [
        show("s1-number-1", output_type="stream", name="stdout", text="a")(nb)
        for _ in range(2)]),
    ("ignored_outputs", "at most", all_ignored),
    ("ignored_outputs", "gives the reason", put("s2-time", "1")),
    ("alternatives", "image without", swap("s2", "![a cat]", "![ ]")),
    ("alternatives", "<img> without", put("s1-text-1", "<img src='a.png'>")),
    ("alternatives", "image/png without",
     lambda nb: cell_of(nb, "s2-time").outputs[0].update(metadata={})),
    ("alternatives", "shows an <img>", show(
        "s1-number-1", output_type="display_data", data={"text/html": "<img src=''>"})),
    ("setup_cell", "second cell", tag("s1-number-1", "setup")),
    ("setup_cell", "word for word", swap("setup", "seed=0", "seed=1")),
    ("first_cell", "must be markdown", swap("title", "# Toy", "Toy")),
    ("first_cell", "not the generated one", swap("title", "0.5 min", "0.4 min")),
    ("first_cell", "not the generated one", swap("title", "/blob/main/", "/blob/dev/")),
    ("first_cell", "be able to", swap("title", "able to", "free to")),
    ("first_cell", "needs", swap("title", "Needs", "Wants")),
    ("first_cell", "no row", lambda nb: nb.timings.clear()),
    ("first_cell", "other cells", lambda nb: nb.nb.cells.pop()),
    ("first_cell", "objectives", put("objectives", "You learn")),
    ("last_cells", "learnt", swap("end", "learnt", "did")),
    ("last_cells", "checks.progress", put("status", "1")),
    ("last_cells", "next lesson", put("next", "Goodbye.")),
    ("heading_order", "2 titles", swap("s1", "## 9.1", "# 9.1")),
    ("heading_order", "jumps", put("s1-text-1", "#### Deep")),
    ("sections", "is not '## N.M", swap("s1", " (core)", "")),
    ("sections", "is not '## N.M", put("s1-text-1", "## Between")),
    ("sections", "numbered", swap("s2", "9.2", "9.3")),
    ("sections", "no section", lambda nb: [
        swap("s1", "9.1 ", "")(nb), swap("s2", "9.2 ", "")(nb)]),
    ("exercises_complete", "2 exercises", tag("e1-stub")),
    ("exercises_complete", "in data/exercises", swap("e1-task", "9.1", "9.7")),
    ("exercises_complete", "4 cards", put("s1-text-1", "### Exercise 9.4 - more")),
    ("exercises_complete", "title", exercise(title="treble it")),
    ("exercises_complete", "'7 min'", exercise(minutes=7)),
    ("exercises_complete", "stars", exercise(stars=2)),
    ("exercises_complete", "worked input", swap("e1-task", "`", "")),
    ("exercises_complete", "<details>", swap("e1-task", "details>", "p>")),
    ("exercises_complete", "not the stub", exercise(stub="double = None")),
    ("exercises_complete", "after the stub", put("e1-check", "double(1)")),
    ("exercises_complete", "stored verdict",
     lambda nb: cell_of(nb, "e1-check").update(outputs=[])),
    ("exercises_complete", "no hint", exercise(hints=())),
    ("exercises_complete", "wrong answers", exercise(wrong=())),
    ("exercises_complete", "signature", exercise(solution="def double_1(y): y")),
    ("exercises_complete", "holds no cell", lambda nb: [
        as_solution(nb), nb.code[1].metadata.update(tags=["exercise"])]),
    ("exercises_independent", "the answer of", put("status", "double_1(1)")),
    ("solved_copy", "not correct", unsolved),
    ("solved_copy", "is not what", drifted),
    ("solved_copy", "is missing", lambda nb: tool.solution_path(nb.path).unlink()),
    ("solved_copy", "no exercise", lambda nb: nb.exercises.pop("9.2")),
    ("solved_copy", "of no lesson", lambda nb: [
        nb.path.unlink(), as_solution(nb)]),
    ("forbidden", "path of one machine", put("s1-text-1", "see /home/me/course")),
    ("forbidden", "path of one machine",
     show("s1-number-1", output_type="stream", name="stdout", text="in /tmp/x.py")),
    ("forbidden", "Windows", put("s1-text-1", r"see C:\Users\me")),
    ("forbidden", "token", put("s1-number-1", "key = 'hf_" + "a" * 20 + "'")),
    ("forbidden", "!pip", put("s1-number-1", "!pip install x")),
    ("forbidden", "star import", put("s1-number-1", "from math import *")),
    ("forbidden", "warning filter", put("s1-number-1", "w.filterwarnings('ignore')")),
    ("forbidden", "async with", put("s1-number-1", "a = openai.AsyncOpenAI()")),
    ("forbidden", "sys.path", put("s1-number-1", "sys.path.append('a')")),
    ("own_names", "defines check", put("s1-number-1", "def check():\n    pass")),
    ("models_exist", "Qwen3-5B", put("s1-text-1", "The Qwen3-5B is good.")),
    ("models_exist", "Qwen9", put("s1-text-1", "Wait for Qwen9.")),
    ("links_exist", "no such file", put("s1-text-1", "[there](nowhere.ipynb)")),
    ("one_address", "points to", put("s1-text-1", "https://github.com/me/qwen-course")),
]  # fmt: skip


@pytest.mark.parametrize("lesson", ["09", "09b"])
def test_the_toy_keeps_every_rule(tmp_path, lesson):
    good = toy(tmp_path / "notebooks", lesson)
    solved = copy.deepcopy(good)
    as_solution(solved)
    for nb in (good, solved):
        found = {name: list(check(nb)) for name, check in RULES.items()}
        assert {name: told for name, told in found.items() if told} == {}


@pytest.mark.parametrize(
    ("name", "fragment", "fault"), FAULTS, ids=[f"{f[0]}-{f[1]}" for f in FAULTS]
)
def test_rule_finds_its_fault(tmp_path, name, fragment, fault):
    nb = toy(tmp_path / "notebooks")
    fault(nb)
    told = list(RULES[name](nb))
    assert any(fragment in line for line in told), told


def test_every_rule_has_a_fault():
    assert {fault[0] for fault in FAULTS} == set(RULES)


# --- the tool that stores them ------------------------------------------------------


DEFINITION = """
from qwen_course.checks import Exercise, Wrong


def check(answer):
    got = answer(2)
    return None if got == 4 else f"input: 2, expected: 4, got: {got!r}"


EXERCISES = [
    Exercise(
        id=f"9.{n}", title="double it", minutes=5, stars=1, check=check,
        hints=("Add it to itself.",),
        solution=f"def double_{n}(x):\\n    return x + x", name=f"double_{n}",
        stub=f"def double_{n}(x):\\n    raise NotImplementedError",
        wrong=(Wrong("a", "b", "c"), Wrong("d", "e", "f")),
    )
    for n in (1, 2, 3)
]
"""


@pytest.mark.slow
def test_refresh_runs_and_stores_a_lesson_that_keeps_every_rule(tmp_path, monkeypatch):
    data = tmp_path / "data"
    shutil.copytree(catalog.data_dir(), data, ignore=shutil.ignore_patterns("pocket"))
    shutil.rmtree(data / "exercises")
    (data / "timings.json").unlink(missing_ok=True)
    (data / "exercises").mkdir()
    (data / "exercises" / "lesson_09.py").write_text(DEFINITION)
    monkeypatch.setenv("QWEN_COURSE_DATA", str(data))
    monkeypatch.setenv("PYTHONPATH", str(tool.ROOT))
    monkeypatch.setattr(tool, "SETUP_SOURCE", "from qwen_course import checks\n\n1")
    lesson = toy(tmp_path / "notebooks")
    cell_of(lesson, "setup").metadata["tags"].append("nbval-ignore-output")
    stripped_copy = copy.deepcopy(lesson.nb)
    for cell in stripped_copy.cells:
        if cell.cell_type == "code" and cell.id != "s2-time":
            cell.execution_count, cell.outputs = 7, []
    tool.write(stripped_copy, lesson.path)

    tool.refresh(lesson.path)

    row = json.loads((data / "timings.json").read_text())["09_toy"]
    assert set(row) == {"minutes", "memory_gb", "cells", "profile", "machine"}
    halves = [2 * row["minutes"], 2 * row["memory_gb"]]  # how many: the machine says
    assert all(half >= 1 and half == int(half) for half in halves)
    found = Stored(
        lesson.path, tool.read(lesson.path), lesson.exercises, {"09_toy": row}
    )
    assert cell_of(found, "status").outputs[0].data["text/plain"].endswith(
        "0 of 3 correct; still open: 9.1, 9.2, 9.3"
    )  # fmt: skip
    solved = copy.deepcopy(found)
    as_solution(solved)
    for nb in (found, solved):
        told = {name: list(check(nb)) for name, check in RULES.items()}
        assert {name: problems for name, problems in told.items() if problems} == {}
    before = lesson.path.read_bytes(), (data / "timings.json").read_bytes()
    tool.refresh(lesson.path)
    assert (lesson.path.read_bytes(), (data / "timings.json").read_bytes()) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "fragment"),
    [
        ("1 / 0", "cell 1 (bad): "),
        ("import sys\nprint('careful', file=sys.stderr)", "cell bad wrote to stderr"),
    ],
)
def test_refresh_refuses_and_stores_nothing(tmp_path, monkeypatch, source, fragment):
    monkeypatch.setenv("PYTHONPATH", str(tool.ROOT))
    nb = nbformat.v4.new_notebook(
        cells=[text_cell("title", "# Bad"), code_cell("bad", source)], nbformat_minor=5
    )
    path = tmp_path / "09_bad.ipynb"
    tool.write(nb, path)
    before = path.read_bytes()
    with pytest.raises(tool.Refused, match=re.escape(fragment)):
        tool.refresh(path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.glob("*.*")] == ["09_bad.ipynb"]


def test_normal_form_of_outputs():
    cell = code_cell("a", "1")
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="a\n"),
        nbformat.v4.new_output("stream", name="stdout", text="b\n"),
        nbformat.v4.new_output(
            "display_data", {tool.WIDGET: {"model_id": "1"}, "text/plain": "slider"}
        ),
        nbformat.v4.new_output("display_data", {tool.WIDGET: {"model_id": "2"}}),
        nbformat.v4.new_output(
            "execute_result", {"text/plain": "1"}, execution_count=9
        ),
    ]
    cell.metadata.update(execution={"started": "1"}, tags=["rebuild"])
    nb = nbformat.v4.new_notebook(cells=[cell], metadata={"widgets": {}, "x": 1})
    tool.normalise(nb)
    assert nb.metadata == tool.METADATA
    assert cell.metadata == {"tags": ["rebuild"]}
    assert [output.get("text") for output in cell.outputs] == ["a\nb\n", None, None]
    assert [dict(o.get("data", {})) for o in cell.outputs[1:]] == [
        {"text/plain": "slider"},
        {"text/plain": "1"},
    ]
    assert cell.execution_count == cell.outputs[2].execution_count == 1


def test_an_ignored_output_stays_while_its_source_does():
    old = code_cell("a", "now()", "12:00", "nbval-ignore-output")
    for source, expected in (("now()", "12:00"), ("now(1)", "13:00")):
        new = code_cell("a", source, "13:00", "nbval-ignore-output")
        nb = nbformat.v4.new_notebook(cells=[new])
        tool.normalise(nb, nbformat.v4.new_notebook(cells=[old]))
        assert new.outputs[0].data["text/plain"] == expected


def test_timings_change_rarely():
    row = {"cells": 3, "profile": "small", "machine": "2 cores"}
    timings: dict[str, Any] = {}
    assert tool.update_timings(timings, "a", 130, 2.2, row)
    assert timings["a"] == row | {"minutes": 2.5, "memory_gb": 2.5}
    assert not tool.update_timings(timings, "a", 125, 2.6, row)
    assert not tool.update_timings(timings, "a", 179, 3.0, row)
    assert not tool.update_timings(timings, "a", 119, 1.9, row)  # was rounded up
    assert tool.update_timings(timings, "a", 185, 2.6, row)
    assert timings["a"]["minutes"] == 3.5
    assert tool.update_timings(timings, "a", 185, 2.6, row | {"cells": 4})


def test_the_card_is_put_below_the_title_and_replaced():
    first = tool.with_card("# Toy\n\nYou will.", "<!-- 1 -->")
    assert first == "# Toy\n\n<!-- 1 -->\n\nYou will."
    card = tool.card("09_toy.ipynb", {})
    source = tool.with_card("# Toy\n\nYou will.", card)
    again = tool.with_card(source, tool.card("09_toy.ipynb", {"09_toy": TIMINGS}))
    assert again.count(tool.CARD_START) == again.count(tool.CARD_END) == 1
    assert "0.5 min" in again
    assert again.endswith("\n\nYou will.")


# --- names of models ----------------------------------------------------------------


@pytest.mark.parametrize(
    "word",
    ["Qwen", "Qwen3", "Qwen2.5", "Qwen3-0.6B", "Qwen2.5-Coder", "Qwen3-style",
     "QwQ-32B", "Qwen2.5-Coder-0.5B-Instruct-GGUF", "Qwen3MoeForCausalLM"],
)  # fmt: skip
def test_known_models(word):
    assert known_model(word)


@pytest.mark.parametrize(
    "word", ["Qwen3-5B", "Qwen9", "Qwen2.5-Code", "Qwen3-0.6", "QwQ-7B"]
)
def test_unknown_models(word):
    assert not known_model(word)
