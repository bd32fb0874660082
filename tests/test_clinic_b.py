"""Entries 9 to 15 of the clinic: each fault shows, and its cure makes it go.

The essential lines of notebooks/09b_clinic.ipynb, on the same models. What the cells
print is compared by nbval.
"""

import copy
import json
import re
from dataclasses import replace

import pytest
import torch
import transformers
from torch.overrides import TorchFunctionMode
from transformers.models.qwen2_vl import image_processing_pil_qwen2_vl
from trl import chat_template_utils

from qwen_course import answers, catalog, chat, finetune, generate, models, tasks
from qwen_course.generate import Settings

GREEDY = Settings(temperature=0, max_new_tokens=40, thinking=False)
HELLO = [{"role": "user", "content": "Hello!"}]


@pytest.fixture(scope="module")
def pocket():
    return models.load("pocket-chat")


# --- 9: "!!!!!!" ------------------------------------------------------------------


@pytest.fixture(scope="module")
def loud(pocket):
    """The same function as pocket-chat, with numbers over 65,504 inside."""
    net = copy.deepcopy(pocket.model)
    layer = net.model.layers[-1].mlp
    with torch.no_grad():
        layer.up_proj.weight *= 2**14
        layer.down_proj.weight /= 2**14
    return net


def said(pocket, net, kind):
    loaded = replace(pocket, model=copy.deepcopy(net).to(kind))
    return generate.reply(loaded, HELLO, GREEDY).text


def test_an_overflow_in_float16_is_token_0_again_and_again(pocket, loud):
    assert pocket.tokenizer.decode([0]) == "!"
    assert said(pocket, loud, torch.float16) == "!" * 40
    # not float16 alone: without the large numbers it writes as ever
    assert "!!" not in said(pocket, pocket.model, torch.float16)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_formats_that_reach_far_cure_it(pocket, loud, kind):
    whole = said(pocket, pocket.model, torch.float32)
    assert said(pocket, loud, kind) == whole
    assert whole.startswith("Hello")


# --- 10: tool_calls is empty --------------------------------------------------------

CALL = {"name": "weather", "arguments": {"city": "Oslo"}}


def hermes(text):
    inside = re.findall(r"<tool_call>(.*?)</tool_call>", text, re.DOTALL)
    try:
        return [json.loads(call) for call in inside]
    except ValueError:
        return []


def qwen3_coder(text):
    function = r"<function=([^>\n]+)>(.*?)</function>"
    value = r"<parameter=([^>\n]+)>\n(.*?)\n</parameter>"
    return [
        {"name": name, "arguments": dict(re.findall(value, body, re.S))}
        for name, body in re.findall(function, text, re.S)
    ]


def written(pocket, template):
    """What a model of this template writes for a call, by the template itself."""
    copied = copy.deepcopy(pocket.tokenizer)
    copied.chat_template = getattr(chat_template_utils, f"{template}_chat_template")
    turn = {"role": "assistant", "content": ""}
    turn |= {"tool_calls": [{"type": "function", "function": CALL}]}
    text = chat.render(copied, [*HELLO, turn], add_generation_prompt=False)
    return text[text.index("<tool_call>") :]


@pytest.mark.parametrize(
    ("template", "right", "wrong"),
    [
        ("qwen2_5", hermes, qwen3_coder),
        ("qwen3", hermes, qwen3_coder),
        ("qwen3_5_nothink", qwen3_coder, hermes),
        ("qwen3_6", qwen3_coder, hermes),
        ("qwen3_8", qwen3_coder, hermes),
    ],
)
def test_one_parser_finds_the_call_and_the_other_nothing(
    pocket, template, right, wrong
):
    text = written(pocket, template)
    assert wrong(text) == []
    assert right(text) == [CALL]
    assert chat.parse_tool_calls(text) == [CALL]


# --- 11: the mixture of experts is slow ---------------------------------------------


