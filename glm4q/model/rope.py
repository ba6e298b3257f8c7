"""Rotary position embedding: turn pairs of dimensions by an angle that grows with the position.

GLM interleaves: pairs are (0, 1), (2, 3), ... of the first `rotary_dim` dimensions of each head;
the rest pass through.
"""

import torch
from torch import Tensor

from calculator.model.config import ModelConfig
from glm4q.memory.kv.rotation import fill_rotation
from glm4q.memory.workspace import Step


def prepare_rotation(config: ModelConfig, step: Step) -> None:
    """Compute cos and sin, float32 [B, T, rotary_dim / 2] each, of the positions from "cached" on.

    They serve all layers of the step. The first position is read on the device, so that a recorded
    step serves every token.
    """
    positions, frequencies = step["positions"], step["frequencies"]
    torch.arange(0, positions.shape[0], out=positions)
    positions.add_(step["cached"][0])
    torch.arange(0, config.rotary_dim, 2, out=frequencies)
    torch.pow(config.rope_theta, frequencies.div_(-config.rotary_dim), out=frequencies)
    fill_rotation(step["rotation"], positions, step["angles"], frequencies)


def prepare_tile_rotation(step: Step) -> None:
    """The same of the positions 0 to a tile, once frequencies are there: for `rotate_along`."""
    positions = step["tile_positions"]
    torch.arange(0, positions.shape[0], out=positions)
    fill_rotation(step["tile_rotation"], positions, step["tile_angles"], step["frequencies"])


def rotate_(x: Tensor, half: Tensor, step: Step) -> Tensor:
    """Turn float32 heads in place, [B, ..., T, D]; half: room for [B, ..., T, rotary_dim / 2]."""
    rotation = step["rotation"]
    cos, sin = rotation.view(*rotation.shape[:2], *[1] * (x.dim() - 3), *rotation.shape[2:])
    rotary_dim = 2 * cos.shape[-1]
    even, odd = x[..., 0:rotary_dim:2], x[..., 1:rotary_dim:2]
    torch.mul(even, sin, out=half)
    even.mul_(cos).addcmul_(odd, sin, value=-1)
    odd.mul_(cos).add_(half)
    return x
