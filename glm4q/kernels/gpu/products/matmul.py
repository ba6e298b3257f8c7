"""Many tokens by a quantized weight: tensor cores multiply activations by exact codes.

Codes minus their zero points are whole numbers that bfloat16 and float16 hold exactly, and each
group's sum is scaled in float32. So no product overflows, and only activations are rounded; of
weights with a code book, the book's numbers are rounded too.
float16, for cards before Ampere, cannot hold GLM-4's activations: a power of two scales every row
of them to below 2**15, and the result is divided by it in float32.
"""

import triton
import triton.language as tl

from glm4q.kernels.gpu.numbers import MAGIC, MAGIC_BITS, power_of_two

HIGHEST = tl.constexpr(16384.0)
"""A row is scaled so that its largest number is below twice this; float16 ends at 65,504."""


@triton.jit
def row_units(x, units, inputs, x_stride, BLOCK_K: tl.constexpr):
    """Store units[row]: the number that 1 in float16 stands for."""
    row = tl.program_id(0)
    largest = tl.zeros((BLOCK_K,), tl.float32)
    for start in range(0, inputs, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        numbers = tl.load(x + row * x_stride + k, mask=k < inputs, other=0).to(tl.float32)
        largest = tl.maximum(largest, tl.abs(numbers))
    tl.store(units + row, power_of_two(tl.max(largest, 0)) / HIGHEST)


@triton.jit(do_not_specialize_on_alignment=["rows"])
def matmul(
    x,  # [M, K]
    qweight,  # int32 [K / per word, N]
    scales,  # float16 or float32 [groups, N]
    qzeros,  # int32 [groups, N / per word], or None
    book,  # float32 [16], the numbers that codes stand for, or None
    units,  # float32 [M], or None
    out,  # [splits, M, N]
    rows,
    inputs,
    outputs,
    x_stride,
    out_stride,
    split_inputs,
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN_K: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """Sum the inputs of one split for BLOCK_M tokens and BLOCK_N outputs."""
    PER_WORD: tl.constexpr = 32 // BITS
    WORDS: tl.constexpr = BLOCK_K // PER_WORD
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(2)
    token, inside = m < rows, n < outputs
    x_rows = x + m.to(tl.int64)[:, None] * x_stride
    shifts = tl.arange(0, PER_WORD) * BITS
    if units is not None:
        unit = tl.load(units + m, mask=token, other=1)
        inverse = 1.0 / unit
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    last = tl.minimum((split + 1) * split_inputs, inputs)
    for start in range(split * split_inputs, last, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        word = start // PER_WORD + tl.arange(0, WORDS)
        if EVEN_K:
            tile = tl.load(x_rows + k[None, :], mask=token[:, None], other=0)
            mask = inside[None, :]
        else:
            tile = tl.load(x_rows + k[None, :], mask=token[:, None] & (k < last)[None, :], other=0)
            mask = inside[None, :] & (word * PER_WORD < last)[:, None]
        if units is not None:
            tile = tile.to(tl.float32) * inverse[:, None]
        packed = tl.load(qweight + word[:, None] * outputs + n[None, :], mask=mask, other=0)
        codes = (packed[:, None, :] >> shifts[None, :, None]) & ((1 << BITS) - 1)
        codes = tl.reshape(codes, (BLOCK_K, BLOCK_N))
        group = start // GROUP
        scale = tl.load(scales + group * outputs + n, mask=inside, other=0).to(tl.float32)
        if book is not None:
            numbers = tl.load(book + codes)
        else:
            if qzeros is None:
                middle = MAGIC + (1 << (BITS - 1))
            else:
                zero = tl.load(qzeros + group * (outputs // PER_WORD) + n // PER_WORD, inside, 0)
                zero = (zero >> (n % PER_WORD * BITS)) & ((1 << BITS) - 1)
                middle = (zero.to(tl.float32) + MAGIC)[None, :]
            numbers = (codes | MAGIC_BITS).to(tl.float32, bitcast=True) - middle
        sums += tl.dot(tile.to(COMPUTE), numbers.to(COMPUTE)) * scale[None, :]
    if units is not None:
        sums *= unit[:, None]
    places = (split * rows + m).to(tl.int64)[:, None] * out_stride + n[None, :]
    tl.store(out + places, sums, mask=token[:, None] & inside[None, :])
