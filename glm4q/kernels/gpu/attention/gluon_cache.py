"""Cached vectors as tensor cores take them: float16 in shared memory, [S, D].

Codes become float16 four at a time: a byte is put under the mantissa of float16's 1024, and 1024 is
taken away with what a code of zero counts. The matrix is swizzled, so that eight rows of it, which
one instruction loads, lie in different banks.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from glm4q.kernels.gpu.attention.halves import read_grid
from glm4q.kernels.gpu.numbers import inverse_of_power, power_of_two

WIDEN = gl.constexpr("""
prmt.b32 $0, $2, 0x64646464, 0x4140;
prmt.b32 $1, $2, 0x64646464, 0x4342;
sub.rn.f16x2 $0, $0, $3;
sub.rn.f16x2 $1, $1, $3;
""")
"""Four bytes become 1024 and a byte each in float16, less what is given."""
SIGNS = gl.constexpr(-0x7F7F7F80)
"""0x80808080: it makes int8 numbers unsigned, 128 more."""
UPPER = gl.constexpr(-0x10000)
"""0xFFFF0000."""
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
    grid,  # float32 [4, S], in shared memory
    start,
    here,  # tokens from `start` on
    KIND: gl.constexpr,
    D: gl.constexpr,
    LINE: gl.constexpr,  # the layout in which units and grids are loaded
):
    """Put vectors into shared memory, float16 [S, D], and the unit of each, or its grids."""
    S: gl.constexpr = shared.shape[0]
    if KIND == "dense":
        grid.index(0).store(put_numbers(codes, shared, start, here, D))
    else:
        put_codes(codes, shared, start, here, KIND, D)
        j = gl.arange(0, S, LINE)
        if KIND == "int8":
            grid.index(0).store(gl.load(scales + start + j, j < here, 0.0).to(gl.float32))
        else:
            low, low_middle = read_grid(scales, start + j, j < here, 0, D)
            high, high_middle = read_grid(scales, start + j, j < here, 1, D)
            grid.index(0).store(low)
            grid.index(1).store(low_middle)
            grid.index(2).store(high)
            grid.index(3).store(high_middle)


@gluon.jit
def words_at(words, start, here, S: gl.constexpr, WORDS: gl.constexpr):
    """Load the words of S vectors from `start` on, int32 [S, WORDS]."""
    L: gl.constexpr = by_rows(WORDS // 4, 4, gl.num_warps())
    j, word = gl.arange(0, S, gl.SliceLayout(1, L)), gl.arange(0, WORDS, gl.SliceLayout(0, L))
    first = words.to(gl.pointer_type(gl.int32)) + start * WORDS
    return gl.load(first + (j[:, None] * WORDS + word[None, :]), (j < here)[:, None], 0)


@gluon.jit
def put_numbers(numbers, shared, start, here, D: gl.constexpr):
    """Put bfloat16 vectors into shared memory as float16; return the unit of each.

    A word holds two numbers. In float32 the first is the word's lower half with zeros below it, and
    the second is the word without its lower half.
    """
    S: gl.constexpr = shared.shape[0]
    words = words_at(numbers, start, here, S, D // 2)
    first = (words << 16).to(gl.float32, bitcast=True)
    second = (words & UPPER).to(gl.float32, bitcast=True)
    unit = power_of_two(gl.max(gl.maximum(gl.abs(first), gl.abs(second)), 1))
    inverse = inverse_of_power(unit)[:, None]
    both = gl.join((first * inverse).to(gl.float16), (second * inverse).to(gl.float16))
    shared.store(gl.reshape(both, [S, D]))
    return unit


@gluon.jit
def put_codes(codes, shared, start, here, KIND: gl.constexpr, D: gl.constexpr):
    """Put codes into shared memory as float16, two in a word; an INT4 vector is two halves."""
    S: gl.constexpr = shared.shape[0]
    SHARED: gl.constexpr = gl.SwizzledSharedLayout(4, 1, shared.layout.max_phase, [1, 0])
    pairs = shared._reinterpret(gl.int32, [S, D // 2], SHARED)
    packed = words_at(codes, start, here, S, D // 8 if KIND == "int4" else D // 4)
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
