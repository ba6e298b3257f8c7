"""The compiled kernels, run instruction by instruction: they compute what they should.

The machine stops at a stray or misaligned address, at shared memory that no barrier orders, at
blocks that disagree. `make card` runs every launch for every architecture; here is a sample.
"""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import silu

pytest.importorskip("triton", reason="Triton is not installed; it has no wheel for this system")

from tests.card.build import compiler

if compiler() is None:
    pytest.skip("the PTX machine needs a C++ compiler", allow_module_level=True)

from calculator.model.formats import NF4, WeightFormat
from glm4q.kernels.cuda import Lowering, lowering_of
from glm4q.kernels.gpu.launch import run_all
from glm4q.kernels.gpu.products.beside import Beside
from glm4q.kernels.gpu.products.linear import Product
from glm4q.kernels.spec import Finish
from glm4q.kernels.triton_linear import TritonLinear
from tests.card.products import ProductCase, relative_error
from tests.card.ptx.machine import Options
from tests.card.triton_driver import played_driver
from tests.glm4q.kernels.gpu import interpreted
from tests.glm4q.kernels.gpu.test_triton import HEADS, SMALL_HEADS
from tests.glm4q.random_weights import random_weight

INT4, INT8 = WeightFormat(4, 128), WeightFormat(8, 128)
PRODUCTS = [
    ProductCase(200, 640, WeightFormat(4, 32), 1, 86),
    ProductCase(68, 1700, WeightFormat(8, None), 1, 75),
    ProductCase(136, 640, WeightFormat(4, 64, zero_bits=4), 1, 120),
    ProductCase(27_392, 4096, INT4, 1, 86, whole=False),
    ProductCase(151_552, 4096, INT8, 1, 86, whole=False),
    ProductCase(72, 640, NF4, 17, 86),
    ProductCase(132, 640, WeightFormat(8, 32, zero_bits=8), 5, 75),
    ProductCase(200, 1704, WeightFormat(4, None), 40, 75),
    ProductCase(256, 4096, INT4, 100, 75, whole=False),
    ProductCase(4096, 13_696, INT4, 3, 120, whole=False),
    ProductCase(256, 4096, INT8, 100, 86, whole=False),
]


FEW = [
    ProductCase(132, 640, WeightFormat(8, 32, zero_bits=8), 3, 75, few=True),
    ProductCase(200, 1704, WeightFormat(4, None), 16, 75, few=True),
    ProductCase(27_392, 4096, INT4, 1, 75, whole=False, few=True),
    ProductCase(200, 640, WeightFormat(4, 32), 1, 86, few=True),
    ProductCase(136, 640, WeightFormat(4, 64, zero_bits=4), 8, 86, few=True),
    ProductCase(68, 1700, WeightFormat(8, None), 16, 86, few=True),
    ProductCase(4096, 13_696, INT4, 3, 120, whole=False, few=True),
    ProductCase(151_552, 4096, INT8, 8, 120, whole=False, few=True),
    ProductCase(132, 640, WeightFormat(8, 32, zero_bits=8), 1, 120, few=True),
]


@pytest.mark.parametrize("case", [*PRODUCTS, *FEW], ids=str)
def test_products(case: ProductCase) -> None:
    driver, computed, exact = case.run()
    book = (
        case.weight_format.scheme == "nf4" and case.rows > 1
    )  # tensor cores take its numbers in bfloat16
    assert relative_error(computed, exact) < (2e-3 if book else 1e-6)
    for launched in driver.launched:
        wide = case.outputs >= 256  # narrow rows of a weight start inside a sector
        if launched.name in ("few_rows", "matvec", "matmul") and wide:
            assert launched.account.asked_over_needed <= 1.05


