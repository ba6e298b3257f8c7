"""Round the rows of a head one after another, each making up for the errors of those before it.

GPTQ takes each row by itself, and lowers e H e^T. But an error of one output of q_proj or k_proj
can undo another's: what attention makes of a head's errors E, [D, K], is tr(S E H E^T), where S
says which errors of the D outputs count together (quantize.calibrate.attention_errors). It is to
outputs what the Hessian is to inputs, so GPTQ's step along the inputs is taken along the outputs as
well, as YAQA does with whole matrices (https://arxiv.org/abs/2505.22988). With S = R D R^T, R an
upper triangle with ones on its diagonal, a row is best rounded when the errors of the rows before
it times its column of R are added to it. Some rows of every head are rounded at a time.
"""

import torch
from torch import Tensor

from calculator.model.formats import WeightFormat
from quantize.methods import gptq
from quantize.methods.blocks import by_torch
from quantize.methods.blocks.choose import choose_blocks
from quantize.methods.codes import Codes, join

STEPS = 32
"""The rows of a head are rounded in so many steps. Those of one step do not make up for each other;
with one row a step, a wide linear would wait for memory, and gain next to nothing."""
DAMPING = 0.1
"""The share of the mean of its diagonal that is added to that of S."""


def quantize(
    weight: Tensor, errors: Tensor, factors: gptq.Factors, weight_format: WeightFormat
) -> Codes:
    """Codes of the rows of some heads.

    weight: float32 [heads * D, K]; errors: S of each head, float32 [heads, D, D].
    """
    device, (heads, size) = weight.device, errors.shape[:2]
    if choose_blocks(weight) is by_torch:
        # A GPU would launch some operators for each column of each step, so the host does it.
        weight, errors, factors = weight.cpu(), errors.cpu(), factors.cpu()
    order, root = factor(errors)
    target = weight.view(heads, size, -1)
    target = target.gather(1, order.unsqueeze(-1).expand_as(target))
    left, parts = target.clone(), []
    at_once = max(size // STEPS, 1)
    for first in range(0, size, at_once):
        here, after = slice(first, first + at_once), slice(first + at_once, size)
        rows = left[:, here].flatten(0, 1)
        parts.append(gptq.quantize_rows(rows, factors, weight_format))
        wrong = target[:, here] - parts[-1].dequantize().view_as(target[:, here])
        left[:, after].baddbmm_(root[:, here, after].mT, wrong)
    every = join(parts)  # the first rows of each head, then the next of each
    place = order.argsort(1)  # of each row of a head
    step = place // at_once * at_once  # where its step begins
    count = (size - step).clamp(max=at_once)  # rows of its head in that step
    head = torch.arange(heads, device=place.device).unsqueeze(1)
    index = step * heads + head * count + place - step
    index = index.flatten()
    return Codes(
        every.codes[index].to(device),
        every.scales[index].to(device),
        every.zero_points[index].to(device),
    )


def factor(errors: Tensor) -> tuple[Tensor, Tensor]:
    """The order in which the rows of each head are rounded, [heads, D], and R in that order.

    Rows whose errors count most go first. Where nothing counts, R is the identity.
    """
    mean = errors.diagonal(dim1=1, dim2=2).mean(1)[:, None, None]
    damped = errors / mean.clamp(min=torch.finfo(errors.dtype).tiny)
    damped.diagonal(dim1=1, dim2=2).add_(DAMPING)
    order = damped.diagonal(dim1=1, dim2=2).argsort(1, descending=True)
    back = order.flip(1)
    rows = damped.gather(1, back.unsqueeze(-1).expand_as(damped))
    lower = torch.linalg.cholesky(rows.gather(2, back.unsqueeze(1).expand_as(damped)))
    root = lower.flip(1, 2)
    return order, root / root.diagonal(dim1=1, dim2=2).unsqueeze(1)
