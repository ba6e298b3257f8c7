"""A GGUF file of this family as config and tensors under the names that this project reads.

llama.cpp knows GLM-4 as `chatglm` and GLM-4-0414 as `glm4`.
"""

from collections.abc import Mapping
from typing import Any

from calculator.checkpoint.gguf_file import GgufFile
from calculator.checkpoint.headers import TensorHeader
from calculator.checkpoint.layouts.layout import ModuleLayout, Settings, StoredModule
from calculator.errors import CheckpointError
from calculator.model.config import ModelConfig
from calculator.model.formats import WeightFormat
from calculator.model.rope import read_scaling

MODEL_TYPES = {"chatglm": "glm", "glm4": "glm4"}
OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
    "post_attention_norm": "post_self_attn_layernorm",
    "post_ffw_norm": "post_mlp_layernorm",
}
IGNORED = ("rope_freqs.weight",)
FORMATS = {"Q4_0": WeightFormat(4, 32), "Q8_0": WeightFormat(8, 32)}
"""Blocks that are held as they are. Q4_1 is not among them: its minimum is no integer step."""
END_TOKENS = ("eos_token_id", "eot_token_id", "eom_token_id")


def read_config(file: GgufFile) -> ModelConfig:
    """Read the architecture from metadata and shapes. Raises CheckpointError or ConfigError."""
    architecture = file.get("general.architecture", str)
    if architecture not in MODEL_TYPES:
        raise CheckpointError(
            f"{file.path} is of llama.cpp's architecture {architecture}; "
            f"{' and '.join(MODEL_TYPES)} are read"
        )

    def number(name: str, default: float | None = None) -> Any:
        key = f"{architecture}.{name}"
        if key not in file.metadata and default is not None:
            return default
        return file.get(key, (int, float))

    hidden, heads = number("embedding_length"), number("attention.head_count")
    head_dim = number("attention.key_length", hidden // max(heads, 1))
    positions = number("context_length")
    scaling = _scaling(file, architecture, positions)
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise CheckpointError(f"{file.path} has no matrix token_embd.weight")
    return ModelConfig(
        model_type=MODEL_TYPES[architecture],
        vocab_size=embedding.shape[0],
        hidden_size=hidden,
        intermediate_size=number("feed_forward_length"),
        num_hidden_layers=number("block_count"),
        num_attention_heads=heads,
        num_key_value_heads=number("attention.head_count_kv", heads),
        head_dim=head_dim,
        max_position_embeddings=positions,
        rms_norm_eps=float(number("attention.layer_norm_rms_epsilon")),
        rope_theta=float(number("rope.freq_base", 10_000.0)),
        partial_rotary_factor=number("rope.dimension_count", head_dim) / max(head_dim, 1),
        attention_bias=any(f"blk.0.{name}.bias" in file.tensors for name in ("attn_q", "attn_qkv")),
        tie_word_embeddings="output.weight" not in file.tensors,
        eos_token_ids=_end_tokens(file.metadata),
        rope_scaling=scaling,
    )


def _scaling(file: GgufFile, architecture: str, positions: int) -> Any:
    prefix = f"{architecture}.rope.scaling."
    settings = {
        name: file.metadata[prefix + key]
        for key, name in (
            ("type", "rope_type"),
            ("factor", "factor"),
            ("original_context_length", "original_max_position_embeddings"),
        )
        if prefix + key in file.metadata
    }
    return (
        read_scaling(settings, positions)
        if settings.get("rope_type") not in (None, "none")
        else None
    )


def _end_tokens(metadata: Mapping[str, Any]) -> tuple[int, ...]:
    ids = [metadata.get(f"tokenizer.ggml.{name}") for name in END_TOKENS]
    return tuple(dict.fromkeys(each for each in ids if type(each) is int and each >= 0))


def renamed(file: GgufFile) -> dict[str, TensorHeader]:
    """The tensors under Hugging Face's names; a fused attn_qkv under the authors' native one."""
    return {_name(name): header for name, header in file.tensors.items() if name not in IGNORED}


def _name(name: str) -> str:
    module, _, part = name.rpartition(".")
    if module in OUTER:
        return f"{OUTER[module]}.{part}"
    block, layer, inner = (*module.split(".", 2), "", "")[:3]
    if block != "blk":
        return name
    if inner == "attn_qkv":
        return f"transformer.encoder.layers.{layer}.self_attention.query_key_value.{part}"
    return f"model.layers.{layer}.{INNER.get(inner, inner)}.{part}"


def read_layout(module: StoredModule, inputs: int, settings: Settings) -> ModuleLayout | None:
    """The layout of a module; None where it is read as floats. Raises CheckpointError."""
    header = module.get("weight")
    if header is None or header.dtype not in FORMATS:
        return None
    outputs = module.matrix("weight")[0]
    if header.shape != (outputs, inputs):
        raise CheckpointError(f"{header.name} has shape {list(header.shape)} for {inputs} inputs")
    return ModuleLayout(FORMATS[header.dtype], outputs, ("weight",))
