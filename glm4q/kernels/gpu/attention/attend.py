"""Attention of the newest tokens to the cache, divided by rows and by ranges of cached tokens.

A row is a new token with one of the query heads that share a key. A prompt has many rows: each
block takes some of them and all cached tokens. One token has few rows: each block takes all of them
and a range of the cache, so that every cached number is read once (flash-decoding), and the results
of the ranges are merged (https://arxiv.org/abs/2311.01282). Scores stay in a block, as in
https://arxiv.org/abs/2205.14135. The room of the cache fixes the number of ranges, and its length,
which is read on the device, fixes their size: so one recorded launch serves every token.

Tensor cores multiply in float16 on every card. Each vector is scaled to float16's range by a power
of two, so it holds GLM-4's numbers, and more exactly than bfloat16. All sums are float32.
"""

import triton
import triton.language as tl

from glm4q.kernels.gpu.attention import halves
from glm4q.kernels.gpu.attention.centers import (
    factors,
    in_float16_s_range,
    revolutions_of_a_token,
    rotate_on,
    tile_table,
)
from glm4q.kernels.gpu.attention.vectors import first_of_head, hadamard_transform, read_vectors
from glm4q.kernels.gpu.numbers import SMALLEST, inverse_of_power, power_of_two

LOWEST = tl.constexpr(-3.0e38)
"""It is below any score, and unlike minus infinity it can be subtracted."""
LOG2_E = tl.constexpr(1.4426950408889634)
"""Scores count in powers of 2, of which a card computes the exponential in one instruction."""
FEW_ROWS = tl.constexpr(16)


