"""Perplexity against transformers' own loss, and `glm4q eval`."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from calculator.checkpoint.stored import StoredModel
from calculator.model.architecture import weights
from glm4q.cli import main
from glm4q.kernels.choose import candidates
from glm4q.text.tokenizer import Tokenizer
from glm4q.weights.checkpoint import read_quantized
from quantize.quality.evaluate import evaluate
from quantize.quality.predictor import ComputeSettings, read_windows

FP32 = ComputeSettings(torch.device("cpu"), torch.float32, candidates("reference"))
pytestmark = pytest.mark.demo
TEXT = "The river rose in the night. By morning the lower field was a lake, and the ducks had come."


def test_perplexity_is_the_exponent_of_transformers_loss(demo_checkpoint: Path) -> None:
    tokenizer = Tokenizer.from_directory(demo_checkpoint)
    token_ids = tokenizer.encode(TEXT)
    reference = AutoModelForCausalLM.from_pretrained(demo_checkpoint, dtype=torch.float32)
    total = 0.0
    with torch.no_grad():
        for start in (0, 10):
            window = torch.tensor([token_ids[start : start + 10]])
            total += reference(window, labels=window).loss.item() * 9
    windows = read_windows(
        tokenizer.decode(token_ids[:20]), StoredModel.open(demo_checkpoint), 10, name="the text"
    )
    (result,) = evaluate([StoredModel.open(demo_checkpoint)], windows, FP32)
    assert result.tokens == 18
    assert result.perplexity == pytest.approx(math.exp(total / 18), rel=1e-4)


def test_divergence_is_that_of_transformers_distributions(
    demo_checkpoint: Path, quantized_demo: Callable[[int], Path]
) -> None:
    """KL divergence, agreement and the error of a layer's states, from transformers' two models."""
    tokenizer = Tokenizer.from_directory(demo_checkpoint)
    stored = StoredModel.open(quantized_demo(4))
    windows = read_windows(TEXT, StoredModel.open(demo_checkpoint), 512, name="the text")
    source = AutoModelForCausalLM.from_pretrained(demo_checkpoint, dtype=torch.float32)
    other = AutoModelForCausalLM.from_pretrained(demo_checkpoint, dtype=torch.float32)
    state = {
        weight.name: read_quantized(stored, weight).dequantize().T
        for weight in weights(stored.config)
        if stored.formats[weight].is_quantized
    }
    other.load_state_dict(state, strict=False)
    ids = torch.tensor([tokenizer.encode(TEXT)])
    with torch.no_grad():
        said = [model(ids, output_hidden_states=True) for model in (source, other)]
    p, q = (each.logits[0, :-1].log_softmax(-1) for each in said)
    expected = F.kl_div(q, p, log_target=True, reduction="batchmean").item()
    agreed = (p.argmax(-1) == q.argmax(-1)).float().mean().item()
    h, h_other = (each.hidden_states[5] for each in said)
    error = ((h_other - h).square().sum() / h.square().sum()).item()
    measure, result = evaluate([stored], windows, FP32, against=StoredModel.open(demo_checkpoint))
    assert measure.divergence is None
    assert result.divergence is not None
    assert result.divergence.kl_divergence == pytest.approx(expected, rel=1e-2)
    assert result.divergence.top_1_agreement == pytest.approx(agreed)
    assert result.divergence.layer_errors[4] == pytest.approx(error, rel=1e-2)


def test_command_compares_checkpoints(
    demo_checkpoint: Path,
    quantized_demo: Callable[[int], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text").write_text(TEXT)
    checkpoints = [str(demo_checkpoint), str(quantized_demo(8))]
    assert main(["eval", *checkpoints, "--text", str(tmp_path / "text"), "--dtype", "fp32"]) == 0
    shown = capsys.readouterr().out
    assert "+0.00%" in shown
    assert "100%" in shown
    assert len(shown.splitlines()) == 3
    command = [
        "eval",
        checkpoints[1],
        "--against",
        checkpoints[0],
        "--text",
        str(tmp_path / "text"),
    ]
    assert main([*command, "--json"]) == 0
    source, made = json.loads(capsys.readouterr().out)
    assert source["directory"] == checkpoints[0]
    assert made["divergence"]["top_1_agreement"] > 0.9


@pytest.mark.parametrize("content", [b"", b"a", b"\xff\xfe\x00"])
def test_useless_text_is_refused(
    content: bytes, demo_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_bytes(content)
    assert main(["eval", str(demo_checkpoint), "--text", str(tmp_path / "text")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
