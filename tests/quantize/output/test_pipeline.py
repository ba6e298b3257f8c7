"""Quantized checkpoints: the tokens of their dequantized weights, and never half a directory."""

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from calculator.checkpoint.stored import StoredModel
from calculator.errors import CheckpointError, OptionError
from calculator.model.architecture import weights
from calculator.model.formats import BF16, WeightFormat
from glm4q.cli import main
from glm4q.decode.generate import generate, token_ids
from glm4q.decode.sampling import SamplingParams
from glm4q.kernels.choose import candidates
from glm4q.weights.checkpoint import read_quantized, read_weight
from quantize.output.target import JOURNAL
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe
from tests import tiny
from tests.fixtures import MakeQuantized
from tests.glm4q.memories import load_on_cpu, memory_of, runner_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("model_type", ["glm", "glm4"])
@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(WeightFormat(4, 32)),
        Recipe(WeightFormat(4, 32, zero_bits=4)),
        Recipe(WeightFormat(8, 32)),
        Recipe(WeightFormat(8, None)),
        Recipe(WeightFormat(4, 32), head=WeightFormat(8, 32)),
    ],
    ids=lambda recipe: f"{recipe.linear}, head {recipe.head}",
)
def test_greedy_tokens_equal_the_dequantized_weights_in_transformers(
    recipe: Recipe, model_type: str, tmp_path: Path
) -> None:
    config = replace(tiny.BASE, model_type=model_type, vocab_size=96)
    reference = tiny.transformers_model(config)
    source = tiny.save_checkpoint(reference, tmp_path / "source")
    quantize_checkpoint(StoredModel.open(source), tmp_path / "quantized", recipe)
    stored = StoredModel.open(tmp_path / "quantized")
    reference.load_state_dict(_dequantized_state(stored))
    prompt = torch.randint(96, (9,)).tolist()
    with torch.no_grad():
        expected = reference.generate(
            torch.tensor([prompt]), max_new_tokens=24, do_sample=False, eos_token_id=None
        )[0, len(prompt) :]
    model = load_on_cpu(stored, kernels=candidates("reference"))
    runner = runner_of(model, memory_of(stored, 40, kernels=candidates("reference")))
    greedy = SamplingParams(temperature=0, max_tokens=24)
    assert list(token_ids(generate(runner, prompt, greedy))) == expected.tolist()


def _dequantized_state(stored: StoredModel) -> dict[str, torch.Tensor]:
    state = {}
    for weight in weights(stored.config):
        if stored.formats[weight].is_quantized:
            state[weight.name] = read_quantized(stored, weight).dequantize().T
        else:
            state[weight.name] = read_weight(stored, weight)
    return state


