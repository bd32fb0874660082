"""Measures LoRA on bf16 weights against QLoRA on 4-bit weights; keeps the numbers.

    python data/recipes/qlora.py [MODEL]  # minutes; on a GPU where there is one

Each runs in a process of its own, on one thread, so that its memory and its seconds of
the processor are its own. The same eight texts, the same seed, a few steps each: time
and memory, not quality. Results: data/measured/qlora.json. Not part of the tests.
"""

import datetime
import gc
import importlib.metadata
import json
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from qwen_course import catalog, finetune, models, quantize
from qwen_course.weights import dequantised

STEPS, BATCH = 4, 2


def examples() -> list[Any]:
    """Return eight chat examples of about 130 tokens, from the course's own text."""
    text = catalog.text("samples/reading.txt").split()
    parts = [" ".join(text[i : i + 80]) for i in range(0, 640, 80)]
    return [
        [{"role": "user", "content": f"Write part {n} of the text."},
         {"role": "assistant", "content": part}]
        for n, part in enumerate(parts, 1)
    ]  # fmt: skip


def four_bits(name: str) -> models.Loaded:
    """Return the model in NF4, loaded without a 16-bit copy beside it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    source = models.resolve(name)
    folder = source.path
    if folder.suffix == ".gguf":
        folder = dequantised(folder)
    device = "cuda" if models.gpu_memory_gb() else "cpu"
    how = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, device_map=device, quantization_config=how
    )
    return models.Loaded(model, AutoTokenizer.from_pretrained(folder), source)


def forget_peak() -> None:
    """Let the peak begin anew: loading is over (Linux, man proc, clear_refs)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    Path("/proc/self/clear_refs").write_text("5")


def peak_gb() -> float:
    """Return the largest memory of this process since then."""
    status = Path("/proc/self/status").read_text("utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def measure(name: str, bits: int, pipe: Any) -> None:
    """Send what a few steps of training take; runs in a process of its own."""
    models.quiet()
    torch.set_num_threads(1)
    loaded = four_bits(name) if bits == 4 else models.load(name)
    settings = finetune.LoraSettings(steps=STEPS, batch_size=BATCH)
    gc.collect()
    forget_peak()
    loaded_gb = peak_gb()
    started = time.process_time()
    history = finetune.train(loaded, examples(), settings)
    busy = (time.process_time() - started) / STEPS
    gpu = loaded.model.device.type == "cuda"
    pipe.send(
        {
            "weights_mb": round(quantize.model_size_mb(loaded.model)),
            "trained": history.trainable,
            # of one thread: on a busy machine, wall clock would measure the others
            "seconds_a_step": round(history.seconds / STEPS if gpu else busy, 2),
            "tokens_a_step": round(
                statistics.mean(r["tokens"] for r in history.losses)
            ),
            "loaded_gb": round(loaded_gb, 2),
            "training_gb": round(history.peak_gb if gpu else peak_gb(), 2),
            "device": loaded.model.device.type,
        }
    )


def main() -> None:
    """Measure both, one after the other, and store them."""
    name = sys.argv[1] if len(sys.argv) > 1 else "Qwen2.5-Coder-0.5B-Instruct"
    found: dict[str, Any] = {}
    context = multiprocessing.get_context("spawn")
    for kind, bits in {"LoRA, bf16": 16, "QLoRA, NF4": 4}.items():
        here, there = context.Pipe()
        child = context.Process(target=measure, args=(name, bits, there))
        child.start()
        there.close()
        found[kind] = here.recv()  # EOFError: the process ended, see its message
        child.join()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    packages = ("torch", "transformers", "peft", "bitsandbytes")
    about = {
        "date": datetime.date.today().isoformat(),
        "machine": gpu or f"{os.cpu_count()} cores, {sys.platform}",
        "versions": {p: importlib.metadata.version(p) for p in packages},
        "batch": BATCH,
        "steps": STEPS,
    }
    path = catalog.data_dir() / "measured" / "qlora.json"
    stored = json.loads(path.read_text("utf-8")) if path.exists() else {}
    stored[f"{name}, {'GPU' if gpu else 'CPU'}"] = about | {"runs": found}
    path.write_text(json.dumps(stored, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