@triton.jit(do_not_specialize=["ahead"], do_not_specialize_on_alignment=["rows", "tokens"])
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
    BLOCK_R: tl.constexpr,
    BLOCK_S: tl.constexpr,
    HEADS: tl.constexpr,  # Hkv
    D: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    TILE: tl.constexpr,
    KEYS: tl.constexpr,
    VALUES: tl.constexpr,
):
    """Attend from a block of rows to one range of tokens; a row sees no token after its own."""
    split, block, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    WIDTH: tl.constexpr = BLOCK_S if BLOCK_R <= FEW_ROWS else 1
    r = block * BLOCK_R + tl.arange(0, BLOCK_R)
    ours = r < rows
    first = (head * rows + r) * D
    query, unit = load_queries(queries + first, ours, KEYS, D)
    magic = halves.magic_bits(room)
    past = tl.load(cached + head // HEADS).to(tl.int32) + ahead
    stored = tl.load(cache_rows + head // HEADS) * HEADS + head % HEADS
    own = past + r % tokens
    run = tl.cdiv(tl.cdiv(past + tokens, splits), BLOCK_S) * BLOCK_S
    last = tl.minimum((split + 1) * run, tl.max(tl.where(ours, own, 0), 0) + 1)
    if centers is not None:
        along, across = factors(plain_queries + first, ours, centers + stored * D, PAIRS, BLOCK_P)
        along, across, center_unit = in_float16_s_range(along, across)
        center_unit *= LOG2_E / unit[:, None]
        revolutions = revolutions_of_a_token(frequencies, PAIRS, BLOCK_P)
        tile_cos, tile_sin = tile_table(tile_rotation, TILE, BLOCK_S, PAIRS, BLOCK_P)
        angle = revolutions * (split * run)
    key_codes, key_scales = first_of_head(key_codes, key_scales, stored, room, KEYS, D)
    value_codes, value_scales = first_of_head(value_codes, value_scales, stored, room, VALUES, D)
    best = tl.full((BLOCK_R,), LOWEST, tl.float32)
    total = tl.zeros((BLOCK_R, WIDTH), tl.float32)
    sums, value_unit = no_values(BLOCK_R, WIDTH, VALUES, D), tl.to_tensor(SMALLEST)
    for start in range(split * run, last, BLOCK_S):
        s = start + tl.arange(0, BLOCK_S)
        there = s < last
        scores = score(query, key_codes, key_scales, s, there, magic, KEYS, D)
        if centers is not None:
            by_cos, by_sin = rotate_on(along, across, angle)
            angle += revolutions * BLOCK_S
            scores += tl.dot(by_sin, tile_sin, tl.dot(by_cos, tile_cos)) * center_unit
        scores = tl.where(s[None, :] <= own[:, None], scores, -float("inf"))
        new_best = tl.maximum(best, tl.max(scores, 1) * unit)
        shrink = tl.exp2(best - new_best)[:, None]
        weights = tl.exp2(scores * unit[:, None] - new_best[:, None])
        best = new_best
        total = total * shrink + over_tokens(weights, WIDTH)
        sums, value_unit = add_values(
            sums, value_unit, weights, shrink, value_codes, value_scales, s, there, magic,
            WIDTH, VALUES, D,
        )  # fmt: skip
    row = ((head * splits + split) * rows + r)[:, None] * D
    store_values(mixed + row, sums, value_unit, ours, VALUES, D)
    row = (2 * head * splits + split) * rows + r
    tl.store(softmax + row, best, mask=ours)
    tl.store(softmax + splits * rows + row, tl.sum(total, 1), mask=ours)


@triton.jit
def load_queries(queries, ours, KEYS: tl.constexpr, D: tl.constexpr):
    """Load the rows at `queries`, [R], in float16, and what 1 in each counts as a score.

    For INT4 keys these are both halves of the rows, and the sums of the halves' numbers.
    """
    q = tl.load(queries[:, None] + tl.arange(0, D)[None, :], ours[:, None], 0.0)
    unit = power_of_two(tl.max(tl.abs(q), 1))
    inverse, unit = (1.0 / unit)[:, None], unit * LOG2_E
    if KEYS == "int4":
        return halves.load_rows(queries, ours, inverse, D), unit
    else:
        return (q * inverse).to(tl.float16), unit


@triton.jit
def score(query, codes, scales, s, there, magic, KEYS: tl.constexpr, D: tl.constexpr):
    """Multiply rows by the keys s, [S]: float32 [R, S]."""
    if KEYS == "int4":
        low, high, low_sum, high_sum = query
        return halves.scores(low, high, low_sum, high_sum, codes, scales, s, there, magic, D)
    else:
        k, unit = read_vectors(codes, scales, s, there, KEYS, D)
        return tl.dot(query, tl.trans(k)) * unit[None, :]


@triton.jit
def no_values(BLOCK_R: tl.constexpr, WIDTH: tl.constexpr, VALUES: tl.constexpr, D: tl.constexpr):
    """Return the sums of no values."""
    if VALUES == "int4":
        none = tl.zeros((BLOCK_R, D // 2), tl.float32)
        middles = tl.zeros((BLOCK_R, WIDTH), tl.float32)
        return none, none, middles, middles
    else:
        return tl.zeros((BLOCK_R, D), tl.float32)


@triton.jit
def add_values(
    sums,
    before,
    weights,
    shrink,
    codes,
    scales,
    s,
    there,
    magic,
    WIDTH: tl.constexpr,
    VALUES: tl.constexpr,
    D: tl.constexpr,
):
    """Shrink sums, and add the values s, [S], by their weights; return the unit of sums as well.

    before: their unit until now.

    The sums of an INT4 cache are four: of codes by scales for each half, and of the middles of the
    halves, each of which is one number for all of its half.
    """
    if VALUES == "int4":
        low, high, low_middles, high_middles = sums
        v_low, v_high = halves.read_halves(codes, s, there, magic, D)
        low_scale, low_middle = halves.read_grid(scales, s, there, 0, D)
        high_scale, high_middle = halves.read_grid(scales, s, there, 1, D)
        low_middles = low_middles * shrink + over_tokens(weights * low_middle[None, :], WIDTH)
        high_middles = high_middles * shrink + over_tokens(weights * high_middle[None, :], WIDTH)
        unit, shrink = larger_unit(before, tl.maximum(low_scale, high_scale), shrink)
        low = mixed_by(weights, low_scale, unit, v_low, low * shrink)
        high = mixed_by(weights, high_scale, unit, v_high, high * shrink)
        return (low, high, low_middles, high_middles), unit
    else:
        v, v_unit = read_vectors(codes, scales, s, there, VALUES, D)
        unit, shrink = larger_unit(before, v_unit, shrink)
        return mixed_by(weights, v_unit, unit, v, sums * shrink), unit


@triton.jit
def larger_unit(before, units, shrink):
    """Return the unit of sums with a tile of these units, and what brings them to it as well."""
    unit = tl.maximum(before, power_of_two(tl.max(units, 0)))
    return unit, shrink * (before * inverse_of_power(unit))


@triton.jit
def store_values(rows, sums, unit, ours, VALUES: tl.constexpr, D: tl.constexpr):
    """Store the sums of the rows at `rows`, [R, 1]."""
    if VALUES == "int4":
        low, high, low_middles, high_middles = sums
        low, high = low * unit, high * unit
        column = halves.number_at(tl.arange(0, D // 2))[None, :]
        tl.store(rows + column, low + tl.sum(low_middles, 1)[:, None], mask=ours[:, None])
        tl.store(
            rows + D // 2 + column, high + tl.sum(high_middles, 1)[:, None], mask=ours[:, None]
        )
    else:
        tl.store(rows + tl.arange(0, D)[None, :], sums * unit, mask=ours[:, None])


@triton.jit
def over_tokens(x, WIDTH: tl.constexpr):
    """Keep a number for each token where few rows leave registers for it; else add them up."""
    return tl.sum(x, 1, keep_dims=True) if WIDTH == 1 else x


@triton.jit
def mixed_by(weights, units, unit, v, sums):
    """Add weights times units times vectors to sums.

    Units are divided by that of the sums, so that float16 can hold the products.
    """
    weights = (weights * (units * inverse_of_power(unit))[None, :]).to(tl.float16)
    return tl.dot(weights, v, sums)


@triton.jit(do_not_specialize_on_alignment=["rows", "tokens"])
def merge(
    mixed,  # float32 [B * Hkv, splits, G * T, D]
    softmax,  # float32 [B * Hkv, 2, splits, G * T]
    hadamard,  # float32 [64, 64]
    out,  # [B, T, Hkv, G, D]
    splits,
    rows,  # G * T
    tokens,  # T
    HEADS: tl.constexpr,  # Hkv
    BLOCK_SPLITS: tl.constexpr,
    D: tl.constexpr,
    HADAMARD: tl.constexpr,
):
    """Merge the ranges' results of one row, weighted by their sums of exponentials."""
    r, head = tl.program_id(0), tl.program_id(1)
    d = tl.arange(0, D)
    split = tl.arange(0, BLOCK_SPLITS)
    there = split < splits
    row = (2 * head * splits + split) * rows + r
    best = tl.load(softmax + row, mask=there, other=LOWEST)
    total = tl.load(softmax + splits * rows + row, mask=there, other=0)
    shrink = tl.exp2(best - tl.max(best, 0))
    whole = tl.sum(shrink * total, 0)
    row = (head * splits + split) * rows + r
    parts = tl.load(mixed + row[:, None] * D + d[None, :], mask=there[:, None], other=0)
    x = tl.sum(parts * shrink[:, None], 0) / whole
    if HADAMARD:
        x = hadamard_transform(x, hadamard, D)
    token = (head // HEADS) * tokens + r % tokens
    tl.store(out + ((token * HEADS + head % HEADS) * (rows // tokens) + r // tokens) * D + d, x)
