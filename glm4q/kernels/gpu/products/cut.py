"""How a multiplication is cut into blocks for a GPU.

The cut depends on the layer and the number of tokens alone, never on the card, so that a plan holds
on every card, and a result does not change from one to the next.
"""

from dataclasses import dataclass
from math import ceil
from typing import Self

from glm4q.weights.packing import WORD_BITS

BLOCKS = 512
"""Blocks that fill a card: four for each multiprocessor of an RTX 4090."""
FEW_BLOCKS = 512
"""Blocks of `few_rows` that fill a card. On an H200, with code for 8.6, 256 took 4 to 19 % longer,
and 1,024 was not faster for INT8."""
FEW_INPUTS = 64
"""Inputs of a tile of `few_rows`: 128 of INT4 took 5 to 14 % longer on the H200."""
AHEAD = 2
"""Tiles of words that `few_rows` has loaded, or on their way, before it multiplies one."""
WARP_OUTPUTS = 32
"""Outputs that a warp of `few_rows` multiplies, 128 bytes of words side by side."""
VECTOR_WORDS = 16
FEW_ROWS = 16
"""The height of a tensor core's tile."""
MANY_BLOCKS = 256
"""Blocks of more tokens that the inputs are split for: a prompt of 32 tokens has 32 blocks of its
own in a layer of 4,096 outputs. On an H200 it took 18 microseconds so, and 63 without splits; 512
tokens, which have 256 blocks, were slower with splits."""
TILES = (32, (32, 128)), (64, (64, 128))
"""Tiles of rows and outputs for up to so many rows."""
TALL_TILE = 128, 64
"""The tile for more rows: each code is unpacked for 128 rows at once. On an H200 it was faster by a
fifth than 64 rows and 128 outputs."""


@dataclass(frozen=True)
class Cut:
    """The tiles of rows, outputs and inputs, and how the inputs are divided among splits."""

    rows: int
    outputs: int
    block_m: int
    block_n: int
    block_k: int
    splits: int
    split_inputs: int
    """Inputs of each split except the last, a multiple of block_k."""

    @classmethod
    def of(cls, rows: int, outputs: int, inputs: int, *, bits: int, group: int) -> Self:
        """Choose the cut. group: inputs that share a scale; all where a row has one scale."""
        if rows == 1:
            block_m, block_n, block_k = 1, 128, VECTOR_WORDS * (WORD_BITS // bits)
        elif rows <= FEW_ROWS:
            block_m, block_n, block_k = FEW_ROWS, 64, min(64, group)
        else:
            low = (tile for most, tile in TILES if rows <= most)
            (block_m, block_n), block_k = next(low, TALL_TILE), min(64, group)
        tiles = ceil(inputs / block_k)
        blocks = ceil(outputs / block_n)
        if rows <= FEW_ROWS:
            splits = min(ceil(BLOCKS / blocks), tiles)
        else:
            wanted = max(MANY_BLOCKS // (blocks * ceil(rows / block_m)), 1)
            # A kernel is compiled for each number of splits: powers of two are few.
            splits = min(1 << (wanted.bit_length() - 1), tiles)
        split_tiles = ceil(tiles / splits)
        return cls(
            rows,
            outputs,
            block_m,
            block_n,
            block_k,
            ceil(tiles / split_tiles),
            split_tiles * block_k,
        )

    @classmethod
    def few(cls, rows: int, outputs: int, inputs: int, *, bits: int, group: int) -> Self:
        """Choose the cut for `few_rows`: the same for one token as for up to FEW_ROWS."""
        block_m = FEW_ROWS // 2 if 2 * rows <= FEW_ROWS else FEW_ROWS
        block_n, block_k = 4 * WARP_OUTPUTS, min(FEW_INPUTS, group)
        tiles = ceil(inputs / block_k / AHEAD)
        split_tiles = ceil(tiles / ceil(FEW_BLOCKS / ceil(outputs / block_n)))
        split_inputs = split_tiles * AHEAD * block_k
        splits = ceil(tiles / split_tiles)
        return cls(rows, outputs, block_m, block_n, block_k, splits, split_inputs)

    @property
    def partial_bytes(self) -> int:
        """Bytes of the splits' float32 sums; none for a single split, whose sum is the result."""
        return self.splits * self.rows * self.outputs * 4 if self.splits > 1 else 0
