"""`glm4q chat NAME` from an empty store to an answer: what it takes beside what it predicts.

    python -m benchmarks.from_nothing SOURCE [--ways int8 quick gptq] [--kills 10]

SOURCE is a directory of bf16 files, such as that of `glm4q demo-model`; a local server offers it
in shards by the Hub's protocol. Each way is typed into a pseudo-terminal: the name, y, a question.
With --kills the making is killed at so many random moments, and its bytes are compared with those
of a run that nobody killed.
"""

import argparse
import hashlib
import json
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.machine import describe_machine
from calculator.units import human_bytes
from quantize.quality.report import JSON_NAME, TEXT_NAME
from quantize.store.entries import ORIGIN, Entry, Store
from tests.glm4q.terminal.pseudo_terminal import PseudoTerminal
from tests.hub_server import Hub, running_hub
from tests.quantize.store.disk import watched
from tests.quantize.store.sources import divide

NAME = "owner/demo"
WAYS = {
    "int8": ("--weights", "int8", "--group-size", "64"),
    "quick": ("--quick", "--group-size", "64"),
    "gptq": ("--weights", "int4", "--group-size", "64"),
}
SHARD_BYTES = 60 << 20
READY = ", plan "
"""Stands in the footer, so that a prompt waits for keys."""
PREDICTED = re.compile(r"disk +([\d.]+) (MiB|GiB) at most")
UNITS = {"MiB": 1 << 20, "GiB": 1 << 30}
DIFFERS = {JSON_NAME, TEXT_NAME, ORIGIN, "SHA256SUMS"}
"""Reports name times; the note of the origin is the store's own."""
LONGEST = 900
"""Seconds to wait for a checkpoint."""


def begin(hub: Hub, place: Path, way: str, *options: str) -> PseudoTerminal:
    """Type the command."""
    return PseudoTerminal(
        [sys.executable, "-m", "glm4q", "chat", NAME, *WAYS[way], *options],
        columns=200,
        HF_ENDPOINT=hub.address,
        HF_HUB_CACHE=str(place / "cache"),
        XDG_DATA_HOME=str(place / "data"),
        XDG_STATE_HOME=str(place / "state"),
        XDG_CACHE_HOME=str(place / "prefixes"),
        XDG_CONFIG_HOME=str(place / "config"),
        no_proxy="*",
    )


def entry_of(place: Path) -> Entry:
    """The one entry of a store."""
    (entry,) = Store(place / "data" / "glm4q").entries()
    return entry


def walk(hub: Hub, place: Path, way: str) -> tuple[str, float]:
    """Make, ask, and leave. Returns a row of the table, and the seconds that the making took."""
    (place / "data").mkdir(parents=True)
    with watched(place / "data") as most:
        chat = begin(hub, place, way, "--temperature", "0", "--max-tokens", "12")
        shown = chat.wait_for("Make it? y or n:")
        begun = time.monotonic()
        chat.type("y\r")
        chat.wait_for(READY, seconds=LONGEST)
        seconds = time.monotonic() - begun
    chat.type("What is the capital of France?\r")
    answer = chat.wait_for("first after")
    chat.type("/quit\r")
    assert chat.end() == 0
    assert "Traceback" not in answer
    disk = PREDICTED.search(shown)
    assert disk is not None
    report = entry_of(place).directory / JSON_NAME
    run = json.loads(report.read_text())["run"] if report.is_file() else {}
    memory = [
        human_bytes(run[key]) if key in run else "-" for key in ("predicted_bytes", "peak_bytes")
    ]
    row = (
        f"| {way} | {disk[1]} {disk[2]} | {human_bytes(most[0])} | {memory[0]} | {memory[1]} "
        f"| {seconds:.0f} s |"
    )
    return row, seconds


def kill(hub: Hub, place: Path, way: str, kills: int, seconds: float) -> None:
    """Kill the making at random moments, then let it end."""
    chance, killed = random.Random(0), 0
    while killed < kills:
        chat = begin(hub, place, way, "--yes", "--max-tokens", "1")
        try:
            chat.wait_for(READY, seconds=3 + chance.random() * seconds / 2)
        except AssertionError:
            chat.process.kill(signal.SIGKILL)
            chat.process.wait()
            killed += 1
            continue
        chat.process.kill(signal.SIGTERM)
        break
    chat = begin(hub, place, way, "--yes", "--max-tokens", "1")
    chat.wait_for(READY, seconds=LONGEST)
    chat.type("/quit\r")
    chat.end()
    print(f"{way}: killed {killed} times at random moments")


def digests(place: Path) -> dict[str, str]:
    """The sums of an entry's files, but for its reports."""
    directory = entry_of(place).directory
    return {file.name: digest for file, digest in _digests(directory) if file.name not in DIFFERS}


def _digests(directory: Path) -> Iterator[tuple[Path, str]]:
    for file in sorted(directory.iterdir()):
        yield file, hashlib.sha256(file.read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS])
    parser.add_argument("--kills", type=int, default=0)
    options = parser.parse_args()
    print(describe_machine())
    print("| way | disk, predicted | at most | memory, predicted | at most | seconds |")
    print("|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as directory, running_hub(Path(directory) / "hub") as hub:
        hub.repository(NAME, divide(options.source, Path(directory) / "demo", SHARD_BYTES))
        for way in options.ways:
            place = Path(directory) / way
            row, seconds = walk(hub, place, way)
            print(row, flush=True)
            if options.kills:
                other = Path(directory) / f"{way}-killed"
                (other / "data").mkdir(parents=True)
                kill(hub, other, way, options.kills, seconds)
                same = digests(place) == digests(other)
                print(f"{way}: the same bytes: {'yes' if same else 'NO'}", flush=True)


if __name__ == "__main__":
    main()
