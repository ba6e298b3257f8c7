"""An entry is made shard by shard: the same bytes as of a whole source, on a disk as predicted."""

import hashlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from calculator.checkpoint.stored import StoredModel
from glm4q.cli import main
from glm4q.planning.named_model import ModelRequest
from quantize.output.target import partial_directory
from quantize.progress import QuantizeProgress
from quantize.quality.report import JSON_NAME, TEXT_NAME
from quantize.store.entries import ORIGIN, Store
from quantize.store.making import Making
from quantize.store.resolve import resolve
from tests.hub_server import COMMIT, Hub, set_endpoint
from tests.quantize.store.disk import watched
from tests.quantize.store.sources import divide

NAME = "owner/tiny"
SHARD_BYTES = 150_000
KILLS = 6
BLOCKS = 100 * 4096
"""Every small file takes whole blocks of the disk."""
DIFFERS = {JSON_NAME, TEXT_NAME, ORIGIN, "SHA256SUMS"}
"""The report names times; the note of the origin is the store's own."""


@pytest.fixture(scope="module")
def source(chat_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return divide(chat_checkpoint, tmp_path_factory.mktemp("shards") / "tiny", SHARD_BYTES)


@pytest.fixture
def store(hub: Hub, source: Path, tmp_path: Path) -> Store:
    hub.repository(NAME, source)
    return Store(tmp_path / "data" / "glm4q")


def digests(directory: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in directory.iterdir()
        if file.name not in DIFFERS
    }


def measured(directory: Path) -> object:
    """The quality that was measured on the held-out text."""
    return json.loads((directory / JSON_NAME).read_text())["held_out"]


def test_int4_by_gptq_equals_that_of_a_whole_source_and_so_does_its_quality(
    store: Store, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pull", NAME, "--weights", "int4", "--lm-head", "int8", "--yes"]) == 0
    entry = store.directory / "owner--tiny-int4-head8"
    assert capsys.readouterr().out.strip() == str(entry)
    whole = tmp_path / "whole"
    options = ["--weights", "int4", "--lm-head", "int8"]
    assert main(["quantize", str(source), "-o", str(whole), *options]) == 0
    assert digests(entry) == digests(whole)
    assert measured(entry) == measured(whole)
    assert json.loads((entry / JSON_NAME).read_text())["source"]["name"] == NAME
    assert [each.name for each in store.directory.iterdir()] == [entry.name]
    assert main(["verify", str(entry), "--source", str(source)]) == 0


@pytest.mark.parametrize("options", [{"quick": True}, {"weights": "int4"}], ids=["rtn", "gptq"])
def test_the_disk_holds_no_more_than_was_predicted(
    options: dict[str, object], store: Store, source: Path
) -> None:
    costs = []

    def make(making: Making, _: object) -> object:
        costs.append(making.costs)
        with QuantizeProgress() as progress:
            return making.run(progress)

    with watched(store.directory) as most:
        resolve(ModelRequest(NAME, store.directory, **options), make)  # type: ignore[arg-type]
    (cost,) = costs
    shards = {file.name: file.stat().st_size for file in source.glob("*.safetensors")}
    largest, second, *_ = sorted(shards.values(), reverse=True)
    layer = max(sum(sizes) for sizes in _sizes_of_layers(source))
    assert cost.shard_bytes <= max(largest + second, layer + largest)
    assert cost.fetched_bytes == sum(shards.values())
    assert most[0] <= cost.disk_bytes + BLOCKS
    assert most[0] < cost.output_bytes + cost.fetched_bytes + cost.states_bytes


def _sizes_of_layers(source: Path) -> Iterator[list[int]]:
    stored = StoredModel.open(source)
    for layer in range(stored.config.num_hidden_layers):
        files = {
            header.file for name, header in stored.tensors.items() if f".layers.{layer}." in name
        }
        yield [file.stat().st_size for file in files]


def _pull(store: Path, *options: str) -> None:
    torch.set_num_threads(1)
    os._exit(main(["pull", NAME, "--store", str(store), "--yes", *options]))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize(
    "options", [("--quick",), ("--weights", "int4")], ids=["quick", "gptq and its quality"]
)
def test_killed_at_any_moment_it_ends_with_the_same_bytes(
    options: tuple[str, ...], store: Store, tmp_path: Path
) -> None:
    context, chance = multiprocessing.get_context("fork"), random.Random(0)
    begun = time.monotonic()
    undisturbed = context.Process(target=_pull, args=(tmp_path / "undisturbed", *options))
    undisturbed.start()
    undisturbed.join()
    whole = time.monotonic() - begun
    (expected,) = (tmp_path / "undisturbed").iterdir()
    output, killed = store.directory / expected.name, 0
    while killed < KILLS:
        process = context.Process(target=_pull, args=(store.directory, *options))
        process.start()
        process.join(chance.uniform(0, whole))
        if process.is_alive():
            assert process.pid
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            killed += 1
        if output.exists() and not partial_directory(output).exists():
            assert digests(output) == digests(expected)
            assert measured(output) == measured(expected)
            store.remove(output.name)
    process = context.Process(target=_pull, args=(store.directory, *options))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert digests(output) == digests(expected)
    assert measured(output) == measured(expected)
    assert [each.name for each in store.directory.iterdir()] == [output.name]


def test_killed_while_it_deletes_the_source_the_entry_can_be_made_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A half of the source under its name would be taken for all of it."""

    def cut_off(directory: Path, **_: object) -> None:
        if directory.exists():
            for shard in directory.rglob("*.safetensors"):
                shard.unlink()
            raise KeyboardInterrupt

    pull = ["pull", NAME, "--quick", "--yes"]
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", cut_off)
        assert main(pull) != 0
    name = "owner--tiny-int4-rtn"
    assert main(["rm", name]) == 0
    assert main(pull) == 0
    assert [each.name for each in store.directory.iterdir()] == [name]


def test_the_source_is_kept_if_asked_for_and_serves_without_network(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["pull", NAME, "--quick", "--keep-source", "--yes"]) == 0
    kept = store.directory / "owner--tiny-bf16"
    for file in source.iterdir():
        assert (kept / file.name).read_bytes() == file.read_bytes()
    assert main(["verify", str(kept)]) == 0
    set_endpoint("http://127.0.0.1:9", monkeypatch)
    assert main(["pull", NAME, "--weights", "int8", "--yes"]) == 0
    names = {"owner--tiny-bf16", "owner--tiny-int4-rtn", "owner--tiny-int8"}
    assert {each.name for each in store.directory.iterdir()} == names


def test_a_quantized_repository_is_fetched_as_it_is(
    hub: Hub, store: Store, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["quantize", str(source), "-o", str(tmp_path / "q"), "--weights", "int8"]) == 0
    hub.repository("owner/ready", tmp_path / "q")
    assert main(["pull", "owner/ready", "--yes"]) == 0
    entry = store.directory / "owner--ready"
    assert digests(entry) == digests(tmp_path / "q")
    assert json.loads((entry / ORIGIN).read_text())["commit"] == COMMIT
    capsys.readouterr()
    assert main(["pull", "owner/ready", "--weights", "int4", "--yes"]) == 2
    assert "quantized already" in capsys.readouterr().err


def test_a_broken_run_says_how_to_go_on_and_goes_on(
    hub: Hub, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = "model-00010-of-00012.safetensors"
    hub.wrong[shard] = 2
    assert main(["pull", NAME, "--quick", "--yes"]) == 2
    shown = capsys.readouterr().err
    assert "not those that were published" in shown
    assert "the same command goes on" in shown
    assert "Traceback" not in shown
    assert main(["list"]) == 0
    assert "not finished" in capsys.readouterr().out
    fetched = dict(hub.sent)
    assert main(["pull", NAME, "--quick", "--yes"]) == 0
    assert "goes on with" in capsys.readouterr().err
    first = "model-00002-of-00012.safetensors"
    assert hub.sent[first] == fetched[first]


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "needs HF_TOKEN"), (429, "asks to wait 9000 s"), (None, "cannot be fetched")],
)
def test_the_hub_refuses_in_one_line(
    status: int | None,
    message: str,
    hub: Hub,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if status is None:
        set_endpoint("http://127.0.0.1:9", monkeypatch)
    else:
        hub.statuses = [(status, {"Retry-After": "9000"})]
    assert main(["chat", NAME, "--prompt", "hello", "--yes"]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
    assert not any(store.directory.glob("*"))


def test_nothing_is_made_without_consent(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pull", NAME]) == 2
    shown = capsys.readouterr().err
    assert "without a terminal only --yes makes it" in shown
    assert "1.8 MiB in 12 files" in shown
    assert [*store.directory.iterdir()] == []


def test_a_disk_that_is_full_from_the_start_keeps_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = shutil.disk_usage("/")._replace(free=1 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    assert main(["pull", NAME, "--quick", "--yes"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r"glm4q: \S+ needs [\d.]+ MiB of disk, and 1\.0 MiB are free", error)
    assert list(store.directory.iterdir()) == []
