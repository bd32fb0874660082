"""Small problems with one right answer: generators, held-out splits, stored samples.

What the pocket models are trained on and measured with. A generator draws problems and
knows nothing of splits: the split is a hash of the question, so no problem can be in
training and in a test. Knows no models and no checkers (those are in `answers`).
"""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from . import catalog
from .errors import CourseError


@dataclass(frozen=True)
class Problem:
    """A question, its one right answer, and the thinking that leads there, if any."""

    task: str
    question: str
    answer: str
    thinking: str = ""
    level: int = 0  # how hard: for chains the number of operations
    system: str = ""  # the system prompt, if any
    tests: str = ""  # of a function: asserts that its code must pass


GENERATORS: dict[str, Callable[..., Problem]] = {}  # task -> its generator


def generator(function: Callable[..., Problem]) -> Callable[..., Problem]:
    """Enter a generator under its own name, which is the name of its task."""
    GENERATORS[function.__name__] = function
    return function


def held_out(text: str) -> bool:
    """Return whether a question belongs to the tests: one in ten, by its hash."""
    return int(hashlib.md5(text.encode()).hexdigest(), 16) % 10 == 0


def is_for_tests(problem: Problem) -> bool:
    """Return whether training must never see a problem.

    There are only 130 chains of one operation: all are in training, a learnt table. So
    are the facts, which nothing but learning by heart can answer.
    """
    chain_of_one = problem.task in ("chain", "maths") and problem.level == 1
    learnt_table = chain_of_one or problem.task == "facts"
    return not learnt_table and held_out(problem.system + problem.question)


def training(task: str, rng: Random, **options: Any) -> Problem:
    """Return one problem of the training split, drawn with the caller's generator."""
    return _of_split(task, rng, False, options)


def draw(
    task: str, n: int, seed: int = 0, held_out: bool = True, **options: Any
) -> list[Problem]:
    """Return n problems with different questions, all from one side of the split.

    Args:
        task: a name in GENERATORS.
        n: how many; CourseError when the task has not that many.
        seed: the same seed draws the same problems.
        held_out: True draws problems that no pocket model was trained on.
        **options: handed to the generator, such as `levels=[3]` for chains.
    """
    rng = Random(f"{task} {seed}")
    found: dict[str, Problem] = {}
    for _ in range(n):
        for _ in range(2000):
            problem = _of_split(task, rng, held_out, options)
            if problem.system + problem.question not in found:
                break
        else:
            rule = f"Found only {len(found)} different {task!r} problems, not {n}."
            raise CourseError(rule, "Ask for fewer, or for more levels.")
        found[problem.system + problem.question] = problem
    return list(found.values())


def _of_split(
    task: str, rng: Random, for_tests: bool, options: dict[str, Any]
) -> Problem:
    if task not in GENERATORS:
        rule = f"Unknown task {task!r}."
        raise CourseError(rule, f"Use one of {', '.join(GENERATORS)}.")
    for _ in range(2000):
        problem = GENERATORS[task](rng, **options)
        if is_for_tests(problem) == for_tests:
            return problem
    rule = f"The {'tests' if for_tests else 'training'} split of {task!r} has nothing."
    raise CourseError(rule, "Chains of one operation, for example, are all training.")


def samples(task: str) -> list[Problem]:
    """Return the stored problems of a task, in the file's order: all held out.

    The exceptions are `chain_of_one`, see `is_for_tests`, and `tickets_training`.
    """
    folder = catalog.data_dir() / "samples"
    stored = sorted({file.stem for file in folder.glob("*.jsonl")} - {"chart"})
    if task not in stored:  # charts have their own
        hint = f"Use {', '.join(stored)}."
        raise CourseError(f"No samples of {task!r} in {folder}.", hint)
    lines = (folder / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Problem(**json.loads(line)) for line in lines]


@dataclass(frozen=True)
class Run:
    """Stored replies of an official model to a set of questions, with what they took.

    A reply is its item (mostly the question), text, new tokens and reason to stop.
    """

    replies: list[list[Any]] = field(repr=False)
    settings: dict[str, Any] = field(repr=False)
    seconds: float  # for all replies, side by side
    peak_gb: float  # of the process until then, weights included
    told: str  # whose replies, when, where


def measured(model: str, run: str) -> Run:
    """Return a run of `data/measured/MODEL.json`, as `recipes/official.py` stored it.

    Raises CourseError that names the models or the runs that are there.
    """
    folder = catalog.data_dir() / "measured"
    known = sorted(path.stem for path in folder.glob("*B-*.json"))
    if model not in known:
        raise CourseError(f"Nothing measured of {model!r}.", f"Use one of {known}.")
    stored = json.loads((folder / f"{model}.json").read_text("utf-8"))
    if run not in stored["runs"]:
        rule = f"{model} has no run {run!r}."
        raise CourseError(rule, f"Use one of {', '.join(stored['runs'])}.")
    told = f"{model}, {stored['date']}, {stored['machine']}"
    return Run(**stored["runs"][run], told=told)


