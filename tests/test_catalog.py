"""Tests of the catalogue: data, exact arithmetic, memory, suggestions, sampling."""

import dataclasses
import os
import re

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_course import catalog
from qwen_course.errors import CourseError, UnknownModel

ROWS = catalog._rows("models.csv")
ALLOWED = {
    "thinking": {"", "none", "instruct-only", "hybrid", "always"},
    "license": {row["license"] for row in catalog._rows("licences.csv")},
    "generation": {row["generation"] for row in catalog.generations()},
}
REQUIRED = ("repo_id", "variant", "params_total_b", "model_type", "source", "verified")
SHAPES = {
    "released": r"(20\d\d-(0[1-9]|1[0-2]))?",
    "transformers_min": r"(\d+\.\d+)?",
    "repo_id": r"Qwen/[\w.-]+",
}


def schema_problems(rows):
    """What is wrong with rows of models.csv, one line a problem."""
    seen, problems = set(), []
    for line, row in enumerate(rows, start=2):
        try:
            card = catalog.card_from(row)
        except (KeyError, ValueError) as error:
            problems.append(f"line {line}: {type(error).__name__} {error}")
            continue
        empty = [name for name in REQUIRED if not row[name]]
        if empty:
            problems.append(f"line {line}: {', '.join(empty)} is empty")
            continue
        for name, known in ALLOWED.items():
            if row[name] not in known:
                problems.append(f"line {line}: {name} unknown: {row[name]!r}")
        for name, shape in SHAPES.items():
            if not re.fullmatch(shape, row[name]):
                problems.append(f"line {line}: {name} malformed: {row[name]!r}")
        numbers = [v for v in vars(card).values() if isinstance(v, int | float)]
        if min(numbers) < 0 or card.params_total_b <= 0:
            problems.append(f"line {line}: a size is negative or zero")
        if (card.params_active_b or 0) > card.params_total_b:
            problems.append(f"line {line}: more active than total parameters")
        if bool(card.n_experts) != bool(card.experts_per_token):
            problems.append(f"line {line}: experts without experts_per_token")
        if card.repo_id in seen:
            problems.append(f"line {line}: {card.repo_id} stands twice")
        seen.add(card.repo_id)
    return problems


def has_full_dimensions(card):
    try:
        return bool(catalog.parameters(card))
    except CourseError:
        return False


FULL = [card for card in catalog.cards() if has_full_dimensions(card)]
SIZED = [c for c in catalog.cards() if None not in (c.layers, c.heads_kv, c.head_dim)]


# --- data ---------------------------------------------------------------------------


def test_models_csv_has_no_schema_problem():
    assert schema_problems(ROWS) == []
    assert len(ROWS) >= 137


@pytest.mark.parametrize(
    ("column", "value", "part"),
    [
        ("layers", "many", "ValueError"),
        ("tie_embeddings", "maybe", "KeyError"),
        ("verified", "", "verified is empty"),
        ("params_total_b", "", "params_total_b is empty"),
        ("hidden", "-1", "negative"),
        ("license", "MIT-ish", "license unknown"),
        ("thinking", "sometimes", "thinking unknown"),
        ("generation", "Qwen9", "generation unknown"),
        ("released", "April 2025", "released malformed"),
        ("transformers_min", "new", "transformers_min malformed"),
        ("source", "", "source is empty"),
        ("repo_id", "Qwen/Qwen3-1.7B", "stands twice"),
        ("params_active_b", "9", "more active"),
        ("n_experts", "128", "experts without"),
    ],
)
def test_schema_check_catches_a_seeded_fault(column, value, part):
    rows = [dict(row) for row in ROWS]
    line = next(i for i, row in enumerate(rows) if row["repo_id"] == "Qwen/Qwen3-0.6B")
    rows[line][column] = value
    problems = schema_problems(rows)
    assert len(problems) == 1
    assert part in problems[0]


def test_schema_check_catches_a_missing_column():
    rows = [{k: v for k, v in ROWS[0].items() if k != "license"}]
    assert schema_problems(rows) == ["line 2: KeyError 'license'"]


