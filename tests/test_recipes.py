"""The recipes: one tokenizer, the template's own bytes, honest splits, same bytes."""

import hashlib
import json
import random
import re
import sys
from pathlib import Path

import pytest
import torch

from qwen_course import answers, models, tasks

RECIPES = Path(__file__).resolve().parent.parent / "data" / "recipes"
sys.path.insert(0, str(RECIPES))

import build  # noqa: E402
import common  # noqa: E402
import grammar  # noqa: E402, F401 (enters the task "chat")
import language  # noqa: E402

KINDS = ("chain", "maths", "code", "french", "echo", "tool", "facts", "chat")
MODELS = sorted(path.parent for path in common.POCKET.glob("*/config.json"))
LANGUAGE = [f"pocket-{name}" for name in ("thinking", *language.RECIPES)]


@pytest.fixture(scope="module")
def tokenizer():
    """The shared tokenizer, with the real template as lessons see it."""
    found = common.tokenizer()
    found.chat_template = models.pocket_template()
    return found


@pytest.fixture
def one_thread():
    """The thread count of the recipes, and the former one afterwards."""
    before = torch.get_num_threads()
    yield common.prepare
    torch.set_num_threads(before)


# ------------------------------------------------------------------ tokenizer
def test_building_the_tokenizer_again_gives_the_same_bytes(tmp_path):
    common.build_tokenizer().save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        stored = (common.TOKENIZER / name).read_bytes()
        assert (tmp_path / name).read_bytes() == stored


def test_control_tokens_are_those_of_qwen3(tokenizer):
    added = sorted(tokenizer.added_tokens_decoder.items())
    names = [token.content for _, token in added]
    assert len(names) == 26
    assert names[:3] == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    assert names[-2:] == ["<think>", "</think>"]
    assert [token.special for _, token in added] == [True] * 14 + [False] * 12
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.pad_token == "<|endoftext|>"
    assert 1000 <= len(tokenizer) == common.VOCABULARY <= 1200


