"""What `glm4q calc` is asked about: a preset by name, or a checkpoint directory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from calculator.architecture import Weight
from calculator.config import ModelConfig
from calculator.errors import OptionError
from calculator.formats import BF16, GROUP_SIZES, WeightFormat, refuse_unfit
from calculator.plan import assign_formats
from calculator.presets import PRESETS, find_preset
from calculator.stored import StoredModel

BITS = {"bf16": 16, "int8": 8, "int4": 4}


@dataclass(frozen=True)
class Subject:
    """A model with the format of each weight, and where these facts come from."""

    name: str
    config: ModelConfig
    formats: Mapping[Weight, WeightFormat]
    source: str


def find_subject(
    model: str, *, weights: str | None, group_size: str | None, lm_head: str | None
) -> Subject:
    """A preset or directory in the asked variant; options that are None leave what is published.

    Raises OptionError, ConfigError or CheckpointError.
    """
    preset = find_preset(model)
    if preset:
        return Subject(model, preset, _variant(preset, weights, group_size, lm_head), "config")
    directory = Path(model)
    if not directory.exists():
        raise OptionError(
            f"{model} is neither a directory nor one of the presets {', '.join(PRESETS)}"
        )
    stored = StoredModel.open(directory)
    letters = directory.resolve().name  # a name on disk may hold bytes that no terminal prints
    name = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in letters
    )
    if weights is None and group_size is None and lm_head is None:
        return Subject(name, stored.config, stored.formats(), "headers")
    if stored.is_quantized:
        raise OptionError(
            f"{model} is quantized already; weights, group size and lm head are what its files say"
        )
    return Subject(
        name, stored.config, _variant(stored.config, weights, group_size, lm_head), "config"
    )


def parse_format(weights: str, group_size: str, *, symmetric: bool = True) -> WeightFormat:
    """A weight format from the words of the command line. Raises OptionError."""
    if weights not in BITS:
        raise OptionError(f"weights must be one of {', '.join(BITS)}, not {weights}")
    known = {**{str(size): size for size in GROUP_SIZES}, "channel": None}
    if group_size not in known:
        raise OptionError(f"group size must be one of {', '.join(known)}, not {group_size}")
    bits = BITS[weights]
    if bits == 16:
        return BF16
    return WeightFormat(bits, known[group_size], zero_bits=0 if symmetric else bits)


def _variant(
    config: ModelConfig, weights: str | None, group_size: str | None, lm_head: str | None
) -> dict[Weight, WeightFormat]:
    if lm_head not in (None, "bf16", "int8"):
        raise OptionError(f"lm head must be bf16 or int8, not {lm_head}")
    group = "128" if group_size is None else group_size
    linear = parse_format("bf16" if weights is None else weights, group)
    head = parse_format("bf16" if lm_head is None else lm_head, group)
    if group_size is not None and not (linear.is_quantized or head.is_quantized):
        raise OptionError("group size is for int8 or int4, and neither is asked for")
    formats = assign_formats(config, linear, head)
    refuse_unfit(formats)
    return formats