def test_every_generation_and_named_model_of_the_source_document_has_a_row():
    have = {card.generation for card in catalog.cards()}
    assert have == {row["generation"] for row in catalog.generations()}
    for name in (
        "Qwen-7B", "Qwen-72B", "Qwen2-57B-A14B-Instruct", "Qwen2-VL-7B-Instruct",
        "Qwen2-Audio-7B-Instruct", "Qwen2-Math-7B-Instruct", "QwQ-32B",
        "Qwen2.5-7B-Instruct", "Qwen2.5-1.5B-Instruct", "Qwen2.5-Math-7B-Instruct",
        "Qwen2.5-Coder-7B-Instruct", "Qwen2.5-VL-7B-Instruct", "Qwen3-8B", "Qwen3-4B",
        "Qwen3-30B-A3B", "Qwen3-235B-A22B", "Qwen-Audio-Chat", "Qwen3.8-2.4T-A95B",
    ):  # fmt: skip
        assert catalog.find(name).source


def test_generations_are_in_order_of_release_and_sourced():
    rows = catalog.generations()
    assert [row["released"] for row in rows] == sorted(row["released"] for row in rows)
    assert all(row["source"] and row["what_was_new"] for row in rows)
    spoken = {row["generation"]: row["language_names"].split("; ") for row in rows}
    assert len(spoken["Qwen2"]) == 29
    assert "Greek" in spoken["Qwen3"]
    assert "Greek" not in spoken["Qwen2.5"]


def test_known_architectures_load_in_transformers():
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    foreign = {"qwen", "qwen3_tts"}  # remote code, own package
    types = {card.model_type for card in catalog.cards() if card.transformers_min}
    assert types <= set(CONFIG_MAPPING_NAMES)
    assert not types & foreign


def test_data_folder_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("QWEN_COURSE_DATA", str(tmp_path))
    assert catalog.data_dir() == tmp_path
    with pytest.raises(CourseError, match="models.csv is not in the data folder"):
        catalog.cards()


# --- find ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Qwen/Qwen3-0.6B", "qwen3-0.6b", " QWEN/QWEN3-0.6B "])
def test_find_takes_any_case_and_the_short_name(name):
    assert catalog.find(name).repo_id == "Qwen/Qwen3-0.6B"
    assert repr(catalog.find(name)) == "ModelCard(Qwen3-0.6B, 0.6B, Apache-2.0)"


def test_a_card_is_a_frozen_dataclass_with_every_column():
    card = catalog.find("Qwen3-0.6B")
    assert set(dataclasses.asdict(card)) == set(ROWS[0])
    assert dataclasses.replace(card, layers=1).layers == 1
    assert len({card, catalog.find("Qwen3-0.6B")}) == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        card.layers = 1


def test_unknown_name_lists_the_nearest():
    with pytest.raises(UnknownModel) as caught:
        catalog.find("Qwen/Qwen3-0.5B")
    assert "Qwen3-0.6B" in str(caught.value)
    assert "python -m qwen_course models" in str(caught.value)
    with pytest.raises(UnknownModel, match="Nearest names: none"):
        catalog.find("§§§")


# --- parameters ---------------------------------------------------------------------


def config_of(card):
    """The configuration that transformers builds the card from."""
    from transformers import AutoConfig

    values = {
        "hidden_size": card.hidden,
        "num_hidden_layers": card.layers,
        "num_attention_heads": card.heads_q,
        "num_key_value_heads": card.heads_kv,
        "intermediate_size": card.intermediate,
        "vocab_size": card.vocab_size,
        "tie_word_embeddings": card.tie_embeddings,
    }
    if card.model_type.startswith("qwen3"):
        values["head_dim"] = card.head_dim
    if card.n_experts:
        values["moe_intermediate_size"] = values.pop("intermediate_size")
        values["num_experts"] = card.n_experts
        values["num_experts_per_tok"] = card.experts_per_token
        values["decoder_sparse_step"] = 1
    if card.shared_expert_intermediate:
        values["shared_expert_intermediate_size"] = card.shared_expert_intermediate
    return AutoConfig.for_model(card.model_type, **values)


