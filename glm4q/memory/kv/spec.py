"""What a format of cached vectors is asked."""

from typing import Protocol, Self

from torch import Tensor

from glm4q.memory.kv.centers import Centers
from glm4q.memory.workspace import Step


class KVStore(Protocol):
    """One side of the cache, keys or values, of some layers."""

    tensors: dict[str, Tensor]
    """All that it holds, [layers, B, Hkv, room, ...] each."""
    hadamard: bool
    """Whether vectors are kept multiplied by `hadamard`, by which readers multiply as well."""
    centers: Centers | None
    """What comes off these vectors before they are rotated and written, and back when they are
    read."""

    def write(self, layer: int, start: int, fresh: Tensor, step: Step) -> None:
        """Store float32 vectors, [B, Hkv, T, D], from token `start` on; `fresh` is used up."""

    def read(self, layer: int, start: int, stop: int, out: Tensor, step: Step) -> None:
        """Write the vectors of tokens `start` to `stop` into `out`, float32 [B, Hkv, n, D]."""

    def row(self, row: int) -> Self:
        """The vectors of one sequence alone; shares memory."""


def places_of(store: KVStore) -> tuple[int, int, int]:
    """The sequences, heads and tokens that a layer of it has room for: [B, Hkv, room]."""
    _, batch, heads, room, *_ = next(iter(store.tensors.values())).shape
    return batch, heads, room


def room_of(store: KVStore) -> int:
    """Tokens of each sequence that it has room for."""
    return places_of(store)[2]
