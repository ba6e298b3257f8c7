"""What C++ is given by mistake raises a Python exception, and nothing is written.

Each function is called once with what it takes, and then again and again with one tensor of another
dtype, shape, stride, size, alignment or device. `make sanitize` runs this over a build that stops
at every access outside of a tensor.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from calculator.errors import KernelError
from calculator.memory.arena import make_arena
from calculator.memory.workspace import BufferName, LentUse, buffer_for
from calculator.model.formats import KV_FORMATS, WeightFormat
from glm4q.kernels.cpu import native as kernels
from glm4q.kernels.cpu.attention import attention_record
from glm4q.kernels.cpu.extension import extension, required_extension
from glm4q.kernels.cpu.native import Native
from glm4q.kernels.cpu.records import STEP_BUFFERS
from glm4q.memory.kv.cache import LayerCache
from glm4q.memory.kv.choose import make_store
from glm4q.memory.kv.spec import KVStore
from glm4q.memory.workspace import Step, Workspace
from glm4q.model.fused_layers import LINEARS, NORMS, FusedLayers
from glm4q.model.linear import QuantLinear
from glm4q.weights.packing import QuantizedWeight
from quantize.methods import native as methods
from quantize.methods.codes import Codes, Packed
from quantize.methods.operands import Compensation, Descent
from tests import tiny
from tests.glm4q.random_weights import BOOK, random_weight

pytestmark = pytest.mark.skipif(extension() is None, reason="the native extension was not built")
REFUSALS = KernelError, ValueError, TypeError, RuntimeError
"""The last one is torch's own."""
CPU = torch.device("cpu")
CONFIG = replace(
    tiny.BASE, model_type="glm4", head_dim=64, num_attention_heads=4, num_key_value_heads=2
)
"""A small model of the kind with four norms a layer."""

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Call:
    """A function of the border, and tensors that it takes."""

    run: Callable[[Tensors], object]
    tensors: Tensors
    roomy: frozenset[str] = frozenset()
    """Tensors that may be larger than needed: buffers."""
    copied: frozenset[str] = frozenset()
    """Tensors that are copied first, so that strides and alignment do not matter."""
    converted: frozenset[str] = frozenset()
    """Tensors that are copied to the right dtype first."""
    of_any_size: frozenset[str] = frozenset({"partial_sums"})
    """Buffers to which the kernels fit their work: without any room it is done in one range."""


def _misaligned(tensor: Tensor) -> Tensor:
    """The same numbers, one byte behind where they may lie."""
    data = bytearray(tensor.nbytes + 1)
    data[1:] = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return torch.frombuffer(data, dtype=tensor.dtype, offset=1).view(tensor.shape)


def _spread(tensor: Tensor) -> Tensor:
    """The same numbers with gaps between them."""
    return tensor.repeat_interleave(2, -1)[..., ::2]


def _mistakes(name: str, tensor: Tensor, call: Call) -> Iterator[tuple[str, Tensor]]:
    other = torch.int16 if tensor.dtype != torch.int16 else torch.int32
    if name not in call.converted:
        yield "dtype", torch.zeros(tensor.shape, dtype=other)
        yield "dtype of its size", torch.zeros(tensor.shape, dtype=_other_dtype(tensor.dtype))
    yield "no memory", torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    if name in call.of_any_size:
        return
    yield "no numbers", tensor.new_empty(0)
    yield "one dimension more, and no numbers", tensor.unsqueeze(0)[:, :0]
    for axis, size in enumerate(tensor.shape):
        yield f"short in {axis}", tensor.narrow(axis, 0, size - 1).contiguous()
        # A cache may have room for more layers and sequences.
        in_cache = axis < 2 and name.startswith(("keys ", "values "))
        if name not in call.roomy and not in_cache:
            yield f"long in {axis}", torch.cat([tensor, tensor.narrow(axis, 0, 1)], axis)
    if name not in call.copied:
        yield "gaps", _spread(tensor)
        if tensor.itemsize > 1:
            yield "misaligned", _misaligned(tensor)
        if tensor.dim() > 1 and min(tensor.shape[-2:]) > 1:
            yield "transposed", tensor.transpose(-1, -2).contiguous().transpose(-1, -2)


def _other_dtype(dtype: torch.dtype) -> torch.dtype:
    """A dtype of the same size."""
    floats = {8: torch.float64, 4: torch.float32, 2: torch.float16, 1: torch.bool}
    integers = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}
    return (integers if dtype.is_floating_point else floats)[dtype.itemsize]


def _weight(*, book: bool) -> QuantizedWeight:
    weight = random_weight(48, 96, WeightFormat(4, 32, zero_bits=0 if book else 4))
    return replace(weight, book=BOOK, qzeros=None) if book else weight


