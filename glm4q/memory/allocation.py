"""All that a model's run holds beside its weights, allocated once and from the plan alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from calculator.memory.plan import MemoryPlan
from calculator.memory.settings import Device
from glm4q.memory.kv.cache import KVCache
from glm4q.memory.staging import Staging
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

    cache: KVCache
    parts: tuple[Part, ...]
    draft_tokens: int
    """Guessed tokens that a decoding step may verify beside its own."""
    staging: Staging
    """What goes to the device at each step. Rows of an embedding on the host are in the plan; ids
    of a decoding step, some hundred bytes, are not.
    """

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
        rows = settings.batch * plan.chunk, plan.config.hidden_size
        staging = Staging(
            settings.batch * (1 + settings.draft_tokens),
            rows if settings.embedding != settings.compute else None,
            places[settings.compute],
            dtype,
        )
        return cls(cache, tuple(parts), settings.draft_tokens, staging)

    @property
    def tensors(self) -> list[Tensor]:
        """All that is held."""
        blocks = [part.workspace.block for part in self.parts]
        return [*self.cache.tensors, *blocks, *([] if self.rows is None else [self.rows])]

    @property
    def rows(self) -> Tensor | None:
        """Embedding rows on their way, [B * chunk, C], where the embedding lies on the host and
        layers do not.
        """
        return self.staging.rows

    @property
    def device(self) -> torch.device:
        """Where logits come out."""
        return self.parts[-1].workspace.block.device

    @property
    def chunk(self) -> int:
        """The most new tokens of a step."""
        return self.parts[0].workspace.tokens

    def steps(self, tokens: int, batch: int | None = None) -> list[tuple[Step, range]]:
        """A step's buffers on each device, with the layers that run there, in their order.

        tokens: new tokens of each sequence. batch: sequences, all of them if not given.
        """
        return [(part.workspace.step(tokens, batch), part.layers) for part in self.parts]
