"""A notebook server on loopback, a browser on it, and what is seen there."""

import ast
import base64
import contextlib
import copy
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import symtable
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser_probe
import nbformat
import refresh_notebooks as tool

NOTEBOOKS = tool.ROOT / "notebooks"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
# The environment of the kernel, whose ipywidgets the browser must understand.
PYTHON = Path(os.environ.get("QWEN_COURSE_BROWSER_PYTHON") or sys.executable).absolute()
WIDGETS = ("show.explore(", "show.branch(", "show.write(")
STARTED = 600  # seconds for a server or a page to come up; the machine may be busy
SETTINGS = {  # of JupyterLab: ask nobody for news, keep every cell in the page
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}


class Missing(Exception):
    """Something that the test needs is not on this machine."""


def chromium() -> str:
    """The path of Debian's browser, or of the one that CHROMIUM names."""
    found = shutil.which(os.environ.get("CHROMIUM") or "chromium")
    if found is None:
        command = "apt-get update && apt-get install --yes chromium"
        raise Missing(f"No chromium here. Install it: {command}")
    return found


def clean(folder: Path) -> dict[str, str]:
    """The surroundings of a server: nothing of this machine's user, no test runner."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST_", "QWEN_COURSE_", "JUPYTER")) and name != "CI"
    }
    share = folder / "share" / "jupyter"
    spec = share / "kernels" / "python3"
    spec.mkdir(parents=True)
    argv = [f"{PYTHON}", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    told = {"argv": argv, "display_name": "Python 3", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(told))
    for name, values in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    # The kernel's environment may bring the browser's half of its widgets.
    theirs = PYTHON.parent.parent / "share" / "jupyter"
    return kept | {
        "HF_HUB_OFFLINE": "1",
        "IPYTHONDIR": f"{folder / 'ipython'}",
        "JUPYTER_CONFIG_DIR": f"{folder / 'config'}",
        "JUPYTER_DATA_DIR": f"{folder / 'data'}",
        "JUPYTER_PATH": f"{share}{os.pathsep}{theirs}",
        "JUPYTER_RUNTIME_DIR": f"{folder / 'runtime'}",
        "JUPYTERLAB_SETTINGS_DIR": f"{folder / 'settings'}",
        "JUPYTERLAB_WORKSPACES_DIR": f"{folder / 'workspaces'}",
        "MPLCONFIGDIR": f"{folder / 'matplotlib'}",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "PYTHONPATH": os.pathsep.join(
            map(
                str,
                filter(None, [tool.ROOT, tool.ROOT / "tests", kept.get("PYTHONPATH")]),
            )
        ),
        "QWEN_COURSE_HOME": f"{folder / 'home'}",
        "QWEN_COURSE_PROFILE": "pocket",
    }


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Serve a copy of the lessons; gives address, token and the copy's folder."""
    work = folder / "notebooks"
    shutil.copytree(NOTEBOOKS, work)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    command += ["--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    command += [f"--IdentityProvider.token={token}", f"--notebook-dir={work}"]
    command += ["--LabApp.news_url=None"]
    log = folder / "server.log"
    address = f"http://127.0.0.1:{port}"
    with open(log, "w") as out:
        server = subprocess.Popen(command, env=clean(folder), stdout=out, stderr=out)
    try:
        until = time.monotonic() + STARTED
        while not _answers(f"{address}/api/status?token={token}"):
            if server.poll() is not None or time.monotonic() > until:
                raise Missing(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.3)
        yield address, token, work
    finally:
        server.terminate()  # it ends its kernels
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def asked(address: str, method: str = "GET", seconds: float = 60) -> bytes:
    """What a server answers; raises OSError where it refuses."""
    request = urllib.request.Request(address, method=method)
    with urllib.request.urlopen(request, timeout=seconds) as reply:
        return reply.read()


def _answers(address: str) -> bool:
    try:
        return bool(asked(address, seconds=5))
    except OSError:
        return False


def end_kernels(address: str, token: str) -> None:
    """End all kernels of a server."""
    kernels = f"{address}/api/kernels"
    for kernel in json.loads(asked(f"{kernels}?token={token}")):
        asked(f"{kernels}/{kernel['id']}?token={token}", "DELETE")


# --- a copy that holds what the widgets need ------------------------------------------


def _names(source: str) -> tuple[set[str], set[str]]:
    """The names of a notebook that a cell binds or changes, and those that it uses."""
    tables = [symtable.symtable(source, "cell", "exec")]
    binds = {
        symbol.get_name()
        for symbol in tables[0].get_symbols()
        if symbol.is_assigned() or symbol.is_imported()
    }
    uses = {s.get_name() for s in tables[0].get_symbols() if s.is_referenced()}
    for table in tables:  # functions and comprehensions, however deep
        tables += table.get_children()
        uses |= {s.get_name() for s in table.get_symbols() if s.is_global()}
    for node in ast.walk(ast.parse(source)):
        for part in getattr(node, "targets", [getattr(node, "target", None)]):
            while isinstance(part, ast.Attribute | ast.Subscript):
                part = part.value  # box.part = 1 and box[1] = 1 change a box
                if isinstance(part, ast.Name):
                    binds.add(part.id)
    return binds, uses


def is_widget(cell: Any) -> bool:
    """Whether a cell makes something to press or to watch."""
    return cell.cell_type == "code" and any(name in cell.source for name in WIDGETS)


def reduced(path: Path) -> tuple[Any, dict[str, list[int]]]:
    """A lesson's setup, quiz (twice), widgets, and the cells that these need.

    With the places of the quizzes and of the cell that tells what must be seen.
    """
    lesson, number = tool.read(path), tool.lesson_of(path.stem)
    code = [c for c in lesson.cells if c.cell_type == "code"]
    cells = [c for c in code if "exercise" not in tool.tags(c)]
    wanted, needed = [], set[str]()
    for cell in reversed(cells):
        if "setup" in tool.tags(cell):
            wanted.append(cell)
            continue
        binds, uses = _names(re.sub(r"(?m)^\s*[%!].*$", "pass", cell.source))
        quiz = "recall.quiz(" in cell.source
        if quiz or is_widget(cell) or binds & needed:
            needed = (needed - binds) | uses
            wanted += [copy.deepcopy(cell)] * (2 if quiz else 1)
    new = nbformat.v4.new_code_cell
    cells = [
        new("import browser_probe\n\nbrowser_probe.watch()", id="watch"),
        *reversed(wanted),
        new(f"browser_probe.tell({number!r})", id="tell"),
    ]
    places = {
        "quiz": [n for n, c in enumerate(cells) if "recall.quiz(" in c.source],
        "tell": [len(cells) - 1],
        "unsteady": [
            n for n, c in enumerate(cells) if "nbval-ignore-output" in tool.tags(c)
        ],
    }
    for place, cell in enumerate(cells):
        cells[place] = new(cell.source, id=f"c{place}")
    return nbformat.v4.new_notebook(cells=cells, metadata=tool.METADATA), places


# --- one lesson in JupyterLab ---------------------------------------------------------

RUN_ALL = re.compile("^Run All Cells$")
CELLS = ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell"
LOOK = """element => ({
    images: [...element.querySelectorAll("img")].map(i => [i.src, i.alt]),
    text: [...element.querySelectorAll("pre, .jp-RenderedHTMLCommon")]
        .filter(e => !e.parentElement.closest("pre, .jp-RenderedHTMLCommon"))
        .map(e => e.textContent),
    whole: element.textContent,
})"""
PLAIN = """html => {
    const box = document.createElement("div");
    box.innerHTML = html;
    return box.textContent;
}"""


class Lesson:
    """A notebook that is open in JupyterLab in the browser."""

    def __init__(self, page: Any, address: str, token: str, name: str) -> None:
        """Open it, and wait for its kernel."""
        self.page = page
        page.goto(f"{address}/lab/tree/{name}?token={token}&reset")
        ready = page.get_by_text("Python 3 | Idle")  # not before the kernel answers
        ready.wait_for(timeout=1000 * STARTED)
        page.locator(CELLS).first.wait_for(timeout=1000 * STARTED)

    def cell(self, place: int) -> Any:
        """A cell by its place."""
        return self.page.locator(CELLS).nth(place)

    def run_all(self, last: int, seconds: float) -> None:
        """Run all cells by the menu; waits until the last one has run."""
        self.page.locator("li.lm-MenuBar-item", has_text="Run").first.click()
        self.page.locator(".lm-Menu-itemLabel", has_text=RUN_ALL).click()
        end, still = time.monotonic() + seconds, 0
        while not re.search(r"\[\d+\]", (prompts := self._prompts())[last]):
            # After an error the other cells are neither waiting nor run.
            still = 0 if any("*" in prompt for prompt in prompts) else still + 1
            if still > 20 or time.monotonic() > end:
                ran = [n for n, prompt in enumerate(prompts) if prompt.strip("[]: *")]
                text = self.cell(ran[-1]).inner_text() if ran else ""
                raise AssertionError(f"It stopped after {prompts}:\n{text[-3000:]}")
            time.sleep(0.3)

    def _prompts(self) -> list[str]:
        found = self.page.locator(CELLS).locator(".jp-InputPrompt")
        return found.all_text_contents()

    def plan(self, place: int) -> dict[str, Any]:
        """What the last cell tells."""
        text = self.cell(place).locator(".jp-OutputArea-output pre").all_text_contents()
        return json.loads("".join(text).partition("PLAN")[2])

    def look(self, part: Any) -> dict[str, Any]:
        """What a part of the page shows: pictures by their hash, texts."""
        found = part.evaluate(LOOK)
        pngs = [base64.b64decode(src.partition(",")[2]) for src, _ in found["images"]]
        found["pngs"] = [hashlib.sha256(png).hexdigest() for png in pngs]
        found["coarse"] = [browser_probe.coarse(png) for png in pngs]
        return found

    def plain(self, html: str) -> str:
        """The text of HTML, as the browser takes it."""
        return squeezed(self.page.evaluate(PLAIN, html))


def squeezed(text: str) -> str:
    """A text with single spaces, whatever the breaks."""
    return " ".join(text.split())


# --- hands ----------------------------------------------------------------------------


def is_focused(control: Any) -> bool:
    """Whether keys go to a control."""
    return control.evaluate("element => element === document.activeElement")


def tab_to(page: Any, control: Any, key: str = "Tab", most: int = 8) -> None:
    """Press Tab until a control has the focus."""
    for _ in range(most):
        page.keyboard.press(key)
        if is_focused(control):
            return
    active = page.evaluate("document.activeElement.outerHTML.slice(0, 300)")
    raise AssertionError(f"{most} times {key} do not reach it, but {active}")


def drag(page: Any, slider: Any, share: float, value: str) -> None:
    """Drag the handle of a slider by mouse to a share of its rail, which is a value.

    A pixel may be more than a step: as a hand does, it goes on until the value is read.
    """
    rail = slider.locator(".noUi-base, .ui-slider").first
    handle = slider.locator("[tabindex='0']").first
    handle.scroll_into_view_if_needed()
    box, grip = rail.bounding_box(), handle.bounding_box()
    across, start = grip["y"] + grip["height"] / 2, grip["x"] + grip["width"] / 2
    aim = box["x"] + share * box["width"]
    page.mouse.move(start, across)
    page.mouse.down()
    page.mouse.move((start + aim) / 2, across)
    readout = slider.locator(".widget-readout")

    def told() -> bool:
        for _ in range(20):  # a busy browser tells the value after a second
            if readout.text_content() == value:
                return True
            page.wait_for_timeout(50)
        return False

    for off in sorted(range(-8, 9), key=abs):  # half pixels
        page.mouse.move(aim + off / 2, across)
        if told():
            break
    page.mouse.up()


def choose(page: Any, select: Any, label: str) -> None:
    """Open a list of choices by mouse and take one of them.

    The browser draws the open list outside the page, where no test can click: the
    choice itself is set by Playwright, with the events that a click gives.
    """
    select.scroll_into_view_if_needed()
    select.click()
    assert select.evaluate("element => element.matches(':open')"), "no list opens"
    select.select_option(label=label)
    if select.evaluate("element => element.matches(':open')"):
        select.click()


def pick(page: Any, steps: int) -> None:
    """Choose by keys in the list that has the focus: Space opens it, Enter takes.

    Arrows alone are taken by JupyterLab 4, which then goes to another cell.
    """
    page.keyboard.press("Space")
    for _ in range(abs(steps)):
        page.keyboard.press("ArrowDown" if steps > 0 else "ArrowUp")
    page.keyboard.press("Enter")


def until(look: Any, wanted: Any, seconds: float = 60) -> None:
    """Wait until what is shown is what is wanted; fails with both."""
    end = time.monotonic() + seconds
    while (found := look()) != wanted:
        if time.monotonic() > end:
            raise AssertionError(f"shown: {found!r}\nwanted: {wanted!r}"[:5000])
        time.sleep(0.2)
