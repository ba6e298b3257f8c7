"""What is no checkpoint is called by what it is, with what to do about it, in one line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from calculator.checkpoint.kinds import model_name
from calculator.checkpoint.stored import StoredModel
from calculator.checkpoint.weight_files import SINGLE
from calculator.errors import CheckpointError, TokenizerError
from glm4q.cli import main
from glm4q.text.tokenizer import Tokenizer

POINTER = (
    "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 4915960368\n"
)


def _gguf(directory: Path) -> Path:
    (directory / "model.gguf").write_bytes(b"GGUF\x03\0\0\0" + bytes(64))
    return directory


def _adapter(directory: Path) -> Path:
    settings = {"peft_type": "LORA", "base_model_name_or_path": "THUDM/glm-4-9b-chat"}
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    (directory / "adapter_model.safetensors").write_bytes(bytes(64))
    return directory


def _pickle(directory: Path) -> Path:
    (directory / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    return directory


def _one_shard(directory: Path) -> Path:
    (directory / SINGLE).write_bytes(bytes(64))
    return directory / SINGLE


def _cache(directory: Path) -> Path:
    made = directory / "models--THUDM--glm-tiny"
    (made / "snapshots" / "0123abcd").mkdir(parents=True)
    return made


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_gguf, "holds a GGUF file: name the file itself"),
        (_adapter, "is a LORA adapter of THUDM/glm-4-9b-chat, and no model: merge it first"),
        (_pickle, "holds pytorch_model.bin, a pickle"),
        (_one_shard, "is one file of a checkpoint: name its directory"),
        (_cache, "is a folder of the Hub's cache: name the snapshot in it"),
    ],
)
@pytest.mark.parametrize("command", ["calc", "chat", "verify", "bench"])
def test_commands_say_what_it_is(
    command: str,
    make: Callable[[Path], Path],
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--prompt", "hi"] if command == "chat" else []
    assert main([command, str(make(tmp_path)), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_a_pointer_of_git_lfs_is_told(checkpoint: Path) -> None:
    (checkpoint / SINGLE).write_text(POINTER)
    with pytest.raises(CheckpointError, match=r"is a Git LFS pointer .* `git lfs pull`"):
        StoredModel.open(checkpoint)


def test_a_config_that_is_a_pointer_is_told(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text(POINTER)
    with pytest.raises(Exception, match=r"config\.json is a Git LFS pointer"):
        StoredModel.open(checkpoint)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_a_tokenizer_that_is_a_pointer_is_told(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(TokenizerError, match=f"{name} is a Git LFS pointer"):
        Tokenizer.from_directory(tmp_path)


def test_a_snapshot_of_the_cache_is_called_by_its_model(checkpoint: Path, tmp_path: Path) -> None:
    snapshot = _cache(tmp_path) / "snapshots" / "0123abcd"
    snapshot.rmdir()
    checkpoint.rename(snapshot)
    assert StoredModel.open(snapshot).name == model_name(snapshot) == "THUDM/glm-tiny"
