"""The KV cache: keys and values of all tokens so far, in tensors allocated once."""

from collections.abc import Iterable, Sequence
from copy import copy

import torch
from torch import Tensor

from calculator.errors import OptionError
from calculator.model.config import ModelConfig
from calculator.model.formats import KV_FORMATS
from glm4q.memory.kv.choose import make_store
from glm4q.memory.kv.dense import Dense
from glm4q.memory.kv.spec import KVStore, room_of
from glm4q.memory.workspace import Step


class KVCache:
    """Room for `max_seq_len` tokens in every layer; they are appended, and dropped from the end.

    All sequences of a batch are of one length. Where they are not, each has a cache that is a `row`
    of one for all.
    """

    def __init__(
        self,
        config: ModelConfig,
        max_seq_len: int,
        *,
        kv: str,
        batch: int = 1,
        devices: Sequence[tuple[torch.device, int]] = (),
    ) -> None:
        """kv: a key of KV_FORMATS. devices: where so many layers lie, first layers first; all of
        them on the CPU if not said.
        """
        self.kv, self.max_seq_len, self.batch = kv, max_seq_len, batch
        self.centered = any(weight_format.centered for weight_format in KV_FORMATS[kv])
        self.length = 0
        """Tokens that all layers hold."""
        self.unchanged = 0
        """The first tokens that nothing has overwritten since this was set."""
        self.stores: list[tuple[KVStore, KVStore]] = []
        """Keys and values, a pair for each device."""
        self._whole: KVCache | None = None
        self._first = 0
        self._places: list[tuple[int, int]] = []
        """For each layer, the number of its pair, and its number among the layers of that pair."""
        for device, layers in devices or [(torch.device("cpu"), config.num_hidden_layers)]:
            shape = layers, batch, config.num_key_value_heads, max_seq_len, config.head_dim
            keys, values = (
                make_store(weight_format, shape, device) for weight_format in KV_FORMATS[kv]
            )
            self._places += [(len(self.stores), layer) for layer in range(layers)]
            self.stores.append((keys, values))
        self.hadamard = any(store.hadamard for pair in self.stores for store in pair)
        """Whether keys or values are stored under the Hadamard transform."""

    def row(self, row: int) -> "KVCache":
        """An empty cache for one sequence alone; shares memory."""
        one = copy(self)
        one.batch, one.length, one.unchanged = 1, 0, 0
        one._whole, one._first = self.whole, self._first + row
        one.stores = [(keys.row(row), values.row(row)) for keys, values in self.stores]
        return one

    @property
    def whole(self) -> "KVCache":
        """The cache that this one is a row of, or itself."""
        return self if self._whole is None else self._whole

    @property
    def sequences(self) -> list[tuple[int, int]]:
        """The place of each sequence in the whole cache, and its length."""
        return [(self._first + place, self.length) for place in range(self.batch)]

    def write_rows(self, rows: Tensor) -> None:
        """Write the place of each sequence in the whole cache, int64 [B]."""
        for number, (place, _) in enumerate(self.sequences):
            rows[number].fill_(place)

    @property
    def tensors(self) -> list[Tensor]:
        """All that is held."""
        return [tensor for pair in self.stores for each in pair for tensor in each.tensors.values()]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    def check_room(self, tokens: int) -> None:
        """Raise OptionError where that many new tokens do not fit."""
        if self.length + tokens > self.max_seq_len:
            raise OptionError(
                f"the context is full: {self.length} tokens are cached, {tokens} are new, "
                f"and there is room for {self.max_seq_len}"
            )

    def layers(self) -> list["LayerCache"]:
        """Make each layer's view for one forward pass."""
        return [
            LayerCache(*self.stores[part], layer, length=self.length, whole=self.whole.stores[part])
            for part, layer in self._places
        ]

    def advance(self, tokens: int) -> None:
        """Count the new tokens, after every layer has appended them."""
        self.length += tokens

    def truncate(self, length: int) -> None:
        """Forget all tokens from `length` on."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate {self.length} cached tokens to {length}")
        self.length = length
        self.unchanged = min(self.unchanged, length)


class LayerCache:
    """One layer's keys and values during one forward pass."""

    def __init__(
        self,
        keys: KVStore,
        values: KVStore,
        layer: int,
        *,
        length: int = 0,
        whole: tuple[KVStore, KVStore] | None = None,
    ) -> None:
        """whole: the stores of all sequences, where keys and values are a row of them."""
        self.keys, self.values, self.layer = keys, values, layer
        self.length = length
        self.whole = (keys, values) if whole is None else whole

    @property
    def room(self) -> int:
        """Tokens of each sequence that can be held."""
        return room_of(self.keys)

    @property
    def sets_centers(self) -> bool:
        """Whether the keys that are written next set the centres, all of them together."""
        return self.keys.centers is not None and not self.length

    @classmethod
    def empty(cls, step: Step) -> "LayerCache":
        """Room for the tokens of a step and no more, as they are."""
        k = step["fresh"]
        keys, values = (Dense((1, *k.shape), torch.float32, k.device) for _ in range(2))
        return cls(keys, values, 0)

    def advance(self, tokens: int) -> None:
        """Count tokens of each sequence that a kernel has appended."""
        self.length += tokens

    def by_row(self, step: Step) -> Iterable[tuple[Step, "LayerCache"]]:
        """What attends at once, in its step: all sequences, since they are of one length."""
        return ((step, self),)

    def center_keys(self, fresh: Tensor) -> Tensor:
        """What is left of keys before rotation, [B, Hkv, T, D], changed in place; then they are
        rotated and appended.
        """
        if self.keys.centers:
            self.keys.centers.subtract(self.layer, self.length, fresh)
        return fresh

    def append_keys(self, fresh: Tensor, step: Step) -> None:
        """Store float32 keys, [B, Hkv, T, D], after those that are there; `fresh` is used up."""
        self.keys.write(self.layer, self.length, fresh, step)

    def append_values(self, fresh: Tensor, step: Step) -> None:
        """Store values, and count the tokens."""
        self.values.write(self.layer, self.length, fresh, step)
        self.length += fresh.shape[2]

    def read(self, start: int, stop: int, step: Step) -> tuple[Tensor, Tensor]:
        """Keys and values of a run of tokens in float32, [B, Hkv, stop - start, D]."""
        k, v = (step[name][:, :, : stop - start] for name in ("keys", "values"))
        self.keys.read(self.layer, start, stop, k, step)
        self.values.read(self.layer, start, stop, v, step)
        return k, v


