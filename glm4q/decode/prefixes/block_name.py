"""Names of blocks. Nothing here imports torch: files can be listed and removed at once."""

from dataclasses import dataclass
from typing import Self

ID_LENGTH = 32
"""Hexadecimal digits of a SHA-256 that an id keeps: 128 bits."""
SUFFIX = ".safetensors"


@dataclass(frozen=True)
class BlockName:
    """What the name of a block's file says."""

    start: int
    """How many tokens come before it."""
    parent: str
    """The id of the block before it; the fingerprint where it is the first."""
    id: str

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Read a file's name; None where it is no block's."""
        start, _, ids = name.removesuffix(SUFFIX).partition("-")
        parent, _, own = ids.partition("-")
        is_block = name.endswith(SUFFIX) and start.isdecimal()
        if not is_block or len(parent) != ID_LENGTH or len(own) != ID_LENGTH:
            return None
        return cls(int(start), parent, own)

    @property
    def file_name(self) -> str:
        return f"{self.start:08}-{self.parent}-{self.id}{SUFFIX}"
