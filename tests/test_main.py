"""The command line: what it prints, what it returns, how it ends."""

import inspect
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from datetime import date
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version
from serving import KEY, served
from tiny import scripted

from qwen_course import __main__ as command_line
from qwen_course import batching, catalog, generate, models, show, weights
from qwen_course.__main__ import main

WORDS = {"ok", "note", "bad"}


@pytest.fixture(autouse=True)
def empty_machine(tmp_path, monkeypatch):
    """No weights, no hub."""
    monkeypatch.setenv("QWEN_COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("QWEN_COURSE_PROFILE", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    weights.hub_problem.cache_clear()
    yield
    weights.hub_problem.cache_clear()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What has tests of its own and takes a second."""
    state = {"memory": "limit", "network": ""}
    monkeypatch.setattr(command_line.answers, "isolation", lambda: state)


def found(capsys):
    """Run the doctor; return its exit status and its findings by subject."""
    status = main(["doctor", "--json"])
    findings = json.loads(capsys.readouterr().out)
    by_subject = {finding.pop("subject"): finding for finding in findings}
    assert len(by_subject) == len(findings)
    for subject, finding in by_subject.items():
        assert finding["status"] in WORDS, subject
        assert finding["text"], subject
        assert finding["status"] != "ok" or not finding["cure"], subject
        assert finding["status"] != "bad" or finding["cure"], subject
    bad = any(finding["status"] == "bad" for finding in findings)
    assert status == (1 if bad else 0)
    return status, by_subject


def test_doctor_on_an_empty_machine(capsys):
    status, by_subject = found(capsys)
    wanted = {"Python", "cores", "memory", "disk", "GPU", "Hugging Face Hub"}
    wanted |= {"torch", "transformers", "peft", "sandbox: memory"}
    wanted |= {f"role {role}" for role in models.ROLES}
    assert wanted <= by_subject.keys()
    chat = by_subject["role chat"]
    assert "pocket-chat" in chat["text"]
    assert chat["cure"] == "python -m qwen_course fetch chat"
    assert chat["status"] == "note"
    assert status == 0
    assert by_subject["role moe"]["status"] == "ok"
    assert by_subject["Hugging Face Hub"]["cure"] == "unset HF_HUB_OFFLINE"
    assert by_subject["sandbox: network"]["status"] == "note"


def test_doctor_for_people_says_the_same(capsys):
    _, by_subject = found(capsys)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for subject, finding in by_subject.items():
        line = f"[{finding['status']:^4}] {subject}: {finding['text']}"
        place = lines.index(line)
        if finding["cure"]:
            assert lines[place + 1].strip() == f"-> {finding['cure']}"
    cures = sum(bool(finding["cure"]) for finding in by_subject.values())
    assert len(lines) == len(by_subject) + cures


@pytest.mark.parametrize(("name", "status"), [("trl", "bad"), ("peft", "note")])
def test_doctor_names_a_missing_library(capsys, monkeypatch, name, status):
    real = command_line.metadata.version

    def version(library):
        if library == name:
            raise command_line.metadata.PackageNotFoundError(library)
        return real(library)

    monkeypatch.setattr(command_line.metadata, "version", version)
    finding = found(capsys)[1][name]
    assert finding["status"] == status
    assert "not installed" in finding["text"]
    assert finding["cure"].startswith(f"python -m pip install '{name}==")


@pytest.mark.parametrize(
    ("here", "status"), [("5.0.0", "bad"), ("9.0.0", "note"), ("9.0.0.dev0", "note")]
)
def test_doctor_names_other_versions_than_the_tested(capsys, monkeypatch, here, status):
    real = command_line.metadata.version
    monkeypatch.setattr(
        command_line.metadata,
        "version",
        lambda name: here if name == "transformers" else real(name),
    )
    finding = found(capsys)[1]["transformers"]
    assert finding["status"] == status
    assert here in finding["text"]
    assert "tested with" in finding["text"]
    assert bool(finding["cure"]) == (status == "bad")


def test_doctor_survives_a_library_that_cannot_be_imported(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    _, by_subject = found(capsys)
    assert by_subject["machine"]["cure"] == "make install"
    assert "torch" in by_subject["machine"]["text"]
    assert by_subject["disk"]["status"] in WORDS  # what came before is kept


def official_file(tmp_path, monkeypatch, content):
    """Put a file into the cache that counts as official when its bytes are 'good'."""
    name = models.ROLES["chat"]["small"]
    digest = "770e607624d689265ca6c44884d0807d9b054d23c473c106c72be9de08b7376c"
    file = weights.GGUF[name]._replace(size=4, sha256=digest)  # of b"good"
    monkeypatch.setitem(weights.GGUF, name, file)
    path = tmp_path / "cache" / file.name
    path.parent.mkdir()
    path.write_bytes(content)
    return path


def test_doctor_verifies_the_weights(capsys, tmp_path, monkeypatch):
    official_file(tmp_path, monkeypatch, b"good")
    _, by_subject = found(capsys)
    for role in ("chat", "coder"):
        finding = by_subject[f"role {role}"]
        assert finding["status"] == "ok"
        assert "SHA-256 verified" in finding["text"]


def test_doctor_finds_a_broken_file_and_its_command_mends_it(
    capsys, tmp_path, monkeypatch
):
    path = official_file(tmp_path, monkeypatch, b"evil")
    made = path.parent / "dequantised" / path.stem
    made.mkdir(parents=True)
    finding = found(capsys)[1]["role chat"]
    assert finding["status"] == "bad"
    assert "SHA-256 WRONG" in finding["text"]
    remove, fetch = finding["cure"].split("; ")
    assert fetch == "python -m qwen_course fetch chat"
    subprocess.run(remove, shell=True, check=True)
    assert not path.exists()
    assert not made.exists()


def test_no_weights_need_a_newer_transformers_than_the_package():
    """So the doctor's line on the library covers all of them."""
    needs = map(Requirement, command_line.metadata.requires("qwen-course"))
    (need,) = (need for need in needs if need.name == "transformers")
    for card in catalog.cards():
        lowest = Version(card.transformers_min or "0")
        assert all(lowest <= Version(bound.version) for bound in need.specifier)


def data_with(tmp_path, monkeypatch, timings):
    folder = tmp_path / "data"
    folder.mkdir()
    for path in catalog.data_dir().iterdir():
        if path.name != "timings.json":
            (folder / path.name).symlink_to(path)
    (folder / "timings.json").write_text(timings)
    monkeypatch.setenv("QWEN_COURSE_DATA", str(folder))


def test_doctor_says_what_lessons_take(capsys, tmp_path, monkeypatch):
    run = {"minutes": 2.5, "memory_gb": 1.5, "profile": "small", "machine": "a box"}
    data_with(tmp_path, monkeypatch, json.dumps({"07_next": run}))
    text = found(capsys)[1]["lesson 07_next"]["text"]
    assert all(str(value) in text for value in run.values())


@pytest.mark.parametrize("timings", ["{", '{"00": {"minutes": 1}}', "[]"])
def test_doctor_survives_broken_timings(capsys, tmp_path, monkeypatch, timings):
    data_with(tmp_path, monkeypatch, timings)
    _, by_subject = found(capsys)
    assert by_subject["lessons"]["status"] == "bad"
    assert by_subject["lessons"]["cure"] == "git checkout -- data"
    assert "role chat" in by_subject


def test_models_lists_the_catalogue_or_a_part(capsys):
    assert main(["models"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(catalog.cards())
    assert main(["models", "CODER"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 0 < len(lines) < len(catalog.cards())
    assert all("Coder" in line for line in lines)
    assert main(["models", "qwen3-30b-a3b-instruct-2507", "--json"]) == 0
    (card,) = json.loads(capsys.readouterr().out)
    assert card["repo_id"] == "Qwen/Qwen3-30B-A3B-Instruct-2507"
    assert main(["models", card["repo_id"] + " "]) == 0  # as one pastes it
    assert "(3.3 active)" in capsys.readouterr().out
    assert main(["models", "vision"]) == 0  # a role, and part of no name
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [*models.ROLES["vision"].values()]
    assert main(["models", "zzzzzz"]) == 2
    assert "What to do: See them all: python" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["models", "fetch"])
def test_an_unknown_name_gives_the_nearest_and_status_2(capsys, command):
    assert main([command, "qwen3-4c"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Qwen3-4B" in shown.err
    assert "What to do:" in shown.err
    assert "Traceback" not in shown.err


def test_fetch_prints_the_path_alone_on_standard_output(capsys, tmp_path, monkeypatch):
    path = official_file(tmp_path, monkeypatch, b"good")
    assert main(["fetch"]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{path}\n"
    assert "already here" in shown.err
    assert main(["fetch", "coder", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(path)}


def test_fetch_takes_the_size_of_the_coder(capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(models, "fetch", lambda name, say: asked.append(name))
    assert main(["fetch", "coder", "--size", "1.5b"]) == 0
    assert asked == ["Qwen2.5-Coder-1.5B-Instruct"]
    assert main(["fetch", "thinking", "--size", "1.5b"]) == 2
    assert "--size is of the coder" in capsys.readouterr().err
    assert len(asked) == 1


def test_progress(capsys):
    from qwen_course import checks

    lessons = checks.progress().lessons
    assert main(["progress", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == lessons
    assert main(["progress"]) == 0
    assert capsys.readouterr().out == f"{checks.progress()}\n"


def test_a_package_that_is_missing_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "limits", None)  # as if it were not installed
    assert main(["serve", "--role", "pocket-chat", "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert "limits" in said
    assert "pip install" in said


@pytest.mark.parametrize("name", ["pocket", "gpu"])
def test_doctor_names_the_profile_that_keeps_it_from_better_weights(
    capsys, monkeypatch, name
):
    monkeypatch.setenv("QWEN_COURSE_PROFILE", name)
    assert found(capsys)[1]["role chat"]["cure"] == "unset QWEN_COURSE_PROFILE"


def test_doctor_finds_a_symptom_by_words(capsys):
    assert main(["doctor", "--symptom", "still shows think tags"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "I still see <think></think>"
    assert "  found by: still, shows, think, tags" in lines
    places = [line for line in lines if line.startswith("  lesson: ")]
    first = "  lesson: notebooks/09a_clinic.ipynb, section 9a.1, cell s1-fault"
    assert places[0] == first
    assert "  lesson: notebooks/02_chat_templates.ipynb, cell s6" in places
    assert "  thread: https://github.com/QwenLM/Qwen3/issues/1575" in lines
    assert any(line.startswith("  cause: /no_think is a soft switch") for line in lines)
    assert any(line.startswith("  cure: Pass enable_thinking=False") for line in lines)
    assert lines.count("") == 3
    assert main(["doctor", "--symptom", "still shows think tags", "--json"]) == 0
    first, *others = json.loads(capsys.readouterr().out)
    assert first["entry"]["clinic"] == "9a.1"
    assert len(others) == 2


def test_doctor_lists_all_symptoms_when_it_knows_no_word(capsys):
    assert main(["doctor", "--symptom", "xyzzy"]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("No word of this is known")
    assert shown.count("\n- ") == 15
    assert "\n- KeyError: 'qwen3' (section 9b.5)\n" in shown
    assert main(["doctor", "--symptom", "", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == []


@pytest.fixture
def learnt():
    """Three exercises that were solved: one as published, one not, one unknown how."""
    from qwen_course import checks

    def slow(new_tokens, first_token_seconds, seconds):
        rest = seconds - first_token_seconds
        return (new_tokens - 1) / rest if new_tokens > 1 else 0.0

    source = textwrap.dedent(inspect.getsource(slow)).replace("slow", "decode_speed")
    text = {"0.1": str(checks.solution("0.1")), "0.2": "", "0.3": source}
    for day, (name, source) in enumerate(text.items(), 1):
        kept = {"hints": 0, "solution_shown": False, "source": source}
        assert checks._record(name, date(2026, 11, day), kept) == ""


def pages(tmp_path, *names, more=()):
    """Certificates of these people, as files."""
    for name in names:
        file = str(tmp_path / f"{name}.html")
        assert main(["progress", "--certificate", file, "--name", name, *more]) == 0
    return [str(tmp_path / f"{name}.html") for name in names]


@pytest.mark.usefixtures("learnt")
def test_a_certificate_is_written_and_verified(capsys, tmp_path):
    (ada,) = pages(tmp_path, "Ada")
    assert "3 of " in (said := capsys.readouterr().out)
    assert said.endswith(" exercises, 2 answers\n")
    assert main(["progress", "--verify", ada]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{ada}: unchanged since it was written"
    assert lines[1] == "  whose: Ada"
    assert any("0.1, 0.2, 0.3 (2026-11-01, 2026-11-02, " in line for line in lines)
    text = Path(ada).read_text("utf-8")
    Path(ada).write_text(text.replace("2026-11-02", "2026-10-02"), "utf-8")
    assert main(["progress", "--verify", ada]) == 1
    assert capsys.readouterr().out == f"{ada}: changed since it was written\n"


@pytest.mark.usefixtures("learnt")
def test_answers_of_a_certificate_are_judged_again(capsys, tmp_path):
    (ada,) = pages(tmp_path, "Ada")
    assert main(["progress", "--verify", ada, "--run"]) == 0
    shown = capsys.readouterr()
    again = [line for line in shown.out.splitlines() if "again" in line]
    right = ["  again 0.1: correct, the published solution", "  again 0.3: correct"]
    assert again == right
    assert "Not restricted here while answers run" in shown.err  # as `quick` says


@pytest.mark.usefixtures("learnt")
def test_wrong_answers_and_unknown_exercises_are_found(capsys, tmp_path):
    from qwen_course import certificate

    (ada,) = pages(tmp_path, "Ada")
    held = certificate.read(ada).record
    held["solved"][0]["source"] = "def answer_only(a, b, c):\n    return ''\n"
    held["solved"][2]["id"] = "999.1"
    certificate.write(ada, certificate.page(held))
    capsys.readouterr()
    assert main(["progress", "--verify", ada]) == 0
    assert main(["progress", "--verify", ada, "--run"]) == 1
    shown = capsys.readouterr().out
    assert "again 0.1: not yet: " in shown
    assert "again 999.1: There is no exercise '999.1'." in shown


@pytest.mark.usefixtures("learnt")
def test_a_certificate_without_answers(capsys, tmp_path):
    (ada,) = pages(tmp_path, "Ada", more=["--no-answers"])
    assert "def answer_only" not in Path(ada).read_text("utf-8")
    assert main(["progress", "--verify", ada, "--run", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out.partition("\n")[2])
    assert found["valid"]
    assert found["again"] == {}
    assert found["record"]["name"] == "Ada"


@pytest.mark.usefixtures("learnt")
def test_a_teacher_reads_many_as_a_table(capsys, tmp_path):
    key = tmp_path / "key"
    key.write_text("sixteen letters.")
    ada, grace = pages(tmp_path, "Ada", "Grace", more=["--key-file", str(key)])
    (eve,) = pages(tmp_path, "Eve")
    capsys.readouterr()
    assert main(["progress", "--roll-up", ada, grace]) == 0
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["exercises", "lessons", "written", "whose"]
    assert first.endswith(f"Ada ({ada}); seal not checked")
    assert f"Grace ({grace})" in second
    assert main(["progress", "--roll-up", ada, eve, "--key-file", str(key)]) == 1
    _, first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("seal right")
    assert second.endswith("not sealed with this key")
    assert main(["progress", "--roll-up", str(tmp_path / "none")]) == 1
    assert "cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--certificate", "x.html"], "A name is one line of 1 to 100 characters"),
        (["--certificate", "x.html", "--name", "Ada"], "No exercise is solved"),
        (["--verify", "x", "--key-file", "/no/such/file"], "cannot be read"),
        (["--verify", "x", "--key-file="], "cannot be read"),
        (["--certificate=", "--name", "Ada"], "nothing to write"),
    ],
)
def test_certificates_that_are_refused(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert main(["progress", *arguments]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.glob("*.html")) == []


@pytest.mark.usefixtures("learnt")
def test_two_homes_give_two_certificates(capsys, tmp_path, monkeypatch):
    """Each holds its own progress; each is verified where nothing was solved."""
    (ada,) = pages(tmp_path, "Ada")
    monkeypatch.setenv("QWEN_COURSE_HOME", str(tmp_path / "other"))
    from qwen_course import checks

    kept = {"hints": 1, "solution_shown": False, "source": ""}
    checks._record("1.1", date(2026, 11, 9), kept)
    (grace,) = pages(tmp_path, "Grace")
    monkeypatch.setenv("QWEN_COURSE_HOME", str(tmp_path / "teacher"))
    capsys.readouterr()
    assert main(["progress", "--verify", ada, grace, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    solved = [[row["id"] for row in one["record"]["solved"]] for one in found]
    assert solved == [["0.1", "0.2", "0.3"], ["1.1"]]


@pytest.mark.parametrize(
    "arguments",
    [["--name", "Ada"], ["--no-answers"], ["--run"], ["--key-file", "key"]],
    ids=" ".join,
)
def test_an_option_that_would_do_nothing_is_refused(capsys, arguments):
    assert main(["progress", *arguments]) == 2
    shown = capsys.readouterr()
    assert f"{arguments[0]} alone does nothing" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["fetch", "--size", "9b"]])
def test_wrong_use_ends_with_status_2(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "usage:" in capsys.readouterr().err


class Talk:
    """A tiny model in models.load; keeps the conversations that it was given."""

    def __init__(self, monkeypatch, lines, interrupt=None):
        self.seen, self.running, self.interrupt = [], [], interrupt
        loaded, stream = scripted("Hello. " * 3), generate.stream
        monkeypatch.setattr(models, "load", lambda role: loaded)
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(lines)))

        def listen(loaded, messages, settings):
            self.seen.append([message["content"] for message in messages])
            threads = [thread.name for thread in threading.enumerate()]
            self.running.append(sum(name.endswith("(work)") for name in threads))
            if len(self.seen) == interrupt:
                loaded.model.register_forward_hook(self.press_ctrl_c)
            return stream(loaded, messages, settings)

        monkeypatch.setattr(generate, "stream", listen)

    def press_ctrl_c(self, *_):
        if self.interrupt:
            self.interrupt = None
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


REPLY = "Hello. Hello. Hello. "
BRIEF = ["chat", "--temperature", "0", "--max-new-tokens", "99"]


def test_chat_keeps_the_conversation_until_the_input_ends(capsys, monkeypatch):
    talk = Talk(monkeypatch, ["One\n", "Two"])
    assert main([*BRIEF, "--system", "Be brief."]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{REPLY}\n{REPLY}\n"
    assert "pocket-test" in shown.err
    first = ["Be brief.", "One"]
    assert talk.seen == [first, [*first, REPLY, "Two"]]


def test_an_empty_line_ends_the_chat(monkeypatch):
    talk = Talk(monkeypatch, ["One\n", "  \n", "Two\n"])
    assert main(BRIEF) == 0
    assert talk.seen == [["One"]]


def test_ctrl_c_in_a_reply_forgets_that_question_only(capsys, monkeypatch):
    talk = Talk(monkeypatch, ["One\n", "Two\n", "Three\n"], interrupt=2)
    assert main(BRIEF) == 0
    assert "stopped" in capsys.readouterr().err
    assert talk.seen[1:] == [["One", REPLY, "Two"], ["One", REPLY, "Three"]]
    assert talk.running == [0, 0, 0]


def test_ctrl_c_while_a_piece_is_printed_ends_the_generation(monkeypatch):
    talk = Talk(monkeypatch, ["One\n", "Two\n"])
    models.load("chat").model.register_forward_hook(lambda *_: time.sleep(0.02))

    def write(pieces):
        next(pieces)
        raise KeyboardInterrupt

    monkeypatch.setattr(show, "write", write)
    assert main(BRIEF) == 0
    assert talk.seen == [["One"], ["Two"]]
    assert talk.running == [0, 0]


def test_ctrl_c_at_the_prompt_ends_the_chat(monkeypatch):
    Talk(monkeypatch, [])
    monkeypatch.setattr("builtins.input", lambda _: signal.raise_signal(signal.SIGINT))
    assert main(BRIEF) == 0


def test_ctrl_c_while_loading_ends_with_130(monkeypatch):
    Talk(monkeypatch, [])
    monkeypatch.setattr(models, "load", lambda _: signal.raise_signal(signal.SIGINT))
    assert main(BRIEF) == 130


def test_chat_without_weights_names_the_command(capsys):
    assert main(["chat", "--role", "Qwen3-0.6B"]) == 2
    assert "python -m qwen_course fetch Qwen3-0.6B" in capsys.readouterr().err


def test_a_missing_pocket_folder_is_bad(capsys, monkeypatch, tmp_path):
    shutil.copytree(
        models.catalog.data_dir(), tmp_path / "data",
        ignore=shutil.ignore_patterns("pocket"),
    )  # fmt: skip
    monkeypatch.setenv("QWEN_COURSE_DATA", str(tmp_path / "data"))
    status, by_subject = found(capsys)
    assert status == 1
    assert by_subject["role chat"]["cure"] == "git checkout -- data/pocket"


def test_doctor_takes_the_models_of_a_server_as_they_are(capsys, monkeypatch):
    offered = ["Qwen2.5-Coder-0.5B-Instruct", "pocket-thinking"]
    monkeypatch.setattr(models.Room, "names", lambda room: offered)
    monkeypatch.setenv("QWEN_COURSE_PROFILE", "room")
    monkeypatch.setenv("QWEN_COURSE_ROOM", "http://127.0.0.1:9/v1")
    status, by_subject = found(capsys)
    assert status == 0
    for role, name in zip(("chat", "thinking"), offered, strict=True):
        assert by_subject[f"role {role}"]["status"] == "ok"
        assert name in by_subject[f"role {role}"]["text"]
    assert by_subject["role vision"]["status"] == "note"  # pocket, as without a server


def test_chat_refuses_bad_settings_before_it_loads(capsys, monkeypatch):
    monkeypatch.setattr(models, "load", lambda role: pytest.fail("it was loaded"))
    assert main(["chat", "--temperature", "-1"]) == 2
    assert "temperature" in capsys.readouterr().err


def test_chat_says_that_the_input_is_closed_before_it_loads(capsys, monkeypatch):
    monkeypatch.setattr(models, "load", lambda role: pytest.fail("it was loaded"))
    monkeypatch.setattr(sys, "stdin", None)  # so Python starts after <&-
    assert main(["chat"]) == 2
    assert "standard input is closed" in capsys.readouterr().err


def test_a_closed_output_is_no_error(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # so Python starts after >&-
    assert main(["models", "coder"]) == 0


def test_a_refused_turn_does_not_end_the_chat(capsys, monkeypatch):
    talk = Talk(monkeypatch, ["a " * 600 + "\n", "One\n"])
    assert main(BRIEF) == 0
    shown = capsys.readouterr()
    assert "512 positions" in shown.err
    assert shown.out == f"{REPLY}\n"
    assert talk.seen[1] == ["One"]


COMMAND = [sys.executable, "-m", "qwen_course", "models"]


def test_as_a_program():
    run = subprocess.run([*COMMAND, "coder", "--json"], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert {card["repo_id"][:5] for card in json.loads(run.stdout)} == {"Qwen/"}


def test_a_reader_that_leaves_causes_no_traceback():
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run(COMMAND, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (run.returncode, run.stderr) == (141, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--host", "0.0.0.0"], "serves on loopback only"),
        (["--api-key-file", "/no/such/file"], "cannot be read"),
        (["--upstream", "http://127.0.0.1:9/v1", "--host", "::"], "loopback only"),
        (["--port", "99999"], "listen at 127.0.0.1, port 99999"),
        (["--port", "0", "--upstream", "nonsense"], "write it whole, as http://"),
        (["--port", "0", "--upstream", "http://127.0.0.1:80x/v1"], "write it whole"),
        (["--port", "0", "--log", "/proc/log.jsonl"], "a file to write"),
    ],
)
def test_serve_refuses_what_is_unsafe_before_it_loads_anything(
    capsys, monkeypatch, arguments, said
):
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("loaded"))
    assert main(["serve", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_serve_says_that_a_port_is_taken_before_it_loads_anything(capsys, monkeypatch):
    monkeypatch.setattr(models, "load", lambda *_: pytest.fail("loaded"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert f"port {port}" in said
    assert "take another port" in said
    assert "Serving on" not in said


def test_serve_refuses_a_batch_without_rows(capsys):
    pocket = ["--port", "0", "--role", "pocket-chat"]
    assert main(["serve", *pocket, "--max-batch", "0"]) == 2
    assert "take 1 or more" in capsys.readouterr().err


def test_serve_refuses_weak_keys(capsys, tmp_path):
    path = tmp_path / "keys"
    path.write_text("pupil: short\n")
    assert main(["serve", "--role", "pocket-chat", "--api-key-file", str(path)]) == 2
    assert "16 or more" in capsys.readouterr().err


@pytest.mark.slow
def test_serve_serves_with_keys_until_ctrl_c(tmp_path):
    import openai

    keys, log = tmp_path / "keys", tmp_path / "log.jsonl"
    keys.write_text("# the room\npupil: a-key-of-sixteen-letters\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "qwen_course", "serve", "--role", "pocket-chat"]
    command += ["--port", str(port), "--api-key-file", str(keys), "--log", str(log)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = ""
            while "Serving on" not in said:
                said += process.stderr.readline() or pytest.fail(said)
            assert "pocket-chat" in said
            url = f"http://127.0.0.1:{port}/v1"
            client = openai.OpenAI(base_url=url, api_key="a-key-of-sixteen-letters")
            hello = [{"role": "user", "content": "Hello"}]
            made = client.chat.completions.create(
                model="pocket-chat", messages=hello, temperature=0, max_tokens=30
            )
            assert made.choices[0].message.content == "Hello! How can I help you?"
            wrong = openai.OpenAI(base_url=url, api_key="another-key-as-long-as-it")
            with pytest.raises(openai.AuthenticationError):
                wrong.models.list()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)
    line = json.loads(log.read_text())
    assert line["stop"] == "stop"
    assert "Hello" not in log.read_text()


def test_serve_needs_weights_here(monkeypatch, capsys):
    """A shell in which a learner of the room types it."""
    with served(batching.Local(models.load("pocket-chat"))) as there:
        monkeypatch.setenv("QWEN_COURSE_ROOM", there.url)
        monkeypatch.setenv("QWEN_COURSE_ROOM_KEY", KEY)
        models._offered.cache_clear()
        assert main(["serve", "--profile", "room", "--port", "0"]) == 2
    models._offered.cache_clear()
    assert "serve needs weights here" in capsys.readouterr().err


@pytest.mark.parametrize("shares", [False, True])
def test_a_rate_of_none_is_refused_alone_and_in_a_room(tmp_path, capsys, shares):
    keys = tmp_path / "keys"
    keys.write_text("pupil: a-key-of-sixteen-letters\n")
    given = ["--api-key-file", str(keys)] if shares else []
    rate = ["--requests-per-minute", "0", "--port", "0"]
    assert main(["serve", *rate, *given]) == 2
    assert "requests_per_minute" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_serve_does_not_ask_itself(capsys, host):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    given = ["--port", str(port), "--upstream", f"http://{host}:{port}/v1"]
    assert main(["serve", *given]) == 2
    assert "the address of this server itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url",
    ["http://256.1.1.1:8000/v1", "http://[::g]/v1", "http://127.0.0.1:99999/v1"],
)
def test_serve_refuses_an_address_that_cannot_be(capsys, url):
    assert main(["serve", "--port", "0", "--upstream", url]) == 2
    assert "is no address of a server" in capsys.readouterr().err


def test_a_proxy_that_cannot_be_used_is_told(capsys, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    given = ["--port", "0", "--upstream", "http://127.0.0.1:9/v1"]
    assert main(["serve", *given]) == 2
    assert "unset ALL_PROXY" in capsys.readouterr().err
