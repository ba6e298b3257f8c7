"""The models that glm4q knows by name, as their authors publish them."""

from dataclasses import replace

from calculator.model.config import ModelConfig

_CHAT = ModelConfig(
    model_type="glm",
    vocab_size=151_552,
    hidden_size=4096,
    intermediate_size=13_696,
    num_hidden_layers=40,
    num_attention_heads=32,
    num_key_value_heads=2,
    head_dim=128,
    max_position_embeddings=131_072,
    rms_norm_eps=1.5625e-07,
    rope_theta=5e6,
    eos_token_ids=(151_329, 151_336, 151_338),
)

_GLM4_0414 = replace(
    _CHAT,
    model_type="glm4",
    max_position_embeddings=32_768,
    rms_norm_eps=1e-5,
    rope_theta=1e4,
)

PRESETS: dict[str, ModelConfig] = {
    "glm-4-9b-chat": _CHAT,
    "glm-4-9b-chat-1m": replace(
        _CHAT, num_key_value_heads=4, max_position_embeddings=1_048_576, rope_theta=1e8
    ),
    "glm-4-9b": replace(_CHAT, max_position_embeddings=8192, rope_theta=1e4),
    "GLM-4-9B-0414": _GLM4_0414,
    "GLM-Z1-9B-0414": _GLM4_0414,
    "GLM-4-32B-0414": replace(
        _GLM4_0414,
        hidden_size=6144,
        intermediate_size=23_040,
        num_hidden_layers=61,
        num_attention_heads=48,
        attention_bias=False,
    ),
    "chatglm3-6b": replace(
        _CHAT,
        vocab_size=65_024,
        num_hidden_layers=28,
        max_position_embeddings=8192,
        rms_norm_eps=1e-5,
        rope_theta=1e4,
        eos_token_ids=(2,),
    ),
}


def find_preset(name: str) -> ModelConfig | None:
    """The preset of that name, whatever its case; None where there is none."""
    known = {preset.lower(): config for preset, config in PRESETS.items()}
    return known.get(name.lower())
