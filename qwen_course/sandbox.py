"""Runs Python code fenced in: a report, whatever the code does. Standard library only.

`run` starts this file as a program, the supervisor, which forks the child that runs the
code. Covered: time, memory, size of output and files, number of processes; on Linux
also writing outside the sandbox's own folder, reading other files than Python's,
network, signals, the caller's environment; and daemons: all are found and killed.
Leaving early or printing "passed" is no pass: a secret is written after the last test,
and tests see the builtins as they were before the code, but for names that it defines.
Not covered: code and tests share one process, so code that searches the interpreter for
the secret, or returns objects that equal everything, can pass; sockets that a service
keeps as a file; holes in the kernel. Where the system lacks namespaces or Landlock
(macOS, some containers), the reason names what is not fully restricted. Verdict: safe
against a model's mistakes and clumsy tricks, not against an attacker.
"""

import ast
import builtins
import contextlib
import ctypes
import functools
import json
import os
import signal
import struct
import sys
import time
import traceback
import types
from collections.abc import Callable
from typing import Any

PROCESSES = 32  # of the fenced code
USE = ["namespaces", "landlock"]  # the tests take one away to see the fallback
TESTS = ast.Assert | ast.Expr | ast.For | ast.Try | ast.With  # statements that count
TESTS |= ast.If | ast.While | ast.Match | ast.TryStar


def run(code: str, tests: str, seconds: float, memory_mb: int) -> dict[str, Any]:
    """Return a report: passed, reason, output, seconds, and what was restricted how."""
    import subprocess  # the supervisor needs neither
    import tempfile

    job = {"code": code, "tests": tests, "seconds": seconds, "memory_mb": memory_mb}
    report = {"passed": False, "output": "", "seconds": 0.0, "active": {}}
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile() as output,
    ):
        job |= {"folder": folder, "secret": os.urandom(16).hex(), "use": USE}
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-u", "-X", "utf8", __file__],
                input=json.dumps(job).encode(),
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=folder,
                env={"PATH": os.defpath, "HOME": folder, "TMPDIR": folder},
                start_new_session=True,
                timeout=seconds + 60,
            )
            report |= json.loads(done.stdout)
        except (subprocess.TimeoutExpired, ValueError):
            report["reason"] = "the sandbox itself was stopped"
        output.seek(0)
        return report | {"output": output.read(10_000).decode(errors="replace")}


def fenced(
    work: Callable[[int], None], seconds: float, processes: int, megabytes: float = 0
) -> tuple[bytes, str, str]:
    """Let a child process do `work(pipe)`, and kill all that it started.

    Return what it wrote into the pipe (64 kB at most), why it was stopped, and if it
    ended by itself ("" is the reason then), how.
    """
    receive, send = os.pipe()
    prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans become children of this process
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: end with this process
            os.close(receive)
            work(send)
        finally:
            os._exit(0)
    os.close(send)
    try:
        reason, status = watch(child, seconds, processes, megabytes)
    finally:
        sweep(child)
    code = os.waitstatus_to_exitcode(status)
    end = f"exit code {code}" if code >= 0 else str(signal.strsignal(-code))
    return os.read(receive, 1 << 16), reason, end


