"""Cached vectors as INT8: each has a float16 scale of its own."""

from copy import copy

import torch
from torch import Tensor

from glm4q.memory.kv.centers import Centers
from glm4q.memory.workspace import Step

LARGEST_CODE = 127
SMALLEST_SCALE_EXPONENT = -24
SMALLEST_SCALE = 2.0**SMALLEST_SCALE_EXPONENT
"""The least float16 above zero: a vector of zeros can be divided by its scale."""


class Int8:
    """Codes and scales."""

    hadamard = False
    centers: Centers | None = None

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self._codes = torch.empty(shape, dtype=torch.int8, device=device)
        self._scales = torch.empty(shape[:-1], dtype=torch.float16, device=device)
        self.tensors = {"codes": self._codes, "scales": self._scales}

    def write(self, layer: int, start: int, fresh: Tensor, step: Step) -> None:
        place = slice(start, start + fresh.shape[2])
        low, high, scale = (each[..., :1] for each in step["extremes"])
        torch.amin(fresh, -1, keepdim=True, out=low)
        torch.amax(fresh, -1, keepdim=True, out=high)
        torch.maximum(high, low.neg_(), out=scale).div_(LARGEST_CODE).clamp_(min=SMALLEST_SCALE)
        stored = self._scales[layer, :, :, place].unsqueeze(-1)
        stored.copy_(scale)
        scale.copy_(stored)  # as a reader will find it
        fresh.div_(scale).round_().clamp_(-LARGEST_CODE, LARGEST_CODE)
        self._codes[layer, :, :, place] = fresh

    def read(self, layer: int, start: int, stop: int, out: Tensor, step: Step) -> None:
        scales = step["tile_scales"][:, :, : stop - start, :1]
        scales.copy_(self._scales[layer, :, :, start:stop].unsqueeze(-1))
        out.copy_(self._codes[layer, :, :, start:stop]).mul_(scales)

    def row(self, row: int) -> "Int8":
        one = copy(self)
        one._codes = self._codes[:, row : row + 1]
        one._scales = self._scales[:, row : row + 1]
        one.tensors = {"codes": one._codes, "scales": one._scales}
        return one
