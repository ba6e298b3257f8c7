"""The KL divergence of a model's logits from its source's, and its gradient at the last states."""

from dataclasses import dataclass

import torch
from torch import Tensor

from calculator.memory.healing import HEAD_ROWS, HEALED_POSITIONS
from quantize.heal.layer import norm


@dataclass(frozen=True)
class Head:
    """The last norm and the head of a model, and those of its source.

    Logits are computed in float32: in bfloat16 they round to steps of up to an eighth.
    """

    weight: Tensor
    """[V, C]."""
    source_weight: Tensor
    source_norm: Tensor
    """float32 [C]."""
    eps: float

    @torch.no_grad()
    def divergence(self, x: Tensor, of_source: Tensor, norm_weight: Tensor) -> float:
        """Return the mean over positions of the divergence of states, [n, C], from the source's."""
        total = 0.0
        for start in range(0, len(x), HEALED_POSITIONS):
            part = slice(start, start + HEALED_POSITIONS)
            normed = norm(x[part].float(), norm_weight, self.eps)
            expected, actual = self._log_probabilities(normed, of_source[part])
            total += _sum(expected, actual)
        return total / len(x)

    def gradients(
        self, x: Tensor, of_source: Tensor, norm_weight: Tensor
    ) -> tuple[float, Tensor, Tensor]:
        """Return the mean divergence, and its gradients by the states and by the norm's weight.

        x: float32 [n, C], the states before the last norm. The gradient by logits is the difference
        of the probabilities, so that nothing of their size is kept between the steps.
        """
        total, by_x = 0.0, torch.empty_like(x)
        weight = norm_weight.detach().requires_grad_()
        for start in range(0, len(x), HEALED_POSITIONS):
            part = slice(start, start + HEALED_POSITIONS)
            states = x[part].detach().requires_grad_()
            normed = norm(states, weight, self.eps)
            expected, actual = self._log_probabilities(normed.detach(), of_source[part])
            total += _sum(expected, actual)
            by_logits = actual.exp_().sub_(expected.exp_()).div_(len(x))
            normed.backward(_product(by_logits, self.weight))
            assert states.grad is not None
            by_x[part] = states.grad
        assert weight.grad is not None
        return total / len(x), by_x, weight.grad

    @torch.no_grad()
    def _log_probabilities(self, normed: Tensor, of_source: Tensor) -> tuple[Tensor, Tensor]:
        source = norm(of_source.float(), self.source_norm, self.eps)
        return (
            _logits(source, self.source_weight).log_softmax(-1),
            _logits(normed, self.weight).log_softmax(-1),
        )


def _sum(expected: Tensor, actual: Tensor) -> float:
    return float((expected.exp() * (expected - actual)).sum(-1).double().sum())


def _logits(normed: Tensor, weight: Tensor) -> Tensor:
    """Multiply by the head, some of its rows at a time: as float32 it takes twice its bytes."""
    parts = [normed @ rows.float().T for rows in weight.split(HEAD_ROWS)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _product(by_logits: Tensor, weight: Tensor) -> Tensor:
    result = by_logits.new_zeros(len(by_logits), weight.shape[1])
    for columns, rows in zip(
        by_logits.split(HEAD_ROWS, dim=-1), weight.split(HEAD_ROWS), strict=True
    ):
        result.addmm_(columns, rows.float())
    return result
