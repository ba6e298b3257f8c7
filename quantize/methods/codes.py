"""Codes, scales and zero points as a method chooses them, and the grids that they lie on."""

from dataclasses import dataclass

import torch
from torch import Tensor

from calculator.model.formats import WeightFormat
from glm4q.weights.packing import WORD_BITS, middle, pack, unpack

SMALLEST_SCALE = 2.0**-24
"""The smallest float16 above zero: a group of zeros keeps a scale that readers can divide by."""
LARGEST_SCALE = 65_504.0


@dataclass(frozen=True)
class Codes:
    """The codes, scales and zero points that a method chose for N rows of K weights."""

    codes: Tensor
    """uint8 [N, K], 0 to 2**bits - 1."""
    scales: Tensor
    """float16 [N, groups]."""
    zero_points: Tensor
    """uint8 [N, groups], 1 to 2**bits - 1."""

    def dequantize(self) -> Tensor:
        """float32 [N, K]: (code - zero_point) * scale."""
        grouped = self.codes.float().unflatten(-1, (self.scales.shape[-1], -1))
        grouped -= self.zero_points.float().unsqueeze(-1)
        return (grouped * self.scales.float().unsqueeze(-1)).flatten(-2)


@dataclass(frozen=True)
class Packed:
    """Codes in GPTQ's layout: N rows of weights are N columns."""

    qweight: Tensor
    """int32 [K * bits / 32, N]."""
    scales: Tensor
    """float16 [groups, N]."""
    zero_points: Tensor
    """uint8 [groups, N]."""

    @classmethod
    def empty(cls, shape: tuple[int, ...], weight_format: WeightFormat) -> "Packed":
        """Return uninitialized tensors for a weight of this shape, [N, K]."""
        rows, inputs = shape
        grid = weight_format.groups(inputs), rows
        return cls(
            torch.empty(inputs * weight_format.bits // WORD_BITS, rows, dtype=torch.int32),
            torch.empty(grid, dtype=torch.float16),
            torch.empty(grid, dtype=torch.uint8),
        )

    def columns(self, start: int, stop: int) -> "Packed":
        """Rows `start` to `stop` of the weight; shares memory."""
        parts = self.qweight, self.scales, self.zero_points
        return Packed(*(part[:, start:stop] for part in parts))

    def fill(self, codes: Codes, bits: int) -> None:
        """Copy codes that lie row by row."""
        self.qweight.copy_(pack(codes.codes.T, bits))
        self.scales.copy_(codes.scales.T)
        self.zero_points.copy_(codes.zero_points.T)

    def codes(self, bits: int) -> Codes:
        """Return the codes row by row."""
        codes = as_bytes(unpack(self.qweight, bits)).T.contiguous()
        return Codes(codes, self.scales.T.contiguous(), self.zero_points.T.contiguous())


def join(parts: list[Codes]) -> Codes:
    """Concatenate codes of consecutive rows."""
    return Codes(
        torch.cat([part.codes for part in parts]),
        torch.cat([part.scales for part in parts]),
        torch.cat([part.zero_points for part in parts]),
    )


def split(codes: Codes, rows: list[int]) -> list[Codes]:
    """The inverse of `join`."""
    parts = (each.split(rows) for each in (codes.codes, codes.scales, codes.zero_points))
    return [Codes(*part) for part in zip(*parts, strict=True)]


def grid(
    low: Tensor, high: Tensor, weight_format: WeightFormat, clip: float
) -> tuple[Tensor, Tensor]:
    """Scale (exact in float16) and zero point of groups whose least and largest weights these are.

    A group's scale is what its extreme weights need, times a clip. float32, of their shape. The
    scale of a symmetric 4-bit grid has a sign: its codes reach from -8 to 7, and the sign puts the
    weight of largest magnitude on the longer side, as llama.cpp's Q4_0 does
    (https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-quants.c). Of 255 steps, one
    more is not worth that a weight of the other sign may be cut off.
    """
    largest_code = 2**weight_format.bits - 1
    if weight_format.symmetric:
        zero = torch.full_like(low, float(middle(weight_format.bits)))
        if weight_format.bits == 4:
            furthest = torch.where(high > -low, high, low)
            return half(-furthest * clip / middle(4)), zero
        return half(torch.maximum(high, -low) * clip / (middle(weight_format.bits) - 1)), zero
    high = high.clamp(min=0) * clip
    # v1 files store the zero point less one, and readers disagree on how 0 wraps: so it is 1 or
    # more, which takes a grid that reaches at least one step below zero.
    low = torch.minimum(low * clip, -high / (largest_code - 1))
    scale = half((high - low) / largest_code)
    return scale, (-low / scale).round().clamp(1, largest_code)


def half(scale: Tensor) -> Tensor:
    """The nearest finite float16 with the sign of `scale`, never 0, in float32."""
    size = scale.abs().clamp(SMALLEST_SCALE, LARGEST_SCALE).half().float()
    return torch.where(scale < 0, -size, size)


def nearest(values: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """Codes, as floats, of the grid points nearest to `values`; shapes broadcast."""
    return (values / scale).round_().add_(zero).clamp_(0, 2**bits - 1)


def as_bytes(codes: Tensor) -> Tensor:
    """Codes of another dtype as uint8: by way of int16, for which torch has vector code."""
    return codes.to(torch.int16).to(torch.uint8)
