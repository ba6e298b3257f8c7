"""Products of matrices whose numbers need no more than bfloat16's 8 bits, with sums in float32.

While a weight is rounded, most of the time goes to products by the Hessian and by its factor, which
carry what rounding changed so far to the inputs that are rounded next. A part in 500 of that only
decides codes that lie between two anyway, and CPUs with instructions for bfloat16 multiply it twice
as fast.
"""

from torch import Tensor

from quantize.methods import native


def add_product(out: Tensor, left: Tensor, right: Tensor, *, sign: int = 1) -> None:
    """Add left [n, m] times right [m, k], or subtract it, from `out`, float32 [n, k].

    out: may be columns of a larger tensor; `left` and `right` may lie in any order. sign: 1 or -1.
    """
    if not native.multiplies_bf16(out):
        out.addmm_(left, right, alpha=sign)
        return
    columns = left.bfloat16().T.contiguous()
    native.gram(columns if sign == 1 else columns.neg_(), right.bfloat16().contiguous(), out)
