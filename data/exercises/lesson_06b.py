"""Exercises of lesson 06b: diagnose a run, clean the data, train what is served."""

import json
from collections.abc import Callable
from typing import Any

from qwen_course import catalog
from qwen_course.checks import Exercise, Wrong

Answer = Callable[..., Any]

# --- 6b.1 ---------------------------------------------------------------------------

_HIGH, _OVER, _LOW, _FINE = "rate too high", "overfits", "rate too low", "healthy"
_CURVES = ("loss", "validation_loss", "learning_rate")
_CONFUSED = {  # (what it is, what was answered) -> why not
    (_OVER, _FINE): "The training loss alone looks fine. But the validation loss ends"
    " above its lowest: it was better before.",
    (_FINE, _OVER): "The validation loss ends where it is lowest, or within a few per"
    " cent of it. That it lies above the training loss is no sign.",
    (_HIGH, _FINE): "Here the loss jumps far above its start and never gets low. To end"
    " below the start is not enough.",
    (_HIGH, _LOW): "Here something moves: the loss jumps far above its start. Where the"
    " rate is too low, nothing does.",
    (_HIGH, _OVER): "The training loss is high, too. An overfitted model has learnt its"
    " examples by heart.",
    (_FINE, _HIGH): "Here the loss falls nearly all the way. Single batches differ, so"
    " small steps up are normal; and what a rate does depends on alpha.",
    (
        _LOW,
        _HIGH,
    ): "Here the loss only wobbles about its start: batches differ. It never jumps.",
    (_LOW, _FINE): "Here the loss ends where it began: nothing is learnt. What a rate"
    " does depends on alpha.",
    (_FINE, _LOW): "Here the loss falls to a fraction of its start. Compare with the"
    " start: how low a loss can get depends on the task.",
    (_OVER, _HIGH): "The loss falls without a jump. It is the validation loss that"
    " rises again.",
    (_OVER, _LOW): "The training loss falls to almost nothing here.",
    (_LOW, _OVER): "Neither loss moves here.",
}


def _check_diagnosis(answer: Answer) -> str | None:
    for run in json.loads(catalog.text("samples/broken_runs.json")):
        got = answer({name: [*run[name]] for name in _CURVES})
        if isinstance(got, str) and got == run["cause"]:
            continue
        told = _CONFUSED.get((run["cause"], got)) if isinstance(got, str) else None
        names = ", ".join(f'"{name}"' for name in (_HIGH, _OVER, _LOW, _FINE))
        parts = []
        for name in _CURVES[:2]:
            values = run[name]
            ends = f"{values[0]:.3g} ... {values[-1]:.3g}"
            parts.append(f"{name} {ends} ({min(values):.3g} to {max(values):.3g})")
        return (
            f"{told or f'Return one of {names}.'}\n  input: {'; '.join(parts)};"
            f" learning_rate up to {max(run['learning_rate']):.3g}"
            f"\n  expected: {run['cause']!r}\n  got: {got!r}"
        )
    return None


_DIAGNOSE_HEAD = "def diagnose(curve):\n"
_BOTH = '    loss, held = curve["loss"], curve["validation_loss"]\n'
_RULES = (
    "max(loss) > 1.5 * loss[0]",
    "held[-1] > 1.1 * min(held)",
    "sum(loss[-5:]) / 5 > 0.9 * loss[0]",
)


def _diagnose(
    high: str = _RULES[0], over: str = _RULES[1], low: str = _RULES[2]
) -> str:
    rules = ((high, _HIGH), (over, _OVER), (low, _LOW))
    lines = [
        f'    if {rule}:\n        return "{name}"\n' for rule, name in rules if rule
    ]
    return _DIAGNOSE_HEAD + _BOTH + "".join(lines) + '    return "healthy"'


