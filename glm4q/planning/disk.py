"""The room that is left on a disk, known before anything is written to it."""

import os
import shutil
from pathlib import Path

from calculator.errors import CheckpointError, OptionError
from calculator.units import human_bytes


def free_bytes(directory: Path) -> int:
    """Return what is free on the disk of a directory, which need not exist yet."""
    return shutil.disk_usage(_existing(directory)).free


def refuse_full_disk(directory: Path, output: Path, needed_bytes: int) -> None:
    """Raise CheckpointError where the disk of `directory` has less room than is needed."""
    free = free_bytes(directory)
    if free < needed_bytes:
        raise CheckpointError(
            f"{output} needs {human_bytes(needed_bytes)} of disk, and {human_bytes(free)} are free"
        )


def refuse_unwritable(directory: Path, product: str) -> None:
    """Raise OptionError where nothing can be written to a directory, or it cannot be made.

    product: what is to be made there, in the message's words.
    """
    there = _existing(directory)
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise OptionError(f"{product} cannot be made: {there} cannot be written to")


def _existing(directory: Path) -> Path:
    """Return the directory, or the nearest one above it that is there."""
    return next(each for each in (directory, *directory.parents) if each.exists())
