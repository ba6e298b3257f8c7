"""Blocks of columns rounded by compiled Triton on the machine, and by torch's loops beside it."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from calculator.model.formats import WeightFormat
from quantize.methods import gptq, refine, rtn
from quantize.methods.blocks import by_torch, by_triton
from quantize.methods.blocks.choose import Blocks
from quantize.methods.codes import Codes
from quantize.methods.operands import Compensation, Descent
from tests.card.triton_driver import played_driver

BEGINS = 64
"""The second block of GPTQ is rounded: what is before it must stay."""
EPSILON = 2.0**-23
TIE = 2.0**-10
"""A number that lies between two codes but for such a part of a step may get either."""


@dataclass(frozen=True)
class BlockCase:
    """Some rows of a weight, and a card."""

    rows: int
    inputs: int
    weight_format: WeightFormat
    capability: int

    def __str__(self) -> str:
        return f"{self.rows} x {self.inputs} {self.weight_format} on {self.capability / 10}"

    @property
    def groups(self) -> int:
        return self.weight_format.groups(self.inputs)

    @cached_property
    def weight(self) -> Tensor:
        return torch.randn(self.rows, self.inputs)

    @cached_property
    def hessian(self) -> Tensor:
        x = torch.randn(self.inputs + 200, self.inputs)
        return x.T @ x

    @cached_property
    def start(self) -> Codes:
        codes = rtn._quantize_tile(self.weight, self.weight_format, None)
        parts = codes.codes, codes.scales, codes.zero_points
        return Codes(*(part.contiguous() for part in parts))

    def compensate(self, blocks: Blocks) -> tuple[Codes, Tensor, Tensor]:
        """The codes, what is left, and the errors."""
        factors = gptq.factor(self.hessian)
        size = self.inputs // self.groups
        group = factors.order.div(size, rounding_mode="floor").int()
        rows = self.weight[:, factors.order].contiguous()
        left = rows + 0.01 * rows.flip(0)
        codes = replace(self.start, codes=torch.full_like(self.start.codes, 3))
        last = min(BEGINS + gptq.BLOCK, self.inputs)
        bits = self.weight_format.bits
        rounding = Compensation(rows, left, factors.root, group, codes, bits)
        errors = blocks.compensate(rounding, BEGINS, last)
        scales = self.start.scales[:, group.long()].float()
        return codes, left / scales, errors

    def descend(self, blocks: Blocks, rescales: bool) -> tuple[Tensor, Tensor, Tensor]:
        """The second block's codes less zero points, scales, and the change."""
        spread = self.start.zero_points.float().repeat_interleave(self.inputs // self.groups, -1)
        centered, scales = self.start.codes - spread, self.start.scales.float()
        zeros, bits, slope = self.start.zero_points, self.weight_format.bits, self.slope.clone()
        descent = Descent(centered, scales, zeros, slope, self.hessian, bits)
        change = blocks.descend(descent, *self.second, rescales=rescales)
        assert torch.equal(slope, self.slope)
        return centered, scales, change

    @property
    def second(self) -> tuple[int, int]:
        """The second block of the descent."""
        size = min(self.inputs // self.groups, refine.LONGEST_BLOCK)
        return size, min(2 * size, self.inputs)

    @cached_property
    def slope(self) -> Tensor:
        return (self.weight - self.start.dequantize()) @ self.hessian

    def gain(self, change: Tensor) -> Tensor:
        """By how much a change of the second block changes e H e^T, of each row."""
        here = slice(*self.second)
        slope, within = self.slope[:, here].double(), self.hessian[here, here].double()
        wide = change.double()
        return (wide * (wide @ within - 2 * slope)).sum(1)


def check_compensation(case: BlockCase, **settings: object) -> None:
    """The codes are torch's but after a tie; so are what is left and the errors."""
    expected, left, errors = case.compensate(by_torch)
    with played_driver(case.capability, **settings) as driver:
        ours, our_left, our_errors = case.compensate(by_triton)
    assert [launched.name for launched in driver.launched] == ["compensate_row"]
    differ = ours.codes != expected.codes
    for row in differ.any(1).nonzero().flatten():
        column = int(differ[row].int().argmax())
        for steps in (left, our_left):
            assert abs(float(steps[row, column].abs()) - 0.5) < TIE
    same = ~differ.any(1)
    assert same.float().mean() > 0.9
    # Sums of as many products as a block has columns, each rounded by either.
    largest = float(case.weight.abs().max())
    allowed = gptq.BLOCK * EPSILON * largest
    torch.testing.assert_close(our_errors[same], errors[same], rtol=0, atol=allowed)
    allowed /= float(case.start.scales.float().abs().min())
    torch.testing.assert_close(our_left[same], left[same], rtol=0, atol=allowed)


def check_descent(case: BlockCase, rescales: bool, **settings: object) -> None:
    """The output error falls by as much as by torch's loop, and nearly all codes are the same."""
    codes, scales, change = case.descend(by_torch, rescales)
    with played_driver(case.capability, **settings) as driver:
        our_codes, our_scales, our_change = case.descend(by_triton, rescales)
    assert [launched.name for launched in driver.launched] == ["descend_row"]
    first, last = case.second
    for untouched in (slice(0, first), slice(last, case.inputs)):
        assert torch.equal(our_codes[:, untouched], codes[:, untouched])
    assert (our_codes == codes).float().mean() > 0.99
    assert rescales or torch.equal(our_scales, scales)
    assert (our_scales == scales).float().mean() > 0.95  # a sum's last bit rounds one otherwise
    torch.testing.assert_close(our_scales, scales, rtol=2**-10, atol=0)
    gain, our_gain = case.gain(change), case.gain(our_change)
    assert (our_gain <= 0).all()
    torch.testing.assert_close(our_gain.sum(), gain.sum(), rtol=1e-4, atol=0)
    # The change is that of codes and scales, whose products are exact.
    group = first // (case.inputs // case.groups)
    before = (case.start.dequantize())[:, first:last]
    after = our_codes[:, first:last] * our_scales[:, group : group + 1]
    torch.testing.assert_close(our_change, after - before, rtol=0, atol=EPSILON * 16)
