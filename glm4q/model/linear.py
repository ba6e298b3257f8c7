"""Linear layers: x @ weight.T + bias, into a tensor that is there already."""

import torch
from torch import Tensor, nn

from glm4q.kernels.cpu.native import matmul_dense, takes_dense
from glm4q.kernels.spec import Kernel
from glm4q.memory.workspace import Step
from glm4q.weights.packing import QuantizedWeight


class Linear(nn.Module):
    """A linear layer whose weight is numbers."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = False) -> None:
        super().__init__()
        self.weight: Tensor = nn.Parameter(torch.empty(outputs, inputs))
        self.bias: Tensor | None = nn.Parameter(torch.empty(outputs)) if bias else None

    def widens(self, x: Tensor) -> bool:
        """Whether `out` may be float32 where x is not: sums then leave unrounded."""
        return self.bias is None and takes_dense(x.view(-1, x.shape[-1]), self.weight)

    def forward(self, x: Tensor, step: Step, out: Tensor) -> Tensor:  # [..., K] -> [..., N]
        rows, y = x.view(-1, x.shape[-1]), out.view(-1, out.shape[-1])
        if self.widens(x):
            matmul_dense(rows, self.weight, y)
        elif self.bias is None:
            torch.mm(rows, self.weight.T, out=y)
        else:
            torch.addmm(self.bias, rows, self.weight.T, out=y)
        return out


def matmul_bytes(tokens: int, dtype: torch.dtype, device: torch.device) -> int:
    """What torch.mm takes for itself: on a CPU oneDNN copies tiles of bfloat16, thread by thread.

    Between 65 KiB for 1 token and 456 B a token for 2,048 were seen, whatever the weight's shape.
    """
    if device.type != "cpu" or dtype != torch.bfloat16:
        return 0
    return torch.get_num_threads() * ((192 << 10) + 512 * tokens)


class QuantLinear(nn.Module):
    """A linear layer whose weight is codes: one class for every format and kernel."""

    def __init__(self, weight: QuantizedWeight, kernel: Kernel) -> None:
        super().__init__()
        self.kernel, self.inputs = kernel, weight.inputs
        packed = kernel.pack(weight)
        self._packed = tuple(packed)
        for name, tensor in packed.items():
            self.register_buffer(name, tensor)
        self.bias: Tensor | None = None

    def widens(self, x: Tensor) -> bool:
        """As of `Linear`."""
        return self.kernel.widens and self.bias is None

    def forward(self, x: Tensor, step: Step, out: Tensor) -> Tensor:  # [..., K] -> [..., N]
        packed = {name: self.get_buffer(name) for name in self._packed}
        y = out.view(-1, out.shape[-1])
        self.kernel.matmul(x.view(-1, x.shape[-1]), packed, y, step["scratch"])
        if self.bias is not None:
            y += self.bias
        return out
