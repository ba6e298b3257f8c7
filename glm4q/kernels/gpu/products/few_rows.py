"""One to sixteen tokens by a quantized weight: tensor cores multiply each word where it is loaded.

The weight is the left operand, 16 outputs high, and the tokens are the 8 or 16 columns of the right
one. A word holds eight or four inputs of one output. Each lane loads words of its own, of four
neighbouring outputs by one instruction, and all of their codes stay in its registers: the order of
inputs and of outputs within a tile is free, and is such that tensor cores look for the codes there.
The activations of a token that a lane needs are then neighbours too. So nothing passes through
shared memory, no warp waits for another, and the loads of the next tiles are under way while one is
multiplied.

From Ampere on codes are multiplied as bfloat16, of which a code of 8 bits takes two: 16 times its
upper half, and its lower half. Turing's tensor cores know float16 only: the activations of a split
are brought to its range by a power of two for each row.

A column of the result depends on its own token alone: a token has the same bits whichever others
stand beside it, and however many.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from glm4q.kernels.gpu.gluon_mma import multiply
from glm4q.kernels.gpu.numbers import power_of_two
from glm4q.kernels.gpu.products.matmul import HIGHEST
from glm4q.kernels.gpu.products.word_numbers import (
    activations_layout,
    as_right,
    bfloat16_of,
    float16_of,
    fours_layout,
    in_natural_order,
    in_tile_order,
    numbers_layout,
)

SCANNED = gl.constexpr(256)
"""Inputs of a row that a warp looks through at once for the largest."""


@gluon.jit(do_not_specialize_on_alignment=["rows"])
def few_rows(
    x,  # [M, K]
    qweight,  # int32 [K / per word, N]
    scales,  # float16 or float32 [groups, N]
    qzeros,  # int32 [groups, N / per word], or None
    out,  # [splits, M, N]
    rows,
    inputs,
    outputs,
    x_stride,
    out_stride,
    split_inputs,
    second_qweight,  # a second weight of the same inputs and format, or None
    second_scales,
    second_qzeros,
    second_outputs,
    third_qweight,  # a third one, or None
    third_scales,
    third_qzeros,
    third_outputs,
    BITS: gl.constexpr,
    GROUP: gl.constexpr,
    TOKENS: gl.constexpr,  # 8 or 16
    BLOCK_N: gl.constexpr,
    BLOCK_K: gl.constexpr,
    AHEAD: gl.constexpr,  # tiles of words that are loaded before they are multiplied
    EVEN_K: gl.constexpr,
    TURING: gl.constexpr,
):
    """Sum the inputs of one split for all tokens and BLOCK_N outputs.

    The outputs of several weights stand one after another in `out`.
    """
    M: gl.constexpr = gl.NVMMADistributedLayout(
        [2, 1] if TURING else [2, 0], [gl.num_warps(), 1], instr_shape=[16, 8]
    )
    RIGHT: gl.constexpr = gl.DotOperandLayout(1, M, 2)
    CODES: gl.constexpr = numbers_layout(BLOCK_N, BLOCK_K, BITS, gl.num_warps())
    X: gl.constexpr = activations_layout(TOKENS, BLOCK_K, gl.num_warps())
    split = gl.program_id(1)
    column, n0, outputs, qweight, scales, qzeros = weight_of_block(
        gl.program_id(0),
        (outputs, qweight, scales, qzeros),
        (second_outputs, second_qweight, second_scales, second_qzeros),
        (third_outputs, third_qweight, third_scales, third_qzeros),
        BLOCK_N,
    )
    first = split * split_inputs
    last = gl.minimum(first + split_inputs, inputs)
    ahead = ()
    for step in gl.static_range(AHEAD):
        at = first + step * BLOCK_K
        weight = load_weight(
            qweight, scales, qzeros, outputs, n0, at, last, BITS, GROUP, EVEN_K, CODES
        )
        ahead = ahead + (weight,)  # type: ignore[assignment]  # noqa: RUF005
    inverse = None
    if TURING:
        units = row_units(x, x_stride, rows, first, last, TOKENS)
        inverse = 1.0 / gl.convert_layout(units, gl.SliceLayout(1, X))
    tile = load_activations(x, x_stride, rows, first, last, EVEN_K, X, TOKENS, BLOCK_K)
    sums = gl.zeros([BLOCK_N, TOKENS], gl.float32, M)
    for start in range(first, last, BLOCK_K * AHEAD):
        after = ()
        for step in gl.static_range(AHEAD):
            at = start + step * BLOCK_K
            right = as_right(tile, inverse, BITS, RIGHT)
            tile = load_activations(
                x, x_stride, rows, at + BLOCK_K, last, EVEN_K, X, TOKENS, BLOCK_K
            )
            sums += products(ahead[step], right, BITS, M, CODES, TURING)
            at += AHEAD * BLOCK_K
            weight = load_weight(
                qweight, scales, qzeros, outputs, n0, at, last, BITS, GROUP, EVEN_K, CODES
            )
            after = after + (weight,)  # type: ignore[assignment]  # noqa: RUF005
        ahead = after
    if TURING:
        sums *= gl.convert_layout(units, gl.SliceLayout(0, M))[None, :]
    sums = in_natural_order(sums)
    n = n0 + gl.arange(0, BLOCK_N, gl.SliceLayout(1, sums.type.layout))
    m = gl.arange(0, TOKENS, gl.SliceLayout(0, sums.type.layout))
    places = (split * rows + m).to(gl.int64)[None, :] * out_stride + (column + n)[:, None]
    gl.store(out + places, sums, (n < outputs)[:, None] & (m < rows)[None, :])


@gluon.jit
def weight_of_block(block, one, second, third, BLOCK_N: gl.constexpr):
    """Return the weight that a block multiplies, and where.

    They are the first column of the weight in `out`, the first output of the block, and of the
    weight its outputs, words, scales and zero points. Each block is of one weight.
    """
    outputs, qweight, scales, qzeros = one
    second_outputs, second_qweight, second_scales, second_qzeros = second
    third_outputs, third_qweight, third_scales, third_qzeros = third
    second_block = gl.cdiv(outputs, BLOCK_N)
    third_block = second_block + gl.cdiv(second_outputs, BLOCK_N)
    after_second = outputs + second_outputs
    column, first_block = 0 * block, 0 * block
    if second_qweight is not None:  # noqa: SIM102 - known when compiled
        if block >= second_block:
            first_block, column, outputs = second_block, column + outputs, second_outputs
            qweight, scales = second_qweight, second_scales
            if qzeros is not None:
                qzeros = second_qzeros
    if third_qweight is not None:  # noqa: SIM102 - known when compiled
        if block >= third_block:
            first_block, column, outputs = third_block, after_second, third_outputs
            qweight, scales = third_qweight, third_scales
            if qzeros is not None:
                qzeros = third_qzeros
    return column, (block - first_block) * BLOCK_N, outputs, qweight, scales, qzeros


@gluon.jit
def row_units(x, x_stride, rows, first, last, TOKENS: gl.constexpr):
    """Return the number that 1 in float16 stands for, for each row of a split: float32 [M]."""
    L: gl.constexpr = gl.BlockedLayout([1, 8], [1, 32], [gl.num_warps(), 1], [1, 0])
    largest = gl.zeros([TOKENS, SCANNED], gl.float32, L)
    for start in range(first, last, SCANNED):
        tile = load_activations(x, x_stride, rows, start, last, False, L, TOKENS, SCANNED)
        largest = gl.maximum(largest, gl.abs(tile.to(gl.float32)))
    return power_of_two(gl.max(largest, 1)) / HIGHEST


@gluon.jit
def products(
    weight,
    right,
    BITS: gl.constexpr,
    M: gl.constexpr,
    CODES: gl.constexpr,
    TURING: gl.constexpr,
):
    """Multiply a tile of the weight by activations: float32 [N, M]."""
    LEFT: gl.constexpr = gl.DotOperandLayout(0, M, 2)
    N: gl.constexpr = CODES.shape[0]
    TOKENS: gl.constexpr = right.shape[1]
    words, scale, zeros = weight
    sums = gl.zeros([N, TOKENS], gl.float32, M)
    if TURING:
        sums = multiply(float16_of(words, zeros, BITS, LEFT, CODES), right, sums)
    else:
        sums = multiply(bfloat16_of(words, zeros, False, BITS, LEFT, CODES), right, sums)
        if BITS == 8:
            sums = multiply(bfloat16_of(words, zeros, True, BITS, LEFT, CODES), right, sums)
    factor = gl.convert_layout(in_tile_order(scale), gl.SliceLayout(1, M))
    return sums * factor.to(gl.float32)[:, None]


@gluon.jit
def load_weight(
    qweight,
    scales,
    qzeros,
    outputs,
    n0,
    start,
    last,
    BITS: gl.constexpr,
    GROUP: gl.constexpr,
    EVEN_K: gl.constexpr,
    CODES: gl.constexpr,
):
    """Load words, scales and zero points of a tile of inputs from `start` on."""
    words = load_words(qweight, outputs, n0, start, last, BITS, EVEN_K, CODES)
    scale = load_scales(scales, outputs, n0, start, last, GROUP, CODES)
    return words, scale, load_zeros(qzeros, outputs, n0, start, last, BITS, GROUP, CODES)


@gluon.jit
def load_words(
    qweight,
    outputs,
    n0,
    start,
    last,
    BITS: gl.constexpr,
    EVEN_K: gl.constexpr,
    CODES: gl.constexpr,
):
    """Load the words of a tile of inputs from `start` on, none from `last` on: int32 [N, words]."""
    L: gl.constexpr = gl.SliceLayout(2, gl.SliceLayout(3, CODES))
    PER_WORD: gl.constexpr = 32 // BITS
    n = n0 + gl.arange(0, CODES.shape[0], gl.SliceLayout(1, L))
    word = start // PER_WORD + gl.arange(0, CODES.shape[1], gl.SliceLayout(0, L))
    place = qweight + word[None, :] * outputs + n[:, None]
    if EVEN_K:
        mask = (n < gl.where(start < last, outputs, 0))[:, None]
    else:
        mask = (n < outputs)[:, None] & (word * PER_WORD < last)[None, :]
    return gl.load(place, mask, 0)


@gluon.jit
def load_activations(
    x,
    x_stride,
    rows,
    start,
    last,
    EVEN_K: gl.constexpr,
    L: gl.constexpr,
    TOKENS: gl.constexpr,
    BLOCK_K: gl.constexpr,
):
    """Load inputs from `start` on of all rows, zeros from `last` on: [M, K].

    The last row stands where there are no more: what is not there costs no loads.
    """
    m = gl.minimum(gl.arange(0, TOKENS, gl.SliceLayout(1, L)), rows - 1)
    k = start + gl.arange(0, BLOCK_K, gl.SliceLayout(0, L))
    place = x + m.to(gl.int64)[:, None] * x_stride + k[None, :]
    mask = (m < gl.where(start < last, rows, 0))[:, None] if EVEN_K else (k < last)[None, :]
    return gl.load(place, mask, 0.0)


@gluon.jit
def load_scales(scales, outputs, n0, start, last, GROUP: gl.constexpr, CODES: gl.constexpr):
    """Load the scales of a tile's group: [N]."""
    L: gl.constexpr = gl.SliceLayout(1, gl.SliceLayout(2, gl.SliceLayout(3, CODES)))
    n = n0 + gl.arange(0, CODES.shape[0], L)
    place = scales + start // GROUP * outputs + n
    return gl.load(place, n < gl.where(start < last, outputs, 0), 0.0)


