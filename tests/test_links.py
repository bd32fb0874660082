"""The page of links: dated, one sentence a link, no address twice, no dead lesson."""

import re
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
PAGE = NOTEBOOKS / "going_further.md"
LINES = PAGE.read_text("utf-8").splitlines()
ROWS = [line for line in LINES if line.startswith("-")]
ROW = re.compile(r"- \[(?P<name>[^]]+)\]\((?P<address>https://[^ ()]+)\): (?P<told>.*)")
LINK = re.compile(r"\[([^]]*)\]\(([^)]*)\)")
WORDS = 25
MONTHS = "January February March April May June July August September October November"
each = pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:30])


def fault(row: str) -> str:
    """What is wrong with a row, or nothing."""
    found = ROW.fullmatch(row)
    if not found:
        return "not `- [name](https address): sentence`"
    told = LINK.sub(r"\1", found["told"])
    if not told.endswith(".") or re.search(r"[.?!] +\S", told):
        return "not one sentence"
    if len(told.split()) > WORDS:
        return f"{len(told.split())} words"
    for name, target in LINK.findall(found["told"]):
        if not (NOTEBOOKS / target).is_file():
            return f"no file {target}"
        if not Path(target).name.startswith(f"{name}_"):
            return f"{name} is not {target}"
    return ""


def test_the_page_says_when_it_was_read():
    months = "|".join([*MONTHS.split(), "December"])
    assert LINES[0] == "# Going further"
    assert re.match(rf"Read in ({months}) 20\d\d\. ", LINES[2])


def test_it_has_groups_of_links_and_nothing_else():
    groups = "\n".join(LINES).split("\n## ")[1:]
    assert len(groups) >= 5
    for group in groups:
        head, empty, *rows = group.rstrip().splitlines()
        assert (empty, {row[:2] for row in rows}) == ("", {"- "}), head
        assert len(rows) >= 2, head
    assert 25 <= len(ROWS) <= 40


@each
def test_each_line_is_a_link_and_a_sentence(row):
    assert fault(row) == ""


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("- [LoRA](http://arxiv.org/abs/2106.09685): low rank.", "https"),
        ("- LoRA: low-rank updates.", "https"),
        ("- [LoRA](https://arxiv.org/abs/2106.09685): low rank. Read it.", "sentence"),
        ("- [LoRA](https://arxiv.org/abs/2106.09685): low rank", "sentence"),
        (f"- [LoRA](https://arxiv.org/abs/2106.09685): {'low ' * 26}rank.", "27 words"),
        ("- [LoRA](https://arxiv.org): in [06a](06a_lore.ipynb).", "06a_lore"),
        ("- [LoRA](https://arxiv.org): in [06b](06a_lora.ipynb).", "06b is not"),
    ],
)
def test_a_wrong_line_is_found(row, told):
    assert told in fault(row)


def test_no_address_and_no_name_stands_twice():
    found = [ROW.fullmatch(row) for row in ROWS]
    for part in ("name", "address"):
        parts = [row[part].rstrip("/").lower() for row in found]
        assert len(parts) == len({*parts})


def test_the_readme_leads_to_it():
    readme = (NOTEBOOKS.parent / "README.md").read_text("utf-8")
    lessons = readme.partition("\n## Lessons\n")[2].partition("\n## ")[0]
    assert "](notebooks/going_further.md)" in lessons.rstrip().splitlines()[-1]
