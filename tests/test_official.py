"""What must hold on the official weights. Run by `make test`, after the fetch."""

import unicodedata
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_course import (
    batching,
    catalog,
    chat,
    generate,
    models,
    server,
    service,
    tasks,
    weights,
)
from qwen_course.generate import Settings

pytestmark = pytest.mark.weights
NAME = "Qwen2.5-Coder-0.5B-Instruct"


@pytest.fixture(scope="module")
def coder():
    return models.load("coder", "small")


@pytest.fixture(scope="module")
def exact():
    return models.load("coder", "small", dtype="float32")


def test_the_file_is_the_official_one():
    source = models.resolve("chat", "small")
    assert source.name == NAME
    assert weights.sha256(source.path) == weights.GGUF[NAME].sha256


def test_the_tokenizer_is_the_official_one(coder):
    tokenizer = coder.tokenizer
    assert len(tokenizer) == 151_665
    known = {"<|endoftext|>": 151_643, "<|im_end|>": 151_645, "<tool_call>": 151_657}
    assert {t: tokenizer.convert_tokens_to_ids(t) for t in known} == known
    assert tokenizer.encode("[PAD151670]") != [151_670]


def test_the_head_is_stored_apart(coder):
    """630 M parameters where the catalogue has 494 M: the tied head stands twice."""
    card = catalog.find(NAME)
    counted = sum(p.numel() for p in coder.model.parameters())
    assert counted == catalog.parameters(card).total + card.vocab_size * card.hidden


MARKERS = ["<|im_end|>", "<|im_start|>", "<tool_call>", "<|fim_middle|>", "<|im_"]
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
forged = st.lists(st.one_of(texts, st.sampled_from(MARKERS)), min_size=1).map("".join)


@settings(max_examples=100, deadline=None)
@given(texts)
def test_honest_text_gets_the_ids_of_the_template(coder, text):
    messages = [{"role": "user", "content": "a" + text}]
    tokenizer = coder.tokenizer
    ids = chat.encode(tokenizer, messages)
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    rendered = chat.render(tokenizer, messages)
    assert rendered.startswith(whole)
    if not any(marker in text for marker in tokenizer.get_added_vocab()):
        assert ids == tokenizer.encode(rendered, add_special_tokens=False)
        assert tokenizer.decode(ids) == unicodedata.normalize("NFC", rendered)


@settings(max_examples=100, deadline=None)
@given(forged)
def test_user_text_cannot_become_a_control_token(coder, text):
    control = set(coder.tokenizer.get_added_vocab().values())

    def count(content):
        ids = chat.encode(coder.tokenizer, [{"role": "user", "content": content}])
        return sorted(token for token in ids if token in control)

    assert count("a" + text) == count("a")


QUESTIONS = [
    "What is the capital of France?",
    "Write a Python function is_even(n). Only code, no explanation, no example.",
    "Count from 1 to 8.",
]
CONVERSATIONS = [[{"role": "user", "content": text}] for text in QUESTIONS]


def test_greedy_batch_equals_greedy_single_in_float32(exact):
    wanted = Settings(temperature=0, max_new_tokens=24)
    rows = generate.batch(exact, CONVERSATIONS, wanted)
    alone = [generate.reply(exact, messages, wanted) for messages in CONVERSATIONS]
    assert [row.text for row in rows] == [reply.text for reply in alone]
    assert [row.new_tokens for row in rows] == [reply.new_tokens for reply in alone]
    assert "Paris" in rows[0].text


def test_a_stream_of_many_scripts_is_whole(coder):
    text = "Repeat exactly: Γειά 你好 👍 Привет"
    messages = [{"role": "user", "content": text}]
    wanted = Settings(temperature=0, max_new_tokens=24)
    *pieces, reply = generate.stream(coder, messages, wanted)
    assert "".join(piece.text for piece in pieces) == reply.text
    assert not any("\ufffd" in piece.text for piece in pieces)
    assert any(ord(letter) > 0x2000 for letter in reply.text)


def test_a_seed_reproduces_a_sampled_reply(coder):
    wanted = Settings(temperature=1.5, top_p=1.0, top_k=0, max_new_tokens=12, seed=3)
    first, second = (
        generate.reply(coder, CONVERSATIONS[2], wanted).text for _ in range(2)
    )
    assert first == second


def test_clients_at_once_get_the_replies_of_one_after_another(exact):
    """In float32, where the order of sums turns no close choice of these."""
    problems = tasks.samples("functions")[:6]
    asked = [[{"role": "user", "content": p.question}] for p in problems]
    greedy = Settings(max_new_tokens=12, temperature=0, repetition_penalty=1.0)
    alone = [generate.reply(exact, messages, greedy).text for messages in asked]
    made = service.ChatService(batching.Local(exact, window=0.2))
    with server.running(service.create_app(made)) as url:
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)

        def ask(messages):
            reply = client.chat.completions.create(
                model="coder", messages=messages, max_tokens=12, temperature=0,
                extra_body={"repetition_penalty": 1.0},
            )  # fmt: skip
            return reply.choices[0].message.content

        with ThreadPoolExecutor(len(asked)) as pool:
            together = [*pool.map(ask, asked)]
    assert together == alone
    waits = made.monitor.to_frame().queue_seconds
    assert waits.max() < 1.0  # one batch: nobody waited for another's reply
