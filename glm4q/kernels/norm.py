"""RMSNorm: which kernel computes it, the first of a short list that does not refuse."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from glm4q.kernels.cpu import native
from glm4q.kernels.cpu.extension import refuses_extension
from glm4q.kernels.cpu.records import DTYPES
from glm4q.kernels.cuda import refuses_triton
from glm4q.memory.workspace import Step


@dataclass(frozen=True)
class NormSpec:
    """The norms of a model's layers on one device."""

    dtype: torch.dtype
    device: torch.device

    def __str__(self) -> str:
        return f"norms on {self.device.type}"


class NormKernel(Protocol):
    """One way to compute RMSNorm."""

    @property
    def name(self) -> str:
        """The name under which `glm4q bench` shows it."""

    @property
    def rows_alike(self) -> bool:
        """Whether each of up to FEW_TOKENS rows has the bits that it has alone."""

    def refuses(self, spec: NormSpec) -> str | None:
        """Why it does not serve, or None where it does."""

    def __call__(self, x: Tensor, weight: Tensor, eps: float, step: Step, out: Tensor) -> Tensor:
        """Write the norm of x, contiguous [B, T, C], into `out`, which may be x itself."""


class TritonNorm:
    """One launch of our GPU kernel."""

    name = "triton"
    rows_alike = True

    def refuses(self, spec: NormSpec) -> str | None:
        return refuses_triton(spec.device)

    def __call__(self, x: Tensor, weight: Tensor, eps: float, step: Step, out: Tensor) -> Tensor:
        from glm4q.kernels.gpu.norm import norm  # Triton is not there on every machine

        norm(x.view(-1, x.shape[-1]), weight, eps, out.view(-1, x.shape[-1])).run()
        return out


class NativeNorm:
    """One call of the native extension."""

    name = "native"
    rows_alike = True

    def refuses(self, spec: NormSpec) -> str | None:
        if reason := refuses_extension():
            return reason
        if spec.device.type != "cpu":
            return "runs on the CPU only"
        if spec.dtype not in DTYPES:
            return f"takes bfloat16 and float32, not {spec.dtype}"
        return None

    def __call__(self, x: Tensor, weight: Tensor, eps: float, step: Step, out: Tensor) -> Tensor:
        return native.norm(x, weight, eps, out)


class TorchNorm:
    """torch's operators, in float32 whatever the dtype of x: the reference."""

    name = "torch"
    rows_alike = False

    def refuses(self, spec: NormSpec) -> str | None:
        return None

    def __call__(self, x: Tensor, weight: Tensor, eps: float, step: Step, out: Tensor) -> Tensor:
        wide, scale = (step[name][:, : x.shape[1]] for name in ("wide", "root_mean_square"))
        wide.copy_(x)
        torch.linalg.vector_norm(wide, dim=-1, keepdim=True, out=scale)
        scale.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        return out.copy_(wide.mul_(scale)).mul_(weight)


NORMS: tuple[NormKernel, ...] = (TritonNorm(), NativeNorm(), TorchNorm())
"""The fastest first."""
