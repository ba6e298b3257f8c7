"""`glm4q quantize` as a user runs it: options, the plan that is held to, the report."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from calculator.checkpoint.stored import StoredModel
from glm4q.cli import main
from quantize.quality.examine import BUILT_IN
from tests.quantize.calibrated import token_file


def command(source: Path, output: Path, *options: str) -> list[str]:
    return ["quantize", str(source), "-o", str(output), *options]


def tiny_options(directory: Path) -> list[str]:
    samples = ["--calibration", str(token_file(directory)), "--length", "64", "--samples", "8"]
    return ["--weights", "int4", "--group-size", "32", "--no-quality", "--dtype", "fp32", *samples]


@pytest.mark.demo
def test_int4_is_calibrated_planned_and_reported(demo_checkpoint: Path, tmp_path: Path) -> None:
    """In a process of its own, whose memory is what the report says."""
    recipe = tmp_path / "recipe.toml"
    kept = [f"model.layers.{layer}.*" for layer in range(2, 30)]
    rule = f'[[layers]]\nmatch = {json.dumps(kept)}\nweights = "bf16"\n'
    recipe.write_text(f'weights = "int4"\ngroup_size = 64\nlm_head = "int8"\n{rule}')
    (tmp_path / "held-out.txt").write_text(BUILT_IN.read_text(encoding="utf-8")[:300])
    options = ["--recipe", str(recipe), "--samples", "2", "--length", "64"]
    options += ["--held-out", str(tmp_path / "held-out.txt")]
    ran = subprocess.run(
        [sys.executable, "-m", "glm4q", *command(demo_checkpoint, tmp_path / "out", *options)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.match(r"planned: [\d.]+ MiB of memory at most, [\d.]+ MiB of disk", ran.stdout)
    assert (
        "the head of fewer bits is stored beside it, and makes the checkpoint larger" in ran.stdout
    )
    report = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert report["checkpoint"]["method"] == "gptq"
    assert report["calibration"]["samples"] == 2
    modules = [each["module"] for each in report["linears"]]
    assert len(modules) == 12
    assert all(0 < each["output_error"] < 0.1 for each in report["linears"])
    held_out = report["held_out"]
    assert len(held_out["layer_errors"]) == 30
    assert held_out["perplexity_change"] < 0.2
    assert 0 < held_out["kl_divergence"] < 0.08  # what all 30 layers cost (docs/demo.md)
    assert held_out["top_1_agreement"] > 0.75
    run = report["run"]
    assert run["peak_bytes"] <= run["predicted_bytes"] <= 2.5 * run["peak_bytes"]
    told = (tmp_path / "out" / "QUALITY.md").read_text()
    assert f"{held_out['perplexity']:.3f}" in told
    assert "| model.layers.1.mlp.down_proj | int4 g64 | gptq |" in told
    assert f"{held_out['perplexity']:.3f}" in ran.stdout


def test_memory_limit_takes_smaller_batches_and_at_last_refuses(
    tiny_vocabulary_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, options = tiny_vocabulary_checkpoint, tiny_options(tmp_path)
    refused = [*command(source, tmp_path / "out", *options), "--max-memory", "100M"]
    assert main(refused) == 2
    told = capsys.readouterr().err
    found = re.search(r"--max-memory is 100.0 MiB, and this run needs ([\d.]+) MiB, of which", told)
    assert found
    assert not (tmp_path / "out").exists()
    needed = float(found[1])
    enough = [*command(source, tmp_path / "out", *options), "--max-memory", f"{needed + 0.1:.3f}M"]
    assert main(enough) == 0
    assert "8 samples of 64 tokens, 1 at once" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "weights or recipe must say what to make"),
        (["--weights", "int3"], "weights must be one of int8, int4, not int3"),
        (["--weights", "int4", "--method", "magic"], "method must be one of rtn, gptq, awq, auto"),
        (["--weights", "int4", "--group-size", "48"], "48"),
        (["--weights", "int8", "--recipe", "r.toml"], "leave out the options that also do"),
        (["--recipe", "missing.toml"], "missing.toml cannot be read"),
        (["--weights", "int8", "--max-memory", "lots"], "max memory is a size such as"),
        (
            ["--weights", "int8", "--group-size", "64", "--held-out", "missing.txt"],
            "missing.txt cannot be read",
        ),
        (
            ["--weights", "int4", "--group-size", "64", "--calibration", "missing.txt"],
            "missing.txt cannot be read",
        ),
    ],
)
def test_wrong_options_are_one_line_and_make_nothing(
    options: list[str],
    message: str,
    demo_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(command(demo_checkpoint, tmp_path / "out", *options)) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_quantized_source_is_refused(
    tiny_vocabulary_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = tiny_options(tmp_path)
    assert main(command(tiny_vocabulary_checkpoint, tmp_path / "int4", *options)) == 0
    assert StoredModel.open(tmp_path / "int4").is_quantized
    assert main(command(tmp_path / "int4", tmp_path / "out", *options)) == 2
    assert "is quantized already" in capsys.readouterr().err


def test_awq_keeps_the_dtype_of_a_file_that_is_computed_in_another(
    tiny_vocabulary_checkpoint: Path, tmp_path: Path
) -> None:
    """It scales norms, which are computed in bfloat16 here and stored in float32."""
    options = [*tiny_options(tmp_path), "--method", "awq", "--dtype", "bf16"]
    assert main(command(tiny_vocabulary_checkpoint, tmp_path / "int4", *options)) == 0
    source, made = (
        StoredModel.open(path) for path in (tiny_vocabulary_checkpoint, tmp_path / "int4")
    )
    (norm,) = (name for name in source.tensors if name.endswith("0.input_layernorm.weight"))
    assert made.tensors[norm].dtype == source.tensors[norm].dtype == "F32"


def test_a_gpu_with_too_little_memory_leaves_the_run_to_the_cpu(
    tiny_vocabulary_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An 8 GB card holds the chat that calc promises, yet not the sums of a calibrated run."""

    def choose(name: str) -> torch.device:
        return torch.device("cpu" if name == "cpu" else "cuda")

    monkeypatch.setattr("quantize.commands.quantize.choose_device", choose)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100 << 20, 8 << 30))
    options = [*tiny_options(tmp_path), "--method", "gptq"]
    assert main(command(tiny_vocabulary_checkpoint, tmp_path / "int4", *options)) == 0
    told = capsys.readouterr().err
    assert "the CPU computes, for 100.0 MiB of the GPU's memory are free" in told
    assert StoredModel.open(tmp_path / "int4").is_quantized
    asked = command(tiny_vocabulary_checkpoint, tmp_path / "other", *options, "--device", "cuda")
    assert main(asked) == 2
    told = capsys.readouterr().err
    assert "100.0 MiB of the GPU's memory are free (--device cpu computes on the host, " in told
    assert not (tmp_path / "other").exists()
