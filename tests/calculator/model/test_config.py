"""config.json is read as its authors meant it, written as others read it, and refused by name."""

import json
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from calculator.errors import ConfigError
from calculator.json_files import MAX_CONFIG_BYTES
from calculator.model.config import ModelConfig
from calculator.model.presets import PRESETS, find_preset
from tests.paths import DATA

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"GLM-4's configs are not in {DATA}")

GLM: dict[str, Any] = {
    "model_type": "glm",
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
}
NATIVE: dict[str, Any] = {
    "model_type": "chatglm",
    "padded_vocab_size": 96,
    "hidden_size": 64,
    "ffn_hidden_size": 128,
    "num_layers": 2,
    "num_attention_heads": 4,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "kv_channels": 32,
    "seq_length": 256,
    "layernorm_epsilon": 1e-6,
    "rope_ratio": 500,
    "add_qkv_bias": True,
    "eos_token_id": [7, 8],
}
UNUSUAL = replace(
    PRESETS["GLM-4-9B-0414"],
    head_dim=96,
    partial_rotary_factor=1.0,
    attention_bias=False,
    tie_word_embeddings=True,
    eos_token_ids=(),
)
CONFIGS = [
    pytest.param(config, id=name) for name, config in {**PRESETS, "unusual": UNUSUAL}.items()
]


# What the authors publish, and what others read


@needs_data
@pytest.mark.parametrize("name", ["glm-4-9b-chat", "glm-4-9b-chat-1m", "glm-4-9b"])
def test_presets_are_what_their_authors_publish(name: str) -> None:
    assert ModelConfig.from_json(DATA / name / "config.json") == PRESETS[name]


@needs_data
def test_the_converted_config_means_the_same_model_as_the_native_one() -> None:
    converted = ModelConfig.from_json(DATA / "glm-4-9b-chat-hf" / "config.json")
    assert converted == ModelConfig.from_json(DATA / "glm-4-9b-chat" / "config.json")


