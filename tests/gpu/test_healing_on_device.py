"""`glm4q quantize --heal` on a CUDA device. The simulated card has no autograd, so only a real one
can run it.
"""

import json
import random
from pathlib import Path

import pytest
import torch

from glm4q.cli import main

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]
TEXT = "the river rose in the night and by morning the lower field was a lake where ducks had come"


def divergence_of(source: Path, output: Path, text: Path, device: str, *more: str) -> float:
    """Quantize as the command does; return the KL divergence that its report states.

    AWQ's scales are chosen for the weights alone, so training them gains much.
    """
    made = ["--weights", "int4", "--group-size", "32", "--dtype", "fp32", "--method", "awq"]
    shown = ["--calibration", str(text), "--samples", "32", "--length", "64"]
    options = [*made, *shown, "--device", device, "--held-out", str(text), *more]
    assert main(["quantize", str(source), "-o", str(output), *options]) == 0
    report = json.loads((output / "quality.json").read_text())
    return float(report["held_out"]["kl_divergence"])


def test_healing_on_the_card_comes_as_far_as_on_the_cpu(
    chat_checkpoint: Path, tmp_path: Path
) -> None:
    """Float32 sums in another order move some codes, so a fifth of what is gained may differ."""
    text = tmp_path / "text.txt"
    text.write_text(" ".join(random.Random(1).choices(TEXT.split(), k=4000)))
    plain = divergence_of(chat_checkpoint, tmp_path / "plain", text, "cuda")
    healed, by_cpu = (
        divergence_of(chat_checkpoint, tmp_path / device, text, device, "--heal")
        for device in ("cuda", "cpu")
    )
    assert by_cpu < 0.95 * plain
    assert abs(healed - by_cpu) < 0.2 * (plain - by_cpu)
