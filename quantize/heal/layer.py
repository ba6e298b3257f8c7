"""A decoder layer in torch's plain operators, through which gradients flow back.

The runtime's layer (glm4q.model.decoder) writes into buffers, so no gradient passes it. A test
compares the two, and another the gradients with those of transformers' model.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from calculator.model.config import ModelConfig
from quantize.calibrate.rotation import Rotation

Tensors = Mapping[str, Tensor]
"""A layer's tensors by their names within it. A linear's weight is [K, N], inputs first, as GPTQ
lays it out."""
Outputs = dict[str, Tensor]


def norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Scale each vector to unit root mean square, in float32."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def forward(
    config: ModelConfig,
    tensors: Tensors,
    x: Tensor,
    rotation: Rotation,
    outputs: Outputs | None = None,
) -> Tensor:
    """Take the residual stream, float32 [B, T, C], through a layer.

    Linears multiply in the dtype of their weights; all else is computed in float32. outputs: takes
    what each linear returns, by its module.
    """
    linear = _Linears(tensors, {} if outputs is None else outputs)
    attended = _attention(config, tensors, linear, x, rotation)
    x = x + _normed_again(config, tensors, attended, "self_attn")
    return x + _normed_again(config, tensors, _feed_forward(config, tensors, linear, x), "mlp")


@dataclass(frozen=True)
class _Linears:
    """The linears of a layer, which keep what they return."""

    tensors: Tensors
    outputs: Outputs

    def __call__(self, module: str, x: Tensor) -> Tensor:
        weight, bias = self.tensors[f"{module}.weight"], self.tensors.get(f"{module}.bias")
        product = x.to(weight.dtype) @ weight
        result = product if bias is None else product + bias.to(weight.dtype)
        self.outputs[module] = result
        return result


def _attention(
    config: ModelConfig, tensors: Tensors, linear: _Linears, x: Tensor, rotation: Rotation
) -> Tensor:
    normed = norm(x, tensors["input_layernorm.weight"], config.rms_norm_eps)
    q, k, v = (
        linear(f"self_attn.{name}_proj", normed)
        .unflatten(-1, (-1, config.head_dim))
        .transpose(1, 2)
        for name in "qkv"
    )
    q, k = rotation.rotate(q), rotation.rotate(k)
    shared = config.num_attention_heads // config.num_key_value_heads
    k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return linear("self_attn.o_proj", mixed.transpose(1, 2).flatten(-2))


def _feed_forward(config: ModelConfig, tensors: Tensors, linear: _Linears, x: Tensor) -> Tensor:
    normed = norm(x, tensors["post_attention_layernorm.weight"], config.rms_norm_eps)
    gate, up = linear("mlp.gate_up_proj", normed).chunk(2, dim=-1)
    return linear("mlp.down_proj", F.silu(gate) * up)


def _normed_again(config: ModelConfig, tensors: Tensors, x: Tensor, part: str) -> Tensor:
    """Norm what is added to the stream, as `glm4` models do; others add it as it is."""
    weight = tensors.get(f"post_{part}_layernorm.weight")
    return x.float() if weight is None else norm(x.float(), weight, config.rms_norm_eps)
