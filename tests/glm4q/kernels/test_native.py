"""The native matmul: against float64, and number by number against its own arithmetic in torch."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn.functional import rms_norm

from calculator.model.formats import LLM_INT8, NF4, WeightFormat
from glm4q.kernels.cpu import extension, native
from glm4q.kernels.cpu.native import (
    ACTIVATION_BITS,
    BOOK_STEPS,
    Activations,
    Native,
    chunk_inputs,
)
from glm4q.kernels.cpu.records import LARGEST_INT16, LARGEST_MULTIPLE, SEGMENT
from glm4q.kernels.dense import MOST_DENSE_ROWS
from glm4q.kernels.spec import LinearSpec, multiply
from glm4q.weights.packing import QuantizedWeight, pack
from tests.glm4q.random_weights import BOOK, random_weight
from tests.instruction_sets import NAMES, require

CPU = torch.device("cpu")
FORMATS = [
    WeightFormat(bits, group_size, zero_bits=zero_bits)
    for bits in (4, 8)
    for group_size in (32, 64, 128, None)
    for zero_bits in (0, bits)
] + [NF4, LLM_INT8]
SHAPES = [(1, 48, 256), (2, 72, 384), (5, 1000, 128), (17, 200, 13_696 // 4), (64, 328, 512)]
"""Rows, outputs, inputs. Outputs are ragged, also for vectors; 13,696 inputs are GLM-4's own."""


def _cases() -> Iterator[tuple[int, int, int, WeightFormat]]:
    for rows, outputs, inputs in SHAPES:
        for weight_format in FORMATS:
            if weight_format.group_size is None or inputs % weight_format.group_size == 0:
                yield rows, outputs, inputs, weight_format


def _kernel(instruction_set: str, spec: LinearSpec, activations: Activations = "auto") -> Native:
    kernel = Native(instruction_set, activations)
    if reason := kernel.refuses(spec):
        pytest.skip(f"{kernel.name} {reason}")
    return kernel


