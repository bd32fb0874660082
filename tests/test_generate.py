"""generate: replies, streams and batches, on models of a few thousand parameters."""

import signal
import threading
import time
from dataclasses import replace

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
        ("stop", 5),
        ("max_new_tokens", "many"),
        ("top_k", 2.5),
        ("seed", "one"),
        ("seed", -1),
        ("temperature", True),
        ("thinking", "yes"),
    ],
)
def test_bad_settings_name_the_field_and_the_value(field, value):
    with pytest.raises(CourseError, match=field) as error:
        Settings(**{field: value})
    assert repr(value) in str(error.value)


def test_all_wrong_settings_are_named_at_once():
    with pytest.raises(CourseError, match="top_k.*seed|seed.*top_k"):
        Settings(top_k=-1, seed="one")


@pytest.mark.parametrize(
    "wanted",
    [{"temperature": 2}, {"repetition_penalty": 2}, {"top_p": 0}, {"stop": ["x"]}],
)
def test_whole_numbers_and_lists_do_where_the_library_wants_floats(wanted):
    settings = Settings(max_new_tokens=3, **wanted)
    assert generate.reply(random_qwen(), HI, settings).new_tokens == 3


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


def test_the_default_length_fits_into_the_positions_of_a_small_model():
    long = [{"role": "user", "content": "a " * 200}]
    loaded = scripted("word " * 600, "Yes.")
    replies = generate.batch(loaded, [long, HI], Settings(temperature=0))
    assert replies[0].stop == "length"
    assert replies[0].prompt_tokens + replies[0].new_tokens == 512
    assert (replies[1].text, replies[1].stop) == ("Yes.", "stop")
    with pytest.raises(CourseError, match="Prompt . max_new_tokens: 51"):
        generate.reply(loaded, HI, Settings(max_new_tokens=509))


UNICODE = "Grüße 你好 👩‍🚀 Γειά"


def test_stream_never_breaks_a_character():
    loaded = scripted(UNICODE)
    pieces, reply = streamed(loaded, Settings(max_new_tokens=200))
    assert reply.text == UNICODE == "".join(piece.text for piece in pieces)
    assert not any("\ufffd" in piece.text for piece in pieces)
    assert len(loaded.model.scripts[0]) > len(pieces) > 3


@pytest.mark.slow
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


FOUR = "<think>\nlet me see\n</think>\n\n"


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        (FOUR + "Use </think> or <think> here.", "let me see", None),
        ("The tag </think> ends it.", "", "The tag </think> ends it."),
        ("The tag <think> opens it.", "", "The tag <think> opens it."),
        (FOUR + "Four.\n", "let me see", "Four.\n"),
        (FOUR + "\nFour.", "let me see", "Four."),
        ("<think></think>Four.", "", "Four."),
        ("\n<think>\nlet\n\nme </think>Four.", "let\n\nme", "Four."),
    ],
)
def test_pieces_make_the_reply_of_each_kind(text, thinking, answer):
    answer = "Use </think> or <think> here." if answer is None else answer
    loaded = scripted(text)
    pieces, reply = streamed(loaded, Settings(max_new_tokens=99))
    assert (reply.thinking, reply.text) == (thinking, answer)
    for kind, whole in (("thinking", thinking), ("answer", answer)):
        assert "".join(p.text for p in pieces if p.kind == kind) == whole
    tags = 2 if text.lstrip().startswith("<think>") else 0
    counted = reply.thinking_tokens + reply.answer_tokens + tags + 1
    assert counted == reply.new_tokens == len(loaded.model.scripts[0])


@pytest.mark.slow
def test_pieces_make_the_reply_of_a_model_that_writes_anything():
    for seed in range(6):
        wanted = Settings(temperature=5.0, max_new_tokens=30, seed=seed)
        pieces, reply = streamed(random_qwen(), wanted)
        for kind in ("thinking", "answer"):
            joined = "".join(p.text for p in pieces if p.kind == kind)
            assert joined == (reply.text if kind == "answer" else reply.thinking)
        assert reply.text == generate.reply(random_qwen(), HI, wanted).text


