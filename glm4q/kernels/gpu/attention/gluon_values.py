"""Sums of a tile's values by their weights, in Gluon: one matrix, or both halves of INT4 vectors.

The sums of an INT4 cache are four: of codes by scales for each half, and of the middles of the
halves, each of which is one number for all of its half. Sums of middles stay divided by the places
of a tile until the end.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from glm4q.kernels.gpu.gluon_mma import multiply
from glm4q.kernels.gpu.numbers import SMALLEST, inverse_of_power, power_of_two


@gluon.jit
def no_values(
    BLOCK_R: gl.constexpr,
    BLOCK_S: gl.constexpr,
    VALUES: gl.constexpr,
    D: gl.constexpr,
    M: gl.constexpr,
):
    """Return the sums of no values, and the unit that they count in."""
    unit = gl.to_tensor(SMALLEST)
    if VALUES == "int4":
        none = gl.zeros([BLOCK_R, D // 2], gl.float32, M)
        middles = over_tokens(gl.zeros([BLOCK_R, BLOCK_S], gl.float32, M))
        return none, none, middles, middles, unit
    else:
        return gl.zeros([BLOCK_R, D], gl.float32, M), unit


@gluon.jit
def add_values(
    sums,
    weights,
    shrink,
    values,
    grid,
    VALUES: gl.constexpr,
    D: gl.constexpr,
    M: gl.constexpr,
):
    """Shrink sums, and add the values of a tile by their weights."""
    RIGHT: gl.constexpr = gl.DotOperandLayout(1, M, 2)
    BY_TOKEN: gl.constexpr = gl.SliceLayout(0, M)
    if VALUES == "int4":
        low, high, low_middles, high_middles, before = sums
        low_unit, low_middle = grid.index(0).load(BY_TOKEN), grid.index(1).load(BY_TOKEN)
        high_unit, high_middle = grid.index(2).load(BY_TOKEN), grid.index(3).load(BY_TOKEN)
        low_middles = shrunk(low_middles, shrink) + over_tokens(weights * low_middle[None, :])
        high_middles = shrunk(high_middles, shrink) + over_tokens(weights * high_middle[None, :])
        unit, shrink = larger_unit(before, gl.maximum(low_unit, high_unit), shrink)
        right = values.slice(0, D // 2, 1).load(RIGHT)
        low = mixed_by(weights, low_unit, unit, right, low * shrink)
        right = values.slice(D // 2, D // 2, 1).load(RIGHT)
        high = mixed_by(weights, high_unit, unit, right, high * shrink)
        return low, high, low_middles, high_middles, unit
    else:
        sums, before = sums
        units = grid.index(0).load(BY_TOKEN)
        unit, shrink = larger_unit(before, units, shrink)
        return mixed_by(weights, units, unit, values.load(RIGHT), sums * shrink), unit


@gluon.jit
def over_tokens(x):
    """Add up what a thread has of each row of a tile, [R, S]: [R, 8] for each warp side by side."""
    M: gl.constexpr = x.type.layout
    ACROSS: gl.constexpr = 8 * M.warps_per_cta[1]
    return gl.sum(gl.reshape(x, [x.shape[0], x.shape[1] // ACROSS, ACROSS]), 1)


@gluon.jit
def shrunk(sums, shrink):
    """Multiply what `over_tokens` returned by a number of each row, [R, 1]."""
    row = gl.reshape(shrink, [shrink.shape[0]])
    return sums * gl.convert_layout(row, gl.SliceLayout(1, sums.type.layout))[:, None]


@gluon.jit
def larger_unit(before, units, shrink):
    """Return the unit of sums with a tile of these units, and what brings them to it as well."""
    unit = gl.maximum(before, power_of_two(gl.max(units, 0)))
    return unit, shrink * (before * inverse_of_power(unit))


@gluon.jit
def mixed_by(weights, units, unit, vectors, sums):
    """Add weights times units times vectors to sums.

    Units are divided by that of the sums, so that float16 can hold the products.
    """
    M: gl.constexpr = sums.type.layout
    left = (weights * (units * inverse_of_power(unit))[None, :]).to(gl.float16)
    left = gl.convert_layout(left, gl.DotOperandLayout(0, M, 2))
    return multiply(left, vectors, sums)


@gluon.jit
def store_values(rows, sums, ours, VALUES: gl.constexpr, D: gl.constexpr, M: gl.constexpr):
    """Store the sums of rows, [R, D], where they are wanted."""
    WIDTH: gl.constexpr = D // 2 if VALUES == "int4" else D
    place = rows + gl.arange(0, WIDTH, gl.SliceLayout(0, M))[None, :]
    if VALUES == "int4":
        low, high, low_middles, high_middles, unit = sums
        high = high * unit + of_rows(high_middles, M)
        low = low * unit + of_rows(low_middles, M)
        gl.store(place + D // 2, high, ours[:, None])
        gl.store(place, low, ours[:, None])
    else:
        sums, unit = sums
        gl.store(place, sums * unit, ours[:, None])


@gluon.jit
def of_rows(parts, M: gl.constexpr):
    """Add up what `over_tokens` left of each row: [R, 1]."""
    return gl.convert_layout(gl.sum(parts, 1), gl.SliceLayout(1, M))[:, None]
