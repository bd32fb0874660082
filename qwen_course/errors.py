"""The errors that the course raises on purpose; each names the next step.

CourseError
├── UnknownModel        no such model or role in the catalogue
├── ModelUnavailable    known, but its weights are not on this machine
├── MalformedMessages   a conversation that no chat template could render
└── TooLong             more tokens than the model has positions
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any


class CourseError(Exception):
    """An error with a hint: what happened, and what to do next."""

    def __init__(self, message: str, hint: str = "") -> None:
        """Keep the message and the hint apart, show both."""
        super().__init__(f"{message}\nWhat to do: {hint}" if hint else message)
        self.message, self.hint = message, hint


class UnknownModel(CourseError):
    """The name is neither a model of the catalogue nor a role."""


class ModelUnavailable(CourseError):
    """The model is known, but its weights cannot be had here and now."""


class TooLong(CourseError):
    """Prompt and reply together do not fit into the model's positions."""


class MalformedMessages(CourseError):
    """A message has a wrong type, role or field."""


def out_of_range(settings: Any, ranges: Mapping[str, tuple]) -> dict[str, str]:
    """Return the rule of each number of a dataclass that is outside its range.

    A range of whole numbers asks for a whole one. None is right where the type says so.
    """
    types: dict[str, Any] = {field.name: field.type for field in fields(settings)}
    rules = {}
    for name, (low, high) in ranges.items():
        value, whole = getattr(settings, name), isinstance(low, int)
        number = isinstance(value, int if whole else int | float)
        fits = number and not isinstance(value, bool) and low <= value <= high
        if not fits and not (value is None and isinstance(None, types[name])):
            rules[name] = f"a {'whole ' if whole else ''}number, {low} to {high}"
    return rules


def refuse(settings: object, rules: Mapping[str, str], hint: str = "") -> None:
    """Raise CourseError that tells each field's rule and what it got, if any."""
    if rules:
        got = [f"{n} must be {rules[n]}, got {getattr(settings, n)!r}." for n in rules]
        raise CourseError(" ".join(got), hint or "leave it out to take the default.")
