"""Linear layers: x @ weight.T + bias, into a tensor that is there already."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from glm4q.kernels.dense import DenseKernel, TorchDense
from glm4q.kernels.spec import Finish, FinishingKernel, Kernel
from glm4q.memory.workspace import Step
from glm4q.weights.packing import QuantizedWeight


class Linear(nn.Module):
    """A linear layer whose weight is numbers."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = False) -> None:
        super().__init__()
        self.weight: Tensor = nn.Parameter(torch.empty(outputs, inputs))
        self.bias: Tensor | None = nn.Parameter(torch.empty(outputs)) if bias else None
        self.kernel: DenseKernel = TorchDense()
        """How it multiplies: by torch, until the loader sets the kernel of the plan."""

    def widens(self, x: Tensor) -> bool:
        """Whether `out` may be float32 where x is not: sums are then not rounded."""
        return self.kernel.widens(x.shape[:-1].numel(), x.shape[-1])

    def forward(self, x: Tensor, step: Step, out: Tensor) -> Tensor:  # [..., K] -> [..., N]
        rows, y = x.view(-1, x.shape[-1]), out.view(-1, out.shape[-1])
        # A kernel that sums several rows in another order takes those of a draft one by one.
        most = 1 if step.alike and not self.kernel.rows_alike else len(rows)
        for some, of in zip(rows.split(most), y.split(most), strict=True):
            self.kernel.matmul(some, self.weight, self.bias, of)
        return out

    def add(self, x: Tensor, step: Step, total: Tensor, spare: Tensor) -> None:
        """Add the product to a total, [..., N]. spare: a tensor of that shape to compute it in."""
        total.add_(self(x, step, spare))

    def gate(self, x: Tensor, step: Step, out: Tensor, spare: Tensor) -> Tensor:
        """Return silu of the product's first half times the second, in `out`, [..., N / 2].

        spare: [..., N], to compute the product in.
        """
        return gated(self(x, step, spare), out)


def multiply_together(x: Tensor, step: Step, products: Sequence[tuple[Linear, Tensor]]) -> None:
    """Multiply x by several weights, each into its `out`: at once where their kernel can."""
    linears: list[nn.Module] = [linear for linear, _ in products]
    first = linears[0]
    if not (isinstance(first, QuantLinear) and first.together(x, step, products)):
        for linear, out in products:
            linear(x, step, out)


def gated(product: Tensor, out: Tensor) -> Tensor:
    """Return silu of the first half of a product times the second, in `out`."""
    gate, up = product.chunk(2, dim=-1)
    return torch.ops.aten.silu.out(gate, out=out).mul_(up)


class QuantLinear(nn.Module):
    """A linear layer whose weight is codes: one class for every format and kernel."""

    def __init__(
        self, weight: QuantizedWeight, kernel: Kernel, hold: Callable[[Tensor], Tensor]
    ) -> None:
        """Pack the weight as the kernel reads it. hold: moves a tensor to where it stays."""
        super().__init__()
        self.kernel, self.inputs = kernel, weight.inputs
        self._finisher = kernel if isinstance(kernel, FinishingKernel) else None
        packed = kernel.pack(weight)
        self._packed = tuple(packed)
        for name, tensor in packed.items():
            self.register_buffer(name, hold(tensor))
        self.bias: Tensor | None = None

    def widens(self, x: Tensor) -> bool:
        """Whether `out` may be float32 where x is not: sums are then not rounded."""
        return self.kernel.widens and self.bias is None

    def forward(self, x: Tensor, step: Step, out: Tensor) -> Tensor:  # [..., K] -> [..., N]
        if self.bias is not None and self._finishes(x, step, out, Finish(self.bias)):
            return out
        y = out.view(-1, out.shape[-1])
        alike = step.alike and self.kernel.rows_alike
        most = 1 if step.alike and not alike else len(y)
        for rows, of in zip(x.view(-1, x.shape[-1]).split(most), y.split(most), strict=True):
            self.kernel.matmul(rows, self._weight(), of, step["scratch"], alike=alike)
        if self.bias is not None:
            y += self.bias
        return out

    def add(self, x: Tensor, step: Step, total: Tensor, spare: Tensor) -> None:
        """Add the product to a total, [..., N]. spare: a tensor of that shape to compute it in."""
        if not self._finishes(x, step, total, Finish(self.bias, added=True)):
            total.add_(self(x, step, spare))

    def gate(self, x: Tensor, step: Step, out: Tensor, spare: Tensor) -> Tensor:
        """Return silu of the product's first half times the second, in `out`, [..., N / 2].

        spare: [..., N], to compute the product in.
        """
        if self._finishes(x, step, out, Finish(self.bias, gated=True)):
            return out
        return gated(self(x, step, spare), out)

    def together(self, x: Tensor, step: Step, products: Sequence[tuple[nn.Module, Tensor]]) -> bool:
        """Multiply by this weight and others in the same launches, and say whether it did."""
        kernel, rows = self._finisher, x.view(-1, x.shape[-1])
        linears = [linear for linear, _ in products if isinstance(linear, QuantLinear)]
        if kernel is None or len(linears) < len(products):
            return False
        if any(linear.kernel is not kernel for linear in linears):
            return False
        weights, biases = [each._weight() for each in linears], [each.bias for each in linears]
        if len({bias is None for bias in biases}) > 1:
            return False
        if not kernel.multiplies_together(rows, weights, step["scratch"]):
            return False
        outs = [out.view(-1, out.shape[-1]) for _, out in products]
        kernel.matmul_together(rows, weights, outs, biases, step["scratch"])
        return True

    def _weight(self) -> dict[str, Tensor]:
        return {name: self.get_buffer(name) for name in self._packed}

    def _finishes(self, x: Tensor, step: Step, out: Tensor, finish: Finish) -> bool:
        """Multiply and finish in one go where the kernel can; say whether it did."""
        kernel, alike = self._finisher, step.alike
        if kernel is None or (alike and not kernel.rows_alike):
            return False
        rows, packed = x.view(-1, x.shape[-1]), self._weight()
        if not kernel.finishes(rows, packed, alike=alike):
            return False
        y = out.view(-1, out.shape[-1])
        kernel.matmul_and_finish(rows, packed, y, step["scratch"], finish, alike=alike)
        return True