def shape(card):
    fields = "model_type layers hidden heads_q heads_kv head_dim intermediate"
    fields += " vocab_size tie_embeddings n_experts shared_expert_intermediate"
    return tuple(getattr(card, name) for name in fields.split())


SHAPED = {shape(card): card for card in FULL}


def test_the_cards_that_must_be_exact_are_exact():
    names = {card.name for card in FULL}
    for card in catalog.cards():
        text_only = card.model_type in catalog.EXACT
        if text_only and card.layers and card.heads_kv and card.intermediate:
            assert card.name in names
    assert {"Qwen3-235B-A22B", "Qwen2-57B-A14B-Instruct", "Qwen2-72B-Instruct"} <= names
    assert len(FULL) > 70


@pytest.mark.parametrize("card", SHAPED.values(), ids=lambda card: card.name)
def test_parameters_equal_the_model_that_transformers_builds(card):
    import torch
    from transformers import AutoModelForCausalLM

    config = config_of(card)
    assert getattr(config, "head_dim", None) in (None, card.head_dim)
    assert card.heads_q * card.head_dim == card.hidden or card.model_type[4] == "3"
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    matrices = {model.get_input_embeddings(), model.get_output_embeddings()}
    embedding = sum(w.numel() for w in {matrix.weight for matrix in matrices})
    total = sum(weight.numel() for weight in model.parameters())
    count = catalog.parameters(card)
    assert count.total == total
    assert count.embedding == embedding
    assert count.non_embedding == total - embedding


@pytest.mark.parametrize(
    ("name", "active"),
    [
        ("Qwen3-30B-A3B", 3.35),
        ("Qwen3-235B-A22B", 22.19),
        ("Qwen2-57B-A14B-Instruct", 14.25),
        ("Qwen1.5-MoE-A2.7B-Chat", 2.69),
        ("Qwen3-0.6B", 0.60),
    ],
)
def test_active_parameters_agree_with_the_published_ones(name, active):
    assert catalog.parameters(catalog.find(name)).active / 1e9 == pytest.approx(
        active, abs=0.005
    )


@pytest.mark.parametrize("card", FULL, ids=lambda card: card.name)
def test_parameters_agree_with_the_published_counts(card):
    count = catalog.parameters(card)
    room = {"Qwen1.5": 0.25}.get(card.generation, 0.1)  # sizes there are names
    assert count.total / 1e9 == pytest.approx(card.params_total_b, rel=room)
    if card.non_embedding_b:
        body = count.non_embedding / 1e9
        assert body == pytest.approx(card.non_embedding_b, rel=0.02)
    if card.params_active_b:
        assert count.active / 1e9 == pytest.approx(card.params_active_b, rel=0.12)


def test_missing_dimensions_and_other_architectures_are_named():
    with pytest.raises(CourseError, match="lacks layers, hidden, intermediate"):
        catalog.parameters(catalog.find("Qwen2-Math-7B-Instruct"))
    with pytest.raises(CourseError, match="not qwen3_5") as caught:
        catalog.parameters(catalog.find("Qwen3.5-4B"))
    assert "4 billion" in str(caught.value)


# --- memory -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bytes_a_token"),
    [
        ("Qwen3-0.6B", 114_688),
        ("Qwen3-8B", 147_456),
        ("Qwen2.5-0.5B-Instruct", 12_288),
        ("Qwen3.5-4B", 2 * 8 * 4 * 256 * 2),  # 8 of 32 layers have a cache
        ("Qwen3-Next-80B-A3B-Instruct", 2 * 12 * 2 * 256 * 2),
    ],
)
def test_kv_cache_per_token(name, bytes_a_token):
    card = catalog.find(name)
    assert catalog.memory(card, context=1).kv_cache_gb * 1e9 == pytest.approx(
        bytes_a_token
    )
    assert catalog.memory(card, context=1000, batch=3).kv_cache_gb == pytest.approx(
        3000 * bytes_a_token / 1e9
    )


