"""The load generator against our own service; servers end with all that they start."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from qwen_course import batching, catalog, generate, models, server, service

RECIPES = Path(__file__).resolve().parent.parent / "data" / "recipes"
sys.path.insert(0, str(RECIPES))

import load  # noqa: E402
import vllm_server  # noqa: E402

PROMPTS = ["Hi there! I am Paula.", "Hello, Omar here.", "Hi!", "Good morning!"]


@pytest.fixture(scope="module")
def pocket():
    return models.load("pocket-chat")


@pytest.fixture(scope="module")
def url(pocket):
    app = service.create_app(service.ChatService(batching.Local(pocket)))
    with server.running(app) as address:
        yield address


@pytest.mark.parametrize("clients", [1, 3, 4])
def test_each_client_gets_its_own_greedy_reply(pocket, url, clients):
    run = asyncio.run(load.load(url, "pocket-chat", PROMPTS, clients, 20))
    assert {one.prompt for one in run.requests} == {*PROMPTS}
    settings = generate.Settings(
        temperature=0, repetition_penalty=1.0, max_new_tokens=20
    )
    for one in run.requests:
        asked = [{"role": "user", "content": one.prompt}]
        expected = generate.reply(pocket, asked, settings)
        assert (one.text, one.error) == (expected.text, "")
        assert (one.tokens, one.stop) == (expected.new_tokens, expected.stop)
        moments = [one.arrival, *one.moments, one.end]
        assert moments == sorted(moments)
        assert one.wait == one.moments[0] - one.arrival > 0
    tokens = sum(one.tokens for one in run.requests)
    assert run.tokens_per_second == pytest.approx(tokens / run.seconds)
    assert run.requests[-1].end <= run.seconds


def test_a_client_asks_one_thing_after_the_other(url):
    run = asyncio.run(load.load(url, "pocket-chat", PROMPTS, 2, 5))
    for client in range(2):
        own = [one for one in run.requests if one.client == client]
        assert [one.prompt for one in own] == PROMPTS[client::2]
        assert own[0].end <= own[1].arrival


def test_an_error_is_kept_and_the_others_go_on(url):
    run = asyncio.run(load.load(url, "unknown", PROMPTS, 4))
    assert {one.stop for one in run.requests} == {"NotFoundError"}
    assert all("unknown" in one.error for one in run.requests)
    assert run.tokens_per_second == 0


def test_the_prompts_differ():
    assert len({*load.short_prompts()}) == 16


def test_what_was_measured_is_whole_and_of_a_quiet_machine():
    """Lesson 08b draws it; data/recipes/cpu_serving.py makes it again."""
    stored = json.loads(catalog.text("measured/serving.json"))
    assert stored["busy_before"] <= 1
    assert list(stored["servers"]) == ["lock", "batching", "vllm"]
    for name, found in stored["servers"].items():
        runs = found["clients"]
        assert list(runs) == ["1", "4", "16"]
        assert all(run["wait_p50"] <= run["wait_p95"] for run in runs.values())
        assert len(found["spans_of_16"]) == 16
        assert all(span == sorted(span) for span in found["spans_of_16"])
        gain = runs["16"]["tokens_per_second"] / runs["1"]["tokens_per_second"]
        assert (gain < 1.3) if name == "lock" else (gain >= 3), name


# A server with a child of its own, as vLLM has.
SERVER = "sleep 99 & exec {} -m http.server {} --bind 127.0.0.1"


def words_and_address():
    port = vllm_server.free_port()
    words = ["sh", "-c", SERVER.format(sys.executable, port)]
    return words, f"http://127.0.0.1:{port}/"


def processes():
    """Group, state and command of all; one that has ended may still be listed as Z."""
    words = ["ps", "-eo", "pgid=,stat=,args="]
    run = subprocess.run(words, capture_output=True, text=True)
    rows = [line.split(maxsplit=2) for line in run.stdout.splitlines()]
    return [row for row in rows if len(row) == 3 and row[1][0] != "Z"]


def test_a_server_ends_with_its_children():
    words, address = words_and_address()
    seen = []

    def work():
        with vllm_server.running(words, address, {}) as log:
            assert "GET / HTTP" in log.read_text()
            port = f"http.server {address[:-1].rpartition(':')[2]} "
            group = next(row[0] for row in processes() if port in row[2])
            seen.extend(row for row in processes() if row[0] == group)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert len(seen) == 2
    assert not vllm_server.answers(address)
    assert not [row for row in processes() if row[0] == seen[0][0]]


def test_a_server_that_does_not_start_is_told_with_its_words():
    words = ["sh", "-c", "echo no such model; exit 3"]
    with pytest.raises(RuntimeError, match="no such model"):
        with vllm_server.running(words, "http://127.0.0.1:9/", {}):
            pass


def test_a_server_outlives_no_killed_notebook():
    words, address = words_and_address()
    code = (
        f"import sys; sys.path.insert(0, {str(RECIPES)!r}); import vllm_server, time\n"
        f"with vllm_server.running({words!r}, {address!r}, {{}}): time.sleep(99)"
    )
    notebook = subprocess.Popen([sys.executable, "-c", code])
    limit = time.monotonic() + 60
    while not vllm_server.answers(address):
        assert time.monotonic() < limit
        time.sleep(0.1)
    os.kill(notebook.pid, signal.SIGKILL)
    notebook.wait()
    while vllm_server.answers(address):
        assert time.monotonic() < limit
        time.sleep(0.1)
