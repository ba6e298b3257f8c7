"""What a decoding step costs by the number of its tokens, measured as it runs."""

from collections import deque
from collections.abc import Mapping

ASSUMED = 0.15
"""The share of a step that each further token is taken to cost until it was measured."""
TRIALS = 3
"""Measurements from which a cost counts. The first ones compile kernels and record graphs."""
KEPT = 8
"""The latest measurements of a kind of step. Their least counts: other programs only add to it."""
FORGOTTEN = 512
"""Steps after which a cost that was not measured again is not known any more."""


class StepCosts:
    """Seconds of steps that decode one answer, by their tokens; the latest of each kind."""

    def __init__(self) -> None:
        self._seconds: dict[int, deque[float]] = {}
        self._measured_at: dict[int, int] = {}
        self._steps = 0

    def note(self, tokens: int, seconds: float) -> None:
        """Learn what a step of so many tokens took."""
        self._steps += 1
        self._seconds.setdefault(tokens, deque(maxlen=KEPT)).append(seconds)
        self._measured_at[tokens] = self._steps

    def ratios(self, most: int) -> list[float]:
        """The costs of steps of 1, 2 ... `most` tokens beside their own, over that of one token.

        What was not measured lies on the line through its measured neighbours.
        """
        known = self._known()
        below, ratios = 1, []
        for tokens in range(2, most + 2):
            if tokens in known:
                below = tokens
            ratios.append(known[below] + _slope(known, below) * (tokens - below))
        return ratios

    def _known(self) -> dict[int, float]:
        """Ratios that were measured often enough, and lately; that of one token is 1."""
        if len(self._seconds.get(1, ())) < TRIALS:
            return {1: 1.0}
        one = min(self._seconds[1])
        lately = {
            tokens: min(seconds) / one
            for tokens, seconds in self._seconds.items()
            if len(seconds) >= TRIALS and self._steps - self._measured_at[tokens] < FORGOTTEN
        }
        return lately | {1: 1.0}


def _slope(known: Mapping[int, float], below: int) -> float:
    """What a token adds to the ratio behind a measured number of tokens."""
    above = min((each for each in known if each > below), default=None)
    if above is not None:
        return (known[above] - known[below]) / (above - below)
    return (known[below] - 1) / (below - 1) if below > 1 else ASSUMED
