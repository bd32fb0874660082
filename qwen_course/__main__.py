"""The command line: python -m qwen_course doctor | models | fetch | chat | progress.

It prints; the modules it calls return values. `--json` gives the same for scripts.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from qwen_course import answers, catalog, checks, models, weights
from qwen_course.errors import CourseError


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: what was looked at, "ok", "note" or "bad", the cure."""

    subject: str
    status: str
    text: str
    cure: str = ""


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("+")[0].split(".") if part.isdigit())


def _libraries() -> Iterator[Finding]:
    """Compare what is installed with the tested set in constraints.txt."""
    lines = (catalog.data_dir().parent / "constraints.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if "==" in line)
    for name in ("torch", "transformers", "trl", "gguf", "peft", "bitsandbytes"):
        try:
            here = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            need = "needed" if name in ("torch", "transformers", "trl", "gguf") else ""
            text = f"not installed, {need or 'a later lesson needs it'}"
            cure = f"pip install {name}=={tested[name]}"
            yield Finding(name, "bad" if need else "note", text, cure)
            continue
        same = here == tested[name]
        text = here if same else f"{here}, tested with {tested[name]}"
        yield Finding(name, "ok" if same else "note", text)


def _weights() -> Iterator[Finding]:
    """Say for each role which weights are here, and whether they are whole."""
    installed = importlib.metadata.version("transformers")
    for role in models.ROLES:
        source = models.resolve(role)
        missing = source.path is None
        better = models.ROLES[role].get("small")
        offer = bool(better) and source.profile == "pocket"
        cure = f"python -m qwen_course fetch {role}" if offer else ""
        text, status = repr(source), "note" if missing else "ok"
        if missing and role == "chat":  # every lesson of today asks for it
            status = "bad"
        if source.name in weights.GGUF and source.path:
            whole = weights.sha256(source.path) == weights.GGUF[source.name].sha256
            text += ", SHA-256 verified" if whole else ", SHA-256 WRONG"
            if not whole:
                status, cure = "bad", f"rm {source.path}; {cure or 'make fetch'}"
        if source.profile != "pocket":
            needed = catalog.find(source.name).transformers_min
            if needed and _version(installed) < _version(needed):
                text += f"; needs transformers {needed}, here is {installed}"
                status, cure = "bad", f"pip install 'transformers>={needed}'"
        yield Finding(f"role {role}", status, text, cure)


def _machine() -> Iterator[Finding]:
    """Look at Python, cores, memory, disk, GPU, the hub and the sandbox."""
    python, old = platform.python_version(), sys.version_info < (3, 11)
    yield Finding("Python", "bad" if old else "ok", python, "use 3.11+" if old else "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    yield Finding("cores", "ok", str(cores or os.cpu_count()))
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
        status, cure = "ok", ""
        if memory < 6:
            status, cure = "note", "close other programs: lessons use up to 4 GB"
        yield Finding("memory", status, f"{memory:.0f} GB", cure)
    folder = weights.cache_dir()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    status, cure = "ok", ""
    if free < 3:
        status, cure = "note", "free 3 GB, or set QWEN_COURSE_CACHE to another disk"
    yield Finding("disk", status, f"{free:.0f} GB free for weights", cure)
    gpu = models.gpu_memory_gb()
    yield Finding("GPU", "ok", f"{gpu:.0f} GB" if gpu else "none; none is needed")
    problem = weights.hub_problem()
    text = f"not reachable ({problem}); the official GGUF has a mirror"
    yield Finding(
        "Hugging Face Hub", "note" if problem else "ok", problem and text or "ok"
    )
    for name, state in answers.isolation().items():
        yield Finding(f"sandbox: {name}", "ok" if state else "note", str(state))


def _lessons() -> Iterator[Finding]:
    """Say what each lesson took on the reference machine."""
    timings = json.loads((catalog.data_dir() / "timings.json").read_text())
    for name, run in sorted(timings.items()):
        text = f"{run['minutes']} min, {run['memory_gb']} GB, profile {run['profile']}"
        yield Finding(f"lesson {name}", "ok", f"{text} on {run['machine']}")


def doctor(options: argparse.Namespace) -> int:
    """Check this machine; return 1 when something is bad, else 0."""
    found: list[Finding] = []
    for look in (_machine, _libraries, _weights, _lessons):
        found += look()
    if options.json:
        print(json.dumps([asdict(finding) for finding in found], indent=1))
    else:
        for finding in found:
            print(f"[{finding.status:^4}] {finding.subject}: {finding.text}")
            if finding.cure:
                print(f"       -> {finding.cure}")
    return int(any(finding.status == "bad" for finding in found))


def list_models(options: argparse.Namespace) -> int:
    """Print the catalogue, or the cards whose name holds a word."""
    word = options.word.lower()
    cards = [card for card in catalog.cards() if word in card.repo_id.lower()]
    if not cards:
        catalog.find(options.word)  # raises with the nearest names
    if options.json:
        print(json.dumps([asdict(card) for card in cards], indent=1))
        return 0
    for card in cards:
        active = f" ({card.params_active_b:g} active)" if card.params_active_b else ""
        size = f"{card.params_total_b:g}B{active}"
        context = f"{card.context_native:,}" if card.context_native else "?"
        licence = card.license or "licence unknown"
        print(f"{card.name:<32} {size:<22} {context:>9} tokens  {licence}")
    return 0


def fetch(options: argparse.Namespace) -> int:
    """Download and verify official weights."""
    name = options.role
    if options.size:
        name = f"Qwen2.5-Coder-{options.size.upper()}-Instruct"
    path = models.fetch(name, say=lambda line: print(line, file=sys.stderr))
    print(json.dumps({"path": str(path)}) if options.json else path)
    return 0


def chat(options: argparse.Namespace) -> int:
    """Talk to a role: streaming, several turns. Ctrl-C stops a reply, then leaves."""
    from qwen_course import generate, show

    models.quiet()
    loaded = models.load(options.role)
    settings = generate.Settings(
        max_new_tokens=options.max_new_tokens,
        temperature=options.temperature,
        thinking=options.thinking,
    )
    print(f"{loaded.source}. An empty line or Ctrl-C ends the chat.", file=sys.stderr)
    messages: list[dict[str, Any]] = []
    if options.system:
        messages.append({"role": "system", "content": options.system})
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            text = input(prompt).strip()
        except (EOFError, KeyboardInterrupt):
            text = ""
        if not text:
            return 0
        messages.append({"role": "user", "content": text})
        try:
            reply = show.write(generate.stream(loaded, messages, settings))
            messages.append({"role": "assistant", "content": reply.text})
        except KeyboardInterrupt:
            messages.pop()
            print("\n(stopped; that question is forgotten)", file=sys.stderr)
        except CourseError as error:
            messages.pop()
            print(error, file=sys.stderr)


def progress(options: argparse.Namespace) -> int:
    """Print which exercises were solved on this machine."""
    done = checks.progress()
    print(json.dumps(done.lessons, indent=1) if options.json else done)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m qwen_course")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> Any:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        if name != "chat":
            added.add_argument("--json", action="store_true", help="for scripts")
        return added

    command("doctor", doctor, "look at this machine and say what mends each problem")
    listing = command("models", list_models, "list the catalogue")
    listing.add_argument("word", nargs="?", default="", help="part of a name")
    getting = command("fetch", fetch, "download and verify official weights")
    getting.add_argument("role", nargs="?", default="chat", help="a role or a name")
    getting.add_argument("--size", choices=["0.5b", "1.5b"], help="of the coder")
    talking = command("chat", chat, "talk to a model")
    talking.add_argument("--role", default="chat", help="a role or a name")
    talking.add_argument("--system", default="", help="the system message")
    talking.add_argument("--max-new-tokens", type=int, default=512)
    talking.add_argument("--temperature", type=float, help="0: greedy")
    talking.add_argument("--thinking", action=argparse.BooleanOptionalAction)
    command("progress", progress, "which exercises are solved on this machine")
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except CourseError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
