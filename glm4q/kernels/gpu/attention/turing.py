"""Attention of the newest token on Turing, whose tensor cores Triton's own `dot` does not use.

It computes what `attention.attend` computes, from the same buffers. It is written in Gluon,
Triton's language of explicit layouts, which still has Turing's instruction: m16n8k8 of float16.
Cached codes become float16 four at a time and lie in shared memory as matrices of [S, D], swizzled
so that their stores and loads meet few banks twice.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language._core import builtin

from glm4q.kernels.gpu.attention.centers import REVOLUTION, cos_and_sin
from glm4q.kernels.gpu.attention.halves import read_grid
from glm4q.kernels.gpu.attention.turing_cache import put_vectors
from glm4q.kernels.gpu.attention.vectors import first_of_head
from glm4q.kernels.gpu.numbers import power_of_two

ROWS = gl.constexpr(16)
"""The height of a tensor core's tile, which the queries of a key fill at most."""
LOWEST = gl.constexpr(-3.0e38)
LOG2_E = gl.constexpr(1.4426950408889634)


@builtin
def multiply(a, b, sums, _semantic=None):
    """Add a times b to sums; `mma_v2` of Gluon refuses Turing's version of the layout."""
    handle = _semantic.dot(a, b, sums, None, None, sums.dtype).handle
    return gl.tensor(handle, sums.type)


