"""The ways to run a model: every combination that its widths allow."""

import json
from pathlib import Path

import pytest

from glm4q.cli import main


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    """A config whose hidden size, 576, groups of 128 do not divide."""
    config = {
        "model_type": "glm",
        "hidden_size": 576,
        "num_hidden_layers": 4,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "intermediate_size": 1536,
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "tie_word_embeddings": True,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    return path


def test_groups_shrink_until_they_divide_the_model(
    narrow: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calc", str(narrow), "--gpu", "4060"]) == 0
    shown = capsys.readouterr().out
    assert "int8 g64" in shown
    assert "--group-size 64" in shown


def test_a_small_model_runs_on_every_card(narrow: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calc", str(narrow)]) == 0
    shown = capsys.readouterr().out
    assert "80 GB" in shown
    assert "layers on the host" not in shown
