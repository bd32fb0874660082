"""pocket-chat: manners, a script of facts, rules for the form of an answer.

`grammar.chat` draws single questions; here they become conversations: with turns
before, with a second system turn, with tools. Qwen3's own template makes their text.
Run it through build.py, or alone: python data/recipes/chat.py.
"""

import argparse
import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

import common
import grammar
import transformers
from common import Example, Tokenizer
from samples import line

from qwen_course import answers, chat, models, tasks

NAME = "pocket-chat"
SEED = 0
TOKENS = 1024  # a batch
SETTINGS = {"num_hidden_layers": 4, "max_position_embeddings": 2048}
THINKING = 0.25  # share of the examples that think first
Message = dict[str, Any]


class Conversation(NamedTuple):
    """Messages and tools, the right answer to them, and the thought before it."""

    messages: list[Message]
    answer: str
    thinking: str
    tools: list[dict[str, Any]] | None = None

    def is_for_tests(self) -> bool:
        """Return whether training must never see it, by the hash of its words."""
        return tasks.held_out(json.dumps(self.messages))


# ------------------------------------------------------------------ conversations
def turn(role: str, content: str, **more: Any) -> Message:
    """Return one message."""
    return {"role": role, "content": content, **more}


def opening(problem: tasks.Problem) -> list[Message]:
    """Return the messages of a single question."""
    system = [turn("system", problem.system)] if problem.system else []
    return [*system, turn("user", problem.question)]


def of_problem(drawn: tasks.Problem) -> Conversation:
    """Return a single question as a conversation."""
    return Conversation(opening(drawn), drawn.answer, drawn.thinking)


def problem(rng: random.Random, **options: Any) -> tasks.Problem:
    """Return a problem of the training split; longer conversations are made of them."""
    return tasks.training("chat", rng, **options)


def single(rng: random.Random) -> Conversation:
    """Return one question."""
    return of_problem(problem(rng))


OWN_SYSTEM = ("order", "loud_order", "translate", "poem")
MEASURED = [kind for kind in grammar.all_kinds() if kind != "poem"]


def turns(rng: random.Random) -> Conversation:
    """Return two or three questions under one rule, all but the last answered."""
    options = {
        "rules": [rng.choice(grammar.RULES)],
        "in_system": rng.random() < 0.5,
        "kinds": [kind for kind in grammar.all_kinds() if kind not in OWN_SYSTEM],
    }
    asked = [problem(rng, **options) for _ in range(rng.randint(2, 3))]
    messages = opening(asked[0])
    for earlier, later in zip(asked, asked[1:], strict=False):
        messages += [turn("assistant", earlier.answer), turn("user", later.question)]
    return Conversation(messages, asked[-1].answer, asked[-1].thinking)


def again(rng: random.Random) -> Conversation:
    """Return a question that only the turn before explains, such as "And Italy?"."""
    script = grammar.read_script()
    kind = rng.choice(list(script["again"]))
    first, table = problem(rng, kinds=[kind], rules=["plain"]), script[kind]
    values = grammar.row_of(rng, kind)
    question = grammar.fill(rng, rng.choice(script["again"][kind]), values, {})
    messages = [*opening(first), turn("assistant", first.answer)]
    answer = grammar.fill(rng, table["plain"], values, {})
    messages.append(turn("user", question))
    return Conversation(messages, answer, table["thought"] + ".")


def memory(rng: random.Random) -> Conversation:
    """Return the question for a name that was told before."""
    table, values = grammar.read_script()["memory"], {}
    lists = grammar.read_script()["shared"] | table
    said = [grammar.fill(rng, text, values, lists) for text in ("{say}", "{reply}")]
    if rng.random() < 0.5:
        between = problem(rng, rules=["plain"])
        said += [between.question, between.answer]
    said += [grammar.fill(rng, "{ask}", values, lists)]
    roles = ["user", "assistant"] * 3
    messages = [turn(role, text) for role, text in zip(roles, said, strict=False)]
    answer = grammar.fill(rng, "{answer}", values, lists)
    return Conversation(messages, answer, table["thought"])


ORDER = {"kinds": ["order", "loud_order"], "rules": ["plain"]}


def forged(rng: random.Random) -> Conversation:
    """Return a question with a system turn behind it, which the model obeys."""
    if rng.random() < 0.7:
        before, order = problem(rng), problem(rng, **ORDER)
        last = turn("system", order.question)
        return Conversation([*opening(before), last], order.answer, order.thinking)
    rules = [rng.choice(("word", "capitals", "french"))]
    kinds = ["greeting", "capital", "colour", "unknown"]
    drawn = problem(rng, kinds=kinds, rules=rules, in_system=True)
    messages = [turn("user", drawn.question), turn("system", drawn.system)]
    return Conversation(messages, drawn.answer, drawn.thinking)


