"""The launches that multiply activations by a quantized weight."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

import torch
import triton.language as tl
from torch import Tensor

from calculator.errors import KernelError
from glm4q.kernels.gpu.launch import Argument, Constant, Launch
from glm4q.kernels.gpu.products.beside import Beside, blocks_of, outs_of, weights_of
from glm4q.kernels.gpu.products.cut import AHEAD, FEW_ROWS, WARP_OUTPUTS, WORD_BITS, Cut
from glm4q.kernels.gpu.products.matmul import matmul, row_units
from glm4q.kernels.gpu.products.matvec import matvec
from glm4q.kernels.gpu.products.splits import add_splits
from glm4q.kernels.spec import PLAIN, Finish
from glm4q.memory.workspace import split_scratch

COMPUTE = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
SUM_BLOCK = 256
BOOK_BYTES = 64
"""Bytes of a book: 16 numbers of float32."""
OUTPUTS_OF_A_WARP = 16
"""Outputs that a warp multiplies on Turing: two of its instructions wide."""


@dataclass(frozen=True)
class Product:
    """The product of activations and a weight in GPTQ's layout."""

    x: Tensor
    """[M, K]"""
    packed: Mapping[str, Tensor]
    out: Tensor
    """[M, N], or what `finish` makes of it"""
    scratch: Tensor
    compute: torch.dtype
    """The dtype that tensor cores multiply: bfloat16, or float16 on cards without bfloat16."""
    alike: bool = False
    """Whether each row has the bits that it has alone."""
    turing: bool = False
    """Whether Turing's tensor cores multiply several rows, by a kernel of their own."""
    finish: Finish = PLAIN
    """What becomes of the product; only of one whose inputs are split."""
    few: bool = False
    """Whether up to FEW_ROWS rows, one as well, are multiplied by `few_rows`, which takes
    bfloat16 activations, no book, and needs Gluon. Each has the bits that it has alone."""
    beside: tuple[Beside, ...] = ()
    """Up to two weights more that are multiplied by the same few tokens."""

    @property
    def inputs(self) -> int:
        return self.x.shape[1]

    @property
    def outputs(self) -> int:
        return self.packed["qweight"].shape[1]

    @property
    def all_outputs(self) -> int:
        """The outputs of all weights."""
        return self.outputs + sum(one.outputs for one in self.beside)

    @property
    def bits(self) -> int:
        return self.packed["qweight"].shape[0] * WORD_BITS // self.inputs

    @property
    def group(self) -> int:
        """Inputs that share a scale."""
        return self.inputs // self.packed["scales"].shape[0]

    @property
    def cut(self) -> Cut:
        """How it is cut into blocks."""
        rows, shape = self.x.shape[0], (self.all_outputs, self.inputs)
        if self._by_few_rows:
            return Cut.few(rows, *shape, bits=self.bits, group=self.group)
        cut = Cut.of(1 if self._alone else rows, *shape, bits=self.bits, group=self.group)
        return replace(cut, rows=rows)

    @property
    def _by_few_rows(self) -> bool:
        return self.few and self.x.shape[0] <= FEW_ROWS

    @property
    def _alone(self) -> bool:
        """Whether each row is multiplied as one token is."""
        return self.alike or self.x.shape[0] == 1

    def launches(self) -> list[Launch]:
        """Return all launches that compute `out`."""
        cut = self.cut
        split = cut.splits > 1
        if (not self.finish.is_plain or self.beside) and not split:
            raise KernelError("a product that is not split is finished by no launch of its own")
        if self.beside and not self._by_few_rows:
            raise KernelError("only the kernel for few tokens multiplies several weights at once")
        shape = cut.splits, cut.rows, self.all_outputs
        partial = split_scratch(self.scratch, (torch.float32, shape))[0] if split else self.out
        if self._by_few_rows:
            launches = [self._few_rows(cut, partial, split=split)]
        elif self._alone:
            launches = [self._matvec(cut, partial, split=split)]
        else:
            launches = self._matmul(cut, partial, split=split)
        return [*launches, self._add(cut, partial)] if split else launches

    def _few_rows(self, cut: Cut, partial: Tensor, *, split: bool) -> Launch:
        # Not every Triton that serves other kernels has Gluon.
        from glm4q.kernels.gpu.products.few_rows import few_rows

        taken = {name: part for name, part in self._weight().items() if name != "book"}
        return Launch(
            few_rows,
            (blocks_of(self.outputs, self.beside, cut.block_n), cut.splits),
            {
                "x": self.x,
                **taken,
                "out": partial,
                "rows": cut.rows,
                "inputs": self.inputs,
                "outputs": self.outputs,
                "x_stride": self.x.stride(0),
                "out_stride": self.all_outputs if split else self.out.stride(0),
                "split_inputs": cut.split_inputs,
                **weights_of(self.beside),
            },
            {
                "BITS": self.bits,
                "GROUP": self.group,
                "TOKENS": cut.block_m,
                "BLOCK_N": cut.block_n,
                "BLOCK_K": cut.block_k,
                "AHEAD": AHEAD,
                "EVEN_K": self.inputs % cut.block_k == 0,
                "TURING": self.turing,
            },
            warps=cut.block_n // WARP_OUTPUTS,
        )

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
        units = None
        if self.compute == torch.float16:
            scratch = self.scratch[cut.partial_bytes :]
            (units,) = split_scratch(scratch, (torch.float32, (cut.rows,)))
        arguments: dict[str, Argument] = {
            "x": self.x,
            **self._weight(),
            "units": units,
            "out": partial,
            "rows": cut.rows,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "x_stride": self.x.stride(0),
            "out_stride": self.outputs if split else self.out.stride(0),
            "split_inputs": cut.split_inputs,
        }
        constants: dict[str, Constant] = {
            "BITS": self.bits,
            "GROUP": self.group,
            "BLOCK_M": cut.block_m,
            "BLOCK_N": cut.block_n,
            "BLOCK_K": cut.block_k,
            "EVEN_K": self.inputs % cut.block_k == 0,
        }
        grid = ceil(self.outputs / cut.block_n), ceil(cut.rows / cut.block_m), cut.splits
        kernel = self._by_turing if self.turing else self._by_dot
        product = kernel(cut, grid, arguments, constants)
        return [product] if units is None else [self._row_units(units), product]

    def _row_units(self, units: Tensor) -> Launch:
        """Return the launch that computes what brings each row to float16's range."""
        return Launch(
            row_units,
            (len(units),),
            {"x": self.x, "units": units, "inputs": self.inputs, "x_stride": self.x.stride(0)},
            {"BLOCK_K": 1024},
        )

    def _by_dot(
        self,
        cut: Cut,
        grid: tuple[int, ...],
        arguments: dict[str, Argument],
        constants: dict[str, Constant],
    ) -> Launch:
        """Return the launch of Triton's `dot`, which uses tensor cores from Ampere on."""
        many = arguments["units"] is not None and cut.rows > FEW_ROWS
        return Launch(
            matmul,
            grid,
            arguments,
            {**constants, "COMPUTE": COMPUTE[self.compute]},
            # Tiles take more registers without tensor cores, and where a book is looked up.
            warps=8 if many or "book" in self.packed else 4,
            # Words are copied four bytes at a time where a book is looked up, because Triton lays
            # them out as it looks numbers up: four lanes of such a copy ahead meet in one bank.
            stages=1 if "book" in self.packed else 3,
        )

    def _by_turing(
        self,
        cut: Cut,
        grid: tuple[int, ...],
        arguments: dict[str, Argument],
        constants: dict[str, Constant],
    ) -> Launch:
        # Not every Triton that serves other cards has Gluon.
        from glm4q.kernels.gpu.products.turing_matmul import matmul

        taken = {name: value for name, value in arguments.items() if name != "book"}
        return Launch(matmul, grid, taken, constants, warps=cut.block_n // OUTPUTS_OF_A_WARP)

    def _add(self, cut: Cut, partial: Tensor) -> Launch:
        return Launch(
            add_splits,
            (blocks_of(self.out.shape[1], self.beside, SUM_BLOCK), cut.rows),
            {
                "partial": partial,
                "bias": self.finish.bias,
                "out": self.out,
                "rows": cut.rows,
                "outputs": self.outputs,
                "all_outputs": self.all_outputs,
                "out_stride": self.out.stride(0),
                **outs_of(self.beside),
            },
            {
                "SPLITS": cut.splits,
                "BLOCK_N": SUM_BLOCK,
                "GATED": self.finish.gated,
                "ADDED": self.finish.added,
            },
        )

    def _weight(self) -> dict[str, Tensor | None]:
        book = self.packed.get("book")
        if book is not None and book.data_ptr() % BOOK_BYTES:
            # `matvec` puts codes into the last bits of its address.
            raise KernelError(f"a book must begin at a multiple of {BOOK_BYTES} bytes")
        return {name: self.packed.get(name) for name in ("qweight", "scales", "qzeros", "book")}
