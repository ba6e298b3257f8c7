"""One token's attention in three launches, where a card can: append, attend, merge."""

from dataclasses import dataclass

import torch
from torch import Tensor

from calculator.config import ModelConfig
from glm4q.kernels.cuda import AMPERE, capability, refuses_triton
from glm4q.kv.spec import KVStore
from glm4q.workspace import Step

LARGEST_HEAD = 256
FEWEST_TOKENS = 16
"""Of room in the cache: the results of its runs lie where a tile of it would."""


@dataclass(frozen=True)
class FusedAttention:
    """Rotates, appends to the cache and attends; what is cached it reads on the device."""

    tensor_cores: bool

    def attend(self, step: Step, keys: KVStore, values: KVStore, layer: int) -> Tensor:
        """From "q", "k" and "v" to "attended", after the tokens that "cached" counts."""
        from glm4q.kernels.gpu.decode import Decode  # Triton is not there on every machine
        from glm4q.kernels.gpu.launch import run_all

        run_all(Decode(step, keys, values, layer, self.tensor_cores).launches())
        return step["attended"]


def refuses_attention(
    config: ModelConfig, room: int, *, kv: str, device: torch.device
) -> str | None:
    """Why one token's attention is torch's there; None where it is ours."""
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
