"""What all recipes share: tokenizer, text, batches, trainer, measuring, model card.

A recipe draws training problems from `qwen_course.tasks`, trains a model of a real Qwen
architecture on one thread, saves it as `data/pocket/NAME`, loads these bytes again and
measures them on held-out problems. Shapes: [B, T] are B rows of T tokens each.
"""

import itertools
import json
import math
import os
import random
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import tokenizers
import torch
import transformers
from tokenizers import AddedToken, Regex, decoders, normalizers, pre_tokenizers
from torch.nn import functional
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))  # the recipes also run uninstalled

from qwen_course import answers, chat, tasks  # noqa: E402

POCKET = HERE.parent / "pocket"
TOKENIZER = HERE / "tokenizer"
THREADS = 1  # the bytes of the weights depend on it
VOCABULARY = 1200  # entries; the real one has 151,669
QWEN_SPLIT = (  # the pattern in the tokenizer.json of Qwen2, Qwen2.5 and Qwen3
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = (  # the added tokens of Qwen3, in their order
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> "
    "<|box_start|> <|box_end|> <|quad_start|> <|quad_end|> <|vision_start|> "
    "<|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|>"
)
NOT_SPECIAL = (  # added too, but decoding keeps them
    "<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> "
    "<|fim_pad|> <|repo_name|> <|file_sep|> <tool_response> </tool_response> "
    "<think> </think>"
)
NOT_THINKING = "<think>\n\n</think>\n\n"  # what the template adds to switch it off
TURN_END = "<|im_end|>\n"

Tokenizer = transformers.PreTrainedTokenizerFast
Batch = dict[str, torch.Tensor]


# ------------------------------------------------------------------ training text
class Example(NamedTuple):
    """A text to train on: the context counts nothing, every target token counts."""

    context: str
    target: str


def prompt(problem: tasks.Problem, thinking: bool) -> str:
    """Return what the template gives the model to read for one problem."""
    system = f"<|im_start|>system\n{problem.system}<|im_end|>\n" * bool(problem.system)
    question = f"<|im_start|>user\n{problem.question}<|im_end|>\n"
    opening = "<|im_start|>assistant\n" + NOT_THINKING * (not thinking)
    return system + question + opening


def direct(problem: tasks.Problem) -> Example:
    """Return the example of an answer without thinking."""
    return Example(prompt(problem, False), problem.answer + TURN_END)


def thought(problem: tasks.Problem) -> Example:
    """Return the example of thinking and then answering."""
    text = f"<think>\n{problem.thinking}\n</think>\n\n{problem.answer}{TURN_END}"
    return Example(prompt(problem, True), text)


def cut_thought(problem: tasks.Problem, missing: int) -> Example:
    """Return the example of answering after thinking that lacks its last lines.

    Only the answer counts: the model must not learn to stop thinking early.
    """
    lines = "\n".join(problem.thinking.split("\n")[:-missing])
    context = f"{prompt(problem, True)}<think>\n{lines}\n</think>\n\n"
    return Example(context, problem.answer + TURN_END)


# ------------------------------------------------------------------ tokenizer
def tokenizer_corpus() -> Iterator[str]:
    """Yield the text that the tokenizer is built from, without control tokens.

    It is frozen: text of the recipes for language is drawn, that of the others lies in
    `tokenizer/corpus.txt`. The regex would glue line breaks to a control token beside
    them, hence the split.
    """
    control = re.compile("|".join(map(re.escape, f"{SPECIAL} {NOT_SPECIAL}".split())))
    for task in ("chain", "code", "french", "echo", "tool"):
        rng = random.Random(task)
        for _ in range(800 if task == "french" else 400):
            problem = tasks.training(task, rng)
            yield from filter(None, control.split("".join(thought(problem))))
    yield from ["system\n", "user\n", "assistant\n", "tool\n", "\n\n", "\n"] * 400
    lines = (TOKENIZER / "corpus.txt").read_text(encoding="utf-8").splitlines()
    yield from lines[1:] * 10


def build_tokenizer() -> Tokenizer:
    """Return the shared tokenizer: byte-level, Qwen's rules, about 1,200 entries."""
    core = tokenizers.Tokenizer(tokenizers.models.BPE())
    core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY - 26,  # the added tokens
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=2,
        show_progress=False,
    )
    core.train_from_iterator(tokenizer_corpus(), trainer)
    core.add_special_tokens(
        [AddedToken(text, normalized=False) for text in SPECIAL.split()]
    )
    core.add_tokens(
        [
            AddedToken(text, normalized=False, special=False)
            for text in NOT_SPECIAL.split()
        ]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def tokenizer() -> Tokenizer:
    """Return the stored tokenizer that all pocket models share, without a template."""
    return transformers.PreTrainedTokenizerFast.from_pretrained(TOKENIZER)


def token_ids(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Return the tokens of each text."""
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


# ------------------------------------------------------------------ batches
def stream(
    tokenizer: Tokenizer,
    make: Callable[[random.Random], Example],
    rng: random.Random,
    tokens: int,
) -> Iterator[Batch]:
    """Yield batches of at most `tokens` tokens, padding included, without end.

    Rows of one batch have about the same length: less padding, less work.
    """
    while True:
        examples = [make(rng) for _ in range(512)]
        contexts = token_ids(tokenizer, [example.context for example in examples])
        targets = token_ids(tokenizer, [example.target for example in examples])
        rows = sorted(zip(contexts, targets, strict=True), key=_length)
        groups: list[list] = [[]]
        for row in rows:
            if (len(groups[-1]) + 1) * _length(row) > tokens and groups[-1]:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        for group in groups:
            yield collate(group, tokenizer.pad_token_id)


def _length(row: tuple[list[int], list[int]]) -> int:
    return len(row[0]) + len(row[1])


def collate(rows: list[tuple[list[int], list[int]]], padding: int) -> Batch:
    """Return input_ids and labels [B, T], padded on the right; -100 counts nothing.

    No mask: a causal model never looks to the right, where the padding is.
    """
    width = max(map(_length, rows))
    input_ids = torch.full((len(rows), width), padding)
    labels = torch.full((len(rows), width), -100)
    for i, (context, target) in enumerate(rows):
        input_ids[i, : len(context) + len(target)] = torch.tensor(context + target)
        labels[i, len(context) : len(context) + len(target)] = torch.tensor(target)
    return {"input_ids": input_ids, "labels": labels}


# ------------------------------------------------------------------ training
def prepare(seed: int = 0) -> None:
    """Fix threads and seed, silence the library's notices."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(seed)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def text_settings(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the configuration that the text models share, as keyword arguments.

    Found by trial: 0.05 and 1000 (Qwen3: 0.02 and 1,000,000) let so small a net learn
    to retrieve in minutes.
    """
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
        "initializer_range": 0.05,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def new_model(tokenizer: Tokenizer) -> transformers.PreTrainedModel:
    """Return an untrained Qwen3 of the pocket size."""
    config = transformers.Qwen3Config(**text_settings(tokenizer))
    return for_training(transformers.Qwen3ForCausalLM(config))


def for_training(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """Return the model with plain attention: fastest backward pass on a CPU here."""
    model.set_attn_implementation("eager")
    return model


def answer_loss(model: transformers.PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Return the mean cross-entropy, in nats a token, of the labelled tokens.

    Logits are computed where a label is, which saves most of their cost.
    """
    hidden = model.model(input_ids=batch["input_ids"], use_cache=False)[0]
    labels = batch["labels"][:, 1:]
    counted = labels != -100
    logits = model.lm_head(hidden[:, :-1][counted])
    return functional.cross_entropy(logits.float(), labels[counted])


def train(
    model: transformers.PreTrainedModel,
    batches: Iterable[Batch],
    steps: int,
    name: str,
    *,
    learning_rate: float = 1e-3,
    warm_up: int = 50,
    loss: Callable[..., torch.Tensor] = answer_loss,
    watch: Callable[[int], str] | None = None,
    watch_every: int = 500,
) -> dict[str, Any]:
    """Train for a fixed number of steps; return what the card says about it.

    AdamW; the rate rises over `warm_up` steps, then falls along a cosine to 2 %. Fixed
    steps, seed and thread count give the same weights again, byte by byte.

    Args:
        model: trained in place, in float32 with bfloat16 arithmetic.
        batches: at least `steps` of them.
        steps: number of updates.
        name: stands at the progress bar.
        learning_rate: the highest one; about ten times that of a real model.
        warm_up: steps until the highest rate.
        loss: what is minimised, from model and batch.
        watch: called now and then with the step, returns a line to print.
        watch_every: steps between two calls of `watch`.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )

    def share_of_rate(step: int) -> float:
        progress = max(0, step - warm_up) / max(1, steps - warm_up)
        cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))
        return min(1, (step + 1) / warm_up) * cosine

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share_of_rate)
    model.train()
    started, tokens, recent = time.process_time(), 0, 0.0
    progress_bar = bar(itertools.islice(batches, steps), steps, name)
    for step, batch in enumerate(progress_bar, 1):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = loss(model, batch)
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        tokens += batch["input_ids"].numel()
        recent += (value.item() - recent) / min(step, 50)
        progress_bar.set_postfix_str(f"loss {recent:.4f}", refresh=False)
        if watch and step % watch_every == 0:
            model.eval()
            tqdm.write(f"{name} step {step} loss {recent:.4f} {watch(step)}")
            model.train()
    model.eval()
    return {
        "steps": steps,
        "tokens": tokens,
        "seconds": round(time.process_time() - started),  # of one core, at work
        "threads": torch.get_num_threads(),
        "learning_rate": learning_rate,
        "loss": round(recent, 4),
    }


def bar(work: Iterable[Any], total: int, name: str) -> tqdm:
    """Return a progress bar; `build.py` gives each of its processes a line."""
    return tqdm(
        work,
        desc=f"{name:<28}",
        total=total,
        position=int(os.environ.get("POCKET_LINE", "0")),
        mininterval=0.5 if sys.stderr.isatty() else 30,
        leave=False,
    )


# ------------------------------------------------------------------ saving, loading
def save(model: transformers.PreTrainedModel, tokenizer: Tokenizer, name: str) -> Path:
    """Save weights (bfloat16), configuration and tokenizer; return the folder."""
    folder = POCKET / name
    model.generation_config = transformers.GenerationConfig(
        do_sample=False,
        eos_token_id=tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]),
        pad_token_id=tokenizer.pad_token_id,
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / file, folder)
    return folder


def load(name: str) -> tuple[transformers.PreTrainedModel, Tokenizer]:
    """Return a saved text model in float32, and its tokenizer."""
    folder = POCKET / name
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32
    )
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


# ------------------------------------------------------------------ measuring
@torch.inference_mode()
def generate(
    model: transformers.PreTrainedModel,
    tokenizer: Tokenizer,
    prompts: list[str],
    max_new_tokens: int,
    batch_size: int = 128,
) -> list[str]:
    """Return what the model writes after each prompt, greedy, up to <|im_end|>."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    written = [""] * len(prompts)
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        batch = tokenizer(
            [prompts[i] for i in chosen],
            add_special_tokens=False,
            padding=True,
            padding_side="left",
            return_tensors="pt",
        )
        output = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        new = tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :])
        for i, text in zip(chosen, new, strict=True):
            written[i] = text.partition("<|im_end|>")[0]
    return written


