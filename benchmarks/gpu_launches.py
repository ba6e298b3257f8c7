"""The launches of GLM-4-9B as a card would run them, on tensors that hold nothing."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from calculator.memory.making import ROWS
from calculator.memory.plan import Planner
from calculator.memory.settings import Settings
from calculator.model.formats import NF4, WeightFormat, assign_formats
from calculator.model.presets import PRESETS
from glm4q.kernels.cuda import lowering_of
from glm4q.kernels.gpu.attention.launches import AttentionLaunches
from glm4q.kernels.gpu.launch import Launch
from glm4q.kernels.gpu.norm import norm
from glm4q.kernels.gpu.products.linear import Product
from glm4q.memory.allocation import Memory
from quantize.methods.codes import Codes
from quantize.methods.gptq import BLOCK
from quantize.methods.gpu.compensate import compensate
from quantize.methods.gpu.descend import descend
from quantize.methods.operands import Compensation, Descent
from quantize.methods.refine import LONGEST_BLOCK

HIDDEN = 4096
LAYER = HIDDEN, HIDDEN
HEAD = 151_552, HIDDEN
META = torch.device("meta")
AMPERE = 80
KVS = "bf16", "int8", "k8v4", "int4"
"""Caches that have kernels."""


def product(
    shape: tuple[int, int], rows: int, weight_format: WeightFormat, capability: int
) -> list[Launch]:
    """Return the launches that multiply so many bfloat16 tokens by a layer of [N, K]."""
    outputs, inputs = shape
    groups = weight_format.groups(inputs)
    packed = {
        "qweight": _empty(inputs * weight_format.bits // 32, outputs, dtype=torch.int32),
        "scales": _empty(
            groups,
            outputs,
            dtype=torch.float16 if weight_format.scheme == "groups" else torch.float32,
        ),
    }
    if weight_format.scheme == "nf4":
        packed["book"] = _empty(16, dtype=torch.float32)
    if not weight_format.symmetric:
        packed["qzeros"] = _empty(groups, outputs * weight_format.bits // 32, dtype=torch.int32)
    compute = torch.bfloat16 if capability >= AMPERE else torch.float16
    x, out = _empty(rows, inputs), _empty(rows, outputs)
    turing, few = capability < AMPERE, weight_format.scheme != "nf4"
    product = Product(x, packed, out, out, compute, turing=turing, few=few)
    scratch = _empty(product.cut.partial_bytes + 4 * rows, dtype=torch.uint8)
    return replace(product, scratch=scratch).launches()


def attention(kv: str, capability: int, tokens: int = 1, context: int = 8192) -> list[Launch]:
    """Return the launches of attention from so many tokens to a cache of that format."""
    config = replace(PRESETS["glm-4-9b-chat"], num_hidden_layers=1)
    settings = Settings(context=context, kv=kv)
    plan = Planner(config, assign_formats(config, WeightFormat(4, 128))).plan(settings)
    memory = Memory.allocate(plan, {"gpu": META, "host": META}, torch.bfloat16)
    ((step, _),) = memory.steps(tokens)
    ((keys, values),) = memory.cache.stores
    lowering = lowering_of(divmod(capability, 10))
    return AttentionLaunches(step, keys, values, 0, lowering).append_and_attend()


def decode(
    capability: int, kvs: tuple[str, ...] = ("int8", "int4")
) -> Iterator[tuple[str, Launch]]:
    """What one token takes, each kind of launch once, by name."""
    formats: dict[str, tuple[tuple[int, int], WeightFormat]] = {
        "int4 g128": (LAYER, WeightFormat(4, 128)),
        "int8 g128 head": (HEAD, WeightFormat(8, 128)),
        "int4 g64 asymmetric": (LAYER, WeightFormat(4, 64, zero_bits=4)),
    }
    if capability >= AMPERE:
        formats["nf4"] = LAYER, NF4
    for name, (shape, weight_format) in formats.items():
        for launch in product(shape, 1, weight_format, capability):
            yield f"{name} {launch.kernel.__name__}", launch
    for kv in kvs:
        for launch in attention(kv, capability):
            yield f"{kv} {launch.kernel.__name__}", launch
    x = _empty(1, HIDDEN)
    yield "norm", norm(x, _empty(HIDDEN), 1e-5, x)


def several(capability: int) -> Iterator[tuple[str, Launch]]:
    """Products of a few and of many tokens."""
    for rows in (8, 16, 512):
        numbered = [NF4] if capability >= AMPERE else []
        for weight_format in (WeightFormat(4, 128), WeightFormat(8, 128), *numbered):
            for launch in product(LAYER, rows, weight_format, capability):
                yield f"{weight_format} x {rows} {launch.kernel.__name__}", launch


def prompts(capability: int) -> Iterator[tuple[str, Launch]]:
    """Attention of a few and of many tokens."""
    for kv in KVS:
        for tokens in (3, 512):
            for launch in attention(kv, capability, tokens):
                yield f"{kv} x {tokens} {launch.kernel.__name__}", launch


def rounding() -> Iterator[tuple[str, Launch]]:
    """What GPTQ and coordinate descent take for a block of a layer's columns."""
    for weight_format in WeightFormat(4, 128), WeightFormat(8, 64, zero_bits=8):
        bits, groups = weight_format.bits, weight_format.groups(HIDDEN)
        size = min(HIDDEN // groups, LONGEST_BLOCK)
        numbers, matrix = _floats(ROWS, HIDDEN), _floats(HIDDEN, HIDDEN)
        codes = Codes(
            _empty(ROWS, HIDDEN, dtype=torch.uint8),
            _empty(ROWS, groups, dtype=torch.float16),
            _empty(ROWS, groups, dtype=torch.uint8),
        )
        group, errors = _empty(HIDDEN, dtype=torch.int32), _floats(ROWS, BLOCK)
        compensation = Compensation(numbers, numbers, matrix, group, codes, bits)
        yield f"{weight_format} gptq", compensate(compensation, 0, BLOCK, errors)
        scales, change = _floats(ROWS, groups), _floats(ROWS, size)
        descent = Descent(numbers, scales, codes.zero_points, numbers, matrix, bits)
        for rescales, name in ((True, "descent with scales"), (False, "descent")):
            launch = descend(descent, 0, size, change, rescales=rescales)
            yield f"{weight_format} {name}", launch


def _floats(*shape: int) -> Tensor:
    return _empty(*shape, dtype=torch.float32)


def _empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=META)
