"""The methods' inner loops in C++ (glm4q/native), for the CPU where they were built.

Each function here computes what a function of torch computes, which its docstring names.
"""

import torch
from torch import Tensor

from calculator.model.formats import WeightFormat
from glm4q.kernels.cpu.checks import address, require, room, sizes
from glm4q.kernels.cpu.extension import (
    extension,
    find_instruction_set,
    instruction_set_name,
    required_extension,
)
from glm4q.kernels.cpu.records import (
    DTYPES,
    LARGEST_BLOCK,
    BlockRecord,
    CompensationRecord,
    DescentRecord,
    GramRecord,
    RoundingRecord,
    SubtractionRecord,
)
from glm4q.weights.packing import WORD_BITS
from quantize.methods.codes import Packed
from quantize.methods.operands import Compensation, Descent

INSTRUCTION_SET = "auto"
"""The best one of this machine."""


def serves(tensor: Tensor) -> bool:
    """Whether the loops can work on numbers like these."""
    return extension() is not None and tensor.device.type == "cpu" and tensor.dtype in DTYPES


def refuses(weight: Tensor) -> str | None:
    """Why the loops over blocks of columns do not take weights that lie where this one does."""
    return None if serves(weight) else "takes weights on a CPU for which the extension was built"


def multiplies_bf16(tensor: Tensor) -> bool:
    """Whether `gram` is faster here than float32 products: there are instructions for bfloat16."""
    number = find_instruction_set(INSTRUCTION_SET)
    return serves(tensor) and instruction_set_name(number) == "avx512_bf16"


