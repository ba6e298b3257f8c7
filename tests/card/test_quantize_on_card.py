"""`glm4q quantize --device cuda` on a simulated card: weights as close as the CPU's."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed; it has no wheel for this system")

from tests.card.build import compiler

if compiler() is None:
    pytest.skip("the simulated card needs a C++ compiler", allow_module_level=True)

from calculator.checkpoint.stored import StoredModel
from calculator.model.formats import WeightFormat
from glm4q.weights.checkpoint import read_quantized, read_weight
from quantize.pipeline import CalibrationSettings, quantize_checkpoint
from quantize.recipe import Recipe
from tests.card.sim.played import simulated_card
from tests.quantize.calibrated import calibration

pytestmark = pytest.mark.card


def _quantized(checkpoint: Path, output: Path, method: str, device: str) -> StoredModel:
    stored = StoredModel.open(checkpoint)
    shown = calibration(stored, output.parent)
    settings = CalibrationSettings(shown, torch.device(device), torch.float32, 4)
    recipe = Recipe(WeightFormat(4, 32), method=method)
    quantize_checkpoint(stored, output, recipe, calibration=settings)
    return StoredModel.open(output)


@pytest.mark.parametrize("method", ["gptq"])
def test_weights_are_as_close_as_the_cpu_s(method: str, checkpoints: Path, tmp_path: Path) -> None:
    expected = _quantized(checkpoints / "bf16", tmp_path / "host", method, "cpu")
    with simulated_card("RTX 3060") as (card, _):
        found = _quantized(checkpoints / "bf16", tmp_path / "card", method, "cuda")
        assert card.trace.of("operator")
    source = StoredModel.open(checkpoints / "bf16")
    for weight, weight_format in expected.formats.items():
        if weight_format.is_quantized:
            exact = read_weight(source, weight).float()
            ours, theirs = (
                (read_quantized(each, weight).dequantize().T - exact).norm()
                for each in (found, expected)
            )
            assert ours < 1.1 * theirs, weight.name