def emulate(x: Tensor, weight: QuantizedWeight, bits: int) -> Tensor:
    """The same arithmetic, written out: codes of activations, sums of integers, scales.

    bits: of the activations' codes.
    """
    group = weight.inputs // weight.scales.shape[0]
    if weight.book is None:
        centered = weight.codes().double() - weight.zero_points().repeat_interleave(group, 0)
    else:
        centered = (weight.book.double() * BOOK_STEPS).round()[weight.codes()] / BOOK_STEPS
    out = torch.zeros(len(x), weight.outputs, dtype=torch.float64)
    chunk = chunk_inputs(group)
    segment = min(chunk, SEGMENT) if bits == 8 else chunk
    for start in range(0, weight.inputs, segment):
        piece = x[:, start : start + segment].float()
        largest = piece.abs().amax(1, keepdim=True)
        if bits == 8:
            begin = start // chunk * chunk
            of_chunk = x[:, begin : begin + chunk].float().abs().amax(1, keepdim=True)
            unit = of_chunk / (127 * LARGEST_MULTIPLE)
            scale = (largest / of_chunk * LARGEST_MULTIPLE).ceil().clamp(1) * unit
            codes = (piece * scale.reciprocal()).round()
        else:
            scale = largest / LARGEST_INT16
            codes = (piece * torch.full_like(largest, LARGEST_INT16).div(largest)).round()
        sums = codes.double() @ centered[start : start + segment]
        out += sums * (weight.scales[start // group].float() * scale).double()
    return out


@pytest.mark.parametrize("case", list(_cases()), ids=str)
@pytest.mark.parametrize("activations", ["int8", "int16"])
@pytest.mark.parametrize("instruction_set", NAMES)
def test_every_instruction_set_does_the_arithmetic_that_is_written_out(
    instruction_set: str, activations: Activations, case: tuple[int, int, int, WeightFormat]
) -> None:
    rows, outputs, inputs, weight_format = case
    spec = LinearSpec(outputs, inputs, weight_format, CPU)
    kernel = _kernel(instruction_set, spec, activations)
    weight = random_weight(outputs, inputs, weight_format)
    x = torch.randn(rows, inputs)
    y = multiply(kernel, spec, kernel.pack(weight), x)
    expected = emulate(x, weight, ACTIVATION_BITS[activations])
    spread = expected.square().mean().sqrt()
    assert (y - expected).abs().max() < 2e-6 * inputs**0.5 * spread


@pytest.mark.parametrize("code", [0, 15])
@pytest.mark.parametrize("instruction_set", NAMES)
def test_the_largest_sums_do_not_overflow(instruction_set: str, code: int) -> None:
    """All activations and all codes are the largest, so sums of 16 and of 32 bits are, too."""
    spec = LinearSpec(40, 256, WeightFormat(4, 128, zero_bits=4), CPU)
    kernel = _kernel(instruction_set, spec)
    codes = torch.full((256, 40), code, dtype=torch.int32)
    zeros = pack(torch.full((40, 2), 15 - code, dtype=torch.int32), 4).T.contiguous()
    weight = QuantizedWeight(4, pack(codes, 4), torch.ones(2, 40).half(), zeros)
    x = torch.ones(9, 256)
    x[::2] = -3
    y = multiply(kernel, spec, kernel.pack(weight), x)
    expected = (2 * code - 15) * x.sum(1, keepdim=True).expand(9, 40)
    assert torch.allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize("instruction_set", NAMES)
def test_segments_of_unlike_sizes_are_rounded_by_their_own_steps(instruction_set: str) -> None:
    """Steps are those of a segment's largest number, or of the chunk's if that is far larger."""
    spec = LinearSpec(48, 256, WeightFormat(4, 128), CPU)
    kernel, weight = _kernel(instruction_set, spec), random_weight(48, 256, spec.weight_format)
    packed, exact = kernel.pack(weight), weight.dequantize().double()
    sizes = torch.tensor([1, 1e-1, 1e-2, 1e-3, 3e-4, 1e-4, 1e-6, 0]).repeat_interleave(SEGMENT)
    x = torch.randn(5, 256) * sizes
    y = multiply(kernel, spec, packed, x)
    assert (y - emulate(x, weight, 8)).abs().max() < 1e-5 * y.abs().max()
    largest = x.view(5, 2, -1, SEGMENT).abs().amax(3)
    steps = (largest + largest.amax(2, keepdim=True) / LARGEST_MULTIPLE) / 127
    bound = (steps.flatten(1) / 2 * (1 + 1e-4)).repeat_interleave(SEGMENT, 1).double() @ exact.abs()
    assert ((y - x.double() @ exact).abs() <= bound).all()


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("instruction_set", NAMES)
def test_bfloat16_is_the_float32_result_rounded(instruction_set: str, bits: int) -> None:
    spec = LinearSpec(72, 256, WeightFormat(bits, 64), CPU)
    kernel = _kernel(instruction_set, spec)
    packed = kernel.pack(random_weight(72, 256, spec.weight_format))
    x = torch.randn(3, 256).bfloat16()
    wide = multiply(kernel, spec, packed, x.float())
    assert torch.equal(multiply(kernel, spec, packed, x), wide.bfloat16())


@pytest.mark.parametrize("rows", [*range(1, 18), 64, 700])
@pytest.mark.parametrize("bits", [4, 8])
def test_activations_cost_little_precision(bits: int, rows: int) -> None:
    """Codes of 8 bits of normal numbers, whose largest of 32 is about 2: steps of 0.016."""
    spec = LinearSpec(208, 1024, WeightFormat(bits, 128), CPU)
    kernel, weight = _kernel("auto", spec), random_weight(208, 1024, spec.weight_format)
    x = torch.randn(rows, 1024)
    exact = x.double() @ weight.dequantize().double()
    wrong = multiply(kernel, spec, kernel.pack(weight), x) - exact
    assert wrong.square().mean() < 0.01**2 * exact.square().mean()


@pytest.mark.parametrize("rows", [1, 9, 40])
def test_any_number_of_threads_makes_the_same_bits(rows: int) -> None:
    spec = LinearSpec(3000, 256, WeightFormat(4, 64), CPU)
    kernel = _kernel("auto", spec)
    packed = kernel.pack(random_weight(3000, 256, spec.weight_format))
    x, before = torch.randn(rows, 256), torch.get_num_threads()
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        results += [multiply(kernel, spec, packed, x) for _ in range(20)]
    torch.set_num_threads(before)
    assert all(torch.equal(result, results[0]) for result in results)


@pytest.mark.parametrize("instruction_set", NAMES)
def test_zeros_stay_zero_and_what_is_no_number_is_not_hidden(instruction_set: str) -> None:
    spec = LinearSpec(40, 128, WeightFormat(4, 64), CPU)
    kernel = _kernel(instruction_set, spec)
    packed = kernel.pack(random_weight(40, 128, spec.weight_format))
    x = torch.zeros(2, 128)
    x[1, 70] = torch.nan
    y = multiply(kernel, spec, packed, x)
    assert torch.equal(y[0], torch.zeros(40))
    assert y[1].isnan().all()


def test_nothing_is_written_beyond_the_scratch_and_the_output() -> None:
    spec = LinearSpec(72, 384, WeightFormat(4, 128), CPU)
    kernel, weight = _kernel("auto", spec), random_weight(72, 384, spec.weight_format)
    x = torch.randn(7, 384)
    size = kernel.needs(spec, 7, 4).scratch_bytes
    scratch = torch.full((size + 64,), 171, dtype=torch.uint8)
    out = torch.full((9, 72), 7.0)
    kernel.matmul(x, kernel.pack(weight), out[1:8], scratch)
    assert (scratch[size:] == 171).all()
    assert (out[[0, 8]] == 7).all()
    torch.testing.assert_close(out[1:8].double(), emulate(x, weight, 8), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("shape", [(1, 70), (37, 576), (130, 4096)], ids=str)
@pytest.mark.parametrize("instruction_set", NAMES)
def test_a_weight_of_numbers_meets_every_row_as_if_alone(
    instruction_set: str, shape: tuple[int, int]
) -> None:
    require(instruction_set)
    weight = torch.randn(shape).bfloat16()
    for rows in range(1, MOST_DENSE_ROWS + 1):
        x = torch.randn(rows, shape[1]).bfloat16()
        out, alone = torch.full((2, rows, shape[0]), torch.nan)
        native.matmul_dense(x, weight, out, instruction_set)
        exact = x.double() @ weight.double().T
        assert (out - exact).abs().max() < 1e-6 * shape[1]
        for row in range(rows):
            native.matmul_dense(x[row : row + 1], weight, alone[row : row + 1], instruction_set)
        assert torch.equal(out, alone)
    rounded = torch.empty_like(out, dtype=torch.bfloat16)
    native.matmul_dense(x, weight, rounded, instruction_set)
    assert torch.equal(rounded, out.bfloat16())


@pytest.mark.parametrize("shape", [(9, 1, 70), (47, 37, 1100), (300, 6, 4096)], ids=str)
@pytest.mark.parametrize("instruction_set", NAMES)
def test_many_rows_meet_a_weight_of_numbers(
    instruction_set: str, shape: tuple[int, int, int]
) -> None:
    """Rows, outputs, inputs: tails of blocks, of outputs, of strips and of passes."""
    require(instruction_set)
    rows, outputs, inputs = shape
    x, weight = torch.randn(rows, inputs).bfloat16(), torch.randn(outputs, inputs).bfloat16()
    out = torch.full((rows, outputs), torch.nan)
    native.matmul_dense(x, weight, out, instruction_set)
    assert (out - x.double() @ weight.double().T).abs().max() < 1e-6 * inputs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("rows", "size"), [(1, 4096), (3, 576), (9, 70)])
@pytest.mark.parametrize("instruction_set", NAMES)
def test_norm_equals_torch_s(
    instruction_set: str, rows: int, size: int, dtype: torch.dtype
) -> None:
    require(instruction_set)
    x, weight = (3 * torch.randn(rows, size)).to(dtype), torch.randn(size).to(dtype)
    expected = rms_norm(x.double(), (size,), weight.double(), 1e-5)
    native.norm(x, weight, 1e-5, x, instruction_set)
    tolerance = 1e-5 if dtype == torch.float32 else 2**-7  # it is rounded twice
    torch.testing.assert_close(x.double(), expected, rtol=tolerance, atol=1e-6)


def test_no_other_steps_round_a_book_less() -> None:
    def error(steps: float) -> float:
        return float(((BOOK * steps).round() / steps - BOOK).square().mean().sqrt())

    # Bytes of a book stand for -127 to 127.
    assert error(BOOK_STEPS) < min(map(error, torch.arange(16, 127.01, 0.1).tolist())) + 1e-5


def test_without_the_extension_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extension, "_native", None)
    reason = Native().refuses(LinearSpec(8, 8, WeightFormat(4, None), CPU))
    assert reason == "was not built: the installation found no C++ compiler"


@pytest.mark.parametrize("group_size", [4, 100, 48])
def test_odd_groups_are_refused(group_size: int) -> None:
    spec = LinearSpec(8, 4800, WeightFormat(4, group_size), CPU)
    assert f"not {group_size}" in (Native().refuses(spec) or "")
