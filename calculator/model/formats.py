"""How numbers are stored, in a file and in memory: bits, groups, zero points, bytes."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from math import ceil, prod
from typing import Literal

from calculator.dataclass import dataclass
from calculator.errors import OptionError
from calculator.model.architecture import Role, Weight, weights
from calculator.model.config import ModelConfig
from calculator.options import one_of

GROUP_SIZES = (32, 64, 128)
SCALE_BYTES = 2
CENTER_BYTES = 4
PACK_BITS = 32
"""GPTQ packs codes into 32-bit words, along inputs (codes) and along outputs (zero points)."""


Scheme = Literal["groups", "int4pack", "nf4", "nf4-double", "llm-int8"]
"""Layouts of codes. "groups": GPTQ and this project, by groups of a row's inputs. "int4pack":
torch's packed operator, in memory only, with a bf16 zero beside each scale. The others are those of
bitsandbytes, whose NF4 knows no rows but blocks of the flattened weight; "double" quantizes their
scales once more."""

NF4_BLOCK = 64
NF4_NESTED_BLOCK = 256


@dataclass(frozen=True)
class WeightFormat:
    """How a weight is stored: w = (code - zero_point) * scale, group by group along its inputs."""

    bits: int
    """16 is bfloat16, 32 is float32; fewer are codes."""
    group_size: int | None = None
    """Inputs that share a scale; None is a whole row (per channel)."""
    zero_bits: int = 0
    """Bits of each stored zero point; none in a symmetric format, whose zero is the middle code."""
    act_order: bool = False
    """Groups follow the order of activations: each input stores its group's number."""
    scheme: Scheme = "groups"

    @property
    def is_quantized(self) -> bool:
        return self.bits < 16

    @property
    def symmetric(self) -> bool:
        return self.zero_bits == 0

    def groups(self, inputs: int) -> int:
        """Groups in a row of `inputs` weights."""
        return ceil(inputs / self.group_size) if self.group_size else 1

    def parts(self, weight: Weight) -> Mapping[str, int]:
        """Bytes of each tensor that holds the weight, by its stored name."""
        return _parts(self, weight.shape)

    def numbers(self, weight: Weight) -> Mapping[str, tuple[int, int]]:
        """(how many numbers, bits of each) of each tensor that holds the weight."""
        return self.numbers_of(weight.shape)

    def numbers_of(self, shape: tuple[int, ...]) -> Mapping[str, tuple[int, int]]:
        """`numbers` of any weight of that shape."""
        return _numbers(self, shape)

    def __str__(self) -> str:
        if not self.is_quantized:
            return {16: "bf16", 32: "fp32"}[self.bits]
        if self.scheme != "groups":
            return self.scheme
        group = f"g{self.group_size}" if self.group_size else "channel"
        return f"int{self.bits} {group}" + ("" if self.symmetric else " asymmetric")


# The layers of a model are alike, so a few shapes have all weights.
@lru_cache(maxsize=1024)
def _parts(weight_format: WeightFormat, shape: tuple[int, ...]) -> Mapping[str, int]:
    numbers = _numbers(weight_format, shape)
    return {name: ceil(count * bits / 8) for name, (count, bits) in numbers.items()}


@lru_cache(maxsize=1024)
def _numbers(weight_format: WeightFormat, shape: tuple[int, ...]) -> Mapping[str, tuple[int, int]]:
    count = prod(shape)
    if not weight_format.is_quantized:
        return {"weight": (count, weight_format.bits)}
    if weight_format.scheme not in ("groups", "int4pack"):
        return _bitsandbytes_numbers(weight_format.scheme, count, shape[0])
    outputs, inputs = shape
    scales = outputs * weight_format.groups(inputs)
    if weight_format.scheme == "int4pack":
        return {"qweight": (count, 4), "scales_and_zeros": (2 * scales, 16)}
    numbers = {"qweight": (count, weight_format.bits), "scales": (scales, 8 * SCALE_BYTES)}
    if weight_format.zero_bits:
        numbers["qzeros"] = (scales, weight_format.zero_bits)
    if weight_format.act_order:
        numbers["g_idx"] = (inputs, 32)
    return numbers


def _bitsandbytes_numbers(scheme: Scheme, count: int, outputs: int) -> dict[str, tuple[int, int]]:
    """bitsandbytes 0.50: functional.quantize_4bit, nn.Linear8bitLt."""
    if scheme == "llm-int8":
        return {"weight": (count, 8), "SCB": (outputs, 32)}
    blocks = ceil(count / NF4_BLOCK)
    numbers = {"weight": (count, 4), "weight.quant_map": (16, 32)}
    if scheme == "nf4":
        return {**numbers, "weight.absmax": (blocks, 32)}
    return {
        **numbers,
        "weight.absmax": (blocks, 8),
        "weight.nested_absmax": (ceil(blocks / NF4_NESTED_BLOCK), 32),
        "weight.nested_quant_map": (256, 32),
    }


