"""Exercises of lesson 09a: cut a loop, price a cache, diagnose a reply."""

from collections.abc import Callable
from typing import Any

from qwen_course.checks import Exercise, Wrong

Answer = Callable[..., Any]

# --- 9a.1 ---------------------------------------------------------------------------

_LOOPS: tuple[tuple[list[int], int, str], ...] = (
    (
        [7, 1, 2, 1, 2, 1, 2],
        3,
        "The end is three copies of [1, 2]. Keep what stands before, and one copy.",
    ),
    (
        [7, 1, 2, 1, 2, 1, 2, 1],
        3,
        "The last copy is cut. The repetition reaches back to the first 1, so the block"
        " that stays is [1, 2], not [2, 1].",
    ),
    ([5, 9, 9, 9, 9], 4, "A block may be a single id. Here it is 9, four times."),
    (
        [59, 9, 9, 9],
        4,
        "Three copies are fewer than four: this is no loop yet. 59 is another id.",
    ),
    (
        [1, 2, 1, 2, 1, 2, 8],
        3,
        "The repetition is over: the ids end in 8. That is no loop.",
    ),
    (
        [3, 4, 3, 4, 3, 4, 3, 4],
        2,
        "[3, 4, 3, 4] twice is a loop too, but [3, 4] is the smallest block.",
    ),
    (
        [7, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2],
        3,
        "The last copy is cut, and two of its ids are there. The repetition reaches"
        " back to the first 1, so [1, 2, 3] stays.",
    ),
    (
        [4, 1, 5, 1, 6, 1, 5, 1],
        2,
        "Ids may come again without a loop. Only copies side by side, at the end,"
        " count.",
    ),
    (
        [6, *range(10, 30), *range(10, 30), *range(10, 30)],
        3,
        "A block can be long: here 20 ids.",
    ),
    (
        [8, 4, 3, 3, 4, 3, 3, 4, 3, 3],
        3,
        "A block can hold an id twice: here it is [4, 3, 3], three times.",
    ),
    (
        [3, 2, 2, 3, 2, 2, 3, 2, 2],
        2,
        "[2] twice is the smallest block at the end. Cut that, once.",
    ),
    (
        [151_644, 872, 198, 40, 872, 198, 40],
        2,
        "Ids of a real tokenizer are large: here [872, 198, 40] comes twice.",
    ),
    ([], 2, "Without ids there is no loop: return []."),
)


