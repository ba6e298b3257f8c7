"""`--weights nf4|llm-int8`: the very tensors that transformers itself makes and saves."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from calculator.checkpoint.stored import StoredModel
from glm4q.cli import main
from tests import tiny
from tests.paths import ROOT

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
SETTINGS: dict[str, dict[str, Any]] = {
    "nf4": {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_compute_dtype": torch.bfloat16,
    },
    "llm-int8": {"load_in_8bit": True},
}


@pytest.mark.parametrize("weights", SETTINGS)
def test_tensors_are_those_that_transformers_saves(weights: str, tmp_path: Path) -> None:
    config = replace(tiny.BASE, vocab_size=96, hidden_size=128, intermediate_size=192)
    source = str(tiny.save_checkpoint(tiny.transformers_model(config), tmp_path / "source"))
    assert main(["quantize", source, "-o", str(tmp_path / "ours"), "--weights", weights]) == 0
    model = AutoModelForCausalLM.from_pretrained(
        source,
        quantization_config=BitsAndBytesConfig(**SETTINGS[weights]),
        dtype=torch.bfloat16,
        device_map="cpu",
    )
    model.save_pretrained(tmp_path / "theirs")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        if name.endswith("bitsandbytes__nf4"):
            assert bytes(ours[name].tolist()) == bytes(tensor.tolist())
        else:
            torch.testing.assert_close(ours[name].to(tensor.dtype), tensor, rtol=0, atol=1)
    loaded = AutoModelForCausalLM.from_pretrained(
        tmp_path / "ours", device_map="cpu", dtype=torch.bfloat16
    )
    ids = torch.randint(96, (1, 9))
    with torch.no_grad():
        found, expected = (each(ids).logits.float() for each in (loaded, model))
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.3)
    assert StoredModel.open(tmp_path / "ours").by_bitsandbytes


def test_no_code_is_fetched_as_it_is_imported(tmp_path: Path) -> None:
    """bitsandbytes asks the package `kernels`, where it is there, for code from a hub."""
    (tmp_path / "kernels.py").write_text("raise SystemExit('code was asked for')")
    code = "from glm4q.weights.bitsandbytes_package import bitsandbytes_functions as functions\n"
    code += "functions()\nprint('imported', flush=True)\nimport kernels"
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert ran.stdout == "imported\n"  # so it was not asked for until the last line
    assert (ran.returncode, ran.stderr.strip()) == (1, "code was asked for")


def test_options_that_bitsandbytes_fixes_are_refused(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["quantize", str(tiny_checkpoint), "-o", str(tmp_path / "out"), "--weights", "nf4"]
    assert main([*command, "--group-size", "64"]) == 2
    assert "bitsandbytes fixes them" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