def _matmul(*, book: bool) -> Call:
    kernel = Native()
    packed = kernel.pack(_weight(book=book))
    x, out = torch.randn(3, 96), torch.zeros(3, 48)
    bits = kernel.activation_bits(4, book=book)
    scratch = torch.zeros(kernels.activations_bytes(3, 96, 32, bits), dtype=torch.uint8)
    names = tuple(packed)

    def run(given: Tensors) -> None:
        weight = {name: given[name] for name in names}
        kernel.matmul(given["x"], weight, given["out"], given["scratch"])

    tensors = {"x": x, "out": out, "scratch": scratch, **packed}
    return Call(run, tensors, frozenset({"scratch"}))


def _matmul_dense() -> Call:
    x, weight = torch.randn(3, 70).bfloat16(), torch.randn(10, 70).bfloat16()
    return Call(
        lambda given: kernels.matmul_dense(given["x"], given["weight"], given["out"]),
        {"x": x, "weight": weight, "out": torch.zeros(3, 10)},
    )


def _norm() -> Call:
    tensors = {"x": torch.randn(3, 70), "weight": torch.randn(70), "out": torch.zeros(3, 70)}
    return Call(
        lambda given: kernels.norm(given["x"], given["weight"], 1e-5, given["out"]), tensors
    )


def _round_rows() -> Call:
    weight_format = WeightFormat(4, 32)
    packed = Packed.empty((21, 64), weight_format)

    def run(given: Tensors) -> None:
        to = Packed(given["qweight"], given["scales"], given["zero_points"])
        methods.round_rows(given["weight"], weight_format, (1.0, 0.9), given["importance"], to)

    tensors = {"weight": torch.randn(21, 64), "importance": torch.rand(64), **vars(packed)}
    copied = frozenset({"weight", "importance"})
    return Call(run, tensors, copied=copied, converted=frozenset({"importance"}))


def _codes() -> Tensors:
    return {
        "scales": torch.rand(21, 2).half() + 1,
        "zeros": torch.full((21, 2), 8, dtype=torch.uint8),
        "codes": torch.zeros(21, 64, dtype=torch.uint8),
    }


def _compensate() -> Call:
    def run(given: Tensors) -> None:
        codes = Codes(given["codes"], given["scales"], given["zeros"])
        weights = given["rows"], given["left"], given["root"]
        methods.compensate(Compensation(*weights, given["group"], codes, 4), 32, 64)

    weights = {name: torch.randn(21, 64) for name in ("rows", "left")}
    group = torch.arange(64, dtype=torch.int32) // 32
    return Call(run, {**weights, "root": torch.eye(64), "group": group, **_codes()})


def _descend() -> Call:
    def run(given: Tensors) -> None:
        tensors = given["codes"], given["scales"], given["zeros"], given["slope"], given["hessian"]
        methods.descend(Descent(*tensors, 4), 32, 64, rescales=True)

    tensors = {name: tensor.float() for name, tensor in _codes().items()}
    tensors["zeros"] = tensors["zeros"].to(torch.uint8)
    return Call(run, {**tensors, "slope": torch.randn(21, 64), "hessian": torch.eye(64)})


def _subtract() -> Call:
    return Call(
        lambda given: methods.subtract(given["out"], given["change"], given["matrix"], 0, 64),
        {
            "out": torch.randn(21, 64),
            "change": torch.randn(21, 16),
            "matrix": torch.randn(16, 64),
        },
    )


def _gram() -> Call:
    return Call(
        lambda given: methods.gram(given["left"], given["right"], given["sums"]),
        {
            "left": torch.randn(9, 20).bfloat16(),
            "right": torch.randn(9, 30).bfloat16(),
            "sums": torch.zeros(20, 30),
        },
    )


def _step(tokens: int) -> Step:
    inputs = max(CONFIG.intermediate_size, CONFIG.num_attention_heads * CONFIG.head_dim)
    scratch = kernels.activations_bytes(2 * tokens, inputs, 32, 8)
    arena = make_arena(
        CONFIG,
        batch=2,
        chunk=tokens,
        room=20,
        activation_bytes=4,
        scratch=(scratch, scratch),
        draft=tokens - 1,
    )
    workspace = Workspace(arena, dtype=torch.float32, device="cpu")
    workspace.block.zero_()
    return workspace.step(tokens)


def _stores(kv: str) -> tuple[KVStore, KVStore]:
    shape = 1, 2, CONFIG.num_key_value_heads, 20, CONFIG.head_dim
    keys, values = (make_store(side, shape, CPU) for side in KV_FORMATS[kv])
    for tensor in (*keys.tensors.values(), *values.tensors.values()):
        tensor.zero_()
    return keys, values


def _named(stores: tuple[KVStore, KVStore]) -> Tensors:
    sides = zip(("keys", "values"), stores, strict=True)
    return {
        f"{side} {name}": tensor for side, store in sides for name, tensor in store.tensors.items()
    }


