"""Quality by domain: each text by itself."""

from pathlib import Path
from typing import Any

import pytest
import torch

from calculator.checkpoint.stored import StoredModel
from quantize.quality.evaluate import evaluate
from quantize.quality.examine import DOMAINS, read_domains
from quantize.quality.predictor import ComputeSettings, Windows
from quantize.quality.report import held_out_record, write_report
from tests.quantize.calibrated import quantized

FP32 = ComputeSettings(torch.device("cpu"), torch.float32)


def test_texts_of_one_run_are_evaluated_as_each_would_be_alone(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    source, made = (
        StoredModel.open(tiny_checkpoint),
        quantized(tiny_checkpoint, tmp_path / "o", "rtn"),
    )
    texts = [Windows(tuple(torch.randint(90, (count, 12))), 1) for count in (1, 3, 2)]
    joined = Windows.joined(texts)
    first, together = evaluate(
        [made], joined, FP32, against=source, texts=[len(each) for each in texts]
    )
    assert together.tokens == sum(each.tokens for each in together.texts)
    for text, before, after in zip(texts, first.texts, together.texts, strict=True):
        alone_before, alone = evaluate([made], text, FP32, against=source)
        assert before.perplexity == pytest.approx(alone_before.perplexity)
        assert after.perplexity == pytest.approx(alone.perplexity)
        assert after.tokens == alone.tokens
        assert after.divergence
        assert alone.divergence
        assert after.divergence.kl_divergence == pytest.approx(alone.divergence.kl_divergence)
    record = held_out_record("built in", ("prose", "chat", "code"), first, together)
    assert record["perplexity"] == together.texts[0].perplexity
    assert list(record["domains"]) == ["prose", "chat", "code"]


def test_report_has_a_row_for_each_domain(tmp_path: Path) -> None:
    row = {
        "tokens": 1234,
        "source_perplexity": 10.0,
        "perplexity": 10.5,
        "perplexity_change": 0.05,
        "kl_divergence": 0.0321,
        "top_1_agreement": 0.9,
    }
    held_out = {"text": "built in", **row, "layer_errors": [], "domains": {"prose": row}}
    record: dict[str, Any] = {
        "source": {"name": "s", "bytes": 1},
        "checkpoint": {"method": "rtn", "weights": "int4", "lm_head": "bf16"}
        | {"rules": [], "bytes": 1},
        "calibration": None,
        "held_out": held_out,
        "linears": [],
        "run": {"seconds": 1.0, "peak_bytes": 1, "predicted_bytes": 1, "arithmetic": "float32"},
    }  # fmt: skip
    write_report(tmp_path, record)
    assert "| prose | 1,234 | 10.000 | 10.500 | +5.00% | 0.0321 | 90.0% |" in (
        tmp_path / "QUALITY.md"
    ).read_text().split("\n")


@pytest.mark.demo
def test_domains_are_read_by_the_models_own_template(demo_checkpoint: Path) -> None:
    texts = read_domains(StoredModel.open(demo_checkpoint)).texts
    assert list(texts) == ["prose", *DOMAINS]
    assert all(text.tokens > 200 for text in texts.values())
