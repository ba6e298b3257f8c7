"""Rotary position embedding: turn pairs of dimensions by an angle that grows with the position.

GLM interleaves: pairs are (0, 1), (2, 3), ... of the first `rotary_dim` dimensions of each head;
the rest pass through. Angles are computed in float64 from integer positions: in bfloat16, positions
beyond 256 run together.
"""

import torch
from torch import Tensor

from calculator.config import ModelConfig

Rotation = tuple[Tensor, Tensor]
"""cos and sin, float32 [T, rotary_dim / 2]; one for all layers of a forward pass."""


def rotation(config: ModelConfig, positions: Tensor) -> Rotation:
    """The rotation of each position. positions: [T] integers."""
    pair = torch.arange(0, config.rotary_dim, 2, dtype=torch.float64, device=positions.device)
    frequencies = config.rope_theta ** (-pair / config.rotary_dim)
    angles = positions.double().unsqueeze(-1) * frequencies
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, by: Rotation) -> Tensor:
    """Turn the heads of x, [B, T, heads, D]; same shape and dtype."""
    cos, sin = (part.unsqueeze(1) for part in by)  # [T, 1, R / 2]: the same for every head
    rotary_dim = 2 * cos.shape[-1]
    even, odd = x[..., :rotary_dim].float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1).flatten(-2)
    return torch.cat((turned.to(x.dtype), x[..., rotary_dim:]), dim=-1)
