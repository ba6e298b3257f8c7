"""Sums over calibration tokens: all that a method needs to know of a stage's inputs.

For a linear W, on token t: f is the input that the source model gives it, g what the model gives it
that is quantized so far, r how far the source's residual stream is ahead of the quantized one. What
the quantized weight Q should return of g is then W f + r, and everything that follows from squared
errors follows from three sums.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from quantize.methods import native


@dataclass
class Moments:
    """Sums over tokens, float32."""

    hessian: Tensor
    """g^T g, [K, K]."""
    cross: Tensor
    """f^T g, [K, K]."""
    ahead: Tensor | None
    """r^T g, [C, K]; None where the linear's output does not join the stream as it is."""
    tokens: int = 0

    @classmethod
    def zeros(cls, inputs: int, stream: int | None, device: torch.device) -> "Moments":
        """Return sums over no token yet. stream: the width of the residual stream, if it counts."""

        def sums(rows: int) -> Tensor:
            return torch.zeros(rows, inputs, device=device)

        return cls(sums(inputs), sums(inputs), None if stream is None else sums(stream))

    def add(self, source: Tensor, quantized: Tensor, ahead: Tensor) -> None:
        """Count tokens: their inputs f and g, [n, K], and r, [n, C]."""
        _add_products(quantized, quantized, self.hessian)
        _add_products(source, quantized, self.cross)
        if self.ahead is not None:
            _add_products(ahead.to(quantized.dtype), quantized, self.ahead)
        self.tokens += len(quantized)

    @property
    def is_finite(self) -> bool:
        """Whether no sum has overflowed."""
        every = [self.hessian, self.cross, *([] if self.ahead is None else [self.ahead])]
        return all(bool(each.isfinite().all()) for each in every)

    def merge(self, other: "Moments") -> None:
        """Count the tokens of `other` as well."""
        self.hessian += other.hessian
        self.cross += other.cross
        if self.ahead is not None and other.ahead is not None:
            self.ahead += other.ahead
        self.tokens += other.tokens

    def missing(self, weight: Tensor, rows: Tensor | None = None) -> Tensor:
        """What W g lacks of W f + r, times g: (W (f^T g - g^T g) + r^T g).

        rows: the rows of the weight, [N, K], that are asked for; all if None.
        """
        chosen = weight if rows is None else weight[rows]
        result = chosen @ (self.cross - self.hessian)
        if self.ahead is not None:
            result += self.ahead if rows is None else self.ahead[rows]
        return result

    def target(self, weight: Tensor, *, ridge: float, trust: float) -> Tensor:
        """The weight, [N, K], that best makes W f + r of g, as far as it is trusted.

        GPTAQ (https://arxiv.org/abs/2504.02692) so corrects for f; r is one step further. It is
        the ridge regression W + (W (f^T g - g^T g) + r^T g) (g^T g)^-1.
        """
        if not trust:
            return weight
        damped = self.hessian.clone()
        damped.diagonal().add_(ridge * self.hessian.diagonal().mean())
        factor, failed = torch.linalg.cholesky_ex(damped)
        if failed:  # fewer tokens than inputs, and all alike: nothing to learn
            return weight
        return weight + trust * torch.cholesky_solve(self.missing(weight).T, factor).T

    def error(self, weight: Tensor, quantized: Tensor) -> float:
        """The sum over tokens of |W f + r - Q g|^2, but for a constant of Q."""
        wanted = weight @ self.cross
        if self.ahead is not None:
            wanted += self.ahead
        return float((quantized * (quantized @ self.hessian - 2 * wanted)).sum())

    def relative_error(self, weight: Tensor, quantized: Tensor) -> float:
        """|(W - Q) g|^2 / |W g|^2, summed over tokens: what rounding alone changed."""
        change = weight - quantized
        whole = float((weight * (weight @ self.hessian)).sum())
        return float((change * (change @ self.hessian)).sum()) / whole if whole else 0.0


def _add_products(left: Tensor, right: Tensor, sums: Tensor) -> None:
    """sums [M, K] += left^T right, of [n, M] and [n, K]."""
    if right.dtype == torch.bfloat16 and native.serves(right):
        native.gram(left.contiguous(), right.contiguous(), sums)
    else:
        sums.addmm_(left.float().T, right.float())
