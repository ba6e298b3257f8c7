"""A tokenizer's vocabulary as llguidance reads it: the bytes of each token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from llguidance import LLTokenizer
from torch import Tensor

from calculator.errors import GrammarError
from glm4q.text.tokenizer import Tokenizer

BITS = 32
"""Tokens in one word of a mask."""


class TokenTable:
    """What llguidance asks of a tokenizer: these names are its own."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, end: int) -> None:
        self.eos_token_id = end
        self.tokens = [tokenizer.token_bytes(token) for token in range(vocab_size)]
        self.special_token_ids = sorted(tokenizer.control_tokens.values())
        self._encode = tokenizer.encode

    def __call__(self, text: str) -> list[int]:
        """Return the tokens of a text, which are likelier than other cuts of it."""
        return self._encode(text)


@dataclass(frozen=True)
class GrammarVocabulary:
    """The tokens of a model for masks of its logits. Made once: it takes a second or two."""

    tokenizer: LLTokenizer
    texts: Tensor
    """A bit for each token that has bytes and ends no answer, int32 [ceil(V / 32)]."""
    ends: Tensor
    """A bit for each token that ends an answer."""

    def with_token(self, token: int | None) -> Tensor:
        """Return `texts`, and the bit of one token more."""
        if token is None:
            return self.texts
        bit = torch.zeros(len(self.texts) * BITS, dtype=torch.bool)
        bit[token] = True
        return self.texts | _packed(bit)

    @classmethod
    def of(cls, tokenizer: Tokenizer, vocab_size: int, ends: Sequence[int]) -> Self:
        """vocab_size: logits of the model; ends: the tokens that end an answer.

        Raises GrammarError for a model without such tokens, and TokenizerError.
        """
        ends = sorted(end for end in ends if 0 <= end < vocab_size)
        if not ends:
            raise GrammarError("the model has no token that ends an answer, so none can be checked")
        table = TokenTable(tokenizer, vocab_size, ends[0])
        ending = torch.zeros(vocab_size, dtype=torch.bool)
        ending[ends] = True
        texts = torch.tensor([bool(token) for token in table.tokens]) & ~ending
        backend = LLTokenizer(cast(Any, table), n_vocab=vocab_size, eos_token=ends)
        return cls(backend, _packed(texts), _packed(ending))


def _packed(flags: Tensor) -> Tensor:
    """Write flags as bits, the first token lowest."""
    words = torch.zeros(-(-len(flags) // BITS) * BITS, dtype=torch.int64)
    words[: len(flags)] = flags
    return (words.view(-1, BITS) << torch.arange(BITS)).sum(-1).to(torch.int32)