class Calls(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.names.append(function.__name__)
        return function(*args, **(kwargs or {}))


def test_grouped_experts_need_no_loop_and_give_the_same_logits():
    shape = transformers.Qwen3MoeConfig(
        vocab_size=1000, hidden_size=128, num_hidden_layers=2, head_dim=32,
        num_attention_heads=4, num_key_value_heads=2, moe_intermediate_size=64,
        num_experts=128, num_experts_per_tok=8,
    )  # fmt: skip
    transformers.set_seed(0)
    net = transformers.Qwen3MoeForCausalLM(shape).eval()
    text = torch.randint(1000, (1, 200))
    logits, names = {}, {}
    net.set_experts_implementation("eager")
    with torch.inference_mode(), Calls() as calls:
        net(text[:, :1])
    assert calls.names.count("index_add_") == 2 * 8  # layers, experts of a token
    for way in ("eager", "grouped_mm"):
        net.set_experts_implementation(way)
        with torch.inference_mode(), Calls() as calls:
            logits[way] = net(text).logits
        names[way] = calls.names
    assert 200 < names["eager"].count("index_add_") <= 256
    assert "index_add_" not in names["grouped_mm"]
    assert sum("grouped_mm" in name for name in names["grouped_mm"]) == 4
    assert len(names["grouped_mm"]) * 10 < len(names["eager"])
    assert torch.allclose(logits["eager"], logits["grouped_mm"], atol=1e-4)


# --- 12: Base or Instruct -----------------------------------------------------------


@pytest.fixture(scope="module")
def translator():
    return models.load("pocket-translator")


@pytest.fixture(scope="module")
def base(translator):
    """pocket-translator after 60 steps on plain text."""
    plain = [
        token
        for p in tasks.draw("french", 1000, seed=0, held_out=False)
        for token in translator.tokenizer.encode(f"{p.question}\n{p.answer}\n\n")
    ]
    net = copy.deepcopy(translator.model).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3)
    torch.manual_seed(0)
    for _ in range(60):
        places = torch.randint(len(plain) - 64, (16,)).tolist()
        rows = torch.tensor([plain[place : place + 64] for place in places])
        net(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return replace(translator, model=net.eval())


def asked(loaded):
    """Replies to ten held-out questions, asked in a chat."""
    test = tasks.draw("french", 10, seed=5)
    chats = [[{"role": "user", "content": p.question}] for p in test]
    return generate.batch(loaded, chats, GREEDY)


def test_a_base_does_not_stop_and_an_instruct_model_does(base, translator):
    assert sum(reply.stop == "stop" for reply in asked(base)) <= 1
    assert all(reply.stop == "stop" for reply in asked(translator))


def test_a_few_chats_teach_a_base_to_stop(base):
    known = tasks.draw("french", 32, seed=0, held_out=False)
    examples = [
        {
            "messages": [
                {"role": "user", "content": p.question},
                {"role": "assistant", "content": json.dumps({"fr": p.answer})},
            ]
        }
        for p in known
    ]
    few = finetune.LoraSettings(
        full=True, learning_rate=1e-3, batch_size=8, steps=40, warm_up=0.1
    )
    replies = asked(finetune.train(base, examples, few).tuned)
    assert sum(reply.stop == "stop" for reply in replies) >= 9
    assert sum(reply.text.startswith('{"fr": "') for reply in replies) >= 9


def test_a_base_answers_below_a_plain_question(base):
    right = 0
    test = tasks.draw("french", 10, seed=5)
    for p in test:
        ids = base.tokenizer.encode(f"{p.question}\n")
        out = base.model.generate(
            torch.tensor([ids]), max_new_tokens=30, do_sample=False
        )[0]
        right += base.tokenizer.decode(out[len(ids) :]).split("\n")[0] == p.answer
    assert right > 5


# --- 13: KeyError -------------------------------------------------------------------


def test_an_unknown_type_is_a_key_error_inside(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen9"}')
    with pytest.raises(ValueError, match="model type `qwen9`") as caught:
        transformers.AutoConfig.from_pretrained(tmp_path)
    assert isinstance(caught.value.__context__, KeyError)
    assert caught.value.__context__.args == ("qwen9",)


def test_every_type_with_a_version_in_the_catalogue_is_known_here(tmp_path):
    from packaging.version import Version

    needs = {c.model_type: c.transformers_min for c in catalog.cards()}
    known = {kind for kind, version in needs.items() if version}
    assert {"qwen2", "qwen3", "qwen3_moe", "qwen3_5"} <= known
    for kind in known:
        assert Version(needs[kind]) <= Version(transformers.__version__)
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        assert transformers.AutoConfig.from_pretrained(tmp_path).model_type == kind


# --- 14: mixed languages ------------------------------------------------------------

SMALL = "Qwen2.5-Coder-0.5B-Instruct"


def test_a_stored_official_reply_is_mixed_in_one_sentence_of_three():
    reply = tasks.measured(SMALL, "energy").replies[0][1]
    part = reply.split("\n\n")[1].removeprefix("Chinese:\n")
    found = [answers.speaks(s, "zh").passed for s in re.findall(r"[^。]+。", part)]
    assert found == [True, True, False]


def test_official_replies_came_in_english_whatever_was_asked():
    replies = tasks.measured(SMALL, "explain").replies
    for code in ("es", "fr", "zh"):
        texts = [text for asked_in, text, *_ in replies if asked_in == code]
        assert len(texts) == 5
        assert {answers.language(text).code for text in texts} == {"en"}


@pytest.mark.parametrize(
    ("system", "language"),
    [("You are a helpful assistant.", "en"), ("Answer in French only.", "fr")],
)
def test_a_system_message_chooses_the_language(pocket, system, language):
    for question in (
        "What is the capital of Italy?",
        "What is the opposite of big?",
        "What is the capital of Greece?",
        "What is the capital of Spain?",
    ):
        turns = [{"role": "system", "content": system}]
        turns.append({"role": "user", "content": question})
        text = generate.reply(pocket, turns, GREEDY).text
        assert answers.language(text).code == language, text


@pytest.mark.weights
def test_on_official_weights_rule_and_question_must_be_in_the_language():
    coder = models.load("chat", "small")
    english = "Explain in two sentences what renewable energy is."
    texts = {
        "es": (
            "Responde siempre en español.",
            "Explica en dos frases qué es la energía renovable.",
        ),
        "zh": ("请始终用中文回答。", "用两句话解释什么是可再生能源。"),
    }
    for own_question in (False, True):
        chats = [
            [
                {"role": "system", "content": rule},
                {"role": "user", "content": question if own_question else english},
            ]
            for rule, question in texts.values()
        ]
        for code, reply in zip(
            texts, generate.batch(coder, chats, GREEDY), strict=True
        ):
            assert answers.speaks(reply.text, code).passed == own_question, reply.text


# --- 15: pictures -------------------------------------------------------------------


def patches(most_tokens, unit=28):
    area = {"shortest_edge": 4 * unit**2, "longest_edge": most_tokens * unit**2}
    reader = image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil(
        patch_size=unit // 2, merge_size=2, size=area
    )
    return reader.get_number_of_image_patches(3300, 2600)


def test_a_page_costs_ten_thousand_tokens_and_a_limit_holds():
    heads = transformers.Qwen2VLConfig().vision_config.num_heads
    page = patches(16384)
    assert page // 4 == 10_974
    assert page**2 * heads * 2 > 60e9
    for most in (4096, 1280, 256):
        assert 0.9 * most < patches(most) // 4 <= most
    assert patches(1280) ** 2 * heads * 2 < 1e9


@pytest.mark.parametrize("grid", [(1000, 1000), (1316, 728)])
def test_a_box_is_shifted_as_it_stands_and_right_when_rescaled(grid):
    size, button = (1920, 1080), (1440, 810, 1632, 864)
    numbers = [round(v * grid[i % 2] / size[i % 2]) for i, v in enumerate(button)]
    assert abs(numbers[0] - button[0]) > 400
    pixels = [round(v * size[i % 2] / grid[i % 2]) for i, v in enumerate(numbers)]
    assert all(abs(a - b) <= 1 for a, b in zip(pixels, button, strict=True))
