"""All layers of a device in one call of the native extension: glm4q/native/layers.cpp.

The modules of glm4q/model/ say what is computed. C++ computes the same, buffer by buffer, without
Python and torch between the steps: small models wait for those more than for memory.
"""

from array import array
from collections.abc import Sequence
from ctypes import Array
from dataclasses import dataclass
from weakref import ref

import torch
from torch import Tensor, nn

from calculator.errors import KernelError
from calculator.memory.workspace import BufferName, LentUse
from calculator.model.config import ModelConfig
from glm4q.kernels.attention.rope import attention_factor
from glm4q.kernels.cpu.attention import cache_record
from glm4q.kernels.cpu.checks import address, room
from glm4q.kernels.cpu.extension import required_extension
from glm4q.kernels.cpu.native import Native, activations_bytes
from glm4q.kernels.cpu.records import (
    DTYPES,
    STEP_BUFFERS,
    LayerRecord,
    LinearRecord,
    StepRecord,
)
from glm4q.memory.kv.spec import KVStore, places_of
from glm4q.memory.workspace import Step
from glm4q.model.linear import QuantLinear

LINEARS = {
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "gate_up": "mlp.gate_up_proj",
    "down": "mlp.down_proj",
}
"""Modules of a layer by their fields of LayerRecord."""
NORMS = {
    "input_norm": "input_layernorm",
    "feed_forward_norm": "post_attention_layernorm",
    "attended_norm": "post_self_attn_layernorm",
    "fed_norm": "post_mlp_layernorm",
}
"""The last two are glm4's; other models lack them."""


@dataclass(frozen=True)
class Mix:
    """How the rows of a step belong to sequences that have different numbers of new tokens."""

    decoding: int
    """Sequences that have one new token each. Their rows come first."""
    batch: int
    tokens: int
    """So many other sequences have so many new tokens each."""
    decoding_sums_bytes: int
    """The room for partial sums that a step of the decoding sequences alone has: it decides how
    their caches are divided, so they are divided alike here."""


class FusedLayers:
    """The layers and the cache as records of addresses, which C++ reads."""

    def __init__(
        self,
        config: ModelConfig,
        layers: Sequence[nn.Module],
        stores: tuple[KVStore, KVStore],
    ) -> None:
        """layers: one native kernel multiplies in all their linears. Raises KernelError."""
        self._config = config
        self._instruction_set = _native_kernel(layers).instruction_set
        self._dtype = _activation_dtype(layers)
        self._table = _table(config, layers, stores, self._dtype)
        self._owners = layers, stores  # the records hold addresses of their memory
        self._step: ref[Step] | None = None
        self._record = StepRecord()

    def run(self, step: Step, sequences: Sequence[tuple[int, int]], mix: Mix | None = None) -> None:
        """Take the step's "hidden_states" through all layers and append its tokens to the cache.

        sequences: the place of each in the stores, and the number of its tokens there. If positions
        are scaled, "rotation" and "frequencies" must be filled before. mix: how the rows belong to
        the sequences, where these have different numbers of new tokens.
        """
        if self._step is None or self._step() is not step:
            self._record = self._record_of(step, mix)
            self._step = ref(step)  # steps of one token follow each other: the record stays
        decoding = self._record.decoding
        tokens = [1] * decoding + [self._record.tokens] * (len(sequences) - decoding)
        required_extension().run_layers(
            self._instruction_set,
            self._table,
            self._record,
            array("q", [cached + new for (_, cached), new in zip(sequences, tokens, strict=True)]),
            array("q", [place for place, _ in sequences]),
            torch.get_num_threads(),
        )

    def _record_of(self, step: Step, mix: Mix | None) -> StepRecord:
        """The step's sizes and buffers, after the buffers are checked. Raises KernelError."""
        config, shape, scratch = self._config, step.shape, step["scratch"]
        mix = mix or Mix(0, shape.batch, shape.tokens, 0)
        cache_rows, _, cached_tokens = places_of(self._owners[1][0])
        buffers = {
            name: room(step[name], name, dtype, numbers)
            for name, (dtype, numbers) in self._needed(shape.batch * shape.tokens).items()
        }
        return StepRecord(
            batch=mix.batch,
            tokens=mix.tokens,
            decoding=mix.decoding,
            decoding_sums_bytes=mix.decoding_sums_bytes,
            hidden=config.hidden_size,
            inner=config.intermediate_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_size=config.head_dim,
            pairs=config.rotary_dim // 2,
            room=cached_tokens,
            cache_rows=cache_rows,
            dtype=DTYPES[self._dtype],
            partial_sums_bytes=step["partial_sums"].nbytes,
            scratch_bytes=scratch.nbytes,
            eps=config.rms_norm_eps,
            theta=0.0 if config.rope_scaling else config.rope_theta,  # 0: angles are there
            attention_factor=attention_factor(config),
            **buffers,
        )

    def _needed(self, rows: int) -> dict[BufferName | LentUse, tuple[torch.dtype, int]]:
        """The dtype of each buffer, and the numbers that it needs room for."""
        config = self._config
        hidden, inner = config.hidden_size, config.intermediate_size
        pairs, size = config.rotary_dim // 2, config.head_dim
        queries, keys = config.num_attention_heads * size, config.num_key_value_heads * size
        scratch = max(
            activations_bytes(rows, linear.inputs, linear.group, linear.activation_bits)
            for layer in self._table
            for linear in (getattr(layer, name) for name in LINEARS)
        )
        needed: dict[BufferName | LentUse, tuple[torch.dtype, int]] = {
            "hidden_states": (self._dtype, rows * hidden),
            "normed": (self._dtype, rows * hidden),
            "q": (self._dtype, rows * queries),
            "k": (self._dtype, rows * keys),
            "v": (self._dtype, rows * keys),
            "queries": (torch.float32, rows * queries),
            "mixed": (torch.float32, rows * queries),
            "partial_sums": (torch.float32, 0),
            "attended": (self._dtype, rows * queries),
            "delta": (self._dtype, rows * hidden),
            "gate_up": (self._dtype, rows * 2 * inner),
            "gated": (self._dtype, rows * inner),
            "scratch": (torch.uint8, scratch),
            "rotation": (torch.float32, 2 * rows * pairs),
            "frequencies": (torch.float64, pairs),
        }
        return {name: needed[name] for name in STEP_BUFFERS}


