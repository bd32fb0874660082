"""pocket-moe: a real Qwen3-MoE, its routing tables, its table of facts, its card."""

import importlib.util
import json
import math
import random
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen_course import answers, catalog, tasks
from qwen_course.errors import CourseError

RECIPES = catalog.data_dir() / "recipes"
FOLDER = catalog.data_dir() / "pocket" / "pocket-moe"
EXPERTS = 8
FLOOR = {"maths": 0.9, "code": 0.9, "french": 0.9, "facts": 0.65}
counts = st.lists(
    st.lists(st.integers(0, 50), min_size=EXPERTS, max_size=EXPERTS),
    min_size=1,
    max_size=6,
).filter(lambda table: sum(map(sum, table)) > 0)


@pytest.fixture(scope="module")
def moe():
    """The recipe as a module."""
    sys.path.insert(0, str(RECIPES))
    try:
        spec = importlib.util.spec_from_file_location("recipe_moe", RECIPES / "moe.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(RECIPES))
    return module


@pytest.fixture(scope="module")
def loaded(moe):
    return moe.common.load("pocket-moe")


@pytest.fixture(scope="module")
def card():
    return json.loads((FOLDER / "card.json").read_text("utf-8"))


# ------------------------------------------------------------------ facts
def test_the_table_is_the_same_everywhere_and_has_no_pattern():
    codes = tasks.codes()
    assert len(codes) == 9 * 16 * 16
    assert codes["small cat in Paris"] == "267"
    assert all(len(code) == 3 and code.isdigit() for code in codes.values())
    for place in range(3):  # every digit about a tenth of the time
        digits = [code[place] for code in codes.values()]
        assert all(180 < digits.count(digit) < 280 for digit in "0123456789")


@given(st.integers(0, 10**9))
def test_a_fact_is_a_line_of_the_table(seed):
    problem = tasks.facts(random.Random(seed))
    name = problem.question.removeprefix("What is the code of the ").rstrip("?")
    assert tasks.codes()[name] == problem.answer
    assert answers.solves("facts", f"{problem.answer}\n", problem.answer).passed
    assert not tasks.is_for_tests(problem)


def test_no_fact_is_held_out():
    with pytest.raises(CourseError):
        tasks.draw("facts", 1)
    for problem in tasks.samples("facts"):
        assert problem.question.partition(" of the ")[2].rstrip("?") in tasks.codes()


# ------------------------------------------------------------------ routing
@given(counts)
def test_information_is_between_nothing_and_three_bits(moe, table):
    assert -1e-4 <= moe.information(torch.tensor(table).float()) <= 3 + 1e-4


@given(st.lists(st.integers(1, 50), min_size=EXPERTS, max_size=EXPERTS))
def test_kinds_that_route_alike_tell_nothing(moe, row):
    table = torch.tensor([row, [3 * count for count in row]]).float()
    assert moe.information(table) == pytest.approx(0, abs=1e-4)


def test_a_kind_with_its_own_expert_tells_all(moe):
    assert moe.information(torch.eye(EXPERTS)) == pytest.approx(3)
    halves = torch.tensor([[1.0] * 4 + [0] * 4, [0] * 4 + [1.0] * 4])
    assert moe.information(halves) == pytest.approx(1)


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        ("<|im_end|>", "control"),
        ("</think>", "control"),
        ("7", "digit"),
        ("Ġ7", "digit"),
        ("ĊĊ", "sign"),
        ("=", "sign"),
        ("<", "sign"),
        ("Ġ<", "sign"),
        ("Ġcat", "word of french"),
        ("Ã©", "word of french"),
    ],
)
def test_kinds_of_tokens(moe, token, kind):
    assert moe.KINDS[moe.kind_of(token, "french")] == kind


def test_both_nets_do_the_same_work_a_token(moe):
    tokenizer = moe.common.tokenizer()
    experts, dense = (new(tokenizer) for new in moe.NETS.values())
    shape = experts.config
    routers = shape.num_hidden_layers * EXPERTS * shape.hidden_size
    assert moe.active_parameters(experts) - routers == moe.active_parameters(dense)
    assert moe.active_parameters(dense) == dense.num_parameters()


def test_an_expert_knocked_out_is_never_chosen(moe, loaded):
    model, tokenizer = loaded
    batch = tokenizer("What is the code of the red cat in Oslo?", return_tensors="pt")
    plain = model(input_ids=batch["input_ids"]).logits

    def same(layer, logits):
        return logits

    def without_first(layer, logits):
        return logits.index_fill(1, torch.tensor([0]), -math.inf)

    with moe.routers(model, same) as seen:
        assert torch.allclose(model(input_ids=batch["input_ids"]).logits, plain)
    assert len(seen) == model.config.num_hidden_layers
    assert all(logits.shape == (batch["input_ids"].numel(), EXPERTS) for logits in seen)
    with moe.routers(model, without_first):
        assert not torch.allclose(model(input_ids=batch["input_ids"]).logits, plain)
    assert torch.equal(model(input_ids=batch["input_ids"]).logits, plain)


# ------------------------------------------------------------------ the model
def test_it_is_a_small_qwen3_moe(loaded, card, moe):
    model, _ = loaded
    assert type(model).__name__ == "Qwen3MoeForCausalLM"
    assert (model.config.num_experts, model.config.num_experts_per_tok) == (8, 2)
    assert (FOLDER / "model.safetensors").stat().st_size <= 5e6
    assert card["parameters"] == model.num_parameters()
    assert card["active_parameters"] == moe.active_parameters(model)


@pytest.mark.parametrize("task", ["maths", "code", "french", "facts"])
def test_the_card_tells_the_truth(loaded, card, moe, task):
    model, tokenizer = loaded
    (row,) = [r for r in card["results"] if r["what"].startswith(f"{task}:")]
    assert row["share"] >= FLOOR[task]
    right = moe.common.marks(
        model, tokenizer, tasks.samples(task)[:50], task == "maths"
    )
    low, high = moe.common.answers.interval(sum(right), len(right))
    assert low - 0.01 <= row["share"] <= high + 0.01


def test_the_routing_tables_are_those_of_the_weights(loaded, card, moe):
    model, tokenizer = loaded
    tables = card["routing"]
    again = moe.routing_table(model, tokenizer)
    for layer, stored in zip(again["shares"], tables["trained"]["shares"], strict=True):
        assert len(layer) == len(card["token_kinds"])
        assert torch.allclose(torch.tensor(layer), torch.tensor(stored), atol=0.02)
    for table in tables.values():
        assert all(
            abs(sum(row) - 1) < 0.01 for layer in table["shares"] for row in layer
        )
        assert all(0 <= bits <= 3 for bits in table["information"])


def test_every_expert_was_knocked_out_once(card, moe):
    told = card["knock_out"]
    assert [len(layer) for layer in told["without"]] == [EXPERTS] * 3
    for layer in told["without"]:
        for without in layer:
            assert list(without) == list(told["intact"])
            assert all(0 <= share <= 1 for share in without.values())
    lost = [
        told["intact"][task] - without[task]
        for layer in told["without"]
        for without in layer
        for task in without
    ]
    assert max(lost) > 0.05  # some expert matters
