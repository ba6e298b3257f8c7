"""Numbers for tensor cores, made of words by the lanes that load them.

Rows of an operand are outputs in another order, and its inputs are in another order too: so each
lane has all codes of its words, and a lane's words are of four neighbouring outputs.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

TWICE = gl.constexpr(0x00010001)
"""A 16-bit number times this stands in both halves of a word."""
FLOAT16_MAGIC = gl.constexpr(0x64006400)
"""1024 in float16, twice: its last bit counts 1."""
BFLOAT16_MAGIC = gl.constexpr(0x43004300)
"""128 in bfloat16, twice: its last bit counts 1."""
BFLOAT16_LESS = gl.constexpr(0xC300C300 - (1 << 32))
"""-128 in bfloat16, twice, as a signed word."""
BFLOAT16_ONES = gl.constexpr(0x3F803F80)
SIXTEENFOLD = gl.constexpr(0x02000200)
"""What makes numbers of bfloat16 16 times as large, where it is added to the bits of two."""
INT4_TO_FLOAT16 = gl.constexpr("""
lop3.b32 $0, $1, 0x000F000F, $3, 0xEA;
sub.rn.f16x2 $0, $0, $5;
""")
"""Two codes of a word, `$1 & 0x000F000F | $3`, become 1024 and a code each, less what is given."""
INT8_TO_FLOAT16 = gl.constexpr("""
lop3.b32 $0, $1, 0x00FF00FF, $3, 0xEA;
sub.rn.f16x2 $0, $0, $5;
""")
HALF_BYTES_TO_BFLOAT16 = gl.constexpr("""
lop3.b32 $0, $1, 0x000F000F, $3, 0xEA;
fma.rn.bf16x2 $0, $0, $5, $7;
""")
"""Four bits become 128 and their number, times what is given, and less what is given."""


@gluon.constexpr_function
def doubled(first, end):
    """Return first, twice that, and so on below end."""
    return [first << step for step in range(max(end // first, 1).bit_length() - 1)]


@gluon.constexpr_function
def numbers_layout(outputs, inputs, bits, warps):
    """Return the layout of [outputs, words, codes of half a word, halves].

    A lane's neighbours in registers are the codes at the same place of both halves of a word.
    """
    words, codes = inputs * bits // 32, 16 // bits
    beside = bits // 4  # words beside each other in a lane: eight inputs
    each = outputs // warps

    def output(place):
        return [place, 0, 0, 0]

    def word(place):
        return [0, place, 0, 0]

    registers = [[0, 0, 0, 1], output(1), output(2), *[output(one) for one in doubled(32, each)]]
    registers += [[0, 0, one, 0] for one in doubled(1, codes)]
    registers += [word(one) for one in (*doubled(1, beside), *doubled(4 * beside, words))]
    lanes = [word(beside), word(2 * beside), output(4), output(8), output(16)]
    across = [output(one) for one in doubled(each, outputs)]
    return gl.DistributedLinearLayout(registers, lanes, across, [], [outputs, words, codes, 2])


@gluon.constexpr_function
def fours_layout(outputs, warps):
    """Return the layout of [outputs / 4, 4]: a lane has the outputs whose words it has."""
    fours = outputs // 4
    registers = [[0, 1], [0, 2], *[[one, 0] for one in doubled(8, fours // warps)]]
    lanes = [[0, 0], [0, 0], [1, 0], [2, 0], [4, 0]]
    across = [[one, 0] for one in doubled(fours // warps, fours)]
    return gl.DistributedLinearLayout(registers, lanes, across, [], [fours, 4])


@gluon.constexpr_function
def activations_layout(tokens, inputs, warps):
    """Return the layout of [tokens, inputs]: a lane has eight inputs side by side of 32."""
    registers = [[0, one] for one in (1, 2, 4, *doubled(32, inputs))]
    registers += [[one, 0] for one in doubled(8, tokens)]
    lanes = [[0, 8], [0, 16], [1, 0], [2, 0], [4, 0]]
    across = [[0, 0] for _ in doubled(1, warps)]
    return gl.DistributedLinearLayout(registers, lanes, across, [], [tokens, inputs])


@gluon.jit
def in_tile_order(outputs):
    """Put numbers of outputs, [N], into the order of an operand's rows."""
    N: gl.constexpr = outputs.shape[0]
    WARPS: gl.constexpr = gl.num_warps()
    parts = gl.reshape(outputs, [WARPS, N // WARPS // 32, 8, 2, 2])
    return gl.reshape(gl.permute(parts, [1, 3, 0, 4, 2]), [N])


@gluon.jit
def in_natural_order(sums):
    """Put sums, [N, M], into the order of the outputs."""
    N: gl.constexpr = sums.shape[0]
    M: gl.constexpr = sums.shape[1]
    WARPS: gl.constexpr = gl.num_warps()
    parts = gl.reshape(sums, [N // WARPS // 32, 2, WARPS, 2, 8, M])
    return gl.reshape(gl.permute(parts, [2, 0, 4, 1, 3, 5]), [N, M])


@gluon.jit
def as_left(numbers, BITS: gl.constexpr, LEFT: gl.constexpr):
    """Take numbers of words as the left operand, [N, K]: every lane has its own already."""
    N: gl.constexpr = numbers.shape[0]
    WORDS: gl.constexpr = numbers.shape[1]
    CODES: gl.constexpr = numbers.shape[2]
    WARPS: gl.constexpr = gl.num_warps()
    BESIDE: gl.constexpr = BITS // 4
    shape: gl.constexpr = [
        WARPS,
        N // WARPS // 32,
        8,
        2,
        2,
        WORDS // 4 // BESIDE,
        4,
        BESIDE,
        CODES,
        2,
    ]
    parts = gl.reshape(numbers, shape)
    ordered = gl.permute(parts, [1, 3, 0, 4, 2, 5, 7, 8, 6, 9])
    return gl.convert_layout(gl.reshape(ordered, [N, WORDS * CODES * 2]), LEFT)


@gluon.jit
def as_right(tile, inverse, BITS: gl.constexpr, RIGHT: gl.constexpr):
    """Take activations, [M, K], as the right operand, [K, M]: every lane has its own already.

    inverse: float32 [M], by which each row is multiplied to be float16, or None.
    """
    M: gl.constexpr = tile.shape[0]
    K: gl.constexpr = tile.shape[1]
    if inverse is not None:
        tile = (tile.to(gl.float32) * inverse[:, None]).to(gl.float16)
    parts = gl.reshape(tile, [M, K // 32, 4, BITS // 4, 2, 16 // BITS])
    ordered = gl.permute(parts, [1, 3, 5, 2, 4, 0])
    return gl.convert_layout(gl.reshape(ordered, [K, M]), RIGHT)


@gluon.jit
def float16_of(words, zeros, BITS: gl.constexpr, LEFT: gl.constexpr, CODES: gl.constexpr):
    """Return the codes of words less their zero points as the left operand."""
    numbers = gl.inline_asm_elementwise(
        INT4_TO_FLOAT16 if BITS == 4 else INT8_TO_FLOAT16,
        "=&r,r,r,r,r,r,r",
        [
            shifted(words, BITS, 0, CODES),
            gl.full(CODES.shape, FLOAT16_MAGIC, gl.int32, CODES),
            spread(zeros * TWICE + FLOAT16_MAGIC, CODES),
        ],
        dtype=gl.float16,
        is_pure=True,
        pack=2,
    )
    return as_left(numbers, BITS, LEFT)


@gluon.jit
def bfloat16_of(
    words,
    zeros,
    UPPER: gl.constexpr,
    BITS: gl.constexpr,
    LEFT: gl.constexpr,
    CODES: gl.constexpr,
):
    """Return codes less their zero points as the left operand, of 8 bits one half of each.

    UPPER: whether it is the upper half, which counts 16 times as much.
    """
    more: gl.constexpr = SIXTEENFOLD if UPPER else 0
    zero = (zeros >> (4 if UPPER else 0)) & 15
    numbers = gl.inline_asm_elementwise(
        HALF_BYTES_TO_BFLOAT16,
        "=&r,r,r,r,r,r,r,r,r",
        [
            shifted(words, BITS, 4 if UPPER else 0, CODES),
            gl.full(CODES.shape, BFLOAT16_MAGIC, gl.int32, CODES),
            gl.full(CODES.shape, BFLOAT16_ONES + more, gl.int32, CODES),
            spread(zero * TWICE + (BFLOAT16_LESS + more), CODES),
        ],
        dtype=gl.bfloat16,
        is_pure=True,
        pack=2,
    )
    return as_left(numbers, BITS, LEFT)


@gluon.jit
def shifted(words, BITS: gl.constexpr, FIRST: gl.constexpr, CODES: gl.constexpr):
    """Shift a copy of each word for each code of half a word: int32 [N, words, codes, halves]."""
    L: gl.constexpr = gl.SliceLayout(0, gl.SliceLayout(1, gl.SliceLayout(3, CODES)))
    shift = gl.arange(0, CODES.shape[2], L) * BITS + FIRST
    every = gl.expand_dims(gl.expand_dims(words, 2), 3).broadcast_to(CODES.shape)
    shift = gl.expand_dims(gl.expand_dims(gl.expand_dims(shift, 0), 1), 3)
    return every >> shift.broadcast_to(CODES.shape)


@gluon.jit
def spread(outputs, CODES: gl.constexpr):
    """Give every code of an output its number: [N] -> [N, words, codes, halves]."""
    wide = gl.expand_dims(gl.expand_dims(gl.expand_dims(outputs, 1), 2), 3)
    return wide.broadcast_to(CODES.shape)
