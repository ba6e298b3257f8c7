"""GPTQ (https://arxiv.org/abs/2210.17323): round inputs one by one, and correct the inputs that
are not rounded yet for each error, as the Hessian of calibration activations says.

Inputs go by falling activation, while each keeps the group, scale and zero point of its own place:
the order costs the reader nothing (`desc_act` stays false).
"""

from dataclasses import replace

import torch
from torch import Tensor

from calculator.errors import CheckpointError
from calculator.memory.making import ROWS
from calculator.model.formats import WeightFormat
from quantize.methods import native, rtn
from quantize.methods.codes import Codes, join
from quantize.methods.refine import refine

BLOCK = 64
"""After this many columns, one product corrects the columns that are not rounded yet."""
LEAST_DAMPING = 0.01
"""This share of the mean diagonal is added to the Hessian's diagonal at least."""
MOST_DAMPING = 10.0
"""The damping grows tenfold until the Hessian can be factored, up to this share."""


def quantize(
    weight: Tensor, hessian: Tensor, weight_format: WeightFormat, damping: float = LEAST_DAMPING
) -> Codes:
    """Codes of `weight`, [N, K], for inputs whose sum of x^T x is `hessian`, float32 [K, K].

    damping: the share of the mean diagonal to add to the diagonal. Raises CheckpointError where
    the Hessian cannot be factored at any damping.
    """
    damped, root, order = factor(hessian, damping)
    parts = []
    for rows in weight.float().split(ROWS):
        start = rtn.quantize(rows, weight_format, importance=damped.diagonal())
        codes = compensate(rows, start, root, order, weight_format.bits)
        parts.append(refine(rows, codes, damped, weight_format.bits))
    return join(parts)


def factor(hessian: Tensor, damping: float = LEAST_DAMPING) -> tuple[Tensor, Tensor, Tensor]:
    """The damped Hessian; the upper factor of its inverse in the order of inputs; that order."""
    while damping <= MOST_DAMPING:
        root, order = inverse_root(hessian, damping)
        if root is not None:
            return damped(hessian, damping), root, order
        damping *= 10
    raise CheckpointError(
        f"the calibration's Hessian cannot be factored even when damped by {damping * 10:g} %"
    )


def damped(hessian: Tensor, share: float) -> Tensor:
    """The Hessian with a share of the mean of its diagonal added to the diagonal."""
    result = hessian.clone()
    result.diagonal().add_(share * hessian.diagonal().mean())
    return result


def inverse_root(hessian: Tensor, damping: float) -> tuple[Tensor | None, Tensor]:
    """The upper factor U of the damped Hessian's inverse, U^T U, and the order of its inputs.

    Inputs go by falling activation. With all inputs reversed the Hessian is L L^T, and U is the
    inverse of L, reversed: no inverse of the Hessian itself is needed. None where it has no factor.
    """
    order = hessian.diagonal().argsort(descending=True)
    back = order.flip(0)
    # For a wide linear each of these takes a gigabyte: none is kept longer than it is needed.
    reversed_hessian = hessian[back][:, back]
    reversed_hessian.diagonal().add_(damping * hessian.diagonal().mean())
    lower, failed = torch.linalg.cholesky_ex(reversed_hessian)
    del reversed_hessian
    if failed:
        return None, order
    inverse = torch.eye(len(hessian), device=hessian.device)
    # LAPACK's columns, transposed, are the rows of the inverse of L as they lie in memory.
    inverse = torch.linalg.solve_triangular(lower.mT, inverse, upper=True).mT
    del lower
    root = inverse.flip(0, 1).contiguous()
    return (root if root.isfinite().all() else None), order


def compensate(rows: Tensor, start: Codes, root: Tensor, order: Tensor, bits: int) -> Codes:
    """GPTQ proper: the codes of `rows`, [n, K], on the grid of `start`; `root` and `order` are
    `factor`'s."""
    inputs = rows.shape[1]
    group = order.div(inputs // start.scales.shape[1], rounding_mode="floor").int()
    # Weights that are not rounded yet, corrected for the errors of those that are.
    left = rows[:, order].contiguous()
    result = replace(start, codes=torch.empty_like(start.codes))  # in that order
    block = native.compensate if native.serves(left) else round_block
    for first in range(0, inputs, BLOCK):
        last = min(first + BLOCK, inputs)
        errors = block(left, root, group, result, bits, first, last)
        left[:, last:].addmm_(errors, root[first:last, last:], alpha=-1)
    in_place = torch.empty_like(result.codes)
    in_place[:, order] = result.codes
    return replace(start, codes=in_place)


def round_block(
    left: Tensor, root: Tensor, group: Tensor, result: Codes, bits: int, first: int, last: int
) -> Tensor:
    """Round the columns `first` to `last` of `left`, [n, K], into `result`.

    group: [K], of each column. Returns errors, [n, last - first]: what times rows of `root` the
    columns still to come have to make up for.
    """
    groups = group[first:last]
    scales, zeros = result.scales[:, groups].float().T, result.zero_points[:, groups].float().T
    # One input a row: what the loop touches lies together.
    block, within = left[:, first:last].T.contiguous(), root[first:last, first:last]
    errors = torch.empty_like(block)
    for place in range(last - first):
        code = (block[place] / scales[place]).round_().add_(zeros[place]).clamp_(0, 2**bits - 1)
        result.codes[:, first + place] = code
        rounded = (code - zeros[place]).mul_(scales[place])
        errors[place] = (block[place] - rounded).div_(within[place, place])
        block[place + 1 :].addr_(within[place, place + 1 :], errors[place], alpha=-1)
    return errors.T
