"""Quantising: error bounds, sizes, what libraries get, models, perplexity, KL."""

import copy
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from bitsandbytes import functional as bnb
from fakes import qwen_tokenizer
from gguf import GGMLQuantizationType, quants
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    BitsAndBytesConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from qwen_course import chat, generate, models, quantize, tasks
from qwen_course.errors import CourseError
from qwen_course.quantize import QuantizedLinear, Scheme, quantize_model

KINDS = ("absmax", "zero_point")  # of any number of bits
numbers = st.floats(-6e4, 6e4, width=32)
tensors = (  # as many long ones as short ones
    st.integers(1, 80)
    .flatmap(lambda n: st.lists(numbers, min_size=n, max_size=n))
    .map(torch.tensor)
)
groups = st.sampled_from([None, 0, 1, 7, 32, 1000])
schemes = st.builds(
    Scheme,
    bits=st.integers(2, 8),
    group=groups,
    kind=st.sampled_from(KINDS),
    scale=st.sampled_from(list(quantize.SCALES)),
)
nf4_schemes = st.builds(
    Scheme, kind=st.just("nf4"), group=groups, scale=st.just("float32")
)
any_scheme = st.builds(replace, schemes | nf4_schemes, double=st.booleans())


def rounded(weight, scheme=None):
    return quantize.quantize_tensor(weight, scheme).dequantize()


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.05


def distance(one, other):
    """The size of the difference, as a share of the other."""
    return ((one - other).norm() / other.norm()).item()


def stored_error(value, scheme):
    """How far from a positive value the nearest number of the scheme's type may be."""
    if scheme.scale == "float32":
        return value * 2**-22 + 1e-37
    return max(value / 2048, 2**-25)  # float16: 11 bits; below 6e-5 fixed steps


# ------------------------------------------------------------------ one tensor
@given(tensors, schemes)
def test_no_weight_moves_further_than_half_a_step(weight, scheme):
    group = scheme.group or len(weight)
    for part, new in zip(
        weight.split(group), rounded(weight, scheme).split(group), strict=True
    ):
        part, new = part.double(), new.double()
        if scheme.kind == "absmax":
            codes, offset = 2 ** (scheme.bits - 1) - 1, 0.0
            step = part.abs().max().item() / codes
        else:
            codes = 2**scheme.bits - 1
            step = (part.max() - part.min()).item() / codes
            offset = stored_error(part.min().abs().item(), scheme)
        bound = step / 2 + codes * stored_error(step, scheme) + offset
        assert (part - new).abs().max() <= bound + part.abs().max() * 2**-22


