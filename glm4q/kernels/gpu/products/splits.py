"""The sums of a product's splits, and what becomes of the product before it is stored.

A bias, the addition to the residual stream and the gate of a feed-forward layer are a launch each
where torch's operators compute them. A launch takes a microsecond or two of a decode step, so the
launch that adds up the splits does their work as well.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize_on_alignment=["rows"])
def add_splits(
    partial,  # float32 [splits, M, N]: N is the number of all weights' outputs
    bias,  # [N], or None
    out,  # [M, N], or [M, N / 2] where GATED
    rows,  # M
    outputs,
    all_outputs,  # N
    out_stride,
    second_bias,
    second_out,  # the product with a second weight, which is not gated; or None
    second_outputs,
    third_bias,
    third_out,
    third_outputs,
    SPLITS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    GATED: tl.constexpr,  # whether to store silu of the first half times the second
    ADDED: tl.constexpr,  # whether to add to what is there
):
    """Add up the splits of one row, always in the same order, and store what becomes of it."""
    block, row = tl.program_id(0), tl.program_id(1)
    width = outputs // 2 if GATED else outputs
    first_block, column = 0 * block, 0 * block
    second_block = tl.cdiv(width, BLOCK_N)
    third_block = second_block + tl.cdiv(second_outputs, BLOCK_N)
    third_column = outputs + second_outputs
    if second_out is not None:  # noqa: SIM102 - known when compiled
        if block >= second_block:
            first_block, column, width = second_block, column + outputs, second_outputs
            out, out_stride = second_out, second_outputs
            if bias is not None:
                bias = second_bias
    if third_out is not None:  # noqa: SIM102 - known when compiled
        if block >= third_block:
            first_block, column, width = third_block, third_column, third_outputs
            out, out_stride = third_out, third_outputs
            if bias is not None:
                bias = third_bias
    n = (block - first_block) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = n < width
    partial += row * all_outputs + column
    step = rows * all_outputs
    total = sum_of(partial, bias, n, inside, step, SPLITS, BLOCK_N)
    if GATED:
        second = sum_of(partial, bias, width + n, inside, step, SPLITS, BLOCK_N)
        total = total / (1.0 + tl.exp(-total)) * second
    place = out + row * out_stride + n
    if ADDED:
        total += tl.load(place, mask=inside, other=0).to(tl.float32)
    tl.store(place, total, mask=inside)


@triton.jit
def sum_of(partial, bias, n, inside, step, SPLITS: tl.constexpr, BLOCK_N: tl.constexpr):
    """Return the product of a row at the outputs n, float32 [BLOCK_N]; splits are a step apart."""
    total = tl.zeros((BLOCK_N,), tl.float32)
    for split in tl.static_range(SPLITS):
        total += tl.load(partial + split * step + n, mask=inside, other=0)
    if bias is not None:
        total += tl.load(bias + n, mask=inside, other=0).to(tl.float32)
    return total