def _loop(ids: list[int], least: int) -> tuple[int, int]:
    """Return where the loop at the end begins, and its block's length (or 0)."""
    for n in range(1, len(ids) // least + 1):
        start = len(ids) - n
        while start > 0 and ids[start - 1] == ids[start - 1 + n]:
            start -= 1
        if len(ids) - start >= n * least:
            return start, n
    return len(ids), 0


def _check_loop(answer: Answer) -> str | None:
    for ids, least, note in _LOOPS:
        given, (start, n) = [*ids], _loop(ids, least)
        got = answer(given, least)
        right = ids[: start + n]
        if given != ids:
            note = "Your code changed the list that it got. Return a new one."
        elif not isinstance(got, list | tuple):
            note = "Return a list of ids."
        elif [*got] == right:
            continue
        elif n and [*got] == ids[:start]:
            note = "One copy of the block stays: what it says once may be right."
        elif n and [*got] in (ids[start : start + n], ids[len(ids) - n :]):
            note = "This is the block alone. What stands before it stays, too."
        return (
            f"{note}\n  input: ids={ids}, least={least}"
            f"\n  expected: {right}\n  got: {got!r}"
        )
    return None


_LOOP_HEAD = "def cut_loop(ids, least):\n"
_LOOP = """\
    for n in range(1, len(ids) // least + 1):
        start = len(ids) - n
        while start > 0 and ids[start - 1] == ids[start - 1 + n]:
            start -= 1
        if len(ids) - start >= n * least:
            return ids[:start + n]
    return ids"""
_WHOLE = """\
    for n in range(1, len(ids) // least + 1):
        block, start = ids[len(ids) - n:], len(ids)
        while start >= n and ids[start - n:start] == block:
            start -= n
        if len(ids) - start >= n * least:
            return ids[:start + n]
    return ids"""
LOOP = Exercise(
    id="9a.1",
    title="cut the loop",
    minutes=12,
    stars=2,
    check=_check_loop,
    hints=(
        "Try the block lengths n = 1, 2, 3, ... in this order; the first that fits is"
        " the smallest block.",
        "In a loop with block length n, ids[i] == ids[i + n]. Start at the end, at"
        " len(ids) - n, and go back while this holds for the id before.",
        "If the repetition begins at `start` and len(ids) - start >= n * least, return"
        " ids[:start + n]. If no n fits, return ids.",
    ),
    solution=_LOOP_HEAD + _LOOP,
    name="cut_loop",
    stub=_LOOP_HEAD
    + '''\
    """Return the ids; of a loop at their end, one copy."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "only single ids repeat",
            _LOOP_HEAD + _LOOP.replace("range(1, len(ids) // least + 1)", "(1,)"),
            "three copies of [1, 2]",
        ),
        Wrong(
            "the end is always a whole copy",
            _LOOP_HEAD + _WHOLE,
            "The last copy is cut",
        ),
        Wrong(
            "one copy more than needed",
            _LOOP_HEAD + _LOOP.replace(">= n * least", "> n * least"),
            "three copies of [1, 2]",
        ),
        Wrong(
            "two copies are always a loop",
            _LOOP_HEAD + _LOOP.replace("n * least:", "n * 2:"),
            "fewer than four",
        ),
        Wrong(
            "nothing of a loop is worth keeping",
            _LOOP_HEAD + _LOOP.replace("ids[:start + n]", "ids[:start]"),
            "One copy of the block stays",
        ),
        Wrong(
            "the longest block first",
            _LOOP_HEAD
            + _LOOP.replace(
                "range(1, len(ids) // least + 1)", "range(len(ids) // least, 0, -1)"
            ),
            "is the smallest block",
        ),
        Wrong(
            "no id may come twice",
            _LOOP_HEAD + "    return list(dict.fromkeys(ids))",
            "fewer than four",
        ),
        Wrong(
            "a loop may be anywhere",
            _LOOP_HEAD
            + """\
    for end in range(len(ids), 0, -1):
        for n in range(1, end // least + 1):
            start = end - n
            while start > 0 and ids[start - 1] == ids[start - 1 + n]:
                start -= 1
            if end - start >= n * least:
                return ids[:start + n]
    return ids""",
            "The repetition is over",
        ),
        Wrong(
            "blocks have at most 12 ids",
            _LOOP_HEAD
            + _LOOP.replace("len(ids) // least + 1", "min(13, len(ids) // least + 1)"),
            "A block can be long",
        ),
        Wrong(
            "the list can be cut in place",
            _LOOP_HEAD
            + _LOOP.replace(
                "            return ids[:start + n]",
                "            del ids[start + n:]\n            return ids",
            ),
            "changed the list",
        ),
    ),
)

# --- 9a.2 ---------------------------------------------------------------------------

_CACHES: tuple[tuple[list[int], list[int], int, str], ...] = (
    (
        [1, 2, 3, 4, 5],
        [1, 2, 3, 9],
        2,
        "Three ids are shared; that is one whole block of 2. The rest, 2, is read.",
    ),
    (
        [1, 2, 3, 4],
        [9, 2, 3, 4, 5],
        1,
        "The first id differs. What follows is no common start, even where it is"
        " equal: in a cache, each entry depends on all before it.",
    ),
    (
        [1, 2, 3, 4, 5, 6, 7, 8],
        [1, 2, 3, 4],
        2,
        "All of the prompt is in the cache, but its last token must be computed. So the"
        " last block cannot be used: 2 are read.",
    ),
    (
        [1, 2, 3, 4, 5, 6, 7, 8],
        [1, 2, 3, 4, 5],
        2,
        "All of the prompt is in the cache. Its last token is outside the two whole"
        " blocks, so both can be used: 1 is read.",
    ),
    ([1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7], 4, "One whole block is shared: 3 are read."),
    (
        [1, 2, 3, 4],
        [1, 2, 3, 4, 5],
        1,
        "Four of five ids are shared, in blocks of one: 1 is read.",
    ),
    ([], [1, 2, 3], 16, "An empty cache helps nothing: all 3 are read."),
    (
        [1, 2, 9, 4, 5],
        [1, 2, 3, 4, 5],
        1,
        "The common start ends at the first difference: 2 shared, 3 to read.",
    ),
    (
        [3, 4, 1, 2],
        [1, 2, 3, 4, 5],
        2,
        "The cache has both blocks, but behind other ids. All ids up to a block's end"
        " must be the same.",
    ),
    (
        [*range(40)],
        [*range(33), 99, 98],
        16,
        "33 ids are shared, two whole blocks of 16: 35 - 32 = 3 are read.",
    ),
)


def _to_read(cached: list[int], prompt: list[int], block: int) -> int:
    """Return how many tokens of a prompt a cache of whole blocks leaves to read."""
    shared = 0
    while shared < min(len(cached), len(prompt) - 1) and (
        cached[shared] == prompt[shared]
    ):
        shared += 1
    return len(prompt) - shared // block * block


def _check_read(answer: Answer) -> str | None:
    for cached, prompt, block, note in _CACHES:
        right = _to_read(cached, prompt, block)
        got = answer([*cached], [*prompt], block)
        if not isinstance(got, bool) and got == right:
            continue
        if got == len(prompt) - right and right * 2 != len(prompt):
            note = "This is what the cache saves. Return what is left to read."
        elif isinstance(got, list | tuple | str | None):
            note = "Return how many, a number."
        return (
            f"{note}\n  input: cached={cached}, prompt={prompt}, block={block}"
            f"\n  expected: {right}\n  got: {got!r}"
        )
    return None


_READ_HEAD = "def to_read(cached, prompt, block):\n"
_READ = """\
    shared = 0
    for old, new in zip(cached, prompt[:-1], strict=False):
        if old != new:
            break
        shared += 1
    return len(prompt) - shared // block * block"""
READ = Exercise(
    id="9a.2",
    title="what must be read again",
    minutes=8,
    stars=2,
    check=_check_read,
    hints=(
        "First count how many ids are the same from the start, up to the first"
        " difference.",
        "The last token of the prompt never counts as shared: compare with"
        " prompt[:-1].",
        "shared // block * block are in whole blocks. len(prompt) minus that is left.",
    ),
    solution=_READ_HEAD + _READ,
    name="to_read",
    stub=_READ_HEAD
    + '''\
    """Return how many tokens of the prompt must be read."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "a part of a block will do",
            _READ_HEAD + _READ.replace("shared // block * block", "shared"),
            "one whole block of 2",
        ),
        Wrong(
            "round up",
            _READ_HEAD + _READ.replace("shared // block", "-(-shared // block)"),
            "one whole block of 2",
        ),
        Wrong(
            "equal ids count wherever they stand",
            _READ_HEAD + _READ.replace("            break\n", "            continue\n"),
            "no common start",
        ),
        Wrong(
            "an id counts if the cache has it",
            _READ_HEAD
            + """\
    shared = len(set(cached) & set(prompt[:-1]))
    return len(prompt) - shared // block * block""",
            "no common start",
        ),
        Wrong(
            "a prompt that is in the cache costs nothing",
            _READ_HEAD + _READ.replace("prompt[:-1]", "prompt"),
            "its last token must be computed",
        ),
        Wrong(
            "always one token for the last",
            _READ_HEAD
            + _READ.replace("prompt[:-1]", "prompt").replace(
                "len(prompt) - shared // block * block",
                "max(1, len(prompt) - shared // block * block)",
            ),
            "its last token must be computed",
        ),
        Wrong(
            "what the cache saves",
            _READ_HEAD + _READ.replace("len(prompt) - shared", "shared"),
            "what the cache saves",
        ),
        Wrong(
            "the cache's length counts",
            _READ_HEAD + _READ.replace("len(prompt) -", "len(cached) -"),
            "one whole block of 2",
        ),
        Wrong(
            "in blocks, not tokens",
            _READ_HEAD + _READ.replace("shared // block * block", "shared // block"),
            "one whole block of 2",
        ),
    ),
)

