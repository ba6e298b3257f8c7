"""Rotary position embedding: turn pairs of dimensions by an angle that grows with the position.

GLM interleaves: pairs are (0, 1), (2, 3), ... of the first `rotary_dim` dimensions of each head;
the rest pass through. Angles are computed in float64 from integer positions: in bfloat16, positions
beyond 256 run together.
"""

import torch
from torch import Tensor

from calculator.config import ModelConfig
from glm4q.workspace import Step


def prepare_rotation(config: ModelConfig, step: Step) -> None:
    """Compute cos and sin, float32 [T, rotary_dim / 2] each, of the positions from "cached" on.

    They serve all layers of the step. The first position is read on the device, so that a recorded
    step serves every token.
    """
    positions, frequencies = step["positions"], step["frequencies"]
    torch.arange(0, positions.shape[0], out=positions)
    positions.add_(step["cached"])
    torch.arange(0, config.rotary_dim, 2, out=frequencies)
    torch.pow(config.rope_theta, frequencies.div_(-config.rotary_dim), out=frequencies)
    angles, turned = step["angles"]
    torch.mul(positions.unsqueeze(-1), frequencies, out=angles)
    cos, sin = step["rotation"]
    cos.copy_(torch.cos(angles, out=turned))
    sin.copy_(torch.sin(angles, out=turned))


def rotate_(x: Tensor, half: Tensor, step: Step) -> Tensor:
    """Turn float32 heads in place, [..., T, D]; half: room for [..., T, rotary_dim / 2]."""
    cos, sin = step["rotation"]
    rotary_dim = 2 * cos.shape[-1]
    even, odd = x[..., 0:rotary_dim:2], x[..., 1:rotary_dim:2]
    torch.mul(even, sin, out=half)
    even.mul_(cos).addcmul_(odd, sin, value=-1)
    odd.mul_(cos).add_(half)
    return x