@given(tensors, nf4_schemes)
@example(torch.tensor([0.0, 1.4e-45]), Scheme(bits=4, kind="nf4", scale="float32"))
def test_nf4_takes_the_nearest_level(weight, scheme):
    group, levels = scheme.group or len(weight), quantize.nf4_levels()
    for part, new in zip(
        weight.split(group), rounded(weight, scheme).split(group), strict=True
    ):
        largest = part.abs().max()
        best = (part[:, None] - levels * largest).abs().amin(1)
        assert torch.allclose((part - new).abs(), best, atol=largest.item() * 1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("group", [None, 0, 64])
@pytest.mark.parametrize("seed", range(3))
def test_the_error_falls_with_every_bit(kind, group, seed):
    weight = normal(48, 128, seed=seed)
    errors = [
        distance(rounded(weight, Scheme(bits=bits, group=group, kind=kind)), weight)
        for bits in range(2, 9)
    ]
    assert all(more > 1.5 * less for more, less in pairwise(errors))
    assert errors[-1] < 0.02


def test_smaller_groups_and_nf4_do_better_at_the_same_bits():
    weight = normal(64, 256)
    weight[3, 5] = 2  # an outlier spoils the scale of its own group only
    by_group = [distance(rounded(weight, Scheme(group=g)), weight) for g in (0, None)]
    by_group.append(distance(rounded(weight, Scheme(group=64)), weight))
    assert by_group == sorted(by_group, reverse=True)
    assert distance(rounded(weight, Scheme(kind="nf4")), weight) < by_group[-1]


@given(st.data(), st.integers(2, 8))
def test_packing_loses_nothing(data, bits):
    codes = torch.tensor(
        data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=40))
    )
    packed = quantize.pack(codes, bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == math.ceil(len(codes) / 8) * bits
    assert torch.equal(quantize.unpack(packed, bits, len(codes)), codes)


def test_packing_by_hand():
    codes = torch.tensor([1, 2, 3, 15, 0, 0, 0, 8])
    assert quantize.pack(codes, 4).tolist() == [0x21, 0xF3, 0, 0x80]
    assert quantize.pack(torch.tensor([1, 1, 1, 1]), 2).tolist() == [0b01010101, 0]


@given(tensors, any_scheme)
def test_size_formula(weight, scheme):
    number = len(weight)
    scales = math.ceil(number / min(scheme.group or number, number))
    of_a_scale = 2 if scheme.scale == "float16" else 4
    size = math.ceil(number / 8) * scheme.bits
    if scheme.double:  # a byte each, a float for 256 of them, the mean
        size += math.ceil(scales / 8) * 8 + math.ceil(scales / 256) * 4 + 4
    else:
        size += scales * of_a_scale
    size += scales * of_a_scale if scheme.kind == "zero_point" else 0
    small = quantize.quantize_tensor(weight, scheme)
    assert small.bits_per_weight == pytest.approx(8 * size / number)


@pytest.mark.parametrize(
    ("scheme", "bits"),
    [
        (Scheme(), 4 + 16 / 64),
        (Scheme(bits=8, group=None), 8 + 16 / 512),
        (Scheme(bits=3, group=0), 3 + 16 / 2**18),
        (Scheme(bits=2, group=32, kind="zero_point"), 2 + 2 * 16 / 32),
        (Scheme(kind="nf4", scale="float32"), 4 + 32 / 64),
        # QLoRA, section 3: 0.127 bits for the scales. The mean is 32 bits more.
        (Scheme(kind="nf4", double=True), 4 + 0.126953125 + 32 / 2**18),
    ],
)
def test_bits_per_weight(scheme, bits):
    small = quantize.quantize_tensor(normal(512, 512), scheme)
    assert small.bits_per_weight == bits


@pytest.mark.parametrize("shape", [(1,), (5,), (3, 7), (8, 64), (2, 3, 5), (1, 1, 1)])
@given(any_scheme)
def test_the_shape_stays_and_rows_stay_apart(shape, scheme):
    weight = normal(*shape)
    new = rounded(weight, scheme)
    assert new.shape == weight.shape
    assert new.dtype == torch.float32
    if scheme.group is None and not scheme.double:
        each = [rounded(row, scheme) for row in weight.reshape(-1, shape[-1])]
        assert torch.equal(new, torch.stack(each).view(shape))


@given(any_scheme, st.integers(1, 70))
def test_zeros_stay_zeros(scheme, number):
    assert rounded(torch.zeros(number), scheme).tolist() == [0.0] * number


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_group_of_zeros_spoils_no_other(bits):
    weight = torch.tensor([0.0, 0, 0, 0, -3, 3, 0, -3])
    scheme = Scheme(bits=bits, group=4, scale="float32")
    assert rounded(weight, scheme).tolist() == weight.tolist()


def test_a_group_that_is_too_large_is_the_tensor():
    weight = normal(3, 7)
    for kind in quantize.KINDS:
        large = rounded(weight, Scheme(group=10**13, kind=kind))  # filled up: 40 TB
        assert torch.equal(large, rounded(weight, Scheme(group=0, kind=kind)))


@given(any_scheme, st.sampled_from([-1.0, 0.25, 3.0]), st.integers(1, 70))
def test_a_constant_stays(scheme, value, number):
    new = rounded(torch.full([number], value), scheme)
    assert torch.allclose(new, torch.tensor(value), rtol=1e-3)


def test_the_outermost_weights_of_a_group_stay():
    weight = torch.tensor([-3.0, 0.1, 0.2, 1.0])
    new = rounded(weight, Scheme(bits=2, kind="zero_point", scale="float32"))
    assert new[[0, 3]].tolist() == [-3, 1]
    new = rounded(weight, Scheme(bits=2, scale="float32"))
    assert new.tolist() == [-3, 0, 0, 0]  # 2 bits: -3, 0 and 3


@pytest.mark.parametrize("kind", quantize.KINDS)
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_huge_and_tiny_weights_need_float32_scales(kind, size):
    weight = normal(200)
    scheme = Scheme(kind=kind, scale="float32")
    assert torch.allclose(
        rounded(weight * size, scheme) / size, rounded(weight, scheme), atol=1e-6
    )
    if size > 1:
        with pytest.raises(CourseError, match="scale does not fit.*\n.*float32"):
            rounded(weight * size, replace(scheme, scale="float16"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_float_will_do(dtype):
    weight = normal(40).to(dtype)
    assert torch.equal(rounded(weight), rounded(weight.float()))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"bits": 1}, "bits must be a whole number from 2 to 8, got 1"),
        ({"bits": 9}, "got 9"),
        ({"bits": 4.0}, "got 4.0"),
        ({"bits": "4"}, "got '4'"),
        ({"bits": 8, "kind": "nf4"}, "bits must be 4 for nf4, got 8"),
        ({"kind": "int8"}, "kind must be one of absmax, zero_point, nf4, got 'int8'"),
        ({"group": -1}, "group must be None or a whole number from 0, got -1"),
        ({"group": 64.0}, "got 64.0"),
        ({"scale": "bfloat16"}, "scale must be one of float32, float16"),
    ],
)
def test_a_scheme_that_cannot_be(wrong, told):
    with pytest.raises(CourseError, match=told) as error:
        Scheme(**wrong)
    assert "Scheme(bits=4" in error.value.hint


