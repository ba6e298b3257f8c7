"""The store: a directory whose entries are checkpoints, each with a note of its origin."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from calculator.checkpoint.quality import MeasuredLoss, measured_loss
from calculator.errors import ConfigError, OptionError
from calculator.json_files import read_json_object
from glm4q.terminal.user_directories import data_directory
from quantize.output.target import partial_directory

ORIGIN = "store.json"
"""The file of an entry that says where it comes from. Its time is when the entry was last used."""
BEGUN = ".begun.json"
"""The ending of the file that says the same of an entry that is not finished."""
REMOVED = ".removed"
"""The ending of a hidden directory that is being deleted."""
PUBLISHED = "as published"
"""The method of an entry that was only fetched."""


@dataclass(frozen=True)
class Origin:
    """What an entry was made of, and how."""

    source: str
    """A Hugging Face id, or the path of a local directory."""
    commit: str | None
    """The commit of the repository; None for a directory."""
    weights: str
    group_size: str = "128"
    lm_head: str = "bf16"
    method: str = PUBLISHED

    @property
    def name(self) -> str:
        """The name of the entry: its source, and whatever differs from what is usual."""
        if self.method == PUBLISHED:
            suffix = f"-{self.weights}" if self.weights == "bf16" else ""
            return f"{source_name(self.source)}{suffix}"
        words = [source_name(self.source), self.weights]
        words += [f"g{self.group_size}"] if self.group_size != "128" else []
        words += ["head8"] if self.lm_head == "int8" else []
        words += [self.method] if self.weights == "int4" and self.method != "gptq" else []
        return "-".join(words)

    @classmethod
    def read(cls, path: Path) -> "Origin | None":
        """Read the note; None where there is none, or it is damaged."""
        try:
            kept = read_json_object(path)
            origin = cls(**kept)
        except (ConfigError, TypeError):
            return None
        words = [*asdict(origin).values()]
        if not all(isinstance(word, str | None) for word in words) or "/" in origin.name:
            return None
        return origin

    def write(self, path: Path) -> None:
        """Write the note."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def source_name(source: str) -> str:
    """Return the beginning of the names of all entries of a source.

    >>> source_name("zai-org/glm-4-9b-chat-hf")
    'zai-org--glm-4-9b-chat-hf'
    """
    if os.path.isabs(source):
        return f"{Path(source).name}-{hashlib.sha256(source.encode()).hexdigest()[:6]}"
    return source.replace("/", "--")


@dataclass(frozen=True)
class Entry:
    """One checkpoint of the store."""

    directory: Path
    origin: Origin | None
    """None for a checkpoint that somebody put there by hand."""

    @property
    def name(self) -> str:
        """The name by which commands know it."""
        return self.directory.name

    @property
    def last_used(self) -> float:
        """When it was made or used last, in seconds since 1970."""
        note = self.directory / ORIGIN
        return (note if note.is_file() else self.directory).stat().st_mtime

    @property
    def loss(self) -> MeasuredLoss | None:
        """The loss that was measured when it was made; None where it was not."""
        return measured_loss(str(self.directory))

    def touch(self) -> None:
        """Note that the entry is used now; a store that cannot be written to stays usable."""
        note = self.directory / ORIGIN
        if note.is_file() and os.access(note, os.W_OK):
            os.utime(note)


class Store:
    """A directory of entries. What is not finished lies in hidden directories beside them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def entries(self) -> Iterator[Entry]:
        """Yield the finished entries by name."""
        for directory in self._directories():
            if not directory.name.startswith(".") and (directory / "config.json").is_file():
                yield Entry(directory, Origin.read(directory / ORIGIN))

    def of_source(self, source: str) -> list[Entry]:
        """Return the finished entries of a source."""
        wanted = source.lower()
        return [
            entry
            for entry in self.entries()
            if entry.origin and entry.origin.source.lower() == wanted
        ]

    def begun(self) -> Iterator[Origin]:
        """Yield the origins of entries that are not finished."""
        finished = {entry.name for entry in self.entries()}
        for directory in self._directories():
            if directory.name.startswith(".") and not directory.name.endswith(REMOVED):
                for note in sorted(directory.glob(f"*{BEGUN}")):
                    origin = Origin.read(note)
                    if origin and origin.name not in finished:
                        yield origin

    def find(self, name: str) -> Entry | None:
        """Return the entry of that name."""
        return next((entry for entry in self.entries() if entry.name == name), None)

    def workshop(self, source: str) -> Path:
        """Return the directory in which a source lies while an entry is made of it."""
        return self.directory / f".{source_name(source)}.source"

    def remove(self, words: str) -> tuple[str, int]:
        """Delete an entry, or what is left of one that was not finished; its name and bytes.

        words: its name, or its source where only one entry has it. Raises OptionError.
        """
        begun = {origin.name: origin for origin in self.begun()}
        names = [entry.name for entry in self.entries()] + [*begun]
        if words not in names:
            names = [entry.name for entry in self.of_source(words)]
            names += [name for name, each in begun.items() if each.source.lower() == words.lower()]
        else:
            names = [words]
        if len(names) > 1:
            raise OptionError(f"{words} has {len(names)} entries: name one of {', '.join(names)}")
        if not names:
            raise OptionError(f"{words} is not in the store {self.directory}; glm4q list shows it")
        (name,) = names
        freed = self._delete(name, begun.get(name))
        self.sweep()
        return name, freed

    def sweep(self) -> None:
        """Delete what is left of directories whose deletion was killed."""
        for left in self.directory.glob(f".*{REMOVED}"):
            shutil.rmtree(left, ignore_errors=True)

    def _delete(self, name: str, begun: Origin | None) -> int:
        places = [self.directory / name]
        if begun:
            workshop = self.workshop(begun.source)
            (workshop / f"{name}{BEGUN}").unlink(missing_ok=True)
            places = [partial_directory(places[0])]
            if not any(workshop.glob(f"*{BEGUN}")):
                places.append(workshop)
        freed = 0
        for place in places:
            if place.is_symlink():
                place.unlink()
            elif place.is_dir():
                freed += disk_bytes(place)
                delete(place)
        return freed

    def _directories(self) -> list[Path]:
        if not self.directory.is_dir():
            return []
        return sorted(each for each in self.directory.iterdir() if each.is_dir())


def delete(directory: Path) -> None:
    """Delete a directory of the store, which loses its name first: a kill leaves no half of it.

    `Store.sweep` of a later run deletes what a kill leaves.
    """
    nameless = directory.with_name(f".{directory.name.strip('.')}{REMOVED}")
    shutil.rmtree(nameless, ignore_errors=True)
    os.replace(directory, nameless)
    shutil.rmtree(nameless, ignore_errors=True)


def open_store(directory: Path | None) -> Store:
    """Return the store of an option, or the user's own."""
    return Store(directory or data_directory())


def disk_bytes(directory: Path) -> int:
    """Return the bytes of the disk that a directory takes; holes in files take none."""
    return sum(
        file.lstat().st_blocks * 512 for file in directory.rglob("*") if not file.is_symlink()
    )
