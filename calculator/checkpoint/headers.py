"""Read safetensors headers: names, dtypes and shapes of a checkpoint's tensors, not their data.

A header is 8 bytes of length and a JSON object: https://huggingface.co/docs/safetensors. All that
it and an index claim is checked against the files before anything is believed.
"""

import json
import logging
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from calculator.checkpoint.weight_files import find_weight_file
from calculator.dataclass import dataclass
from calculator.errors import CheckpointError
from calculator.git_lfs import about_lfs_pointer, is_lfs_pointer

logger = logging.getLogger(__name__)

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors library itself."""

DTYPE_BYTES = {
    **{"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4},
    **{"F16": 2, "BF16": 2, "I16": 2, "U16": 2, "I8": 1, "U8": 1, "BOOL": 1},
    **{"F8_E4M3": 1, "F8_E5M2": 1},
}

BLOCK_BYTES = {"Q4_0": 18, "Q4_1": 20, "Q8_0": 34}
"""Bytes of 32 numbers in the types of llama.cpp that are blocks."""


@dataclass(frozen=True)
class TensorHeader:
    """One stored tensor, as its file's header describes it."""

    name: str
    dtype: str
    """safetensors' word: BF16, F16, F32, I32, ..."""
    shape: tuple[int, ...]
    file: Path
    start: int = 0
    """The byte of the file at which its data begin."""

    @property
    def nbytes(self) -> int:
        if self.dtype in BLOCK_BYTES:
            return prod(self.shape) // 32 * BLOCK_BYTES[self.dtype]
        return prod(self.shape) * DTYPE_BYTES[self.dtype]

    def read(self) -> bytes:
        """Its data: for small tensors, which say how others are to be read."""
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            return stream.read(self.nbytes)


def read_headers(directory: Path) -> dict[str, TensorHeader]:
    """Every tensor of a checkpoint directory by name. Raises CheckpointError."""
    file = find_weight_file(directory)
    if file.suffix == ".json":
        return _read_sharded(file, _weight_map(file))
    return read_header(file)


def read_header(file: Path) -> dict[str, TensorHeader]:
    """The tensors of one safetensors file. Raises CheckpointError where the file is not whole."""
    if is_lfs_pointer(file):
        raise CheckpointError(about_lfs_pointer(file))
    file_bytes = file.stat().st_size
    with file.open("rb") as stream:
        header_bytes = int.from_bytes(stream.read(8), "little")
        if not 2 <= header_bytes <= min(MAX_HEADER_BYTES, file_bytes - 8):
            raise CheckpointError(
                f"{file} is truncated or no safetensors file: {file_bytes} bytes, "
                f"and its header claims {header_bytes}"
            )
        raw = stream.read(header_bytes)
    try:
        entries = json.loads(raw)
    except (ValueError, RecursionError):
        raise CheckpointError(f"{file} has a header that is not JSON") from None
    if not isinstance(entries, dict):
        raise CheckpointError(f"{file} has a header that is not a JSON object")
    entries.pop("__metadata__", None)
    data_bytes = file_bytes - 8 - header_bytes
    tensors = {
        name: _tensor_header(file, name, entry, 8 + header_bytes, data_bytes)
        for name, entry in entries.items()
    }
    spans = sorted(entry["data_offsets"] for entry in entries.values())
    if [*(begin for begin, _ in spans), data_bytes] != [0, *(end for _, end in spans)]:
        raise CheckpointError(f"{file}: the tensors of its header overlap or leave gaps")
    return tensors


def _tensor_header(
    file: Path, name: str, entry: Any, data_start: int, data_bytes: int
) -> TensorHeader:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        sizes = (*shape, begin, end)
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{file}: the header of {name} is not whole") from None
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise CheckpointError(f"{file}: {name} has dtype {dtype!r}, which is not known")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in sizes):
        raise CheckpointError(f"{file}: {name} has shape {shape!r} at bytes {begin!r} to {end!r}")
    if end > data_bytes:
        raise CheckpointError(
            f"{file} is truncated: {name} ends at byte {end} of {data_bytes} bytes of data"
        )
    header = TensorHeader(name, dtype, tuple(shape), file, data_start + begin)
    if end - begin != header.nbytes:
        raise CheckpointError(
            f"{file}: {name} of shape {shape} and dtype {dtype} is given {end - begin} bytes"
        )
    return header


def _weight_map(index: Path) -> Mapping[str, str]:
    if index.stat().st_size > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"{index} has {index.stat().st_size:,} bytes, and at most {MAX_HEADER_BYTES:,} are read"
        )
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        if all(isinstance(file, str) for file in weight_map.values()):
            return dict(weight_map)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    raise CheckpointError(f"{index} has no weight_map from tensor names to file names")


def _read_sharded(index: Path, weight_map: Mapping[str, str]) -> dict[str, TensorHeader]:
    stored: dict[str, TensorHeader] = {}
    for file_name in sorted(set(weight_map.values())):
        # A shard stands beside its index: anything else could read files that are not the model's.
        if Path(file_name).name != file_name:
            raise CheckpointError(f"{index} points outside its directory: {file_name}")
        file = index.parent / file_name
        if not file.is_file():
            raise CheckpointError(f"{index} names {file_name}, which is not there")
        _add_shard(stored, read_header(file), index, weight_map)
    absent = sorted(set(weight_map) - set(stored))
    if absent:
        raise CheckpointError(f"{index} names {absent[0]}, which no shard holds")
    return stored


def _add_shard(
    stored: dict[str, TensorHeader],
    shard: Mapping[str, TensorHeader],
    index: Path,
    weight_map: Mapping[str, str],
) -> None:
    """Add a shard's tensors; of two of one name the index says which is used, and a line tells."""
    for name, header in shard.items():
        other = stored.get(name)
        if other is not None:
            used = weight_map.get(name)
            if used not in (other.file.name, header.file.name):
                raise CheckpointError(
                    f"{other.file} and {header.file.name} both hold {name}, and {index.name} names "
                    "neither for it"
                )
            logger.warning(
                "%s and %s both hold %s; %s names %s, which is used",
                other.file,
                header.file.name,
                name,
                index.name,
                used,
            )
            header = header if used == header.file.name else other
        stored[name] = header
