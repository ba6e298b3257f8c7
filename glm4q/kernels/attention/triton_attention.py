"""Attention in a few launches of our GPU kernels, where a card can run them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from calculator.memory.workspace import KV_GROUP
from glm4q.kernels.attention.attention_spec import LARGEST_HEAD, AttentionSpec
from glm4q.kernels.cuda import (
    AMPERE,
    Lowering,
    capability,
    has_gluon,
    lowering_of,
    refuses_triton,
)
from glm4q.memory.kv.cache import LayerCache, LayerRows
from glm4q.memory.workspace import Step

if TYPE_CHECKING:
    from glm4q.kernels.gpu.attention.launches import AttentionLaunches

HALVES = "k8v4", "int4"
"""Caches of which vectors are read as two halves, each within one group of numbers."""
LARGEST_INT4_HEAD = 2 * KV_GROUP
GLUON_HEADS = 64, 128
FEWEST_TOKENS = 16
"""A cache needs room for at least this many tokens, because the partial results of its ranges are
kept in the buffer of one tile."""


@dataclass(frozen=True)
class TritonAttention:
    """Attends by our GPU kernels.

    They read on the device where in the cache each sequence lies, and how many tokens it has.
    """

    lowering: Lowering = Lowering.DOT
    reads_length_on_device = True
    rows_alike = True

    @property
    def name(self) -> str:
        return self.lowering

    def refuses(self, spec: AttentionSpec) -> str | None:
        if reason := refuses_triton(spec.device):
            return reason
        config = spec.config
        shared = config.num_attention_heads // config.num_key_value_heads
        if config.head_dim > LARGEST_HEAD or config.head_dim & (config.head_dim - 1):
            return f"takes heads of a power of two up to {LARGEST_HEAD}, not {config.head_dim}"
        if spec.room < max(shared, FEWEST_TOKENS):
            return f"takes caches of {max(shared, FEWEST_TOKENS)} tokens or more, not {spec.room}"
        if spec.kv == "fp32":
            return "multiplies in float16, which is too coarse for an fp32 cache"
        if spec.kv in HALVES and config.head_dim > LARGEST_INT4_HEAD:
            return f"takes INT4 vectors of up to {LARGEST_INT4_HEAD} numbers, not {config.head_dim}"
        fastest = lowering_of(capability(spec.device) or AMPERE)
        if self.lowering is Lowering.DOT:
            on_turing = fastest is Lowering.TURING_MMA
            return "needs compute capability 8.0 or more" if on_turing else None
        if self.lowering is not fastest:
            return f"is not for this card, which has {fastest}"
        return _refuses_gluon(spec)

    def __call__(self, step: Step, cache: LayerCache | LayerRows) -> Tensor:
        # The first tokens of a prompt set the centres of INT4 keys together; no draft comes first.
        if step.alike and isinstance(cache, LayerCache) and not cache.sets_centers:
            return self._one_after_another(step, cache)
        from glm4q.kernels.gpu.launch import run_all  # Triton is not there on every machine

        if step.shape.tokens > 1 and cache.sets_centers:  # `append` takes them off the keys
            cache.center_keys(step["fresh"].copy_(step["k"].transpose(1, 2)))
        cache.advance(step.shape.tokens)
        run_all(self.launches(step, cache).append_and_attend())
        return step["attended"]

    def _one_after_another(self, step: Step, cache: LayerCache) -> Tensor:
        """Append and attend from each token of a draft by the launches of one token alone."""
        from glm4q.kernels.gpu.attention.launches import AttentionLaunches
        from glm4q.kernels.gpu.launch import run_all

        cache.advance(step.shape.tokens)
        each = [
            AttentionLaunches(
                own, *cache.whole, cache.layer, self.lowering, ahead, step["rotation"][0].numel()
            )
            for ahead, own in enumerate(step.tokens)
        ]  # fmt: skip
        for one in each:
            run_all(one.append())
        for one in each:
            run_all(one.attend())
        return step["attended"]

    def launches(self, step: Step, cache: LayerCache | LayerRows) -> "AttentionLaunches":
        from glm4q.kernels.gpu.attention.launches import AttentionLaunches

        return AttentionLaunches(step, *cache.whole, cache.layer, self.lowering)


def _refuses_gluon(spec: AttentionSpec) -> str | None:
    if spec.config.head_dim not in GLUON_HEADS:
        return f"takes heads of 64 or 128 numbers, not {spec.config.head_dim}"
    return None if has_gluon() else "needs Triton 3.7 or later, which has Gluon"
