"""Entries 1 to 8 of the clinic: each fault shows, and its cure makes it go.

The essential lines of notebooks/09a_clinic.ipynb, on the same models. What the cells
print is compared by nbval.
"""

import ast
import builtins
import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from trl import chat_template_utils

from qwen_course import catalog, chat, finetune, generate, masking, models, tasks
from qwen_course.generate import Settings

PARIS = [{"role": "user", "content": "What is the capital of France?"}]
EMPTY = "<think>\n\n</think>\n\n"
LESSON = Path(__file__).resolve().parent.parent / "notebooks" / "09a_clinic.ipynb"


@pytest.fixture(scope="module")
def pocket():
    return models.load("pocket-chat")


@pytest.fixture(scope="module")
def thinker():
    return models.load("pocket-thinking")


def written(loaded, ids, **options):
    """The prompt's ids and all that is written after them, greedy."""
    row = torch.tensor([ids])
    options = {"max_new_tokens": 60} | options
    output = loaded.model.generate(
        row, attention_mask=torch.ones_like(row), do_sample=False, **options
    )
    return output[0].tolist()


def dressed(loaded, name):
    """The same model with the real template of another generation."""
    tokenizer = copy.deepcopy(loaded.tokenizer)
    tokenizer.chat_template = getattr(chat_template_utils, f"{name}_chat_template")
    return replace(loaded, tokenizer=tokenizer)


def questions(problems):
    return [[{"role": "user", "content": p.question}] for p in problems]


# --- each section by itself ---------------------------------------------------------


def section_cells():
    """The code cells of each section, as the first card promises them: by themselves.

    A section's first cell may end the markdown of the one before it, so the part of an
    id before the dash tells: s6-fault, s6-native. The two index tables have no code.
    """
    found = {}
    for cell in json.loads(LESSON.read_text("utf-8"))["cells"]:
        name, _, rest = cell["id"].partition("-")
        if cell["cell_type"] == "code" and rest and name.startswith("s"):
            found.setdefault(name, []).append("".join(cell["source"]))
    return found


