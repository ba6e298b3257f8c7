"""Kernels that tests start to look into ours; for a process in which Triton interprets."""

import triton
import triton.language as tl

from glm4q.kernels.gpu.attention.centers import cos_and_sin, revolutions_of_a_token


@triton.jit
def rotation_at(frequencies, out, start, PAIRS: tl.constexpr):
    """float32 [2, PAIRS]: cos and sin of position `start`, as attention has them."""
    cos, sin = cos_and_sin(revolutions_of_a_token(frequencies, PAIRS, PAIRS) * start)
    pair = tl.arange(0, PAIRS)
    tl.store(out + pair, cos)
    tl.store(out + PAIRS + pair, sin)