@pytest.mark.parametrize(
    ("weight", "told"),
    [
        (torch.arange(4), "must be a tensor of floats, got tensor"),
        ([0.1, 0.2], "must be a tensor of floats"),
        (torch.tensor([1.0, math.nan]), r"weight \[2\] .* nan"),
        (torch.tensor([1.0, -math.inf]), "inf"),
        (torch.empty(0, 4), r"weight \[0, 4\] is empty"),
        (torch.tensor(1.0), r"weight \[\]"),
    ],
)
def test_a_weight_that_cannot_be(weight, told):
    with pytest.raises(CourseError, match=told):
        quantize.quantize_tensor(weight)


# ------------------------------------------------------------------ libraries
def test_the_code_book_is_that_of_bitsandbytes():
    levels = quantize.nf4_levels()
    assert torch.allclose(levels, bnb.get_4bit_type("nf4", "cpu"), atol=1e-6)
    assert levels[7] == 0


@pytest.mark.parametrize("seed", range(3))
def test_nf4_is_that_of_bitsandbytes(seed):
    weight = normal(96, 256, seed=seed)
    theirs = bnb.dequantize_4bit(
        *bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    )
    assert distance(rounded(weight, Scheme(kind="nf4", scale="float32")), theirs) < 1e-6
    assert distance(rounded(weight, Scheme(kind="nf4")), theirs) < 1e-3


def test_double_quantization_is_close_to_that_of_bitsandbytes():
    """They give scales 8 bits of a code with uneven steps: 2.6e-3 apart, seen."""
    weight = normal(256, 256)
    packed, state = bnb.quantize_4bit(
        weight, blocksize=64, quant_type="nf4", compress_statistics=True
    )
    theirs = bnb.dequantize_4bit(packed, state)
    ours = quantize.quantize_tensor(weight, Scheme(kind="nf4", double=True))
    exact = rounded(weight, Scheme(kind="nf4", scale="float32"))
    assert distance(ours.dequantize(), theirs) < 4e-3
    assert distance(ours.dequantize(), exact) < distance(theirs, exact)


@pytest.mark.parametrize("seed", range(3))
def test_int8_by_row_is_that_of_bitsandbytes(seed):
    weight = normal(96, 256, seed=seed).half()  # they round in float16
    codes, largest, _ = bnb.int8_vectorwise_quant(weight)
    theirs = codes.float() * largest[:, None] / 127
    assert distance(rounded(weight, Scheme(bits=8, group=None)), theirs) < 1e-3


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("Q8_0", Scheme(bits=8, group=32)),
        ("Q4_1", Scheme(bits=4, group=32, kind="zero_point")),
        ("Q5_1", Scheme(bits=5, group=32, kind="zero_point")),
    ],
)
def test_blocks_are_those_of_gguf(name, scheme):
    weight, kind = normal(64, 256), GGMLQuantizationType[name]
    blocks = quants.quantize(weight.numpy(), kind)
    theirs = torch.tensor(quants.dequantize(blocks, kind))
    ours = quantize.quantize_tensor(weight, scheme)
    assert distance(ours.dequantize(), theirs) < 1e-5
    assert ours.bits_per_weight == 8 * blocks.nbytes / weight.numel()


