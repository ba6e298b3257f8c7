"""The methods' loops in C++ against those of torch, on every instruction set that runs here."""

import pytest
import torch
from torch import Tensor

from calculator.model.formats import WeightFormat
from quantize.methods import gptq, native, refine, rtn
from quantize.methods.blocks import by_torch
from quantize.methods.codes import Codes, Packed
from quantize.methods.operands import Compensation, Descent
from tests.instruction_sets import NAMES, require

pytestmark = pytest.mark.usefixtures("several_threads")
FORMATS = [
    WeightFormat(bits, group, zero_bits)
    for bits in (4, 8)
    for group in (32, 48, None)
    for zero_bits in (0, bits)
]
ROWS, INPUTS = 21, 288
"""No whole vectors of rows."""


@pytest.fixture(autouse=True, params=NAMES)
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(native, "INSTRUCTION_SET", require(request.param))
    return str(request.param)


def rounded_by_torch(
    weight: Tensor, weight_format: WeightFormat, importance: Tensor | None
) -> Codes:
    return rtn._quantize_tile(weight, weight_format, importance)


@pytest.mark.parametrize("weight_format", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("weighed", [False, True])
def test_rounding_is_that_of_torch(
    weight_format: WeightFormat, dtype: torch.dtype, weighed: bool
) -> None:
    weight = torch.randn(ROWS, INPUTS).mul_(0.02).to(dtype)
    importance = torch.rand(INPUTS) if weighed else None
    found, expected = (
        rtn.quantize(weight, weight_format, importance),
        rounded_by_torch(weight, weight_format, importance),
    )
    # Sums in another order may round a scale the other way, and a code that lies between two.
    assert (found.scales != expected.scales).float().mean() < 0.02
    assert (found.codes != expected.codes).float().mean() < 0.002
    weights = torch.ones(INPUTS) if importance is None else importance
    errors = [
        ((codes.dequantize() - weight.float()).square() * weights).sum()
        for codes in (found, expected)
    ]
    torch.testing.assert_close(*errors, rtol=1e-5, atol=0)


@pytest.mark.parametrize("weight_format", FORMATS, ids=str)
def test_every_instruction_set_rounds_alike(
    weight_format: WeightFormat, instruction_set: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = torch.randn(ROWS, INPUTS)
    found = rtn.quantize(weight, weight_format)
    monkeypatch.setattr(native, "INSTRUCTION_SET", "scalar")
    expected = rtn.quantize(weight, weight_format)
    assert torch.equal(found.codes, expected.codes)
    assert torch.equal(found.scales, expected.scales)
    assert torch.equal(found.zero_points, expected.zero_points)


def test_rounding_writes_the_columns_it_is_given_and_no_others() -> None:
    weight_format, weight = WeightFormat(4, 32), torch.randn(ROWS, INPUTS)
    packed = Packed.empty((ROWS + 10, INPUTS), weight_format)
    for part in (packed.qweight, packed.scales, packed.zero_points):
        part.fill_(7)
    rtn.quantize_into(packed.columns(5, 5 + ROWS), weight, weight_format)
    expected = Packed.empty((ROWS, INPUTS), weight_format)
    rtn.quantize_into(expected, weight, weight_format)
    assert torch.equal(packed.columns(5, 5 + ROWS).qweight, expected.qweight)
    assert torch.equal(packed.columns(5, 5 + ROWS).scales, expected.scales)
    for columns in (packed.columns(0, 5), packed.columns(5 + ROWS, 10 + ROWS)):
        assert all((part == 7).all() for part in (columns.qweight, columns.scales))


@pytest.mark.parametrize("weight_format", FORMATS, ids=str)
def test_a_block_of_gptq_is_that_of_torch(weight_format: WeightFormat) -> None:
    weight, x = torch.randn(ROWS, INPUTS), torch.randn(600, INPUTS)
    factors = gptq.factor(x.T @ x)
    order = factors.order
    group = order.div(INPUTS // weight_format.groups(INPUTS), rounding_mode="floor").int()
    start = rounded_by_torch(weight, weight_format, None)
    found = [Codes(torch.zeros_like(start.codes), start.scales, start.zero_points) for _ in "ab"]
    rows = weight[:, order].contiguous()
    left = [rows + 0.01 * rows.flip(0) for _ in found]
    blocks = native.compensate, by_torch.compensate
    errors = [
        block(Compensation(rows, each, factors.root, group, codes, weight_format.bits), 64, 128)
        for block, each, codes in zip(blocks, left, found, strict=True)
    ]
    same = found[0].codes == found[1].codes
    assert same.float().mean() > 0.999
    whole = same.all(-1)  # one code more makes all that come after it others
    for ours, theirs in (errors, left):
        torch.testing.assert_close(ours[whole], theirs[whole], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rescales", [False, True])
@pytest.mark.parametrize("weight_format", FORMATS, ids=str)
def test_a_block_of_the_descent_is_that_of_torch(
    weight_format: WeightFormat, rescales: bool
) -> None:
    weight, x = torch.randn(ROWS, INPUTS), torch.randn(600, INPUTS)
    hessian, size = x.T @ x, min(weight_format.group_size or INPUTS, refine.LONGEST_BLOCK)
    start = rounded_by_torch(weight, weight_format, None)
    groups = start.scales.shape[1]
    zeros = start.zero_points.float().repeat_interleave(INPUTS // groups, -1)
    slope = (weight - start.dequantize()) @ hessian
    rescales = rescales and size == INPUTS // groups
    ran = []
    for block in (native.descend, by_torch.descend):
        centered, scales = start.codes - zeros, start.scales.float()
        tensors = centered, scales, start.zero_points, slope, hessian
        change = block(Descent(*tensors, weight_format.bits), size, 2 * size, rescales=rescales)
        ran.append((centered, scales, change))
    (ours, our_scales, our_change), (theirs, their_scales, their_change) = ran
    same = (ours == theirs).all(-1)
    assert same.float().mean() > 0.9
    torch.testing.assert_close(our_scales, their_scales, rtol=2**-10, atol=0)
    torch.testing.assert_close(our_change[same], their_change[same], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("first", "last"), [(0, 300), (3, 295), (260, 300)])
def test_few_changes_are_subtracted_as_a_product(first: int, last: int) -> None:
    change = torch.randn(ROWS, 40) * (torch.rand(ROWS, 40) < 0.05)
    change[3] = 0
    matrix, out = torch.randn(40, 300), torch.randn(ROWS, 300)
    expected = out.double()
    expected[:, first:last] -= (change.double() @ matrix.double())[:, first:last]
    native.subtract(out, change, matrix, first, last)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 2, 101, 700])
@pytest.mark.parametrize(("left", "right"), [(1, 1), (47, 100), (100, 49)])
def test_sums_over_tokens(left: int, right: int, tokens: int) -> None:
    f, g = torch.randn(tokens, left).bfloat16(), torch.randn(tokens, right).bfloat16()
    cross, gram = torch.randn(left, right), torch.zeros(right, right)
    expected = cross.double() + f.double().T @ g.double()
    native.gram(f, g, cross)
    native.gram(g, g, gram)
    torch.testing.assert_close(cross.double(), expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(gram.double(), g.double().T @ g.double(), rtol=1e-4, atol=1e-3)
    assert torch.equal(gram, gram.T)


def test_sums_may_be_columns_of_others() -> None:
    f, g, out = torch.randn(8, 30).bfloat16(), torch.randn(8, 49).bfloat16(), torch.zeros(30, 80)
    native.gram(f, g, out[:, 20:69])
    torch.testing.assert_close(out[:, 20:69], f.float().T @ g.float(), rtol=1e-4, atol=1e-3)
    assert not out[:, :20].any()
    assert not out[:, 69:].any()
