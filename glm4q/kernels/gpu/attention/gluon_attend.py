"""Attention in Gluon, Triton's language of explicit layouts, from Turing on.

It computes what `attention.attend` computes, from the same buffers. Triton's own `dot` does not use
Turing's tensor cores; from Ampere on it does, but it passes codes through shared memory once more
and keeps more in registers: on an H200, with code for 8.6, it took two to four times as long for a
prompt. Cached codes become float16 four at a time and lie in shared memory as matrices of [S, D],
swizzled so that their stores and loads meet few banks twice.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from glm4q.kernels.gpu.attention.gluon_cache import put_vectors
from glm4q.kernels.gpu.attention.gluon_centers import (
    added_by_centers,
    load_centers,
    revolutions_of_a_token,
)
from glm4q.kernels.gpu.attention.gluon_values import (
    add_values,
    no_values,
    over_tokens,
    shrunk,
    store_values,
)
from glm4q.kernels.gpu.attention.vectors import first_of_head
from glm4q.kernels.gpu.gluon_mma import multiply
from glm4q.kernels.gpu.numbers import power_of_two

LOWEST = gl.constexpr(-3.0e38)
LOG2_E = gl.constexpr(1.4426950408889634)


@gluon.constexpr_function
def tile_of(rows, warps, turing):
    """The layout of scores and sums: a warp for each 16 rows, more warps side by side."""
    high = min(rows // 16, warps)
    version = [2, 1] if turing else [2, 0]
    return gl.NVMMADistributedLayout(version, [high, warps // high], instr_shape=[16, 8])


@gluon.constexpr_function
def line_of(layout, warps):
    """The layout in which units of a tile are loaded: by a lane each, in all warps alike.

    Where all warps stand side by side, each has its own tokens, and no other loads their units.
    """
    if layout.warps_per_cta[1] == warps:
        return gl.SliceLayout(0, layout)
    return gl.BlockedLayout([1], [32], [warps], [0])


@gluon.jit(do_not_specialize=["ahead"], do_not_specialize_on_alignment=["rows", "tokens"])
def attend(
    queries,  # float32 [B, Hkv, G * T, D], scaled, and Hadamard-transformed where keys are
    plain_queries,  # the queries without the Hadamard transform
    key_codes,
    key_scales,
    value_codes,
    value_scales,
    centers,  # float32 [rows, Hkv, 1, D], the centres that were subtracted from keys; or None
    frequencies,  # float64 [PAIRS]
    tile_rotation,  # float32 [2, TILE, PAIRS]
    cached,  # int64 [B]: tokens of each sequence in the cache before the newest T
    cache_rows,  # int64 [B]: the row of the cache that each sequence has
    ahead,  # tokens of a draft that come before and run with them
    mixed,  # float32 [B * Hkv, splits, G * T, D]
    softmax,  # float32 [B * Hkv, 2, splits, G * T]: greatest score, sum of exponentials to 2
    room,
    splits,
    rows,  # G * T
    tokens,  # T
    TURING: gl.constexpr,  # whether tensor cores are Turing's
    SEVERAL: gl.constexpr,  # whether T is more than 1
    BLOCK_R: gl.constexpr,
    BLOCK_S: gl.constexpr,
    HEADS: gl.constexpr,  # Hkv
    D: gl.constexpr,
    PAIRS: gl.constexpr,
    BLOCK_P: gl.constexpr,
    TILE: gl.constexpr,
    KEYS: gl.constexpr,
    VALUES: gl.constexpr,
):
    """Attend from a block of rows to one range of tokens; a row sees no token after its own."""
    M: gl.constexpr = tile_of(BLOCK_R, gl.num_warps(), TURING)
    BY_ROW: gl.constexpr = gl.SliceLayout(1, M)
    BY_TOKEN: gl.constexpr = gl.SliceLayout(0, M)
    WIDTH: gl.constexpr = D // 2 if KEYS == "int4" or VALUES == "int4" else D
    SHARED: gl.constexpr = gl.SwizzledSharedLayout(8, 1, min(WIDTH, 64) // 8, [1, 0])
    split, block, head = gl.program_id(0), gl.program_id(1), gl.program_id(2)
    r = block * BLOCK_R + gl.arange(0, BLOCK_R, BY_ROW)
    first, here = (head * rows + block * BLOCK_R) * D, rows - block * BLOCK_R
    unit, ours = load_rows(queries + first, here, BLOCK_R, KEYS, D, M)
    # Weights count in powers of 2, of which a card computes the exponential at once.
    unit = unit * LOG2_E
    past = gl.load(cached + head // HEADS).to(gl.int32) + ahead
    stored = gl.load(cache_rows + head // HEADS) * HEADS + head % HEADS
    run = gl.cdiv(gl.cdiv(past + tokens, splits), BLOCK_S) * BLOCK_S
    if SEVERAL:
        own = past + r % tokens
        last = gl.minimum((split + 1) * run, gl.max(gl.where(r < rows, own, 0), 0) + 1)
    else:
        last = gl.minimum((split + 1) * run, past + 1)
    if centers is not None:
        centered = load_centers(
            plain_queries + first, here, centers + stored * D, tile_rotation, LOG2_E / unit,
            BLOCK_R, BLOCK_S, D, PAIRS, BLOCK_P, TILE, M,
        )  # fmt: skip
        revolutions = revolutions_of_a_token(frequencies, PAIRS, BLOCK_P)
        angle = revolutions * (split * run)
    key_codes, key_scales = first_of_head(key_codes, key_scales, stored, room, KEYS, D)
    value_codes, value_scales = first_of_head(value_codes, value_scales, stored, room, VALUES, D)
    keys = gl.allocate_shared_memory(gl.float16, [BLOCK_S, D], SHARED)
    values = gl.allocate_shared_memory(gl.float16, [BLOCK_S, D], SHARED)
    LINE: gl.constexpr = line_of(M, gl.num_warps())
    LINES: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    key_grid = gl.allocate_shared_memory(gl.float32, [4, BLOCK_S], LINES)
    value_grid = gl.allocate_shared_memory(gl.float32, [4, BLOCK_S], LINES)
    best = gl.full([BLOCK_R], LOWEST, gl.float32, BY_ROW)
    total = over_tokens(gl.zeros([BLOCK_R, BLOCK_S], gl.float32, M))
    sums = no_values(BLOCK_R, BLOCK_S, VALUES, D, M)
    j = gl.arange(0, BLOCK_S, BY_TOKEN)
    for start in range(split * run, last, BLOCK_S):
        # What is compared is counted from the tile's start, which leaves one addition for a row.
        here = last - start
        put_vectors(key_codes, key_scales, keys, key_grid, start, here, KEYS, D, LINE)
        put_vectors(value_codes, value_scales, values, value_grid, start, here, VALUES, D, LINE)
        scores = score(ours, keys, key_grid, KEYS, D, M)
        if centers is not None:
            scores += added_by_centers(centered, angle, M)
            angle += revolutions * BLOCK_S
        if SEVERAL:
            scores = gl.where(j[None, :] <= (own - start)[:, None], scores, -float("inf"))
        else:
            scores = gl.where((j < here)[None, :], scores, -float("inf"))
        new_best = gl.maximum(best, gl.max(scores, 1) * unit)
        shrink = gl.exp2(best - new_best)[:, None]
        weights = gl.exp2(scores * unit[:, None] - new_best[:, None])
        best = new_best
        total = shrunk(total, shrink) + over_tokens(weights)
        sums = add_values(sums, weights, shrink, values, value_grid, VALUES, D, M)
    row = (head * splits + split) * rows + r
    store_values(mixed + row[:, None] * D, sums, r < rows, VALUES, D, M)
    row = (2 * head * splits + split) * rows + r
    gl.store(softmax + row, best, r < rows)
    gl.store(softmax + splits * rows + row, gl.convert_layout(gl.sum(total, 1), BY_ROW), r < rows)


@gluon.jit
def load_rows(
    queries, rows, BLOCK_R: gl.constexpr, KEYS: gl.constexpr, D: gl.constexpr, M: gl.constexpr
):
    """Load rows in units of each, and return the units and what meets keys: rows in float16.

    For INT4 keys these are both halves of the rows, and the sums of the halves' numbers.
    """
    if KEYS == "int4":
        unit, low, low_sum = load_part(queries, rows, 0, BLOCK_R, D // 2, D, M)
        _, high, high_sum = load_part(queries, rows, D // 2, BLOCK_R, D // 2, D, M)
        return unit, (low, low_sum, high, high_sum)
    else:
        unit, whole, _ = load_part(queries, rows, 0, BLOCK_R, D, D, M)
        return unit, whole


@gluon.jit
def load_part(
    queries,
    rows,
    start,
    BLOCK_R: gl.constexpr,
    WIDTH: gl.constexpr,
    D: gl.constexpr,
    M: gl.constexpr,
):
    """Load the rows' numbers from `start` on in units of the whole row: [R, WIDTH].

    Return the unit of each row, the numbers in float16, and their sums.
    """
    L: gl.constexpr = gl.BlockedLayout([1, 4], [1, 32], [gl.num_warps(), 1], [1, 0])
    r, d = gl.arange(0, BLOCK_R, gl.SliceLayout(1, L)), gl.arange(0, WIDTH, gl.SliceLayout(0, L))
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
def score(rows, keys, grid, KEYS: gl.constexpr, D: gl.constexpr, M: gl.constexpr):
    """Multiply rows by the keys of a tile: float32 [R, S], in units of the rows."""
    S: gl.constexpr = keys.shape[0]
    if KEYS == "int4":
        low, low_sum, high, high_sum = rows
        scores = score_half(low, keys, grid, low_sum, 0, D, M)
        return scores + score_half(high, keys, grid, high_sum, 1, D, M)
    else:
        none = gl.zeros([rows.shape[0], S], gl.float32, M)
        right = keys.permute((1, 0)).load(gl.DotOperandLayout(1, M, 2))
        return multiply(rows, right, none) * grid.index(0).load(gl.SliceLayout(0, M))[None, :]


@gluon.jit
def score_half(rows, keys, grid, row_sums, half: gl.constexpr, D: gl.constexpr, M: gl.constexpr):
    """Multiply a half of the rows by that half of the keys: float32 [R, S]."""
    S: gl.constexpr = keys.shape[0]
    BY_TOKEN: gl.constexpr = gl.SliceLayout(0, M)
    part = keys.slice(half * (D // 2), D // 2, 1).permute((1, 0))
    right = part.load(gl.DotOperandLayout(1, M, 2))
    none = gl.zeros([rows.shape[0], S], gl.float32, M)
    scale, middle = grid.index(2 * half).load(BY_TOKEN), grid.index(2 * half + 1).load(BY_TOKEN)
    return multiply(rows, right, none) * scale[None, :] + row_sums[:, None] * middle[None, :]
