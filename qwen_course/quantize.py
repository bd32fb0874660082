"""Quantising: round-to-nearest to 2..8 bits, size in bytes, perplexity, KL divergence.

Written to be read, not to be fast: a layer unpacks its integers for every product. What
runs fast is in libraries (bitsandbytes, llama.cpp, ...); the numbers are theirs, see
tests/test_quantize.py. Loads no models; what it gets is a `models.Loaded`.
"""

import copy
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor, nn

from qwen_course.errors import CourseError, refuse

KINDS = ("absmax", "zero_point", "nf4")
SCALES = {"float32": torch.float32, "float16": torch.float16}
Text = str | tuple[str, str]  # a text, or (prompt, reply) of which the reply is scored


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How weights become integers. None of it is learnt from data.

    absmax: whole steps on both sides of 0, the largest weight is the last step.
    zero_point: steps from the smallest weight of a group to its largest.
    nf4: 16 steps that a normal distribution would use equally often (QLoRA, 2023).
    """

    bits: int = 4  # 2 to 8
    group: int | None = 64  # weights that share a scale; None: a row; 0: all of them
    kind: str = "absmax"
    double: bool = False  # scales in 8 bits too, 256 sharing one (QLoRA, section 3)
    scale: str = "float16"  # how a scale is stored

    def __post_init__(self) -> None:
        whole = isinstance(self.bits, int), isinstance(self.group, int)
        sized = self.group is None or (whole[1] and self.group >= 0)
        rules = {
            "bits": (whole[0] and 2 <= self.bits <= 8, "a whole number from 2 to 8"),
            "group": (sized, "None or a whole number from 0"),
            "kind": (self.kind in KINDS, f"one of {', '.join(KINDS)}"),
            "scale": (self.scale in SCALES, f"one of {', '.join(SCALES)}"),
        }
        if self.kind == "nf4":
            rules["bits"] = (self.bits == 4, "4 for nf4")
        wrong = {name: rule for name, (holds, rule) in rules.items() if not holds}
        refuse(self, wrong, "try Scheme(bits=4, group=64).")


def nf4_levels() -> Tensor:
    """Return the 16 values of NF4 [16], rising from -1 to 1, with an exact 0.

    Quantiles of the normal distribution, 7 below zero and 9 from zero on, scaled to 1.
    Source: QLoRA (arXiv 2305.14314), appendix E; the outermost is bitsandbytes' choice.
    """
    outer, quantile = 0.9677083, NormalDist().inv_cdf

    def side(steps: int) -> list[float]:
        each = (outer - 0.5) / steps
        return [quantile(outer - each * i) for i in range(steps)]

    values = sorted([*side(8), 0.0, *(-value for value in side(7))])
    return torch.tensor(values) / max(values)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Return whole numbers [n] below 2**bits as bytes: 8 of them fill `bits` bytes."""
    codes = nn.functional.pad(codes.long(), (0, -len(codes) % 8)).view(-1, 8)
    word = (codes << torch.arange(8, device=codes.device) * bits).sum(1, keepdim=True)
    shifts = torch.arange(bits, device=codes.device) * 8
    return (word >> shifts & 255).to(torch.uint8).flatten()


def unpack(packed: Tensor, bits: int, number: int) -> Tensor:
    """Return the first `number` codes [number] of bytes that `pack` made."""
    shifts = torch.arange(bits, device=packed.device) * 8
    word = (packed.long().view(-1, bits) << shifts).sum(1, keepdim=True)
    codes = word >> torch.arange(8, device=packed.device) * bits & 2**bits - 1
    return codes.flatten()[:number]


