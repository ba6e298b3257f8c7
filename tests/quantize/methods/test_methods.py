"""The methods against slow, obvious references in float64."""

import pytest
import torch
from torch import Tensor

from calculator.errors import CheckpointError
from calculator.model.formats import WeightFormat
from quantize.methods import awq, gptq, rtn
from quantize.methods.codes import Codes
from quantize.methods.moments import Moments
from quantize.methods.refine import refine

pytestmark = pytest.mark.usefixtures("loops")
ROWS, INPUTS, TOKENS = 24, 96, 400
FORMATS = [
    WeightFormat(4, 32),
    WeightFormat(4, 32, zero_bits=4),
    WeightFormat(4, None),
    WeightFormat(8, 32),
]


@pytest.fixture
def weight() -> Tensor:
    return torch.randn(ROWS, INPUTS)


@pytest.fixture
def inputs() -> Tensor:
    """Correlated inputs of very different sizes, as activations are."""
    mixed = torch.randn(TOKENS, INPUTS) @ torch.randn(INPUTS, INPUTS)
    return mixed * torch.rand(INPUTS).mul(3).exp()


def error(weight: Tensor, found: Codes, x: Tensor) -> float:
    """The squared error of the output, summed over rows and tokens."""
    change = weight.double() - found.dequantize().double()
    return float((x.double() @ change.T).square().sum())


