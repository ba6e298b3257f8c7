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

from glm4q.kernels.gpu.centers import factors, from_start, revolutions_of_a_token, tile_table
from glm4q.kernels.gpu.numbers import power_of_two
from glm4q.kernels.gpu.vectors import hadamard_transform, read_vectors

LOWEST = tl.constexpr(-3.0e38)
"""It is below any score, and unlike minus infinity it can be subtracted."""


@triton.jit
def attend(
    queries,  # float32 [B, Hkv, G * T, D], scaled, and Hadamard-transformed where keys are
    plain_queries,  # the queries without the Hadamard transform
    key_codes,
    key_scales,
    value_codes,
    value_scales,
    centers,  # float32 [B, Hkv, 1, D], the centres that were subtracted from keys; or None
    frequencies,  # float64 [PAIRS]
    tile_rotation,  # float32 [2, TILE, PAIRS]
    cached,  # int64 [1]: tokens in the cache before the newest T
    mixed,  # float32 [B * Hkv, splits, G * T, D]
    softmax,  # float32 [B * Hkv, 2, splits, G * T]: greatest score, sum of exponentials
    room,
    splits,
    rows,  # G * T
    tokens,  # T
    BLOCK_R: tl.constexpr,
    BLOCK_S: tl.constexpr,
    D: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    TILE: tl.constexpr,
    KEYS: tl.constexpr,
    VALUES: tl.constexpr,
):
    """Attend from a block of rows to one range of tokens; a row sees no token after its own."""
    split, block, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    r, d = block * BLOCK_R + tl.arange(0, BLOCK_R), tl.arange(0, D)
    ours = r < rows
    first = (head * rows + r) * D
    q = tl.load(queries + first[:, None] + d[None, :], ours[:, None], 0.0)
    if centers is not None:
        along, across = factors(plain_queries + first, ours, centers + head * D, PAIRS, BLOCK_P)
        revolutions = revolutions_of_a_token(frequencies, PAIRS, BLOCK_P)
        tile_cos, tile_sin = tile_table(tile_rotation, TILE, BLOCK_S, PAIRS, BLOCK_P)
    q_unit = power_of_two(tl.max(tl.abs(q), 1))
    q = (q * (1.0 / q_unit)[:, None]).to(tl.float16)
    past = tl.load(cached).to(tl.int32)
    own = past + r % tokens
    run = tl.cdiv(tl.cdiv(past + tokens, splits), BLOCK_S) * BLOCK_S
    last = tl.minimum((split + 1) * run, tl.max(tl.where(ours, own, 0), 0) + 1)
    best = tl.full((BLOCK_R,), LOWEST, tl.float32)
    total = tl.zeros((BLOCK_R,), tl.float32)
    sums = tl.zeros((BLOCK_R, D), tl.float32)
    for start in range(split * run, last, BLOCK_S):
        s = start + tl.arange(0, BLOCK_S)
        there = s < last
        place = head.to(tl.int64) * room + s
        k, k_unit = read_vectors(key_codes, key_scales, place, there, KEYS, D)
        v, v_unit = read_vectors(value_codes, value_scales, place, there, VALUES, D)
        scores = tl.dot(q, tl.trans(k)) * q_unit[:, None] * k_unit[None, :]
        if centers is not None:
            by_cos, by_sin, unit = from_start(along, across, revolutions, start)
            scores += (tl.dot(by_cos, tile_cos) + tl.dot(by_sin, tile_sin)) * unit[:, None]
        scores = tl.where(s[None, :] <= own[:, None], scores, -float("inf"))
        new_best = tl.maximum(best, tl.max(scores, 1))
        shrink = tl.exp(best - new_best)
        weights = tl.exp(scores - new_best[:, None])
        total = total * shrink + tl.sum(weights, 1)
        # The unit follows the tile's largest number, so that float16 can hold the products.
        largest = tl.maximum(tl.max(v_unit, 0), 2.0**-100)
        weights = weights * (v_unit / largest)[None, :]
        sums = sums * shrink[:, None] + tl.dot(weights.to(tl.float16), v) * largest
        best = new_best
    row = (head * splits + split) * rows + r
    tl.store(mixed + row[:, None] * D + d[None, :], sums, mask=ours[:, None])
    row = (2 * head * splits + split) * rows + r
    tl.store(softmax + row, best, mask=ours)
    tl.store(softmax + splits * rows + row, total, mask=ours)


@triton.jit
def merge(
    mixed,  # float32 [B * Hkv, splits, G * T, D]
    softmax,  # float32 [B * Hkv, 2, splits, G * T]
    hadamard,  # float32 [64, 64]
    out,  # [B * Hkv, G * T, D]
    splits,
    rows,  # G * T
    BLOCK_SPLITS: tl.constexpr,
    D: tl.constexpr,
    HADAMARD: tl.constexpr,
):
    """Merge the ranges' results of one row, weighted by their sums of exponentials."""
    head, r = tl.program_id(0), tl.program_id(1)
    d = tl.arange(0, D)
    split = tl.arange(0, BLOCK_SPLITS)
    there = split < splits
    row = (2 * head * splits + split) * rows + r
    best = tl.load(softmax + row, mask=there, other=LOWEST)
    total = tl.load(softmax + splits * rows + row, mask=there, other=0)
    shrink = tl.exp(best - tl.max(best, 0))
    whole = tl.sum(shrink * total, 0)
    row = (head * splits + split) * rows + r
    parts = tl.load(mixed + row[:, None] * D + d[None, :], mask=there[:, None], other=0)
    x = tl.sum(parts * shrink[:, None], 0) / whole
    if HADAMARD:
        x = hadamard_transform(x, hadamard, D)
    tl.store(out + (head * rows + r) * D + d, x)
