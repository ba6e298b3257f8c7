"""The directory to be made: hidden while it grows, kept when a run is cut off, renamed when whole.

A run that is killed, or that finds the disk full, leaves `.NAME.partial` beside the output; the
same command goes on from the last finished part. Two runs cannot work on one output.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from calculator.errors import CheckpointError, ConfigError, Glm4qError, OptionError
from calculator.json_files import read_json_object

JOURNAL = "progress.json"
LARGEST_JOURNAL = 1 << 28


@dataclass
class Journal:
    """What is done: written anew after each part, so that a kill loses at most one."""

    asked: dict[str, Any]
    """What the output depends on; a run that asks for anything else is refused."""
    parts: int = 0
    tensors: int = 0
    """Tensors that are whole in the shards."""
    seconds: float = 0.0
    peak_bytes: int = 0
    """The most memory that a process which worked on it ever held."""
    reports: list[dict[str, Any]] = field(default_factory=list)


class Target:
    """`output` while it is made, and the journal of how far it is. Use as a context manager."""

    def __init__(self, output: Path, *, overwrite: bool, source: Path, asked: Mapping[str, Any]):
        refuse_output(output, overwrite, source)
        self._output = output
        self.directory = output.parent / f".{output.name}.partial"
        self.journal = Journal(dict(asked))
        self.is_resumed = False

    def __enter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.directory, os.O_RDONLY)
        try:
            self._take()
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                (self.directory / JOURNAL).unlink()
                replace(self.directory, self._output)
            elif isinstance(error, Glm4qError):
                shutil.rmtree(self.directory, ignore_errors=True)
            elif isinstance(error, OSError):
                raise CheckpointError(
                    f"{self._output}: {error.strerror}; what is done is kept in {self.directory}, "
                    "and the same command goes on from there"
                ) from None
        finally:
            os.close(self._lock)

    def commit(self) -> None:
        """Make the journal, and so all that it speaks of, outlast a kill."""
        path = self.directory / JOURNAL
        fresh = path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(asdict(self.journal), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
        os.fsync(self._lock)

    def _take(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OptionError(f"another run is making {self._output}") from None
        if not self.directory.exists() or not os.path.samestat(
            os.fstat(self._lock), self.directory.stat()
        ):
            raise OptionError(f"another run has just made {self._output}")
        path = self.directory / JOURNAL
        if not path.is_file():
            return self.commit()
        try:
            found = Journal(**read_json_object(path, limit=LARGEST_JOURNAL))
        except (TypeError, ConfigError) as error:
            raise CheckpointError(f"{path} is not a journal of ours: {error}") from None
        asked = json.loads(json.dumps(self.journal.asked))
        for name, value in asked.items():
            if found.asked.get(name) != value:
                raise OptionError(
                    f"{self.directory} was begun with {name} {found.asked.get(name)}, not {value}; "
                    "ask for the same, or delete it"
                )
        self.journal = found
        self.is_resumed = True


@contextmanager
def appearing_whole(
    output: Path, overwrite: bool, needed_bytes: int, source: Path
) -> Iterator[Path]:
    """A hidden directory beside `output` that takes its name at the end, or disappears."""
    refuse_output(output, overwrite, source)
    output.parent.mkdir(parents=True, exist_ok=True)
    refuse_full_disk(output.parent, output, needed_bytes)
    directory = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        yield directory
        directory.chmod(0o777 & ~_umask())  # mkdtemp makes it private
        replace(directory, output)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def refuse_output(output: Path, overwrite: bool, source: Path) -> None:
    """Raise OptionError where an output must not be written."""
    if output.resolve() == source.resolve():
        raise OptionError(f"{output} is the source itself")
    if output.exists() and not overwrite:
        raise OptionError(f"{output} exists already; --overwrite replaces it")
    if output.exists() and not (output / "config.json").is_file():
        raise OptionError(f"{output} is not a checkpoint, so it is not overwritten")


def refuse_full_disk(directory: Path, output: Path, needed_bytes: int) -> None:
    """Raise CheckpointError where what is to be written does not fit."""
    free = shutil.disk_usage(directory).free
    if free < needed_bytes:
        raise CheckpointError(f"{output} needs {needed_bytes} bytes, and {free} are free")


def replace(new: Path, output: Path) -> None:
    """Move `new` to `output`; what was there is deleted only after that."""
    old = Path(f"{new}.old")
    if output.exists():
        os.replace(output, old)
    os.replace(new, output)
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
