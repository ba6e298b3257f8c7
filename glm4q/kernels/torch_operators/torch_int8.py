"""torch's 8-bit operator for the CPU, called once for each group of inputs.

The operator knows one scale a row; so each group is a matrix of its own, and its float16 scales are
applied to the group's result in float32. With many rows of activations it falls behind: then the
weight is dequantized a tile at a time.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from calculator.memory.scratch import KernelNeeds, dequantized_outputs, tile_bytes
from calculator.model.formats import WeightFormat
from glm4q.kernels.spec import LinearSpec
from glm4q.memory.workspace import split_scratch
from glm4q.weights.packing import QuantizedWeight, middle

INPUTS_MULTIPLE = 32
OUTPUTS_MULTIPLE = 16
MAX_OPERATOR_ROWS = 32


class TorchInt8:
    """aten::_weight_int8pack_mm."""

    name = "torch-int8"
    widens = False
    rows_alike = False
    packs_on_device = False

    def refuses(self, spec: LinearSpec) -> str | None:
        if spec.device.type != "cpu":
            return "runs on the CPU only"
        if spec.weight_format.bits != 8:
            return f"takes 8-bit weights, not {spec.weight_format}"
        if not spec.weight_format.symmetric:
            return "takes symmetric weights only"
        if spec.weight_format.act_order:
            return "takes groups of consecutive inputs only"
        group_size = spec.weight_format.group_size or spec.inputs
        if group_size % INPUTS_MULTIPLE:
            return f"takes groups of a multiple of {INPUTS_MULTIPLE} inputs, not {group_size}"
        if spec.outputs % OUTPUTS_MULTIPLE:
            return f"takes multiples of {OUTPUTS_MULTIPLE} outputs, not {spec.outputs}"
        return None

    def packed_format(self, weight_format: WeightFormat) -> WeightFormat:
        return weight_format

    def pack(self, weight: QuantizedWeight) -> dict[str, Tensor]:
        signed = (weight.codes() - middle(8)).to(torch.int8)  # [K, N]
        groups = signed.unflatten(0, (weight.scales.shape[0], -1))
        return {"qweight": groups.transpose(1, 2).contiguous(), "scales": weight.scales}

    def needs(self, spec: LinearSpec, tokens: int, activation_bytes: int) -> KernelNeeds:
        groups = spec.weight_format.groups(spec.inputs)
        if tokens > MAX_OPERATOR_ROWS:
            return KernelNeeds(tile_bytes(spec.outputs, spec.inputs, groups))
        # Sums, products and scales in float32, ones and a group's inputs in bfloat16.
        outputs = spec.outputs * (8 * tokens + 6)
        return KernelNeeds(outputs + tokens * spec.inputs // groups * 2, tokens * spec.outputs * 2)

    def matmul(
        self,
        x: Tensor,
        packed: Mapping[str, Tensor],
        out: Tensor,
        scratch: Tensor,
        *,
        alike: bool = False,
    ) -> None:
        codes, scales = packed["qweight"], packed["scales"]  # int8 [G, N, K / G], float16 [G, N]
        by = _by_group if x.shape[0] <= MAX_OPERATOR_ROWS else _dequantized
        by(x, codes, scales, out, scratch)


def _by_group(x: Tensor, codes: Tensor, scales: Tensor, out: Tensor, scratch: Tensor) -> None:
    groups, outputs, size = codes.shape
    sums, product, scale, ones, inputs = split_scratch(
        scratch,
        (torch.float32, (x.shape[0], outputs)),
        (torch.float32, (x.shape[0], outputs)),
        (torch.float32, (outputs,)),
        (torch.bfloat16, (outputs,)),
        (torch.bfloat16, (x.shape[0], size)),
    )
    sums.zero_()
    ones.fill_(1)
    for group in range(groups):
        inputs.copy_(x[:, group * size : (group + 1) * size])
        # Not named, so that it is freed before the next is made.
        product.copy_(torch.ops.aten._weight_int8pack_mm(inputs, codes[group], ones))
        sums.add_(product.mul_(scale.copy_(scales[group])))
    out.copy_(sums)


def _dequantized(x: Tensor, codes: Tensor, scales: Tensor, out: Tensor, scratch: Tensor) -> None:
    groups, outputs, size = codes.shape
    tile = dequantized_outputs(groups * size)
    for start in range(0, outputs, tile):
        rows = slice(start, min(start + tile, outputs))
        shape = rows.stop - start, groups, size
        pieces = (torch.float32, shape), (torch.float32, shape[:2])
        values, scale, *rounded = split_scratch(
            scratch, *pieces, *([] if x.dtype == torch.float32 else [(x.dtype, shape)])
        )
        values.copy_(codes[:, rows].transpose(0, 1))
        values.mul_(scale.copy_(scales[:, rows].T).unsqueeze(-1))
        weight = rounded[0].copy_(values) if rounded else values
        torch.mm(x, weight.flatten(1).T, out=out[:, rows])