def missing(cells, given=("checks", "models", "session")):
    """The names that cells read and no cell before, import or builtin makes."""
    known, told = {*given, *dir(builtins)}, []
    for source in cells:
        tree = ast.parse(source)
        nodes = [*ast.walk(tree)]
        known |= {
            (alias.asname or alias.name).partition(".")[0]
            for node in nodes
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        known |= {
            getattr(node, "name", None) or getattr(node, "arg", None)
            for node in nodes
            if isinstance(node, ast.FunctionDef | ast.arg | ast.ExceptHandler)
        }
        names = [node for node in nodes if isinstance(node, ast.Name)]
        known |= {node.id for node in names if isinstance(node.ctx, ast.Store)}
        told += [node.id for node in names if node.id not in known]
    return sorted(set(told))


def test_a_section_needs_no_cell_but_the_setup():
    sections = section_cells()
    assert [*sections] == [f"s{n}" for n in range(1, 9)]
    assert {name: missing(cells) for name, cells in sections.items()} == dict.fromkeys(
        sections, []
    )


def test_a_name_of_another_section_is_missed():
    cells = ["import math\nn = math.pi", "def double(x):\n    return n * x * other"]
    assert missing(cells) == ["other"]
    assert missing(cells[1:]) == ["n", "other"]


# --- 1: "I still see <think></think>" -----------------------------------------------


def test_tags_come_from_the_prompt_and_the_new_tokens_have_none(pocket):
    prompt = chat.encode(pocket.tokenizer, PARIS, thinking=False)
    ids = written(pocket, prompt)
    assert EMPTY in pocket.tokenizer.decode(ids)
    assert "think>" not in pocket.tokenizer.decode(ids[len(prompt) :])
    parts = chat.split_thinking(EMPTY + "Hello!")
    assert (parts.thinking, parts.answer) == ("", "Hello!")


def test_the_word_is_no_switch_for_a_model_that_never_learnt_it(pocket):
    said = [{"role": "user", "content": PARIS[0]["content"] + " /no_think"}]
    greedy = Settings(temperature=0)
    assert generate.reply(pocket, said, greedy).thinking_tokens > 0
    hard = replace(greedy, thinking=False)
    assert generate.reply(pocket, PARIS, hard).thinking_tokens == 0


@pytest.mark.parametrize(
    ("name", "has"),
    [("qwen2_5", False), ("qwen3", True), ("qwen3_6", True)]
    + [("qwen3_instruct_2507", False)],
)
def test_which_templates_have_the_switch(pocket, name, has):
    tokenizer = dressed(pocket, name).tokenizer
    on, off = (chat.render(tokenizer, PARIS, thinking=value) for value in (True, False))
    assert (on != off) == has


# --- 2: "It repeats itself without end" ---------------------------------------------


def loops(ids, least=4, longest=12):
    """Whether the end is one block of ids, `least` times."""
    return any(
        len(ids) >= n * least and ids[-n * least :] == ids[-n:] * least
        for n in range(1, longest + 1)
    )


def test_greedy_loops_and_published_sampling_with_a_penalty_does_not():
    loaded = models.load("pocket-translator")
    said = questions(tasks.draw("chain", 20, seed=5, levels=[4, 5]))
    card = catalog.sampling(catalog.find("Qwen3-0.6B"), False)
    published = {key: card[key] for key in ("temperature", "top_p", "top_k")}

    def endless(**options):
        settings = Settings(max_new_tokens=150, thinking=False, **options)
        replies = generate.batch(loaded, said, settings)
        ends = [loops(loaded.tokenizer.encode(reply.text)) for reply in replies]
        return sum(reply.stop == "length" for reply in replies), sum(ends)

    cut, looped = endless(temperature=0)
    assert cut >= 8
    assert looped >= cut
    sampled, _ = endless(**published, seed=0)
    assert sampled < cut / 2
    assert endless(**published, seed=0, presence_penalty=1.5) == (0, 0)


# --- 3: "vocab_size is not len(tokenizer)" ------------------------------------------


def test_spare_rows_break_what_counts_tokens_and_not_what_counts_scores(pocket):
    padded = copy.deepcopy(pocket.model)
    padded.resize_token_embeddings(1280, mean_resizing=False)
    saved, tokenizer = padded.state_dict(), copy.deepcopy(pocket.tokenizer)
    row = torch.tensor([chat.encode(tokenizer, PARIS, thinking=False)])
    scores = padded(row).logits[0, -1]
    assert len(tokenizer) < padded.config.vocab_size == len(scores)
    with pytest.raises(RuntimeError, match="size of tensor"):
        scores + torch.zeros(len(tokenizer))
    assert (scores + torch.zeros_like(scores)).shape == scores.shape

    tokenizer.add_tokens(["<|note|>"], special_tokens=True)
    assert tokenizer.convert_tokens_to_ids("<|note|>") < padded.config.vocab_size
    padded.load_state_dict(saved)  # the token fits: nothing to resize
    padded.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with pytest.raises(RuntimeError, match="size mismatch"):
        padded.load_state_dict(saved)


# --- 4: "I have no thoughts to tune on" ---------------------------------------------


@pytest.mark.slow
def test_an_empty_thought_in_the_loss_ends_thinking_and_in_the_prompt_does_not(thinker):
    problems = tasks.draw("chain", 40, seed=5, levels=[2, 3, 4])
    pairs = [
        [{"role": "user", "content": p.question}]
        + [{"role": "assistant", "content": p.answer}]
        for p in tasks.draw("chain", 100, 1, held_out=False, levels=[2, 3, 4])
    ]

    def exam(thinking):
        settings = finetune.LoraSettings(
            rank=8, learning_rate=2e-3, batch_size=16, steps=30, thinking=thinking
        )
        tuned = finetune.train(thinker, pairs, settings).tuned
        replies = generate.batch(
            tuned, questions(problems), Settings(temperature=0, max_new_tokens=120)
        )
        right = (
            reply.text.strip() == p.answer
            for reply, p in zip(replies, problems, strict=True)
        )
        return sum(bool(reply.thinking.strip()) for reply in replies), sum(right)

    thoughts, right = exam(None)
    assert thoughts <= 10
    assert right <= 15
    thoughts, right = exam(False)
    assert thoughts >= 38
    assert right >= 38


# --- 5: "It does not stop" ----------------------------------------------------------


def test_the_generation_config_decides_where_it_stops(pocket):
    tokenizer = pocket.tokenizer
    text_end, turn_end = tokenizer.convert_tokens_to_ids(
        ["<|endoftext|>", "<|im_end|>"]
    )
    prompt = chat.encode(tokenizer, PARIS, thinking=False)
    new = written(pocket, prompt, eos_token_id=text_end)[len(prompt) :]
    assert len(new) == 60
    assert turn_end in new[:-1]
    named = pocket.model.generation_config.eos_token_id
    assert set(named) == {text_end, turn_end}
    cured = written(pocket, prompt, eos_token_id=named)[len(prompt) :]
    assert cured == new[: new.index(turn_end) + 1]
    talk = [*PARIS, {"role": "assistant", "content": "Paris."}]
    assert masking.tokenize(tokenizer, [talk])[0].labels[-1] == turn_end


# --- 6: "32K, 40,960 or 128K?" ------------------------------------------------------


def test_the_three_numbers_of_qwen3():
    card = catalog.find("Qwen3-8B")
    assert (card.context_native, card.context_extended) == (32_768, 4 * 32_768)
    assert card.context_native + 8_192 == 40_960  # answer and prompt


class Stretched:
    """Problems for pocket-coder, whose answers stand `gap` positions further."""

    def __init__(self, loaded, problems):
        chats = [
            [{"role": "user", "content": p.question}]
            + [{"role": "assistant", "content": p.answer}]
            for p in problems
        ]
        rows = masking.tokenize(loaded.tokenizer, chats)
        padding = loaded.tokenizer.pad_token_id
        self.ids, self.labels = masking.collate(rows, padding)
        self.begins = (self.labels != -100).int().argmax(1, keepdim=True)

    def places(self, gaps, some=slice(None)):
        """Positions of the rows `some`: the answers stand `gaps` further."""
        begins, length = self.begins[some], self.ids.shape[1]
        places = torch.arange(length).expand(len(begins), length)
        return places + gaps * (places >= begins)

    def unseen(self, gap, trained=64):
        """Which share of the distances, seen from an answer, is over `trained`."""
        places = self.places(gap)[:, :-1]
        apart = places[:, :, None] - places[:, None]
        seen = apart[(apart >= 0) & (self.labels[:, 1:, None] != -100)]
        return (seen > trained).float().mean().item()

    def logits(self, model, gaps, some=slice(None)):
        """Scores [rows, length - 1, tokens] and labels of the rows `some`."""
        places = self.places(gaps, some)
        scores = model(self.ids[some], position_ids=places).logits[:, :-1]
        return scores, self.labels[some][:, 1:]

    @torch.no_grad()
    def right(self, model, gap):
        """How many answers are right, token by token."""
        logits, labels = self.logits(model, gap)
        return int(((logits.argmax(-1) == labels) | (labels == -100)).all(1).sum())


@pytest.fixture(scope="module")
def coder():
    return models.load("pocket-coder")


@pytest.fixture(scope="module")
def held(coder):
    return Stretched(coder, tasks.draw("code", 100, seed=5))


def with_yarn(loaded):
    """The model with YaRN: trained length 64, factor 4."""
    config = copy.deepcopy(loaded.model.config)
    config.rope_parameters = config.rope_parameters | {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    model = type(loaded.model)(config)
    model.load_state_dict(loaded.model.state_dict())
    return model.eval()


def test_a_gap_of_known_distances_is_enough_to_fail(coder, held):
    """So unseen angles are not the only cause: it learnt one layout."""
    assert held.right(coder.model, 0) >= 98
    assert held.right(coder.model, 4) <= 10
    assert held.unseen(0) == 0
    assert held.unseen(4) < 0.001
    assert held.right(coder.model, 32) <= 5
    assert held.unseen(32) > 0.2


def test_yarn_brings_part_back_and_changes_short_texts(coder, held):
    stretched = with_yarn(coder)
    assert held.right(stretched, 32) >= 40
    assert held.right(stretched, 128) <= 5
    assert held.right(stretched, 0) <= 20  # static: short texts change as well


def test_yarn_slows_the_slow_frequencies_down_and_leaves_the_fast(coder):
    plain = coder.model.model.rotary_emb.inv_freq
    ratio = plain / with_yarn(coder).model.rotary_emb.inv_freq
    assert ratio[0] == pytest.approx(1)
    assert ratio[-1] == pytest.approx(4)
    assert (ratio.diff() >= -1e-4).all()


# --- 7: "The cache misses" ----------------------------------------------------------


def second_turn(loaded, thinking, **options):
    """Tokens in the cache after the first turn, and how many the next one shares."""
    prompt = chat.encode(loaded.tokenizer, PARIS, thinking=thinking, **options)
    cache = written(loaded, prompt)[:-1]  # the last one was written, but never read
    settings = Settings(temperature=0, thinking=thinking)
    reply = generate.reply(loaded, PARIS, settings)
    turn = {"role": "assistant", "content": reply.text}
    said = [*PARIS, turn | {"reasoning_content": reply.thinking}]
    said.append({"role": "user", "content": "Who are you?"})
    new = chat.encode(loaded.tokenizer, said, thinking=thinking, **options)
    shared = 0
    while shared < len(cache) and cache[shared] == new[shared]:
        shared += 1
    return len(cache), shared


@pytest.mark.parametrize("thinking", [True, False])
def test_qwen3_misses_the_last_reply_and_a_kept_thought_does_not(pocket, thinking):
    cached, shared = second_turn(pocket, thinking)
    assert shared < cached * 0.6
    later = dressed(pocket, "qwen3_6")
    cached, shared = second_turn(later, thinking)
    assert shared < cached * 0.6
    cached, shared = second_turn(later, thinking, preserve_thinking=True)
    assert shared == cached


# --- 8: "How do I limit it?" --------------------------------------------------------


def test_a_limit_on_tokens_cuts_the_answer_and_a_budget_does_not(thinker):
    problems = tasks.draw("chain", 40, seed=5, levels=[6, 7, 8])

    def answered(**options):
        settings = Settings(**{"temperature": 0, "max_new_tokens": 200} | options)
        replies = generate.batch(thinker, questions(problems), settings)
        texts = [reply.text.strip() for reply in replies]
        pairs = zip(texts, problems, strict=True)
        return sum(map(bool, texts)), sum(text == p.answer for text, p in pairs)

    assert answered(max_new_tokens=40) == (0, 0)
    with pytest.raises(ValueError, match="thinking_budget"):
        thinker.model.generate(torch.tensor([[1]]), thinking_budget=30)
    short, half, free = (answered(thinking_budget=n) for n in (30, 60, None))
    assert short[0] == half[0] == free[0] == 40
    assert short[1] < half[1] < free[1] == 40
    assert answered(thinking_budget=30, thinking_cut="official")[0] == 40