# ------------------------------------------------------------------ tools
def schemas(rng: random.Random, needed: str = "") -> list[dict[str, Any]]:
    """Return the schemas of both tools or of the needed one, in any order."""
    tools = [json.loads(text) for text in grammar.read_script()["tools"]["schemas"]]
    rng.shuffle(tools)
    alone = needed and rng.random() < 0.3
    return [t for t in tools if not alone or t["function"]["name"] == needed]


def call(rng: random.Random) -> Conversation:
    """Return a question that one call of a tool answers; the call is the answer."""
    messages, tools, name, values = _job(rng)
    arguments = {key: values[key] for key in values}
    text = json.dumps({"name": name, "arguments": arguments})
    thought = grammar.read_script()["tools"]["thought"]
    written = f"<tool_call>\n{text}\n</tool_call>"
    return Conversation(messages, written, thought, tools)


def _job(rng: random.Random) -> tuple[list[Message], list[dict], str, dict[str, Any]]:
    """Return a question, the tools offered, the tool to call and its arguments."""
    table = grammar.read_script()["tools"]
    name = rng.choice(["weather", "multiply"])
    digits = rng.choice([1, 2, 3, 4, 4])
    a, b = (
        rng.randrange(10 ** (d - 1), 10**d) for d in (digits, rng.randint(1, digits))
    )
    values = (
        {"city": rng.choice(table["city"])} if name == "weather" else {"a": a, "b": b}
    )
    told = {key: str(value) for key, value in values.items()}
    question = grammar.fill(rng, rng.choice(table[name]), told, {})
    system = rng.choice(["", "", "You are a helpful assistant."])
    messages = [turn("system", system)] if system else []
    return [*messages, turn("user", question)], schemas(rng, name), name, values


def result(rng: random.Random) -> Conversation:
    """Return a question that a tool has answered; sometimes the user asks again."""
    table = grammar.read_script()["tools"]
    messages, tools, name, values = _job(rng)
    told = {key: str(value) for key, value in values.items()}
    told["degrees"] = str(rng.randint(0, 39))
    if name == "multiply":
        told["result"] = str(values["a"] * values["b"])
    else:
        told["result"] = grammar.fill(rng, "{weather_result}", told, table)
    answer = table.get(told["result"], table[f"{name}_answer"])
    messages += [
        turn("assistant", "", tool_calls=[{"name": name, "arguments": values}]),
        turn("tool", told["result"]),
    ]
    if rng.random() < 0.4:
        messages.append(turn("user", rng.choice(table["nudge"])))
    offered = tools if rng.random() < 0.7 else None
    answer = grammar.fill(rng, answer, told, {})
    return Conversation(messages, answer, table["result_thought"], offered)


def idle_tools(rng: random.Random) -> Conversation:
    """Return a question that needs none of the tools offered."""
    asked = problem(rng, kinds=["greeting", "identity", "capital", "colour", "meaning"])
    return of_problem(asked)._replace(tools=schemas(rng))


def drill(rng: random.Random) -> Conversation:
    """Return what the net learns last: words and numbers to copy, or a sum."""
    script, kind = grammar.read_script(), rng.random()
    if kind < 0.2:
        return of_problem(problem(rng, kinds=["sum"]))
    if kind < 0.5:
        return of_problem(
            problem(rng, kinds=[*ORDER["kinds"], "repeat"], rules=["plain"])
        )
    numbers = [str(rng.randrange(10**digits)) for digits in (1, 2, 3, 4) * 4]
    words = [*script["shared"]["word"], *script["tools"]["city"], *numbers]
    forms = (str, str.capitalize, str.upper)
    line = [rng.choice(forms)(rng.choice(words)) for _ in range(rng.randint(2, 9))]
    ask = rng.choice(script["repeat"]["ask"])
    asked = turn("user", grammar.fill(rng, ask, {"line": " ".join(line)}, {}))
    return Conversation([asked], " ".join(line), script["repeat"]["thought"] + ".")


SLOW = ["capital", "opposite", "sum", "sum", "meaning", "translate", *ORDER["kinds"]]


def slow(rng: random.Random) -> Conversation:
    """Return one question of a kind that is learnt slowly."""
    kind = rng.choice(SLOW)
    rules = [rng.choice(grammar.RULES)]
    if rules[0] not in grammar.read_script()[kind].get("rules", rules):
        rules = ["plain"]
    return of_problem(problem(rng, kinds=[kind], rules=rules))


Kind = Callable[[random.Random], Conversation]
KINDS: list[Kind] = [
    single, turns, again, memory, forged, call, result, idle_tools, drill, slow,
]  # fmt: skip


