"""Tests of the data behind lesson 05c: sources, dates, sizes against real files."""

import csv

import pytest

from qwen_course import catalog


def rows(name):
    return list(csv.DictReader(catalog.text(name).splitlines()))


FILES = rows("gguf_files.csv")


@pytest.mark.parametrize(
    "name",
    ["edge.csv", "prices.csv", "quantized_losses.csv", "official_formats.csv"],
)
def test_every_row_has_a_source_and_a_date(name):
    for row in rows(name):
        assert all(row.values()), row
        assert None not in row
        assert row.get("checked", row.get("date", "")).startswith("20")


def test_what_ran_here_is_said_with_a_version():
    for row in rows("edge.csv"):
        verdict, _, told = row["ran_here"].partition(": ")
        assert verdict in ("yes", "no"), row["engine"]
        assert any(letter.isdigit() for letter in told) or verdict == "no"
        assert row["source"].startswith("https://")


def test_the_tools_that_the_source_document_names_have_a_row():
    engines = {row["engine"] for row in rows("edge.csv")}
    named = {"Ollama", "ONNX Runtime GenAI", "Foundry Local", "Olive", "ModelScope"}
    assert named <= engines


def test_prices_are_numbers_and_nothing_claims_to_be_verified():
    for row in rows("prices.csv"):
        assert 0 < float(row["input_usd"]) <= float(row["output_usd"]) < 100
        assert row["verified"].startswith("no")
        if "not published" not in row["model"]:
            assert catalog.find(row["model"])


def test_published_losses_are_complete():
    found = {(row["model"], row["format"]) for row in rows("quantized_losses.csv")}
    assert len(found) == 16
    assert all(catalog.find(model) for model, _ in found)


@pytest.mark.parametrize("row", FILES, ids=[row["file"] for row in FILES])
def test_estimated_sizes_come_within_two_percent_of_real_files(row):
    card, form = catalog.find(row["model"]), row["format"]
    guess = catalog.memory(card, form).weights_gb
    if row["tables"] == "2":  # a tied table, written twice
        bits = catalog.UNEVEN if card.hidden % 256 else catalog.BITS
        guess += card.vocab_size * card.hidden * bits[form][1] / 8e9
    assert guess == pytest.approx(int(row["bytes"]) / 1e9, rel=0.02)


def test_gguf_formats_hold_the_tables_too():
    card = catalog.find("Qwen3-0.6B")
    size = {form: catalog.memory(card, form) for form in catalog.BITS}
    assert size["q4_k_m"].weights_gb < size["nf4"].weights_gb < size["int4"].weights_gb
    assert size["q8_0"].weights_gb < size["int8"].weights_gb
    assert len({memory.kv_cache_gb for memory in size.values()}) == 2  # fp32, others
