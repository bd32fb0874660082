"""Write the pages that are generated from data.

    python tests/make_pages.py

A page is never edited by hand: change the data, then run `make pages`. Tests compare
each stored page with the one written here.
"""

import csv
import functools
import html
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
HEADING_ALONE = "nothing: a heading that leads to what follows"


def rows_of(name: str) -> list[dict[str, str]]:
    """Return the rows of a file in data/."""
    with (ROOT / "data" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@functools.cache
def cells_of(lesson: str) -> dict[str, dict]:
    """Return the cells of a lesson by their ids, in order."""
    text = (NOTEBOOKS / f"{lesson}.ipynb").read_text("utf-8")
    return {cell["id"]: cell for cell in json.loads(text)["cells"]}


def section_of(lesson: str, cell: str) -> str:
    """Return the number of the section that holds a cell; "start" before the first."""
    number = "start"
    for name, found in cells_of(lesson).items():
        if found["cell_type"] == "markdown":
            heads = re.findall(r"^## (\S+) .*\)$", "".join(found["source"]), re.M)
            number = (heads or [number])[-1]
        if name == cell:
            return number
    raise KeyError(f"{lesson} has no cell {cell}")


def span(lines: str) -> range:
    """Return the lines of "12-15" or "12"."""
    first, _, last = lines.partition("-")
    return range(int(first), int(last or first) + 1)


def holds(outer: dict[str, str], inner: dict[str, str]) -> bool:
    """Return whether a row of the outline holds the lines of a row of the map."""
    if (outer["text"], outer["kind"]) != (inner["text"], inner["kind"]):
        return False
    whole, part = span(outer["source_lines"]), span(inner["source_lines"])
    return part[0] in whole and part[-1] in whole


def told(check: str) -> str:
    """Return one check as a few words with a link."""
    if match := re.fullmatch(r"tests/(test_\w+)\.py::test_(\w+)", check):
        return f"[{match[1]}](../tests/{match[1]}.py): {match[2].replace('_', ' ')}"
    if match := re.fullmatch(r"(data/\S+): (.*)", check):
        name, words = Path(match[1]).name, html.escape(match[2], quote=False)
        return f"[{name}](../{match[1]}): {words}"
    return re.sub(r"^strict nbval of (\S+)$", r"cell `\1`", check)


def the_document() -> str:
    """Return the page on the source document: what was wrong, who teaches it now."""
    outline = rows_of("source_outline.csv")
    kept = [
        r for r in rows_of("source_map.csv") if r["what_was_wrong"] != HEADING_ALONE
    ]
    parts: dict[str, list[str]] = {}
    for row in kept:
        part = next(block["part"] for block in outline if holds(block, row))
        where = "left out"
        if lesson := row["lesson"]:
            number = section_of(lesson, row["cell"])
            name = number if number[0].isdigit() else lesson.partition("_")[0]
            where = f"[{name}]({lesson}.ipynb)"
        checks = "<br>".join(told(check) for check in row["checked_by"].split("; "))
        wrong = html.escape(row["what_was_wrong"], quote=False)
        line = f"| {row['topic']} | {where} | {wrong} | {checks} |"
        parts.setdefault(part, []).append(line)
    codes = sum(block["kind"] == "code" for block in outline)
    text = f"""\
# The document and what we changed

<!-- Written by `make pages` from data/source_map.csv. Do not edit. -->

This course grew from one chapter of Microsoft's
[Edge AI for Beginners](https://github.com/microsoft/edgeai-for-beginners): the Qwen
family, with {codes} blocks of code. We had a damaged copy in Greek. It lacks a part,
and for that part the English original was read. Nothing is dropped in silence: below is
each topic, claim and code block (B1 to B{codes}), the section that teaches it, what was
wrong with it, and what checks it now.

*Nothing* means that it was right, or that there was nothing to be wrong. *Cell* names a
cell of that lesson: `make test` runs it and compares its output with the stored one.
Headings without text of their own are left out here; they are in
[source_map.csv](../data/source_map.csv), with the lines of the source.
"""
    head = "| topic | taught in | what was wrong | checked by |\n|---|---|---|---|\n"
    return text + "".join(
        f"\n## {part}\n\n{head}" + "\n".join(lines) + "\n"
        for part, lines in parts.items()
    )


def plain(text: str) -> str:
    """Return a text in small letters, without the marks of bold, italic and code."""
    return re.sub(r"[*`]", "", text).casefold()


def pattern_of(row: dict[str, str]) -> re.Pattern[str]:
    """Return what finds a term of the glossary, or its other names, in plain text."""
    term = re.sub(r" \(.*\)$", "", row["term"])  # "role (of a model)" is said as "role"
    names = [plain(name) for name in (term, *row["other_names"].split("; ")) if name]
    names += [f"{name}s" for name in names] + [
        f"{name[:-1]}ies" for name in names if name.endswith("y")
    ]
    return re.compile(rf"(?<![\w-])({'|'.join(map(re.escape, names))})(?![\w-])")


def place_of(row: dict[str, str]) -> str:
    """Return the link to the section that explains a term.

    A cell may end one section and begin the next: the part that has the term counts.
    """
    lesson, cells = row["lesson"], cells_of(row["lesson"])
    before = list(cells)[: list(cells).index(row["cell"])]
    number = section_of(lesson, before[-1]) if before else "start"
    text = "".join(cells[row["cell"]]["source"])
    for part in re.split(r"^(?=## )", text, flags=re.M):
        number = (re.findall(r"^## (\S+) .*\)$", part, re.M) or [number])[-1]
        if pattern_of(row).search(plain(part)):
            break
    label = number if number[0].isdigit() else lesson.partition("_")[0]
    return f"[{label}]({lesson}.ipynb)"


def glossary() -> str:
    """Return the page of terms, in the order of the alphabet."""
    lines = []
    for row in rows_of("glossary.csv"):
        other = row["other_names"].replace(";", ",")
        other = f" ({other})" if other else ""
        lines.append(f"- **{row['term']}**{other}: {row['meaning']} {place_of(row)}\n")
    return f"""\
# Glossary

<!-- Written by `make pages` from data/glossary.csv. Do not edit. -->

The {len(lines)} terms that come again and again, each in one sentence as this course
uses it. Other names for the same thing stand in brackets. The number is the section
that first explains it.

{"".join(lines)}"""


def minutes_of(lesson: str) -> dict[str, float]:
    """Return a learner's minutes for the core of a lesson and for the rest of it.

    150 words or ten lines of code a minute, looking at results included, and what the
    cards of the exercises say.
    """
    return minutes_of_cells(cells_of(lesson).values())


def minutes_of_cells(cells: Iterable[dict]) -> dict[str, float]:
    """Return the same of some cells."""
    minutes, part = {"core": 0.0, "deeper": 0.0}, "core"
    for cell in cells:
        text = "".join(cell["source"])
        if "## What you learnt" in text:
            part = "core"
        if heads := re.findall(r"^## \S+ .*\((core|deeper)\)$", text, re.M):
            part = heads[-1]
        if cell["cell_type"] == "markdown":
            if task := re.search(r"^### Exercise \S+ .*\n+(\d+) min", text, re.M):
                minutes[part] += int(task[1])
            else:
                words = re.sub(r"\]\([^)]*\)|<[^>]+>", "", text)
                minutes[part] += len(re.findall(r"[A-Za-z][\w'-]*", words)) / 150
        elif "setup" not in cell["metadata"].get("tags", []):
            minutes[part] += sum(bool(line.strip()) for line in text.splitlines()) / 10
    return minutes


def minutes_told(lesson: str) -> int:
    """Return the minutes of the core that the first cell of a lesson tells."""
    text = "".join(next(iter(cells_of(lesson).values()))["source"])
    count, unit = re.findall(r"[Aa]bout (\d+) (minutes|hours)", text)[0]
    return int(count) * (60 if unit == "hours" else 1)


def lessons_table() -> str:
    """Return the table of README: what each lesson takes."""
    measured, budgets = (
        json.loads((ROOT / "data" / name).read_text("utf-8"))
        for name in ("timings.json", "budgets.json")
    )
    lines = []
    for name, row in measured.items():
        core, deeper = minutes_told(name), minutes_of(name)["deeper"]
        number, exercises = name.partition("_")[0], 0
        found = budgets.get(name, {}).get("small")  # none: not measured yet
        official = f"{found['minutes']:g} | {found['memory_gb']:g}" if found else "|"
        for cell in cells_of(name).values():
            exercises += "".join(cell["source"]).startswith("### Exercise")
        lines.append(
            f"| [{number}](notebooks/{name}.ipynb) | {core} | {core + deeper:.0f} "
            f"| {row['minutes']:g} | {row['memory_gb']:g} | {official} "
            f"| {row['cells']} | {exercises} |\n"
        )
    return (
        "| lesson | you: core | you: all | pocket | GB | official | GB | cells "
        "| exercises |\n" + "| --- " * 9 + "|\n" + "".join(lines)
    )


def first_steps() -> str:
    """Return the sentences of README on a newcomer's path."""
    place = ROOT / "data" / "measured" / "newcomer.json"
    if not place.exists():
        return ""
    found = json.loads(place.read_text("utf-8"))
    parts = ("machine", "reading")  # halves of a minute up, as readers round
    machine, you = ({k: int(v + 0.5) for k, v in found[part].items()} for part in parts)
    begin = [name for name in lesson_names() if name.partition("_")[0] < "04"]
    hours = round(sum(map(minutes_told, begin)) / 60)
    return f"""
A newcomer's path, tried in a new clone with nothing kept from before. After
{machine["ready"]} minutes the course is installed and the weights are there. The first
answer of a model comes {machine["answer"]} minutes after `git clone`, with
{you["answer"]} of reading on top; the first solved exercise {machine["exercise"]}
minutes after `git clone`, with {you["exercise"]} of reading and work on top. To the end
of lesson 03 it takes about {hours} hours.
"""


def lesson_names() -> list[str]:
    """Return the names of the lessons in order."""
    return [path.stem for path in sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))]


def readme() -> str:
    """Return README with its generated table."""
    text = (ROOT / "README.md").read_text("utf-8")
    begin, end = "<!-- lessons -->\n", "<!-- /lessons -->"
    before, _, rest = text.partition(begin)
    return (
        before + begin + lessons_table() + first_steps() + end + rest.partition(end)[2]
    )


PAGES: dict[Path, Callable[[], str]] = {
    ROOT / "README.md": readme,
    NOTEBOOKS / "the_document.md": the_document,
    NOTEBOOKS / "glossary.md": glossary,
}

if __name__ == "__main__":
    for path, page in PAGES.items():
        path.write_text(page(), "utf-8")
        print(path.relative_to(ROOT))