# ------------------------------------------------------------------ models
@pytest.fixture(scope="module")
def loaded():
    return models.load("thinking", "pocket")


@pytest.fixture(scope="module")
def small(loaded):
    return quantize_model(loaded)


@pytest.fixture(scope="module")
def dialog(loaded):
    """A question as the model reads it, and what it should write."""
    problem = tasks.samples("chain")[0]
    asked = [{"role": "user", "content": problem.question}]
    prompt = chat.render(loaded.tokenizer, asked, thinking=True)
    return prompt, f"<think>\n{problem.thinking}\n</think>\n\n{problem.answer}"


@pytest.fixture(scope="module")
def untied():
    """A tiny Qwen2 whose output head is a matrix of its own; its layers have a bias."""
    tokenizer = qwen_tokenizer()
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64,
        num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=64, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).eval()
    for name, values in model.named_parameters():
        if name.endswith(".bias"):  # they start as zeros
            torch.nn.init.uniform_(values, 0.1, 0.2)
    source = models.Source("chat", "tiny", "pocket", None, 0.0, "a test")
    return models.Loaded(model, tokenizer, source)


def logits(loaded):
    ids = torch.arange(100, 140)[None]
    with torch.inference_mode():
        return loaded.model(input_ids=ids).logits


def layers(loaded):
    return [
        name
        for name, layer in loaded.model.named_modules()
        if isinstance(layer, QuantizedLinear)
    ]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("skip", [("lm_head",), ()])
def test_the_first_model_stays_as_it_is(loaded, packed, skip):
    before = copy.deepcopy(loaded.model.state_dict())
    other = quantize_model(loaded, Scheme(bits=2), skip, packed)
    assert not torch.equal(logits(other), logits(loaded))
    assert other.tokenizer is loaded.tokenizer
    after = loaded.model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("skip", [("lm_head",), (), ("*.down_proj", "lm_head")])
@pytest.mark.parametrize("kind", quantize.KINDS)
def test_packed_layers_compute_what_rounded_ones_do(loaded, kind, skip):
    scheme = Scheme(kind=kind, group=None)
    packed = quantize_model(loaded, scheme, skip)
    plain = quantize_model(loaded, scheme, skip, packed=False)
    assert layers(packed)
    assert not layers(plain)
    assert torch.allclose(logits(packed), logits(plain), atol=1e-4)


def test_a_bias_is_kept(untied):
    name = "model.layers.0.self_attn.q_proj"
    layer = quantize_model(untied).model.get_submodule(name)
    bias = untied.model.get_submodule(name).bias
    assert bias.abs().min() > 0
    assert torch.equal(layer(torch.zeros(1, 32))[0], bias)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_packed_layer_answers_in_the_type_it_is_asked_in(dtype):
    layer = QuantizedLinear(torch.nn.Linear(32, 8, bias=False), Scheme())
    assert layer(torch.ones(1, 32, dtype=dtype)).dtype == dtype


def test_skip(loaded):
    assert len(layers(quantize_model(loaded))) == 3 * 7
    assert len(layers(quantize_model(loaded, skip="*.down_proj"))) == 3 * 6 + 1
    some = quantize_model(loaded, skip=["lm_head", "*.mlp.*", "*.down_proj"])
    assert len(layers(some)) == 3 * 4
    assert not [name for name in layers(some) if "mlp" in name]
    plain = quantize_model(loaded, skip=["lm_head", "*.mlp.*"], packed=False)
    kept = "model.layers.0.mlp.up_proj"
    assert torch.equal(*(m.model.get_submodule(kept).weight for m in (plain, loaded)))


@pytest.mark.parametrize("packed", [True, False])
def test_the_shared_embedding_is_not_rounded(loaded, packed):
    first = loaded.model.get_input_embeddings().weight
    small = quantize_model(loaded, packed=packed).model
    assert small.lm_head.weight is small.get_input_embeddings().weight
    head_too = quantize_model(loaded, skip=(), packed=packed).model
    for model in (small, head_too):
        assert torch.equal(model.get_input_embeddings().weight, first)
    before = logits(replace(loaded, model=head_too))
    head_too.tie_weights()  # as resize_token_embeddings does
    assert torch.equal(logits(replace(loaded, model=head_too)), before)
    assert loaded.model.config.tie_word_embeddings


