"""Run compiled kernels: PTX, arguments and blocks in; the outputs written, and counts back."""

import ctypes
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from torch import Tensor

from tests.card.build import machine as library
from tests.card.ptx.operands import SPECIAL
from tests.card.ptx.program import Program
from tests.card.ptx.records import Counts, Job, LineCount, Region

Argument = Tensor | int | float
BITS = {1: "<B", 2: "<H", 4: "<I", 8: "<Q"}


class MachineFault(Exception):
    """A check of the machine failed: the message says what, where and in which block."""


@dataclass(frozen=True)
class Account:
    """What a launch did."""

    program: Program
    counts: Counts
    lines: ctypes.Array[LineCount]
    blocks: int

    @property
    def asked_over_needed(self) -> float:
        """Sectors that warps ask for between branches, in bytes, over the bytes they need."""
        return 32 * self.counts.merged_sectors / max(self.counts.merged_bytes, 1)

    @property
    def reread(self) -> float:
        """Sectors that warps ask for over those that the blocks touch, each counted once."""
        return self.counts.merged_sectors / max(self.counts.unique_sectors, 1)

    @cached_property
    def worst_conflict(self) -> int:
        """The most wavefronts that one access of shared memory takes inside a loop."""
        return max((self.lines[place].worst for place in self._inner), default=0)

    @property
    def conflicts(self) -> float:
        """Wavefronts of shared memory over those without conflicts; 1 where there are none."""
        ideal = sum(line.ideal for line in self.lines)
        return sum(line.wavefronts for line in self.lines) / ideal if ideal else 1.0

    @property
    def _inner(self) -> Iterator[int]:
        for first, last in self.program.loops:
            yield from range(first, last + 1)

    def hot(self, field: str, most: int = 8) -> list[str]:
        """The instructions with the largest counts of that name, and the Triton lines they are."""
        order = sorted(range(len(self.lines)), key=lambda place: -getattr(self.lines[place], field))
        return [
            f"{getattr(self.lines[place], field):>12,} {self.program.places[place]:<24}"
            f" {self.program.text[place]}"
            for place in order[:most]
        ]


@dataclass(frozen=True)
class Options:
    """How a launch is run."""

    blocks: Sequence[tuple[int, int, int]] | None = None
    """None runs the whole grid."""
    noisy: bool = True
    """Approximations err by as much as NVIDIA allows."""
    backwards: bool = False
    """The last warp of a block goes first."""


def run(
    program: Program,
    grid: tuple[int, ...],
    arguments: Sequence[Argument],
    shared_bytes: int,
    options: Options = Options(),
) -> Account:
    """Raises MachineFault."""
    grid = (*grid, 1, 1)[:3]
    numbers = _block_numbers(grid, options.blocks)
    tensors = [each for each in arguments if isinstance(each, Tensor)]
    parameters = _parameters(program, arguments)
    lines, image = program.image
    counts, line_counts = Counts(), (LineCount * len(program.lines))()
    special = [program.rows.places.get(name, (-1, 0))[0] for name in SPECIAL]
    job = Job(
        lines=lines,
        line_count=len(program.lines),
        rows=ctypes.cast(ctypes.c_char_p(image), ctypes.c_void_p),
        row_bytes=len(image),
        parameters=ctypes.cast(ctypes.c_char_p(parameters), ctypes.c_void_p),
        parameter_bytes=len(parameters),
        regions=(Region * len(tensors))(*(_extent(each) for each in tensors)),
        region_count=len(tensors),
        blocks=(ctypes.c_int64 * len(numbers))(*numbers),
        block_count=len(numbers),
        grid=grid,
        threads=program.threads,
        shared_bytes=shared_bytes,
        special=(ctypes.c_int32 * 8)(*special),
        noisy=options.noisy,
        backwards=options.backwards,
        counts=ctypes.pointer(counts),
        line_counts=line_counts,
    )
    if library().run(ctypes.byref(job)):
        place = job.fault_line
        raise MachineFault(
            f"{program.name}: {job.fault.decode()} ({program.places[place]}: {program.text[place]})"
        )
    return Account(program, counts, line_counts, len(numbers))


def _block_numbers(
    grid: tuple[int, ...], blocks: Sequence[tuple[int, int, int]] | None
) -> list[int]:
    if blocks is None:
        return list(range(prod(grid)))
    for block in blocks:
        if any(not 0 <= at < size for at, size in zip(block, grid, strict=True)):
            raise ValueError(f"block {block} outside grid {grid}")
    return [x + grid[0] * (y + grid[1] * z) for x, y, z in blocks]


def _extent(tensor: Tensor) -> Region:
    """From a tensor's first to its last byte; what it steps over belongs to others."""
    size = tensor.element_size()
    pairs = zip(tensor.shape, tensor.stride(), strict=True)
    last = sum((count - 1) * stride for count, stride in pairs)
    return Region(tensor.data_ptr(), (last + 1) * size if tensor.numel() else 0)


def _parameters(program: Program, arguments: Sequence[Argument]) -> bytes:
    """Arguments as the launcher lays them out; Triton's own two pointers at the end are null."""
    image = bytearray()
    given: list[Argument | None] = [*arguments]
    given += [None] * (len(program.parameters) - len(given))
    for (_, size), argument in zip(program.parameters, given, strict=True):
        image.extend(bytes(-len(image) % size))
        if isinstance(argument, float):
            image.extend(struct.pack("<f" if size == 4 else "<d", argument))
            continue
        number = argument.data_ptr() if isinstance(argument, Tensor) else int(argument or 0)
        image.extend(struct.pack(BITS[size], number & ((1 << 8 * size) - 1)))
    return bytes(image)


def arguments_of(names: Sequence[str], arguments: Mapping[str, object]) -> list[Argument]:
    """Arguments by the kernel's order of names, without constants."""
    given = [arguments[name] for name in names if name in arguments]
    return [each for each in given if isinstance(each, Tensor | int | float)]