# --- 9a.3 ---------------------------------------------------------------------------

_HEAD = "<|im_start|>assistant\n"
_REPLIES: tuple[tuple[str, str, str, str, str], ...] = (
    (_HEAD, "Paris.<|im_end|>", "stop", "healthy",
     "It ends with its end token, as it should."),
    (_HEAD, "Paris.<|im_end|>\n<|im_start|>user\nAnd Rome?", "length",
     "does not stop", "Another turn follows the first <|im_end|>."),
    (_HEAD, "Paris.<|im_end|>\n", "stop", "healthy",
     "Only a newline follows the end token: that is nothing."),
    (_HEAD, "Ten rivers: the Nile, the Rhine, the", "length", "healthy",
     "It was cut, but no thought was opened: the limit is too small for this answer."),
    (_HEAD, "a red car a red car a red car a red car", "length", "loop",
     "The last words are \"a red car\", four times."),
    (_HEAD, "no no no no", "stop", "healthy",
     "It repeats, but it ended by itself: `stop` is not \"length\"."),
    (_HEAD, "one two three one two three one two three", "length", "healthy",
     "Three times is not four."),
    (_HEAD, "<think>\nFirst, 3 plus 4", "length", "thought cut",
     "The thought began, and the limit came before </think>."),
    (_HEAD + "<think>\n", "First, 3 plus 4", "length", "thought cut",
     "The *prompt* opened this thought: it ends in <think> and a newline."),
    (_HEAD + "<think>\n", "3 plus 4 is 7.\n</think>\n\n7<|im_end|>", "stop",
     "healthy", "The prompt opened the thought, the reply closed it."),
    (_HEAD, "<think>\n\n</think>\n\nHi<|im_end|>", "stop", "empty thought",
     "Only newlines stand between <think> and </think>."),
    (_HEAD, "<think>\nA greeting.\n</think>\n\nHi<|im_end|>", "stop", "healthy",
     "This thought has words: it is not empty."),
    (_HEAD, "Write <think> before a thought and </think> behind it.<|im_end|>",
     "stop", "healthy", "The tags are words of this answer; it does not begin with"
     " <think>."),
    (_HEAD, "<think>\nwait so wait so wait so wait so", "length", "loop",
     "It is a loop and a cut thought. The loop stands first in the list."),
    (_HEAD, "<think>\n\n</think>\n\nHi<|im_end|>\n<think>\nhm\n</think>\n\nHi",
     "length", "does not stop",
     "An empty thought, and it went on behind <|im_end|>: that stands first."),
    (_HEAD + "<think>\n\n</think>\n\n", "A long story of a", "length", "healthy",
     "The thought in the prompt is closed, so the text is an answer, only cut."),
    (_HEAD, "He said no no no no", "length", "loop",
     "One word, four times, at the end: that is a loop, too."),
    (_HEAD + "<think>\n", "\n</think>\n\nHi<|im_end|>", "stop", "healthy",
     "The prompt opened this thought: the text does not begin with <think>."),
    (_HEAD, "- tea\n- tea\n- tea\n- tea", "length", "loop",
     "A newline parts words as well as a space: \"- tea\" comes four times."),
    (_HEAD, "one two three four five six seven eight " * 4, "length", "loop",
     "Eight words, four times: eight still count."),
    (_HEAD, "one two three four five six seven eight nine " * 4, "length",
     "healthy", "Nine words are more than eight: this is no loop here."),
    (_HEAD, "no no no no he said, and went", "length", "healthy",
     "It repeated, and went on: only the last words count."),
    (_HEAD, "Paris.<|im_end|>\nParis.<|im_end|>", "stop", "does not stop",
     "What follows the *first* <|im_end|> counts, whatever `stop` is."),
    (_HEAD, "<think>\nHm.<|im_end|>", "stop", "healthy",
     "The thought was not closed, but no limit cut it: `stop` is not \"length\"."),
    (_HEAD, "Write <think> before a", "length", "healthy",
     "The tag is a word of this answer, which is only cut: no thought began here."),
    (_HEAD, "<think> \n</think>Hi<|im_end|>", "stop", "empty thought",
     "A space is white space, too, and a thought need not have two newlines."),
    (_HEAD, "<think>.</think>Hi<|im_end|>", "stop", "healthy",
     "This thought is short, a full stop, but not empty."),
    (_HEAD, "The piano no no no", "length", "healthy",
     "\"piano\" is another word than \"no\", which comes three times only."),
    (_HEAD, "yes no no yes no yes yes no", "length", "healthy",
     "The same words come four times, but not in the same order each time."),
    (_HEAD, "\n\n\n\n", "length", "healthy",
     "There is no word at all, so none comes four times."),
    (_HEAD, "Write <think></think> to skip the thought.<|im_end|>", "stop", "healthy",
     "The tags are words of this answer; it does not begin with <think>."),
    (_HEAD + "<think>\nHm.\n</think>\n\nHi<|im_end|>\n" + _HEAD + "<think>\n",
     "First, 3 plus 4", "length", "thought cut",
     "The </think> in the prompt closed an earlier thought, not this one."),
    (_HEAD, "<think>\n\n</think>\n\nA long story of a", "length", "empty thought",
     "The answer was cut, but the thought before it is empty, whatever `stop` is."),
    (_HEAD, "He said " + "no " * 50, "length", "loop",
     "Fifty times are more than four: it still ends with the same word four times."),
    (_HEAD, "Paris.<|im_end|> \n", "stop", "healthy",
     "A space behind the end token is white space, too: that is nothing."),
    (_HEAD, "Hi.<|im_end|>\nno no no no", "length", "does not stop",
     "It is a loop, too, but behind <|im_end|>: that stands first."),
    (_HEAD, "<think>\n\n</think>\n\nno no no no", "length", "loop",
     "The loop stands before the empty thought in the list."),
    (_HEAD + "<think>\n", "3 plus 4 is 7.\n</think>\n\nThe answer", "length",
     "healthy", "The limit cut the answer: the thought had its </think> before."),
    (_HEAD, "<think>\nA greeting.\n</think>\n\nHi, how", "length", "healthy",
     "The limit cut the answer: the thought had its </think> before."),
    (_HEAD, "<think></think>Hi<|im_end|>", "stop", "empty thought",
     "Nothing at all stands between the tags: no thought is emptier."),
)  # fmt: skip


