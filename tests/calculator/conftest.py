"""A whole tiny checkpoint on disk, to describe and to damage."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from calculator.architecture import weights
from calculator.config import ModelConfig

TINY = ModelConfig(
    model_type="glm",
    vocab_size=96,
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=256,
    rms_norm_eps=1e-5,
    rope_theta=1e4,
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A random bf16 model of two layers, written by the safetensors library."""
    directory = tmp_path / "tiny"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(TINY.to_dict()))
    numbers = torch.Generator().manual_seed(0)
    tensors = {
        weight.name: torch.randn(weight.shape, generator=numbers).bfloat16()
        for weight in weights(TINY)
    }
    save_file(tensors, directory / "model.safetensors")
    return directory
