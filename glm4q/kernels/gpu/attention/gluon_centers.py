"""What the centre of a head's keys adds to scores: `centers`, by tensor cores, in Gluon."""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from glm4q.kernels.gpu.attention.centers import REVOLUTION, cos_and_sin
from glm4q.kernels.gpu.gluon_mma import multiply
from glm4q.kernels.gpu.numbers import power_of_two


@gluon.jit
def load_centers(
    queries,
    rows,
    center,
    rotation,
    score_unit,  # what 1 of these numbers is in the unit of each row's scores
    BLOCK_R: gl.constexpr,
    BLOCK_S: gl.constexpr,
    D: gl.constexpr,
    PAIRS: gl.constexpr,
    BLOCK_P: gl.constexpr,
    TILE: gl.constexpr,
    M: gl.constexpr,
):
    """Load what `added_by_centers` takes of a block of rows and of its head's centre."""
    along, across, unit = factors(queries, rows, center, BLOCK_R, PAIRS, BLOCK_P, D)
    unit = gl.convert_layout(unit, gl.SliceLayout(1, M)) * score_unit
    table = tile_table(rotation, TILE, BLOCK_S, PAIRS, BLOCK_P, gl.DotOperandLayout(1, M, 2))
    return along, across, unit, table


@gluon.jit
def added_by_centers(centered, angle, M: gl.constexpr):
    """Return what the centre adds to the scores of a tile whose first token has that angle."""
    along, across, unit, table = centered
    rotated = rotate_on(along, across, angle, gl.DotOperandLayout(0, M, 2))
    none = gl.zeros([along.shape[0], table.shape[1]], gl.float32, M)
    return multiply(rotated, table, none) * unit[:, None]


@gluon.jit
def revolutions_of_a_token(frequencies, PAIRS: gl.constexpr, BLOCK_P: gl.constexpr):
    """Return int64 [BLOCK_P]: the revolutions from one position to the next."""
    LINE: gl.constexpr = gl.BlockedLayout([1], [32], [gl.num_warps()], [0])
    pair = gl.arange(0, BLOCK_P, LINE)
    return (gl.load(frequencies + pair, pair < PAIRS, 0.0) * REVOLUTION).to(gl.int64)


@gluon.jit
def factors(
    queries,
    rows,
    center,
    BLOCK_R: gl.constexpr,
    PAIRS: gl.constexpr,
    BLOCK_P: gl.constexpr,
    D: gl.constexpr,
):
    """Return a and b of `centers`, [R, BLOCK_P], in units of each row, and the units."""
    L: gl.constexpr = gl.BlockedLayout([1, 4], [4, 8], [gl.num_warps(), 1], [1, 0])
    r, pair = (
        gl.arange(0, BLOCK_R, gl.SliceLayout(1, L)),
        gl.arange(0, BLOCK_P, gl.SliceLayout(0, L)),
    )
    known = pair < PAIRS
    place, mask = queries + r[:, None] * D + 2 * pair[None, :], (r < rows)[:, None] & known[None, :]
    even, odd = gl.load(place, mask, 0.0), gl.load(place + 1, mask, 0.0)
    c_even = gl.load(center + 2 * pair, known, 0.0)[None, :]
    c_odd = gl.load(center + 2 * pair + 1, known, 0.0)[None, :]
    along, across = even * c_even + odd * c_odd, odd * c_even - even * c_odd
    unit = power_of_two(gl.max(gl.abs(along) + gl.abs(across), 1))
    return along / unit[:, None], across / unit[:, None], unit


@gluon.jit
def rotate_on(along, across, angle, LEFT: gl.constexpr):
    """Rotate a and b on by an angle of each pair: float16 [R, 2 BLOCK_P], a pair's together."""
    cos, sin = cos_and_sin(angle)
    cos = gl.convert_layout(cos, gl.SliceLayout(0, along.type.layout))[None, :]
    sin = gl.convert_layout(sin, gl.SliceLayout(0, along.type.layout))[None, :]
    by_cos, by_sin = along * cos + across * sin, across * cos - along * sin
    both = gl.join(by_cos.to(gl.float16), by_sin.to(gl.float16))
    return gl.convert_layout(gl.reshape(both, [along.shape[0], 2 * along.shape[1]]), LEFT)


@gluon.jit
def tile_table(
    rotation,
    TILE: gl.constexpr,
    BLOCK_S: gl.constexpr,
    PAIRS: gl.constexpr,
    BLOCK_P: gl.constexpr,
    RIGHT: gl.constexpr,
):
    """Load cos and sin of the places of a tile, a pair's together: float16 [2 BLOCK_P, BLOCK_S]."""
    row = gl.arange(0, 2 * BLOCK_P, gl.SliceLayout(1, RIGHT))
    pair, j = row // 2, gl.arange(0, BLOCK_S, gl.SliceLayout(0, RIGHT))
    known = (pair < PAIRS)[:, None] & (j < TILE)[None, :]
    first = row % 2 * (TILE * PAIRS) + pair
    return gl.load(rotation + j[None, :] * PAIRS + first[:, None], known, 0.0).to(gl.float16)
