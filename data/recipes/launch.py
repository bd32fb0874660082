"""Trains an adapter in as many processes as accelerate starts; writes the losses.

    ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 \\
        data/recipes/launch.py losses.json
    accelerate launch --config_file data/scaling/fsdp.yaml \\
        data/recipes/launch.py losses.json --trl --model Qwen3-4B

Each process runs this file and takes its share of every batch; all average their
gradients. (With --cpu, accelerate starts one process, whatever number is asked for.)
In our own loop each process holds the whole model. trl's trainer can also share out the
model itself, by FSDP or DeepSpeed: the documented way for models too large for one GPU.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from accelerate import Accelerator, PartialState

from qwen_course import chat, finetune, models, tasks

BATCH, RATE, WARM_UP = 16, 5e-3, 0.1  # of all processes together; a pocket model's rate


def example(problem: tasks.Problem) -> dict[str, Any]:
    """Return a tool problem as messages; arguments as text, for `datasets`' sake."""
    calls = [
        {"type": "function", "function": call | {"arguments": json.dumps(arguments)}}
        for call in chat.parse_tool_calls(problem.answer)
        if (arguments := call["arguments"])
    ]
    asked = {"role": "user", "content": problem.question}
    return {"messages": [asked, {"role": "assistant", "tool_calls": calls}]}


def ours(loaded: models.Loaded, examples: list[Any], steps: int) -> list[float]:
    """Return the losses of the course's own loop."""
    settings = finetune.LoraSettings(
        rank=8, learning_rate=RATE, steps=steps, batch_size=BATCH, warm_up=WARM_UP
    )
    history = finetune.train(loaded, examples, settings, accelerator=Accelerator())
    return [row["loss"] for row in history.losses]


def with_trl(loaded: models.Loaded, examples: list[Any], steps: int) -> list[float]:
    """Return the losses of trl's trainer."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    cpu = not torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            folder, max_steps=steps, learning_rate=RATE, warmup_steps=WARM_UP,
            lr_scheduler_type="cosine", assistant_only_loss=True, use_cpu=cpu,
            bf16=not cpu, logging_steps=1, save_strategy="no", report_to="none",
            disable_tqdm=True, gradient_checkpointing=None,  # a name of the past
        )  # fmt: skip
        settings.per_device_train_batch_size = BATCH // settings.world_size
        adapter = LoraConfig(
            r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        trainer = SFTTrainer(
            loaded.model, settings, train_dataset=Dataset.from_list(examples),
            processing_class=loaded.tokenizer, peft_config=adapter,
        )  # fmt: skip
        trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def main() -> None:
    """Train; the first process writes the losses."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("losses", type=Path, help="a JSON file, written at the end")
    parser.add_argument("--model", default="pocket-generalist-echo")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--trl", action="store_true", help="use trl's trainer")
    options = parser.parse_args()
    models.quiet()
    loaded = models.load(options.model, device="cpu")  # each process moves its own
    examples = [example(p) for p in tasks.draw("tool", 320, seed=1, held_out=False)]
    found = (with_trl if options.trl else ours)(loaded, examples, options.steps)
    state = PartialState()
    if state.is_main_process:
        told = {"processes": state.num_processes, "losses": found}
        options.losses.write_text(json.dumps(told) + "\n", "utf-8")


if __name__ == "__main__":
    main()
