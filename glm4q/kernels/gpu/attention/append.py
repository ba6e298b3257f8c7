"""Rotate new tokens' queries and keys by their positions, and cache their keys and values."""

import triton
import triton.language as tl

from glm4q.kernels.gpu.attention.vectors import hadamard_transform, write_vector


@triton.jit
def rotate(
    x,
    center,
    is_key,
    is_first,
    rotation,
    sines,
    wanted,
    D: tl.constexpr,
    PAIRS: tl.constexpr,
):
    """Load the vector at `x` in float32, and rotate its first 2 * PAIRS numbers where `wanted`.

    Where there are centres, a key is rotated without its centre, and the first key is the centre.
    """
    d = tl.arange(0, D)
    rotated = (d < 2 * PAIRS) & wanted
    cos = tl.load(rotation + d // 2, mask=rotated, other=1)
    sin = tl.load(rotation + sines + d // 2, mask=rotated, other=0)
    here, other = tl.load(x + d).to(tl.float32), tl.load(x + (d ^ 1)).to(tl.float32)
    if center is not None:
        here -= tl.load(center + d, mask=is_key, other=0)
        other -= tl.load(center + (d ^ 1), mask=is_key, other=0)
        here = tl.where(is_key & is_first, 0.0, here)
        other = tl.where(is_key & is_first, 0.0, other)
    return here * cos + tl.where(d % 2 == 0, -other, other) * sin


@triton.jit(do_not_specialize=["ahead", "sines", "tokens"])
def append(
    q,  # [B, T, H, D]
    k,  # [B, T, Hkv, D]
    v,  # [B, T, Hkv, D]
    rotation,  # float32 [B, T, PAIRS]: cosines; sines lie so many numbers behind them
    hadamard,  # float32 [64, 64]
    cached,  # int64 [B]: tokens of each sequence in the cache before the newest T
    cache_rows,  # int64 [B]: the row of the cache that each sequence has
    ahead,  # tokens of a draft that come before and run with it
    queries,  # float32 [B, Hkv, G * T, D]
    transformed,  # float32 [B, Hkv, G * T, D]: the queries' Hadamard transform, for INT4 keys
    key_codes,
    key_scales,
    value_codes,
    value_scales,
    centers,  # float32 [rows, Hkv, 1, D], or None
    sines,
    room,
    scale,
    tokens,  # T
    HEADS: tl.constexpr,  # Hkv
    SHARED: tl.constexpr,
    PAIRS: tl.constexpr,
    D: tl.constexpr,
    KEYS: tl.constexpr,
    VALUES: tl.constexpr,
):
    """Take one of the G + 2 vectors that a token has for a key/value head: a query, key or value.

    A token that comes first and alone sets the centres; those of several were set before.
    """
    token, each, head = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    sequence = head // HEADS
    new = sequence * tokens + token
    here = new * HEADS + head % HEADS
    past = tl.load(cached + sequence) + ahead + token
    stored = tl.load(cache_rows + sequence) * HEADS + head % HEADS
    is_key, is_value = each == SHARED, each > SHARED
    if each < SHARED:
        source = q + (here * SHARED + each) * D
    elif is_value:
        source = v + here * D
    else:
        source = k + here * D
    rotation += new * PAIRS
    if centers is None:
        x = rotate(source, None, is_key, False, rotation, sines, not is_value, D, PAIRS)
    else:
        is_first, center, d = (past == 0) & (tokens == 1), centers + stored * D, tl.arange(0, D)
        x = rotate(source, center, is_key, is_first, rotation, sines, not is_value, D, PAIRS)
        tl.store(center + d, tl.load(source + d).to(tl.float32), mask=is_key & is_first)
    if (is_value and VALUES == "int4") or (is_key and KEYS == "int4"):
        x = hadamard_transform(x, hadamard, D)
    place = stored * room + past
    if each < SHARED:
        row = ((head * SHARED + each) * tokens + token) * D + tl.arange(0, D)
        tl.store(queries + row, x * scale)
        if KEYS == "int4":
            tl.store(transformed + row, hadamard_transform(x, hadamard, D) * scale)
    elif is_value:
        write_vector(x, value_codes, value_scales, place, VALUES, D)
    else:
        write_vector(x, key_codes, key_scales, place, KEYS, D)
