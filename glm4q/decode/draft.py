"""Guesses the next tokens from the context: what followed its last tokens before.

Answers that quote, summarize or edit what is in the context repeat long runs of it (prompt lookup,
https://github.com/apoorvumang/prompt-lookup-decoding).
"""

from collections.abc import Sequence

LONGEST, SHORTEST = 3, 2
"""Last tokens that are looked up, most first."""
LONGEST_PAUSE = 64
"""Tokens without a guess, after many that were wrong."""


class Lookup:
    """An index of the places behind each run of tokens, kept up as tokens come."""

    def __init__(self, token_ids: Sequence[int]) -> None:
        self._token_ids: list[int] = []
        self._places: dict[tuple[int, ...], int] = {}
        for token in token_ids:
            self.append(token)

    def append(self, token: int) -> None:
        """Add a token. The runs before it are known from now on, those that it ends are not yet."""
        for length in range(SHORTEST, LONGEST + 1):
            if len(self._token_ids) >= length:
                self._places[tuple(self._token_ids[-length:])] = len(self._token_ids)
        self._token_ids.append(token)

    def next_tokens(self, count: int) -> list[int]:
        """What followed the latest place of the longest run of last tokens that is known."""
        known = self._token_ids
        for length in range(LONGEST, SHORTEST - 1, -1):
            if (place := self._places.get(tuple(known[-length:]))) is not None:
                guess = known[place : place + count]
                period = len(known) - place  # a run that reaches the end goes on as it began
                while len(guess) < count:
                    guess.append(guess[-period])
                return guess
        return []


class Drafter:
    """Asks a lookup for as many tokens as lately held, and not at all for a while after none did.

    So where guesses fail they cost little. All depends on the tokens alone, not on time: the same
    tokens are always run in the same steps.
    """

    def __init__(self, token_ids: Sequence[int], most: int) -> None:
        """most: tokens of a draft; with 0 no index is kept."""
        self._lookup = Lookup(token_ids) if most else None
        self.most = self._length = most
        self._failures = self._pause = 0

    def append(self, token: int) -> None:
        """Add a token of the answer."""
        if self._lookup:
            self._lookup.append(token)

    def draft(self, room: int) -> list[int]:
        """Guesses of the next tokens, at most `room`."""
        if self._lookup is None:
            return []
        if self._pause:
            self._pause -= 1
            return []
        return self._lookup.next_tokens(min(self._length, room))

    def judge(self, drafted: int, accepted: int) -> None:
        """Learn how many tokens of a draft were right."""
        if not drafted:
            return
        if accepted:
            self._failures = 0
            self._length = min(2 * accepted, self.most)
        else:
            self._failures += 1
            self._length = max(self._length // 2, 1)
            self._pause = min(2**self._failures, LONGEST_PAUSE)
