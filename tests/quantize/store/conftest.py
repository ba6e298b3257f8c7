"""A hub for each test, which every command finds instead of the true one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.hub_server import Hub, running_hub, set_endpoint


@pytest.fixture(autouse=True)
def _short_texts(short_texts: None) -> None:
    """Entries are made and measured on short texts: these tests need no good quality."""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for module in ("calculator.checkpoint.hub", "quantize.store.fetch"):
        monkeypatch.setattr(f"{module}.sleep", lambda seconds: None)
    with running_hub(tmp_path / "hub") as running:
        set_endpoint(running.address, monkeypatch)
        yield running
