"""Nothing of the source document is missing: each part has a cell that teaches it.

The document itself is not in the repository. Its outline is: data/source_outline.csv
has the lines of each heading with its text (topic), of each table or list (claims) and
of each fenced block (code). `copy` is the damaged file that the course started from,
`original` the English one, for the part that the copy lacks.
"""

import re
from collections import Counter

import make_pages as pages
import pytest

MAP, OUTLINE = pages.rows_of("source_map.csv"), pages.rows_of("source_outline.csv")
CODE_BLOCKS = 22
# Topics left out on purpose, without a lesson: at present none.
LEFT_OUT: set[str] = set()
CONTENT = {"copy": range(10, 1439), "original": range(287, 372)}
IGNORED = {"nbval-skip", "nbval-ignore-output", "raises-exception"}


def tags(cell):
    return set(cell["metadata"].get("tags", []))


def runs(cell):
    return bool(cell["cell_type"] == "code" and cell["execution_count"]) and (
        "nbval-skip" not in tags(cell)
    )


def compared(cell):
    """Whether nbval compares text of a cell's output: it skips pictures."""
    if not runs(cell) or tags(cell) & IGNORED:
        return False
    texts = ["".join(out.get("text", "")) for out in cell["outputs"]]
    texts += [
        "".join(out.get("data", {}).get("text/plain", "")) for out in cell["outputs"]
    ]
    return any(text and not text.startswith("<Figure") for text in texts)


def faults_of_target(row):
    """What is wrong with the cell that a row names."""
    if not row["lesson"]:
        return [] if row["topic"] in LEFT_OUT else ["no lesson"]
    path = pages.NOTEBOOKS / f"{row['lesson']}.ipynb"
    if not path.is_file():
        return [f"no notebook {path.name}"]
    cells = pages.cells_of(row["lesson"])
    if row["cell"] not in cells:
        return [f"no cell {row['cell']}"]
    cell, here = cells[row["cell"]], (row["lesson"], row["cell"])
    if cell["cell_type"] == "code":
        return [] if runs(cell) else [f"{row['cell']} does not run"]
    number = pages.section_of(*here)
    section = [
        c for i, c in cells.items() if pages.section_of(row["lesson"], i) == number
    ]
    return [] if any(map(runs, section)) else [f"no cell of section {number} runs"]


def fault_of_check(row, check):
    """What is wrong with one thing that checks a row; "" if nothing is."""
    cells = pages.cells_of(row["lesson"]) if row["lesson"] else {}
    if match := re.fullmatch(r"strict nbval of (\S+)", check):
        good = match[1] in cells and compared(cells[match[1]])
        return "" if good else f"{match[1]} is not compared"
    if match := re.fullmatch(r"exercise (\S+)", check):
        wanted = f'checks.check("{match[1]}"'
        found = any(wanted in "".join(cell["source"]) for cell in cells.values())
        return "" if found else f"no {check}"
    if match := re.fullmatch(r"(tests/test_\w+\.py)::(test_\w+)", check):
        path = pages.ROOT / match[1]
        text = path.read_text("utf-8") if path.is_file() else ""
        return "" if f"\ndef {match[2]}(" in text else f"no {check}"
    if match := re.fullmatch(r"(data/\S+): (.+)", check):
        path = pages.ROOT / match[1]
        text = path.read_text("utf-8") if path.is_file() else ""
        return "" if match[2] in text else f"no {check}"
    return "" if row["topic"] in LEFT_OUT else f"says nothing: {check!r}"


def missing(outline, rows):
    """The parts of the outline with lines that no row of their kind has."""
    found = []
    for block in outline:
        left = set(pages.span(block["source_lines"]))
        for row in rows:
            if pages.holds(block, row):
                left -= set(pages.span(row["source_lines"]))
        if left:
            found.append((block["title"], block["kind"], min(left)))
    return found


# --- the outline ----------------------------------------------------------------------


