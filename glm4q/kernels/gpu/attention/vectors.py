"""How vectors of the KV cache are written and read on a GPU: `glm4q.memory.kv` in Triton.

The bytes are the same as those of glm4q/memory/kv/. No other Triton file knows the formats' layout.
"""

import triton
import triton.language as tl

from calculator.memory.workspace import KV_GROUP
from glm4q.kernels.gpu.numbers import inverse_of_power, power_of_two, round_half_even
from glm4q.memory.kv import int4, int8

GROUP = tl.constexpr(KV_GROUP)
SMALLEST_SCALE = tl.constexpr(int8.SMALLEST_SCALE)
LARGEST_INT8 = tl.constexpr(float(int8.LARGEST_CODE))
LARGEST_INT4 = tl.constexpr(float(int4.LARGEST_CODE))


@triton.jit
def write_vector(x, codes, scales, place, KIND: tl.constexpr, D: tl.constexpr):
    """Store one float32 vector, [D], as the vector `place` of the cache."""
    d = tl.arange(0, D)
    if KIND == "dense":
        tl.store(codes + place * D + d, x)
    elif KIND == "int8":
        scale = tl.maximum(tl.div_rn(tl.max(tl.abs(x), 0), LARGEST_INT8), SMALLEST_SCALE).to(
            tl.float16
        )
        tl.store(scales + place, scale)
        code = round_half_even(tl.div_rn(x, scale.to(tl.float32)))
        code = tl.minimum(tl.maximum(code, -LARGEST_INT8), LARGEST_INT8)
        tl.store(codes + place * D + d, code.to(tl.int8))
    else:
        groups = tl.reshape(x, (D // GROUP, GROUP))
        low, high = tl.min(groups, 1), tl.max(groups, 1)
        scale = tl.maximum(tl.div_rn(high - low, LARGEST_INT4), SMALLEST_SCALE).to(tl.float16)
        least = low.to(tl.float16)
        grid = scales + place * (D // GROUP) * 2 + tl.arange(0, D // GROUP) * 2
        tl.store(grid, scale)
        tl.store(grid + 1, least)
        code = tl.div_rn(groups - least.to(tl.float32)[:, None], scale.to(tl.float32)[:, None])
        code = tl.minimum(tl.maximum(round_half_even(code), 0.0), LARGEST_INT4).to(tl.int32)
        halves = tl.reshape(code, (2, D // 2)) << (tl.arange(0, 2) * 4)[:, None]
        byte = tl.sum(halves, 0).to(tl.uint8)
        tl.store(codes + place * (D // 2) + tl.arange(0, D // 2), byte)


@triton.jit
def first_of_head(codes, scales, head, room, KIND: tl.constexpr, D: tl.constexpr):
    """Return where a head's vectors begin, so that 32 bits number them from there."""
    first = head.to(tl.int64) * room
    if KIND == "dense":
        return codes + first * D, scales
    elif KIND == "int8":
        return codes + first * D, scales + first
    else:
        return codes + first * (D // 2), scales + first * (D // GROUP) * 2


@triton.jit
def read_vectors(codes, scales, s, there, KIND: tl.constexpr, D: tl.constexpr):
    """Read the vectors s, [S], of a head: float16 [S, D], and the unit of each, float32 [S].

    there: whether each is wanted. What an INT4 cache holds, `halves.read_halves` reads.
    """
    place = s[:, None] * D + tl.arange(0, D)[None, :]
    x = tl.load(codes + place, mask=there[:, None], other=0)
    if KIND == "int8":
        return x.to(tl.float16), tl.load(scales + s, mask=there, other=0).to(tl.float32)
    else:
        x = x.to(tl.float32)
        unit = power_of_two(tl.max(tl.abs(x), 1))
        return (x * inverse_of_power(unit)[:, None]).to(tl.float16), unit


@triton.jit
def hadamard_transform(x, hadamard, D: tl.constexpr):
    """Multiply each 64 numbers of a vector, [D], by the matrix of `glm4q.memory.kv.hadamard`."""
    i = tl.arange(0, GROUP)
    matrix = tl.load(hadamard + i[:, None] * GROUP + i[None, :])
    groups = tl.reshape(x, (D // GROUP, 1, GROUP))
    return tl.reshape(tl.sum(groups * matrix[None, :, :], 2), (D,))
