"""GPTQ's loop over the columns of a block, in one launch.

A program is one warp and takes one row, whose columns its lanes keep in registers. Rows do not
depend on each other, so no program waits for another.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from glm4q.kernels.gpu.launch import Launch
from quantize.methods.gpu.checks import require_block, require_matrix, require_rows
from quantize.methods.gpu.lanes import columns_of_a_tile, nearest_code
from quantize.methods.operands import Compensation


def compensate(of: Compensation, first: int, last: int, errors: Tensor) -> Launch:
    """Do what `by_torch.compensate` does, and write errors into float32 [n, last - first].

    Tensors lie without gaps, but for `root`, which may lie in any order. Raises KernelError.
    """
    (outputs, inputs), codes, here = of.left.shape, of.codes, slice(first, last)
    groups = codes.scales.shape[1]
    require_block(first, last, inputs)
    require_rows(of.rows, "the weight", torch.float32, (outputs, inputs))
    require_rows(of.left, "what is left", torch.float32, (outputs, inputs))
    require_rows(codes.codes, "codes", torch.uint8, (outputs, inputs))
    require_rows(codes.scales, "scales", torch.float16, (outputs, groups))
    require_rows(codes.zero_points, "zero points", torch.uint8, (outputs, groups))
    require_rows(of.group, "group", torch.int32, (inputs,))
    require_rows(errors, "errors", torch.float32, (outputs, last - first))
    require_matrix(of.root, "the root", inputs)
    return Launch(
        compensate_row,
        (outputs,),
        {
            "rows": of.rows[:, here],
            "left": of.left[:, here],
            "root": of.root[here, here],
            "group": of.group[here],
            "scales": codes.scales,
            "zero_points": codes.zero_points,
            "codes": codes.codes[:, here],
            "errors": errors,
            "count": last - first,
            "inputs": inputs,
            "groups": groups,
            "root_row": of.root.stride(0),
            "root_column": of.root.stride(1),
        },
        {"LARGEST": 2**of.bits - 1, "COLUMNS": columns_of_a_tile(last - first)},
        warps=1,
    )


@triton.jit(do_not_specialize=["count"])
def compensate_row(
    rows,  # float32 [n, count]: the weights
    left,  # float32 [n, count]: the weights plus what makes up for errors; then what rounding took
    root,  # float32 [count, count]: R
    group,  # int32 [count]
    scales,  # float16 [n, groups]
    zero_points,  # uint8 [n, groups]
    codes,  # uint8 [n, count]
    errors,  # float32 [n, count], without gaps
    count,
    inputs,  # numbers from a row to the next of rows, left and codes
    groups,
    root_row,  # numbers from a row of R to the next
    root_column,
    LARGEST: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Round the columns of a row one after another."""
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, COLUMNS)
    inside, here = column < count, row * inputs + column
    at = row * groups + tl.load(group + column, mask=inside, other=0)
    scale = tl.load(scales + at, mask=inside, other=1).to(tl.float32)
    zero = tl.load(zero_points + at, mask=inside, other=0).to(tl.float32)
    weight = tl.load(rows + here, mask=inside, other=0)
    number = tl.load(left + here, mask=inside, other=0)
    code, wrong = tl.zeros_like(number), tl.zeros_like(number)
    root += column.to(tl.int64) * root_column
    for place in range(count):
        behind = inside & (column > place)
        influence = tl.load(root + place * root_row, mask=behind, other=0)
        # Every lane rounds its own columns, and the one whose turn it is counts.
        nearest = nearest_code(tl.div_rn(number, scale), zero, LARGEST)
        rounded = (nearest - zero) * scale
        now = column == place
        error = tl.sum(tl.where(now, weight - rounded, 0.0), 0)
        code, wrong = tl.where(now, nearest, code), tl.where(now, error, wrong)
        number = tl.where(now, number - rounded, number) + error * influence
    tl.store(left + here, number, mask=inside)
    tl.store(codes + here, code.to(tl.uint8), mask=inside)
    tl.store(errors + row * count + column, wrong, mask=inside)