def test_what_quantize_model_refuses(loaded, small):
    with pytest.raises(CourseError, match="skip 'down_proj' matches none of 22") as e:
        quantize_model(loaded, skip=["lm_head", "down_proj"])
    assert "model.layers.0.self_attn.q_proj" in e.value.hint
    with pytest.raises(CourseError, match="No linear layer is left.*\n.*quantised bef"):
        quantize_model(small)
    with pytest.raises(CourseError, match="No linear layer is left"):
        quantize_model(loaded, skip="*")


def test_a_packed_model_is_a_model(loaded, small):
    """It replies, can be copied and moved, and takes the state of another."""
    settings = generate.Settings(max_new_tokens=24, temperature=0)
    asked = [{"role": "user", "content": tasks.samples("chain")[0].question}]
    plain = quantize_model(loaded, packed=False)
    told, same = (generate.reply(m, asked, settings) for m in (small, plain))
    assert told.text + told.thinking
    assert (told.text, told.thinking) == (same.text, same.thinking)
    moved = replace(small, model=copy.deepcopy(small.model).to("cpu"))
    assert torch.equal(logits(moved), logits(small))
    other = quantize_model(loaded, Scheme(kind="zero_point"))
    with pytest.raises(RuntimeError, match="Missing key.*low"):
        other.model.load_state_dict(small.model.state_dict())
    fresh = quantize_model(loaded)
    for name, values in fresh.model.state_dict().items():
        if name.endswith(".packed"):
            values.zero_()
    assert not torch.equal(logits(fresh), logits(small))
    fresh.model.load_state_dict(small.model.state_dict())
    assert torch.equal(logits(fresh), logits(small))


@pytest.mark.parametrize(
    ("role", "parts"),
    [("moe", {"self_attn"}), ("vision", {"self_attn", "mlp", "attn", "merger"})],
)
def test_other_architectures(role, parts):
    """Experts stay as they are; a vision tower is quantised too."""
    loaded = models.load(role, "pocket")
    small = quantize_model(loaded)
    assert parts <= {part for name in layers(small) for part in name.split(".")}
    assert not [name for name in layers(small) if "expert" in name]
    assert quantize.model_size_mb(small.model) < quantize.model_size_mb(loaded.model)
    told = quantize.compare(loaded, small, "Which bar is the tallest? 12 + 5 = 17.")
    assert 0 < told.kl < 1
    assert told.perplexity != told.reference_perplexity


# ------------------------------------------------------------------ sizes
def on_disk(folder):
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_size_of_a_plain_model(loaded, dtype, tmp_path):
    model = copy.deepcopy(loaded.model).to(getattr(torch, dtype))
    model.save_pretrained(tmp_path)
    assert quantize.model_size_mb(model) == pytest.approx(on_disk(tmp_path), rel=0.01)


def test_size_of_untied_weights(untied, tmp_path):
    untied.model.save_pretrained(tmp_path)
    size = quantize.model_size_mb(untied.model)
    assert size == pytest.approx(on_disk(tmp_path), rel=0.01)
    with torch.device("meta"):
        empty = Qwen2ForCausalLM(untied.model.config)
    assert quantize.model_size_mb(empty) == pytest.approx(size)


@pytest.mark.parametrize(
    "scheme", [Scheme(), Scheme(bits=3), Scheme(kind="nf4", double=True)]
)
def test_size_of_a_packed_model(loaded, scheme, tmp_path):
    model = quantize_model(loaded, scheme).model
    state = model.state_dict()
    del state["lm_head.weight"]  # the same tensor as the embedding's
    save_file(state, tmp_path / "model.safetensors")
    assert quantize.model_size_mb(model) == pytest.approx(on_disk(tmp_path), rel=0.01)


