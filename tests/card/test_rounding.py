"""GPTQ and coordinate descent by their kernels, run instruction by instruction, beside torch."""

import re
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed; it has no wheel for this system")

from tests.card.build import compiler

if compiler() is None:
    pytest.skip("the PTX machine needs a C++ compiler", allow_module_level=True)

from calculator.errors import KernelError
from calculator.model.formats import WeightFormat
from glm4q.kernels import cuda
from quantize.methods import gptq, heads, rtn
from quantize.methods.blocks import by_torch, by_triton, choose
from quantize.methods.codes import Codes
from quantize.methods.operands import Compensation, Descent
from tests.card.ptx.machine import MachineFault
from tests.card.rounded_blocks import BlockCase, check_compensation, check_descent
from tests.card.sim.played import simulated_card
from tests.card.triton_driver import played_driver

INT4 = WeightFormat(4, 128)
SAMPLE = [
    BlockCase(5, 512, INT4, 86),
    BlockCase(21, 288, WeightFormat(4, 32), 75),
    BlockCase(7, 96, WeightFormat(8, 32, zero_bits=8), 120),
    BlockCase(5, 170, WeightFormat(4, None), 89),
    BlockCase(6, 320, WeightFormat(4, 64, zero_bits=4), 80),
]
"""Ragged blocks, groups that are larger than a block, a single group, odd rows."""
FORMATS = [
    WeightFormat(bits, group, zero_bits)
    for bits in (4, 8)
    for group in (32, 64, 128, None)
    for zero_bits in (0, bits)
]
EVERY = [
    pytest.param(BlockCase(5, 384, each, capability), marks=pytest.mark.card, id=f"{each}")
    for each in FORMATS
    for capability in (75, 80, 86, 89, 120)
]


@pytest.mark.parametrize("case", [*SAMPLE, *EVERY], ids=str)
def test_a_block_of_gptq_is_that_of_torch(case: BlockCase) -> None:
    check_compensation(case)


@pytest.mark.parametrize("case", [*SAMPLE, *EVERY], ids=str)
def test_a_block_of_the_descent_is_that_of_torch(case: BlockCase) -> None:
    first, last = case.second
    for rescales in (False, True):
        if not rescales or last - first == case.inputs // case.groups:
            check_descent(case, rescales)


def _without_guards(ptx: str) -> str:
    return re.sub(r"@%p\d+ (ld\.global)", r"\1", ptx)


def _once(pattern: str, replacement: str) -> Callable[[str], str]:
    def mutate(ptx: str) -> str:
        assert re.search(pattern, ptx)
        return re.sub(pattern, replacement, ptx, count=1)

    return mutate


