"""Cached vectors as INT4: the Hadamard transform, then a scale and a minimum for each 64 numbers.

Keys are kept less their centre, which comes off before they are rotated (see `centers`).
"""

from copy import copy

import torch
from torch import Tensor

from calculator.memory.workspace import KV_GROUP
from glm4q.memory.kv.centers import Centers
from glm4q.memory.kv.hadamard import hadamard_transform
from glm4q.memory.kv.int8 import SMALLEST_SCALE
from glm4q.memory.workspace import Step

LARGEST_CODE = 15


class Int4:
    """Codes two to a byte, number i of a vector beside number i + D / 2; scale and least value."""

    hadamard = True

    def __init__(self, shape: tuple[int, ...], device: torch.device, *, centered: bool) -> None:
        """centered: whether these are keys that are kept less their centre."""
        *places, size = shape
        self._bytes = torch.empty(*places, size // 2, dtype=torch.uint8, device=device)
        grid = *places, size // KV_GROUP, 2
        self._grids = torch.empty(grid, dtype=torch.float16, device=device)  # scale, least value
        self.tensors = {"codes": self._bytes, "scales": self._grids}
        self.centers: Centers | None = None
        if centered:
            self.centers = Centers((*places[:-1], 1, size), device)
            self.tensors["centers"] = self.centers.vectors

    def write(self, layer: int, start: int, fresh: Tensor, step: Step) -> None:
        place = slice(start, start + fresh.shape[2])
        groups = hadamard_transform(fresh, step, step["fresh_hadamard"]).unflatten(
            -1, (-1, KV_GROUP)
        )
        low, high, scale = step["extremes"]
        torch.amin(groups, -1, out=low)
        torch.amax(groups, -1, out=high)
        torch.sub(high, low, out=scale).div_(LARGEST_CODE).clamp_(min=SMALLEST_SCALE)
        stored = self._grids[layer, :, :, place]
        for part, number in enumerate((scale, low)):
            stored[..., part] = number
            number.copy_(stored[..., part])  # as a reader will find it
        groups.sub_(low.unsqueeze(-1)).div_(scale.unsqueeze(-1)).round_().clamp_(0, LARGEST_CODE)
        first, second = step["fresh_codes"].copy_(groups.flatten(-2)).chunk(2, -1)
        self._bytes[layer, :, :, place] = first.add_(second.mul_(LARGEST_CODE + 1))

    def read(self, layer: int, start: int, stop: int, out: Tensor, step: Step) -> None:
        words = self._bytes[layer, :, :, start:stop]
        codes = step["tile_codes"][:, :, : stop - start]
        first, second = codes.chunk(2, -1)
        torch.bitwise_and(words, LARGEST_CODE, out=first)
        torch.bitwise_right_shift(words, 4, out=second)
        grids = self._grids[layer, :, :, start:stop]
        number = step["tile_scales"][:, :, : stop - start]
        groups = out.copy_(codes).unflatten(-1, (-1, KV_GROUP))
        groups.mul_(number.copy_(grids[..., 0]).unsqueeze(-1))
        groups.add_(number.copy_(grids[..., 1]).unsqueeze(-1))
        if self.centers:
            self.centers.add(layer, start, out, step)

    def row(self, row: int) -> "Int4":
        one = copy(self)
        one._bytes = self._bytes[:, row : row + 1]
        one._grids = self._grids[:, row : row + 1]
        one.tensors = {"codes": one._bytes, "scales": one._grids}
        if self.centers:
            one.centers = self.centers.row(row)
            one.tensors["centers"] = one.centers.vectors
        return one
