"""Exercises: is the answer right, a hint, the solution, how far you are.

Knows the definitions in `data/exercises/lesson_NN.py` and in $QWEN_COURSE_HOME (default
~/.qwen_course) progress.json, the day of each first success, and answers.json, what was
accepted; knows nothing of models and notebooks. Linux judges an answer in a forked
child: a loop, a crash or a leak costs a verdict, not the notebook. Elsewhere it is
judged here, under a time limit. Checks use plain values and tokenizers: torch hangs in
a forked child.
"""

import builtins
import difflib
import faulthandler
import functools
import io
import json
import os
import resource
import runpy
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import astuple, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, NoReturn

from qwen_course import catalog, kept, sandbox, sources
from qwen_course.errors import CourseError

MEMORY_GB, PROCESSES, PRINTED = 1, 64, 2000  # limits of a check; PRINTED in characters
_BLANK = "replace the placeholder in the cell above, run it, then run this cell again"
_STOPPED = "it was stopped before it had an answer"
_hints_given: dict[str, int] = {}
_solutions_shown: set[str] = set()


class Text(str):
    """Text that a notebook shows as it is, without quotes."""

    __repr__ = str.__str__


@dataclass(frozen=True)
class Wrong:
    """A typical wrong answer: belief behind it, source, words the verdict must say."""

    belief: str
    source: str
    fragment: str


@dataclass(frozen=True)
class Exercise:
    """One task; `check(answer)` returns None if it is right, else what is not yet."""

    id: str
    title: str
    minutes: int
    stars: int
    check: Callable[[Any], str | None]
    hints: tuple[str, ...]
    solution: str  # source that defines `name`, as `stub` and each `wrong` do
    name: str
    stub: str
    wrong: tuple[Wrong, ...]


@dataclass(frozen=True, repr=False)
class Result:
    """A verdict: not attempted, not yet, your code raised, or correct; and why."""

    status: str
    message: str
    printed: str = ""

    def __repr__(self) -> str:
        """Verdict first, then what the code printed while it was judged."""
        printed = self.printed.rstrip().replace("\n", "\n  ")
        told = f"\nYour code printed:\n  {printed}" if printed else ""
        return f"{self.status}: {self.message}{told}"


@dataclass(frozen=True, repr=False)
class Progress:
    """By lesson, which exercises were ever correct: {"00": {"0.1": True, ...}, ...}."""

    lessons: dict[str, dict[str, bool]]

    def __repr__(self) -> str:
        """One line per lesson."""
        lines = []
        for lesson, done in self.lessons.items():
            left = ", ".join(name for name in done if not done[name])
            line = f"lesson {lesson}: {sum(done.values())} of {len(done)} correct"
            lines.append(line + (f"; still open: {left}" if left else ""))
        return "\n".join(lines) or "no exercises found"


@dataclass(frozen=True)
class Solved:
    """A success: its first day, help asked for in that session, source or ""."""

    lesson: str
    id: str
    title: str
    day: str
    hints: int = 0
    solution_shown: bool = False
    source: str = ""


def check(
    exercise_id: str,
    answer: object,
    seconds: float = 10.0,
    isolated: bool = sys.platform == "linux",
    today: Callable[[], date] = date.today,
) -> Result:
    """Verdict on an answer. Never raises, prints nothing, remembers a success."""
    try:
        exercise = _find(exercise_id)
    except Exception as error:  # a broken definition must not stop the notebook either
        return Result("not attempted", f"{error}")
    with suppress(Exception):  # a learner's own kind of list can raise
        parts = list(answer.values()) if isinstance(answer, dict) else answer
        parts = parts if isinstance(parts, list | tuple) else [parts]
        if answer is None or any(part is ... for part in parts):
            return Result("not attempted", _BLANK)
    try:
        result = (_judge_apart if isolated else _judge)(exercise, answer, seconds)
    except KeyboardInterrupt:
        return Result("your code raised", _STOPPED)
    if result.status != "correct":
        return result
    accepted = {
        "hints": _hints_given.get(exercise.id, 0),
        "solution_shown": exercise.id in _solutions_shown,
        "source": sources.source_of(exercise.name, answer),
    }
    note = _record(exercise.id, today(), accepted)
    return replace(result, message=result.message + note)


def check_source(exercise_id: str, source: str, seconds: float = 10.0) -> Result:
    """Verdict on a source that somebody handed in; nothing is remembered.

    On Linux its child has no network and can write nowhere, where the system has
    namespaces (`answers.isolation` says so). Elsewhere read the source before.
    """
    exercise, apart = _find(exercise_id), sys.platform == "linux"
    with tempfile.TemporaryDirectory() as folder:
        made = functools.partial(sources.define, exercise.name)
        outer = replace(exercise, check=lambda text: exercise.check(made(text)))
        judge = functools.partial(_judge_apart, folder=folder) if apart else _judge
        return judge(outer, source, seconds)


