"""The methods' inner loops by torch's operators: the reference of those in C++ and in Triton.

On a GPU they are bound by launches: 12 for each column of GPTQ, and 7 for each of the descent.
"""

import torch
from torch import Tensor

from quantize.methods.codes import half
from quantize.methods.operands import Compensation, Descent
from quantize.methods.products import add_product


def refuses(weight: Tensor) -> None:
    """Nothing: torch computes wherever a weight lies."""


def compensate(of: Compensation, first: int, last: int) -> Tensor:
    """Round the columns `first` to `last` of `left`.

    Returns errors, float32 [n, last - first]: the columns of `rows` less their rounded weights.
    """
    groups, codes = of.group[first:last], of.codes
    scales, zeros = codes.scales[:, groups].float().T, codes.zero_points[:, groups].float().T
    # One input a row: what the loop touches lies together.
    block, within = of.left[:, first:last].T.contiguous(), of.root[first:last, first:last]
    errors = of.rows[:, first:last].T.contiguous()
    for place in range(last - first):
        code = (block[place] / scales[place]).round_().add_(zeros[place])
        codes.codes[:, first + place] = code.clamp_(0, 2**of.bits - 1)
        rounded = (code - zeros[place]).mul_(scales[place])
        block[place] -= rounded
        errors[place] -= rounded
        block[place + 1 :].addr_(within[place, place + 1 :], errors[place])
    of.left[:, first:last] = block.T
    return errors.T


def descend(of: Descent, first: int, last: int, *, rescales: bool) -> Tensor:
    """Better codes for the columns `first` to `last`, and a better scale first if asked for.

    rescales: the columns are a group, whose scale may change. Returns how much more the dequantized
    columns are now, float32 [n, last - first].
    """
    size = of.centered.shape[1] // of.scales.shape[1]
    part, group = slice(first, last), first // size
    within = of.hessian[part, part]
    here = of.slope[:, part].T.contiguous()  # [block, n]: one input a row
    codes, scale = of.centered[:, part].T.contiguous(), of.scales[:, group].clone()
    before = codes * scale
    if rescales:
        scale = _best_scale(codes, scale, here, within)
        here -= within @ (codes * scale - before)
    _best_codes(codes, scale, here, within, of.zeros[:, group].float(), of.bits)
    of.centered[:, part], of.scales[:, group] = codes.T, scale
    return (codes * scale - before).T


def _best_scale(codes: Tensor, scale: Tensor, slope: Tensor, within: Tensor) -> Tensor:
    """The scale, [n], of least error for codes [block, n], rounded to float16."""
    curvature = (codes * (within @ codes)).sum(0)
    step = (codes * slope).sum(0) / curvature.clamp(min=torch.finfo(torch.float32).tiny)
    better = half(scale + step)
    # Rounded to float16, a step may come out worse than none.
    gain = 2 * (better - scale) * (codes * slope).sum(0) - (better - scale).square() * curvature
    return torch.where(gain > 0, better, scale)


def _best_codes(
    codes: Tensor, scale: Tensor, slope: Tensor, within: Tensor, zero: Tensor, bits: int
) -> None:
    """Round each input of a block anew, codes [block, n] and its slope in place."""
    lowest, highest = -zero, 2**bits - 1 - zero
    steps = 1 / (scale * within.diagonal().unsqueeze(-1))  # [block, n]
    for place in range(codes.shape[0]):
        wanted = torch.addcmul(codes[place], slope[place], steps[place])
        code = wanted.round_().clamp_(lowest, highest)
        moved = (code - codes[place]).mul_(scale)
        codes[place] = code
        slope.addr_(within[place], moved, alpha=-1)


def subtract(out: Tensor, change: Tensor, matrix: Tensor, first: int, last: int) -> None:
    """Subtract change times matrix from the columns `first` to `last` of `out`."""
    add_product(out[:, first:last], change, matrix[:, first:last], sign=-1)
