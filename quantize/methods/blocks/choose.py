"""Which loops round a block of columns, by where a weight lies: the first that does not refuse."""

from typing import Protocol

from torch import Tensor

from quantize.methods import native
from quantize.methods.blocks import by_torch, by_triton
from quantize.methods.operands import Compensation, Descent


class Blocks(Protocol):
    """A module with these functions; `by_torch` is the reference, which says what they compute."""

    def refuses(self, weight: Tensor) -> str | None:
        """Why it does not take weights that lie where this one does, or None where it does."""

    def compensate(self, of: Compensation, first: int, last: int) -> Tensor:
        """Round the columns `first` to `last` of `left` by GPTQ."""

    def descend(self, of: Descent, first: int, last: int, *, rescales: bool) -> Tensor:
        """Better codes for the columns `first` to `last`."""

    def subtract(self, out: Tensor, change: Tensor, matrix: Tensor, first: int, last: int) -> None:
        """Subtract the product of a change, few of whose numbers are not 0."""


BLOCKS: tuple[Blocks, ...] = (native, by_triton, by_torch)


def choose_blocks(weight: Tensor) -> Blocks:
    """The loops for numbers that lie where `weight` does."""
    return next(blocks for blocks in BLOCKS if blocks.refuses(weight) is None)
