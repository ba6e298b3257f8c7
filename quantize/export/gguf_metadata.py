"""What a GGUF file says of a model: its shape, its tokenizer, its chat template.

Keys as llama.cpp's own converter writes them for the architectures `chatglm` and `glm4`.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError, TokenizerError
from calculator.json_files import MAX_TOKENIZER_BYTES, read_json_object
from calculator.model.config import ModelConfig
from calculator.model.rope import RopeScaling
from glm4q.chat.template import find_source
from glm4q.text.tokenizer import Tokenizer, read_settings

if TYPE_CHECKING:
    from gguf import GGUFWriter

ARCHITECTURES = {"glm": "chatglm", "glm4": "glm4"}
GLM4_PATTERN = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
"""What GLM-4's pre-tokenizer starts with."""
GLM4_TEMPLATE = (
    "[gMASK]<sop>{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def refuse_unfit_shape(config: ModelConfig) -> None:
    """Raise OptionError where llama.cpp's architecture takes for granted what is not so."""
    width = config.num_attention_heads * config.head_dim
    if config.model_type == "glm" and width != config.hidden_size:
        raise OptionError(
            f"{config.num_attention_heads} heads of {config.head_dim} are not hidden_size "
            f"{config.hidden_size}, as GGUF's chatglm wants them"
        )
    scaling = config.rope_scaling
    if scaling and scaling.rope_type == "yarn" and not scaling.has_usual_settings:
        raise OptionError("GGUF cannot say YaRN settings other than the factor")


def add_metadata(writer: "GGUFWriter", stored: StoredModel, bits: int) -> None:
    """Write everything but the tensors. Raises TokenizerError or ConfigError."""
    from gguf import LlamaFileType

    writer.add_name(stored.name)
    writer.add_quantization_version(2)
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_0 if bits == 4 else LlamaFileType.MOSTLY_Q8_0)
    _add_shape(writer, stored.config)
    _add_tokenizer(writer, stored)


def _add_shape(writer: "GGUFWriter", config: ModelConfig) -> None:
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.rotary_dim)
    writer.add_rope_freq_base(config.rope_theta)
    _add_scaling(writer, config.rope_scaling)


def _add_scaling(writer: "GGUFWriter", scaling: RopeScaling | None) -> None:
    from gguf import RopeScalingType

    if scaling is None:
        return
    writer.add_rope_scaling_type(RopeScalingType(scaling.rope_type))
    writer.add_rope_scaling_factor(scaling.factor)
    writer.add_rope_scaling_orig_ctx_len(scaling.original_positions)


def _add_tokenizer(writer: "GGUFWriter", stored: StoredModel) -> None:
    Tokenizer.for_model(stored.directory, stored.config)  # raises where a part is not well formed
    path = stored.directory / "tokenizer.json"
    raw = read_json_object(path, limit=MAX_TOKENIZER_BYTES, error=TokenizerError)
    model = raw.get("model", {})
    if model.get("type") != "BPE":
        raise TokenizerError(f"{path} is no BPE tokenizer, which GGUF's gpt2 model needs")
    tokens, types = _tokens(raw, stored.config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(path, raw))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(
        [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    )
    writer.add_add_bos_token(False)
    stops = [token for token in stored.config.eos_token_ids if token < len(tokens)]
    adders = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    for add, token in zip(adders, stops, strict=False):
        add(token)
    if template := _template(stored.directory, tokens):
        writer.add_chat_template(template)


def _tokens(raw: dict[str, Any], vocabulary: int) -> tuple[list[str], list[int]]:
    """The text and the type of each token id."""
    from gguf import TokenType

    tokens = [f"[PAD{token}]" for token in range(vocabulary)]
    types = [int(TokenType.UNUSED)] * vocabulary
    for text, token in raw["model"]["vocab"].items():
        tokens[token], types[token] = text, int(TokenType.NORMAL)
    for added in raw.get("added_tokens", []):
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        tokens[added["id"]], types[added["id"]] = added["content"], int(kind)
    return tokens, types


def _pre_tokenizer(path: Path, raw: dict[str, Any]) -> str:
    """llama.cpp knows how text is split before BPE by a name only."""
    split = json.dumps(raw.get("pre_tokenizer"), ensure_ascii=False)
    if GLM4_PATTERN in split:
        return "glm4"
    if '"Digits"' in split and '"ByteLevel"' in split:
        return "smollm"
    raise TokenizerError(f"{path} splits text in a way that has no name in GGUF")


def _template(directory: Path, tokens: list[str]) -> str | None:
    template = find_source(directory, read_settings(directory / "tokenizer_config.json"))
    return template or (GLM4_TEMPLATE if "[gMASK]" in tokens else None)
