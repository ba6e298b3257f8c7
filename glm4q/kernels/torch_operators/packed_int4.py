"""Codes of 4 bits, packed for torch's operators: the rules that CPU and CUDA share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from calculator.memory.scratch import KernelNeeds
from calculator.model.formats import GROUP_SIZES, WeightFormat
from glm4q.kernels.spec import LinearSpec
from glm4q.memory.workspace import split_scratch
from glm4q.weights.packing import QuantizedWeight, middle


class PackedInt4(ABC):
    """Multiplies bfloat16 activations by packed codes with a scale and a zero for each group."""

    widens = False
    rows_alike = False

    @abstractmethod
    def multiply(self, x: Tensor, codes: Tensor, group_size: int, scales: Tensor) -> Tensor:
        """Call torch's operator."""

    def needs(self, spec: LinearSpec, tokens: int, activation_bytes: int) -> KernelNeeds:
        rounded = 0 if activation_bytes == 2 else tokens * spec.inputs * 2
        return KernelNeeds(rounded, operator_bytes=tokens * spec.outputs * 2)

    def matmul(
        self,
        x: Tensor,
        packed: Mapping[str, Tensor],
        out: Tensor,
        scratch: Tensor,
        *,
        alike: bool = False,
    ) -> None:
        if x.dtype != torch.bfloat16:
            x = split_scratch(scratch, (torch.bfloat16, tuple(x.shape)))[0].copy_(x)
        scales = packed["scales_and_zeros"]
        group_size = x.shape[-1] // scales.shape[0]
        out.copy_(self.multiply(x, packed["qweight"], group_size, scales))


def refuses_format(weight_format: WeightFormat) -> str | None:
    """Return why the operators cannot take a format, or None where they can."""
    if weight_format.bits != 4 or weight_format.scheme != "groups":
        return f"takes 4-bit codes in groups, not {weight_format}"
    if weight_format.group_size not in GROUP_SIZES:
        return f"takes groups of 32, 64 or 128, not {weight_format.group_size or 'whole rows'}"
    if weight_format.act_order:
        return "takes groups of consecutive inputs only"
    return None


def scales_and_zeros(weight: QuantizedWeight) -> Tensor:
    """Return bfloat16 [groups, N, 2]. The operators compute (code - 8) * scale + zero."""
    scales = weight.scales.float()
    zeros = (middle(4) - weight.zero_points()) * scales
    return torch.stack((scales, zeros), dim=-1).bfloat16()
