"""RMSNorm: scale each vector to unit root mean square, in float32 whatever the model's dtype."""

import torch
from torch import Tensor, nn

from glm4q.kernels.cpu import native
from glm4q.kernels.cuda import refuses_triton
from glm4q.kernels.norm import rms_norm
from glm4q.memory.workspace import Step


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor, step: Step, out: Tensor) -> Tensor:  # [B, T, C]; out may be x
        if refuses_triton(x.device) is None:
            return rms_norm(x, self.weight, self.eps, out)
        if native.takes_norm(x, self.weight, out):
            return native.norm(x, self.weight, self.eps, out)
        wide, scale = (step[name][:, : x.shape[1]] for name in ("wide", "root_mean_square"))
        wide.copy_(x)
        torch.linalg.vector_norm(wide, dim=-1, keepdim=True, out=scale)
        scale.square_().div_(x.shape[-1]).add_(self.eps).rsqrt_()
        return out.copy_(wide.mul_(scale)).mul_(self.weight)
