"""The directory of a new checkpoint: hidden while it grows, renamed when it is whole.

A run that is killed, interrupted or ends with an error leaves `.NAME.partial` beside the output if
a part is finished; the same command goes on with the next part. Two runs cannot work on one output.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from calculator.errors import CheckpointError, ConfigError, OptionError
from calculator.json_files import read_json_object
from glm4q.planning.disk import refuse_full_disk, refuse_unwritable
from quantize.output.working_directory import locked

JOURNAL = "progress.json"
LARGEST_JOURNAL = 1 << 28


@dataclass
class Journal:
    """How far a run is: written anew after each part, so that a kill loses at most one."""

    asked: dict[str, Any]
    """All that the output depends on; a run that differs in any of it is refused."""
    parts: int = 0
    tensors: int = 0
    """Tensors that are whole in the shards."""
    seconds: float = 0.0
    peak_bytes: int = 0
    """The peak memory of all processes that worked on this output."""
    reports: list[dict[str, Any]] = field(default_factory=list)
    healed: dict[str, Any] | None = None
    """What healing did; None before it has ended, or where it was not asked for."""


class Target:
    """A checkpoint's directory while it grows, and the journal of how far it is.

    part_names: the name of each part, and of what comes after the last.
    """

    def __init__(
        self,
        output: Path,
        *,
        overwrite: bool,
        source: Path,
        depends_on: Mapping[str, Any],
        part_names: Sequence[str],
    ):
        refuse_output(output, overwrite, source)
        self._output = output
        self.part_names = part_names
        self.directory = partial_directory(output)
        self.journal = Journal(dict(depends_on))
        self.is_resumed = False

    @contextmanager
    def growing(self) -> Iterator["Target"]:
        """Lock the directory, and give it the output's name if the work ends without an error."""
        with locked(self.directory, str(self._output)) as self._descriptor:
            self._read()
            try:
                yield self
            except BaseException as error:
                self._keep_finished(error)
                raise
            (self.directory / JOURNAL).unlink()
            replace(self.directory, self._output)

    def written_bytes(self) -> int:
        """Bytes that earlier runs have written."""
        return sum(file.stat().st_size for file in self.directory.iterdir())

    def commit(self) -> None:
        """Make the journal, and all that it lists, outlast a kill."""
        path = self.directory / JOURNAL
        fresh = path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(asdict(self.journal), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
        os.fsync(self._descriptor)

    def _keep_finished(self, error: BaseException) -> None:
        """Keep finished parts, whatever the error is, and add to the error how to go on."""
        how = ""
        if self.journal.parts:
            how = (
                f"what is finished is kept in {self.directory}; the same command goes on with "
                f"{self.part_names[self.journal.parts]}"
            )
            error.add_note(how)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)
        if isinstance(error, OSError):  # a write that fails names no file
            message = f"{error.filename or self._output}: {error.strerror or error}"
            raise _with_notes(CheckpointError(message), error) from None

    def _read(self) -> None:
        """Go on from the journal of an earlier run. Raises OptionError or CheckpointError."""
        journal = read_journal(self._output)
        if journal is None:
            return self.commit()
        expected = json.loads(json.dumps(self.journal.asked))
        for name, value in expected.items():
            if journal.asked.get(name) != value:
                raise OptionError(
                    f"{self.directory} was begun with {name} {journal.asked.get(name)}, not "
                    f"{value}; ask for the same, or delete it"
                )
        if journal.parts >= len(self.part_names):
            raise CheckpointError(f"{self.directory / JOURNAL} counts more parts than there are")
        self.journal = journal
        self.is_resumed = True


def partial_directory(output: Path) -> Path:
    """The directory in which `output` grows."""
    return output.parent / f".{output.name}.partial"


def read_journal(output: Path) -> Journal | None:
    """Read how far an earlier run for `output` came; None where there was none.

    Raises CheckpointError.
    """
    path = partial_directory(output) / JOURNAL
    if not path.is_file():
        return None
    try:
        journal = Journal(**read_json_object(path, limit=LARGEST_JOURNAL))
    except ConfigError as error:
        raise CheckpointError(f"{error}; delete {path.parent} to begin anew") from None
    except TypeError:
        raise CheckpointError(f"{path} is no journal; delete {path.parent} to begin anew") from None
    whole = isinstance(journal.asked, dict) and isinstance(journal.reports, list)
    whole = whole and isinstance(journal.healed, dict | None)
    counts = (journal.parts, journal.tensors, journal.peak_bytes)
    if not whole or not all(type(count) is int and count >= 0 for count in counts):
        raise CheckpointError(f"{path} is no journal; delete {path.parent} to begin anew")
    return journal


def _with_notes(error: CheckpointError, other: BaseException) -> CheckpointError:
    for note in getattr(other, "__notes__", ()):
        error.add_note(note)
    return error


@contextmanager
def appearing_whole(
    output: Path, overwrite: bool, needed_bytes: int, source: Path
) -> Iterator[Path]:
    """Make a hidden directory that takes the name `output` at the end, or disappears."""
    refuse_output(output, overwrite, source)
    refuse_full_disk(output.parent, output, needed_bytes)
    with hidden_directory(output) as directory:
        yield directory
        directory.chmod(0o777 & ~_umask())  # mkdtemp makes it private
        replace(directory, output)


@contextmanager
def hidden_directory(output: Path) -> Iterator[Path]:
    """Make a directory beside the output, which is deleted at the end.

    Raises CheckpointError where a write fails: it names the output, and no file that is gone.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        yield directory
    except OSError as error:
        place = error.filename
        if place is None or Path(place).is_relative_to(directory):
            place = output
        # numpy says of a full disk only how many numbers were written.
        reason = error.strerror or f"not all of it could be written ({error}): is the disk full?"
        raise CheckpointError(f"{place}: {reason}") from None
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def refuse_output(output: Path, overwrite: bool, source: Path) -> None:
    """Raise OptionError where an output must not be written, or could not be read again."""
    if not _is_utf8(output):
        raise OptionError(f"output {output} is no UTF-8 text, and safetensors opens no such path")
    if output.resolve() == source.resolve():
        raise OptionError(f"output {output} is the source itself")
    if output.exists() and not overwrite:
        raise OptionError(f"output {output} exists already; --overwrite replaces it")
    if output.exists() and not (output / "config.json").is_file():
        raise OptionError(f"output {output} is not a checkpoint, so it is not overwritten")
    refuse_unwritable(output.parent, f"output {output}")


def _is_utf8(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # bytes that Python keeps as lone surrogates
        return False
    return True


def replace(new: Path, output: Path) -> None:
    """Move `new` to `output`; the old output is deleted only after that."""
    old = Path(f"{new}.old")
    if output.exists():
        os.replace(output, old)
    os.replace(new, output)
    if old.is_symlink():  # what it points to is the user's
        old.unlink()
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
