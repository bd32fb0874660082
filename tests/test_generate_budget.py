"""generate: thinking under a budget, on random, scripted and trained models."""

import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import random_qwen, scripted

from qwen_course import chat, generate, models, tasks
from qwen_course.errors import CourseError
from qwen_course.generate import EARLY_STOP, Settings

HI = [{"role": "user", "content": "Hi"}]
THOUGHT = "<think>\nlet me see\n</think>\n\nFour."
CLOSED = "<think>\n\n</think>\n\n"
ASKED = st.lists(st.text("ab <|>", max_size=9), min_size=1, max_size=4)


class Spy:
    """A model that remembers the ids that `generate` wrote; rows that left get pads."""

    def __init__(self, model):
        self.model, self.ids, self.rows = model, None, []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def generate(self, **options):
        given = options["input_ids"].tolist()
        made, pad = self.model.generate(**options), options["generation_config"]
        if options["past_key_values"] is None:
            self.rows = [*given]
        for line in made.sequences.tolist():  # its first tokens are those given
            self.rows[self.rows.index(given.pop(0))] = line
        longest = len(line)
        pads = [pad.pad_token_id] * longest
        self.ids = torch.tensor([(row + pads)[:longest] for row in self.rows])
        return made


def spied(loaded):
    return replace(loaded, model=Spy(loaded.model))


def written(loaded, row=0, unread=0):
    """Return the text after the prompt, control tokens included, padding left out.

    `unread` tokens at the end came after this row had stopped, for other rows.
    """
    tokenizer, width = loaded.tokenizer, loaded.model.ids.shape[1] - unread
    ids = loaded.model.ids[row].tolist()
    text = tokenizer.decode(ids[ids.index(tokenizer.bos_token_id or ids[0]) : width])
    return text.split("assistant\n", 1)[1].replace("<|endoftext|>", "")


@pytest.fixture(scope="module")
def thinker():
    return models.load("pocket-thinking")


def chains(n, **options):
    problems = tasks.draw("chain", n, seed=3, **options)
    return [[{"role": "user", "content": p.question}] for p in problems]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("thinking_budget", -1),
        ("thinking_budget", 2.5),
        ("thinking_budget", True),
        ("thinking_cut", "soft"),
        ("thinking_cut", None),
    ],
)
def test_bad_settings_name_the_field_and_the_value(field, value):
    with pytest.raises(CourseError, match=field) as error:
        Settings(**{field: value})
    assert repr(value) in str(error.value)


def test_no_budget_for_what_is_switched_off():
    with pytest.raises(CourseError, match="thinking_budget must be None"):
        Settings(thinking=False, thinking_budget=8)


def test_a_tokenizer_without_the_tag_is_refused():
    loaded = random_qwen("qwen2_5")
    with pytest.raises(CourseError, match="no token </think>"):
        generate.reply(loaded, HI, Settings(max_new_tokens=9, thinking_budget=8))


@pytest.mark.parametrize(
    ("budget", "cut", "expected"),
    [
        (0, "cut", CLOSED),
        (0, "official", f"<think>{EARLY_STOP}</think>\n\n"),
        (1, "cut", CLOSED),
        (5, "cut", None),
        (5, "official", None),
    ],
)
def test_what_is_injected(budget, cut, expected):
    loaded = spied(scripted(THOUGHT))
    wanted = Settings(max_new_tokens=150, thinking_budget=budget, thinking_cut=cut)
    reply = generate.reply(loaded, HI, wanted)
    tokenizer = loaded.tokenizer
    inside = tokenizer.encode("\nlet me see\n", add_special_tokens=False)[:budget]
    if expected is None:
        end = EARLY_STOP if cut == "official" else "\n"
        expected = f"<think>{tokenizer.decode(inside)}{end}</think>\n\n"
    assert written(loaded).startswith(expected)
    injected = tokenizer.encode(expected, add_special_tokens=False)[1 + budget :]
    assert (reply.thinking_tokens, reply.budget_cut) == (budget, True)
    assert reply.injected_tokens == len(injected)
    assert reply.thinking == tokenizer.decode(inside).strip()
    counted = reply.thinking_tokens + reply.injected_tokens + reply.answer_tokens
    assert reply.new_tokens == counted + 2  # the opening tag and the end of turn


