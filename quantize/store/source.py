"""Open what an entry is made of: a directory, a repository that is here, or one on the Hub."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from calculator.checkpoint.hub import cached_snapshot, file_url, refuse_offline
from calculator.checkpoint.remote import mirror
from calculator.checkpoint.stored import StoredModel
from calculator.errors import CheckpointError, ConfigError, OptionError
from calculator.model.architecture import HEAD
from glm4q.planning.disk import refuse_unwritable
from quantize.output.working_directory import locked
from quantize.store.entries import BEGUN, PUBLISHED, Store, delete, source_name
from quantize.store.fetch import fetch_file
from quantize.store.repository import HubFile, Repository

LISTING = "repository.json"
MIRRORED = ".mirrored"
"""The empty file which says that the headers of all shards are there."""


@dataclass(frozen=True)
class Source:
    """What an entry is made of, and the directory for what lies there meanwhile."""

    name: str
    """A Hugging Face id, or the path of a directory."""
    commit: str | None
    stored: StoredModel
    workshop: Path
    repository: Repository | None = None
    """None where all files are on this machine."""

    def url(self, file_name: str) -> str:
        """Return the address of a file at the commit."""
        return file_url(self.name, file_name, None, self.commit)


def tidy(store: Store, name: str) -> None:
    """Delete what a run has left that was killed after its entry was finished."""
    workshop = store.workshop(name)
    store.sweep()
    unfinished = {source_name(origin.source) for origin in store.begun()}
    if source_name(name) in unfinished or not workshop.is_dir():
        return
    with suppress(OSError, OptionError), locked(workshop, name):
        delete(workshop)


@contextmanager
def opened_source(store: Store, name: str) -> Iterator[Source]:
    """Open a source, for one run at a time.

    What was fetched stays where an entry is begun, and goes where none is. Raises OptionError,
    SourceError, CheckpointError or ConfigError.
    """
    workshop = store.workshop(name)
    refuse_unwritable(store.directory, f"store {store.directory}")
    with locked(workshop, f"a checkpoint of {name}"):
        try:
            yield _open(store, name, workshop)
        except OSError as error:
            error.filename = error.filename or str(workshop)  # a write that fails names no file
            raise
        finally:
            unfinished = {origin.name for origin in store.begun()}
            notes = {note.name.removesuffix(BEGUN) for note in workshop.glob(f"*{BEGUN}")}
            if not unfinished & notes:
                delete(workshop)


def _open(store: Store, name: str, workshop: Path) -> Source:
    if os.path.isabs(name):
        return Source(name, None, StoredModel.open(Path(name)), workshop)
    if not (workshop / LISTING).is_file():
        for entry in store.of_source(name):
            if entry.origin and (entry.origin.method, entry.origin.weights) == (PUBLISHED, "bf16"):
                return Source(
                    name, entry.origin.commit, StoredModel.open(entry.directory), workshop
                )
        snapshot = cached_snapshot(name)
        if snapshot is not None:
            with suppress(CheckpointError, ConfigError):
                return Source(name, snapshot.name, StoredModel.open(snapshot), workshop)
        Repository.ask(name).write(workshop / LISTING)
    refuse_offline(name)
    return _open_remote(Repository.read(workshop / LISTING), workshop)


def _open_remote(repository: Repository, workshop: Path) -> Source:
    """Fetch all but the data of the weights: headers, config, tokenizer and template.

    The directory is named as in the cache of huggingface_hub, so that the model's name is found.
    """
    cached = f"models--{repository.name.replace('/', '--')}"
    directory = workshop / cached / "snapshots" / repository.commit
    directory.mkdir(parents=True, exist_ok=True)

    def url_of(name: str) -> str:
        return file_url(repository.name, name, None, repository.commit)

    try:
        if not (directory / MIRRORED).exists():
            mirror(url_of, directory)
            (directory / MIRRORED).touch()
        for file in repository.companions():
            _fetch_companion(file, url_of(file.name), directory / file.name)
        stored = StoredModel.open(directory, has_data=False)
    except (CheckpointError, ConfigError) as error:
        raise type(error)(str(error).replace(str(directory), repository.name)) from None
    _refuse_two_heads(stored, repository.name)
    return Source(repository.name, repository.commit, stored, workshop, repository)


def _fetch_companion(file: HubFile, url: str, target: Path) -> None:
    """Fetch a small file, unless it is there and right."""
    if target.is_file() and target.stat().st_size == file.size:
        summed = file.new_hash()
        summed.update(target.read_bytes())
        if summed.hexdigest() == file.published_sum:
            return
    fetch_file(file, url, target)


def _refuse_two_heads(stored: StoredModel, name: str) -> None:
    """Refuse a head that only its data tell from the embedding, which are never here at once."""
    if stored.config.tie_word_embeddings and HEAD in stored.tensors:
        raise CheckpointError(
            f"config.json of {name} says tie_word_embeddings, and its files have a head of their "
            f"own: download all files (hf download {name} --local-dir DIR), and name that directory"
        )