def one_by_one(weight: Tensor, grid: Codes, hessian: Tensor, bits: int) -> Tensor:
    """GPTQ as its paper derives it: round the input of the largest Hessian entry that is left, let
    the optimal change of all that are left make up for it, drop it from the Hessian."""
    left = weight.double().clone()
    codes = torch.zeros_like(left)
    group_size = INPUTS // grid.scales.shape[1]
    order = hessian.diagonal().argsort(descending=True).tolist()
    for step, column in enumerate(order):
        rest = order[step:]
        inverse = torch.linalg.inv(hessian[rest][:, rest].double())
        scale = grid.scales[:, column // group_size].double()
        zero = grid.zero_points[:, column // group_size].double()
        code = (left[:, column] / scale).round().add(zero).clamp(0, 2**bits - 1)
        codes[:, column] = code
        wrong = (left[:, column] - (code - zero) * scale) / inverse[0, 0]
        left[:, rest] -= wrong[:, None] * inverse[0]
    return codes


@pytest.mark.parametrize("weight_format", FORMATS, ids=str)
def test_gptq_rounds_as_the_paper_derives(
    weight_format: WeightFormat, weight: Tensor, inputs: Tensor
) -> None:
    hessian = inputs.T @ inputs
    factors = gptq.factor(hessian)
    start = rtn.quantize(weight, weight_format, importance=hessian.diagonal())
    found, slope = gptq.compensate(weight, start, factors, weight_format.bits)
    expected = one_by_one(weight, start, factors.damped, weight_format.bits)
    # A number that lies between two codes may fall either way in float32.
    assert (found.codes.double() != expected).double().mean() < 0.02
    change = weight.double() - found.dequantize().double()
    exact = (change @ factors.damped.double()).float()
    # Where the CPU multiplies bfloat16, each product is exact to a part in 500.
    torch.testing.assert_close(slope, exact, rtol=1e-2, atol=1e-2 * float(exact.abs().max()))


@pytest.mark.parametrize("weight_format", FORMATS, ids=str)
def test_each_step_lowers_the_output_error(
    weight_format: WeightFormat, weight: Tensor, inputs: Tensor
) -> None:
    hessian = inputs.T @ inputs
    factors = gptq.factor(hessian)
    plain = rtn.quantize(weight, weight_format)
    start = rtn.quantize(weight, weight_format, importance=hessian.diagonal())
    compensated, slope = gptq.compensate(weight, start, factors, weight_format.bits)
    refined = refine(compensated, slope, factors.damped, weight_format.bits)
    errors = [error(weight, each, inputs) for each in (plain, start, compensated, refined)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


def test_refined_codes_cannot_be_bettered_one_at_a_time(weight: Tensor, inputs: Tensor) -> None:
    hessian = inputs.T @ inputs
    start = rtn.quantize(weight, FORMATS[0])
    slope = (weight - start.dequantize()) @ hessian
    found = refine(start, slope, hessian, 4, sweeps=60)
    best = error(weight, found, inputs)
    for _ in range(200):
        row, column = int(torch.randint(ROWS, ())), int(torch.randint(INPUTS, ()))
        for step in (-1, 1):
            codes = found.codes.clone()
            code = int(codes[row, column]) + step
            if 0 <= code <= 15:
                codes[row, column] = code
                moved = Codes(codes, found.scales, found.zero_points)
                assert error(weight, moved, inputs) > best * (1 - 1e-5)


def test_gptq_takes_inputs_that_never_speak(weight: Tensor, inputs: Tensor) -> None:
    """A dead input, and one that repeats another: the Hessian itself cannot be factored."""
    inputs[:, 5], inputs[:, 7] = 0, inputs[:, 6]
    found = gptq.quantize(weight, inputs.T @ inputs, FORMATS[0])
    assert error(weight, found, inputs) < error(weight, rtn.quantize(weight, FORMATS[0]), inputs)


def test_hessian_of_silence_is_refused(weight: Tensor) -> None:
    with pytest.raises(CheckpointError, match="cannot be factored"):
        gptq.quantize(weight, torch.zeros(INPUTS, INPUTS), FORMATS[0])


def test_awq_keeps_the_function_and_lowers_the_error(weight: Tensor, inputs: Tensor) -> None:
    norm = torch.rand(INPUTS) + 0.5
    hessian = inputs.T @ inputs
    scales = awq.find_scales([(weight, FORMATS[0])], hessian, norm)
    assert scales is not None
    folded = norm / scales
    before, after = (
        (inputs / norm) * norm @ weight.T,
        (inputs / norm) * folded @ (weight * scales).T,
    )
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-2)
    found = rtn.quantize(weight * scales, FORMATS[0], hessian.diagonal() / scales.square())
    change = weight - found.dequantize() / scales
    scaled = float((inputs @ change.T).square().sum())
    assert scaled < error(weight, rtn.quantize(weight, FORMATS[0], hessian.diagonal()), inputs)


@pytest.mark.parametrize("outputs", [ROWS, INPUTS + 40], ids=["few rows", "many rows"])
@pytest.mark.parametrize("one_weight", [False, True])
def test_target_is_the_ridge_regression_that_it_says(
    outputs: int, one_weight: bool, inputs: Tensor
) -> None:
    weight = torch.randn(outputs, INPUTS)
    source, quantized = inputs, inputs + 0.3 * torch.randn_like(inputs)
    ahead = torch.randn(TOKENS, outputs) if one_weight else torch.zeros(TOKENS, outputs)
    lack = (source - quantized) @ weight.T + ahead
    sums = Moments.zeros(INPUTS, outputs if one_weight else None, torch.device("cpu"))
    for part in range(0, TOKENS, 100):  # in batches
        batch = slice(part, part + 100)
        sums.add(source[batch], quantized[batch], lack[batch] if one_weight else None)
    g, wanted = quantized.double(), source.double() @ weight.T.double() + ahead.double()
    ridge, trust = 0.02, 0.75
    damp = ridge * (g.T @ g).diagonal().mean()
    # The ridge of what is missing, as least squares over rows of zeros and of sqrt(damp).
    missing = torch.cat([wanted - g @ weight.T.double(), torch.zeros(INPUTS, outputs).double()])
    rows = torch.cat([g, damp.sqrt() * torch.eye(INPUTS).double()])
    change = torch.linalg.lstsq(rows, missing).solution.T
    expected = weight + trust * change
    target = sums.target(weight, ridge=ridge, trust=trust)
    torch.testing.assert_close(target, expected.float(), rtol=1e-2, atol=1e-3)


def test_errors_are_those_of_the_outputs(weight: Tensor, inputs: Tensor) -> None:
    quantized = inputs + 0.3 * torch.randn_like(inputs)
    sums = Moments.zeros(INPUTS, None, torch.device("cpu"))
    sums.add(inputs, quantized)
    found = [
        rtn.quantize(weight, weight_format).dequantize()
        for weight_format in (FORMATS[0], FORMATS[3])
    ]
    g = quantized.double()
    truth = inputs.double() @ weight.T.double()
    sizes = [float((truth - g @ each.T.double()).square().sum()) for each in found]
    difference = sums.error(weight, found[0]) - sums.error(weight, found[1])
    assert difference == pytest.approx(sizes[0] - sizes[1], rel=1e-2)
    relative = float(
        (g @ (weight - found[0]).T.double()).square().sum() / (g @ weight.T.double()).square().sum()
    )
    assert sums.relative_error(weight, found[0]) == pytest.approx(relative, rel=1e-2)
