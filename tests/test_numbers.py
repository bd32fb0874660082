"""Each figure in the prose has a row in data/numbers, and each row leads to it."""

import homes
import pytest

ROWS = homes.rows()
WANTED = homes.wanted()
PAGES = [*homes.lessons(), *homes.PAGES]
each = pytest.mark.parametrize("page", PAGES)


def problems(page: str) -> list[str]:
    found, text = [], homes.whole(page)
    for row in ROWS:
        if row.lesson == page:
            try:
                homes.resolve(row, text)
            except homes.Homeless as error:
                found.append(f"{row.cell} {row.number}: {error}")
    return found


@each
def test_every_figure_has_a_row_and_every_row_its_figure(page):
    needed = {key for key in WANTED if key[0] == page}
    kept = {(row.lesson, row.cell, row.number) for row in ROWS if row.lesson == page}
    assert not needed - kept, "add rows: python tests/homes.py (proposes them)"
    assert not kept - needed, "rows for figures that are not there"


@each
def test_every_row_leads_to_its_number(page):
    assert not problems(page)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("It takes 41 s, or 3.5 GB.", ["41", "3.5"]),
        ("87 % of 1,024 and 0.5 are -12.", ["87 %", "1,024", "0.5", "-12"]),
        ("Of 7 there are 3 of 20, 2 times.", ["3", "20", "2"]),
        ("Qwen2.5-0.5B, int8, `12`, lesson 05a, section 12, 2024-11.", []),
        ("# 12 things\n\n1. one\n\n[page 2](https://a.b/33)", []),
        ("### Exercise 1.1 - of 44", []),
        ("```\n55\n```\nand 66, not 7.", ["66"]),
    ],
)
def test_what_is_a_figure(text, found):
    assert homes.figures(text) == found


@pytest.mark.parametrize(
    ("number", "home", "reads", "fault"),
    [
        ("3", "given", "", "needs a note"),
        ("41", "output nowhere", "", "no code cell"),
        ("41", "data no.csv", "", "no file"),
        ("41", "data models.csv repo_id=Qwen/Qwen-7B/no", "", "no row"),
        ("41", "data timings.json no", "", "no 'no'"),
        ("41", "data models.csv repo_id=Qwen/Qwen-7B/params_total_b", "", "does not"),
        ("8", "data models.csv repo_id=Qwen/Qwen-7B/params_total_b", "7 * 2", "is 14"),
        ("8", "data models.csv repo_id=Qwen/Qwen-7B/params_total_b", "9 - 1", "9 does"),
        (
            "8",
            "data models.csv repo_id=Qwen/Qwen-7B/params_total_b",
            "f(7)",
            "no arith",
        ),
        ("8", "link https://nowhere.org", "", "does not stand"),
        ("8", "I know it", "", "is no home"),
    ],
)
def test_a_row_that_leads_nowhere_is_named(number, home, reads, fault):
    row = homes.Row("02_chat_templates", "s1", number, home, reads)
    with pytest.raises(homes.Homeless, match=fault):
        homes.resolve(row, "text")


@pytest.mark.parametrize(
    ("number", "reads"),
    [("7", ""), ("14", "7 * 2"), ("0.9", "7 / 8"), ("6.5", "~7"), ("700 %", "7 * 100")],
)
def test_a_row_may_round_and_compute(number, reads):
    home = "data models.csv repo_id=Qwen/Qwen-7B/params_total_b"
    homes.resolve(homes.Row("02_chat_templates", "s1", number, home, reads), "")
