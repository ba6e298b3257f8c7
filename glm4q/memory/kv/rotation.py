"""Tables of the angles of rotary position embedding, and one vector turned by many of them.

Angles are computed in float64 from integer positions: in bfloat16, positions beyond 256 run
together.
"""

import torch
from torch import Tensor

from glm4q.memory.workspace import Step


def fill_rotation(rotation: Tensor, positions: Tensor, angles: Tensor, frequencies: Tensor) -> None:
    """Compute cos and sin, float32, of float64 positions; `angles` is room for both."""
    angles, turned = angles
    torch.mul(positions.unsqueeze(-1), frequencies, out=angles)
    cos, sin = rotation
    cos.copy_(torch.cos(angles, out=turned))
    sin.copy_(torch.sin(angles, out=turned))


def rotate_along(x: Tensor, first: int, step: Step, out: Tensor) -> Tensor:
    """A float32 vector of each head, [B, Hkv, 1, D], at n positions from `first` on, into `out`.

    Turned to the first position, it is turned on from there by one table that serves every tile.
    """
    position = step["start position"].fill_(first)
    fill_rotation(step["start rotation"], position, step["start angles"], step["frequencies"])
    start = _rotate(x, step["start rotation"], step["start center"])
    return _rotate(start, step["tile rotation"][:, : out.shape[2]], out)


def _rotate(x: Tensor, rotation: Tensor, out: Tensor) -> Tensor:
    cos, sin = rotation
    rotary_dim = 2 * cos.shape[-1]
    even, odd = x[..., 0:rotary_dim:2], x[..., 1:rotary_dim:2]
    torch.mul(even, cos, out=out[..., 0:rotary_dim:2]).addcmul_(odd, sin, value=-1)
    torch.mul(odd, cos, out=out[..., 1:rotary_dim:2]).addcmul_(even, sin)
    out[..., rotary_dim:] = x[..., rotary_dim:]
    return out
