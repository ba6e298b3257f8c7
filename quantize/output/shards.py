"""Write safetensors files some rows at a time: the header first, then data as it is computed.

The safetensors library saves tensors that are all in memory; here none stays longer than needed.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch

from calculator.checkpoint.weight_files import INDEX
from quantize.output.layout import PlannedTensor, Shard, total_bytes

DTYPES = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F32": torch.float32,
    "I8": torch.int8,
    "U8": torch.uint8,
    "I32": torch.int32,
    "I64": torch.int64,
}

LENGTH_BYTES = 8
"""Bytes before a header, which hold its length."""
ALIGNMENT = 64
"""A mapped file's pages are what is multiplied by: at 8, each load of 64 bytes touches two lines of
the cache. The format asks for 8."""


class ShardWriter:
    """Takes every tensor of every shard in the planned order, each in one or more pieces of rows.

    finished: tensors that an earlier run has written; what follows them in a file is dropped.

    sums: the sha256 of each file that was written to its end, by name.
    """

    def __init__(self, directory: Path, shards: Iterable[Shard], finished: int = 0) -> None:
        self._directory = directory
        self._steps = [(shard, tensor) for shard in shards for tensor in shard.tensors]
        self._left = 0
        self._position = finished - 1
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._hashing = ThreadPoolExecutor(1)
        self.sums: dict[str, str] = {}

    @classmethod
    @contextmanager
    def open(
        cls, directory: Path, shards: Iterable[Shard], finished: int = 0
    ) -> Iterator["ShardWriter"]:
        """Write shards; raise ValueError at the end if not every tensor was written."""
        writer = cls(directory, shards, finished)
        try:
            yield writer
            if writer._left or writer._position + 1 != len(writer._steps):
                raise ValueError("not every planned tensor was written")
        finally:
            writer._hashing.shutdown()
            if writer._file:
                writer._file.close()

    def write(self, name: str, rows: torch.Tensor) -> None:
        """Append rows to the tensor `name`: the one begun last, or the next in the plan."""
        if not self._left:
            self._begin_next()
        planned = self._steps[self._position][1]
        if (name, DTYPES[planned.dtype], planned.shape[1:]) != (name, rows.dtype, rows.shape[1:]):
            raise ValueError(f"{name}: {rows.dtype} {list(rows.shape)} is not what was planned")
        if name != planned.name or rows.nbytes > self._left:
            raise ValueError(f"{name} is not what was planned: {planned}")
        self._put(rows.flatten().view(torch.uint8).numpy().data)
        self._left -= rows.nbytes
        shard, tensor = self._steps[self._position]
        if not self._left and tensor is shard.tensors[-1]:
            self.sums[shard.file_name] = self._hash.hexdigest()

    def sync(self) -> int:
        """Return, when they are on the disk, how many tensors are finished."""
        if self._left:
            raise ValueError(f"{self._steps[self._position][1].name} is not whole")
        if self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
        return self._position + 1

    def _begin_next(self) -> None:
        self._position += 1
        shard, tensor = self._steps[self._position]
        path = self._directory / shard.file_name
        if tensor is shard.tensors[0]:
            self._close()
            self._file, self._hash = path.open("wb"), hashlib.sha256()
            self._put(memoryview(header(shard.tensors)))
        elif not self._file:
            self._file = path.open("r+b")
            before = shard.tensors[: shard.tensors.index(tensor)]
            self._file.truncate(len(header(shard.tensors)) + sum(each.nbytes for each in before))
            self._hash = hashlib.file_digest(self._file, "sha256")  # which reads to the end
        self._left = tensor.nbytes

    def _put(self, data: memoryview) -> None:
        """Append bytes. A thread of its own hashes them, which takes as long as writing them."""
        assert self._file
        summed = self._hashing.submit(self._hash.update, data)
        self._file.write(data)
        summed.result()

    def _close(self) -> None:
        if self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()


def header(tensors: Iterable[PlannedTensor]) -> bytes:
    """A safetensors header: its length in 8 bytes, then JSON padded with spaces so that data
    begins where vectors of a CPU do.
    """
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.nbytes
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(LENGTH_BYTES + len(text)) % ALIGNMENT)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


def write_index(directory: Path, shards: list[Shard]) -> None:
    """Write the index from tensors to shards; a single file needs none."""
    if len(shards) == 1:
        return
    weight_map = {tensor.name: shard.file_name for shard in shards for tensor in shard.tensors}
    index = {"metadata": {"total_size": total_bytes(shards)}, "weight_map": weight_map}
    (directory / INDEX).write_text(json.dumps(index, indent=2) + "\n")