def round_rows(
    weight: Tensor,
    weight_format: WeightFormat,
    clips: tuple[float, ...],
    importance: Tensor | None,
    to: Packed,
) -> None:
    """Do what `rtn.quantize` does to rows, bfloat16 or float32 [N, K], in columns of `to`."""
    outputs, inputs = sizes(weight, "the weight", 2)
    groups, bits = weight_format.groups(inputs), weight_format.bits
    require(weight.dtype in DTYPES, f"weights must be bfloat16 or float32, not {weight.dtype}")
    require(
        bits in (4, 8) and inputs % groups == 0 and inputs // groups * bits % WORD_BITS == 0,
        f"groups must fill whole words of {WORD_BITS} bits, not {groups} of {inputs} inputs",
    )
    require(len(clips) > 0, "there must be a clip to try")
    weight, starts = weight.contiguous(), torch.tensor(clips, dtype=torch.float32)
    importance = None if importance is None else importance.float().contiguous()
    columns = {
        "words": (to.qweight, torch.int32, inputs * bits // WORD_BITS),
        "scales": (to.scales, torch.float16, groups),
        "zero_points": (to.zero_points, torch.uint8, groups),
    }
    stride = to.scales.stride(0)
    record = RoundingRecord(
        weight=address(weight, "the weight", weight.dtype, (outputs, inputs)),
        dtype=DTYPES[weight.dtype],
        importance=None
        if importance is None
        else address(importance, "importance", torch.float32, (inputs,)),
        outputs=outputs,
        inputs=inputs,
        groups=groups,
        bits=bits,
        symmetric=weight_format.symmetric,
        clips=starts.data_ptr(),
        clip_count=len(clips),
        stride=stride,
        **{
            name: _columns(tensor, name, dtype, (rows, outputs), stride)
            for name, (tensor, dtype, rows) in columns.items()
        },
    )
    native = required_extension()
    native.round_rows(find_instruction_set(INSTRUCTION_SET), record, torch.get_num_threads())


def _columns(
    tensor: Tensor, name: str, dtype: torch.dtype, shape: tuple[int, int], stride: int
) -> int:
    """The address of columns of a larger tensor, whose rows are `stride` numbers apart."""
    require(
        tensor.dtype == dtype
        and tuple(tensor.shape) == shape
        and tensor.is_cpu
        and tensor.stride() == (stride, 1)
        and stride >= shape[1],
        f"{name} must be {dtype} {list(shape)} in rows {stride} numbers apart, not {tensor.dtype} "
        f"{list(tensor.shape)} with strides {tensor.stride()}",
    )
    return address(tensor[:1], name, dtype, (1, shape[1]))


def compensate(of: Compensation, first: int, last: int) -> Tensor:
    """Do what `by_torch.compensate` does."""
    codes = of.codes
    outputs, inputs = sizes(of.left, "the weight", 2)
    _, groups = sizes(codes.scales, "scales", 2)
    errors = torch.empty(outputs, max(last - first, 0))
    record = CompensationRecord(
        _block((outputs, inputs, groups), of.bits, first, last),
        address(of.rows, "the weight", torch.float32, (outputs, inputs)),
        address(of.left, "what is left", torch.float32, (outputs, inputs)),
        address(of.root, "the root", torch.float32, (inputs, inputs)),
        address(of.group, "group", torch.int32, (inputs,)),
        address(codes.scales, "scales", torch.float16, (outputs, groups)),
        address(codes.zero_points, "zero points", torch.uint8, (outputs, groups)),
        address(codes.codes, "codes", torch.uint8, (outputs, inputs)),
        address(errors, "errors", torch.float32, (outputs, last - first)),
    )
    low, high = (int(number) for number in of.group[first:last].aminmax())
    require(low >= 0 and high < groups, f"group must be from 0 to {groups - 1}: {low} to {high}")
    native = required_extension()
    native.compensate(find_instruction_set(INSTRUCTION_SET), record, torch.get_num_threads())
    return errors


def descend(of: Descent, first: int, last: int, *, rescales: bool) -> Tensor:
    """Do what `by_torch.descend` does."""
    outputs, inputs = sizes(of.centered, "codes", 2)
    _, groups = sizes(of.scales, "scales", 2)
    change = torch.empty(outputs, max(last - first, 0))
    record = DescentRecord(
        _block((outputs, inputs, groups), of.bits, first, last),
        address(of.centered, "codes", torch.float32, (outputs, inputs)),
        address(of.scales, "scales", torch.float32, (outputs, groups)),
        address(of.zeros, "zero points", torch.uint8, (outputs, groups)),
        address(of.slope, "the slope", torch.float32, (outputs, inputs)),
        address(of.hessian, "the Hessian", torch.float32, (inputs, inputs)),
        rescales,
        address(change, "the change", torch.float32, (outputs, last - first)),
    )
    native = required_extension()
    native.descend(find_instruction_set(INSTRUCTION_SET), record, torch.get_num_threads())
    return change


def subtract(out: Tensor, change: Tensor, matrix: Tensor, first: int, last: int) -> None:
    """Subtract change times matrix from the columns `first` to `last` of `out`, float32 [N, K].

    change: float32 [N, M], few of whose numbers are not 0; matrix: float32 [M, K].
    """
    rows, terms = sizes(change, "the change", 2)
    _, columns = sizes(out, "the result", 2)
    record = SubtractionRecord(
        address(change, "the change", torch.float32, (rows, terms)),
        address(matrix, "the matrix", torch.float32, (terms, columns)),
        address(out, "the result", torch.float32, (rows, columns)),
        rows,
        terms,
        columns,
        first,
        last,
    )
    native = required_extension()
    native.subtract(find_instruction_set(INSTRUCTION_SET), record, torch.get_num_threads())


def _block(shape: tuple[int, int, int], bits: int, first: int, last: int) -> BlockRecord:
    """The inputs `first` to `last` of a weight; shape: outputs, inputs, groups."""
    outputs, inputs, groups = shape
    require(bits in (4, 8), f"codes must have 4 or 8 bits, not {bits}")
    require(inputs % groups == 0, f"{groups} groups do not share out {inputs} inputs")
    require(
        0 <= first < last <= min(inputs, first + LARGEST_BLOCK),
        f"a block must be 1 to {LARGEST_BLOCK} of {inputs} inputs, not {first} to {last}",
    )
    return BlockRecord(outputs, inputs, groups, bits, first, last)


def gram(left: Tensor, right: Tensor, out: Tensor) -> None:
    """Add left^T right to `out`, float32 [M, K]; left: bfloat16 [n, M], right: bfloat16 [n, K].

    out: may be columns of a larger tensor. If left and right are one tensor, the sums are
    symmetric, and half of them are copied.
    """
    tokens, columns = sizes(left, "left", 2)
    _, right_columns = sizes(right, "right", 2)
    native, instruction_set = required_extension(), find_instruction_set(INSTRUCTION_SET)
    size = native.gram_scratch(instruction_set, columns, right_columns, tokens)
    scratch = torch.empty(size, dtype=torch.uint8)
    record = GramRecord(
        address(left, "left", torch.bfloat16, (tokens, columns)),
        columns,
        address(right, "right", torch.bfloat16, (tokens, right_columns)),
        right_columns,
        tokens,
        _columns(out, "the sums", torch.float32, (columns, right_columns), out.stride(0)),
        out.stride(0),
        room(scratch, "the scratch", torch.uint8, size),
        size,
    )
    native.gram(instruction_set, record, torch.get_num_threads())
