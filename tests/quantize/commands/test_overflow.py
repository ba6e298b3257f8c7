"""A model whose numbers overflow: every command says so in one line, and none reports a number."""

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from glm4q.cli import main

LAYER = 1
"""The layer whose input is too large. The one before it is sound."""


@pytest.fixture(scope="module")
def overflowing(chat_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of finite weights, whose activations overflow in one layer."""
    directory = tmp_path_factory.mktemp("overflow") / "checkpoint"
    shutil.copytree(chat_checkpoint, directory)
    tensors = load_file(directory / "model.safetensors")
    tensors[f"model.layers.{LAYER}.input_layernorm.weight"] *= 1e38
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.fixture(scope="module")
def infinite(chat_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with one infinite weight."""
    directory = tmp_path_factory.mktemp("infinite") / "checkpoint"
    shutil.copytree(chat_checkpoint, directory)
    tensors = load_file(directory / "model.safetensors")
    tensors[f"model.layers.{LAYER}.mlp.down_proj.weight"][3, 3] = float("inf")
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


RUNS = {
    "chat": ["--prompt", "hello"],
    "bench": ["--depths", "0", "--prompt", "8", "--decode", "2", "--runs", "1"],
    "eval": ["--window", "32"],
}


def _refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that a command shows; it must fail, and print nothing else."""
    capsys.readouterr()
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out.strip() == ""
    (*progress, line) = shown.err.strip().splitlines()
    assert not any("nan" in each for each in progress)
    return line


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("command", RUNS)
def test_overflow_is_one_line_that_names_the_first_layer(
    command: str, dtype: str, overflowing: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = _refusal([command, str(overflowing), "--dtype", dtype, *RUNS[command]], capsys)
    assert line.startswith(f"glm4q: the model's numbers overflow: layer {LAYER} ")


@pytest.mark.parametrize("command", RUNS)
def test_infinite_weight_is_one_line_that_names_it(
    command: str, infinite: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = _refusal([command, str(infinite), *RUNS[command]], capsys)
    assert f"layers.{LAYER}.mlp.down_proj.weight holds a number that is not finite" in line


@pytest.mark.parametrize("method", ["rtn", "gptq", "awq"])
def test_quantizing_what_overflows_makes_no_report_of_nan(
    method: str,
    overflowing: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    short_texts: None,
) -> None:
    output = tmp_path / "int4"
    options = ["--weights", "int4", "--group-size", "32", "--method", method, "--samples", "2"]
    assert main(["quantize", str(overflowing), "-o", str(output), *options, "--length", "32"]) == 2
    shown = capsys.readouterr()
    assert shown.out.startswith("planned: ")
    assert shown.out.count("\n") == 1
    (*_, line) = shown.err.strip().splitlines()
    assert line.startswith("glm4q: ")
    assert f"layers.{LAYER}." in line or f"layer {LAYER} " in line
    assert "nan" not in shown.out + shown.err
    assert not (output / "quality.json").exists()