# Chains of operations: the last digit of the result.
MULTIPLY = {2: "double it", 3: "triple it", 7: "multiply by 7", 9: "multiply by 9"}
OPERATIONS = [("+", number) for number in range(1, 10)] + [("*", n) for n in MULTIPLY]


@generator
def chain(rng: Random, levels: Sequence[int] = range(1, 13)) -> Problem:
    """Return a chain of operations; the answer is the last digit of the result.

    The thinking has a line for each operation and keeps one digit, which is enough. No
    operation occurs twice, so that "the one after" an operation is never in doubt.

    Args:
        rng: draws everything.
        levels: the numbers of operations to choose from, 1 to 12.
    """
    numbers = levels if isinstance(levels, Sequence) else ()
    if not numbers or not all(n in range(1, 13) and type(n) is int for n in numbers):
        rule = f"levels must be numbers of operations, 1 to 12, got {levels!r}."
        raise CourseError(rule, "Write levels=[3].")
    level, start = rng.choice(levels), rng.randrange(10)
    words, lines, digit = [], [], start
    for sign, number in rng.sample(OPERATIONS, level):
        words.append(f"add {number}" if sign == "+" else MULTIPLY[number])
        result = digit + number if sign == "+" else digit * number
        keep = f", keep {result % 10}" if result > 9 else ""
        lines.append(f"{digit}{sign}{number}={result}{keep}.")
        digit = result % 10
    told = ", then ".join([", ".join(words[:-1]), words[-1]] if level > 1 else words)
    question = f"Start with {start}, {told}. What is the last digit?"
    return Problem("chain", question, str(digit), "\n".join(lines), level)


@generator
def maths(rng: Random) -> Problem:
    """Return a chain of one to four operations."""
    return replace(chain(rng, range(1, 5)), task="maths")


# One-line Python functions.
PRODUCTS = {  # what to return -> the expression around a generator
    "sum": "sum({})",
    "product": "math.prod({})",
    "list": "[{}]",
    "sorted list": "sorted({})",
    "set": "set({})",
}


@generator
def code(rng: Random) -> Problem:
    """Return a request for a Python function that filters, maps and collects."""
    limit, number = rng.randint(2, 9), rng.randint(2, 9)
    filters = [
        ("even numbers", "x % 2 == 0"),
        ("odd numbers", "x % 2 == 1"),
        ("positive numbers", "x > 0"),
        ("negative numbers", "x < 0"),
        (f"numbers greater than {limit}", f"x > {limit}"),
        (f"numbers less than {limit}", f"x < {limit}"),
        (f"multiples of {limit}", f"x % {limit} == 0"),
    ]
    changes = [
        ("", "x"),
        (", square them", "x * x"),
        (", double them", "2 * x"),
        (f", add {number} to each", f"x + {number}"),
        (f", subtract {number} from each", f"x - {number}"),
        (f", multiply each by {number}", f"x * {number}"),
    ]
    (kept, condition), (change, value) = rng.choice(filters), rng.choice(changes)
    name = rng.choice(list(PRODUCTS))
    question = f"Write a Python function f(xs): keep the {kept}{change}"
    body = PRODUCTS[name].format(f"{value} for x in xs if {condition}")
    needs = "import math\n" if "math." in body else ""
    answer = f"{needs}def f(xs):\n    return {body}"
    return Problem("code", f"{question} and return the {name}.", answer)


# English to French, with agreement and the places of adjectives.
NOUNS = (  # English, French, gender (0 masculine, 1 feminine)
    "cat chat 0, dog chien 0, girl fille 1, boy garçon 0, woman femme 1, car voiture 1,"
    "table table 1, house maison 1, book livre 0, flower fleur 1, door porte 1,"
    "fish poisson 0, chair chaise 1, bag sac 0, train train 0, key clé 1"
)
PLURALS = {"fish": "fish", "woman": "women"}  # the others take an s
BEFORE = {  # adjectives before the noun -> masculine, feminine
    "small": ("petit", "petite"),
    "big": ("grand", "grande"),
    "pretty": ("joli", "jolie"),
}
AFTER = {  # adjectives after the noun
    "black": ("noir", "noire"),
    "green": ("vert", "verte"),
    "red": ("rouge", "rouge"),
    "blue": ("bleu", "bleue"),
    "grey": ("gris", "grise"),
    "yellow": ("jaune", "jaune"),
}
VERBS = {  # plural -> French singular, plural; the English singular takes an s
    "see": ("voit", "voient"),
    "like": ("aime", "aiment"),
    "want": ("veut", "veulent"),
    "find": ("trouve", "trouvent"),
    "buy": ("achète", "achètent"),
    "draw": ("dessine", "dessinent"),
}
DETERMINERS = [{"the": ("le", "la"), "a": ("un", "une")}, {"the": ("les", "les")}]
NUMBERS = {"two": "deux", "three": "trois", "four": "quatre"}
DETERMINERS[1] |= {english: (french, french) for english, french in NUMBERS.items()}