def _native_kernel(layers: Sequence[nn.Module]) -> Native:
    """The one kernel that multiplies in all linears. Raises KernelError."""
    kernels = {_linear(layer, name).kernel for layer in layers for name in LINEARS.values()}
    kernel = kernels.pop()
    if kernels or not isinstance(kernel, Native):
        raise KernelError("fused layers need one native kernel in all their linears")
    return kernel


def _activation_dtype(layers: Sequence[nn.Module]) -> torch.dtype:
    """The dtype of all norms and biases, which is that of the activations. Raises KernelError."""
    tensors = [
        tensor
        for layer in layers
        for tensor in (
            *(_norm(layer, name) for name in NORMS.values()),
            *(_linear(layer, name).bias for name in LINEARS.values()),
        )
        if tensor is not None
    ]
    dtypes = {tensor.dtype for tensor in tensors}
    if len(dtypes) != 1 or not dtypes <= DTYPES.keys():
        raise KernelError(f"norms and biases must be all bfloat16 or all float32, not {dtypes}")
    return tensors[0].dtype


def _table(
    config: ModelConfig,
    layers: Sequence[nn.Module],
    stores: tuple[KVStore, KVStore],
    dtype: torch.dtype,
) -> "Array[LayerRecord]":
    records = [_layer_record(config, layer, dtype) for layer in layers]
    places = places_of(stores[0])
    for number, record in enumerate(records):
        record.keys, record.values = (
            cache_record(store, number, places, config.head_dim) for store in stores
        )
    return (LayerRecord * len(records))(*records)


def _layer_record(config: ModelConfig, layer: nn.Module, dtype: torch.dtype) -> LayerRecord:
    """The layer's weights, after their tensors are checked. Raises KernelError."""
    record = LayerRecord()
    for field, name in LINEARS.items():
        setattr(record, field, _linear_record(_linear(layer, name)))
    for field, name in NORMS.items():
        weight = _norm(layer, name)
        if weight is not None:
            setattr(record, field, address(weight, name, dtype, (config.hidden_size,)))
    return record


def _linear(layer: nn.Module, name: str) -> QuantLinear:
    linear = layer.get_submodule(name)
    if not isinstance(linear, QuantLinear):
        raise KernelError(f"{name} is no quantized layer")
    return linear


def _linear_record(linear: QuantLinear) -> LinearRecord:
    if not isinstance(linear.kernel, Native):
        raise KernelError("fused layers need the native kernel in all their linears")
    return linear.kernel.linear_record(dict(linear.named_buffers()), linear.inputs, linear.bias)


def _norm(layer: nn.Module, name: str) -> Tensor | None:
    return getattr(getattr(layer, name, None), "weight", None)
