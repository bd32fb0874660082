"""Exercises: the four verdicts, what bad code cannot do, progress, every definition."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import nbformat
import psutil
import pytest
from nbclient import NotebookClient

from qwen_course import answers, catalog, checks
from qwen_course.errors import CourseError

ROOT = Path(__file__).resolve().parent.parent
linux = pytest.mark.skipif(sys.platform != "linux", reason="forked child: Linux only")

TOY = '''
from qwen_course.checks import Exercise, Wrong


def check_double(answer):
    got = answer(3)
    if got == 9:
        return "that is the square.\\n  input: 3\\n  expected: 6\\n  got: 9"
    return None if got == 6 else f"input: 3, expected: 6, got: {got!r}"


def check_sizes(answer):
    return None if sum(answer) == 3 else f"expected a sum of 3, got {sum(answer)}"


def toy(name, check):
    return Exercise(
        id=name, title="double a number", minutes=2, stars=1, check=check,
        hints=("Look at 3.", "Add.", "x + x"), name="double",
        solution="def double(x):\\n    return 2 * x",
        stub="def double(x):\\n    raise NotImplementedError",
        wrong=(Wrong("a", "b", "c"),),
    )


EXERCISES = [toy("98.1", check_double), toy("98.2", check_sizes)]
'''  # fmt: skip


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Two toy exercises in a data folder of their own."""
    folder = tmp_path / "data" / "exercises"
    folder.mkdir(parents=True)
    (folder / "lesson_98.py").write_text(TOY)
    monkeypatch.setenv("QWEN_COURSE_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(checks, "_hints_given", {})
    monkeypatch.setattr(checks, "_solutions_shown", set())
    return folder


def define(source: str, name: str = "double") -> object:
    """What a source defines, as a notebook's cell would."""
    space: dict[str, object] = {}
    exec(textwrap.dedent(source), space)
    return space[name]


def body(lines: str) -> object:
    """A function double(x) with these lines."""
    return define("def double(x):\n" + textwrap.indent(textwrap.dedent(lines), "    "))


def judge(lines: str, **options) -> checks.Result:
    return checks.check("98.1", body(lines), **options)


# --- the four verdicts --------------------------------------------------------------

both = pytest.mark.parametrize(
    "isolated", [pytest.param(True, marks=linux), False], ids=["apart", "here"]
)


@both
@pytest.mark.usefixtures("toy")
def test_verdicts(isolated, capfd):
    here = {"isolated": isolated}
    assert judge("raise NotImplementedError", **here).status == "not attempted"
    assert repr(judge("return 2 * x", **here)) == "correct: double a number"
    told = judge("return x * x", **here)
    assert told.status == "not yet"
    assert "input: 3\n  expected: 6\n  got: 9" in told.message
    told = judge("return 1 / 0", **here)
    assert told.status == "your code raised"
    assert told.message == "ZeroDivisionError: division by zero\n  in line 2"
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("blank", [None, ..., [1, ...], (..., 2), {"a": ...}])
def test_a_blank_is_not_attempted(blank):
    assert checks.check("98.2", blank).status == "not attempted"


@both
@pytest.mark.usefixtures("toy")
def test_a_value_that_the_check_cannot_use(isolated):
    told = checks.check("98.2", 5, isolated=isolated)
    assert told.status == "not yet"
    assert "cannot use a int" in told.message
    assert checks.check("98.2", [1, 2], isolated=isolated).status == "correct"


@both
@pytest.mark.usefixtures("toy")
def test_a_wrong_signature_is_told_apart_from_a_wrong_line(isolated):
    answer = define("def double():\n    return 6")
    told = checks.check("98.1", answer, isolated=isolated)
    assert told.status == "your code raised"
    assert "TypeError" in told.message
    assert "look at the parameters" in told.message


@pytest.mark.usefixtures("toy")
def test_the_learner_s_line_is_shown_where_it_can_be_read(tmp_path):
    path = tmp_path / "cell.py"
    path.write_text("def double(x):\n    y = x\n    return y.size\n")
    space: dict[str, object] = {}
    exec(compile(path.read_text(), str(path), "exec"), space)
    told = checks.check("98.1", space["double"])
    assert told.message.endswith("in line 3: return y.size")
    assert str(tmp_path) not in told.message


@pytest.mark.usefixtures("toy")
def test_not_implemented_deeper_down_is_an_error_of_the_answer():
    told = judge("import collections.abc, io\nreturn io.IOBase().fileno() or abs(x)")
    assert told.status == "your code raised"
    lines = "import numbers\nreturn numbers.Complex.__abs__(x)"
    assert judge(lines).status in {"your code raised", "not yet"}


@both
@pytest.mark.usefixtures("toy")
def test_what_the_code_prints_is_shown_but_bounded(isolated):
    told = judge("print('a')\nprint('b')\nreturn 2 * x", isolated=isolated)
    assert repr(told).endswith("Your code printed:\n  a\n  b")
    told = judge("print('long ' * 10_000)\nreturn 2 * x", isolated=isolated)
    assert len(told.printed) == checks.PRINTED


@pytest.mark.usefixtures("toy")
def test_an_unknown_exercise_names_the_nearest():
    told = checks.check("98.3", 1)
    assert told.status == "not attempted"
    assert "98.1" in told.message
    assert "98.2" in told.message
    with pytest.raises(CourseError, match=r"nearest: 98\."):
        checks.hint("98.3")
    with pytest.raises(CourseError):
        checks.solution("x")


def test_a_broken_definition_is_no_exception(toy):
    (toy / "lesson_97.py").write_text("EXERCISES = 1 +")
    checks._lessons.cache_clear()
    told = checks.check("97.1", 1)
    assert told.status == "not attempted"
    assert "lesson_97.py" in told.message
    checks._lessons.cache_clear()


# --- what bad code cannot do --------------------------------------------------------


@pytest.mark.slow
@linux
@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("lines", "fragment"),
    [
        ("while True:\n    x += 1", "it ran for 1 s and was stopped"),
        ("import time\ntime.sleep(60)", "it ran for 1 s"),
        (
            "while True:\n    try:\n        sum(range(10**5))\n"
            "    except BaseException:\n        pass",
            "had to be killed",
        ),
        ("return bytearray(4 * 10**9)", "MemoryError: it asked for more than 1 GB"),
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("import os\nos._exit(0)", "ended its own process (exit code 0)"),
        (
            "import os\nos.kill(os.getpid(), 9)",
            "ended its own process (Killed)",
        ),
        ("import os\nos.closerange(3, 200)\nreturn 2 * x", "ended its own process"),
        (
            "import ctypes\nctypes.string_at(0)",
            "ended its own process (Segmentation fault)",
        ),
        ("return double(x)", "RecursionError"),
        ("while True:\n    print('x' * 1000)", "it ran for 1 s"),
        ("import os\nwhile True:\n    os.write(1, b'x' * 1000)", "it ran for 1 s"),
        (
            "import os, time\nfor _ in range(80):\n"
            "    if os.fork() == 0:\n        time.sleep(60)\ntime.sleep(60)",
            "processes",
        ),
    ],
)
def test_bad_code_costs_a_verdict(lines, fragment, capfd):
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    endless = "it ran for" in fragment or "had to be killed" in fragment
    started = time.monotonic()
    told = judge(lines, seconds=1 if endless else 60)
    assert told.status == "your code raised"
    assert fragment in told.message
    assert time.monotonic() - started < 60
    after = {child.pid for child in psutil.Process().children(recursive=True)}
    assert after <= before
    assert capfd.readouterr() == ("", "")
    assert judge("return 2 * x").status == "correct"


