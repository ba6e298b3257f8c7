"""Attention in a few launches, where a card can."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from calculator.model.config import ModelConfig
from glm4q.kernels.cuda import AMPERE, capability, refuses_triton
from glm4q.memory.kv.hadamard import hadamard_transform
from glm4q.memory.kv.spec import KVStore
from glm4q.memory.workspace import Step

if TYPE_CHECKING:
    from glm4q.kernels.gpu.attention_launches import AttentionLaunches

LARGEST_HEAD = 256
FEWEST_TOKENS = 16
"""A cache needs room for at least this many tokens, because the partial results of its ranges are
kept in the buffer of one tile."""


@dataclass(frozen=True)
class FusedAttention:
    """Attends by our GPU kernels; how many tokens are cached it reads on the device."""

    tensor_cores: bool

    def takes(self, tokens: int) -> bool:
        """Whether so many new tokens of a sequence attend here. Without tensor cores, prompts are
        faster by torch's operators.
        """
        return tokens == 1 or self.tensor_cores

    def append_and_attend(self, step: Step, keys: KVStore, values: KVStore, layer: int) -> Tensor:
        """One token's "q", "k" and "v" to "attended", after the tokens that "cached" counts."""
        from glm4q.kernels.gpu.launch import run_all  # Triton is not there on every machine

        run_all(self._launches(step, keys, values, layer).append_and_attend())
        return step["attended"]

    def attend(self, step: Step, keys: KVStore, values: KVStore, layer: int) -> None:
        """From "queries" to "mixed", once the step's tokens are in the cache."""
        from glm4q.kernels.gpu.launch import run_all

        launches = self._launches(step, keys, values, layer)
        if keys.hadamard:
            hadamard_transform(step["queries"], step, step["transformed_queries_on_gpu"])
        run_all(launches.attend())

    def _launches(
        self, step: Step, keys: KVStore, values: KVStore, layer: int
    ) -> "AttentionLaunches":
        from glm4q.kernels.gpu.attention_launches import AttentionLaunches

        return AttentionLaunches(step, keys, values, layer, self.tensor_cores)


def refuses_attention(
    config: ModelConfig, room: int, *, kv: str, device: torch.device
) -> str | None:
    """Why attention is torch's there; None where it is ours."""
    if reason := refuses_triton(device):
        return reason
    shared = config.num_attention_heads // config.num_key_value_heads
    if config.head_dim > LARGEST_HEAD or config.head_dim & (config.head_dim - 1):
        return f"takes heads of a power of two up to {LARGEST_HEAD}, not {config.head_dim}"
    if room < max(shared, FEWEST_TOKENS):
        return f"takes caches of {max(shared, FEWEST_TOKENS)} tokens or more, not {room}"
    if kv == "fp32":
        return "multiplies in float16, which an fp32 cache is not for"
    return None


def choose_attention(
    config: ModelConfig, room: int, *, kv: str, device: torch.device
) -> FusedAttention | None:
    """None where attention streams over the cache in torch's operators."""
    if refuses_attention(config, room, kv=kv, device=device):
        return None
    return FusedAttention((capability(device) or AMPERE) >= AMPERE)
