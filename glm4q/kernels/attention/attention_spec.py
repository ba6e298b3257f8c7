"""The question that every attention kernel answers, and what it does once it is chosen."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from calculator.model.config import ModelConfig
from glm4q.memory.kv.cache import LayerCache, LayerRows
from glm4q.memory.workspace import Step

LARGEST_HEAD = 256
"""The most numbers of a head that our kernels attend with."""


@dataclass(frozen=True)
class AttentionSpec:
    """Attention of a model's layers on one device, for one kind of step."""

    config: ModelConfig
    kv: str
    """The cache's format, a key of KV_FORMATS."""
    room: int
    """Tokens of each sequence that the cache has room for."""
    device: torch.device
    several: bool
    """Whether a step brings several new tokens of each sequence: a prompt, or a draft."""

    def __str__(self) -> str:
        what = "attention of several tokens" if self.several else "attention of one token"
        return f"{what} over {self.kv} on {self.device.type}"


class AttentionKernel(Protocol):
    """One way to attend."""

    @property
    def name(self) -> str:
        """The name under which `glm4q bench` shows it."""

    @property
    def reads_length_on_device(self) -> bool:
        """Whether one token runs in the same launches however many tokens are cached."""

    @property
    def rows_alike(self) -> bool:
        """Whether each of up to FEW_TOKENS rows has the bits that it has alone."""

    def refuses(self, spec: AttentionSpec) -> str | None:
        """Why it does not serve, or None where it does."""

    def __call__(self, step: Step, cache: LayerCache | LayerRows) -> Tensor:
        """Rotate and append the step's tokens, then attend: "q", "k", "v" to "attended"."""
