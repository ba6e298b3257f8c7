"""The launches of one token's attention: append it to the cache, attend to all of it, merge."""

from dataclasses import dataclass

import triton
from torch import Tensor

from glm4q.kernels.gpu.append import append
from glm4q.kernels.gpu.attention import attend, merge
from glm4q.kernels.gpu.launch import Constant, Launch
from glm4q.kv.dense import Dense
from glm4q.kv.int4 import Int4
from glm4q.kv.int8 import Int8
from glm4q.kv.spec import KVStore, room_of
from glm4q.workspace import Step

KINDS: dict[type, str] = {Dense: "dense", Int8: "int8", Int4: "int4"}
BLOCKS = 256
"""Runs of the context, over all heads: two for each multiprocessor of an RTX 4090."""
BLOCK_S = {True: 64, False: 16}
"""Cached tokens of a tile, with tensor cores and without: more would not fit into registers."""
SMALLEST_TILE = 16
"""Of a tensor core."""


@dataclass(frozen=True)
class Decode:
    """One layer's attention for the token whose q, k and v the step holds.

    What streaming attention would use for tiles of the cache holds the runs' results meanwhile.
    """

    step: Step
    keys: KVStore
    values: KVStore
    layer: int
    tensor_cores: bool = True

    def launches(self) -> list[Launch]:
        """From "q", "k" and "v" to "attended"."""
        return [self._append(), self._attend(), self._merge()]

    @property
    def splits(self) -> int:
        """Runs that the context is shared out in, whatever its length."""
        heads, tile = self.step["keys"].shape[:2].numel(), self.step["keys"].shape[2]
        most = tile // max(self._shared, SMALLEST_TILE)  # so that their sums fit into a tile
        return max(min(BLOCKS // heads, most), 1)

    @property
    def _shared(self) -> int:
        return self.step["queries"].shape[2]

    @property
    def _pairs(self) -> int:
        return self.step["rotation"].shape[-1]

    @property
    def _size(self) -> int:
        return self.step["q"].shape[-1]

    def _stored(self) -> dict[str, Tensor | None]:
        found: dict[str, Tensor | None] = {}
        for side, store in (("key", self.keys), ("value", self.values)):
            codes, *scales = (tensor[self.layer] for tensor in store.tensors.values())
            found[f"{side}_codes"] = codes
            found[f"{side}_scales"] = scales[0] if scales else None
        centers = self.keys.centers
        found["centers"] = None if centers is None else centers.vectors[self.layer]
        return found

    def _kinds(self) -> dict[str, Constant]:
        return {"KEYS": KINDS[type(self.keys)], "VALUES": KINDS[type(self.values)]}

    def _append(self) -> Launch:
        step = self.step
        batch, heads = step["keys"].shape[:2]
        names = "q", "k", "v", "rotation", "hadamard", "cached", "queries"
        return Launch(
            append,
            (batch * heads, self._shared + 2),
            {
                **{name: step[name] for name in names},
                **self._stored(),
                "room": self._room,
                "scale": self._size**-0.5,
            },
            {
                "SHARED": self._shared,
                "PAIRS": self._pairs,
                "D": self._size,
                **self._kinds(),
            },
        )

    @property
    def _room(self) -> int:
        return room_of(self.keys)

    def _attend(self) -> Launch:
        step = self.step
        batch, heads = step["keys"].shape[:2]
        return Launch(
            attend,
            (self.splits, batch * heads),
            {
                "queries": step["queries"],
                **self._stored(),
                "hadamard": step["hadamard"],
                "frequencies": step["frequencies"],
                "tile_rotation": step["tile rotation"],
                "cached": step["cached"],
                "mixed": step["keys"],
                "softmax": step["scores"],
                "room": self._room,
            },
            {
                "SPLITS": self.splits,
                "SHARED": self._shared,
                "BLOCK_G": max(triton.next_power_of_2(self._shared), SMALLEST_TILE),
                "BLOCK_S": BLOCK_S[self.tensor_cores],
                "D": self._size,
                "PAIRS": self._pairs,
                "BLOCK_P": max(triton.next_power_of_2(self._pairs), SMALLEST_TILE),
                "TILE": step["tile rotation"].shape[1],
                **self._kinds(),
            },
            warps=8,
            stages=2,
        )

    def _merge(self) -> Launch:
        step = self.step
        batch, heads = step["keys"].shape[:2]
        return Launch(
            merge,
            (batch * heads, self._shared),
            {
                "mixed": step["keys"],
                "softmax": step["scores"],
                "hadamard": step["hadamard"],
                "out": step["attended"],
            },
            {
                "SPLITS": self.splits,
                "BLOCK_SPLITS": triton.next_power_of_2(self.splits),
                "SHARED": self._shared,
                "D": self._size,
                "TURNED": self.values.turned,
            },
            warps=8,
        )
