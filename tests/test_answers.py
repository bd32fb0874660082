"""Attacks on the sandbox, one test each, and the ways in which models write answers.

After every test the fixture looks for processes and files that were left behind.
Run this file alone: `python -m pytest tests/test_answers.py` (about 30 seconds).
"""

import gc
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_course import answers, catalog, sandbox, sources
from qwen_course.answers import Verdict, extract_code, run_python, same_number
from qwen_course.errors import CourseError

NEVER = "assert 1 == 2"  # a test that an honest answer cannot pass
BARE = [["namespaces", "landlock"], ["landlock"], ["namespaces"]]
linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux protections")


def processes_of(folder):
    """Return the ids of all processes whose home is below this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"HOME={folder}/".encode() in entry.read_bytes():
                found.append(entry.parent.name)
        except OSError:
            pass
    return found


@pytest.fixture(autouse=True)
def leaves_nothing(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("sandbox")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert processes_of(folder) == []
    assert list(folder.iterdir()) == []


@pytest.fixture(params=BARE, ids="+".join)
def protections(request, monkeypatch):
    monkeypatch.setattr(sandbox, "USE", request.param)
    return request.param


def judge(code, tests=NEVER, seconds=20, **limits):
    """Return the verdict, after making sure that it came within the limit."""
    started = time.monotonic()
    verdict = run_python(textwrap.dedent(code), tests, seconds=seconds, **limits)
    assert time.monotonic() - started < seconds + 10
    assert "\n" not in repr(verdict)
    return verdict


def fences(what):
    """Return whether this machine restricts it at all; if not, the verdict says so."""
    state = answers.isolation()[what]
    said = "weaker isolation here" in judge("x = 1", "assert x == 1").reason
    assert said or not state.startswith("not fully"), state
    return state != "not fully: open"


# ------------------------------------------------------------------ honest answers
MEDIAN = """
def median(values):
    ordered = sorted(values)
    half = len(ordered) // 2
    if not ordered:
        return None
    return ordered[half] if len(ordered) % 2 else sum(ordered[half - 1:half + 1]) / 2
