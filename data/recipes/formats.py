"""Measures one official model in many formats and engines; keeps the numbers.

    python data/recipes/formats.py [FORMAT ...]  # size, memory, quality: 40 minutes
    python data/recipes/formats.py --speed       # tokens a second, in turns: minutes

Each format runs in a process of its own, so that its peak memory is its own. Speeds are
taken in turns, A B C A B C, since the machine is never quite alone. What is not
installed is left out: xllamacpp and openvino-genai are extras of the course
(`pip install -e ".[engines]"`), torchao is not; OpenVINO's folders are made by
optimum-intel, which wants an environment of its own: see OPENVINO. Results:
data/measured/formats.json and engines.json. Not part of the tests.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from official import said
from tqdm import tqdm

from qwen_course import answers, catalog, chat, generate, models, quantize, tasks
from qwen_course.weights import cache_dir, located

NAME = "Qwen2.5-Coder-0.5B-Instruct"
MEASURED = catalog.data_dir() / "measured"
# optimum-cli export openvino -m DEQUANTISED_FOLDER --task text-generation-with-past
#   --weight-format int8 openvino_int8        (or: int4 --group-size 128 openvino_int4)
OPENVINO = Path(os.environ.get("QWEN_COURSE_OPENVINO") or cache_dir())
QUESTION = said("Write a Python function that counts the vowels of a text, with tests.")
COPY = said(
    "Repeat this code, and change nothing:\n\n```python\n"
    + "\n".join(f"def add_{n}(x):\n    return x + {n}\n" for n in range(1, 7))
    + "```"
)
TOKENS = 32  # of a speed run


class Torch:
    """The model in plain transformers; parent of all formats that torch runs."""

    def __init__(self, **how: Any):
        self.how = how

    def load(self) -> None:
        """Load the model."""
        self.loaded = models.load(NAME, **self.how)

    def size(self) -> dict[str, float]:
        """Return MB: as counted, as stored on disk, and read for each token."""
        model = self.loaded.model
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            disk = sum(p.stat().st_size for p in Path(folder).glob("*.safetensors"))
        counted, read = quantize.model_size_mb(model), quantize.decode_bytes(model)
        return {"disk_mb": disk / 1e6, "counted_mb": counted, "read_mb": read / 1e6}

    def quality(self, text: str) -> dict[str, float]:
        """Return perplexity, KL divergence and agreement with the bf16 weights."""
        found = quantize.compare(models.load(NAME), self.loaded, text)
        return {"perplexity": found.perplexity, "kl": found.kl, "top1": found.top1}

    def answers(self, conversations: list[Any], room: int, stop: Any) -> list[str]:
        """Return the greedy reply to each conversation."""
        wanted = generate.Settings(temperature=0, repetition_penalty=1.0,
                                   max_new_tokens=room, stop=stop)  # fmt: skip
        return [r.text for r in generate.batch(self.loaded, conversations, wanted)]

    def speed(self, variant: str = "") -> float:
        """Return the tokens a second of decoding; a variant changes one thing."""
        rows, messages = 1, COPY if "copy" in variant else QUESTION
        extra: dict[str, Any] = {}
        if variant.startswith("batch"):
            rows = int(variant.split()[1])
        if variant == "no cache":
            extra["use_cache"] = False
        if variant == "static cache":
            extra["cache_implementation"] = "static"
        if "lookup" in variant:
            extra["prompt_lookup_num_tokens"] = 8
        ids = torch.tensor([chat.encode(self.loaded.tokenizer, messages)] * rows)
        moments: list[float] = []

        def watch(input_ids: Any, scores: Any, **_: Any) -> Any:
            moments.append(time.perf_counter())
            lengths.append(input_ids.shape[1])
            return torch.zeros(len(input_ids), dtype=torch.bool)

        lengths: list[int] = []
        slow = rows > 8 or variant == "no cache"
        before = torch.get_num_threads()
        torch.set_num_threads(1 if variant == "one thread" else before)
        self.loaded.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False,
            repetition_penalty=1.0, max_new_tokens=12 if slow else TOKENS,
            min_new_tokens=12, stopping_criteria=[watch],
            pad_token_id=self.loaded.tokenizer.pad_token_id, **extra,
        )  # fmt: skip
        torch.set_num_threads(before)
        return rows * (lengths[-1] - lengths[0]) / (moments[-1] - moments[0])


class Rounded(Torch):
    """Our own formats: packed for size and speed, rounded weights for quality."""

    def __init__(self, **scheme: Any):
        super().__init__()
        self.scheme = quantize.Scheme(**scheme)

    def load(self) -> None:
        """Load the model and pack it."""
        self.loaded = quantize.quantize_model(models.load(NAME), self.scheme)

    def size(self) -> dict[str, float]:
        """Return MB; then go on with ordinary layers of the same weights, for speed."""
        from safetensors.torch import save

        model = self.loaded.model
        disk = len(save({k: v.clone() for k, v in model.state_dict().items()})) / 1e6
        found = {"disk_mb": disk, "counted_mb": quantize.model_size_mb(model),
                 "read_mb": quantize.decode_bytes(model) / 1e6}  # fmt: skip
        self.loaded = quantize.quantize_model(
            models.load(NAME), self.scheme, packed=False
        )
        return found


def fresh(**how: Any) -> models.Loaded:
    """Return the model loaded anew, so that it may be changed in place."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = models.resolve(NAME)
    folder = cache_dir() / "dequantised" / located(NAME).stem
    model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", **how)
    return models.Loaded(model.eval(), AutoTokenizer.from_pretrained(folder), source)


