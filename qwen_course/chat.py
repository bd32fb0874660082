"""What a model reads and writes: messages, prompts, templates, tokens, thinking.

Works on any tokenizer with a ChatML template, which is always the tokenizer's own. It
knows no model, loads nothing and never executes what a model wrote.
"""

import contextlib
import difflib
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from qwen_course import catalog
from qwen_course.errors import CourseError, MalformedMessages

Message = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool")
DEEPEST = 100  # levels of a message


def _map_text(change: Callable[[str], Any], value: Any, depth: int = 0) -> Any:
    """Return a nested value with every string changed, keys of dicts included."""
    if depth > DEEPEST:
        rule = f"A message or a schema is nested deeper than {DEEPEST} levels."
        raise MalformedMessages(rule, "Make it flatter.")
    if isinstance(value, dict):
        keys = [change(key) if isinstance(key, str) else key for key in value]
        values = _map_text(change, [*value.values()], depth)
        return dict(zip(keys, values, strict=True))
    if isinstance(value, (list, tuple)):
        return [_map_text(change, item, depth + 1) for item in value]
    return change(value) if isinstance(value, str) else value


def validate(messages: Any) -> None:
    """Return nothing, or raise MalformedMessages: which message, field, rule, value."""
    index = -1

    def need(holds: object, field: str, rule: str, value: Any) -> None:
        if not holds:
            place = f"Message {index}, field {field!r}" if index >= 0 else "Messages"
            got = f"got {type(value).__name__} {value!r:.60}"
            hint = 'A conversation looks like [{"role": "user", "content": "Hello"}].'
            raise MalformedMessages(f"{place} must be {rule}; {got}.", hint)

    need(isinstance(messages, list) and messages, "", "a list of one or more", messages)
    for index, message in enumerate(messages):  # noqa: B007 (`need` reads the index)
        need(isinstance(message, dict), "role", "in a dict", message)
        role, calls, content = map(message.get, ("role", "tool_calls", "content"))
        if role not in ROLES:
            near = difflib.get_close_matches(str(role), ROLES, 1, 0)
            rule = f"one of {', '.join(ROLES)} (nearest {near[0]!r})"
            need(False, "role", rule, role)
        may_call = isinstance(calls, list) and role == "assistant" or calls is None
        need(may_call, "tool_calls", "a list, in an assistant message", calls)
        for number, call in enumerate(calls or []):
            at = f"tool_calls[{number}]"
            call = call.get("function", call) if isinstance(call, dict) else call
            need(isinstance(call, dict), at, "a dict with name and arguments", call)
            name, given = map(call.get, ("name", "arguments"))
            need(isinstance(name, str), f"{at}.name", "a str", name)
            need(isinstance(given, dict | str), f"{at}.arguments", "a dict", given)
        is_text = isinstance(content, str | list) or content is None and calls
        need(is_text, "content", 'a str ("" for an empty text)', content)
        for number, part in enumerate(content if isinstance(content, list) else []):
            kind = part.get("type") if isinstance(part, dict) else None
            text = part.get("text") if kind == "text" else kind
            need(isinstance(text, str), f"content[{number}]", "a part with text", part)
        thought = message.get("reasoning_content")
        need(isinstance(thought, str | None), "reasoning_content", "a str", thought)
        for field, value in message.items():
            texts = list[str]()
            _map_text(texts.append, value)
            whole = not re.search(r"[\ud800-\udfff]", "".join(texts))
            need(whole, field, "free of lone surrogates (decode it as UTF-8)", value)


def with_dicts(message: Message, template: str = "") -> Message:
    """Return a message whose calls have dicts as arguments, not JSON as the API sends.

    Qwen2.5's template would put a text into quotes once more, Qwen3.5's refuses it.
    Where the `template` takes texts too, as Qwen3's, only an empty one is changed.
    """
    both = "arguments is string" in template
    calls = _map_text(str, message.get("tool_calls"))
    for call in calls or []:
        call = call.get("function", call)
        if isinstance(text := call["arguments"], str):
            given = {} if not text.strip() else None if both else _value(text)
            if isinstance(given, dict):  # else text it stays
                call["arguments"] = given
    return message | {"tool_calls": calls} if calls else message