def prctl(option: int, value: int) -> None:
    """Set a property of this process (Linux; the numbers are those of prctl.h)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def watch(
    child: int, seconds: float, processes: int, megabytes: float
) -> tuple[str, int]:
    """Return why a child must be stopped, "" if it ended by itself, and its status.

    Of a machine that stood still 0.1 s are counted: the child did not run, either.
    """
    looked, last, spent = time.monotonic(), time.monotonic(), 0.0
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        now = time.monotonic()
        last, spent = now, spent + min(now - last, 0.1)
        if ended:
            return "", status
        if spent > seconds:
            return f"ran longer than {seconds:g} s", 0
        if now - looked > 0.1:
            looked, (found, used) = now, family()
            if len(found) > processes:
                return f"started more than {processes} processes", 0
            if megabytes and used > megabytes + 16 * len(found):  # forks share 16 MB
                return f"asked for more memory than {megabytes} MB in its processes", 0
        time.sleep(0.003)


def family() -> tuple[list[int], float]:
    """Return the processes below this one (Linux), and their memory in MB."""
    stats: dict[int, list[bytes]] = {}
    for name in os.listdir("/proc") if sys.platform == "linux" else []:
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            if name.isdigit():
                stats[int(name)] = file.read().rpartition(b")")[2].split()
    family, last = [], [os.getpid()]
    while last := [pid for pid, fields in stats.items() if int(fields[1]) in last]:
        family += last
    pages = sum(int(stats[pid][21]) for pid in family)
    return family, pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def sweep(child: int) -> None:
    """Kill all below this process, again until the system says that none is left."""
    with contextlib.suppress(ChildProcessError):  # raised when the last one is gone
        while True:
            for pid in [-child, *family()[0]]:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
            time.sleep(0.002)


def _supervise() -> None:
    """Start the fenced child, watch it, leave nothing behind, print the report."""
    job = json.load(sys.stdin)
    active, started = _separate(job), time.monotonic()
    work = functools.partial(_judge, job)
    said, reason, end = fenced(work, job["seconds"], PROCESSES, job["memory_mb"])
    seconds = time.monotonic() - started
    text = said.decode(errors="replace").partition(job["secret"])[2]
    if not reason and not text:
        reason = f"stopped itself before all tests had run ({end})"
    report = {"passed": not reason and text[0] == "+", "reason": reason or text[1:]}
    json.dump(report | {"seconds": seconds, "active": active}, sys.stdout)
    os.chmod(".", 0o700)
    if os.listdir("."):  # locked or very deep folders would stop the caller
        os.system("chmod -R u+rwx . ; find . -delete")


def _separate(job: dict) -> dict[str, str]:
    """Leave the caller's processes, network and mounts; return what is restricted."""
    libc, linux, folder = ctypes.CDLL(None), sys.platform == "linux", job["folder"]
    user, group = (f"{number} {number} 1" for number in (os.getuid(), os.getgid()))
    # new user, process, network, mount and message namespaces: all of them or none
    apart = linux and "namespaces" in job["use"] and libc.unshare(0x78020000) == 0
    fixed = False
    if apart:
        maps = {"uid_map": user, "setgroups": "deny", "gid_map": group}
        for name, text in maps.items():
            with contextlib.suppress(OSError), open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        # every mount read-only and private, then a folder in memory that vanishes
        change = (ctypes.c_uint64 * 4)(1, 0, 1 << 18, 0)
        fixed = libc.syscall(442, -100, b"/", 0x8000, change, 32) == 0
        size = f"size={job['memory_mb']}m,mode=700".encode()
        libc.mount(b"tmpfs", folder.encode(), b"tmpfs", ctypes.c_ulong(6), size)
        os.chdir(folder)
    ask = linux and "landlock" in job["use"]
    job["abi"] = abi = libc.syscall(444, None, ctypes.c_size_t(0), 1) if ask else 0
    no, lock = "not fully: ", "Landlock"
    return {
        "memory": "limit" if linux else no + "the system ignores the limit",
        "writing": "namespace" if fixed else no + (lock if abi > 0 else "open"),
        "reading": lock if abi > 0 else no + "open",
        "network": "namespace" if apart else no + (lock if abi > 3 else "open"),
        "signals": "namespace" if apart else lock if abi > 5 else no + "open",
        "daemons": "namespace" if apart else "/proc" if linux else no + "group only",
    }


def _limit(job: dict) -> None:
    """Put limits on this process and its children that they cannot take back."""
    import resource  # not on Windows

    space, cpu = job["memory_mb"] << 20, int(job["seconds"]) + 2
    for name, value in (("AS", space), ("CPU", cpu), ("FSIZE", 1 << 20), ("CORE", 0)):
        number = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(number)[1] % 2**63  # "no limit" may be -1
        with contextlib.suppress(ValueError, OSError):  # macOS: memory
            resource.setrlimit(number, (min(value, hard), min(value, hard)))
    if sys.platform != "linux":
        return
    libc, abi = ctypes.CDLL(None), job["abi"]
    prctl(38, 1)  # PR_SET_NO_NEW_PRIVS: never gain rights again
    if abi > 0:  # Landlock refuses files, TCP and signals, except by these rules
        every = (1 << (13, 14, 15, 15, 16)[min(abi, 5) - 1]) - 1
        kinds = (ctypes.c_uint64 * 3)(every, 3 * (abi > 3), 3 * (abi > 5))
        rules = libc.syscall(444, kinds, ctypes.c_size_t(24), 0)
        python = (sys.base_prefix, sys.base_exec_prefix, "/usr", "/lib", "/lib64")
        reading = [(path, 13) for path in python if os.path.exists(path)]
        for path, access in [*reading, (os.devnull, 6), (job["folder"], every)]:
            beneath = struct.pack("=Qi", access, os.open(path, os.O_PATH))
            libc.syscall(445, rules, 1, beneath, 0)
        if libc.syscall(446, rules, 0):
            raise OSError("Landlock could not be switched on")
    # the child is the administrator of its namespaces: no longer
    libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)())


