"""Scaled positions, YaRN's and linear ones, in every way to attend, against transformers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from calculator.checkpoint.stored import StoredModel
from calculator.errors import ConfigError
from calculator.model.config import ModelConfig
from calculator.model.formats import WeightFormat
from calculator.model.presets import PRESETS
from calculator.model.rope import RopeScaling
from glm4q.cli import main
from glm4q.kernels.attention.append_tokens import append_tokens, prepare_attention
from glm4q.kernels.attention.rope import prepare_rotation, prepare_tile_rotation, rotate_
from glm4q.kernels.attention.streaming import attend as streaming_attend
from glm4q.kernels.choose import candidates, choose_layers_kernels
from glm4q.kernels.cpu.attention import native_attend
from glm4q.memory.kv.rotation import rotate_along
from glm4q.weights.checkpoint import read_quantized
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import Recipe
from tests import tiny
from tests.glm4q.memories import CPU, all_logits, load_on_cpu, memory_of, memory_on_cpu, runner_of

ORIGINAL = 24
YARN = RopeScaling("yarn", 4.0, ORIGINAL, attention_factor=1.1386294361119891)
SCALINGS = {
    "yarn": YARN,
    "other-ramp": replace(YARN, beta_fast=8.0, beta_slow=2.0, truncate=False),
    "other-factor": replace(YARN, attention_factor=0.8, factor=2.5),
    "linear": RopeScaling("linear", 4.0, ORIGINAL),
}
CONFIG = replace(
    tiny.BASE,
    model_type="glm4",
    vocab_size=96,
    head_dim=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=YARN.positions,
    rope_scaling=YARN,
)
TOKENS = 80
"""More than three times the original length."""


def scaled(scaling: RopeScaling) -> ModelConfig:
    return replace(CONFIG, rope_scaling=scaling, max_position_embeddings=scaling.positions)


def ids(tokens: int = TOKENS) -> Tensor:
    return torch.randint(96, (1, tokens), generator=torch.Generator().manual_seed(1))


def error(found: Tensor, expected: Tensor) -> float:
    """The largest relative error of a position's logits."""
    return float(((found - expected).norm(dim=-1) / expected.norm(dim=-1)).max())


def mean_error(found: Tensor, expected: Tensor) -> float:
    return float(((found - expected).norm(dim=-1) / expected.norm(dim=-1)).mean())


@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS.keys())
@pytest.mark.parametrize("tokens", [ORIGINAL, 58])
def test_logits_are_those_of_transformers(
    scaling: RopeScaling, tokens: int, tmp_path: Path
) -> None:
    """At positions below and above the original length."""
    reference = tiny.transformers_model(scaled(scaling))
    stored = StoredModel.open(tiny.save_checkpoint(reference, tmp_path / "model"))
    assert stored.config.rope_scaling == scaling
    with torch.no_grad():
        expected = reference(ids(tokens)).logits
    found = all_logits(runner_of(load_on_cpu(stored), memory_of(stored, 60)), ids(tokens))
    assert error(found, expected) < 1e-4
    unscaled = replace(scaled(scaling), rope_scaling=None)
    other = replace(stored, config=unscaled)
    missed = all_logits(runner_of(load_on_cpu(other), memory_of(other, 60)), ids(tokens))
    assert error(missed, expected) > 1e-2, "the test would not see that scaling is left out"


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> tuple[StoredModel, Tensor]:
    """A quantized checkpoint, and transformers' logits of its dequantized weights."""
    folder = tmp_path_factory.mktemp("yarn")
    reference = tiny.transformers_model(CONFIG)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            if name.endswith("k_proj.bias"):
                parameter.mul_(12)  # what keys have in common: the centre of an INT4 cache
    source = StoredModel.open(tiny.save_checkpoint(reference, folder / "source"))
    quantize_checkpoint(source, folder / "int8", Recipe(WeightFormat(8, 32)))
    stored = StoredModel.open(folder / "int8")
    state = {
        weight.name: read_quantized(stored, weight).dequantize().T
        for weight, weight_format in stored.formats.items()
        if weight_format.is_quantized
    }
    reference.load_state_dict(state, strict=False)
    with torch.no_grad():
        return stored, reference(ids()).logits


NEAR = {"fp32": 0.03, "int8": 0.04, "k8v4": 0.15, "int4": 0.18}
"""The mean error by KV format: without scaling it is 0.78, and activations of 8 bits make 0.02."""


@pytest.mark.parametrize("kernel", ["reference", "native"])
@pytest.mark.parametrize("kv", NEAR)
def test_every_cache_and_kernel_computes_scaled_positions(
    kv: str, kernel: str, int8: tuple[StoredModel, Tensor]
) -> None:
    """Layers one by one or all in one call; a prompt in chunks, and then token after token."""
    stored, expected = int8
    kernels = candidates(kernel)
    model = load_on_cpu(stored, kernels=kernels)
    runner = runner_of(model, memory_of(stored, YARN.positions, kv=kv, kernels=kernels))
    parts = [all_logits(runner, chunk).clone() for chunk in ids()[:, :50].split(20, dim=1)]
    for position in range(50, TOKENS):
        token = ids()[:, position : position + 1]
        parts.append(runner(token).clone().view(1, 1, -1))
    assert mean_error(torch.cat(parts, dim=1), expected) < NEAR[kv]


