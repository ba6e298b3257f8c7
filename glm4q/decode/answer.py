"""One answer while it is decoded, and its events: tokens, and the reason for which it ends."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from calculator.errors import Glm4qError, OptionError
from glm4q.decode.draft import Drafter
from glm4q.decode.loop_guard import LoopGuard
from glm4q.decode.pace.step_costs import StepCosts
from glm4q.decode.row import Row
from glm4q.decode.sampling import (
    Constraint,
    LogProbabilities,
    Pick,
    Sampler,
    SamplingParams,
)

FinishReason = Literal["stop", "length", "repetition", "cancelled", "error"]
"""A stop token came; max_tokens was reached or the row is full; the answer repeated itself without
end; it was cancelled; it failed."""


@dataclass(frozen=True)
class Token:
    """The next token of an answer."""

    token: int
    log_probabilities: LogProbabilities | None = None
    """None where they were not asked for."""


@dataclass(frozen=True)
class End:
    """The end of an answer; no event follows it."""

    reason: FinishReason
    error: Glm4qError | None = None
    """What failed, where the reason is "error"."""


Event = Token | End


class Answer:
    """A sequence in a row of the cache: a prompt, and the tokens that are picked after it."""

    def __init__(
        self,
        row: Row,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        device: torch.device,
        draft_tokens: int = 0,
        costs: StepCosts | None = None,
        constraint: Constraint | None = None,
    ) -> None:
        """Keep what the row holds of the prompt. Raises OptionError where the prompt does not fit.

        device: where logits come out. draft_tokens: tokens of a guess at most. costs: of the
        steps so far, by which it is seen how many pay.
        """
        room = row.room - len(prompt)
        if not prompt or room <= 0:
            raise OptionError(
                f"the prompt takes {len(prompt)} tokens, and a row holds 1 to {row.room}"
            )
        self.row, self.params = row, params
        self.prompt_tokens = len(prompt)
        self.cached_tokens = row.begin(prompt)
        """Prompt tokens that were in the cache already."""
        self.events: list[Event] = []
        """All that has happened, from the first token to the end."""
        self.finish_reason: FinishReason | None = None
        """Why the answer has ended; None while it has not."""
        self._left = room if params.max_tokens is None else min(params.max_tokens, room)
        self._constraint = constraint
        self._sampler = Sampler(params, device, prompt, constraint)
        self._drafter = Drafter(prompt, draft_tokens, costs or StepCosts())
        self._loop_guard = LoopGuard(prompt) if params.loop_guard else None

    @property
    def tokens(self) -> int:
        """Tokens of the answer so far."""
        return len(self.row.token_ids) - self.prompt_tokens

    @property
    def unrun(self) -> int:
        """How many known tokens are not in the cache; 1, the newest, while the answer goes on."""
        return len(self.row.token_ids) - self.row.cache.length

    def next_tokens(self, count: int) -> list[int]:
        """The first tokens, at most `count`, that are not in the cache."""
        start = self.row.cache.length
        return self.row.token_ids[start : start + count]

    @property
    def cut(self) -> bool:
        """Whether it has ended before it was what its constraint demands."""
        ended = self.finish_reason in ("stop", "length", "repetition")
        return ended and self._constraint is not None and not self._constraint.complete

    def draft(self) -> list[int]:
        """Guess tokens to come from the constraint or the context, once the answer has begun."""
        if not self.tokens:
            return []
        guess = self._drafter.draft(self._left - 1)
        if self._constraint is None:
            return guess
        return self._constraint.draft(guess, min(self._drafter.most, self._left - 1))

    @property
    def takes_likeliest(self) -> bool:
        """Whether each token is the likeliest by the model's own logits, and nothing more."""
        return self._sampler.only_likeliest

    def take(
        self, logits: Tensor, draft: Sequence[int] = (), likeliest: Pick | None = None
    ) -> bool:
        """Pick tokens from logits, [1 + draft, V], as long as each guess is what was picked.

        Every token is picked from the model's own logits, one after another: a guess that is not
        what was picked is dropped, with all behind it. likeliest: the pick, where it was made
        already for an answer that takes the likeliest. Returns whether all logits were finite.
        The answer ends with an error where its settings or its constraint cannot be honoured.
        """
        for own, guess in zip(logits, [*draft, None], strict=True):
            try:
                pick = self._sampler(own) if likeliest is None else likeliest
            except Glm4qError as error:
                self.end("error", error)
                return True
            if not pick.finite:
                return False
            if pick.token in self.params.stop_token_ids:
                self.end("stop")
                return True
            self.row.token_ids.append(pick.token)
            self._drafter.append(pick.token)
            self.events.append(Token(pick.token, pick.log_probabilities))
            self._left -= 1
            if self._constraint is not None and self._constraint.finished:
                self.end("stop")
                return True
            if self._loop_guard is not None and self._loop_guard.repeats(self.row.token_ids):
                self.end("repetition")
                return True
            if pick.token != guess:
                break
        if not self._left:
            self.end("length")
        return True

    def settle(self) -> None:
        """Drop wrong guesses from the cache; while the answer goes on, its newest token is to be
        run.
        """
        going_on = self.finish_reason is None
        self.row.settle(len(self.row.token_ids) - (1 if going_on else 0))

    def end(self, reason: FinishReason, error: Glm4qError | None = None) -> None:
        """Note why the answer ends."""
        self.finish_reason = reason
        self.events.append(End(reason, error))
        self.settle()