def render(
    tokenizer: Any, messages: list[Message], tools: Sequence[Any] | None = None,
    thinking: bool | None = None, add_generation_prompt: bool = True, **options: Any,
) -> str:  # fmt: skip
    """Return the text that the tokenizer's own template makes of the messages.

    Args:
        tools: JSON schemas, or functions with type hints and Google docstrings.
        thinking: goes to the template as `enable_thinking`; None is its own default.
        options: `chat_template` or switches of one, such as `reasoning_effort="low"`.
    """
    validate(messages)
    template = str(options.get("chat_template") or tokenizer.chat_template)
    messages = [with_dicts(message, template) for message in messages]
    options |= {} if thinking is None else {"enable_thinking": thinking}
    options |= {"add_generation_prompt": add_generation_prompt, "tools": tools}
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False, **options))
        text.encode()  # a schema can hold a lone surrogate too
    except Exception as error:  # a template is code: it can raise anything
        rule = f"The chat template refuses this conversation: {error}"
        raise CourseError(rule, "Change what it names.") from error
    for index, message in enumerate(messages):
        parts = message.get("content")
        for part in parts if isinstance(parts, list) else ():
            kind, words = part["type"], part.get("text", "").rpartition("</think>")[2]
            lost = kind != "text" and kind not in template or str(parts) in text
            if lost or words.strip() not in text:  # Qwen3 does so in silence
                rule = f"Message {index}, field 'content': the template drops lists."
                raise MalformedMessages(rule, "Join the texts to one str.")
    return text


def encode(
    tokenizer: Any, messages: list[Message], tools: Sequence[Any] | None = None,
    thinking: bool | None = None, add_generation_prompt: bool = True, **options: Any,
) -> list[int]:  # fmt: skip
    """Return the ids of `render`, in which only the template writes control tokens.

    The messages are rendered again with each letter of the control tokens masked by
    an unused character. What still reads as a control token is the template's; all
    text between is unmasked and encoded without control tokens. So no string of a
    message or schema can forge one or steer the template by one, and honest text gives
    the template's own ids. In the content of an assistant `<think>` and `</think>`
    keep their meaning. This stops forged turns, not injection by plain words.
    """
    from tokenizers import Tokenizer
    from transformers.utils import get_json_schema

    rest = (thinking, add_generation_prompt)
    tools = [*tools] if isinstance(tools, Iterator) else tools  # it is read twice
    real = render(tokenizer, messages, tools, *rest, **options)
    tools = [get_json_schema(tool) if callable(tool) else tool for tool in tools or []]
    control = tokenizer.get_added_vocab()
    longest_first = sorted(map(re.escape, control), key=len, reverse=True)
    find = re.compile(f"({'|'.join(longest_first) or '(?!)'})")
    used = {*real}
    _map_text(used.update, [messages, tools])
    unused = (c for c in map(chr, range(0x40000, 0x110000)) if c not in used)
    masks = {c: next(unused) for c in {*"".join(control)} - {*' \t\r\n"\\'}}
    hide, show = str.maketrans(masks), str.maketrans({m: c for c, m in masks.items()})
    names = {*re.findall(r"\w+", " ".join(control))} - {*ROLES}

    def mask(text: str) -> str:
        # A template looks up single words ("role", "string"), but Qwen3-Coder's writes
        # "<" + key of a schema + ">" too: the name in a control token is masked.
        known = text.isidentifier() and text not in names
        return text if known else text.translate(hide)

    def mask_answer(text: str) -> str:
        pieces = re.split("(</?think>)", text)  # the odd ones are the tags
        return "".join(p if n % 2 else mask(p) for n, p in enumerate(pieces))

    template = str(options.get("chat_template") or tokenizer.chat_template)
    # Arguments become dicts first: a masked `true` would be no JSON.
    messages = [with_dicts(message, template) for message in messages]
    masked = [_map_text(mask, message) for message in messages]
    for shown, message in zip(masked, messages, strict=True):
        if message["role"] == "assistant" and "content" in message:
            shown["content"] = _map_text(mask_answer, message["content"])
    text = render(tokenizer, masked, _map_text(mask, tools), *rest, **options)
    pieces = find.split(text)  # the odd ones are the template's control tokens
    if text.translate(show) != real and len(pieces) == len(find.split(real)):
        rule = "This template decides by the words of a message; encode needs one that"
        raise CourseError(f"{rule} does not.", "Use a template of the Qwen family.")
    ids: list[int] = []
    whole = tokenizer.backend_tokenizer
    plain = Tokenizer(whole.model)  # the same, but it knows no control tokens
    plain.normalizer, plain.pre_tokenizer = whole.normalizer, whole.pre_tokenizer
    for number, piece in enumerate(pieces):
        found = [] if number % 2 else plain.encode(piece.translate(show)).ids
        if not {*control.values()}.isdisjoint(found):
            raise CourseError("This tokenizer makes control tokens of plain text.")
        ids += [control[piece]] if number % 2 else found
    return ids


