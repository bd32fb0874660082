"""The command line: python -m qwen_course COMMAND, as `--help` lists them.

It prints; the modules it calls return values. `--json` gives the same for scripts.
"""

import argparse
import functools
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from qwen_course import answers, catalog, models, weights
from qwen_course.errors import CourseError


def _found(
    subject: str, text: object, fine: object = True, cure: str = "", worse: str = "note"
) -> dict[str, str]:
    """Return a line of the doctor; its status is "ok", "note" or "bad"."""
    status, cure = ("ok", "") if fine else (worse, cure)
    return {"subject": subject, "status": status, "text": str(text), "cure": cure}


def _machine() -> Iterator[dict[str, str]]:
    new, cure = sys.version_info >= (3, 11), "conda env create -f environment.yml"
    yield _found("Python", platform.python_version(), new, cure, "bad")
    usable = hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0))
    yield _found("cores", usable or os.cpu_count())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    budgets = json.loads(catalog.text("budgets.json")).values()
    most = max(run["memory_gb"] for runs in budgets for run in runs.values())
    cure = f"close other programs: on official weights a lesson uses up to {most} GB"
    yield _found("memory", f"{memory:.0f} GB", memory >= most + 1, cure)
    places = (weights.cache_dir(), *weights.cache_dir().absolute().parents)
    free = shutil.disk_usage(next(p for p in places if p.exists())).free / 1e9
    cure = "export QWEN_COURSE_CACHE=/folder/on/another/disk"
    yield _found("disk", f"{free:.0f} GB free for weights", free >= 3, cure)
    for name, state in answers.isolation().items():
        yield _found(f"sandbox: {name}", state or "not on this machine", state)
    problem = weights.hub_problem()
    text = f"not reachable ({problem}); the official GGUF has a mirror"
    cure = "unset HF_HUB_OFFLINE" if "HF_HUB_OFFLINE" in problem else ""
    yield _found("Hugging Face Hub", text if problem else "ok", not problem, cure)
    gpu = models.gpu_memory_gb()
    yield _found("GPU", f"{gpu:.0f} GB" if gpu else "none; none is needed")


