"""Add to scores what the centre of a head's keys contributes; keys stay as they are stored.

A key at position s is stored minus R(s) c, where c is the centre (glm4q/memory/kv/centers.py). For
each pair of numbers, R(s) c adds to the score of a query q
    a cos(s f) + b sin(s f), a = q0 c0 + q1 c1, b = q1 c0 - q0 c1.
a and b are rotated on to the first position of a tile, so that one table of cos and sin serves all
tiles. Numbers that are not rotated add the same to all scores of a query: softmax ignores that.
"""

import triton
import triton.language as tl

from glm4q.kernels.gpu.numbers import power_of_two

REVOLUTION = tl.constexpr(2.0**64 / 6.283185307179586)
"""A revolution fills a 64-bit integer, so its product with a position wraps as an angle does."""
ANGLE = tl.constexpr(6.283185307179586 / 2.0**32)


@triton.jit
def factors(queries, ours, center, PAIRS: tl.constexpr, BLOCK_P: tl.constexpr):
    """Return a and b, [G, BLOCK_P] each, of the rotated queries at `queries`, [G], if wanted.

    BLOCK_P: PAIRS, or the next power of two.
    """
    pair = tl.arange(0, BLOCK_P)
    known = pair < PAIRS
    place, mask = queries[:, None] + 2 * pair[None, :], ours[:, None] & known[None, :]
    even, odd = tl.load(place, mask=mask, other=0), tl.load(place + 1, mask=mask, other=0)
    c_even = tl.load(center + 2 * pair, mask=known, other=0)[None, :]
    c_odd = tl.load(center + 2 * pair + 1, mask=known, other=0)[None, :]
    return even * c_even + odd * c_odd, odd * c_even - even * c_odd


@triton.jit
def revolutions_of_a_token(frequencies, PAIRS: tl.constexpr, BLOCK_P: tl.constexpr):
    """Return int64 [BLOCK_P]: the revolutions from one position to the next."""
    pair = tl.arange(0, BLOCK_P)
    return (tl.load(frequencies + pair, mask=pair < PAIRS, other=0) * REVOLUTION).to(tl.int64)


@triton.jit
def tile_table(
    rotation,  # float32 [2, TILE, PAIRS]
    TILE: tl.constexpr,
    BLOCK_S: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK_P: tl.constexpr,
):
    """Load cos and sin, float16 [BLOCK_P, BLOCK_S], of the places of a tile."""
    pair, j = tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_S)
    place = rotation + j[None, :] * PAIRS + pair[:, None]
    known = (pair < PAIRS)[:, None] & (j < TILE)[None, :]
    cos = tl.load(place, mask=known, other=0).to(tl.float16)
    return cos, tl.load(place + TILE * PAIRS, mask=known, other=0).to(tl.float16)


@triton.jit
def cos_and_sin(angle):
    """Compute cosine and sine of an angle in 2**-64 revolutions.

    The library's own functions take memory of each thread for the largest angles.
    """
    upper = (angle >> 32).to(tl.int32)
    quadrant = ((upper + (1 << 29)) >> 30) & 3
    x = (upper - (quadrant << 30)).to(tl.float32) * ANGLE  # -pi / 4 to pi / 4
    square = x * x  # Cephes' polynomials
    odd = (-1.9515295891e-4 * square + 8.3321608736e-3) * square - 1.6666654611e-1
    sin = x + x * square * odd
    even = (2.443315711809948e-5 * square - 1.388731625493765e-3) * square + 4.166664568298827e-2
    cos = 1.0 - 0.5 * square + square * square * even
    swapped = quadrant % 2 == 1
    cos, sin = tl.where(swapped, sin, cos), tl.where(swapped, cos, sin)
    cos = tl.where((quadrant == 1) | (quadrant == 2), -cos, cos)
    return cos, tl.where(quadrant >= 2, -sin, sin)


@triton.jit
def in_float16_s_range(along, across):
    """Divide a and b by a unit of each row, which float16 holds however they are rotated."""
    unit = power_of_two(tl.max(tl.abs(along) + tl.abs(across), 1))[:, None]
    return along / unit, across / unit, unit


@triton.jit
def rotate_on(along, across, angle):
    """Rotate a and b on by an angle of each pair, in float16."""
    cos, sin = cos_and_sin(angle)
    cos, sin = cos[None, :], sin[None, :]
    by_cos, by_sin = along * cos + across * sin, across * cos - along * sin
    return by_cos.to(tl.float16), by_sin.to(tl.float16)
