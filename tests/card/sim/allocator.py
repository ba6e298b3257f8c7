"""PyTorch's caching allocator, played: which segments it asks the driver for, block by block.

The rules are those of its source, c10/cuda/CUDACachingAllocator.cpp: requests are rounded to 512
bytes; those up to 1 MiB are cut from segments of 2 MiB, those below 10 MiB from segments of 20 MiB,
larger ones get a segment of their own, rounded to 2 MiB. The smallest free block that fits is
taken, and split where what is left is worth it; freed blocks join their free neighbours. Segments
stay until the cache is emptied, or until the driver has no more.
"""

from dataclasses import dataclass, field

import torch

KIB, MIB = 1 << 10, 1 << 20
BLOCK = 512
SMALL = 1 * MIB
SMALL_SEGMENT, LARGE_SEGMENT = 2 * MIB, 20 * MIB
OWN_SEGMENT, ROUND_LARGE = 10 * MIB, 2 * MIB


@dataclass(eq=False)
class Block:
    """A run of bytes of a segment."""

    segment: "Segment"
    start: int
    size: int
    free: bool = True

    @property
    def address(self) -> int:
        return self.segment.address + self.start


@dataclass(eq=False)
class Segment:
    """What the driver gave at once."""

    address: int
    size: int
    small: bool
    blocks: list[Block] = field(default_factory=list)


@dataclass
class Allocator:
    """A card's memory as this process sees it."""

    capacity: int
    """Bytes that the driver can give."""
    expandable: bool = False
    """`expandable_segments:True`: one segment for each pool, which grows page by page."""
    allocated: int = 0
    peak_allocated: int = 0
    peak_reserved: int = 0
    requests: int = 0
    fail_at: int | None = None
    """The request, counted from 0, for which there is no memory."""
    segments: list[Segment] = field(default_factory=list)
    _next: int = 1 << 40

    @property
    def reserved(self) -> int:
        """Bytes that the driver has given and not got back."""
        return sum(segment.size for segment in self.segments)

    def allocate(self, size: int) -> Block:
        """Raises torch.OutOfMemoryError, as a card does."""
        number, self.requests = self.requests, self.requests + 1
        rounded = max(-(-size // BLOCK) * BLOCK, BLOCK)
        if number == self.fail_at:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")
        small = rounded <= SMALL
        block = self._best(rounded, small) or self._grow(rounded, small)
        rest = block.size - rounded
        if rest >= BLOCK if small or self.expandable else rest > SMALL:
            place = block.segment.blocks.index(block)
            left = Block(block.segment, block.start + rounded, rest)
            block.segment.blocks.insert(place + 1, left)
            block.size = rounded
        block.free = False
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return block

    def free(self, block: Block) -> None:
        """Give a block back to its segment."""
        self.allocated -= block.size
        block.free = True
        blocks = block.segment.blocks
        place = blocks.index(block)
        for left in (place, place - 1):
            if 0 <= left < len(blocks) - 1 and blocks[left].free and blocks[left + 1].free:
                blocks[left].size += blocks.pop(left + 1).size

    def empty_cache(self) -> None:
        """Give segments of which nothing is used back to the driver."""
        if self.expandable:
            for segment in self.segments:
                last = segment.blocks[-1]
                if last.free:
                    segment.size -= last.size
                    segment.blocks.pop()
        kept = [each for each in self.segments if any(not block.free for block in each.blocks)]
        self.segments = kept

    def reset_peaks(self) -> None:
        """Count from what is there now."""
        self.peak_allocated, self.peak_reserved = self.allocated, self.reserved

    def _best(self, size: int, small: bool) -> Block | None:
        fitting = [
            block
            for segment in self.segments
            if segment.small == small
            for block in segment.blocks
            if block.free and block.size >= size
        ]
        return min(fitting, key=lambda block: (block.size, block.address), default=None)

    def _grow(self, size: int, small: bool) -> Block:
        taken = _segment_size(size, small)
        if self.expandable:
            page = SMALL_SEGMENT if small else LARGE_SEGMENT
            known = next((each for each in self.segments if each.small == small), None)
            if known is not None:
                return self._extend(known, size, page)
            taken = -(-size // page) * page
        self._reserve(taken)
        segment = Segment(self._next, taken, small)
        self._next += max(taken, 1 << 38 if self.expandable else 0) + ROUND_LARGE
        segment.blocks = [Block(segment, 0, taken)]
        self.segments.append(segment)
        self._note()
        return segment.blocks[0]

    def _extend(self, segment: Segment, size: int, page: int) -> Block:
        last = segment.blocks[-1] if segment.blocks else None
        spare = last.size if last is not None and last.free else 0
        more = -(-(size - spare) // page) * page
        self._reserve(more)
        if last is not None and last.free:
            last.size += more
        else:
            last = Block(segment, segment.size, more)
            segment.blocks.append(last)
        segment.size += more
        self._note()
        return last

    def _reserve(self, size: int) -> None:
        if self.reserved + size > self.capacity:
            self.empty_cache()
        if self.reserved + size > self.capacity:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes.")

    def _note(self) -> None:
        self.peak_reserved = max(self.peak_reserved, self.reserved)


def most_block_bytes(size: int) -> int:
    """Return the most bytes that the block of a request can have, and that PyTorch then counts.

    A request is rounded up to BLOCK. What a large block has beyond it stays part of it up to SMALL;
    what a small one has beyond it is always split off.
    """
    rounded = max(-(-size // BLOCK) * BLOCK, BLOCK)
    return rounded if rounded <= SMALL else rounded + SMALL


def _segment_size(size: int, small: bool) -> int:
    if small:
        return SMALL_SEGMENT
    return LARGE_SEGMENT if size < OWN_SEGMENT else -(-size // ROUND_LARGE) * ROUND_LARGE
