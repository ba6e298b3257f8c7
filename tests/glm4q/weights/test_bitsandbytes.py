"""Checkpoints that transformers quantized by bitsandbytes run here, and without bitsandbytes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from calculator.checkpoint.layouts.bitsandbytes_headers import STATE
from calculator.checkpoint.stored import StoredModel
from calculator.checkpoint.weight_files import SINGLE
from calculator.errors import CheckpointError
from calculator.model.formats import NF4
from glm4q.cli import main
from glm4q.kernels.bitsandbytes import BitsAndBytes, multiply_one
from glm4q.kernels.choose import candidates
from glm4q.kernels.spec import Kernel
from glm4q.model.loader import held_tensors
from glm4q.planning.serving import held_formats
from glm4q.weights.bitsandbytes_tensors import nf4_of_words, words_of_nf4
from glm4q.weights.checkpoint import read_quantized
from quantize.quality.checkpoint_check import check_weights
from tests import tiny
from tests.glm4q.memories import all_logits, load_on_cpu, memory_of, runner_of, weight_kernels
from tests.glm4q.random_weights import random_weight

functional = pytest.importorskip("bitsandbytes.functional", reason="bitsandbytes is not installed")
CPU = torch.device("cpu")
CONFIG = replace(tiny.BASE, hidden_size=128, intermediate_size=192)
SETTINGS: dict[str, dict[str, Any]] = {
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    "nf4-double": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": True,
    },
    "llm-int8": {"load_in_8bit": True},
}


@pytest.fixture(scope="module", params=SETTINGS)
def saved(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Tensor]:
    """The settings' name, the checkpoint, and transformers' logits for `_ids`, in float32."""
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    directory = tmp_path_factory.mktemp("bitsandbytes")
    tiny.save_checkpoint(tiny.transformers_model(CONFIG), directory / "source")
    model = AutoModelForCausalLM.from_pretrained(
        directory / "source",
        quantization_config=BitsAndBytesConfig(**SETTINGS[request.param]),
        dtype=torch.float32,
        device_map="cpu",
    )
    model.save_pretrained(directory / "model")
    # bitsandbytes' products on a CPU round activations, or scales to bfloat16.
    model = model.dequantize(torch.float32)
    with torch.no_grad():
        return request.param, directory / "model", model(_ids()).logits


def _ids() -> Tensor:
    return torch.arange(3, 40).unsqueeze(0)


@pytest.mark.parametrize(
    ("kernel", "distance"), [("reference", 1e-5), ("bitsandbytes", 1e-5), ("native", 3e-2)]
)
def test_logits_are_those_of_transformers(
    saved: tuple[str, Path, Tensor], kernel: str, distance: float
) -> None:
    name, directory, expected = saved
    kernels = _kernels(kernel, name)
    stored = StoredModel.open(directory)
    model = load_on_cpu(stored, kernels=kernels)
    found = all_logits(runner_of(model, memory_of(stored, 40, kernels=kernels)), _ids())
    error = (found - expected).norm() / expected.norm()
    assert error < distance


@pytest.mark.parametrize("kernel", ["reference", "bitsandbytes", "native"])
def test_what_is_planned_is_held(saved: tuple[str, Path, Tensor], kernel: str) -> None:
    name, directory, _ = saved
    kernels = _kernels(kernel, name)
    stored = StoredModel.open(directory)
    planned = held_formats(stored.formats, weight_kernels(stored, kernels=kernels))
    held = held_tensors(load_on_cpu(stored, kernels=kernels)).values()
    sizes = [sum(weight_format.parts(weight).values()) for weight, weight_format in planned.items()]
    assert sum(tensor.nbytes for tensor in held) == sum(sizes)


def _kernels(kernel: str, format_name: str) -> tuple[Kernel, ...]:
    if kernel == "bitsandbytes" and format_name == "llm-int8":
        pytest.skip("bitsandbytes takes nf4, not llm-int8")
    return candidates(kernel)


def test_weights_are_those_that_bitsandbytes_unpacks(saved: tuple[str, Path, Tensor]) -> None:
    _, directory, _ = saved
    stored, tensors = StoredModel.open(directory), load_file(directory / SINGLE)
    (weight,) = (each for each in stored.formats if each.module.endswith("0.mlp.down_proj"))
    part = {
        name.removeprefix(f"{weight.module}."): tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{weight.module}.")
    }
    if "SCB" in part:
        expected = part["weight"] * part["SCB"].unsqueeze(1) / 127
    else:
        packed = part.pop("weight")
        named = {name.removeprefix("weight."): tensor for name, tensor in part.items()}
        expected = functional.dequantize_4bit(packed, functional.QuantState.from_dict(named, CPU))
    found = read_quantized(stored, weight).dequantize().T
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_layouts_are_inverses() -> None:
    packed = torch.randint(256, (24, 64), dtype=torch.uint8)
    assert torch.equal(nf4_of_words(words_of_nf4(packed)), packed)


def test_inputs_that_are_no_whole_blocks_are_refused(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = str(tmp_path / "nf4")
    assert main(["quantize", str(tiny_checkpoint), "-o", directory, "--weights", "nf4"]) == 0
    capsys.readouterr()
    assert main(["bench", directory, "--prompt", "4", "--decode", "4", "--depths", "0"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "q_proj has 96 inputs; nf4 is read in multiples of 64" in line


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"quant_type": "nf4", "blocksize": 128}, r"by blocks of 128 and None; nf4 by 64 and 256"),
        ({"blocksize": 64}, "cannot be read: KeyError"),
        ([], "cannot be read: TypeError"),
        (
            {"quant_type": "nf4", "blocksize": 64, "nested_blocksize": 256},
            "by blocks of 64 and 256",
        ),
    ],
)
def test_a_strange_state_is_refused(
    saved: tuple[str, Path, Tensor], tmp_path: Path, state: Any, message: str
) -> None:
    name, directory, _ = saved
    if name != "nf4":
        pytest.skip("only NF4 has a state of its own")
    tensors = load_file(directory / SINGLE)
    module = "model.layers.0.self_attn.q_proj"
    tensors[f"{module}.{STATE}"] = torch.tensor(list(json.dumps(state).encode())).byte()
    _assert_refused(directory, tensors, tmp_path, message)


@pytest.mark.parametrize(
    ("of", "part", "value", "message"),
    [
        ("nf4", "weight.quant_map", 1.5, "must be 16 numbers of -1 to 1"),
        ("nf4", "weight.quant_map", float("nan"), "must be 16 numbers of -1 to 1"),
        ("nf4-double", "weight.nested_absmax", float("inf"), "scales are not all finite"),
        ("llm-int8", "SCB", float("nan"), "scales are not all finite"),
        ("llm-int8", "weight_format", 2, "weight_format must be 0, rows, not 2"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    saved: tuple[str, Path, Tensor], tmp_path: Path, of: str, part: str, value: float, message: str
) -> None:
    name, directory, _ = saved
    if name != of:
        pytest.skip(f"a part of {of}")
    tensors = load_file(directory / SINGLE)
    tensors[f"model.layers.0.self_attn.q_proj.{part}"].fill_(value)
    _assert_refused(directory, tensors, tmp_path, message)


def test_zeros_alone_have_a_scale_of_0(saved: tuple[str, Path, Tensor], tmp_path: Path) -> None:
    name, directory, _ = saved
    if name == "nf4-double":
        pytest.skip("its scales are codes, of which none stands for 0")
    tensors = load_file(directory / SINGLE)
    scales = "SCB" if name == "llm-int8" else "weight.absmax"
    tensors[f"model.layers.0.self_attn.q_proj.{scales}"][:2] = 0
    shutil.copyfile(directory / "config.json", tmp_path / "config.json")
    save_file(tensors, tmp_path / SINGLE)
    assert list(check_weights(StoredModel.open(tmp_path))) == []


def _assert_refused(like: Path, tensors: dict[str, Tensor], where: Path, message: str) -> None:
    shutil.copyfile(like / "config.json", where / "config.json")
    save_file(tensors, where / SINGLE)
    with pytest.raises(CheckpointError, match=message):
        load_on_cpu(StoredModel.open(where))


def test_the_product_of_one_token_on_cuda_fits_its_shapes() -> None:
    """Without a device: bitsandbytes' own rules of shapes. Its numbers are unseen."""
    packed = BitsAndBytes().pack(random_weight(48, 256, NF4))
    on_meta = {name: tensor.to("meta") for name, tensor in packed.items()}
    x = torch.empty(1, 256, dtype=torch.bfloat16, device="meta")
    assert multiply_one(x, on_meta).shape == (1, 48)
