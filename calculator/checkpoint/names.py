"""Find where a module's rows are stored: under `glm` names, native names, or in split halves.

transformers' table of the native names:
https://github.com/huggingface/transformers/blob/eaed17f4467e2956ee690f37f32842a9ac0c1fd2/src/transformers/models/glm/convert_glm_weights_to_hf.py
"""

import re
from collections.abc import Container

from calculator.dataclass import dataclass
from calculator.model.config import ModelConfig

NATIVE = {
    "model.embed_tokens": "transformer.embedding.word_embeddings",
    "model.norm": "transformer.encoder.final_layernorm",
    "lm_head": "transformer.output_layer",
}
NATIVE_LAYER = {
    "input_layernorm": "input_layernorm",
    "self_attn.q_proj": "self_attention.query_key_value",
    "self_attn.k_proj": "self_attention.query_key_value",
    "self_attn.v_proj": "self_attention.query_key_value",
    "self_attn.o_proj": "self_attention.dense",
    "post_attention_layernorm": "post_attention_layernorm",
    "mlp.gate_up_proj": "mlp.dense_h_to_4h",
    "mlp.down_proj": "mlp.dense_4h_to_h",
}
IGNORED = re.compile(r"(^|\.)(rotary_pos_emb|rotary_emb)\.inv_freq$")
"""Buffers that some files carry and every reader recomputes."""

_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


@dataclass(frozen=True)
class Piece:
    """Successive rows (outputs) of a stored module. `stop` is None where the piece is all rows."""

    module: str
    start: int = 0
    stop: int | None = None


def pieces(config: ModelConfig, module: str, stored: Container[str]) -> tuple[Piece, ...]:
    """Return the stored pieces of `module`, first rows first; none if it is not stored."""
    if module in stored:
        return (Piece(module),)
    if module.endswith("gate_up_proj"):  # GPTQModel stores the halves apart
        halves = [module.replace("gate_up_proj", half) for half in ("gate_proj", "up_proj")]
        if all(half in stored for half in halves):
            return tuple(Piece(half) for half in halves)
    native = _native_piece(config, module)
    return (native,) if native and native.module in stored else ()


def _native_piece(config: ModelConfig, module: str) -> Piece | None:
    if module in NATIVE:
        return Piece(NATIVE[module])
    layer = _LAYER.fullmatch(module)
    if not layer or layer[2] not in NATIVE_LAYER:
        return None
    native = f"transformer.encoder.layers.{layer[1]}.{NATIVE_LAYER[layer[2]]}"
    rows = _qkv_rows(config).get(layer[2])
    return Piece(native, *rows) if rows else Piece(native)


def _qkv_rows(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """The native query_key_value holds the rows of q, then k, then v."""
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    return {
        "self_attn.q_proj": (0, queries),
        "self_attn.k_proj": (queries, queries + keys),
        "self_attn.v_proj": (queries + keys, queries + 2 * keys),
    }
