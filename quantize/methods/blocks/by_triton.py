"""The methods' inner loops in Triton (quantize/methods/gpu): one launch for each block.

Each function here computes what the function of `by_torch` with its name computes.
"""

import torch
from torch import Tensor

from glm4q.kernels.cuda import refuses_triton
from quantize.methods.blocks import by_torch
from quantize.methods.operands import Compensation, Descent

subtract = by_torch.subtract


def refuses(weight: Tensor) -> str | None:
    """Why these loops do not take weights that lie where this one does."""
    if reason := refuses_triton(weight.device):
        return reason
    return None if weight.dtype == torch.float32 else f"takes float32, not {weight.dtype}"


def compensate(of: Compensation, first: int, last: int) -> Tensor:
    from quantize.methods.gpu.compensate import compensate  # Triton is not there on every machine

    errors = of.rows.new_empty(len(of.rows), last - first)
    compensate(of, first, last, errors).run()
    return errors


def descend(of: Descent, first: int, last: int, *, rescales: bool) -> Tensor:
    from quantize.methods.gpu.descend import descend

    change = of.slope.new_empty(len(of.slope), last - first)
    descend(of, first, last, change, rescales=rescales).run()
    return change
