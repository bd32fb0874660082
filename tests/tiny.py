"""Tiny models for tests: a random Qwen3, and one that says what it is told to."""

from functools import lru_cache
from pathlib import Path

import torch
from fakes import qwen_tokenizer
from transformers import Qwen3Config, Qwen3ForCausalLM

from qwen_course.models import Loaded, Source

SOURCE = Source("chat", "pocket-test", "pocket", Path("."), 0.0, "a test")


def _config(vocab_size):
    return Qwen3Config(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=64, head_dim=16,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.4,
        bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip


@lru_cache
def random_qwen(template="qwen3"):
    """Return a random two-layer Qwen3 in float32 as a Loaded."""
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer(template)
    model = Qwen3ForCausalLM(_config(len(tokenizer))).eval()
    return Loaded(model, tokenizer, SOURCE)


class _Scripted(Qwen3ForCausalLM):
    """A real model whose logits are replaced: row by row, one script token a step."""

    scripts: list[list[int]]

    def forward(self, input_ids=None, **kwargs):
        output = super().forward(input_ids=input_ids, **kwargs)
        self.step = 0 if input_ids.shape[1] > 1 else self.step + 1
        output.logits[:, -1] = -100.0
        for row, script in enumerate(self.scripts):
            token = script[min(self.step, len(script) - 1)]
            output.logits[row, -1, token] = 100.0
        return output


def scripted(*texts, template="qwen3", end="<|im_end|>"):
    """Return a Loaded whose row n writes texts[n] and then ends its turn."""
    tokenizer = qwen_tokenizer(template)
    model = _Scripted(_config(len(tokenizer))).eval()
    model.scripts = [
        tokenizer.encode(text + end, add_special_tokens=False) for text in texts
    ]
    return Loaded(model, tokenizer, SOURCE)
