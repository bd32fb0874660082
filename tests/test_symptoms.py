"""Symptoms: every entry is complete, and what people write finds the right one."""

import functools
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_course import catalog, symptoms
from qwen_course.errors import CourseError

ROOT = Path(__file__).resolve().parent.parent
ENTRIES = symptoms.entries()
HEAD = re.compile(r"^## (\d+[a-z]?\.\d+) ", re.MULTILINE)
THREAD = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+")

SAID = {  # as people wrote it, not as the entries say it
    "9a.1": [
        "still shows think tags",
        "how can I get rid of the <think> block",
        "set enable_thinking to false but there are still empty think tags",
        "want to hide the chain of thought from end users",
    ],
    "9a.2": [
        "Qwen3 keeps repeating the same paragraph until I kill it",
        "model stuck in an infinite loop of identical sentences",
        "repeats the last line over and over",
    ],
    "9a.3": [
        "config.vocab_size 151936 but the tokenizer only has 151669 entries",
        "why is the embedding matrix bigger than the tokenizer",
        "size mismatch of lm_head and tokenizer vocabulary",
    ],
    "9a.4": [
        "I only have question/answer pairs without CoT, can I still do SFT on Qwen3",
        "after LoRA training the model stopped reasoning",
        "need training data with thoughts?",
    ],
    "9a.5": [
        "finetuned qwen never emits an EOS",
        "after my LoRA the output rambles on and does not stop",
        "base model generates until max_new_tokens",
        "it asks itself a new user question after the end of the answer",
    ],
    "9a.6": [
        "what is the real maximum context window",
        "max_position_embeddings is 40960, should it not be 32768?",
        "rope scaling config for very long documents",
        "vLLM refuses prompts longer than 32k",
    ],
    "9a.7": [
        "do I put the reasoning of previous turns back into the messages",
        "KV cache reuse fails in multi-turn chats",
        "prefix caching hit rate is zero from the second message",
    ],
    "9a.8": [
        "Qwen3 overthinks, 8000 tokens for 1+1",
        "cap the number of thinking tokens",
        "generate() got an unexpected keyword argument thinking_budget",
    ],
    "9b.1": [
        "answer is just !!!!!!!!!!!!!!!!",
        "RuntimeError: probability tensor contains either inf, nan or element < 0",
        "half precision on a V100 produces garbage",
    ],
    "9b.2": [
        "function calling returns nothing",
        "tool_calls=[] although the text has a <tool_call>",
        "which parser for tools in vllm",
        "hermes or qwen3_coder",
    ],
    "9b.3": [
        "30B A3B runs at 2 tokens/s in transformers",
        "why is the MoE slower than the 14B dense one",
        "experts are computed one by one",
    ],
    "9b.4": [
        "shall I finetune the base or the chat version",
        "is Instruct a better starting checkpoint than the pretrained one",
    ],
    "9b.5": [
        "KeyError qwen3_moe",
        "ValueError: Transformers does not recognize this architecture",
        "which transformers version do I need for qwen3",
    ],
    "9b.6": [
        "suddenly answers in chinese",
        "randomly puts Chinese characters into my German text",
        "language mixing in long outputs",
    ],
    "9b.7": [
        "OOM with a 4K photo on Qwen2.5-VL",
        "bounding box coordinates are off",
        "cuda out of memory as soon as I add an image",
        "grounding results shifted to the left",
    ],
}
TITLES = [  # of real threads, none of them among the links of the entries
    ("9a.1", "Get rid of <think> in Qwen3"),
    ("9a.1", "Qwen3: enable_thinking: false still returns <think> tags"),
    ("9a.1", "Remove empty <think></think> pairs when thinking is turned off"),
    ("9a.2", "Qwen 3.5 0.8b repeats inself into infinity"),
    ("9a.2", "repetition after the conversation and send endless emoji"),
    ("9a.2", "sft cause repeat sentence issue"),
    ("9a.3", "fix: pad tokenizer vocab to match model vocab_size"),
    ("9a.5", "After fine-tuning, the model repeat the answer and not stop"),
    ("9b.1", "fix qwen fp16 model generate a lot of !!!!"),
    ("9b.1", "The output of fine-tuning Qwen2.5-7b is '！！！！！！'"),
    ("9b.2", 'the "tool_calls" list is empty, and the value is in "content"'),
    ("9b.2", "Tool parser cannot analysis tool calling infomation from qwen2.5."),
    ("9b.7", "The bounding box coordinates can sometimes be significantly off."),
    ("9b.7", "Qwen 2.5 VL provides incorrect bounding boxes on non-square images"),
    ("9b.7", "BBOX Ouput Incorrect for Second Image when Request Contains 2 Images"),
]
TYPOS = {
    "9a.2": "endles repetiton",
    "9b.1": "exlamation marks",
    "9b.2": "tool_cals parsr",
    "9b.7": "bouding boxs",
    "9b.6": "chinesse caracters",
    "9a.6": "contxt lenght",
}
PAIRS = [(clinic, text) for clinic, texts in SAID.items() for text in texts] + TITLES