def test_a_thought_opened_by_the_prompt():
    loaded = scripted("let me see\n</think>\n\nFour.", template="qwen3_8")
    reply = generate.reply(loaded, HI, Settings(max_new_tokens=99))
    assert (reply.thinking, reply.text) == ("let me see", "Four.")
    assert 0 < reply.thinking_tokens < reply.new_tokens - 2


@pytest.mark.parametrize(
    ("template", "thinking", "works"),
    [
        ("qwen2_5", True, False),
        ("qwen2_5", False, True),
        ("qwen3_instruct_2507", True, False),
        ("qwen3", True, True),
        ("qwen3", False, True),
        ("qwen3_8", True, True),
    ],
)
def test_thinking_is_refused_where_the_template_has_no_such_mode(
    template, thinking, works
):
    loaded = scripted("Four.", template=template)
    wanted = Settings(max_new_tokens=9, thinking=thinking)
    if works:
        assert generate.reply(loaded, HI, wanted).new_tokens
    else:
        with pytest.raises(CourseError, match="thinking=True"):
            generate.reply(loaded, HI, wanted)


def test_thinking_cannot_be_switched_off_where_the_template_always_opens_it():
    loaded = scripted("Four.", template="qwen3_instruct_2507")
    prompt = "<|im_start|>assistant\\n"
    template = loaded.tokenizer.chat_template.replace(prompt, prompt + "<think>\\n")
    assert template.count("<think>\\n")
    loaded.tokenizer.chat_template = template
    with pytest.raises(CourseError, match="thinking=False"):
        generate.reply(loaded, HI, Settings(max_new_tokens=9, thinking=False))


def test_stop_texts_end_a_thought_too_and_are_left_out():
    text = "<think>\nfirst STOP then\n</think>\n\nFour."
    pieces, reply = streamed(
        scripted(text), Settings(max_new_tokens=99, stop=("STOP",))
    )
    assert (reply.thinking, reply.text, reply.stop) == ("first", "", "stop")
    assert "".join(piece.text for piece in pieces) == "first"


def test_a_control_token_can_be_a_stop_text():
    loaded = scripted("Hi<|im_start|>more")
    reply = generate.reply(
        loaded, HI, Settings(max_new_tokens=9, stop=("<|im_start|>",))
    )
    assert (reply.text, reply.stop, reply.answer_tokens) == ("Hi", "stop", 2)


def test_line_breaks_before_the_answer_are_no_stop_text():
    wanted = Settings(max_new_tokens=99, stop=("\n\n",))
    reply = generate.reply(scripted(FOUR + "Four.\n\nFive."), HI, wanted)
    assert (reply.thinking, reply.text) == ("let me see", "Four.")


def test_an_unfinished_thought_is_no_answer():
    text = "<think>\nlet me see whether this ends"
    reply = generate.reply(scripted(text, end=""), HI, Settings(max_new_tokens=9))
    assert (reply.text, reply.answer_tokens, reply.stop) == ("", 0, "length")
    assert reply.thinking.startswith("let me")


CONVERSATIONS = [
    [{"role": "user", "content": text}]
    for text in ("Hi", "What is the sum of two numbers? " * 3, "Tell me", "a" * 40)
]


@pytest.mark.slow
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


def test_a_batch_has_one_set_of_sampling_values(monkeypatch):
    source = models.Source("chat", "Qwen3-0.6B", "small", None, 0.0, "a test")
    loaded = scripted("Yes.", "No.")
    switch = "enable_thinking is defined and enable_thinking is false"
    by_text = f"({switch}) or messages[0].content == 'quick'"
    template = loaded.tokenizer.chat_template
    assert template.count(switch) == 1
    loaded.tokenizer.chat_template = template.replace(switch, by_text)
    both = [[{"role": "user", "content": text}] for text in ("slow", "quick")]
    loaded = models.Loaded(loaded.model, loaded.tokenizer, source)
    with pytest.raises(CourseError, match="one set of sampling"):
        generate.batch(loaded, both, Settings(max_new_tokens=9))
    fixed = Settings(
        max_new_tokens=9, temperature=0.5, top_p=1, top_k=0, min_p=0,
        repetition_penalty=1, presence_penalty=0,
    )  # fmt: skip
    assert [row.text for row in generate.batch(loaded, both, fixed)] == ["Yes.", "No."]


