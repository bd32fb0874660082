"""Builds pocket models anew: `python data/recipes/build.py [NAME ...]`, all by default.

Two processes of one thread each: on one machine the same bytes every time.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
SPECIALISTS = ("maths", "coder", "translator")
COMMANDS = {  # name -> program and its arguments; the longest come first
    "thinking": ["language.py", "thinking"],
    "vision": ["vision.py"],
    "moe": ["moe.py"],
    "chat": ["chat.py"],
    "generalist": ["language.py", "generalist"],
    "generalist-3x": ["language.py", "generalist-3x"],
    "generalist-echo": ["language.py", "generalist-echo"],
    **{name: ["language.py", name] for name in SPECIALISTS},
    **{f"{n}-continued": ["language.py", f"{n}-continued"] for n in SPECIALISTS},
}
TWINS = {"moe": ["moe-dense"]}  # built by the same program
NEEDS = {f"{name}-continued": "generalist" for name in SPECIALISTS}
PROCESSES = 2
SHOWN = {"thinking": 1, "chat": 1}  # how many results of a card the table shows, else 4


def start(name: str, line: int) -> subprocess.Popen:
    """Return the running process that builds one model; its bar stands in a line."""
    program, *arguments = COMMANDS[name]
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return subprocess.Popen(
        [sys.executable, str(HERE / program), *arguments],
        env=os.environ | threads | {"POCKET_LINE": str(line)},
    )


def build(names: list[str]) -> list[str]:
    """Build the models, what others need first; return the names that failed."""
    waiting = [name for name in COMMANDS if name in names]
    running: dict[int, tuple[str, subprocess.Popen]] = {}
    failed: list[str] = []
    while waiting or running:
        for line, (name, process) in list(running.items()):
            if process.poll() is not None:
                del running[line]
                failed += [name] * (process.returncode != 0)
        busy = [name for name, _ in running.values()]
        for name in list(waiting):
            need = NEEDS.get(name)
            lines = set(range(PROCESSES)) - set(running)
            if need in failed:
                waiting.remove(name)
                failed.append(name)
            elif lines and need not in [*waiting, *busy]:
                waiting.remove(name)
                running[min(lines)] = name, start(name, min(lines))
                busy.append(name)
        time.sleep(0.2)
    return failed


def table() -> str:
    """Return the README's table of the bundled models, from their cards."""
    lines = [
        "| model | architecture | parameters | training | held out |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in [name for each in COMMANDS for name in (each, *TWINS.get(each, ()))]:
        path = HERE.parent / "pocket" / f"pocket-{name}" / "card.json"
        card = json.loads(path.read_text(encoding="utf-8"))
        kind = card["architecture"].partition("For")[0]
        shown = card["results"][: SHOWN.get(name, 4)]
        results = ", ".join(
            f"{re.split(r':(?! g)| .guessing', row['what'])[0]} {row['share']:.3f} "
            f"(n={row['n']})"
            for row in shown
            if row["share"] > 0.01
        )
        lines.append(
            f"| [pocket-{name}](data/pocket/pocket-{name}/README.md) | {kind} | "
            f"{card['parameters']:,} | {card['training']['seconds']:,} s | {results} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Build what the command line names; leave with status 1 if any failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="print the README's table")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(COMMANDS))
    options = parser.parse_args()
    if options.table:
        print(table())  # noqa: T201
        return
    names = options.names or list(COMMANDS)
    if unknown := set(names) - set(COMMANDS):
        parser.error(f"unknown: {', '.join(unknown)}; use {', '.join(COMMANDS)}")
    if failed := build(names):
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
