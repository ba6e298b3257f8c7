"""Round to nearest, with a search for each group's clip that minimises the squared error.

A group's scale is what its extreme weights need, times a clip. Clipping the few extremes makes the
steps finer for all others; the search takes the clip of least squared error, group by group.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from calculator.formats import WeightFormat
from glm4q.packing import middle

CLIPS = tuple(1 - step / 40 for step in range(21))
"""1.0 down to 0.5: on bell-shaped groups the best 4-bit clip lies around 0.8 to 0.9."""

TILE_NUMBERS = 1 << 17
"""Weights searched at once: a tile and its trial copies stay in a core's cache (4 times faster)."""

SMALLEST_SCALE = 2.0**-24
"""The least float16 above zero: an all-zero group keeps a scale that readers can divide by."""
LARGEST_SCALE = 65_504.0


@dataclass(frozen=True)
class Codes:
    """What a method found for N rows of K weights."""

    codes: Tensor
    """uint8 [N, K], 0 to 2**bits - 1."""
    scales: Tensor
    """float16 [N, groups]."""
    zero_points: Tensor
    """uint8 [N, groups], 1 to 2**bits - 1."""


def quantize(weight: Tensor, form: WeightFormat) -> Codes:
    """Codes of the rows of `weight`, [N, K], any float dtype; the group size divides K."""
    rows = max(TILE_NUMBERS // weight.shape[1], 1)
    tiles = [_quantize_tile(tile, form) for tile in weight.split(rows)]
    codes, scales, zero_points = (torch.cat(parts) for parts in zip(*tiles, strict=True))
    return Codes(codes, scales, zero_points)


def _quantize_tile(weight: Tensor, form: WeightFormat) -> tuple[Tensor, Tensor, Tensor]:
    groups = weight.float().unflatten(-1, (form.groups(weight.shape[-1]), -1))  # [N, G, K / G]
    best_scale, best_zero = _grid(groups, form, 1.0)
    best_error = torch.full_like(best_scale, torch.inf)
    for clip in CLIPS:
        scale, zero = _grid(groups, form, clip)
        error = (_round_trip(groups, scale, zero, form.bits) - groups).square_().sum(-1)
        better = error < best_error
        best_error = torch.where(better, error, best_error)
        best_scale = torch.where(better, scale, best_scale)
        best_zero = torch.where(better, zero, best_zero)
    codes = _codes(groups, best_scale, best_zero, form.bits).flatten(-2)
    return codes.byte(), best_scale.half(), best_zero.byte()


def _grid(groups: Tensor, form: WeightFormat, clip: float) -> tuple[Tensor, Tensor]:
    """Scale (exact in float16) and zero point of each group, [N, G]."""
    largest_code = 2**form.bits - 1
    if form.symmetric:
        zero = torch.full(groups.shape[:-1], float(middle(form.bits)))
        # Codes reach from -middle to middle - 1; the nearer end sets the step.
        return _half(groups.abs().amax(-1) * clip / (middle(form.bits) - 1)), zero
    high = groups.amax(-1).clamp(min=0) * clip
    # v1 files store the zero point less one, and readers disagree on how 0 wraps: so it is 1 or
    # more, which takes a grid that reaches at least one step below zero.
    low = torch.minimum(groups.amin(-1) * clip, -high / (largest_code - 1))
    scale = _half((high - low) / largest_code)
    return scale, (-low / scale).round().clamp(1, largest_code)


def _half(scale: Tensor) -> Tensor:
    return scale.clamp(SMALLEST_SCALE, LARGEST_SCALE).half().float()


def _codes(groups: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    codes = (groups / scale.unsqueeze(-1)).round_() + zero.unsqueeze(-1)
    return codes.clamp_(0, 2**bits - 1)


def _round_trip(groups: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    codes = _codes(groups, scale, zero, bits)
    return codes.sub_(zero.unsqueeze(-1)).mul_(scale.unsqueeze(-1))
