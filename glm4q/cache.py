"""The KV cache: keys and values of all tokens so far, in tensors allocated once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from calculator.config import ModelConfig
from calculator.errors import OptionError
from calculator.formats import KV_FORMATS
from glm4q.kernels.attention import FusedAttention, choose_attention
from glm4q.kv.choose import make_store
from glm4q.kv.dense import Dense
from glm4q.kv.spec import KVStore
from glm4q.workspace import Step


class KVCache:
    """Room for `max_seq_len` tokens in every layer; they are appended, and dropped from the end."""

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
        self.max_seq_len = max_seq_len
        self.length = 0
        """Tokens that all layers hold."""
        self.stores: list[tuple[KVStore, KVStore]] = []
        """Keys and values, a pair for each device."""
        self._layers: list[tuple[KVStore, KVStore, int, FusedAttention | None]] = []
        for device, layers in devices or [(torch.device("cpu"), config.num_hidden_layers)]:
            shape = layers, batch, config.num_key_value_heads, max_seq_len, config.head_dim
            keys, values = (make_store(form, shape, device) for form in KV_FORMATS[kv])
            self.stores.append((keys, values))
            fused = choose_attention(config, max_seq_len, kv=kv, device=device)
            self._layers += [(keys, values, layer, fused) for layer in range(layers)]

    @property
    def tensors(self) -> list[Tensor]:
        """All that is held."""
        return [tensor for pair in self.stores for each in pair for tensor in each.tensors.values()]

    @property
    def reads_length_on_device(self) -> bool:
        """Whether single tokens go through layers the same way however many are cached."""
        return all(fused is not None for *_, fused in self._layers)

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    def reserve(self, tokens: int) -> list["LayerCache"]:
        """Each layer's view for a pass of that many new tokens. Raises OptionError when full."""
        if self.length + tokens > self.max_seq_len:
            raise OptionError(
                f"the context is full: {self.length} tokens are cached, {tokens} are new, "
                f"and there is room for {self.max_seq_len}"
            )
        return [LayerCache(*each, length=self.length) for each in self._layers]

    def advance(self, tokens: int) -> None:
        """Count the new tokens, after every layer has appended them."""
        self.length += tokens

    def truncate(self, length: int) -> None:
        """Forget all tokens from `length` on."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot truncate {self.length} cached tokens to {length}")
        self.length = length


class LayerCache:
    """One layer's keys and values during one forward pass."""

    def __init__(
        self,
        keys: KVStore,
        values: KVStore,
        layer: int,
        fused: FusedAttention | None = None,
        *,
        length: int = 0,
    ) -> None:
        """fused: what attends for a single new token, if not torch's operators."""
        self.keys, self.values, self._layer = keys, values, layer
        self.fused = fused
        self.length = length

    @classmethod
    def empty(cls, step: Step) -> "LayerCache":
        """Room for the tokens of a step and no more, as they are."""
        k = step["fresh"]
        keys, values = (Dense((1, *k.shape), torch.float32, k.device) for _ in range(2))
        return cls(keys, values, 0)

    def append_keys(self, fresh: Tensor, step: Step) -> None:
        """Store float32 keys, [B, Hkv, T, D], after those that are there; `fresh` is used up."""
        self.keys.write(self._layer, self.length, fresh, step)

    def append_values(self, fresh: Tensor, step: Step) -> None:
        """Store values, and count the tokens."""
        self.values.write(self._layer, self.length, fresh, step)
        self.length += fresh.shape[2]

    def append_and_attend(self, fused: FusedAttention, step: Step) -> Tensor:
        """Cache the only new token of a step, and attend from it: "q", "k", "v" to "attended"."""
        self.length += 1
        return fused.attend(step, self.keys, self.values, self._layer)

    def read(self, start: int, stop: int, step: Step) -> tuple[Tensor, Tensor]:
        """Keys and values of a run of tokens in float32, [B, Hkv, stop - start, D]."""
        k, v = (step[name][:, :, : stop - start] for name in ("keys", "values"))
        self.keys.read(self._layer, start, stop, k, step)
        self.values.read(self._layer, start, stop, v, step)
        return k, v
