"""A page of what was solved, which anybody can verify offline; no account, no server.

An offline machine has no secret. So a page proves that it is unchanged since it was
written, and, if it holds the answers, that they pass the course's checks (who verifies
can run them again). It does not prove who solved them, or when, or that the course
wrote it: whoever has the course can write a page for any name, with a right checksum.
A seal (HMAC-SHA-256 with a key of the teacher's) proves that it was written where the
key was. The page says all this too. Knows nothing of checks and of progress files.
"""

import hashlib
import hmac
import html
import json
import platform
import re
import subprocess
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from string import Template
from typing import Any

from qwen_course import __version__, catalog
from qwen_course.errors import CourseError

FORMAT = 1  # raise it with every change of `data/certificate.html` or of `_body`
Record = dict[str, Any]
HEAD = f"{'exercises':>9} {'lessons':>7} {'written':>10}  whose"
_RECORD = re.compile(r'<script type="application/json" id="record">(.*)</script>')
_END = "<!-- seal {} --><!-- sha256 {} -->\n"
_LAST = re.compile(_END.format("([0-9a-f]{64}|none)", "([0-9a-f]{64})"))


@dataclass(frozen=True)
class Finding:
    """What a page is: unchanged or not and why, its seal, and what it holds."""

    valid: bool
    reason: str
    seal: str = "none"  # "none", "not checked", "right" or "wrong"
    record: Record = field(default_factory=dict)  # {} where it cannot be believed

    def lines(self, file: str, again: Mapping[str, str]) -> list[str]:
        """Return what there is to say; `again`: verdicts of now, by exercise."""
        told = [f"{file}: {self.reason}"]
        if self.record:
            solved, total = self.record["solved"], self.record["exercises"]
            told += [f"  whose: {self.record['name']}"]
            told += [f"  written: {self.record['day']}, {_about(self.record)}"]
            ends = f"{_complete(self.record)} of {len(total)} lessons complete"
            told += [f"  solved: {len(solved)} of {sum(total.values())}, {ends}"]
            for lesson, (days, ids) in _by_lesson(self.record).items():
                end = f"{', '.join(ids)} ({', '.join(dict.fromkeys(days))})"
                line = f"  lesson {lesson}: {len(ids)} of {total[lesson]}: {end}"
                told += [line] if ids else []
            held = sum(bool(row["source"]) for row in solved)
            told += [f"  answers: {held} of {len(solved)} are in it"]
            told += [f"  seal: {self.seal}"]
        told += [f"  again {name}: {verdict}" for name, verdict in again.items()]
        return [_printable(line) for line in told]

    def row(self, file: str, again: Mapping[str, str]) -> list[str]:
        """Return the same as a line of a table, under `HEAD`."""
        if not self.record:
            return [_printable(f"{'-':>9} {'-':>7} {'-':>10}  {file}: {self.reason}")]
        total, solved = self.record["exercises"], len(self.record["solved"])
        done = f"{solved}/{sum(total.values())}"
        lessons = f"{_complete(self.record)}/{len(total)}"
        right = sum(verdict.startswith("correct") for verdict in again.values())
        note = f"; {right} of {len(again)} right again" if again else ""
        note += "" if self.seal == "none" else f"; seal {self.seal}"
        end = f"{self.record['day']:>10}  {self.record['name']} ({file}){note}"
        return [_printable(f"{done:>9} {lessons:>7} {end}")]


def about() -> dict[str, str]:
    """Return which course this is, its commit if git knows one, and where it runs."""
    root, commit = Path(__file__).parents[1], ""
    with suppress(OSError, subprocess.CalledProcessError):
        if (root / ".git").exists():  # else a repository around it would answer
            command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
            said = subprocess.run(command, capture_output=True, text=True, check=True)
            commit = said.stdout.strip()
    machine = f"{platform.system()} {platform.machine()}"  # nothing that names a person
    python = platform.python_version()
    return {"course": __version__, "commit": commit, "Python": python, "on": machine}


def read_key(path: str | None) -> bytes:
    """Return the key in a file; none without a path."""
    if path is None:
        return b""
    hint = "python -c 'import secrets; print(secrets.token_hex())' > FILE makes one."
    try:
        key = Path(path).read_bytes().strip()
    except OSError as error:
        raise CourseError(f"The key {path} cannot be read: {error}.", hint) from None
    if len(key) < 16:
        raise CourseError(f"A key has 16 or more bytes, {path} has {len(key)}.", hint)
    return key


def gather(
    name: str,
    solved: Sequence[Mapping[str, Any]],
    exercises: Mapping[str, int],
    about: Mapping[str, str],
    day: date,
) -> Record:
    """Return what a page holds, as plain values.

    Each of `solved` has lesson, id, title, day, hints, solution_shown and source;
    `exercises` says how many a lesson has. A source may be "".
    """
    kinds = {unicodedata.category(letter) for letter in name}
    if not 1 <= len(name.strip()) <= 100 or kinds & {"Cc", "Cs", "Zl", "Zp"}:
        rule = f"A name is one line of 1 to 100 characters, got {ascii(name):.60}."
        raise CourseError(rule, 'progress --certificate --name "Ada Lovelace"')
    if not solved:
        rule = "No exercise is solved on this machine, so there is nothing to write."
        hint = "solve one, such as 0.1 in lesson 00; QWEN_COURSE_HOME moves the file."
        raise CourseError(rule, hint)
    rows = [dict(row) for row in solved]
    head = {"format": FORMAT, "name": name, "day": day.isoformat()}
    return head | {"about": {**about}, "exercises": {**exercises}, "solved": rows}


