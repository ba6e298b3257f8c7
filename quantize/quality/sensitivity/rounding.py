"""Round one matrix to each width, and compare its errors."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from calculator.model.formats import WeightFormat
from quantize.methods import rtn


@dataclass(frozen=True)
class Errors:
    """Squared errors of rounding, by bits, and the square of the weights."""

    by_bits: Mapping[int, float]
    square: float

    def __add__(self, other: "Errors") -> "Errors":
        bits = {bits: error + other.by_bits[bits] for bits, error in self.by_bits.items()}
        return Errors(bits, self.square + other.square)


def round_weight(
    weight: Tensor, weight_format: WeightFormat, importance: Tensor | None = None
) -> Tensor:
    """Return the weight, [N, K], rounded to nearest, in float32."""
    rounded = rtn.quantize(weight, weight_format, importance)
    return rounded.dequantize()


def errors_of(
    weight: Tensor, formats: Mapping[int, WeightFormat], importance: Tensor | None = None
) -> Errors:
    """Return the squared errors of a weight, or of some of its rows, at each width.

    importance: [K], how much the error of each input counts; all alike if None.
    """
    weight = weight.float()
    scale = torch.ones(weight.shape[1], device=weight.device) if importance is None else importance

    def square(numbers: Tensor) -> float:
        return float((numbers.square().sum(0).double() * scale).sum())

    return Errors(
        {
            bits: square(weight - round_weight(weight, weight_format, importance))
            for bits, weight_format in formats.items()
        },
        square(weight),
    )
