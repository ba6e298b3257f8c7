"""The small files beside the weights: config, tokenizer, template, generation settings."""

import json
import shutil
from pathlib import Path
from typing import Any

from calculator.config import ModelConfig, read_json_object
from calculator.formats import WeightFormat
from calculator.stored import StoredModel
from glm4q import __version__
from glm4q.tokenizer import Tokenizer

CARRIED = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE",
)


def write_companions(
    stored: StoredModel,
    directory: Path,
    config: ModelConfig,
    linear: WeightFormat,
    head: WeightFormat,
) -> None:
    """Write config.json and quantize_config.json, and carry over what the source has."""
    quantization = quantization_config(linear, head)
    raw = read_json_object(stored.directory / "config.json")
    dtype = raw.get("dtype") or raw.get("torch_dtype") or "bfloat16"
    whole = {
        **config.to_dict(),
        "dtype": dtype,
        "torch_dtype": dtype,
        "pad_token_id": raw.get("pad_token_id"),
        "quantization_config": quantization,
    }
    _write_json(directory / "config.json", whole)
    _write_json(directory / "quantize_config.json", quantization)
    for name in CARRIED:
        if (stored.directory / name).is_file():
            shutil.copyfile(stored.directory / name, directory / name)
    _convert_tokenizer(directory)


def quantization_config(linear: WeightFormat, head: WeightFormat) -> dict[str, Any]:
    """GPTQ v1's settings, in the words that AutoGPTQ, GPTQModel, vLLM and transformers read."""
    settings: dict[str, Any] = {
        "quant_method": "gptq",
        "checkpoint_format": "gptq",
        "bits": linear.bits,
        "group_size": linear.group_size or -1,
        "sym": linear.symmetric,
        "desc_act": False,
        "lm_head": head.is_quantized,
        "pack_dtype": "int32",
        "meta": {"quantizer": [f"glm4q:{__version__}"]},
    }
    if head.is_quantized and head != linear:
        # GPTQModel's and vLLM's way to say that one module differs.
        differs = {"bits": head.bits, "group_size": head.group_size or -1, "sym": head.symmetric}
        settings["dynamic"] = {r"+:^lm_head$": differs}
    return settings


def _convert_tokenizer(directory: Path) -> None:
    """Give a tokenizer that came as code and a tiktoken file the form that all readers know."""
    if (directory / "tokenizer.model").is_file() and not (directory / "tokenizer.json").is_file():
        Tokenizer.from_directory(directory).save(directory)
    path = directory / "tokenizer_config.json"
    if path.is_file() and "auto_map" in (settings := read_json_object(path)):
        del settings["auto_map"]
        _write_json(path, {**settings, "tokenizer_class": "PreTrainedTokenizerFast"})


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
