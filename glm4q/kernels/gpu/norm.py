"""RMSNorm of a vector in one pass: read once, written once."""

import triton
import triton.language as tl
from torch import Tensor

from glm4q.kernels.gpu.launch import Launch


def norm(x: Tensor, weight: Tensor, eps: float, out: Tensor) -> Launch:
    """Normalize rows of x, [M, C], into `out`, which may be x."""
    rows, size = x.shape
    return Launch(
        rms_norm,
        (rows,),
        {
            "x": x,
            "weight": weight,
            "out": out,
            "size": size,
            "x_stride": x.stride(0),
            "out_stride": out.stride(0),
            "eps": eps,
        },
        {"BLOCK": triton.next_power_of_2(size)},
        warps=8,
    )


@triton.jit
def rms_norm(x, weight, out, size, x_stride, out_stride, eps, BLOCK: tl.constexpr):
    """Normalize one row, and round where `glm4q.model.norm` rounds: before and after the weight."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    inside = place < size
    numbers = tl.load(x + row * x_stride + place, mask=inside, other=0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(numbers * numbers, 0) / size + eps)
    normed = (numbers * scale).to(out.dtype.element_ty)
    weights = tl.load(weight + place, mask=inside, other=0).to(tl.float32)
    tl.store(out + row * out_stride + place, normed.to(tl.float32) * weights, mask=inside)
