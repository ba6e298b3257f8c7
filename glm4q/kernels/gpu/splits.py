"""The sums of a product's splits, and what becomes of the product before it is stored.

A bias, the addition to the residual stream and the gate of a feed-forward layer are a launch each
where torch's operators compute them. A launch takes a microsecond or two of a decode step, so the
launch that adds up the splits does their work as well.
"""

import triton
import triton.language as tl


@triton.jit
def add_splits(
    partial,  # float32 [splits, M, N]
    bias,  # [N], or None
    out,  # [M, N], or [M, N / 2] where GATED
    rows,  # M
    outputs,  # N
    out_stride,
    SPLITS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    GATED: tl.constexpr,  # whether to store silu of the first half times the second
    ADDED: tl.constexpr,  # whether to add to what is there
):
    """Add up the splits of one row, always in the same order, and store what becomes of it."""
    row = tl.program_id(1)
    width = outputs // 2 if GATED else outputs
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = n < width
    total = sum_of(partial, bias, row, n, inside, rows, outputs, SPLITS, BLOCK_N)
    if GATED:
        second = sum_of(partial, bias, row, width + n, inside, rows, outputs, SPLITS, BLOCK_N)
        total = total / (1.0 + tl.exp(-total)) * second
    place = out + row * out_stride + n
    if ADDED:
        total += tl.load(place, mask=inside, other=0).to(tl.float32)
    tl.store(place, total, mask=inside)


@triton.jit
def sum_of(
    partial, bias, row, n, inside, rows, outputs, SPLITS: tl.constexpr, BLOCK_N: tl.constexpr
):
    """Return the product of a row at the outputs n, float32 [BLOCK_N]."""
    total = tl.zeros((BLOCK_N,), tl.float32)
    for split in tl.static_range(SPLITS):
        place = (split * rows + row) * outputs + n
        total += tl.load(partial + place, mask=inside, other=0)
    if bias is not None:
        total += tl.load(bias + n, mask=inside, other=0).to(tl.float32)
    return total
