"""Widths of single matrices in config.json, as the readers of GPTQ's files look them up."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from calculator.checkpoint.stored import StoredModel
from calculator.model.config import ModelConfig
from calculator.model.formats import WeightFormat
from calculator.questions.widths.slots import Widths
from glm4q.cli import main
from quantize.output.companions import gptq_settings
from quantize.pipeline import quantize_checkpoint
from quantize.recipe import recipe_of_widths
from tests import tiny


def vllm_width(settings: dict[str, Any], module: str) -> int:
    """The bits that vLLM takes for a module, by the rule of its source.

    `get_dynamic_override` and `override_config` in quantization/utils/gptq_utils.py of
    https://github.com/vllm-project/vllm at 02239f5: the first pattern that matches decides, and a
    pattern with "-:" leaves the module unquantized.
    """
    for pattern, rule in settings.get("dynamic", {}).items():
        if pattern.startswith("-:"):
            if re.match(pattern.removeprefix("-:"), module):
                return 16
        elif re.match(pattern.removeprefix("+:"), module):
            return rule.get("bits", settings["bits"])
    return settings["bits"]


def _bits(config: ModelConfig) -> dict[str, int]:
    widths = Widths(config, "32")
    bits = {slot.name: (8, 4, 16, 4, 4)[n % 5] for n, slot in enumerate(widths.slots)}
    return {**bits, "lm_head": 8}


def test_vllm_finds_the_width_of_every_module_and_of_those_that_it_joins() -> None:
    # Layers 1 and 11: a pattern that only began alike would take one for the other.
    config = replace(tiny.BASE, vocab_size=96, num_hidden_layers=12)
    widths, bits = Widths(config, "32"), _bits(config)
    settings = json.loads(json.dumps(gptq_settings(widths.formats(bits))))
    assert settings["lm_head"] is True
    for slot in widths.slots:
        assert vllm_width(settings, slot.name) == bits[slot.name], slot.name
        for weight in slot.weights:
            assert vllm_width(settings, weight.module) == bits[slot.name]


def test_q_and_k_of_two_widths_are_not_given_the_name_of_both() -> None:
    """vLLM has no way to read them; it must not take them for something else."""
    config = replace(tiny.BASE, vocab_size=96)
    formats = Widths(config, "32").formats({**dict.fromkeys(_bits(config), 4), "lm_head": 16})
    for weight in formats:
        if weight.module.endswith("0.self_attn.q_proj"):
            formats[weight] = WeightFormat(8, 32)
    assert "qkv_proj" not in json.dumps(gptq_settings(formats)["dynamic"])


def test_a_checkpoint_of_mixed_widths_is_whole_and_read_as_it_was_asked(
    tiny_vocabulary_checkpoint: Path, tmp_path: Path
) -> None:
    source = StoredModel.open(tiny_vocabulary_checkpoint)
    bits = _bits(source.config)
    recipe = recipe_of_widths(Widths(source.config, "32"), bits, "rtn")
    quantize_checkpoint(source, tmp_path / "made", recipe)
    made = StoredModel.open(tmp_path / "made")
    assert made.formats == Widths(source.config, "32").formats(bits)
    check = ["verify", str(tmp_path / "made"), "--source", str(tiny_vocabulary_checkpoint)]
    assert main(check) == 0
