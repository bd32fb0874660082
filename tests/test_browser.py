"""The lessons in a real browser: widgets by mouse and by keys, and as exported pages.

Needs Debian's chromium: `make browser` installs it. A widget is operated as a learner
does, and what the page then shows is compared with what the lesson's own function
gives for that value. QWEN_COURSE_BROWSER_PYTHON names the Python of another
environment for the kernels, such as one with Colab's ipywidgets 7.7.1.
"""

import base64
import functools
import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import browsing
import nbformat
import pytest
import refresh_notebooks as tool
from nbconvert import HTMLExporter

pytestmark = pytest.mark.browser
LESSONS = {
    tool.lesson_of(p.stem): p for p in sorted(browsing.NOTEBOOKS.glob("*.ipynb"))
}
RUN_SECONDS = 900
PRESSED = "element => element.classList.contains('mod-active')"
ROOT = ".widget-vbox:not(.widget-vbox *)"  # a widget of ours, not a part of one


@pytest.fixture(scope="module")
def chromium():
    """The browser; a test without one fails, and names the command."""
    try:
        path = browsing.chromium()
        from playwright.sync_api import sync_playwright
    except browsing.Missing as problem:
        pytest.fail(f"{problem}")
    except ImportError as problem:
        pytest.fail(f"{problem}. It is installed by: make browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=browsing.FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with browsing.served(tmp_path_factory.mktemp("served")) as server:
        yield server


# --- widgets --------------------------------------------------------------------------


@pytest.mark.parametrize("number", LESSONS)
def test_the_widgets_of_a_lesson_work_by_mouse_and_by_keys(number, chromium, served):
    address, token, work = served
    path, began = LESSONS[number], time.monotonic()
    notebook, places = browsing.reduced(path)
    nbformat.write(notebook, work / path.name)
    page = chromium.new_page(viewport={"width": 1600, "height": 1000})
    try:
        lesson = browsing.Lesson(page, address, token, path.name)
        lesson.run_all(places["tell"][0], RUN_SECONDS)
        ran = time.monotonic()
        plan = lesson.plan(places["tell"][0])
        made = [widget["cell"] for widget in plan["widgets"]]
        assert {*made} == {
            n for n, c in enumerate(notebook.cells) if browsing.is_widget(c)
        }
        for order, widget in enumerate(plan["widgets"]):
            root = lesson.cell(made[order]).locator(ROOT)
            root = root.nth(made[:order].count(made[order]))
            widget["unsteady"] = made[order] in places["unsteady"]
            OPERATE[widget["kind"]](lesson, root, widget)
        assert len(places["quiz"]) == 2 * (plan["quiz"] is not None)
        for n, (place, how) in enumerate(
            zip(places["quiz"], ("mouse", "keys"), strict=False)
        ):
            told = plan["quiz"]["told"][n]
            answer_quiz(lesson, lesson.cell(place), plan["quiz"], how, told)
        done = time.monotonic()
        print(f"{number}: ran in {ran - began:.0f} s, operated in {done - ran:.0f} s")
    finally:
        browsing.end_kernels(address, token)
        page.close()


def operate_explore(lesson, root, plan):
    """Each control by mouse, then by keys: the output is what the lesson draws."""
    page, output = lesson.page, root.locator("> .widget-output")
    controls = [control_of(root, n) for n in range(len(plan["parts"]))]
    labels = root.locator("> .widget-hbox > * > .widget-label").all_text_contents()
    assert labels == [part["label"] for part in plan["parts"]]
    all_seen = [plan["first"], *(step["seen"] for step in plan["steps"])]
    others = [seen["coarse"] for seen in all_seen] if plan["unsteady"] else []
    await_seen(lesson, output, plan["first"], others)
    for step in plan["steps"]:
        part, control = plan["parts"][step["part"]], controls[step["part"]]
        slider = part["kind"] == "slider"
        if step["how"] == "keys":
            if step["part"]:
                before = controls[step["part"] - 1]
                browsing.tab_to(page, before, "Shift+Tab")
                browsing.tab_to(page, control)
            else:
                page.keyboard.press("Tab")
                assert not browsing.is_focused(control)
                browsing.tab_to(page, control, "Shift+Tab")
            if slider:
                page.keyboard.press("ArrowRight" if step["by"] > 0 else "ArrowLeft")
            else:
                browsing.pick(page, step["by"])
        elif slider:
            share = (int(step["value"]) - part["low"]) / (part["high"] - part["low"])
            holder = root.locator("> .widget-hbox > *").nth(step["part"])
            browsing.drag(page, holder, share, step["value"])
        else:
            browsing.choose(page, control, step["value"])
        holder = root.locator("> .widget-hbox > *").nth(step["part"])
        shown = functools.partial(reading, holder, slider)
        browsing.until(shown, step["value"])
        await_seen(lesson, output, step["seen"], others)


def control_of(root, place):
    """What takes keys in a control: the handle of a slider, or a list."""
    control = root.locator("> .widget-hbox > *").nth(place)
    return control.locator("[tabindex='0'], select").first


def reading(holder, slider):
    """The value that a control shows."""
    if slider:
        return holder.locator(".widget-readout").text_content()
    chosen = "element => element.selectedOptions[0].textContent"
    return squeezed(holder.locator("select").evaluate(chosen))


def alike(shown, wanted, others):
    """Whether a picture is nearly the wanted one, and farther from each other one."""
    far = [sum(abs(a - b) for a, b in zip(shown, o, strict=True)) / len(shown)
           for o in [wanted, *others]]  # fmt: skip
    return far[0] < 1 and far[0] <= min(far)


def await_seen(lesson, output, wanted, others=()):
    """Wait until an output shows what the probe told: a picture or a text.

    Where the low bits of a picture differ from run to run, `others` are what the
    lesson draws for other values: the picture must be nearest to the wanted one.
    """
    texts = [wanted["printed"], lesson.page.evaluate(browsing.PLAIN, wanted["html"])]
    told = {"pngs": [wanted["png"]] * bool(wanted["png"])}
    told["text"] = browsing.squeezed(" ".join(texts))

    def shown():
        found = lesson.look(output)
        text = browsing.squeezed(" ".join(found["text"]))
        near = others and found["coarse"]
        if near and alike(found["coarse"][0], wanted["coarse"], others):
            found["pngs"] = told["pngs"]
        return {"pngs": found["pngs"], "text": text}

    browsing.until(shown, told)


def operate_branch(lesson, root, plan):
    """A rival is taken by mouse, the next by keys: each text is told, all bars are."""
    page, columns = lesson.page, root.locator("> .widget-hbox > .widget-vbox")
    told = root.locator(".widget-html-content")

    def shown():
        return "".join(told.inner_text().split())

    def wanted(count):
        texts = [f"{n}{text}" for n, text in enumerate(plan["texts"][:count], 1)]
        return "".join("".join(["Click a bar to branch there.", *texts]).split())

    browsing.until(shown, wanted(1))
    for count, step in enumerate(plan["steps"], 2):
        button = columns.nth(step["column"]).locator("button").nth(step["row"])
        assert button.inner_text().strip() == step["name"]
        if step["how"] == "mouse":
            button.click()
        else:
            browsing.tab_to(page, button, most=80)
            page.keyboard.press("Space")
        browsing.until(shown, wanted(count))

        def shape():
            names = [c.locator("button").all_inner_texts() for c in columns.all()]
            return [
                [
                    [n for n, name in enumerate(c) if name.strip().startswith("▶")],
                    len(c),
                ]
                for c in names
            ]

        browsing.until(shape, [[[taken], most] for taken, most in step["shape"]])


def operate_write(lesson, root, plan):
    """A reply is there; its thought opens and closes by mouse and by keys."""
    page, answer = lesson.page, root.locator("> .widget-html").last
    assert squeezed(answer.inner_text()) == squeezed(plan["text"])
    fold = root.locator("details")
    assert fold.count() == bool(plan["thinking"])
    if not plan["thinking"]:
        return
    summary = fold.locator("summary")
    assert summary.inner_text().startswith(f"thought, {plan['tokens']} tokens")
    thought = fold.locator("div")
    assert not thought.is_visible()
    summary.click()
    assert squeezed(thought.inner_text()) == squeezed(plan["thinking"])
    summary.click()
    assert not thought.is_visible()
    page.keyboard.press("Shift+Tab")
    assert not browsing.is_focused(summary)
    browsing.tab_to(page, summary)
    page.keyboard.press("Space")
    assert squeezed(thought.inner_text()) == squeezed(plan["thinking"])


OPERATE = {
    "explore": operate_explore,
    "branch": operate_branch,
    "write": operate_write,
}
squeezed = browsing.squeezed


def answer_quiz(lesson, cell, quiz, how, told):
    """Letters are pressed, first too few of them: the verdict is the right one."""
    page, root = lesson.page, cell.locator(ROOT)
    rows, said = root.locator(".widget-toggle-buttons"), root.locator("pre")
    check = root.locator("button.widget-button")
    asked = squeezed(cell.inner_text())
    assert all(squeezed(question) in asked for question in quiz["questions"])
    for place, letter in enumerate(quiz["letters"]):
        exact = re.compile(f"^{re.escape(letter)}$")
        button = rows.nth(place).locator("button").filter(has_text=exact)
        if how == "mouse":
            button.click()
        else:
            if not place:  # into the widget by a click beside its buttons
                rows.nth(0).locator(".widget-label").click()
            browsing.tab_to(page, button, most=16)
            page.keyboard.press("Space")
        browsing.until(lambda b=button: b.evaluate(PRESSED), True)
        if place == 0 and how == "mouse":
            check.click()
            missing = "Choose for question 2 too: ? is I do not know."
            browsing.until(said.text_content, missing)
    if how == "mouse":
        check.click()
    else:
        browsing.tab_to(page, check)
        page.keyboard.press("Space")
    browsing.until(said.text_content, told)
    assert check.is_disabled()


FRONT_ENDS = {"7": "3", "8": "5"}  # of ipywidgets: the extension of JupyterLab


def test_the_browser_has_the_half_that_belongs_to_the_kernels_widgets(chromium, served):
    ask = "import ipywidgets; print(ipywidgets.__version__)"
    made = subprocess.run([browsing.PYTHON, "-c", ask], capture_output=True, text=True)
    address, token, _ = served
    page = chromium.new_page()
    page.goto(f"{address}/lab?token={token}")
    config = json.loads(page.locator("#jupyter-config-data").text_content())
    page.close()
    [load] = [
        extension["load"]
        for extension in config["federated_extensions"]
        if extension["name"] == "@jupyter-widgets/jupyterlab-manager"
    ]
    place = f"{address}/lab/extensions/@jupyter-widgets/jupyterlab-manager"
    told = json.loads(browsing.asked(f"{place}/package.json?token={token}"))
    remote = browsing.asked(f"{place}/{load}?token={token}")
    assert remote, "the page would load nothing"
    versions = made.stdout.strip(), told["version"]
    print(f"ipywidgets {versions[0]}, jupyterlab-manager {versions[1]}")
    assert FRONT_ENDS[versions[0][0]] == versions[1][0]


# --- exported lessons -----------------------------------------------------------------

# What nbconvert's pages ask for beside the text: formulas, old widgets, Colab's badge.
ASKED = re.compile(
    r"https://cdnjs\.cloudflare\.com/ajax/libs/(require\.js|mathjax)/"
    r"|https://colab\.research\.google\.com/assets/colab-badge\.svg$"
)
# Rules of axe-core that nbconvert's own template breaks, and where. No more than these.
TEMPLATE = {
    "color-contrast": ".jp-InputPrompt, .jp-OutputPrompt"  # the grey of In [1]:
    ", .highlight *",  # its colours of code
    "link-in-text-block": ".jp-RenderedMarkdown a",  # its links have no line below
}
JUDGE = """async template => {
    const told = await axe.run(document, {
        resultTypes: ["violations"], elementRef: true,
    });
    const found = [], left_out = [];
    for (const {id, impact, nodes} of told.violations)
        for (const node of nodes) {
            const ours = !(template[id] && node.element.matches(template[id]));
            const why = [...node.any, ...node.all, ...node.none].map(c => c.message);
            if (!ours) left_out.push(id);
            else found.push({id, impact, html: node.html.slice(0, 300), why});
        }
    return {found, left_out, rules: told.passes.length};
}"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Gives the page of a lesson, as nbconvert makes it; its pictures lie beside it."""
    folder = tmp_path_factory.mktemp("exported")
    shutil.copytree(browsing.NOTEBOOKS / "figures", folder / "figures")

    def export(number, template="lab"):
        page = folder / f"{LESSONS[number].stem}_{template}.html"
        if not page.exists():
            exporter = HTMLExporter(template_name=template)
            html, _ = exporter.from_filename(f"{LESSONS[number]}")
            page.write_text(html, "utf-8")
        return page

    return export


@pytest.fixture
def offline(chromium):
    """A page that can reach files only, and the list of what else it asked for."""
    context, asked = chromium.new_context(), []

    def answer(route):
        if route.request.url.startswith(("file:", "data:")):
            route.continue_()
        else:
            asked.append(route.request.url)
            route.abort()

    context.route("**/*", answer)
    yield context.new_page(), asked
    context.close()


@pytest.mark.parametrize("number", LESSONS)
def test_an_exported_lesson_says_all_without_network_and_kernel(
    number, exported, offline
):
    page, asked = offline
    page.goto(exported(number).as_uri())
    stored = tool.read(LESSONS[number])
    shown = [cell for cell in stored.cells if shows(cell)]
    assert shown, "no widget: is the rule in shows() old?"
    for cell in shown:
        assert cell.outputs, f"{cell.id} shows nothing"
        for output in cell.outputs:
            await_output(page, page.locator(f"[id='cell-id={cell.id}']"), output)
    for cell in stored.cells:  # the words of every cell are there to read
        box = page.locator(f"[id='cell-id={cell.id}']")
        assert box.is_visible()
        assert box.inner_text().strip()
    alts = page.locator("img").evaluate_all("all => all.map(i => [i.alt, i.src])")
    assert [src[:200] for alt, src in alts if not alt.strip()] == []
    assert [url for url in asked if not ASKED.match(url)] == []


@pytest.mark.parametrize("number", LESSONS)
def test_an_exported_lesson_tells_what_its_pictures_show(number, exported, offline):
    """By nbconvert's template `classic`: `lab`, its usual one, drops what is stored."""
    page, _ = offline
    page.goto(exported(number, "classic").as_uri())
    cells = [c for c in tool.read(LESSONS[number]).cells if c.cell_type == "code"]
    outputs = [o for c in cells for o in c.outputs if "image/png" in o.get("data", {})]
    pictures = page.locator("img[src^='data:image/png']")
    shown = pictures.evaluate_all("all => all.map(image => image.alt)")
    assert shown == [output.metadata["image/png"]["alt"] for output in outputs]


def shows(cell):
    """Whether a cell has a widget on a live front end: each kind has a still form."""
    live = (*browsing.WIDGETS, "show.live(", "recall.quiz(")
    return cell.cell_type == "code" and any(name in cell.source for name in live)


def await_output(page, box, output):
    """A stored output is in the page, to be seen."""
    data = output.get("data", {"text/plain": output.get("text")})
    if "image/png" in data:
        png = "".join(data["image/png"].split())
        image = box.locator(f"img[src$='{png[-60:]}']")
        assert image.is_visible()
        assert image.evaluate("image => image.complete && image.naturalWidth > 99")
        assert base64.b64decode(png)[:4] == b"\x89PNG"
    elif "text/html" in data:
        html = box.locator(".jp-RenderedHTML").first
        assert html.is_visible()
        wanted = squeezed(page.evaluate(browsing.PLAIN, data["text/html"]))
        assert squeezed(html.text_content()) == wanted
        folds = html.locator("details")
        for fold in folds.all():  # a quiz: each choice opens, by mouse or by key
            verdict = fold.evaluate("element => element.lastChild.textContent")
            assert not fold.evaluate("element => element.open")
            fold.locator("summary").press("Enter")
            assert fold.evaluate("element => element.open")
            assert verdict.strip() in fold.inner_text()
        if folds.count():
            folds.first.locator("summary").click()
            assert not folds.first.evaluate("element => element.open")
    else:
        texts = box.locator("pre").filter(visible=True).all_text_contents()
        assert squeezed(data["text/plain"]) in [*map(squeezed, texts)]


@pytest.mark.parametrize("number", LESSONS)
def test_axe_finds_nothing_serious_in_an_exported_lesson(number, exported, offline):
    page, _ = offline
    page.goto(exported(number).as_uri())
    found = judged(page)
    for fault in found["found"]:
        print(number, fault)
    grave = [f for f in found["found"] if f["impact"] in ("serious", "critical")]
    assert grave == []


def judged(page):
    """What axe-core finds on a page, less what nbconvert's template does."""
    import axe_playwright_python

    rules = Path(axe_playwright_python.__file__).parent / "axe.min.js"
    page.evaluate(rules.read_text("utf-8"))
    return page.evaluate(JUDGE, TEMPLATE)


@pytest.mark.parametrize(
    ("html", "rule"),
    [
        ("<img src='figures/a.png'>", "image-alt"),
        ("<p style='color:#aaa;background:#fff'>pale words</p>", "color-contrast"),
        ("<div class='jp-OutputArea'><a href='a.html'></a></div>", "link-name"),
        ("<select><option>a</option></select>", "select-name"),
        ("<table><tr><td headers='no'>a</td></tr></table>", "td-headers-attr"),
    ],
)
def test_axe_finds_a_fault_of_our_own(html, rule, offline):
    page, _ = offline
    page.set_content(f"<html lang='en'><title>t</title><main>{html}</main></html>")
    assert rule in [f["id"] for f in judged(page)["found"]]


def test_no_rule_is_left_out_that_the_template_keeps(exported, offline):
    page, _ = offline
    page.goto(exported("00").as_uri())
    assert {*judged(page)["left_out"]} == {*TEMPLATE}