def _judge(job: dict, result: int) -> None:
    """Run code and tests in this process; the secret and the verdict are written last.

    The code may replace what it finds in builtins, os or sys, so all that the verdict
    needs is taken into local names before it runs.
    """
    execute, write, leave, whose, me = exec, os.write, os._exit, os.getpid, os.getpid()
    anything, starving, number, place = BaseException, MemoryError, 0, 0
    secret = job["secret"]
    starved = f"{secret}-asked for more memory than {job['memory_mb']} MB".encode()
    module = sys.modules["answer"] = types.ModuleType("answer")
    names, clean, steps, scope = vars(module), dict(vars(builtins)), [], {}
    own = {"__builtins__": clean, "__name__": "__main__"}  # of the tests
    os.dup2(2, 1)
    os.dup2(result, 3, inheritable=False)
    try:
        _limit(job)
        os.closerange(4, 100)
        for node in ast.parse(job["tests"]).body:
            if isinstance(node, ast.Assert) and isinstance(node.test, ast.Compare):
                got, sides = ast.Name("_got", ast.Store()), node.test.comparators
                if isinstance(node.test.left, ast.Constant):  # assert 4 == f(2)
                    sides[0] = ast.NamedExpr(got, sides[0])
                else:  # assert (_got := f(2)) == 4
                    node.test.left = ast.NamedExpr(got, node.test.left)
            tree = ast.fix_missing_locations(ast.Module([node], []))
            steps.append((isinstance(node, TESTS), compile(tree, "<tests>", "exec")))
        execute(compile(job["code"], "<answer>", "exec"), names)
        before, scope = dict(names), names | own
        for is_test, step in steps:
            scope.pop("_got", None)
            execute(step, scope)
            changed = {k: v for k, v in names.items() if before.get(k, clean) is not v}
            before = dict(names)  # below: globals that a call set
            scope |= changed | own
            number, place = number + is_test, place + 1
        reply = f"{secret}+passed {number} test{'s' * (number != 1)}".encode()
    except starving:
        reply = starved  # made before: there may be no room for a new text
    except anything as error:
        try:
            text = _explain(error, number + 1, job, scope, place)
            reply = f"{secret}-{text:.900}".encode(errors="replace")
        except anything:  # the error itself is part of an attack
            reply = f"{secret}-raised an error that cannot be shown".encode()
    if whose() == me:  # a forked copy of this process has no say
        write(3, reply)
    leave(0)


def _explain(
    error: BaseException, number: int, job: dict, scope: dict, place: int
) -> str:
    """Return in plain words what went wrong, with the test and the line."""
    trace = traceback.walk_tb(error.__traceback__)
    lines = {frame.f_code.co_filename: line for frame, line in trace}
    if isinstance(error, SyntaxError) and not {"<answer>", "<tests>"} & set(lines):
        return f"line {error.lineno} of the code is not Python: {error.msg}"
    if isinstance(error, OSError) and error.errno == 27:
        return "printed or wrote more than 1 MB"
    what, at = "the code", lines.get("<tests>")
    if at:
        tree = ast.parse(job["tests"])
        parts = [*ast.walk(tree), *ast.walk(tree.body[place])]  # two may share a line
        nodes = [node for node in parts if isinstance(node, ast.stmt)]
        around = [n for n in nodes if n.lineno <= at <= (n.end_lineno or at)]
        what = f"test {number}: {' '.join(ast.unparse(around[-1]).split())}"
    if at and isinstance(error, AssertionError) and "<answer>" not in lines:
        got = f", got {scope['_got']!r:.200}" if "_got" in scope else ""
        return f"failed {what}{got}"
    where = f" (line {lines['<answer>']} of the code)" if "<answer>" in lines else ""
    if isinstance(error, SystemExit):
        return f"{what} called sys.exit before all tests had run{where}"
    hint = "; it may use the standard library alone" * isinstance(error, ImportError)
    return f"{what} raised {type(error).__name__}: {error!s:.300}{where}{hint}"


if __name__ == "__main__":
    _supervise()
