"""generate: replies, streams and batches, on models of a few thousand parameters."""

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import random_qwen, scripted
from transformers import GenerationConfig

from qwen_course import chat, generate, models
from qwen_course.errors import CourseError
from qwen_course.generate import Piece, Reply, Settings

HI = [{"role": "user", "content": "Hi"}]
GREEDY = Settings(temperature=0, max_new_tokens=12)


def streamed(loaded, settings, messages=HI):
    *pieces, last = generate.stream(loaded, messages, settings)
    assert isinstance(last, Reply)
    assert all(isinstance(piece, Piece) and piece.text for piece in pieces)
    return pieces, last


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", 2.5),
        ("temperature", -0.1),
        ("top_p", 1.5),
        ("top_k", -1),
        ("min_p", "much"),
        ("repetition_penalty", 0),
        ("presence_penalty", 3),
        ("stop", "text"),
        ("stop", ("",)),
    ],
)
def test_bad_settings_name_the_field_and_the_value(field, value):
    with pytest.raises(CourseError, match=field) as error:
        Settings(**{field: value})
    assert repr(value) in str(error.value)


def test_reply_equals_the_bare_library_call():
    loaded = random_qwen()
    ids = torch.tensor([chat.encode(loaded.tokenizer, HI)])
    config = GenerationConfig(max_new_tokens=12, do_sample=False, pad_token_id=0)
    bare = loaded.model.generate(
        ids, attention_mask=torch.ones_like(ids), generation_config=config
    )[0, ids.shape[1] :]
    reply = generate.reply(loaded, HI, GREEDY)
    assert reply.new_tokens == 12
    assert reply.text == loaded.tokenizer.decode(bare, skip_special_tokens=True)


def test_counts_times_and_stop_reason():
    reply = generate.reply(scripted("Hello there."), HI, GREEDY)
    tokens = len(scripted("Hello there.").model.scripts[0])
    assert (reply.text, reply.stop) == ("Hello there.", "stop")
    assert reply.new_tokens == tokens == reply.answer_tokens + 1
    assert len(reply.token_seconds) == tokens - 1
    assert 0 < reply.first_token_seconds < reply.seconds
    total = reply.first_token_seconds + sum(reply.token_seconds)
    assert total == pytest.approx(reply.seconds)
    assert reply.tokens_per_second > 0
    cut = generate.reply(scripted("Hello there."), HI, Settings(max_new_tokens=1))
    assert (cut.stop, cut.new_tokens, cut.tokens_per_second) == ("length", 1, 0.0)


@pytest.mark.parametrize("end", ["<|im_end|>", "<|endoftext|>"])
def test_every_end_token_stops(end):
    reply = generate.reply(scripted("Yes.", end=end), HI, GREEDY)
    assert (reply.text, reply.stop) == ("Yes.", "stop")


UNICODE = "Grüße 你好 👩‍🚀 Γειά"


def test_stream_never_breaks_a_character():
    loaded = scripted(UNICODE)
    pieces, reply = streamed(loaded, Settings(max_new_tokens=200))
    assert reply.text == UNICODE == "".join(piece.text for piece in pieces)
    assert not any("\ufffd" in piece.text for piece in pieces)
    assert len(loaded.model.scripts[0]) > len(pieces) > 3


@given(limit=st.integers(1, 40))
@settings(max_examples=15, deadline=None)
def test_stream_equals_reply_wherever_it_is_cut(limit):
    loaded, wanted = scripted(UNICODE), Settings(max_new_tokens=limit)
    pieces, last = streamed(loaded, wanted)
    reply = generate.reply(loaded, HI, wanted)
    assert (last.text, last.new_tokens) == (reply.text, reply.new_tokens)
    assert "".join(piece.text for piece in pieces) == reply.text


@pytest.mark.parametrize("stop", [("five",), ("e, f",), ("nowhere", "five, six")])
def test_stop_texts_end_reply_and_stream_alike(stop):
    text = "one, two, three, four, five, six, seven"
    wanted = Settings(max_new_tokens=200, stop=stop)
    reply = generate.reply(scripted(text), HI, wanted)
    expected = text[: min(text.find(s) for s in stop if s in text)]
    assert (reply.text, reply.stop) == (expected, "stop")
    pieces, last = streamed(scripted(text), wanted)
    assert last.text == expected == "".join(piece.text for piece in pieces)


def test_thinking_is_split_counted_and_labelled():
    text = "<think>\nlet me see\n</think>\n\nFour."
    reply = generate.reply(scripted(text), HI, Settings(max_new_tokens=99))
    assert (reply.thinking, reply.text) == ("let me see", "Four.")
    tokenizer = scripted(text).tokenizer
    inside = tokenizer.encode("\nlet me see\n", add_special_tokens=False)
    assert reply.thinking_tokens == len(inside)
    assert reply.new_tokens == len(inside) + 2 + reply.answer_tokens + 1
    pieces, _ = streamed(scripted(text), Settings(max_new_tokens=99))
    by_kind = {"thinking": "", "answer": ""}
    for piece in pieces:
        by_kind[piece.kind] += piece.text
    assert by_kind["answer"] == "Four."
    assert by_kind["thinking"].strip() == "let me see"


