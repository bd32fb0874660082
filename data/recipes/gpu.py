"""Measure LoRA and QLoRA steps of a 7B model on a GPU; nothing is downloaded.

    python data/recipes/gpu.py

The model has the shape of Qwen2.5-7B-Instruct and random weights: time and memory are
real, what it would learn is not. Each format runs in a process of its own, so that
peaks do not mix. Results go to data/measured/gpu.json (lesson 06d). Minutes; needs a
CUDA device of 40 GB, bitsandbytes, and 20 GB of disk.
"""

import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))  # the recipes also run uninstalled

from qwen_course import catalog, finetune, models  # noqa: E402

PLACE = HERE.parent / "measured" / "gpu.json"
SHAPE = "Qwen2.5-7B-Instruct"
STEPS, ROWS = 12, 8  # rows a step
FORMATS = {"bf16": 1, "nf4": 1, "nf4, a row at a time": 8}  # parts of a step


def random_model() -> Any:
    """Return a model of the shape with random bfloat16 weights, on the GPU."""
    card = catalog.find(SHAPE)
    config = transformers.Qwen2Config(
        vocab_size=card.vocab_size,
        hidden_size=card.hidden,
        intermediate_size=card.intermediate,
        num_hidden_layers=card.layers,
        num_attention_heads=card.heads_q,
        num_key_value_heads=card.heads_kv,
        max_position_embeddings=card.context_native,
        tie_word_embeddings=card.tie_embeddings,
    )
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        return transformers.Qwen2ForCausalLM(config)


def measured(kind: str, folder: Path) -> dict[str, Any]:
    """Return seconds and memory of loading and of a few steps of one format."""
    options: dict[str, Any] = {"dtype": torch.bfloat16, "device_map": {"": 0}}
    if kind.startswith("nf4"):
        options["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    started = time.perf_counter()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **options)
    torch.cuda.synchronize()
    loading = time.perf_counter() - started
    weights = torch.cuda.memory_allocated() / 1e9
    tokenizer = models.load("pocket-chat").tokenizer  # for its template and text
    source = models.Source("named", SHAPE, "gpu", folder, 0.0, "random weights")
    loaded = models.Loaded(model.eval(), tokenizer, source)
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    examples = []
    for number in range(64):
        text = " ".join(words[(number + i * i) % 8] for i in range(60))
        asked = {"role": "user", "content": f"{number}: {text}"}
        examples.append([asked, {"role": "assistant", "content": text}])
    parts = FORMATS[kind]
    settings = finetune.LoraSettings(
        steps=STEPS, batch_size=ROWS // parts, accumulate=parts, rank=16
    )
    torch.cuda.reset_peak_memory_stats()
    history = finetune.train(loaded, examples, settings)
    later = history.losses[2:]  # the first steps warm the GPU up
    seconds = later[-1]["seconds"] - history.losses[1]["seconds"]
    tokens = sum(row["tokens"] for row in later)
    return {
        "load_seconds": round(loading, 1),
        "weights_gb": round(weights, 2),
        "peak_gb": round(history.peak_gb, 2),
        "trained_parameters": history.trainable,
        "seconds_a_step": round(seconds / len(later), 3),
        "tokens_a_step": round(tokens / len(later)),
        "tokens_per_second": round(tokens / seconds),
        "loss": [round(row["loss"], 3) for row in history.losses],
    }


def main() -> None:
    """Measure every format, each in its own process."""
    models.quiet()
    if len(sys.argv) > 1:
        kind, folder = sys.argv[1:]
        if kind == "make":
            random_model().save_pretrained(folder)
        else:
            sys.stdout.write(json.dumps(measured(kind, Path(folder))) + "\n")
        return
    folder = Path(tempfile.mkdtemp())
    found: dict[str, Any] = {}
    try:
        for kind in ("make", *FORMATS):
            command = [sys.executable, __file__, kind, str(folder)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            if kind != "make" and done.returncode == 0:
                found[kind] = json.loads(done.stdout.splitlines()[-1])
            tqdm.write(f"{kind}: exit {done.returncode}, {found.get(kind)}")
    finally:
        shutil.rmtree(folder)
    stored = {
        "shape": SHAPE,
        "weights": "random",
        "rows_a_step": ROWS,
        "steps": STEPS,
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
        "formats": found,
    }
    PLACE.write_text(json.dumps(stored, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