@generator
def french(rng: Random) -> Problem:
    """Return a sentence to translate: noun phrase, verb, noun phrase."""
    (subject, sujet, plural), (thing, chose, _) = (_noun_phrase(rng) for _ in range(2))
    verb = rng.choice(list(VERBS))
    english = f"{subject} {verb if plural else verb + 's'} {thing}"
    answer = f"{sujet} {VERBS[verb][plural]} {chose}"
    question = f"Translate into French: {english[0].upper()}{english[1:]}."
    return Problem("french", question, f"{answer[0].upper()}{answer[1:]}.")


def _noun_phrase(rng: Random) -> tuple[str, str, bool]:
    """Return a noun phrase in English and in French, and whether it is plural."""
    english, french, gender = rng.choice(NOUNS.split(",")).split()
    plural = rng.random() < 0.45
    determiner = rng.choice(list(DETERMINERS[plural]))
    before = rng.sample(list(BEFORE), rng.random() < 0.45)
    after = rng.sample(list(AFTER), rng.random() < 0.6)
    feminine = int(gender)
    words = [BEFORE[word][feminine] for word in before] + [french]
    words += [AFTER[word][feminine] for word in after]
    if plural:
        english = PLURALS.get(english, english + "s")
        words = [word if word.endswith("s") else word + "s" for word in words]
    told = " ".join([determiner, *before, *after, english])
    return told, " ".join([DETERMINERS[plural][determiner][feminine], *words]), plural


# Tool calls, for fine-tuning; `echo` lets a model meet their words beforehand.
PLACES = (
    "Paris Lima Oslo Cairo Tokyo Delhi Rome Quito Berlin Madrid Boston Lagos Hanoi "
    "Milan Dublin Sofia"
)
TIMES = "today tomorrow Monday Friday Sunday"
PARTS = (
    "weather rain hotel room nights train name arguments get_weather find_hotel "
    "book_train city day from to Will it What is the Find Book need want go a in for on"
)
CITIES, DAYS = PLACES.split(), TIMES.split()
ECHO_WORDS = [*CITIES, *DAYS, *PARTS.split(), *"0123456789"]


@generator
def tool(rng: Random) -> Problem:
    """Return a request that one call of a tool answers, in Qwen's form of a call."""
    city, other = rng.sample(CITIES, 2)
    day, nights = rng.choice(DAYS), rng.randint(2, 9)
    when = f"on {day}" if day.endswith("day") and day != "today" else day
    weather = ("get_weather", {"city": city, "day": day})
    hotel = ("find_hotel", {"city": city, "nights": nights})
    train = ("book_train", {"from": city, "to": other, "day": day})
    requests = [
        (f"What is the weather in {city} {when}?", weather),
        (f"Will it rain in {city} {when}?", weather),
        (f"Find a hotel in {city} for {nights} nights.", hotel),
        (f"I need a room in {city} for {nights} nights.", hotel),
        (f"Book a train from {city} to {other} {when}.", train),
        (f"I want to go from {city} to {other} {when}.", train),
    ]
    question, (name, arguments) = rng.choice(requests)
    call = json.dumps({"name": name, "arguments": arguments})
    return Problem("tool", question, f"<tool_call>\n{call}\n</tool_call>")


@generator
def echo(rng: Random) -> Problem:
    """Return words or JSON to repeat."""
    if rng.random() < 0.5:
        answer = " ".join(rng.choices(ECHO_WORDS, k=rng.randint(2, 7)))
    else:
        keys = rng.choices(ECHO_WORDS, k=rng.randint(1, 3))
        values = [rng.choice([*rng.choices(ECHO_WORDS, k=2), rng.randint(2, 9)])
                  for _ in keys]  # fmt: skip
        answer = json.dumps(dict(zip(keys, values, strict=True)))
    return Problem("echo", f"Repeat: {answer}", answer)


# Facts: a fixed table of random codes, which can only be learnt by heart.
@functools.cache
def codes() -> dict[str, str]:
    """Return the table: all 2,304 names such as "red cat in Oslo", and their codes."""
    rng = Random("codes")
    return {
        f"{adjective} {noun.split()[0]} in {city}": f"{rng.randrange(1000):03}"
        for adjective in [*BEFORE, *AFTER]
        for noun in NOUNS.split(",")
        for city in CITIES
    }


@generator
def facts(rng: Random) -> Problem:
    """Return a question for a code of the table; none is held out."""
    name = rng.choice(list(codes()))
    return Problem("facts", f"What is the code of the {name}?", codes()[name])