@pytest.mark.parametrize(
    "config",
    [
        {"load_in_8bit": True},
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
        },
    ],
    ids=["int8", "nf4", "double"],
)
def test_size_of_a_bitsandbytes_model(loaded, config, tmp_path, dialog):
    model = AutoModelForCausalLM.from_pretrained(
        loaded.source.path,
        quantization_config=BitsAndBytesConfig(**config),
        dtype=torch.float32,
    )
    model.save_pretrained(tmp_path)
    assert quantize.model_size_mb(model) == pytest.approx(on_disk(tmp_path), rel=0.01)
    theirs = replace(loaded, model=model)
    assert 0 < quantize.compare(loaded, theirs, [dialog]).kl < 0.01
    with pytest.raises(CourseError, match="No linear layer is left"):
        quantize_model(theirs)


def test_decode_bytes_by_hand(loaded, small, untied):
    hidden, inner, vocabulary = 128, 384, 1200
    linear = 3 * (hidden * hidden * 2 + hidden * 64 * 2 + 3 * hidden * inner)
    norms = 3 * (2 * hidden + 2 * 32) + hidden
    table = vocabulary * hidden  # is read whole: it is the output head
    assert quantize.decode_bytes(loaded.model) == 4 * (linear + norms + table)
    packed = linear * (4 + 16 / 64) / 8
    assert quantize.decode_bytes(small.model) == 4 * (norms + table) + packed
    head_too = quantize_model(loaded, skip=()).model
    packed += table * (4 + 16 / 64) / 8
    assert quantize.decode_bytes(head_too) == 4 * norms + packed
    of_untied = untied.model.num_parameters()
    of_untied -= untied.model.config.vocab_size * untied.model.config.hidden_size
    assert quantize.decode_bytes(untied.model) == 4 * of_untied


def test_a_tuned_model_is_merged_first(loaded):
    """And its bytes are those of the base and of what was learnt."""
    from qwen_course import finetune

    asked = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    few = finetune.LoraSettings(rank=2, steps=1, new_tokens=(5,))
    tuned = finetune.train(loaded, [asked], few).tuned
    with pytest.raises(CourseError, match=r"(?s)has an adapter.*finetune\.merge"):
        quantize_model(tuned)
    assert quantize_model(finetune.merge(tuned))
    learnt = sum(
        weight.nbytes
        for name, weight in tuned.model.named_parameters()
        if "lora_" in name or "trainable_tokens_delta" in name
    )
    base = quantize.decode_bytes(loaded.model)
    assert base < quantize.decode_bytes(tuned.model) <= base + 2 * learnt


# ------------------------------------------------------------------ perplexity and KL
def tokens_of(loaded, text):
    return loaded.tokenizer(text, add_special_tokens=False)["input_ids"]


def surprises(loaded, ids):
    """The surprise of each token but the first, all before it in sight."""
    ids = torch.tensor([ids])
    with torch.inference_mode():
        ahead = loaded.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    return -ahead.gather(1, ids[0, 1:, None])[:, 0]


def test_perplexity_is_exp_of_the_loss_of_transformers(loaded, untied, dialog):
    text = "".join(dialog)
    for each in (loaded, untied):
        ids = torch.tensor([tokens_of(each, text)[:60]])
        text = each.tokenizer.decode(ids[0])
        with torch.inference_mode():
            loss = each.model(input_ids=ids, labels=ids).loss.item()
        found = quantize.perplexity(each, text, 64, 63)
        assert found == pytest.approx(math.exp(loss), rel=1e-4)


@pytest.mark.parametrize(("window", "stride"), [(8, 3), (8, 7), (2, 1), (64, 5)])
@pytest.mark.parametrize("number", [2, 8, 9, 10, 31])
def test_each_token_counts_once_and_sees_what_it_may(loaded, window, stride, number):
    ids = tokens_of(loaded, "Start with 1, add 2. " * 5)[:number]
    text = loaded.tokenizer.decode(ids)
    assert tokens_of(loaded, text) == ids
    told = quantize.compare(loaded, loaded, text, window, stride)
    assert told.tokens == number - 1
    nats = 0.0
    for start in range(1, number, stride):
        end = min(number, start + stride)
        part = ids[max(0, end - window) : end]
        nats += surprises(loaded, part)[-(end - start) :].sum().item()
    wanted = math.exp(nats / (number - 1))
    assert told.perplexity == pytest.approx(wanted, rel=1e-4)
    found = quantize.perplexity(loaded, text, window, stride)
    assert found == pytest.approx(wanted, rel=1e-4)


