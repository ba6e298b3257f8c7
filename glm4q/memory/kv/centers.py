"""What the keys of a head have in common, taken off before they are cached.

Before it is rotated, most of a key is the same for every token, and INT4 would spend its codes on
that. The mean of the keys that are written first is their head's centre: the rest of each key is
rotated and stored, and a reader gets it with the centre back, rotated to the key's position.
"""

from copy import copy

import torch
from torch import Tensor

from glm4q.memory.kv.hadamard import add_rotated
from glm4q.memory.kv.rotation import rotate_along
from glm4q.memory.workspace import Step


class Centers:
    """One vector for each head of some layers: [layers, B, Hkv, 1, D]."""

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.vectors = torch.zeros(shape, device=device)

    def row(self, row: int) -> "Centers":
        """The centres of one sequence; they share memory with these."""
        one = copy(self)
        one.vectors = self.vectors[:, row : row + 1]
        return one

    def subtract(self, layer: int, start: int, fresh: Tensor) -> None:
        """From keys before rotation, [B, Hkv, T, D]; those of token 0 and with it set the centre.

        A rewind to token 0 sets it anew: what is read is the same but for INT4's rounding.
        """
        center = self.vectors[layer]
        if start == 0:
            torch.mean(fresh, 2, keepdim=True, out=center)
        fresh.sub_(center)

    def add(self, layer: int, start: int, rotated: Tensor, step: Step) -> None:
        """Add the centres to rotated keys of the tokens from `start` on, [B, Hkv, n, D]."""
        center = step["tile_centers"][:, :, : rotated.shape[2]]
        add_rotated(rotate_along(self.vectors[layer], start, step, center), step, rotated)