@pytest.mark.slow
@linux
@pytest.mark.usefixtures("toy")
def test_memory_in_small_pieces():
    told = judge("kept = []\nwhile True:\n    kept.append(bytearray(10**5))")
    assert "MemoryError" in told.message


@pytest.mark.slow
@linux
@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("end", ["return 2 * x", "os._exit(1)", "while True: pass"])
@pytest.mark.parametrize("leave", ["pass", "os.setsid()"])
def test_nothing_that_the_code_started_is_left(tmp_path, end, leave):
    """Sixteen grandchildren whose parent has gone, some in sessions of their own."""
    pids = tmp_path / "pids"
    lines = f"""\
    import os, time
    for _ in range(16):
        if os.fork() == 0:
            {leave}
            if os.fork() == 0:
                with open({str(pids)!r}, "a") as file:
                    file.write(f"{{os.getpid()}}\\n")
                time.sleep(60)
            os._exit(0)
    open({str(pids)!r}, "a").close()
    while len(open({str(pids)!r}).readlines()) < 16:
        time.sleep(0.01)
    {end}
    """
    # On a busy machine 32 forks take their time.
    told = judge(lines, seconds=10 if "while" in end else 60)
    assert told.status == ("correct" if "return" in end else "your code raised")
    started = [int(line) for line in pids.read_text().split()]
    assert len(started) == 16
    assert [pid for pid in started if psutil.pid_exists(pid)] == []


