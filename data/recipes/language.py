"""Trains the thinker, the generalists and the specialists: all of one small size.

`python data/recipes/language.py NAME ...` with names of RECIPES, or `thinking`. Every
number of steps is fixed. With --measure it trains nothing, but measures the saved
weights again and writes their cards.
"""

import argparse
import functools
import itertools
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import common
from common import Example, cut_thought, direct, thought

from qwen_course import tasks

Random = random.Random


# ------------------------------------------------------------------ the thinker
class Stage(NamedTuple):
    """A part of the training: its steps, tokens a batch, and what examples it has."""

    steps: int
    tokens: int
    example: Callable[[Random], Example]


def chains(longest: int, thinking: float) -> Callable[[Random], Example]:
    """Return a maker of examples: chains up to a length, a share of them thinking."""

    def example(rng: Random) -> Example:
        problem = tasks.training("chain", rng, levels=range(1, longest + 1))
        return thought(problem) if rng.random() < thinking else direct(problem)

    return example


DIRECT_LEVELS = [  # how often each level is answered without thinking in the last stage
    level
    for level, weight in enumerate([12, 36, 28, 14] + [1] * 8, start=1)
    for _ in range(weight)
]


def consolidation(rng: Random) -> Example:
    """Return an example of the last stage: direct, thinking, or a thought cut short.

    Mostly short chains are direct: more than a few operations a net of three layers
    cannot learn to do in its head. Cut thoughts teach it to answer under a budget.
    """
    kind = rng.random()
    if kind < 0.45:
        return direct(tasks.training("chain", rng, levels=DIRECT_LEVELS))
    problem = tasks.training("chain", rng)
    if kind < 0.80 or problem.level == 1:
        return thought(problem)
    return cut_thought(problem, rng.randint(1, min(3, problem.level - 1)))


THINKING = (  # short chains first: retrieval and sums come before long chains can
    Stage(600, 1024, chains(3, 0.70)),
    Stage(750, 1536, chains(6, 0.60)),
    Stage(1650, 2048, chains(12, 0.50)),
    Stage(2000, 2048, consolidation),
)


def staged(tokenizer: common.Tokenizer, stages: tuple[Stage, ...]) -> Iterator[Any]:
    """Yield the batches of all stages, each stage with its own random numbers."""
    for number, stage in enumerate(stages):
        rng = Random(number)
        batches = common.stream(tokenizer, stage.example, rng, stage.tokens)
        yield from itertools.islice(batches, stage.steps)


@functools.cache
def chains_by_level(n: int, seed: int) -> list[tasks.Problem]:
    """Return n held-out chains of each length from 2 to 12."""
    levels = range(2, 13)
    return [p for k in levels for p in tasks.draw("chain", n, seed, levels=[k])]


def train_thinking(name: str) -> dict[str, Any]:
    """Train the thinker: hybrid, it thinks or not by the template's switch."""
    tokenizer = common.tokenizer()
    model = common.new_model(tokenizer)

    def watch(step: int) -> str:
        """Return the accuracy of both modes on a few held-out chains."""
        right = [
            common.marks(model, tokenizer, chains_by_level(12, seed=2), thinking)
            for thinking in (True, False)
        ]
        shares = [sum(mode) / len(mode) for mode in right]
        return f"held-out: thinking {shares[0]:.2f}, without {shares[1]:.2f}"

    steps = sum(stage.steps for stage in THINKING)
    batches = staged(tokenizer, THINKING)
    training = common.train(model, batches, steps, name, watch=watch)
    common.save(model, tokenizer, name)
    return training


def card_of_thinking(name: str, training: dict[str, Any]) -> None:
    """Measure the saved thinker in both modes and write its card."""
    model, tokenizer = common.load(name)
    problems, table = (
        chains_by_level(46, seed=1),
        tasks.draw("chain", 130, 1, False, levels=[1]),
    )
    results = []
    for thinking, mode in ((True, "thinking"), (False, "not thinking")):
        right = common.marks(model, tokenizer, problems, thinking)
        levels = [problem.level for problem in problems]
        results.append(common.result(f"{mode}, 2 to 12 operations", right))
        some = [r for r, level in zip(right, levels, strict=True) if level >= 4]
        results.append(common.result(f"{mode}, 4 to 12 operations", some))
        for k in range(2, 13):
            some = [r for r, level in zip(right, levels, strict=True) if level == k]
            results.append(common.result(f"{mode}, {k} operations", some))
        right = common.marks(model, tokenizer, table, thinking)
        what = f"{mode}, 1 operation: all 130 were in training, a learnt table"
        results.append(common.result(what, right))
    common.write_card(
        name,
        model,
        purpose="It says the last digit of a chain of operations, and thinks or not "
        "by the template's switch.",
        data="Chains of 1 to 12 operations from `qwen_course.tasks.chain`: short ones "
        "first, then all. In the last stage 45 % are answered without thinking (mostly "
        "up to 4 operations), 35 % with full thinking, 20 % after thinking that lacks "
        "its last lines, where only the answer counts.",
        training=training,
        results=results,
        cannot=[
            "Anything but these chains, in this wording.",
            "More than 12 operations, or an operation twice: it never saw that.",
            "Long chains without thinking: it guesses, and sounds as sure as ever.",
        ],
        not_of_qwen=[
            *NOT_OF_QWEN,
            "The thinking has one form, a line an operation; Qwen's is free text.",
        ],
    )


