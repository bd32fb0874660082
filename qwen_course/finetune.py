"""LoRA: an adapter on a model, trained, saved, loaded, merged; or a full fine-tune.

Gets a `models.Loaded` and gives back another one. Both share the weights of the base,
which are never changed. Loads no models, knows no tasks. peft makes the adapters.
"""

import copy
import json
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from qwen_course.errors import CourseError, out_of_range, refuse
from qwen_course.masking import Example, refuse_leaks, tokenize
from qwen_course.quantize import QuantizedTensor
from qwen_course.training import History, Run, interrupts

_RANGES = {
    "rank": (1, 4096), "steps": (1, 10**7), "batch_size": (1, 10**5),
    "accumulate": (1, 10**5), "max_length": (1, 10**7), "seed": (0, 2**63 - 1),
    "evaluate_every": (1, 10**7), "patience": (1, 10**7),
    "alpha": (1e-6, 1e6), "dropout": (0.0, 0.99), "learning_rate": (1e-9, 10.0),
    "warm_up": (0.0, 1.0), "weight_decay": (0.0, 10.0),
}  # fmt: skip
TUNED = "its weights were tuned"
_OWN = ("lora_", "trainable_tokens_delta")  # in the names of an adapter's weights


@dataclass(frozen=True, kw_only=True)
class LoraSettings:
    """How to tune. The defaults suit official models; pocket models need more.

    A step takes batch_size x accumulate rows. The rate rises over the first share
    `warm_up` of the steps, then falls to 0 along a cosine.
    """

    rank: int = 16  # columns of B, rows of A
    alpha: float | None = None  # the update is B A times alpha / rank; None: 2 x rank
    dropout: float = 0.0  # share of a layer's input that its adapter does not see
    targets: str | tuple[str, ...] = "all-linear"  # all but the output head
    new_tokens: tuple[int, ...] = ()  # ids whose embeddings are trained as well
    full: bool = False  # no adapter: a copy of the model, all of its weights trained
    learning_rate: float = 2e-4
    steps: int = 100
    batch_size: int = 8
    accumulate: int = 1  # parts that a step is computed in, to save memory
    warm_up: float = 0.1
    weight_decay: float = 0.0
    max_length: int = 1024  # tokens; a longer example is an error, never cut
    thinking: bool | None = False  # template switch for answers without a thought
    evaluate_every: int | None = None  # steps; None: about ten times in all
    patience: int | None = None  # evaluations without a better one, then stop
    seed: int = 0

    def __post_init__(self) -> None:
        rules = out_of_range(self, _RANGES)
        if not isinstance(self.thinking, bool | None):
            rules["thinking"] = "True, False or None"
        if not isinstance(self.targets, str | list | tuple | set | None):
            rules["targets"] = "a name or a tuple of names of layers"
        if not isinstance(self.new_tokens, list | tuple | range):
            rules["new_tokens"] = "a tuple of ids, such as (151665,)"
        refuse(self, rules)


def train(
    loaded: Any,
    examples: Sequence[Example],
    settings: LoraSettings | None = None,
    *,
    validation: Sequence[Example] = (),
    held_out: Sequence[Example] = (),
    measure: Callable[[Any], dict[str, float]] | None = None,
    checkpoint: Path | str | None = None,
    accelerator: Any = None,
) -> History:
    """Train an adapter (or a full copy) on chat examples; return its History.

    An interrupt (Ctrl-C, the stop button) lets the step end and keeps the best so far.

    Args:
        loaded: a `models.Loaded`. If it has an adapter, a copy of that is trained on,
            with its own alpha, dropout and targets.
        examples: see `tokenize`. CourseError names the first bad one by its number.
        settings: LoraSettings; None takes the defaults.
        validation: examples to measure the loss on; the best weights are kept by it.
        held_out: test examples, never trained on: one among `examples` is an error.
        measure: called with the tuned Loaded at each evaluation, returns figures.
        checkpoint: a file that each evaluation writes. If it exists, training goes on
            from it and ends as if it had never stopped.
        accelerator: accelerate's, in a script that `accelerate launch` starts: each
            process takes its share of every batch.
    """
    settings = LoraSettings() if settings is None else settings
    if not isinstance(settings, LoraSettings):
        rule = f"settings must be a LoraSettings, got {settings!r:.60}."
        raise CourseError(rule, "Write LoraSettings(rank=8).")
    positions = loaded.model.config.get_text_config().max_position_embeddings
    options = (min(settings.max_length, positions), settings.thinking)
    rows, held = tokenize(loaded.tokenizer, examples, *options), []
    if validation:
        name = "Validation example"
        held = tokenize(loaded.tokenizer, validation, *options, name)
        refuse_leaks(examples, validation, name.lower())
    refuse_leaks(examples, held_out or ())
    devices = [loaded.model.device] if loaded.model.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.enable_grad(), interrupts() as asked:
        torch.manual_seed(settings.seed)
        tuned = replace(loaded, model=_prepared(loaded, settings))
        if settings.full:
            tuned = replace(tuned, source=replace(loaded.source, why=TUNED))
        run = Run(tuned, rows, held, settings, accelerator)
        path = Path(checkpoint) if checkpoint else None
        if path and path.exists():
            run.restore(path)
        run.go(measure, path, asked)
    return run.history()