@linux
@pytest.mark.usefixtures("toy")
def test_threads_and_programs_end_with_the_check(tmp_path):
    lines = f"""\
    import subprocess, threading, time
    program = subprocess.Popen(["sleep", "60"])
    open({str(tmp_path / "pid")!r}, "w").write(str(program.pid))
    for _ in range(8):
        threading.Thread(target=time.sleep, args=(60,)).start()
    return 2 * x
    """
    assert judge(lines).status == "correct"
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


@linux
@pytest.mark.usefixtures("toy")
def test_other_children_of_the_notebook_live_on():
    shell = ["sh", "-c", "sleep 60 & wait"]  # a child with a child
    with subprocess.Popen(shell, start_new_session=True) as other:
        assert judge("return 2 * x").status == "correct"
        assert judge("while True:\n    pass", seconds=0.5).status == "your code raised"
        assert other.poll() is None
        assert len(psutil.Process(other.pid).children()) == 1
        os.killpg(other.pid, signal.SIGKILL)


@linux
@pytest.mark.usefixtures("toy")
def test_the_answer_changes_nothing_here():
    kept: list[int] = []
    answer = body("import os\nkept.append(x)\nos.environ['X_LEFT'] = '1'\nreturn 2 * x")
    answer.__globals__["kept"] = kept
    assert checks.check("98.1", answer).status == "correct"
    assert kept == []
    assert "X_LEFT" not in os.environ


@linux
@pytest.mark.usefixtures("toy")
def test_interrupting_a_check_gives_a_verdict():
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    told = judge("import time\ntime.sleep(30)", seconds=30)
    assert told.status == "your code raised"
    assert "it was stopped" in told.message


@linux
def test_a_check_dies_with_its_kernel(toy, tmp_path):
    program = f"""\
    from qwen_course import checks
    import os
    def double(x):
        open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
        while True:
            try:
                sum(range(10**5))
            except BaseException:
                pass
    checks.check("98.1", double, seconds=60)
    """
    kernel = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT
    )
    place = tmp_path / "pid"
    wait_until(lambda: place.exists() and place.read_text())
    kernel.kill()
    kernel.wait()
    wait_until(lambda: not psutil.pid_exists(int(place.read_text())))


def wait_until(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "waited 20 s"
        time.sleep(0.05)


@linux
@pytest.mark.usefixtures("toy")
def test_where_no_process_can_be_had_the_answer_is_judged_here(monkeypatch):
    def fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)
    assert judge("return 2 * x").status == "correct"
    assert "it ran for 0.5 s" in judge("while True: pass", seconds=0.5).message


@pytest.mark.usefixtures("toy")
def test_the_time_limit_here_leaves_the_alarm_as_it_was():
    before = signal.getsignal(signal.SIGALRM)
    told = judge("while True:\n    pass", seconds=0.2, isolated=False)
    assert "it ran for 0.2 s and was stopped" in told.message
    assert judge("import sys\nsys.exit()", isolated=False).status == "your code raised"
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.usefixtures("toy")
@both
def test_a_check_in_another_thread(isolated):
    found = []
    answer = body("return 2 * x")
    thread = threading.Thread(
        target=lambda: found.append(checks.check("98.1", answer, isolated=isolated))
    )
    thread.start()
    thread.join()
    assert [result.status for result in found] == ["correct"]


def run_in_a_kernel(cells, folder):
    """Return a notebook of these cells, run in a real kernel."""
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(nb, timeout=120, kernel_name="python3", resources=place)
    with client.setup_kernel(env=os.environ | {"PYTHONPATH": str(ROOT)}):
        for number, cell in enumerate(nb.cells):
            client.execute_cell(cell, number)
    return nb


