"""The rotary embedding in torch's plain operators, for gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from calculator.model.config import ModelConfig
from quantize.calibrate.passes import pass_workspace, ready_step


@dataclass(frozen=True)
class Rotation:
    """Cosines and sines of the angles by which positions rotate pairs, float32 [T, pairs] each."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def of_positions(cls, config: ModelConfig, tokens: int, device: torch.device) -> "Rotation":
        """Compute the angles of the positions 0 to `tokens` as the runtime does."""
        workspace = pass_workspace(
            config, batch=1, tokens=tokens, dtype=torch.float32, device=device
        )
        cos, sin = ready_step(config, workspace, tokens, 1)["rotation"].clone().unbind(0)
        return cls(cos.view(tokens, -1), sin.view(tokens, -1))

    @property
    def back(self) -> "Rotation":
        """The inverse, by which gradients are rotated."""
        return Rotation(self.cos, -self.sin)

    def rotate(self, heads: Tensor) -> Tensor:
        """Rotate the first dimensions of heads, [..., T, D], in float32."""
        size = 2 * self.cos.shape[-1]
        even, odd = heads[..., 0:size:2].float(), heads[..., 1:size:2].float()
        pairs = (even * self.cos - odd * self.sin, odd * self.cos + even * self.sin)
        rotated = torch.stack(pairs, dim=-1).flatten(-2).to(heads.dtype)
        return torch.cat((rotated, heads[..., size:]), dim=-1)
