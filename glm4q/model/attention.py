"""Grouped-query attention over the KV cache.

Shapes, here and everywhere: B batch, T new tokens, S cached tokens, H query heads, Hkv key/value
heads, G = H / Hkv query heads that share one, D head size, C hidden size, N rows and K columns of a
weight.
"""

from collections.abc import Callable

from torch import Tensor, nn

from calculator.model.config import ModelConfig
from glm4q.memory.workspace import Step
from glm4q.model.linear import Linear, multiply_together

Attend = Callable[[Step], Tensor]
"""Rotates and caches a layer's new tokens, and attends from them: "q", "k", "v" to "attended"."""


class Attention(nn.Module):
    """Project to queries, keys and values, attend, and project back by `o_proj`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, bias, size = config.hidden_size, config.attention_bias, config.head_dim
        self.q_proj = Linear(hidden, config.num_attention_heads * size, bias=bias)
        self.k_proj = Linear(hidden, config.num_key_value_heads * size, bias=bias)
        self.v_proj = Linear(hidden, config.num_key_value_heads * size, bias=bias)
        self.o_proj = Linear(config.num_attention_heads * size, hidden)

    def mix(self, x: Tensor, step: Step, attend: Attend) -> Tensor:
        """Compute all that comes before `o_proj`: [B, T, C] -> [B, T, H * D]."""
        outs = [step["q"].flatten(-2), step["k"].flatten(-2), step["v"].flatten(-2)]
        linears = self.q_proj, self.k_proj, self.v_proj
        multiply_together(x, step, list(zip(linears, outs, strict=True)))
        return attend(step)
