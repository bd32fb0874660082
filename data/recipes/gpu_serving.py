"""Measure our service with a model of 7B on a GPU; nothing is downloaded.

    python data/recipes/gpu_serving.py [ROUNDS]

The model has the shape of Qwen2.5-7B-Instruct and random weights: time and memory are
real, the texts are not. 1 to 64 clients ask at once, 64 tokens each, with and without
dynamic batching, in turns. Results go to data/measured/gpu_serving.json (lesson
08b). Minutes; needs a CUDA device of 40 GB.
"""

import datetime
import json
import os
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import openai
import torch
from gpu import SHAPE, random_model
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))  # the recipes also run uninstalled

from qwen_course import batching, models, server, service  # noqa: E402

PLACE = HERE.parent / "measured" / "gpu_serving.json"
CLIENTS, TOKENS = (1, 4, 16, 64), 64
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight"]


def made() -> models.Loaded:
    """Return a model of the shape with random bfloat16 weights, on the GPU."""
    tokenizer = models.load("pocket-chat").tokenizer
    torch.backends.cuda.enable_cudnn_sdp(False)  # as models.load does
    model = random_model().eval()
    head = model.lm_head.weight.data
    head[len(tokenizer.get_vocab()) :] = 0  # only words that this tokenizer has
    head[: len(tokenizer.all_special_ids) + 1] = 0  # and none that ends a reply
    source = models.Source("chat", SHAPE, "gpu", None, 0.0, "random weights")
    return models.Loaded(model, tokenizer, source)


def at_once(url: str, clients: int) -> dict[str, Any]:
    """Return what so many clients got who asked at the same moment."""
    client = openai.OpenAI(base_url=url, api_key="none", timeout=300, max_retries=0)

    def one(number: int) -> tuple[int, float]:
        text = " ".join(WORDS[(number + i * i) % 8] for i in range(100))
        started, first, new = time.perf_counter(), 0.0, 0
        for chunk in client.chat.completions.create(
            model=SHAPE, messages=[{"role": "user", "content": text}],
            max_tokens=TOKENS, temperature=0, stream=True,
            stream_options={"include_usage": True},
        ):  # fmt: skip
            if chunk.choices and chunk.choices[0].delta.content and not first:
                first = time.perf_counter() - started
            new = chunk.usage.completion_tokens if chunk.usage else new
        return new, first

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        done = [*pool.map(one, range(clients))]
    seconds = time.perf_counter() - started
    waits = sorted(first for _, first in done)
    return {
        "tokens": sum(new for new, _ in done),
        "tokens_per_second": round(sum(new for new, _ in done) / seconds, 1),
        "wait_p50": round(statistics.median(waits), 3),
        "wait_longest": round(waits[-1], 3),
    }


def main(rounds: int) -> None:
    """Measure lock and batching in turns, and store what was found."""
    models.quiet()
    loaded = made()
    weights = torch.cuda.memory_allocated() / 1e9
    free = service.Limits(requests_per_minute=None, tokens_per_minute=None)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {"lock": {}, "batching": {}}
    peaks = {}
    for _ in range(rounds):
        for name, rows in (("lock", 1), ("batching", 64)):
            torch.cuda.reset_peak_memory_stats()
            backend = batching.Local(loaded, batch=rows)
            app = service.create_app(service.ChatService(backend, free))
            with server.running(app) as url:
                at_once(url, 2)  # the first ones are slow
                for clients in CLIENTS if rows > 1 else CLIENTS[:-1]:
                    run = at_once(url, clients)
                    found[name].setdefault(str(clients), []).append(run)
                    tqdm.write(f"{name}, {clients} clients: {run}")
            peaks[name] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    stored = {
        "shape": SHAPE, "weights": "random", "tokens_a_reply": TOKENS,
        "weights_gb": round(weights, 2), "peak_gb": peaks,
        "device": torch.cuda.get_device_name(), "torch": torch.__version__,
        "date": datetime.date.today().isoformat(), "runs": found,
    }  # fmt: skip
    text = json.dumps(stored, indent=1) + "\n"
    PLACE.write_text(text, "utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 2)