def test_weights_by_dtype():
    card = catalog.find("Qwen2.5-7B-Instruct")
    count = catalog.parameters(card)
    size = {dtype: catalog.memory(card, dtype).weights_gb for dtype in catalog.BITS}
    assert size["bf16"] == size["fp16"] == pytest.approx(count.total * 2 / 1e9)
    assert size["fp32"] == pytest.approx(count.total * 4 / 1e9)
    assert size["int8"] == pytest.approx(
        (count.non_embedding + 2 * count.embedding) / 1e9
    )
    assert size["int4"] == pytest.approx(
        (count.non_embedding * 4.5 / 8 + 2 * count.embedding) / 1e9
    )


def test_all_experts_count_in_memory():
    moe = catalog.memory(catalog.find("Qwen3-30B-A3B"))
    assert moe.weights_gb == pytest.approx(61.06, abs=0.01)  # 3.35B would be 6.7 GB


@given(
    card=st.sampled_from(SIZED),
    dtype=st.sampled_from(sorted(catalog.BITS)),
    context=st.integers(1, 4000),
    more=st.integers(1, 96),
    batch=st.integers(1, 64),
)
@settings(max_examples=150, deadline=None)
def test_memory_grows_with_context_batch_and_bits(card, dtype, context, more, batch):
    one = catalog.memory(card, dtype, context, batch)
    longer = catalog.memory(card, dtype, context + more, batch)
    wider = catalog.memory(card, dtype, context, batch + more)
    assert one.total_gb == one.weights_gb + one.kv_cache_gb
    assert min(one.weights_gb, one.kv_cache_gb) > 0
    assert one.weights_gb == longer.weights_gb == wider.weights_gb
    assert one.kv_cache_gb < longer.kv_cache_gb
    assert one.kv_cache_gb < wider.kv_cache_gb
    sizes = [
        catalog.memory(card, kind, context, batch).weights_gb
        for kind in ("int4", "int8", "bf16", "fp32")
    ]
    assert sizes == sorted(set(sizes))


@pytest.mark.parametrize(
    ("name", "arguments", "part"),
    [
        ("Qwen3-0.6B", {"dtype": "fp12"}, "Unknown dtype 'fp12'"),
        ("Qwen3-0.6B", {"context": 0}, "got 0 and 1"),
        ("Qwen3-0.6B", {"context": 2.5}, "got 2.5 and 1"),
        ("Qwen3-0.6B", {"batch": -1}, "got 4096 and -1"),
        ("Qwen3-0.6B", {"context": 32_769}, "at most 32,768 tokens, got 32,769"),
        ("Qwen3-4B", {"context": 131_073}, "at most 131,072"),
        ("Qwen-7B", {}, "lacks layers, heads_kv, head_dim"),
    ],
)
def test_memory_refuses_with_rule_and_value(name, arguments, part):
    with pytest.raises(CourseError, match=part) as caught:
        catalog.memory(catalog.find(name), **arguments)
    assert caught.value.hint


# --- suggest ------------------------------------------------------------------------


def names(**arguments):
    return [found.card.name for found in catalog.suggest(limit=999, **arguments)]


TRAPS = [
    "Qwen2.5-3B-Instruct", "Qwen2.5-72B-Instruct", "Qwen2.5-VL-3B-Instruct",
    "Qwen2-72B-Instruct", "Qwen2.5-Coder-3B-Instruct", "Qwen2.5-Math-72B-Instruct",
    "Qwen2.5-3B", "Qwen2.5-72B",
]  # fmt: skip


@pytest.mark.parametrize("task", catalog.TASKS)
def test_commercial_use_is_offered_apache_only(task):
    for found in catalog.suggest(task=task, memory_gb=9999, limit=999):
        assert found.card.license == "Apache-2.0"
        assert "commercial use allowed" in found.reason


