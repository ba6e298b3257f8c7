"""One token by a quantized weight: read every word once, multiply in float32, no tensor cores.

Several tokens of a draft do the same, each in blocks of its own: so a token has the same bits in a
step of its own and in one with others.

A code is put into the mantissa of 2**23: `code | 0x4B000000`, read as a float32, is 2**23 + code,
so that one logical operation and one subtraction make a number of it. Codes are not shifted to the
end of their half of the word, so they count 2**place times as much; the activation is divided by
that instead, which is exact.
"""

import triton
import triton.language as tl

from glm4q.kernels.gpu.numbers import MAGIC, MAGIC_BITS

NUMBER_BYTES = tl.constexpr(4)
"""Bytes of a number of a book."""


@triton.jit
def matvec(
    x,  # [M, K]
    qweight,  # int32 [K / per word, N]
    scales,  # float16 or float32 [groups, N]
    qzeros,  # int32 [groups, N / per word], or None
    book,  # float32 [16], the numbers that codes stand for, or None
    out,  # [splits, M, N]
    rows,  # M
    inputs,
    outputs,
    x_stride,
    out_stride,
    split_words,
    BITS: tl.constexpr,
    GROUP_WORDS: tl.constexpr,
    BLOCK_WORDS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    EVEN_WORDS: tl.constexpr,
):
    """Sum the inputs of one split for BLOCK_N outputs and one row.

    Blocks of the same outputs stand side by side, so that all rows find the words in the cache that
    the first of them reads.
    """
    PER_WORD: tl.constexpr = 32 // BITS
    line = tl.program_id(0) % rows
    x += line * x_stride
    n = tl.program_id(0) // rows * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = n < outputs
    words = inputs // PER_WORD
    first = tl.program_id(1) * split_words
    last = tl.minimum(first + split_words, words)
    sums = tl.zeros((BLOCK_WORDS, BLOCK_N), tl.float32)
    for start in range(first, last, BLOCK_WORDS):
        row = start + tl.arange(0, BLOCK_WORDS)
        there = row < last
        mask = inside[None, :]
        if not EVEN_WORDS:
            mask = mask & there[:, None]
        packed = tl.load(qweight + row[:, None] * outputs + n[None, :], mask=mask, other=0)
        group = row // GROUP_WORDS
        scale = tl.load(scales + group[:, None] * outputs + n[None, :], mask=mask, other=0)
        if qzeros is None:
            zero = 1 << (BITS - 1)
        else:
            places = group[:, None] * (outputs // PER_WORD) + (n // PER_WORD)[None, :]
            zero = tl.load(qzeros + places, mask=mask, other=0) >> (n % PER_WORD * BITS)[None, :]
            zero = (zero & ((1 << BITS) - 1)).to(tl.float32)
        partial = tl.zeros((BLOCK_WORDS, BLOCK_N), tl.float32)
        for half in tl.static_range(2):
            codes = packed >> (16 * half)
            for place in tl.static_range(16 // BITS):
                if book is None:
                    unit = 1 << (place * BITS)
                    here = codes & (((1 << BITS) - 1) * unit) | MAGIC_BITS
                    number = here.to(tl.float32, bitcast=True) - (zero * unit + MAGIC)
                else:
                    unit = 1
                    number = look_up(book, codes, place * BITS, BITS)
                k = row * PER_WORD + half * (16 // BITS) + place
                if EVEN_WORDS:
                    xk = tl.load(x + k[:, None])
                else:
                    xk = tl.load(x + k[:, None], mask=there[:, None], other=0)
                partial += xk.to(tl.float32) * (1.0 / unit) * number
        sums += partial * scale.to(tl.float32)
    place = (tl.program_id(1) * rows + line) * out_stride + n
    tl.store(out + place, tl.sum(sums, 0), mask=inside)


@triton.jit
def look_up(book, codes, place: tl.constexpr, BITS: tl.constexpr):
    """Load the numbers of a book that codes stand for, which lie at one bit of each word.

    The book begins at a multiple of its size, so that a code in bytes is put into its address by
    one logical operation: an addition of 64 bits takes two.
    """
    MASK: tl.constexpr = ((1 << BITS) - 1) * NUMBER_BYTES
    offset = (codes * NUMBER_BYTES if place == 0 else codes >> (place - 2)) & MASK
    address = book.to(tl.int64) | offset.to(tl.uint32).to(tl.int64)
    return tl.load(address.to(tl.pointer_type(tl.float32)))
