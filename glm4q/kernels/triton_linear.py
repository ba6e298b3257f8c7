"""Our own kernels for NVIDIA cards, on GPTQ's layout as it is: `glm4q.kernels.gpu`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from calculator.memory.scratch import KernelNeeds
from calculator.memory.workspace import FEW_TOKENS
from calculator.model.formats import GROUP_SIZES, WeightFormat
from glm4q.kernels.cuda import (
    AMPERE,
    has_gluon,
    has_turing_kernels,
    matrix_dtype,
    refuses_triton,
)
from glm4q.kernels.gpu.products.cut import FEW_ROWS, Cut
from glm4q.kernels.spec import PLAIN, Finish, LinearSpec
from glm4q.weights.packing import QuantizedWeight

if TYPE_CHECKING:
    from glm4q.kernels.gpu.products.linear import Product

SCHEMES = ("groups", "nf4", "llm-int8")
UNIT_BYTES = 4
"""Bytes of scratch for each row of activations that is scaled to float16's range."""
BFLOAT16_BYTES = 2
MOST_TOGETHER = 3
"""Weights that one launch multiplies by."""
PARTS = ("qweight", "scales", "qzeros", "book")


class TritonLinear:
    """4 and 8 bits, symmetric or not, a scale for 32, 64 or 128 inputs or for a whole row; NF4.

    One token's activations are multiplied as they are; several tokens' are rounded to bfloat16,
    and to float16 in units of a row's own before Ampere.
    """

    name = "triton"
    widens = False
    rows_alike = True
    packs_on_device = False

    def refuses(self, spec: LinearSpec) -> str | None:
        if reason := refuses_triton(spec.device):
            return reason
        if spec.weight_format.act_order:
            return "takes groups of consecutive inputs only"
        if spec.weight_format.scheme not in SCHEMES:
            return f"takes codes in groups of inputs, not {spec.weight_format}"
        if spec.weight_format.scheme == "nf4" and (spec.capability or AMPERE) < AMPERE:
            return "takes nf4 from compute capability 8.0 on: before, its tiles spill registers"
        if spec.weight_format.group_size not in (*GROUP_SIZES, None):
            return (
                f"takes groups of 32, 64 or 128, or whole rows, not {spec.weight_format.group_size}"
            )
        return None

    def packed_format(self, weight_format: WeightFormat) -> WeightFormat:
        return weight_format

    def pack(self, weight: QuantizedWeight) -> dict[str, Tensor]:
        parts = {name: getattr(weight, name) for name in PARTS}
        return {name: part.contiguous() for name, part in parts.items() if part is not None}

    def needs(self, spec: LinearSpec, tokens: int, activation_bytes: int) -> KernelNeeds:
        """The needs of up to so many rows: the last chunk of a prompt may have any size."""
        shape = spec.outputs, spec.inputs
        bits, group = spec.weight_format.bits, spec.weight_format.group_size or spec.inputs
        guarded = matrix_dtype(spec.device) == torch.float16
        counts = {1, min(tokens, FEW_ROWS), *range(FEW_ROWS, tokens, FEW_ROWS), tokens}
        if (
            has_gluon()
            and activation_bytes == BFLOAT16_BYTES
            and spec.weight_format.scheme != "nf4"
        ):
            few = Cut.few(min(tokens, FEW_ROWS), *shape, bits=bits, group=group)
            counts = {rows for rows in counts if rows > FEW_ROWS}
        else:  # the tokens of a draft, each as it is alone
            few = Cut.of(1, *shape, bits=bits, group=group)
            few = replace(few, rows=min(tokens, FEW_TOKENS))
        sizes = [few.partial_bytes]
        for rows in counts:
            cut = Cut.of(rows, *shape, bits=bits, group=group)
            sizes.append(cut.partial_bytes + (UNIT_BYTES * rows if guarded and rows > 1 else 0))
        return KernelNeeds(max(sizes))

    def matmul(
        self,
        x: Tensor,
        packed: Mapping[str, Tensor],
        out: Tensor,
        scratch: Tensor,
        *,
        alike: bool = False,
    ) -> None:
        self.matmul_and_finish(x, packed, out, scratch, PLAIN, alike=alike)

    def finishes(self, x: Tensor, packed: Mapping[str, Tensor], *, alike: bool = False) -> bool:
        from glm4q.kernels.gpu.products.linear import Product

        few = _by_few_rows(x, packed)
        return Product(x, packed, x, x, x.dtype, alike, few=few).cut.splits > 1

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
        from glm4q.kernels.gpu.launch import run_all  # Triton is not there on every machine
        from glm4q.kernels.gpu.products.linear import Product

        compute, turing = matrix_dtype(x.device), has_turing_kernels(x.device)
        few = _by_few_rows(x, packed)
        run_all(Product(x, packed, out, scratch, compute, alike, turing, finish, few).launches())

    def multiplies_together(
        self, x: Tensor, weights: Sequence[Mapping[str, Tensor]], scratch: Tensor
    ) -> bool:
        # Weights of one format have parts of the same kinds, and of as many words and groups.
        kinds = {
            tuple((name, part.dtype, part.shape[0]) for name, part in sorted(packed.items()))
            for packed in weights
        }
        if len(kinds) > 1 or len(weights) > MOST_TOGETHER or x.shape[0] > FEW_ROWS:
            return False
        if not _by_few_rows(x, weights[0]):
            return False
        # The tokens of a draft go the way that one alone goes: the most rows decide for all.
        cut = self._together(x, weights, [x] * len(weights), [None] * len(weights), scratch).cut
        return 0 < replace(cut, rows=FEW_ROWS).partial_bytes <= scratch.nbytes

    def matmul_together(
        self,
        x: Tensor,
        weights: Sequence[Mapping[str, Tensor]],
        outs: Sequence[Tensor],
        biases: Sequence[Tensor | None],
        scratch: Tensor,
    ) -> None:
        from glm4q.kernels.gpu.launch import run_all

        run_all(self._together(x, weights, outs, biases, scratch).launches())

    def _together(
        self,
        x: Tensor,
        weights: Sequence[Mapping[str, Tensor]],
        outs: Sequence[Tensor],
        biases: Sequence[Tensor | None],
        scratch: Tensor,
    ) -> "Product":
        from glm4q.kernels.gpu.products.beside import Beside
        from glm4q.kernels.gpu.products.linear import Product

        first, *others = map(Beside, weights, outs, biases)
        turing = has_turing_kernels(x.device)
        return Product(
            x, first.packed, first.out, scratch, matrix_dtype(x.device), turing=turing,
            finish=Finish(first.bias), few=True, beside=tuple(others),
        )  # fmt: skip


def _by_few_rows(x: Tensor, packed: Mapping[str, Tensor]) -> bool:
    """Whether the kernel for few tokens takes these activations and this weight."""
    return x.dtype == torch.bfloat16 and "book" not in packed and has_gluon()
