"""Several tokens by a quantized weight on Turing, by its tensor cores: what `matmul` computes.

A word holds eight or four codes of one output, and the lanes of a tensor core's operand that share
an output need just these. So each lane loads its words from the weight as they lie, and makes
float16 numbers of them in registers, two at once: code j of a word beside the code half a word
after it. A sum does not depend on its order, so activations are put into the same order, on their
way to shared memory. The next tile's loads are on their way while a tile is multiplied, because
Turing copies nothing to shared memory by itself.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from glm4q.kernels.gpu.gluon_mma import multiply

INT4_TO_FLOAT16 = gl.constexpr("""
shr.u32 $0, $1, $3;
and.b32 $0, $0, 0x000F000F;
or.b32 $0, $0, 0x64006400;
sub.rn.f16x2 $0, $0, $5;
""")
"""Two codes of a word become 1024 and a code each in float16, less what is given."""
INT8_TO_FLOAT16 = gl.constexpr("""
shr.u32 $0, $1, $3;
and.b32 $0, $0, 0x00FF00FF;
or.b32 $0, $0, 0x64006400;
sub.rn.f16x2 $0, $0, $5;
""")
TWICE = gl.constexpr(0x00010001)
"""A 16-bit number times this stands in both halves of a word."""
MAGIC_BITS = gl.constexpr(0x64006400)
"""1024 in float16, twice: its last bit counts 1."""


@gluon.constexpr_function
def swizzled(width):
    """A layout of float16 rows, eight of which, read by one instruction, meet no bank twice."""
    rows = max(64 // width, 1)  # rows that all banks hold side by side
    return gl.SwizzledSharedLayout(8, rows, min(width, 64) // 8, [1, 0])


@gluon.constexpr_function
def words_layout(inputs, outputs, per_word, warps):
    """A layout of [words, codes of a word, outputs] that is the layout of the operand's numbers."""

    def code(place):
        return [place // per_word, 0, 0] if place >= per_word else [0, place, 0]

    def output(place):
        return [0, 0, place]

    def doubled(first, last):
        return [first << step for step in range((last // first).bit_length() - 1)]

    registers = [code(each) for each in [1, *doubled(8, inputs)]]
    registers += [output(each) for each in doubled(8 * warps, outputs)]
    lanes = [code(2), code(4), output(1), output(2), output(4)]
    across = [output(each) for each in doubled(8, 8 * warps)]
    return gl.DistributedLinearLayout(
        registers, lanes, across, [], [inputs // per_word, per_word, outputs]
    )


@gluon.jit(do_not_specialize_on_alignment=["rows"])
def matmul(
    x,  # [M, K]
    qweight,  # int32 [K / per word, N]
    scales,  # float16 or float32 [groups, N]
    qzeros,  # int32 [groups, N / per word], or None
    units,  # float32 [M]
    out,  # [splits, M, N]
    rows,
    inputs,
    outputs,
    x_stride,
    out_stride,
    split_inputs,
    BITS: gl.constexpr,
    GROUP: gl.constexpr,
    BLOCK_M: gl.constexpr,
    BLOCK_N: gl.constexpr,
    BLOCK_K: gl.constexpr,
    EVEN_K: gl.constexpr,
):
    """Sum the inputs of one split for BLOCK_M tokens and BLOCK_N outputs."""
    PER_WORD: gl.constexpr = 32 // BITS
    M: gl.constexpr = gl.NVMMADistributedLayout([2, 1], [1, gl.num_warps()], instr_shape=[16, 8])
    LEFT: gl.constexpr = gl.DotOperandLayout(0, M, 2)
    RIGHT: gl.constexpr = gl.DotOperandLayout(1, M, 2)
    ROWS: gl.constexpr = gl.BlockedLayout(
        [1, 8], [256 // BLOCK_K, BLOCK_K // 8], [gl.num_warps(), 1], [1, 0]
    )
    m0, n0, split = gl.program_id(1) * BLOCK_M, gl.program_id(0) * BLOCK_N, gl.program_id(2)
    first = split * split_inputs
    last = gl.minimum(first + split_inputs, inputs)
    m = m0 + gl.arange(0, BLOCK_M, gl.SliceLayout(1, ROWS))
    unit = gl.load(units + m, m < rows, 1.0)
    left = gl.allocate_shared_memory(gl.float16, [BLOCK_M, BLOCK_K], swizzled(BLOCK_K))
    tile = load_activations(x, x_stride, m, rows, first, last, BLOCK_K, EVEN_K, ROWS)
    words = load_words(qweight, outputs, n0, first, last, BITS, BLOCK_N, BLOCK_K, EVEN_K)
    middles = load_middles(qzeros, outputs, n0, first, last, BITS, GROUP, BLOCK_N, RIGHT)
    n = n0 + gl.arange(0, BLOCK_N, gl.SliceLayout(0, M))
    none = gl.zeros([BLOCK_M, BLOCK_N], gl.float32, M)
    sums = none
    for start in range(first, last, BLOCK_K):
        scale = gl.load(scales + start // GROUP * outputs + n, n < outputs, 0.0).to(gl.float32)
        left.store(in_words_order((tile.to(gl.float32) / unit[:, None]).to(gl.float16), PER_WORD))
        right = numbers_of(words, middles, BITS, RIGHT)
        after = start + BLOCK_K
        tile = load_activations(x, x_stride, m, rows, after, last, BLOCK_K, EVEN_K, ROWS)
        words = load_words(qweight, outputs, n0, after, last, BITS, BLOCK_N, BLOCK_K, EVEN_K)
        middles = load_middles(qzeros, outputs, n0, after, last, BITS, GROUP, BLOCK_N, RIGHT)
        sums += multiply(left.load(LEFT), right, none) * scale[None, :]
    m = m0 + gl.arange(0, BLOCK_M, gl.SliceLayout(1, M))
    sums *= gl.convert_layout(unit, gl.SliceLayout(1, M))[:, None]
    places = (split * rows + m).to(gl.int64)[:, None] * out_stride + n[None, :]
    gl.store(out + places, sums, (m < rows)[:, None] & (n < outputs)[None, :])


@gluon.jit
def load_activations(
    x,
    x_stride,
    m,
    rows,
    start,
    last,
    BLOCK_K: gl.constexpr,
    EVEN_K: gl.constexpr,
    ROWS: gl.constexpr,
):
    """Load BLOCK_K numbers from `start` on of the rows m: [M, K], nothing from `last` on."""
    k = start + gl.arange(0, BLOCK_K, gl.SliceLayout(0, ROWS))
    place = x + m.to(gl.int64)[:, None] * x_stride + k[None, :]
    if EVEN_K:
        mask = (m < gl.where(start < last, rows, 0))[:, None]
    else:
        mask = (m < rows)[:, None] & (k < last)[None, :]
    return gl.load(place, mask, 0.0)


@gluon.jit
def load_words(
    qweight,
    outputs,
    n0,
    start,
    last,
    BITS: gl.constexpr,
    BLOCK_N: gl.constexpr,
    BLOCK_K: gl.constexpr,
    EVEN_K: gl.constexpr,
):
    """Load the words of BLOCK_K inputs from `start` on: int32 [words, N]."""
    PER_WORD: gl.constexpr = 32 // BITS
    WORDS: gl.constexpr = gl.SliceLayout(
        1, words_layout(BLOCK_K, BLOCK_N, PER_WORD, gl.num_warps())
    )
    word = start // PER_WORD + gl.arange(0, BLOCK_K // PER_WORD, gl.SliceLayout(1, WORDS))
    n = n0 + gl.arange(0, BLOCK_N, gl.SliceLayout(0, WORDS))
    place = qweight + word[:, None] * outputs + n[None, :]
    if EVEN_K:
        mask = (n < gl.where(start < last, outputs, 0))[None, :]
    else:
        mask = (n < outputs)[None, :] & (word * PER_WORD < last)[:, None]
    return gl.load(place, mask, 0)


@gluon.jit
def load_middles(
    qzeros,
    outputs,
    n0,
    start,
    last,
    BITS: gl.constexpr,
    GROUP: gl.constexpr,
    BLOCK_N: gl.constexpr,
    RIGHT: gl.constexpr,
):
    """Load 1024 and the zero point of each output in float16, twice in a word: int32 [N]."""
    PER_WORD: gl.constexpr = 32 // BITS
    L: gl.constexpr = gl.SliceLayout(0, RIGHT)
    if qzeros is None:
        return gl.full([BLOCK_N], MAGIC_BITS + (1 << (BITS - 1)) * TWICE, gl.int32, L)
    else:
        n = n0 + gl.arange(0, BLOCK_N, L)
        place = qzeros + start // GROUP * (outputs // PER_WORD) + n // PER_WORD
        word = gl.load(place, n < gl.where(start < last, outputs, 0), 0)
        zero = (word >> (n % PER_WORD * BITS)) & ((1 << BITS) - 1)
        return zero * TWICE + MAGIC_BITS


@gluon.jit
def in_words_order(x, PER_WORD: gl.constexpr):
    """Put each word's numbers into the order in which `numbers_of` takes them: [M, K]."""
    M: gl.constexpr = x.shape[0]
    K: gl.constexpr = x.shape[1]
    halves = gl.reshape(x, [M, K // PER_WORD, 2, PER_WORD // 2])
    ordered = gl.reshape(gl.permute(halves, [0, 1, 3, 2]), [M, K])
    return gl.convert_layout(ordered, x.type.layout)


@gluon.jit
def numbers_of(words, middles, BITS: gl.constexpr, RIGHT: gl.constexpr):
    """Return the codes of words less their zero points, float16 [K, N].

    Neighbours are code j of a word and the one half a word after it.
    """
    PER_WORD: gl.constexpr = 32 // BITS
    WORDS: gl.constexpr = words.shape[0]
    N: gl.constexpr = words.shape[1]
    K: gl.constexpr = WORDS * PER_WORD
    every = gl.expand_dims(words, 1).broadcast_to([WORDS, PER_WORD, N])
    every = gl.convert_layout(gl.reshape(every, [K, N]), RIGHT)
    k = gl.arange(0, K, gl.SliceLayout(1, RIGHT))
    shift = (k // 2 % (PER_WORD // 2) * BITS)[:, None].broadcast_to([K, N])
    return gl.inline_asm_elementwise(
        INT4_TO_FLOAT16 if BITS == 4 else INT8_TO_FLOAT16,
        "=&r,r,r,r,r,r,r",
        [every, shift, middles[None, :].broadcast_to([K, N])],
        dtype=gl.float16,
        is_pure=True,
        pack=2,
    )