@pytest.mark.parametrize("trap", TRAPS)
def test_a_licence_trap_comes_only_without_commerce_and_says_so(trap):
    tasks = catalog.TASKS
    assert not any(trap in names(task=t, memory_gb=999) for t in tasks)
    reasons = [
        found.reason
        for task in tasks
        for found in catalog.suggest(
            task=task, memory_gb=999, commercial=False, limit=999
        )
        if found.card.name == trap
    ]
    assert reasons
    assert all(catalog.find(trap).license in reason for reason in reasons)
    assert all("not for" in r or "ask Alibaba" in r for r in reasons)


def test_the_first_reason_names_the_trap_that_would_fit():
    first, second, *_ = catalog.suggest(task="vision", memory_gb=9)
    assert "its licence bars it: Qwen2.5-VL-3B-Instruct (Qwen Research)" in first.reason
    assert "bars" not in second.reason
    first = catalog.suggest(task="chat", memory_gb=999)[0]
    assert first.reason.split("bars it: ")[1].count(", ") == 2  # three, not all


def test_suggestions_fit_and_come_newest_and_largest_first():
    order = [row["generation"] for row in catalog.generations()]
    found = catalog.suggest(task="chat", memory_gb=20, limit=999)
    keys = [(order.index(f.card.generation), f.card.params_total_b) for f in found]
    assert keys == sorted(keys, reverse=True)
    needs = [catalog.memory(f.card).total_gb for f in found]
    assert max(needs) <= 20
    for need, suggestion in zip(needs, found, strict=True):
        assert f"{need:.1f} of 20 GB" in suggestion.reason
    assert found[0].card.name == "Qwen3.5-9B"
    assert names(task="chat", memory_gb=0.1) == []
    assert len(catalog.suggest(task="chat", memory_gb=20, limit=2)) == 2


def test_the_filters_of_suggest():
    assert names(task="code", memory_gb=2)[0] == "Qwen2.5-Coder-0.5B-Instruct"
    assert "Qwen3-30B-A3B" not in names(task="chat", memory_gb=8)  # active is no memory
    assert "Qwen3-30B-A3B" in names(task="chat", memory_gb=8 * 8)
    assert "Qwen3-4B-Thinking-2507" not in names(task="chat", memory_gb=9)
    plain = names(task="reasoning", memory_gb=9, thinking=True)
    assert "Qwen3-4B-Thinking-2507" in plain
    assert "Qwen3-4B-Instruct-2507" not in plain
    answers = names(task="chat", memory_gb=9, thinking=False)
    assert {"Qwen3-4B-Instruct-2507", "Qwen3-4B"} <= set(answers)
    greek = names(task="chat", memory_gb=9, language="Greek")
    assert "Qwen3-4B" in greek
    assert "Qwen2.5-1.5B-Instruct" not in greek
    thai = names(task="maths", memory_gb=9, language="Thai")
    assert "Qwen2.5-Math-1.5B-Instruct" not in thai
    long = names(task="chat", memory_gb=99, context=100_000)
    assert "Qwen3-4B" in long
    assert "Qwen3-1.7B" not in long
    assert all(name.endswith("Base") or "Qwen2.5" in name
               for name in names(task="base", memory_gb=99))  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ({"task": "cooking"}, "Unknown task 'cooking'.*translation"),
        ({"task": "chat", "language": "Klingon"}, "language 'Klingon'.*Greek"),
        ({"task": "chat", "dtype": "fp12"}, "Unknown dtype"),
        ({"task": "chat", "context": 0}, "at least 1, got 0"),
        ({"task": "chat", "context": "8k"}, "at least 1, got '8k'"),
    ],
)
def test_suggest_refuses_with_the_choices(arguments, part):
    with pytest.raises(CourseError, match=f"(?s){part}"):
        catalog.suggest(memory_gb=8, **arguments)