BF16 = WeightFormat(16)
FP32 = WeightFormat(32)
NF4 = WeightFormat(4, NF4_BLOCK, scheme="nf4")
LLM_INT8 = WeightFormat(8, scheme="llm-int8")

BITS = {"bf16": 16, "int8": 8, "int4": 4}
BITSANDBYTES = {"nf4": NF4, "llm-int8": LLM_INT8}
"""Names of the formats on the command line."""


def parse_format(weights: str, group_size: str, *, symmetric: bool = True) -> WeightFormat:
    """Return the weight format that the command line names. Raises OptionError."""
    bits = BITS[one_of("weights", weights, tuple(BITS))]
    known = {**{str(size): size for size in GROUP_SIZES}, "channel": None}
    one_of("group size", group_size, tuple(known))
    if bits == 16:
        return BF16
    return WeightFormat(bits, known[group_size], zero_bits=0 if symmetric else bits)


def assign_formats(
    config: ModelConfig,
    linear: WeightFormat,
    head: WeightFormat = BF16,
    dense: WeightFormat = BF16,
) -> dict[Weight, WeightFormat]:
    """The format of every weight, by role. A tied head that is quantized becomes its own weight."""
    if head.is_quantized:
        config = config.untied()
    by_role: dict[Role, WeightFormat] = {"linear": linear, "head": head}
    return {weight: by_role.get(weight.role, dense) for weight in weights(config)}


@dataclass(frozen=True)
class KVFormat:
    """How the vector that one token leaves in one key or value head is stored."""

    bits: int
    group_size: int | None = None
    """Numbers that share a scale; None is the whole head."""
    group_bytes: int = 0
    """Scale, and zero point where there is one, of each group."""
    centered: bool = False
    """Whether vectors are stored minus the centre of their head, which is kept in float32."""

    def head_bytes(self, head_dim: int) -> int:
        """Bytes of one head's vector of one token."""
        return self.code_bytes(head_dim) + self.scale_bytes(head_dim)

    def code_bytes(self, head_dim: int) -> int:
        """Bytes of its numbers or codes alone."""
        return head_dim * self.bits // 8

    def scale_bytes(self, head_dim: int) -> int:
        """Bytes of its scales and zero points; 0 where it is not quantized."""
        groups = head_dim // self.group_size if self.group_size else 1
        return groups * self.group_bytes

    def center_bytes(self, head_dim: int) -> int:
        """Bytes of the centre of one head; 0 where vectors have none."""
        return head_dim * CENTER_BYTES if self.centered else 0


FP32_KV = KVFormat(32)
BF16_KV = KVFormat(16)
INT8_KV = KVFormat(8, group_bytes=2)  # a scale
INT4_KV = KVFormat(4, group_size=64, group_bytes=4)  # a scale and a zero point
INT4_KEYS = replace(INT4_KV, centered=True)

KV_FORMATS: dict[str, tuple[KVFormat, KVFormat]] = {
    "fp32": (FP32_KV, FP32_KV),
    "bf16": (BF16_KV, BF16_KV),
    "int8": (INT8_KV, INT8_KV),
    "k8v4": (INT8_KV, INT4_KV),
    "int4": (INT4_KEYS, INT4_KV),
}
"""The formats of keys and of values by name. Keys suffer more from few bits than values do."""


def refuse_unfit_kv(kv: str, head_dim: int) -> None:
    """Raise OptionError where vectors of that size cannot be cached so."""
    for weight_format in KV_FORMATS[kv]:
        if weight_format.group_size and head_dim % weight_format.group_size:
            raise OptionError(
                f"kv {kv} takes heads of a multiple of {weight_format.group_size} numbers, "
                f"not {head_dim}"
            )


def refuse_unfit(formats: Mapping[Weight, WeightFormat]) -> None:
    """Raise OptionError at the first weight whose shape cannot be stored in its format.

    bitsandbytes' formats take every shape.
    """
    quantized = {
        weight: weight_format
        for weight, weight_format in formats.items()
        if weight_format.is_quantized and weight_format.scheme == "groups"
    }
    widths = {weight.shape[1] for weight in quantized}
    fitting = [str(size) for size in GROUP_SIZES if not any(width % size for width in widths)]
    for weight, weight_format in quantized.items():
        outputs, inputs = weight.shape
        if weight_format.group_size and inputs % weight_format.group_size:
            raise OptionError(
                f"group size {weight_format.group_size} does not divide {weight.module}, "
                f"{inputs} wide; "
                f"{', '.join([*fitting, 'channel'])} would do"
            )
        pack = PACK_BITS // weight_format.bits
        for side, size in (("inputs", inputs), ("outputs", outputs)):
            if size % pack:
                raise OptionError(
                    f"{weight.module} has {size} {side}; GPTQ's {weight_format.bits}-bit format "
                    f"needs a multiple of {pack}"
                )
