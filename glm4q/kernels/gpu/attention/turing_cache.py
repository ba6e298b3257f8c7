"""Cached vectors as Turing's tensor cores take them: float16 in shared memory, [S, D].

Codes become float16 four at a time: a byte is put under the mantissa of float16's 1024, and 1024 is
taken away with what a code of zero counts. The matrix is swizzled, so that eight rows of it, which
one instruction loads, lie in different banks.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from glm4q.kernels.gpu.numbers import power_of_two

WIDEN = gl.constexpr("""
prmt.b32 $0, $2, 0x64646464, 0x4140;
prmt.b32 $1, $2, 0x64646464, 0x4342;
sub.rn.f16x2 $0, $0, $3;
sub.rn.f16x2 $1, $1, $3;
""")
"""Four bytes become 1024 and a byte each in float16, less what is given."""
SIGNS = gl.constexpr(-0x7F7F7F80)
"""0x80808080: it makes int8 numbers unsigned, 128 more."""
NIBBLES = gl.constexpr(0x0F0F0F0F)
INT8_ZERO, INT4_ZERO = gl.constexpr(0x64806480), gl.constexpr(0x64086408)
"""1024 + 128 and 1024 + 8 in float16, twice."""


@gluon.constexpr_function
def by_rows(lanes, numbers, warps):
    """A layout of rows, each taken by so many lanes with so many numbers at once."""
    return gl.BlockedLayout([1, numbers], [32 // lanes, lanes], [warps, 1], [1, 0])


@gluon.jit
def put_vectors(
    codes,
    scales,
    shared,
    start,
    last,
    KIND: gl.constexpr,
    D: gl.constexpr,
    BY_TOKEN: gl.constexpr,
):
    """Put vectors into shared memory, float16 [S, D]; return the unit of each, float32 [S]."""
    S: gl.constexpr = shared.shape[0]
    if KIND == "dense":
        L: gl.constexpr = by_rows(D // 8, 8, gl.num_warps())
        s = start + gl.arange(0, S, gl.SliceLayout(1, L))
        d = gl.arange(0, D, gl.SliceLayout(0, L))
        place = s[:, None] * D + d[None, :]
        x = gl.load(codes + place, (s < last)[:, None], 0.0).to(gl.float32)
        unit = power_of_two(gl.max(gl.abs(x), 1))
        shared.store((x * (1.0 / unit)[:, None]).to(gl.float16))
        return gl.convert_layout(unit, BY_TOKEN)
    else:
        put_codes(codes, shared, start, last, KIND, D)
        s = start + gl.arange(0, S, BY_TOKEN)
        if KIND == "int8":
            return gl.load(scales + s, s < last, 0.0).to(gl.float32)
        else:
            return gl.full([S], 1.0, gl.float32, BY_TOKEN)


@gluon.jit
def put_codes(codes, shared, start, last, KIND: gl.constexpr, D: gl.constexpr):
    """Put codes into shared memory as float16, two in a word; an INT4 vector is two halves."""
    S: gl.constexpr = shared.shape[0]
    WORDS: gl.constexpr = D // 8 if KIND == "int4" else D // 4
    L: gl.constexpr = by_rows(WORDS // 4, 4, gl.num_warps())
    SHARED: gl.constexpr = gl.SwizzledSharedLayout(4, 1, shared.layout.max_phase, [1, 0])
    pairs = shared._reinterpret(gl.int32, [S, D // 2], SHARED)
    s = start + gl.arange(0, S, gl.SliceLayout(1, L))
    word = gl.arange(0, WORDS, gl.SliceLayout(0, L))
    words = codes.to(gl.pointer_type(gl.int32)) + s[:, None] * WORDS + word[None, :]
    packed = gl.load(words, (s < last)[:, None], 0)
    if KIND == "int8":
        pairs.store(as_float16(packed ^ SIGNS, INT8_ZERO))
    else:
        pairs.slice(0, D // 4, 1).store(as_float16(packed & NIBBLES, INT4_ZERO))
        pairs.slice(D // 4, D // 4, 1).store(as_float16((packed >> 4) & NIBBLES, INT4_ZERO))


@gluon.jit
def as_float16(packed, ZERO: gl.constexpr):
    """Return two words of two float16 numbers for each word of four bytes, [S, W]: [S, 2 W]."""
    zero = gl.full(packed.shape, ZERO, gl.int32, packed.type.layout)
    low, high = gl.inline_asm_elementwise(
        WIDEN, "=&r,=&r,r,r", [packed, zero], dtype=(gl.int32, gl.int32), is_pure=True, pack=1
    )
    return gl.reshape(gl.join(low, high), (packed.shape[0], 2 * packed.shape[1]))
