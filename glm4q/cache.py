"""The KV cache: keys and values of all tokens so far, in two tensors allocated once."""

import torch
from torch import Tensor

from calculator.config import ModelConfig
from calculator.errors import OptionError


class KVCache:
    """Room for `max_seq_len` tokens in every layer; they are appended, and dropped from the end."""

    def __init__(
        self,
        config: ModelConfig,
        max_seq_len: int,
        *,
        batch: int = 1,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (
            config.num_hidden_layers,
            batch,
            config.num_key_value_heads,
            max_seq_len,
            config.head_dim,
        )
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.max_seq_len = max_seq_len
        self.length = 0
        """Tokens that all layers hold."""

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def reserve(self, tokens: int) -> list["LayerCache"]:
        """Each layer's view for a pass of that many new tokens. Raises OptionError when full."""
        if self.length + tokens > self.max_seq_len:
            raise OptionError(
                f"the context is full: {self.length} tokens are cached, {tokens} are new, "
                f"and there is room for {self.max_seq_len}"
            )
        return [LayerCache(k, v, self.length) for k, v in zip(self.keys, self.values, strict=True)]

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

    def __init__(self, keys: Tensor, values: Tensor, length: int) -> None:
        self._keys, self._values = keys, values  # [B, Hkv, max_seq_len, D]
        self.length = length

    @property
    def num_kv_heads(self) -> int:
        return self._keys.shape[1]

    def append(self, k: Tensor, v: Tensor) -> None:
        """Store new keys and values, [B, T, Hkv, D], after those that are there."""
        stop = self.length + k.shape[1]
        self._keys[:, :, self.length : stop] = k.transpose(1, 2)
        self._values[:, :, self.length : stop] = v.transpose(1, 2)
        self.length = stop

    def read(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a run of tokens in float32, [B, Hkv, stop - start, D]."""
        k, v = (held[:, :, start:stop].float() for held in (self._keys, self._values))
        return k, v
