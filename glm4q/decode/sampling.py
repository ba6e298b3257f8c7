"""From logits to the next token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from numbers import Real
from typing import Protocol

import torch
from torch import Tensor

from calculator.errors import OptionError
from glm4q.decode.likely import draw, draw_likely, keep_likely, likeliest, penalize

GREEDY_BELOW = 1e-5
"""A lower temperature takes the likeliest token: logits divided by it would overflow float32."""
NUMBERS = ("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty",
           "frequency_penalty")  # fmt: skip
COUNTS = ("top_k", "seed", "max_tokens", "log_probabilities")
MOST_BIAS = 100
"""OpenAI's bound of a bias: -100 keeps a token out, 100 all but chooses it."""


@dataclass(frozen=True)
class SamplingParams:
    """How the next token is picked, and when to stop."""

    temperature: float = 1.0
    """0 takes the likeliest token every time."""
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probabilities reach this."""
    top_k: int = 0
    """Keep this many of the likeliest tokens; 0 keeps all."""
    min_p: float = 0.0
    """Drop tokens less likely than this share of the likeliest."""
    repetition_penalty: float = 1.0
    """Divide the logits of tokens already in the context by this (https://arxiv.org/abs/1909.05858)."""
    presence_penalty: float = 0.0
    """Subtract this from the logits of tokens that the answer already has."""
    frequency_penalty: float = 0.0
    """Subtract this from a token's logit once for each time that the answer has it."""
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    """Add this to the logits of these token ids."""
    seed: int | None = None
    """One seed always gives one answer; None takes a new seed each time."""
    max_tokens: int | None = None
    """Tokens to produce at most; None is what the context has room for."""
    stop_token_ids: frozenset[int] = frozenset()
    loop_guard: bool = False
    """End an answer that repeats itself without end (glm4q/decode/loop_guard.py has the rule)."""
    log_probabilities: int | None = None
    """So many of the likeliest tokens come with each token, with their log-probabilities."""

    def __post_init__(self) -> None:
        self._check_types()
        if not 0 <= self.temperature <= 100:
            raise OptionError(f"temperature must be 0 to 100, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise OptionError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if self.top_k < 0:
            raise OptionError(f"top_k must be 0 or more, not {self.top_k}")
        if not 0 <= self.min_p <= 1:
            raise OptionError(f"min_p must be 0 to 1, not {self.min_p}")
        if not 0 < self.repetition_penalty <= 100:
            raise OptionError(
                f"repetition_penalty must be above 0 and at most 100, not {self.repetition_penalty}"
            )
        for name in ("presence_penalty", "frequency_penalty"):
            if not -2 <= getattr(self, name) <= 2:
                raise OptionError(f"{name} must be -2 to 2, not {getattr(self, name)}")
        for token, bias in self.logit_bias.items():
            if not (token >= 0 and -MOST_BIAS <= bias <= MOST_BIAS):
                raise OptionError(
                    f"logit_bias must give token ids a number from -{MOST_BIAS} to {MOST_BIAS}, "
                    f"not {token} {bias}"
                )
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise OptionError(f"seed must be 0 to 2**63 - 1, not {self.seed}")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise OptionError(f"max_tokens must be at least 1, not {self.max_tokens}")
        if self.log_probabilities is not None and self.log_probabilities < 0:
            raise OptionError(f"log_probabilities must be 0 or more, not {self.log_probabilities}")

    def _check_types(self) -> None:
        """Raise OptionError for what Python callers give and no comparison with a number takes."""
        for name in NUMBERS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise OptionError(f"{name} must be a number, not {value!r}")
        for name in COUNTS:
            value = getattr(self, name)
            may_be_none = name != "top_k"
            if not (value is None and may_be_none) and type(value) is not int:
                raise OptionError(f"{name} must be a whole number, not {value!r}")

    def check_tokens(self, vocab_size: int) -> None:
        """Raise OptionError where a bias names a token that a model of this vocabulary lacks."""
        largest = max(self.logit_bias, default=0)
        if largest >= vocab_size:
            raise OptionError(
                f"logit_bias: the model has the tokens 0 to {vocab_size - 1}, not {largest}"
            )


class Constraint(Protocol):
    """Which tokens may come next, such as those of a grammar. It knows what came before.

    Its methods raise a Glm4qError where it cannot go on.
    """

    @property
    def complete(self) -> bool:
        """Whether the answer may end here."""

    @property
    def finished(self) -> bool:
        """Whether no token may follow but one that ends the answer."""

    def mask(self, logits: Tensor) -> Tensor:
        """Return logits, float32 [V], in which tokens that may not come next are -inf."""

    def accept(self, token: int) -> None:
        """Go on behind a token that was picked."""

    def draft(self, guess: Sequence[int], most: int) -> list[int]:
        """Return tokens that must come, at most so many, or as much of a guess as may come."""


@dataclass(frozen=True)
class LogProbabilities:
    """How likely a token was by the model's own logits, and which others were likely."""

    picked: float
    """The natural logarithm of the picked token's probability."""
    top: tuple[tuple[int, float], ...]
    """The likeliest tokens and the logarithms of theirs, the likeliest first."""


@dataclass(frozen=True)
class Pick:
    """A token that was picked."""

    token: int
    finite: bool
    """Whether all of the model's logits were finite; if not, the token means nothing."""
    log_probabilities: LogProbabilities | None


class Sampler:
    """Picks tokens one after another; owns the random state of one answer, and what it has seen.

    It works where the logits lie; only the picked token leaves their device.
    """

    def __init__(
        self,
        params: SamplingParams,
        device: torch.device,
        context: Sequence[int] = (),
        constraint: Constraint | None = None,
    ) -> None:
        """context: all token ids so far."""
        self.params = params
        self._context, self._constraint = context, constraint
        self._seen: Tensor | None = None
        self._bias: tuple[Tensor, Tensor] | None = None  # token ids, and what each is given
        self._counts: Tensor | None = None  # how often the answer has each token
        self._generator = torch.Generator(device)
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed)

    @property
    def only_likeliest(self) -> bool:
        """Whether the pick is the likeliest token by the model's own logits, and nothing more."""
        params = self.params
        return (
            params.temperature < GREEDY_BELOW
            and params.repetition_penalty == 1.0
            and not (params.presence_penalty or params.frequency_penalty or params.logit_bias)
            and params.log_probabilities is None
            and self._constraint is None
        )

    def __call__(self, logits: Tensor) -> Pick:
        """Pick the next token. logits: the model's, float32 [V]; they are not changed.

        Raises OptionError where a bias names a token that the model lacks, and what the constraint
        raises.
        """
        picked = self._pick(self._changed(logits))
        # One copy from the device brings the token and the sum of all logits, which is finite
        # only where each of them is.
        number, total = torch.stack([picked.double(), logits.sum().double()]).tolist()
        token, finite = int(number), isfinite(total)
        # A range is filled on the device; a number for one place would be copied there.
        if self._seen is not None:
            self._seen[token : token + 1].fill_(True)
        if self._counts is not None:
            self._counts[token : token + 1].add_(1)
        if self._constraint is not None and finite:
            self._constraint.accept(token)
        return Pick(token, finite, self._log_probabilities(logits, token) if finite else None)

    def _changed(self, logits: Tensor) -> Tensor:
        """Apply what the settings and the constraint say of each token."""
        if self._constraint is not None:
            logits = self._constraint.mask(logits.clone())
        return self._penalized(self._less_often(self._biased(logits)))

    def _biased(self, logits: Tensor) -> Tensor:
        bias = self.params.logit_bias
        if not bias:
            return logits
        if self._bias is None:
            self.params.check_tokens(len(logits))
            device = logits.device
            values = torch.tensor([*bias.values()], dtype=logits.dtype, device=device)
            self._bias = torch.tensor([*bias], device=device), values
        return logits.index_add(0, *self._bias)

    def _penalized(self, logits: Tensor) -> Tensor:
        if self.params.repetition_penalty == 1.0:
            return logits
        if self._seen is None:
            self._seen = torch.zeros_like(logits, dtype=torch.bool)
            self._seen[torch.tensor(self._context, dtype=torch.int64)] = True
        return penalize(logits, self._seen, self.params.repetition_penalty)

    def _less_often(self, logits: Tensor) -> Tensor:
        presence, frequency = self.params.presence_penalty, self.params.frequency_penalty
        if not presence and not frequency:
            return logits
        if self._counts is None:
            self._counts = torch.zeros_like(logits)
        return logits - presence * (self._counts > 0) - frequency * self._counts

    def _pick(self, logits: Tensor) -> Tensor:
        if self.params.temperature < GREEDY_BELOW:
            return likeliest(logits)
        logits = logits / self.params.temperature
        if logits.device.type == "cpu":
            return draw_likely(logits, self.params, self._generator)
        return draw(keep_likely(logits, self.params).softmax(-1), self._generator)

    def _log_probabilities(self, logits: Tensor, token: int) -> LogProbabilities | None:
        if self.params.log_probabilities is None:
            return None
        every = logits.log_softmax(-1)
        values, tokens = every.topk(min(self.params.log_probabilities, len(every)))
        top = zip(tokens.tolist(), values.tolist(), strict=True)
        return LogProbabilities(float(every[token]), tuple(top))


def pick_likeliest(logits: Tensor) -> list[Pick]:
    """Pick the likeliest token of each row of logits, float32 [B, V], in one go."""
    both = torch.stack([likeliest(logits).double(), logits.sum(-1).double()], -1).tolist()
    return [Pick(int(number), isfinite(total), None) for number, total in both]