def test_the_fifteen_are_complete():
    numbers = [f"9a.{n}" for n in range(1, 9)] + [f"9b.{n}" for n in range(1, 8)]
    assert [entry.clinic for entry in ENTRIES] == numbers
    for entry in ENTRIES:
        assert len(entry.phrasings) >= 3, entry.clinic
        assert entry.causes, entry.clinic
        assert 1 <= len(re.findall(r"[.](\s|$)", entry.cure)) <= 4, entry.clinic
        assert entry.links, entry.clinic
        assert all(THREAD.fullmatch(link) for link in entry.links), entry.clinic
        assert len(set(entry.words)) == len(entry.words), entry.clinic
    links = [link for entry in ENTRIES for link in entry.links]
    assert len(links) == len(set(links))


@functools.cache
def sections(lesson: str) -> dict[str, str]:
    """The number of the section in which each cell ends, by the cell's id."""
    notebook = json.loads((ROOT / "notebooks" / f"{lesson}.ipynb").read_text("utf-8"))
    found, section = {}, ""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            section = [section, *HEAD.findall("".join(cell["source"]))][-1]
        found[cell["id"]] = section
    return found


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.clinic)
def test_where_it_is_taught_exists(entry):
    assert len({*entry.taught}) == len(entry.taught)
    places = [place.split("#") for place in entry.taught]
    for lesson, cell in places:
        assert cell in sections(lesson), f"{lesson}#{cell}"
    lesson = f"0{entry.clinic.partition('.')[0]}_clinic"
    clinic = [cell for name, cell in places if name == lesson]
    assert len(clinic) >= 2, "the fault and the cure"
    assert [name for name, _ in places[: len(clinic)]] == [lesson] * len(clinic)
    assert {sections(lesson)[cell] for cell in clinic} == {entry.clinic}
    assert any("_clinic" not in name for name, _ in places), "who explains more?"


def test_the_clinic_has_a_section_for_each_entry_and_no_other():
    found = [*sections("09a_clinic").values(), *sections("09b_clinic").values()]
    assert [*filter(None, dict.fromkeys(found))] == [e.clinic for e in ENTRIES]


def test_versions_and_contexts_are_those_of_the_catalogue():
    (entry,) = (entry for entry in ENTRIES if entry.clinic == "9b.5")
    told = set(re.findall(r"\b\d\.\d+\b(?=[,.])", entry.causes[0]))
    assert len(told) == 5
    assert told <= {card.transformers_min for card in catalog.cards()}
    (entry,) = (entry for entry in ENTRIES if entry.clinic == "9a.6")
    qwen3 = catalog.find("Qwen3-8B")
    for tokens in (qwen3.context_native, qwen3.context_extended):
        assert f"{tokens:,}" in entry.causes[0]
    for name in ("Qwen3-4B-Instruct-2507", "Qwen3.5-9B"):
        assert f"{catalog.find(name).context_native:,} without" in entry.causes[0]


@pytest.mark.parametrize(("clinic", "text"), PAIRS)
def test_what_people_write_is_found(clinic, text):
    phrasings = [p for entry in ENTRIES for p in (entry.symptom, *entry.phrasings)]
    assert text not in phrasings, "copied: this would prove nothing"
    assert clinic in [match.entry.clinic for match in symptoms.find(text)]


def test_most_come_first():
    first = [symptoms.find(text)[0].entry.clinic == clinic for clinic, text in PAIRS]
    assert len(PAIRS) >= 40
    assert sum(first) >= 0.8 * len(first)


@pytest.mark.parametrize(("clinic", "text"), TYPOS.items())
def test_typing_errors_are_forgiven(clinic, text):
    assert symptoms.find(text)[0].entry.clinic == clinic


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.clinic)
def test_each_entry_finds_itself(entry):
    for text in (entry.symptom, *entry.phrasings):
        assert symptoms.find(text)[0].entry == entry, text


@pytest.mark.parametrize("text", ["", "   ", "?!", "the of and", "zzzyx qwrtp", "猫"])
def test_unknown_words_find_nothing(text):
    assert symptoms.find(text) == []


def test_it_says_why():
    match = symptoms.find("my tool_calls are empty")[0]
    assert match.entry.clinic == "9b.2"
    assert match.because == ("tool_calls", "empty")
    assert len(symptoms.find("empty think loop", best=1)) == 1


def test_a_rare_word_outweighs_a_common_one():
    """`hermes` belongs to one entry, `thinking` to several."""
    best = symptoms.find("thinking hermes")[0]
    assert best.entry.clinic == "9b.2"


@given(st.text(max_size=80))
def test_any_text_gives_matches_in_order(text):
    matches = symptoms.find(text, best=15)
    scores = [match.score for match in matches]
    assert scores == sorted(scores, reverse=True)
    assert all(match.score > 0 and match.because for match in matches)


@pytest.mark.parametrize(("text", "best"), [(None, 3), (5, 3), ("loop", 0)])
def test_wrong_use_is_refused(text, best):
    with pytest.raises(CourseError, match="description is a text"):
        symptoms.find(text, best)
