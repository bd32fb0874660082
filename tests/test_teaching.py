"""The page for teachers: minutes that add up, and lessons that stand alone."""

import ast
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import make_pages
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from qwen_course import checks

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = {
    path.name.split("_")[0]: path for path in sorted(ROOT.glob("notebooks/*.ipynb"))
}
PAGE = (ROOT / "TEACHING.md").read_text("utf-8")
HEADING = re.compile(r"^## ([0-9]+[a-z]?\.[0-9]+) .*\((core|deeper)\)$", re.M)
TASK = re.compile(r"^### Exercise (\S+) .*\n+(\d+) min", re.M)
ROW = re.compile(r"\| (\d):(\d\d) \| (\d+) \| (.+?) \| (.*?) ?\| (.*?) ?\|")
PATHS = {"Half a day": [210], "A full day": [390], "Four evenings": [120] * 4}
ROUNDED = 2.5  # minutes that a row may be off its rule
FIRST_ARGUMENT = {  # of a call that opens a file
    "open", "Path", "load", "read_csv", "read_json", "read_parquet", "from_pretrained",
    "save_pretrained", "to_csv", "to_json", "savefig", "save", "load_file", "save_file",
}  # fmt: skip
WRITES = {
    "write_text", "write_bytes", "save_pretrained", "to_csv", "to_json", "savefig",
    "save", "save_file", "mkdir", "makedirs",
}  # fmt: skip


class Lesson:
    """Of a lesson: its core's minutes, its exercises, and its sections' cells."""

    def __init__(self, path: Path):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        texts = ["".join(cell["source"]) for cell in cells]
        self.minutes = make_pages.minutes_told(path.stem)
        self.cells: dict[str, int] = {}
        self.core: list[str] = []
        self.exercises: dict[str, tuple[str, int]] = {}  # its section, its minutes
        here = ""
        for text in texts:
            if "## What you learnt" in text:
                break
            if found := HEADING.search(text):
                here = found[1]
                self.core += [here] * (found[2] == "core")
            if here:
                self.cells[here] = self.cells.get(here, 0) + 1
                for name, minutes in TASK.findall(text):
                    self.exercises[name] = here, int(minutes)

    def planned(self, sections: list[str], exercises: list[str]) -> float:
        """Return the minutes of some core sections with some of their exercises."""
        own = [m for section, m in self.exercises.values() if section in self.core]
        cells = sum(self.cells[name] for name in self.core)
        share = sum(self.cells[name] for name in sections) / cells
        chosen = sum(self.exercises[name][1] for name in exercises)
        return (self.minutes - sum(own)) * share + chosen


@functools.cache
def lesson(name: str) -> Lesson:
    return Lesson(NOTEBOOKS[name])


def part(title: str) -> str:
    (found,) = re.findall(rf"^### ({title}: .*?)(?=^###? |\Z)", PAGE, re.M | re.S)
    return found


def rows(title: str) -> list[re.Match]:
    lines = [line for line in part(title).splitlines() if line.startswith("| ")]
    found = [ROW.fullmatch(line) for line in lines[2:]]
    assert lines[0].startswith("| from |")
    assert all(found), lines
    return found


def chosen(told: str, known: Lesson) -> list[str]:
    """Return the core sections that "3.1 to 3.3" or "whole core" names."""
    if told == "whole core":
        return known.core
    first, last = told.split(" to ")
    names = [*known.cells]
    assert {first, last} <= {*known.core}
    between = names[names.index(first) : names.index(last) + 1]
    return [name for name in between if name in known.core]


@pytest.mark.parametrize("name", make_pages.lesson_names())
def test_a_lesson_tells_the_minutes_that_reading_and_exercises_take(name):
    rule = make_pages.minutes_of(name)["core"]
    assert 0.75 < rule / make_pages.minutes_told(name) < 1.25


@pytest.mark.parametrize("title", PATHS)
def test_minutes_and_clock_of_a_path_add_up(title):
    sums, clock = [], 0
    for row in rows(title):
        hours, past, minutes = map(int, row.group(1, 2, 3))
        if (hours, past) == (0, 0):
            sums.append(0)
            clock = 0
        assert 60 * hours + past == clock, row[0]
        sums[-1] += minutes
        clock += minutes
    assert sums == PATHS[title]
    assert f"**Sum: {sum(sums)} minutes" in part(title)


@pytest.mark.parametrize("title", PATHS)
def test_a_path_names_what_exists_and_keeps_to_its_minutes(title):
    met = []
    for row in rows(title):
        what, sections, exercises = row.group(4, 5, 6)
        link = re.fullmatch(r"\[(\w+)\]\(notebooks/(\S+)\)", what)
        if not link:
            assert (sections, exercises) == ("", ""), row[0]
            continue
        assert NOTEBOOKS[link[1]].name == link[2]
        known = lesson(link[1])
        taken = chosen(sections, known)
        tasks = exercises.split(", ") if exercises else []
        assert {known.exercises[name][0] for name in tasks} <= {*taken}, row[0]
        assert abs(known.planned(taken, tasks) - int(row[3])) <= ROUNDED, row[0]
        met += [("section", n) for n in taken] + [("exercise", n) for n in tasks]
    assert len(met) == len({*met})


