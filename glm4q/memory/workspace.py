"""The workspace of a device: one block of memory, divided into buffers as the plan says.

A step writes all that it computes into these buffers. Buffers share memory: each one's numbers are
valid only at the moments that `calculator.memory.workspace` lists.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from calculator.memory.arena import Arena
from calculator.memory.workspace import (
    FEW_TOKENS,
    BufferName,
    LentUse,
    StepBuffer,
    StepShape,
    buffer_for,
)

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "bool": torch.bool,
}


HANDED_ON: dict[BufferName, int] = {
    "cached": 0,
    "cache_rows": 0,
    "rotation": 1,
    "fresh": 0,
    "queries": 0,
    "mixed": 0,
}
"""The buffers that attention shares with the rest of a step, and their dimension of sequences."""

OF_A_TOKEN: dict[BufferName, int] = {"q": 1, "k": 1, "v": 1, "rotation": 2, "attended": 1}
"""The buffers of which each new token has a part, and their dimension of tokens."""
OF_A_SEQUENCE: tuple[BufferName, ...] = ("keys", "head_output", "logits")
"""The buffers that have a part for each sequence, however many tokens it has. "keys" is lent for
partial sums."""
DIVIDED: tuple[BufferName, ...] = ("queries", "mixed")


def split_scratch(
    scratch: Tensor, *pieces: tuple[torch.dtype, tuple[int, ...]]
) -> tuple[Tensor, ...]:
    """Tensors of these dtypes and shapes, one behind the other in the bytes of `scratch`."""
    tensors, start = [], 0
    for dtype, shape in pieces:
        stop = start + prod(shape) * dtype.itemsize
        tensors.append(scratch[start:stop].view(dtype).view(shape))
        start = stop
    return tuple(tensors)


class Step:
    """The buffers by name or by the purpose that they are lent for, in the shapes of one step."""

    def __init__(
        self, shape: StepShape, tensors: Mapping[BufferName, Tensor], alone: "Step | None" = None
    ) -> None:
        """alone: the step of as many tokens of a single sequence; None where this is one."""
        self.shape = shape
        self._tensors, self._alone = tensors, alone

    def __getitem__(self, name: BufferName | LentUse) -> Tensor:
        return self._tensors[buffer_for(name)]

    @property
    def alike(self) -> bool:
        """Whether each token is to have the bits that it has alone, as those of a draft."""
        return self.shape.batch == 1 and 1 < self.shape.tokens <= FEW_TOKENS

    @cached_property
    def tokens(self) -> tuple["Step", ...]:
        """A step for each token of one sequence, to append and attend one after another.

        All but one token's part of some buffers is shared; queries and "mixed" are divided, because
        every token is appended before the first one attends.
        """
        count = self.shape.tokens
        alone = replace(self.shape, tokens=1)
        return tuple(
            Step(alone, {**self._tensors, **self._token(place, count)}) for place in range(count)
        )

    def _token(self, place: int, count: int) -> dict[BufferName, Tensor]:
        parts = {name: self[name].narrow(axis, place, 1) for name, axis in OF_A_TOKEN.items()}
        for name in DIVIDED:
            batch, heads, rows, size = self[name].shape
            parts[name] = self[name].view(count, batch, heads, rows // count, size)[place]
        return parts

    @cached_property
    def rows(self) -> tuple["Step", ...]:
        """A step for each sequence, to attend one after another.

        The buffers in HANDED_ON are the sequence's part of this step's; the buffers that only
        attention uses are shared by all sequences.
        """
        if self._alone is None:
            return (self,)
        return tuple(
            Step(self.shape, {**self._alone._tensors, **self._part(row)})
            for row in range(self.shape.batch)
        )

    def _part(self, row: int) -> dict[BufferName, Tensor]:
        return {name: self[name].narrow(axis, row, 1) for name, axis in HANDED_ON.items()}


class Workspace:
    """Owns the block. Steps of several sizes use it one after another, never at once."""

    def __init__(self, arena: Arena, *, dtype: torch.dtype, device: torch.device | str) -> None:
        if dtype.itemsize != arena.activation_bytes:
            raise ValueError(
                f"{dtype} has {dtype.itemsize} bytes, the plan counts {arena.activation_bytes}"
            )
        self.block = torch.empty(arena.bytes, dtype=torch.uint8, device=device)
        self._arena, self._dtype = arena, dtype
        self._steps: dict[tuple[int, int], Step] = {}

    @property
    def nbytes(self) -> int:
        return self.block.nbytes

    @property
    def tokens(self) -> int:
        """The most new tokens of a step."""
        return self._arena.prefill.shape.tokens

    def step(self, tokens: int, batch: int | None = None) -> Step:
        """The buffers for so many new tokens, at most a chunk, of so many sequences or of all."""
        batch = self._arena.prefill.shape.batch if batch is None else batch
        if (tokens, batch) not in self._steps:
            decoding = self._arena.decode.shape.tokens
            self._steps = {each: step for each, step in self._steps.items() if each[0] <= decoding}
            self._steps[tokens, batch] = self._cut(tokens, batch)
        return self._steps[tokens, batch]

    def mixed_step(self, rows: int, sequences: int) -> Step:
        """The buffers for so many new tokens, at most a chunk, which belong to several sequences.

        All tokens lie in one row, as if they were of one sequence; logits and partial sums have
        room for each sequence.
        """
        layout = self._arena.prefill
        buffers = {buffer.name: buffer for buffer in layout.buffers(rows, 1)}
        of_sequences = layout.buffers(1, sequences)
        buffers |= {buffer.name: buffer for buffer in of_sequences if buffer.name in OF_A_SEQUENCE}
        tensors = {
            name: self._view(layout.offsets[name], buffer) for name, buffer in buffers.items()
        }
        return Step(layout.step(rows, 1), tensors)

    def _cut(self, tokens: int, batch: int) -> Step:
        layout = self._arena.layout(tokens)
        tensors = {
            buffer.name: self._view(layout.offsets[buffer.name], buffer)
            for buffer in layout.buffers(tokens, batch)
        }
        alone = None if batch == 1 else self.step(tokens, 1)
        return Step(layout.step(tokens, batch), tensors, alone)

    def _view(self, start: int, buffer: StepBuffer) -> Tensor:
        dtype = DTYPES.get(buffer.dtype, self._dtype)
        stop = start + buffer.bytes(dtype.itemsize)
        return self.block[start:stop].view(dtype).view(buffer.shape)
