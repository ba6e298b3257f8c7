"""Rows of a head that make up for each other's errors."""

import pytest
import torch
from torch import Tensor

from quantize.methods import gptq, heads
from quantize.methods.codes import Codes
from tests.quantize.calibrated import INT4

HEADS, SIZE, INPUTS = 3, 80, 64  # in steps of two rows


@pytest.fixture
def weight() -> Tensor:
    return torch.randn(HEADS * SIZE, INPUTS, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def factors() -> gptq.Factors:
    x = torch.randn(500, INPUTS, generator=torch.Generator().manual_seed(1))
    return gptq.factor((x * torch.linspace(0.3, 2, INPUTS)).T @ x)


def cost(codes: Codes, weight: Tensor, errors: Tensor, factors: gptq.Factors) -> float:
    """tr(S E H E^T), summed over heads."""
    wrong = (weight - codes.dequantize()).view(HEADS, SIZE, INPUTS)
    return float((errors @ wrong * (wrong @ factors.damped)).sum())


def test_errors_that_undo_each_other_cost_less(weight: Tensor, factors: gptq.Factors) -> None:
    generator = torch.Generator().manual_seed(2)
    g = torch.randn(HEADS, 900, 8, generator=generator)  # eight of eighty directions count
    g = g @ torch.randn(HEADS, 8, SIZE, generator=generator)
    errors = g.mT @ g
    alone = gptq.quantize_rows(weight, factors, INT4)
    together = heads.quantize(weight, errors, factors, INT4)
    assert cost(together, weight, errors, factors) < 0.4 * cost(alone, weight, errors, factors)


@pytest.mark.parametrize("size", [0.0, 1.0])
@pytest.mark.parametrize("steps", [32, 11])  # of two rows, and of seven, the last of three
def test_rows_that_cannot_make_up_for_each_other_are_rounded_by_themselves(
    size: float,
    steps: int,
    weight: Tensor,
    factors: gptq.Factors,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heads, "STEPS", steps)
    counts = torch.rand(HEADS, SIZE, generator=torch.Generator().manual_seed(3))  # rows go by these
    codes = heads.quantize(weight, size * torch.diag_embed(counts), factors, INT4)
    expected = gptq.quantize_rows(weight, factors, INT4)
    assert torch.equal(codes.codes, expected.codes)
    assert torch.equal(codes.scales, expected.scales)
    assert torch.equal(codes.zero_points, expected.zero_points)