def test_native_source_gives_the_same_checkpoint(tmp_path: Path) -> None:
    config = replace(tiny.BASE, rms_norm_eps=1e-5, rope_theta=1e4)
    reference = tiny.transformers_model(config)
    named = tiny.save_checkpoint(reference, tmp_path / "glm")
    native = tiny.save_native(reference, config, tmp_path / "native")
    for source in (named, native):
        quantize_checkpoint(
            StoredModel.open(source), tmp_path / f"{source.name}-4", Recipe(WeightFormat(4, 32))
        )
    first, second = (
        load_file(tmp_path / name / "model.safetensors") for name in ("glm-4", "native-4")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    with open(tmp_path / "native-4" / "config.json") as file:
        assert json.load(file)["model_type"] == "glm"


def test_output_is_sharded_with_a_whole_index(tiny_checkpoint: Path, tmp_path: Path) -> None:
    stored, output = StoredModel.open(tiny_checkpoint), tmp_path / "out"
    quantize_checkpoint(stored, output, Recipe(WeightFormat(4, 32)), shard_bytes=50_000)
    index = json.loads((output / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in output.glob("*.safetensors"))
    assert len(files) > 2
    assert sorted(set(index["weight_map"].values())) == files
    assert index["metadata"]["total_size"] == sum(
        tensor.nbytes for tensor in StoredModel.open(output).tensors.values()
    )
    for name in files:
        with safe_open(output / name, framework="pt") as file:  # the library agrees on the header
            assert all(index["weight_map"][tensor] == name for tensor in file.keys())  # noqa: SIM118


def test_data_begins_where_vectors_do(quantized_tiny: MakeQuantized) -> None:
    file = quantized_tiny(WeightFormat(4, 32)) / "model.safetensors"
    length = int.from_bytes(file.read_bytes()[:8], "little")
    assert (8 + length) % 64 == 0


def test_golden_zero_word_of_gptq_v1(quantized_tiny: MakeQuantized) -> None:
    directory = quantized_tiny(WeightFormat(4, 32))
    tensors = load_file(directory / "model.safetensors")
    zeros = [tensor for name, tensor in tensors.items() if name.endswith("qzeros")]
    assert zeros
    assert all((tensor == 0x77777777).all() for tensor in zeros)


def test_config_says_what_readers_need(quantized_tiny: MakeQuantized) -> None:
    directory = quantized_tiny(WeightFormat(4, 32))
    config = json.loads((directory / "config.json").read_text())
    beside = json.loads((directory / "quantize_config.json").read_text())
    assert config["architectures"] == ["GlmForCausalLM"]
    assert config["quantization_config"] == beside
    expected = {"bits": 4, "group_size": 32, "sym": True, "desc_act": False, "quant_method": "gptq"}
    assert expected.items() <= beside.items()
    assert beside["checkpoint_format"] == "gptq"


def test_companions_are_carried_over(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    for path in tiny_checkpoint.iterdir():
        (tmp_path / "source" / path.name).write_bytes(path.read_bytes())
    settings = {"do_sample": True, "temperature": 0.8}
    (tmp_path / "source" / "generation_config.json").write_text(json.dumps(settings))
    (tmp_path / "source" / "modeling_evil.py").write_text("raise SystemExit")
    stored = StoredModel.open(tmp_path / "source")
    quantize_checkpoint(stored, tmp_path / "out", Recipe(WeightFormat(8, 32)))
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == settings
    assert not (tmp_path / "out" / "modeling_evil.py").exists()


def test_width_that_the_group_does_not_divide_is_refused_before_reading(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    command = ["quantize", str(tiny_checkpoint), "-o", str(output), "--weights", "int4"]
    assert main([*command, "--group-size", "64"]) == 2
    message = capsys.readouterr().err
    assert "group size 64 does not divide model.layers.0.self_attn.q_proj, 96 wide" in message
    assert "32, channel would do" in message
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_kept_unless_told_otherwise(
    tiny_checkpoint: Path, quantized_tiny: MakeQuantized, capsys: pytest.CaptureFixture[str]
) -> None:
    output = quantized_tiny(WeightFormat(4, 32))
    before = (output / "model.safetensors").read_bytes()
    command = ["quantize", str(tiny_checkpoint), "-o", str(output), "--weights", "int8"]
    command += ["--group-size", "32", "--no-quality"]
    assert main(command) == 2
    assert "exists already; --overwrite replaces it" in capsys.readouterr().err
    assert (output / "model.safetensors").read_bytes() == before
    assert main([*command, "--overwrite"]) == 0
    assert (output / "model.safetensors").read_bytes() != before
    assert [path.name for path in output.parent.iterdir()] == [output.name]


def test_directory_that_is_no_checkpoint_is_never_overwritten(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "holiday.jpg").write_text("precious")
    with pytest.raises(OptionError, match="not a checkpoint"):
        quantize_checkpoint(
            StoredModel.open(tiny_checkpoint),
            tmp_path / "photos",
            Recipe(WeightFormat(4, 32)),
            overwrite=True,
        )
    assert (tmp_path / "photos" / "holiday.jpg").exists()


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_damaged_weight_is_named_and_nothing_takes_the_name_of_the_output(
    value: float, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    tensors = load_file(tiny_checkpoint / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][3, 7] = value
    save_file(tensors, source / "model.safetensors")
    (source / "config.json").write_text((tiny_checkpoint / "config.json").read_text())
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.down_proj\.weight"):
        quantize_checkpoint(StoredModel.open(source), tmp_path / "out", Recipe(WeightFormat(4, 32)))
    assert {path.name for path in tmp_path.iterdir()} == {"source", ".out.partial"}


def has_finished_a_part(directory: Path) -> bool:
    journal = directory / JOURNAL
    return journal.is_file() and json.loads(journal.read_text())["parts"] > 0


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_stopped_run_is_taken_up_by_the_next(
    stop: signal.Signals, demo_checkpoint: Path, tmp_path: Path
) -> None:
    # Shells have what runs in the background ignore SIGINT, and these tests may.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heard}; import sys; from glm4q.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "quantize", str(demo_checkpoint)]
    command += ["-o", str(tmp_path / "out"), "--weights", "int8", "--group-size", "64"]
    command += ["--no-quality"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not has_finished_a_part(tmp_path / ".out.partial") and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(stop)
    _, message = process.communicate(timeout=60)
    assert process.returncode not in (0, None)
    assert "Traceback" not in message
    assert "glm4q: stopped; what is finished is kept in" in message
    assert [path.name for path in tmp_path.iterdir()] == [".out.partial"]
    assert main(command[3:]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_full_disk_is_told_before_anything_is_written(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match=r"needs [\d.]+ KiB of disk, and 1.0 KiB are free"):
        quantize_checkpoint(
            StoredModel.open(tiny_checkpoint), tmp_path / "out", Recipe(WeightFormat(8, 32), BF16)
        )
    assert list(tmp_path.iterdir()) == []


def test_tied_head_is_quantized_apart_from_the_embedding(tmp_path: Path) -> None:
    config = replace(tiny.BASE, vocab_size=96, tie_word_embeddings=True)
    source = tiny.save_checkpoint(tiny.transformers_model(config), tmp_path / "source")
    recipe = Recipe(WeightFormat(4, 32), WeightFormat(8, 32))
    quantize_checkpoint(StoredModel.open(source), tmp_path / "out", recipe)
    made = StoredModel.open(tmp_path / "out")
    assert not made.config.tie_word_embeddings
    embedding, *_, head = weights(made.config)
    found = read_quantized(made, head).dequantize().T
    torch.testing.assert_close(found, read_weight(made, embedding), rtol=0, atol=4e-3)
