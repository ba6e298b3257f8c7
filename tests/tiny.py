"""Tiny random models, made by transformers: the reference that no one here wrote."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Glm4Config, Glm4ForCausalLM, GlmConfig, GlmForCausalLM, PreTrainedModel

from calculator.model.config import ModelConfig

BASE = ModelConfig(
    model_type="glm",
    vocab_size=97,
    hidden_size=96,
    intermediate_size=160,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=3,
    head_dim=32,
    max_position_embeddings=256,
    rms_norm_eps=1e-5,
    rope_theta=10_000.0,
    eos_token_ids=(1,),
)
"""Widths that GPTQ can pack: multiples of 32."""
LONG = replace(
    BASE,
    vocab_size=96,
    head_dim=64,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=8192,
)
"""A context that the CPU's kernels divide into ranges, and heads that INT4 caches take."""

CLASSES = {"glm": (GlmConfig, GlmForCausalLM), "glm4": (Glm4Config, Glm4ForCausalLM)}


def transformers_model(config: ModelConfig, seed: int = 0) -> GlmForCausalLM | Glm4ForCausalLM:
    """transformers' float32 model of that shape, with weights large enough to tell models apart."""
    config_class, model_class = CLASSES[config.model_type]
    torch.manual_seed(seed)
    model = model_class(config_class(**config.to_dict())).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.1 if parameter.dim() == 2 else 0.3
            center = 1.0 if "norm" in name else 0.0
            parameter.normal_(center, spread)
    return model


def save_checkpoint(model: PreTrainedModel, directory: Path) -> Path:
    """As transformers writes it."""
    model.save_pretrained(directory)
    return directory


def save_native(model: PreTrainedModel, config: ModelConfig, directory: Path) -> Path:
    """The same weights as the authors' own files name and fuse them."""
    directory.mkdir()
    save_file(dict(_native_tensors(model.state_dict(), config)), directory / "model.safetensors")
    native = {
        "model_type": "chatglm",
        "padded_vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "ffn_hidden_size": config.intermediate_size,
        "num_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "multi_query_attention": True,
        "multi_query_group_num": config.num_key_value_heads,
        "kv_channels": config.head_dim,
        "seq_length": config.max_position_embeddings,
        "layernorm_epsilon": config.rms_norm_eps,
        "add_qkv_bias": config.attention_bias,
        "eos_token_id": list(config.eos_token_ids),
    }
    (directory / "config.json").write_text(json.dumps(native))
    return directory


def _native_tensors(
    state: dict[str, torch.Tensor], config: ModelConfig
) -> Iterator[tuple[str, torch.Tensor]]:
    yield "transformer.embedding.word_embeddings.weight", state["model.embed_tokens.weight"]
    yield "transformer.rotary_pos_emb.inv_freq", torch.ones(4)
    for layer in range(config.num_hidden_layers):
        ours, theirs = f"model.layers.{layer}.", f"transformer.encoder.layers.{layer}."
        for kind in ("weight", "bias"):
            if f"{ours}self_attn.q_proj.{kind}" in state:
                fused = [state[f"{ours}self_attn.{name}_proj.{kind}"] for name in "qkv"]
                yield f"{theirs}self_attention.query_key_value.{kind}", torch.cat(fused)
        for name, native in (
            ("input_layernorm", "input_layernorm"),
            ("self_attn.o_proj", "self_attention.dense"),
            ("post_attention_layernorm", "post_attention_layernorm"),
            ("mlp.gate_up_proj", "mlp.dense_h_to_4h"),
            ("mlp.down_proj", "mlp.dense_4h_to_h"),
        ):
            yield f"{theirs}{native}.weight", state[f"{ours}{name}.weight"]
    yield "transformer.encoder.final_layernorm.weight", state["model.norm.weight"]
    yield "transformer.output_layer.weight", state["lm_head.weight"]
