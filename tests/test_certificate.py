"""Certificates: a changed byte is found, nothing of a learner breaks the page."""

import hashlib
import html
import json
import re
import subprocess
import sys
from datetime import date
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qwen_course import certificate
from qwen_course.errors import CourseError

ROOT = Path(__file__).resolve().parent.parent
KEY = b"a key of the teacher"
ABOUT = {"course": "0.1.0", "commit": "", "Python": "3.12.1", "on": "Linux x86_64"}
TOTALS = {"00": 2, "01": 1, "02": 3}
SOLVED = [
    {
        "lesson": "00", "id": "0.1", "title": "slice it", "day": "2026-11-03",
        "hints": 0, "solution_shown": False, "source": "def f(x):\n    return x < 2\n",
    },
    {
        "lesson": "00", "id": "0.2", "title": "a <b> & c", "day": "2026-11-01",
        "hints": 2, "solution_shown": True, "source": "",
    },
    {
        "lesson": "02", "id": "2.1", "title": "count", "day": "2026-11-07",
        "hints": 1, "solution_shown": False, "source": "x = '</script><!--'\n",
    },
]  # fmt: skip


def record(name="Ada", solved=SOLVED, about=ABOUT):
    return certificate.gather(name, solved, TOTALS, about, date(2026, 11, 9))


PAGE = certificate.page(record()).encode()
SEALED = certificate.page(record(), KEY).encode()


class Reader(HTMLParser):
    """The texts of a page, its elements, and the attributes that fetch something."""

    def __init__(self, text):
        super().__init__()
        self.words, self.tags, self.fetched, self.open = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.fetched += [v for n, v in attributes if n in ("src", "href", "action")]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open[-1:] not in (["script"], ["style"]):
            self.words.append(data)


def told(page) -> str:
    return " ".join(" ".join(Reader(page).words).split())


def test_what_it_says():
    text = told(PAGE.decode())
    for said in (
        "exercises solved by Ada",
        "3 of 6 exercises , 1 of 3 lessons complete. Written on 2026-11-09.",
        "00 2 of 2 2026-11-01 2026-11-03",
        "01 0 of 1",
        "02 1 of 3 2026-11-07 2026-11-07",
        "0.1 slice it 2026-11-03",
        "0.2 a <b> & c 2026-11-01 2 hints, the solution",
        "2.1 count 2026-11-07 1 hint",
        "the answers in it (2 of 3) pass the checks",
        "course 0.1.0, Python 3.12.1, on Linux x86_64.",
        "def f(x): return x < 2",
    ):
        assert said in text


def test_it_says_what_it_cannot_prove():
    text = told(PAGE.decode())
    cannot = text[text.index("What it cannot prove") :]
    for said in ("Who solved", "When.", "nobody helped", "A checksum is no signature"):
        assert said in cannot


def test_it_is_one_file_that_runs_nothing():
    for page in (PAGE, SEALED):
        reader = Reader(page.decode())
        assert reader.fetched == []
        assert reader.open == []
        assert reader.tags.count("script") == 1
        assert b'<script type="application/json"' in page
        assert b"default-src 'none'" in page


def test_an_unchanged_page():
    found = certificate.verify(PAGE)
    assert (found.valid, found.seal) == (True, "none")
    assert found.record == record()


@given(st.integers(0, len(PAGE) - 1), st.integers(1, 255))
@example(len(PAGE) - 1, 1)
@example(0, 32)
def test_a_changed_byte_is_found(place, change):
    for page in (PAGE, SEALED):
        changed = bytearray(page)
        changed[place] ^= change
        found = certificate.verify(bytes(changed))
        assert not found.valid
        assert found.record == {}


def test_a_changed_byte_is_found_at_each_place():
    changed = bytearray(SEALED)
    for place in range(len(SEALED)):
        changed[place] ^= 1
        assert not certificate.verify(bytes(changed)).valid, place
        changed[place] ^= 1
    assert certificate.verify(bytes(changed)).valid