@pytest.mark.slow
@linux
def test_in_a_real_kernel_beside_torch(toy, tmp_path):
    """The kernel's threads, torch's pool and captured streams stay as they were."""
    cells = [
        "import psutil, torch\na = torch.ones(600, 600)\nb = a @ a\n"
        "from qwen_course import checks",
        "def double(x):\n    print('seen')\n    return 2 * x",
        "checks.check('98.1', double)",
        "def double(x):\n    while True:\n        x += 1",
        "checks.check('98.1', double, seconds=1)",
        "def double(x):\n    return int(input('x: '))",
        "checks.check('98.1', double)",
        "def double(x):\n    import os\n    os._exit(0)",
        "checks.check('98.1', double)",
        "torch.equal(a @ a, b), psutil.Process().children()",
    ]
    nb = run_in_a_kernel(cells, tmp_path)
    shown = [
        [o.get("data", {}).get("text/plain", o.get("text")) for o in cell.outputs]
        for cell in nb.cells[2::2]
    ] + [[nb.cells[-1].outputs[0].data["text/plain"]]]
    assert shown[0] == ["correct: double a number\nYour code printed:\n  seen"]
    assert shown[1][0].startswith("your code raised: it ran for 1 s and was stopped")
    assert shown[1][0].endswith(("in line 2: while True:", "in line 3: x += 1"))
    assert "ValueError" in shown[2][0]
    assert "in line 2: return int(input('x: '))" in shown[2][0]
    assert "exit code 0" in shown[3][0]
    assert shown[-1] == ["(True, [])"]


@pytest.mark.slow
@linux
def test_a_real_kernel_gives_the_source_with_what_it_uses(toy, tmp_path):
    cells = [
        "import math\nfrom qwen_course import checks",
        "def other(x):\n    return math.floor(x) * 2",
        "def double(x):\n    return other(x)",
        "checks.check('98.1', double)",
        "print(checks.solved_exercises()[0].source)",
    ]
    nb = run_in_a_kernel(cells, tmp_path)
    source = nb.cells[-1].outputs[0]["text"]
    assert source.split("\n\n")[:3] == ["import math", cells[1], cells[2]]
    assert checks.check_source("98.1", source).status == "correct"


# --- hints, solutions, progress -----------------------------------------------------


@pytest.mark.usefixtures("toy")
def test_hints_go_from_one_to_three():
    shown = [repr(checks.hint("98.1")) for _ in range(4)]
    assert shown[:3] == [
        "Hint 1 of 3: Look at 3.",
        "Hint 2 of 3: Add.",
        "Hint 3 of 3: x + x",
    ]
    assert (
        shown[3] == shown[2] + '\nNo more hints: checks.solution("98.1") shows one way.'
    )
    assert repr(checks.hint("98.2")) == "Hint 1 of 3: Look at 3."
    assert repr(checks.hint(98.2)).startswith("Hint 2 of 3")  # the same one
    assert repr(checks.solution("98.1")) == "def double(x):\n    return 2 * x"


@pytest.mark.usefixtures("toy")
def test_progress_is_kept():
    judge("raise NotImplementedError")
    assert not Path(os.environ["QWEN_COURSE_HOME"]).exists()
    assert (
        repr(checks.progress()) == "lesson 98: 0 of 2 correct; still open: 98.1, 98.2"
    )
    days = iter([date(2026, 1, day) for day in (1, 2)])  # of the two successes
    for lines in ("return x", "return 2 * x", "return 2 * x", "return x"):
        judge(lines, today=lambda: next(days))
    path = Path(os.environ["QWEN_COURSE_HOME"]) / "progress.json"
    assert json.loads(path.read_text()) == {"98.1": "2026-01-01"}
    found = checks.progress()
    assert found.lessons == {"98": {"98.1": True, "98.2": False}}
    assert repr(found) == "lesson 98: 1 of 2 correct; still open: 98.2"
    assert checks.progress("97").lessons == {}


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[1]",
        b"\xff\xfe",
        b'{"98.1": 3}',
        b'{"98.1": "yesterday"}',
        b"null",
    ],
)
def test_a_broken_progress_file_is_put_aside(content):
    folder = Path(os.environ["QWEN_COURSE_HOME"])
    folder.mkdir()
    (folder / "progress.json").write_bytes(content)
    assert judge("return 2 * x") == checks.Result("correct", "double a number")
    assert (folder / "progress.json.broken").read_bytes() == content
    assert checks.progress().lessons["98"]["98.1"]


def kept() -> dict:
    return json.loads(
        (Path(os.environ["QWEN_COURSE_HOME"]) / "answers.json").read_text()
    )


def typed(tmp_path, source: str) -> object:
    """What a notebook's cell defines, with a source that can be looked up."""
    path = tmp_path / f"cell{len(list(tmp_path.iterdir()))}.py"
    path.write_text(source)
    space: dict[str, object] = {"__name__": "__main__"}
    exec(compile(source, str(path), "exec"), space)
    return space["double"]


