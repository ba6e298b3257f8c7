"""The instruction of Turing's tensor cores: m16n8k8 of float16 with float32 sums.

Triton's own `dot` uses no tensor cores there. Gluon, its language of explicit layouts, still does.
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
