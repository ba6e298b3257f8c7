"""Terms of the plan: buffers of one kind on one device, with the sum that gives their bytes."""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from typing import NamedTuple

from calculator.dataclass import dataclass
from calculator.memory.settings import Device, Settings
from calculator.model.architecture import Role, Weight
from calculator.model.config import ModelConfig
from calculator.model.formats import KV_FORMATS, KVFormat, WeightFormat

NAME_OF_ROLE: dict[Role, str] = {
    "embedding": "embedding",
    "linear": "linear",
    "head": "head",
    "norm": "norms and biases",
    "bias": "norms and biases",
}
NAME_OF_PART = {
    "weight": "codes",
    "qweight": "codes",
    "scales": "scales",
    "SCB": "scales",
    "weight.absmax": "scales",
    "weight.nested_absmax": "scales",
    "qzeros": "zero points",
    "scales_and_zeros": "scales and zeros",
    "g_idx": "group order",
    "weight.quant_map": "code book",
    "weight.nested_quant_map": "code book",
}


class Buffer(NamedTuple):
    """One tensor, or the workspace of a step."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Term:
    """Buffers of one kind on one device, with the sum that gives their bytes."""

    name: str
    device: Device
    formula_of: str | Callable[[], str]
    """The formula, or what writes it: most plans are only asked for their bytes."""
    source: str
    """Where the operands come from: config, headers, measured elsewhere, assumed."""
    buffers: tuple[Buffer, ...]

    @property
    def formula(self) -> str:
        """The sum that gives the bytes."""
        return self.formula_of if isinstance(self.formula_of, str) else self.formula_of()

    @cached_property
    def bytes(self) -> int:
        return sum(buffer.bytes for buffer in self.buffers)

    @classmethod
    def single(
        cls,
        name: str,
        device: Device,
        size: int,
        formula: str | Callable[[], str],
        source: str,
    ) -> "Term":
        """A term of one buffer of its own name."""
        return cls(name, device, formula, source, (Buffer(name, size),))


class PlacedWeight(NamedTuple):
    """A weight, as the kernels of its device keep it."""

    weight: Weight
    format: WeightFormat
    device: Device


def weight_terms(placed: Iterable[PlacedWeight], source: str) -> tuple[Term, ...]:
    """One term for each (class of tensors, device), in the order of the forward pass."""
    buffers: dict[tuple[str, Device], list[Buffer]] = {}
    counts: dict[tuple[str, Device], dict[int, int]] = {}
    for weight, weight_format, device in placed:
        module = weight.module
        for part, (count, bits) in weight_format.numbers(weight).items():
            term = _term_name(weight.role, weight_format, part), device
            name = weight.name if part == "weight" else f"{module}.{part}"
            if term not in buffers:
                buffers[term], counts[term] = [], {}
            buffers[term].append(Buffer(name, -(-count * bits // 8)))
            by_bits = counts[term]
            by_bits[bits] = by_bits.get(bits, 0) + count
    return tuple(
        Term(name, device, partial(_formula, counts[name, device]), source, tuple(held))
        for (name, device), held in buffers.items()
    )


def kv_terms(config: ModelConfig, settings: Settings, device: Device, layers: int) -> list[Term]:
    """The cache of so many layers: codes, and scales and centres where it is quantized."""
    sides = dict(zip(("keys", "values"), KV_FORMATS[settings.kv], strict=True))
    heads = layers * config.num_key_value_heads
    quantized = any(weight_format.group_bytes for weight_format in sides.values())
    batch, prefix = settings.batch, settings.shared_prefix
    own = settings.context - prefix
    words = (
        f"{batch} x {own:,} tokens" if not prefix else f"({prefix:,} + {batch} x {own:,}) tokens"
    )
    every, once = (prefix + batch * own, words), (batch, f"{batch} sequences")
    parts = {
        "KV cache codes" if quantized else "KV cache": (every, KVFormat.code_bytes),
        "KV cache scales": (every, KVFormat.scale_bytes),
        "KV cache centres": (once, KVFormat.center_bytes),
    }
    terms = []
    for name, ((count, counted), bytes_of) in parts.items():
        sizes = {
            side: bytes_of(weight_format, config.head_dim) for side, weight_format in sides.items()
        }
        if heads and any(sizes.values()):
            formula = f"{counted} x {heads} heads x ({' + '.join(map(str, sizes.values()))}) B"
            buffers = (Buffer(side, count * heads * size) for side, size in sizes.items())
            terms.append(Term(name, device, formula, "config", tuple(buffers)))
    return terms


def _term_name(role: Role, weight_format: WeightFormat, part: str) -> str:
    name = NAME_OF_ROLE[role]
    if weight_format.is_quantized:
        return f"{name} {NAME_OF_PART[part]}"
    return "linear weights" if name == "linear" else name


def _formula(counts: Mapping[int, int]) -> str:
    return " + ".join(f"{count:,} x {bits} bits" for bits, count in counts.items())
