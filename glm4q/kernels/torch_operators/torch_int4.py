"""torch's packed 4-bit operator for the CPU: bfloat16 activations, one scale and zero a group."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from calculator.memory.scratch import KernelNeeds
from calculator.model.formats import WeightFormat
from glm4q.kernels.spec import LinearSpec
from glm4q.memory.workspace import split_scratch
from glm4q.weights.packing import QuantizedWeight, middle

GROUP_SIZES = (32, 64, 128)
OUTPUTS_MULTIPLE = 16


class TorchInt4:
    """aten::_weight_int4pack_mm_for_cpu."""

    name = "torch-int4"
    widens = False
    packs_on_device = False

    def refuses(self, spec: LinearSpec) -> str | None:
        if spec.device.type != "cpu":
            return "runs on the CPU only"
        if spec.weight_format.bits != 4 or spec.weight_format.scheme != "groups":
            return f"takes 4-bit codes in groups, not {spec.weight_format}"
        if spec.weight_format.group_size not in GROUP_SIZES:
            size = spec.weight_format.group_size or "whole rows"
            return f"takes groups of 32, 64 or 128, not {size}"
        if spec.weight_format.act_order:
            return "takes groups of consecutive inputs only"
        if spec.outputs % OUTPUTS_MULTIPLE:
            return f"takes multiples of {OUTPUTS_MULTIPLE} outputs, not {spec.outputs}"
        return None

    def packed_format(self, weight_format: WeightFormat) -> WeightFormat:
        return replace(weight_format, zero_bits=0, scheme="int4pack")

    def pack(self, weight: QuantizedWeight) -> dict[str, Tensor]:
        codes = weight.codes().T.contiguous()
        scales = weight.scales.float()
        # The operator computes (code - 8) * scale + zero.
        zeros = (middle(4) - weight.zero_points()) * scales
        return {
            "qweight": torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1),
            "scales_and_zeros": torch.stack((scales, zeros), dim=-1).bfloat16(),
        }

    def needs(self, spec: LinearSpec, tokens: int, activation_bytes: int) -> KernelNeeds:
        rounded = 0 if activation_bytes == 2 else tokens * spec.inputs * 2
        return KernelNeeds(rounded, operator_bytes=tokens * spec.outputs * 2)

    def matmul(self, x: Tensor, packed: Mapping[str, Tensor], out: Tensor, scratch: Tensor) -> None:
        if x.dtype != torch.bfloat16:
            x = split_scratch(scratch, (torch.bfloat16, tuple(x.shape)))[0].copy_(x)
        scales = packed["scales_and_zeros"]
        group_size = x.shape[-1] // scales.shape[0]
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(x, packed["qweight"], group_size, scales)
        out.copy_(y)