@dataclass(frozen=True)
class TokenRow:
    """One token: its id, readable text, whether it is a control token, its author."""

    id: int
    text: str
    special: bool
    author: str


_NEXT = {("<tool_response>", "user"): "tool", ("</tool_response>", "tool"): "user"}


def token_table(tokenizer: Any, text: str | Sequence[int]) -> list[TokenRow]:
    r"""Return one row per token of a text, or of ids such as those of `encode`.

    The author is the one whom the model takes for it: "template" for control tokens,
    the role line after `<|im_start|>` and what stands between turns, else the role of
    the turn; "tool" between `<tool_response>` tokens; "user" where no turn is marked.
    Bytes that make no whole character are shown as `\xe4`, a line break as `\n`.
    """
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    if isinstance(text, str):
        text = tokenizer.encode(text, add_special_tokens=False)
    try:
        ids = [int(number) for number in text]
    except (TypeError, ValueError):
        got = f"got {type(text).__name__} {text!r:.60}"
        raise CourseError(f"The table needs one text or list of ids; {got}.") from None
    byte_of = {char: bytes([byte]) for byte, char in bytes_to_unicode().items()}
    control = {number: token for token, number in tokenizer.get_added_vocab().items()}
    marked = any(control.get(number) == "<|im_start|>" for number in ids)
    turn, rows, role_line = "template" if marked else "user", [], None
    for number in ids:
        name = control.get(number)
        token = name or (number >= 0 and tokenizer.convert_ids_to_tokens(number))
        token = token or f"[{number}]"  # no such entry: a padded row, a masked label
        raw = b"".join(byte_of.get(char) or char.encode() for char in token)
        token = raw.decode("utf-8", "backslashreplace")
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in token)
        if name in ("<|im_start|>", "<|im_end|>"):
            turn, role_line = "template", "" if name == "<|im_start|>" else None
        author = turn if name is None and role_line is None else "template"
        rows.append(TokenRow(number, shown, name is not None, author))
        turn = _NEXT.get((name or "", turn), turn)
        if name is None and role_line is not None:
            role, line_break, _ = (role_line + token).partition("\n")
            turn = role if role in ROLES else "template"
            role_line = None if line_break else role
    return rows


@dataclass(frozen=True)
class Parts:
    """A reply in two: the thought, the answer, and whether the thought was closed."""

    thinking: str
    answer: str
    finished: bool


def split_thinking(text: str, opened: bool = False) -> Parts:
    """Return thought and answer; the opening tag may have stood in the prompt.

    The thought ends at the first `</think>` alone on its line, as Qwen writes it, else
    at the first one of all; so both may name the tag inside a sentence. `opened`
    says that the prompt ended in `<think>`: then text without a closing tag is an
    unfinished thought, which the text alone cannot tell.
    """
    if text.lstrip().startswith("<think>"):
        opened, text = True, text.lstrip().removeprefix("<think>")
    ends = [*re.finditer(r"^[ \t]*</think>[ \t]*$", text, re.M)]
    ends = ends or [*re.finditer("</think>", text)]
    if ends:
        thought, answer = text[: ends[0].start()], text[ends[0].end() :]
        return Parts(thought.strip(), answer.strip("\n"), True)
    return Parts(text.strip(), "", False) if opened else Parts("", text, True)


