"""Small stand-ins for tests: a Qwen tokenizer of a few hundred entries."""

import importlib.util
from functools import lru_cache
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers as pre
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

QWEN_SPLIT = (  # the pattern in the tokenizer.json of Qwen2, Qwen2.5 and Qwen3
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>"]
SPECIAL += ["<|object_ref_end|>", "<|vision_start|>", "<|vision_end|>"]
SPECIAL += ["<|image_pad|>", "<|video_pad|>"]
ADDED = ["<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|repo_name|>"]
ADDED_QWEN3 = ["<tool_response>", "</tool_response>", "<think>", "</think>"]
CORPUS = (
    "system\nYou are a helpful assistant.\nuser\nWhat is the sum of two numbers?\n"
    "assistant\nThe answer is here: the sum of the numbers.\n\nthink and call tools\n"
    '{"name": "add", "arguments": {"a": 1, "b": 2}} im_start im_end |> <| </ <'
)


def chat_template(name: str) -> str:
    """Return the text of a chat template of the installed trl, by file name."""
    spec = importlib.util.find_spec("trl")  # finds the folder, imports nothing
    folder = Path(spec.submodule_search_locations[0]) / "chat_templates"
    return (folder / f"{name}.jinja").read_text(encoding="utf-8")


@lru_cache
def _backend(thinking: bool) -> str:
    """Return the JSON of a trained byte-level BPE with Qwen's pipeline and tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre.Sequence(
        [
            pre.Split(Regex(QWEN_SPLIT), "isolated"),
            pre.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=400,
        initial_alphabet=sorted(pre.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([CORPUS], trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens(
        [
            AddedToken(t, normalized=False, special=False)
            for t in ADDED + (ADDED_QWEN3 if thinking else [])
        ]
    )
    return tokenizer.to_str()


def qwen_tokenizer(template: str = "qwen3") -> PreTrainedTokenizerFast:
    """Return a new byte-level tokenizer with a real Qwen chat template.

    It has Qwen's normaliser, pre-tokeniser and control tokens and about 410 entries.
    As in the originals `<tool_call>` and `<think>` are added but not special, and
    Qwen2.5 has no `<think>` and no `<tool_response>`.

    Args:
        template: a file name of trl/chat_templates, such as "qwen2_5" or "qwen3_8".
    """
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(
            _backend(not template.startswith("qwen2_5"))
        ),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = chat_template(template)
    return tokenizer
