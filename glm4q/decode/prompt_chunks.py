"""Which prompts run next, and how many tokens of each."""

from collections.abc import Sequence
from dataclasses import dataclass

from glm4q.decode.answer import Answer


@dataclass(frozen=True)
class Chunk:
    """Some prompts, and the number of tokens of each that run next."""

    answers: Sequence[Answer]
    tokens: int

    @property
    def rows(self) -> int:
        """Tokens of all of them."""
        return len(self.answers) * self.tokens


class PromptChunks:
    """Chooses the chunks of prompts, one after another."""

    def __init__(self) -> None:
        self._oldest_ran = False

    def choose(self, prompted: Sequence[Answer], *, whole: int, most: int, together: int) -> Chunk:
        """Choose a chunk. prompted: answers whose prompts have not run, the oldest first.

        whole: tokens of a chunk where nobody waits. most: tokens of this one. together: tokens of
        several prompts; a single one may have more.
        """
        first = self._choose_first(prompted)
        if first.row.sets_centers:
            # Its tokens decide what is subtracted from all later keys. So it is cut as for an
            # answer alone, whoever else asks.
            return Chunk([first], min(first.unrun, whole))
        others = [each for each in prompted if each is not first and not each.row.sets_centers]
        tokens = min(first.unrun, most)
        shortest = min(answer.unrun for answer in (first, *others))
        if 2 * shortest >= tokens:  # prompts of nearly one length run together
            tokens = min(tokens, shortest)
        fitting = [answer for answer in others if answer.unrun >= tokens]
        return Chunk([first, *fitting][: max(1, min(most, together) // tokens)], tokens)

    def _choose_first(self, prompted: Sequence[Answer]) -> Answer:
        """The oldest prompt and the one that is soonest done have every second chunk each, so that
        a short one does not wait for the end of a long one, and a long one comes to its end.
        """
        oldest, soonest = prompted[0], min(prompted, key=lambda answer: answer.unrun)
        chosen = soonest if self._oldest_ran else oldest
        self._oldest_ran = chosen is oldest
        return chosen