def _value(text: str) -> Any:
    """Return what a JSON text stands for, or a text of another kind as it is."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    return {"True": True, "False": False, "None": None}.get(text, text)


def parse_tool_calls(text: str) -> list[dict[str, Any]]:
    """Return the calls in an answer, each a dict of name (str) and arguments (dict).

    Where `<tool_call>` occurs, only what follows it counts: JSON, or the XML of Qwen3.5
    (a value is read as JSON, or as Python's True, False and None, which Qwen3.5's
    template writes, else as text). Otherwise every outermost JSON object counts, fenced
    or bare. What has another shape is left out.
    """
    tag = r"<tool_call>\s*(?:```\w*\s*)?"
    opening = re.compile(tag if "<tool_call>" in text else r"(?=\{)")
    last = text.rfind("</function>")  # no search beyond it
    function = re.compile(
        r"<function=([^>\n]+)>(.*?)</function>\s*(?:</tool_call>|\Z)", re.S
    )
    parameter = r"(?s)<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>(?=\s*(?:<param|\Z))"
    calls, place = [], 0
    while match := opening.search(text, place):
        start = match.end()
        call, place = None, start + (not match[0])
        with contextlib.suppress(ValueError, RecursionError):
            call, place = json.JSONDecoder().raw_decode(text, start)
        if start < last and (found := function.match(text, start)):
            pairs, place = re.findall(parameter, found[2]), found.end()
            values = {key: _value(value) for key, value in pairs}
            call = {"name": found[1], "arguments": values}
        call = call if isinstance(call, dict) else {}
        name, given = call.get("name"), call.get("arguments")
        given = _value(given) if isinstance(given, str) else given
        if isinstance(name, str) and isinstance(given, dict):
            calls.append({"name": name, "arguments": given})
    return calls


def _texts() -> dict[str, dict[str, str]]:
    return tomllib.loads(catalog.text("prompts.toml"))


def _prompt(kind: str, **fields: str) -> list[Message]:
    """Return the messages of a kind of prompt; paragraphs with an empty field go."""
    for name, text in fields.items():
        optional = name in ("context", "constraints")
        if not isinstance(text, str) or not (text.strip() or optional):
            got = f"got {type(text).__name__} {text!r:.60}"
            raise CourseError(f"{name} must be a text; {got}.", f"Pass a {name}.")
        fields[name] = text.strip()
    messages, empty = [], [f"{{{name}}}" for name, text in fields.items() if not text]
    for role, text in _texts()[kind].items():
        kept = [p for p in text.strip().split("\n\n") if not any(e in p for e in empty)]
        messages.append({"role": role, "content": "\n\n".join(kept).format(**fields)})
    return messages


def reasoning_prompt(problem: str, context: str = "") -> list[Message]:
    """Return messages that ask for a solution in five steps."""
    return _prompt("reasoning", problem=problem, context=context)


def coding_prompt(
    task: str, language: str = "Python", context: str = "", constraints: str = ""
) -> list[Message]:
    """Return messages that ask for documented code."""
    fields = {"language": language, "context": context, "constraints": constraints}
    return _prompt("coding", task=task, **fields)


def multilingual_prompt(
    query: str, languages: Sequence[str] = ("en", "zh", "es")
) -> list[Message]:
    """Return messages that ask for an answer in each language, given by its code."""
    known = _texts()["languages"]
    hint = f"Give a list of: {', '.join(known)}."
    if not isinstance(languages, list | tuple) or not languages:
        raise CourseError(f"languages must be a list, got {languages!r:.60}.", hint)
    for code in languages:
        if str(code) not in known:
            near = difflib.get_close_matches(str(code), [*known, *known.values()], 1, 0)
            raise CourseError(f"Unknown language {code!r}. Nearest: {near[0]}.", hint)
    names = ", ".join(known[code] for code in languages)
    return _prompt("multilingual", query=query, languages=names)
