"""Run lessons on official weights; keep what `show.recorded` shows of them.

    QWEN_COURSE_PROFILE=small python tests/record_notebooks.py [NAME ...] [--check]

A lesson that calls `show.recorded("02", "s4-break")` shows what its own cell s4-break
printed on official weights. This runs the lesson, fails on any error, and stores these
outputs in data/recorded/LESSON.json with the model, its file's hash, date and machine.
An entry changes only when its text does. `--check` runs, and stores nothing.
"""

import argparse
import copy
import datetime
import json
import re
import sys
from pathlib import Path

import refresh_notebooks as tool

from qwen_course import catalog, models, weights

CALL = re.compile(r"show\.recorded\(\s*\"(\w+)\",\s*\"([\w-]+)\"")


def text_of(cell):
    """Return all that the outputs of a cell say in plain text."""
    parts = [""]
    for output in cell.outputs:
        if output.output_type == "stream":
            parts[-1] += output.text  # a stream comes in pieces
        else:
            parts += [output.get("data", {}).get("text/plain", ""), ""]
    return "\n".join(part.strip("\n") for part in parts if part)


def write(place: Path, entries: dict) -> None:
    """Store the recordings of a lesson."""
    place.parent.mkdir(exist_ok=True)
    text = json.dumps(entries, indent=1, ensure_ascii=False, sort_keys=True)
    place.write_text(text + "\n", "utf-8")


def record(path: Path, store: bool) -> list[str]:
    """Run one lesson; return the names of the entries that changed."""
    lesson = path.stem.partition("_")[0]
    nb = copy.deepcopy(tool.read(path))
    wanted = {
        cell
        for place in path.parent.glob("*.ipynb")
        for number, cell in CALL.findall(
            "\n".join(c.source for c in tool.read(place).cells)
        )
        if number == lesson
    }
    if not wanted:
        return []
    missing = wanted - {cell.id for cell in nb.cells}
    if missing:
        raise tool.Refused(f"{path.stem} has no cell {', '.join(sorted(missing))}")
    source = models.resolve("chat", "small")
    if source.path is None:
        raise tool.Refused(f"no official weights: {source}")
    place = catalog.data_dir() / "recorded" / f"{lesson}.json"
    entries = json.loads(place.read_text("utf-8")) if place.exists() else {}
    stamp = {
        "model": source.name,
        "file": source.path.name,
        "sha256": weights.GGUF[source.name].sha256,
        "date": datetime.date.today().isoformat(),
        "machine": tool.machine(),
    }
    if new := wanted - entries.keys():  # the lesson asks for them while it runs
        entries |= {name: {"text": "not recorded yet", **stamp} for name in new}
        write(place, entries)
    seconds, *_, profile = tool.execute(nb, path.parent, path.stem)
    print(f"{path.stem}: {seconds:.0f} s, profile {profile}")
    changed = sorted(set(entries) - wanted)
    kept = {name: entries[name] for name in entries if name in wanted}
    for cell in nb.cells:
        if cell.id in wanted and text_of(cell) != kept.get(cell.id, {}).get("text"):
            kept[cell.id] = {"text": text_of(cell), **stamp}
            changed.append(cell.id)
    if changed and store:
        write(place, kept)
    return changed


def main() -> int:
    """Record the lessons that the arguments name; 1 if one fails or would change."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--check", action="store_true", help="store nothing")
    options = parser.parse_args()
    paths = sorted((tool.ROOT / "notebooks").glob("[0-9][0-9]*_*.ipynb"))
    chosen = [p for p in paths if p.stem.startswith(tuple(options.names or [""]))]
    failed = not chosen
    for path in chosen:
        try:
            changed = record(path, store=not options.check)
            print(f"{path.stem}: changed {', '.join(changed) or 'nothing'}")
        except tool.Refused as problem:
            failed = True
            print(f"REFUSED {problem}", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
