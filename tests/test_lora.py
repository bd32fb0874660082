"""The stored tunings of lessons 06a to 06d: whole, and saying what the lessons say."""

import json
import runpy

import pytest

from qwen_course import catalog

LORA = json.loads(catalog.text("measured/lora.json"))
OLD = ("maths", "code", "french")


def run(**changed):
    """Return a stored run by what it changes."""
    return LORA["runs"][json.dumps(changed)]


def test_every_planned_run_is_stored_and_no_other():
    recipe = runpy.run_path(str(catalog.data_dir() / "recipes" / "lora.py"))
    assert [*map(json.dumps, recipe["plans"]())] == sorted(
        LORA["runs"], key=[*map(json.dumps, recipe["plans"]())].index
    )
    assert LORA["first"] == recipe["FIRST"]


@pytest.mark.parametrize("name", LORA["runs"])
def test_counts_are_counts(name):
    stored = LORA["runs"][name]
    assert stored["changed"] == json.loads(name)
    assert set(stored["solved"]) == {"tool", *OLD}
    assert all(0 <= right <= stored["n"] for right in stored["solved"].values())
    assert stored["stopped"] == "finished"


@pytest.mark.parametrize("seed", [0, 1])
def test_learnt_with_replay_and_forgotten_without(seed):
    base = LORA["bases"][LORA["first"]["base"]]
    kept, lost = run(seed=seed)["solved"], run(replay=0, seed=seed)["solved"]
    assert base["tool"] < 10
    assert kept["tool"] > 180 < lost["tool"]
    for task in OLD:
        assert base[task] - kept[task] <= 10, "five points of 200"
        assert lost[task] < 60


def test_a_base_that_never_met_the_words():
    other = {"base": "pocket-generalist-3x", "replay": 0}
    assert run(**other, seed=0)["solved"]["tool"] <= 10
    assert run(**other, new_tokens=True, seed=0)["solved"]["tool"] > 180


def test_more_rank_is_more_weights():
    sizes = {n: run(rank=n, alpha=2 * n, seed=0) for n in (1, 2, 4, 8, 64)}
    one = sizes[1]["trained_parameters"]
    assert all(size["trained_parameters"] == n * one for n, size in sizes.items())


def test_the_7b_shape_on_a_gpu():
    stored = json.loads(catalog.text("measured/gpu.json"))
    total = catalog.parameters(catalog.find(stored["shape"])).total
    formats = stored["formats"]
    assert formats["bf16"]["weights_gb"] == pytest.approx(total * 2e-9, rel=0.02)
    assert formats["nf4"]["weights_gb"] < 0.4 * formats["bf16"]["weights_gb"]
    for found in formats.values():
        assert found["weights_gb"] < found["peak_gb"]
        assert found["loss"][-1] < found["loss"][0] / 2
