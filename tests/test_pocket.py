"""The bundled models: what is shipped, how it loads, whether the cards are true."""

import hashlib
import json

import pytest
import torch

from qwen_course import answers, catalog, generate, models, tasks
from qwen_course.errors import CourseError, UnknownModel

POCKET = catalog.data_dir() / "pocket"
NAMES = sorted(path.parent.name for path in POCKET.glob("*/card.json"))
TEXT = [name for name in NAMES if "vision" not in name]
GREEDY = generate.Settings(max_new_tokens=64, temperature=0)
HOME = {  # model -> the samples on which it must do well, and how well at least
    "pocket-thinking": ("chain", True, 0.95),
    "pocket-maths": ("maths", True, 0.95),
    "pocket-coder": ("code", False, 0.95),
    "pocket-translator": ("french", False, 0.95),
    "pocket-generalist-3x": ("french", False, 0.9),
    "pocket-chat": ("chat", False, 0.9),
}


def card(name):
    return json.loads((POCKET / name / "card.json").read_text("utf-8"))


def asked(problem):
    system = [{"role": "system", "content": problem.system}] if problem.system else []
    return [*system, {"role": "user", "content": problem.question}]


def questions(name, n):
    task, thinking, _ = HOME.get(name, ("french", False, 0))
    return tasks.samples(task)[:n], thinking


def test_every_role_has_its_pocket_model():
    assert {f"pocket-{role}" for role in models.ROLES} <= set(NAMES)
    for role in models.ROLES:
        assert models.resolve(role, "pocket").path == POCKET / f"pocket-{role}"


def test_all_together_are_small():
    files = [path for path in POCKET.rglob("*") if path.is_file()]
    assert max(path.stat().st_size for path in files) < 10e6
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert sum(path.stat().st_size for path in weights) < 25e6
    assert not [path for path in files if path.suffix == ".jinja"]


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_what_it_is(name):
    told = card(name)
    readme = (POCKET / name / "README.md").read_text("utf-8")
    assert "not an Alibaba checkpoint" in readme
    assert "True here, not of Qwen" in readme
    assert "not an Alibaba checkpoint" in repr(models.resolve(name))
    loaded = models.load(name)
    assert sum(p.numel() for p in loaded.model.parameters()) == told["parameters"]
    assert type(loaded.model).__name__ == told["architecture"]
    assert loaded.model.dtype == torch.float32
    assert loaded.model.device.type == "cpu"
    assert all(row["n"] >= 20 for row in told["results"])


def test_one_tokenizer_with_the_names_of_qwen():
    digests = {
        hashlib.sha256((POCKET / name / "tokenizer.json").read_bytes()).hexdigest()
        for name in NAMES
    }
    assert len(digests) == 1
    tokenizer = models.load("pocket-thinking").tokenizer
    added = tokenizer.get_added_vocab()
    for token in ("<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>"):
        assert token in added
    assert added["</think>"] != 151668  # the id of Qwen3: ids are not to be hard-coded


@pytest.mark.parametrize("name", sorted(set(HOME) & set(TEXT)))
def test_a_specialist_keeps_what_its_card_promises(name):
    task, thinking, least = HOME[name]
    problems, _ = questions(name, 100)
    wanted = generate.Settings(max_new_tokens=200, temperature=0, thinking=thinking)
    replies = generate.batch(models.load(name), [asked(p) for p in problems], wanted)
    right = [
        answers.solves(task, reply.text, problem.answer).passed
        for reply, problem in zip(replies, problems, strict=True)
    ]
    assert sum(right) >= least * len(right)


@pytest.mark.parametrize("name", TEXT)
def test_greedy_is_the_same_in_a_batch_alone_and_on_any_number_of_threads(name):
    loaded = models.load(name)
    problems, thinking = questions(name, 4)
    wanted = generate.Settings(max_new_tokens=48, temperature=0, thinking=thinking)
    talks = [asked(problem) for problem in problems]
    before = torch.get_num_threads()
    runs = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            runs.append([r.text for r in generate.batch(loaded, talks, wanted)])
        finally:
            torch.set_num_threads(before)
    runs.append([generate.reply(loaded, talk, wanted).text for talk in talks])
    assert all(run == runs[0] for run in runs)


def test_unknown_pocket_models_get_the_nearest_names():
    with pytest.raises(UnknownModel, match="pocket-thinking"):
        models.load("pocket-thinkin")


def test_a_template_that_was_not_tested_is_refused(monkeypatch):
    monkeypatch.setitem(models.TEMPLATES, "qwen3", "0" * 64)
    with pytest.raises(CourseError, match=r"trl==1\.16\.0"):
        models.pocket_template("qwen3")


def test_the_template_is_the_one_that_trl_means():
    from trl.chat_template_utils import qwen3_chat_template

    assert models.pocket_template("qwen3") == qwen3_chat_template
    assert models.load("pocket-maths").tokenizer.chat_template == qwen3_chat_template
