"""torch's packed 4-bit operator for CUDA, for machines without Triton.

Held to torch's own shapes by a test; it has not been run, as no CUDA device was at hand.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from calculator.memory.scratch import KernelNeeds
from calculator.model.formats import GROUP_SIZES, WeightFormat
from glm4q.kernels.cuda import AMPERE
from glm4q.kernels.spec import LinearSpec
from glm4q.memory.workspace import split_scratch
from glm4q.weights.packing import QuantizedWeight, middle

INNER_TILES = 2
"""Tiles of 16 inputs that lie together: the fewest, so that most widths divide by them."""
INPUTS_MULTIPLE, OUTPUTS_MULTIPLE = 16 * INNER_TILES, 8


class TorchInt4Cuda:
    """aten::_weight_int4pack_mm."""

    name = "torch-int4-cuda"
    widens = False
    packs_on_device = True

    def refuses(self, spec: LinearSpec) -> str | None:
        if spec.capability is None:
            return "needs a CUDA device"
        if spec.capability < AMPERE:
            return "needs compute capability 8.0 or more, not {}.{}".format(*spec.capability)
        if spec.weight_format.bits != 4 or spec.weight_format.scheme != "groups":
            return f"takes 4-bit codes in groups, not {spec.weight_format}"
        if spec.weight_format.group_size not in GROUP_SIZES:
            size = spec.weight_format.group_size or "whole rows"
            return f"takes groups of 32, 64 or 128, not {size}"
        if spec.weight_format.act_order:
            return "takes groups of consecutive inputs only"
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
        scales = weight.scales.float()
        # The operator computes (code - 8) * scale + zero.
        zeros = (middle(4) - weight.zero_points()) * scales
        return {
            "qweight": torch.ops.aten._convert_weight_to_int4pack(pairs.contiguous(), INNER_TILES),
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
        out.copy_(torch.ops.aten._weight_int4pack_mm(x, packed["qweight"], group_size, scales))
