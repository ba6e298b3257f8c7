"""Guesses the next tokens from the context: what followed its last tokens before.

Answers that quote, summarize or edit what is in the context repeat long runs of it (prompt lookup,
https://github.com/apoorvumang/prompt-lookup-decoding).
"""

from collections.abc import Sequence

from glm4q.decode.pace.step_costs import StepCosts

LONGEST, SHORTEST = 3, 2
"""Last tokens that are looked up, most first."""


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

    def __len__(self) -> int:
        return len(self._token_ids)

    def find(self) -> int | None:
        """The latest place behind the longest run of last tokens that is known."""
        for length in range(LONGEST, SHORTEST - 1, -1):
            if (place := self._places.get(tuple(self._token_ids[-length:]))) is not None:
                return place
        return None

    def read(self, place: int, count: int) -> list[int]:
        """The tokens from a place on; those that reach the end go on as they began."""
        guess = self._token_ids[place : place + count]
        period = len(self._token_ids) - place
        while len(guess) < count:
            guess.append(guess[-period])
        return guess


FIRST_SHARES = (0.25, 0.5, 0.65, 0.75, 0.8, 0.85, 0.9, 0.92, 0.94)
"""The share of right guesses that an answer begins with, by the right ones just before."""
FIRST_WEIGHT = 4.0
"""Guesses that such a share stands for."""
KEPT = 0.98
"""What a guess still weighs when the next one is judged: about the last fifty count."""


class Acceptance:
    """How often guesses are right: the more of them were right just before, the oftener.

    All guesses are judged, those that were not verified by a step too, so it is known at once when
    an answer begins to quote.
    """

    def __init__(self) -> None:
        self._tried = [FIRST_WEIGHT] * len(FIRST_SHARES)
        self._right = [FIRST_WEIGHT * share for share in FIRST_SHARES]
        self.streak = 0
        """Guesses that were right since the last wrong one."""

    def judge(self, *, right: bool) -> None:
        """Learn whether the next guess was right."""
        place = self._place(0)
        self._tried[place] = self._tried[place] * KEPT + 1
        self._right[place] = self._right[place] * KEPT + right
        self.streak = self.streak + 1 if right else 0

    def share(self, further: int) -> float:
        """The expected share of right guesses, once so many further ones were right."""
        place = self._place(further)
        return self._right[place] / self._tried[place]

    def _place(self, further: int) -> int:
        return min(self.streak + further, len(FIRST_SHARES) - 1)


FOLLOWED_FROM = 3
"""Right guesses from which the answer is taken to quote that place: what comes next is guessed from
there, and not looked up, also behind one word that the answer changes."""
LEAST_GAIN = 1.03
"""Tokens a second with a draft over those without: less is not worth the trial."""


class Drafter:
    """Guesses as many tokens as pay: by how often guesses were right, and what steps cost here.

    Each token is picked from the model's own logits whatever was guessed, and its bits do not
    depend on the other tokens of its step. So drafts change nothing but the speed of an answer.
    """

    def __init__(self, token_ids: Sequence[int], most: int, costs: StepCosts) -> None:
        """most: tokens of a draft; with 0 no index is kept. costs: measured, of all answers."""
        self._lookup = Lookup(token_ids) if most else None
        self._costs = costs
        self.most = most
        self._acceptance = Acceptance()
        self._expected: list[int] = []
        self._place = 0
        """Where the next expected token stands."""
        self._follows = self._has_missed = False

    def append(self, token: int) -> None:
        """Add a token of the answer, and judge what was guessed in its place."""
        if self._lookup is None:
            return
        self._lookup.append(token)
        if self._expected:
            right = self._expected.pop(0) == token
            self._acceptance.judge(right=right)
            self._place += 1
            if right:
                self._follows |= self._acceptance.streak >= FOLLOWED_FROM
            else:
                self._expected = []
                self._follows &= not self._has_missed
                if self._follows:  # most likely the next word is quoted again
                    self._acceptance.streak = FOLLOWED_FROM - 1
            self._has_missed = not right

    def draft(self, room: int) -> list[int]:
        """Guesses of the next tokens that are worth a step of more rows, at most `room`."""
        if self._lookup is None:
            return []
        most = min(self.most, room)
        follows = self._follows and self._place < len(self._lookup)
        place = self._place if follows else self._lookup.find()
        if place is None:
            self._acceptance.streak, self._expected = 0, []
            return []
        self._place, self._expected = place, self._lookup.read(place, most + 1)
        return self._expected[: self._worth(min(most, len(self._expected)))]

    def _worth(self, most: int) -> int:
        """The number of guesses, up to `most`, by which tokens come fastest; 0 where none pays."""
        best, fastest = 0, LEAST_GAIN
        reached = tokens = 1.0
        for count, cost in enumerate(self._costs.ratios(most), 1):
            reached *= self._acceptance.share(count - 1)
            tokens += reached
            if tokens / cost > fastest:
                best, fastest = count, tokens / cost
        return best