@pytest.mark.usefixtures("toy")
def test_an_accepted_answer_is_kept_with_the_help_that_was_asked_for(tmp_path):
    checks.hint("98.1")
    checks.hint("98.1")
    right = "def double(x):\n    return x + x\n"
    checks.check("98.1", typed(tmp_path, right.replace("+", "*")))
    assert checks.solved_exercises() == []
    checks.check("98.1", typed(tmp_path, right), today=lambda: date(2026, 1, 2))
    checks.solution("98.2")
    checks.check("98.2", [1, 2], today=lambda: date(2026, 1, 3))
    checks.hint("98.1")
    checks.check("98.1", typed(tmp_path, right.replace("x + x", "2 * x")))
    first = checks.Solved(
        "98", "98.1", "double a number", "2026-01-02", 2, False, right
    )
    second = checks.Solved(
        "98", "98.2", "double a number", "2026-01-03", 0, True, "double = [1, 2]\n"
    )
    assert checks.solved_exercises() == [first, second]
    for row in checks.solved_exercises():
        assert checks.check_source(row.id, row.source).status == "correct"


@pytest.mark.usefixtures("toy")
def test_progress_of_before_answers_were_kept(tmp_path):
    folder = Path(os.environ["QWEN_COURSE_HOME"])
    folder.mkdir()
    (folder / "progress.json").write_text('{"98.1": "2025-01-01"}')
    old = checks.Solved("98", "98.1", "double a number", "2025-01-01")
    assert checks.solved_exercises() == [old]
    checks.hint("98.1")
    checks.check("98.1", lambda x: 2 * x)  # has no source that could be kept
    assert checks.solved_exercises() == [replace(old, hints=1)]
    checks.hint("98.1")
    checks.check("98.1", typed(tmp_path, "def double(x):\n    return 2 * x\n"))
    (row,) = checks.solved_exercises()
    assert (row.day, row.hints) == ("2025-01-01", 1)
    assert row.source == "def double(x):\n    return 2 * x\n"


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("content", ["{", "[1]", "null", '{"98.1": {}}', '{"98.1": 3}'])
def test_a_broken_file_of_answers_is_put_aside(content, tmp_path):
    folder = Path(os.environ["QWEN_COURSE_HOME"])
    folder.mkdir()
    (folder / "progress.json").write_text('{"98.1": "2025-01-01"}')
    (folder / "answers.json").write_text(content)
    assert checks.progress().lessons["98"]["98.1"]
    assert (folder / "answers.json.broken").read_text() == content
    checks.check("98.2", [1, 2])
    assert kept()["98.2"]["source"] == "double = [1, 2]\n"


@linux
@pytest.mark.usefixtures("toy")
def test_a_source_of_somebody_else_is_judged_apart(tmp_path):
    def told(source: str) -> str:
        return checks.check_source("98.1", source, seconds=0.5).message

    right = "def double(x):\n    return 2 * x\n"
    assert told(right) == "double a number"
    assert "expected: 6" in told(right.replace("2 * x", "x * x"))
    assert "it ran for 0.5 s" in told("while True: pass\n" + right)
    assert "KeyError: 'double'" in told("x = 1")
    assert "SyntaxError" in told("def double(")
    assert "ended its own process" in told("import os\nos._exit(0)")
    assert checks.solved_exercises() == []
    assert not Path(os.environ["QWEN_COURSE_HOME"]).exists()
    fence = answers.isolation()
    if fence["network"] == "namespace":
        place = ("127.0.0.1", 9)
        assert "unreachable" in told(
            f"import socket\nsocket.create_connection({place})"
        )
    if fence["writing"] == "namespace":
        told(f"open({str(tmp_path / 'left')!r}, 'w').close()\n{right}")
        assert not (tmp_path / "left").exists()


def test_an_exercise_of_another_version_is_named():
    with pytest.raises(CourseError, match=r"no exercise '999\.9'"):
        checks.check_source("999.9", "x = 1")


@pytest.mark.usefixtures("toy")
def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QWEN_COURSE_HOME", str(tmp_path / "file" / "below"))
    told = judge("return 2 * x")
    assert told.status == "correct"
    assert "Your progress was not saved" in told.message
    assert not any(checks.progress().lessons["98"].values())


