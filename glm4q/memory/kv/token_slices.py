"""The cached keys and values of a run of tokens, copied out of a cache and back, bit for bit."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from glm4q.memory.kv.cache import KVCache

SIDES = ("keys", "values")
CENTERS = "centers"
"""The tensor of a side that has no tokens: it goes with the first token of a sequence."""


def copy_tokens(cache: KVCache, start: int, stop: int) -> dict[str, Tensor]:
    """Copy the tokens from `start` to `stop` of a row to the host, as they lie in the cache.

    Each tensor is [layers, 1, Hkv, stop - start, ...], with the layers of all devices.
    """
    return {
        name: torch.cat([part.cpu() for part in parts])
        for name, parts in _tensors(cache, start, stop)
    }


def restore_tokens(cache: KVCache, start: int, stop: int, tensors: Mapping[str, Tensor]) -> None:
    """Write what `copy_tokens` has copied. Raises ValueError where it is of another cache."""
    places = dict(_tensors(cache, start, stop))
    if places.keys() != tensors.keys():
        raise ValueError(f"it has {sorted(tensors)}, and the cache {sorted(places)}")
    for name, parts in places.items():
        layers = sum(len(part) for part in parts)
        ours, theirs = (layers, *parts[0].shape[1:]), tuple(tensors[name].shape)
        if ours != theirs or parts[0].dtype != tensors[name].dtype:
            raise ValueError(
                f"{name} is {tensors[name].dtype} {theirs}, and the cache's {parts[0].dtype} {ours}"
            )
    for name, parts in places.items():
        for part, stored in zip(
            parts, tensors[name].split([len(part) for part in parts]), strict=True
        ):
            part.copy_(stored)


def _tensors(cache: KVCache, start: int, stop: int) -> Iterator[tuple[str, list[Tensor]]]:
    """Yield each tensor's name, and its views on all devices."""
    for number, side in enumerate(SIDES):
        stores = [pair[number] for pair in cache.stores]
        for name in stores[0].tensors:
            whole = [store.tensors[name] for store in stores]
            if name != CENTERS:
                yield f"{side}.{name}", [tensor[:, :, :, start:stop] for tensor in whole]
            elif start == 0:
                yield f"{side}.{name}", whole
