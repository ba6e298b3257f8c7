"""A repository on a hub is described by ranges of its files; a local server plays the hub."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from calculator.checkpoint.remote import open_remote
from calculator.checkpoint.stored import StoredModel
from calculator.checkpoint.weight_files import SINGLE
from calculator.errors import (
    CheckpointError,
    ConfigError,
    HubUnreachableError,
    SourceError,
)
from calculator.model.presets import find_preset
from calculator.questions.subject import Subject, find_subject
from tests.hub_server import Hub, running_hub, set_endpoint


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with running_hub(tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def repository(hub: Hub, checkpoint: Path) -> Path:
    """The files of owner/tiny on the hub."""
    return hub.repository("owner/tiny", checkpoint)


def test_headers_are_enough(hub: Hub, repository: Path) -> None:
    remote, local = open_remote("owner/tiny", hub=hub.address), StoredModel.open(repository)
    assert remote.config == local.config
    assert remote.formats == local.formats
    whole = (repository / SINGLE).stat().st_size
    header = 8 + int.from_bytes((repository / SINGLE).read_bytes()[:8], "little")
    config = (repository / "config.json").stat().st_size
    assert sum(hub.sent.values()) == header + config < whole


def test_a_name_that_is_not_there(hub: Hub, repository: Path) -> None:
    with pytest.raises(SourceError, match=r"owner/other/resolve/main/config\.json is not there"):
        open_remote("owner/other", hub=hub.address)


def test_a_server_without_ranges_is_refused(hub: Hub, repository: Path) -> None:
    hub.ranges = False
    with pytest.raises(SourceError, match="does not answer range requests"):
        open_remote("owner/tiny", hub=hub.address)


def test_no_network() -> None:
    with pytest.raises(SourceError, match="cannot be fetched"):
        open_remote("owner/tiny", hub="http://127.0.0.1:9")


def test_a_header_that_lies_is_refused(hub: Hub, repository: Path) -> None:
    data = (repository / SINGLE).read_bytes()
    (repository / SINGLE).write_bytes((2**60).to_bytes(8, "little") + data[8:])
    with pytest.raises(CheckpointError, match=r"claims a header of 1152921504606846976 bytes"):
        open_remote("owner/tiny", hub=hub.address)


@pytest.mark.parametrize("config", [b"{}", b"[", b" " * (2 << 20)], ids=["empty", "cut", "2 MiB"])
def test_a_config_that_is_none(hub: Hub, repository: Path, config: bytes) -> None:
    (repository / "config.json").write_bytes(config)
    with pytest.raises((ConfigError, SourceError)) as refused:
        open_remote("owner/tiny", hub=hub.address)
    assert "owner/tiny" in str(refused.value)


@pytest.fixture
def rules(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As HF_ENDPOINT, HF_TOKEN and HF_HUB_CACHE set them before huggingface_hub is imported."""
    set_endpoint(hub.address, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_TOKEN", "secret")
    return tmp_path / "cache"


def ask(repository: str) -> Subject:
    return find_subject(repository, weights=None, group_size=None, lm_head=None)


def test_the_environment_names_the_endpoint_and_the_token(
    rules: Path, repository: Path, hub: Hub
) -> None:
    """In a process of its own: huggingface_hub reads the environment once."""
    hub_settings = {"HF_ENDPOINT": hub.address, "HF_TOKEN": "secret", "HF_HUB_CACHE": str(rules)}
    ran = subprocess.run(
        [sys.executable, "-m", "glm4q", "calc", "owner/tiny"],
        env={**os.environ, **hub_settings, "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "owner/tiny" in ran.stdout
    assert set(hub.tokens) == {"Bearer secret", None}


def test_the_token_stays_with_the_host_that_it_is_for(
    rules: Path, repository: Path, hub: Hub
) -> None:
    """The Hub sends a client to its storage servers, which are other hosts."""
    assert ask("owner/tiny").source == "headers"
    by_place = {
        asked.split("/")[1]: token for asked, token in zip(hub.asked, hub.tokens, strict=True)
    }
    assert by_place == {"owner": "Bearer secret", "storage": None}


def test_the_local_cache_is_asked_first_and_alone_when_offline(
    rules: Path, hub: Hub, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachableError, match="owner/tiny is not whole in the local cache"):
        ask("owner/tiny")
    cached = rules / "models--owner--tiny"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    (cached / "snapshots").mkdir()
    shutil.copytree(checkpoint, cached / "snapshots" / ("0" * 40))
    assert ask("owner/tiny").name == "owner/tiny"
    assert hub.tokens == []


@pytest.mark.parametrize("name", ["glm-4-9b-chat", "glm-4-9b-chat-hf", "GLM-Z1-9B-0414"])
def test_a_preset_stands_in_where_there_is_no_network(
    name: str, rules: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    set_endpoint("http://127.0.0.1:9", monkeypatch)
    subject = ask(f"THUDM/{name}")
    assert subject.config == find_preset(name.removesuffix("-hf"))
    assert "the preset of that name is used" in caplog.text
    with pytest.raises(HubUnreachableError):
        ask("THUDM/glm-4-9b-novel")
