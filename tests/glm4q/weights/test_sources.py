"""Where models come from: directories, and Hugging Face ids with the network played by a test."""

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from calculator.errors import OptionError, SourceError
from glm4q.weights.sources import open_source


def test_directory_is_opened(tiny_checkpoint: Path) -> None:
    assert open_source(str(tiny_checkpoint)).directory == tiny_checkpoint


def test_repository_is_fetched_without_code_or_pickles(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, list[str]] = {}

    def snapshot_download(repository: str, *, allow_patterns: list[str]) -> str:
        asked[repository] = allow_patterns
        return str(tiny_checkpoint)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert open_source("THUDM/glm-4-9b-chat-hf").directory == tiny_checkpoint
    assert "*.safetensors" in asked["THUDM/glm-4-9b-chat-hf"]
    assert not {"*.py", "*.bin", "*"} & set(asked["THUDM/glm-4-9b-chat-hf"])


def test_no_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(repository: str, **_: object) -> str:
        raise LocalEntryNotFoundError("no connection\nand a long explanation")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(SourceError, match=r"THUDM/glm-4-9b cannot be fetched: no connection$"):
        open_source("THUDM/glm-4-9b")


@pytest.mark.parametrize("source", ["nowhere", "a/b/c", "../outside", "-x/y"])
def test_neither_directory_nor_repository(source: str) -> None:
    with pytest.raises(OptionError, match="neither a directory nor"):
        open_source(source)
