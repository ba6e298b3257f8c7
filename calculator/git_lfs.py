"""Recognize the pointers that Git leaves where large files belong but were not fetched."""

from pathlib import Path

POINTER = b"version https://git-lfs.github.com/spec/"


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file holds the few lines that name a large file, and not that file."""
    try:
        with file.open("rb") as stream:
            return stream.read(len(POINTER)) == POINTER
    except OSError:
        return False


def about_lfs_pointer(file: Path) -> str:
    """What to tell about it, in one line."""
    return (
        f"{file} is a Git LFS pointer and not the file itself: run `git lfs pull` in its "
        "repository, or download the file from the Hub"
    )
