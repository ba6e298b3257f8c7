"""Sums of a tile's values by their weights on Turing: one matrix, or both halves of INT4 vectors.

The sums of an INT4 cache are four: of codes by scales for each half, and of the middles of the
halves, each of which is one number for all of its half. Sums of middles stay divided by the places
of a tile until the end.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from glm4q.kernels.gpu.attention.halves import read_grid
from glm4q.kernels.gpu.turing_mma import multiply


@gluon.jit
def no_values(
    BLOCK_R: gl.constexpr,
    BLOCK_S: gl.constexpr,
    VALUES: gl.constexpr,
    D: gl.constexpr,
    M: gl.constexpr,
):
    """Return the sums of no values."""
    if VALUES == "int4":
        none = gl.zeros([BLOCK_R, D // 2], gl.float32, M)
        middles = gl.zeros([BLOCK_R, BLOCK_S], gl.float32, M)
        return none, none, middles, middles
    else:
        return gl.zeros([BLOCK_R, D], gl.float32, M)


@gluon.jit
def add_values(
    sums,
    weights,
    shrink,
    values,
    units,
    scales,
    s,
    there,
    VALUES: gl.constexpr,
    D: gl.constexpr,
    M: gl.constexpr,
):
    """Shrink sums, and add the values of a tile by their weights."""
    RIGHT: gl.constexpr = gl.DotOperandLayout(1, M, 2)
    if VALUES == "int4":
        low, high, low_middles, high_middles = sums
        low_unit, low_middle = read_grid(scales, s, there, 0, D)
        high_unit, high_middle = read_grid(scales, s, there, 1, D)
        low_middles = low_middles * shrink + weights * low_middle[None, :]
        high_middles = high_middles * shrink + weights * high_middle[None, :]
        largest = largest_of(gl.maximum(low_unit, high_unit))
        right = values.slice(0, D // 2, 1).load(RIGHT)
        low = mixed_by(weights, low_unit, largest, right, low * shrink)
        right = values.slice(D // 2, D // 2, 1).load(RIGHT)
        high = mixed_by(weights, high_unit, largest, right, high * shrink)
        return low, high, low_middles, high_middles
    else:
        largest = largest_of(units)
        return mixed_by(weights, units, largest, values.load(RIGHT), sums * shrink)


@gluon.jit
def largest_of(units):
    """Return the largest unit of a tile, or what float32 can divide by."""
    return gl.maximum(gl.max(units, 0), 2.0**-100)


@gluon.jit
def mixed_by(weights, units, largest, vectors, sums):
    """Add weights times units times vectors to sums.

    Units are divided by the tile's largest, so that float16 can hold the products.
    """
    M: gl.constexpr = sums.type.layout
    left = (weights * (units * (1.0 / largest))[None, :]).to(gl.float16)
    left = gl.convert_layout(left, gl.DotOperandLayout(0, M, 2))
    none = gl.zeros([sums.shape[0], sums.shape[1]], gl.float32, M)
    return sums + multiply(left, vectors, none) * largest


@gluon.jit
def store_values(rows, sums, ours, VALUES: gl.constexpr, D: gl.constexpr, M: gl.constexpr):
    """Store the sums of rows, [R, D], where they are wanted."""
    WIDTH: gl.constexpr = D // 2 if VALUES == "int4" else D
    place = rows + gl.arange(0, WIDTH, gl.SliceLayout(0, M))[None, :]
    if VALUES == "int4":
        low, high, low_middles, high_middles = sums
        gl.store(place + D // 2, high + gl.sum(high_middles, 1)[:, None], ours[:, None])
        gl.store(place, low + gl.sum(low_middles, 1)[:, None], ours[:, None])
    else:
        gl.store(place, sums, ours[:, None])
