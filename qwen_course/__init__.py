"""Helper package of the Qwen course: small modules, each about one subject.

`catalog` the family as data, `chat` what the model reads, `answers` was it right,
`weights` the official files, `models` roles and loading, `generate` replies, `show`
figures and widgets, `checks` exercises. Importing the package loads none of them.
"""

__version__ = "0.1.0"
