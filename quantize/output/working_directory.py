"""A directory in which one run works at a time, and in which the next one goes on."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from calculator.errors import CheckpointError, OptionError
from glm4q.weights.files import save_tensors


@contextmanager
def locked(directory: Path, product: str) -> Iterator[int]:
    """Make a directory and keep other runs out of it; yields its descriptor.

    The system gives the lock back however the process ends. product: what the run makes. Raises
    OptionError where another run holds the lock, or has ended and taken the directory away.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OptionError(f"another run is making {product}") from None
        if not directory.exists() or not os.path.samestat(os.fstat(descriptor), directory.stat()):
            raise OptionError(f"another run has just made {product}: enter the command again")
        yield descriptor
    finally:
        os.close(descriptor)


def save_lasting(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Write tensors to a file that appears when all of them are on the disk."""
    fresh = file.with_name("new")
    save_tensors({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, fresh)
    with fresh.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(fresh, file)


def load_lasting(file: Path) -> dict[str, Tensor]:
    """Read what `save_lasting` wrote. Raises CheckpointError where it is damaged."""
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{file} cannot be read ({error}); delete {file.parent} to begin anew"
        ) from None