def test_the_centre_of_keys_has_the_attention_factor_once() -> None:
    """An INT4 cache keeps keys minus a centre, which is rotated along a tile's positions."""
    ((step, _),) = memory_on_cpu(CONFIG, YARN.positions, chunk=8, kv="int4").steps(1)
    x, first = torch.randn(1, 2, 1, 64), 40
    step["cached"].fill_(first + 5)
    prepare_rotation(CONFIG, step)
    prepare_tile_rotation(CONFIG, step)
    along = rotate_along(x, first, step, step["tile_centers"])[:, :, 5:6].clone()
    directly = rotate_(x.clone(), step["half_rotated"][:, :, 0], step)
    torch.testing.assert_close(along, directly)


def test_native_attention_adds_centres_as_streaming_attention(instruction_set: str) -> None:
    """The centre is large beside the keys, so an attention factor left out or taken twice shows."""
    chosen = choose_layers_kernels(
        CONFIG, kv="int4", room=YARN.positions, device=CPU, linears=frozenset()
    )
    assert chosen.one_token[1].kernel.name == chosen.several_tokens[1].kernel.name == "native"
    memory = memory_on_cpu(CONFIG, YARN.positions, chunk=70, kv="int4")
    cache = memory.cache.layers()[0]
    for cached, tokens in ((0, 70), (70, 1), (71, 9)):
        ((step, _),) = memory.steps(tokens)
        step["cached"].fill_(cached)
        prepare_attention(CONFIG, step, centered=True)
        for name in ("q", "k", "v"):
            step[name].normal_()
        step["k"].add_(3)
        append_tokens(step, cache)
        streaming_attend(step, cache)
        expected = step["mixed"].clone()
        native_attend(step, cache, instruction_set)
        # AVX2 rounds queries (0.4 at most) and weights (1 at most, by scales of 0.33) to steps of
        # 1/32512 of the largest. Seven standard deviations, of 80 tokens with keys of length 11 and
        # codes of 5, are 6e-4 by the queries, where values are 2, and 9e-4 by the weights.
        rounded = instruction_set in ("avx2", "avx_vnni")
        atol = 1.5e-3 if rounded else 1e-5
        torch.testing.assert_close(step["mixed"], expected, rtol=1e-4, atol=atol)


# The config


SAID: dict[str, dict[str, Any]] = {
    "authors": {"rope_scaling": {"type": "yarn", "factor": 4.0,
                                 "original_max_position_embeddings": 32768}},
    "rope_type": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    "transformers-5": {"rope_parameters": {"rope_type": "yarn", "factor": 4.0,
                                           "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    "linear": {"rope_scaling": {"type": "linear", "factor": 4.0}},
}  # fmt: skip


@pytest.mark.parametrize("said", SAID.values(), ids=SAID.keys())
def test_more_positions_are_read_where_config_json_says_so(said: dict[str, Any]) -> None:
    raw = PRESETS["GLM-4-9B-0414"].to_dict()
    del raw["rope_parameters"]
    config = ModelConfig.from_dict({**raw, **said})
    assert config.max_position_embeddings == 131_072
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS.keys())
def test_scaling_that_is_written_reads_back(scaling: RopeScaling) -> None:
    config = scaled(scaling)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("rope", "message"),
    [
        ({"type": "dynamic", "factor": 4.0}, "rope type 'dynamic' is not supported, which changes"),
        ({"type": "longrope", "factor": 4.0}, "rope type 'longrope' is not supported"),
        ({"type": "yarn"}, "factor must be 1 to 1024, not None"),
        ({"type": "yarn", "factor": 0.5}, "factor must be"),
        ({"type": "yarn", "factor": float("nan")}, "factor must be"),
        ({"type": "yarn", "factor": True}, "factor must be"),
        ({"type": "yarn", "factor": 4.0, "beta_fast": "a"}, "beta_fast must be"),
        ({"type": "yarn", "factor": 4.0, "novel": 1}, "novel is unknown for rope type yarn"),
        ({"type": "yarn", "factor": 4.0, "truncate": 1}, "truncate must be true or false"),
        (
            {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 0},
            "original_max_position_embeddings must be 1 or more",
        ),
    ],
    ids=str,
)
def test_other_scaling_is_refused_by_name(rope: dict[str, Any], message: str) -> None:
    raw = {**PRESETS["GLM-4-9B-0414"].to_dict(), "rope_scaling": rope}
    with pytest.raises(ConfigError, match=message):
        ModelConfig.from_dict(raw)


def test_calc_plans_the_scaled_context(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = PRESETS["GLM-4-9B-0414"].to_dict()
    raw["rope_scaling"] = {"type": "yarn", "factor": 4.0}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(raw))
    assert main(["calc", str(path), "--context", "128k"]) == 0
    assert main(["calc", "GLM-4-9B-0414", "--context", "128k"]) == 2
    assert "32768 positions" in capsys.readouterr().err
