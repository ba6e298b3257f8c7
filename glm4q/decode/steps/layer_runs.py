"""How a runner takes a step through the layers of one device."""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from torch import nn

from calculator.model.config import ModelConfig
from glm4q.kernels.attention.append_tokens import prepare_attention
from glm4q.kernels.attention.rope import prepare_rotation
from glm4q.kernels.choose import LayersKernels
from glm4q.memory.kv.cache import KVCache, layers_of
from glm4q.memory.kv.spec import KVStore
from glm4q.memory.workspace import Step
from glm4q.model.decoder import CausalLM
from glm4q.model.fused_layers import FusedLayers, Mix


def row_steps(step: Step, caches: Sequence[KVCache]) -> tuple[Step, ...]:
    """The step of each cache: the whole step where there is only one, its rows otherwise."""
    return (step,) if len(caches) == 1 else step.rows


class LayersRun(Protocol):
    """Takes "hidden_states" through layers; the step's tokens go into the caches."""

    def __call__(self, step: Step, caches: Sequence[KVCache]) -> None: ...


class FusedRun:
    """All layers in one call of the native extension."""

    def __init__(
        self, config: ModelConfig, layers: Sequence[nn.Module], stores: tuple[KVStore, KVStore]
    ) -> None:
        self._config, self._layers = config, FusedLayers(config, layers, stores)

    def __call__(self, step: Step, caches: Sequence[KVCache]) -> None:
        if self._config.rope_scaling is not None:  # the native extension scales no positions
            for own in row_steps(step, caches):
                prepare_rotation(self._config, own)
        self._layers.run(step, _sequences(caches))

    @property
    def mixes(self) -> bool:
        """Whether it takes sequences with different numbers of new tokens in one step.

        Scaled positions are computed sequence by sequence in Python, for one number of tokens.
        """
        return self._config.rope_scaling is None

    def run_mixed(self, step: Step, mix: Mix, caches: Sequence[KVCache]) -> None:
        """Take the rows of such a step through all layers. caches: in the order of the rows."""
        self._layers.run(step, _sequences(caches), mix)


def _sequences(caches: Sequence[KVCache]) -> list[tuple[int, int]]:
    return [place for cache in caches for place in cache.sequences]


class SingleRun:
    """One layer after another."""

    def __init__(self, model: CausalLM, layers: range, kernels: LayersKernels) -> None:
        self._model, self._layers = model, layers
        self._one_token = kernels.one_token[1].kernel
        self._several_tokens = kernels.several_tokens[1].kernel

    def __call__(self, step: Step, caches: Sequence[KVCache]) -> None:
        for own, cache in zip(row_steps(step, caches), caches, strict=True):
            centered, hadamard = cache.centered, cache.hadamard
            prepare_attention(self._model.config, own, centered=centered, hadamard=hadamard)
        alone = step.shape.tokens == 1 or (step.alike and self._one_token.rows_alike)
        kernel = self._one_token if alone else self._several_tokens
        views = layers_of(caches)
        attend = [partial(kernel, cache=views[layer]) for layer in self._layers]
        self._model.run_layers(self._layers, step, attend)
