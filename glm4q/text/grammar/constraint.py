"""Masks over the vocabulary: which tokens may come next where an answer must match a grammar."""

from collections.abc import Sequence

import torch
from llguidance import LLMatcher
from torch import Tensor

from calculator.errors import GrammarError
from glm4q.text.grammar.messages import grammar_error
from glm4q.text.grammar.vocabulary import GrammarVocabulary

FORBIDDEN = torch.tensor([[not byte >> bit & 1 for bit in range(8)] for byte in range(256)])
"""Which of eight tokens a byte of a mask forbids."""


class GrammarConstraint:
    """Follows one answer through its grammar; glm4q.decode.sampling.Constraint says what it does.

    Control tokens never may come, whatever the grammar says, but for those that end an answer, and
    the one that begins a message of its own.
    """

    def __init__(
        self, matcher: LLMatcher, vocabulary: GrammarVocabulary, separator: int | None = None
    ) -> None:
        """matcher: at the beginning of the grammar, and not used by others. separator: a control
        token that may come where the grammar names it.
        """
        self._matcher, self._vocabulary = matcher, vocabulary
        self._allowed = vocabulary.with_token(separator)
        self._bits = torch.empty_like(vocabulary.texts)
        self._forbidden = FORBIDDEN

    @property
    def complete(self) -> bool:
        """Whether the answer may end here."""
        return self._matcher.is_accepting()

    @property
    def finished(self) -> bool:
        """Whether nothing may follow."""
        return self._matcher.is_stopped()

    def mask(self, logits: Tensor) -> Tensor:
        """Forbid tokens in place. Raises GrammarError where none is left."""
        bits = self._bits
        self._matcher.unsafe_compute_mask_ptr(bits.data_ptr(), bits.numel() * bits.itemsize)
        self._check()
        bits &= self._allowed | self._vocabulary.ends if self.complete else self._allowed
        if not bits.any():
            raise GrammarError("no token of the model goes on with what the grammar demands")
        if self._forbidden.device != logits.device:
            self._forbidden = FORBIDDEN.to(logits.device)
        rows = bits.view(torch.uint8).to(logits.device).int()
        return logits.masked_fill_(self._forbidden[rows].flatten()[: len(logits)], -torch.inf)

    def accept(self, token: int) -> None:
        """Go on behind a token. Raises GrammarError for one that the mask forbids."""
        self._matcher.consume_token(token)
        self._check()

    def draft(self, guess: Sequence[int], most: int) -> list[int]:
        """Return what the grammar forces; where it forces nothing, what it allows of the guess."""
        forced = self._matcher.compute_ff_tokens()[:most]
        return forced or list(guess[: self._matcher.validate_tokens(list(guess))])

    def _check(self) -> None:
        if self._matcher.is_error():
            raise grammar_error("the grammar", self._matcher.get_error())