def _sharing(model: Any) -> Any:
    """Return a model of its own modules on the same weights; adapters are copied."""
    memo: dict[int, Any] = {}
    for name, weight in model.named_parameters():
        if not any(part in name for part in _OWN):
            plain = type(weight) is nn.Parameter
            memo[id(weight)] = nn.Parameter(weight.data, False) if plain else weight
    memo |= {id(buffer): buffer for buffer in model.buffers()}
    return copy.deepcopy(model, memo)


def _prepared(loaded: Any, settings: LoraSettings) -> Any:
    """Return the model to train: with an adapter, or a copy in float32."""
    old = getattr(loaded.model, "peft_config", {}).get("default")
    if settings.full:
        if old:
            rule = "full=True trains a plain model, this one has an adapter."
            raise CourseError(rule, "Pass finetune.merge(history.tuned).")
        stored = loaded.model.state_dict().values()  # quantised ones are no parameters
        if not all(weight.is_floating_point() for weight in stored):
            rule = "full=True cannot train quantised weights."
            raise CourseError(rule, "Leave full out, or load the model unquantised.")
        return copy.deepcopy(loaded.model).float().requires_grad_(True)
    import peft

    model = _sharing(loaded.model)
    for part in model.modules():  # bitsandbytes packs what replies: without gradient
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False
            if getattr(part.weight.quant_state, "packing_format_for_cpu", False):
                rule = "4-bit weights that have replied on this processor cannot train."
                raise CourseError(rule, "Load them again, train before they reply.")
    if old:
        _refuse_changes(old, settings)
        for name, weight in model.named_parameters():
            weight.requires_grad_(any(part in name for part in _OWN))
        return model
    targets = _targets(model, settings.targets)
    entries = model.get_input_embeddings().weight.shape[0]
    if not all(type(n) is int and 0 <= n < entries for n in settings.new_tokens):
        rule = f"new_tokens must be ids below {entries:,}, got {settings.new_tokens}."
        raise CourseError(rule, "tokenizer.convert_tokens_to_ids gives them.")
    alpha: Any = settings.alpha or 2 * settings.rank  # peft's hint: a whole number
    config = peft.LoraConfig(
        r=settings.rank, lora_alpha=alpha,
        lora_dropout=settings.dropout, task_type="CAUSAL_LM",
        target_modules=targets,
        trainable_token_indices=list(settings.new_tokens) or None,
    )  # fmt: skip
    with warnings.catch_warnings(action="ignore"):  # of peft to other libraries
        return peft.get_peft_model(model, config)


def _targets(model: Any, targets: Any) -> Any:
    """Return the targets for peft, which takes no notice of a wrong name."""
    names = [targets] if isinstance(targets, str) else list(targets or ())
    tied = model.get_input_embeddings().weight  # shared by the output head, or not
    linear = [
        f".{name}"
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear) and part.weight is not tied
    ]
    if targets == "all-linear" and linear:
        return targets
    for name in names or [""]:
        if not any(full.endswith(f".{name}") for full in linear):
            known = sorted({full.rpartition(".")[2] for full in linear})
            rule = f"targets must name linear layers of this model, got {targets!r}."
            raise CourseError(rule, f"Linear layers: {', '.join(known)}.")
    return names