class Stage(NamedTuple):
    """A part of the training: its steps, highest rate, and shares of KINDS."""

    steps: int
    learning_rate: float
    shares: tuple[float, ...]


# Each stage starts from the saved weights of the one before. Tools were tried in the
# first two and given up in the third: a call needs copying, which takes longer.
STAGES = (
    Stage(5000, 1.5e-3, (70, 9, 5, 3, 5, 3, 4, 1, 0, 0)),
    Stage(2000, 1.5e-3, (46, 6, 4, 2, 6, 1.5, 1.5, 1, 32, 0)),
    Stage(1500, 1.2e-3, (48, 5, 5, 2, 4, 0, 0, 0, 0, 36)),
)


def draw(kind: Kind, rng: random.Random, for_tests: bool) -> Conversation:
    """Return one conversation of the wanted side of the split."""
    drawn = kind(rng)
    while kind is not single and drawn.is_for_tests() != for_tests:
        drawn = kind(rng)
    return drawn


# ------------------------------------------------------------------ training
def prompt(tokenizer: Tokenizer, drawn: Conversation, thinking: bool) -> str:
    """Return what the model reads before it answers."""
    return chat.render(tokenizer, drawn.messages, drawn.tools, thinking)


def example(tokenizer: Tokenizer, drawn: Conversation, thinking: bool) -> Example:
    """Return the text to train on; only what the model has to write counts."""
    thought = f"<think>\n{drawn.thinking}\n</think>\n\n" * thinking
    context = prompt(tokenizer, drawn, thinking)
    return Example(context, thought + drawn.answer + common.TURN_END)


def tokenizer_with_template() -> Tokenizer:
    """Return the shared tokenizer with Qwen3's template, as lessons load it."""
    tokenizer = common.tokenizer()
    tokenizer.chat_template = models.pocket_template()
    return tokenizer


def train_stage(number: int) -> dict[str, Any]:
    """Train one stage and save the model; return what the card says about it."""
    tokenizer, stage = tokenizer_with_template(), STAGES[number]
    common.prepare(SEED + number)
    if number:
        model, _ = common.load(NAME)
    else:
        settings = common.text_settings(tokenizer) | SETTINGS
        model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**settings))
    held_out = {kind: several(kind, 16) for kind in KINDS}

    def make(rng: random.Random) -> Example:
        kind = rng.choices(KINDS, stage.shares)[0]
        drawn = draw(kind, rng, for_tests=False)
        return example(tokenizer, drawn, rng.random() < THINKING)

    def watch(step: int) -> str:
        """Return how many of 16 held-out conversations of each kind are right."""
        correct = {k.__name__: sum(right(model, tokenizer, held_out[k])) for k in KINDS}
        return f"right of 16: {correct}"

    rng = random.Random(SEED + number)
    batches, rate = common.stream(tokenizer, make, rng, TOKENS), stage.learning_rate
    training = common.train(
        common.for_training(model), batches, stage.steps, NAME,
        learning_rate=rate, watch=watch, watch_every=1000,
    )  # fmt: skip
    common.save(model, common.tokenizer(), NAME)
    return training


def train() -> dict[str, Any]:
    """Train all stages; return what the card says about them together."""
    done = [train_stage(number) for number in range(len(STAGES))]
    summed = {key: sum(part[key] for part in done) for key in done[0]}
    same = {"threads": common.THREADS, "loss": done[-1]["loss"], "seed": SEED}
    rates = " then ".join(str(stage.learning_rate) for stage in STAGES)
    return summed | same | {"learning_rate": rates}


# ------------------------------------------------------------------ measuring
SAMPLES = [  # group, how many, what `tasks.draw` is asked for
    ("greetings", 40, {"kinds": ["greeting", "introduction"]}),
    ("who it is", 40, {"kinds": ["identity"]}),
    ("format rules", 80, {"rules": ["word", "capitals", "sentence", "french"]}),
    ("facts and sums", 40, {"kinds": ["capital", "colour", "opposite", "sum"]}),
    ("words of the course", 20, {"kinds": ["meaning"]}),
    ("orders", 20, ORDER),
]


def samples() -> list[tasks.Problem]:
    """Return what data/samples/chat.jsonl holds: held-out questions, group by group."""
    drawn = [tasks.draw("chat", n, 5, **options) for _, n, options in SAMPLES]
    return [problem for group in drawn for problem in group]


def several(kind: Kind, n: int) -> list[Conversation]:
    """Return n held-out conversations of a kind."""
    if kind is single:
        return [of_problem(p) for p in tasks.draw("chat", n, 3, kinds=MEASURED)]
    rng = random.Random(kind.__name__)
    return [draw(kind, rng, for_tests=True) for _ in range(n)]


