"""The tickets and what was measured with them; one training on official weights."""

import json
from collections import Counter
from pathlib import Path

import pytest

from qwen_course import catalog, models, tasks, weights

ROOT = Path(__file__).resolve().parent.parent
MODEL = "Qwen2.5-Coder-0.5B-Instruct"
TRAINING, HELD_OUT = tasks.samples("tickets_training"), tasks.samples("tickets")
TOPICS = {"delivery", "return", "payment", "product", "account", "visit"}
STORED = json.loads(catalog.text("measured/tuning.json"))
RUNS = STORED["runs"]
ASKED = {name: run for name, run in RUNS.items() if name != "replay"}
TRAINED = {name: run for name, run in ASKED.items() if "losses" in run}


@pytest.fixture
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "data" / "recipes"))
    import tuning

    return tuning


def words(problem: tasks.Problem) -> set[str]:
    """The words of a message."""
    letters = (c if c.isalnum() else " " for c in problem.question.lower())
    return set("".join(letters).split())


def test_both_splits_are_balanced_and_apart():
    assert (len(TRAINING), len(HELD_OUT)) == (144, 60)
    assert {p.task for p in TRAINING} == {"tickets_training"}
    assert {p.task for p in HELD_OUT} == {"tickets"}
    for problems in (TRAINING, HELD_OUT):
        topics = Counter(json.loads(p.answer)["topic"] for p in problems)
        assert set(topics) == TOPICS
        assert len(set(topics.values())) == 1
        urgent = sum(json.loads(p.answer)["urgent"] for p in problems)
        assert 0.25 <= urgent / len(problems) <= 0.4
    assert len({p.question for p in TRAINING + HELD_OUT}) == 204


def test_no_held_out_message_is_a_copy():
    for held in HELD_OUT:
        for seen in TRAINING:
            both, either = words(held) & words(seen), words(held) | words(seen)
            assert len(both) / len(either) < 0.5, (held.question, seen.question)


@pytest.mark.parametrize("problem", TRAINING + HELD_OUT, ids=lambda p: p.question[:30])
def test_each_answer_has_the_shape(problem):
    found = json.loads(problem.answer)
    assert problem.answer == json.dumps(found, ensure_ascii=False)
    assert list(found) == ["topic", "urgent", "summary"]
    assert found["topic"] in TOPICS
    assert isinstance(found["urgent"], bool)
    assert 1 <= len(found["summary"].split()) <= 8


def test_validation_and_training_share_no_message(recipe):
    chosen, train = recipe.validation(), recipe.training()
    assert len(chosen) == 24
    assert len({p.question for p in chosen + train}) == 144
    assert {json.loads(p.answer)["topic"] for p in chosen} == TOPICS


def test_old_questions_are_not_the_tests(recipe):
    asked = recipe.REPLAY.splitlines()
    assert len(set(asked)) == 40
    tests = [p.question for p in tasks.samples("functions")]
    names = {question.split("`")[1].partition("(")[0] for question in tests}
    for question in asked:
        assert question not in tests
        assert not any(f"`{name}(" in question for name in names)
    stored = [question for question, _ in RUNS["replay"]["pairs"]]
    assert set(stored) <= set(asked)
    assert len(stored) >= 20


def test_the_prompt_shows_an_example_of_each_topic(recipe):
    system, *turns = recipe.shown()
    assert system["content"] == recipe.PROMPT == STORED["prompt"]
    assert {json.loads(m["content"])["topic"] for m in turns[1::2]} == TOPICS


def test_all_stages_are_stored_with_their_origin(recipe):
    assert list(RUNS) == list(recipe.STAGES)
    assert STORED["model"] == MODEL
    assert STORED["sha256"] == weights.GGUF[MODEL].sha256
    assert STORED["date"]
    assert STORED["machine"]


@pytest.mark.parametrize("name", ASKED)
def test_each_stage_answered_every_message(name):
    run = ASKED[name]
    assert len(run["replies"]) == len(HELD_OUT) >= 40
    assert run["prompt_tokens"] > 0
    if "functions" in run:
        assert len(run["functions"]) == len(tasks.samples("functions")) == 40
        assert set(run["functions"]) <= {"0", "1"}
        assert 0 <= run["answered_with_tickets"] <= 40


@pytest.mark.parametrize("name", TRAINED)
def test_each_training_is_whole(name):
    run = TRAINED[name]
    steps = run["settings"]["steps"]
    assert [row["step"] for row in run["losses"]] == list(range(1, steps + 1))
    assert run["examples"]["tickets"] == 120
    assert run["adapter_bytes"] > 2 * run["trainable"]
    assert run["best_step"] in {row["step"] for row in run["evaluations"]}


def test_what_the_lesson_says_of_the_figures():
    """The new task is learnt, and the model's old replies do not have its shape."""

    def shaped(name):
        starts = [text.startswith('{"topic": "') for text in RUNS[name]["replies"]]
        return sum(starts)

    assert shaped("base") == 0
    assert shaped("tuned") >= 54
    assert shaped("tuned with replay") >= 54


@pytest.mark.weights
def test_four_steps_on_official_weights(recipe):
    from qwen_course import finetune

    loaded = models.load("coder", "small")
    before = {n: t.clone() for n, t in loaded.model.state_dict().items()}
    examples = [recipe.ticket(problem) for problem in TRAINING[:4]]
    settings = finetune.LoraSettings(steps=4, batch_size=4, learning_rate=1e-3)
    history = finetune.train(loaded, examples, settings)
    losses = [row["loss"] for row in history.losses]
    assert losses[-1] < 0.8 * losses[0]
    after = loaded.model.state_dict()
    assert list(after) == list(before)
    assert all(after[name].equal(tensor) for name, tensor in before.items())
