"""torch's packed 4-bit operator for CUDA, for machines without Triton.

A test compares its shapes with torch's own. It has not been run on a CUDA device.
"""

from dataclasses import replace

import torch
from torch import Tensor

from calculator.model.formats import WeightFormat
from glm4q.kernels.cuda import AMPERE
from glm4q.kernels.spec import LinearSpec
from glm4q.kernels.torch_operators.packed_int4 import PackedInt4, refuses_format, scales_and_zeros
from glm4q.weights.packing import QuantizedWeight

INNER_TILES = 2
"""Tiles of 16 inputs that lie together: the fewest, so that most widths divide by them."""
INPUTS_MULTIPLE, OUTPUTS_MULTIPLE = 16 * INNER_TILES, 8


class TorchInt4Cuda(PackedInt4):
    """aten::_weight_int4pack_mm."""

    name = "torch-int4-cuda"
    packs_on_device = True

    def refuses(self, spec: LinearSpec) -> str | None:
        if spec.capability is None:
            return "needs a CUDA device"
        if spec.capability < AMPERE:
            return "needs compute capability 8.0 or more, not {}.{}".format(*spec.capability)
        if reason := refuses_format(spec.weight_format):
            return reason
        if spec.inputs % INPUTS_MULTIPLE or spec.outputs % OUTPUTS_MULTIPLE:
            return (
                f"takes multiples of {INPUTS_MULTIPLE} inputs and {OUTPUTS_MULTIPLE} outputs, "
                f"not {spec.inputs} and {spec.outputs}"
            )
        return None

    def packed_format(self, weight_format: WeightFormat) -> WeightFormat:
        return replace(weight_format, zero_bits=16)  # it keeps a bf16 zero beside every scale

    def pack(self, weight: QuantizedWeight) -> dict[str, Tensor]:
        codes = weight.codes().T.to(torch.uint8)  # [N, K]
        pairs = codes[:, ::2] << 4 | codes[:, 1::2]
        return {
            "qweight": torch.ops.aten._convert_weight_to_int4pack(pairs.contiguous(), INNER_TILES),
            "scales_and_zeros": scales_and_zeros(weight),
        }

    def multiply(self, x: Tensor, codes: Tensor, group_size: int, scales: Tensor) -> Tensor:
        return torch.ops.aten._weight_int4pack_mm(x, codes, group_size, scales)
