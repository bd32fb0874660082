"""Trains pocket-moe and its dense twin: `python data/recipes/moe.py [NAME ...]`.

Eight experts of which two work on each token, and a dense net of exactly these two's
width: both do the same work a token and read the same batches. More experts are said
to give room for knowledge, so beside three tasks both learn a table of random codes by
heart. At this size and in these minutes the experts hold no more of it: see the cards.
"""

import argparse
import contextlib
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import common
import torch
import transformers
from common import Example
from transformers.models.qwen3_moe.modeling_qwen3_moe import load_balancing_loss_func

from qwen_course import tasks

EXPERTS, CHOSEN = 8, 2
Model = transformers.PreTrainedModel


EXPERT_WIDTH = 64
TOKENS = 1024  # of a batch, at most


class Stage(NamedTuple):
    """A part of the training: both nets get the same of everything."""

    shares: dict[str, int]  # task -> its share of the examples, in %
    steps: int
    learning_rate: float


STAGES = (  # the table needs most; after it, chains get what they still lack
    Stage({"facts": 77, "maths": 8, "code": 5, "french": 10}, 3200, 1.5e-3),
    Stage({"facts": 40, "maths": 40, "code": 8, "french": 12}, 1200, 1e-3),
)
TASKS = tuple(STAGES[0].shares)


# ------------------------------------------------------------------ networks
def new_moe(tokenizer: common.Tokenizer) -> Model:
    """Return an untrained Qwen3-MoE."""
    settings = common.text_settings(tokenizer)
    del settings["intermediate_size"]  # every layer has experts instead
    config = transformers.Qwen3MoeConfig(
        **settings,
        moe_intermediate_size=EXPERT_WIDTH,
        num_experts=EXPERTS,
        num_experts_per_tok=CHOSEN,
        norm_topk_prob=True,
        router_aux_loss_coef=0.001,  # Qwen3's own value
    )
    model = transformers.Qwen3MoeForCausalLM(config)
    model.set_experts_implementation("eager")  # the fastest on a CPU, measured
    return common.for_training(model)


def new_dense(tokenizer: common.Tokenizer) -> Model:
    """Return an untrained Qwen3 whose layers have the width of the chosen experts."""
    settings = common.text_settings(tokenizer)
    settings["intermediate_size"] = CHOSEN * EXPERT_WIDTH
    model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**settings))
    return common.for_training(model)


NETS = {"pocket-moe": new_moe, "pocket-moe-dense": new_dense}


def active_parameters(model: Model) -> int:
    """Return how many parameters work on one token."""
    total = sum(weight.numel() for weight in model.parameters())
    experts = [w.numel() for n, w in model.named_parameters() if ".experts." in n]
    return total - sum(experts) * (EXPERTS - CHOSEN) // EXPERTS


@contextlib.contextmanager
def routers(model: Model, change: Callable | None = None) -> Iterator[list]:
    """Collect the routers' logits: a tensor [tokens, experts] for each layer and call.

    Args:
        model: one with experts.
        change: gives the logits that count instead, from layer and logits.
    """
    seen: list[torch.Tensor] = []

    def hook(layer: int, output: tuple) -> tuple | None:
        seen.append(output[0])
        if change is None:
            return None
        logits = change(layer, output[0])
        weights, chosen = logits.softmax(-1).topk(CHOSEN)
        return logits, weights / weights.sum(-1, keepdim=True), chosen

    hooks = [
        layer.mlp.gate.register_forward_hook(
            lambda _module, _input, output, number=number: hook(number, output)
        )
        for number, layer in enumerate(model.model.layers)
    ]
    try:
        yield seen
    finally:
        for handle in hooks:
            handle.remove()


# ------------------------------------------------------------------ training
def example_of(task: str, rng: random.Random) -> Example:
    """Return a training example: maths with thinking, the others without."""
    problem = tasks.training(task, rng)
    return common.thought(problem) if task == "maths" else common.direct(problem)


def mixture(shares: dict[str, int]) -> Callable[[random.Random], Example]:
    """Return a maker of examples of several tasks, in these shares."""
    names, weights = list(shares), list(shares.values())
    return lambda rng: example_of(rng.choices(names, weights)[0], rng)


def loss(model: Model, batch: common.Batch) -> torch.Tensor:
    """Return the loss of the answers; with experts, plus that of unbalanced routers.

    In float32: with experts bfloat16 costs more than it saves at this size.
    """
    with torch.autocast("cpu", enabled=False):
        if not hasattr(model, "num_experts"):
            return common.answer_loss(model, batch)
        with routers(model) as seen:
            answers = common.answer_loss(model, batch)
        real = (batch["input_ids"] != model.config.pad_token_id).long()
        balance = load_balancing_loss_func(tuple(seen), EXPERTS, CHOSEN, real)
        return answers + model.router_aux_loss_coef * balance


