"""What a kernel is asked and what it answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from calculator.memory.scratch import KernelNeeds
from calculator.model.formats import WeightFormat
from glm4q.kernels.cuda import capability
from glm4q.weights.packing import QuantizedWeight


@dataclass(frozen=True)
class LinearSpec:
    """A quantized layer: N outputs, K inputs, stored in `weight_format`, computed on `device`."""

    outputs: int
    inputs: int
    weight_format: WeightFormat
    device: torch.device

    @property
    def capability(self) -> tuple[int, int] | None:
        """The device's compute capability, where it is a CUDA device."""
        return capability(self.device)

    def __str__(self) -> str:
        return f"{self.weight_format} [{self.outputs}, {self.inputs}] on {self.device.type}"


@dataclass(frozen=True)
class Finish:
    """What becomes of a product, [M, N], before it is stored, in this order."""

    bias: Tensor | None = None
    """[N], to be added."""
    gated: bool = False
    """Whether it is silu of the first half of the outputs times the second half: [M, N / 2]."""
    added: bool = False
    """Whether it is added to what `out` holds, and does not replace it."""

    @property
    def is_plain(self) -> bool:
        """Whether the product is stored as it is."""
        return self.bias is None and not self.gated and not self.added


PLAIN = Finish()


class Kernel(Protocol):
    """One way to multiply by quantized weights."""

    @property
    def name(self) -> str:
        """The name under which reports show it."""

    widens: bool
    """Whether `out` may be float32 where x is not: its sums then leave it unrounded."""
    rows_alike: bool
    """Whether it can give each of up to FEW_TOKENS rows the bits that it has alone. Others multiply
    the tokens of a draft one by one."""
    packs_on_device: bool
    """Whether `pack` takes the weight on the device, because it computes much or only there."""

    def refuses(self, spec: LinearSpec) -> str | None:
        """Why it does not take the layer; None where it does."""

    def packed_format(self, weight_format: WeightFormat) -> WeightFormat:
        """The format in which it keeps the weight in memory: what the plan counts."""

    def pack(self, weight: QuantizedWeight) -> dict[str, Tensor]:
        """Rearrange the weight for `matmul`, once, at load."""

    def needs(self, spec: LinearSpec, tokens: int, activation_bytes: int) -> KernelNeeds:
        """What `matmul` of that many rows takes beside the weight: what the plan counts."""

    def matmul(
        self,
        x: Tensor,
        packed: Mapping[str, Tensor],
        out: Tensor,
        scratch: Tensor,
        *,
        alike: bool = False,
    ) -> None:
        """[M, K] activations by the packed [N, K] weight into `out`, [M, N], in x's dtype, or
        in float32 where it widens.

        scratch: uint8, as many bytes as it needs or more, for it to use meanwhile. alike: whether
        each row is to have the bits that it has alone; asked only of kernels whose `rows_alike`
        says that they can.
        """


@runtime_checkable
class FinishingKernel(Kernel, Protocol):
    """A kernel that can do more with a product than store it, in the same launches."""

    def finishes(self, x: Tensor, packed: Mapping[str, Tensor], *, alike: bool = False) -> bool:
        """Whether it can for these rows and this weight."""

    def matmul_and_finish(
        self,
        x: Tensor,
        packed: Mapping[str, Tensor],
        out: Tensor,
        scratch: Tensor,
        finish: Finish,
        *,
        alike: bool = False,
    ) -> None:
        """`matmul`, and what follows it. out: [M, N], or [M, N / 2] of a gated product."""

    def multiplies_together(
        self, x: Tensor, weights: Sequence[Mapping[str, Tensor]], scratch: Tensor
    ) -> bool:
        """Whether it can multiply these rows by all these weights at once."""

    def matmul_together(
        self,
        x: Tensor,
        weights: Sequence[Mapping[str, Tensor]],
        outs: Sequence[Tensor],
        biases: Sequence[Tensor | None],
        scratch: Tensor,
    ) -> None:
        """Each row has the bits that it has alone. biases: of all weights, or of none."""


def multiply(kernel: Kernel, spec: LinearSpec, packed: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """x [..., K] -> [..., N], in memory of its own: a kernel alone, without a workspace."""
    rows = x.reshape(-1, spec.inputs)
    out = x.new_empty(len(rows), spec.outputs)
    size = kernel.needs(spec, len(rows), x.element_size()).scratch_bytes
    kernel.matmul(rows, packed, out, torch.empty(size, dtype=torch.uint8, device=x.device))
    return out.view(*x.shape[:-1], -1)