def test_of_a_prompt_and_a_reply_the_reply_is_scored(loaded, dialog):
    prompt, reply = (tokens_of(loaded, text) for text in dialog)
    wanted = surprises(loaded, prompt + reply)[-len(reply) :].mean().exp().item()
    assert quantize.perplexity(loaded, dialog) == pytest.approx(wanted, rel=1e-4)
    assert quantize.perplexity(loaded, [dialog]) == pytest.approx(wanted, rel=1e-4)
    assert quantize.compare(loaded, loaded, dialog).tokens == len(reply)
    assert wanted < 1.1  # the model does know it
    assert quantize.perplexity(loaded, "".join(dialog)) > 2


def test_texts_are_weighted_by_their_tokens(loaded, dialog):
    texts = ["12 + 5 = 17.", dialog, "Start with 1, add 2. " * 5]
    each = [quantize.compare(loaded, loaded, [text]) for text in texts]
    together = quantize.compare(loaded, loaded, texts)
    number = sum(one.tokens for one in each)
    nats = sum(one.tokens * math.log(one.perplexity) for one in each)
    assert together.tokens == number
    assert together.perplexity == pytest.approx(math.exp(nats / number))
    assert quantize.perplexity(loaded, texts) == pytest.approx(together.perplexity)


def test_a_model_is_no_distance_from_itself(loaded, dialog):
    told = quantize.compare(loaded, loaded, ["".join(dialog)])
    assert (told.kl, told.top1) == (0, 1)
    assert told.perplexity == told.reference_perplexity


def test_distance_grows_as_bits_go(loaded, dialog):
    text = "".join(dialog)
    told = [
        quantize.compare(loaded, quantize_model(loaded, Scheme(bits=b)), text)
        for b in (8, 6, 4, 3, 2)
    ]
    assert 0 < told[0].kl < 1e-3
    assert all(less.kl < more.kl for less, more in pairwise(told))
    assert told[0].top1 == 1
    assert told[-1].top1 < 0.7
    assert {one.reference_perplexity for one in told} == {told[0].reference_perplexity}


def test_kl_and_top1_by_hand(loaded, small, dialog):
    ids = torch.tensor([tokens_of(loaded, "".join(dialog))])
    with torch.inference_mode():
        right, guess = (
            each.model(input_ids=ids).logits[0, :-1].double()
            for each in (loaded, small)
        )
    wanted = torch.nn.functional.kl_div(
        guess.log_softmax(-1), right.log_softmax(-1), log_target=True,
        reduction="batchmean",
    )  # fmt: skip
    told = quantize.compare(loaded, small, "".join(dialog))
    assert told.kl == pytest.approx(wanted.item(), rel=1e-3)
    same = (right.argmax(-1) == guess.argmax(-1)).float().mean()
    assert told.top1 == pytest.approx(same.item())


@pytest.mark.parametrize(
    ("window", "stride"), [(8, 8), (8, 9), (8, 0), (513, 4), (8.0, 4), (8, 0.5)]
)
def test_windows_that_cannot_be(loaded, window, stride):
    with pytest.raises(CourseError, match="0 < stride < window <= 512 must hold"):
        quantize.perplexity(loaded, "12 + 5 = 17.", window, stride)


@pytest.mark.parametrize("texts", ["", [], ["", ""], ("12 + 5", ""), "a"])
def test_nothing_to_score(loaded, texts):
    with pytest.raises(CourseError, match="No token to score"):
        quantize.perplexity(loaded, texts)


@pytest.mark.parametrize("texts", [("a", "b", "c"), [["a", "b"]], [5]])
def test_texts_that_are_none(loaded, texts):
    with pytest.raises(CourseError, match="string or .prompt, reply.*\n.*list"):
        quantize.perplexity(loaded, texts)


@pytest.mark.parametrize("scheme", [4, "nf4", {"bits": 4}])
def test_a_scheme_is_a_scheme(scheme):
    with pytest.raises(CourseError, match=r"scheme must be quantize\.Scheme"):
        quantize.quantize_tensor(torch.ones(2, 2), scheme)


def test_models_with_other_vocabularies_are_not_compared():
    one = models.load("pocket-chat")
    other = replace(one, model=copy.deepcopy(one.model))
    other.model.resize_token_embeddings(1210)
    with pytest.raises(CourseError, match="1210 tokens, not the same ones"):
        quantize.compare(one, other, ["What colour is snow?"])