class QuantizedTensor(nn.Module):
    """A tensor as packed whole numbers and a scale a group; made by quantize_tensor."""

    def __init__(self, weight: Tensor, scheme: Scheme):
        super().__init__()
        self.scheme, self.shape = scheme, weight.shape
        group = weight.shape[-1] if scheme.group is None else scheme.group
        self.group: int = min(group or weight.numel(), weight.numel())
        flat = weight.detach().float().flatten()
        filler = flat[-1:].expand(-len(flat) % self.group)
        rows = torch.cat([flat, filler]).view(-1, self.group)  # [groups, group]
        low = rows.amin(1)
        if scheme.kind == "zero_point":
            scale = (rows.amax(1) - low) / (2**scheme.bits - 1)
            self.register_buffer("low", low.to(SCALES[scheme.scale]))
            rows = rows - low[:, None]
        else:
            scale = rows.abs().amax(1)
            scale = scale if scheme.kind == "nf4" else scale / self._half
        inverse = 1 / scale[:, None]  # as in GGUF; too large for a tiny scale, or 0
        steps = torch.where(inverse.isfinite(), rows * inverse, rows / scale[:, None])
        rows = steps.nan_to_num(0.0)
        if scheme.kind == "nf4":
            levels = nf4_levels().to(rows)
            codes = torch.bucketize(rows, (levels[1:] + levels[:-1]) / 2)
        else:
            codes = (rows.abs() + 0.5).floor() * rows.sign()  # halves as in GGUF
            codes = (codes + self._half).clamp(0, 2**scheme.bits - 1)
        self.register_buffer("packed", pack(codes.flatten()[: len(flat)], scheme.bits))
        if scheme.double:  # the mean goes first: scales are all above 0
            self.register_buffer("mean", scale.mean())
            eight = Scheme(bits=8, group=256, scale="float32")
            self.scales = QuantizedTensor(scale - scale.mean(), eight)
        else:
            self.register_buffer("scales", scale.to(SCALES[scheme.scale]))

    @property
    def _half(self) -> int:
        """The code of 0: what is added so that no code is negative."""
        return 2 ** (self.scheme.bits - 1) - 1 if self.scheme.kind == "absmax" else 0

    @property
    def bits_per_weight(self) -> float:
        """Bits a weight takes, its share of the scales included."""
        return 8 * sum(part.nbytes for part in self.buffers()) / self.shape.numel()

    def dequantize(self) -> Tensor:
        """Return the weights that the codes stand for, float32, in the first shape."""
        number, scales = self.shape.numel(), self.scales
        codes = unpack(self.packed, self.scheme.bits, number)
        codes = nn.functional.pad(codes, (0, -number % self.group))
        rows, nf4 = codes.view(-1, self.group), self.scheme.kind == "nf4"
        rows = nf4_levels().to(rows.device)[rows] if nf4 else rows - self._half
        if isinstance(scales, QuantizedTensor):
            scales = scales.dequantize() + self.mean
        rows = rows * scales.float()[:, None]
        if self.scheme.kind == "zero_point":
            rows = rows + self.low.float()[:, None]
        return rows.flatten()[:number].view(self.shape)


def quantize_tensor(weight: Tensor, scheme: Scheme | None = None) -> QuantizedTensor:
    """Return a tensor rounded to the nearest steps of a scheme (default: Scheme())."""
    if not isinstance(scheme, Scheme | None):
        rule = f"scheme must be quantize.Scheme, got {scheme!r:.60}."
        raise CourseError(rule, "write quantize.Scheme(bits=4, group=64).")
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        rule = f"weight must be a tensor of floats, got {weight!r:.60}."
        raise CourseError(rule, "write quantize_tensor(layer.weight).")
    if not weight.numel() or not weight.dim() or not weight.isfinite().all():
        rule = f"weight {list(weight.shape)} is empty, or holds nan or inf."
        raise CourseError(rule, "look for the step that made them: an fp16 overflow?")
    small = QuantizedTensor(weight, scheme or Scheme())
    if not all(part.isfinite().all() for part in small.buffers()):
        rule = f"A scale does not fit: weights reach {weight.abs().max().item():.3g}."
        raise CourseError(rule, 'try Scheme(scale="float32").')
    return small


