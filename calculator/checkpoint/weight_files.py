"""Which file of a directory holds its weights: a safetensors file, or an index of several."""

import json
import logging
from pathlib import Path

from calculator.checkpoint.kinds import what_it_is_instead
from calculator.errors import CheckpointError
from calculator.json_files import read_json_object

logger = logging.getLogger(__name__)

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTERS = ("adapter_model.safetensors",)
QUANTIZE_CONFIG = "quantize_config.json"


def find_weight_file(directory: Path) -> Path:
    """The single file or the index that a directory's weights are read from.

    transformers takes model.safetensors before an index, which may be older. AutoGPTQ names its
    file itself. Raises CheckpointError where there is none, or where there are several.
    """
    chosen = _find(directory)
    shards = _shards(chosen) if chosen.suffix == ".json" else {chosen.name}
    unread = [path.name for path in _safetensors(directory) if path.name not in shards]
    if chosen.name == SINGLE and (directory / INDEX).is_file():
        unread.append(INDEX)
    if unread:
        logger.warning(
            "%s: weights are read from %s; %s beside it %s not read",
            directory,
            chosen.name,
            ", ".join(unread),
            "is" if len(unread) == 1 else "are",
        )
    return chosen


def autogptq_name(directory: Path) -> str | None:
    """The name that AutoGPTQ gave to its weights, without ".safetensors"."""
    path = directory / QUANTIZE_CONFIG
    name = read_json_object(path).get("model_file_base_name") if path.is_file() else None
    return name if isinstance(name, str) and Path(name).name == name else None


def _find(directory: Path) -> Path:
    names = [SINGLE, INDEX]
    if base := autogptq_name(directory):
        names = [f"{base}.safetensors", f"{base}.safetensors.index.json", *names]
    for name in names:
        if (directory / name).is_file():
            return directory / name
    indices = sorted(directory.glob("*.safetensors.index.json"))
    files = [path for path in _safetensors(directory) if path.name not in ADAPTERS]
    for only in (indices, files):
        if len(only) == 1:
            return only[0]
    if files:
        raise CheckpointError(
            f"{directory} has {len(files)} safetensors files, {files[0].name} the first of them, "
            f"and neither {SINGLE} nor {INDEX}, which would say what to read"
        )
    if reason := what_it_is_instead(directory):
        raise CheckpointError(reason)
    raise CheckpointError(f"{directory} has neither {SINGLE} nor {INDEX}{_advice(directory)}")


def _advice(directory: Path) -> str:
    """What to do with a config.json whose weights are not there."""
    config = directory / "config.json"
    if not config.is_file() or read_json_object(config).get("quantization_config"):
        return ""
    return f"; calc plans by the config alone: name {config}"


def _safetensors(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.safetensors"))


def _shards(index: Path) -> set[str]:
    """The files that an index names; none where it cannot be read, which its reader says better."""
    try:
        return set(map(str, json.loads(index.read_bytes())["weight_map"].values()))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {path.name for path in _safetensors(index.parent)}