def hint(exercise_id: str) -> Text:
    """The next hint of an exercise; after the last one, the last again."""
    exercise = _find(exercise_id)
    hints = exercise.hints
    given = _hints_given[exercise.id] = _hints_given.get(exercise.id, 0) + 1
    number = min(given, len(hints))
    end = f'\nNo more hints: checks.solution("{exercise_id}") shows one way.'
    text = f"Hint {number} of {len(hints)}: {hints[number - 1]}"
    return Text(text + (end if given > number else ""))


def solution(exercise_id: str) -> Text:
    """Source code that solves an exercise."""
    exercise = _find(exercise_id)
    _solutions_shown.add(exercise.id)
    return Text(exercise.solution.strip("\n"))


def progress(lesson: str = "") -> Progress:
    """What was ever correct on this machine: all lessons, or one, such as "00"."""
    known = {row.id for row in solved_exercises()}
    return Progress({
        name: {exercise_id: exercise_id in known for exercise_id in exercises}
        for name, exercises in _lessons(catalog.data_dir()).items()
        if lesson in ("", name)
    })  # fmt: skip


def solved_exercises() -> list[Solved]:
    """Every success on this machine, in the order of the lessons."""
    days: dict[str, str] = {}
    answers: dict[str, Any] = {}
    with suppress(OSError, RuntimeError):  # no file that could be read: nothing done
        if path := kept.place("progress.json"):
            days = kept.read(path, _days) or {}
            answers = kept.read(path.with_name("answers.json"), _answers) or {}
    return [
        Solved(lesson, name, exercise.title, days[name], **answers.get(name, {}))
        for lesson, exercises in _lessons(catalog.data_dir()).items()
        for name, exercise in exercises.items()
        if name in days
    ]


@functools.cache
def _lessons(data: Path) -> dict[str, dict[str, Exercise]]:
    lessons = {}
    for path in sorted((data / "exercises").glob("lesson_*.py")):
        exercises = runpy.run_path(str(path))["EXERCISES"]
        lessons[path.stem.removeprefix("lesson_")] = {e.id: e for e in exercises}
    return lessons


def _find(exercise_id: str) -> Exercise:
    lessons = _lessons(catalog.data_dir()).values()
    known = {name: exercise for lesson in lessons for name, exercise in lesson.items()}
    if (name := str(exercise_id).strip()) in known:
        return known[name]
    near = ", ".join(difflib.get_close_matches(str(exercise_id), known, 3, 0.0))
    raise CourseError(f"There is no exercise {exercise_id!r}.", f"the nearest: {near}.")


def _days(rows: Any) -> dict[str, str]:
    """Day of the first success, by exercise."""
    return {name: date.fromisoformat(day).isoformat() for name, day in rows.items()}


def _answers(rows: Any) -> dict[str, Any]:
    """What was accepted, by exercise."""
    kinds = {"hints": int, "solution_shown": bool, "source": str}
    return {
        name: {key: kind(row[key]) for key, kind in kinds.items()}
        for name, row in rows.items()
    }


def _record(exercise_id: str, today: date, new: dict[str, Any] | None = None) -> str:
    """Keep a success; returns "", or a line that says why it could not be kept."""
    try:
        if not (path := kept.place("progress.json")):
            return ""
        beside = path.with_name("answers.json")
        with kept.locked(path):
            day = {exercise_id: today.isoformat()}
            kept.write(path, day | (kept.read(path, _days) or {}))
            answers = kept.read(beside, _answers) or {}
            old = answers.get(exercise_id, {})  # its help, of the first time, stays
            if new and not old.get("source"):
                whole = new | old | {"source": new["source"]}
                kept.write(beside, answers | {exercise_id: whole})
    except (OSError, RuntimeError) as error:
        return f"\n(Your progress was not saved: {error})"
    return ""


class _Printed(io.StringIO):
    def write(self, text: str) -> int:
        super().write(text[: max(0, PRINTED - self.tell())])
        return len(text)


class _TimeUp(BaseException):
    pass


def _time_up(*_: object) -> NoReturn:
    raise _TimeUp


def _judge(exercise: Exercise, answer: object, seconds: float) -> Result:
    printed, spare = _Printed(), bytearray(10**7)  # spare: room to report a MemoryError
    timed = threading.current_thread() is threading.main_thread()
    old = signal.signal(signal.SIGALRM, _time_up) if timed else None
    try:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, seconds)
        with redirect_stdout(printed), redirect_stderr(printed):
            problem = exercise.check(answer)
        status, text = "not yet", problem
        if problem is None:
            status, text = "correct", exercise.title
    except BaseException as error:  # sys.exit and KeyboardInterrupt too
        del spare
        status, text = _explain(error, answer, seconds)
    finally:
        if timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old or signal.SIG_DFL)
    return Result(status, str(text)[:4000], printed.getvalue())


