"""Products of activations by a quantized weight, whole or some blocks of them, and what is right.

A weight of GLM-4's head takes 600 MB. So only the columns of the blocks that run are written; what
the operating system has given for the others is never touched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

import torch
from torch import Tensor

from calculator.model.formats import WeightFormat
from glm4q.kernels.gpu.launch import run_all
from glm4q.kernels.gpu.products.cut import FEW_ROWS, Cut
from glm4q.kernels.gpu.products.linear import SUM_BLOCK, Product
from glm4q.kernels.triton_linear import UNIT_BYTES, TritonLinear
from glm4q.weights.packing import QuantizedWeight
from tests.card.triton_driver import Block, PlayedDriver, played_driver
from tests.glm4q.random_weights import random_weight

AMPERE = 80


@dataclass(frozen=True)
class ProductCase:
    """One layer, so many tokens, one card."""

    outputs: int
    inputs: int
    weight_format: WeightFormat
    rows: int
    capability: int
    whole: bool = True
    """Whether every block runs, or the first and the last of rows and of outputs only."""
    alike: bool = False
    """Whether each row is multiplied as it is alone: the tokens of a draft."""
    few: bool = False
    """Whether `few_rows` multiplies, where there are so few."""

    def __str__(self) -> str:
        shape = f"{self.outputs} x {self.inputs} {self.weight_format} x {self.rows}"
        return f"{shape} on {self.capability / 10}"

    @cached_property
    def cut(self) -> Cut:
        group, bits = self.weight_format.group_size or self.inputs, self.weight_format.bits
        if self.few and self.rows <= FEW_ROWS:
            return Cut.few(self.rows, self.outputs, self.inputs, bits=bits, group=group)
        rows = 1 if self.alike else self.rows
        cut = Cut.of(rows, self.outputs, self.inputs, bits=bits, group=group)
        return replace(cut, rows=self.rows)

    @cached_property
    def columns(self) -> Tensor:
        """The outputs that are computed, in runs that the sums of splits take as well."""
        if self.whole:
            return torch.arange(self.outputs)
        run = max(self.cut.block_n, SUM_BLOCK)
        last = (ceil(self.outputs / run) - 1) * run
        return torch.cat((torch.arange(min(run, last)), torch.arange(last, self.outputs)))

    @cached_property
    def tokens(self) -> Tensor:
        """The rows that are computed."""
        if self.whole:
            return torch.arange(self.rows)
        block = self.cut.block_m
        last = (ceil(self.rows / block) - 1) * block
        return torch.cat((torch.arange(min(block, last)), torch.arange(last, self.rows)))

    def blocks(self, name: str, grid: Block) -> Sequence[Block] | None:
        """Return the blocks that compute these columns and rows; None means all of them."""
        if self.whole:
            return None
        wide = {"add_splits": SUM_BLOCK}.get(name, self.cut.block_n)
        ours = {int(column) // wide for column in self.columns}
        if name == "row_units":
            return [(int(token), 0, 0) for token in self.tokens]
        if name == "add_splits":
            return [(x, int(y), 0) for x in ours for y in self.tokens]
        if name == "matvec":
            lines = [x * self.rows + int(token) for x in ours for token in self.tokens]
            return [(line, y, 0) for line in lines for y in range(grid[1])]
        if name == "few_rows":
            return [(x, y, 0) for x in ours for y in range(grid[1])]
        high = {int(token) // self.cut.block_m for token in self.tokens}
        return [(x, y, z) for x in ours for y in high for z in range(grid[2])]

    def run(self, size: float = 1, **settings: object) -> tuple[PlayedDriver, Tensor, Tensor]:
        """The driver with its launches, the numbers computed, and exact ones in float64.

        size: about how large activations are.
        """
        small = random_weight(len(self.columns), self.inputs, self.weight_format)
        x = (size * torch.randn(self.rows, self.inputs)).bfloat16()
        with played_driver(self.capability, blocks=self.blocks, **settings) as driver:
            out = self._launch(self._spread(small), x)
        exact = x[self.tokens].double() @ small.dequantize().double()
        return driver, out[self.tokens][:, self.columns], exact

    def multiply(self, weight: QuantizedWeight, x: Tensor) -> Tensor:
        """Multiply these tokens, however many, by a whole weight: float32 [M, N]."""
        with played_driver(self.capability):
            return replace(self, rows=len(x))._launch(TritonLinear().pack(weight), x)

    def _launch(self, weight: Mapping[str, Tensor], x: Tensor) -> Tensor:
        compute = torch.bfloat16 if self.capability >= AMPERE else torch.float16
        out = torch.full((self.rows, self.outputs), torch.nan)
        scratch_bytes = self.cut.partial_bytes + UNIT_BYTES * self.rows
        scratch = torch.full((scratch_bytes,), 255, dtype=torch.uint8)  # NaN in float32
        turing = self.capability < AMPERE
        product = Product(x, weight, out, scratch, compute, self.alike, turing, few=self.few)
        run_all(product.launches())
        return out

    def _spread(self, small: QuantizedWeight) -> dict[str, Tensor]:
        """The weight's parts in the layer's whole width, these columns written."""
        parts = {"qweight": small.qweight, "scales": small.scales}
        spread = {}
        for name, part in parts.items():
            spread[name] = torch.empty(part.shape[0], self.outputs, dtype=part.dtype)
            spread[name][:, self.columns] = part
        if small.qzeros is not None:
            per_word = 32 // self.weight_format.bits
            words = self.columns[::per_word] // per_word
            zeros = torch.empty(
                small.qzeros.shape[0], self.outputs // per_word, dtype=small.qzeros.dtype
            )
            zeros[:, words] = small.qzeros
            spread["qzeros"] = zeros
        if small.book is not None:
            spread["book"] = small.book
        return spread


def relative_error(computed: Tensor, exact: Tensor) -> float:
    """Divide the norm of the error by that of the exact numbers."""
    return float((computed.double() - exact).norm() / exact.norm())