class LayerRows:
    """One layer of caches of several sequences, each of its own length."""

    def __init__(self, rows: Sequence[LayerCache]) -> None:
        self._rows = rows
        self.layer, self.whole = rows[0].layer, rows[0].whole

    @property
    def sets_centers(self) -> bool:
        """Whether the keys of a sequence that are written next set its centres."""
        return any(cache.sets_centers for cache in self._rows)

    def advance(self, tokens: int) -> None:
        for cache in self._rows:
            cache.advance(tokens)

    def by_row(self, step: Step) -> Iterable[tuple[Step, LayerCache]]:
        """Each sequence in a step of its own."""
        return zip(step.rows, self._rows, strict=True)

    def center_keys(self, fresh: Tensor) -> Tensor:
        for cache, keys in zip(self._rows, fresh.split(1), strict=True):
            cache.center_keys(keys)
        return fresh

    def append_keys(self, fresh: Tensor, step: Step) -> None:
        for (own, cache), keys in zip(self.by_row(step), fresh.split(1), strict=True):
            cache.append_keys(keys, own)

    def append_values(self, fresh: Tensor, step: Step) -> None:
        for (own, cache), values in zip(self.by_row(step), fresh.split(1), strict=True):
            cache.append_values(values, own)


def layers_of(caches: Sequence[KVCache]) -> Sequence[LayerCache | LayerRows]:
    """Make each layer's view for one forward pass over several sequences."""
    rows = [cache.layers() for cache in caches]
    return rows[0] if len(rows) == 1 else [LayerRows(layer) for layer in zip(*rows, strict=True)]
