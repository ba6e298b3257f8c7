"""One block of memory for the steps of a model, and the place of each buffer in it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from calculator.memory.workspace import (
    DECODE_TILE,
    MOMENTS,
    PREFILL_TILE,
    BufferName,
    StepBuffer,
    StepShape,
    step_buffers,
)
from calculator.model.config import ModelConfig

ALIGNMENT = 256
"""Of every buffer's place, in bytes: enough for any kernel's loads."""


@dataclass(frozen=True)
class Moment:
    """What is alive at once at one point of a step."""

    name: str
    bytes: int
    formula: str


@dataclass(frozen=True)
class Layout:
    """Where the buffers of one kind of step lie."""

    shape: StepShape
    buffers: tuple[StepBuffer, ...]
    offsets: Mapping[BufferName, int]
    bytes: int


@dataclass(frozen=True)
class Arena:
    """One block for prefill chunks and for decoding."""

    config: ModelConfig
    activation_bytes: int
    prefill: Layout
    decode: Layout

    @property
    def bytes(self) -> int:
        return max(self.prefill.bytes, self.decode.bytes)

    @property
    def formula(self) -> str:
        """What its bytes are the sum of: the fullest moment, and what placing adds to it."""
        fullest = max(self.moments, key=lambda moment: moment.bytes)
        gaps = self.bytes - fullest.bytes
        return f"{fullest.formula} + gaps {gaps:,}" if gaps else fullest.formula

    @property
    def moments(self) -> tuple[Moment, ...]:
        """Every moment of both kinds of step; the fullest is what the block is for."""
        return tuple(
            _moment(f"{kind} {name}", layout, name, self.activation_bytes)
            for kind, layout in (("prefill", self.prefill), ("decode", self.decode))
            for name in MOMENTS
        )


@lru_cache(maxsize=256)
def make_arena(
    config: ModelConfig,
    *,
    batch: int,
    chunk: int,
    room: int,
    activation_bytes: int,
    scratch: tuple[int, int] = (0, 0),
    draft: int = 0,
    head: bool = True,
) -> Arena:
    """The block of a model that takes up to `chunk` tokens of each sequence at once.

    room: tokens of each sequence that the cache has room for. scratch: bytes that the kernels need,
    for a chunk and for decoding. draft: drafted tokens that a decoding step verifies.
    """

    def layout(shape: StepShape, scratch_bytes: int) -> Layout:
        buffers = step_buffers(config, shape, scratch_bytes=scratch_bytes, head=head)
        return _place(shape, buffers, activation_bytes)

    decoded = min(1 + draft, room)
    prefill = StepShape(batch, min(chunk, room), min(PREFILL_TILE, room))
    decode = StepShape(batch, decoded, min(DECODE_TILE, room), logits=decoded)
    return Arena(config, activation_bytes, layout(prefill, scratch[0]), layout(decode, scratch[1]))


def _place(shape: StepShape, buffers: list[StepBuffer], activation_bytes: int) -> Layout:
    """Buffers that are never alive together share memory. The largest are placed first.

    Static memory planning, "greedy by size": https://arxiv.org/abs/2001.03288
    """
    sizes = {buffer: buffer.bytes(activation_bytes) for buffer in buffers}
    placed: list[tuple[int, int, frozenset[str]]] = []  # start, end, moments
    offsets: dict[BufferName, int] = {}
    for buffer in sorted(sizes, key=lambda buffer: (-sizes[buffer], buffer.name)):
        alive = frozenset(buffer.alive)
        start = _first_gap(sizes[buffer], alive, placed)
        placed.append((start, start + sizes[buffer], alive))
        offsets[buffer.name] = start
    return Layout(shape, tuple(buffers), offsets, max(end for _, end, _ in placed))


def _first_gap(
    size: int, alive: frozenset[str], placed: Iterable[tuple[int, int, frozenset[str]]]
) -> int:
    start = 0
    for other_start, other_end, others in sorted(placed, key=lambda each: each[0]):
        if alive.isdisjoint(others) or other_end <= start:
            continue
        if start + size <= other_start:
            break
        start = -(-other_end // ALIGNMENT) * ALIGNMENT
    return start


def _moment(name: str, layout: Layout, moment: str, activation_bytes: int) -> Moment:
    sizes = {
        buffer.name: buffer.bytes(activation_bytes)
        for buffer in layout.buffers
        if moment in buffer.alive
    }
    largest = sorted((each for each in sizes if sizes[each]), key=lambda each: -sizes[each])
    return Moment(
        name, sum(sizes.values()), " + ".join(f"{each} {sizes[each]:,}" for each in largest)
    )
