"""Random weights in any format."""

import torch

from calculator.model.formats import WeightFormat
from glm4q.weights.packing import QuantizedWeight, pack

BELOW = (-1.0, -0.69619280, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0)
ABOVE = (0.07958030, 0.16093020, 0.24611230, 0.33791524, 0.44070983, 0.56261700, 0.72295684, 1.0)
BOOK = torch.tensor(BELOW + ABOVE)
"""NF4's: https://arxiv.org/abs/2305.14314, appendix E."""


def random_weight(outputs: int, inputs: int, weight_format: WeightFormat) -> QuantizedWeight:
    """A weight [outputs, inputs] of random codes, scales and, where it has them, zero points."""
    groups = weight_format.groups(inputs)
    codes = torch.randint(2**weight_format.bits, (inputs, outputs), dtype=torch.int32)
    zeros = torch.randint(2**weight_format.bits, (groups, outputs), dtype=torch.int32)
    scales = torch.rand(groups, outputs) + 0.5
    if weight_format.symmetric and weight_format.scheme == "groups":  # whose scales have a sign
        scales *= torch.randint(2, scales.shape) * 2 - 1
    return QuantizedWeight(
        weight_format.bits,
        pack(codes, weight_format.bits),
        scales.half() if weight_format.scheme == "groups" else scales,
        None
        if weight_format.symmetric
        else pack(zeros.T.contiguous(), weight_format.bits).T.contiguous(),
        torch.randint(groups, (inputs,), dtype=torch.int32) if weight_format.act_order else None,
        BOOK if weight_format.scheme == "nf4" else None,
    )
