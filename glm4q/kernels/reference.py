"""The slow, obvious kernel: dequantize, then multiply. Every other kernel is held against it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from calculator.memory.scratch import KernelNeeds, dequantized_outputs, tile_bytes
from calculator.model.formats import WeightFormat
from glm4q.kernels.spec import LinearSpec
from glm4q.weights.packing import WORD_BITS, QuantizedWeight

PARTS = ("qweight", "scales", "qzeros", "g_idx", "book")


class Reference:
    """Takes every format on every device; keeps GPTQ's own layout."""

    name = "reference"
    widens = False
    rows_alike = False
    packs_on_device = False

    def refuses(self, spec: LinearSpec) -> str | None:
        return None

    def packed_format(self, weight_format: WeightFormat) -> WeightFormat:
        return weight_format

    def needs(self, spec: LinearSpec, tokens: int, activation_bytes: int) -> KernelNeeds:
        return KernelNeeds(
            tile_bytes(spec.outputs, spec.inputs, spec.weight_format.groups(spec.inputs))
        )

    def pack(self, weight: QuantizedWeight) -> dict[str, Tensor]:
        parts = {name: getattr(weight, name) for name in PARTS}
        return {name: tensor for name, tensor in parts.items() if tensor is not None}

    def matmul(
        self,
        x: Tensor,
        packed: Mapping[str, Tensor],
        out: Tensor,
        scratch: Tensor,
        *,
        alike: bool = False,
    ) -> None:
        bits = packed["qweight"].shape[0] * WORD_BITS // x.shape[-1]
        weight = QuantizedWeight(bits, **packed)
        tile = dequantized_outputs(weight.inputs)
        for start in range(0, weight.outputs, tile):
            stop = min(start + tile, weight.outputs)
            values = weight.columns(start, stop).dequantize_into(scratch, x.dtype)
            torch.mm(x, values, out=out[:, start:stop])
