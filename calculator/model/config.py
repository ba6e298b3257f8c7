"""config.json -> ModelConfig, in the field names of Hugging Face's `glm`."""

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Self

from calculator.dataclass import dataclass
from calculator.errors import ConfigError
from calculator.json_files import read_json_object
from calculator.model.config_keys import check_keys
from calculator.model.rope import RopeScaling, read_scaling

SUPPORTED = "glm, glm4 and chatglm"

# THUDM/glm-4-9b-chat-hf and its 1M sibling were converted with `getattr` on a dict, which lost
# rope_ratio: the files say 10000 although the models were trained with these bases.
# https://github.com/huggingface/transformers/blob/eaed17f4467e2956ee690f37f32842a9ac0c1fd2/src/transformers/models/glm/convert_glm_weights_to_hf.py
DEFAULT_ROPE_THETA = 10_000.0
TRAINED_ROPE_THETA = {131_072: 5e6, 1_048_576: 1e8}

# No model of this family comes near these; a larger number is a damaged file.
LIMITS = {
    "vocab_size": 10**7,
    "hidden_size": 10**6,
    "intermediate_size": 10**7,
    "num_hidden_layers": 10**4,
    "num_attention_heads": 10**4,
    "num_key_value_heads": 10**4,
    "head_dim": 10**5,
    "max_position_embeddings": 10**9,
}


