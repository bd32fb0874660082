"""What users of Qwen report, found by its words: cause, cure, what maintainers said.

Knows `data/symptoms.toml`; knows nothing of this machine, of models and of notebooks.
"""

import difflib
import re
import tomllib
import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import Any

from qwen_course import catalog
from qwen_course.errors import CourseError

ALIKE = 0.8  # of difflib's ratio, from which two words count as one, misspelt


@dataclass(frozen=True)
class Symptom:
    """An entry of `data/symptoms.toml`.

    `clinic` is its section, such as "9a.1"; `taught` names cells, as notebook#cell, the
    clinic's first.
    """

    clinic: str
    symptom: str
    phrasings: tuple[str, ...]
    words: tuple[str, ...]
    causes: tuple[str, ...]
    cure: str
    links: tuple[str, ...]
    taught: tuple[str, ...]


@dataclass(frozen=True)
class Match:
    """An entry that a description fits, how well, and which words speak for it."""

    entry: Symptom
    score: float
    because: tuple[str, ...]


def entries() -> list[Symptom]:
    """Every symptom that the course knows, in the order of the clinic."""
    found = []
    for row in _data()["symptom"]:
        fields: Any = {k: v if isinstance(v, str) else tuple(v) for k, v in row.items()}
        found.append(Symptom(**fields))
    return found


def find(text: str, best: int = 3) -> list[Match]:
    """The entries that fit a description best, best first; [] if no word is known.

    Each word of the description counts for an entry that has it: 1, or 2 among its
    `words`; divided by the number of entries that have it, for a rare word tells more.
    A misspelt word counts for the nearest one, times how alike they are.
    """
    if not isinstance(text, str) or best < 1:
        rule = f"A description is a text, best is 1 or more; got {text!r:.60}, {best}."
        raise CourseError(rule, 'symptoms.find("it repeats itself")')
    known = {entry: _weights(entry) for entry in entries()}
    shared = Counter(word for weights in known.values() for word in weights)
    nothing = set(_data()["says_nothing"].split())
    words = dict.fromkeys(word for word in _words(text) if word not in nothing)
    asked = {word: _nearest(_stem(word), shared) for word in words}
    found = []
    for entry, weights in known.items():
        parts = {
            word: alike * weights[near] / shared[near]
            for word, (near, alike) in asked.items()
            if near in weights
        }
        found.append(Match(entry, sum(parts.values()), tuple(parts)))
    found.sort(key=lambda match: -match.score)  # stable: equals in the clinic's order
    return [match for match in found if match.score][:best]


def _data() -> dict[str, Any]:
    return tomllib.loads(catalog.text("symptoms.toml"))


def _words(text: str) -> list[str]:
    text = unicodedata.normalize("NFKC", text).lower()  # wide signs of Asian keyboards
    text = re.sub(r"(?<=\d),(?=\d)", "", text)  # 40,960 is one number
    text = re.sub("!{3,}", " !!!! ", text)
    return re.findall(r"!!!!|\w+(?:['’]\w+)?", text)


def _stem(word: str) -> str:
    """A word without the ending of a plural or a verb, if enough of it is left."""
    for end in ("ing", "ed", "es", "s"):
        if word.endswith(end) and len(word) - len(end) >= 4:
            return word.removesuffix(end)
    return word


def _weights(entry: Symptom) -> dict[str, int]:
    spoken = _words(" ".join([entry.symptom, *entry.phrasings]))
    pointing = _words(" ".join(entry.words))
    return {_stem(word): 1 for word in spoken} | {_stem(word): 2 for word in pointing}


def _nearest(word: str, known: Counter[str]) -> tuple[str, float]:
    """The known word that is meant, and how alike the two are; ("", 0) if none is."""
    if word in known:
        return word, 1.0
    near = difflib.get_close_matches(word, known, 1, ALIKE) if len(word) > 3 else []
    if not near:
        return "", 0.0
    return near[0], difflib.SequenceMatcher(None, word, near[0]).ratio()