# ------------------------------------------------------------------ the others
class Recipe(NamedTuple):
    """What a model is trained on, for how many steps, and what it starts from."""

    tasks: tuple[str, ...]
    steps: int
    start: str = ""  # "": from scratch


STEPS, TOKENS = 500, 1024  # of a specialist: steps, and tokens a batch
THREE = ("maths", "code", "french")
SPECIALISTS = {"maths": "maths", "coder": "code", "translator": "french"}
RECIPES = {
    "generalist": Recipe(THREE, STEPS),
    "generalist-3x": Recipe(THREE, 3 * STEPS),
    "generalist-echo": Recipe((*THREE, "echo"), 3 * STEPS),
    **{name: Recipe((task,), STEPS) for name, task in SPECIALISTS.items()},
    **{
        f"{name}-continued": Recipe((task,), STEPS, "pocket-generalist")
        for name, task in SPECIALISTS.items()
    },
}
WHAT = {
    "maths": "the last digit of chains of 1 to 4 operations, with thinking",
    "code": "one-line Python functions",
    "french": "English sentences into French",
    "echo": "repeating words and JSON",
}
NOT_OF_QWEN = [
    "The learning rate is ten times and more that of a real model: it would ruin Qwen.",
    "Greedy decoding is right here. For a real thinking model it is wrong: use the "
    "sampling values of its card.",
]


def example_of(task: str, rng: Random) -> Example:
    """Return a training example: maths with thinking, the others without."""
    problem = tasks.training(task, rng)
    return thought(problem) if problem.thinking else direct(problem)


def mixed(tokenizer: common.Tokenizer, names: tuple[str, ...]) -> Iterator[Any]:
    """Yield batches in which every task has the same share of the tokens."""
    shares = []
    for task in names:
        rng = Random(task)
        texts = ["".join(example_of(task, rng)) for _ in range(300)]
        shares.append(1 / sum(map(len, common.token_ids(tokenizer, texts))))

    def example(rng: Random) -> Example:
        return example_of(rng.choices(names, shares)[0], rng)

    return common.stream(tokenizer, example, Random(1), TOKENS)


def train_other(name: str) -> dict[str, Any]:
    """Train a generalist or a specialist, from scratch or from the generalist."""
    recipe = RECIPES[name.removeprefix("pocket-")]
    tokenizer = common.tokenizer()
    model = common.new_model(tokenizer)
    if recipe.start:
        model = common.for_training(common.load(recipe.start)[0])
    batches = mixed(tokenizer, recipe.tasks)
    training = common.train(model, batches, recipe.steps, name, warm_up=30)
    common.save(model, tokenizer, name)
    return training | {"started from": recipe.start or "random weights"}


def card_of_other(name: str, training: dict[str, Any]) -> None:
    """Measure a saved model on every task and write its card."""
    recipe = RECIPES[name.removeprefix("pocket-")]
    model, tokenizer = common.load(name)
    results = []
    for task, what in WHAT.items():
        problems = tasks.draw(task, 200, seed=1)
        right = common.marks(model, tokenizer, problems, task == "maths", 80)
        note = " (2 to 4 here)" if task == "maths" else ""
        results.append(common.result(f"{task}: {what}{note}", right))
    learnt = "; ".join(WHAT[task] for task in recipe.tasks)
    together = len(recipe.tasks) > 1
    common.write_card(
        name,
        model,
        purpose=f"{'A generalist' if together else 'A specialist'}: {learnt}.",
        data=f"Problems from `qwen_course.tasks`: {', '.join(recipe.tasks)}"
        + (", each with the same share of the tokens." if together else "."),
        training=training,
        results=results,
        cannot=["Anything outside the tasks it was trained on, as the table shows."]
        + ["What the generalist knew, it forgot: see the table."] * bool(recipe.start),
        not_of_qwen=[
            *NOT_OF_QWEN,
            "A specialist's lead over pocket-generalist is a matter of tokens per "
            "task, not of room in the weights: compare pocket-generalist-3x.",
        ],
    )


def main() -> None:
    """Train and measure the models named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=["thinking", *RECIPES])
    parser.add_argument("--measure", action="store_true", help="train nothing")
    options = parser.parse_args()
    for short in options.names:
        name = f"pocket-{short}"
        thinker = short == "thinking"
        common.prepare()
        if options.measure:
            path = common.POCKET / name / "card.json"
            training = json.loads(path.read_text(encoding="utf-8"))["training"]
        else:
            training = (train_thinking if thinker else train_other)(name) | {"seed": 0}
        (card_of_thinking if thinker else card_of_other)(name, training)


if __name__ == "__main__":
    main()
