"""Every kernel against float64 arithmetic on the dequantized weight."""

from functools import lru_cache

import pytest
import torch
from torch import Tensor

from calculator.errors import KernelError, OptionError
from calculator.model.formats import LLM_INT8, NF4, WeightFormat
from glm4q.kernels.choose import KERNELS, candidates, choose
from glm4q.kernels.reference import Reference
from glm4q.kernels.spec import Kernel, LinearSpec, multiply
from glm4q.weights.packing import QuantizedWeight
from tests.glm4q.random_weights import random_weight

CPU = torch.device("cpu")
SHAPES = [(48, 128), (640, 13_696)]
"""The second is as wide as GLM-4, and dequantized in two tiles."""
FORMATS = [
    WeightFormat(4, 32),
    WeightFormat(4, 128),
    WeightFormat(4, None),
    WeightFormat(4, 64, zero_bits=4),
    WeightFormat(4, 64, act_order=True),
    WeightFormat(8, 32),
    WeightFormat(8, 128),
    WeightFormat(8, None),
    WeightFormat(8, 64, zero_bits=8),
    NF4,
    LLM_INT8,
]
RELATIVE_ERROR = {
    "reference": 1e-5,
    "bitsandbytes": 1e-5,
    "native": 2e-2,
    "torch-int4": 1e-2,
    "torch-int8": 5e-3,
}
"""Root mean square, of the result: the torch operators round activations to bfloat16, the native
kernel rounds them to 8-bit codes."""


@lru_cache(maxsize=1)
def _weight(shape: tuple[int, int], weight_format: WeightFormat) -> tuple[QuantizedWeight, Tensor]:
    """A random weight, and its numbers in float64: they serve every kernel and number of rows."""
    weight = random_weight(*shape, weight_format)
    return weight, weight.dequantize().double()


@pytest.mark.parametrize("rows", [1, 3, 15, 33])
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("weight_format", FORMATS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernel_equals_exact_arithmetic(
    kernel: Kernel, shape: tuple[int, int], weight_format: WeightFormat, rows: int
) -> None:
    spec = LinearSpec(*shape, weight_format, CPU)
    if reason := kernel.refuses(spec):
        pytest.skip(f"{kernel.name} {reason}")
    weight, numbers = _weight(shape, weight_format)
    x = torch.randn(2, rows, shape[1])
    y = multiply(kernel, spec, kernel.pack(weight), x)
    exact = x.double() @ numbers
    assert y.shape == exact.shape
    assert y.dtype == x.dtype
    error = (y - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert error < RELATIVE_ERROR[kernel.name]


@pytest.mark.parametrize("weight_format", FORMATS, ids=str)
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_kernel_holds_what_it_tells_the_plan(kernel: Kernel, weight_format: WeightFormat) -> None:
    from calculator.model.architecture import Weight

    if reason := kernel.refuses(LinearSpec(128, 384, weight_format, CPU)):
        pytest.skip(f"{kernel.name} {reason}")
    held = kernel.pack(random_weight(128, 384, weight_format)).values()
    planned = (
        kernel.packed_format(weight_format).parts(Weight("a.weight", (128, 384), "linear")).values()
    )
    assert sum(tensor.nbytes for tensor in held) == sum(planned)


def test_first_kernel_that_does_not_refuse_is_chosen() -> None:
    names = {
        WeightFormat(4, 128): "native",
        WeightFormat(8, None): "native",
        WeightFormat(4, 64, act_order=True): "reference",
    }
    for weight_format, name in names.items():
        assert choose(LinearSpec(128, 384, weight_format, CPU)).name == name


def test_refusals_are_told() -> None:
    spec = LinearSpec(128, 384, WeightFormat(8, 128), CPU)
    with pytest.raises(KernelError, match="torch-int4 takes 4-bit codes in groups, not int8 g128"):
        choose(spec, candidates("torch-int4"))


def test_unknown_kernel_is_refused_by_name() -> None:
    with pytest.raises(
        OptionError,
        match=r"auto, native, triton, torch-int4-cuda, .*torch-int8, bitsandbytes, reference, not",
    ):
        candidates("marlin")


def test_finer_activations_are_the_native_kernel_s_and_are_planned() -> None:
    """They have a name of their own, by which a cache that other activations made is known."""
    spec = LinearSpec(128, 384, WeightFormat(4, 128), CPU)
    default, finer = (choose(spec, candidates("auto", each)) for each in ("auto", "int16"))
    if default.name != "native":
        pytest.skip("the native extension was not built")
    assert finer.name == "native, int16 activations"
    sizes = [kernel.needs(spec, 10, 2).scratch_bytes for kernel in (default, finer)]
    assert sizes[1] - sizes[0] >= 10 * (384 - 4 * 384 // 32)
    weight = random_weight(128, 384, spec.weight_format)
    x = torch.randn(10, 384)
    exact = x.double() @ weight.dequantize().double()
    wrong = [multiply(kernel, spec, kernel.pack(weight), x) - exact for kernel in (default, finer)]
    assert wrong[1].abs().max() < wrong[0].abs().max() / 50


@pytest.mark.parametrize("chosen", [("reference", "int16"), ("auto", "int8")])
def test_activations_that_no_kernel_rounds_to_are_refused(chosen: tuple[str, str]) -> None:
    with pytest.raises(OptionError, match="activations must be"):
        candidates(*chosen)


def test_reference_takes_everything() -> None:
    assert not any(
        Reference().refuses(LinearSpec(8, 8, weight_format, CPU)) for weight_format in FORMATS
    )
