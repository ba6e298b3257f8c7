"""RMSNorm: scale each vector to unit root mean square, in float32 whatever the model's dtype."""

import torch
from torch import Tensor, nn

from glm4q.kernels.norm import NormKernel, TorchNorm
from glm4q.memory.workspace import Step


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps
        self.kernel: NormKernel = TorchNorm()
        """How it is computed: torch's operators, until the loader sets the kernel of the plan."""

    def forward(self, x: Tensor, step: Step, out: Tensor) -> Tensor:  # [B, T, C]; out may be x
        return self.kernel(x, self.weight, self.eps, step, out)