def _check_reply(answer: Answer) -> str | None:
    for prompt, text, stop, right, note in _REPLIES:
        got = answer(prompt, text, stop)
        if got == right:
            continue
        if got not in [row[3] for row in _REPLIES]:
            note = "Return one of the five names, exactly as the card writes them."
        return (
            f"{note}\n  input: prompt={prompt!r}, text={text!r}, stop={stop!r}"
            f"\n  expected: {right!r}\n  got: {got!r}"
        )
    return None


_TELL_HEAD = "def diagnose(prompt, text, stop):\n"
_TELL = """\
    cut, words = stop == "length", text.split()
    begins = text.startswith("<think>")
    opened = begins or prompt.endswith("<think>\\n")
    before, closed, _ = text.partition("</think>")
    if text.partition("<|im_end|>")[2].strip():
        return "does not stop"
    for n in range(1, 9):
        end = words[-4 * n:]
        if cut and len(end) == 4 * n and end == end[:n] * 4:
            return "loop"
    if cut and opened and not closed:
        return "thought cut"
    if begins and closed and not before[len("<think>"):].strip():
        return "empty thought"
    return "healthy\""""
TELL = Exercise(
    id="9a.3",
    title="diagnose a reply",
    minutes=15,
    stars=3,
    check=_check_reply,
    hints=(
        "Ask in this order; return at the first.",
        "The last 4 * n words are a loop if they equal their own first n words, four"
        " times: end == end[:n] * 4.",
        'text.partition("</think>") gives what stands before, the tag (empty if it'
        " never came) and the rest.",
    ),
    solution=_TELL_HEAD + _TELL,
    name="diagnose",
    stub=_TELL_HEAD
    + '''\
    """Return what is wrong with a reply: see the five names above."""
    raise NotImplementedError''',
    wrong=(
        Wrong(
            "an end token is a fault",
            _TELL_HEAD
            + _TELL.replace(
                'text.partition("<|im_end|>")[2].strip()', '"<|im_end|>" in text'
            ),
            "ends with its end token",
        ),
        Wrong(
            "a newline is more text",
            _TELL_HEAD + _TELL.replace("[2].strip()", "[2]"),
            "Only a newline follows",
        ),
        Wrong(
            "a loop is one word",
            _TELL_HEAD + _TELL.replace("range(1, 9)", "range(1, 2)"),
            '"a red car", four times',
        ),
        Wrong(
            "three times is a loop",
            _TELL_HEAD
            + _TELL.replace("-4 * n", "-3 * n")
            .replace("== 4 * n", "== 3 * n")
            .replace("end[:n] * 4", "end[:n] * 3"),
            "Three times is not four",
        ),
        Wrong(
            "a loop that ended is one too",
            _TELL_HEAD + _TELL.replace("if cut and len", "if len"),
            "ended by itself",
        ),
        Wrong(
            "the prompt cannot open a thought",
            _TELL_HEAD
            + _TELL.replace('begins or prompt.endswith("<think>\\n")', "begins"),
            "The *prompt* opened this thought",
        ),
        Wrong(
            "a tag in the prompt means an open thought",
            _TELL_HEAD
            + _TELL.replace('prompt.endswith("<think>\\n")', '"<think>" in prompt'),
            "is closed, so the text is an answer",
        ),
        Wrong(
            "any cut is a cut thought",
            _TELL_HEAD + _TELL.replace("if cut and opened and", "if cut and"),
            "no thought was opened",
        ),
        Wrong(
            "only two newlines are empty, and any thought is",
            _TELL_HEAD + _TELL.replace('and not before[len("<think>"):].strip()', ""),
            "This thought has words",
        ),
        Wrong(
            "the tags may stand anywhere",
            _TELL_HEAD
            + _TELL.replace(
                'if begins and closed and not before[len("<think>"):].strip()',
                'if "<think>" in text and closed and "plus" not in text'
                ' and "A greeting" not in text',
            ),
            "words of this answer",
        ),
        Wrong(
            "the thought comes before the loop",
            _TELL_HEAD
            + _TELL.replace(
                "    for n in range",
                '    if cut and opened and not closed:\n        return "thought cut"\n'
                "    for n in range",
            ),
            "The loop stands first",
        ),
        Wrong(
            "the thought comes before the end",
            _TELL_HEAD
            + _TELL.replace(
                '    if text.partition("<|im_end|>")',
                '    if begins and closed and not before[len("<think>"):].strip():\n'
                '        return "empty thought"\n'
                '    if text.partition("<|im_end|>")',
            ),
            "that stands first",
        ),
    ),
)

EXERCISES = (LOOP, READ, TELL)