def test_a_budget_of_zero_gives_the_prompt_of_thinking_switched_off(thinker):
    loaded = spied(thinker)
    for messages in chains(5, levels=[3]):
        short = Settings(max_new_tokens=20)
        answer = generate.reply(loaded, messages, replace(short, thinking_budget=0))
        ids = loaded.model.ids[0].tolist()
        off = chat.encode(thinker.tokenizer, messages, thinking=False)
        assert ids[: len(off)] == off
        plain = generate.reply(thinker, messages, replace(short, thinking=False))
        assert (answer.text, answer.thinking) == (plain.text, "")


@pytest.mark.parametrize("template", ["qwen3_5_think", "qwen3_8"])
def test_a_thought_that_the_prompt_opened_is_cut_too(template):
    loaded = spied(scripted("let me see\n</think>\n\nFour.", template=template))
    for budget in (0, 3):
        wanted = Settings(max_new_tokens=99, thinking_budget=budget)
        reply = generate.reply(loaded, HI, wanted)
        assert (reply.thinking_tokens, reply.budget_cut) == (budget, True)
        text = written(loaded)
        assert text.startswith("<think>\n")
        assert text.count("</think>") == 1
        assert "\n</think>\n\n" in text


def test_a_thought_as_long_as_its_budget_is_not_cut():
    tokenizer = scripted(THOUGHT).tokenizer
    inside = len(tokenizer.encode("\nlet me see\n", add_special_tokens=False))
    for budget, cut in ((inside - 1, True), (inside, False), (inside + 1, False)):
        wanted = Settings(max_new_tokens=99, thinking_budget=budget)
        reply = generate.reply(scripted(THOUGHT), HI, wanted)
        assert reply.budget_cut is cut
        assert bool(reply.injected_tokens) is cut
        assert cut or reply.text == "Four."


def test_a_reply_that_ends_while_it_is_closed_is_no_answer():
    wanted = Settings(max_new_tokens=8, thinking_budget=5, thinking_cut="official")
    reply = generate.reply(scripted(THOUGHT), HI, wanted)
    assert (reply.text, reply.stop, reply.new_tokens) == ("", "length", 8)
    assert (reply.thinking_tokens, reply.injected_tokens) == (5, 2)


def test_after_a_cut_neither_tag_can_be_written_again():
    loaded = spied(scripted("<think>\n" + "</think><think>" * 9))
    wanted = Settings(max_new_tokens=40, thinking_budget=0)
    generate.reply(loaded, HI, wanted)
    text = written(loaded)
    assert (text.count("<think>"), text.count("</think>")) == (1, 1)


@pytest.mark.parametrize(
    "extra",
    [
        {"presence_penalty": 2.0},
        {"repetition_penalty": 5.0},
        {"top_k": 1},
        {"top_p": 0.1, "min_p": 0.5},
    ],
)
def test_penalties_and_cuts_of_the_sampling_do_not_touch_the_budget(extra):
    wanted = Settings(
        temperature=2.0, max_new_tokens=60, thinking_budget=7, seed=1, **extra
    )
    loaded = spied(random_qwen("qwen3_5_think"))
    for messages in ([{"role": "user", "content": text}] for text in ("a", "b")):
        reply = generate.reply(loaded, messages, wanted)
        assert reply.thinking_tokens <= 7
        assert written(loaded).count("</think>") == 1


@pytest.mark.slow
@given(
    texts=ASKED,
    budget=st.integers(0, 30),
    temperature=st.sampled_from([0, 1.0, 5.0]),
    template=st.sampled_from(["qwen3", "qwen3_5_think", "qwen3_8"]),
    cut=st.sampled_from(["cut", "official"]),
)
@settings(max_examples=20, deadline=None)
def test_no_thought_is_longer_than_its_budget(
    texts, budget, temperature, template, cut
):
    loaded = spied(random_qwen(template))
    wanted = Settings(
        temperature=temperature, max_new_tokens=80, seed=1,
        thinking_budget=budget, thinking_cut=cut,
    )  # fmt: skip
    asked = [[{"role": "user", "content": text}] for text in texts]
    replies = generate.batch(loaded, asked, wanted)
    longest = max(reply.new_tokens for reply in replies)
    for row, reply in enumerate(replies):
        assert reply.thinking_tokens <= budget
        if reply.budget_cut:
            assert reply.thinking_tokens == budget
            unfinished = reply.stop == "length" and not reply.text
            tags = written(loaded, row, longest - reply.new_tokens).count("</think>")
            assert tags in {1, 1 - unfinished}