@given(st.data())
def test_a_changed_byte_of_the_end_is_found(data):
    """Seal and checksum are the last 200 bytes."""
    place = data.draw(st.integers(len(SEALED) - 200, len(SEALED) - 1))
    changed = bytearray(SEALED)
    changed[place] ^= data.draw(st.integers(1, 255))
    assert not certificate.verify(bytes(changed)).valid
    assert not certificate.verify(bytes(changed), KEY).valid


@given(st.integers(0, len(PAGE)), st.binary(min_size=1, max_size=20))
@example(len(PAGE), b"<p>and more</p>")
@example(len(PAGE), PAGE)
@example(0, b" ")
def test_added_bytes_are_found(place, more):
    assert not certificate.verify(PAGE[:place] + more + PAGE[place:]).valid


@given(st.integers(0, len(PAGE) - 1), st.integers(1, 200))
def test_missing_bytes_are_found(place, length):
    assert not certificate.verify(PAGE[:place] + PAGE[place + length :]).valid


@given(st.binary(max_size=300))
@example(b"")
@example(b"\xff\xfe")
def test_any_other_file_is_no_certificate(data):
    assert not certificate.verify(data).valid


def test_line_ends_of_another_system_are_a_change():
    assert not certificate.verify(PAGE.replace(b"\n", b"\r\n")).valid


def again(body: str, seal: str = "none") -> bytes:
    """What a forger does: another page with a right checksum."""
    end = certificate._END.format(seal, certificate._checksum(body, seal))
    return (body + end).encode()


def body_of(page: bytes) -> str:
    return page.decode()[: page.decode().rindex("<!-- seal")]


def test_a_page_that_shows_something_else_than_its_record():
    body = body_of(PAGE)
    assert certificate.verify(again(body)).valid
    found = certificate.verify(again(body.replace("<bdi>Ada", "<bdi>Eve")))
    assert (found.valid, found.record) == (False, {})
    assert "not what its record says" in found.reason


def test_an_honest_limit_a_page_for_any_name_has_a_right_checksum():
    """So the page says: a checksum is no signature."""
    forged = certificate.page(record("Eve")).encode()
    assert certificate.verify(forged).valid
    assert not certificate.verify(forged, KEY).valid


def test_a_page_of_another_format_is_told_apart_from_a_changed_one():
    body = body_of(PAGE).replace('{"format":1,', '{"format":2,')
    found = certificate.verify(again(body))
    assert (found.valid, found.record) == (False, {})
    assert "unchanged" in found.reason
    assert "format 2" in found.reason


@pytest.mark.parametrize(
    "held",
    [
        "null", "[]", "3", "{}", "{", '{"format":1}', '{"format":[1]}', "[" * 100_000,
        '{"format":1,"name":5,"day":"","about":{},"exercises":{},"solved":[]}',
        '{"format":1,"name":"","day":"","about":{},"exercises":[],"solved":[3]}',
        '{"format":1,"name":"\\ud800","day":"","about":{},"exercises":{},"solved":[]}',
        '{"format":1,"name":"","day":"","about":{},"exercises":{"0":"1"},"solved":[]}',
        '{"format":1,"name":"","day":"","about":{},"exercises":{"0":1e999},"solved":[]}',
        "9" * 5000,
    ],
)  # fmt: skip
def test_a_foreign_record_with_a_right_checksum(held):
    body = re.sub('(id="record">).*(</script>)', lambda m: m[1] + held + m[2],
                  body_of(PAGE))  # fmt: skip
    assert not certificate.verify(again(body)).valid


def test_an_exercise_that_stands_twice_is_no_record():
    """Spaces do not make it another one: the checks forgive them."""
    content = record(solved=SOLVED[1:2])
    (row,) = content["solved"]
    for twice in (row, row | {"id": f" {row['id']}"}):
        page = certificate.page(content | {"solved": [row, twice]})
        assert not certificate.verify(page.encode()).valid


@pytest.mark.parametrize("wrong", [{"id": 5}, {"day": 5}, {"lesson": "99"}])
def test_a_foreign_record_that_no_lesson_could_have_written(wrong):
    content = record(solved=SOLVED[1:2])
    content["solved"] = [content["solved"][0] | wrong]
    assert not certificate.verify(certificate.page(content).encode()).valid


# --- names and other texts of learners ----------------------------------------------