def train(name: str, seed: int = 0) -> tuple[Model, dict[str, Any], list]:
    """Return a trained net, what its card says of it, and its accuracy on the way."""
    common.prepare(seed)
    tokenizer = common.tokenizer()
    model = NETS[name](tokenizer)
    probe = conversations(tokenizer)
    told, curve = [], []
    for number, stage in enumerate(STAGES):
        before = sum(earlier["steps"] for earlier in told)

        def watch(step: int, before: int = before) -> str:
            curve.append({"step": before + step, **token_accuracy(model, probe)})
            return f"tokens right: {curve[-1]}"

        rng = random.Random(seed + 1 + 1000 * number)
        batches = common.stream(tokenizer, mixture(stage.shares), rng, TOKENS)
        told.append(
            common.train(
                model,
                batches,
                stage.steps,
                name,
                learning_rate=stage.learning_rate,
                loss=loss,
                watch=watch,
            )
        )
    return model, summary(told) | {"seed": seed}, curve


def summary(told: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one description of several stages."""
    sums = {k: sum(stage[k] for stage in told) for k in ("steps", "tokens", "seconds")}
    rates = ", then ".join(str(stage["learning_rate"]) for stage in told)
    return told[-1] | sums | {"learning_rate": rates}


# ------------------------------------------------------------------ routing
KINDS = ("control", "digit", "sign", *(f"word of {task}" for task in TASKS))


def kind_of(token: str, task: str) -> int:
    """Return the place in KINDS of a token in a text of a task."""
    word = token.lstrip("ĠĊ")  # how byte-level tokenizers write space and line break
    if token.startswith("<") and token.endswith(">"):
        return KINDS.index("control")
    if word.isdigit():
        return KINDS.index("digit")
    if not any(character.isalpha() for character in word):
        return KINDS.index("sign")
    return KINDS.index(f"word of {task}")


def conversations(tokenizer: common.Tokenizer) -> dict[str, common.Batch]:
    """Return a batch of 100 whole conversations of each task, held out if any is."""
    batches = {}
    for task in TASKS:
        problems = tasks.draw(task, 100, seed=2, held_out=task != "facts")
        make = common.thought if task == "maths" else common.direct
        sides = zip(*(make(problem) for problem in problems), strict=True)
        ids = [common.token_ids(tokenizer, list(side)) for side in sides]
        rows = list(zip(*ids, strict=True))
        batches[task] = common.collate(rows, tokenizer.pad_token_id)
    return batches


@torch.inference_mode()
def routing(model: Model, tokenizer: common.Tokenizer) -> torch.Tensor:
    """Return how often each expert was chosen: [layers, kinds of tokens, experts]."""
    layers = model.config.num_hidden_layers
    counts = torch.zeros(layers, len(KINDS), EXPERTS)
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    for task, batch in conversations(tokenizer).items():
        kinds = torch.tensor([kind_of(token, task) for token in tokens])
        ids = batch["input_ids"].flatten()
        real = ids != tokenizer.pad_token_id
        with routers(model) as seen:
            model(input_ids=batch["input_ids"])
        for layer, logits in enumerate(seen):
            chosen = logits[real].topk(CHOSEN).indices
            cells = kinds[ids[real], None] * EXPERTS + chosen
            found = cells.flatten().bincount(minlength=counts[layer].numel())
            counts[layer] += found.view(counts[layer].shape)
    return counts


def information(counts: torch.Tensor) -> float:
    """Return what the kind of a token tells of its experts, in bits (at most 3).

    It is the mutual information of a table of counts [kinds, experts].
    """
    joint = counts / counts.sum()
    apart = joint.sum(0, keepdim=True) * joint.sum(1, keepdim=True)
    return (joint * (joint / apart).log2()).nansum().item()  # 0 log 0 counts 0


def routing_table(model: Model, tokenizer: common.Tokenizer) -> dict[str, Any]:
    """Return the shares of the experts by layer and token kind, and the information."""
    counts = routing(model, tokenizer)
    shares = counts / counts.sum(-1, keepdim=True)
    return {
        "shares": [[_rounded(row) for row in layer] for layer in shares],
        "load": [_rounded(layer.sum(0) / layer.sum()) for layer in counts],
        "information": [round(information(layer), 3) for layer in counts],
    }


def _rounded(row: torch.Tensor) -> list[float]:
    return [round(value, 3) for value in row.tolist()]


@torch.inference_mode()
def token_accuracy(model: Model, batches: dict[str, common.Batch]) -> dict[str, float]:
    """Return by task the share of answer tokens that are the model's first choice.

    The right tokens before each are given (teacher forcing).
    """
    shares = {}
    for task, batch in batches.items():
        labels = batch["labels"][:, 1:]
        guesses = model(input_ids=batch["input_ids"]).logits[:, :-1].argmax(-1)
        right = (guesses == labels)[labels != -100]
        shares[task] = round(right.float().mean().item(), 3)
    return shares


def knock_outs(model: Model, tokenizer: common.Tokenizer) -> dict[str, Any]:
    """Return the token accuracy intact, and with each expert of each layer left out."""
    batches = conversations(tokenizer)

    def without(layer: int, expert: int) -> dict[str, float]:
        def change(at: int, logits: torch.Tensor) -> torch.Tensor:
            column = torch.arange(EXPERTS) == expert
            return logits.masked_fill(column, -torch.inf) if at == layer else logits

        with routers(model, change):
            return token_accuracy(model, batches)

    layers = range(model.config.num_hidden_layers)
    return {
        "intact": token_accuracy(model, batches),
        "without": [[without(i, x) for x in range(EXPERTS)] for i in layers],
    }


# ------------------------------------------------------------------ measuring
WHAT = {  # task -> what is measured, and on how many problems
    "facts": ("the code of a name (in training too: a table learnt by heart)", 2000),
    "maths": ("the last digit of chains of 2 to 4 operations, with thinking", 300),
    "code": ("one-line Python functions", 300),
    "french": ("English sentences into French", 300),
}
PURPOSE = {
    "pocket-moe": "Experts: eight in each layer, of which a router lets two work on "
    "each token. It knows three tasks and a table of codes.",
    "pocket-moe-dense": "The dense twin of pocket-moe: no router, each layer as wide "
    "as the two experts that work on a token there, trained on the same batches.",
}


def measure(model: Model, task: str) -> dict[str, Any]:
    """Return the line of a card's table for one task: held-out problems, but facts."""
    what, n = WHAT[task]
    problems = tasks.draw(task, n, seed=1, held_out=task != "facts")
    tokenizer = common.tokenizer()
    right = common.marks(model, tokenizer, problems, task == "maths", 96)
    return common.result(f"{task}: {what}", right)


def card_of(name: str, training: dict[str, Any], curve: list[dict[str, Any]]) -> None:
    """Measure a saved net and write its card; with experts, also what routes where."""
    model, tokenizer = common.load(name)
    results = [measure(model, task) for task in WHAT]
    more: dict[str, Any] = {"active_parameters": active_parameters(model)}
    more["curve"] = curve
    if name == "pocket-moe":
        common.prepare(training["seed"])
        nets = {"trained": model, "untrained": new_moe(tokenizer).eval()}
        tables = {kind: routing_table(net, tokenizer) for kind, net in nets.items()}
        more |= {"token_kinds": KINDS, "routing": tables}
        more["knock_out"] = knock_outs(model, tokenizer)
    stages = "; then ".join(
        f"{stage.steps:,} steps with "
        + ", ".join(f"{share} {task}" for task, share in stage.shares.items())
        for stage in STAGES
    )
    common.write_card(
        name,
        model,
        purpose=PURPOSE[name],
        data=f"Problems from `qwen_course.tasks`; of 100 examples: {stages}. The facts "
        "are a fixed table of 2,304 random codes, all in training.",
        training=training | {"active_parameters": active_parameters(model)},
        results=results,
        cannot=[
            "Anything outside the four tasks it was trained on.",
            "Say that it does not know a code: it gives three digits for any name.",
            "Show that experts hold more: pocket-moe and its dense twin "
            "pocket-moe-dense saw the same batches; compare the facts in the tables of "
            "both cards.",
        ],
        not_of_qwen=[
            "The learning rate is ten times and more that of a real model.",
            "Greedy decoding is right here. For a real thinking model it is wrong.",
        ],
        more=more,
    )


def main() -> None:
    """Train and measure both nets, or those named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NETS))
    parser.add_argument("--measure", action="store_true", help="train nothing")
    options = parser.parse_args()
    for name in options.names or NETS:
        if options.measure:
            common.prepare()
            path = common.POCKET / name / "card.json"
            told = json.loads(path.read_text(encoding="utf-8"))
            training, curve = told["training"], told["curve"]
        else:
            model, training, curve = train(name)
            common.save(model, common.tokenizer(), name)
        card_of(name, training, curve)


if __name__ == "__main__":
    main()