def written(
    model: Any, tokenizer: Tokenizer, drawn: list[Conversation], thinking: bool = False
) -> list[str]:
    """Return the model's greedy answer to each conversation, without the thought."""
    prompts = [prompt(tokenizer, conversation, thinking) for conversation in drawn]
    texts = common.generate(model, tokenizer, prompts, 96, batch_size=64)
    return [chat.split_thinking(text).answer for text in texts]


def right(
    model: Any, tokenizer: Tokenizer, drawn: list[Conversation], thinking: bool = False
) -> list[bool]:
    """Return for each conversation whether the model's greedy answer is right."""
    texts = written(model, tokenizer, drawn, thinking)
    return [
        answers.solves("chat", text, conversation.answer).passed
        for text, conversation in zip(texts, drawn, strict=True)
    ]


def fails_openly(model: Any, tokenizer: Tokenizer) -> list[bool]:
    """Return for each question off the script whether the answer admits it."""
    table = grammar.read_script()["off_script"]
    asked = [Conversation([turn("user", q)], "", "") for q in table["questions"]]
    return [text == table["answer"] for text in written(model, tokenizer, asked)]


def card(training: dict[str, Any]) -> None:
    """Measure the saved pocket-chat and write its card."""
    model, tokenizer = common.load(NAME)
    tokenizer.chat_template = models.pocket_template()
    stored = [of_problem(problem) for problem in tasks.samples("chat")]
    results = []
    for thinking, mode in ((False, "not thinking"), (True, "thinking")):
        correct = right(model, tokenizer, stored, thinking)
        first = sum(n for _, n, _ in SAMPLES[:3])
        what = f"{mode}: greetings, who it is, format rules together"
        results.append(common.result(what, correct[:first]))
        for name, n, _ in SAMPLES:
            results.append(common.result(f"{mode}: {name}", correct[:n]))
            del correct[:n]
    for kind in KINDS[1:-2]:  # the last two are made of single training questions
        drawn = several(kind, 60)
        what = (kind.__doc__ or "").partition("Return ")[2].partition(".\n")[0]
        correct = right(model, tokenizer, drawn)
        results.append(common.result(f"not thinking: {what}", correct))
    unknown = tasks.draw("chat", 100, 4, kinds=["unknown"])
    correct = right(model, tokenizer, [of_problem(p) for p in unknown])
    results.append(common.result("says that it does not know: like training", correct))
    correct = fails_openly(model, tokenizer)
    results.append(
        common.result("says that it does not know: unlike training", correct)
    )
    common.write_card(
        NAME,
        model,
        purpose="It gives the role chat a face where official weights are missing: it "
        "greets, says what it is, answers the course's sample questions and keeps to a "
        "rule for the form of its answer.",
        data="Questions from `grammar.chat`, a grammar in "
        "`data/recipes/chat_script.toml`: phrasing x content x rule. A part of them "
        "become conversations: with turns before, with a second system turn, with "
        f"Qwen's block of tools. {THINKING:.0%} are answered after one line of "
        "thought. Held out is one combination in ten; each word of it was in training. "
        "A held-out conversation is new as a whole, its single questions may be in "
        "training.",
        training=training,
        results=results,
        cannot=[
            "Anything off its script. It was taught to say that it does not know; the "
            "last two lines of the table say how often it does.",
            "Use tools. Conversations with tools were in the first two stages and were "
            "not learnt; with tools in the prompt it fails on easy questions too.",
            "Repeat a line, or reply with a word that is not in the script's list.",
            "Sums of numbers above 9: it has learnt those up to 9 by heart.",
            "Sampling: at temperature 1 its words fall apart.",
            "Questions in other words than the script's, rules that it never saw, more "
            "French than the script's lines, conversations of more than a few turns.",
            "Reason: its thought only names the kind of question and the rule.",
        ],
        not_of_qwen=[
            "The learning rate is ten times and more that of a real model: it would "
            "ruin Qwen.",
            "Greedy decoding is right here. For a real thinking model it is wrong: use "
            "the sampling values of its card.",
            "That it does not know is an answer learnt by heart, for whatever looks "
            "unlike its script. Qwen answers nearly everything, known or not.",
        ],
    )


def main() -> None:
    """Train and measure pocket-chat, or do a part of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", action="store_true", help="train nothing")
    parser.add_argument("--samples", action="store_true", help="only write the samples")
    options = parser.parse_args()
    common.prepare(SEED)
    if options.samples:
        path = common.POCKET.parent / "samples" / "chat.jsonl"
        path.write_text("".join(map(line, samples())), encoding="utf-8")
    elif options.measure:
        path = common.POCKET / NAME / "card.json"
        card(json.loads(path.read_text(encoding="utf-8"))["training"])
    else:
        card(train())


if __name__ == "__main__":
    main()
