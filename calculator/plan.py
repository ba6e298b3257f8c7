"""MemoryPlan: every buffer that the runtime holds for a model, variant and context, in bytes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from calculator.allocator import CACHE_SLACK, STEP_SLACK, reserved_bytes
from calculator.architecture import EMBEDDING, Role, Weight, weights
from calculator.config import ModelConfig
from calculator.errors import OptionError
from calculator.formats import BF16, KV_FORMATS, WeightFormat
from calculator.settings import Device, Settings
from calculator.terms import Term, kv_terms, weight_terms
from calculator.workspace import Moment, dequantization_scratch, moments, quantized_kinds

CUDA_CONTEXT_BYTES = 457 << 20
"""What a process takes on a GPU before its first tensor: ollama's constant; llama.cpp's users saw
451 to 456 MiB on an RTX 4090. Not yet measured by this project."""


@dataclass(frozen=True)
class MemoryPlan:
    """All terms. Weights and KV cache are exact; the workspace bounds what a step allocates."""

    config: ModelConfig
    settings: Settings
    weights: tuple[Term, ...]
    kv_cache: tuple[Term, ...]
    workspace: tuple[Term, ...]
    overhead: tuple[Term, ...]
    """What is no buffer of ours: CUDA context, allocator slack, reserves."""
    moments: tuple[Moment, ...]
    """What shares the workspace: the fullest is its size."""

    @property
    def terms(self) -> tuple[Term, ...]:
        return (*self.weights, *self.kv_cache, *self.workspace, *self.overhead)

    @cached_property
    def weights_bytes(self) -> int:
        return sum(term.bytes for term in self.weights)

    @property
    def kv_cache_bytes(self) -> int:
        return sum(term.bytes for term in self.kv_cache)

    @property
    def workspace_bytes(self) -> int:
        return sum(term.bytes for term in self.workspace)

    @property
    def overhead_bytes(self) -> int:
        return sum(term.bytes for term in self.overhead)

    @property
    def kv_bytes_per_token(self) -> int:
        return kv_bytes_per_token(self.config, self.settings.kv)

    def device_bytes(self, device: Device) -> int:
        """The sum of all terms on a device."""
        return sum(term.bytes for term in self.terms if term.device == device)


@dataclass(frozen=True)
class _Placed:
    """What does not change with the context: the weights in one placement."""

    terms: tuple[Term, ...]
    slack: int


class Planner:
    """Plans of one model in fixed formats for many settings; its weights are listed only once.

    source: where the formats come from, "config" or "headers".
    """

    def __init__(
        self,
        config: ModelConfig,
        formats: Mapping[Weight, WeightFormat],
        *,
        source: str = "config",
    ) -> None:
        self.config = config
        self.formats = formats
        self._source = source
        self._kinds = quantized_kinds(formats)
        self.tied = all(weight.role != "head" for weight in formats)
        self._placed: dict[tuple[Device, Device, int], _Placed] = {}

    def plan(self, settings: Settings) -> MemoryPlan:
        """The plan for these settings. Raises OptionError where they do not go together."""
        self._refuse(settings)
        placed = self._weights(settings)
        kv_cache = tuple(
            term
            for device, layers in self._layers(settings).items()
            for term in kv_terms(self.config, settings, device, layers)
        )
        shared = moments(
            self.config,
            context=settings.context,
            batch=settings.batch,
            chunk=settings.prefill_chunk,
            activation_bytes=settings.activation_bits // 8,
        )
        return MemoryPlan(
            config=self.config,
            settings=settings,
            weights=placed.terms,
            kv_cache=kv_cache,
            workspace=self._workspace(settings, shared),
            overhead=_overhead(settings, placed.slack),
            moments=shared,
        )

    def _refuse(self, settings: Settings) -> None:
        if settings.context > self.config.max_position_embeddings:
            raise OptionError(
                f"context {settings.context} is longer than the model's "
                f"{self.config.max_position_embeddings} positions"
            )
        if settings.embedding == "host" and settings.compute == "gpu" and self.tied:
            raise OptionError(
                "embedding must be gpu where the model's head is tied to it, not host"
            )
        if settings.gpu_layers is not None and settings.gpu_layers > self.config.num_hidden_layers:
            raise OptionError(
                f"gpu layers must be 0 to the model's {self.config.num_hidden_layers}, "
                f"not {settings.gpu_layers}"
            )

    def _host_layers(self, settings: Settings) -> int:
        """How many layers run on the host though the rest is on the GPU: the first ones."""
        if settings.compute == "host" or settings.gpu_layers is None:
            return 0
        return self.config.num_hidden_layers - settings.gpu_layers

    def _layers(self, settings: Settings) -> dict[Device, int]:
        host = self._host_layers(settings)
        layers: dict[Device, int] = {settings.compute: self.config.num_hidden_layers - host}
        return {**layers, "host": host} if host else layers

    def _weights(self, settings: Settings) -> _Placed:
        host_layers = self._host_layers(settings)
        placement = settings.embedding, settings.compute, host_layers
        if placement not in self._placed:

            def device_of(weight: Weight) -> Device:
                if weight.name == EMBEDDING:
                    return settings.embedding
                on_host = weight.layer is not None and weight.layer < host_layers
                return "host" if on_host else settings.compute

            terms = weight_terms(self.formats, device_of, self._source)
            self._placed[placement] = _Placed(terms, _weights_slack(self.formats, device_of))
        return self._placed[placement]

    def _workspace(self, settings: Settings, shared: tuple[Moment, ...]) -> tuple[Term, ...]:
        fullest = max(shared, key=lambda moment: moment.bytes)
        tokens = settings.batch * min(settings.prefill_chunk, settings.context)
        scratch = dequantization_scratch(self._kinds, tokens=tokens)
        return tuple(
            Term.single(name, device, moment.bytes, moment.formula, "config")
            for device in self._layers(settings)
            for name, moment in (
                (f"workspace ({fullest.name})", fullest),
                ("dequantization scratch", scratch),
            )
        )


def make_plan(
    config: ModelConfig,
    formats: Mapping[Weight, WeightFormat],
    settings: Settings,
    *,
    source: str = "config",
) -> MemoryPlan:
    """The plan of a model whose weights lie in memory in `formats`. Raises OptionError."""
    return Planner(config, formats, source=source).plan(settings)


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


def _weights_slack(
    formats: Mapping[Weight, WeightFormat], device_of: Callable[[Weight], Device]
) -> int:
    """What PyTorch's allocator takes beyond the weights on the GPU, loaded in their order."""
    sizes = [
        size
        for weight, form in formats.items()
        if device_of(weight) == "gpu"
        for size in form.parts(weight).values()
    ]
    return reserved_bytes(sizes) - sum(sizes)


def _overhead(settings: Settings, slack: int) -> tuple[Term, ...]:
    if settings.compute == "host":
        return ()
    return (
        Term.single("CUDA context", "gpu", CUDA_CONTEXT_BYTES, "constant", "measured elsewhere"),
        Term.single(
            "allocator slack",
            "gpu",
            slack + CACHE_SLACK + STEP_SLACK,
            f"{slack:,} B weights + {CACHE_SLACK:,} B KV cache + {STEP_SLACK:,} B steps",
            "assumed: PyTorch's segment sizes",
        ),
        Term.single("display reserve", "gpu", settings.display_reserve, "as asked for", "assumed"),
        Term.single("safety margin", "gpu", settings.margin, "as asked for", "assumed"),
    )
