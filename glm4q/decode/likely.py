"""Which tokens may be picked, and one of them by chance."""

from typing import Protocol

import torch
from torch import Tensor

FIRST_PART = 256
"""The likeliest tokens that are looked at first; where these are not enough, 8 times as many."""


class Rules(Protocol):
    """How likely a token must be; SamplingParams says what each means."""

    @property
    def top_p(self) -> float: ...
    @property
    def top_k(self) -> int: ...
    @property
    def min_p(self) -> float: ...


def draw(probabilities: Tensor, generator: torch.Generator) -> Tensor:
    """A token with these probabilities, on their device: the first of exponential waiting times.

    torch.multinomial does the same, but waits for the device to check its input.
    """
    waiting = torch.empty_like(probabilities).exponential_(generator=generator)
    shortest = torch.finfo(waiting.dtype).tiny  # some generators give 0, by which none may divide
    return torch.div(probabilities, waiting.clamp_(min=shortest), out=waiting).argmax()


def likeliest(logits: Tensor) -> Tensor:
    """The place of the largest number in each row of logits, [..., V]; the first where two are.

    On a CPU torch looks at one number after another: ten times as long as numpy does.
    """
    if logits.device.type != "cpu":
        return logits.argmax(-1)
    return torch.as_tensor(logits.numpy().argmax(-1))


def penalize(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make tokens that `seen`, bool [V], marks less likely: positive logits shrink, others grow."""
    less_likely = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, less_likely, logits)


def keep_likely(logits: Tensor, rules: Rules) -> Tensor:
    """Set the logits of all tokens outside top_k, top_p and min_p to -inf, in that order."""
    if rules.top_k:
        weakest = logits.topk(min(rules.top_k, logits.numel())).values[-1]
        logits = logits.masked_fill(logits < weakest, -torch.inf)
    if rules.top_p < 1:
        ordered, order = logits.sort(descending=True)
        probabilities = ordered.softmax(-1)
        # A token is dropped where those before it already reach top_p; the first never is.
        reached = probabilities.cumsum(-1) - probabilities >= rules.top_p
        logits = logits.masked_fill(reached.scatter(0, order, reached), -torch.inf)
    if rules.min_p:
        probabilities = logits.softmax(-1)
        unlikely = probabilities < rules.min_p * probabilities.max()
        logits = logits.masked_fill(unlikely, -torch.inf)
    return logits


def draw_likely(logits: Tensor, rules: Rules, generator: torch.Generator) -> Tensor:
    """Draw a token by the same probabilities as `draw` of what `keep_likely` keeps.

    Sorting a vocabulary of 150,000 tokens and as many random numbers take longer on a CPU than a
    layer. Here only as many of the likeliest are sorted as the rules keep, and one random number is
    drawn. Asking whether they are enough waits for the device, so a GPU is not asked.
    """
    if rules.top_p == 1 and not rules.top_k and not rules.min_p:
        return _place(logits.softmax(-1), generator)
    tokens, probabilities = likely_tokens(logits, rules)
    return tokens[_place(probabilities, generator)]


def likely_tokens(logits: Tensor, rules: Rules) -> tuple[Tensor, Tensor]:
    """The tokens that `keep_likely` keeps, the likeliest first, and their probabilities before
    those of the others are spread over them.
    """
    most = min(rules.top_k or len(logits), len(logits))
    part = most if rules.top_k else min(FIRST_PART, most)  # top_k's other tokens do not count
    while True:
        values, tokens = logits.topk(part)
        total = values if rules.top_k else logits
        probabilities = (values - total.logsumexp(-1)).exp()
        kept = probabilities.cumsum(-1) - probabilities < rules.top_p
        kept &= probabilities >= rules.min_p * probabilities[0]
        kept[0] = True  # also of logits that are not finite, which whoever asked finds out
        if part == most or not kept[-1]:
            count = int(kept.sum())
            return tokens[:count], probabilities[:count]
        part = min(8 * part, most)


def _place(weights: Tensor, generator: torch.Generator) -> Tensor:
    """A place, as likely as its weight."""
    sums = weights.double().cumsum(-1)
    drawn = torch.rand((), dtype=sums.dtype, device=sums.device, generator=generator) * sums[-1]
    # The first place whose sum is above: one without weight adds nothing, and is never it.
    return torch.searchsorted(sums, drawn, right=True).clamp_(max=len(sums) - 1)
