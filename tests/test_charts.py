"""Charts say what their pictures show; pocket-vision reads them as its card says."""

import importlib
import json
import random
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen_course import catalog, charts, chat, models

RECIPES = catalog.data_dir() / "recipes"
FOLDER = catalog.data_dir() / "pocket" / "pocket-vision"
seeds = st.integers(0, 10**9)


@pytest.fixture(scope="module")
def recipe():
    """Return data/recipes/vision.py as a module."""
    sys.path.insert(0, str(RECIPES))
    try:
        return importlib.import_module("vision")
    finally:
        sys.path.remove(str(RECIPES))


@pytest.fixture(scope="module")
def processor(recipe):
    """Return the processor that the recipe trains with, and the real template."""
    template = models.pocket_template("qwen3_vl")
    tokenizer = recipe.common.tokenizer()
    tokenizer.chat_template = template
    return models.image_chat(recipe.image_processor(), tokenizer, template)


@pytest.fixture(scope="module")
def loaded(recipe):
    """Return the saved model, and its processor with the real template."""
    return recipe.load(FOLDER)


def stored_charts():
    """The charts of `chart.jsonl`, in its order."""
    lines = catalog.text("samples/chart.jsonl").splitlines()
    return [charts.Chart(tuple(map(tuple, json.loads(line)["bars"]))) for line in lines]


def answers_of(chart):
    return {p.question: p.answer for p in charts.questions(chart)}


# ------------------------------------------------------------------ charts
@given(seeds)
def test_a_chart_has_two_to_four_bars_that_differ(seed):
    bars = charts.chart(random.Random(seed)).bars
    colours, heights = zip(*bars, strict=True)
    assert len(set(colours)) == len(set(heights)) == len(bars) in (2, 3, 4)
    assert set(colours) <= set(charts.COLOURS)
    assert min(heights) >= 2
    assert max(heights) <= 12


@given(seeds)
def test_the_answers_are_those_of_the_bars(seed):
    chart = charts.chart(random.Random(seed))
    answers, height = answers_of(chart), dict(chart.bars)
    assert answers.pop("How many bars are there?") == str(len(height))
    tallest = answers.pop("Which bar is tallest?")
    shortest = answers.pop("Which bar is shortest?")
    assert all(height[shortest] <= other <= height[tallest] for _, other in chart.bars)
    steps = [b > a for (_, a), (_, b) in zip(chart.bars, chart.bars[1:], strict=False)]
    trend = "up" if all(steps) else "mixed" if any(steps) else "down"
    assert answers.pop("Is the trend up, down or mixed?") == trend
    assert len(answers) == len(height) * (len(height) - 1)
    for question, answer in answers.items():
        one, other = question.partition(", ")[2].rstrip("?").split(" or ")
        assert answer == (one if height[one] > height[other] else other)


@given(seeds, st.integers(56, 300))
def test_the_picture_shows_each_bar_up_to_its_height(seed, size):
    chart = charts.chart(random.Random(seed))
    image = charts.picture(chart, size)
    assert image.size == (size, size)
    margin = size // 14
    inside = size - 2 * margin
    for place, (colour, height) in enumerate(chart.bars):
        x = int(margin + (place + 0.5) * inside / len(chart.bars))
        top = size - margin - height * inside / 13
        assert image.getpixel((x, int(top) + 2)) == charts.COLOURS[colour]
        assert image.getpixel((x, int(top) - 2)) == (255, 255, 255)


def test_the_same_bars_give_the_same_pixels():
    chart = charts.chart(random.Random(3))
    again = charts.Chart(tuple(chart.bars))
    assert charts.picture(chart).tobytes() == charts.picture(again).tobytes()


def test_training_and_tests_share_no_chart():
    rng = random.Random(0)
    trained = {charts.training(rng) for _ in range(3000)}
    tested = charts.draw(300)
    assert len(set(tested)) == 300
    assert trained.isdisjoint(tested)
    assert tested == charts.draw(300) != charts.draw(300, seed=1)
    assert trained.isdisjoint(charts.draw(300, seed=7))
    assert {len(chart.bars) for chart in tested} == {2, 3, 4}


def test_pillow_is_imported_to_draw_and_not_before():
    code = "import sys, qwen_course.tasks; sys.exit('PIL' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_stored_charts_are_held_out_and_their_answers_right(recipe):
    path = catalog.data_dir() / "samples" / "chart.jsonl"
    text = path.read_text(encoding="utf-8")
    assert text == recipe.stored()
    stored = stored_charts()
    assert len(set(stored)) == len(stored) >= 100
    rng = random.Random(0)
    assert set(stored).isdisjoint(charts.training(rng) for _ in range(3000))
    for chart, line in zip(stored, text.splitlines(), strict=True):
        answers = json.loads(line)["answers"]
        assert len(answers) == 5
        assert answers.items() <= answers_of(chart).items()