class QuantizedLinear(nn.Module):
    """A linear layer that keeps packed integers and unpacks them for each product."""

    def __init__(self, linear: nn.Linear, scheme: Scheme):
        super().__init__()
        self.weight = quantize_tensor(linear.weight, scheme)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """Return x [..., in] times the weights [out, in], plus the bias."""
        weight = self.weight.dequantize().to(x.dtype)
        return nn.functional.linear(x, weight, self.bias)


def quantize_model(
    loaded: Any, scheme: Scheme | None = None, skip: Sequence[str] = ("lm_head",),
    packed: bool = True,
) -> Any:  # fmt: skip
    """Return a copy of a `Loaded` with quantised linear layers; the first stays as is.

    Embeddings and norms are no linear layers and stay; so do experts that a model keeps
    in one tensor (Qwen3-MoE in transformers 5). An output head that shares the
    embedding's weights gets its own when skip leaves it in.

    Args:
        loaded: a `models.Loaded`, its weights not quantised yet.
        scheme: how; None: Scheme().
        skip: layers to leave out, by name or pattern, such as "*.down_proj".
        packed: False keeps ordinary layers that hold the rounded weights: the same
            replies at full speed, nothing saved.
    """
    if hasattr(loaded.model, "peft_config"):
        raise CourseError("This model has an adapter.", "Pass finetune.merge(tuned).")
    layers = loaded.model.named_modules()
    linear = {name: layer for name, layer in layers if type(layer) is nn.Linear}
    patterns = [skip] if isinstance(skip, str) else skip
    for pattern in patterns:
        found = any(fnmatchcase(name, pattern) for name in linear)
        if not found and pattern != "lm_head":
            rule = f"skip {pattern!r} matches none of {len(linear)} linear layers."
            raise CourseError(rule, f"names look like {next(iter(linear), 'none')!r}.")
    names = [n for n in linear if not any(fnmatchcase(n, p) for p in patterns)]
    if not names:
        rule = "No linear layer is left to quantise."
        raise CourseError(rule, "skip fewer; a model quantised before has none.")
    model = copy.deepcopy(loaded.model)
    for name in names:
        layer = model.get_submodule(name)
        if packed:
            model.set_submodule(name, QuantizedLinear(layer, scheme or Scheme()))
        else:
            rounded = quantize_tensor(layer.weight, scheme).dequantize()
            # a new parameter: an embedding that shares the old one stays as it is
            layer.weight = nn.Parameter(rounded.to(layer.weight), requires_grad=False)
    if "lm_head" in names:  # or the next tie_weights would undo it
        model.config.tie_word_embeddings = False
    return replace(loaded, model=model)