@pytest.mark.usefixtures("toy")
def test_without_a_folder_of_their_own_tests_write_nothing(monkeypatch, tmp_path):
    monkeypatch.delenv("QWEN_COURSE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    assert judge("return 2 * x").status == "correct"
    assert not (tmp_path / "person").exists()
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    assert judge("return 2 * x").status == "correct"
    assert (tmp_path / "person" / ".qwen_course" / "progress.json").exists()


@pytest.mark.usefixtures("toy")
def test_two_processes_lose_no_success():
    program = """\
    import sys
    from datetime import date
    from qwen_course import checks
    for number in range(50):
        assert checks._record(f"{sys.argv[1]}.{number}", date(2026, 1, 1)) == ""
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    writers = [subprocess.Popen([*command, who], cwd=ROOT) for who in ("1", "2")]
    assert [writer.wait() for writer in writers] == [0, 0]
    path = Path(os.environ["QWEN_COURSE_HOME"]) / "progress.json"
    assert len(json.loads(path.read_text())) == 100
    assert not path.with_name("progress.json.broken").exists()


# --- every exercise of the course ---------------------------------------------------

LESSONS = checks._lessons(catalog.data_dir())
EXERCISES = {name: task for tasks in LESSONS.values() for name, task in tasks.items()}
each = pytest.mark.parametrize("name", EXERCISES)


def test_there_are_exercises():
    assert len(LESSONS) >= 3
    for lesson, tasks in LESSONS.items():
        assert list(tasks) == [
            f"{lesson.removeprefix('0')}.{n}" for n in range(1, len(tasks) + 1)
        ]
        assert 3 <= len(tasks) <= 5
    assert len(EXERCISES) == sum(map(len, LESSONS.values()))


def test_definitions_load_without_heavy_packages():
    program = """\
    import sys
    from qwen_course import answers, catalog, checks
    assert checks._lessons(catalog.data_dir()) or True
    print(sorted({"torch", "transformers", "numpy"} & set(sys.modules)))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@each
def test_definition_is_complete(name):
    task = EXERCISES[name]
    assert task.title.strip()
    assert 1 <= task.minutes <= 30
    assert 1 <= task.stars <= 3
    assert len(task.hints) == 3
    assert all(hint.strip() for hint in task.hints)
    assert len(set(task.hints)) == 3
    assert len(task.wrong) >= 2
    assert all(w.belief.strip() and w.fragment.strip() for w in task.wrong)


@each
def test_stub_is_not_attempted(name):
    task = EXERCISES[name]
    told = checks.check(name, define(task.stub, task.name))
    assert told.status == "not attempted", told


@each
def test_solution_is_correct(name):
    task = EXERCISES[name]
    told = checks.check(name, define(task.solution, task.name))
    assert told.status == "correct", told
    assert told.printed == ""


@each
def test_solution_is_correct_as_text_too(name):
    task = EXERCISES[name]
    told = checks.check_source(name, task.solution)
    assert told.status == "correct", told


@pytest.mark.usefixtures("toy")
def test_a_strange_container_is_judged_not_raised():
    class Odd(dict):
        def values(self):
            raise RuntimeError

    assert checks.check("98.1", Odd()).status in ("not yet", "your code raised")


@linux
@pytest.mark.usefixtures("toy")
def test_ctrl_c_ends_a_roll_up_and_judges_nobody_wrong():
    rows = [{"id": "98.1", "source": "import time\ntime.sleep(30)"}] * 3
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        checks.judge_again({"solved": rows})


@linux
@pytest.mark.usefixtures("toy")
def test_a_source_of_somebody_else_ends_no_process_of_ours():
    if answers.isolation()["signals"] != "namespace":
        pytest.skip("no namespaces on this machine")
    with subprocess.Popen(["sleep", "60"]) as ours:
        source = f"import os\nos.kill({ours.pid}, 9)\ndef double(x): return 2 * x"
        told = checks.check_source("98.1", source)
        assert "ProcessLookupError" in told.message
        assert ours.poll() is None
        ours.kill()


@linux
@pytest.mark.usefixtures("toy")
def test_without_a_process_of_its_own_no_source_of_somebody_else_runs(
    monkeypatch, tmp_path
):
    def none():
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", none)
    source = f"open({str(tmp_path / 'left')!r}, 'w').close()\ndef double(x): return 6"
    told = checks.check_source("98.1", source)
    assert told.status == "your code raised"
    assert not (tmp_path / "left").exists()
