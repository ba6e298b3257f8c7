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
DAMP_PERCENT = 1.0
"""The damping: this share of the mean diagonal is added to the Hessian's diagonal. It grows tenfold
until the Hessian can be factored."""
MOST_DAMP_PERCENT = 1000.0


def quantize(weight: Tensor, hessian: Tensor, weight_format: WeightFormat) -> Codes:
    """Codes of `weight`, [N, K], for inputs whose sum of x^T x is `hessian`, float32 [K, K].

    Raises CheckpointError where the Hessian cannot be factored at any damping.
    """
    damped, root, order = factor(hessian)
    parts = []
    for rows in weight.float().split(ROWS):
        start = rtn.quantize(rows, weight_format, importance=hessian.diagonal())
        codes = compensate(rows, start, root, order, weight_format.bits)
        parts.append(refine(rows, codes, damped, weight_format.bits))
    return join(parts)


def factor(hessian: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The damped Hessian; the upper factor of its inverse in the order of inputs; that order."""
    mean = hessian.diagonal().mean()
    percent = DAMP_PERCENT
    while percent <= MOST_DAMP_PERCENT and mean > 0:
        damped = hessian.clone()
        damped.diagonal().add_(mean * percent / 100)
        order = damped.diagonal().argsort(descending=True)
        lower, failed = torch.linalg.cholesky_ex(damped[order][:, order])
        if not failed:
            inverse = torch.cholesky_inverse(lower)
            upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
            if not failed and upper.isfinite().all():
                return damped, upper.contiguous(), order
        percent *= 10
    raise CheckpointError(
        f"the calibration's Hessian cannot be factored even when damped by {percent / 10:g} %"
    )


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
