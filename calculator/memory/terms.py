"""Terms of the plan: buffers of one kind on one device, with the sum that gives their bytes."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    buffers_of: tuple[Buffer, ...] | Callable[[], tuple[Buffer, ...]]
    """The buffers, or what lists them."""
    known_bytes: int | None = None
    """Their sum, where it is known without the list."""

    @cached_property
    def buffers(self) -> tuple[Buffer, ...]:
        return self.buffers_of if isinstance(self.buffers_of, tuple) else self.buffers_of()

    @property
    def formula(self) -> str:
        """The sum that gives the bytes."""
        return self.formula_of if isinstance(self.formula_of, str) else self.formula_of()

    @cached_property
    def bytes(self) -> int:
        if self.known_bytes is not None:
            return self.known_bytes
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


def weight_terms(placed: Sequence[PlacedWeight], source: str) -> tuple[Term, ...]:
    """One term for each (class of tensors, device), in the order of the forward pass."""
    sizes: dict[tuple[str, Device], int] = {}
    counts: dict[tuple[str, Device], dict[int, int]] = {}
    # Layers are alike: each kind of weight is looked at once, in the order of its first one.
    kinds = Counter(
        (each.weight.role, each.weight.shape, each.format, each.device) for each in placed
    )
    for (role, shape, weight_format, device), weights in kinds.items():
        for part, (count, bits) in weight_format.numbers_of(shape).items():
            term = _term_name(role, weight_format, part), device
            sizes[term] = sizes.get(term, 0) + weights * -(-count * bits // 8)
            by_bits = counts.setdefault(term, {})
            by_bits[bits] = by_bits.get(bits, 0) + weights * count
    return tuple(
        Term(
            name,
            device,
            partial(_formula, counts[name, device]),
            source,
            partial(_buffers, placed, name, device),
            size,
        )
        for (name, device), size in sizes.items()
    )


def _buffers(placed: Iterable[PlacedWeight], term: str, device: Device) -> tuple[Buffer, ...]:
    """List the tensors of a term, in the order of the forward pass."""
    return tuple(
        Buffer(
            weight.name if part == "weight" else f"{weight.module}.{part}", -(-count * bits // 8)
        )
        for weight, weight_format, place in placed
        if place == device
        for part, (count, bits) in weight_format.numbers(weight).items()
        if _term_name(weight.role, weight_format, part) == term
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
