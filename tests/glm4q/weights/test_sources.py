"""Where models come from: directories, and Hugging Face ids with the network played by a test."""

from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from calculator.errors import OptionError, SourceError
from calculator.questions.subject import find_subject
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


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "neither a directory nor a Hugging Face id"),
        ("-x/y", "neither a directory nor a Hugging Face id"),
        ("a/b/c", "a/b/c is not there: there is no such file or directory"),
        ("../outside", "is not there"),
        ("./models/glm", "is not there"),
        ("~/glm", "is not there"),
        ("models/", "is not there"),
        ("owner/config.json", "is not there"),
        ("here/glm", "is not there"),
    ],
)
def test_what_looks_like_a_path_is_not_looked_up(
    source: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked"))
    monkeypatch.setattr("calculator.checkpoint.remote.open_url", lambda *_: pytest.fail("asked"))
    with pytest.raises(OptionError, match=message):
        open_source(source)
    with pytest.raises(OptionError):
        find_subject(source, weights=None, group_size=None, lm_head=None)