def page(content: Record, key: bytes = b"") -> str:
    """Return the page of a record, HTML in one file, sealed if there is a key."""
    body = _body(content)
    seal = hmac.new(key, body.encode(), "sha256").hexdigest() if key else "none"
    return body + _END.format(seal, _checksum(body, seal))


def verify(data: bytes, key: bytes = b"") -> Finding:
    """Return what the bytes of a file are; never raises."""
    try:
        text = data.decode()
        last = _LAST.search(text)
        if not last or last.end() != len(text):
            return Finding(False, "no certificate, or its end is missing")
        body, (seal, checksum) = text[: last.start()], last.groups()
        if checksum != _checksum(body, seal):
            return Finding(False, "changed since it was written")
        (held,) = _RECORD.findall(body)
        content = json.loads(held)
        same = content["format"] == FORMAT
        if same and _body(content) != body:
            return Finding(False, "what it shows is not what its record says")
        rows = content["solved"] if same else []
        for row in rows:
            known = row["lesson"] in content["exercises"]
            if not (known and isinstance(row["id"] + row["day"], str)):
                raise ValueError
        if len({row["id"].strip() for row in rows}) < len(rows):
            raise ValueError  # one exercise counts once
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Finding(False, "no certificate of this course")
    sealed = "none" if seal == "none" else "not checked"
    if key and seal != "none":
        right = hmac.new(key, body.encode(), "sha256").hexdigest()
        sealed = "right" if hmac.compare_digest(right, seal) else "wrong"
    reason = "unchanged since it was written"
    if not same:
        number = f"format {content['format']!r:.10} (this course writes {FORMAT})"
        return Finding(False, f"{reason}, but in {number}", sealed)
    if key and sealed != "right":
        return Finding(False, f"{reason}, but not sealed with this key", sealed)
    return Finding(True, reason, sealed, content)


def write(file: str, text: str) -> Path:
    """Write a page and return its path; overwrite nothing else than a page."""
    path, hint = Path(file), "name another file: --certificate FILE"
    try:
        if path.exists() and not _RECORD.search(path.read_text("utf-8", "replace")):
            raise CourseError(f"{path} is there, and it is no certificate.", hint)
        path.write_bytes(text.encode())  # bytes: no system's own line ends
    except OSError as error:
        raise CourseError(f"{path} cannot be written: {error}.", hint) from None
    return path


def read(file: str, key: bytes = b"") -> Finding:
    """Return what a file is, as `verify` does."""
    try:
        return verify(Path(file).read_bytes(), key)
    except (OSError, ValueError) as error:
        return Finding(False, f"cannot be read: {error}")


def _printable(text: str) -> str:
    """Return a line that cannot steer a terminal; a page may come from anybody."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _about(content: Record) -> str:
    parts = content["about"].items()
    return ", ".join(f"{key} {value}" for key, value in parts if value)


def _by_lesson(content: Record) -> dict[str, tuple[list[str], list[str]]]:
    """Return by lesson the days of success in order, and the exercises."""
    found = {}
    for lesson in content["exercises"]:
        rows = [row for row in content["solved"] if row["lesson"] == lesson]
        found[lesson] = (sorted(r["day"] for r in rows), [r["id"] for r in rows])
    return found


def _checksum(body: str, seal: str) -> str:
    return hashlib.sha256(f"{body}<!-- seal {seal} -->".encode()).hexdigest()


def _complete(content: Record) -> int:
    """Return how many lessons have no exercise left."""
    parts = _by_lesson(content).items()
    return sum(len(ids) == content["exercises"][lesson] for lesson, (_, ids) in parts)


def _rows(rows: Sequence[Sequence[object]]) -> str:
    """Return rows of a table; the first cell of each is its heading."""
    lines = []
    for first, *others in rows:
        cells = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in others)
        heading = f'<th scope="row">{html.escape(str(first))}</th>'
        lines.append(f"<tr>{heading}{cells}</tr>")
    return "\n".join(lines)


def _help(row: Mapping[str, Any]) -> str:
    hints, shown = row["hints"], row["solution_shown"]
    told = [f"{hints} hint{'s' * (hints != 1)}"] if hints else []
    return ", ".join(told + ["the solution"] * bool(shown))


def _body(content: Record) -> str:
    """Return the page without its last line: a function of the record alone."""
    solved, exercises = content["solved"], content["exercises"]
    by_lesson, answers = [], []
    for lesson, (days, _) in _by_lesson(content).items():
        ends = (days[0], days[-1]) if days else ("", "")
        by_lesson.append((lesson, f"{len(days)} of {exercises[lesson]}", *ends))
    for row in solved:
        if row["source"]:
            title, source = html.escape(row["id"]), html.escape(row["source"].rstrip())
            summary = f"<summary>Exercise {title}</summary>"
            answers.append(f"<details>{summary}<pre>{source}</pre></details>")
    rows = [(row["id"], row["title"], row["day"], _help(row)) for row in solved]
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    fields = {
        "name": html.escape(content["name"]),
        "day": html.escape(content["day"]),
        "count": len(solved),
        "total": sum(exercises.values()),
        "complete": _complete(content),
        "lessons": len(exercises),
        "held": len(answers),
        "about": html.escape(_about(content)),
        "by_lesson": _rows(by_lesson),
        "by_exercise": _rows(rows),
        "answers": "\n".join(answers) or "<p>This page holds none.</p>",
        "record": data.replace("<", "\\u003c"),  # text must not end the element
    }
    return Template(catalog.text("certificate.html")).substitute(fields)