@pytest.mark.parametrize("text", CONTENT)
def test_the_topics_of_the_outline_are_the_whole_text(text):
    topics = [
        pages.span(block["source_lines"])
        for block in OUTLINE
        if (block["text"], block["kind"]) == (text, "topic")
    ]
    lines = sorted(line for topic in topics for line in topic)
    assert lines == list(CONTENT[text])


def test_tables_lists_and_code_lie_in_a_topic():
    kinds = Counter(block["kind"] for block in OUTLINE)
    assert kinds.keys() == {"topic", "claims", "code"}
    assert kinds["code"] == CODE_BLOCKS
    for block in OUTLINE:
        around = [b for b in OUTLINE if pages.holds(b, block | {"kind": "topic"})]
        assert len(around) == 1, block


# --- the map --------------------------------------------------------------------------


def test_nothing_of_the_outline_is_missing():
    assert missing(OUTLINE, MAP) == []


def test_each_row_lies_in_one_part_of_the_outline():
    for row in MAP:
        assert sum(pages.holds(block, row) for block in OUTLINE) == 1, row


def test_rows_are_complete_and_none_is_there_twice():
    for row in MAP:
        assert row["topic"], row
        assert row["what_was_wrong"], row
        assert row["checked_by"], row
    names = Counter((row["topic"], row["text"]) for row in MAP)
    assert [name for name, n in names.items() if n > 1] == []


def test_each_code_block_is_named_by_its_number():
    for number, block in enumerate((b for b in OUTLINE if b["kind"] == "code"), 1):
        rows = [row for row in MAP if pages.holds(block, row)]
        assert any(re.search(rf"\bB{number}\b", row["topic"]) for row in rows), block


@pytest.mark.parametrize("row", MAP, ids=lambda row: row["topic"])
def test_its_cell_exists_and_runs_and_its_checks_do_too(row):
    assert faults_of_target(row) == []
    checks = [fault_of_check(row, check) for check in row["checked_by"].split("; ")]
    assert [fault for fault in checks if fault] == []


def test_only_what_is_named_here_is_left_out():
    assert {row["topic"] for row in MAP if not row["lesson"]} == LEFT_OUT


# --- each rule finds its fault --------------------------------------------------------


def test_a_part_without_a_row_is_found():
    for gone in ("Quick start Qwen3 (B6)", "Comparison table: Qwen3 MoE", "Evolution"):
        rows = [row for row in MAP if row["topic"] != gone]
        assert len(missing(OUTLINE, rows)) == 1, gone


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"lesson": ""}, "no lesson"),
        ({"lesson": "77_gone"}, "no notebook 77_gone.ipynb"),
        ({"cell": "s99-gone"}, "no cell s99-gone"),
    ],
)
def test_a_wrong_target_is_found(change, fault):
    assert faults_of_target(MAP[0] | change) == [fault]


@pytest.mark.parametrize(
    "check",
    [
        "strict nbval of setup",  # its output is not compared
        "strict nbval of s99-gone",
        "exercise 77.1",
        "tests/test_catalog.py::test_gone",
        "tests/test_gone.py::test_gone",
        "data/models.csv: Qwen77",
        "by hand",
    ],
)
def test_a_check_that_checks_nothing_is_found(check):
    assert fault_of_check(MAP[0], check)


# --- the page -------------------------------------------------------------------------


@pytest.mark.parametrize("path", pages.PAGES, ids=lambda path: path.name)
def test_the_stored_page_is_the_generated_one(path):
    assert path.read_text("utf-8") == pages.PAGES[path](), "run: make pages"


def test_the_page_shows_each_row_that_is_no_bare_heading():
    page = pages.the_document()
    for row in MAP:
        shown = f"| {row['topic']} |" in page
        assert shown == (row["what_was_wrong"] != pages.HEADING_ALONE), row


def test_links_of_the_pages_lead_somewhere():
    for path, page in pages.PAGES.items():
        for link in set(re.findall(r"\]\(([^)]+)\)", page())):
            assert "://" in link or (path.parent / link).exists(), link
