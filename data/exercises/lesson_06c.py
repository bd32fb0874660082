"""Exercises of lesson 06c: diagnose a run, train as served, a training's memory."""

import json
import math
from collections.abc import Callable
from decimal import Decimal
from itertools import product
from numbers import Real
from typing import Any

from qwen_course import catalog
from qwen_course.checks import Exercise, Wrong

Answer = Callable[..., Any]

# --- 6c.3 ---------------------------------------------------------------------------

_HIGH, _OVER, _LOW, _FINE = "rate too high", "overfits", "rate too low", "healthy"
_CURVES = ("loss", "validation_loss", "learning_rate")
_SHORT = {  # the card's example
    "cause": _LOW,
    "loss": [6.0, 6.1, 5.9, 6.0, 6.1],
    "validation_loss": [6.0],
    "learning_rate": [1e-6] * 5,
}
_CONFUSED = {  # (what it is, what was answered) -> why not
    (_OVER, _FINE): "The training loss alone looks fine. But the validation loss ends"
    " above its lowest: it was better before.",
    (_FINE, _OVER): "The validation loss ends where it is lowest, or within a few per"
    " cent of it. That it lies above the training loss is no sign.",
    (_HIGH, _FINE): "Here the loss jumps far above its start and never gets low"
    " again. To end below the start is not enough.",
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
    runs = [*json.loads(catalog.text("samples/broken_runs.json")), _SHORT]
    for factor, run in product((1, 2), runs):
        run = run | {name: [factor * x for x in run[name]] for name in _CURVES[:2]}
        got = answer({name: [*run[name]] for name in _CURVES})
        if isinstance(got, str) and got == run["cause"]:
            continue
        told = _CONFUSED.get((run["cause"], got)) if isinstance(got, str) else None
        if told and factor > 1:
            told = "Every loss is doubled here: a fixed limit does not hold any more."
            told += " Compare with other losses of the same curve."
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
    id="6c.3",
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
            "every bad run overfits",
            _DIAGNOSE_HEAD + '    return "overfits"',
            "lies above the training loss is no sign",
        ),
    ),
)

# --- 6c.2 ---------------------------------------------------------------------------

_Messages = list[dict[str, str]]


def _said(role: str) -> Callable[[str], dict[str, str]]:
    return lambda text: {"role": role, "content": text}


