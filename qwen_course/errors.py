"""The errors that the course raises on purpose; each names the next step.

CourseError
├── UnknownModel        no such model or role in the catalogue
├── ModelUnavailable    known, but its weights are not on this machine
└── MalformedMessages   a conversation that no chat template could render
"""


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


class MalformedMessages(CourseError):
    """A message has a wrong type, role or field."""