def _refuse_changes(config: Any, settings: LoraSettings) -> None:
    """Raise CourseError where the settings ask for another adapter than there is."""
    own: dict[str, Any] = {"rank": config.r, "alpha": config.lora_alpha}
    own |= {"dropout": config.lora_dropout, "targets": {*config.target_modules}}
    own["new_tokens"] = {*(config.trainable_token_indices or ())}
    for name, value in own.items():
        said, default = getattr(settings, name), getattr(LoraSettings(), name)
        same = said == value
        if isinstance(value, set):
            same = ({said} if isinstance(said, str) else {*(said or ())}) == value
        if not same and (said != default or name == "rank"):
            rule = f"This adapter has {name} {value}, the settings say {said}."
            raise CourseError(rule, "Use its own, or start from the base model.")


def save(tuned: Any, folder: Path | str) -> Path:
    """Write an adapter (or, without one, the whole model) and the tokenizer.

    The folder is whole or not there. One that holds an earlier save is replaced;
    CourseError for any other that is not empty.
    """
    folder = Path(folder).resolve()
    model, adapter = tuned.model, hasattr(tuned.model, "peft_config")
    if not adapter and any(isinstance(m, QuantizedTensor) for m in model.modules()):
        rule = "Packed layers are this course's own: transformers cannot load them."
        raise CourseError(rule, "Save what quantize_model(..., packed=False) returns.")
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    options: dict[str, Any] = {}
    if adapter:  # the name, not a path on this machine
        model.peft_config["default"].base_model_name_or_path = _base(tuned)
        options = {"save_embedding_layers": False}  # it would ask the Hub
    try:
        model.save_pretrained(part, **options)
        tuned.tokenizer.save_pretrained(part)
        (part / "README.md").unlink(missing_ok=True)  # empty, but for a path from here
        written = {path.name for path in part.iterdir()}
        there = folder.iterdir() if folder.is_dir() else [folder] * folder.exists()
        if others := sorted({path.name for path in there} - written):
            rule = f"{folder} holds other files, such as {others[0]}."
            raise CourseError(rule, "Name a new folder: nothing is overwritten.")
        old = part.with_name(f"{part.name}.old")
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _base(loaded: Any) -> str:
    """Return the name of the weights below an adapter; tuned ones are others."""
    return loaded.source.name + "+tuned" * (loaded.source.why == TUNED)


def load(loaded: Any, folder: Path | str) -> Any:
    """Return a Loaded with the adapter that `save` wrote; the base stays as it is."""
    import peft

    path = Path(folder) / "adapter_config.json"
    if not path.is_file():
        rule = f"{folder} holds no adapter."
        raise CourseError(rule, "Name a folder that finetune.save wrote.")
    if hasattr(loaded.model, "peft_config"):
        raise CourseError("This model has an adapter.", "Pass the base model.")
    try:
        told = json.loads(path.read_text("utf-8"))["base_model_name_or_path"]
        base = str(told).rstrip("/").rpartition("/")[2]  # others write owner/ or a path
        if base == _base(loaded):
            with warnings.catch_warnings():  # of peft to other libraries
                warnings.simplefilter("ignore", FutureWarning)
                warnings.simplefilter("ignore", RuntimeWarning)
                shared = _sharing(loaded.model)
                model = peft.PeftModel.from_pretrained(shared, str(folder))
            return replace(loaded, model=model.eval())
    except Exception as error:  # a damaged config can raise anything in peft
        rule = f"The adapter in {folder} cannot be read: {type(error).__name__}."
        raise CourseError(rule, "Copy the whole folder again.") from error
    rule = f"This adapter was trained on {base}, not on {_base(loaded)}."
    hint = "Pass the tuned model that it was trained on."
    raise CourseError(rule, hint if "+" in base else f"models.load({base!r})")


def merge(tuned: Any) -> Any:
    """Return a Loaded whose weights hold the update, W + B A alpha / rank.

    A plain model again: as fast as the base, its size on disk. Weights are rounded to
    their type, so bfloat16 gives slightly other logits than the adapter.
    """
    if not hasattr(tuned.model, "peft_config"):
        raise CourseError("This model has no adapter.", "Pass history.tuned.")
    model = copy.deepcopy(tuned.model).merge_and_unload().eval()
    return replace(tuned, model=model, source=replace(tuned.source, why=TUNED))
