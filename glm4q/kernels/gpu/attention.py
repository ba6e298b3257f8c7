"""One token's attention to the cache, shared out over the context (flash-decoding).

Each block takes a run of cached tokens and all query heads that share a key, so every cached number
is read once; then the blocks' results are merged (https://arxiv.org/abs/2311.01282). The number of
blocks is fixed by the cache's room, the run by its length, which is read on the device: so one
recorded launch serves every token.

Tensor cores multiply in float16, on every card: with each vector brought to its range by a power of
two it holds GLM-4's numbers, and more exactly than bfloat16. All sums are float32.
"""

import triton
import triton.language as tl

from glm4q.kernels.gpu.centers import factors, from_start, tile_table, turns_of_a_token
from glm4q.kernels.gpu.numbers import power_of_two
from glm4q.kernels.gpu.vectors import read_vectors, turn, turn_rows


@triton.jit
def attend(
    queries,  # float32 [B, Hkv, G, D], scaled
    key_codes,
    key_scales,
    value_codes,
    value_scales,
    centers,  # float32 [B, Hkv, 1, D], what keys are kept less of; or None
    hadamard,  # float32 [64, 64]
    frequencies,  # float64 [PAIRS]
    tile_rotation,  # float32 [2, TILE, PAIRS]
    cached,  # int64 [1]: tokens in the cache beside the newest
    mixed,  # float32 [B * Hkv, splits, G, D]
    softmax,  # float32 [B * Hkv, 2, splits, G]: greatest score, sum of exponentials
    room,
    SPLITS: tl.constexpr,
    SHARED: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_S: tl.constexpr,
    D: tl.constexpr,
    PAIRS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    TILE: tl.constexpr,
    KEYS: tl.constexpr,
    VALUES: tl.constexpr,
):
    """One run of tokens for the heads that share a key."""
    split, head = tl.program_id(0), tl.program_id(1)
    g, d = tl.arange(0, BLOCK_G), tl.arange(0, D)
    ours = g < SHARED
    q = tl.load(queries + (head * SHARED + g)[:, None] * D + d[None, :], ours[:, None], 0.0)
    if centers is not None:
        rows = queries + (head * SHARED + g) * D
        along, across = factors(rows, ours, centers + head * D, PAIRS, BLOCK_P)
        turns = turns_of_a_token(frequencies, PAIRS, BLOCK_P)
        tile_cos, tile_sin = tile_table(tile_rotation, TILE, BLOCK_S, PAIRS, BLOCK_P)
    if KEYS == "int4":
        q = turn_rows(q, hadamard, BLOCK_G, D)
    q_unit = power_of_two(tl.max(tl.abs(q), 1))
    q = (q * (1.0 / q_unit)[:, None]).to(tl.float16)
    length = tl.load(cached).to(tl.int32) + 1
    run = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK_S) * BLOCK_S
    last = tl.minimum((split + 1) * run, length)
    best = tl.full((BLOCK_G,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK_G,), tl.float32)
    sums = tl.zeros((BLOCK_G, D), tl.float32)
    for start in range(split * run, last, BLOCK_S):
        s = start + tl.arange(0, BLOCK_S)
        there = s < last
        place = head.to(tl.int64) * room + s
        k, k_unit = read_vectors(key_codes, key_scales, place, there, KEYS, D)
        v, v_unit = read_vectors(value_codes, value_scales, place, there, VALUES, D)
        scores = tl.dot(q, tl.trans(k)) * q_unit[:, None] * k_unit[None, :]
        if centers is not None:
            by_cos, by_sin, unit = from_start(along, across, turns, start)
            scores += (tl.dot(by_cos, tile_cos) + tl.dot(by_sin, tile_sin)) * unit[:, None]
        scores = tl.where(there[None, :], scores, -float("inf"))
        new_best = tl.maximum(best, tl.max(scores, 1))
        shrink = tl.exp(best - new_best)
        weights = tl.exp(scores - new_best[:, None])
        total = total * shrink + tl.sum(weights, 1)
        # Of the tile's largest, so that float16 holds the products.
        largest = tl.maximum(tl.max(v_unit, 0), 2.0**-100)
        weights = weights * (v_unit / largest)[None, :]
        sums = sums * shrink[:, None] + tl.dot(weights.to(tl.float16), v) * largest
        best = new_best
    row = (head * SPLITS + split) * SHARED + g
    tl.store(mixed + row[:, None] * D + d[None, :], sums, mask=ours[:, None])
    row = (2 * head * SPLITS + split) * SHARED + g
    tl.store(softmax + row, best, mask=ours)
    tl.store(softmax + SPLITS * SHARED + row, total, mask=ours)


@triton.jit
def merge(
    mixed,  # float32 [B * Hkv, splits, G, D]
    softmax,  # float32 [B * Hkv, 2, splits, G]
    hadamard,  # float32 [64, 64]
    out,  # [B, H * D]
    SPLITS: tl.constexpr,
    BLOCK_SPLITS: tl.constexpr,
    SHARED: tl.constexpr,
    D: tl.constexpr,
    TURNED: tl.constexpr,
):
    """The runs' results, weighed by their sums of exponentials, for one query head."""
    head, g = tl.program_id(0), tl.program_id(1)
    d = tl.arange(0, D)
    split = tl.arange(0, BLOCK_SPLITS)
    there = split < SPLITS
    row = (2 * head * SPLITS + split) * SHARED + g
    best = tl.load(softmax + row, mask=there, other=-float("inf"))
    total = tl.load(softmax + SPLITS * SHARED + row, mask=there, other=0)
    shrink = tl.exp(best - tl.max(best, 0))
    whole = tl.sum(shrink * total, 0)
    row = (head * SPLITS + split) * SHARED + g
    parts = tl.load(mixed + row[:, None] * D + d[None, :], mask=there[:, None], other=0)
    x = tl.sum(parts * shrink[:, None], 0) / whole
    if TURNED:
        x = turn(x, hadamard, D)
    tl.store(out + (head * SHARED + g) * D + d, x)
