"""GPTQ (https://arxiv.org/abs/2210.17323): round inputs one by one, and correct the inputs that
are not rounded yet for each error, as the Hessian of calibration activations says.

Inputs go by falling activation, while each keeps the group, scale and zero point of its own place:
the order costs the reader nothing (`desc_act` stays false).

The paper corrects by the inverse of the Hessian H. This does the same without an inverse, as QuIP
shows (https://arxiv.org/abs/2307.13304): with H = R D R^T, R an upper triangle with ones on its
diagonal, an input is best rounded when the errors e of the inputs before it times its column of R
are added to it. What rounding then changes is E = e R, and the slope of the output error, e H, that
coordinate descent begins with is E D R^T: half of a product.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calculator.errors import CheckpointError
from calculator.memory.making import ROWS
from calculator.model.formats import WeightFormat
from quantize.methods import rtn
from quantize.methods.blocks.choose import choose_blocks
from quantize.methods.codes import Codes, join
from quantize.methods.operands import Compensation
from quantize.methods.products import add_product
from quantize.methods.refine import refine

BLOCK = 64
"""After so many columns, a product corrects those of their stretch that are not rounded yet."""
STRETCH = 512
"""After so many columns, a product corrects all that are not rounded yet: with few at a time it
would wait for memory."""
LEAST_DAMPING = 0.01
"""This share of the mean diagonal is added to the Hessian's diagonal at least."""
MOST_DAMPING = 10.0
"""The damping grows tenfold until the Hessian can be factored, up to this share."""


@dataclass(frozen=True)
class Factors:
    """The damped Hessian and its factors, in the order in which inputs are rounded."""

    damped: Tensor
    """float32 [K, K], in the inputs' own order."""
    root: Tensor
    """R, float32 [K, K]: an upper triangle with ones on its diagonal."""
    sizes: Tensor
    """D, float32 [K]."""
    order: Tensor
    """int64 [K]: the inputs in the order of rounding."""

    def cpu(self) -> "Factors":
        """The factors in the host's memory."""
        tensors = self.damped, self.root, self.sizes, self.order
        return Factors(*(each.cpu() for each in tensors))


def quantize(
    weight: Tensor, hessian: Tensor, weight_format: WeightFormat, damping: float = LEAST_DAMPING
) -> Codes:
    """Codes of `weight`, [N, K], for inputs whose sum of x^T x is `hessian`, float32 [K, K].

    damping: the share of the mean diagonal to add to the diagonal. Raises CheckpointError where
    the Hessian cannot be factored at any damping.
    """
    return quantize_rows(weight, factor(hessian, damping), weight_format)


def quantize_rows(weight: Tensor, factors: Factors, weight_format: WeightFormat) -> Codes:
    """Codes of rows, [n, K], for inputs whose Hessian is factored."""
    parts = []
    for rows in weight.float().split(ROWS):
        start = rtn.quantize(rows, weight_format, importance=factors.damped.diagonal())
        codes, slope = compensate(rows, start, factors, weight_format.bits)
        parts.append(refine(codes, slope, factors.damped, weight_format.bits))
    return join(parts)


def factor(hessian: Tensor, damping: float = LEAST_DAMPING) -> Factors:
    """Factor the Hessian, damped by so much or, where that cannot be factored, by more."""
    while damping <= MOST_DAMPING:
        lower, back = reversed_factor(hessian, damping)
        if lower is not None:
            diagonal = lower.diagonal().flip(0)
            root = lower.flip(0, 1)
            del lower
            root /= diagonal
            return Factors(damped(hessian, damping), root, diagonal.square(), back.flip(0))
        damping *= 10
    raise CheckpointError(
        f"the calibration's Hessian cannot be factored even when damped by {damping * 10:g} %"
    )


def damped(hessian: Tensor, share: float) -> Tensor:
    """The Hessian with a share of the mean of its diagonal added to the diagonal."""
    result = hessian.clone()
    result.diagonal().add_(share * hessian.diagonal().mean())
    return result


def reversed_factor(hessian: Tensor, damping: float) -> tuple[Tensor | None, Tensor]:
    """The lower factor L of the damped Hessian with its inputs reversed, and their order there.

    Inputs go by rising activation there, so that L with both its axes reversed is an upper factor
    of the Hessian in the order of rounding. None where it has no factor.
    """
    back = hessian.diagonal().argsort(descending=True).flip(0)
    # For a wide linear each of these takes a gigabyte: none is kept longer than it is needed.
    reversed_hessian = hessian.index_select(0, back).index_select(1, back)
    reversed_hessian.diagonal().add_(damping * hessian.diagonal().mean())
    # LAPACK's upper factor lies column by column, so the lower one lies row by row.
    upper, failed = torch.linalg.cholesky_ex(reversed_hessian, upper=True)
    return (None if failed else upper.mT), back


def compensate(rows: Tensor, start: Codes, factors: Factors, bits: int) -> tuple[Codes, Tensor]:
    """GPTQ proper: the codes of `rows`, [n, K], on the grid of `start`, and the slope of their
    error, e H, [n, K]."""
    inputs, order = rows.shape[1], factors.order
    group = order.div(inputs // start.scales.shape[1], rounding_mode="floor").int()
    rows = rows.index_select(1, order)
    # Weights plus what makes up for errors so far; where they are rounded, E.
    left = rows.clone()
    result = replace(start, codes=torch.empty_like(start.codes))  # in that order
    blocks = choose_blocks(left)
    rounding = Compensation(rows, left, factors.root, group, result, bits)
    for begin in range(0, inputs, STRETCH):
        end = min(begin + STRETCH, inputs)
        errors = torch.empty(len(rows), end - begin, device=rows.device)
        for first in range(begin, end, BLOCK):
            last = min(first + BLOCK, end)
            wrong = blocks.compensate(rounding, first, last)
            left[:, last:end].addmm_(wrong, factors.root[first:last, last:end])
            errors[:, first - begin : last - begin] = wrong
        if end < inputs:
            add_product(left[:, end:], errors, factors.root[begin:end, end:])
    slope, left = torch.zeros_like(rows), left.mul_(factors.sizes)
    for begin in range(0, inputs, STRETCH):  # nothing of R is left of its diagonal
        end = min(begin + STRETCH, inputs)
        add_product(slope[:, begin:end], left[:, begin:], factors.root[begin:end, begin:].T)
    in_place = order.argsort()
    codes = result.codes.index_select(1, in_place)
    return replace(start, codes=codes), slope.index_select(1, in_place)
