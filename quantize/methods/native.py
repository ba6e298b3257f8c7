"""The methods' inner loops in C++ (glm4q/native), for the CPU where they were built.

Each does what the function of torch does that calls it, or the one beside that.
"""

from types import ModuleType

import torch
from torch import Tensor

from calculator.model.formats import WeightFormat
from glm4q.kernels.cpu.native import DTYPES, extension
from glm4q.weights.packing import WORD_BITS
from quantize.methods.codes import Codes, Packed

PATH = "auto"
"""The instruction set: the best of this machine."""
MOST_BLOCK = 128
"""Inputs that `compensate` and `descend` take at once."""


def serves(tensor: Tensor) -> bool:
    """Whether the loops can work on numbers like these."""
    return extension() is not None and tensor.device.type == "cpu" and tensor.dtype in DTYPES


def round_rows(
    weight: Tensor,
    weight_format: WeightFormat,
    clips: tuple[float, ...],
    importance: Tensor | None,
    to: Packed,
) -> None:
    """`rtn.quantize` of rows, bfloat16 or float32 [N, K], into columns of GPTQ's layout."""
    outputs, inputs = weight.shape
    assert inputs % weight_format.groups(inputs) == 0
    assert inputs // weight_format.groups(inputs) * weight_format.bits % WORD_BITS == 0
    weight, starts = weight.contiguous(), torch.tensor(clips)
    importance = None if importance is None else importance.float().contiguous()
    strides = {part.stride() for part in (to.qweight, to.scales, to.zero_points)}
    ((stride, step),) = strides
    assert step == 1
    native = _extension()
    native.round_rows(
        native.find_path(PATH),
        weight.data_ptr(),
        DTYPES[weight.dtype],
        0 if importance is None else importance.data_ptr(),
        outputs,
        inputs,
        weight_format.groups(inputs),
        weight_format.bits,
        weight_format.symmetric,
        starts.data_ptr(),
        len(clips),
        to.qweight.data_ptr(),
        to.scales.data_ptr(),
        to.zero_points.data_ptr(),
        stride,
        torch.get_num_threads(),
    )


def compensate(
    left: Tensor, root: Tensor, group: Tensor, found: Codes, bits: int, first: int, last: int
) -> Tensor:
    """`gptq.round_block`; group: int32."""
    outputs, inputs = left.shape
    assert last - first <= MOST_BLOCK
    errors = torch.empty(outputs, last - first)
    assert all(each.is_contiguous() for each in (left, root, group, found.scales))
    native = _extension()
    native.compensate(
        native.find_path(PATH),
        left.data_ptr(),
        root.data_ptr(),
        group.data_ptr(),
        outputs,
        inputs,
        found.scales.shape[1],
        bits,
        first,
        last,
        found.scales.data_ptr(),
        found.zero_points.data_ptr(),
        found.codes.data_ptr(),
        errors.data_ptr(),
        torch.get_num_threads(),
    )
    return errors


def descend(
    centered: Tensor,
    scales: Tensor,
    zeros: Tensor,
    slope: Tensor,
    hessian: Tensor,
    bits: int,
    first: int,
    last: int,
) -> Tensor:
    """`refine.round_block`; zeros: uint8."""
    outputs, inputs = centered.shape
    assert last - first <= MOST_BLOCK
    change = torch.empty(outputs, last - first)
    assert all(each.is_contiguous() for each in (centered, scales, zeros, slope, hessian))
    native = _extension()
    native.descend(
        native.find_path(PATH),
        centered.data_ptr(),
        scales.data_ptr(),
        zeros.data_ptr(),
        slope.data_ptr(),
        hessian.data_ptr(),
        outputs,
        inputs,
        scales.shape[1],
        bits,
        first,
        last,
        last - first == inputs // scales.shape[1],
        change.data_ptr(),
        torch.get_num_threads(),
    )
    return change


def gram(left: Tensor, right: Tensor, out: Tensor) -> None:
    """out [M, K] += left^T right, from bfloat16 left [n, M] and right [n, K]; symmetric where they
    are one tensor."""
    (tokens, columns), right_columns = left.shape, right.shape[1]
    assert all(each.is_contiguous() for each in (left, right, out))
    native = _extension()
    path = native.find_path(PATH)
    room = native.gram_scratch(path, columns, right_columns, tokens)
    scratch = torch.empty(room, dtype=torch.uint8)
    native.gram(
        path,
        left.data_ptr(),
        columns,
        right.data_ptr(),
        right_columns,
        tokens,
        out.data_ptr(),
        scratch.data_ptr(),
        torch.get_num_threads(),
    )


def _extension() -> ModuleType:
    native = extension()
    assert native
    return native
