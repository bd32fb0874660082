"""The glossary: sorted, short, each term where a lesson explains it, none forgotten."""

import re

import make_pages as pages
import pytest

WORDS = 25
ROWS = pages.rows_of("glossary.csv")
PAGE = pages.NOTEBOOKS / "glossary.md"
LESSONS = sorted(path.stem for path in pages.NOTEBOOKS.glob("*.ipynb"))
# Words in bold that are no terms of the glossary, by the reason.
NO_TERMS = {
    "labels of a question or of an entry of the clinic": """
        Predict; The cure; Taught in; You see""",
    "ordinary words that are stressed": """
        A; All; Instruct; Right answers; Size; Smaller batches; after; all; areas;
        as it is; at once; cannot; cat; check it; chosen already; content;
        double block; empty; end; exact text; falls; feed back; forgot; form;
        function; house; in English; in front; inputs; learnt; limits; looks;
        messages; never learnt; never stops; next chart; no; no newline; no tags;
        not; not enough; not measured; not run; on; on what; once; one; ours;
        position; random; reads; real; right; run; same architecture; smaller; speak;
        system; talk about; taller; tests; thinks; together; twice; untrained;
        unverified; white; whole family; with; work; write down; wrong; wrong city;
        yes; your""",
    "names of models, programs and files": """
        -3x; -continued; Modelfile; Not Qwen-Audio; OpenVINO; Prometheus;
        bitsandbytes; llama.cpp; pocket-chat; pocket-generalist; pocket-moe;
        pocket-thinking; source document; trl; vllm""",
    "explained where it stands, and little used elsewhere": """
        -log p; Log-mel frames; Resize; Top-1; Topic; alert fatigue;
        assisted decoding; back ends; batching; bits; buckets; bytes; collator;
        curriculum; event loop; exam; extended; forced choice; future; graph; hash;
        logits processor; loopback; native; packed; patches; positions; promise;
        reverse proxy; row; shape; singular value; static cache; stray newline;
        target layers; tensor; urgent""",
}


def words_of(kind):
    return set(re.split(r";\s+", NO_TERMS[kind].strip()))


def defined(text):
    """The words in bold that may be definitions: one or two, no number, no sentence."""
    if re.search(r"^### Exercise|^## What you learnt", text, re.M):
        return set()  # there bold says what to return, or repeats
    text = re.sub(r"<!-- card.*?<!-- /card -->", "", text, flags=re.S)
    bold = re.findall(r"\*\*([^*\n]+?)\*\*", text)
    # A number, a sentence and a label such as "Why:" are none.
    return {b for b in bold if len(b.split()) < 3 and not re.search(r"^\d|[.,:?!]$", b)}


def known(bold):
    return any(pages.pattern_of(row).fullmatch(pages.plain(bold)) for row in ROWS)


def fault(row):
    """What is wrong with a row, or nothing."""
    if row["lesson"] not in LESSONS:
        return f"no lesson {row['lesson']}"
    cell = pages.cells_of(row["lesson"]).get(row["cell"])
    if not cell or cell["cell_type"] != "markdown":
        return f"no text {row['cell']}"
    if not pages.pattern_of(row).search(pages.plain("".join(cell["source"]))):
        return f"{row['cell']} does not name it"
    if not row["meaning"].endswith(".") or re.search(r"[.?!] +\S", row["meaning"]):
        return "not one sentence"
    count = len(row["meaning"].split())
    return f"{count} words" if count > WORDS else ""


def test_the_stored_page_is_the_generated_one():
    assert PAGE.read_text("utf-8") == pages.glossary(), "run: make pages"
    assert 110 <= len(ROWS) <= 150


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["term"])
def test_a_term_has_a_short_meaning_and_stands_in_its_cell(row):
    assert fault(row) == ""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lesson": "77_gone"}, "no lesson"),
        ({"cell": "gone"}, "no text"),
        ({"cell": "setup"}, "no text"),
        ({"term": "hallucination", "other_names": ""}, "does not name it"),
        ({"meaning": "A word"}, "not one sentence"),
        ({"meaning": "A word. Or a part."}, "not one sentence"),
        ({"meaning": "word " * 26 + "."}, "27 words"),
    ],
)
def test_a_wrong_row_is_found(change, told):
    row = next(row for row in ROWS if row["term"] == "token")
    assert told in fault(row | change)


def test_terms_are_sorted_and_no_name_stands_twice():
    terms = [pages.plain(row["term"]) for row in ROWS]
    assert terms == sorted(terms)
    names = [row["term"] for row in ROWS]
    names += [n for row in ROWS for n in row["other_names"].split("; ") if n]
    names = [pages.plain(name) for name in names]
    assert sorted({n for n in names if names.count(n) > 1}) == []


@pytest.mark.parametrize("lesson", LESSONS)
def test_what_a_lesson_defines_in_bold_is_a_term_or_named_here(lesson):
    none = set().union(*map(words_of, NO_TERMS))
    for name, cell in pages.cells_of(lesson).items():
        if cell["cell_type"] == "markdown":
            left = defined("".join(cell["source"])) - none
            assert {bold for bold in left if not known(bold)} == set(), name


def test_a_new_word_in_bold_is_found():
    assert defined("A **hallucination** is **made up, but sounds right**.") == {
        "hallucination"
    }
    assert not known("hallucination")
    assert known("canaries")
    assert defined("**Why:** 4 is **4.6 times** ... **Predict:**") == set()
    assert defined("## What you learnt\n\n- **a word**") == set()


def test_what_is_no_term_is_none():
    for kind in NO_TERMS:
        assert {word for word in words_of(kind) if known(word)} == set(), kind


def test_the_readme_leads_to_it():
    readme = (pages.ROOT / "README.md").read_text("utf-8")
    lessons = readme.partition("\n## Lessons\n")[2].partition("\n## ")[0]
    assert "](notebooks/glossary.md)" in lessons