# --- sampling -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "thinking", "expected"),
    [
        ("Qwen3-0.6B", True, (0.6, 0.95, 20, 0.0, None, None)),
        ("Qwen3-0.6B", False, (0.7, 0.8, 20, 0.0, None, None)),
        ("Qwen3-30B-A3B", True, (0.6, 0.95, 20, 0.0, None, None)),
        ("Qwen3-4B-Instruct-2507", False, (0.7, 0.8, 20, 0.0, None, None)),
        ("Qwen3-4B-Thinking-2507", True, (0.6, 0.95, 20, 0.0, None, None)),
        ("Qwen2.5-7B-Instruct", False, (0.7, 0.8, 20, None, 1.05, None)),
        ("Qwen2.5-1.5B-Instruct", False, (0.7, 0.8, 20, None, 1.1, None)),
        ("Qwen2.5-Coder-0.5B-Instruct", False, (0.7, 0.8, 20, None, 1.05, None)),
        ("Qwen2.5-Math-1.5B-Instruct", False, (0.7, 0.8, None, None, None, None)),
        ("Qwen3.5-2B", False, (1.0, 1.0, 20, 0.0, None, 2.0)),
        ("Qwen3.5-4B", False, (0.7, 0.8, 20, 0.0, None, 1.5)),
        ("Qwen3.8-27B", True, (1.0, 0.95, 20, 0.0, None, 0.0)),
        ("QwQ-32B", True, (0.6, 0.95, 40, None, None, None)),
    ],
)
def test_sampling_values(name, thinking, expected):
    found = catalog.sampling(catalog.find(name), thinking)
    keys = ["temperature", "top_p", "top_k", "min_p"]
    keys += ["repetition_penalty", "presence_penalty"]
    assert tuple(found[key] for key in keys) == expected
    assert found["source"]
    assert set(found) == {*keys, "source"}


@pytest.mark.parametrize(
    ("name", "thinking", "part"),
    [
        ("Qwen3-4B-Thinking-2507", False, "No source has plain .*thinking: 'always'"),
        ("Qwen3-VL-8B-Thinking", False, "No source has plain values"),
        ("Qwen2.5-7B-Instruct", True, "No source has thinking values for Qwen2.5-7B"),
        ("Qwen3-0.6B-Base", False, "No source has plain values for Qwen3-0.6B-Base"),
        ("Qwen2.5-Coder-0.5B", False, "other mode, or give the values"),
    ],
)
def test_sampling_refuses_what_no_source_says(name, thinking, part):
    with pytest.raises(CourseError, match=part):
        catalog.sampling(catalog.find(name), thinking)


def test_every_sampling_row_is_used_and_sourced():
    for row in catalog._rows("sampling.csv"):
        assert row["source"]
        hits = [c for c in catalog.cards() if _uses(c, row)]
        assert hits, row["pattern"]


def _uses(card, row):
    try:
        found = catalog.sampling(card, row["mode"] == "thinking")
    except CourseError:
        return False
    return found["source"] == row["source"]


def test_the_catalogue_needs_no_heavy_library():
    import subprocess
    import sys

    code = (
        "import sys, qwen_course.catalog as c; c.suggest(task='chat', memory_gb=8);"
        "print(sorted({'torch', 'transformers', 'numpy', 'pandas'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_arguments_of_the_wrong_kind_are_named():
    with pytest.raises(CourseError, match="catalog.find"):
        catalog.memory("Qwen3-8B")
    for wrong in ("8", float("nan"), -1):
        with pytest.raises(CourseError, match="memory_gb"):
            catalog.suggest(task="chat", memory_gb=wrong)


def test_the_sizes_of_what_is_fetched_are_those_of_the_cards():
    page = (catalog.data_dir() / "README.md").read_text("utf-8")
    rows = re.findall(
        r"\| (\S+) \|[^|]*\| its weights in 16 bits, about (\S+) GB", page
    )
    assert len(rows) == 8
    for name, told in rows:
        card = catalog.find(name)
        assert float(told) == pytest.approx(catalog.memory(card).weights_gb, abs=0.07)


@pytest.mark.parametrize(
    "ask",
    [catalog.parameters, catalog.memory, lambda card: catalog.sampling(card, True)],
)
def test_a_name_in_place_of_a_card_is_told(ask):
    with pytest.raises(CourseError, match=r"Not a model card.*\n.*catalog\.find"):
        ask("Qwen3-0.6B")
