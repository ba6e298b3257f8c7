"""All layers of a device in one call of the native extension: glm4q/native/layers.cpp.

The layers in glm4q/layers/ say what is computed; this is the same, buffer by buffer, without
Python and torch between the steps. Small models wait for those more than for memory.
"""

from array import array
from collections.abc import Iterable, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from calculator.memory.workspace import BufferName
from calculator.model.config import ModelConfig
from glm4q.kernels.cpu.attention import MOST_HEAD_DIM, format_number, side
from glm4q.kernels.cpu.native import DTYPES, Native, extension
from glm4q.memory.kv.spec import KVStore, room_of
from glm4q.memory.workspace import Step
from glm4q.model.linear import QuantLinear
from glm4q.model.rope import has_attention_factor
from glm4q.weights.packing import WORD_BITS

LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_up_proj",
    "mlp.down_proj",
)
NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "post_self_attn_layernorm",
    "post_mlp_layernorm",
)
"""The last two are glm4's."""
BUFFERS: tuple[BufferName, ...] = (
    "hidden_states",
    "normed",
    "q",
    "k",
    "v",
    "queries",
    "mixed",
    "keys",
)
LATER_BUFFERS: tuple[BufferName, ...] = (
    "attended",
    "delta",
    "gate_up",
    "gated",
    "scratch",
    "rotation",
    "frequencies",
)


class FusedLayers:
    """The addresses of what some layers read and write."""

    def __init__(
        self,
        config: ModelConfig,
        layers: Sequence[nn.Module],
        stores: tuple[KVStore, KVStore],
        path: int,
    ) -> None:
        self._config, self._path = config, path
        self._formats = [format_number(store) for store in stores]
        entries = [_entry(layer, number, stores) for number, layer in enumerate(layers)]
        self._layers = len(entries)
        self._table = array("q", [number for entry in entries for number in entry])
        self._held = layers, stores  # what the addresses point to

    @classmethod
    def of(
        cls, config: ModelConfig, layers: Sequence[nn.Module], stores: tuple[KVStore, KVStore]
    ) -> Self | None:
        """None where the layers must run one by one: the one place where that is decided."""
        linears = [layer.get_submodule(name) for layer in layers for name in LINEARS]
        kernels = {linear.kernel if isinstance(linear, QuantLinear) else None for linear in linears}
        if len(kernels) != 1 or config.head_dim > MOST_HEAD_DIM:
            return None
        if stores[0].centers is not None and has_attention_factor(config):
            return None
        (kernel,) = kernels
        return cls(config, layers, stores, kernel.path) if isinstance(kernel, Native) else None

    def run(self, step: Step, sequences: Sequence[tuple[int, int]]) -> None:
        """The step's "hidden_states" through all layers; its tokens into the cache.

        sequences: of each its place in the stores, and how many tokens it holds there. Where
        positions are scaled, "rotation" and "frequencies" are filled before.
        """
        native, keys = extension(), step["keys"]
        places = array("q", [place for place, _ in sequences])
        lengths = array("q", [cached + step.shape.tokens for _, cached in sequences])
        assert native is not None
        native.run_layers(
            self._path,
            self._table.buffer_info()[0],
            self._layers,
            *self._shape(step),
            self._config.rms_norm_eps,
            0.0 if self._config.rope_scaling else self._config.rope_theta,  # 0: angles are there
            *_addresses(step, BUFFERS),
            keys.nbytes,
            *_addresses(step, LATER_BUFFERS),
            lengths.buffer_info()[0],
            places.buffer_info()[0],
            torch.get_num_threads(),
        )

    def _shape(self, step: Step) -> tuple[int, ...]:
        config = self._config
        (room,) = {room_of(store) for store in self._held[1]}
        return (
            step.shape.batch,
            step.shape.tokens,
            config.hidden_size,
            config.intermediate_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.rotary_dim // 2,
            room,
            *self._formats,
            DTYPES[step["hidden_states"].dtype],
        )


def _addresses(step: Step, names: Iterable[BufferName]) -> list[int]:
    return [step[name].data_ptr() for name in names]


def _entry(layer: nn.Module, number: int, stores: tuple[KVStore, KVStore]) -> list[int]:
    """A LayerEntry of layers.h."""
    entry = [part for name in LINEARS for part in _linear(layer.get_submodule(name))]
    entry += [_address(getattr(getattr(layer, name, None), "weight", None)) for name in NORMS]
    for store in stores:
        entry += side(store, number)
    return entry


def _linear(linear: nn.Module) -> list[int]:
    """A LinearEntry of layers.h."""
    assert isinstance(linear, QuantLinear)
    parts, inputs = dict(linear.named_buffers()), linear.inputs
    qweight, scales = parts["qweight"], parts["scales"]
    return [
        qweight.data_ptr(),
        scales.data_ptr(),
        _address(parts.get("qzeros")),
        _address(parts.get("book")),
        _address(linear.bias),
        qweight.shape[1],
        inputs,
        qweight.shape[0] * WORD_BITS // inputs,
        inputs // scales.shape[0],
        scales.dtype == torch.float32,
    ]


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