def _explain(error: BaseException, answer: object, seconds: float) -> tuple[str, str]:
    """Status and message of an exception, with the last line that the learner wrote."""
    trace = error.__traceback__
    spaces = [frame.f_globals.get("__name__") for frame, _ in traceback.walk_tb(trace)]
    lines = zip(spaces, traceback.extract_tb(trace), strict=False)
    own = [line for space, line in lines if space in (None, "__main__")]
    if isinstance(error, NotImplementedError) and spaces[-1] in (None, "__main__"):
        return "not attempted", _BLANK
    text = "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, _TimeUp):
        text = f"it ran for {seconds:g} s and was stopped. Look for a loop without end"
        text += ", or for one with far too many rounds"
    elif isinstance(error, MemoryError):
        text = f"MemoryError: it asked for more than {MEMORY_GB} GB"
    if own:
        line = f": {own[-1].line}" if own[-1].line else ""  # "" outside a notebook
        return "your code raised", f"{text}\n  in line {own[-1].lineno}{line}"
    if not callable(answer):
        return "not yet", f"this check cannot use a {type(answer).__name__} ({text})"
    note = "not in a line of yours: look at the parameters and at what is returned"
    return "your code raised", f"{text}\n  {note}"


def _judge_apart(
    exercise: Exercise, answer: object, seconds: float, folder: str = ""
) -> Result:
    """The verdict of a forked child; nothing that the child started outlives it."""
    receive, send = os.pipe()
    try:
        with warnings.catch_warnings(action="ignore"):  # 3.12+: fork beside threads
            guard = os.fork()
    except OSError:  # no process to be had
        os.close(receive)
        os.close(send)
        if folder:
            return Result("your code raised", "no process can be started for it")
        return _judge(exercise, answer, seconds)
    if guard == 0:
        try:
            if folder:  # before it forks: the child is in the new namespaces, too
                sources.leave(folder)
            _guard(send, exercise, answer, seconds)
        finally:
            os._exit(0)  # no atexit of the kernel, no flush of its buffers
    os.close(send)
    with open(receive, "rb") as verdict:
        try:
            return Result(*json.loads(verdict.read()))
        except ValueError:  # the code killed the guard
            return Result("your code raised", _STOPPED)
        finally:
            with suppress(ProcessLookupError):
                os.kill(guard, signal.SIGTERM)
            os.waitpid(guard, 0)


def _guard(send: int, exercise: Exercise, answer: object, seconds: float) -> None:
    """Between kernel and child: adopt the child's orphans, pass its verdict on."""
    os.setsid()
    signal.signal(signal.SIGTERM, _time_up)
    sandbox.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: end with the kernel
    work = functools.partial(_work, send, exercise, answer, seconds)
    said, reason, end = sandbox.fenced(work, seconds + 1, PROCESSES)
    told = f"it ended its own process ({end}) too early"
    told = f"it {reason} and had to be killed" if reason else told
    os.write(send, said or json.dumps(["your code raised", told]).encode())


def _work(
    kernel: int, exercise: Exercise, answer: object, seconds: float, guard: int
) -> None:
    """In the child: judge within the limits, send the verdict to the guard as JSON."""
    os.close(kernel)
    os.nice(10)  # whatever it starts, the one who must stop it comes first
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    me, null = os.getpid(), os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    faulthandler.disable()  # a crash is a verdict, not a dump in the terminal
    builtins.input = lambda *_: ""  # a notebook's own would wait for a keyboard
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    with suppress(ValueError, OSError):  # a lower limit is set already
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_GB * 2**30,) * 2)
    result = _judge(exercise, answer, seconds)
    if os.getpid() == me:  # a process that the answer forked comes here too
        text = json.dumps(astuple(result), ensure_ascii=False)
        os.write(guard, text.encode(errors="replace"))  # less than a pipe's 64 kB


def judge_again(record: dict[str, Any]) -> dict[str, str]:
    """Return by exercise what the checks say of the answers that a page holds."""
    verdicts = {}
    for row in record.get("solved", []):
        if row["source"]:
            try:
                result = check_source(row["id"], row["source"])
                published = _find(row["id"]).solution  # shown to nobody
            except CourseError as error:  # an exercise of another version
                verdicts[row["id"]] = error.message
                continue
            same = sources.holds(row["source"], published)
            right = "correct, the published solution" if same else "correct"
            first = f"{result.status}: {result.message}".splitlines()[0]
            verdicts[row["id"]] = right if result.status == "correct" else first
    return verdicts