def _stored(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a model's state by name, shared ones once."""
    seen: dict[int | str, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict().items():
        if isinstance(tensor, Tensor):
            # tensors on the device "meta" have no address, all are of their own
            seen.setdefault(tensor.data_ptr() or name, (name, tensor))
    return dict(seen.values())


def model_size_mb(model: nn.Module) -> float:
    """Return the size in MB (1e6 bytes) of a model's weights as a safetensors file.

    Weights that two layers share count once; the file's table of contents counts too.
    """
    table = {
        name: {"dtype": "BF16", "shape": [*tensor.shape], "data_offsets": [10**8] * 2}
        for name, tensor in _stored(model).items()
    }
    contents = len(json.dumps(table, separators=(",", ":")))
    return (contents + sum(part.nbytes for part in _stored(model).values())) / 1e6


def decode_bytes(model: nn.Module) -> int:
    """Return the bytes of weights read to decode one token: all but the embedding.

    An embedding that is the output head too counts: there it is read whole. Experts
    that stay idle count, and so does a vision tower. The KV cache comes on top.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    own = {id(weight) for weight in embedding.parameters()}
    shared = head is not None and any(id(weight) in own for weight in head.parameters())
    total = sum(part.nbytes for part in _stored(model).values())
    return total - (0 if shared else embedding.weight.nbytes)


@dataclass(frozen=True)
class Comparison:
    """A model against its reference on the same tokens of text."""

    perplexity: float  # exp of the mean surprise; 1: always sure and right
    reference_perplexity: float
    kl: float  # nats a token, of the reference's distribution from the model's
    top1: float  # share of tokens where both find the same token likeliest
    tokens: int


def _windows(
    loaded: Any, texts: Text | Sequence[Text], window: int, stride: int
) -> Iterator[tuple[Tensor, int]]:
    """Yield ids [1, tokens] and how many of them, at the end, are to be scored."""
    limit = loaded.model.config.get_text_config().max_position_embeddings
    whole = isinstance(window, int) and isinstance(stride, int)
    if not (whole and 0 < stride < window <= limit):
        rule = f"0 < stride < window <= {limit} must hold, got {stride} and {window}."
        raise CourseError(rule, "try window=512, stride=256.")
    number = 0
    for text in [texts] if isinstance(texts, str | tuple) else texts:
        pair = ("", text) if isinstance(text, str) else text
        if not isinstance(pair, tuple) or [*map(type, pair)] != [str, str]:
            rule = f"A text must be a string or (prompt, reply), got {text!r:.60}."
            raise CourseError(rule, "give several texts as a list.")
        ids: list[int] = []
        for words in pair:
            done = max(1, len(ids))
            ids += loaded.tokenizer(words, add_special_tokens=False)["input_ids"]
        while done < len(ids):
            end = min(len(ids), done + stride)
            number += end - done
            part = ids[max(0, end - window) : end]
            yield torch.tensor([part], device=loaded.model.device), end - done
            done = end
    if not number:
        raise CourseError("No token to score.", "give a text of two tokens or more.")


def _log_probabilities(model: Any, ids: Tensor, scored: int) -> Tensor:
    """Return the log-probabilities [scored, vocabulary] before each scored token."""
    with torch.inference_mode():
        logits = model(input_ids=ids, logits_to_keep=scored + 1).logits[0, :-1]
    return logits.float().log_softmax(-1)


def perplexity(
    loaded: Any, texts: Text | Sequence[Text], window: int = 512, stride: int = 256
) -> float:
    """Return exp of the mean surprise (nats) over all scored tokens, each counted once.

    Args:
        loaded: a `models.Loaded`.
        texts: a text, or a list of texts and of (prompt, reply): replies are scored.
        window: tokens the model sees at most.
        stride: tokens scored a window; each has window - stride tokens before it, at
            the start of a text fewer.
    """
    surprise, number = 0.0, 0
    for ids, scored in _windows(loaded, texts, window, stride):
        ahead = _log_probabilities(loaded.model, ids, scored)
        surprise -= ahead.gather(1, ids[0, -scored:, None]).double().sum().item()
        number += scored
    return math.exp(surprise / number)


def compare(
    reference: Any, other: Any, texts: Text | Sequence[Text],
    window: int = 512, stride: int = 256,
) -> Comparison:  # fmt: skip
    """Return how far a model is from its reference; arguments as in `perplexity`."""
    sizes = [m.model.get_input_embeddings().weight.shape[0] for m in (reference, other)]
    if sizes[0] != sizes[1]:
        rule = f"The models have {sizes[0]} and {sizes[1]} tokens, not the same ones."
        raise CourseError(rule, "compare a model with a changed copy of itself.")
    surprise, kl, same, number = [0.0, 0.0], 0.0, 0, 0
    for ids, scored in _windows(reference, texts, window, stride):
        right = _log_probabilities(reference.model, ids, scored)
        guess = _log_probabilities(other.model, ids, scored)
        for i, ahead in enumerate((right, guess)):
            surprise[i] -= ahead.gather(1, ids[0, -scored:, None]).double().sum().item()
        kl += (right.exp() * (right - guess)).sum().item()
        same += (right.argmax(-1) == guess.argmax(-1)).sum().item()
        number += scored
    first, second = (math.exp(nats / number) for nats in surprise)
    return Comparison(second, first, kl / number, same / number, number)
