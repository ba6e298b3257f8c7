"""MemoryPlan: every buffer that the runtime holds for a model, variant and context, in bytes."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from itertools import groupby
from operator import itemgetter

from calculator.dataclass import dataclass
from calculator.errors import OptionError
from calculator.memory.allocator import (
    CACHE_SLACK,
    STEP_SLACK,
    layer_block_bytes,
    reserved_bytes,
)
from calculator.memory.arena import Arena, make_arena
from calculator.memory.placement import layers_of, placement
from calculator.memory.scratch import ServedWeights
from calculator.memory.settings import Device, Settings
from calculator.memory.terms import PlacedWeight, Term, kv_terms, weight_terms
from calculator.model.architecture import Weight
from calculator.model.config import ModelConfig
from calculator.model.formats import KV_FORMATS, WeightFormat, refuse_unfit_kv

CUDA_CONTEXT_BYTES = 457 << 20
"""A process takes these bytes of a GPU before its first tensor. It is ollama's constant; users of
llama.cpp saw 451 to 456 MiB on an RTX 4090. An H200 takes more: docs/first-gpu.md."""

SAMPLING_BYTES = 46
"""Bytes of each logit while a token is chosen: copies without the unlikely, a sorted copy with its
order, probabilities and their sums. An H200 took 45.8, of which 32 are its sort; a CPU, which
sorts only the likeliest, takes less (tests/glm4q/memory/test_workspace.py)."""


@dataclass(frozen=True)
class MemoryPlan:
    """All terms. The runtime allocates from here whatever it keeps.

    Operators and sampling, which the workspace lists too, come and go.
    """

    config: ModelConfig
    settings: Settings
    weights: tuple[Term, ...]
    kv_cache: tuple[Term, ...]
    workspace: tuple[Term, ...]
    overhead: tuple[Term, ...]
    """Terms that are no buffer of ours: CUDA context, allocator slack, reserves."""
    arenas: Mapping[Device, Arena]
    """The one block of memory for steps on each device."""

    layers: Mapping[Device, range]
    """Which layers each device runs, in their order."""

    @property
    def chunk(self) -> int:
        """Tokens of each sequence in one prefill step."""
        return min(self.settings.prefill_chunk, self.settings.context)

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

    @property
    def compute_bytes(self) -> int:
        """The sum of all terms where the layers run."""
        return self.device_bytes(self.settings.compute)

    @property
    def bus_bytes_per_token(self) -> int:
        """Bytes that cross between host and GPU for each token: its hidden state, once.

        It crosses twice where an embedding on the GPU goes before layers on the host.
        """
        away = {term.name for term in self.weights if term.device != self.settings.compute}
        crossings = 0 if not away else 1 if "embedding" in away else 2
        return crossings * self.config.hidden_size * self.settings.activation_bits // 8

    def device_bytes(self, device: Device) -> int:
        """The sum of all terms on a device."""
        return sum(term.bytes for term in self.terms if term.device == device)


@dataclass(frozen=True)
class _Placed:
    """The weights in one placement, which do not change with the context."""

    terms: tuple[Term, ...]
    slack: int


class Planner:
    """Plans of one model in fixed formats for many settings; its weights are listed only once.

    source: where the formats come from, "config" or "headers". served: what the kernels of each
    device make of the weights; dequantizing ones if None. tied: whether the head is the embedding,
    where the weights are only a part of the model.
    """

    def __init__(
        self,
        config: ModelConfig,
        formats: Mapping[Weight, WeightFormat],
        *,
        source: str = "config",
        served: Mapping[Device, ServedWeights] | None = None,
        tied: bool | None = None,
    ) -> None:
        self.config = config
        self._source = source
        alike = ServedWeights.dequantizing(formats)
        self._served = served or {"gpu": alike, "host": alike}
        self.tied = all(weight.role != "head" for weight in formats) if tied is None else tied
        self._placed: dict[tuple[Device, Device, int | None], _Placed] = {}

    def plan(self, settings: Settings) -> MemoryPlan:
        """The plan for these settings. Raises OptionError where they do not go together."""
        self._refuse(settings)
        placed = self._weights(settings)
        layers = layers_of(self.config, settings)
        kv_cache = tuple(
            term
            for device, run in layers.items()
            for term in kv_terms(self.config, settings, device, len(run))
        )
        arenas = {device: self._arena(settings, device) for device in layers}
        return MemoryPlan(
            config=self.config,
            settings=settings,
            weights=placed.terms,
            kv_cache=kv_cache,
            workspace=tuple(self._workspace(settings, arenas)),
            overhead=_overhead(settings, placed.slack),
            arenas=arenas,
            layers=layers,
        )

    def _refuse(self, settings: Settings) -> None:
        refuse_unfit_kv(settings.kv, self.config.head_dim)
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

    def _weights(self, settings: Settings) -> _Placed:
        key = settings.embedding, settings.compute, settings.gpu_layers
        if key not in self._placed:
            device_of = placement(self.config, settings)
            formats = {device: served.formats for device, served in self._served.items()}
            placed = [
                PlacedWeight(weight, formats[device][weight], device)
                for weight in formats[settings.compute]
                for device in (device_of(weight),)
            ]
            terms = weight_terms(placed, self._source)
            self._placed[key] = _Placed(terms, _weights_slack(placed))
        return self._placed[key]

    def _arena(self, settings: Settings, device: Device) -> Arena:
        chunk = min(settings.prefill_chunk, settings.context)
        needs = self._served[device].needs
        return make_arena(
            self.config,
            batch=settings.batch,
            chunk=chunk,
            room=settings.context,
            activation_bytes=settings.activation_bits // 8,
            scratch=(
                needs(settings.batch * chunk).scratch_bytes,
                needs(_decoded(settings)).scratch_bytes,
            ),
            draft=settings.draft_tokens,
            head=device == settings.compute,
        )

    def _workspace(self, settings: Settings, arenas: Mapping[Device, Arena]) -> Iterator[Term]:
        tokens = settings.batch * min(settings.prefill_chunk, settings.context)
        for device, arena in arenas.items():
            yield Term.single("workspace", device, arena.bytes, partial(_sum_of, arena), "config")
            needs = self._served[device].needs
            kinds = tokens, _decoded(settings)
            if operator := max(needs(each).operator_bytes for each in kinds):
                yield Term.single("operators", device, operator, "largest result", "config")
        logits = settings.batch * self.config.vocab_size
        yield Term.single(
            "sampling",
            settings.compute,
            logits * SAMPLING_BYTES,
            f"{logits:,} logits x {SAMPLING_BYTES} B",
            "config",
        )
        if settings.embedding != settings.compute:
            numbers = tokens * self.config.hidden_size
            size = settings.activation_bits // 8
            yield Term.single(
                "embedding rows",
                settings.embedding,
                numbers * size,
                f"{tokens} tokens x {self.config.hidden_size} x {size} B",
                "config",
            )


def kv_bytes_per_token(config: ModelConfig, kv: str) -> int:
    """Return the bytes that one token takes in the cache: keys and values of all layers."""
    vectors = sum(weight_format.head_bytes(config.head_dim) for weight_format in KV_FORMATS[kv])
    return config.num_hidden_layers * config.num_key_value_heads * vectors


def _weights_slack(placed: Sequence[PlacedWeight]) -> int:
    """Return what PyTorch's allocator takes beyond the weights on the GPU, loaded in their order.

    The tensors of a layer share one block.
    """
    on_gpu = [
        (each.weight.layer, size)
        for each in placed
        if each.device == "gpu"
        for size in each.format.parts(each.weight).values()
    ]
    requests: list[int] = []
    for layer, tensors in groupby(on_gpu, key=itemgetter(0)):
        sizes = [size for _, size in tensors]
        requests += sizes if layer is None else [layer_block_bytes(sizes)]
    return reserved_bytes(requests) - sum(size for _, size in on_gpu)


def _sum_of(arena: Arena) -> str:
    return arena.formula


def _decoded(settings: Settings) -> int:
    """Return the tokens of all sequences in one decoding step."""
    return settings.batch * min(1 + settings.draft_tokens, settings.context)


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
        Term.single(
            "reserve", "gpu", settings.display_reserve, "left to other programs", "assumed"
        ),
        Term.single("safety margin", "gpu", settings.margin, "as asked for", "assumed"),
    )
