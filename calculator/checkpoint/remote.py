"""A checkpoint on the Hugging Face hub, described by its headers alone: kilobytes, not gigabytes.

What is fetched is laid out as a directory of sparse files of the true sizes, so that the same
reader and the same checks serve it as a checkpoint on disk.
"""

import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

from calculator.checkpoint.headers import MAX_HEADER_BYTES
from calculator.checkpoint.hub import cached_snapshot, file_url, open_url, refuse_offline
from calculator.checkpoint.stored import StoredModel
from calculator.checkpoint.weight_files import (
    INDEX,
    QUANTIZE_CONFIG,
    SINGLE,
    autogptq_name,
)
from calculator.errors import CheckpointError, ConfigError, SourceError
from calculator.json_files import MAX_CONFIG_BYTES, read_json_object

_TOTAL = re.compile(r"bytes \d+-\d+/(\d+)")


def open_remote(repository: str, *, hub: str | None = None) -> StoredModel:
    """Open a repository of the local cache, or read its config and headers from the Hub.

    hub: another endpoint than huggingface_hub's. Raises SourceError, ConfigError or
    CheckpointError.
    """
    snapshot = cached_snapshot(repository) if hub is None else None
    if snapshot is not None:
        # A part of it may be there only: the small files, say, of a run that was cut off.
        with suppress(CheckpointError):
            return StoredModel.open(snapshot)
    refuse_offline(repository)
    with tempfile.TemporaryDirectory(prefix="glm4q-") as parent:
        directory = Path(parent) / "model"
        directory.mkdir()
        try:
            mirror(lambda name: file_url(repository, name, hub), directory)
            return StoredModel.open(directory, has_data=False)
        except (CheckpointError, ConfigError) as error:
            raise type(error)(str(error).replace(str(directory), repository)) from None


def mirror(url_of: Callable[[str], str], directory: Path) -> None:
    """Write config.json, and each file of weights as its header and a hole of its true size.

    url_of: the address of a file by its name. Raises SourceError or CheckpointError.
    """
    (directory / "config.json").write_bytes(_get(url_of("config.json"), MAX_CONFIG_BYTES))
    settings = _get_if_there(url_of(QUANTIZE_CONFIG), MAX_CONFIG_BYTES)
    if settings is not None:
        (directory / QUANTIZE_CONFIG).write_bytes(settings)
    name = autogptq_name(directory)
    singles = [f"{name}.safetensors", SINGLE] if name else [SINGLE]
    if any(_mirror_header(url_of(single), directory / single) for single in singles):
        return
    index = _get(url_of(INDEX), MAX_HEADER_BYTES)
    (directory / INDEX).write_bytes(index)
    weight_map = read_json_object(directory / INDEX, limit=MAX_HEADER_BYTES).get("weight_map")
    shards = set(weight_map.values()) if isinstance(weight_map, dict) else set()
    for shard in sorted(shards, key=str):
        if isinstance(shard, str) and Path(shard).name == shard:  # StoredModel refuses the others
            _mirror_header(url_of(shard), directory / shard)


def _mirror_header(url: str, file: Path) -> bool:
    """Write the header of a safetensors file, and a hole behind it up to its true size.

    False where there is no such file. Raises SourceError or CheckpointError.
    """
    start = _get_range(url, 0, 8)
    if start is None:
        return False
    length, total = start
    header_bytes = int.from_bytes(length, "little")
    if not 2 <= header_bytes <= min(MAX_HEADER_BYTES, total - 8):
        raise CheckpointError(f"{file} claims a header of {header_bytes} bytes, of {total} in all")
    header = _get_range(url, 8, header_bytes)
    if header is None:
        raise SourceError(f"{url} went away while it was read")
    with file.open("wb") as stream:
        stream.write(length + header[0])
        stream.truncate(total)
    return True


def _get_range(url: str, start: int, count: int) -> tuple[bytes, int] | None:
    """Some bytes of a file and its whole size; None where it is not there. Raises SourceError."""
    answer = open_url(url, {"Range": f"bytes={start}-{start + count - 1}"})
    if answer is None:
        return None
    with answer:
        total = _TOTAL.fullmatch(answer.headers.get("Content-Range", ""))
        if answer.status != 206 or not total:
            raise SourceError(f"{url}: the server does not answer range requests")
        data = _read(answer, url, count)
    if len(data) != count:
        raise SourceError(f"{url}: {len(data)} of {count} bytes came")
    return data, int(total[1])


def _get(url: str, limit: int) -> bytes:
    """A small file whole. Raises SourceError."""
    data = _get_if_there(url, limit)
    if data is None:
        raise SourceError(f"{url} is not there")
    return data


def _get_if_there(url: str, limit: int) -> bytes | None:
    answer = open_url(url, {})
    if answer is None:
        return None
    with answer:
        data = _read(answer, url, limit + 1)
    if len(data) > limit:
        raise SourceError(f"{url} has more than {limit:,} bytes, the most that are read")
    return data


def _read(answer: Any, url: str, count: int) -> bytes:
    try:
        data: bytes = answer.read(count)
    except (OSError, HTTPException) as error:
        raise SourceError(f"{url} cannot be fetched: {error}") from None
    return data