def _replace(stores: tuple[KVStore, KVStore], given: Tensors) -> None:
    for side, store in zip(("keys", "values"), stores, strict=True):
        for name in store.tensors:
            store.tensors[name] = given[f"{side} {name}"]


def _attend(kv: str) -> Call:
    step, stores = _step(3), _stores(kv)
    names: tuple[BufferName | LentUse, ...] = ("queries", "mixed", "partial_sums")

    def run(given: Tensors) -> None:
        _replace(stores, given)
        cache = LayerCache(*stores, 0, length=9)
        record = attention_record(_with_buffers(step, given, names), cache, given["queries"])
        required_extension().attend(1, record, 2)

    buffers: Tensors = {name: step[name] for name in names}
    return Call(run, {**buffers, **_named(stores)}, frozenset({"partial_sums"}))


def _with_buffers(step: Step, given: Tensors, names: Iterable[BufferName | LentUse]) -> Step:
    """The step with other tensors for some of its buffers."""
    others = {buffer_for(name): given[name] for name in names}
    return Step(step.shape, {**step._tensors, **others})


def _layer() -> nn.Module:
    hidden, inner, size = CONFIG.hidden_size, CONFIG.intermediate_size, CONFIG.head_dim
    queries, keys = CONFIG.num_attention_heads * size, CONFIG.num_key_value_heads * size
    shapes = {
        "q": (queries, hidden),
        "k": (keys, hidden),
        "v": (keys, hidden),
        "o": (hidden, queries),
        "gate_up": (2 * inner, hidden),
        "down": (hidden, inner),
    }
    layer, kernel = nn.Module(), Native()
    layer.self_attn, layer.mlp = nn.Module(), nn.Module()
    for field, name in LINEARS.items():
        parent, attribute = name.split(".")
        weight = random_weight(*shapes[field], WeightFormat(4, 32, zero_bits=4))
        linear = QuantLinear(weight, kernel, lambda tensor: tensor)
        linear.bias = torch.zeros(shapes[field][0]) if field in "qkv" else None
        setattr(layer.get_submodule(parent), attribute, linear)
    for name in NORMS.values():
        norm = nn.Module()
        norm.register_buffer("weight", torch.ones(hidden))
        setattr(layer, name, norm)
    return layer


def _run_layers(kv: str) -> Call:
    layer, stores, step = _layer(), _stores(kv), _step(3)
    weights = dict(layer.named_buffers())
    biases: Tensors = {
        f"{name} bias": bias
        for name in LINEARS.values()
        if isinstance(bias := layer.get_submodule(name).bias, Tensor)
    }
    buffers: Tensors = {name: step[name] for name in STEP_BUFFERS}

    def run(given: Tensors) -> None:
        _replace(stores, given)
        for name in weights:
            owner, attribute = name.rsplit(".", 1)
            setattr(layer.get_submodule(owner), attribute, given[name])
        for name in biases:
            layer.get_submodule(name.removesuffix(" bias")).bias = given[name]
        fused = FusedLayers(CONFIG, [layer], stores)
        fused.run(_with_buffers(step, given, STEP_BUFFERS), [(0, 5), (1, 2)])

    tensors = {**weights, **biases, **buffers, **_named(stores)}
    return Call(run, tensors, frozenset(buffers))


def _refuses(call: Call, given: Tensors) -> bool:
    try:
        call.run(given)
    except REFUSALS:
        return True
    return False


CALLS: Mapping[str, Callable[[], Call]] = {
    "matmul": partial(_matmul, book=False),
    "matmul by a book": partial(_matmul, book=True),
    "matmul_dense": _matmul_dense,
    "norm": _norm,
    "round_rows": _round_rows,
    "compensate": _compensate,
    "descend": _descend,
    "subtract": _subtract,
    "gram": _gram,
    **{f"attend {kv}": partial(_attend, kv) for kv in KV_FORMATS},
    **{f"run_layers {kv}": partial(_run_layers, kv) for kv in KV_FORMATS},
}


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_tensor_is_refused_and_nothing_is_written(name: str) -> None:
    call = CALLS[name]()
    call.run(call.tensors)
    before = {name: tensor.clone() for name, tensor in call.tensors.items()}
    for wrong, tensor in call.tensors.items():
        for mistake, other in _mistakes(wrong, tensor, call):
            kept = other.clone()
            given = {**call.tensors, wrong: other}
            assert _refuses(call, given), f"{wrong} with {mistake} was taken"
            assert other.is_meta or torch.equal(kept.nan_to_num(), other.nan_to_num())
    for unchanged, tensor in call.tensors.items():
        assert torch.equal(before[unchanged], tensor), unchanged


@pytest.mark.parametrize("name", CALLS)
def test_exact_buffers_are_enough(name: str) -> None:
    """Every tensor has memory of its own: the sanitizers see what reaches beyond it."""
    call = CALLS[name]()
    call.run({name: tensor.clone() for name, tensor in call.tensors.items()})