class BitsAndBytes(Torch):
    """bitsandbytes, through transformers."""

    def load(self) -> None:
        """Load the weights and quantise them on the way."""
        from transformers import BitsAndBytesConfig

        # its int8 product works in fp16 and warns of every other dtype
        dtype = torch.float16 if "load_in_8bit" in self.how else torch.bfloat16
        config = BitsAndBytesConfig(**self.how)
        self.loaded = fresh(dtype=dtype, quantization_config=config)


class Converted(Torch):
    """A library that changes the linear layers of a loaded model, the head included."""

    def __init__(self, convert: Callable[[Any], Any], **how: Any):
        self.convert, self.how = convert, how

    def load(self) -> None:
        """Load the model and convert it in place."""
        self.loaded = fresh(**self.how)
        self.convert(self.loaded.model)

    def size(self) -> dict[str, float]:
        """Return MB on disk and read for a token; such layers are no plain tensors."""
        model = self.loaded.model
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "state.pt")
            torch.save(model.state_dict(), path)
            disk = path.stat().st_size / 1e6
        embedding = model.get_input_embeddings().weight
        read = disk - embedding.numel() * embedding.element_size() / 1e6
        return {"disk_mb": disk, "read_mb": read}


def dynamic_int8(model: Any) -> None:
    """PyTorch's dynamic int8: weights in 8 bits, inputs too, product by product."""
    torch.ao.quantization.quantize_dynamic(
        model, {torch.nn.Linear}, dtype=torch.qint8, inplace=True
    )


def dynamic_by_row(model: Any) -> None:
    """The same with a scale for each row of weights instead of one for all."""
    by_row = torch.ao.quantization.per_channel_dynamic_qconfig
    torch.ao.quantization.quantize_dynamic(
        model, {torch.nn.Linear: by_row}, inplace=True
    )


