"""bitsandbytes' own NF4, for CUDA devices that our Triton kernels do not serve.

Its matrix-vector product has not been run on a CUDA device.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from calculator.memory.scratch import KernelNeeds, dequantized_outputs
from calculator.model.formats import NF4_BLOCK, WeightFormat
from glm4q.kernels.spec import LinearSpec
from glm4q.weights.bitsandbytes_package import bitsandbytes_functions
from glm4q.weights.bitsandbytes_tensors import nf4_of_words
from glm4q.weights.packing import QuantizedWeight


class BitsAndBytes:
    """One token by gemv_4bit on CUDA; else weights are dequantized a tile at a time."""

    name = "bitsandbytes"
    widens = False
    rows_alike = False
    packs_on_device = True

    def refuses(self, spec: LinearSpec) -> str | None:
        if spec.weight_format.scheme != "nf4":
            return f"takes nf4, not {spec.weight_format}"
        if find_spec("bitsandbytes") is None:
            return "needs the package bitsandbytes, which is not installed"
        return None

    def packed_format(self, weight_format: WeightFormat) -> WeightFormat:
        return weight_format

    def pack(self, weight: QuantizedWeight) -> dict[str, Tensor]:
        assert weight.book is not None
        return {
            "weight": nf4_of_words(weight.qweight),  # [N, K / 2]
            "absmax": weight.scales.T.contiguous(),  # [N, blocks]
            "book": weight.book,
        }

    def needs(self, spec: LinearSpec, tokens: int, activation_bytes: int) -> KernelNeeds:
        rows = min(spec.outputs, dequantized_outputs(spec.inputs))
        return KernelNeeds(operator_bytes=rows * spec.inputs * activation_bytes)

    def matmul(
        self,
        x: Tensor,
        packed: Mapping[str, Tensor],
        out: Tensor,
        scratch: Tensor,
        *,
        alike: bool = False,
    ) -> None:
        if x.is_cuda and x.shape[0] == 1:
            out.copy_(multiply_one(x, packed))
            return
        tile = dequantized_outputs(x.shape[1])
        for start in range(0, out.shape[1], tile):
            rows = slice(start, min(start + tile, out.shape[1]))
            torch.mm(x, _dequantize(packed, rows, x.dtype).T, out=out[:, rows])


def multiply_one(x: Tensor, packed: Mapping[str, Tensor]) -> Tensor:
    """[1, K] -> [1, N], without dequantizing."""
    weight = packed["weight"].view(-1, 1)
    return bitsandbytes_functions().gemv_4bit(x, weight, state=_state(packed, slice(None), x.dtype))


def _dequantize(packed: Mapping[str, Tensor], rows: slice, dtype: torch.dtype) -> Tensor:
    weight = packed["weight"][rows].view(-1, 1)
    return bitsandbytes_functions().dequantize_4bit(weight, _state(packed, rows, dtype))


def _state(packed: Mapping[str, Tensor], rows: slice, dtype: torch.dtype) -> Any:
    absmax = packed["absmax"][rows]
    shape = absmax.shape[0], absmax.shape[1] * NF4_BLOCK
    make = bitsandbytes_functions().QuantState
    return make(absmax.flatten(), shape, packed["book"], NF4_BLOCK, "nf4", dtype)
