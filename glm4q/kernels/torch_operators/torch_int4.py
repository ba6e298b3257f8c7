"""torch's packed 4-bit operator for the CPU: bfloat16 activations, one scale and zero a group."""

from dataclasses import replace

import torch
from torch import Tensor

from calculator.model.formats import WeightFormat
from glm4q.kernels.spec import LinearSpec
from glm4q.kernels.torch_operators.packed_int4 import PackedInt4, refuses_format, scales_and_zeros
from glm4q.weights.packing import QuantizedWeight

OUTPUTS_MULTIPLE = 16


class TorchInt4(PackedInt4):
    """aten::_weight_int4pack_mm_for_cpu."""

    name = "torch-int4"
    packs_on_device = False

    def refuses(self, spec: LinearSpec) -> str | None:
        if spec.device.type != "cpu":
            return "runs on the CPU only"
        if reason := refuses_format(spec.weight_format):
            return reason
        if spec.outputs % OUTPUTS_MULTIPLE:
            return f"takes multiples of {OUTPUTS_MULTIPLE} outputs, not {spec.outputs}"
        return None

    def packed_format(self, weight_format: WeightFormat) -> WeightFormat:
        return replace(weight_format, zero_bits=0, scheme="int4pack")

    def pack(self, weight: QuantizedWeight) -> dict[str, Tensor]:
        codes = weight.codes().T.contiguous()
        return {
            "qweight": torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1),
            "scales_and_zeros": scales_and_zeros(weight),
        }

    def multiply(self, x: Tensor, codes: Tensor, group_size: int, scales: Tensor) -> Tensor:
        return torch.ops.aten._weight_int4pack_mm_for_cpu(x, codes, group_size, scales)
