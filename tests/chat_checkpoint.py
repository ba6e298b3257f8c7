"""A tiny checkpoint to chat with: random weights, a token for every byte, a chat template."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import pre_tokenizers
from tokenizers.models import BPE

from tests import tiny

CONTROL_TOKENS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>")
END = 0
"""The token of "!", which ends answers as control tokens do: JSON can do without that character."""
SHAPE: dict[str, Any] = {
    "vocab_size": 288,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "eos_token_ids": (END,),
}
"""Widths that groups of 128 divide, so that commands work as they do on GLM-4-9B."""
TEMPLATE = (
    "{% if tools %}<|system|>\n{{ tools | tojson }}{% endif %}"
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def save_chat_checkpoint(directory: Path) -> Path:
    """Write weights, tokenizer, chat template and sampling settings.

    Control tokens have the logit 0. So at temperature 0 no answer comes to one, and none ends by
    itself on any machine where END is biased away as well.
    """
    letters = len(pre_tokenizers.ByteLevel.alphabet())
    model = tiny.transformers_model(replace(tiny.BASE, **SHAPE))
    with torch.no_grad():
        model.lm_head.weight[letters:] = 0
    tiny.save_checkpoint(model, directory)
    tokenizer_of_bytes().save(str(directory / "tokenizer.json"))
    _write(directory / "tokenizer_config.json", {"chat_template": TEMPLATE})
    _write(
        directory / "generation_config.json",
        {"do_sample": True, "temperature": 0.8, "top_p": 0.8, "eos_token_id": letters},
    )
    return directory


def take_likeliest(checkpoint: Path) -> None:
    """Change a copy of that checkpoint to pick the likeliest token, so that no answer is empty."""
    path = checkpoint / "generation_config.json"
    _write(path, {**json.loads(path.read_text(encoding="utf-8")), "do_sample": False})


def tokenizer_of_bytes(merges: Sequence[tuple[str, str]] = ()) -> tokenizers.Tokenizer:
    """Make a tokenizer of a token for every byte, those that merges make, and control tokens."""
    texts = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    vocabulary = {text: token for token, text in enumerate(texts)}
    backend = tokenizers.Tokenizer(BPE(vocabulary, [*merges]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(
        [tokenizers.AddedToken(token, special=True) for token in CONTROL_TOKENS]
    )
    return backend


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
