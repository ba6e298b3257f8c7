"""Notices an answer that repeats itself without end.

The rule: the newest tokens are one run of at most 128 tokens, again and again, with nothing between
and nothing else. How often it must come depends on how many different tokens the run has, because
what people ask for repeats little: digits, "ha ha", an empty table, a matrix of zeros.
"""

from collections.abc import Sequence
from dataclasses import dataclass

LONGEST_RUN = 128
INTERVAL = 16
"""Tokens from one look to the next."""


Run = tuple[int, ...]


@dataclass(frozen=True)
class Rule:
    """How much repetition is too much."""

    different: int
    """For runs of at least so many different tokens."""
    times: int
    tokens: int
    """Both must be reached: repetitions, and tokens of all of them together."""


RULES = (Rule(32, 8, 384), Rule(8, 24, 384), Rule(1, 64, 768))
"""A paragraph, a sentence or a line, and what has fewer different tokens."""
ASKED_FOR = RULES[-1]
"""The rule for a run that stands in the prompt: it may have been asked for."""


class LoopGuard:
    """Looks at the end of an answer every few tokens."""

    def __init__(self, prompt: Sequence[int]) -> None:
        self._prompt = tuple(prompt)
        self._asked_for: dict[Run, bool] = {}

    def repeats(self, token_ids: Sequence[int]) -> bool:
        """Whether an answer repeats without end. token_ids: prompt and answer so far."""
        own = len(token_ids) - len(self._prompt)
        if own < RULES[0].tokens or own % INTERVAL:
            return False
        length, tokens = _repetition(token_ids, own)
        if not length:
            return False
        run = tuple(token_ids[-length:])
        rule = next(rule for rule in RULES if len(set(run)) >= rule.different)
        if not _enough(rule, length, tokens):
            return False
        return _enough(ASKED_FOR, length, tokens) or not self._is_asked_for(run)

    def _is_asked_for(self, run: Run) -> bool:
        """Whether the run stands in the prompt, wherever in it the repetition is cut."""
        size = len(run)
        cuts = {(*run[place:], *run[:place]) for place in range(size)}
        first = min(cuts)
        if first not in self._asked_for:
            known = set(run)
            self._asked_for[first] = any(
                self._prompt[place : place + size] in cuts
                for place, token in enumerate(self._prompt)
                if token in known
            )
        return self._asked_for[first]


def _enough(rule: Rule, length: int, tokens: int) -> bool:
    return tokens >= max(rule.tokens, rule.times * length)


def _repetition(token_ids: Sequence[int], own: int) -> tuple[int, int]:
    """The shortest run that the last tokens repeat for long, and how many tokens do; or 0, 0.

    own: the tokens of the answer.
    """
    for length in range(1, min(LONGEST_RUN, own // 2) + 1):
        if token_ids[-length:] != token_ids[-2 * length : -length]:
            continue
        tokens = 2 * length
        while tokens < own and token_ids[-tokens - 1] == token_ids[-tokens - 1 + length]:
            tokens += 1
        if tokens >= RULES[0].tokens:
            return length, tokens
    return 0, 0
