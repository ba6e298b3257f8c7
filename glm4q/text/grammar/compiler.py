"""Compiles grammars for one model, and keeps the latest: clients send the same schema often."""

import threading
from collections.abc import Collection

from llguidance import LLMatcher

from glm4q.text.grammar.constraint import GrammarConstraint
from glm4q.text.grammar.limits import LIMITS
from glm4q.text.grammar.messages import grammar_error
from glm4q.text.grammar.vocabulary import GrammarVocabulary
from glm4q.text.tokenizer import Tokenizer

MOST_KEPT = 8


class GrammarCompiler:
    """Makes constraints for the answers of one model. Any thread may ask."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, ends: Collection[int]) -> None:
        """vocab_size: logits of the model; ends: the tokens that end an answer."""
        self._tokenizer, self._vocab_size, self._ends = tokenizer, vocab_size, sorted(ends)
        self._lock = threading.Lock()
        self._vocabulary: GrammarVocabulary | None = None
        self._kept: dict[str, LLMatcher] = {}

    def control_token(self, name: str) -> int | None:
        """Return the id of a control token; None where the model has no such token."""
        return self._tokenizer.control_tokens.get(name)

    def constraint(self, source: str, separator: int | None = None) -> GrammarConstraint:
        """Begin an answer by a grammar that `joined` wrote. Raises GrammarError.

        separator: the control token that the grammar names.
        """
        with self._lock:
            vocabulary, matcher = self._read_vocabulary(), self._matcher(source)
        return GrammarConstraint(matcher.deep_copy(), vocabulary, separator)

    def _read_vocabulary(self) -> GrammarVocabulary:
        if self._vocabulary is None:
            self._vocabulary = GrammarVocabulary.of(self._tokenizer, self._vocab_size, self._ends)
        return self._vocabulary

    def _matcher(self, source: str) -> LLMatcher:
        matcher = self._kept.pop(source, None)
        if matcher is None:
            matcher = LLMatcher(
                self._read_vocabulary().tokenizer, source, log_level=0, limits=LIMITS
            )
            if matcher.is_error():
                raise grammar_error("the grammar", matcher.get_error())
        self._kept[source] = matcher  # the latest comes last
        if len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return matcher