@pytest.mark.parametrize(
    "broken", [[], None, "Hi", [{"role": "user"}], [{"role": "robot", "content": ""}]]
)
def test_broken_conversations_are_refused_at_once(broken):
    for function in (generate.reply, generate.stream):  # without any next(...)
        with pytest.raises(CourseError):
            function(random_qwen(), broken)
    for conversations in (None, "Hi", HI, [HI, broken]):
        with pytest.raises(CourseError):
            generate.batch(random_qwen(), conversations)


@pytest.mark.slow
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


def with_logits(**logits):
    """Return a Loaded with these logits at every step, by the text of the token."""
    loaded = scripted("")

    def forward(input_ids=None, **kwargs):
        output = type(loaded.model).forward(loaded.model, input_ids, **kwargs)
        output.logits[:, -1] = -100.0
        for text, value in logits.items():
            token = loaded.tokenizer.convert_tokens_to_ids(text)
            output.logits[:, -1, token] = value
        return output

    loaded.model.forward = forward
    return loaded


def test_presence_penalty_is_subtracted_once_and_only_for_the_reply():
    loaded = with_logits(a=10.0, b=9.0)
    wanted = Settings(temperature=0, max_new_tokens=5, presence_penalty=1.5)
    asked = [{"role": "user", "content": "a a a"}]
    # a 10, b 9 -> a; a 8.5, b 9 -> b; a 8.5, b 7.5 -> a, and so on: never a 7.0
    assert generate.reply(loaded, asked, wanted).text == "abaaa"


def test_padding_gets_no_repetition_penalty(monkeypatch):
    """Padding with <|endoftext|> would fine it: the padded row would never end.

    transformers 5.23 leaves padding out by the mask, so the ids are looked at too.
    """
    loaded = with_logits(**{"<|endoftext|>": 10.0, "b": 9.0})
    wanted = Settings(temperature=0, max_new_tokens=3, repetition_penalty=1.5)
    asked = [[{"role": "user", "content": text}] for text in ("Hi", "Hi you there")]
    library, given = loaded.model.generate, []

    def spy(**options):
        given.append(options["input_ids"].tolist())
        return library(**options)

    monkeypatch.setattr(loaded.model, "generate", spy)
    rows = generate.batch(loaded, asked, wanted)
    assert [(row.new_tokens, row.stop) for row in rows] == [(1, "stop")] * 2
    prompts = [chat.encode(loaded.tokenizer, messages) for messages in asked]
    assert len(prompts[0]) < len(prompts[1]) == len(given[0][0])
    assert [set(ids) for ids in given[0]] == [set(ids) for ids in prompts]


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
    closed = generate.effective(loaded, Settings(), "<think>\n\n</think>\n\n")
    assert closed == replace(plain, thinking=None)
    pocket = generate.effective(random_qwen(), Settings())
    assert (pocket.temperature, pocket.top_p, pocket.presence_penalty) == (1.0, 1.0, 0)


def test_a_prompt_that_does_not_fit_is_refused():
    long = [{"role": "user", "content": "word " * 600}]
    with pytest.raises(CourseError, match="512 positions"):
        generate.reply(random_qwen(), long, GREEDY)
    with pytest.raises(CourseError, match="512 positions"):
        generate.stream(random_qwen(), long, GREEDY)
    with pytest.raises(CourseError, match="512 positions"):
        generate.batch(random_qwen(), [HI, long], GREEDY)


def test_the_models_own_config_counts_where_nothing_is_published():
    loaded = scripted("Yes.")
    loaded.model.generation_config.update(temperature=0.4, top_k=7)
    wanted = generate.effective(loaded, Settings())
    assert (wanted.temperature, wanted.top_k, wanted.top_p) == (0.4, 7, 1.0)
    greedy = scripted("Yes.")
    greedy.model.generation_config.do_sample = False  # as base models have it
    assert generate.effective(greedy, Settings()).temperature == 0
    fined = with_logits(a=10.0, b=9.0)
    fined.model.generation_config.repetition_penalty = 2.0
    plain = Settings(temperature=0, max_new_tokens=3, repetition_penalty=1)
    assert generate.reply(fined, HI, plain).text == "aaa"


