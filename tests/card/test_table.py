"""Every launch of a decode step and of a prompt's chunk at GLM-4-9B's true shapes and at odd ones,
for every architecture, instruction by instruction: `make card`.
"""

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed; it has no wheel for this system")

from tests.card.build import compiler

if compiler() is None:
    pytest.skip("the PTX machine needs a C++ compiler", allow_module_level=True)

from benchmarks.gpu_kernels_static import (
    budget,
    loops,
    products_budget,
    prompt_cost,
    prompt_loops,
)
from calculator.cards.gpus import load_gpus
from calculator.memory.workspace import FEW_TOKENS
from calculator.model.formats import LLM_INT8, NF4, WeightFormat
from tests.card.attentions import AttentionCase
from tests.card.products import ProductCase, relative_error
from tests.card.triton_driver import played_driver
from tests.glm4q.kernels.gpu import interpreted

pytestmark = pytest.mark.card
CAPABILITIES = 75, 80, 86, 89, 120
INT4, INT8 = WeightFormat(4, 128), WeightFormat(8, 128)
TRUE = [(4096, 4096), (256, 4096), (27_392, 4096), (4096, 13_696)]
HEAD = 151_552, 4096
ODD = [
    (200, 640, WeightFormat(4, 32)),
    (72, 1704, WeightFormat(4, None)),
    (136, 640, WeightFormat(4, 64, zero_bits=4)),
    (68, 1700, WeightFormat(8, None)),
    (132, 640, WeightFormat(8, 32, zero_bits=8)),
    (68, 1700, LLM_INT8),
    (72, 640, NF4),
]
TARGET = 1.05
"""Sectors asked for over sectors needed, of a decode product."""
MOST_WAVEFRONTS = 2
"""What one access to shared memory takes inside a loop."""


def formats(capability: int) -> list[WeightFormat]:
    return [INT4, INT8, *([NF4] if capability >= 80 else [])]


def true_products(capability: int) -> list[ProductCase]:
    shapes = [(*shape, each) for shape in TRUE for each in formats(capability)]
    shapes += [(*HEAD, INT8), (*HEAD, INT4)]
    return [
        ProductCase(outputs, inputs, each, rows, capability, whole=False, few=few)
        for outputs, inputs, each in shapes
        for rows, few in ((1, False), (7, False), (1, True), (7, True), (16, True), (500, False))
        if rows < 500 or outputs in (4096, 256)  # the larger ones are more blocks of the same
        if each.scheme != "nf4" or not few
    ]


def drafts(capability: int) -> list[ProductCase]:
    """The tokens of a draft, each multiplied as it is alone."""
    shapes = [(4096, 4096), (27_392, 4096)]
    return [
        ProductCase(*shape, each, 4, capability, whole=False, alike=True)
        for shape in shapes
        for each in formats(capability)
    ]


def odd_products(capability: int) -> list[ProductCase]:
    return [
        ProductCase(outputs, inputs, each, rows, capability, few=few)
        for outputs, inputs, each in ODD
        if each.scheme != "nf4" or capability >= 80
        for rows, few in ((1, False), (2, False), (17, False), (1, True), (16, True))
        if each.scheme != "nf4" or not few
    ]


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_products(capability: int) -> None:
    for case in (*true_products(capability), *drafts(capability), *odd_products(capability)):
        driver, computed, exact = case.run()
        book = case.weight_format.scheme == "nf4" and case.rows > 1 and not case.alike
        assert relative_error(computed, exact) < (2e-3 if book else 1e-6), case
        if case.whole:
            continue
        for launched in driver.launched:
            account = launched.account
            if launched.name in ("few_rows", "matvec"):
                assert account.asked_over_needed <= TARGET, case
            assert account.worst_conflict <= MOST_WAVEFRONTS, (case, launched.name)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("kv", ["bf16", "int8", "k8v4", "int4"])
def test_attention(capability: int, kv: str) -> None:
    for count in (1, 3, 333):
        for cached in (0, 1999):
            case = AttentionCase(kv, cached, count, capability)
            driver, error, different = case.run()
            assert error < 2e-2, case
            assert different <= 2, case
            assert driver.launched
            for launched in driver.launched:
                assert launched.account.worst_conflict <= MOST_WAVEFRONTS, (case, launched.name)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("kv", ["bf16", "int8", "k8v4", "int4"])
def test_attention_of_a_draft(capability: int, kv: str) -> None:
    """The longest: each of its tokens attends to those before it, by launches of its own."""
    case = AttentionCase(kv, 500, FEW_TOKENS, capability)
    driver, error, different = case.run()
    assert error < 2e-2, case
    assert different <= 2, case
    names = [launched.name for launched in driver.launched]
    assert names == ["append"] * FEW_TOKENS + ["attend", "merge"] * FEW_TOKENS
    for launched in driver.launched:
        assert launched.account.worst_conflict <= MOST_WAVEFRONTS, (case, launched.name)
        if launched.name == "attend":
            assert launched.account.asked_over_needed <= TARGET, case


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_norms(capability: int) -> None:
    """The row of a token, those of a prompt, and the part of a row that is a head's."""
    for rows, size in ((1, 4096), (333, 4096), (3, 96)):
        x, weight = 3 * torch.randn(rows, size).bfloat16(), torch.randn(size).bfloat16()
        with played_driver(capability):
            computed = interpreted.norm(x, weight, 1e-5)
        wide = x.double()
        exact = wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(computed, exact.bfloat16() * weight, rtol=1e-2, atol=1e-6)


NOT_BOUND_BY_MEMORY = {
    ("RTX 5050 Laptop", "attention int4"),
    ("RTX 5050 Laptop", "nf4 layer"),
    ("RTX 5060 Laptop", "attention int4"),
    ("RTX 5070 Ti Laptop", "attention int4"),
}
"""Cards whose data sheets have less arithmetic for their memory than our densest loops take: the
last two by 2 % and by 1 %."""


def test_decoding_is_bound_by_memory_on_every_other_geforce_from_turing_on() -> None:
    """A card issues the instructions of each loop while it reads the bytes of it."""
    loops_of = {capability: list(loops(capability)) for capability in CAPABILITIES}
    geforces = [gpu for gpu in load_gpus() if gpu.kind in ("desktop", "laptop")]
    slow = {
        (gpu.name, loop.name)
        for gpu in geforces
        for loop in loops_of.get(round(10 * float(gpu.compute_capability or 0)), ())
        if loop.per_byte > budget(gpu)
    }
    assert slow == NOT_BOUND_BY_MEMORY


def test_prompts_are_bound_by_tensor_cores_on_every_geforce_from_turing_on() -> None:
    """Attention and products of a chunk, on Turing too, and on laptop cards for workstations."""
    loops_of = {capability: list(prompt_loops(capability)) for capability in CAPABILITIES}
    for gpu in load_gpus():
        if gpu.kind in ("desktop", "laptop"):
            for name, compiled in loops_of.get(round(10 * float(gpu.compute_capability or 0)), ()):
                instructions, flops = prompt_cost(compiled)
                assert instructions < products_budget(gpu, flops), (gpu.name, name)
