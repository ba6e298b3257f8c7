"""A block: a run of tokens with their keys and values, in one safetensors file.

A file's name says which block comes before it, and ends in the SHA-256 of its bytes. So a name
stands for all tokens from the first on with every bit of their cache, and a flipped byte is noticed
wherever it is.
"""

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from calculator.errors import PrefixError
from glm4q.decode.prefixes.block_name import ID_LENGTH, BlockName

MAX_HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class Block:
    """A block without its keys and values."""

    name: BlockName
    token_ids: tuple[int, ...]

    @property
    def stop(self) -> int:
        """How many tokens the sequence has with it."""
        return self.name.start + len(self.token_ids)


def encode_block(
    start: int, parent: str, token_ids: tuple[int, ...], tensors: dict[str, Tensor]
) -> tuple[Block, bytes]:
    """Write a block to bytes; its id is their digest."""
    metadata = {
        "start": str(start),
        "parent": parent,
        "token_ids": ",".join(map(str, token_ids)),
    }
    data = safetensors.torch.save(tensors, metadata)
    return Block(BlockName(start, parent, _digest(data)), token_ids), data


def read_block(directory: Path, name: BlockName) -> Block | None:
    """Read a block's tokens from its header, unchecked; None where the file is gone or damaged."""
    try:
        with (directory / name.file_name).open("rb") as stream:
            (size,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(size, MAX_HEADER_BYTES)))
        token_ids = tuple(map(int, header["__metadata__"]["token_ids"].split(",")))
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return Block(name, token_ids)


def load_tensors(directory: Path, block: Block) -> dict[str, Tensor]:
    """Read and check a block's keys and values. Raises PrefixError."""
    path, name = directory / block.name.file_name, block.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PrefixError(f"{path} cannot be read: {error.strerror}") from None
    if _digest(data) != name.id:
        raise PrefixError(f"{path} is damaged: its checksum differs")
    try:
        tensors = safetensors.torch.load(data)
        metadata = _metadata(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise PrefixError(f"{path} is no block: {error}") from None
    recorded = metadata.get("start"), metadata.get("parent"), metadata.get("token_ids")
    if recorded != (str(name.start), name.parent, ",".join(map(str, block.token_ids))):
        raise PrefixError(f"{path} has a name that is not its own")
    return tensors


def _metadata(data: bytes) -> dict[str, str]:
    (size,) = struct.unpack("<Q", data[:8])
    metadata: dict[str, str] = json.loads(data[8 : 8 + size])["__metadata__"]
    return metadata


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:ID_LENGTH]
