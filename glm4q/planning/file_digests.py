"""SHA-256 of whole files, which are read once and then known by their inode and their times.

Any write changes a file's ctime, which no program can set back: a digest is never that of an
earlier content.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from calculator.atomic_write import write_atomically

READERS = 4
SETTLED_SECONDS = 2.0
"""A file that changed less long ago may change again within one tick of the file system's clock."""

State = list[int]
"""Size, inode, and the times of the last change of the content and of anything."""


class FileDigests:
    """Digests that are kept in a file. What that file says falsely costs time, never truth."""

    def __init__(self, kept: Path, reading: Callable[[int], None] = lambda nbytes: None) -> None:
        """kept: where digests are kept. reading: told how many bytes have to be read now."""
        self._kept, self._reading = kept, reading

    def known(self, files: Iterable[Path]) -> bool:
        """Whether no file has to be read."""
        kept = self._read()
        return all(_digest_in(kept, file) for file in files)

    def digest(self, files: Iterable[Path]) -> dict[Path, str]:
        """The digests of some files. Raises OSError."""
        files, kept = list(files), self._read()
        digests = {file: _digest_in(kept, file) for file in files}
        unread = [file for file, digest in digests.items() if digest is None]
        if not unread:
            return {file: digest for file, digest in digests.items() if digest is not None}
        self._reading(sum(file.stat().st_size for file in unread))
        before = {file: _state(file) for file in unread}
        with ThreadPoolExecutor(READERS) as pool:
            read = dict(zip(unread, pool.map(_sha256, unread), strict=True))
        settled = time.time_ns() - int(SETTLED_SECONDS * 1e9)
        for file, state in before.items():
            if state == _state(file) and max(state[2:]) < settled:
                kept[str(file.resolve())] = [state, read[file]]
        with suppress(OSError):  # then they are read again next time
            self._kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(self._kept, json.dumps(kept).encode(), mode=0o600)
        return {file: digest or read[file] for file, digest in digests.items()}

    def _read(self) -> dict[str, object]:
        try:
            kept = json.loads(self._kept.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return kept if isinstance(kept, dict) else {}


def _digest_in(kept: dict[str, object], file: Path) -> str | None:
    match kept.get(str(file.resolve())):
        case [state, str(digest)] if state == _state(file):
            return digest
    return None


def _state(file: Path) -> State:
    status = file.stat()
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
