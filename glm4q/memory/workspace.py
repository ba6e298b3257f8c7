"""The workspace of a device: one block of memory, cut as the plan says.

A step writes all that it computes into these buffers. What a buffer holds is good until another
takes its place: `calculator.workspace` says at which moments each is alive.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from calculator.memory.arena import Arena, Layout
from calculator.memory.workspace import BufferName, StepShape, step_buffers

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "int64": torch.int64,
    "uint8": torch.uint8,
    "bool": torch.bool,
}


HANDED_ON: dict[BufferName, int] = {
    "cached": 0,
    "rotation": 1,
    "fresh": 0,
    "queries": 0,
    "mixed": 0,
}
"""Buffers between attention and the rest of a step, and their dimension of sequences."""


def split_scratch(
    scratch: Tensor, *pieces: tuple[torch.dtype, tuple[int, ...]]
) -> tuple[Tensor, ...]:
    """Tensors of these dtypes and shapes, one behind the other in the bytes of `scratch`."""
    made, start = [], 0
    for dtype, shape in pieces:
        stop = start + prod(shape) * dtype.itemsize
        made.append(scratch[start:stop].view(dtype).view(shape))
        start = stop
    return tuple(made)


class Step:
    """The buffers by name, in the shapes of one step."""

    def __init__(
        self, shape: StepShape, tensors: Mapping[BufferName, Tensor], alone: "Step | None" = None
    ) -> None:
        """alone: the step of as many tokens of a single sequence; None where this is one."""
        self.shape = shape
        self._tensors, self._alone = tensors, alone

    def __getitem__(self, name: BufferName) -> Tensor:
        return self._tensors[name]

    @cached_property
    def rows(self) -> tuple["Step", ...]:
        """A step for each sequence, to attend one after another.

        What the whole step hands to attention, or takes from it, is the sequence's part of that;
        what attention needs meanwhile, they share.
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
    """Holds the block. Steps of several sizes use it in turn, never at once."""

    def __init__(self, arena: Arena, *, dtype: torch.dtype, device: torch.device | str) -> None:
        if dtype.itemsize != arena.activation_bytes:
            raise ValueError(f"{dtype} is not what the plan was made for")
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

    def _cut(self, tokens: int, batch: int) -> Step:
        decoding = tokens <= self._arena.decode.shape.tokens
        layout = self._arena.decode if decoding else self._arena.prefill
        largest = layout.shape
        if tokens > largest.tokens or batch > largest.batch:
            raise ValueError(
                f"{batch} x {tokens} tokens are more than {largest.batch} x {largest.tokens}"
            )
        logits = min(tokens, largest.logits)
        shape = replace(largest, tokens=tokens, batch=batch, logits=logits)
        planned = {buffer.name: buffer for buffer in layout.buffers}
        buffers = step_buffers(
            self._arena.config,
            shape,
            scratch_bytes=planned["scratch"].shape[0],
            head=planned["logits"].shape != (0,),
        )
        return Step(
            shape,
            {
                buffer.name: self._view(layout, buffer.name, buffer.dtype, buffer.shape)
                for buffer in buffers
            },
            None if batch == 1 else self.step(tokens, 1),
        )

    def _view(self, layout: Layout, name: BufferName, dtype: str, shape: tuple[int, ...]) -> Tensor:
        kind = DTYPES.get(dtype, self._dtype)
        start = layout.offsets[name]
        return self.block[start : start + prod(shape) * kind.itemsize].view(kind).view(shape)
