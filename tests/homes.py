"""Every number has a home: where each figure in the prose comes from.

`data/numbers/` has a file for each lesson and page, with a row for each figure. A
figure is a number with two digits or more, with decimals, or with a unit behind it. No
figures: code, headings, addresses, numbers of lessons, sections, exercises and lists,
years, what is part of a name (Qwen2.5, int8), cards of exercises (their checks hold
them), generated lines, and the tables of pages (tests of their own hold those).

The columns: `cell` (id; of a page nothing), `number` (as it stands there), `home`,
`reads`, `note`. A home is one of

    output CELL      the stored output of a code cell (02_chat_templates:CELL: of
                     another lesson)
    source CELL      chosen in the code of that cell
    data FILE PATH   a value in data/: keys of a JSON or TOML file joined by /, of a CSV
                     file column=key/column; a FILE alone is its whole text
    file PATH        the text of a file of this repository
    link URL         published there; the address stands in the same lesson or page
    given            a definition, a convention, plain arithmetic; `note` says which

or several, joined by " + ". `reads` is empty where the number itself stands there, else
an expression of numbers that do, such as 100 * 0.867 or 79 / 0.9. ~ before it says that
the prose rounds (about, nearly): then it may be a tenth away. Free beside the home's
numbers are 1, 2, 8, 10, 16, 60, 100, 1000, 1024 and powers of them.

    python tests/homes.py 02 [--left]   # rows of lesson 02, proposals for the rest
"""

import ast
import csv
import json
import math
import operator
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import nbformat
from make_pages import lesson_names as lessons

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "data" / "numbers"
PAGES = ("README.md", "TEACHING.md")
FREE = {1, 2, 8, 10, 16, 60, 100, 1000, 1024, 1e6, 1e9, 2**20, 2**30}
UNITS = r"%|×|°|(?:times|tokens?|bytes|[kKMG]i?B|GB/s|ms|s|min|minutes|seconds)\b"
NUMBER = r"(?<![\w.,/#§-])[-−]?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)"
FIGURE = re.compile(rf"({NUMBER})(?![\w]|[.,]\d|-\w)(?:\s?({UNITS}|of\s(?=[\d,]+\b)))?")
PLAIN = re.compile(r"(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:e-?\d+)?")
NO_FIGURES = [
    r"\b(?:19|20)\d\d(?:-\d\d)*\b",
    r"```.*?```",
    r"<!--.*?-->",
    r"``[^`]*``|`[^`\n]*`",
    r"!?\[!\[.*?\]\(.*?\)\]\(.*?\)",
    r"\[\d+[^\]]*\]\([^)]*\.ipynb[^)]*\)",
    r"(?<=\])\([^)]*\)",
    r"https?://\S+",
    r"<[^>]+>",
    r"^#[^\n]*$",
    r"^\s*\d+\. ",
    r"\b(?:[Ll]essons?|[Ss]ections?|[Ee]xercises?|[Ee]ntry|[Ee]ntries|Hint|items?"
    r"|[Ii]ssues?|[Pp]ull requests?|arXiv:?)"
    r" \d[\w.]*(?:(?:, | and | to | or )\d[\w.]*)*",
    r"\b(?:Python|torch|transformers|CUDA|version|RFC|Apache|BSD-) ?\d[\d.]*",
]
OPERATORS: dict[type, Any] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.Pow: operator.pow, ast.FloorDiv: operator.floordiv,
}  # fmt: skip


class Homeless(ValueError):
    """A row that does not lead to its number."""


@dataclass(frozen=True)
class Row:
    """A line of a file in data/numbers."""

    lesson: str
    cell: str
    number: str
    home: str
    reads: str = ""
    note: str = ""


def figures(text: str) -> list[str]:
    """The figures of a text, each once, in order."""
    if text.startswith("### Exercise"):
        return []
    for pattern in NO_FIGURES:
        text = re.sub(pattern, " ¤ ", text, flags=re.DOTALL | re.MULTILINE)
    found = []
    for match in FIGURE.finditer(text):
        number, unit = match.group(1), (match.group(2) or "").strip()
        if unit or len(re.sub(r"\D", "", number)) > 1:
            shown = f"{number} {unit}" if unit in ("%", "×") else number
            found.append(shown.replace("−", "-"))
    return list(dict.fromkeys(found))


