"""Read what a GGUF file says in front of its data: metadata, and the place of each tensor.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Mapping
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from calculator.checkpoint.headers import BLOCK_BYTES, TensorHeader
from calculator.checkpoint.kinds import GGUF_MAGIC
from calculator.dataclass import dataclass
from calculator.errors import CheckpointError

VERSIONS = (2, 3)
MOST_ENTRIES = 1 << 24
"""No model has more metadata, tensors or tokens; a larger count is a damaged file."""
MOST_STRING = 1 << 26
SCALARS = {
    **{0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i"},
    **{6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"},
}
"""struct's letter of each type of value."""
STRING, ARRAY = 8, 9
TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 8: "Q8_0", 30: "BF16"}
OTHER_TYPES = {
    **{6: "Q5_0", 7: "Q5_1", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K"},
    **{16: "IQ2_XXS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 23: "IQ4_XS"},
}
CONVERT = (
    "make one with llama.cpp: llama-quantize --pure --token-embedding-type q8_0 "
    "--output-tensor-type q8_0 MODEL-f16.gguf OUT.gguf Q4_0"
)


@dataclass(frozen=True)
class GgufFile:
    """The front of a GGUF file."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorHeader]
    """By llama.cpp's names; shapes are in the order of rows, then columns."""

    def get(self, key: str, kind: type | tuple[type, ...]) -> Any:
        """A value that must be there and of a kind. Raises CheckpointError."""
        value = self.metadata.get(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise CheckpointError(f"{self.path}: {key} is {value!r:.60}")
        return value


def is_gguf(path: Path) -> bool:
    """Return whether the path is a file that begins with the magic bytes of GGUF."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(GGUF_MAGIC)) == GGUF_MAGIC


def read_gguf(path: Path) -> GgufFile:
    """Read the front of a file once for all who ask. Raises CheckpointError."""
    status = path.stat()
    return _read(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, file_bytes: int, changed: int) -> GgufFile:
    with path.open("rb") as stream:
        reader = _Reader(path, stream)
        reader.skip(len(GGUF_MAGIC))
        version = reader.scalar("I")
        if version not in VERSIONS:
            raise CheckpointError(f"{path} is GGUF of version {version}; {VERSIONS} are read")
        tensors, entries = reader.count("Q"), reader.count("Q")
        metadata = {reader.string(): reader.value(reader.scalar("I")) for _ in range(entries)}
        places = [reader.tensor() for _ in range(tensors)]
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= 1 << 20:
            raise CheckpointError(f"{path}: general.alignment is {alignment!r}")
        start = -(-stream.tell() // alignment) * alignment
    headers = {
        name: _header(path, name, kind, shape, start + offset, file_bytes)
        for name, kind, shape, offset in places
    }
    return GgufFile(path, metadata, headers)


def _header(
    path: Path, name: str, kind: int, shape: tuple[int, ...], start: int, file_bytes: int
) -> TensorHeader:
    if kind not in TYPES:
        known = OTHER_TYPES.get(kind, f"number {kind}")
        raise CheckpointError(
            f"{path}: {name} is of type {known}; {', '.join(TYPES.values())} are read. {CONVERT}"
        )
    header = TensorHeader(name, TYPES[kind], shape, path, start)
    if header.dtype in BLOCK_BYTES and (not shape or shape[-1] % 32):
        raise CheckpointError(f"{path}: {name} of shape {list(shape)} is no whole blocks of 32")
    if start + header.nbytes > file_bytes:
        raise CheckpointError(
            f"{path} is truncated: {name} ends at byte {start + header.nbytes} of {file_bytes}"
        )
    return header


def _shortest(value: float) -> float:
    """The short decimal that a float32 was written from: 1e-05, and not 9.99999974e-06."""
    short = float(f"{value:.7g}")
    return short if struct.pack("<f", short) == struct.pack("<f", value) else value


class _Reader:
    """Values of a stream, one after the other. All raise CheckpointError."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path, self._stream = path, stream

    def skip(self, count: int) -> None:
        self._stream.seek(count, 1)

    def _bytes(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) != count:
            raise CheckpointError(f"{self._path} is truncated: it ends within its metadata")
        return data

    def scalar(self, letter: str) -> Any:
        (value,) = struct.unpack(f"<{letter}", self._bytes(struct.calcsize(f"<{letter}")))
        return value

    def count(self, letter: str, most: int = MOST_ENTRIES) -> int:
        number: int = self.scalar(letter)
        if number > most:
            raise CheckpointError(f"{self._path} is damaged: it counts {number} entries")
        return number

    def string(self) -> str:
        return self._bytes(self.count("Q", MOST_STRING)).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self._array()
        if kind not in SCALARS:
            raise CheckpointError(f"{self._path}: metadata of type {kind} is unknown")
        value = self.scalar(SCALARS[kind])
        return _shortest(value) if SCALARS[kind] == "f" else value

    def _array(self) -> list[Any]:
        kind, count = self.scalar("I"), self.count("Q")
        if kind == STRING:
            return [self.string() for _ in range(count)]
        if kind not in SCALARS:
            raise CheckpointError(f"{self._path}: an array of type {kind} is unknown")
        letter = SCALARS[kind]
        data = self._bytes(count * struct.calcsize(f"<{letter}"))
        return list(struct.unpack(f"<{count}{letter}", data))

    def tensor(self) -> tuple[str, int, tuple[int, ...], int]:
        """Its name, type, shape and offset."""
        name, dimensions = self.string(), self.count("I", 4)
        shape = tuple(self.count("Q", 1 << 40) for _ in range(dimensions))
        if prod(shape) > 1 << 40:
            raise CheckpointError(f"{self._path}: {name} has shape {list(shape)}")
        return name, self.scalar("I"), shape[::-1], self.scalar("Q")
