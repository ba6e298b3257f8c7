"""All that a model's run holds beside its weights, allocated once and from the plan alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from calculator.memory.plan import MemoryPlan
from calculator.memory.settings import Device
from glm4q.decode.graphs import Recorded
from glm4q.memory.kv.cache import KVCache
from glm4q.memory.workspace import Step, Workspace

Places = Mapping[Device, torch.device]
"""Where what the plan puts on "gpu" and "host" really lies."""


@dataclass(frozen=True)
class Part:
    """Consecutive layers on one device, and the workspace in which they run."""

    layers: range
    workspace: Workspace


@dataclass(frozen=True)
class Memory:
    """The KV cache, and a workspace on each device that has layers."""

    caches: tuple[KVCache, ...]
    """Of the sequences that a step runs: one, or rows of one that have lengths of their own."""
    parts: tuple[Part, ...]
    draft_tokens: int
    """Guessed tokens that a decoding step may verify beside its own."""
    rows: Tensor | None
    """Embedding rows on their way, [B * chunk, C], where the embedding lies on the host and the
    layers do not."""
    record: Recorded | None
    """Replays steps of one token, of the one model that runs here; None where they cannot be."""

    @classmethod
    def allocate(cls, plan: MemoryPlan, places: Places, dtype: torch.dtype) -> Self:
        """Everything that `plan` lists beside weights, operators and sampling."""
        settings = plan.settings
        cache = KVCache(
            plan.config,
            settings.context,
            kv=settings.kv,
            batch=settings.batch,
            devices=[(places[device], len(layers)) for device, layers in plan.layers.items()],
        )
        parts = [
            Part(layers, Workspace(plan.arenas[device], dtype=dtype, device=places[device]))
            for device, layers in plan.layers.items()
        ]
        rows = None
        if settings.embedding != settings.compute:
            shape = settings.batch * plan.chunk, plan.config.hidden_size
            pinned = places[settings.compute].type == "cuda"  # so that copies need not wait
            rows = torch.empty(shape, dtype=dtype, pin_memory=pinned)
        recorded = len(parts) == 1 and cache.reads_length_on_device
        return cls(
            (cache,), tuple(parts), settings.draft_tokens, rows, Recorded() if recorded else None
        )

    @property
    def cache(self) -> KVCache:
        """The only one."""
        (cache,) = self.caches
        return cache

    def row(self, row: int) -> "Memory":
        """For one sequence of the batch alone, its cache empty; shares all that is held."""
        return replace(self, caches=(self.cache.row(row),), record=None)

    def together(self, rows: Sequence["Memory"]) -> "Memory":
        """For steps of several such sequences at once."""
        return replace(self, caches=tuple(row.cache for row in rows), record=None)

    @property
    def tensors(self) -> list[Tensor]:
        """All that is held."""
        blocks = [part.workspace.block for part in self.parts]
        return [*self.cache.tensors, *blocks, *([] if self.rows is None else [self.rows])]

    @property
    def device(self) -> torch.device:
        """Where logits come out."""
        return self.parts[-1].workspace.block.device

    @property
    def chunk(self) -> int:
        """The most new tokens of a step."""
        return self.parts[0].workspace.tokens

    def advance(self, tokens: int) -> None:
        """Count new tokens of every sequence."""
        for cache in self.caches:
            cache.advance(tokens)

    def row_steps(self, step: Step) -> tuple[Step, ...]:
        """A step for each cache: the whole where all sequences are of one length."""
        return (step,) if len(self.caches) == 1 else step.rows

    def steps(self, tokens: int) -> list[tuple[Step, range]]:
        """A step's buffers on each device, with the layers that run there, in their order."""
        batch = sum(cache.batch for cache in self.caches)
        return [(part.workspace.step(tokens, batch), part.layers) for part in self.parts]
