"""Coordinate descent's loop over the columns of a block, in one launch.

A program is one warp and takes one row, whose columns its lanes keep in registers: four of a block
of 128 in each lane. Rows do not depend on each other, so no program waits for another.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from glm4q.kernels.gpu.launch import Launch
from quantize.methods.codes import LARGEST_SCALE, SMALLEST_SCALE
from quantize.methods.gpu.checks import require_block, require_matrix, require_rows
from quantize.methods.gpu.lanes import columns_of_a_tile, nearest_code
from quantize.methods.operands import Descent

TINY = tl.constexpr(2.0**-126)
"""The smallest float32 that is not subnormal."""
LEAST, MOST = tl.constexpr(SMALLEST_SCALE), tl.constexpr(LARGEST_SCALE)


def descend(of: Descent, first: int, last: int, change: Tensor, *, rescales: bool) -> Launch:
    """Do what `by_torch.descend` does, and write the change into float32 [n, last - first].

    Tensors lie without gaps, but for the Hessian, which is symmetric and may lie in any order.
    Raises KernelError.
    """
    (outputs, inputs), groups, here = of.centered.shape, of.scales.shape[1], slice(first, last)
    require_block(first, last, inputs)
    require_rows(of.centered, "codes", torch.float32, (outputs, inputs))
    require_rows(of.scales, "scales", torch.float32, (outputs, groups))
    require_rows(of.zeros, "zero points", torch.uint8, (outputs, groups))
    require_rows(of.slope, "the slope", torch.float32, (outputs, inputs))
    require_rows(change, "the change", torch.float32, (outputs, last - first))
    require_matrix(of.hessian, "the Hessian", inputs)
    return Launch(
        descend_row,
        (outputs,),
        {
            "centered": of.centered[:, here],
            "scales": of.scales,
            "zeros": of.zeros,
            "slope": of.slope[:, here],
            "hessian": of.hessian[here, here],
            "change": change,
            "group": first // (inputs // groups),
            "count": last - first,
            "inputs": inputs,
            "groups": groups,
            "hessian_row": of.hessian.stride(0),
            "hessian_column": of.hessian.stride(1),
        },
        {
            "LARGEST": 2**of.bits - 1,
            "RESCALES": rescales,
            "COLUMNS": columns_of_a_tile(last - first),
        },
        warps=1,
    )


@triton.jit
def best_scale(scale, along, curvature):
    """The scale of least error, rounded to float16; along: the slope along the codes."""
    wanted = scale + tl.div_rn(along, tl.maximum(curvature, TINY))
    size = tl.minimum(tl.maximum(tl.abs(wanted), LEAST), MOST).to(tl.float16).to(tl.float32)
    better = tl.where(wanted < 0, -size, size)
    # Rounded to float16, a step may come out worse than none.
    step = better - scale
    return tl.where(2 * step * along - step * step * curvature > 0, better, scale)


@triton.jit(do_not_specialize=["group", "count"])
def descend_row(
    centered,  # float32 [n, count]: codes less zero points
    scales,  # float32 [n, groups]
    zeros,  # uint8 [n, groups]
    slope,  # float32 [n, count]
    hessian,  # float32 [count, count]
    change,  # float32 [n, count]: how much more the dequantized columns are then
    group,  # of these columns
    count,
    inputs,  # numbers from a row to the next of centered and slope
    groups,
    hessian_row,  # numbers from a row of the Hessian to the next
    hessian_column,
    LARGEST: tl.constexpr,
    RESCALES: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Round the columns of a row anew, one after another, after their scale where asked for."""
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, COLUMNS)
    inside, here = column < count, row * inputs + column
    scales += row * groups + group
    scale, zero = tl.load(scales), tl.load(zeros + row * groups + group).to(tl.float32)
    code = tl.load(centered + here, mask=inside, other=0)
    gradient = tl.load(slope + here, mask=inside, other=0)
    before = code * scale
    hessian += column.to(tl.int64) * hessian_column
    if RESCALES:
        product = tl.zeros_like(code)
        for place in range(count):
            influence = tl.load(hessian + place * hessian_row, mask=inside, other=0)
            product += tl.load(centered + row * inputs + place) * influence
        better = best_scale(scale, tl.sum(code * gradient, 0), tl.sum(code * product, 0))
        gradient -= (better - scale) * product
        tl.store(scales, better)
        scale = better
    diagonal = tl.load(hessian + column.to(tl.int64) * hessian_row, mask=inside, other=1)
    steps = tl.div_rn(1.0, scale * diagonal)
    for place in range(count):
        influence = tl.load(hessian + place * hessian_row, mask=inside, other=0)
        # Every lane rounds its own columns, and the one whose turn it is counts.
        nearest = nearest_code(code + gradient * steps, zero, LARGEST) - zero
        now = column == place
        moved = tl.sum(tl.where(now, (nearest - code) * scale, 0.0), 0)
        code = tl.where(now, nearest, code)
        gradient -= moved * influence
    tl.store(centered + here, code, mask=inside)
    tl.store(change + row * count + column, code * scale - before, mask=inside)
