"""Runs that are cut off: killed, out of room, refused; and what the next run makes of them."""

import hashlib
import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from calculator.checkpoint.stored import StoredModel
from calculator.errors import CheckpointError, OptionError
from calculator.model.formats import WeightFormat
from quantize.output.target import JOURNAL
from quantize.parts import PartProgress
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe
from tests import tiny
from tests.quantize.calibrated import INT4, settings

KILLS = 12
SHARD_BYTES = 60_000
GPTQ = Recipe(INT4, WeightFormat(8, 32), method="gptq")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = replace(tiny.BASE, vocab_size=96, num_hidden_layers=4)
    return tiny.save_checkpoint(
        tiny.transformers_model(config), tmp_path_factory.mktemp("resume") / "source"
    )


def run(source: Path, output: Path, recipe: Recipe = GPTQ, seed: int = 0) -> None:
    torch.set_num_threads(1)
    stored = StoredModel.open(source)
    shown = settings(stored, source.parent, seed=seed)
    quantize_checkpoint(stored, output, recipe, calibration=shown, shard_bytes=SHARD_BYTES)


def digests(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()
    }


def started(target: Callable[..., None], *args: object) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=target, args=args)
    process.start()
    return process


@pytest.mark.parametrize("recipe", [GPTQ, Recipe(INT4)], ids=["gptq", "rtn"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_killed_at_any_moment_it_ends_with_the_same_bytes(
    recipe: Recipe, source: Path, tmp_path: Path
) -> None:
    begun = time.monotonic()
    run(source, tmp_path / "undisturbed", recipe)
    whole = time.monotonic() - begun
    expected = digests(tmp_path / "undisturbed")
    chance = random.Random(0)
    killed = finished = 0
    while killed < KILLS:
        output = tmp_path / f"out-{finished}"
        process = started(run, source, output, recipe)
        process.join(chance.uniform(0, whole))
        if process.is_alive():
            assert process.pid
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            killed += not output.exists()
            assert not output.exists() or digests(output) == expected
        if output.exists():
            assert digests(output) == expected
            finished += 1
    run(source, tmp_path / f"out-{finished}", recipe)
    assert digests(tmp_path / f"out-{finished}") == expected
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"undisturbed", *(f"out-{number}" for number in range(finished + 1))}


def stopped_at(part: int) -> Callable[[PartProgress], None]:
    def listen(progress: PartProgress) -> None:
        if progress.part == part:
            raise KeyboardInterrupt

    return listen


def cut_off(source: Path, output: Path) -> None:
    """A run that the user stops before the third layer."""
    stored = StoredModel.open(source)
    with pytest.raises(KeyboardInterrupt):
        quantize_checkpoint(
            stored,
            output,
            GPTQ,
            calibration=settings(stored, source.parent),
            shard_bytes=SHARD_BYTES,
            listener=stopped_at(3),
        )
    assert not output.exists()


def test_resumed_run_does_only_what_is_left(source: Path, tmp_path: Path) -> None:
    cut_off(source, tmp_path / "out")
    stored, begun = StoredModel.open(source), []
    quantize_checkpoint(
        stored,
        tmp_path / "out",
        GPTQ,
        calibration=settings(stored, source.parent),
        shard_bytes=SHARD_BYTES,
        listener=lambda progress: begun.append(progress.part),
    )
    assert begun[0] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("recipe", "seed", "difference"),
    [
        (replace(GPTQ, method="awq"), 0, "method gptq, not awq"),
        (replace(GPTQ, linear=WeightFormat(4, None)), 0, "weights int4 g32, not int4 channel"),
        (replace(GPTQ, head=WeightFormat(8, None)), 0, "head int8 g32, not int8 channel"),
        (GPTQ, 1, "calibration"),
    ],
)
def test_other_options_are_refused_and_nothing_is_lost(
    recipe: Recipe, seed: int, difference: str, source: Path, tmp_path: Path
) -> None:
    cut_off(source, tmp_path / "out")
    kept = digests(tmp_path / ".out.partial")
    with pytest.raises(OptionError, match=f"was begun with {difference}"):
        run(source, tmp_path / "out", recipe, seed)
    assert digests(tmp_path / ".out.partial") == kept


def test_another_source_is_refused(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in source.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    (tmp_path / "made").mkdir()
    cut_off(source, tmp_path / "made" / "out")
    with pytest.raises(OptionError, match="was begun with source"):
        run(other, tmp_path / "made" / "out")


def test_source_that_changes_under_way_is_told(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in source.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    stored = StoredModel.open(copy)

    def change(progress: PartProgress) -> None:
        if progress.part == 2:
            os.utime(copy / "model.safetensors", ns=(1, 1))

    with pytest.raises(CheckpointError, match="changed while it was read"):
        quantize_checkpoint(
            stored, tmp_path / "out", GPTQ, calibration=settings(stored, tmp_path), listener=change
        )
    assert not (tmp_path / "out").exists()


def test_two_runs_on_one_target_one_is_told(source: Path, tmp_path: Path) -> None:
    told = []

    def second(progress: PartProgress) -> None:
        if progress.part == 2:
            with pytest.raises(OptionError, match="another run is making"):
                run(source, tmp_path / "out")
            told.append(True)

    stored = StoredModel.open(source)
    quantize_checkpoint(
        stored,
        tmp_path / "out",
        GPTQ,
        calibration=settings(stored, source.parent),
        shard_bytes=SHARD_BYTES,
        listener=second,
    )
    assert told
    assert StoredModel.open(tmp_path / "out").is_quantized


def run_with_little_room(source: Path, output: Path, recipe: Recipe, largest_file: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    try:
        run(source, output, recipe)
    except CheckpointError as error:
        named = str(error).endswith("out: File too large")
        os._exit(7 if named and "what is finished is kept in" in error.__notes__[0] else 8)
    os._exit(9)


@pytest.mark.parametrize(
    ("recipe", "largest_file"), [(GPTQ, 500_000), (Recipe(INT4), 45_000)], ids=["states", "shards"]
)
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_no_room_in_the_middle_keeps_what_is_done(
    recipe: Recipe, largest_file: int, source: Path, tmp_path: Path
) -> None:
    """The operating system refuses to let a file grow, as a full disk or a quota does."""
    run(source, tmp_path / "undisturbed", recipe)
    process = started(run_with_little_room, source, tmp_path / "out", recipe, largest_file)
    process.join()
    assert process.exitcode == 7
    assert not (tmp_path / "out").exists()
    assert (tmp_path / ".out.partial" / JOURNAL).is_file()
    run(source, tmp_path / "out", recipe)
    assert digests(tmp_path / "out") == digests(tmp_path / "undisturbed")