def _libraries() -> Iterator[dict[str, str]]:
    """Compare what is installed with what is needed and with the tested set."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (Path(__file__).parents[1] / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if "==" in line]
    tested = {canonicalize_name(name): version for name, version in pairs}
    for need in map(Requirement, metadata.requires("qwen-course") or []):
        here, best = "", tested[canonicalize_name(need.name)]
        with suppress(metadata.PackageNotFoundError):
            here = metadata.version(need.name)
        fits = here and need.specifier.contains(here, prereleases=True)
        text, same = here or "not installed", here.split("+")[0] == best
        text += "" if same else f", tested with {best}"
        text += f" ({need.marker})" if need.marker and not here else ""
        cure = "" if fits else f"python -m pip install '{need.name}=={best}'"
        worse = "note" if fits or need.marker else "bad"
        yield _found(need.name, text, same, cure, worse)


def _weights() -> Iterator[dict[str, str]]:
    """Say for each role which weights are here, and whether they are whole."""
    sha256 = functools.cache(weights.sha256)
    for role, choice in models.ROLES.items():
        source, fetch = models.resolve(role), f"python -m qwen_course fetch {role}"
        file, path = weights.GGUF.get(source.name), source.path
        text, fine, cure, worse = str(source), False, fetch, "bad"
        if source.profile == "room":  # nothing of it is here
            fine = True
        elif path is None:
            cure = "git checkout -- data/pocket"  # where every role falls back to
        elif source.profile == "pocket":  # the official model would be better
            worse, fine = "note", "small" not in choice
            if models.profile() not in ("auto", "small"):
                cure = "unset QWEN_COURSE_PROFILE"
        elif file and sha256(path) != file.sha256:
            text += ", SHA-256 WRONG"
            made = weights.cache_dir() / "dequantised" / path.stem  # made from it
            cure = f"rm -rf '{path.resolve()}' '{made}'; {fetch}"
        else:
            text, fine = f"{text}, SHA-256 verified" if file else text, True
        yield _found(f"role {role}", text, fine, cure, worse)


def _lessons() -> Iterator[dict[str, str]]:
    """Say what each lesson uses, and how long it took on the reference machine."""
    timings = json.loads(catalog.text("timings.json"))
    for name, run in sorted(timings.items()):
        uses = f"uses {run['memory_gb']} GB and the profile {run['profile']}"
        text = f"{uses}; took {run['minutes']} min on {run['machine']}"
        yield _found(f"lesson {name}", text)


def _print(options: argparse.Namespace, data: object, *lines: object) -> None:
    print(json.dumps(data, indent=1) if options.json else "\n".join(map(str, lines)))


def doctor(options: argparse.Namespace) -> int:
    """Print what was found on this machine; return 1 when something is bad, else 0."""
    if options.symptom is not None:
        return _symptom(options)
    found: list[dict[str, str]] = []
    for look in (_libraries, _machine, _weights, _lessons):
        try:
            found += look()  # keeps what came before an error
        except Exception as error:  # one broken part must not hide the others
            told, part = f"{type(error).__name__}: {error}", look.__name__.strip("_")
            cure = "git checkout -- data" if look is _lessons else "make install"
            if isinstance(error, CourseError):
                told, cure = error.message, error.hint
            found.append(_found(part, told, False, cure, "bad"))
    lines = []
    for finding in found:
        lines.append("[{status:^4}] {subject}: {text}".format(**finding))
        lines += [f"       -> {finding['cure']}"] if finding["cure"] else []
    _print(options, found, *lines)
    return int(any(finding["status"] == "bad" for finding in found))


def _symptom(options: argparse.Namespace) -> int:
    """Print the symptoms that a description fits, or all; return 1 if none fits."""
    from qwen_course import symptoms

    matches = symptoms.find(options.symptom)
    lines = [] if matches else ["No word of this is known. What is known:", ""]
    for match in matches:
        entry = match.entry
        lines += [entry.symptom, f"  found by: {', '.join(match.because)}"]
        lines += [*(f"  cause: {c}" for c in entry.causes), f"  cure: {entry.cure}"]
        for place in entry.taught:
            lesson, cell = place.split("#")
            section = f", section {entry.clinic}" if "_clinic" in lesson else ""
            lines.append(f"  lesson: notebooks/{lesson}.ipynb{section}, cell {cell}")
        lines += [*(f"  thread: {link}" for link in entry.links), ""]
    if not matches:
        lines += [f"- {s.symptom} (section {s.clinic})" for s in symptoms.entries()]
    _print(options, [asdict(match) for match in matches], *lines)
    return int(not matches)


def list_models(options: argparse.Namespace) -> None:
    """Print the catalogue, the cards whose name holds a word, or those of a role."""
    cards = [c for c in catalog.cards() if options.word.lower() in c.repo_id.lower()]
    names = models.ROLES.get(options.word, {}).values()
    cards = cards or [catalog.find(name) for name in names or [options.word]]
    lines = []
    for card in cards:
        active = f" ({card.params_active_b:g} active)" if card.params_active_b else ""
        size = f"{card.params_total_b:g}B{active}"
        context = f"{card.context_native:,}" if card.context_native else "?"
        licence = card.license or "licence unknown"
        lines.append(f"{card.name:<32} {size:<22} {context:>9} tokens  {licence}")
    _print(options, [asdict(card) for card in cards], *lines)


def fetch(options: argparse.Namespace) -> None:
    """Download and verify official weights, then print where they are."""
    coder = options.size and f"Qwen2.5-Coder-{options.size.upper()}-Instruct"
    if coder and options.role not in (None, "coder"):
        rule = f"--size is of the coder; it was given with {options.role!r}."
        raise CourseError(rule, "leave one of them out.")
    say = functools.partial(print, file=sys.stderr)
    path = models.fetch(coder or options.role or "chat", say=say)
    _print(options, {"path": str(path)}, path)


def chat(options: argparse.Namespace) -> None:
    """Talk to a role: streaming, several turns. Ctrl-C stops a reply, then leaves."""
    from qwen_course import generate, show

    names = ("max_new_tokens", "temperature", "thinking")
    settings = generate.Settings(**{n: getattr(options, n) for n in names})
    if sys.stdin is None:  # as after <&-
        rule = "The standard input is closed, so nobody can ask."
        raise CourseError(rule, "start it in a terminal, or pipe the questions in.")
    models.quiet()
    loaded = models.load(options.role)
    print(f"{loaded.source}. An empty line or Ctrl-C ends the chat.", file=sys.stderr)
    system = {"role": "system", "content": options.system}
    messages: list[dict[str, Any]] = [system] if options.system else []
    prompt = "> " if sys.stdin.isatty() else ""
    with suppress(EOFError, KeyboardInterrupt):  # from `input`: both end the chat
        while text := input(prompt).strip():
            turn = {"role": "user", "content": text}
            try:
                stream = generate.stream(loaded, [*messages, turn], settings)
                with closing(stream):  # ends its thread after a Ctrl-C
                    reply = show.write(stream)
                messages += [turn, {"role": "assistant", "content": reply.text}]
            except KeyboardInterrupt:
                print("\n(stopped; that question is forgotten)", file=sys.stderr)
            except CourseError as error:
                print(error, file=sys.stderr)


def serve(options: argparse.Namespace) -> None:
    """Serve a role, or another server, over an OpenAI-compatible API."""
    from qwen_course import batching, monitor, server, service, upstream

    local, file = options.host in server.LOOPBACK, options.api_key_file
    if not (file or local):
        rule = f"Without keys this serves on loopback only, not on {options.host}."
        raise CourseError(rule, "give --api-key-file FILE, with lines name: key.")
    keys = server.read_keys(file) if file else None
    names = ("requests_per_minute", "tokens_per_minute")
    rates = {n: getattr(options, n) for n in names}
    if keys:  # who is alone on this machine needs no rate, who shares does
        rates |= {n: getattr(service.Limits, n) for n in names if rates[n] is None}
    limits = service.Limits(**rates, seconds=options.seconds, storage=options.storage)
    kept = monitor.Monitor(log=options.log)
    with server.listening(options.host, options.port) as listener:
        backend: Any
        if other := options.upstream:
            key = os.environ.get("QWEN_COURSE_UPSTREAM_KEY", "")
            backend, told = upstream.Upstream(other, key), other
            server.refuse_itself(other, options.host, listener)
        else:
            models.quiet()
            loaded = models.load(options.role, options.profile)
            told = loaded.source
            if told.profile == "room":
                rule = "serve needs weights here, and the profile is room."
                raise CourseError(rule, "give --profile small, or --upstream URL.")
            backend = batching.Local(loaded, batch=options.max_batch)
        chats = service.ChatService(backend, limits, keys, kept)
        app = service.create_app(chats, () if keys else server.LOOPBACK)
        place = server.address(options.host, listener)
        said = f"{told}\nServing on {place}; Ctrl-C ends it."
        print(said, file=sys.stderr, flush=True)
        try:
            server.serve(app, listener)
        finally:  # it ends by KeyboardInterrupt
            if lost := kept.log_errors:
                print(f"{lost} lines could not be logged.", file=sys.stderr)


def progress(options: argparse.Namespace) -> int:
    """Print which exercises were solved here, write or verify a certificate of it."""
    from qwen_course import checks

    writes, reads = options.certificate is not None, options.verify or options.roll_up
    for name, given, there, needs in (
        ("--name", options.name, writes, "--certificate"),
        ("--no-answers", options.no_answers, writes, "--certificate"),
        ("--run", options.again, reads, "--verify or --roll-up"),
        ("--key-file", options.key_file, writes or reads, "--certificate or --verify"),
    ):
        if given and not there:
            raise CourseError(f"{name} alone does nothing.", f"add {needs}.")
    if writes:
        return _certify(options)
    if reads:
        return _verify(options)
    done = checks.progress()
    _print(options, done.lessons, done)
    return 0


def _certify(options: argparse.Namespace) -> int:
    """Write what was solved on this machine into a page."""
    from qwen_course import certificate, checks

    left_out = {"source": ""} if options.no_answers else {}
    rows = [asdict(row) | left_out for row in checks.solved_exercises()]
    totals = {name: len(tasks) for name, tasks in checks.progress().lessons.items()}
    about, key = certificate.about(), certificate.read_key(options.key_file)
    content = certificate.gather(options.name or "", rows, totals, about, date.today())
    path = certificate.write(options.certificate, certificate.page(content, key))
    held = sum(bool(row["source"]) for row in rows)
    told = f"{path}: {len(rows)} of {sum(totals.values())} exercises, {held} answers"
    _print(options, {"path": str(path)}, told)
    return 0


def _verify(options: argparse.Namespace) -> int:
    """Print what certificates are and hold; return 1 if one is not to be believed."""
    from qwen_course import certificate, checks

    key, fine = certificate.read_key(options.key_file), True
    if options.again:
        fence, parts = answers.isolation(), ("network", "writing", "signals")
        weak = ["reading", *(part for part in parts if fence.get(part) != "namespace")]
        note = f"Not restricted here while answers run: {', '.join(weak)}."
        print(note, file=sys.stderr)
    data, lines = [], [] if options.verify else [certificate.HEAD]
    for name in options.verify or options.roll_up:
        finding = certificate.read(name, key)
        again = checks.judge_again(finding.record) if options.again else {}
        data.append({"file": name, **asdict(finding), "again": again})
        shown = finding.lines if options.verify else finding.row
        lines += shown(name, again)
        right = all(verdict.startswith("correct") for verdict in again.values())
        fine = fine and finding.valid and right
    _print(options, data, *lines)
    return int(not fine)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m qwen_course")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = {}
    for run in (doctor, list_models, fetch, chat, serve, progress):
        name, text = run.__name__.removeprefix("list_"), (run.__doc__ or "")[:-1]
        command[name] = commands.add_parser(name, help=text, description=text)
        command[name].set_defaults(run=run)
        if run not in (chat, serve):
            command[name].add_argument("--json", action="store_true")
    told = 'find what users report by words, as "still shows think tags"'
    command["doctor"].add_argument("--symptom", metavar="WORDS", help=told)
    one = command["progress"].add_mutually_exclusive_group()
    told = "write a page of what was solved (certificate.html)"
    option: Any = {"nargs": "?", "const": "certificate.html", "metavar": "FILE"}
    one.add_argument("--certificate", help=told, **option)
    option = {"nargs": "+", "metavar": "FILE"}
    one.add_argument("--verify", help="say whether pages are unchanged", **option)
    one.add_argument("--roll-up", help="the same as a table, a line a page", **option)
    add = command["progress"].add_argument
    add("--name", help="whose certificate it is, as it shall be written")
    add("--no-answers", action="store_true", help="leave the answers out of the page")
    add("--key-file", help="the teacher's key: seals a page, or verifies its seal")
    told = "judge the answers of verified pages again: this runs their code"
    add("--run", dest="again", action="store_true", help=told)
    command["models"].add_argument("word", nargs="?", default="", help="part of a name")
    sizes, role = ("0.5b", "1.5b"), "a role or a name"
    command["fetch"].add_argument("role", nargs="?", help=f"{role} (default chat)")
    command["fetch"].add_argument("--size", choices=sizes, help="of the coder, instead")
    command["chat"].add_argument("--role", default="chat", help=role)
    command["chat"].add_argument("--system", default="", help="the system message")
    command["chat"].add_argument("--max-new-tokens", type=int)
    command["chat"].add_argument("--temperature", type=float, help="0: greedy")
    command["chat"].add_argument("--thinking", action=argparse.BooleanOptionalAction)
    for name, kind, default, told in (
        ("role", str, "chat", role),
        ("profile", str, None, "instead of QWEN_COURSE_PROFILE"),
        ("host", str, "127.0.0.1", "0.0.0.0: every network; needs keys"),
        ("port", int, 8000, "to listen on"),
        ("api-key-file", str, None, "lines name: key"),
        ("upstream", str, None, "address of another server, as http://HOST:PORT/v1"),
        ("max-batch", int, 16, "rows side by side"),
        ("requests-per-minute", int, None, "of a key; with keys 60"),
        ("tokens-per-minute", int, None, "of a key; with keys 100000"),
        ("seconds", float, 120.0, "that a request may take"),
        ("storage", str, "memory://", "where rates are counted; Redis for several"),
        ("log", str, None, "file for a JSON line a request, without texts"),
    ):
        told += f" (default {default})" if default else ""
        command["serve"].add_argument(
            f"--{name}", type=kind, default=default, help=told
        )
    options = parser.parse_args(arguments)
    try:
        status = options.run(options)  # None from those that can only go well
        print(end="", flush=True)  # unlike sys.stdout.flush, also after >&-
        return status or 0
    except CourseError as error:
        print(error, file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        cure = "python -m pip install -e '.[training,quantization,serving]'"
        print(f"A package is missing: {error}.\nWhat to do: {cure}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader has left, as in `models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


if __name__ == "__main__":
    sys.exit(main())
