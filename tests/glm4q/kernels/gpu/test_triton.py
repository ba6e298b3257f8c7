"""The Triton kernels, interpreted on the CPU: against the reference and against torch's operators.

No GPU is needed: tests/gpu holds what only a device can show.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from calculator.checkpoint.stored import StoredModel
from calculator.model.architecture import Weight
from calculator.model.config import ModelConfig
from calculator.model.formats import LLM_INT8, NF4, WeightFormat
from calculator.model.presets import PRESETS
from calculator.model.rope import RopeScaling
from glm4q.kernels import cuda
from glm4q.kernels.reference import Reference
from glm4q.kernels.spec import LinearSpec
from glm4q.kernels.spec import multiply as multiply_by
from glm4q.kernels.torch_operators.torch_int4_cuda import TorchInt4Cuda
from glm4q.kernels.triton_linear import TritonLinear
from tests import tiny
from tests.glm4q.kernels.gpu import interpreted
from tests.glm4q.kernels.gpu.interpreted import Run
from tests.glm4q.memories import memory_on_cpu
from tests.glm4q.random_weights import random_weight

pytest.importorskip("triton", reason="Triton is not installed; it has no wheel for this system")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
WITHOUT_GLUON = 4
"""Bytes of activations that Triton's own kernels take: the interpreter has no Gluon."""
LAYERS = [
    (32, 4096, WeightFormat(4, 128)),
    (32, 13_696, WeightFormat(4, 64)),
    (200, 640, WeightFormat(4, 32)),
    (72, 1704, WeightFormat(4, None)),
    (136, 640, WeightFormat(4, 64, zero_bits=4)),
    (32, 4096, WeightFormat(8, 128)),
    (68, 1700, WeightFormat(8, None)),
    (132, 640, WeightFormat(8, 32, zero_bits=8)),
    (32, 4096, NF4),
    (72, 640, NF4),
    (68, 1700, LLM_INT8),
]
"""Outputs, inputs and format: GLM-4's true inputs with outputs cut short, and ragged edges."""
ROWS = {640: (1, 2, 16, 17), 1700: (1, 2, 17), 1704: (1, 2, 17), 4096: (1, 17), 13_696: (1, 17)}
"""Rows of activations by inputs: the interpreter takes seconds for many rows of a wide layer."""


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with interpreted.interpreter() as run:
        yield run


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """A played CUDA device; the compute capability in the list may be changed."""
    capabilities = [(8, 6)]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[0])
    cuda.refuses_triton.cache_clear()
    yield capabilities
    cuda.refuses_triton.cache_clear()


