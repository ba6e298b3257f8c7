"""torch's 8-bit operator for the CPU, called once for each group of inputs.

The operator knows one scale a row; so each group is a matrix of its own, and its float16 scales are
applied to the group's result in float32. With many rows of activations it falls behind: then the
weight is dequantized a tile at a time.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from calculator.formats import WeightFormat
from calculator.workspace import dequantized_outputs
from glm4q.kernels.spec import LinearSpec
from glm4q.packing import QuantizedWeight, middle

INPUTS_MULTIPLE = 32
OUTPUTS_MULTIPLE = 16
MAX_OPERATOR_ROWS = 32


class TorchInt8:
    """aten::_weight_int8pack_mm."""

    name = "torch-int8"

    def refuses(self, spec: LinearSpec) -> str | None:
        if spec.device.type != "cpu":
            return "runs on the CPU only"
        if spec.form.bits != 8:
            return f"takes 8-bit weights, not {spec.form.bits}"
        if not spec.form.symmetric:
            return "takes symmetric weights only"
        if spec.form.act_order:
            return "takes groups of consecutive inputs only"
        group_size = spec.form.group_size or spec.inputs
        if group_size % INPUTS_MULTIPLE:
            return f"takes groups of a multiple of {INPUTS_MULTIPLE} inputs, not {group_size}"
        if spec.outputs % OUTPUTS_MULTIPLE:
            return f"takes multiples of {OUTPUTS_MULTIPLE} outputs, not {spec.outputs}"
        return None

    def held(self, form: WeightFormat) -> WeightFormat:
        return form

    def pack(self, weight: QuantizedWeight) -> dict[str, Tensor]:
        signed = (weight.codes() - middle(8)).to(torch.int8)  # [K, N]
        groups = signed.unflatten(0, (weight.scales.shape[0], -1))
        return {"qweight": groups.transpose(1, 2).contiguous(), "scales": weight.scales}

    def matmul(self, x: Tensor, packed: Mapping[str, Tensor]) -> Tensor:
        codes, scales = packed["qweight"], packed["scales"]  # int8 [G, N, K / G], float16 [G, N]
        rows = x.reshape(-1, x.shape[-1])
        if rows.shape[0] <= MAX_OPERATOR_ROWS:
            y = _by_group(rows.bfloat16(), codes, scales)
        else:
            y = _dequantized(rows, codes, scales)
        return y.view(*x.shape[:-1], -1).to(x.dtype)


def _by_group(x: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """bfloat16 [M, K] -> float32 [M, N]."""
    ones = torch.ones(codes.shape[1], dtype=torch.bfloat16)
    y = torch.zeros(x.shape[0], codes.shape[1])
    for inputs, group, scale in zip(x.chunk(len(codes), dim=-1), codes, scales, strict=True):
        y += torch.ops.aten._weight_int8pack_mm(inputs.contiguous(), group, ones) * scale.float()
    return y


def _dequantized(x: Tensor, codes: Tensor, scales: Tensor) -> Tensor:
    """[M, K] -> [M, N] in x's dtype."""
    tiles = []
    tile = dequantized_outputs(x.shape[-1])
    for start in range(0, codes.shape[1], tile):
        rows = slice(start, start + tile)
        weight = codes[:, rows] * scales[:, rows, None].float()  # [G, tile, K / G]
        tiles.append(F.linear(x, weight.transpose(0, 1).flatten(1).to(x.dtype)))
    return torch.cat(tiles, dim=-1)
