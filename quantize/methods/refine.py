"""Coordinate descent: lower the output error of codes that another method found.

The output error of a row is e H e^T, where e is what rounding changed. With everything else fixed,
the best scale of a group and the best code of an input are each one division away; going over them
again and again never makes it worse (the idea of QuantEase, https://arxiv.org/abs/2309.01885, with
scales as further coordinates).

Every second sweep leaves the scales as they are. New scales move whole groups, but of the codes one
in fifty or fewer moves, so such a sweep costs next to nothing, and two of them beside two with
scales come as far as four with scales.
"""

import torch
from torch import Tensor

from quantize.methods import native
from quantize.methods.codes import Codes, half
from quantize.methods.products import add_product

SWEEPS = 4
LONGEST_BLOCK = 128
"""Columns at once. A group that is one block has its scale refined with its codes."""
STRETCH = 512
"""After so many columns, one product brings the slope of all others up to date: with few columns at
a time it would wait for memory."""


def refine(start: Codes, slope: Tensor, hessian: Tensor, bits: int, sweeps: int = SWEEPS) -> Codes:
    """Better codes and scales than `start` has for n rows of weights; zero points stay.

    slope: float32 [n, K], by how much the rows are more than `start` times the Hessian (e H); it is
    changed. hessian: float32 [K, K], damped, so that its diagonal is positive.
    """
    inputs, groups = slope.shape[1], start.scales.shape[1]
    scales, zeros = start.scales.float(), start.zero_points
    spread = zeros.float().repeat_interleave(inputs // groups, -1)
    centered = start.codes.float().sub_(spread)  # [n, K]: codes less zero points
    for sweep in range(sweeps):
        _sweep(centered, scales, zeros, slope, hessian, bits, rescales=sweep % 2 == 0)
    return Codes(centered.add_(spread).byte(), scales.half(), zeros)


def _sweep(
    centered: Tensor,
    scales: Tensor,
    zeros: Tensor,
    slope: Tensor,
    hessian: Tensor,
    bits: int,
    *,
    rescales: bool,
) -> None:
    """Go over all columns once, in place; the arguments are those of `round_block`."""
    outputs, inputs = centered.shape
    group = inputs // scales.shape[1]
    size = min(group, LONGEST_BLOCK)
    rescales = rescales and group == size
    block = native.descend if native.serves(slope) else round_block
    subtract = _subtract if rescales or not native.serves(slope) else native.subtract
    step = max(STRETCH // size, 1) * size
    for begin in range(0, inputs, step):
        end = min(begin + step, inputs)
        changes = torch.empty(outputs, end - begin, device=slope.device)
        for first in range(begin, end, size):
            last = min(first + size, end)
            change = block(centered, scales, zeros, slope, hessian, bits, first, last, rescales)
            subtract(slope, change, hessian[first:last], begin, end)
            changes[:, first - begin : last - begin] = change
        for first, last in ((0, begin), (end, inputs)):
            if first < last:
                subtract(slope, changes, hessian[begin:end], first, last)


def _subtract(out: Tensor, change: Tensor, matrix: Tensor, first: int, last: int) -> None:
    """Subtract change times matrix from the columns `first` to `last` of `out`."""
    add_product(out[:, first:last], change, matrix[:, first:last], sign=-1)


def round_block(
    centered: Tensor,
    scales: Tensor,
    zeros: Tensor,
    slope: Tensor,
    hessian: Tensor,
    bits: int,
    first: int,
    last: int,
    rescales: bool,
) -> Tensor:
    """Better codes for the columns `first` to `last`, and a better scale first if asked for.

    centered [n, K] and scales [n, groups] are changed in place; slope: e H, [n, K]; rescales: the
    columns are a group, whose scale may change. Returns how
    much more the dequantized columns are now, [n, last - first].
    """
    size = centered.shape[1] // scales.shape[1]
    part, group = slice(first, last), first // size
    within = hessian[part, part]
    here = slope[:, part].T.contiguous()  # [block, n]: one input a row
    codes, scale = centered[:, part].T.contiguous(), scales[:, group].clone()
    before = codes * scale
    if rescales:
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
