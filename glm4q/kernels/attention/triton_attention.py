"""Attention in a few launches of our GPU kernels, where a card can run them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from glm4q.kernels.attention.append_tokens import append_and_attend
from glm4q.kernels.attention.attention_spec import LARGEST_HEAD, AttentionSpec
from glm4q.kernels.cuda import AMPERE, capability, refuses_triton
from glm4q.memory.kv.cache import LayerCache, LayerRows
from glm4q.memory.kv.hadamard import hadamard_transform
from glm4q.memory.workspace import Step

if TYPE_CHECKING:
    from glm4q.kernels.gpu.attention_launches import AttentionLaunches

FEWEST_TOKENS = 16
"""A cache needs room for at least this many tokens, because the partial results of its ranges are
kept in the buffer of one tile."""


@dataclass(frozen=True)
class TritonAttention:
    """Attends by our GPU kernels, which read on the device how many tokens are cached."""

    tensor_cores: bool
    reads_length_on_device = True
    rows_alike = False

    @property
    def name(self) -> str:
        return "triton" if self.tensor_cores else "triton without tensor cores"

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
        if self.tensor_cores and (capability(spec.device) or AMPERE) < AMPERE:
            return "needs tensor cores that take bfloat16: compute capability 8.0 or more"
        if spec.several and not self.tensor_cores:
            return "takes one new token; torch's operators are faster at several"
        return None

    def __call__(self, step: Step, cache: LayerCache | LayerRows) -> Tensor:
        if step.shape.tokens > 1 or isinstance(cache, LayerRows):
            return append_and_attend(step, cache, self.attend)
        from glm4q.kernels.gpu.launch import run_all  # Triton is not there on every machine

        cache.length += 1
        run_all(self._launches(step, cache).append_and_attend())
        return step["attended"]

    def attend(self, step: Step, cache: LayerCache) -> None:
        """Attend from tokens that are in the cache: from "queries" to "mixed"."""
        from glm4q.kernels.gpu.launch import run_all

        if cache.keys.hadamard:
            hadamard_transform(step["queries"], step, step["transformed_queries_on_gpu"])
        run_all(self._launches(step, cache).attend())

    def _launches(self, step: Step, cache: LayerCache) -> "AttentionLaunches":
        from glm4q.kernels.gpu.attention_launches import AttentionLaunches

        return AttentionLaunches(step, cache.keys, cache.values, cache.layer, self.tensor_cores)
