"""One name for one thing in the prose (spelling: `make lint`)."""

import re

import homes
import pytest

NAMES = {  # what is not said: what is said instead
    r"vendors?": "publisher",
    r"KV heads?": "key-value head",
    r"tokens a second": "tokens per second",
    r"per cent": "percent, or % after a figure",
    r"running kernel|live front end": "live notebook",
    r"quantiz(e|es|ed|ing)": "quantise",
    r"end tokens?": "end-of-turn token",
    r"empty block": "empty thought",
    r"b?float(16|32)": "bf16, fp16, fp32 (torch's own names are code)",
}
TEXTS = list(homes.texts())


def prose(text: str) -> str:
    """A text without code, addresses and titles of links."""
    return re.sub(
        r"```.*?```|`[^`\n]*`|\[[^\]]*\]\([^)]*\)", " ", text, flags=re.DOTALL
    )


@pytest.mark.parametrize("name", NAMES)
def test_one_name_for_one_thing(name):
    said = re.compile(rf"\b(?:{name})\b")
    found = [
        f"{lesson} {cell}: {match.group()}"
        for lesson, cell, text in TEXTS
        for match in said.finditer(prose(text))
    ]
    assert not found, f"say: {NAMES[name]}"
