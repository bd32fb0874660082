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
from collections.abc import Callable
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


PAGES: dict[Path, Callable[[], str]] = {
    NOTEBOOKS / "the_document.md": the_document,
    NOTEBOOKS / "glossary.md": glossary,
}

if __name__ == "__main__":
    for path, page in PAGES.items():
        path.write_text(page(), "utf-8")
        print(path.relative_to(ROOT))
