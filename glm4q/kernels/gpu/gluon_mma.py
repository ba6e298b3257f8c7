"""The instructions of tensor cores in Gluon, with float32 sums, from Turing on.

m16n8k8 of float16 on Turing, whose tensor cores Triton's own `dot` does not use, and m16n8k16 of
float16 or bfloat16 from Ampere on.
"""

from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language._core import builtin

TILE_ROWS = gl.constexpr(16)
"""The height of a tensor core's tile."""


@builtin
def multiply(a, b, sums, _semantic=None):
    """Add a times b to sums; `mma_v2` of Gluon refuses Turing's version of the layout."""
    handle = _semantic.dot(a, b, sums, None, None, sums.dtype).handle
    return gl.tensor(handle, sums.type)
