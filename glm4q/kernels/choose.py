"""Which kernel multiplies by a layer: the first of a short list that does not refuse."""

from calculator.errors import KernelError, OptionError
from glm4q.kernels.bitsandbytes import BitsAndBytes
from glm4q.kernels.cpu.native import Native
from glm4q.kernels.reference import Reference
from glm4q.kernels.spec import Kernel, LinearSpec
from glm4q.kernels.torch_int4 import TorchInt4
from glm4q.kernels.torch_int4_cuda import TorchInt4Cuda
from glm4q.kernels.torch_int8 import TorchInt8
from glm4q.kernels.triton_linear import TritonLinear

KERNELS: tuple[Kernel, ...] = (
    Native(),
    TritonLinear(),
    TorchInt4Cuda(),
    TorchInt4(),
    TorchInt8(),
    BitsAndBytes(),
    Reference(),
)
"""Fastest first. The CPU's are measured by benchmarks/kernels.py; on CUDA none has been timed."""


def candidates(name: str) -> tuple[Kernel, ...]:
    """All kernels for "auto", else the one of that name. Raises OptionError."""
    found = tuple(kernel for kernel in KERNELS if name in ("auto", kernel.name))
    if not found:
        known = ", ".join(["auto", *(kernel.name for kernel in KERNELS)])
        raise OptionError(f"kernel must be one of {known}, not {name}")
    return found


def choose(spec: LinearSpec, kernels: tuple[Kernel, ...] = KERNELS) -> Kernel:
    """The first kernel that takes the layer. Raises KernelError with every refusal."""
    refusals = []
    for kernel in kernels:
        reason = kernel.refuses(spec)
        if reason is None:
            return kernel
        refusals.append(f"{kernel.name} {reason}")
    raise KernelError(f"no kernel takes {spec}: {'; '.join(refusals)}")