@gluon.jit
def load_zeros(
    qzeros, outputs, n0, start, last, BITS: gl.constexpr, GROUP: gl.constexpr, CODES: gl.constexpr
):
    """Load the zero points of a tile's group: int32 [N]."""
    N: gl.constexpr = CODES.shape[0]
    PER_WORD: gl.constexpr = 32 // BITS
    if qzeros is None:
        L: gl.constexpr = gl.SliceLayout(1, gl.SliceLayout(2, gl.SliceLayout(3, CODES)))
        return gl.full([N], 1 << (BITS - 1), gl.int32, L)
    else:
        # The four outputs of a lane have their zero points in one word.
        FOURS: gl.constexpr = fours_layout(N, gl.num_warps())
        n = n0 + 4 * gl.arange(0, N // 4, gl.SliceLayout(1, FOURS))
        place = qzeros + start // GROUP * (outputs // PER_WORD) + n // PER_WORD
        word = gl.load(place, n < gl.where(start < last, outputs, 0), 0)
        word = word >> (n % PER_WORD * BITS)
        shift = gl.arange(0, 4, gl.SliceLayout(0, FOURS)) * BITS
        zeros = word[:, None] >> shift[None, :] & ((1 << BITS) - 1)
        return gl.convert_layout(
            gl.reshape(zeros, [N]), gl.SliceLayout(1, gl.SliceLayout(2, gl.SliceLayout(3, CODES)))
        )
