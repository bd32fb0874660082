"""Measure overheads as ratios in one run: python tests/bench.py. Minutes, not a test.

A ratio of medians from interleaved runs (A B A B ...) says something on a busy
machine; a single time does not. An A-A pair beside it shows the noise of the method.
"""

import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace

import openai
import torch
from transformers import GenerationConfig
from trl import chat_template_utils

from qwen_course import (
    batching,
    chat,
    generate,
    models,
    monitor,
    server,
    service,
    weights,
)

PAIRS, TOKENS = 30, 64
TASK = "Write a Python class for a binary tree with insert, find and delete."
MESSAGES = [{"role": "user", "content": TASK}]  # an answer of over 64 tokens


def seconds(function):
    """Return the wall time of one call in seconds."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def ratio(one, two, pairs=PAIRS):
    """Return the median of two/one over pairs, in alternating order."""
    ratios = []
    for pair in range(pairs):
        if pair % 2:
            b, a = seconds(two), seconds(one)
        else:
            a, b = seconds(one), seconds(two)
        ratios.append(b / a)
    return statistics.median(ratios)


def reply_overhead():
    """Print what `generate.reply` costs over a bare `model.generate`."""
    loaded = models.load("coder")
    ids = torch.tensor([chat.encode(loaded.tokenizer, MESSAGES)])
    wanted = {"min_new_tokens": TOKENS, "max_new_tokens": TOKENS, "do_sample": False}
    wanted |= {"temperature": 1.0, "top_p": 1.0, "top_k": 50}
    config = GenerationConfig(**wanted, eos_token_id=[151645, 151643], pad_token_id=0)
    settings = generate.Settings(
        max_new_tokens=TOKENS, temperature=0, repetition_penalty=1.0
    )

    def bare():
        mask = torch.ones_like(ids)
        loaded.model.generate(ids, attention_mask=mask, generation_config=config)

    def ours():
        assert generate.reply(loaded, MESSAGES, settings).new_tokens == TOKENS

    bare(), ours()
    print(f"bare/bare   {ratio(bare, bare):.3f}   (the noise of this machine)")
    print(f"reply/bare  {ratio(bare, ours):.3f}   (must be at most 1.02)")


def budget_overhead():
    """Print what a thinking budget costs over a reply of as many tokens without one.

    The official coder does not think: it is given the tags, whose rows its weights
    have, and a prompt that opens a thought; the words do not matter to the clock.
    """
    loaded = models.load("coder")
    loaded.tokenizer.add_tokens(["<think>", "</think>"])
    loaded.tokenizer.chat_template = chat_template_utils.qwen3_5_think_chat_template
    settings = generate.Settings(
        max_new_tokens=TOKENS, temperature=0, repetition_penalty=1.0
    )

    def plain():
        assert generate.reply(loaded, MESSAGES, settings).new_tokens == TOKENS

    def cut():
        wanted = replace(settings, thinking_budget=TOKENS // 2)
        reply = generate.reply(loaded, MESSAGES, wanted)
        assert (reply.new_tokens, reply.thinking_tokens) == (TOKENS, TOKENS // 2)

    plain(), cut()
    print(f"plain/plain  {ratio(plain, plain):.3f}   (the noise of this machine)")
    print(f"budget/plain {ratio(plain, cut):.3f}   (must be at most 1.03)")


def load_times():
    """Print the first load (dequantise and save) against the second."""
    code = (
        "import time, sys; from qwen_course import models; models.quiet();"
        "import torch, transformers;"
        "t = time.perf_counter(); models.load('coder'); print(time.perf_counter() - t)"
    )

    def run():
        return float(subprocess.check_output([sys.executable, "-c", code], text=True))

    folder = (
        weights.cache_dir()
        / "dequantised"
        / weights.GGUF[models.ROLES["coder"]["small"]].name.removesuffix(".gguf")
    )
    aside = folder.with_suffix(".aside")
    first, second = [], []
    for _ in range(3):
        folder.rename(aside)
        try:
            first.append(run())
            second.append(run())
        finally:
            subprocess.run(["rm", "-rf", str(folder)], check=True)
            aside.rename(folder)
    one, two = statistics.median(first), statistics.median(second)
    print(f"load: first {one:.1f} s, second {two:.1f} s, {one / two:.0f} times quicker")


def service_overhead():
    """Print what the service adds to the time to the first token, and batches gain."""
    loaded = models.load("coder")
    free = service.Limits(requests_per_minute=None, tokens_per_minute=None)
    backend = batching.Local(loaded)
    settings = generate.Settings(
        max_new_tokens=2, temperature=0, repetition_penalty=1.0
    )

    def direct():
        """The seconds to the first piece of a direct stream."""
        started = time.perf_counter()
        with closing(generate.stream(loaded, MESSAGES, settings)) as pieces:
            next(pieces)
            return time.perf_counter() - started

    with server.running(service.create_app(service.ChatService(backend, free))) as url:
        client = openai.OpenAI(base_url=url, api_key="none")
        same = {"extra_body": {"repetition_penalty": 1.0}, "temperature": 0}

        def served():
            started = time.perf_counter()
            with client.chat.completions.create(
                model="coder", messages=MESSAGES, max_tokens=2, stream=True, **same
            ) as chunks:
                for chunk in chunks:
                    if chunk.choices[0].delta.content:
                        return time.perf_counter() - started

        def at_once(clients):
            """Tokens a second of so many clients, all together."""

            def one(number):
                text = f"{TASK} Name it Tree{number}."
                made = client.chat.completions.create(
                    model="coder", messages=[{"role": "user", "content": text}],
                    max_tokens=TOKENS, **same,
                )  # fmt: skip
                return made.choices[0].message.content, made.usage.completion_tokens

            started = time.perf_counter()
            with ThreadPoolExecutor(clients) as pool:
                made = [*pool.map(one, range(clients))]
            return sum(n for _, n in made) / (time.perf_counter() - started)

        direct(), served()
        pairs = [(direct(), served()) for _ in range(PAIRS)]
        added = statistics.median(b - a for a, b in pairs)
        print(f"service: first token {added * 1000:+.1f} ms   (must be under 10)")
        speeds = [(at_once(1), at_once(16)) for _ in range(3)]
        gain = statistics.median(b / a for a, b in speeds)
        print(f"16 clients/1 client {gain:.2f}   (tokens/s; must be 3 or more)")


def monitor_overhead():
    """Print what a record costs; a request of this course takes 50 ms and more."""
    loaded = models.load("pocket-chat")
    hello = [{"role": "user", "content": "Hello"}]
    reply = generate.reply(loaded, hello, generate.Settings(temperature=0))
    watched, n = monitor.Monitor(), 5000
    started = time.perf_counter()
    for _ in range(n):
        watched.record(reply, messages=hello)
    each = (time.perf_counter() - started) / n
    print(f"record: {each * 1e6:.0f} microseconds, {each / reply.seconds:.3%} of a")
    print(f"  pocket reply of {reply.seconds * 1000:.0f} ms   (must be under 1 %)")


def import_time():
    """Print what `import qwen_course` takes over a bare interpreter."""

    def run(code):
        return lambda: subprocess.run([sys.executable, "-c", code], check=True)

    times = ratio(run("pass"), run("import qwen_course"))
    print(f"import qwen_course / bare interpreter  {times:.2f}")


if __name__ == "__main__":
    models.quiet()
    import_time()
    load_times()
    reply_overhead()
    budget_overhead()
    service_overhead()
    monitor_overhead()