def test_a_section_cannot_be_named_by_half():
    with pytest.raises(AssertionError):
        chosen("3.1 to 3.7", lesson("03"))  # 3.7 is deeper
    whole = lesson("03")
    names = [n for n, (section, _) in whole.exercises.items() if section in whole.core]
    assert whole.planned(whole.core, names) == pytest.approx(whole.minutes)


def test_further_evenings_name_the_minutes_of_a_core():
    text = PAGE.partition("More evenings")[2].partition("\n\n")[0]
    found = re.findall(r"\(notebooks/(\w+?)_\w+\.ipynb\)\s(?:minutes\s)?(\d+)", text)
    assert len(found) == 4
    assert [(n, lesson(n).minutes) for n, _ in found] == [(n, int(m)) for n, m in found]


def test_links_lead_to_files_and_sections():
    links = re.findall(r"\[([^]]+)\]\(([^)]+)\)", PAGE)
    assert len(links) > 30
    for name, target in links:
        assert (ROOT / target).exists(), target
        if re.fullmatch(r"\d+[a-z]?\.\d+", name):
            number = target.removeprefix("notebooks/").split("_")[0]
            assert name in lesson(number).cells, name


def test_sections_and_exercises_in_the_text_exist():
    known = {
        n for each in map(lesson, NOTEBOOKS) for n in (*each.cells, *each.exercises)
    }
    prose = re.sub(r"```.*?```|`[^`]*`", "", PAGE, flags=re.S)
    named = {*re.findall(r"(?<![\w.])(?:\d[abcd]|0b|10|90|0)\.\d+\b", prose)}
    sizes = {"0.5"}  # gigabytes, and a section
    assert len(named) > 30
    assert named - known - sizes == set()


def test_fifteen_questions_and_five():
    text = PAGE.partition("## What learners ask")[2].partition("\n## ")[0]
    numbers = [int(n) for n in re.findall(r"^(\d+)\. \*", text, re.M)]
    assert numbers == [*range(1, 16), *range(1, 6)]
    sections = re.findall(r"\[(9[ab]\.\d)\]", text)
    assert sections[:15] == [f"9a.{n}" for n in range(1, 9)] + [
        f"9b.{n}" for n in range(1, 8)
    ]


def test_the_rubric_is_that_of_the_capstone():
    steps = re.search(r"eight steps \(([^)]+)\)", PAGE)[1].replace("\n", " ")
    stored = json.loads(NOTEBOOKS["10"].read_text("utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in stored]
    (rubric,) = (text for text in texts if text.startswith("| step | 1 point"))
    assert re.findall(r"^\| (\w+) \|", rubric, re.M)[1:] == steps.split(", ")
    assert "12 of 16" in rubric
    assert "12 of 16" in PAGE


def test_the_totals_are_those_of_the_course():
    lessons = checks.progress().lessons
    total = sum(map(len, lessons.values()))
    assert f" of {total} exercises" in PAGE
    assert f"/{total}    1/{len(lessons)} " in PAGE


def test_the_page_is_short_and_the_readme_leads_to_it():
    assert len(PAGE.splitlines()) <= 250
    readme = (ROOT / "README.md").read_text("utf-8")
    lessons = readme.partition("\n## Lessons\n")[2].partition("\n## ")[0]
    assert "](TEACHING.md)" in "".join(lessons.rstrip().splitlines()[-3:])


def calls(source: str) -> Iterator[tuple[str, ast.Call]]:
    """Yield the last name of what a cell calls, and the call."""
    tree = ast.parse(TransformerManager().transform_cell(source))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func
            yield getattr(name, "attr", getattr(name, "id", "")), node


def fault(sources: list[str]) -> str:
    """What makes a notebook lean on a file that another may have left, or nothing."""
    writes, fresh = False, any("tempfile" in source for source in sources)
    for source in sources:
        for name, call in calls(source):
            writes = writes or name in WRITES
            first = call.args[0] if call.args else None
            if name not in FIRST_ARGUMENT or not isinstance(first, ast.Constant):
                continue
            told, whose = first.value, ast.unparse(call.func)
            if isinstance(told, str) and whose != "models.load":
                return f"{whose}({told!r}) names a file of this folder"
    return "writes, and not to a temporary folder" if writes and not fresh else ""


def code(name: str) -> list[str]:
    cells = json.loads(NOTEBOOKS[name].read_text("utf-8"))["cells"]
    return [
        "".join(cell["source"])
        for cell in cells
        if cell["cell_type"] == "code" and cell["id"] != "setup"
    ]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_lesson_needs_a_file_of_another(name):
    assert fault(code(name)) == ""


def test_a_folder_named_in_a_lesson_is_named_in_no_other():
    """06c writes where the document wrote; nobody reads there."""
    folders = [
        (folder, name)
        for name in NOTEBOOKS
        for folder in {
            *re.findall(r"""["'](\.\.?/[^"']+)["']""", "\n".join(code(name)))
        }
    ]
    assert len({folder for folder, _ in folders}) == len(folders)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ('open("results.json")', "names a file"),
        ('text = Path("mine.txt").read_text("utf-8")', "names a file"),
        ('finetune.save(tuned, folder / "a")', "temporary"),
        ('import tempfile\nplace = tempfile.mkdtemp()\nopen(f"{place}/a")', ""),
        ('chat = models.load("chat")', ""),
    ],
)
def test_a_file_of_the_folder_is_found(source, told):
    assert told in fault([source])
    assert bool(told) == bool(fault([source]))
