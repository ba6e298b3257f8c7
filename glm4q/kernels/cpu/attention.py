"""`attend` by the native extension: all threads read the cache in the format it is stored in."""

import torch
from torch import Tensor

from calculator.errors import KernelError
from glm4q.kernels.attention.append_tokens import append_and_attend
from glm4q.kernels.attention.attention_spec import LARGEST_HEAD, AttentionSpec
from glm4q.kernels.cpu.checks import address, require, room, sizes
from glm4q.kernels.cpu.extension import find_instruction_set, refuses_extension, required_extension
from glm4q.kernels.cpu.records import (
    KV_BFLOAT16,
    KV_FLOAT32,
    KV_GROUP,
    KV_INT4,
    KV_INT8,
    AttentionRecord,
    CacheRecord,
)
from glm4q.memory.kv.cache import LayerCache, LayerRows
from glm4q.memory.kv.dense import Dense
from glm4q.memory.kv.hadamard import hadamard_transform
from glm4q.memory.kv.int4 import Int4
from glm4q.memory.kv.int8 import Int8
from glm4q.memory.kv.spec import KVStore
from glm4q.memory.workspace import Step

DTYPES = {
    KV_FLOAT32: torch.float32,
    KV_BFLOAT16: torch.bfloat16,
    KV_INT8: torch.int8,
    KV_INT4: torch.uint8,
}
"""Dtypes of the codes, by the number of a format."""


def format_number(store: KVStore) -> int:
    """The number of a store's format in glm4q/native/constants.h."""
    if isinstance(store, Dense):
        dtype = store.tensors["numbers"].dtype
        return KV_FLOAT32 if dtype == torch.float32 else KV_BFLOAT16
    if isinstance(store, Int8):
        return KV_INT8
    if isinstance(store, Int4):
        return KV_INT4
    raise KernelError(f"the native extension knows no cache format {type(store).__name__}")


def cache_record(store: KVStore, layer: int, places: tuple[int, ...], size: int) -> CacheRecord:
    """The keys or values of a layer, after their tensors are checked. Raises KernelError.

    places: [B, Hkv, room]. size: numbers of a vector.
    """
    number = format_number(store)
    tensors = list(store.tensors.values())
    require(all(0 <= layer < len(tensor) for tensor in tensors), f"the cache has no layer {layer}")
    codes, *others = (tensor[layer] for tensor in tensors)
    stored = size // 2 if number == KV_INT4 else size
    scales = {KV_INT8: places, KV_INT4: (*places, size // KV_GROUP, 2)}.get(number)
    require(len(others) == (scales is not None) + (store.centers is not None), "no such cache")
    return CacheRecord(
        number,
        address(codes, "the cache", DTYPES[number], (*places, stored)),
        None if scales is None else address(others[0], "scales", torch.float16, scales),
        None
        if store.centers is None
        else address(others[-1], "centres", torch.float32, (*places[:-1], 1, size)),
    )


class NativeAttention:
    """All threads read the cache in the format it is stored in."""

    name = "native"
    reads_length_on_device = False
    rows_alike = True

    def refuses(self, spec: AttentionSpec) -> str | None:
        if reason := refuses_extension():
            return reason
        if spec.device.type != "cpu":
            return "runs on the CPU only"
        if spec.config.head_dim > LARGEST_HEAD:
            return f"takes heads of up to {LARGEST_HEAD}, not {spec.config.head_dim}"
        return None

    def __call__(self, step: Step, cache: LayerCache | LayerRows) -> Tensor:
        return append_and_attend(step, cache, native_attend)


def native_attend(step: Step, cache: LayerCache, instruction_set: str = "auto") -> None:
    """Causal attention of the newest T tokens to all cached ones: from "queries" to "mixed"."""
    queries, mixed = step["queries"], step["mixed"]
    if cache.keys.hadamard:
        queries = hadamard_transform(queries, step, step["transformed_queries"])
    record = attention_record(step, cache, queries)
    native = required_extension()
    native.attend(find_instruction_set(instruction_set), record, torch.get_num_threads())
    if cache.values.hadamard:
        mixed.copy_(hadamard_transform(mixed, step, step["mixed_hadamard"]))


def attention_record(step: Step, cache: LayerCache, queries: Tensor) -> AttentionRecord:
    """One call of `attend`, after all tensors are checked. Raises KernelError."""
    batch, kv_heads, rows, size = shape = sizes(queries, "queries", 4)
    tokens, partials, frequencies = step.shape.tokens, step["partial_sums"], step["frequencies"]
    require(size <= LARGEST_HEAD, f"a head must have at most {LARGEST_HEAD} numbers, not {size}")
    require(rows % tokens == 0, f"{rows} queries of a head are no multiple of {tokens} tokens")
    require(
        tokens <= cache.length <= cache.room,
        f"{tokens} of {cache.length} tokens cannot be new in a cache for {cache.room}",
    )
    places = batch, kv_heads, cache.room
    # The cosine at a tile's position 0. Only centres need it: the queries have the factor already.
    factor = 1.0 if cache.keys.centers is None else step["tile_rotation"][0, 0, 0].item()
    return AttentionRecord(
        batch,
        tokens,
        kv_heads,
        rows // tokens,
        size,
        cache.room,
        cache.length,
        cache_record(cache.keys, cache.layer, places, size),
        cache_record(cache.values, cache.layer, places, size),
        address(frequencies, "frequencies", torch.float64, frequencies.shape),
        frequencies.numel(),
        factor,
        address(queries, "queries", torch.float32, shape),
        address(step["mixed"], "mixed", torch.float32, shape),
        room(partials, "partial_sums", torch.float32, 0),
        partials.nbytes,
    )