def test_digits_stand_alone_and_the_empty_thought_is_four_tokens(tokenizer):
    ids = tokenizer.encode("12 345", add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens(ids) == ["1", "2", "Ġ", "3", "4", "5"]
    ids = tokenizer.encode(common.NOT_THINKING, add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens(ids) == ["<think>", "ĊĊ", "</think>", "ĊĊ"]


@pytest.mark.parametrize(
    "text", ["Où est l'été ? 東京 🐱\t\n\n x", "e\u0301", "<think>"]
)
def test_any_text_comes_back_in_normal_form(tokenizer, text):
    normal = text.replace("e\u0301", "é")
    assert tokenizer.decode(tokenizer.encode(text)) == normal


# ------------------------------------------------------------------ training text
def conversation(problem, content, thinking=None):
    system = [{"role": "system", "content": problem.system}] * bool(problem.system)
    reply = {"role": "assistant", "content": content}
    if thinking is not None:
        reply["reasoning_content"] = thinking
    return [*system, {"role": "user", "content": problem.question}, reply]


def examples(kind):
    """200 problems of a kind, with every sort of example made of them."""
    rng = random.Random(5)
    for _ in range(200):
        problem = tasks.training(kind, rng)
        if kind == "echo":  # none has a system prompt yet: the template must fit it
            problem = tasks.Problem(*list(vars(problem).values())[:-1], "Be exact.")
        yield problem, common.direct(problem), "", True
        if problem.thinking:
            yield problem, common.thought(problem), problem.thinking, False
        if "\n" in problem.thinking:
            lines = problem.thinking.split("\n")
            missing = rng.randint(1, len(lines) - 1)
            kept = "\n".join(lines[:-missing])
            yield problem, common.cut_thought(problem, missing), kept, False


@pytest.mark.parametrize("kind", KINDS)
def test_training_text_is_what_the_template_renders(tokenizer, kind):
    for problem, example, thinking, switched_off in examples(kind):
        text = example.context + example.target
        messages = conversation(problem, problem.answer, thinking)
        assert tokenizer.apply_chat_template(messages, tokenize=False) == text
        inside = f"<think>\n{thinking}\n</think>\n\n{problem.answer}"
        messages = conversation(problem, inside)
        assert tokenizer.apply_chat_template(messages, tokenize=False) == text
        start = tokenizer.apply_chat_template(
            messages[:-1],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=not switched_off,
        )
        assert start == common.prompt(problem, not switched_off)
        assert text.startswith(start)
        assert example.context.startswith(start)


def test_a_tool_call_is_what_the_template_writes(tokenizer):
    for problem in tasks.draw("tool", 50):
        call = json.loads(problem.answer.split("\n")[1])
        messages = conversation(problem, "", "")
        messages[-1]["tool_calls"] = [{"type": "function", "function": call}]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        assert text == "".join(common.direct(problem))


@pytest.mark.parametrize("kind", KINDS)
def test_context_and_target_meet_between_two_tokens(tokenizer, kind):
    for _, example, _, _ in examples(kind):
        whole = tokenizer.encode("".join(example), add_special_tokens=False)
        parts = [tokenizer.encode(part, add_special_tokens=False) for part in example]
        assert whole == parts[0] + parts[1]
        assert tokenizer.decode(whole) == "".join(example)


def test_only_the_answer_counts_after_a_cut_thought(tokenizer):
    problem = tasks.draw("chain", 1, levels=[5])[0]
    example = common.cut_thought(problem, 2)
    assert example.target == f"{problem.answer}<|im_end|>\n"
    assert example.context.count("=") == 3
    ids = [tokenizer.encode(part, add_special_tokens=False) for part in example]
    batch = common.collate([tuple(ids), ([1], [2])], padding=0)
    assert batch["labels"][0].tolist() == [-100] * len(ids[0]) + ids[1]
    assert batch["labels"][1].tolist()[:3] == [-100, 2, -100]
    assert batch["input_ids"][1].tolist()[:3] == [1, 2, 0]


def makers():
    """Each way in which the recipes of this family draw examples."""
    for number, stage in enumerate(language.THINKING):
        yield pytest.param(stage.example, id=f"stage {number + 1}")
    for task in ("maths", "code", "french", "echo"):
        yield pytest.param(lambda rng, t=task: language.example_of(t, rng), id=task)


@pytest.mark.parametrize("make", [*makers()])
def test_no_held_out_problem_is_ever_trained_on(make):
    rng = random.Random(0)
    for _ in range(400):
        text = make(rng).context
        question = re.search(r"user\n(.*?)<\|im_end\|>", text, re.DOTALL)[1]
        one = question.startswith("Start with") and question.count(",") == 1
        assert one or not tasks.held_out(question)


def test_batches_keep_to_their_budget(tokenizer):
    make = language.chains(12, 0.5)
    batches = common.stream(tokenizer, make, random.Random(0), 1024)
    sizes = [next(batches)["input_ids"].numel() for _ in range(40)]
    assert max(sizes) <= 1024
    assert sum(sizes) / len(sizes) > 700


def test_tasks_get_the_same_share_of_tokens(tokenizer):
    counts = dict.fromkeys(language.THREE, 0)
    batches = language.mixed(tokenizer, language.THREE)
    for _ in range(60):
        for row in next(batches)["input_ids"]:
            text = tokenizer.decode(row[row != tokenizer.pad_token_id])
            task = "maths" if "last digit" in text else "french"
            task = "code" if "Python" in text else task
            counts[task] += len(row)
    assert min(counts.values()) > 0.8 * max(counts.values())


# ------------------------------------------------------------------ training
def test_training_twice_gives_the_same_bytes(
    one_thread, tokenizer, tmp_path, monkeypatch
):
    monkeypatch.setattr(language, "TOKENS", language.TOKENS // 4)  # of a batch
    hashes = set()
    for attempt in ("first", "second"):
        one_thread()
        model = common.new_model(tokenizer)
        batches = language.mixed(tokenizer, ("french",))
        facts = common.train(model, batches, 12, "a test", warm_up=3)
        model.to(torch.bfloat16).save_pretrained(tmp_path / attempt)
        weights = (tmp_path / attempt / "model.safetensors").read_bytes()
        hashes.add(hashlib.sha256(weights).hexdigest())
    assert len(hashes) == 1
    assert facts["steps"] == 12
    assert facts["threads"] == common.THREADS
    assert facts["loss"] < 6


def test_what_others_need_is_built_first(monkeypatch):
    log = []

    class Job:
        returncode = 0

        def __init__(self, name):
            self.name, self.calls = name, 0

        def poll(self):
            self.calls += 1
            if self.calls < 3:
                return None
            log.append(f"{self.name} done")
            return 0

    def start(name, line):
        assert line in (0, 1)
        log.append(name)
        return Job(name)

    monkeypatch.setattr(build, "start", start)
    monkeypatch.setattr(build.time, "sleep", lambda seconds: None)
    assert build.build(["maths-continued", "generalist", "maths"]) == []
    assert log.index("generalist done") < log.index("maths-continued")
    assert log.index("maths") < log.index("generalist done")
    Job.returncode = 1
    failed = build.build(["maths-continued", "generalist"])
    assert failed == ["generalist", "maths-continued"]


def test_every_recipe_of_language_can_be_built():
    assert {f"pocket-{name}" for name in build.COMMANDS} >= set(LANGUAGE)


# ------------------------------------------------------------------ the models
@pytest.mark.parametrize("name", LANGUAGE)
def test_a_model_and_its_card_belong_together(name):
    folder = common.POCKET / name
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    told = (folder / "README.md").read_text(encoding="utf-8")
    model, tokenizer = common.load(name)
    assert card["parameters"] == sum(weight.numel() for weight in model.parameters())
    assert card["parameters"] <= 1_500_000
    assert f"({card['parameters']:,} parameters, trained by this course; not an" in told
    assert "True here, not of Qwen" in told
    assert (folder / "model.safetensors").stat().st_size < 10e6
    assert not list(folder.glob("*.jinja"))
    stored = (common.TOKENIZER / "tokenizer.json").read_bytes()
    assert (folder / "tokenizer.json").read_bytes() == stored
    assert tokenizer.get_vocab() == common.tokenizer().get_vocab()
    for row in card["results"]:
        low, high = answers.interval(row["correct"], row["n"])
        assert [round(low, 3), round(high, 3)] == row["interval"]


def shares(name):
    card = (common.POCKET / name / "card.json").read_text(encoding="utf-8")
    rows = json.loads(card)["results"]
    return {row["what"].partition(":")[0]: (row["share"], row["n"]) for row in rows}


def test_the_thinker_keeps_its_promise():
    found = shares("pocket-thinking")
    share, n = found["thinking, 2 to 12 operations"]
    assert share >= 0.95
    assert n >= 500
    assert found["not thinking, 4 to 12 operations"][0] <= 0.30


@pytest.mark.parametrize("name", language.SPECIALISTS)
@pytest.mark.parametrize("kind", ["", "-continued"])
def test_a_specialist_is_good_at_home_alone(name, kind):
    found = shares(f"pocket-{name}{kind}")
    home = language.SPECIALISTS[name]
    assert found[home][0] >= 0.95
    assert found[home][1] >= 200
    if not kind:
        assert all(found[task][0] <= 0.02 for task in language.THREE if task != home)


def test_three_times_the_tokens_make_the_generalist_good_at_all():
    found = shares("pocket-generalist-3x")
    assert all(found[task][0] >= 0.90 for task in language.THREE)


def test_the_saved_thinker_solves_stored_samples():
    model, tokenizer = common.load("pocket-thinking")
    problems = tasks.samples("chain")[::6]
    right = common.marks(model, tokenizer, problems, thinking=True)
    assert sum(right) >= 0.9 * len(problems)
    short = [problem for problem in problems if problem.level >= 4]
    right = common.marks(model, tokenizer, short, thinking=False)
    assert sum(right) < 0.5 * len(short)


def test_greedy_answers_do_not_depend_on_threads_or_batch(one_thread):
    model, tokenizer = common.load("pocket-thinking")
    prompts = [common.prompt(p, thinking=True) for p in tasks.samples("chain")[::20]]
    one_thread()
    batch = common.generate(model, tokenizer, prompts, 128)
    alone = common.generate(model, tokenizer, prompts, 128, batch_size=1)
    torch.set_num_threads(2)
    assert common.generate(model, tokenizer, prompts, 128) == batch == alone


def test_the_readme_shows_the_cards():
    readme = (RECIPES.parent.parent / "README.md").read_text("utf-8")
    assert build.table() in readme