# ------------------------------------------------------------------ what is trained on
@given(seeds)
def test_the_text_is_what_the_template_of_qwen3_vl_renders(recipe, processor, seed):
    rng = random.Random(seed)
    chart = charts.chart(rng)
    problems = recipe.some_questions(chart, rng, comparisons=2)
    rng.shuffle(problems)
    messages = []
    for turn, problem in enumerate(problems):
        picture = [{"type": "image"}] * (turn == 0)
        words = {"type": "text", "text": problem.question}
        messages.append({"role": "user", "content": [*picture, words]})
        messages.append({"role": "assistant", "content": problem.answer})
    text = processor.apply_chat_template(messages)
    pieces = [piece for piece, _ in recipe.conversation(problems)]
    expanded = text.replace("<|image_pad|>", "<|image_pad|>" * recipe.IMAGE_TOKENS)
    assert "".join(pieces) == expanded
    ids = recipe.common.token_ids(processor.tokenizer, pieces)
    picture = charts.picture(chart)
    whole = processor(text=[text], images=[picture])["input_ids"][0]
    assert sum(ids, []) == list(whole)
    encoded = chat.encode(processor.tokenizer, messages, add_generation_prompt=False)
    place = encoded.index(processor.image_token_id)
    encoded[place : place + 1] = encoded[place : place + 1] * recipe.IMAGE_TOKENS
    assert encoded == list(whole)
    prompt = processor.apply_chat_template(messages[:1], add_generation_prompt=True)
    prompt = prompt.replace("<|image_pad|>", "<|image_pad|>" * recipe.IMAGE_TOKENS)
    assert prompt == pieces[0]


def test_only_answers_count_and_every_answer_does(recipe, processor):
    tokenizer = processor.tokenizer
    batch = next(recipe.batches(processor, random.Random(0)))
    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        counted = tokenizer.decode(labels[labels != -100]).split("<|im_end|>\n")[:-1]
        turns = tokenizer.decode(ids).split("<|im_start|>assistant\n")[1:]
        assert counted == [turn.partition("<|im_end|>")[0] for turn in turns]
        assert ((labels == ids) | (labels == -100)).all()
    marked = batch["mm_token_type_ids"] == 1
    assert (marked.sum(1) == recipe.IMAGE_TOKENS).all()
    assert (batch["input_ids"][marked] == processor.image_token_id).all()


@given(seeds)
def test_no_answer_of_a_chat_gives_away_a_comparison(recipe, seed):
    rng = random.Random(seed)
    problems = recipe.some_questions(charts.chart(rng), rng, comparisons=2)
    pairs = [frozenset(p.question.rstrip("?").split()) for p in problems]
    assert len(set(pairs)) == len(pairs) in (5, 6)


# ------------------------------------------------------------------ the model
def test_the_folder_is_small_and_whole():
    names = {path.name for path in FOLDER.iterdir()}
    assert names == {
        "README.md", "card.json", "config.json", "generation_config.json",
        "model.safetensors", "preprocessor_config.json", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    assert (FOLDER / "model.safetensors").stat().st_size < 5_000_000


def test_the_card_holds_what_was_asked_for():
    card = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))
    assert card["architecture"] == "Qwen3VLForConditionalGeneration"
    assert len(card["results"]) == 5
    for line in card["results"]:
        assert line["n"] >= 300
        assert line["share"] >= line["chance"] + 0.3, line["what"]


@pytest.mark.slow
def test_the_saved_weights_do_what_the_card_says(recipe, loaded):
    card = json.loads((FOLDER / "card.json").read_text(encoding="utf-8"))
    measured = recipe.measure(*loaded, n=60)
    for line, stored in zip(measured, card["results"], strict=True):
        assert line["what"].split(" (")[0] == stored["what"].split(" (")[0]
        assert line["share"] >= stored["share"] - 0.15
        assert line["share"] >= line["chance"] + 0.3


@pytest.mark.slow
def test_alone_in_a_batch_and_on_two_threads_it_says_the_same(recipe, loaded):
    stored = charts.draw(12, seed=3)
    asked = [(c, p) for c in stored for p in charts.questions(c)[:5]]
    together = recipe.replies(*loaded, asked)
    assert together == recipe.replies(*loaded, asked, batch_size=1)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert together == recipe.replies(*loaded, asked)
    finally:
        torch.set_num_threads(threads)


def test_a_lesson_asks_about_a_picture_in_a_few_lines():
    reader = models.load("pocket-vision")
    chart = stored_charts()[0]
    processor, picture = reader.processor, charts.picture(chart)
    question = {"type": "text", "text": "Which bar is tallest?"}
    content = [{"type": "image", "image": picture}, question]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True,
        tokenize=True, return_dict=True, return_tensors="pt",
    )  # fmt: skip
    output = reader.model.generate(**inputs, max_new_tokens=8)[0]
    new = output[inputs["input_ids"].shape[1] :]
    answer = processor.decode(new, skip_special_tokens=True)
    assert answer == answers_of(chart)["Which bar is tallest?"]


def test_a_larger_picture_is_brought_to_the_size_it_knows(recipe, processor):
    chart = stored_charts()[1]
    for size in (112, 224, 400):
        seen = processor.image_processor(images=[charts.picture(chart, size)])
        assert list(map(int, seen["image_grid_thw"][0])) == [1, 8, 8]
    seen = processor.image_processor(images=[charts.picture(chart)])
    assert seen["pixel_values"].shape == (64, 3 * 2 * recipe.PATCH**2)
