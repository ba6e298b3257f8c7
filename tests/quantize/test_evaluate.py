"""Perplexity against transformers' own loss, and `glm4q eval`."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from glm4q.cli import main
from glm4q.engine import LLM
from quantize.evaluate import evaluate

pytestmark = pytest.mark.demo
TEXT = "The river rose in the night. By morning the lower field was a lake, and the ducks had come."


def test_perplexity_is_the_exponent_of_transformers_loss(demo_checkpoint: Path) -> None:
    llm = LLM.load(demo_checkpoint, device="cpu", dtype="fp32")
    token_ids = llm.tokenizer.encode(TEXT)
    reference = AutoModelForCausalLM.from_pretrained(demo_checkpoint, dtype=torch.float32)
    total = 0.0
    with torch.no_grad():
        for start in (0, 10):
            window = torch.tensor([token_ids[start : start + 10]])
            total += reference(window, labels=window).loss.item() * 9
    result = evaluate(llm, llm.tokenizer.decode(token_ids[:20]), window=10)
    assert result.tokens == 18
    assert result.perplexity == pytest.approx(math.exp(total / 18), rel=1e-4)


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


@pytest.mark.parametrize("content", [b"", b"a", b"\xff\xfe\x00"])
def test_useless_text_is_refused(
    content: bytes, demo_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_bytes(content)
    assert main(["eval", str(demo_checkpoint), "--text", str(tmp_path / "text")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
