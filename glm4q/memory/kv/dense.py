"""Cached vectors as they are, in bfloat16 or float32."""

from copy import copy

import torch
from torch import Tensor

from glm4q.memory.kv.centers import Centers
from glm4q.memory.workspace import Step


class Dense:
    """One tensor of numbers."""

    hadamard = False
    centers: Centers | None = None

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        self._numbers = torch.empty(shape, dtype=dtype, device=device)
        self.tensors = {"numbers": self._numbers}

    def write(self, layer: int, start: int, fresh: Tensor, step: Step) -> None:
        self._numbers[layer, :, :, start : start + fresh.shape[2]] = fresh

    def read(self, layer: int, start: int, stop: int, out: Tensor, step: Step) -> None:
        out.copy_(self._numbers[layer, :, :, start:stop])

    def row(self, row: int) -> "Dense":
        one = copy(self)
        one._numbers = self._numbers[:, row : row + 1]
        one.tensors = {"numbers": one._numbers}
        return one
