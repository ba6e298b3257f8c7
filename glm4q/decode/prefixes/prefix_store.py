"""A directory of token prefixes with their keys and values: what was read once is not read again.

Sequences that begin alike share their blocks. Whoever uses a block touches it and all before it, so
the least recently used ones, which are removed first, are ends of sequences.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from calculator.atomic_write import write_atomically
from calculator.errors import PrefixError
from glm4q.decode.prefixes.block_file import (
    Block,
    encode_block,
    load_tensors,
    read_block,
)
from glm4q.decode.prefixes.block_name import BlockName
from glm4q.decode.prefixes.disk_limit import make_room
from glm4q.decode.row import Row
from glm4q.memory.kv.token_slices import copy_tokens, restore_tokens

MOST_TOKENS = 512
"""Tokens of a block. A block of GLM-4-9B has 21 MB in bf16 and 6 MB in int4."""
LEAST_GAIN = 32
"""A prefix on disk is read where it has so many tokens more than the row."""
Tensors = dict[str, Tensor]
READERS = 4
"""Blocks that are read and checked at once: SHA-256 is slower than a disk."""


@dataclass(frozen=True)
class Restored:
    """How much of a sequence came from the disk."""

    tokens: int
    problem: str | None = None
    """Why it is not the whole sequence."""


class PrefixStore:
    """The prefixes of one run: of a model, a cache format and the kernels that compute."""

    def __init__(
        self,
        directory: Path,
        fingerprint: str,
        *,
        limit: int,
        notify: Callable[[str], None] = lambda line: None,
    ) -> None:
        """fingerprint: stands for all that decides the bits of a cache. limit: bytes of the whole
        directory. notify: gets a line where a prefix cannot be used.
        """
        self._root, self._directory = directory, directory / fingerprint
        self.fingerprint, self._limit, self._notify = fingerprint, limit, notify
        self._blocks: dict[BlockName, Block | None] = {}
        self._chains: dict[Row, list[Block]] = {}
        """The blocks that a row was restored from or saved to."""

    def extend(self, row: Row, prompt: Sequence[int]) -> None:
        """Put a prompt's beginning into a row, where the directory has more of it than the row."""
        chain = self._find(prompt, row.room)
        tokens = min(chain[-1].stop, len(prompt)) if chain else 0
        if tokens < row.shared(prompt) + LEAST_GAIN:
            return
        restored = self._restore(row, chain)
        if restored.problem:
            self._notify(restored.problem)

    def restore(self, row: Row, tail: str) -> Restored:
        """Put the sequence that ends in a block of this id into a row, as it was saved.

        What can be read of it stays in the row; the row is left as it was where nothing can.
        """
        chain: list[Block] = []
        names = {name.id: name for name in self._names()}
        wanted = tail
        while wanted != self.fingerprint:
            name = names.get(wanted)
            block = self._block(name) if name else None
            if block is None:
                return Restored(0, "its cache is gone: the oldest were removed to make room")
            chain.insert(0, block)
            wanted = block.name.parent
        if chain[-1].stop > row.room:
            message = f"it has {chain[-1].stop} tokens, and the context holds {row.room}"
            return Restored(0, message)
        return self._restore(row, chain)

    def save(self, row: Row, tokens: int | None = None) -> str | None:
        """Write what the directory lacks of a row's first tokens, all of them if not said.

        Returns the id of the last block, or None where the row is empty. Raises PrefixError.
        """
        chain = self._saved(row)
        stop = row.cache.length if tokens is None else min(tokens, row.cache.length)
        written = False
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            while (start := chain[-1].stop if chain else 0) < stop:
                chain.append(self._write(row, chain, start, min(start + MOST_TOKENS, stop)))
                written = True
        except OSError as error:
            raise PrefixError(f"{self._directory} cannot be written: {error.strerror}") from None
        self._note(row, chain)
        if written:
            make_room(self._root, self._limit)
        within = [block for block in chain if block.stop <= stop]
        return within[-1].name.id if within else None

    def _write(self, row: Row, chain: Sequence[Block], start: int, stop: int) -> Block:
        parent = chain[-1].name.id if chain else self.fingerprint
        token_ids = tuple(row.token_ids[start:stop])
        block, data = encode_block(start, parent, token_ids, copy_tokens(row.cache, start, stop))
        path = self._directory / block.name.file_name
        if not path.exists():
            write_atomically(path, data, mode=0o600)
        self._blocks[block.name] = block
        return block

    def _saved(self, row: Row) -> list[Block]:
        """Return the blocks whose tokens are in the row as they were written, and still on disk."""
        chain: list[Block] = []
        for block in self._chains.get(row, ()):
            if block.stop > row.cache.unchanged or not self._path(block).exists():
                break
            chain.append(block)
        return chain

    def _note(self, row: Row, chain: list[Block]) -> None:
        """Remember where a row's tokens lie on disk, and that they were used just now."""
        self._chains[row] = chain
        row.cache.unchanged = chain[-1].stop if chain else 0
        now = time.time_ns()
        for block in chain:
            with suppress(OSError):
                os.utime(self._path(block), ns=(now, now))

    def _restore(self, row: Row, chain: Sequence[Block]) -> Restored:
        """Read blocks into a row, those that it does not have already, as far as they are whole."""
        there = self._saved(row)
        same = 0
        while same < min(len(there), len(chain)) and there[same] == chain[same]:
            same += 1
        usable, problem = list(chain[:same]), None
        for block, tensors in self._load(chain[same:]):
            try:
                if isinstance(tensors, PrefixError):
                    raise tensors
                restore_tokens(row.cache, block.name.start, block.stop, tensors)
            except (PrefixError, ValueError) as error:
                problem = f"{error}: tokens from {block.name.start:,} on are computed anew"
                self._path(block).unlink(missing_ok=True)
                break
            usable.append(block)
        row.hold([token for block in usable for token in block.token_ids])
        self._note(row, usable)
        return Restored(row.cache.length, problem)

    def _load(self, chain: Sequence[Block]) -> Iterator[tuple[Block, Tensors | PrefixError]]:
        """Read some blocks at a time, each with what is wrong with it if it cannot be used."""
        with ThreadPoolExecutor(READERS) as pool:
            for first in range(0, len(chain), READERS):
                blocks = chain[first : first + READERS]
                yield from zip(blocks, pool.map(self._try_load, blocks), strict=True)

    def _try_load(self, block: Block) -> Tensors | PrefixError:
        try:
            return load_tensors(self._directory, block)
        except PrefixError as error:
            return error

    def _find(self, prompt: Sequence[int], room: int) -> list[Block]:
        """Return the blocks that begin as the prompt does, as far as any sequence on disk does."""
        children: dict[str, list[BlockName]] = {}
        for name in self._names():
            children.setdefault(name.parent, []).append(name)
        best, most = [], 0
        ways: list[list[Block]] = [[]]
        while ways:
            way = ways.pop()
            start, parent = (way[-1].stop, way[-1].name.id) if way else (0, self.fingerprint)
            for block in filter(None, map(self._block, children.get(parent, ()))):
                if block.name.start != start or block.stop > room:
                    continue
                same = _count_same(block.token_ids, prompt[start : block.stop])
                if same and start + same > most:
                    best, most = [*way, block], start + same
                if same == len(block.token_ids):
                    ways.append([*way, block])
        return best

    def _names(self) -> Iterator[BlockName]:
        try:
            files = os.listdir(self._directory)
        except OSError:
            return
        yield from filter(None, map(BlockName.parse, files))

    def _block(self, name: BlockName) -> Block | None:
        if name not in self._blocks:
            self._blocks[name] = read_block(self._directory, name)
        return self._blocks[name]

    def _path(self, block: Block) -> Path:
        return self._directory / block.name.file_name


def _count_same(ours: Sequence[int], theirs: Sequence[int]) -> int:
    pairs = zip(ours, theirs, strict=False)
    return next(
        (place for place, (our, their) in enumerate(pairs) if our != their),
        min(len(ours), len(theirs)),
    )
