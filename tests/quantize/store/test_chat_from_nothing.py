"""`glm4q chat NAME` from an empty store to an answer, in a terminal, with a trained model.

test_resolve.py shows that the next chat finds the entry.
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantize.store.entries import Store, disk_bytes
from tests.glm4q.terminal.pseudo_terminal import PseudoTerminal
from tests.hub_server import Hub, running_hub
from tests.quantize.store.disk import watched
from tests.quantize.store.sources import divide

NAME = "owner/demo"
READY = ", plan "
SHARD_BYTES = 60 << 20
LOOSE_BYTES = 3 << 20
"""The tokenizer, twice, and the last digit of what the screen says."""
UNITS = {"MiB": 1 << 20, "GiB": 1 << 30}


@pytest.fixture
def hub(demo_checkpoint: Path, tmp_path: Path) -> Iterator[Hub]:
    with running_hub(tmp_path / "hub") as hub:
        hub.repository(NAME, divide(demo_checkpoint, tmp_path / "demo", SHARD_BYTES))
        yield hub


def started(hub: Hub, place: Path, *options: str) -> PseudoTerminal:
    return PseudoTerminal(
        [sys.executable, "-m", "glm4q", "chat", NAME, "--quick", *options],
        columns=200,
        HF_ENDPOINT=hub.address,
        HF_HUB_CACHE=str(place / "cache"),
        XDG_DATA_HOME=str(place / "data"),
        XDG_STATE_HOME=str(place / "state"),
        no_proxy="*",
    )


@pytest.mark.demo
def test_from_nothing_to_an_answer(hub: Hub, tmp_path: Path) -> None:
    declined = started(hub, tmp_path)
    declined.wait_for("Make it? y or n:")
    declined.type("n\r")
    assert declined.end() == 2
    assert "is not made" in declined.screen()
    assert not any((tmp_path / "data" / "glm4q").iterdir())
    with watched(tmp_path / "data") as most:
        chat = started(hub, tmp_path, "--temperature", "0", "--max-tokens", "12")
        shown = chat.wait_for("Make it? y or n:")
        chat.type("y\r")
        chat.wait_for(READY, seconds=120)
    disk = re.search(r"disk +([\d.]+) (MiB|GiB) at most", shown)
    assert disk
    assert most[0] <= float(disk[1]) * UNITS[disk[2]] + LOOSE_BYTES
    whole = sum(file.stat().st_size for file in (tmp_path / "demo").iterdir())
    (entry,) = Store(tmp_path / "data" / "glm4q").entries()
    # The head is tied to the embedding, so the first of the shards stays to the end.
    assert most[0] < 0.75 * (whole + disk_bytes(entry.directory))
    run = json.loads((entry.directory / "quality.json").read_text())["run"]
    assert run["peak_bytes"] <= run["predicted_bytes"]
    chat.type("What is the capital of France?\r")
    chat.wait_for("12 tokens, cut at the limit")
    chat.type("/quit\r")
    assert chat.end() == 0
    assert "Traceback" not in chat.screen()