@pytest.mark.parametrize("config", CONFIGS)
def test_what_is_written_reads_back(config: ModelConfig) -> None:
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize("config", CONFIGS)
def test_transformers_reads_the_same_facts(config: ModelConfig, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    theirs = AutoConfig.from_pretrained(tmp_path)
    facts = asdict(config)
    assert facts.pop("rope_scaling") is None
    assert theirs.eos_token_id == list(facts.pop("eos_token_ids"))
    rope = {name: facts.pop(name) for name in ("rope_theta", "partial_rotary_factor")}
    assert theirs.rope_parameters == {"rope_type": "default", **rope}
    assert {name: getattr(theirs, name) for name in facts} == facts
    assert theirs.pad_token_id is None


def test_presets_are_found_whatever_their_case() -> None:
    assert find_preset("GLM-4-9B-Chat") == PRESETS["glm-4-9b-chat"]
    assert find_preset("glm-z1-9b-0414") == PRESETS["GLM-Z1-9B-0414"]
    assert find_preset("gpt-4") is None


# Small configs, fact by fact


def test_every_native_fact_is_read() -> None:
    assert ModelConfig.from_dict(NATIVE) == ModelConfig(
        model_type="glm",
        vocab_size=96,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=256,
        rms_norm_eps=1e-6,
        rope_theta=5e6,
        partial_rotary_factor=0.5,
        attention_bias=True,
        tie_word_embeddings=False,
        eos_token_ids=(7, 8),
    )


def test_native_defaults_are_the_authors() -> None:
    optional = ("multi_query_attention", "rope_ratio", "add_qkv_bias", "eos_token_id")
    config = ModelConfig.from_dict({k: v for k, v in NATIVE.items() if k not in optional})
    assert config.num_key_value_heads == config.num_attention_heads == 4
    assert config.rope_theta == 1e4
    assert not config.attention_bias
    assert config.eos_token_ids == ()


@pytest.mark.parametrize("model_type", ["glm", "glm4"])
def test_what_is_left_out_is_as_in_transformers(model_type: str) -> None:
    ours = ModelConfig.from_dict({**GLM, "model_type": model_type})
    theirs = AutoConfig.for_model(**{**GLM, "model_type": model_type, "pad_token_id": None})
    for name in ("head_dim", "attention_bias", "tie_word_embeddings"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"]
    assert ours.partial_rotary_factor == theirs.rope_parameters["partial_rotary_factor"]


def test_rope_facts_are_read_where_any_release_of_transformers_wrote_them() -> None:
    facts = {"rope_theta": 2e4, "partial_rotary_factor": 1.0}
    above = ModelConfig.from_dict({**GLM, **facts})
    beneath = ModelConfig.from_dict({**GLM, "rope_parameters": {"rope_type": "default", **facts}})
    assert above == beneath
    assert (above.rope_theta, above.rotary_dim) == (2e4, 128)


@pytest.mark.parametrize(
    ("stated", "read"), [(None, ()), (5, (5,)), ([5, 6], (5, 6))], ids=["none", "one", "several"]
)
def test_stop_tokens_are_one_or_several(stated: Any, read: tuple[int, ...]) -> None:
    assert ModelConfig.from_dict({**GLM, "eos_token_id": stated}).eos_token_ids == read


# The defect of the converted files


@pytest.mark.parametrize(("positions", "trained"), [(131_072, 5e6), (1_048_576, 1e8)])
@pytest.mark.parametrize("rope", [{}, {"rope_theta": 10_000.0}, {"rope_parameters": {}}])
def test_lost_rope_ratio_is_restored_with_a_warning(
    positions: int, trained: float, rope: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    config = ModelConfig.from_dict({**GLM, **rope, "max_position_embeddings": positions})
    assert config.rope_theta == trained
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{positions} positions" in record.getMessage()
    assert f"{trained:g}" in record.getMessage()


@pytest.mark.parametrize(
    "sound",
    [
        {"max_position_embeddings": 8192, "rope_theta": 1e4},
        {"max_position_embeddings": 131_072, "rope_theta": 2e4},
        {"max_position_embeddings": 131_072, "rope_theta": 1e4, "model_type": "glm4"},
    ],
    ids=["short", "stated", "glm4"],
)
def test_a_sound_rope_theta_is_left_alone(
    sound: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert ModelConfig.from_dict({**GLM, **sound}).rope_theta == sound["rope_theta"]
    assert not caplog.records


# Keys that no field is read from


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"vision_config": {"num_hidden_layers": 63}}, "vision_config is the image part"),
        ({"quantization": {"group_size": 64, "bits": 4}}, "quantization is MLX's"),
        ({"quantization_bit": 4}, "quantization_bit is ChatGLM's own"),
        ({"pre_seq_len": 128}, "pre_seq_len is the prefix of P-tuning"),
        ({"n_routed_experts": 64}, "n_routed_experts makes a mixture of experts"),
        ({"position_encoding_2d": True}, "position_encoding_2d belongs to the first ChatGLM-6B"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@pytest.mark.parametrize("base", [GLM, NATIVE], ids=["glm", "chatglm"])
def test_a_key_that_makes_another_model_is_refused(
    base: dict[str, Any], keys: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{named}"):
        ModelConfig.from_dict({**base, **keys})


@pytest.mark.parametrize("base", [GLM, NATIVE], ids=["glm", "chatglm"])
def test_a_key_that_asks_for_nothing_is_not_mentioned(
    base: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    silent: dict[str, Any] = {
        "quantization_bit": 0,
        "pre_seq_len": None,
        "vision_config": {},
        "novel": False,
    }
    assert ModelConfig.from_dict({**base, **silent}) == ModelConfig.from_dict(base)
    assert not caplog.records


@pytest.mark.parametrize("base", [GLM, NATIVE], ids=["glm", "chatglm"])
def test_unknown_keys_are_told_in_one_line(
    base: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**base, "residual_scale": 0.5, "dual_norm": True}))
    ModelConfig.from_json(path)
    (record,) = caplog.records
    told = f"{path} has the keys dual_norm, residual_scale, unknown for model type"
    assert told in record.getMessage()


@pytest.mark.parametrize("model_type", ["glm", "glm4"])
def test_every_key_that_transformers_writes_is_known(
    model_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = AutoConfig.for_model(**{**GLM, "model_type": model_type, "pad_token_id": None})
    ModelConfig.from_dict(json.loads(theirs.to_json_string(use_diff=False)))
    assert not caplog.records


@needs_data
@pytest.mark.parametrize("name", ["glm-4-9b-chat", "glm-4-9b-chat-1m", "glm-4-9b"])
def test_every_key_that_the_authors_write_is_known(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    ModelConfig.from_json(DATA / name / "config.json")
    assert not caplog.records


@pytest.mark.parametrize("above", [{}, {"rope_theta": 5e4}, {"partial_rotary_factor": 0.25}])
@pytest.mark.parametrize("kind", [{}, {"type": "default"}, {"rope_type": "default"}], ids=str)
def test_rope_scaling_of_the_default_type_is_read_as_transformers_reads_it(
    kind: dict[str, Any], above: dict[str, Any]
) -> None:
    scaling = {**kind, "rope_theta": 2e4, "partial_rotary_factor": 1.0}
    parameters = {"rope_type": "default", "rope_theta": 3e4}
    raw = {**GLM, **above, "rope_scaling": scaling, "rope_parameters": parameters}
    ours = ModelConfig.from_dict(raw)
    theirs = AutoConfig.for_model(**{**raw, "pad_token_id": None}).rope_parameters
    assert ours.rope_theta == theirs["rope_theta"] == 2e4
    assert ours.partial_rotary_factor == theirs["partial_rotary_factor"] == 1.0


def test_a_head_dim_of_null_is_what_transformers_takes_for_it() -> None:
    assert ModelConfig.from_dict({**GLM, "head_dim": None}).head_dim == 16


# Refusals


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "glm4_moe", None, [], 4])
def test_other_models_are_refused_by_name(model_type: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        ModelConfig.from_dict({**GLM, "model_type": model_type})
    assert f"model type {model_type!r} is not supported" in str(refused.value)


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        *(pytest.param(GLM, name, id=f"glm-{name}") for name in GLM if name != "model_type"),
        *(
            pytest.param(NATIVE, name, id=f"chatglm-{name}")
            for name in list(NATIVE)[1:]
            if name not in ("multi_query_attention", "rope_ratio", "add_qkv_bias", "eos_token_id")
        ),
    ],
)
def test_a_missing_fact_is_named(raw: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^has no {name}$"):
        ModelConfig.from_dict({key: value for key, value in raw.items() if key != name})


@pytest.mark.parametrize("name", [name for name in GLM if name != "model_type"])
@pytest.mark.parametrize("value", ["64", None, True, [], {}, -1, 0, 10**30, float("nan")], ids=repr)
def test_no_fact_can_be_of_another_kind_or_absurd(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        ModelConfig.from_dict({**GLM, name: value})


@pytest.mark.parametrize(
    "wrong",
    [
        {"head_dim": 0},
        {"head_dim": []},
        {"head_dim": 16.0},
        {"num_key_value_heads": 3},
        {"partial_rotary_factor": 0.01},
        {"partial_rotary_factor": 2},
        {"partial_rotary_factor": float("nan")},
        {"rope_theta": float("inf")},
        {"rope_theta": 1},
        {"rope_theta": "10000"},
        {"attention_bias": 1},
        {"tie_word_embeddings": "no"},
        {"eos_token_id": [True]},
        {"eos_token_id": -1},
        {"hidden_act": "gelu"},
        {"rope_parameters": "default"},
        {"rope_scaling": [1]},
    ],
    ids=str,
)
def test_optional_facts_are_checked_too(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ModelConfig.from_dict({**GLM, **wrong})


@pytest.mark.parametrize(
    "variant",
    [
        {"rmsnorm": False},
        {"post_layer_norm": False},
        {"add_bias_linear": True},
        {"apply_residual_connection_post_layernorm": True},
        {"original_rope": False},
        {"interleaved_qkv": True},
        {"num_hidden_layers": 3},
        {"rope_ratio": 0},
        {"rope_ratio": "500"},
        {"rope_ratio": 10**400},
    ],
    ids=lambda variant: next(iter(variant)),
)
def test_native_variants_that_are_not_computed_are_refused(variant: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(variant))):
        ModelConfig.from_dict({**NATIVE, **variant})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is not JSON"),
        (b"{'model_type': 'glm'}", "is not JSON"),
        (b'{"model_type": "\xff"}', "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"vocab_size": ' + b"9" * 5000 + b"}", "is not JSON"),
        (b"[1]", "must hold a JSON object, not a list"),
        (b'{"a": "' + b" " * MAX_CONFIG_BYTES + b'"}', f"at most {MAX_CONFIG_BYTES:,} are read"),
        (b'{"model_type": "glm"}', "has no vocab_size"),
    ],
    ids=["empty", "Python", "Latin-1", "deep", "digits", "array", "huge", "bare"],
)
def test_a_file_that_is_no_config_is_refused_by_path(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        ModelConfig.from_json(path)
    assert str(refused.value).startswith(str(path))
    assert reason in str(refused.value)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(GLM), encoding="utf-8-sig")
    assert ModelConfig.from_json(path) == ModelConfig.from_dict(GLM)


def test_a_file_that_is_not_there_is_refused_by_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.json cannot be read: No such file"):
        ModelConfig.from_json(tmp_path / "absent.json")