def test_a_reply_warns_of_nothing(caplog):
    import transformers

    loaded = scripted("Yes.")
    own = loaded.model.generation_config
    own.temperature, own.top_k, own.top_p = 0.4, 7, 0.9
    logger = transformers.logging.get_logger("transformers")
    logger.addHandler(caplog.handler)
    try:
        generate.reply(loaded, HI, Settings(temperature=0, max_new_tokens=9))
        generate.reply(loaded, HI, Settings(temperature=1, max_new_tokens=9))
    finally:
        logger.removeHandler(caplog.handler)
    assert caplog.text == ""


def test_an_error_in_the_thread_reaches_the_reader(monkeypatch):
    loaded = scripted("one two three four")

    def broken(*args, **kwargs):
        kwargs["stopping_criteria"][0](torch.tensor([[5]]), None)
        raise RuntimeError("the device is gone")

    monkeypatch.setattr(loaded.model, "generate", broken)
    pieces = generate.stream(loaded, HI, GREEDY)
    with pytest.raises(RuntimeError, match="the device is gone"):
        list(pieces)
    assert not writers()


def writers():
    """Return the threads that a stream has started and not ended."""
    return [t for t in threading.enumerate() if t.name.endswith("(work)")]


def test_ctrl_c_in_a_stream_ends_its_thread():
    loaded = scripted("one two three " * 30)
    slow = loaded.model.register_forward_hook(lambda *_: time.sleep(0.01))
    pieces = generate.stream(loaded, HI, Settings(max_new_tokens=400))
    next(pieces)
    assert len(writers()) == 1
    main = threading.main_thread().ident
    timer = threading.Timer(0.1, signal.pthread_kill, [main, signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        list(pieces)
    timer.join()
    slow.remove()
    assert not writers()


def test_closing_a_stream_stops_the_model():
    loaded, passes = scripted("one two three " * 30), []
    wanted = Settings(temperature=0, max_new_tokens=400)

    def count(*_):
        passes.append(1)
        time.sleep(0.002)  # the reader gets its turn, however busy the machine

    with loaded.model.register_forward_hook(count):
        whole = generate.reply(loaded, HI, wanted).new_tokens
        passes.clear()
        pieces = generate.stream(loaded, HI, wanted)
        next(pieces)
        pieces.close()
    assert whole > 80
    assert len(passes) < whole / 2


@pytest.mark.slow
def test_seeds_hold_when_replies_run_at_once():
    loaded = random_qwen()
    drawn = Settings(max_new_tokens=12, temperature=1.0, seed=3)
    expected, told = generate.reply(loaded, HI, drawn).text, []

    def work():
        told.extend(generate.reply(loaded, HI, drawn).text for _ in range(5))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == [expected] * 10


def test_settings_are_what_they_seem():
    assert hash(Settings(stop=["a"])) == hash(Settings(stop=("a",)))
    with pytest.raises(CourseError, match="thinking"):
        Settings(thinking=0)
    with pytest.raises(CourseError, match="generate.Settings"):
        generate.reply(random_qwen(), HI, {"max_new_tokens": 5})


def test_the_head_reads_whole_hidden_states_only():
    """A frozen head would be copied for each row: 18 GB for 60 rows of a 0.5B."""
    loaded, seen = random_qwen(), []
    head = loaded.model.get_output_embeddings()
    messages = [[{"role": "user", "content": text}] for text in ("a", "the sum", "b")]
    before = len(head._forward_pre_hooks)
    with head.register_forward_hook(lambda _, given, out: seen.append(given[0])):
        generate.batch(loaded, messages, Settings(max_new_tokens=2))
    assert seen
    assert all(state.is_contiguous() for state in seen)
    assert len(head._forward_pre_hooks) == before


def test_rows_side_by_side_end_each_at_its_own_limit_and_stop_text():
    loaded = random_qwen()
    whole = generate.reply(loaded, HI, replace(GREEDY, max_new_tokens=30))
    end = whole.text[3:7]
    wanted = [replace(GREEDY, max_new_tokens=most) for most in (3, 17)]
    wanted.append(replace(GREEDY, max_new_tokens=30, stop=(end,)))
    rows = [generate.Row(loaded, HI, one, None) for one in wanted]
    heard = [[] for _ in rows]
    for row, items in zip(rows, heard, strict=True):
        row.hear = items.append
    replies = generate.side_by_side(loaded, rows)
    alone = [generate.reply(loaded, HI, one) for one in wanted]
    assert [r.text for r in replies] == [r.text for r in alone]
    assert [r.new_tokens for r in replies] == [3, 17, alone[2].new_tokens]
    for items, reply in zip(heard, replies, strict=True):
        assert items[-1] == reply  # said when it ended, not when all had
        assert "".join(p.text for p in items[:-1]) == reply.thinking + reply.text
    assert replies[0].seconds < replies[1].seconds


@pytest.mark.parametrize(
    ("changes", "last"),
    [
        ({}, 4),
        ({"presence_penalty": 0.7}, 4),
        ({"repetition_penalty": 1.2}, 4),
        ({"temperature": 1.0, "seed": 1}, 12),  # drawn side by side: all stay
    ],
    ids=["greedy", "presence", "repetition", "drawn"],
)
def test_rows_that_are_done_leave_and_change_no_other(changes: dict, last: int):
    loaded, sizes = random_qwen(), []
    asked = [[{"role": "user", "content": "sum " * n}] for n in range(1, 13)]
    wanted = [replace(GREEDY, max_new_tokens=3 + 17 * (n > 8), **changes)
              for n in range(1, 13)]  # fmt: skip
    rows = [
        generate.Row(loaded, messages, one, None)
        for messages, one in zip(asked, wanted, strict=True)
    ]
    head = loaded.model.get_output_embeddings()
    with head.register_forward_hook(lambda _, given, out: sizes.append(len(out))):
        replies = generate.side_by_side(loaded, rows)
    assert sizes == [12] * 3 + [last] * 17
    if not wanted[0].temperature:
        alone = [generate.reply(loaded, m, one)
                 for m, one in zip(asked, wanted, strict=True)]  # fmt: skip
        assert [r.text for r in replies] == [r.text for r in alone]


def test_a_row_that_is_closed_ends_alone_and_the_others_go_on():
    loaded = random_qwen()
    rows = [generate.Row(loaded, HI, GREEDY, None) for _ in range(3)]
    rows[0].stop = "closed"  # before the first token

    def leave(item):
        rows[1].stop = "closed"

    rows[1].hear = leave
    replies = generate.side_by_side(loaded, rows)
    assert [reply.stop for reply in replies] == ["closed", "closed", "length"]
    assert replies[0].new_tokens == 0
    assert 0 < replies[1].new_tokens < GREEDY.max_new_tokens
    assert replies[2].text == generate.reply(loaded, HI, GREEDY).text


def test_rows_with_other_sampling_values_are_refused():
    loaded = random_qwen()
    wanted = [Settings(max_new_tokens=2, temperature=t, seed=1) for t in (0.5, 0.7)]
    rows = [generate.Row(loaded, HI, one, None) for one in wanted]
    with pytest.raises(CourseError, match="one set of sampling values"):
        generate.side_by_side(loaded, rows)
    greedy = [replace(one, temperature=0) for one in wanted]  # a seed says nothing
    rows = [generate.Row(loaded, HI, one, None) for one in [*greedy, GREEDY]]
    assert len(generate.side_by_side(loaded, rows)) == 3


def test_a_picture_is_refused_not_ignored():
    reader = models.load("pocket-vision")
    picture = {"type": "image", "image": "no_such.png"}
    parts = [picture, {"type": "text", "text": "Which bar is the highest?"}]
    with pytest.raises(CourseError, match=r"reads text alone.*\n.*processor"):
        generate.reply(reader, [{"role": "user", "content": parts}])