DIAGNOSE = Exercise(
    id="6b.1",
    title="diagnose the run",
    minutes=15,
    stars=3,
    check=_check_diagnosis,
    hints=(
        "What does each run do that none of the others does? One jumps, one never"
        " moves, in one the two losses part.",
        "Compare with the first loss, not with a fixed number. Allow for noise: take"
        " the mean of some steps, and a factor such as 1.1.",
        "max(loss) far above loss[0]: too high. held[-1] > 1.1 * min(held): overfits."
        " The mean of the last losses still near loss[0]: too low. Else healthy.",
    ),
    solution=_diagnose(),
    name="diagnose",
    stub=_DIAGNOSE_HEAD
    + '''\
    """Return what a run has: see the four names above."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "a low training loss is healthy",
            _diagnose(over=""),
            "The training loss alone",
        ),
        Wrong(
            "overfitting ends above the first validation loss",
            _diagnose(over="held[-1] > 1.1 * held[0]"),
            "The training loss alone",
        ),
        Wrong(
            "a gap is overfitting",
            _diagnose(over="held[-1] > 2 * loss[-1]"),
            "lies above the training loss is no sign",
        ),
        Wrong(
            "any rise of validation is overfitting",
            _diagnose(over="held[-1] > min(held)"),
            "lies above the training loss is no sign",
        ),
        Wrong(
            "the rate itself tells",
            _DIAGNOSE_HEAD
            + _BOTH
            + """\
    rate = max(curve["learning_rate"])
    if rate > 0.05:
        return "rate too high"
    if rate < 5e-5:
        return "rate too low"
    return "overfits" if held[-1] > 1.1 * min(held) else "healthy\"""",
            "small steps up are normal",
        ),
        Wrong(
            "any step up is a jump",
            _diagnose(high="any(b > a for a, b in zip(loss, loss[1:]))"),
            "small steps up are normal",
        ),
        Wrong(
            "too high is above the start at the end",
            _diagnose(high="loss[-1] > loss[0]"),
            "To end below the start is not enough",
        ),
        Wrong(
            "a loss that falls is healthy",
            _diagnose(low="loss[-1] > loss[0]"),
            "ends where it began",
        ),
        Wrong(
            "a loss above 1 has not moved",
            _diagnose(low="loss[-1] > 1"),
            "falls to a fraction of its start",
        ),
        Wrong(
            "a run that is still high has not moved",
            _diagnose(high="", low="loss[-1] > 0.5 * loss[0]"),
            "Here something moves",
        ),
        Wrong(
            "a rising validation loss comes first",
            _DIAGNOSE_HEAD + '    return "overfits"',
            "lies above the training loss is no sign",
        ),
    ),
)

# --- 6b.2 ---------------------------------------------------------------------------

_Messages = list[dict[str, str]]
_ROLES = ("system", "user", "assistant", "tool")
_REASONS = ("role", "no answer", "empty", "too long", "leak")


def _said(role: str) -> Callable[[str], dict[str, str]]:
    return lambda text: {"role": role, "content": text}


_system, _user, _says, _tool = map(_said, ("system", "user", "assistant", "tool"))


_TESTS = ["What is 2 + 2?", "Name a river."]
_DATA: tuple[tuple[list[_Messages], list[str], int, str], ...] = (
    (
        [
            [_user("Hi"), _says("Hello!")],
            [{"role": "human", "content": "Hi"}, _says("Hello!")],
            [_user("Are you there?")],
            [_user("2 + 3?"), _says("I count."), _tool("5"), _says("5")],
        ],
        _TESTS, 20,
        "Row 1 has a role that the template does not know; row 2 has no answer; row 3"
        " is right: results of tools have the role tool.",
    ),
    (
        [[_user("a"), _says("")], [_user("a"), _says(" \n")], [_user("a"), _says("0")]],
        _TESTS, 20,
        "Spaces and newlines alone are an empty answer, too.",
    ),
    (
        [
            [_user("one two three"), _says("four five")],
            [_user("one two three"), _says("four five six")],
            [_user("one"), _says("internationalisation telecommunication")],
            [_system("one two three four"), _user("a"), _says("b")],
        ],
        _TESTS, 5,
        "Count the words of all messages of a row, the system prompt's too. Exactly"
        " `longest` words are allowed.",
    ),
    (
        [
            [_user("What is 2 + 2?"), _says("4")],
            [_user(" what IS  2 + 2?\n"), _says("4")],
            [_system("Be short."), _user("Name a river."),
             _says("Rhine")],
            [_user("Hi"), _says("Hello!"), _user("name a river."), _says("Nile")],
            [_user("Name a river. It must be in Asia."), _says("Indus")],
            [_user("Ask me something."), _says("Name a river.")],
        ],
        _TESTS, 20,
        "A row leaks if any user's message has the words of a test, all of them and no"
        " others. Compare in lower case, split at spaces.",
    ),
    (
        [
            [{"role": "human", "content": "4"}, _user("Name a river.")],
            [_user("Name a river.")],
            [_user("Name a river."), _says(" ")],
            [_user("Name a river."), _says("Nile or Rhine or Indus")],
        ],
        _TESTS, 6,
        "If a row has several faults, the first of the list counts: role, no answer,"
        " empty, too long, leak.",
    ),
    (
        [[_user("Hi"), _says("Hello!"), _user("Bye")], [_user("Hi"), _says("Hello!")]],
        [], 20,
        "Row 0 has an answer, but not at the end: its last message is the user's.",
    ),
    (
        [[_user("Hi"), _says(""), _user("Hello?"), _says("Hello!")]],
        [], 20,
        "Row 0: every answer of the assistant is learnt, not only the last. The first"
        " one is empty.",
    ),
)  # fmt: skip


def _faults(messages: _Messages, tests: list[str], longest: int) -> list[str]:
    """Return all reasons to leave a row out, the one that counts first."""
    words = [m["content"].lower().split() for m in messages]
    said = [m["content"].strip() for m in messages if m["role"] == "assistant"]
    asked = [w for m, w in zip(messages, words, strict=True) if m["role"] == "user"]
    found = (
        any(m["role"] not in _ROLES for m in messages),
        messages[-1]["role"] != "assistant",
        not all(said),
        sum(map(len, words)) > longest,
        any(test.lower().split() in asked for test in tests),
    )
    return [reason for reason, is_so in zip(_REASONS, found, strict=True) if is_so]


def _check_rows(answer: Answer) -> str | None:
    for rows, tests, longest, note in _DATA:
        faults = [_faults(row, tests, longest) for row in rows]
        right = {i: found[0] for i, found in enumerate(faults) if found}
        got = answer([[{**m} for m in row] for row in rows], [*tests], longest)
        if isinstance(got, dict) and got == right:
            continue
        if not isinstance(got, dict):
            note = "Return a dictionary: the number of a row -> the reason."
        elif got == {i + 1: reason for i, reason in right.items()}:
            note = "Rows count from 0."
        elif any(reason not in _REASONS for reason in got.values()):
            note = 'A reason is "role", "no answer", "empty", "too long" or "leak".'
        return (
            f"{note}\n  input: rows={rows}, tests={tests}, longest={longest}"
            f"\n  expected: {right}\n  got: {got!r}"
        )
    return None


_ROWS_HEAD = "def bad_rows(rows, tests, longest):\n"
_ROWS = """\
    tests = [test.lower().split() for test in tests]
    bad = {}
    for i, row in enumerate(rows):
        words = [m["content"].lower().split() for m in row]
        roles = [m["role"] for m in row]
        pairs = list(zip(roles, words))
        if not set(roles) <= {"system", "user", "assistant", "tool"}:
            bad[i] = "role"
        elif roles[-1] != "assistant":
            bad[i] = "no answer"
        elif ("assistant", []) in pairs:
            bad[i] = "empty"
        elif sum(map(len, words)) > longest:
            bad[i] = "too long"
        elif any(("user", test) in pairs for test in tests):
            bad[i] = "leak"
    return bad"""
ROWS = Exercise(
    id="6b.2",
    title="clean the data",
    minutes=15,
    stars=2,
    check=_check_rows,
    hints=(
        "Go through the rows with enumerate, and ask for one fault after the other, in"
        " the order of the list: if, elif, elif ...",
        "text.split() gives the words, without any spaces: an empty list for a text of"
        " spaces. Its length is the number of words.",
        "Two texts ask the same if a.lower().split() == b.lower().split(). Compare each"
        " user's message with each test.",
    ),
    solution=_ROWS_HEAD + _ROWS,
    name="bad_rows",
    stub=_ROWS_HEAD
    + '''\
    """Return the reason for each bad row, by its number."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "any role will do",
            _ROWS_HEAD + _ROWS.replace("not set(roles) <= {", "not set(roles) and {"),
            "does not know",
        ),
        Wrong(
            "tools have no role",
            _ROWS_HEAD + _ROWS.replace(', "tool"}', "}"),
            "does not know",
        ),
        Wrong(
            "a row with an answer somewhere has an answer",
            _ROWS_HEAD
            + _ROWS.replace('roles[-1] != "assistant"', '"assistant" not in roles'),
            "but not at the end",
        ),
        Wrong(
            "an empty answer has no characters",
            _ROWS_HEAD
            + _ROWS.replace(
                '("assistant", []) in pairs',
                'any(m == {"role": "assistant", "content": ""} for m in row)',
            ),
            "Spaces and newlines alone",
        ),
        Wrong(
            "only the last answer is learnt",
            _ROWS_HEAD + _ROWS.replace('("assistant", []) in pairs', "not words[-1]"),
            "not only the last",
        ),
        Wrong(
            "only the answer has a length",
            _ROWS_HEAD + _ROWS.replace("sum(map(len, words))", "len(words[-1])"),
            "Count the words of all",
        ),
        Wrong(
            "characters are words",
            _ROWS_HEAD
            + _ROWS.replace(
                "sum(map(len, words))", 'sum(len(m["content"]) for m in row)'
            ),
            "Count the words of all",
        ),
        Wrong(
            "the limit itself is too long",
            _ROWS_HEAD + _ROWS.replace("> longest", ">= longest"),
            "Count the words of all",
        ),
        Wrong(
            "another case is another question",
            _ROWS_HEAD + _ROWS.replace(".lower().split()", ".split()"),
            "has the words of a test",
        ),
        Wrong(
            "a space more is another question",
            _ROWS_HEAD
            + _ROWS.replace("[test.lower().split() for", "[test.lower() for").replace(
                'any(("user", test) in pairs for test in tests)',
                'any(m["content"].lower() in tests for m in row)',
            ),
            "has the words of a test",
        ),
        Wrong(
            "the first message is the question",
            _ROWS_HEAD
            + _ROWS.replace('("user", test) in pairs', 'pairs[0] == ("user", test)'),
            "has the words of a test",
        ),
        Wrong(
            "a question within another is the same",
            _ROWS_HEAD
            + _ROWS.replace(
                '("user", test) in pairs',
                '" ".join(test) in " ".join(words[-2])',
            ),
            "has the words of a test",
        ),
        Wrong(
            "the last fault counts",
            _ROWS_HEAD + _ROWS.replace("elif", "if"),
            "the first of the list counts",
        ),
        Wrong(
            "rows count from 1",
            _ROWS_HEAD + _ROWS.replace("enumerate(rows)", "enumerate(rows, 1)"),
            "Rows count from 0",
        ),
        Wrong(
            "the numbers are enough",
            _ROWS_HEAD + _ROWS.replace("return bad", "return list(bad)"),
            "Return a dictionary",
        ),
    ),
)

# --- 6b.3 ---------------------------------------------------------------------------

_EMPTY = "<think>\n\n</think>\n\n"
_OPEN, _CLOSE = "<|im_start|>assistant\n", "<|im_end|>"
_TALKS: tuple[_Messages, ...] = (
    [_user("Hi"), _says("Hello!")],
    [_system("Be short."), _user("Hi"), _says("Hello!"),
     _user("2 + 2?"), _says("4")],
    [_user("2 + 2?"), _says("4") | {"reasoning_content": "Two and two."}],
    [_user("2 + 2?"), _says("4") | {"reasoning_content": "Two and two."},
     _user("Sure?"), _says("Yes.\nI am.")],
)  # fmt: skip


def _turn(message: dict[str, str]) -> str:
    return f"<|im_start|>{message['role']}\n{message['content']}{_CLOSE}\n"


def _as_served(messages: _Messages) -> tuple[str, str]:
    """Return prompt and target of the last answer, as Qwen3's template has them."""
    *before, last = messages
    prompt, target = "".join(map(_turn, before)) + _OPEN, last["content"] + _CLOSE
    if thought := last.get("reasoning_content"):
        return prompt, f"<think>\n{thought}\n</think>\n\n{target}"
    return prompt + _EMPTY, target


def _pair_problem(prompt: str, target: str, messages: _Messages) -> str:
    """Return what is wrong with a prompt and a target that are not as served."""
    right, wanted = _as_served(messages)
    last, thinks = messages[-1], "reasoning_content" in messages[-1]
    if (prompt, target) == (wanted, right):
        return "The prompt comes first, then the target."
    if not target.rstrip("\n").endswith(_CLOSE):
        return "The target lacks <|im_end|>: so the model never learns to stop."
    if target.endswith("\n"):
        return "After <|im_end|> serving has stopped: no newline in the target."
    if "You are" in prompt:
        return "Qwen3 has no system prompt of its own. Only Qwen2.5 adds one."
    if (prompt + target).count("<|im_start|>") > len(messages):
        return "The answer stands in the prompt already, or a turn is there twice."
    if (prompt + target).count("<|im_start|>") < len(messages):
        return (
            "Turns are missing: all messages before the answer are in the prompt,"
            " and <|im_start|>assistant after them."
        )
    if not thinks and target.startswith("<think>"):
        return "With the empty thought in the target, the model learns not to think."
    if not thinks and "<think>" not in prompt[prompt.rfind("<|im_start|>") :]:
        return "Serving without thinking sends an empty thought: it is missing."
    if thinks and "<think>" in prompt[prompt.rfind("<|im_start|>") :]:
        return "This answer has a thought, which the model must write: not the prompt."
    if thinks and "Two" not in target:
        return "The thought is missing in the target."
    if "<think>" in prompt[: prompt.rfind("<|im_start|>")]:
        return "Earlier turns carry no thought, not even an empty one."
    if (prompt + target).replace("\n", "") == (right + wanted).replace("\n", ""):
        return "Only newlines differ: after a role, after <|im_end|>, around a thought."
    return f"The answer {last['content']!r} is the target, all before it the prompt."


def _check_pair(answer: Answer) -> str | None:
    for messages in _TALKS:
        right = _as_served(messages)
        got = answer([{**message} for message in messages])
        pair = [*got] if isinstance(got, tuple | list) and len(got) == 2 else []
        if pair and all(isinstance(part, str) for part in pair):
            if pair == [*right]:
                continue
            note = _pair_problem(pair[0], pair[1], messages)
        else:
            note = "Return two texts: prompt, target."
        return f"{note}\n  input: {messages}\n  expected: {right}\n  got: {got!r}"
    return None


_PAIR_HEAD = "def prompt_and_target(messages):\n"
_PAIR = """\
    *before, last = messages
    prompt = ""
    for m in before:
        prompt += f"<|im_start|>{m['role']}\\n{m['content']}<|im_end|>\\n"
    prompt += "<|im_start|>assistant\\n"
    target = last["content"] + "<|im_end|>"
    thought = last.get("reasoning_content")
    if thought:
        target = f"<think>\\n{thought}\\n</think>\\n\\n{target}"
    else:
        prompt += "<think>\\n\\n</think>\\n\\n"
    return prompt, target"""
PAIR = Exercise(
    id="6b.3",
    title="trained as served",
    minutes=12,
    stars=2,
    check=_check_pair,
    hints=(
        "Begin with the messages before the answer: each is <|im_start|>, its role, a"
        " newline, its content, <|im_end|>, a newline. Then the assistant begins.",
        "Ask of each piece: who writes it when the model is served? The empty thought"
        " is sent by the server. A real thought and <|im_end|> are the model's.",
        'The prompt ends with "<|im_start|>assistant\\n", and with'
        ' "<think>\\n\\n</think>\\n\\n" if the answer has no thought. Else the target'
        ' begins with "<think>\\n" + thought + "\\n</think>\\n\\n".',
    ),
    solution=_PAIR_HEAD + _PAIR,
    name="prompt_and_target",
    stub=_PAIR_HEAD
    + '''\
    """Return what serving sends, and what the model must write."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "the model writes the empty thought",
            _PAIR_HEAD
            + _PAIR.replace('prompt += "<think>', 'target = "<think>').replace(
                '</think>\\n\\n"\n', '</think>\\n\\n" + target\n'
            ),
            "learns not to think",
        ),
        Wrong(
            "without a thought there is no block",
            _PAIR_HEAD + _PAIR.replace('<think>\\n\\n</think>\\n\\n"', '"'),
            "it is missing",
        ),
        Wrong(
            "the end of the turn is no text",
            _PAIR_HEAD
            + _PAIR.replace('last["content"] + "<|im_end|>"', 'last["content"]'),
            "never learns to stop",
        ),
        Wrong(
            "a turn ends with a newline",
            _PAIR_HEAD + _PAIR.replace('+ "<|im_end|>"', '+ "<|im_end|>\\n"'),
            "serving has stopped",
        ),
        Wrong(
            "the role needs no newline",
            _PAIR_HEAD + _PAIR.replace('assistant\\n"', 'assistant"'),
            "Only newlines differ",
        ),
        Wrong(
            "turns need no newline between them",
            _PAIR_HEAD + _PAIR.replace('<|im_end|>\\n"', '<|im_end|>"'),
            "Only newlines differ",
        ),
        Wrong(
            "all answers have an empty thought",
            _PAIR_HEAD
            + _PAIR.replace(
                "        prompt += f\"<|im_start|>{m['role']}\\n{m",
                '        empty = "<think>\\n\\n</think>\\n\\n"\n'
                '        empty = empty if m["role"] == "assistant" else ""\n'
                "        prompt += f\"<|im_start|>{m['role']}\\n{empty}{m",
            ),
            "Earlier turns carry no thought",
        ),
        Wrong(
            "earlier thoughts stay",
            _PAIR_HEAD
            + _PAIR.replace(
                "        prompt += f\"<|im_start|>{m['role']}\\n{m",
                '        past = m.get("reasoning_content")\n'
                '        past = f"<think>\\n{past}\\n</think>\\n\\n" if past else ""\n'
                "        prompt += f\"<|im_start|>{m['role']}\\n{past}{m",
            ),
            "Earlier turns carry no thought",
        ),
        Wrong(
            "the server sends the thought",
            _PAIR_HEAD
            + _PAIR.replace(
                'target = f"<think>\\n{thought}\\n</think>\\n\\n{target}"',
                'prompt += f"<think>\\n{thought}\\n</think>\\n\\n"',
            ),
            "which the model must write",
        ),
        Wrong(
            "no answer has a thought",
            _PAIR_HEAD + _PAIR.replace('last.get("reasoning_content")', "None"),
            "which the model must write",
        ),
        Wrong(
            "Qwen always has a system prompt",
            _PAIR_HEAD
            + _PAIR.replace(
                'prompt = ""',
                'prompt = "<|im_start|>system\\nYou are a helpful assistant.'
                '<|im_end|>\\n"',
            ),
            "Only Qwen2.5 adds one",
        ),
        Wrong(
            "the last question is enough",
            _PAIR_HEAD + _PAIR.replace("in before:", "in before[-1:]:"),
            "Turns are missing",
        ),
        Wrong(
            "the prompt is the whole text",
            _PAIR_HEAD + _PAIR.replace("in before:", "in messages:"),
            "stands in the prompt already",
        ),
    ),
)

EXERCISES = (DIAGNOSE, ROWS, PAIR)