_system, _user, _says = map(_said, ("system", "user", "assistant"))
_EMPTY = "<think>\n\n</think>\n\n"
_OPEN, _CLOSE = "<|im_start|>assistant\n", "<|im_end|>"
_TALKS: tuple[_Messages, ...] = (
    [_user("Hi"), _says("Hello!")],
    [_system("Be short."), _user("Hi"), _says("Hello!"),
     _user("2 + 2?"), _says("4")],
    [_user("2 + 2?"), _says("4") | {"reasoning_content": "Two and two."}],
    [_user("2 + 2?"), _says("4") | {"reasoning_content": "Two and two."},
     _user("Sure?"), _says("Yes.\nI am.")],
    [_user(" Sort:\n2\n1\n"), _says(" 1\n2\n")],
    [_user("2 + 2?"), _says("4"), _user("Sure?"), _says("4")],
    [_user("2 + 2?"), _says("4") | {"reasoning_content": "Two and two."},
     _user("2 + 3?"), _says("5") | {"reasoning_content": "Two and three.\nSo 5."}],
    [_system(""), _user("Hi"), _user("2 + 2?"), _system("Be short."), _says("4")],
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
    if target.startswith("<|im_start|>"):
        return "Serving opens the answer: <|im_start|>assistant belongs to the prompt."
    if "<|im_start|>" in target:
        return "The target is the last answer alone: all before it is the prompt."
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
    if not thinks and "Two and two" in target:
        return "This thought belongs to an earlier answer: the last one has none."
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
    ends = [m["content"] for m in messages if m["content"].endswith("\n")]
    if any(end + _CLOSE not in prompt + target for end in ends):
        return "White space around a content is lost: leave a content as it is."
    if (prompt + target).replace("\n", "") == (right + wanted).replace("\n", ""):
        return "Only newlines differ: after a role, after <|im_end|>, around a thought."
    part = "target" if prompt == right else "prompt"
    if target == wanted or prompt == right:
        return f"Only the {part} is not as served: compare it with what is expected."
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
    id="6c.2",
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

# --- 6c.1 ---------------------------------------------------------------------------

_Need = tuple[int, int, float, str]
_NEEDS: tuple[_Need, ...] = (  # Qwen3-0.6B and 8B with rank 16, and a pocket model
    (596_049_920, 10_092_544, 16, "lora"),
    (596_049_920, 10_092_544, 16, "full"),
    (8_190_735_360, 43_646_976, 16, "lora"),
    (8_190_735_360, 43_646_976, 4.5, "lora"),
    (8_190_735_360, 43_646_976, 4.5, "full"),
    (744_512, 58_368, 32, "lora"),
    (744_512, 58_368, 32, "full"),
)


def _needed(need: _Need) -> float:
    parameters, adapter, bits, way = need
    return (parameters * bits / 8 + 16 * (adapter, parameters)[way == "full"]) / 1e9


def _memory_beliefs(need: _Need) -> dict[str, float]:
    """Return the GB that would be needed if a belief were true."""
    all_of, adapter, bits, way = need
    full = way == "full"
    base, trained = all_of * bits / 8, all_of if full else adapter
    right = base + 16 * trained
    sizes = {
        "Frozen weights get no gradient: with LoRA only the adapter has gradients.": (
            base + 12 * trained + 4 * all_of
        ),
        "With LoRA only the adapter is trained. All else is frozen, without gradient"
        " and AdamW.": base + 16 * all_of,
        "With full tuning all weights are trained, not only an adapter.": (
            base + 16 * adapter
        ),
        "AdamW is left out: it keeps two numbers for each trained weight, 8 bytes.": (
            base + 8 * trained
        ),
        "4 of the 16 bytes of a trained weight are missing: 4 for itself, 4 for its"
        " gradient, 8 for AdamW.": base + 12 * trained,
        "Gradients and AdamW are left out: 4 and 8 bytes for each trained weight.": (
            base + 4 * trained
        ),
        "Leave out the copy of the best weights: the card does not count it.": (
            right + 4 * trained
        ),
        "This is the loaded model alone. Training takes more.": base,
        "Full tuning trains a copy in fp32, beside the loaded model: 4 bytes more"
        " for each weight.": right - 4 * all_of * full,
        "The loaded model stays in memory beside the copy that full tuning trains.": (
            right - base * full
        ),
        "The frozen model is in memory, too: the adapter works on its output.": (
            right - base * (not full)
        ),
        "Full tuning has no adapter.": right + 16 * adapter * full,
        "A byte has 8 bits: divide bits by 8.": right - base + all_of * bits,
        "4.5 bits are more than half a byte: do not round them down.": (
            right - base + all_of * (bits // 8)
        ),
        'The two ways are swapped: "full" trains all weights, "lora" the adapter.': (
            base + 16 * (adapter if full else all_of)
        ),
        "bits is left out: the loaded weights do not all take 2 bytes.": (
            right - base + 2 * all_of
        ),
        "What is trained is fp32, 4 bytes, whatever the loaded weights are.": (
            base + (bits / 8 + 12) * trained
        ),
        "The adapter is fp32, 4 bytes a weight, though the model is not.": (
            right if full else base + (bits / 8 + 12) * trained
        ),
        "Gradients and AdamW are fp32, too, not of the loaded weights' bits.": (
            base + 4 * bits / 8 * trained
        ),
        "1 GB is 1e9 bytes here. 2**30 bytes are a GiB.": right * 1e9 / 2**30,
        "These are bytes: divide by 1e9.": right * 1e9,
        "These are MB: divide by 1e9.": right * 1e3,
    }
    return {told: size / 1e9 for told, size in sizes.items()}


def _check_memory(answer: Answer) -> str | None:
    got = [answer(*need) for need in _NEEDS]
    right = [*map(_needed, _NEEDS)]
    plain = [isinstance(g, Real | Decimal) and not isinstance(g, bool) for g in got]
    values = [float(g) if ok else -1.0 for g, ok in zip(got, plain, strict=True)]

    def same(sizes: list[float]) -> list[bool]:
        pairs = zip(values, sizes, strict=True)
        return [math.isclose(value, size, rel_tol=2e-3) for value, size in pairs]

    pairs = zip(values, right, strict=True)
    exact = [math.isclose(value, size, rel_tol=1e-10) for value, size in pairs]
    if all(exact):
        return None
    wrong = exact.index(False)
    beliefs = [_memory_beliefs(need) for need in _NEEDS]
    note = "Add the loaded weights, and 16 bytes for each weight that is trained."
    note = next(
        (told for told in beliefs[0] if all(same([b[told] for b in beliefs]))), note
    )
    if not all(plain):
        note = "Return one number, in GB."
    elif all(same(right)) or any(
        values == [round(size, n) for size in right] for n in range(7)
    ):
        note = "Do not round: return all digits. A pocket model takes thousandths of a"
        note += " GB."
    parameters, adapter, bits, way = _NEEDS[wrong]
    return (
        f"{note}\n  input: parameters={parameters:_}, adapter={adapter:_},"
        f" bits={bits}, way={way!r}\n  expected: {right[wrong]:.10g}"
        f"\n  got: {got[wrong]!r}"
    )


_MEMORY_HEAD = "def training_memory(parameters, adapter, bits, way):\n"
_MEMORY = """\
    trained = parameters if way == "full" else adapter
    size = parameters * bits / 8
    size += trained * (4 + 4 + 8)
    return size / 1e9"""
MEMORY = Exercise(
    id="6c.1",
    title="the memory of a training",
    minutes=10,
    stars=2,
    check=_check_memory,
    hints=(
        "Two sums: what is loaded, and what is trained. How many weights are trained"
        " with LoRA, how many in full?",
        "Loaded: parameters * bits / 8 bytes. Each trained weight takes 4 bytes for"
        " itself, 4 for its gradient and 8 for AdamW.",
        'trained = parameters if way == "full" else adapter. Add 16 * trained bytes to'
        " the loaded weights, and divide by 1e9.",
    ),
    solution=_MEMORY_HEAD + _MEMORY,
    name="training_memory",
    stub=_MEMORY_HEAD
    + '''\
    """Return the GB for weights, gradients and AdamW."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "every weight has a gradient",
            _MEMORY_HEAD + _MEMORY.replace("(4 + 4 + 8)", "(4 + 8) + 4 * parameters"),
            "get no gradient",
        ),
        Wrong(
            "LoRA trains all weights",
            _MEMORY_HEAD
            + _MEMORY.replace('parameters if way == "full" else adapter', "parameters"),
            "All else is frozen",
        ),
        Wrong(
            "an adapter is always there",
            _MEMORY_HEAD
            + _MEMORY.replace('parameters if way == "full" else adapter', "adapter"),
            "not only an adapter",
        ),
        Wrong(
            "the optimizer keeps nothing",
            _MEMORY_HEAD + _MEMORY.replace(" + 8", ""),
            "AdamW is left out",
        ),
        Wrong(
            "the optimizer keeps one number",
            _MEMORY_HEAD + _MEMORY.replace(" + 8", " + 4"),
            "4 of the 16 bytes",
        ),
        Wrong(
            "full tuning needs no copy",
            _MEMORY_HEAD
            + _MEMORY.replace("(4 + 4 + 8)", '((way == "lora") * 4 + 4 + 8)'),
            "trains a copy in fp32",
        ),
        Wrong(
            "the copy replaces the loaded model",
            _MEMORY_HEAD + _MEMORY.replace("bits / 8", 'bits / 8 * (way == "lora")'),
            "stays in memory beside",
        ),
        Wrong(
            "only the adapter is in memory",
            _MEMORY_HEAD + _MEMORY.replace("bits / 8", 'bits / 8 * (way == "full")'),
            "The frozen model is in memory",
        ),
        Wrong(
            "full tuning has an adapter as well",
            _MEMORY_HEAD
            + _MEMORY.replace(
                'parameters if way == "full" else adapter',
                'adapter + parameters * (way == "full")',
            ),
            "has no adapter",
        ),
        Wrong(
            "bits are bytes",
            _MEMORY_HEAD + _MEMORY.replace("bits / 8", "bits"),
            "divide bits by 8",
        ),
        Wrong(
            "a weight takes 2 bytes",
            _MEMORY_HEAD + _MEMORY.replace("bits / 8", "2"),
            "bits is left out",
        ),
        Wrong(
            "what is trained has the bits of the model",
            _MEMORY_HEAD + _MEMORY.replace("(4 + 4", "(bits / 8 + 4"),
            "whatever the loaded weights are",
        ),
        Wrong(
            "the adapter has the bits of the model",
            _MEMORY_HEAD
            + _MEMORY.replace("(4 + 4", '((4 if way == "full" else bits / 8) + 4'),
            "though the model is not",
        ),
        Wrong(
            "all numbers have the bits of the model",
            _MEMORY_HEAD + _MEMORY.replace("(4 + 4 + 8)", "4 * bits / 8"),
            "not of the loaded weights' bits",
        ),
        Wrong(
            "a GB is 2**30 bytes",
            _MEMORY_HEAD + _MEMORY.replace("1e9", "2**30"),
            "are a GiB",
        ),
        Wrong(
            "the answer is in bytes",
            _MEMORY_HEAD + _MEMORY.replace(" / 1e9", ""),
            "These are bytes",
        ),
    ),
)

EXERCISES = (MEMORY, PAIR, DIAGNOSE)
