"""The project's own matmul for the CPU, in C++: glm4q/native/.

Weights stay as GPTQ lays them out, so that a loaded file's pages serve as they are. Activations are
rounded to 8-bit codes, each run of up to 32 inputs of a row by a scale of its own; products are
summed as integers and scaled in float32.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import ModuleType

import torch
from torch import Tensor

from calculator.memory.scratch import KernelNeeds
from calculator.model.formats import WeightFormat
from glm4q.kernels.spec import LinearSpec
from glm4q.weights.packing import WORD_BITS, QuantizedWeight

try:
    from glm4q import _native
except ImportError:  # installed where there was no C++ compiler
    _native = None  # type: ignore[assignment]

SEGMENT = 32
"""Inputs that share a scale of the activations, at most. With 128 the demo at INT8 lost 0.55 %
of perplexity to their rounding, with 32 it loses 0.33 % (the built-in held-out text)."""
INPUTS_MULTIPLE = 8
CODE_BYTES = 1
SCALE_BYTES = 8
"""Of each segment of a row: its scale, and the sum of its codes."""
SCHEMES = ("groups", "nf4", "llm-int8")
BOOK_STEPS = 112
"""Of the largest number of a code book, which is 1: of all scales that make bytes of NF4's numbers
the one that rounds them least (a test looks)."""
MOST_DENSE_ROWS = 8
"""At 16 torch's product of GLM-4-9B's layers is the faster one (benchmarks/kernels.py)."""
MOST_DENSE_NUMBERS = 1 << 16
DTYPES = {torch.bfloat16: 0, torch.float32: 1}


def extension() -> ModuleType | None:
    """The compiled functions; None where they were not built."""
    return _native


class Native:
    """Multiplies on the best instruction set of this machine."""

    name = "native"
    widens = True

    def __init__(self, path: str = "auto") -> None:
        """path: the instruction set: avx512, avx2, neon, scalar, or the best one."""
        self._name = path
        self.path = _native.find_path(path) if _native else 0

    def refuses(self, spec: LinearSpec) -> str | None:
        if _native is None:
            return "was not built: the installation found no C++ compiler"
        if not self.path:
            return f"finds no {self._name} in this machine"
        if spec.device.type != "cpu":
            return "runs on the CPU only"
        if spec.weight_format.scheme not in SCHEMES or spec.weight_format.bits not in (4, 8):
            return f"takes 4-bit and 8-bit weights by groups, not {spec.weight_format}"
        if spec.weight_format.act_order:
            return "takes groups of consecutive inputs only"
        group_size = spec.weight_format.group_size or spec.inputs
        whole = (
            spec.weight_format.group_size is None
            or group_size < SEGMENT
            or group_size % SEGMENT == 0
        )
        if group_size % INPUTS_MULTIPLE or not whole:
            return (
                f"takes groups of a multiple of {INPUTS_MULTIPLE} inputs up to {SEGMENT}, of "
                + (f"{SEGMENT} beyond, not {group_size}")
            )
        return None

    def packed_format(self, weight_format: WeightFormat) -> WeightFormat:
        return weight_format

    def pack(self, weight: QuantizedWeight) -> dict[str, Tensor]:
        if weight.book is not None:  # to the nearest whole numbers of steps
            book, scales = (weight.book * BOOK_STEPS).round(), weight.scales / BOOK_STEPS
            weight = replace(weight, book=book, scales=scales)
        parts = {name: getattr(weight, name) for name in ("qweight", "scales", "qzeros", "book")}
        return {name: tensor.contiguous() for name, tensor in parts.items() if tensor is not None}

    def needs(self, spec: LinearSpec, tokens: int, activation_bytes: int) -> KernelNeeds:
        segment = min(spec.weight_format.group_size or spec.inputs, SEGMENT)
        segments = -(-spec.inputs // segment)
        return KernelNeeds(tokens * (spec.inputs * CODE_BYTES + segments * SCALE_BYTES))

    def matmul(self, x: Tensor, packed: Mapping[str, Tensor], out: Tensor, scratch: Tensor) -> None:
        qweight, scales = packed["qweight"], packed["scales"]
        qzeros, book = packed.get("qzeros"), packed.get("book")
        rows, inputs = x.shape
        assert x.is_contiguous()
        assert out.is_contiguous()
        _native.matmul(
            self.path,
            qweight.data_ptr(),
            scales.data_ptr(),
            0 if qzeros is None else qzeros.data_ptr(),
            0 if book is None else book.data_ptr(),
            qweight.shape[1],
            inputs,
            qweight.shape[0] * WORD_BITS // inputs,
            inputs // scales.shape[0],
            scales.dtype == torch.float32,
            x.data_ptr(),
            out.data_ptr(),
            rows,
            DTYPES[x.dtype],
            DTYPES[out.dtype],
            scratch.data_ptr(),
            torch.get_num_threads(),
        )


def takes_dense(x: Tensor, weight: Tensor) -> bool:
    """Whether `matmul_dense` multiplies by a weight of numbers: for a few rows, in bfloat16."""
    return (
        _native is not None
        and x.shape[0] <= MOST_DENSE_ROWS
        and x.numel() <= MOST_DENSE_NUMBERS
        and weight.dtype == x.dtype == torch.bfloat16
        and weight.device.type == "cpu"
        and weight.is_contiguous()
    )


def matmul_dense(x: Tensor, weight: Tensor, out: Tensor, path: str = "auto") -> None:
    """[M, K] by the weight [N, K] into `out` [M, N], with sums in float32."""
    outputs, inputs = weight.shape
    _native.matmul_dense(
        _native.find_path(path),
        weight.data_ptr(),
        outputs,
        inputs,
        x.data_ptr(),
        x.shape[0],
        DTYPES[x.dtype],
        out.data_ptr(),
        DTYPES[out.dtype],
        torch.get_num_threads(),
    )


def takes_norm(x: Tensor, weight: Tensor, out: Tensor) -> bool:
    """Whether `norm` takes these."""
    return (
        _native is not None
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == out.dtype
        and x.dtype in DTYPES
        and x.is_contiguous()
        and out.is_contiguous()
    )


def norm(x: Tensor, weight: Tensor, eps: float, out: Tensor, path: str = "auto") -> Tensor:
    """RMSNorm of x [..., C] into `out`, which may be x itself."""
    size = x.shape[-1]
    _native.norm(
        _native.find_path(path),
        x.data_ptr(),
        weight.data_ptr(),
        eps,
        x.numel() // size,
        size,
        DTYPES[x.dtype],
        out.data_ptr(),
        torch.get_num_threads(),
    )
    return out