@dataclass(frozen=True)
class ModelConfig:
    """The architecture in config.json. `glm4` has two more norms per layer than `glm`."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    partial_rotary_factor: float = 0.5
    """The part of each head that is rotated."""
    attention_bias: bool = True
    tie_word_embeddings: bool = False
    eos_token_ids: tuple[int, ...] = ()
    rope_scaling: RopeScaling | None = None
    """None where positions are as in training. `max_position_embeddings` counts scaled ones."""

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name), field.type)
        for name, limit in LIMITS.items():
            if not 0 < getattr(self, name) <= limit:
                raise ConfigError(f"{name} must be 1 to {limit}, not {getattr(self, name)}")
        if not 0 < self.rms_norm_eps < 1:
            raise ConfigError(f"rms_norm_eps must be between 0 and 1, not {self.rms_norm_eps}")
        if not 1 < self.rope_theta < 1e15:
            raise ConfigError(f"rope_theta must be above 1 and below 1e15, not {self.rope_theta}")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"num_key_value_heads must divide num_attention_heads, and "
                f"{self.num_key_value_heads} does not divide {self.num_attention_heads}"
            )
        if not 0 < self.partial_rotary_factor <= 1 or self.rotary_dim % 2 or not self.rotary_dim:
            raise ConfigError(
                f"partial_rotary_factor {self.partial_rotary_factor} of head_dim {self.head_dim} "
                "must be an even number of dimensions, at most all of them"
            )

    @property
    def rotary_dim(self) -> int:
        """The count of dimensions that the rotary embedding rotates in each head."""
        return int(self.head_dim * self.partial_rotary_factor)

    @classmethod
    def from_json(cls, path: Path) -> Self:
        """Read a config.json. Raises ConfigError where it is not whole or not of this family."""
        raw = read_json_object(path)
        try:
            return cls.from_dict(raw, name=str(path))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], *, name: str = "config.json") -> Self:
        """Read a parsed config of `model_type` glm, glm4 or chatglm; warnings name it so."""
        model_type = raw.get("model_type")
        if model_type in ("glm", "glm4", "chatglm"):
            check_keys(raw, model_type, name)
        if model_type in ("glm", "glm4"):
            return cls(**_from_hugging_face(raw))._with_trained_rope(name)
        if model_type == "chatglm":
            return cls(**_from_native(raw))
        raise ConfigError(f"model type {model_type!r} is not supported; {SUPPORTED} are")

    def to_dict(self) -> dict[str, Any]:
        """The config.json that transformers, vLLM and SGLang read; inverse of `from_dict`."""
        plain = asdict(self)
        eos_token_ids = plain.pop("eos_token_ids")
        del plain["rope_scaling"]
        scaling = {"rope_type": "default"}
        if self.rope_scaling:
            scaling = self.rope_scaling.to_dict()
            plain["max_position_embeddings"] = self.rope_scaling.original_positions
        architecture = {"glm": "GlmForCausalLM", "glm4": "Glm4ForCausalLM"}[self.model_type]
        rope = {name: plain[name] for name in ("rope_theta", "partial_rotary_factor")}
        return {
            "architectures": [architecture],
            **plain,
            # transformers 5 reads the rotary facts here, earlier releases and vLLM above.
            "rope_parameters": {**scaling, **rope},
            "hidden_act": "silu",
            "eos_token_id": list(eos_token_ids),
            "pad_token_id": None,  # left out, transformers would take GLM-4's own
        }

    def untied(self) -> Self:
        """Return this model with a head of its own, as it is after the head alone is quantized."""
        return replace(self, tie_word_embeddings=False)

    def _with_trained_rope(self, name: str) -> Self:
        trained = TRAINED_ROPE_THETA.get(self.max_position_embeddings)
        as_published = self.model_type == "glm" and self.rope_scaling is None
        if not as_published or trained is None or self.rope_theta != DEFAULT_ROPE_THETA:
            return self
        import logging  # 2 ms of a cold start, for a few files

        logging.getLogger(__name__).warning(
            "%s says rope_theta 10000 for %d positions, a known defect of the converted "
            "glm-4-9b-chat files; using the base it was trained with, %g",
            name,
            self.max_position_embeddings,
            trained,
        )
        return replace(self, rope_theta=trained)


def _from_hugging_face(raw: Mapping[str, Any]) -> dict[str, Any]:
    if raw.get("hidden_act", "silu") != "silu":
        raise ConfigError(f"hidden_act must be silu, not {raw['hidden_act']!r}")
    # transformers 5 takes a rope_scaling that says anything instead of rope_parameters, whatever
    # its type, and the values beside them only where it is silent.
    rope = _object(raw, "rope_scaling") or _object(raw, "rope_parameters")
    facts = {
        name: _required(raw, name)
        for name in (
            "model_type",
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "max_position_embeddings",
            "rms_norm_eps",
        )
    }
    # Where config.json is silent, transformers' own defaults hold.
    facts["head_dim"] = raw.get("head_dim", 128)
    if facts["head_dim"] is None:
        facts["head_dim"] = _head_width(facts["hidden_size"], facts["num_attention_heads"])
    facts["rope_theta"] = rope.get("rope_theta", raw.get("rope_theta", DEFAULT_ROPE_THETA))
    facts["partial_rotary_factor"] = rope.get(
        "partial_rotary_factor", raw.get("partial_rotary_factor", 0.5)
    )
    facts["attention_bias"] = raw.get("attention_bias", True)
    facts["tie_word_embeddings"] = raw.get("tie_word_embeddings", False)
    facts["eos_token_ids"] = _token_ids(raw.get("eos_token_id"))
    scaling = read_scaling(rope, facts["max_position_embeddings"])
    if scaling is not None:
        facts.update(rope_scaling=scaling, max_position_embeddings=scaling.positions)
    return facts


def _from_native(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The authors' own config. Defaults are those of their configuration_chatglm.py."""
    expected = {
        "rmsnorm": True,
        "original_rope": True,
        "post_layer_norm": True,
        "add_bias_linear": False,
        "apply_residual_connection_post_layernorm": False,
    }
    for name, value in expected.items():
        if raw.get(name, value) is not value:
            raise ConfigError(f"{name} must be {str(value).lower()}, not {raw[name]!r}")
    layers = _required(raw, "num_layers")
    if raw.get("num_hidden_layers", layers) != layers:
        raise ConfigError(
            f"num_hidden_layers {raw['num_hidden_layers']!r} and num_layers {layers!r} differ"
        )
    heads = _required(raw, "num_attention_heads")
    grouped = raw.get("multi_query_attention", False)
    rope_ratio = raw.get("rope_ratio", 1)
    _check_type("rope_ratio", rope_ratio, float)
    if not 0 < rope_ratio < 1e11:
        raise ConfigError(f"rope_ratio must be above 0 and below 1e11, not {rope_ratio}")
    return {
        "model_type": "glm",
        "vocab_size": _required(raw, "padded_vocab_size"),
        "hidden_size": _required(raw, "hidden_size"),
        "intermediate_size": _required(raw, "ffn_hidden_size"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": _required(raw, "multi_query_group_num") if grouped else heads,
        "head_dim": _required(raw, "kv_channels"),
        "max_position_embeddings": _required(raw, "seq_length"),
        "rms_norm_eps": _required(raw, "layernorm_epsilon"),
        "rope_theta": 10_000.0 * rope_ratio,
        "attention_bias": raw.get("add_qkv_bias", False),
        "tie_word_embeddings": raw.get("tie_word_embeddings", False),
        "eos_token_ids": _token_ids(raw.get("eos_token_id")),
    }


def _head_width(hidden_size: Any, heads: Any) -> int:
    """Return what transformers takes for a head_dim of null."""
    _check_type("hidden_size", hidden_size, int)
    _check_type("num_attention_heads", heads, int)
    return int(hidden_size // max(heads, 1))


def _required(raw: Mapping[str, Any], name: str) -> Any:
    if name not in raw:
        raise ConfigError(f"has no {name}")
    return raw[name]


def _object(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = raw.get(name)
    if not isinstance(value, Mapping | None):
        raise ConfigError(f"{name} must be a JSON object, not {value!r}")
    return value or {}


def _token_ids(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    ids = value if isinstance(value, list) else [value]
    if not all(type(item) is int and item >= 0 for item in ids):
        raise ConfigError(f"eos_token_id must be a token id or a list of them, not {value!r}")
    return tuple(ids)


def _check_type(name: str, value: Any, expected: Any) -> None:
    accepted = (int, float) if expected is float else expected
    if expected in (int, float, bool, str) and (
        not isinstance(value, accepted) or (isinstance(value, bool) and expected is not bool)
    ):
        raise ConfigError(f"{name} must be {expected.__name__}, not {value!r}")