@pytest.mark.slow
@given(seed=st.integers(0, 10**6), budget=st.integers(0, 120), n=st.integers(1, 9))
@settings(max_examples=10, deadline=None)
def test_budgets_of_a_real_thinker(thinker, seed, budget, n):
    """Batch equals single, a budget above the natural length changes nothing."""
    problems = tasks.draw("chain", n, seed=seed, levels=range(2, 13))
    asked = [[{"role": "user", "content": p.question}] for p in problems]
    free = Settings(temperature=0, max_new_tokens=200)
    wanted = replace(free, thinking_budget=budget)
    loaded = spied(thinker)
    freely = generate.batch(loaded, asked, free)
    cut = generate.batch(loaded, asked, wanted)
    for row, reply in enumerate(cut):
        text = written(loaded, row)
        assert (text.count("<think>"), text.count("</think>")) == (1, 1)
        natural = freely[row]
        assert reply.thinking_tokens == min(budget, natural.thinking_tokens)
        assert reply.budget_cut == (budget < natural.thinking_tokens)
        if not reply.budget_cut:
            same = (natural.text, natural.thinking, natural.new_tokens)
            assert (reply.text, reply.thinking, reply.new_tokens) == same
    single = generate.reply(thinker, asked[-1], wanted)
    same = (single.text, single.thinking, single.new_tokens)
    assert (reply.text, reply.thinking, reply.new_tokens) == same


def test_official_is_what_the_two_calls_of_the_documentation_give(thinker):
    """Their budget counts the opening tag too, ours does not."""
    tokenizer, model = thinker.tokenizer, thinker.model
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "</think>"])
    early = tokenizer.encode(f"{EARLY_STOP}</think>\n\n", add_special_tokens=False)
    for messages in chains(3, levels=[4, 8]):
        for budget in (5, 17, 150):
            ids = torch.tensor([chat.encode(tokenizer, messages)])
            first = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False,
                max_new_tokens=budget,
            )  # fmt: skip
            if not set(ends) & set(first[0, ids.shape[1] :].tolist()):
                first = torch.cat([first, torch.tensor([early])], 1)
            both = model.generate(
                first, attention_mask=torch.ones_like(first), do_sample=False,
                max_new_tokens=40,
            )  # fmt: skip
            loaded = spied(thinker)
            generate.reply(loaded, messages, Settings(
                temperature=0, thinking_budget=budget - 1, thinking_cut="official",
                max_new_tokens=both.shape[1] - ids.shape[1],
            ))  # fmt: skip
            length = loaded.model.ids.shape[1]
            assert loaded.model.ids.tolist() == both[:, :length].tolist()


def test_streamed_pieces_hold_what_the_model_wrote_itself():
    wanted = Settings(max_new_tokens=150, thinking_budget=5, thinking_cut="official")
    *pieces, reply = generate.stream(scripted(THOUGHT), HI, wanted)
    for kind, whole in (("thinking", reply.thinking), ("answer", reply.text)):
        assert "".join(p.text for p in pieces if p.kind == kind) == whole
    assert "limited time" not in reply.thinking + reply.text
    assert [p.kind for p in pieces] == sorted((p.kind for p in pieces), reverse=True)


def test_each_row_of_a_batch_has_its_own_budget():
    short = "<think>\nlet\n</think>\n\nOne."
    replies = generate.batch(
        scripted(short, THOUGHT + " " * 30), [HI, HI],
        Settings(max_new_tokens=60, thinking_budget=5),
    )  # fmt: skip
    assert [reply.budget_cut for reply in replies] == [False, True]
    assert replies[0].text == "One."


def test_greedy_thinking_of_an_official_model_is_warned_of():
    loaded = random_qwen()
    official = replace(loaded, source=replace(loaded.source, name="Qwen3-0.6B"))
    short = Settings(temperature=0, max_new_tokens=2)
    with pytest.warns(UserWarning, match="Qwen3-0.6B should not think at temperature"):
        generate.reply(official, HI, short)
    with warnings.catch_warnings(action="error"):
        generate.reply(official, HI, replace(short, thinking=False))
        generate.reply(official, HI, replace(short, temperature=None))
        generate.reply(loaded, HI, short)
