"""MemoryPlan: every buffer that the runtime holds for a model, variant and context, in bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from calculator.architecture import EMBEDDING, Role, Weight, weights
from calculator.config import ModelConfig
from calculator.errors import OptionError
from calculator.formats import BF16, KV_FORMATS, WeightFormat
from calculator.workspace import PREFILL_CHUNK, workspace

Device = Literal["gpu", "host"]

CUDA_CONTEXT_BYTES = 457 << 20
"""What a process takes on a GPU before its first tensor: ollama's constant; llama.cpp's users saw
451 to 456 MiB on an RTX 4090. Not yet measured by this project."""

MAX_TOKENS = 10**9
"""More context, sequences or tokens at once than any machine holds: a slip of the finger."""

TERM_OF_ROLE: dict[Role, str] = {
    "embedding": "embedding",
    "linear": "linear",
    "head": "head",
    "norm": "norms and biases",
    "bias": "norms and biases",
}
PART_NAMES = {
    "weight": "weights",
    "qweight": "codes",
    "scales": "scales",
    "qzeros": "zero points",
    "g_idx": "group order",
}


@dataclass(frozen=True)
class Settings:
    """What a user chooses beside the weights' formats."""

    context: int = 8192
    """Tokens that the KV cache has room for, of each sequence."""
    batch: int = 1
    """Sequences at once."""
    prefill_chunk: int = PREFILL_CHUNK
    """Prompt tokens in one forward pass."""
    kv: str = "bf16"
    """A key of KV_FORMATS."""
    embedding: Device = "gpu"
    """Where embedding rows are looked up; on the host they cost a small copy a step."""
    compute: Device = "gpu"
    """Where the layers run."""
    activation_bits: int = 16
    """Width of activations: 32 on a CPU without bfloat16 arithmetic."""

    def __post_init__(self) -> None:
        if self.kv not in KV_FORMATS:
            raise OptionError(f"kv must be one of {', '.join(KV_FORMATS)}, not {self.kv}")
        for name in ("context", "batch", "prefill_chunk"):
            if not 0 < getattr(self, name) <= MAX_TOKENS:
                raise OptionError(f"{name} must be 1 to {MAX_TOKENS}, not {getattr(self, name)}")


@dataclass(frozen=True)
class Buffer:
    """One tensor, or the workspace of a step."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Term:
    """Buffers of one kind on one device, with the sum that gives their bytes."""

    name: str
    device: Device
    formula: str
    source: str
    """Where the operands come from: config, headers, measured, assumed."""
    buffers: tuple[Buffer, ...]

    @property
    def bytes(self) -> int:
        return sum(buffer.bytes for buffer in self.buffers)


@dataclass(frozen=True)
class MemoryPlan:
    """All terms. Weights and KV cache are exact; the workspace bounds what a step allocates."""

    config: ModelConfig
    settings: Settings
    weights: tuple[Term, ...]
    kv_cache: Term
    workspace: Term
    runtime_overhead: Term

    @property
    def terms(self) -> tuple[Term, ...]:
        return (*self.weights, self.kv_cache, self.workspace, self.runtime_overhead)

    @property
    def weights_bytes(self) -> int:
        return sum(term.bytes for term in self.weights)

    @property
    def kv_bytes_per_token(self) -> int:
        return kv_bytes_per_token(self.config, self.settings.kv)

    def device_bytes(self, device: Device) -> int:
        """The sum of all terms on a device."""
        return sum(term.bytes for term in self.terms if term.device == device)


def make_plan(
    config: ModelConfig,
    formats: Mapping[Weight, WeightFormat],
    settings: Settings,
    *,
    source: str = "config",
) -> MemoryPlan:
    """The plan of a model whose weights lie in memory in `formats`. Raises OptionError.

    source: where the formats come from, "config" or "headers".
    """
    if settings.context > config.max_position_embeddings:
        raise OptionError(
            f"context {settings.context} is longer than the model's "
            f"{config.max_position_embeddings} positions"
        )
    tied = all(weight.role != "head" for weight in formats)
    if settings.embedding == "host" and settings.compute == "gpu" and tied:
        raise OptionError("embedding must be gpu where the model's head is tied to it, not host")
    overhead = CUDA_CONTEXT_BYTES if settings.compute == "gpu" else 0
    return MemoryPlan(
        config=config,
        settings=settings,
        weights=_weight_terms(formats, settings, source),
        kv_cache=_kv_cache(config, settings),
        workspace=_workspace(config, formats, settings),
        runtime_overhead=Term(
            "CUDA context", settings.compute, "constant", "measured elsewhere",
            (Buffer("context", overhead),),
        ),
    )  # fmt: skip


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


def kv_bytes_per_token(config: ModelConfig, kv: str) -> int:
    """Bytes that one token takes in the cache, keys and values, all layers."""
    return config.kv_heads_of_model * KV_FORMATS[kv].head_bytes(config.head_dim)


def _weight_terms(
    formats: Mapping[Weight, WeightFormat], settings: Settings, source: str
) -> tuple[Term, ...]:
    buffers: dict[tuple[str, Device], list[Buffer]] = {}
    sums: dict[tuple[str, Device], dict[WeightFormat, int]] = {}
    for weight, form in formats.items():
        device = settings.embedding if weight.name == EMBEDDING else settings.compute
        for part, size in form.parts(weight).items():
            term = _term_name(weight, form, part), device
            name = weight.name if part == "weight" else f"{weight.module}.{part}"
            buffers.setdefault(term, []).append(Buffer(name, size))
            counts = sums.setdefault(term, {})
            counts[form] = counts.get(form, 0) + _count(weight, form, part)
    return tuple(
        Term(name, device, _formula(name, sums[name, device]), source, tuple(held))
        for (name, device), held in buffers.items()
    )


def _term_name(weight: Weight, form: WeightFormat, part: str) -> str:
    name = TERM_OF_ROLE[weight.role]
    return f"{name} {PART_NAMES[part]}" if form.is_quantized or name == "linear" else name


def _count(weight: Weight, form: WeightFormat, part: str) -> int:
    if part in ("weight", "qweight"):
        return weight.numel
    if part == "g_idx":
        return weight.shape[1]
    return weight.shape[0] * form.groups(weight.shape[1])


def _formula(name: str, counts: Mapping[WeightFormat, int]) -> str:
    def bits(form: WeightFormat) -> int:
        if name.endswith("scales"):
            return 16
        if name.endswith("zero points"):
            return form.zero_bits
        return 32 if name.endswith("group order") else form.bits

    return " + ".join(f"{count:,} x {bits(form)} bits" for form, count in counts.items())


def _kv_cache(config: ModelConfig, settings: Settings) -> Term:
    per_token = kv_bytes_per_token(config, settings.kv)
    total = settings.batch * settings.context * per_token
    head_bytes = KV_FORMATS[settings.kv].head_bytes(config.head_dim)
    return Term(
        "KV cache",
        settings.compute,
        f"{settings.batch} x {settings.context:,} tokens x {config.kv_heads_of_model} heads "
        f"x {head_bytes} B",
        "config",
        (Buffer("keys", total // 2), Buffer("values", total // 2)),
    )


def _workspace(
    config: ModelConfig, formats: Mapping[Weight, WeightFormat], settings: Settings
) -> Term:
    moment = workspace(
        config,
        formats,
        context=settings.context,
        batch=settings.batch,
        chunk=settings.prefill_chunk,
        activation_bytes=settings.activation_bits // 8,
    )
    return Term(
        f"workspace ({moment.name})",
        settings.compute,
        moment.formula,
        "config",
        (Buffer("workspace", moment.bytes),),
    )
