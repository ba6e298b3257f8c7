"""`glm4q quantize --heal` on a CUDA device. The simulated card has no autograd, so only a real one
can run it.
"""

import json
from pathlib import Path

import pytest
import torch

from glm4q.cli import main

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]
TEXT = "The river rose in the night. By morning the lower field was a lake, and ducks had come. "


def divergence_of(source: Path, output: Path, text: Path, device: str, *more: str) -> float:
    """Quantize as the command does; return the KL divergence that its report states."""
    made = ["--weights", "int4", "--group-size", "32", "--dtype", "fp32", "--device", device]
    shown = ["--calibration", str(text), "--samples", "8", "--length", "64"]
    options = [*made, *shown, "--held-out", str(text), *more]
    assert main(["quantize", str(source), "-o", str(output), *options]) == 0
    report = json.loads((output / "quality.json").read_text())
    return float(report["held_out"]["kl_divergence"])


def test_healing_on_the_card_comes_as_far_as_on_the_cpu(
    chat_checkpoint: Path, tmp_path: Path
) -> None:
    """Float32 sums in another order move some codes, so a tenth of what is gained may differ."""
    text = tmp_path / "text.txt"
    text.write_text(TEXT * 12)
    plain = divergence_of(chat_checkpoint, tmp_path / "plain", text, "cuda")
    healed, by_cpu = (
        divergence_of(chat_checkpoint, tmp_path / device, text, device, "--heal")
        for device in ("cuda", "cpu")
    )
    assert healed < plain
    assert healed - by_cpu < 0.1 * (plain - by_cpu)
