"""`glm4q verify` finds each kind of damage, and says nothing of a whole checkpoint."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file
from tokenizers.models import WordLevel

from calculator.checkpoint.stored import StoredModel
from calculator.model.formats import WeightFormat
from glm4q.cli import main
from quantize.quality.checkpoint_check import weight_errors
from tests import tiny
from tests.fixtures import MakeQuantized
from tests.quantize.calibrated import quantized

Damage = Callable[[dict[str, torch.Tensor]], None]
MODULE = "model.layers.1.mlp.down_proj"
LFS_POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{0:064}\nsize 6915\n"


def _zero_scale(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{MODULE}.scales"][0, 3] = 0


def _nan_scale(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{MODULE}.scales"][0, 3] = float("nan")


def _zero_point(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{MODULE}.qzeros"][0, 0] ^= 3


def _norm(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.norm.weight"][7] = float("inf")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_zero_scale, f"{MODULE}.scales hold a zero"),
        (_nan_scale, f"{MODULE}.scales are not all finite"),
        (_zero_point, f"{MODULE} is said to be symmetric"),
        (_norm, "model.norm.weight holds a number that is not finite"),
    ],
)
def test_damage_is_named(
    damage: Damage,
    message: str,
    quantized_tiny: MakeQuantized,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = quantized_tiny(WeightFormat(4, 32))
    assert main(["verify", str(directory)]) == 0
    file = directory / "model.safetensors"
    tensors = load_file(file)
    damage(tensors)
    file.unlink()
    save_file(tensors, file)
    capsys.readouterr()
    assert main(["verify", str(directory)]) == 1
    told = capsys.readouterr().err
    assert message in told
    assert "model.safetensors is not the file that was written" in told


def test_file_that_is_lost_or_was_added_is_named(
    quantized_tiny: MakeQuantized, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = quantized_tiny(WeightFormat(4, 32))
    (directory / "quantize_config.json").unlink()
    sums = directory / "SHA256SUMS"
    kept = [line for line in sums.read_text().splitlines(True) if "safetensors" not in line]
    sums.write_text("".join(kept))
    assert main(["verify", str(directory)]) == 1
    told = capsys.readouterr().err
    assert "model.safetensors is not in SHA256SUMS" in told
    assert "quantize_config.json is in SHA256SUMS, and not there" in told


def test_errors_are_small_and_another_source_is_found_out(
    tiny_checkpoint: Path,
    quantized_tiny: MakeQuantized,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = quantized_tiny(WeightFormat(4, 32))
    assert main(["verify", str(directory), "--source", str(tiny_checkpoint)]) == 0
    assert "down_proj      error 0." in capsys.readouterr().out
    other = tiny.save_checkpoint(tiny.transformers_model(tiny.BASE, seed=1), tmp_path / "other")
    assert main(["verify", str(directory), "--source", str(other)]) == 1
    assert "is not made of" in capsys.readouterr().err


def test_scales_that_moved_into_a_norm_are_no_error(tmp_path: Path) -> None:
    config = replace(tiny.BASE, attention_bias=True)
    source = tiny.save_checkpoint(tiny.transformers_model(config), tmp_path / "source")
    made = quantized(source, tmp_path / "awq", "awq")
    assert max(each.relative_error for each in weight_errors(made, StoredModel.open(source))) < 0.05


def test_what_chat_would_refuse_beside_the_weights_is_damage(
    tiny_vocabulary_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "model"
    shutil.copytree(tiny_vocabulary_checkpoint, directory)
    words = WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>")
    tokenizers.Tokenizer(words).save(str(directory / "tokenizer.json"))
    assert main(["verify", str(directory)]) == 0
    settings = directory / "generation_config.json"
    settings.write_text('{"do_sample": true, "temperature": "hot"}')
    assert main(["verify", str(directory)]) == 1
    assert f"{settings}: temperature" in capsys.readouterr().err
    (directory / "tokenizer.json").write_text(LFS_POINTER)
    assert main(["verify", str(directory)]) == 1
    assert "tokenizer.json is a Git LFS pointer" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "value"), [("bits", 3), ("bits", 8), ("group_size", 64)])
def test_settings_that_no_tensor_agrees_with_are_named(
    name: str, value: int, quantized_tiny: MakeQuantized, capsys: pytest.CaptureFixture[str]
) -> None:
    """Our readers look at the tensors; vLLM believes the settings."""
    directory = quantized_tiny(WeightFormat(4, 32))
    path = directory / "config.json"
    raw = json.loads(path.read_text())
    raw["quantization_config"][name] = value
    path.write_text(json.dumps(raw))
    assert main(["verify", str(directory)]) == 1
    assert f"says {name} {value}, and its tensors have" in capsys.readouterr().err