def torchao_int8(model: Any) -> None:
    """Int8 weights of torchao; the product is in bf16."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(model, Int8WeightOnlyConfig())


class LlamaCpp:
    """llama.cpp on the official file, in this process (package xllamacpp)."""

    def load(self) -> None:
        """Start the server object on two threads."""
        import xllamacpp

        wanted = xllamacpp.CommonParams()
        wanted.model.path = str(located(NAME))
        wanted.n_ctx, wanted.warmup = 2048, True
        wanted.cpuparams.n_threads = os.cpu_count() or 1
        self.server = xllamacpp.Server(wanted)

    def size(self) -> dict[str, float]:
        """Return MB on disk and read for a token: all tensors but the embedding."""
        from gguf import GGUFReader

        tensors = GGUFReader(located(NAME)).tensors
        read = sum(t.n_bytes for t in tensors if t.name != "token_embd.weight")
        return {"disk_mb": located(NAME).stat().st_size / 1e6, "read_mb": read / 1e6}

    def ask(self, messages: Any, room: int, stop: Any = ()) -> dict[str, Any]:
        """Return the answer of its OpenAI-shaped interface, timings included."""
        request = {
            "messages": messages, "max_tokens": room, "temperature": 0,
            "repeat_penalty": 1.0, "stop": list(stop), "cache_prompt": False,
        }  # fmt: skip
        found = self.server.handle_chat_completions(request)
        return json.loads(found) if isinstance(found, str) else found

    def answers(self, conversations: list[Any], room: int, stop: Any) -> list[str]:
        """Return the greedy reply to each conversation, one after another."""
        return [
            self.ask(messages, room, stop)["choices"][0]["message"]["content"]
            for messages in conversations
        ]

    def speed(self, variant: str = "") -> float:
        """Return the tokens a second of decoding, by its own clock."""
        return self.ask(QUESTION, TOKENS)["timings"]["predicted_per_second"]


class OpenVino:
    """OpenVINO GenAI on a folder that optimum-intel wrote from the bf16 weights."""

    def __init__(self, folder: str):
        self.folder = OPENVINO / folder

    def load(self) -> None:
        """Load the pipeline."""
        import openvino_genai

        self.pipeline = openvino_genai.LLMPipeline(str(self.folder), "CPU")
        self.genai = openvino_genai

    def size(self) -> dict[str, float]:
        """Return MB; the embedding, 8 bits a weight, is not read."""
        disk = (self.folder / "openvino_model.bin").stat().st_size / 1e6
        card = catalog.find(NAME)
        return {"disk_mb": disk, "read_mb": disk - card.vocab_size * card.hidden / 1e6}

    def quality(self, text: str) -> dict[str, float]:
        """Return perplexity, KL and agreement, from the logits of the graph itself."""
        import numpy as np
        import openvino

        core = openvino.Core()
        graph = core.compile_model(self.folder / "openvino_model.xml", "CPU")

        def run(input_ids: Any, logits_to_keep: int) -> Any:
            request = graph.create_infer_request()
            n = input_ids.shape[1]
            request.infer({
                "input_ids": input_ids.numpy(), "attention_mask": np.ones((1, n), "i8"),
                "position_ids": np.arange(n)[None], "beam_idx": np.zeros(1, "i4"),
            })  # fmt: skip
            logits = torch.tensor(request.get_output_tensor(0).data)
            return SimpleNamespace(logits=logits[:, -logits_to_keep:])

        reference = models.load(NAME)
        run.get_input_embeddings = reference.model.get_input_embeddings  # of one size
        found = quantize.compare(reference, SimpleNamespace(model=run), text)
        return {"perplexity": found.perplexity, "kl": found.kl, "top1": found.top1}

    def _config(self, room: int, stop: Any = ()) -> Any:
        config = self.genai.GenerationConfig()
        config.max_new_tokens, config.do_sample = room, False
        config.repetition_penalty, config.apply_chat_template = 1.0, False
        config.stop_strings = set(stop)
        config.eos_token_id = 151645
        return config

    def answers(self, conversations: list[Any], room: int, stop: Any) -> list[str]:
        """Return the greedy reply to each conversation, one after another."""
        tokenizer = models.load(NAME).tokenizer
        return [
            str(self.pipeline.generate([chat.render(tokenizer, messages)],
                                       self._config(room, stop)).texts[0])
            for messages in conversations
        ]  # fmt: skip

    def speed(self, variant: str = "") -> float:
        """Return the tokens a second of decoding, by its own clock."""
        tokenizer = models.load(NAME).tokenizer
        prompt = chat.render(tokenizer, QUESTION)
        found = self.pipeline.generate([prompt], self._config(TOKENS))
        return 1000 / found.perf_metrics.get_tpot().mean


class Bandwidth:
    """No model: how fast two threads read memory, in GB/s."""

    def load(self) -> None:
        """Fill a gigabyte."""
        self.block = torch.ones(2**28)

    def speed(self, variant: str = "") -> float:
        """Return the GB (1e9 bytes) read a second, the best of ten."""
        best = 0.0
        for _ in range(10):
            started = time.perf_counter()
            self.block.max()
            best = max(best, 4 * 2**28 / 1e9 / (time.perf_counter() - started))
        return best


NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
       "bnb_4bit_compute_dtype": torch.bfloat16}  # fmt: skip
FORMATS: dict[str, Any] = {
    "transformers bf16": Torch(),
    "transformers fp32": Torch(dtype="float32"),
    "transformers fp16": Torch(dtype="float16"),
    "own int8, a scale a row": Rounded(bits=8, group=None),
    "own int4, group 64": Rounded(bits=4),
    "own NF4, group 64": Rounded(kind="nf4"),
    "own int3, group 64": Rounded(bits=3),
    "own int2, group 64": Rounded(bits=2),
    "bitsandbytes int8": BitsAndBytes(load_in_8bit=True),
    "bitsandbytes NF4": BitsAndBytes(**NF4),
    "bitsandbytes NF4, double": BitsAndBytes(**NF4, bnb_4bit_use_double_quant=True),
    "PyTorch dynamic int8": Converted(dynamic_int8, dtype=torch.float32),
    "PyTorch dynamic int8, by row": Converted(dynamic_by_row, dtype=torch.float32),
    "torchao int8": Converted(torchao_int8, dtype=torch.bfloat16),
    "llama.cpp Q4_K_M": LlamaCpp(),
    "OpenVINO int8": OpenVino("openvino_int8"),
    "OpenVINO int4": OpenVino("openvino_int4"),
}  # fmt: skip
NEEDS = {"torchao": "torchao", "llama.cpp": "xllamacpp", "OpenVINO": "openvino_genai"}
VARIANTS = ("", "one thread", "no cache", "static cache", "batch 8", "batch 32",
            "copy", "copy, lookup", "lookup")  # fmt: skip


def installed(name: str) -> bool:
    """Return whether a format's package, and OpenVINO's folder, are here."""
    package = next((p for start, p in NEEDS.items() if name.startswith(start)), "torch")
    engine = FORMATS[name]
    there = not isinstance(engine, OpenVino) or engine.folder.is_dir()
    return bool(importlib.util.find_spec(package)) and there


def peak_gb() -> float:
    """Return this process's peak memory in GB (Linux)."""
    found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 / 1e9 if found else 0.0


