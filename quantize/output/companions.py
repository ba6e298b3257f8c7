"""The small files beside the weights: config, tokenizer, template, generation settings."""

import json
import logging
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from calculator.checkpoint.stored import StoredModel
from calculator.errors import Glm4qError
from calculator.json_files import read_json_object
from calculator.model.architecture import Weight
from calculator.model.config import ModelConfig
from calculator.model.formats import WeightFormat
from glm4q import __version__
from glm4q.chat.template import ChatTemplate, find_source
from glm4q.text.generation_config import read_sampling_params, read_stop_token_ids
from glm4q.text.tokenizer import TOKENIZER_FILES, Tokenizer, read_settings

logger = logging.getLogger(__name__)

FUSED = ("q_proj", "k_proj", "v_proj")
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
    quantization: Mapping[str, Any],
) -> None:
    """Write config.json, GPTQ's own file beside it, and carry over what the source has.

    Raises TokenizerError where the source's tokenizer cannot be read or is another model's.
    """
    _check_companions(stored)
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
    if quantization["quant_method"] == "gptq":
        _write_json(directory / "quantize_config.json", quantization)
    for name in CARRIED:
        if (stored.directory / name).is_file():
            shutil.copyfile(stored.directory / name, directory / name)
    _convert_tokenizer(directory)


def _check_companions(stored: StoredModel) -> None:
    """Refuse a tokenizer that no reader of the output could use; warn of what only chat needs.

    Raises TokenizerError.
    """
    if not has_tokenizer(stored.directory):
        logger.warning(
            "%s has no tokenizer, and so the output has none: chat will not run it",
            stored.directory,
        )
        return
    tokenizer = Tokenizer.for_model(stored.directory, stored.config)
    read_settings(stored.directory / "tokenizer_config.json")  # the output has a changed copy
    try:
        check_chat_files(stored, tokenizer)
    except Glm4qError as error:
        logger.warning("%s; the output gets this file as it is, and chat refuses it", error)


def has_tokenizer(directory: Path) -> bool:
    """Whether one of the files is there that a tokenizer is read from."""
    return any((directory / name).is_file() for name in TOKENIZER_FILES)


def check_chat_files(stored: StoredModel, tokenizer: Tokenizer) -> None:
    """Read what chat needs beside weights and tokenizer: the template and generation settings.

    Raises Glm4qError where chat would refuse one of them.
    """
    directory = stored.directory
    if find_source(directory, read_settings(directory / "tokenizer_config.json")):
        ChatTemplate.from_directory(directory, tokenizer.control_tokens)
    read_sampling_params(directory)
    read_stop_token_ids(directory, stored.config)


def gptq_settings(formats: Mapping[Weight, WeightFormat]) -> dict[str, Any]:
    """GPTQ v1's settings, under the names that AutoGPTQ, GPTQModel, vLLM and transformers read."""
    act_order = any(weight_format.act_order for weight_format in formats.values())
    # Readers believe desc_act for all modules, and the order of each is in its g_idx.
    formats = {each: replace(kind, act_order=False) for each, kind in formats.items()}
    linear = usual_format(formats)
    heads = [weight_format for weight, weight_format in formats.items() if weight.role == "head"]
    settings: dict[str, Any] = {
        "quant_method": "gptq",
        "checkpoint_format": "gptq",
        "bits": linear.bits,
        "group_size": linear.group_size or -1,
        "sym": linear.symmetric,
        "desc_act": act_order,
        "lm_head": any(weight_format.is_quantized for weight_format in heads),
        "pack_dtype": "int32",
        "meta": {"quantizer": [f"glm4q:{__version__}"]},
    }
    if dynamic := dict(_differing(linear, formats)):
        settings["dynamic"] = dynamic
    return settings


def usual_format(formats: Mapping[Weight, WeightFormat]) -> WeightFormat:
    """The format of most linears; a quantized one if there is any."""
    kinds = Counter(
        weight_format for weight, weight_format in formats.items() if weight.role == "linear"
    )
    return max(kinds, key=lambda weight_format: (weight_format.is_quantized, kinds[weight_format]))


def _differing(
    linear: WeightFormat, formats: Mapping[Weight, WeightFormat]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a pattern of the modules that differ, and their settings.

    GPTQModel and vLLM take the first pattern that matches the beginning of a module's name
    (https://github.com/vllm-project/vllm, quantization/utils/gptq_utils.py).
    """
    modules: dict[WeightFormat, list[str]] = {}
    for weight, weight_format in formats.items():
        differs = weight_format != linear and (
            weight_format.is_quantized or weight.role == "linear"
        )
        if differs:
            modules.setdefault(weight_format, []).append(weight.module)
    for weight_format, names in modules.items():
        escaped = list(map(re.escape, _with_fused(names)))
        pattern = f"^(?:{'|'.join(escaped)})$" if len(escaped) > 1 else f"^{escaped[0]}$"
        if weight_format.is_quantized:
            settings: dict[str, Any] = {
                "bits": weight_format.bits,
                "group_size": weight_format.group_size or -1,
            }
            # Where a rule says it, `sym` cannot be believed for all, and zero points must be read.
            if weight_format.symmetric != linear.symmetric:
                settings["sym"] = weight_format.symmetric
            yield f"+:{pattern}", settings
        else:
            yield f"-:{pattern}", {}


def _with_fused(modules: list[str]) -> Iterator[str]:
    """Yield the modules, and behind q, k and v of a layer the one module that vLLM makes of them.

    vLLM looks a module up by its own name alone, so it would take qkv_proj for the usual format.
    """
    listed = set(modules)
    for module in modules:
        yield module
        attention = module.removesuffix(FUSED[-1])
        if attention != module and listed.issuperset(attention + name for name in FUSED):
            yield f"{attention}qkv_proj"


def _convert_tokenizer(directory: Path) -> None:
    """Write tokenizer.json for a tokenizer of code and a tiktoken file: all readers know it."""
    if (directory / "tokenizer.model").is_file() and not (directory / "tokenizer.json").is_file():
        Tokenizer.from_directory(directory).save(directory)
    path = directory / "tokenizer_config.json"
    if "auto_map" in (settings := read_settings(path)):
        del settings["auto_map"]
        _write_json(path, {**settings, "tokenizer_class": "PreTrainedTokenizerFast"})


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