def test_an_unfinished_thought_is_no_answer():
    text = "<think>\nlet me see whether this ends"
    reply = generate.reply(scripted(text, end=""), HI, Settings(max_new_tokens=9))
    assert (reply.text, reply.answer_tokens, reply.stop) == ("", 0, "length")
    assert reply.thinking.startswith("let me")


CONVERSATIONS = [
    [{"role": "user", "content": text}]
    for text in ("Hi", "What is the sum of two numbers? " * 3, "Tell me", "a" * 40)
]


@pytest.mark.parametrize("template", ["qwen3", "qwen2_5"])
def test_greedy_batch_equals_greedy_single(template):
    loaded = random_qwen(template)
    rows = generate.batch(loaded, CONVERSATIONS, GREEDY)
    for row, messages in zip(rows, CONVERSATIONS, strict=True):
        alone = generate.reply(loaded, messages, GREEDY)
        assert (row.text, row.new_tokens) == (alone.text, alone.new_tokens)
        assert row.prompt_tokens == alone.prompt_tokens


def test_batch_rows_end_each_on_their_own():
    texts = ("Yes.", "one, two, three, four", "<think>\nhm\n</think>\n\nNo.")
    rows = generate.batch(
        scripted(*texts), CONVERSATIONS[:3], Settings(max_new_tokens=99, stop=("four",))
    )
    assert [row.text for row in rows] == ["Yes.", "one, two, three, ", "No."]
    assert [row.stop for row in rows] == ["stop"] * 3
    assert rows[0].seconds < rows[1].seconds
    assert generate.batch(random_qwen(), []) == []


def test_seeds_reproduce_and_leave_the_generator_alone():
    loaded = random_qwen()

    def text(seed):
        wanted = Settings(max_new_tokens=12, temperature=2.0, seed=seed)
        return generate.reply(loaded, HI, wanted).text

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = text(1)
    assert torch.equal(torch.rand(3), expected)
    assert first == text(1)
    assert len({text(seed) for seed in range(4)}) > 1


def test_presence_penalty_is_subtracted_once_from_written_tokens():
    process = generate._presence_penalty(2, 1.5)
    ids = torch.tensor([[4, 4, 1, 1, 3]])  # the prompt is 4 4
    scores = process(ids, torch.zeros(1, 5))
    assert scores.tolist() == [[0.0, -1.5, 0.0, -1.5, 0.0]]


def test_presence_penalty_changes_a_reply():
    loaded = random_qwen()
    plain = generate.reply(loaded, HI, Settings(temperature=0, max_new_tokens=30))
    fined = generate.reply(
        loaded, HI, Settings(temperature=0, max_new_tokens=30, presence_penalty=2.0)
    )
    assert plain.text != fined.text


def test_defaults_come_from_the_published_table():
    source = models.Source("chat", "Qwen3-0.6B", "small", None, 0.0, "a test")
    loaded = models.Loaded(random_qwen().model, random_qwen().tokenizer, source)
    thinking = generate.effective(loaded, Settings())
    plain = generate.effective(loaded, Settings(thinking=False))
    assert (thinking.temperature, thinking.top_p, thinking.top_k) == (0.6, 0.95, 20)
    assert (plain.temperature, plain.top_p, plain.top_k) == (0.7, 0.8, 20)
    assert generate.effective(loaded, Settings(temperature=0.3)).temperature == 0.3
    pocket = generate.effective(random_qwen(), Settings())
    assert (pocket.temperature, pocket.top_p, pocket.presence_penalty) == (1.0, 1.0, 0)


def test_a_prompt_that_does_not_fit_is_refused():
    long = [{"role": "user", "content": "word " * 600}]
    with pytest.raises(CourseError, match="512 positions"):
        generate.reply(random_qwen(), long, GREEDY)
    with pytest.raises(CourseError, match="512 positions"):
        list(generate.stream(random_qwen(), long, GREEDY))


def test_closing_a_stream_stops_the_model():
    loaded = random_qwen()
    pieces = generate.stream(loaded, HI, Settings(temperature=0, max_new_tokens=450))
    started = time.perf_counter()
    next(pieces)
    pieces.close()
    stopped = time.perf_counter() - started
    started = time.perf_counter()
    generate.reply(loaded, HI, Settings(temperature=0, max_new_tokens=450))
    assert stopped < (time.perf_counter() - started) / 2