@cache
def notebook(name: str) -> Any:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def texts() -> Iterator[tuple[str, str, str]]:
    """Lesson, cell and text of every text cell; of a page its name, "" and text."""
    for name in lessons():
        for cell in notebook(name).cells:
            if cell.cell_type == "markdown":
                yield name, cell.id, _written(cell.source)
    for page in PAGES:
        text = _written((ROOT / page).read_text("utf-8"))
        yield page, "", re.sub(r"^\|.*$", " ", text, flags=re.MULTILINE)


def _written(text: str) -> str:
    """A text without what a program put there."""
    return re.sub(r"<!-- (\w+)[^>]*-->.*?<!-- /\1 -->", " ", text, flags=re.DOTALL)


def wanted() -> dict[tuple[str, str, str], str]:
    """Every figure that needs a home, with the text that it stands in."""
    return {
        (lesson, cell, number): text
        for lesson, cell, text in texts()
        for number in figures(text)
    }


def rows() -> list[Row]:
    found = []
    for lesson in (*lessons(), *PAGES):
        path = FOLDER / f"{lesson.partition('_')[0].removesuffix('.md')}.csv"
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                found += [Row(lesson, **row) for row in csv.DictReader(file)]
    return found


def _cell(lesson: str, name: str) -> Any:
    other, _, cell_id = name.rpartition(":")
    for cell in notebook(other or lesson).cells:
        if cell.id == cell_id and cell.cell_type == "code":
            return cell
    raise Homeless(f"there is no code cell {name!r}")


def output(lesson: str, name: str) -> str:
    """What a code cell printed and returned, as text."""
    parts = []
    for out in _cell(lesson, name).outputs:
        data = out.get("data", {})
        parts += [out.get("text", ""), data.get("text/plain", "")]
        html = re.sub(
            r"<(style|script)\b.*?</\1>", " ", data.get("text/html", ""), flags=re.S
        )
        parts.append(unescape(re.sub(r"<[^>]+>", " ", html)))
        alt = re.findall(
            r'(?:alt|aria-label|title)="([^"]*)"', data.get("text/html", "")
        )
        parts += map(unescape, alt)
    return "\n".join(parts)


def datum(file: str, path: str) -> str:
    """The text of a file in data/, or of one value in it."""
    place = ROOT / "data" / file
    if not place.is_file():
        raise Homeless(f"there is no file data/{file}")
    text = place.read_text("utf-8")
    if not path:
        return text
    if place.suffix == ".csv":
        key, _, column = path.rpartition("/")
        name, _, value = key.partition("=")
        for row in csv.DictReader(text.splitlines()):
            if row.get(name) == value and column in row:
                return row[column]
        raise Homeless(f"data/{file} has no row {key!r} with a column {column!r}")
    value = tomllib.loads(text) if place.suffix == ".toml" else json.loads(text)
    for key in path.split("/"):
        try:
            value = value[int(key) if isinstance(value, list) else key]
        except (KeyError, IndexError, ValueError, TypeError):
            raise Homeless(f"data/{file} has no {path!r}: no {key!r}") from None
    return json.dumps(value)


def numbers(text: str) -> list[float]:
    """Every number of a text, those in names too; 69_000 and 69,000 are one."""
    text, found = re.sub(r"(?<=\d)_(?=\d)", "", text), []
    for match in PLAIN.finditer(text):
        word = match.group().rstrip(",")
        if re.fullmatch(r"\d{1,3}(,\d{3})*(\.\d+)?(e-?\d+)?", word):
            found.append(float(word.replace(",", "")))
        else:
            found += [float(part) for part in word.split(",") if part]
    return found


def value(expression: str, known: list[float]) -> float:
    """An expression of known and free numbers."""

    def of(node: ast.AST) -> float:
        match node:
            case ast.Constant(value=int(number) | float(number)):
                if number not in FREE and not _near(number, known):
                    raise Homeless(f"{number} does not stand there")
                return number
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return -of(inner)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return float(OPERATORS[type(op)](of(left), of(right)))
        raise Homeless(f"{ast.unparse(node)!r} is no arithmetic")

    try:
        body = ast.parse(expression, mode="eval").body
        if isinstance(body, ast.Constant) and not _near(body.value, known):
            raise Homeless(f"{expression} does not stand there")
        return of(body)
    except SyntaxError:
        raise Homeless(f"{expression!r} is no arithmetic") from None


