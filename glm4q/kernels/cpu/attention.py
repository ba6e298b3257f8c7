"""`attend` by the native extension: the cache is read as it lies, by all threads."""

import torch
from torch import Tensor

from glm4q.kernels.cpu.native import extension
from glm4q.memory.kv.cache import LayerCache
from glm4q.memory.kv.dense import Dense
from glm4q.memory.kv.hadamard import hadamard_transform
from glm4q.memory.kv.int4 import Int4
from glm4q.memory.kv.int8 import Int8
from glm4q.memory.kv.spec import KVStore
from glm4q.memory.workspace import Step

MOST_HEAD_DIM = 256


def format_number(store: KVStore) -> int:
    """Of a store's format, as glm4q/native/attention.h counts them."""
    if isinstance(store, Dense):
        return 0 if store.tensors["numbers"].dtype == torch.float32 else 1
    return {Int8: 2, Int4: 3}[type(store)]


def side(store: KVStore, layer: int) -> tuple[int, int, int]:
    """The addresses of a layer's codes, scales and centres; 0 for what there is not."""
    codes, *others = (tensor[layer].data_ptr() for tensor in store.tensors.values())
    scales, centers = (*others, 0, 0)[:2]
    return codes, scales, centers


def attends_natively(queries: Tensor) -> bool:
    """Whether `native_attend` takes a step's queries."""
    fits = queries.shape[-1] <= MOST_HEAD_DIM
    return extension() is not None and fits and queries.device.type == "cpu"


def native_attend(step: Step, cache: LayerCache, path: str = "auto") -> None:
    """Causal attention of the newest T tokens to all cached ones: from "queries" to "mixed"."""
    native, queries, mixed = extension(), step["queries"], step["mixed"]
    assert native is not None
    batch, kv_heads, rows, size = queries.shape
    if cache.keys.hadamard:
        queries = hadamard_transform(queries, step, step["transformed_queries"])
    partials = step["partial_sums"]
    native.attend(
        native.find_path(path),
        batch,
        step.shape.tokens,
        kv_heads,
        rows // step.shape.tokens,
        size,
        cache.room,
        cache.length,
        format_number(cache.keys),
        *side(cache.keys, cache.layer),
        format_number(cache.values),
        *side(cache.values, cache.layer),
        step["frequencies"].data_ptr(),
        step["frequencies"].numel(),
        queries.data_ptr(),
        mixed.data_ptr(),
        partials.data_ptr(),
        partials.numel(),
        torch.get_num_threads(),
    )
    if cache.values.hadamard:
        mixed.copy_(hadamard_transform(mixed, step, step["mixed_hadamard"]))
