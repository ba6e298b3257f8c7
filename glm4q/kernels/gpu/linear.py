"""The launches that multiply activations by a quantized weight."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

import torch
import triton.language as tl
from torch import Tensor

from glm4q.kernels.gpu.cut import FEW_ROWS, WORD_BITS, Cut
from glm4q.kernels.gpu.launch import Launch
from glm4q.kernels.gpu.matmul import matmul, row_units
from glm4q.kernels.gpu.matvec import add_splits, matvec
from glm4q.memory.workspace import split_scratch

COMPUTE = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
SUM_BLOCK = 256


@dataclass(frozen=True)
class Product:
    """The product of activations and a weight in GPTQ's layout."""

    x: Tensor
    """[M, K]"""
    packed: Mapping[str, Tensor]
    out: Tensor
    """[M, N]"""
    scratch: Tensor
    compute: torch.dtype
    """The dtype that tensor cores multiply: bfloat16, or float16 on cards without bfloat16."""
    alike: bool = False
    """Whether each row has the bits that it has alone."""

    @property
    def inputs(self) -> int:
        return self.x.shape[1]

    @property
    def outputs(self) -> int:
        return self.out.shape[1]

    @property
    def bits(self) -> int:
        return self.packed["qweight"].shape[0] * WORD_BITS // self.inputs

    @property
    def group(self) -> int:
        """Inputs that share a scale."""
        return self.inputs // self.packed["scales"].shape[0]

    def launches(self) -> list[Launch]:
        """Return all launches that compute `out`."""
        rows = self.x.shape[0]
        alone = rows == 1 or self.alike
        cut = Cut.of(
            1 if alone else rows, self.outputs, self.inputs, bits=self.bits, group=self.group
        )
        cut = replace(cut, rows=rows)
        split = cut.splits > 1
        shape = cut.splits, rows, self.outputs
        partial = split_scratch(self.scratch, (torch.float32, shape))[0] if split else self.out
        launches = (
            [self._matvec(cut, partial, split=split)]
            if alone
            else self._matmul(cut, partial, split=split)
        )
        return [*launches, self._add(cut, partial)] if split else launches

    def _matvec(self, cut: Cut, partial: Tensor, *, split: bool) -> Launch:
        per_word = WORD_BITS // self.bits
        return Launch(
            matvec,
            (ceil(self.outputs / cut.block_n) * cut.rows, cut.splits),
            {
                "x": self.x,
                **self._weight(),
                "out": partial,
                "rows": cut.rows,
                "inputs": self.inputs,
                "outputs": self.outputs,
                "x_stride": self.x.stride(0),
                "out_stride": self.outputs if split else self.out.stride(0),
                "split_words": cut.split_inputs // per_word,
            },
            {
                "BITS": self.bits,
                "GROUP_WORDS": self.group // per_word,
                "BLOCK_WORDS": cut.block_k // per_word,
                "BLOCK_N": cut.block_n,
                "EVEN_WORDS": self.inputs % cut.block_k == 0,
            },
        )

    def _matmul(self, cut: Cut, partial: Tensor, *, split: bool) -> list[Launch]:
        rows = cut.rows
        guarded = self.compute == torch.float16
        # Tiles take more registers without tensor cores, and where a book is looked up.
        roomy = (guarded and rows > FEW_ROWS) or "book" in self.packed
        units = None
        if guarded:
            (units,) = split_scratch(self.scratch[cut.partial_bytes :], (torch.float32, (rows,)))
        guards = [
            Launch(
                row_units,
                (rows,),
                {"x": self.x, "units": units, "inputs": self.inputs, "x_stride": self.x.stride(0)},
                {"BLOCK_K": 1024},
            )
        ]
        product = Launch(
            matmul,
            (ceil(self.outputs / cut.block_n), ceil(rows / cut.block_m), cut.splits),
            {
                "x": self.x,
                **self._weight(),
                "units": units,
                "out": partial,
                "rows": rows,
                "inputs": self.inputs,
                "outputs": self.outputs,
                "x_stride": self.x.stride(0),
                "out_stride": self.outputs if split else self.out.stride(0),
                "split_inputs": cut.split_inputs,
            },
            {
                "BITS": self.bits,
                "GROUP": self.group,
                "BLOCK_M": cut.block_m,
                "BLOCK_N": cut.block_n,
                "BLOCK_K": cut.block_k,
                "EVEN_K": self.inputs % cut.block_k == 0,
                "COMPUTE": COMPUTE[self.compute],
            },
            warps=8 if roomy else 4,
            # Words are copied four bytes at a time where a book is looked up, because Triton lays
            # them out as it looks numbers up: four lanes of such a copy ahead meet in one bank.
            stages=1 if "book" in self.packed else 3,
        )
        return [*guards, product] if guarded else [product]

    def _add(self, cut: Cut, partial: Tensor) -> Launch:
        return Launch(
            add_splits,
            (ceil(self.outputs / SUM_BLOCK), cut.rows),
            {
                "partial": partial,
                "out": self.out,
                "rows": cut.rows,
                "outputs": self.outputs,
                "out_stride": self.out.stride(0),
            },
            {"SPLITS": cut.splits, "BLOCK_N": SUM_BLOCK},
        )

    def _weight(self) -> dict[str, Tensor | None]:
        return {name: self.packed.get(name) for name in ("qweight", "scales", "qzeros", "book")}
