"""The size limit of a prefix directory: what was used longest ago goes first."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from glm4q.decode.prefixes.block_name import SUFFIX, BlockName

ABANDONED_SECONDS = 3600
"""After this time a half-written file belongs to a process that was killed."""


@dataclass(frozen=True)
class Stored:
    """A block's file."""

    path: Path
    nbytes: int
    used: int
    """When it was last written or read, in nanoseconds."""


def list_blocks(directory: Path) -> list[Stored]:
    """List the blocks of all fingerprints, the least recently used first.

    Of those that were used together the last ones of a sequence come first, so that what remains
    still begins at the first token.
    """
    blocks = []
    for path in directory.glob(f"*/*{SUFFIX}"):
        name = BlockName.parse(path.name)
        if name is None:
            continue
        try:
            state = path.stat()
        except OSError:  # another process has removed it
            continue
        blocks.append(
            (state.st_mtime_ns, -name.start, Stored(path, state.st_size, state.st_mtime_ns))
        )
    return [block for *_, block in sorted(blocks, key=lambda each: each[:2])]


def chain_of(directory: Path, tail: str | None) -> list[Path]:
    """Return the files of a sequence, the last block first, as far as they are there.

    directory: that of one fingerprint. tail: the id of the last block.
    """
    names = {name.id: name for name in map(BlockName.parse, _files(directory)) if name}
    chain = []
    while tail in names:
        name = names.pop(tail)
        chain.append(directory / name.file_name)
        tail = name.parent
    return chain


def _files(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def make_room(directory: Path, limit: int) -> None:
    """Remove blocks until the others have at most `limit` bytes together."""
    _remove_abandoned(directory)
    blocks = list_blocks(directory)
    total = sum(block.nbytes for block in blocks)
    for block in blocks:
        if total <= limit:
            return
        block.path.unlink(missing_ok=True)
        total -= block.nbytes


def _remove_abandoned(directory: Path) -> None:
    """Remove what killed processes have left half-written."""
    oldest = time.time() - ABANDONED_SECONDS
    for path in directory.glob("*/.*-*"):
        try:
            if path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)
        except OSError:
            continue
