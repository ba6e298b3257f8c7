"""Coordinate descent: lower the output error of codes that another method found.

The output error of a row is e H e^T, where e is what rounding changed. With everything else fixed,
the best scale of a group and the best code of an input are each one division away; going over them
again and again never makes it worse (the idea of QuantEase, https://arxiv.org/abs/2309.01885, with
scales as further coordinates).
"""

import torch
from torch import Tensor

from quantize.methods import native
from quantize.methods.codes import Codes, half

SWEEPS = 4
LONGEST_BLOCK = 128
"""Columns at once. A group that is one block has its scale refined with its codes."""


def refine(rows: Tensor, start: Codes, hessian: Tensor, bits: int, sweeps: int = SWEEPS) -> Codes:
    """Better codes and scales for `rows`, float32 [n, K], than `start`; zero points stay.

    hessian: float32 [K, K], damped, so that its diagonal is positive.
    """
    inputs, groups = rows.shape[1], start.scales.shape[1]
    size = min(inputs // groups, LONGEST_BLOCK)
    scales, zeros = start.scales.float(), start.zero_points
    spread = zeros.float().repeat_interleave(inputs // groups, -1)
    centered = start.codes.float().sub_(spread)  # [n, K]: codes less zero points
    slope = (rows - centered * scales.repeat_interleave(inputs // groups, -1)) @ hessian  # e H
    block = native.descend if native.serves(rows) else round_block
    for _ in range(sweeps):
        for first in range(0, inputs, size):
            last = min(first + size, inputs)
            change = block(centered, scales, zeros, slope, hessian, bits, first, last)
            slope.addmm_(change, hessian[first:last], alpha=-1)
    return Codes(centered.add_(spread).byte(), scales.half(), zeros)


def round_block(
    centered: Tensor,
    scales: Tensor,
    zeros: Tensor,
    slope: Tensor,
    hessian: Tensor,
    bits: int,
    first: int,
    last: int,
) -> Tensor:
    """Better codes for the columns `first` to `last`, and a better scale where these are a group.

    centered [n, K] and scales [n, groups] are changed in place; slope: e H, [n, K]. Returns how
    much more the dequantized columns are now, [n, last - first].
    """
    size = centered.shape[1] // scales.shape[1]
    part, group = slice(first, last), first // size
    within = hessian[part, part]
    here = slope[:, part].T.contiguous()  # [block, n]: one input a row
    codes, scale = centered[:, part].T.contiguous(), scales[:, group].clone()
    before = codes * scale
    if last - first == size:
        scale = _best_scale(codes, scale, here, within)
        here -= within @ (codes * scale - before)
    _best_codes(codes, scale, here, within, zeros[:, group].float(), bits)
    centered[:, part], scales[:, group] = codes.T, scale
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
