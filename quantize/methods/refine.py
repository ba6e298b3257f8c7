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

from quantize.methods.blocks import by_torch
from quantize.methods.blocks.choose import choose_blocks
from quantize.methods.codes import Codes
from quantize.methods.operands import Descent

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
    descent = Descent(centered, scales, zeros, slope, hessian, bits)
    for sweep in range(sweeps):
        _sweep(descent, rescales=sweep % 2 == 0)
    return Codes(centered.add_(spread).byte(), scales.half(), zeros)


def _sweep(of: Descent, *, rescales: bool) -> None:
    """Go over all columns once, in place; the slope follows what changes."""
    (outputs, inputs), slope, hessian = of.centered.shape, of.slope, of.hessian
    group = inputs // of.scales.shape[1]
    size = min(group, LONGEST_BLOCK)
    rescales = rescales and group == size
    blocks = choose_blocks(slope)
    # A new scale moves all codes of a group, where C++ would look for those that moved.
    subtract = by_torch.subtract if rescales else blocks.subtract
    step = max(STRETCH // size, 1) * size
    for begin in range(0, inputs, step):
        end = min(begin + step, inputs)
        changes = torch.empty(outputs, end - begin, device=slope.device)
        for first in range(begin, end, size):
            last = min(first + size, end)
            change = blocks.descend(of, first, last, rescales=rescales)
            subtract(slope, change, hessian[first:last], begin, end)
            changes[:, first - begin : last - begin] = change
        for first, last in ((0, begin), (end, inputs)):
            if first < last:
                subtract(slope, changes, hessian[begin:end], first, last)