"""
MEDIAN_TESTS = """
assert median([3, 1, 2]) == 2
assert median([4, 1, 2, 3]) == 2.5
assert median([]) is None
"""


def test_right_code_passes(protections):
    verdict = judge(MEDIAN, MEDIAN_TESTS)
    assert verdict.passed
    assert verdict.reason.startswith("passed 3 tests")


def test_failed_test_is_shown_with_the_value():
    verdict = judge(MEDIAN.replace("None", "0"), MEDIAN_TESTS)
    assert not verdict.passed
    assert verdict.reason == "failed test 3: assert median([]) is None, got 0"


def test_exception_names_test_and_line():
    verdict = judge("def f(x):\n    return 1 / x", "assert f(1) == 1\nassert f(0) == 0")
    assert verdict.reason == (
        "test 2: assert f(0) == 0 raised ZeroDivisionError: division by zero "
        "(line 2 of the code)"
    )


def test_assert_inside_the_code_is_not_taken_for_a_test():
    verdict = judge("def f():\n    assert False, 'mine'", "assert f()")
    assert "raised AssertionError: mine (line 2 of the code)" in verdict.reason


def test_syntax_error_names_the_line():
    verdict = judge("x = 1\ndef f(:\n    pass", "assert f")
    assert verdict.reason.startswith("line 2 of the code is not Python: ")


def test_missing_package_gets_a_hint():
    verdict = judge("import numpy", "assert True")
    assert "ModuleNotFoundError" in verdict.reason
    assert "standard library" in verdict.reason


def test_output_is_kept_and_bounded():
    verdict = judge("for i in range(5000): print('héllo')", "assert True")
    assert verdict.passed
    assert verdict.output.startswith("héllo\n")
    assert len(verdict.output) <= 10_000


def test_own_folder_and_standard_library_work(protections):
    code = """
    import tempfile, dataclasses, pathlib, math, decimal, sqlite3, subprocess, sys
    pathlib.Path("note.txt").write_text("kept")
    temporary = tempfile.mkstemp()

    @dataclasses.dataclass
    class Point:
        x: "int"
    """
    tests = 'assert open("note.txt").read() == "kept"\nassert Point(2).x == 2'
    assert judge(code, tests).passed


def test_example_of_use_under_main_does_not_run():
    code = 'def f(): return 1\nif __name__ == "__main__":\n    print(input())'
    assert judge(code, "assert f() == 1").passed


# ------------------------------------------------------------------ time and memory
@pytest.mark.slow
def test_endless_loop():
    assert judge("while True: pass", seconds=1).reason == "ran longer than 1 s"


@pytest.mark.slow
def test_endless_loop_in_a_test_that_swallows_exceptions():
    code = """
    import signal
    for number in range(1, 64):
        try: signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError): pass
    def f():
        while True:
            try:
                while True: pass
            except BaseException: pass
    """
    assert judge(code, "assert f()", seconds=1).reason == "ran longer than 1 s"


@pytest.mark.slow
def test_sleep_counts_as_time():
    code = "import time; time.sleep(60)"
    assert judge(code, seconds=1).reason == "ran longer than 1 s"


def test_endless_output():
    verdict = judge("while True: print('x' * 1000)")
    assert verdict.reason == "printed or wrote more than 1 MB"
    assert len(verdict.output) <= 10_000


@pytest.mark.slow
def test_endless_output_from_a_child_program():
    code = (
        "import os; os.execv('/bin/sh', ['sh', '-c', 'while :; do echo xxxxx; done'])"
    )
    assert not judge(code, seconds=1).passed


def test_four_gigabytes():
    verdict = judge("block = bytearray(4 << 30)", memory_mb=256)
    assert verdict.reason == "asked for more memory than 256 MB"


@pytest.mark.slow
def test_memory_in_small_pieces():
    verdict = judge("x = []\nwhile True: x.append([1] * 10)", memory_mb=128)
    assert verdict.reason == "asked for more memory than 128 MB"


@linux
def test_memory_in_many_children():
    code = """
    import os, time
    for _ in range(8):
        if os.fork() == 0:
            block = bytearray(100 << 20)
            time.sleep(60)
    time.sleep(60)
    """
    verdict = judge(code, memory_mb=200)
    assert verdict.reason == "asked for more memory than 200 MB in its processes"


def test_large_file():
    verdict = judge("open('big', 'wb').write(bytes(50 << 20))")
    assert verdict.reason == "printed or wrote more than 1 MB"


def test_deep_recursion():
    assert "RecursionError" in judge("def f(n): return f(n + 1)\nf(0)").reason


def test_crash_of_the_interpreter():
    verdict = judge("import ctypes; ctypes.string_at(0)")
    assert "stopped itself before all tests had run" in verdict.reason


def test_deeply_nested_source():
    assert not judge("x = " + "(" * 100_000).passed
    assert not judge("x = " + "-" * 100_000 + "1").passed


# ------------------------------------------------------------------ processes
def test_children_that_sleep_are_gone(protections):
    code = """
    import os, time
    for _ in range(16):
        if os.fork() == 0:
            time.sleep(60)
    """
    assert judge(code, "assert True").passed


def test_daemons_are_found_and_killed(protections):
    code = """
    import os, signal, time
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.closerange(0, 100)
            time.sleep(60)
        os._exit(0)
    time.sleep(0.2)
    """
    assert judge(code, "assert True").passed


@linux
def test_at_most_64_forks_that_fork(protections):
    code = """
    import os, time
    for _ in range(6):
        os.fork()
    time.sleep(60)
    """
    assert judge(code).reason.startswith("started more than 32 processes")


def test_threads_that_never_end():
    code = """
    import threading, time
    for _ in range(64):
        threading.Thread(target=time.sleep, args=(60,)).start()
    """
    verdict = judge(code, "assert True", memory_mb=2048)
    assert verdict.passed
    assert not judge(code, "assert True", memory_mb=128).passed


def test_forked_copy_cannot_vote():
    code = "import os, time\nchild = os.fork() == 0\ntime.sleep(0 if child else 0.3)"
    assert judge(code, "assert child").reason.startswith("failed test 1")


def test_other_processes_cannot_be_signalled(protections):
    code = f"""
    import os
    for pid in (os.getppid(), {os.getppid()}, {os.getpid()}):
        try:
            os.kill(pid, 0)  # asks for the right only
            print("reached", pid)
        except OSError as error:
            print(error)
    """
    verdict = judge(code, "assert True")
    assert verdict.passed
    if fences("signals"):
        assert f"reached {os.getpid()}" not in verdict.output


# ----------------------------------------------------------- files, network, secrets
@linux
@pytest.mark.parametrize("act", [
    "open(path, 'w').write('changed')",
    "open(path, 'a').write('changed')",
    "os.remove(path)",
    "os.truncate(path, 0)",
    "os.rename(path, path + '2')",
    "os.mkdir(path + 'folder')",
    "os.symlink('/', path + 'link')",
])  # fmt: skip
def test_writing_outside_the_folder(tmp_path, protections, act):
    file = tmp_path / "diary.txt"
    file.write_text("before")
    verdict = judge(f"import os\npath = {str(file)!r}\n{act}")
    if fences("writing"):
        assert "Permission" in verdict.reason or "Read-only" in verdict.reason
        assert file.read_text() == "before"
        assert list(tmp_path.iterdir()) == [file]


@linux
def test_changing_rights_outside_the_folder(tmp_path):
    file = tmp_path / "diary.txt"
    file.write_text("before")
    mode = file.stat().st_mode
    verdict = judge(f"import os\nos.chmod({str(file)!r}, 0)")
    if fences("writing") and answers.isolation()["writing"] == "namespace":
        assert "Read-only" in verdict.reason
        assert file.stat().st_mode == mode


@linux
@pytest.mark.parametrize("use", [["namespaces", "landlock"], ["namespaces"]])
def test_mounts_cannot_be_made_writable_again(tmp_path, monkeypatch, use):
    monkeypatch.setattr(sandbox, "USE", use)
    code = f"""
    import ctypes
    libc = ctypes.CDLL(None)
    for _ in range(2):
        change = (ctypes.c_uint64 * 4)(0, 1, 0, 0)
        libc.syscall(442, -100, b"/", 0x8000, change, 32)
        libc.mount(None, b"/", None, 4128, None)
        libc.unshare(0x10020000)
    open({str(tmp_path / "new")!r}, "w")
    """
    verdict = judge(code, "assert True")
    if fences("writing"):
        assert not verdict.passed
        assert list(tmp_path.iterdir()) == []


@linux
def test_reading_private_files(tmp_path):
    file = tmp_path / "token"
    file.write_text("hf_secret")
    verdict = judge(f"print(open({str(file)!r}).read())")
    if fences("reading"):
        assert "PermissionError" in verdict.reason
        assert "hf_secret" not in verdict.output


def test_secrets_of_the_environment(protections, monkeypatch):
    monkeypatch.setenv("API_KEY", "not-for-models")
    code = f"""
    import os
    print(dict(os.environ))
    for who in ("self", "1", os.getppid(), {os.getpid()}):
        for name in ("environ", "cmdline"):
            try: print(open(f"/proc/{{who}}/{{name}}").read())
            except OSError as error: print(error)
    """
    verdict = judge(code, "assert True")
    assert verdict.passed
    assert "not-for-models" not in verdict.output
    own = Path(f"/proc/{os.getpid()}/environ")  # as it was when pytest was started
    for entry in own.read_text().split("\0") if fences("signals") else []:
        if entry.partition("=")[0] not in ("PATH", "HOME", "TMPDIR", "LC_CTYPE", ""):
            assert entry not in verdict.output


@linux
def test_network(protections):
    listener = socket.create_server(("127.0.0.1", 0))
    with listener:
        code = f"""
        import socket
        socket.create_connection(("127.0.0.1", {listener.getsockname()[1]}), timeout=2)
        """
        verdict = judge(code, "assert True")
    if fences("network"):
        assert "the code raised" in verdict.reason


# ------------------------------------------------------------------ faking success
@pytest.mark.parametrize("leave", [
    "import os; os._exit(0)",
    "import os, signal; os.kill(os.getpid(), signal.SIGSEGV); os._exit(0)",
    "import os; os.execv('/bin/true', ['true'])",
])  # fmt: skip
def test_leaving_before_the_tests(leave):
    verdict = judge(leave, "assert True")
    assert not verdict.passed
    assert "stopped itself before all tests had run" in verdict.reason


@pytest.mark.parametrize("code", [
    "import sys; sys.exit(0)", "raise SystemExit", "raise KeyboardInterrupt",
    "raise GeneratorExit",
])  # fmt: skip
def test_polite_exit_is_no_pass(code):
    assert not judge(code, "assert True").passed


def test_leaving_in_the_middle_of_the_tests():
    code = "import os\ndef f(x): return 1 if x == 1 else os._exit(0)"
    verdict = judge(code, "assert f(1) == 1\nassert f(2) == 2")
    assert "stopped itself before all tests had run (exit code 0)" in verdict.reason


def test_exit_at_the_end_of_the_interpreter():
    code = "import atexit, os; atexit.register(os._exit, 0)"
    assert not judge(code).passed


def test_printing_success_to_every_descriptor():
    code = """
    import json, os
    for line in (b"+passed 1 test", json.dumps({"passed": True}).encode()):
        for descriptor in range(1, 100):
            try: os.write(descriptor, line)
            except OSError: pass
    os._exit(0)
    """
    assert not judge(code).passed


@pytest.mark.slow
def test_flooding_the_result():
    code = "import os\nwhile True: os.write(3, b'+' * 4096)"
    assert not judge(code, "assert True", seconds=1).passed


def test_closed_descriptors():
    verdict = judge("import os; os.closerange(0, 1000)", "assert True")
    assert not verdict.passed


def test_replaced_builtins():
    code = """
    import builtins, os, sys, ast, json
    def f(x): return "wrong"
    for name in ("exec", "compile", "BaseException", "AssertionError", "MemoryError",
                 "isinstance", "len", "abs", "sorted", "all", "any", "str"):
        setattr(builtins, name, lambda *a, **k: True)
    os.write = os._exit = sys.exit = json.dumps = lambda *a: None
    """
    assert not judge(code, "assert all([f(1) == 2])").passed
    assert not judge(code, "assert f(1) == 2").passed


def test_exception_that_attacks_its_reader():
    code = """
    class Bad(Exception):
        def __str__(self): raise Bad()
    def f(): raise Bad()
    """
    assert judge(code, "assert f()").reason == "raised an error that cannot be shown"


def test_value_that_attacks_its_reader():
    code = """
    class Bad:
        def __repr__(self): import os; os._exit(0)
    """
    assert not judge(code, "assert Bad() == 1").passed


def test_very_long_message():
    assert len(judge("raise ValueError('x' * 10**7)").reason) < 1000


def test_deleted_files(tmp_path):
    file = tmp_path / "diary.txt"
    file.write_text("before")
    code = f"""
    import os, shutil
    for path in (os.getcwd(), {str(tmp_path)!r}):
        shutil.rmtree(path, ignore_errors=True)
    """
    assert judge(code, "assert True").passed
    if fences("writing"):
        assert file.read_text() == "before"


@pytest.mark.slow
def test_files_that_are_hard_to_delete(protections):
    code = """
    import os
    os.mkdir("locked"); open("locked/file", "w").close(); os.chmod("locked", 0)
    for _ in range(1500):
        os.mkdir("d"); os.chdir("d")
    """
    assert judge(code, "assert True").passed


def test_reading_input_ends_at_once():
    assert "EOFError" in judge("input()").reason


# ------------------------------------------------------------------ the caller
@pytest.mark.slow
def test_fifty_runs_leak_no_descriptors():
    judge("", "assert True")
    gc.collect()  # what other tests have left open
    before = len(os.listdir("/dev/fd"))
    for _ in range(50):
        assert judge("x = 1", "assert x == 1").passed
    assert len(os.listdir("/dev/fd")) == before


def test_runs_from_several_threads():
    def one(number):
        return judge(f"x = {number}", f"assert x == {number}").passed

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(one, range(12)))
    assert threading.active_count() < 20


@pytest.mark.slow
def test_interrupt_in_the_notebook_leaves_nothing():
    code = "import os, time\nif os.fork() == 0: os.setsid()\ntime.sleep(60)"
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run_python(code, NEVER)
    time.sleep(0.3)


@pytest.mark.parametrize("code", ["", "  \n", None, 7])
def test_no_code(code):
    assert run_python(code, NEVER) == Verdict(False, "the answer holds no code")


@pytest.mark.parametrize("code", ["\0", "x = '\ud800'", "\x0c", "é = 1", "\ufeffx = 1"])
def test_strange_characters(code):
    assert isinstance(judge(code), Verdict)
    assert not judge(code).passed


@pytest.mark.parametrize("limits", [
    {"seconds": 0}, {"seconds": float("nan")}, {"seconds": "5"}, {"seconds": None},
    {"memory_mb": 1}, {"memory_mb": float("inf")}, {"memory_mb": -5},
])  # fmt: skip
def test_bad_limits(limits):
    with pytest.raises(CourseError, match="must be a number from"):
        run_python("x = 1", "assert x", **limits)


@pytest.mark.parametrize(
    "tests", ["assert", "", "print(1)", None, b"assert 1", "return 1", "\0"]
)
def test_bad_tests(tests):
    with pytest.raises(CourseError, match="tests"):
        run_python("x = 1", tests)


def test_weaker_isolation_is_said(monkeypatch):
    monkeypatch.setattr(sandbox, "USE", [])
    verdict = judge("x = 1", "assert x == 1")
    assert verdict.passed
    assert "weaker isolation here: writing, reading, network" in verdict.reason
    assert answers.isolation()["writing"] == "not fully: open"


@linux
def test_namespaces_are_used_where_the_system_grants_them():
    command = ["unshare", "--user", "--net", "--pid", "--mount", "--fork", "true"]
    granted = shutil.which("unshare") and subprocess.run(command).returncode == 0
    assert (answers.isolation()["network"] == "namespace") == bool(granted)


# ------------------------------------------------------------------ code in answers
@pytest.mark.parametrize(("text", "code"), [
    ("Sure:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
    ("```py\nx = 1\n```", "x = 1\n"),
    ("```Python3\nx = 1\n```", "x = 1\n"),
    ("```{python}\nx = 1\n```", "x = 1\n"),
    ("```\nx = 1\n```", "x = 1\n"),
    ("~~~python\nx = 1\n~~~", "x = 1\n"),
    ("````python\nx = '''\n```\n'''\n````", "x = '''\n```\n'''\n"),
    ("```python\r\nx = 1\r\n```\r\n", "x = 1\n"),
    ("1. do\n   ```python\n   if x:\n       y = 1\n   ```", "if x:\n    y = 1\n"),
    ("```python\nx = 1", "x = 1"),
    ("```bash\npip install x\n```\n```python\nx = 1\n```", "x = 1\n"),
    ("```bash\nls\n```", ""),
    ("```python\nx = 1\n```\n```\n[1, 2]\n```", "x = 1\n"),
    ("```python\ndef f(): pass\n```\nUse:\n```python\nf()\n```", "def f(): pass\n"),
    ("```python\nx = 1\n```\n```python\nx = 2\n```", "x = 2\n"),
    ("```python\ndef f(): pass\n```\n```python\ndef f(", "def f(): pass\n"),
    ("```python\ndef f(:\n```", "def f(:\n"),
    ("def f():\n    return 1", "def f():\n    return 1"),
    ("def f(:\n", "def f(:\n"),
    ("I cannot help with that.", ""),
    ("", ""),
    (None, ""),
])  # fmt: skip
def test_extract_code(text, code):
    assert extract_code(text) == code


def test_later_definition_wins():
    text = "```python\ndef f(): return 1\n```\n```python\ndef f(): return 2\n```"
    assert judge(extract_code(text), "assert f() == 2").passed


def test_fence_inside_a_docstring():
    code = 'def f():\n    """Use:\n\n    ```\n    f()\n    ```\n    """\n    return 1\n'
    assert extract_code(f"```python\n{code}```") == code


@given(st.text(alphabet="`~ \n\tpython=x1\\\"'(:", max_size=200))
def test_extract_code_never_raises(text):
    assert isinstance(extract_code(text), str)


# ------------------------------------------------------------------ numbers
@pytest.mark.parametrize(("text", "expected"), [
    ("The answer is 42.", 42),
    ("2 + 3 = 5", 5),
    (r"so \boxed{7}, as seen in step 3", 7),
    (r"\boxed{1} or rather \boxed{2}", 2),
    (r"\boxed{\frac{3}{4}}", 0.75),
    (r"\boxed{-\dfrac{3}{4}}", -0.75),
    (r"\boxed{12\text{ cm}}", 12),
    (r"$\boxed{1{,}234}$", 1234),
    ("$1,234,567.50", 1234567.5),
    ("[1,2,3]", 3),
    ("(1,234,56)", 56),
    ("She earns 1,234, so yes.", 1234),
    ("1,000, as asked", 1000),
    ("5\u00b710^3", 5000),
    ("2^0.5", 0.5),
    ("It costs -5", -5),
    ("It costs \u22125 euros", -5),
    ("10-3", 3),
    ("3/4", 0.75),
    ("a share of 25%", 25),
    ("a share of 25 %", 0.25),
    (r"25\%", 0.25),
    ("6.02e23", 6.02e23),
    ("1.5E-3", 0.0015),
    (r"3 \times 10^{5}", 3e5),
    ("3×10^-2", 0.03),
    ("2 * 10**3", 2000),
    (".5", 0.5),
    ("about 3.0000001", 3),
    ("1/3", "1/3"),
    ("7 kg", 7.0),
    ("**18**", 18),
    ("the answer is 12 (Qwen2.5)", 12),
    ("5 × 10³", 5000),
    ("10⁶", 10**6),
    ("2 × 10⁻³", 0.002),
    (r"x = - \frac{2}{3}", "-2/3"),
    (r"\boxed{- 5}", -5),
    ("5 - 3", 3),
    ("an area of 72 cm$^2$", 72),
    ("9.8 m s^-2", 9.8),
])  # fmt: skip
def test_same_number(text, expected):
    verdict = same_number(text, expected)
    assert verdict.passed, verdict
    assert not same_number(text, 987654.25).passed


def test_wrong_number_shows_both():
    verdict = same_number("It is 41.", 42)
    assert verdict == Verdict(False, "got 41, expected 42")


def test_large_integers_must_match_exactly():
    assert not same_number("1000001", 1000000).passed


@pytest.mark.parametrize("text", [
    "", "none", "nan", "inf", "-Infinity", "1/0", "0/0", "9" * 100_000, "1e999999999",
    "1e-999999999/0", None, "A2", "1/" * 10_000, " " * 100_000, r"\boxed{" * 10_000,
    "1" + "e9" * 10_000, "10^" * 10_000, "1,000" * 20_000, r"\frac{1}" * 10_000,
])  # fmt: skip
def test_numbers_that_are_none(text):
    started = time.thread_time()
    assert not same_number(text, 42).passed
    assert time.thread_time() - started < 1


@pytest.mark.parametrize(("expected", "tolerance"), [
    (float("nan"), 0), (float("inf"), 0), ("x", 0), (None, 0), (1, -1), (1, "x"),
    (1, float("nan")),
])  # fmt: skip
def test_bad_expected_number(expected, tolerance):
    with pytest.raises(CourseError, match="Not a finite number"):
        same_number("1", expected, tolerance)


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_every_float_is_found_again(value):
    assert same_number(f"The result is {value!r}.", value).passed


@given(st.integers(-(10**12), 10**12))
def test_thousands_separators(value):
    assert same_number(f"= {value:,}", value).passed


@given(st.text(max_size=100))
def test_same_number_never_raises(text):
    assert isinstance(same_number(text, 1), Verdict)


# ------------------------------------------------------------------ found by attack
@pytest.mark.parametrize("tests", [
    "def test_f():\n    assert f(1) == 1",
    "import math\nclass T:\n    def test(self):\n        assert f(1) == 1",
])  # fmt: skip
def test_tests_that_run_nothing_are_refused(tests):
    with pytest.raises(CourseError, match="call the functions"):
        run_python("def f(x): return 0", tests)


def test_globals_that_a_call_sets_are_seen():
    code = "count = 0\ndef inc():\n    global count\n    count += 1"
    assert judge(code, "inc()\ninc()\nassert count == 2").passed


@pytest.mark.parametrize(("tests", "told"), [
    ("assert 4 == f()", "got 3"),
    ("assert (\n    f()\n    == 5\n)", "assert f() == 5, got 3"),
])  # fmt: skip
def test_a_failed_test_is_told_whole(tests, told):
    assert told in judge("def f(): return 3", tests).reason


@pytest.mark.parametrize(("text", "number"), [
    (r"\boxed{2\frac{1}{2}}", 2.5), ("1 1/2", 1.5), ("-$5", -5), ("\u20135", -5),
    ("12 cm^2", 12), (r"\boxed{12 \text{ cm}^2}", 12), ("3 m/s^2", 3),
    ("10^5", 100_000), (r"\boxed{10^{5}}", 100_000), (r"\cfrac{1}{2}", 0.5),
    ("10^-3", 0.001),
])  # fmt: skip
def test_numbers_as_people_write_them(text, number):
    assert same_number(text, number).passed, same_number(text, number)


def test_percent_against_percent():
    assert same_number("25%", "25%").passed
    assert not same_number("25%", "0.25%").passed
    assert not same_number("2500%", "25%").passed


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(9, 10, 0.596, 0.982), (0, 10, 0.0, 0.278), (200, 200, 0.981, 1.0)],
)
def test_interval(correct, n, low, high):
    assert answers.interval(correct, n) == pytest.approx((low, high), abs=6e-4)


def test_an_interval_holds_its_share():
    for n in range(1, 300):
        for right in (0, 1, n - 1, n):
            low, high = answers.interval(right, n)
            assert 0 <= low <= right / n <= high <= 1


@pytest.mark.parametrize(("right", "n"), [(1, 0), (3, 2), (-1, 5)])
def test_no_interval_of_what_is_no_share(right, n):
    with pytest.raises(CourseError, match="A share is"):
        answers.interval(right, n)


@pytest.mark.parametrize(("n", "right", "k"), [(5, 2, 1), (5, 2, 3), (6, 3, 2)])
def test_pass_at_k_counts_all_ways_to_pick(n, right, k):
    samples = [True] * right + [False] * (n - right)
    picks = list(itertools.combinations(samples, k))
    share = sum(map(any, picks)) / len(picks)
    assert answers.pass_at_k(n, right, k) == pytest.approx(share)


@pytest.mark.parametrize("bad", [(5, 6, 1), (5, 2, 6), (5, -1, 1), (5, 2, 0)])
def test_pass_at_k_refuses_impossible_numbers(bad):
    with pytest.raises(CourseError, match="between"):
        answers.pass_at_k(*bad)


def test_definitions_drop_examples_and_a_cut_end():
    code = (
        "import math\nONE = 1\nstarted = print(1)\n\ndef f(x):\n    return x + ONE\n"
        "\nassert f(1) == 3\nprint(f(2))\nwords = ['a',"
    )
    kept = sources.definitions(code)
    assert "def f" in kept
    assert "import math" in kept
    assert "ONE = 1" in kept
    assert not {"assert", "print", "words", "started"} & {*re.findall(r"\w+", kept)}
    assert sources.definitions("this is no code") == "this is no code"


def test_functions_are_judged_without_the_model_s_own_examples():
    reply = "```python\ndef f(x):\n    return x + 1\n\nassert f(1) == 3\n```"
    assert answers.solves("functions", reply, "assert f(1) == 2").passed
    assert not answers.solves("functions", reply, "assert f(1) == 3").passed


def test_languages():
    sentences = json.loads(catalog.text("samples/languages.json"))["sentence"]
    for code, sentence in sentences.items():
        assert answers.language(sentence).code == code
        for other in sentences:
            assert answers.speaks(sentence, other).passed == (other == code)
    mixed = answers.speaks("Καλημέρα, 可再生能源 δίνει ενέργεια σε όλους.", "el")
    assert not mixed.passed
    assert "Han" in mixed.reason
    assert not answers.speaks("12 + 3", "en").passed
    assert answers.speaks("Ναι", "el") == answers.Verdict(
        True, "the script fits; too short"
    )
    with pytest.raises(CourseError, match="Unknown language"):
        answers.speaks("tak", "pl")


def test_digits_of_other_scripts_are_numbers():
    assert answers.solves("languages", "الجواب هو ٧", "7").passed
    assert answers.solves("languages", "उत्तर: १२", "12").passed
    assert answers.solves("languages", "一周有7天。", "7").passed
    assert answers.solves("languages", "蜘蛛有八条腿。", "8").passed
    assert not answers.solves("languages", "蜘蛛有四条腿。", "8").passed


@pytest.mark.parametrize("constant", [
    "N: int = 2", "N = int('2')", "N = len({1, 2})", "import math\nN = math.gcd(2, 4)",
    "N = sum([i + 1 for i in range(2)]) - 1", "M = 2\nN = max([M])",
    "N = {c: n for n, c in enumerate('abc')}['c']",
    "N = max(1, 2)", "(N, M) = (2, 1)", "N = 'a b'.split().__len__()",
    "from collections import Counter\nN = Counter('aab')['a']",
    "from decimal import Decimal\nN = int(Decimal('2'))",
    "import collections as c\nP = c.namedtuple('P', 'n')\nN = P._make([2]).n",
    "from functools import partial\nlow = partial(min, 2)\nN = low(3)",
    "try:\n    from no_such import n as N\nexcept ImportError:\n    N = 2",
])  # fmt: skip
def test_definitions_keep_the_constants_that_functions_need(constant):
    code = f"{constant}\n\ndef f(x):\n    return x ** N\n\nprint(f(3))\nf(4)"
    kept = sources.definitions(code)
    assert "print" not in kept
    assert judge(kept, "assert f(3) == 9").passed


def test_definitions_call_nothing_of_the_answer_itself():
    code = """
        import sys
        from sys import argv
        def f(x): raise SystemExit
        g = lambda x: max(x, 0)
        first = f(3)
        each = [f(i) for i in range(3)]
        every = [*map(f, range(3))]
        second: int = f(4)
        text = open("/etc/passwd").read()
        data = sys.stdin.read().split()
        n = int(data[0])
        m = int(argv[1])
        a = input()
        rest = len(data)
        alike = [*map(int, rest)]
        from sys import stdin
        lines = list(stdin)
    """
    kept = sources.definitions(textwrap.dedent(code))
    assert kept == sources.definitions(kept)
    assert [line for line in kept.splitlines() if "=" in line] == [
        "g = lambda x: max(x, 0)"
    ]


WRONG = "def f(x):\n    return 0\n"
TESTS = "def test_f():\n    assert f(1) == 1\n"


def test_tests_run_as_a_program_s():
    verdict = judge(WRONG, TESTS + "if __name__ == '__main__':\n    test_f()")
    assert not verdict.passed
    assert verdict.reason.startswith("failed test 1")
    both = judge(f"{WRONG}if __name__ == '__main__':\n    f(1) / 0", "assert f(1) == 0")
    assert both.passed  # the answer itself is imported


@pytest.mark.parametrize("tests", [
    '"""Tests."""\n' + TESTS, "limit: int = 3\n" + TESTS, TESTS + "...",
    "async def test_f():\n    assert f(1) == 1", TESTS + "pass",
])  # fmt: skip
def test_tests_of_which_none_runs_are_refused(tests):
    with pytest.raises(CourseError, match="assert nothing that is run"):
        run_python(WRONG, tests)


@pytest.mark.parametrize("text", [
    "コンピューターのデータをサーバーにコピーしてください。", "人々は時々旅をします。",
    "コーヒー", "ﾃﾞｰﾀを保存する", "ＡＩの計算は時々とても長い時間が掛かります。"
    "ですから終わるまでここで静かに待っていてくださいとお願いしました。",
])  # fmt: skip
def test_marks_and_widths_of_japanese_are_no_foreign_script(text):
    told = answers.speaks(text, "ja")
    assert told.passed, told


def test_repeat_mark_in_chinese():
    assert answers.speaks("我們在這裡等你，人々都在等著你回來吃飯吧朋友。", "zh").passed


@pytest.mark.parametrize(("text", "number"), [
    ("2½ cups", 2.5), ("½", 0.5), ("-¾ of it", -0.75), ("about 3 ⅛", 3.125),
])  # fmt: skip
def test_fractions_that_are_one_sign(text, number):
    assert same_number(text, number).passed
    assert not same_number(text, int(number)).passed


def test_of_two_tests_on_a_line_the_one_that_failed_is_named():
    code, one, two = "def f(x): return x + 1", "assert f(1) == 9", "assert f(2) == 3"
    assert (
        "failed test 1: assert f(1) == 9, got 2" in judge(code, f"{one}; {two}").reason
    )
    assert (
        "failed test 2: assert f(1) == 9, got 2" in judge(code, f"{two}; {one}").reason
    )
    inside = f"def t():\n    {one}\n{two}; t()"
    assert "assert f(1) == 9" in judge(code, inside).reason


@pytest.mark.parametrize("how", [
    "if True:\n    {}", "n = 1\nwhile n:\n    n -= 1\n    {}",
    "match 1:\n    case 1:\n        {}", "try:\n    {}\nexcept* ValueError:\n    pass",
])  # fmt: skip
def test_tests_in_a_branch_are_counted(how):
    test = how.format("assert f(1) == 2")
    assert judge("def f(x): return x + 1", test).reason == "passed 1 test"