def serve(name: str, pipe: Any) -> None:
    """Do what comes through the pipe with one format, in a process of its own."""
    models.quiet()
    engine = Bandwidth() if name == "bandwidth" else FORMATS[name]
    started = time.monotonic()
    engine.load()
    pipe.send(time.monotonic() - started)
    while True:
        do, *arguments = pipe.recv()
        if do == "peak":
            pipe.send(peak_gb())
        else:
            pipe.send(getattr(engine, do)(*arguments))


@contextlib.contextmanager
def process(name: str) -> Any:
    """Give a function that asks a new process for one format."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    child = multiprocessing.get_context("spawn").Process(
        target=serve, args=(name, there), daemon=True
    )
    child.start()

    def ask(*what: Any) -> Any:
        if what:
            here.send(what)
        while not here.poll(1):
            if not child.is_alive():
                raise RuntimeError(f"{name}: the process ended, see its message above.")
        return here.recv()

    try:
        ask.load_seconds = ask()  # type: ignore[attr-defined]
        yield ask
    finally:
        child.terminate()
        child.join()


def about() -> dict[str, Any]:
    """Return model, versions, date and machine."""
    versions = {}
    for package in ("torch", "transformers", "bitsandbytes", *NEEDS.values()):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package.replace("_", "-"))
    date = datetime.date.today().isoformat()
    machine = f"{os.cpu_count()} cores, {sys.platform}"
    return {"model": NAME, "date": date, "machine": machine, "versions": versions}


def store(file: str, key: str, rows: dict[str, Any]) -> None:
    """Write the rows of one kind, beside what is stored already."""
    path = MEASURED / file
    stored = json.loads(path.read_text("utf-8")) if path.exists() else {}
    stored = {**stored, **about(), key: {**stored.get(key, {}), **rows}}
    path.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", "utf-8")


def quality(names: list[str], replies: bool = True) -> None:
    """Measure size, load time, memory, text quality and right answers of formats."""
    text = catalog.text("samples/reading.txt")
    problems = tasks.samples("functions")
    asked = [said(problem.question) for problem in problems]
    for name in names:
        row: dict[str, Any] = {}
        with process(name) as ask:
            row["load_seconds"] = round(ask.load_seconds, 1)
            ask("speed")
            row["peak_gb"] = round(ask("peak"), 2)
            row |= {key: round(value, 1) for key, value in ask("size").items()}
            if hasattr(FORMATS[name], "quality"):
                row |= {k: round(v, 4) for k, v in ask("quality", text).items()}
            texts = ask("answers", asked, 300, ("```\n",)) if replies else []
        marks = [
            answers.solves("functions", text, problem.tests).passed
            for problem, text in zip(problems, texts, strict=replies)
        ]
        if replies:
            row["functions"] = "".join(str(int(mark)) for mark in marks)
        store("formats.json", "formats", {name: row})
        tqdm.write(f"{name}: {row}")


def speed(names: list[str], rounds: int = 5) -> None:
    """Measure tokens a second in turns; store each turn."""
    with contextlib.ExitStack() as stack:
        workers = {n: stack.enter_context(process(n)) for n in ["bandwidth", *names]}
        jobs = [(name, "") for name in workers]
        jobs += [("transformers bf16", variant) for variant in VARIANTS[1:]]
        found: dict[str, list[float]] = {}
        for turn in range(rounds + 1):
            for name, variant in jobs:
                value = workers[name]("speed", variant)
                if turn:  # the first turn warms up
                    key = f"{name}, {variant}" if variant else name
                    found.setdefault(key, []).append(round(value, 2))
            medians = {key: statistics.median(v) for key, v in found.items()}
            tqdm.write(f"{turn}: {medians}")
    rows = {
        key: {"tokens_per_second": statistics.median(turns), "turns": turns}
        for key, turns in found.items()
    }
    gb = {"gb_per_second": max(found["bandwidth"]), "turns": found["bandwidth"]}
    rows.pop("bandwidth")
    store("engines.json", "bandwidth", gb)
    store("engines.json", "speed", rows)


def main() -> None:
    """Measure the formats named on the command line, or all that are installed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument(
        "--speed", action="store_true", help="tokens a second, in turns"
    )
    parser.add_argument("--no-replies", action="store_true", help="leave tasks out")
    options = parser.parse_args()
    names = options.names or [name for name in FORMATS if installed(name)]
    if options.speed:
        speed([n for n in names if "own" not in n])
    else:
        quality(names, not options.no_replies)


if __name__ == "__main__":
    main()
