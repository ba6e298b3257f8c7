"""Coordinate descent: lower the output error of codes that another method found.

The output error of a row is e H e^T, where e is what rounding changed. With everything else fixed,
the best scale of a group and the best code of an input are each one division away; going over them
again and again never makes it worse (the idea of QuantEase, https://arxiv.org/abs/2309.01885, with
scales as further coordinates).
"""

import torch
from torch import Tensor

from quantize.methods.codes import Codes, half

SWEEPS = 4
LONGEST_GROUP = 128
"""Groups up to here are one block of columns, whose scale is refined with its codes."""


def refine(rows: Tensor, start: Codes, hessian: Tensor, bits: int, sweeps: int = SWEEPS) -> Codes:
    """Better codes and scales for `rows`, float32 [n, K], than `start`; zero points stay.

    hessian: float32 [K, K], damped, so that its diagonal is positive.
    """
    inputs, groups = rows.shape[1], start.scales.shape[1]
    size = inputs // groups
    block = size if size <= LONGEST_GROUP else LONGEST_GROUP
    scales = start.scales.float().repeat_interleave(size, -1)
    zeros = start.zero_points.float().repeat_interleave(size, -1)
    centered = start.codes.float().sub_(zeros)  # [n, K]: codes less zero points
    slope = (rows - centered * scales) @ hessian  # [n, K]: e H
    for _ in range(sweeps):
        for first in range(0, inputs, block):
            last = min(first + block, inputs)
            part = slice(first, last)
            within = hessian[part, part]
            before = (centered[:, part] * scales[:, part]).T.contiguous()
            here = slope[:, part].T.contiguous()  # [block, n]: one input a row
            codes, scale = centered[:, part].T.contiguous(), scales[:, first].clone()
            if block == size:
                scale = _best_scale(codes, scale, here, within)
                moved = codes * scale - before
                here -= within @ moved
            _best_codes(codes, scale, here, within, zeros[:, first], bits)
            centered[:, part], scales[:, part] = codes.T, scale.unsqueeze(-1)
            change = (codes * scale - before).T
            slope.addmm_(change, hessian[part], alpha=-1)
    best = (centered + zeros).byte()
    return Codes(best, scales[:, ::size].half(), start.zero_points)


def _best_scale(codes: Tensor, scale: Tensor, slope: Tensor, within: Tensor) -> Tensor:
    """The scale, [n], of least error for codes [block, n], rounded to float16."""
    curvature = (codes * (within @ codes)).sum(0)
    step = (codes * slope).sum(0) / curvature.clamp(min=torch.finfo(torch.float32).tiny)
    better = half((scale + step).abs())
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
