"""Train the factors by the divergence of the logits, one layer in memory at a time.

A step takes some samples through all layers, keeps the states before each of them, and goes back
from the head to the first layer: each layer is read and computed once more, this time for its
gradient, and its factors are moved at once (by Adam, https://arxiv.org/abs/1412.6980).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from quantize.calibrate.rotation import Rotation
from quantize.heal.divergence import Head
from quantize.heal.factors import Part, gradients, parts_of, read_part
from quantize.heal.layer import forward

FIRST_DECAY, SECOND_DECAY = 0.9, 0.95
"""How much of the means of gradients and of their squares is kept at a step."""
LEAST_SIZE = 1e-12
"""Is added to the size of gradients, which may be 0."""


@dataclass
class Progress:
    """How far the training is: all that a killed run needs to go on to the same factors."""

    factors: list[Tensor]
    """Logarithms, float32, of each part."""
    means: list[Tensor]
    """Adam's means of gradients."""
    squares: list[Tensor]
    best: list[Tensor]
    """The factors of least divergence on samples that train nothing."""
    step: int = 0
    checks: list[float] = field(default_factory=list)
    """Divergences on these samples so far."""

    @classmethod
    def begin(cls, parts: list[Part], device: torch.device) -> "Progress":
        """All factors are 1."""

        def zeros() -> list[Tensor]:
            return [torch.zeros(part.size, device=device) for part in parts]

        return cls(zeros(), zeros(), zeros(), zeros())

    def check(self, divergence: float) -> None:
        """Keep the factors if they do better than those before them on samples of the check."""
        if not self.checks or divergence < min(self.checks):
            self.best = [part.clone() for part in self.factors]
        self.checks.append(divergence)


class Trainer:
    """Takes samples through the quantized model, and moves its factors."""

    def __init__(
        self, stored: StoredModel, head: Head, embedding: Tensor, tokens: int, dtype: torch.dtype
    ) -> None:
        self._stored, self._head, self._embedding = stored, head, embedding
        self._dtype, self.device = dtype, head.weight.device
        self.parts, self.width = parts_of(stored), embedding.shape[1]
        self._rotation = Rotation.of_positions(stored.config, tokens, self.device)

    @torch.no_grad()
    def divergence(self, progress: Progress, token_ids: Tensor, of_source: Tensor) -> float:
        """The mean divergence on samples, [B, T], whose last states in the source are given."""
        for x in self._states(progress, token_ids):
            last = x
        return self._head.divergence(
            last.flatten(0, 1), of_source.flatten(0, 1), self._last_norm(progress)
        )

    def step(
        self, progress: Progress, token_ids: Tensor, of_source: Tensor, step_size: float
    ) -> float:
        """Move all factors by one step; returns the divergence before it."""
        with torch.no_grad():
            states = list(self._states(progress, token_ids))
        progress.step += 1
        last, weight = states.pop(), self._last_norm(progress)
        loss, by_x, by_weight = self._head.gradients(
            last.flatten(0, 1), of_source.flatten(0, 1), weight
        )
        self._move(progress, len(self.parts) - 1, by_weight * weight, step_size)
        by_x = by_x.view_as(last)
        for layer in reversed(range(len(self.parts) - 1)):
            tensors = self._read(progress, layer)
            x = states.pop().requires_grad_()
            for tensor in tensors.values():
                tensor.requires_grad_()
            forward(self._stored.config, tensors, x, self._rotation).backward(by_x)
            assert x.grad is not None
            by_x = x.grad
            self._move(progress, layer, gradients(self.parts[layer], tensors), step_size)
        return loss

    def _states(self, progress: Progress, token_ids: Tensor) -> Iterator[Tensor]:
        """Yield the states, float32 [B, T, C], before each layer and behind the last."""
        x = self._embedding[token_ids].to(self.device).float()
        yield x
        for layer in range(len(self.parts) - 1):
            x = forward(
                self._stored.config, self._read(progress, layer), x, self._rotation
            )  # fmt: skip
            yield x

    def _read(self, progress: Progress, layer: int) -> dict[str, Tensor]:
        return read_part(self._stored, self.parts[layer], progress.factors[layer], self._dtype)

    def _last_norm(self, progress: Progress) -> Tensor:
        """The weight of the norm behind the layers, float32 [C]."""
        behind = read_part(self._stored, self.parts[-1], progress.factors[-1], self._dtype)
        (tensor,) = behind.values()
        return tensor

    @torch.no_grad()
    def _move(self, progress: Progress, part: int, gradient: Tensor, step_size: float) -> None:
        """Take Adam's step along the means of gradients, each over the size of its own."""
        mean, square = progress.means[part], progress.squares[part]
        mean.mul_(FIRST_DECAY).add_(gradient, alpha=1 - FIRST_DECAY)
        square.mul_(SECOND_DECAY).addcmul_(gradient, gradient, value=1 - SECOND_DECAY)
        unbiased = mean / (1 - FIRST_DECAY**progress.step)
        size = (square / (1 - SECOND_DECAY**progress.step)).sqrt_().add_(LEAST_SIZE)
        progress.factors[part].addcdiv_(unbiased, size, value=-step_size)