def _near(number: float, known: list[float]) -> bool:
    return any(math.isclose(abs(number), abs(k), rel_tol=1e-9) for k in known)


def says(number: str) -> tuple[float, float]:
    """Value of a figure, and half a unit of its last digit."""
    plain = number.split(" ")[0].replace(",", "")
    decimals = len(plain.partition(".")[2])
    return float(plain), 0.5 * 10.0**-decimals * (1 + 1e-6)


def resolve(row: Row, text: str) -> None:
    """Follow a row to its number.

    Raises:
        Homeless: the home is not there, or holds another number.
    """
    shown, half = says(row.number)
    if row.home == "given":
        if not row.note.strip():
            raise Homeless("a given number needs a note")
        if row.reads:
            _compare(row, shown, half, value(row.reads, numbers(row.reads)))
        return
    known: list[float] = []
    for home in row.home.split(" + "):
        kind, _, place = home.partition(" ")
        if kind == "output":
            known += numbers(output(row.lesson, place))
        elif kind == "source":
            known += numbers(_cell(row.lesson, place).source)
        elif kind == "data":
            file, _, path = place.partition(" ")
            known += numbers(datum(file, path))
        elif kind == "file":
            if not (ROOT / place).is_file():
                raise Homeless(f"there is no file {place}")
            known += numbers((ROOT / place).read_text("utf-8"))
        elif kind == "link":
            if not place.startswith("https://") or place not in text:
                raise Homeless(f"the address {place!r} does not stand beside it")
            return
        else:
            raise Homeless(f"{home!r} is no home")
    reads = row.reads.removeprefix("~").strip()
    if reads:
        _compare(row, shown, half, value(reads, known))
    elif not _near(shown, known):
        raise Homeless(f"{row.number} does not stand there")


def _compare(row: Row, shown: float, half: float, found: float) -> None:
    allowed = max(half, 0.1 * abs(found)) if row.reads.startswith("~") else half
    if abs(abs(shown) - abs(found)) > allowed:
        raise Homeless(f"{row.reads} is {found:.6g}, not {row.number}")


def whole(lesson: str) -> str:
    """All text of a lesson or a page, for addresses."""
    if lesson in PAGES:
        return (ROOT / lesson).read_text("utf-8")
    return "\n".join(cell.source for cell in notebook(lesson).cells)


def propose(lesson: str, cell: str, number: str) -> Row:
    """The nearest cell of the lesson whose output, or code, holds the number."""
    shown, _ = says(number)
    if lesson not in PAGES:
        cells = notebook(lesson).cells
        here = next(place for place, one in enumerate(cells) if one.id == cell)
        near = sorted(range(len(cells)), key=lambda n: (abs(n - here), n > here))
        for kind in ("output", "source"):
            for place in near:
                one = cells[place]
                if one.cell_type != "code" or abs(place - here) > 12:
                    continue
                held = output(lesson, one.id) if kind == "output" else one.source
                if _near(shown, numbers(held)):
                    return Row(lesson, cell, number, f"{kind} {one.id}")
    return Row(lesson, cell, number, "?")


def main(start: str, left_only: bool) -> None:
    kept: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows():
        kept.setdefault((row.lesson, row.cell, row.number), []).append(row)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["cell", "number", "home", "reads", "note", "stands in"])
    for (lesson, cell, number), text in wanted().items():
        old = kept.get((lesson, cell, number), [])
        if not lesson.startswith(start) or (old and left_only):
            continue
        bare = number.split(" ")[0]
        at = re.search(rf"(?<![\w.]){re.escape(bare)}(?!\w|\.\d)", text)
        around = text[max(0, at.start() - 70) : at.end() + 40] if at else ""
        for row in old or [propose(lesson, cell, number)]:
            writer.writerow([*astuple(row)[1:], " ".join(around.split())])


if __name__ == "__main__":
    main(
        f"{sys.argv[1]}_" if sys.argv[1][0].isdigit() else sys.argv[1],
        "--left" in sys.argv,
    )
