"""The one inventory is what the authors publish, what we build, and what transformers builds."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from calculator.model.architecture import Weight, num_parameters, weights
from calculator.model.config import ModelConfig
from calculator.model.presets import PRESETS
from glm4q.model.decoder import CausalLM
from tests.paths import DATA

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"GLM-4's indices are not in {DATA}")

INV_FREQ_NUMBERS = 32
"""A buffer that the authors' files carry beside the parameters."""

TIED = replace(PRESETS["glm-4-9b"], tie_word_embeddings=True)
CONFIGS = [pytest.param(config, id=name) for name, config in {**PRESETS, "tied": TIED}.items()]


def shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def inventory(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """What a state_dict must hold; it names a tied head, which is the embedding once more."""
    listed = {weight.name: weight.shape for weight in weights(config)}
    if config.tie_word_embeddings:
        assert "lm_head.weight" not in listed
        listed["lm_head.weight"] = listed["model.embed_tokens.weight"]
    return listed


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("glm-4-9b-chat", 9_399_951_360),
        ("glm-4-9b-chat-1m", 9_483_857_920),
        ("glm-4-9b", 9_399_951_360),
        ("GLM-4-9B-0414", 9_400_279_040),
        ("GLM-Z1-9B-0414", 9_400_279_040),
        ("GLM-4-32B-0414", 32_566_081_536),
        ("chatglm3-6b", 6_243_584_000),
    ],
)
def test_parameters_are_counted_exactly(name: str, count: int) -> None:
    assert num_parameters(PRESETS[name]) == count


@needs_data
@pytest.mark.parametrize("name", ["glm-4-9b-chat", "glm-4-9b-chat-1m", "glm-4-9b"])
def test_the_published_files_take_the_bytes_of_the_inventory(name: str) -> None:
    index = json.loads((DATA / name / "model.safetensors.index.json").read_text())
    numbers = num_parameters(PRESETS[name]) + INV_FREQ_NUMBERS
    assert index["metadata"]["total_size"] == 2 * numbers


@pytest.mark.parametrize("config", CONFIGS)
def test_our_model_holds_the_inventory_and_nothing_else(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = CausalLM(config)
    assert shapes(model) == inventory(config)
    assert sum(tensor.numel() for tensor in model.parameters()) == num_parameters(config)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_model_of_transformers_holds_the_same(config: ModelConfig) -> None:
    make: Any = AutoModelForCausalLM.from_config
    with torch.device("meta"):
        model = make(AutoConfig.for_model(**config.to_dict()))
    assert shapes(model) == inventory(config)
    assert sum(tensor.numel() for tensor in model.parameters()) == num_parameters(config)


def test_only_matrices_that_multiply_can_be_quantized() -> None:
    layer = "model.layers.0"
    assert [
        weight.name
        for weight in weights(replace(PRESETS["GLM-4-9B-0414"], num_hidden_layers=1))
        if weight.can_be_quantized
    ] == [
        f"{layer}.self_attn.q_proj.weight",
        f"{layer}.self_attn.k_proj.weight",
        f"{layer}.self_attn.v_proj.weight",
        f"{layer}.self_attn.o_proj.weight",
        f"{layer}.mlp.gate_up_proj.weight",
        f"{layer}.mlp.down_proj.weight",
        "lm_head.weight",
    ]


def test_a_weight_knows_its_module_and_size() -> None:
    weight = Weight("model.layers.3.self_attn.q_proj.bias", (4, 2), "bias")
    assert (weight.module, weight.numel) == ("model.layers.3.self_attn.q_proj", 8)
