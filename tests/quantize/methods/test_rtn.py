"""Round to nearest: the codes by formula, and a clip search that never makes it worse."""

import pytest
import torch

from calculator.model.formats import WeightFormat
from quantize.methods import rtn

pytestmark = pytest.mark.usefixtures("loops")
FORMATS = [
    WeightFormat(bits, group, zero_bits)
    for bits in (4, 8)
    for group in (32, 64, None)
    for zero_bits in (0, bits)
]


def _dequantized(found: rtn.Codes) -> torch.Tensor:
    groups = found.codes.float().unflatten(-1, (found.scales.shape[1], -1))
    centered = groups - found.zero_points.float().unsqueeze(-1)
    return (centered * found.scales.float().unsqueeze(-1)).flatten(-2)


def _without_search(weight: torch.Tensor, weight_format: WeightFormat) -> torch.Tensor:
    """The textbook's round to nearest: symmetric scales from the largest magnitude."""
    groups = weight.double().unflatten(-1, (weight_format.groups(weight.shape[1]), -1))
    scale = groups.abs().amax(-1, keepdim=True) / (2 ** (weight_format.bits - 1) - 1)
    return ((groups / scale).round() * scale).flatten(-2)


@pytest.mark.parametrize("weight_format", FORMATS, ids=str)
def test_codes_are_the_nearest_on_their_grid(weight_format: WeightFormat) -> None:
    weight = torch.randn(48, 192)
    found = rtn.quantize(weight, weight_format)
    scale = found.scales.float().repeat_interleave(192 // found.scales.shape[1], dim=1)
    zero = found.zero_points.float().repeat_interleave(192 // found.scales.shape[1], dim=1)
    grid = torch.arange(2**weight_format.bits).float()
    distances = ((grid - zero.unsqueeze(-1)) * scale.unsqueeze(-1) - weight.unsqueeze(-1)).abs()
    error = (_dequantized(found) - weight).abs()
    torch.testing.assert_close(error, distances.amin(-1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("bits", [4, 8])
def test_clip_search_beats_plain_rounding(bits: int) -> None:
    weight = torch.randn(64, 256) + (torch.rand(64, 256) > 0.99) * 4  # a few outliers
    weight_format = WeightFormat(bits, 64)
    searched = (_dequantized(rtn.quantize(weight, weight_format)) - weight).square().sum()
    plain = (_without_search(weight, weight_format) - weight).square().sum()
    assert searched < plain * (0.95 if bits == 4 else 1.001)


def test_search_does_not_depend_on_how_rows_are_tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, weight_format = torch.randn(50, 128), WeightFormat(4, 32)
    whole = rtn.quantize(weight, weight_format)
    monkeypatch.setattr(rtn, "TILE_NUMBERS", 3 * 128)
    tiled = rtn.quantize(weight, weight_format)
    assert torch.equal(whole.codes, tiled.codes)
    assert torch.equal(whole.scales, tiled.scales)


@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_signed_scales_use_the_longer_side(group_size: int) -> None:
    """Against the best of 40 positive scales for each group: more than any search tries."""
    groups = torch.randn(4096, group_size).double()
    errors = []
    for clip in torch.linspace(0.6, 1.05, 40).double():
        scale = groups.abs().amax(-1, keepdim=True) * clip / 7
        codes = (groups / scale).round().clamp(-8, 7)
        errors.append((codes * scale - groups).square().sum(-1))
    positive = torch.stack(errors).amin(0).sum()
    found = rtn.quantize(groups.float(), WeightFormat(4, group_size))
    signed = (found.dequantize() - groups).square().sum()
    assert signed < 0.95 * positive
    negative = (found.scales < 0).float().mean()
    assert 0.4 < negative < 0.6  # as often as the largest weight is positive


@pytest.mark.parametrize("weight_format", FORMATS, ids=str)
@pytest.mark.parametrize("fill", [0.0, 1e-30, 3.0, -3.0, 3e38])
def test_constant_groups_keep_finite_scales_that_are_not_zero(
    weight_format: WeightFormat, fill: float
) -> None:
    found = rtn.quantize(
        torch.full((8, 64), fill), WeightFormat(weight_format.bits, 32, weight_format.zero_bits)
    )
    assert found.scales.isfinite().all()
    assert (found.scales != 0).all()
    assert (found.zero_points >= 1).all()
    if abs(fill) == 3.0:
        error = (_dequantized(found) - fill).abs().max()
        assert error < 2e-3 * abs(fill)


def test_asymmetric_follows_a_shifted_group() -> None:
    weight = torch.rand(16, 64) + 1  # between 1 and 2: symmetric codes waste their lower half
    symmetric = _dequantized(rtn.quantize(weight, WeightFormat(4, 32)))
    shifted = _dequantized(rtn.quantize(weight, WeightFormat(4, 32, zero_bits=4)))
    assert (shifted - weight).square().sum() < 0.5 * (symmetric - weight).square().sum()
