"""The methods' inner loops in Triton (quantize/methods/gpu): one launch for each block.

Each function here computes what the function of `by_torch` with its name computes.
"""

import torch
from torch import Tensor

from glm4q.kernels.cuda import refuses_triton
from quantize.methods.blocks import by_torch
from quantize.methods.codes import Codes

subtract = by_torch.subtract


def refuses(weight: Tensor) -> str | None:
    """Why these loops do not take weights that lie where this one does."""
    if reason := refuses_triton(weight.device):
        return reason
    return None if weight.dtype == torch.float32 else f"takes float32, not {weight.dtype}"


def compensate(
    rows: Tensor,
    left: Tensor,
    root: Tensor,
    group: Tensor,
    result: Codes,
    bits: int,
    first: int,
    last: int,
) -> Tensor:
    from quantize.methods.gpu.compensate import compensate  # Triton is not there on every machine

    errors = rows.new_empty(len(rows), last - first)
    compensate(rows, left, root, group, result, bits, first, last, errors).run()
    return errors


def descend(
    centered: Tensor,
    scales: Tensor,
    zeros: Tensor,
    slope: Tensor,
    hessian: Tensor,
    bits: int,
    first: int,
    last: int,
    rescales: bool,
) -> Tensor:
    from quantize.methods.gpu.descend import descend

    change = slope.new_empty(len(slope), last - first)
    block = first, last, rescales
    descend(centered, scales, zeros, slope, hessian, bits, *block, change).run()
    return change
