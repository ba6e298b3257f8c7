"""Rotary position embedding: rotate pairs of dimensions by an angle that grows with the position.

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
    fill_frequencies(config, step)
    fill_rotation(step["rotation"], positions, step["angles"], frequencies)
    scale_rotation(config, step["rotation"])


def fill_frequencies(config: ModelConfig, step: Step) -> None:
    """Compute the angle, float64 [rotary_dim / 2], by which a token rotates each pair.

    Where positions are scaled, slow pairs rotate less; "angles" is room for by how much.
    """
    frequencies, scaling = step["frequencies"], config.rope_scaling
    torch.arange(0, config.rotary_dim, 2, out=frequencies)
    torch.pow(config.rope_theta, frequencies.div_(-config.rotary_dim), out=frequencies)
    if scaling is None:
        return
    if scaling.rope_type == "linear":
        frequencies.div_(scaling.factor)
        return
    first, last = scaling.ramp(config.rotary_dim, config.rope_theta)
    share = step["angles"][0, 0]  # of the scaling that each pair takes: 0 to 1
    torch.arange(0, share.shape[0], out=share)
    share.sub_(first).div_(last - first).clamp_(0, 1)
    frequencies.mul_(share.mul_(1 / scaling.factor - 1).add_(1))


def attention_factor(config: ModelConfig) -> float:
    """The number by which YaRN multiplies cos and sin, of queries and of keys; 1 without YaRN."""
    return 1.0 if config.rope_scaling is None else config.rope_scaling.attention_factor


def scale_rotation(config: ModelConfig, rotation: Tensor) -> None:
    """Multiply cos and sin by YaRN's attention factor, if there is one."""
    if (factor := attention_factor(config)) != 1:
        rotation.mul_(factor)


def prepare_tile_rotation(config: ModelConfig, step: Step) -> None:
    """Compute cos and sin of the positions 0 to a tile from "frequencies", for `rotate_along`.

    What a cached key lacks is added by these tables alone, so they have the attention factor too.
    """
    positions = step["tile_positions"]
    torch.arange(0, positions.shape[0], out=positions)
    fill_rotation(step["tile_rotation"], positions, step["tile_angles"], step["frequencies"])
    scale_rotation(config, step["tile_rotation"])


def rotate_(x: Tensor, half: Tensor, step: Step) -> Tensor:
    """Rotate float32 heads in place, [B, ..., T, D]; half: room for [B, ..., T, rotary_dim / 2]."""
    rotation = step["rotation"]
    cos, sin = rotation.view(*rotation.shape[:2], *[1] * (x.dim() - 3), *rotation.shape[2:])
    rotary_dim = 2 * cos.shape[-1]
    even, odd = x[..., 0:rotary_dim:2], x[..., 1:rotary_dim:2]
    torch.mul(even, sin, out=half)
    even.mul_(cos).addcmul_(odd, sin, value=-1)
    odd.mul_(cos).add_(half)
    return x
