"""Vectors of an INT4 cache as tensor cores take them: whole numbers, in two halves of a vector.

A byte holds number i of a vector below number i + D / 2, and each half of a vector lies within one
group of 64 numbers. So a half's scale and least value are factors of its sums, and no code is
multiplied by them:
    q . k = scale (q . codes) + middle sum(q), codes = -8 to 7, middle = least + 8 scale.
A word holds four bytes. Its codes go under the mantissa of float16's 1024, two in one operation:
byte 0 beside byte 2, and byte 1 beside byte 3. `number_at` says which number of a vector a column
of such a half is.
"""

import triton
import triton.language as tl

from calculator.memory.workspace import KV_GROUP

GROUP = tl.constexpr(KV_GROUP)
CODES = tl.constexpr(0x000F000F)
MAGIC_BITS = tl.constexpr(0x64006400)
"""1024 in float16, twice: its last bit counts 1."""
MAGIC = tl.constexpr(1032.0)
"""1024, and 8 so that codes are as much below zero as above it."""


@triton.jit
def number_at(column):
    """Return the number of a half that stands in a column of `read_halves`."""
    return (column & -4) | ((column & 1) << 1) | ((column >> 1) & 1)


@triton.jit
def load_rows(queries, ours, inverse, D: tl.constexpr):
    """Load both halves of the rows at `queries`, [R], in their units, and the sums of them."""
    column = number_at(tl.arange(0, D // 2))[None, :]
    low = tl.load(queries[:, None] + column, ours[:, None], 0.0) * inverse
    high = tl.load(queries[:, None] + D // 2 + column, ours[:, None], 0.0) * inverse
    return low.to(tl.float16), high.to(tl.float16), tl.sum(low, 1), tl.sum(high, 1)


@triton.jit
def scores(low, high, low_sum, high_sum, codes, scales, s, there, magic, D: tl.constexpr):
    """Multiply rows, [R], by the vectors s, [S]: float32 [R, S]."""
    k_low, k_high = read_halves(codes, s, there, magic, D)
    low_scale, low_middle = read_grid(scales, s, there, 0, D)
    high_scale, high_middle = read_grid(scales, s, there, 1, D)
    products = tl.dot(low, tl.trans(k_low)) * low_scale[None, :]
    products += tl.dot(high, tl.trans(k_high)) * high_scale[None, :]
    products += low_sum[:, None] * low_middle[None, :]
    return products + high_sum[:, None] * high_middle[None, :]


@triton.jit
def magic_bits(room):
    """Return MAGIC_BITS in a register, which a constant would be loaded into again and again.

    A logical operation of a card takes one constant, and codes meet two. What depends on a number
    that is not known before, as the room of a cache, which is never negative, is no constant.
    """
    return MAGIC_BITS + (room >> 31)


@triton.jit
def read_halves(codes, s, there, magic, D: tl.constexpr):
    """Read the codes of both halves of the vectors s, [S]: float16 [S, D / 2] each."""
    word = tl.arange(0, D // 8)
    words = codes.to(tl.pointer_type(tl.int32)) + s[:, None] * (D // 8) + word[None, :]
    packed = tl.load(words, mask=there[:, None], other=0)
    return _half(packed, magic, D), _half(packed >> 4, magic, D)


@triton.jit
def _half(packed, magic, D: tl.constexpr):
    S: tl.constexpr = packed.shape[0]
    pairs = tl.reshape(tl.join(packed & CODES, (packed >> 8) & CODES), (S, D // 4)) | magic
    numbers = tl.join(_float16(pairs), _float16(pairs >> 16))
    return tl.reshape(numbers, (S, D // 2)) - MAGIC


@triton.jit
def _float16(bits):
    return (bits & 0xFFFF).to(tl.int16).to(tl.float16, bitcast=True)


@triton.jit
def read_grid(scales, s, there, half, D: tl.constexpr):
    """Read scale and middle of a half of the vectors s, float32 [S] each.

    Scale and least value are loaded as one word.
    """
    grid = scales.to(tl.pointer_type(tl.int32)) + s * (D // GROUP) + half * (D // GROUP // 2)
    word = tl.load(grid, mask=there, other=0)
    scale, least = _float16(word).to(tl.float32), _float16(word >> 16).to(tl.float32)
    return scale, least + 8 * scale
