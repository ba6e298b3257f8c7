"""Round to nearest, with a search for the scale of each group that changes its weights least.

Clipping a group's few extremes makes the steps finer for all others. From each of a few clips the
weights w are rounded to codes q; the scale that fits these best is (q w) / (q q), and with it the
squared error is w w - (q w)^2 / (q q): so the best of all is known without rounding again.
"""

import torch
from torch import Tensor

from calculator.memory.making import ROWS
from calculator.model.formats import WeightFormat
from glm4q.weights.packing import middle
from quantize.methods import native
from quantize.methods.codes import Codes, Packed, as_bytes, grid, half, join, nearest

CLIPS = {4: (1.0, 0.9, 0.8), 8: (1.0,)}
"""The clips from which the search starts, by bits. 4-bit groups with a normal distribution are best
clipped at 0.8 to 1; 8 bits have room for the extremes. Eleven starts leave 2 % less error."""

TILE_NUMBERS = 1 << 19
"""Weights searched at once: a tile and its trial copies stay in a core's cache. A GPU, which is
told of each operation, takes the ROWS that the plan of memory counts."""


def quantize(
    weight: Tensor, weight_format: WeightFormat, importance: Tensor | None = None
) -> Codes:
    """Codes of the rows of `weight`, [N, K], any float dtype; the group size divides K.

    importance: [K], how much a squared error of each input weighs; all alike if None.
    """
    if native.serves(weight):
        packed = Packed.empty(weight.shape, weight_format)
        native.round_rows(weight, weight_format, CLIPS[weight_format.bits], importance, packed)
        return packed.codes(weight_format.bits)
    rows = ROWS if weight.is_cuda else max(TILE_NUMBERS // weight.shape[1], 1)
    return join([_quantize_tile(tile, weight_format, importance) for tile in weight.split(rows)])


def quantize_into(packed: Packed, weight: Tensor, weight_format: WeightFormat) -> None:
    """Quantize as `quantize` does, and write the codes in GPTQ's layout."""
    if native.serves(weight):
        native.round_rows(weight, weight_format, CLIPS[weight_format.bits], None, packed)
    else:
        packed.fill(quantize(weight, weight_format), weight_format.bits)


def _quantize_tile(weight: Tensor, weight_format: WeightFormat, importance: Tensor | None) -> Codes:
    shape = weight_format.groups(weight.shape[1]), -1
    groups = weight.float().unflatten(-1, shape)  # [N, G, K / G]
    weights = None if importance is None else importance.float().unflatten(-1, shape)
    low, high = groups.amin(-1), groups.amax(-1)
    best_scale, best_zero = grid(low, high, weight_format, 1.0)
    best_gain = torch.zeros_like(best_scale)
    for clip in CLIPS[weight_format.bits]:
        scale, zero = grid(low, high, weight_format, clip)
        codes = _centered(groups, scale, zero, weight_format)
        weighted = codes if weights is None else codes * weights
        product, square = (weighted * groups).sum(-1), (weighted * codes).sum(-1)
        gain = product.square() / square  # nan where all codes are 0: never better
        better = gain > best_gain
        best_gain = torch.where(better, gain, best_gain)
        best_scale = torch.where(better, half(product / square), best_scale)
        best_zero = torch.where(better, zero, best_zero)
    codes = nearest(groups, best_scale.unsqueeze(-1), best_zero.unsqueeze(-1), weight_format.bits)
    return Codes(as_bytes(codes.flatten(-2)), best_scale.half(), best_zero.byte())


def _centered(groups: Tensor, scale: Tensor, zero: Tensor, weight_format: WeightFormat) -> Tensor:
    """Codes less zero points, [N, G, K / G], near enough to compare scales by."""
    codes = (groups * scale.reciprocal().unsqueeze(-1)).round_()
    if weight_format.symmetric:  # one bound for all goes faster
        return codes.clamp_(-middle(weight_format.bits), middle(weight_format.bits) - 1)
    zero = zero.unsqueeze(-1)
    return codes.clamp_(-zero, 2**weight_format.bits - 1 - zero)
