"""The project's own matmul for the CPU, in C++: glm4q/native/.

Weights keep GPTQ's layout, so that the pages of a loaded file serve as they are. Activations are
rounded to codes of 8 bits, of which up to 32 consecutive inputs of a row share a scale, or of 16
bits, of which up to 128 do. Products are summed as integers and scaled in float32.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from calculator.memory.scratch import KernelNeeds
from calculator.model.formats import WeightFormat
from glm4q.kernels.cpu.checks import address, require, room, sizes
from glm4q.kernels.cpu.extension import (
    find_instruction_set,
    instruction_set_name,
    refuses_extension,
    required_extension,
)
from glm4q.kernels.cpu.records import (
    CHUNK,
    DTYPES,
    LARGEST_DENSE_NUMBERS,
    SEGMENT,
    DenseMatmulRecord,
    LinearRecord,
    MatmulRecord,
    NormRecord,
)
from glm4q.kernels.spec import LinearSpec
from glm4q.weights.packing import BOOK_SIZE, WORD_BITS, QuantizedWeight

INPUTS_MULTIPLE = 8
FLOAT_BYTES = 4
"""Each segment of a row has a scale beside its codes, and each chunk sums of its numbers."""
NAME = "native"
SCHEMES = ("groups", "nf4", "llm-int8")
Activations = Literal["auto", "int8", "int16"]
ACTIVATION_BITS = {"int8": 8, "int16": 16}
BOOK_STEPS = 112
"""NF4 values are stored as whole steps of 1/112 of the largest one. A test shows that 112 gives the
least rounding error of all numbers of steps that fit into a byte."""


class Native:
    """Multiplies on the best instruction set of this machine."""

    widens = True
    rows_alike = True
    packs_on_device = False

    def __init__(self, instruction_set: str = "auto", activations: Activations = "auto") -> None:
        """instruction_set: avx512_bf16, avx512, avx_vnni, avx2, neon, scalar; "auto": the best one.

        activations: the codes that they are rounded to.
        """
        self._name, self._activations = instruction_set, activations
        self.instruction_set = find_instruction_set(instruction_set)

    @property
    def name(self) -> str:
        """The name in reports; a cache that other activations made has other bits."""
        return NAME if self._activations == "auto" else f"{NAME}, {self._activations} activations"

    def activation_bits(self, weight_bits: int, *, book: bool) -> int:
        """Bits of the codes of activations that meet weights of so many bits.

        AVX2 multiplies pairs of 16 bits as fast as it does bytes, where these need more than 4
        bits, so it takes them for a book as well.
        """
        if self._activations != "auto":
            return ACTIVATION_BITS[self._activations]
        pairs_are_fast = instruction_set_name(self.instruction_set) == "avx2"
        return 16 if weight_bits == 8 or (book and pairs_are_fast) else 8

    def refuses(self, spec: LinearSpec) -> str | None:
        if reason := refuses_extension():
            return reason
        if not self.instruction_set:
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
        if weight.book is not None:  # rounded to whole numbers of steps
            book, scales = (weight.book * BOOK_STEPS).round(), weight.scales / BOOK_STEPS
            weight = replace(weight, book=book, scales=scales)
        parts = {name: getattr(weight, name) for name in ("qweight", "scales", "qzeros", "book")}
        return {name: tensor.contiguous() for name, tensor in parts.items() if tensor is not None}

    def needs(self, spec: LinearSpec, tokens: int, activation_bytes: int) -> KernelNeeds:
        group = spec.weight_format.group_size or spec.inputs
        book = spec.weight_format.scheme == "nf4"
        bits = self.activation_bits(spec.weight_format.bits, book=book)
        return KernelNeeds(activations_bytes(tokens, spec.inputs, group, bits))

    def matmul(
        self,
        x: Tensor,
        packed: Mapping[str, Tensor],
        out: Tensor,
        scratch: Tensor,
        *,
        alike: bool = False,
    ) -> None:
        rows, inputs = sizes(x, "activations", 2)
        weight = self.linear_record(packed, inputs)
        _require_dtypes(x, out)
        scratch_bytes = activations_bytes(rows, inputs, weight.group, weight.activation_bits)
        record = MatmulRecord(
            weight,
            address(x, "activations", x.dtype, (rows, inputs)),
            rows,
            DTYPES[x.dtype],
            address(out, "the result", out.dtype, (rows, weight.outputs)),
            DTYPES[out.dtype],
            room(scratch, "the scratch", torch.uint8, scratch_bytes),
            scratch.numel(),
        )
        required_extension().matmul(self.instruction_set, record, torch.get_num_threads())

    def linear_record(
        self, packed: Mapping[str, Tensor], inputs: int, bias: Tensor | None = None
    ) -> LinearRecord:
        """A packed weight of so many inputs, after its tensors are checked. Raises KernelError."""
        return _linear_record(packed, inputs, bias, self)


def chunk_inputs(group: int) -> int:
    """Inputs that are multiplied before their sums are scaled."""
    return group if group <= CHUNK else max(n for n in (128, 96, 64, 32) if group % n == 0)


def activations_bytes(rows: int, inputs: int, group: int, bits: int) -> int:
    """Bytes of scratch for the codes of rows of activations, which have so many bits."""
    chunk = chunk_inputs(group)
    segment = min(chunk, SEGMENT) if bits == 8 else chunk
    sums = inputs // chunk * 2  # of the codes; and sums of products of 16-bit codes, or units
    floats = inputs // segment + sums
    return rows * (inputs * bits // 8 + floats * FLOAT_BYTES)


def _linear_record(
    packed: Mapping[str, Tensor], inputs: int, bias: Tensor | None, kernel: Native
) -> LinearRecord:
    qweight, scales = packed["qweight"], packed["scales"]
    qzeros, book = packed.get("qzeros"), packed.get("book")
    (words, outputs), (groups, _) = sizes(qweight, "qweight", 2), sizes(scales, "scales", 2)
    bits, rest = divmod(words * WORD_BITS, inputs)
    require(bits in (4, 8) and not rest, f"{words} rows of words do not hold {inputs} inputs")
    require(inputs % groups == 0, f"{groups} groups do not share out {inputs} inputs")
    require(
        scales.dtype in (torch.float16, torch.float32),
        f"scales must be float16 or float32, not {scales.dtype}",
    )
    zeros = groups, outputs * bits // WORD_BITS
    return LinearRecord(
        address(qweight, "qweight", torch.int32, (words, outputs)),
        address(scales, "scales", scales.dtype, (groups, outputs)),
        None if qzeros is None else address(qzeros, "qzeros", torch.int32, zeros),
        None if book is None else address(book, "book", torch.float32, (BOOK_SIZE,)),
        None if bias is None else address(bias, "bias", bias.dtype, (outputs,)),
        outputs,
        inputs,
        bits,
        inputs // groups,
        scales.dtype == torch.float32,
        kernel.activation_bits(bits, book=book is not None),
    )


def matmul_dense(x: Tensor, weight: Tensor, out: Tensor, instruction_set: str = "auto") -> None:
    """x [M, K] by the bfloat16 weight [N, K] into `out` [M, N], with sums in float32."""
    (outputs, inputs), (rows, _) = sizes(weight, "weight", 2), sizes(x, "activations", 2)
    require(
        inputs <= LARGEST_DENSE_NUMBERS,
        f"a row of activations must have at most {LARGEST_DENSE_NUMBERS} numbers, not {inputs}",
    )
    _require_dtypes(x, out)
    record = DenseMatmulRecord(
        address(weight, "weight", torch.bfloat16, (outputs, inputs)),
        outputs,
        inputs,
        address(x, "activations", x.dtype, (rows, inputs)),
        rows,
        DTYPES[x.dtype],
        address(out, "the result", out.dtype, (rows, outputs)),
        DTYPES[out.dtype],
    )
    native = required_extension()
    native.matmul_dense(find_instruction_set(instruction_set), record, torch.get_num_threads())


def norm(
    x: Tensor, weight: Tensor, eps: float, out: Tensor, instruction_set: str = "auto"
) -> Tensor:
    """RMSNorm of x [..., C] into `out`, which may be x itself."""
    _require_dtypes(x, weight, out)
    (size,) = sizes(weight, "weight", 1)
    require(
        x.dim() > 0 and x.shape[-1] == size, f"vectors must have {size} numbers: {list(x.shape)}"
    )
    record = NormRecord(
        address(x, "vectors", x.dtype, x.shape),
        address(weight, "weight", x.dtype, (size,)),
        address(out, "the result", x.dtype, x.shape),
        x.numel() // size,
        size,
        DTYPES[x.dtype],
        eps,
    )
    required_extension().norm(
        find_instruction_set(instruction_set), record, torch.get_num_threads()
    )
    return out


def _require_dtypes(*tensors: Tensor) -> None:
    for tensor in tensors:
        require(tensor.dtype in DTYPES, f"numbers must be bfloat16 or float32, not {tensor.dtype}")