@pytest.mark.parametrize(("rows", "alike"), [(1, False), (3, True), (3, False)])
@pytest.mark.parametrize("finish", ["bias", "gated", "added"])
def test_a_product_is_finished_by_the_launch_that_adds_its_splits(
    finish: str, rows: int, alike: bool
) -> None:
    """What torch's operators compute after it, before it is rounded to bfloat16."""
    outputs, inputs = 600, 1024
    weight = random_weight(outputs, inputs, INT4)
    x, bias = torch.randn(rows, inputs).bfloat16(), torch.randn(outputs).bfloat16()
    exact = x.double() @ weight.dequantize().double()
    there = torch.randn(rows, outputs // 2 if finish == "gated" else outputs).bfloat16()
    if finish == "gated":
        done, exact = Finish(gated=True), silu(exact[:, :300]) * exact[:, 300:]
    elif finish == "added":
        done, exact = Finish(added=True), exact + there
    else:
        done, exact = Finish(bias), exact + bias
    scratch = torch.empty(1 << 20, dtype=torch.uint8)
    packed = TritonLinear().pack(weight)
    product = Product(x, packed, there, scratch, torch.bfloat16, alike, finish=done)
    with played_driver(86):
        run_all(product.launches())
    torch.testing.assert_close(there, exact.bfloat16(), rtol=2**-7, atol=1e-3)


@pytest.mark.parametrize("capability", [75, 86])
@pytest.mark.parametrize("zero_bits", [0, 4])
def test_several_weights_are_multiplied_in_two_launches(capability: int, zero_bits: int) -> None:
    """Queries, keys and values: each into its own tensor, with its own bias, and no byte else."""
    weight_format = WeightFormat(4, 128, zero_bits=zero_bits)
    x = torch.randn(3, 1024).bfloat16()
    weights = [random_weight(outputs, 1024, weight_format) for outputs in (520, 136, 256)]
    biases = [torch.randn(weight.outputs).bfloat16() for weight in weights]
    outs = [torch.zeros(5, weight.outputs).bfloat16() for weight in weights]
    packed, scratch = [TritonLinear().pack(each) for each in weights], torch.empty(1 << 20).byte()
    first, *others = map(Beside, packed, [out[1:4] for out in outs], biases)
    compute = torch.bfloat16 if capability >= 80 else torch.float16
    product = Product(
        x, first.packed, first.out, scratch, compute, turing=capability < 80,
        finish=Finish(first.bias), few=True, beside=tuple(others),
    )  # fmt: skip
    with played_driver(capability) as driver:
        run_all(product.launches())
    assert [launched.name for launched in driver.launched] == ["few_rows", "add_splits"]
    for weight, bias, out in zip(weights, biases, outs, strict=True):
        exact = x.double() @ weight.dequantize().double() + bias
        torch.testing.assert_close(out[1:4], exact.bfloat16(), rtol=2**-7, atol=1e-2)
        assert not out[[0, 4]].any()


@pytest.mark.parametrize(("rows", "few"), [(3, False), (3, True), (40, False)])
@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_activations_beyond_float16_do_not_overflow_on_turing(
    size: float, rows: int, few: bool
) -> None:
    _, computed, exact = ProductCase(136, 256, WeightFormat(4, 64), rows, 75, few=few).run(size)
    assert relative_error(computed, exact) < 1e-3


@pytest.mark.parametrize("capability", [75, 86])
def test_a_token_has_the_same_bits_alone_and_among_others(capability: int) -> None:
    """Of a draft, of a batch: of as many rows as one tile of tensor cores has."""
    case = ProductCase(136, 640, WeightFormat(4, 64, zero_bits=4), 1, capability, few=True)
    weight, x = random_weight(136, 640, case.weight_format), torch.randn(16, 640).bfloat16()
    x[3] *= 2.0**30  # as large as one row may be, another keeps its bits
    together, eight = case.multiply(weight, x), case.multiply(weight, x[2:10])
    assert torch.equal(eight, together[2:10])
    for row in (2, 3, 15):
        assert torch.equal(case.multiply(weight, x[row : row + 1])[0], together[row])


@pytest.mark.parametrize(
    ("capability", "kv", "tokens"),
    [
        (86, "bf16", 1),
        (75, "int8", 1),
        (86, "int4", 1),
        (120, "k8v4", 1),
        (86, "int8", 9),
        (75, "k8v4", 9),
    ],
)
def test_attention(capability: int, kv: str, tokens: int) -> None:
    """GLM-4's heads, and the demo model's, whose tiles are part empty."""
    for config, cached in ((HEADS, 99), (SMALL_HEADS, 70)):
        heads, size = (config.num_attention_heads, config.num_key_value_heads), config.head_dim
        given = 2 * torch.randn(2, 1, heads[1], cached, size)
        new = tuple(
            2 * torch.randn(1, tokens, count, size).bfloat16()
            for count in (heads[0], *heads[1:] * 2)
        )
        with played_driver(capability) as driver:
            ours, theirs, caches = interpreted.attend(
                config, kv, given, new, 160, lowering=lowering_of(divmod(capability, 10))
            )
        error = (ours.float() - theirs.float()).norm() / theirs.float().norm()
        assert error < 5e-3  # both are rounded to bfloat16
        assert sum(int((a != b).sum()) for a, b in caches) <= 2
        names = [launched.name for launched in driver.launched]
        assert names == ["append", "attend", "merge"]


@pytest.mark.parametrize(("capability", "kv"), [(75, "int8"), (86, "int4"), (120, "bf16")])
def test_sequences_attend_together_each_to_its_own_row_of_the_cache(
    capability: int, kv: str
) -> None:
    """Three sequences of several lengths, in one launch of each kernel, from rows out of order."""
    config = replace(
        SMALL_HEADS, num_hidden_layers=1, hidden_size=96, intermediate_size=64, vocab_size=50
    )
    prompts = [torch.randint(50, (1, tokens)) for tokens in (9, 62, 1)]
    with played_driver(capability) as driver:
        ours, theirs = interpreted.follow(
            config, kv, prompts, lowering=lowering_of(divmod(capability, 10))
        )
    assert (ours - theirs).norm() < 2e-2 * theirs.norm()
    names = [launched.name for launched in driver.launched if launched.name != "rms_norm"]
    assert names[-3:] == ["append", "attend", "merge"]


@pytest.mark.parametrize("kv", ["bf16", "int4"])
def test_values_of_unlike_sizes_are_attended_to_on_turing(kv: str) -> None:
    """Sums count in the unit of the largest values so far, whether these come first or last."""
    given = 2 * torch.randn(2, 1, 3, 99, 64)
    given[1] *= torch.tensor([2.0**-9, 1.0, 2.0**9, 1.0]).repeat_interleave(25)[:99, None]
    new = tuple(torch.randn(1, 40, count, 64).bfloat16() for count in (9, 3, 3))
    with played_driver(75):
        ours, theirs, _ = interpreted.attend(
            SMALL_HEADS, kv, given, new, 160, lowering=Lowering.TURING_MMA
        )
    assert (ours.float() - theirs.float()).norm() < 5e-3 * theirs.float().norm()


def test_results_do_not_hang_on_the_order_of_warps_nor_on_exact_approximations() -> None:
    case = ProductCase(200, 640, WeightFormat(4, 32), 2, 86)
    computed = []
    for options in (Options(noisy=False), Options(backwards=True, noisy=False)):
        torch.manual_seed(0)
        computed.append(case.run(options=options)[1])
    assert torch.equal(computed[0], computed[1])


@pytest.mark.parametrize("size", [96, 4096])
def test_norm(size: int) -> None:
    x, weight = 3 * torch.randn(3, size).bfloat16(), torch.randn(size).bfloat16()
    with played_driver(86):
        computed = interpreted.norm(x, weight, 1e-5)
    wide = x.double()
    exact = wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(computed, exact.bfloat16() * weight, rtol=1e-2, atol=1e-6)
