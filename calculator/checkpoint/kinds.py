"""Name what a file or directory is that holds no checkpoint of ours, and what its owner can do."""

import json
import re
from pathlib import Path

from calculator.git_lfs import about_lfs_pointer, is_lfs_pointer

GGUF_MAGIC = b"GGUF"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_SNAPSHOT = re.compile(r"models--(.+)")


def model_name(directory: Path) -> str:
    """Return what to call a checkpoint: its directory's name, or the model's in the Hub's cache.

    There a directory is named by a commit: models--THUDM--glm-4-9b-chat/snapshots/0123...
    """
    directory = directory.resolve()
    snapshots = directory.parent
    cached = _SNAPSHOT.fullmatch(snapshots.parent.name)
    if snapshots.name == "snapshots" and cached:
        return cached[1].replace("--", "/")
    return directory.name


def what_it_is_instead(path: Path) -> str | None:
    """One line about a path that is no checkpoint; None where nothing is known about it."""
    return _about_file(path) if path.is_file() else _about_directory(path)


def _about_file(file: Path) -> str | None:
    if is_lfs_pointer(file):
        return about_lfs_pointer(file)
    if file.suffix == ".safetensors":
        return f"{file} is one file of a checkpoint: name its directory, {file.parent}"
    if any(file.match(pattern) for pattern in PICKLES):
        return _about_pickle(file)
    return None


def _about_directory(directory: Path) -> str | None:
    if (directory / "adapter_config.json").is_file():
        return _about_adapter(directory)
    if (directory / "snapshots").is_dir() and _SNAPSHOT.fullmatch(directory.name):
        newest = next(iter(sorted((directory / "snapshots").iterdir())), directory / "snapshots")
        return f"{directory} is a folder of the Hub's cache: name the snapshot in it, {newest}"
    if files := sorted(directory.glob("*.gguf")):
        return f"{directory} holds a GGUF file: name the file itself, {files[0]}"
    if pickles := sorted(path for pattern in PICKLES for path in directory.glob(pattern)):
        return _about_pickle(pickles[0])
    return None


def _about_pickle(file: Path) -> str:
    return (
        f"{file.parent} holds {file.name}, a pickle, which can run code when loaded; convert it "
        "to safetensors where you trust it (transformers: model.save_pretrained)"
    )


def _about_adapter(directory: Path) -> str:
    try:
        settings = json.loads((directory / "adapter_config.json").read_bytes())
        kind, base = settings["peft_type"], settings["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        kind, base = "PEFT", "another model"
    return (
        f"{directory} is a {kind} adapter of {base}, and no model: merge it first (peft: "
        "merge_and_unload(), then save_pretrained)"
    )


def _begins_with(file: Path, magic: bytes) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(len(magic)) == magic
    except OSError:
        return False
