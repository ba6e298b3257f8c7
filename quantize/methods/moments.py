"""Sums over calibration tokens: all that a method needs to know of a stage's inputs.

For a linear W, on token t: f is the input that the source model gives it, g what the model gives it
that is quantized so far, r how far the source's residual stream is ahead of the quantized one. What
the quantized weight Q should return of g is then W f + r, and everything that follows from squared
errors follows from g^T g and from what W g lacks, times g: (W (f - g) + r)^T g.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from quantize.methods import native
from quantize.methods.products import add_product

ROWS_REPORTED = 512
"""The error that a report gives is that of so many rows of a weight, evenly spread: all of them
would take a tenth of the time of quantizing."""


@dataclass
class Moments:
    """Sums over tokens, float32."""

    hessian: Tensor
    """g^T g, [K, K]."""
    cross: Tensor | None
    """f^T g, [K, K], from which follows what any weight lacks, where r does not count."""
    lacking: Tensor | None
    """(W (f - g) + r)^T g, [N, K], where one weight W reads the input; then there is no `cross`.
    W has fewer outputs than inputs, so that this costs less."""
    tokens: int = 0
    head_errors: dict[str, Tensor] = field(default_factory=dict)
    """What attention makes of errors in a linear's outputs, [heads, D, D], by its name; of q_proj
    and k_proj where it was measured."""

    @classmethod
    def zeros(cls, inputs: int, outputs: int | None, device: torch.device) -> "Moments":
        """Return sums over no token yet. outputs: of the one weight, for sums of what it lacks."""

        def sums(rows: int) -> Tensor:
            return torch.zeros(rows, inputs, device=device)

        if outputs is None:
            return cls(sums(inputs), sums(inputs), None)
        return cls(sums(inputs), None, sums(outputs))

    def add(self, source: Tensor, quantized: Tensor, lack: Tensor | None = None) -> None:
        """Count tokens: their inputs f and g, [n, K]; lack: W (f - g) + r, [n, N], if it counts."""
        _add_products(quantized, quantized, self.hessian)
        if self.cross is not None:
            _add_products(source, quantized, self.cross)
        if self.lacking is not None and lack is not None:
            _add_products(lack.to(quantized.dtype), quantized, self.lacking)
        self.tokens += len(quantized)

    @property
    def is_finite(self) -> bool:
        """Whether no sum has overflowed."""
        every = [*self._sums(), *self.head_errors.values()]
        ends = [end for each in every for end in each.aminmax()]
        return bool(torch.stack(ends).isfinite().all())

    def merge(self, other: "Moments") -> None:
        """Count the tokens of `other` as well."""
        for ours, theirs in zip(self._sums(), other._sums(), strict=True):
            ours += theirs
        self.tokens += other.tokens

    def blend(self, other: "Moments", share: float) -> None:
        """Add the sums of `other`, scaled so that their diagonal has this share of ours."""
        size = other.hessian.diagonal().sum().clamp(min=torch.finfo(torch.float32).tiny)
        scale = float(share * self.hessian.diagonal().sum() / size)
        for ours, theirs in zip(self._sums(), other._sums(), strict=True):
            ours.add_(theirs, alpha=scale)

    def _sums(self) -> list[Tensor]:
        return [each for each in (self.hessian, self.cross, self.lacking) if each is not None]

    def missing(self, weight: Tensor, rows: Tensor | None = None) -> Tensor:
        """What W g lacks, times g: (W (f - g) + r)^T g.

        rows: the rows of the weight, [N, K], that are asked for; all if None.
        """
        if self.lacking is not None:
            return self.lacking if rows is None else self.lacking[rows]
        assert self.cross is not None
        return (weight if rows is None else weight[rows]) @ (self.cross - self.hessian)

    def target(self, weight: Tensor, *, ridge: float, trust: float) -> Tensor:
        """The weight, [N, K], that best makes W f + r of g, as far as it is trusted.

        GPTAQ (https://arxiv.org/abs/2504.02692) so corrects for f; r is one step further. It is
        the ridge regression W + (W (f - g) + r)^T g (g^T g)^-1.
        """
        if not trust:
            return weight
        damped = self.hessian.clone()
        damped.diagonal().add_(ridge * self.hessian.diagonal().mean())
        lower, failed = torch.linalg.cholesky_ex(damped)
        del damped
        if failed:  # fewer tokens than inputs, and all alike: nothing to learn
            return weight
        if self.cross is None or len(weight) <= len(lower):
            return torch.add(weight, _divided(self.missing(weight), lower), alpha=trust)
        # Inputs are fewer than rows, so they are divided, and the rows multiplied.
        target = weight.clone()
        add_product(target, weight, _divided(self.cross - self.hessian, lower).mul_(trust))
        return target

    def error(self, weight: Tensor, quantized: Tensor) -> float:
        """The sum over tokens of |W f + r - Q g|^2, but for a constant of Q."""
        wanted = weight @ self.hessian + self.missing(weight)
        return float((quantized * (quantized @ self.hessian - 2 * wanted)).sum())

    def relative_error(self, weight: Tensor, quantized: Tensor) -> float:
        """|(W - Q) g|^2 / |W g|^2, summed over tokens and some rows: what rounding changed."""
        rows = spread(len(weight), ROWS_REPORTED, weight.device)
        weight, quantized = weight[rows], quantized[rows]
        change = weight - quantized
        whole = float((weight * (weight @ self.hessian)).sum())
        return float((change * (change @ self.hessian)).sum()) / whole if whole else 0.0


def spread(size: int, count: int, device: torch.device) -> Tensor:
    """Choose `count` numbers below `size`, or all if these are fewer, evenly spread."""
    return torch.linspace(0, size - 1, min(size, count), device=device).round().long()


def _divided(rows: Tensor, lower: Tensor) -> Tensor:
    """Multiply rows [n, K] by the inverse of L L^T. `torch.cholesky_solve` takes twice as long."""
    half_way = torch.linalg.solve_triangular(lower.mT, rows, upper=True, left=False)
    return torch.linalg.solve_triangular(lower, half_way, upper=False, left=False)


def _add_products(left: Tensor, right: Tensor, sums: Tensor) -> None:
    """sums [M, K] += left^T right, of [n, M] and [n, K]."""
    if right.dtype == torch.bfloat16 and native.serves(right):
        native.gram(left.contiguous(), right.contiguous(), sums)
    else:
        sums.addmm_(left.float().T, right.float())
