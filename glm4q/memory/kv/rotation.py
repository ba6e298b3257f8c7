"""Tables of the angles of rotary position embedding, and one vector rotated by many of them.

Angles are computed in float64 from integer positions: in bfloat16, positions beyond 256 run
together.
"""

import torch
from torch import Tensor

from glm4q.memory.workspace import Step


def fill_rotation(rotation: Tensor, positions: Tensor, angles: Tensor, frequencies: Tensor) -> None:
    """Compute cos and sin, float32, of float64 positions; `angles` is room for both."""
    angles, values = angles
    torch.mul(positions.unsqueeze(-1), frequencies, out=angles)
    cos, sin = rotation
    cos.copy_(torch.cos(angles, out=values))
    sin.copy_(torch.sin(angles, out=values))


def rotate_along(x: Tensor, first: int, step: Step, out: Tensor) -> Tensor:
    """A float32 vector of each head, [B, Hkv, 1, D], at n positions from `first` on, into `out`.

    The vector is rotated to the first position, and from there by one table that serves every tile.
    """
    position = step["start_position"].fill_(first)
    fill_rotation(step["start_rotation"], position, step["start_angles"], step["frequencies"])
    start = _rotate(x, step["start_rotation"], step["start_center"])
    return _rotate(start, step["tile_rotation"][:, : out.shape[2]], out)


def _rotate(x: Tensor, rotation: Tensor, out: Tensor) -> Tensor:
    cos, sin = rotation
    rotary_dim = 2 * cos.shape[-1]
    even, odd = x[..., 0:rotary_dim:2], x[..., 1:rotary_dim:2]
    torch.mul(even, cos, out=out[..., 0:rotary_dim:2]).addcmul_(odd, sin, value=-1)
    torch.mul(odd, cos, out=out[..., 1:rotary_dim:2]).addcmul_(even, sin)
    out[..., rotary_dim:] = x[..., rotary_dim:]
    return out