@gluon.jit
def attend(
    queries,  # float32 [B, Hkv, G, D], scaled, and Hadamard-transformed where keys are
    plain_queries,  # the queries without the Hadamard transform
    key_codes,
    key_scales,
    value_codes,
    value_scales,
    centers,  # float32 [B, Hkv, 1, D], the centres that were subtracted from keys; or None
    frequencies,  # float64 [PAIRS]
    tile_rotation,  # float32 [2, TILE, PAIRS]
    cached,  # int64 [1]: tokens in the cache before the newest and the AHEAD that run with it
    mixed,  # float32 [B * Hkv, splits, G, D]
    softmax,  # float32 [B * Hkv, 2, splits, G]: greatest score, sum of exponentials to 2
    room,
    splits,
    rows,  # G
    BLOCK_S: gl.constexpr,
    D: gl.constexpr,
    PAIRS: gl.constexpr,
    BLOCK_P: gl.constexpr,
    TILE: gl.constexpr,
    AHEAD: gl.constexpr,
    KEYS: gl.constexpr,
    VALUES: gl.constexpr,
):
    """Attend from one token's rows to one range of tokens."""
    M: gl.constexpr = gl.NVMMADistributedLayout([2, 1], [1, gl.num_warps()], instr_shape=[16, 8])
    LEFT: gl.constexpr = gl.DotOperandLayout(0, M, 2)
    RIGHT: gl.constexpr = gl.DotOperandLayout(1, M, 2)
    BY_ROW: gl.constexpr = gl.SliceLayout(1, M)
    BY_TOKEN: gl.constexpr = gl.SliceLayout(0, M)
    KEY_WIDTH: gl.constexpr = D // 2 if KEYS == "int4" else D
    VALUE_WIDTH: gl.constexpr = D // 2 if VALUES == "int4" else D
    SHARED: gl.constexpr = gl.SwizzledSharedLayout(
        8, 1, min(KEY_WIDTH, VALUE_WIDTH, 64) // 8, [1, 0]
    )
    split, block, head = gl.program_id(0), gl.program_id(1), gl.program_id(2)
    r = block * ROWS + gl.arange(0, ROWS, BY_ROW)
    first, here = (head * rows + block * ROWS) * D, rows - block * ROWS
    unit, low, low_sum = load_rows(queries + first, here, 0, KEY_WIDTH, D, M)
    _, high, high_sum = load_rows(queries + first, here, D - KEY_WIDTH, KEY_WIDTH, D, M)
    # Scores count in powers of 2, of which a card computes the exponential at once.
    unit = (unit * LOG2_E)[:, None]
    past = gl.load(cached).to(gl.int32) + AHEAD
    run = gl.cdiv(gl.cdiv(past + 1, splits), BLOCK_S) * BLOCK_S
    last = gl.minimum((split + 1) * run, past + 1)
    if centers is not None:
        along, across, center_unit = factors(
            plain_queries + first, here, centers + head * D, PAIRS, BLOCK_P, D
        )
        center_unit = gl.convert_layout(center_unit * LOG2_E, BY_ROW)[:, None]
        revolutions = revolutions_of_a_token(frequencies, PAIRS, BLOCK_P)
        angle = revolutions * (split * run)
        tile_cos = tile_table(tile_rotation, TILE, BLOCK_S, PAIRS, BLOCK_P, RIGHT)
        tile_sin = tile_table(tile_rotation + TILE * PAIRS, TILE, BLOCK_S, PAIRS, BLOCK_P, RIGHT)
    key_codes, key_scales = first_of_head(key_codes, key_scales, head, room, KEYS, D)
    value_codes, value_scales = first_of_head(value_codes, value_scales, head, room, VALUES, D)
    keys = gl.allocate_shared_memory(gl.float16, [BLOCK_S, D], SHARED)
    values = gl.allocate_shared_memory(gl.float16, [BLOCK_S, D], SHARED)
    best = gl.full([ROWS], LOWEST, gl.float32, BY_ROW)
    total = gl.zeros([ROWS, BLOCK_S], gl.float32, M)
    none = gl.zeros([ROWS, BLOCK_S], gl.float32, M)
    sums = gl.zeros([ROWS, VALUE_WIDTH], gl.float32, M)
    if VALUES == "int4":
        high_sums = gl.zeros([ROWS, VALUE_WIDTH], gl.float32, M)
        low_middles = gl.zeros([ROWS, BLOCK_S], gl.float32, M)
        high_middles = gl.zeros([ROWS, BLOCK_S], gl.float32, M)
    for start in range(split * run, last, BLOCK_S):
        s = start + gl.arange(0, BLOCK_S, BY_TOKEN)
        there = s < last
        k_unit = put_vectors(key_codes, key_scales, keys, start, last, KEYS, D, BY_TOKEN)
        v_unit = put_vectors(value_codes, value_scales, values, start, last, VALUES, D, BY_TOKEN)
        if KEYS == "int4":
            scores = by_half(low, keys, key_scales, s, there, low_sum, 0, D)
            scores += by_half(high, keys, key_scales, s, there, high_sum, 1, D)
        else:
            scores = multiply(low, keys.permute((1, 0)).load(RIGHT), none) * k_unit[None, :]
        scores *= unit
        if centers is not None:
            by_cos, by_sin = rotate_on(along, across, angle, LEFT)
            angle += revolutions * BLOCK_S
            added = multiply(by_sin, tile_sin, multiply(by_cos, tile_cos, none))
            scores += added * center_unit
        scores = gl.where(there[None, :], scores, -float("inf"))
        new_best = gl.maximum(best, gl.max(scores, 1))
        shrink = gl.exp2(best - new_best)[:, None]
        weights = gl.exp2(scores - new_best[:, None])
        best = new_best
        total = total * shrink + weights
        if VALUES == "int4":
            low_unit, low_middle = read_grid(value_scales, s, there, 0, D)
            high_unit, high_middle = read_grid(value_scales, s, there, 1, D)
            low_middles = low_middles * shrink + weights * low_middle[None, :]
            high_middles = high_middles * shrink + weights * high_middle[None, :]
            largest = largest_of(gl.maximum(low_unit, high_unit))
            right = values.slice(0, D // 2, 1).load(RIGHT)
            sums = mixed_by(weights, low_unit, largest, right, sums * shrink)
            right = values.slice(D // 2, D // 2, 1).load(RIGHT)
            high_sums = mixed_by(weights, high_unit, largest, right, high_sums * shrink)
        else:
            largest = largest_of(v_unit)
            sums = mixed_by(weights, v_unit, largest, values.load(RIGHT), sums * shrink)
    ours = r < rows
    d = gl.arange(0, VALUE_WIDTH, BY_TOKEN)
    place = mixed + ((head * splits + split) * rows + r)[:, None] * D + d[None, :]
    if VALUES == "int4":
        sums += gl.sum(low_middles, 1)[:, None]
        high_sums += gl.sum(high_middles, 1)[:, None]
        gl.store(place + D // 2, high_sums, ours[:, None])
    gl.store(place, sums, ours[:, None])
    row = (2 * head * splits + split) * rows + r
    gl.store(softmax + row, best, ours)
    gl.store(softmax + splits * rows + row, gl.sum(total, 1), ours)


@gluon.jit
def by_half(rows, keys, scales, s, there, row_sums, half: gl.constexpr, D: gl.constexpr):
    """Multiply a half of the rows by that half of the keys: float32 [ROWS, S]."""
    M: gl.constexpr = rows.type.layout.parent
    scale, middle = read_grid(scales, s, there, half, D)
    right = (
        keys.slice(half * (D // 2), D // 2, 1).permute((1, 0)).load(gl.DotOperandLayout(1, M, 2))
    )
    none = gl.zeros([rows.shape[0], s.shape[0]], gl.float32, M)
    return multiply(rows, right, none) * scale[None, :] + row_sums[:, None] * middle[None, :]


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
    left = (weights * (units / largest)[None, :]).to(gl.float16)
    left = gl.convert_layout(left, gl.DotOperandLayout(0, M, 2))
    none = gl.zeros([sums.shape[0], sums.shape[1]], gl.float32, M)
    return sums + multiply(left, vectors, none) * largest


@gluon.jit
def revolutions_of_a_token(frequencies, PAIRS: gl.constexpr, BLOCK_P: gl.constexpr):
    """Return int64 [BLOCK_P]: the revolutions from one position to the next."""
    LINE: gl.constexpr = gl.BlockedLayout([1], [32], [gl.num_warps()], [0])
    pair = gl.arange(0, BLOCK_P, LINE)
    return (gl.load(frequencies + pair, pair < PAIRS, 0.0) * REVOLUTION).to(gl.int64)


@gluon.jit
def load_rows(queries, rows, start, WIDTH: gl.constexpr, D: gl.constexpr, M: gl.constexpr):
    """Load the rows' numbers from `start` on in units of the whole row: [ROWS, WIDTH].

    Return the unit of each row, the numbers in float16, and their sums.
    """
    L: gl.constexpr = gl.BlockedLayout([1, 4], [1, 32], [gl.num_warps(), 1], [1, 0])
    r, d = gl.arange(0, ROWS, gl.SliceLayout(1, L)), gl.arange(0, WIDTH, gl.SliceLayout(0, L))
    ours = (r < rows)[:, None]
    every = gl.arange(0, D, gl.SliceLayout(0, L))
    whole = gl.load(queries + r[:, None] * D + every[None, :], ours, 0.0)
    unit = power_of_two(gl.max(gl.abs(whole), 1))
    part = gl.load(queries + r[:, None] * D + start + d[None, :], ours, 0.0) / unit[:, None]
    left = gl.convert_layout(part.to(gl.float16), gl.DotOperandLayout(0, M, 2))
    BY_ROW: gl.constexpr = gl.SliceLayout(1, M)
    sums = gl.convert_layout(gl.sum(part, 1), BY_ROW)
    return gl.convert_layout(unit, BY_ROW), left, sums


@gluon.jit
def factors(queries, rows, center, PAIRS: gl.constexpr, BLOCK_P: gl.constexpr, D: gl.constexpr):
    """Return a and b of `centers`, [ROWS, BLOCK_P], in units of each row, and the units."""
    L: gl.constexpr = gl.BlockedLayout([1, 4], [4, 8], [gl.num_warps(), 1], [1, 0])
    r, pair = gl.arange(0, ROWS, gl.SliceLayout(1, L)), gl.arange(0, BLOCK_P, gl.SliceLayout(0, L))
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
    """Rotate a and b on by an angle of each pair, in float16 for a tensor core."""
    cos, sin = cos_and_sin(angle)
    cos = gl.convert_layout(cos, gl.SliceLayout(0, along.type.layout))[None, :]
    sin = gl.convert_layout(sin, gl.SliceLayout(0, along.type.layout))[None, :]
    by_cos, by_sin = along * cos + across * sin, across * cos - along * sin
    by_cos = gl.convert_layout(by_cos.to(gl.float16), LEFT)
    return by_cos, gl.convert_layout(by_sin.to(gl.float16), LEFT)


@gluon.jit
def tile_table(
    rotation,
    TILE: gl.constexpr,
    BLOCK_S: gl.constexpr,
    PAIRS: gl.constexpr,
    BLOCK_P: gl.constexpr,
    RIGHT: gl.constexpr,
):
    """Load cos or sin of the places of a tile: float16 [BLOCK_P, BLOCK_S]."""
    pair = gl.arange(0, BLOCK_P, gl.SliceLayout(1, RIGHT))
    j = gl.arange(0, BLOCK_S, gl.SliceLayout(0, RIGHT))
    known = (pair < PAIRS)[:, None] & (j < TILE)[None, :]
    return gl.load(rotation + j[None, :] * PAIRS + pair[:, None], known, 0.0).to(gl.float16)