NAMES = [
    "Ada", "O'Brien", 'A "q" B', "<script>alert(1)</script>", "</bdi></h1>", "&lt;",
    "李雷", "Зоя", "مریم\N{ZERO WIDTH NON-JOINER}ها", "é",
    "e\N{COMBINING ACUTE ACCENT}",
    "👩\N{ZERO WIDTH JOINER}🚀", "$name $$", "{0} %s \\u003c", "</script><!--", "-->",
    "<!-- seal none -->", "\N{RIGHT-TO-LEFT OVERRIDE}adA",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_stay_as_they_were_typed(name):
    page = certificate.page(record(name), KEY)
    found = certificate.verify(page.encode(), KEY)
    assert (found.valid, found.seal) == (True, "right")
    assert found.record["name"] == name
    assert f"<bdi>{html.escape(name)}</bdi>" in page
    assert Reader(page).tags == Reader(SEALED.decode()).tags


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(texts.filter(str.strip), texts, texts)
def test_texts_of_any_kind(name, title, source):
    try:
        content = record(name, [SOLVED[0] | {"title": title, "source": source}])
    except CourseError:
        return  # tested below
    page = certificate.page(content)
    found = certificate.verify(page.encode())
    assert found.valid
    assert found.record == content
    reader = Reader(page)
    assert reader.open == []
    assert reader.tags.count("script") == 1
    assert all(line.isprintable() for line in found.lines("file", {}))


@pytest.mark.parametrize(
    "name", ["", "  ", "a\nb", "\x1b[31m", "a\0", "\ud800", "x" * 101]
)
def test_names_that_are_refused(name):
    with pytest.raises(CourseError, match="A name is one line of 1 to 100 characters"):
        record(name)


def test_nothing_solved_is_a_clear_error():
    with pytest.raises(CourseError, match="nothing to write") as error:
        record(solved=[])
    assert "0.1 in lesson 00" in error.value.hint


# --- seals --------------------------------------------------------------------------


def test_a_seal_needs_the_key():
    assert certificate.verify(SEALED, KEY).seal == "right"
    assert certificate.verify(SEALED).seal == "not checked"
    assert certificate.verify(SEALED).valid
    other = certificate.verify(SEALED, b"another key of somebody")
    assert (other.valid, other.seal) == (False, "wrong")
    unsealed = certificate.verify(PAGE, KEY)
    assert (unsealed.valid, unsealed.seal) == (False, "none")


def test_a_seal_cannot_be_moved_to_another_page():
    seal = re.search("seal ([0-9a-f]{64})", SEALED.decode())[1]
    forged = again(body_of(certificate.page(record("Eve")).encode()), seal)
    assert certificate.verify(forged).valid
    assert certificate.verify(forged, KEY).seal == "wrong"


def test_keys_are_read_from_files(tmp_path):
    assert certificate.read_key(None) == b""
    path = tmp_path / "key"
    path.write_bytes(KEY + b"\n")
    assert certificate.read_key(str(path)) == KEY
    path.write_text("short")
    with pytest.raises(CourseError, match="16 or more bytes"):
        certificate.read_key(str(path))
    with pytest.raises(CourseError, match="cannot be read"):
        certificate.read_key(str(tmp_path))


# --- files, machines, what is printed -----------------------------------------------


def test_files(tmp_path):
    path = tmp_path / "ada.html"
    assert certificate.write(str(path), PAGE.decode()) == path
    assert path.read_bytes() == PAGE
    assert certificate.read(str(path)) == certificate.verify(PAGE)
    certificate.write(str(path), SEALED.decode())  # a newer one takes its place
    assert path.read_bytes() == SEALED
    assert "cannot be read" in certificate.read(str(tmp_path)).reason
    assert "cannot be read" in certificate.read(str(tmp_path / "none")).reason
    with pytest.raises(CourseError, match="cannot be written"):
        certificate.write(str(tmp_path / "none" / "x"), "")


def test_another_file_is_not_overwritten(tmp_path):
    thesis = tmp_path / "thesis.html"
    thesis.write_text("years of work")
    with pytest.raises(CourseError, match="no certificate"):
        certificate.write(str(thesis), PAGE.decode())
    assert thesis.read_text() == "years of work"


def test_where_it_was_written_names_nobody(monkeypatch):
    about = certificate.about()
    assert about.keys() == ABOUT.keys()
    assert about["Python"].startswith("3.")
    monkeypatch.setattr(certificate.subprocess, "run", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        certificate.about()
    monkeypatch.setattr(certificate, "__file__", "/no/such/place/module.py")
    assert certificate.about()["commit"] == ""  # no clone: git is not asked


def test_without_git(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(certificate.subprocess, "run", missing)
    assert certificate.about()["commit"] == ""


def test_lines_and_rows():
    found = certificate.verify(SEALED)
    lines = found.lines("ada.html", {"0.1": "correct"})
    assert lines[0] == "ada.html: unchanged since it was written"
    assert "  solved: 3 of 6, 1 of 3 lessons complete" in lines
    assert "  lesson 00: 2 of 2: 0.1, 0.2 (2026-11-01, 2026-11-03)" in lines
    assert "  answers: 2 of 3 are in it" in lines
    assert "  seal: not checked" in lines
    assert lines[-1] == "  again 0.1: correct"
    (row,) = found.row(
        "ada.html", {"0.1": "correct, the published solution", "2.1": "no"}
    )
    assert row.split()[:3] == ["3/6", "1/3", "2026-11-09"]
    assert row.endswith("Ada (ada.html); 1 of 2 right again; seal not checked")
    (row,) = certificate.verify(b"").row("x.html", {})
    assert row.endswith("x.html: no certificate, or its end is missing")


def test_a_forged_page_cannot_steer_the_terminal():
    content = json.loads(json.dumps(record()))
    content["about"]["on"] = "\x1b[2J\x07"
    content["solved"][0]["day"] = "\x9b31m"
    found = certificate.verify(certificate.page(content).encode())
    assert found.valid
    for line in [*found.lines("\x1b", {"0.1": "\r"}), *found.row("\x1b", {})]:
        assert line.isprintable()


MACHINE = """\
import platform, sys
from datetime import date
platform.system = lambda: {system!r}
platform.machine = lambda: {machine!r}
platform.python_version = lambda: {python!r}
from qwen_course import certificate
rows = {rows!r}
about = certificate.about()
held = certificate.gather({name!a}, rows, {totals!r}, about, date.today())
text = certificate.page(held)
certificate.write(sys.argv[1], text)
"""


@pytest.mark.parametrize(
    ("system", "machine", "python", "name"),
    [("Darwin", "arm64", "3.13.0", "grace"), ("Linux", "x86_64", "3.11.4", "Зоя")],
)
def test_pages_of_other_machines_are_verified_here(
    tmp_path, system, machine, python, name
):
    """Another process, user, home, locale and platform; the same course."""
    home = tmp_path / "secret_login"
    home.mkdir()
    program = MACHINE.format(
        system=system, machine=machine, python=python, name=name,
        rows=SOLVED, totals=TOTALS,
    )  # fmt: skip
    place = tmp_path / "page.html"
    outside = {"HOME": str(home), "USER": "secret_login", "LC_ALL": "C", "PATH": ""}
    outside |= {"PYTHONPATH": str(ROOT), "TZ": "Pacific/Auckland", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", program, str(place)]
    subprocess.run(command, cwd=home, env=outside, check=True)
    found = certificate.read(str(place))
    assert found.valid, found.reason
    assert found.record["name"] == name
    assert found.record["about"]["on"] == f"{system} {machine}"
    assert found.record["about"]["Python"] == python
    assert b"secret_login" not in place.read_bytes()
    assert str(tmp_path).encode() not in place.read_bytes()


def test_the_format_is_raised_when_the_page_changes():
    """A page of before must not look forged: so FORMAT goes up with the template."""
    known = {1: "6c47ff0a284b4edf95205a942ef5f226ab979ff5fd0ba5caa5d29f1b3b1e6afe"}
    digest = hashlib.sha256(body_of(PAGE).encode()).hexdigest()
    hint = f"raise certificate.FORMAT and add {{FORMAT: {digest!r}}} here"
    assert known.get(certificate.FORMAT) == digest, hint