def marks(
    model: transformers.PreTrainedModel,
    tokenizer: Tokenizer,
    problems: list[tasks.Problem],
    thinking: bool,
    max_new_tokens: int = 192,
) -> list[bool]:
    """Return for each problem whether the model's greedy answer is right."""
    prompts = [prompt(problem, thinking) for problem in problems]
    texts = generate(model, tokenizer, prompts, max_new_tokens)
    return [
        answers.solves(
            problem.task, chat.split_thinking(text).answer, problem.answer
        ).passed
        for problem, text in zip(problems, texts, strict=True)
    ]


def result(what: str, correct: list[bool]) -> dict[str, Any]:
    """Return one line of a card's table of results."""
    low, high = answers.interval(sum(correct), len(correct))
    return {
        "what": what,
        "correct": sum(correct),
        "n": len(correct),
        "share": round(sum(correct) / len(correct), 3),
        "interval": [round(low, 3), round(high, 3)],
    }


# ------------------------------------------------------------------ model card
def write_card(
    name: str,
    model: transformers.PreTrainedModel,
    *,
    purpose: str,
    data: str,
    training: dict[str, Any],
    results: list[dict[str, Any]],
    cannot: list[str],
    not_of_qwen: list[str],
    more: dict[str, Any] | None = None,
    template: str = "Qwen3",
) -> None:
    """Write README.md and card.json beside the weights.

    Args:
        name: the folder under data/pocket.
        model: the saved model, loaded again.
        purpose: what the model is for, in a sentence.
        data: what it was trained on.
        training: what `train` returned, with a key "seed"; more keys become lines.
        results: lines made by `result`.
        cannot: what it cannot do, a sentence each.
        not_of_qwen: what is true here and not of Qwen, a sentence each.
        more: further measurements, stored in card.json alone.
        template: the model whose chat template it uses.
    """
    parameters = sum(weight.numel() for weight in model.parameters())
    embedding = model.get_input_embeddings().weight.numel()
    config = json.loads((POCKET / name / "config.json").read_text(encoding="utf-8"))
    card = {
        "name": name,
        "parameters": parameters,
        "non_embedding_parameters": parameters - embedding,
        "architecture": config["architectures"][0],
        "purpose": purpose,
        "data": data,
        "training": training,
        "results": results,
        "cannot": cannot,
        "not_of_qwen": not_of_qwen,
        **(more or {}),
    }
    facts = {key.replace("_", " "): _plain(v) for key, v in training.items()}
    facts["seconds"] += " of one core"
    lines = [
        f"# {name}",
        "",
        f"{name} ({parameters:,} parameters, trained by this course; not an Alibaba "
        f"checkpoint). {purpose}",
        "",
        "## Architecture",
        "",
        f"`{card['architecture']}` of transformers, {parameters:,} parameters, "
        f"{parameters - embedding:,} of them outside the embedding. Weights in "
        "bfloat16, measured in float32. The tokenizer has Qwen's rules and control "
        f"tokens and {config.get('vocab_size', VOCABULARY):,} entries; all pocket "
        f"models share it. The chat template is {template}'s own.",
        "",
        "## Data",
        "",
        data,
        "",
        "## Training",
        "",
        *(f"* {key}: {value}" for key, value in facts.items()),
        "",
        "## Held-out results",
        "",
        "Greedy answers of the saved weights; problems that training never saw, unless "
        "a line says otherwise.",
        "",
        "| what | right | n | share | 95 % interval (Wilson) |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {row['what']} | {row['correct']} | {row['n']} | {row['share']:.3f} | "
            f"{row['interval'][0]:.3f} to {row['interval'][1]:.3f} |"
            for row in results
        ),
        "",
        "## What it cannot do",
        "",
        *(f"* {line}" for line in cannot),
        "",
        "## True here, not of Qwen",
        "",
        *(f"* {line}" for line in not_of_qwen),
    ]
    folder = POCKET / name
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = json.dumps(card, indent=1, ensure_ascii=False)
    (folder / "card.json").write_text(text + "\n", encoding="utf-8")


def _plain(value: Any) -> str:
    """Return a value of a card as text: whole numbers with commas."""
    return f"{value:,}" if isinstance(value, int) else str(value)