@pytest.mark.parametrize(
    ("layer", "rows"), [(layer, rows) for layer in LAYERS for rows in ROWS[layer[1]]], ids=str
)
def test_product_equals_exact_arithmetic(
    run: Run, card: object, layer: tuple[int, int, WeightFormat], rows: int
) -> None:
    outputs, inputs, weight_format = layer
    weight = random_weight(outputs, inputs, weight_format)
    x = torch.randn(rows, inputs).bfloat16()
    needed = (
        TritonLinear()
        .needs(LinearSpec(outputs, inputs, weight_format, CUDA), rows, WITHOUT_GLUON)
        .scratch_bytes
    )
    computed = run(interpreted.multiply, x, weight, torch.bfloat16, needed)
    if weight.book is not None and rows > 1:  # tensor cores take the book in bfloat16
        weight = replace(weight, book=weight.book.bfloat16().float())
    exact = x.double() @ weight.dequantize().double()
    error = (computed - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert error < 1e-6  # bfloat16 activations are taken as they are, and all sums are float32
    spec = LinearSpec(outputs, inputs, weight_format, CPU)
    reference = multiply_by(Reference(), spec, Reference().pack(weight), x.float())
    # Each addition of float32 rounds by 2**-24 of the sum, at most that of the sizes of all terms.
    sizes = x.double().abs() @ weight.dequantize().double().abs()
    assert ((computed - reference).abs() <= 2 * inputs * 2**-24 * sizes).all()


@pytest.mark.parametrize("rows", [2, 40])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_activations_beyond_float16_do_not_overflow(run: Run, rows: int, size: float) -> None:
    """Before Ampere tensor cores take float16, which ends at 65,504; GLM-4's numbers do not."""
    weight = random_weight(64, 256, WeightFormat(4, 64))
    x = size * torch.randn(rows, 256)
    x[0] = 0
    x[1, 7] = 1000 * size
    computed = run(interpreted.multiply, x, weight, torch.float16, 1 << 20)
    exact = x.double() @ weight.dequantize().double()
    error = (computed - exact).norm(dim=1) / exact.norm(dim=1).clamp(min=1e-40)
    assert error.max() < 1e-3


def test_a_byte_less_scratch_than_said_is_too_little(run: Run, card: object) -> None:
    outputs, inputs, weight_format = LAYERS[0]
    needed = (
        TritonLinear()
        .needs(LinearSpec(outputs, inputs, weight_format, CUDA), 5, WITHOUT_GLUON)
        .scratch_bytes
    )
    weight, x = random_weight(outputs, inputs, weight_format), torch.randn(5, inputs).bfloat16()
    with pytest.raises(RuntimeError, match="invalid for input of size"):
        run(interpreted.multiply, x, weight, torch.bfloat16, needed - 4)


def test_a_chunk_needs_no_less_than_a_shorter_one(card: list[tuple[int, int]]) -> None:
    for capability in ((7, 5), (8, 6)):
        card[0] = capability
        for outputs, inputs in ((4096, 4096), (27_392, 4096), (151_552, 4096), (256, 4096)):
            spec = LinearSpec(outputs, inputs, WeightFormat(4, 128), CUDA)
            sizes = [TritonLinear().needs(spec, n, 2).scratch_bytes for n in (1, 2, 9, 16, 17, 512)]
            assert sizes == sorted(sizes)


HEADS = replace(
    PRESETS["glm-4-9b-chat"], num_hidden_layers=2, num_attention_heads=32, num_key_value_heads=2
)
SMALL_HEADS = replace(
    HEADS, head_dim=64, num_attention_heads=9, num_key_value_heads=3, partial_rotary_factor=1.0
)
"""The demo model's heads: three query heads a key, so that a tile of 16 is part empty."""
ONE_KEY_HEAD = replace(HEADS, num_attention_heads=16, num_key_value_heads=1)
"""Half of GLM-4's heads, for prompts: the interpreter takes the same time for each key head."""


@pytest.mark.parametrize(
    ("config", "cached"),
    [(HEADS, 0), (HEADS, 63), (SMALL_HEADS, 99)],
    ids=["glm-4 0", "glm-4 63", "demo 99"],
)
@pytest.mark.parametrize("kv", ["bf16", "int8", "k8v4", "int4"])
def test_decode_attention_equals_streaming_attention(
    run: Run, kv: str, config: ModelConfig, cached: int
) -> None:
    """Both write one cache to the bit, but where a number lies between two codes."""
    heads, size = (config.num_attention_heads, config.num_key_value_heads), config.head_dim
    given = 4 * torch.randn(2, 1, heads[1], cached, size)
    new = tuple(
        4 * torch.randn(1, 1, count, size).bfloat16() for count in (heads[0], *heads[1:] * 2)
    )
    ours, theirs, caches = run(interpreted.attend, config, kv, given, new, 100)
    error = (ours.float() - theirs.float()).norm() / theirs.float().norm()
    assert error < 5e-3  # both are rounded to bfloat16
    different = sum(int((a != b).sum()) for a, b in caches)
    assert different <= 2
    assert all(len(a) == 2 and not a[0].any() for a, _ in caches)  # the other layer is untouched


def test_a_short_prompt_sets_the_centers_of_int4_keys_by_all_of_its_tokens(run: Run) -> None:
    """A draft has as few tokens, but never comes first: it is appended token by token."""
    heads, size = (HEADS.num_attention_heads, HEADS.num_key_value_heads), HEADS.head_dim
    new = tuple(
        2 * torch.randn(1, 3, count, size).bfloat16() for count in (heads[0], *heads[1:] * 2)
    )
    given = torch.empty(2, 1, heads[1], 0, size)
    ours, theirs, caches = run(interpreted.attend, HEADS, "int4", given, new, 160)
    error = (ours.float() - theirs.float()).norm(dim=-1) / theirs.float().norm(dim=-1)
    assert error.max() < 1e-2  # both are rounded to bfloat16
    assert all(torch.equal(a, b) for a, b in caches)


@pytest.mark.parametrize(
    ("kv", "config", "cached", "tokens"),
    [
        *((kv, ONE_KEY_HEAD, 0, 6) for kv in ("bf16", "int8", "k8v4", "int4")),
        *((kv, ONE_KEY_HEAD, 130, 5) for kv in ("bf16", "int8", "k8v4", "int4")),
        *((kv, SMALL_HEADS, 5, 22) for kv in ("bf16", "int4")),
        *((kv, SMALL_HEADS, 70, 2) for kv in ("int8", "k8v4")),
    ],
    ids=lambda value: f"{value.head_dim} wide" if isinstance(value, ModelConfig) else str(value),
)
def test_prompt_attention_equals_streaming_attention(
    run: Run, kv: str, config: ModelConfig, cached: int, tokens: int
) -> None:
    """Each new token sees what came before it and itself, in one run of the context or several."""
    heads, size = (config.num_attention_heads, config.num_key_value_heads), config.head_dim
    given = 2 * torch.randn(2, 2, heads[1], cached, size)
    new = tuple(
        2 * torch.randn(2, tokens, count, size).bfloat16() for count in (heads[0], *heads[1:] * 2)
    )
    ours, theirs, caches = run(interpreted.attend, config, kv, given, new, 160)
    error = (ours.float() - theirs.float()).norm(dim=-1) / theirs.float().norm(dim=-1)
    assert error.max() < 1e-2  # both are rounded to bfloat16
    assert all(torch.equal(a, b) for a, b in caches)


@pytest.mark.parametrize("kv", ["bf16", "int4"])
def test_sequences_of_several_lengths_say_the_same_by_either_attention(run: Run, kv: str) -> None:
    config = replace(
        SMALL_HEADS, num_hidden_layers=1, hidden_size=96, intermediate_size=64, vocab_size=50
    )
    prompts = [torch.randint(50, (1, tokens)) for tokens in (9, 4, 1)]
    ours, theirs = run(interpreted.follow, config, kv, prompts)
    assert (ours - theirs).norm() < 2e-2 * theirs.norm()
    assert (ours[:, 0] - ours[:, 1]).norm() > 0.1 * ours[:, 0].norm()  # each saw its own prompt


@pytest.mark.parametrize("tokens", [1, 2, 64])
@pytest.mark.parametrize("kv", ["bf16", "int8", "k8v4", "int4"])
def test_no_launch_writes_where_it_reads(kv: str, tokens: int) -> None:
    """Its blocks run in any order, and a step's buffers share their memory with others."""
    from glm4q.kernels.gpu.attention.launches import AttentionLaunches

    memory = memory_on_cpu(HEADS, 600, chunk=64, draft_tokens=2, kv=kv, dtype=torch.bfloat16)
    ((step, _),), ((keys, values),) = memory.steps(tokens), memory.cache.stores
    launches = AttentionLaunches(step, keys, values, 0)
    for launch in launches.append_and_attend():
        tensors = [each for each in launch.arguments.values() if isinstance(each, torch.Tensor)]
        places = sorted({(each.data_ptr(), each.data_ptr() + each.nbytes) for each in tensors})
        assert all(stop <= start for (_, stop), (start, _) in pairwise(places))


SCALED = replace(
    tiny.BASE,
    model_type="glm4",
    head_dim=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=96,
    rope_scaling=RopeScaling("yarn", 4.0, 24, attention_factor=1.1386294361119891),
)
NEAR = {"bf16": 0.03, "int4": 0.3}
"""The largest mean error by KV format: twice what it is. Without scaling it is 0.65 or more."""


@pytest.mark.parametrize("kv", NEAR)
def test_scaled_positions_are_those_of_transformers(run: Run, kv: str, tmp_path: Path) -> None:
    """YaRN: a prompt to beyond the original length, then two tokens as an answer is decoded."""
    reference = tiny.transformers_model(SCALED)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            if name.endswith("k_proj.bias"):
                parameter.mul_(12)
        reference.bfloat16().float()
        stored = StoredModel.open(tiny.save_checkpoint(reference, tmp_path / "model"))
        ids = torch.randint(SCALED.vocab_size, (1, 42))
        expected = reference(ids).logits
    computed = run(interpreted.logits_of, stored, kv, ids[:, :40], ids[:, 40:])
    error = (computed - expected).norm(dim=-1) / expected.norm(dim=-1)
    within, beyond, decoded = error.split([24, 16, 2], dim=1)
    assert max(part.mean() for part in (within, beyond, decoded)) < NEAR[kv]


@pytest.mark.parametrize("tokens", [1, 5])
def test_a_centre_that_is_large_has_the_attention_factor(run: Run, tokens: int) -> None:
    """Without the factor at the centre of INT4 keys, attention is off by 7 % or more."""
    config = replace(SCALED, num_hidden_layers=2)
    given = torch.randn(2, 1, 2, 70, 64)
    given[0] += 2
    new = tuple(torch.randn(1, tokens, heads, 64).bfloat16() for heads in (4, 2, 2))
    ours, theirs, _ = run(interpreted.attend, config, "int4", given, new, 96)
    assert (ours.float() - theirs.float()).norm() / theirs.float().norm() < 1e-2


@pytest.mark.parametrize("start", [0, 1, 4097, 131_071, 1_048_575])
def test_centres_are_rotated_exactly_however_far(run: Run, start: int) -> None:
    frequencies = 10_000.0 ** -(torch.arange(0, 64, 2, dtype=torch.float64) / 64)
    angles = start * frequencies
    computed = run(interpreted.rotation_at, frequencies, start)
    exact = torch.stack((angles.cos(), angles.sin()))
    torch.testing.assert_close(computed.double(), exact, rtol=0, atol=3e-7)


def test_the_newest_token_alone_is_attended_to_whatever_the_cache_held(run: Run) -> None:
    """A cache rewound to 3 tokens is read to 4, though all its room holds numbers."""
    given = torch.randn(2, 1, 2, 90, 128)
    new = tuple(torch.randn(1, 1, count, 128).bfloat16() for count in (32, 2, 2))
    whole, _, _ = run(interpreted.attend, HEADS, "int8", given, new, 100)
    short, expected, _ = run(interpreted.attend, HEADS, "int8", given[:, :, :, :3], new, 100)
    torch.testing.assert_close(short, expected, rtol=2e-2, atol=2e-2)
    assert (whole - short).abs().max() > 0.1


@pytest.mark.parametrize("size", [96, 4096])
def test_norm_equals_torch_s(run: Run, size: int) -> None:
    x, weight = 3 * torch.randn(3, size).bfloat16(), torch.randn(size).bfloat16()
    computed = run(interpreted.norm, x, weight, 1e-5)
    wide = x.double()
    exact = wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(computed, exact.bfloat16() * weight, rtol=1e-2, atol=1e-6)


def test_refusals(card: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = TritonLinear()
    spec = LinearSpec(128, 384, WeightFormat(4, 128), CUDA)
    assert kernel.refuses(replace(spec, device=CPU)) == "needs a CUDA device"
    assert kernel.refuses(spec) is None
    ordered = replace(spec, weight_format=WeightFormat(4, 128, act_order=True))
    assert kernel.refuses(ordered) == "takes groups of consecutive inputs only"
    card[0] = (7, 5)
    cuda.refuses_triton.cache_clear()
    assert kernel.refuses(spec) is None
    assert "takes nf4 from compute capability 8.0" in str(
        kernel.refuses(replace(spec, weight_format=NF4))
    )
    card[0] = (6, 1)
    cuda.refuses_triton.cache_clear()
    assert kernel.refuses(spec) == "needs compute capability 7.5 or more, not 6.1"
    card[0] = (8, 6)
    monkeypatch.setattr(cuda, "find_spec", lambda name: None)
    cuda.refuses_triton.cache_clear()
    assert kernel.refuses(spec) == "needs Triton, which is not installed"


def test_torch_s_int4_operator_for_cuda_fits_its_shapes(card: list[tuple[int, int]]) -> None:
    """Without a device: torch's own rules of shapes, and its refusals. Its numbers are unseen."""
    kernel, weight_format = TorchInt4Cuda(), WeightFormat(4, 128)
    spec = LinearSpec(256, 4096, weight_format, CUDA)
    assert kernel.refuses(spec) is None
    taken = sum(
        kernel.packed_format(weight_format)
        .parts(Weight("a.weight", (256, 4096), "linear"))
        .values()
    )
    with FakeTensorMode():
        packed = kernel.pack(random_weight(256, 4096, weight_format))
        assert sum(tensor.nbytes for tensor in packed.values()) == taken
        x, out = (torch.empty(3, size, dtype=torch.bfloat16) for size in (4096, 256))
        kernel.matmul(x, packed, out, torch.empty(0, dtype=torch.uint8))
    card[0] = (7, 5)
    assert kernel.refuses(spec) == "needs compute capability 8.0 or more, not 7.5"
    assert kernel.refuses(replace(spec, device=CPU)) == "needs a CUDA device"
