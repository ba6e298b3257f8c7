"""One block of memory for the steps of a model, and the place of each buffer in it."""

from bisect import insort
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache, cached_property, lru_cache

from calculator.dataclass import dataclass
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
"""Every buffer begins at a multiple of so many bytes: enough for any kernel's loads."""


@dataclass(frozen=True)
class Moment:
    """The buffers that are alive together at one point of a step."""

    name: str
    bytes: int
    formula: str


@dataclass(frozen=True)
class StepKind:
    """One kind of step, a prefill chunk or decoding, at its largest."""

    config: ModelConfig
    shape: StepShape
    scratch_bytes: int
    head: bool
    """Whether the step ends with logits; where layers are on two devices, it does on one."""

    def step(self, tokens: int, batch: int) -> StepShape:
        """The shape of a step of this kind with so many new tokens of so many sequences."""
        largest = self.shape
        if not (0 < tokens <= largest.tokens and 0 < batch <= largest.batch):
            raise ValueError(
                f"a step takes 1 to {largest.batch} x 1 to {largest.tokens} tokens, "
                f"not {batch} x {tokens}"
            )
        logits = min(tokens, largest.logits)
        return replace(largest, tokens=tokens, batch=batch, logits=logits)

    def buffers(self, tokens: int, batch: int) -> list[StepBuffer]:
        """The buffers of such a step; none is larger than in the largest step."""
        return step_buffers(
            self.config,
            self.step(tokens, batch),
            scratch_bytes=self.scratch_bytes,
            head=self.head,
        )


@dataclass(frozen=True)
class Layout(StepKind):
    """The places of the buffers of one kind of step. Smaller steps use the same places."""

    offsets: Mapping[BufferName, int]
    bytes: int


@dataclass(frozen=True)
class Arena:
    """One block of memory that serves prefill chunks and decoding."""

    config: ModelConfig
    activation_bytes: int
    prefill: Layout
    decode: Layout

    @property
    def bytes(self) -> int:
        return max(self.prefill.bytes, self.decode.bytes)

    def layout(self, tokens: int) -> Layout:
        """The layout for a step of so many new tokens of a sequence."""
        return self.decode if tokens <= self.decode.shape.tokens else self.prefill

    @cached_property
    def formula(self) -> str:
        """The sum that gives its bytes: the fullest moment, and the gaps between buffers."""
        fullest = max(self.moments, key=lambda moment: moment.bytes)
        gaps = self.bytes - fullest.bytes
        return f"{fullest.formula} + gaps {gaps:,}" if gaps else fullest.formula

    @property
    def moments(self) -> tuple[Moment, ...]:
        """Every moment of both kinds of step. The block is as large as the fullest needs it."""
        kinds = [("prefill", _largest(self.prefill)), ("decode", _largest(self.decode))]
        return tuple(
            _moment(f"{kind} {name}", buffers, name, self.activation_bytes)
            for kind, buffers in kinds
            for name in MOMENTS
        )


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
    """Return the block of a model that takes up to `chunk` tokens of each sequence at once.

    room: tokens of each sequence for which the cache has room. scratch: bytes that kernels need,
    for a chunk and for decoding. draft: drafted tokens that a decoding step verifies.
    """
    decoded = min(1 + draft, room)
    prefill = StepShape(batch, min(chunk, room), min(PREFILL_TILE, room))
    decode = StepShape(batch, decoded, min(DECODE_TILE, room), logits=decoded)
    first, second = (
        StepKind(config, shape, scratch_bytes, head)
        for shape, scratch_bytes in zip((prefill, decode), scratch, strict=True)
    )
    return _arena(first, second, activation_bytes)


@lru_cache(maxsize=256)
def _arena(prefill: StepKind, decode: StepKind, activation_bytes: int) -> Arena:
    """Contexts beyond a chunk and a tile have the same steps, so plans of them share an arena."""
    layouts = (_place(kind, activation_bytes) for kind in (prefill, decode))
    return Arena(prefill.config, activation_bytes, *layouts)


def _largest(kind: StepKind) -> list[StepBuffer]:
    return kind.buffers(kind.shape.tokens, kind.shape.batch)


def _place(kind: StepKind, activation_bytes: int) -> Layout:
    """Let buffers share memory if they are never alive together. The largest are placed first.

    Static memory planning, "greedy by size": https://arxiv.org/abs/2001.03288
    """
    sizes = {buffer: buffer.bytes(activation_bytes) for buffer in _largest(kind)}
    placed: list[tuple[int, int, int]] = []  # start, end, and moments as bits, by start
    offsets: dict[BufferName, int] = {}
    for buffer in sorted(sizes, key=lambda buffer: (-sizes[buffer], buffer.name)):
        alive = _moment_bits(buffer.alive)
        start = _first_gap(sizes[buffer], alive, placed)
        insort(placed, (start, start + sizes[buffer], alive))
        offsets[buffer.name] = start
    size = max(end for _, end, _ in placed)
    return Layout(kind.config, kind.shape, kind.scratch_bytes, kind.head, offsets, size)


@cache
def _moment_bits(moments: tuple[str, ...]) -> int:
    """Moments as bits of a number, which are compared much faster than sets of names."""
    return sum(1 << MOMENTS.index(moment) for moment in set(moments))


def _first_gap(size: int, alive: int, placed: Iterable[tuple[int, int, int]]) -> int:
    start = 0
    for other_start, other_end, others in placed:
        if not alive & others or other_end <= start:
            continue
        if start + size <= other_start:
            break
        start = -(-other_end // ALIGNMENT) * ALIGNMENT
    return start


def _moment(name: str, buffers: list[StepBuffer], moment: str, activation_bytes: int) -> Moment:
    sizes = {
        buffer.name: buffer.bytes(activation_bytes) for buffer in buffers if moment in buffer.alive
    }
    largest = sorted((each for each in sizes if sizes[each]), key=lambda each: -sizes[each])
    return Moment(
        name, sum(sizes.values()), " + ".join(f"{each} {sizes[each]:,}" for each in largest)
    )
