"""A linear layer whose weight is codes: one class for every format and kernel."""

from torch import Tensor, nn

from glm4q.kernels.spec import Kernel
from glm4q.packing import QuantizedWeight


class QuantLinear(nn.Module):
    """x @ weight.T + bias, by a kernel that keeps the weight in its own layout."""

    def __init__(self, weight: QuantizedWeight, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        packed = kernel.pack(weight)
        self._packed = tuple(packed)
        for name, tensor in packed.items():
            self.register_buffer(name, tensor)
        self.bias: nn.Parameter | None = None

    def forward(self, x: Tensor) -> Tensor:  # [..., K] -> [..., N]
        y = self.kernel.matmul(x, {name: self.get_buffer(name) for name in self._packed})
        return y if self.bias is None else y + self.bias