MISTAKES = {
    "loads past the end": _without_guards,
    "a lane that is left out": _once(r"(shfl\.sync\.bfly\.b32 \t%r\d+, %r\d+, )\d+,", r"\g<1>0,"),
    "a program that takes the next row": _once(
        r"(mov\.u32 \t(%r\d+), %ctaid\.x;)", r"\1\nadd.s32 \2, \2, 1;"
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("check", [check_compensation, partial(check_descent, rescales=True)])
def test_mistakes_are_found(mistake: str, check: Callable[..., None]) -> None:
    with pytest.raises((AssertionError, MachineFault)):
        check(BlockCase(5, 144, WeightFormat(4, 48), 86), mutate=MISTAKES[mistake])


def output_error(weight: Tensor, codes: Codes, hessian: Tensor) -> float:
    change = (weight - codes.dequantize()).double()
    return float((change * (change @ hessian.double())).sum())


@pytest.fixture
def factors() -> gptq.Factors:
    x = torch.randn(700, 512)
    return gptq.factor(x.T @ x)


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_are_rounded_as_well_as_by_torch(
    bits: int, factors: gptq.Factors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All blocks and all sweeps."""
    weight, weight_format = torch.randn(9, 512), WeightFormat(bits, 64)
    monkeypatch.setattr(choose, "BLOCKS", (by_torch,))
    expected = gptq.quantize_rows(weight, factors, weight_format)
    monkeypatch.setattr(choose, "BLOCKS", (by_triton,))
    monkeypatch.setattr(by_triton, "refuses", lambda weight: None)
    with played_driver(86):
        ours = gptq.quantize_rows(weight, factors, weight_format)
    assert (ours.codes == expected.codes).float().mean() > 0.99
    errors = [output_error(weight, each, factors.damped) for each in (ours, expected)]
    assert errors[0] == pytest.approx(errors[1], rel=1e-3)


def on_card(factors: gptq.Factors) -> gptq.Factors:
    parts = factors.damped, factors.root, factors.sizes, factors.order
    return gptq.Factors(*(part.cuda() for part in parts))


def test_a_card_is_asked_less_often_than_there_are_columns(factors: gptq.Factors) -> None:
    """A launch for each column and each step of its arithmetic would be 40 for each column."""
    weight = torch.randn(9, 512)
    with simulated_card("RTX 3060") as (card, _):
        there, place = on_card(factors), weight.cuda()
        with card.trace.only() as trace:
            codes = gptq.quantize_rows(place, there, INT4)
        launches = trace.of("launch")
        assert len(launches) == 512 // gptq.BLOCK + 4 * 512 // 128
        assert len(trace.of("operator")) < 512
        error = output_error(weight, _on_host(codes), factors.damped)
    by_rtn = output_error(weight, rtn.quantize(weight, INT4), factors.damped)
    assert error < 0.7 * by_rtn


def test_rows_of_heads_are_rounded_on_the_card(factors: gptq.Factors) -> None:
    """Nothing crosses the bus; rows that cannot make up for each other are as they are alone."""
    with simulated_card("RTX 3060") as (card, _):
        weight, there = torch.randn(8, 512).cuda(), on_card(factors)
        errors = torch.diag_embed(torch.rand(2, 4)).cuda()
        with card.trace.only() as trace:
            codes = heads.quantize(weight, errors, there, INT4)
        assert trace.of("launch")
        assert not trace.of("to host", "to device")
        ours, alone = (_on_host(each) for each in (codes, gptq.quantize_rows(weight, there, INT4)))
    for part in ("codes", "scales", "zero_points"):
        assert torch.equal(getattr(ours, part), getattr(alone, part))


def test_without_triton_torch_s_loops_serve_and_the_host_rounds_heads(
    factors: gptq.Factors, monkeypatch: pytest.MonkeyPatch
) -> None:
    with simulated_card("RTX 3060") as (card, _):
        weight, there = torch.randn(8, 512).cuda(), on_card(factors)
        assert choose.choose_blocks(weight) is by_triton
        assert choose.choose_blocks(weight.cpu()) is not by_triton
        monkeypatch.setattr(cuda, "find_spec", lambda name: None)
        cuda.refuses_triton.cache_clear()
        assert by_triton.refuses(weight) == "needs Triton, which is not installed"
        assert choose.choose_blocks(weight) is by_torch
        with card.trace.only() as trace:
            codes = heads.quantize(weight, torch.ones(2, 4, 4).cuda(), there, INT4)
        assert trace.of("to host")
        assert not trace.of("launch")
        assert codes.codes.is_cuda


def _on_host(codes: Codes) -> Codes:
    return Codes(codes.codes.cpu(), codes.scales.cpu(), codes.zero_points.cpu())


def test_what_a_kernel_would_misread_is_refused() -> None:
    case = BlockCase(4, 96, WeightFormat(4, 32), 86)
    start, rows, hessian = case.start, case.weight, case.hessian
    group = torch.zeros(96, dtype=torch.int32)
    for wrong in (rows.T.contiguous().T, rows.double(), rows[:3]):
        with pytest.raises(KernelError, match="the weight must be"):
            by_triton.compensate(Compensation(wrong, rows, hessian, group, start, 4), 0, 64)
    with pytest.raises(KernelError, match="group must be"):
        by_triton.compensate(Compensation(rows, rows, hessian, group.long(), start, 4), 0, 64)
    given = rows, start.scales.float(), start.zero_points, rows
    with pytest.raises(KernelError, match="a block must be 1 to 128 of 96 inputs, not 64 to 128"):
        by_triton.descend(Descent(*given, hessian, 4), 64, 128, rescales=False)
    with pytest.raises(KernelError, match="the Hessian must be"):
        by_triton.descend(Descent(*given, hessian[:64], 4), 0, 64, rescales=False)
