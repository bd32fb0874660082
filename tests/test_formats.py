"""The stored measurements of formats and engines: whole, and what the lesson says."""

import csv
import io
import json
from statistics import median

import pytest

from qwen_course import catalog, tasks

FORMATS = json.loads(catalog.text("measured/formats.json"))
ENGINES = json.loads(catalog.text("measured/engines.json"))
SPEED = ENGINES["speed"]


@pytest.mark.parametrize("stored", [FORMATS, ENGINES])
def test_it_says_where_and_when(stored):
    assert stored["model"] == catalog.find(stored["model"]).name
    assert {"date", "machine", "versions"} <= stored.keys()
    assert {"torch", "transformers"} <= stored["versions"].keys()


@pytest.mark.parametrize("name", FORMATS["formats"])
def test_sizes_are_those_on_disk(name):
    row = FORMATS["formats"][name]
    assert 0 < row["read_mb"] < row["disk_mb"]
    assert row.get("counted_mb", row["disk_mb"]) == pytest.approx(
        row["disk_mb"], rel=0.01
    )


def test_most_formats_were_asked_to_write_functions():
    rows = FORMATS["formats"].values()
    assert sum("functions" in row for row in rows) >= 10


@pytest.mark.parametrize(
    "name", [name for name, row in FORMATS["formats"].items() if "functions" in row]
)
def test_each_function_has_a_mark(name):
    marks = FORMATS["formats"][name]["functions"]
    assert len(marks) == len(tasks.samples("functions"))
    assert set(marks) <= {"0", "1"}


def test_the_reference_agrees_with_itself():
    row = FORMATS["formats"]["transformers bf16"]
    assert row["kl"] == 0
    assert row["top1"] == 1


def test_own_four_bits_are_as_good_as_the_library():
    rows = FORMATS["formats"]
    ours, theirs = rows["own NF4, group 64"], rows["bitsandbytes NF4, double"]
    assert ours["perplexity"] == pytest.approx(theirs["perplexity"], rel=0.05)


def test_no_point_lies_above_the_roof():
    roof = ENGINES["bandwidth"]["gb_per_second"]
    points = [name for name in SPEED if name in FORMATS["formats"]]
    assert len(points) >= 5
    for name in points:
        gb = FORMATS["formats"][name]["read_mb"] / 1000
        assert max(SPEED[name]["turns"]) * gb <= roof, name


def test_the_best_engine_is_far_ahead_of_plain_bf16():
    plain = SPEED["transformers bf16"]["turns"]
    gains = {
        name: median(a / b for a, b in zip(row["turns"], plain, strict=True))
        for name, row in SPEED.items()
        if name in FORMATS["formats"]
    }
    assert max(gains.values()) >= 1.5


def test_medians_are_medians_of_the_turns():
    for row in SPEED.values():
        assert row["tokens_per_second"] == median(row["turns"])


def test_every_row_of_the_new_tables_has_a_source():
    tables = "edge prices quantized_losses gguf_files official_formats"
    for name in tables.split():
        rows = [*csv.DictReader(io.StringIO(catalog.text(f"{name}.csv")))]
        assert rows
        assert all(row["source"] for row in rows), name
