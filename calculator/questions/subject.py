"""The model of a question: a preset, a config.json, a checkpoint, or a Hugging Face id."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from calculator.dataclass import dataclass
from calculator.errors import CheckpointError, ConfigError, HubUnreachableError, OptionError
from calculator.json_files import read_json_object
from calculator.memory.scratch import ServedWeights
from calculator.memory.settings import Device
from calculator.model.architecture import Weight
from calculator.model.config import ModelConfig
from calculator.model.formats import (
    BITS,
    BITSANDBYTES,
    GROUP_SIZES,
    WeightFormat,
    assign_formats,
    parse_format,
    refuse_unfit,
)
from calculator.model.presets import PRESETS, find_preset
from calculator.options import one_of, printable

WEIGHTS = (*BITS, *BITSANDBYTES)
HEADS = ("bf16", "int8")


@dataclass(frozen=True)
class Variant:
    """How the weights are to be stored, in the words of the command line."""

    weights: str = "bf16"
    group_size: str = "128"
    lm_head: str = "bf16"

    def __post_init__(self) -> None:
        one_of("weights", self.weights, WEIGHTS)
        one_of("lm head", self.lm_head, HEADS)

    @property
    def linear(self) -> WeightFormat:
        if self.weights in BITSANDBYTES:
            return BITSANDBYTES[self.weights]
        return parse_format(self.weights, self.group_size)

    @property
    def head(self) -> WeightFormat:
        return parse_format(self.lm_head, self.group_size)

    def formats(self, config: ModelConfig) -> dict[Weight, WeightFormat]:
        """Return the format of every weight. Raises OptionError where a shape does not allow it."""
        formats = assign_formats(config, self.linear, self.head)
        refuse_unfit(formats)
        return formats

    def arguments(self) -> tuple[str, ...]:
        """Return the options that ask for this variant."""
        head = ("--lm-head", self.lm_head) if self.lm_head != "bf16" else ()
        return ("--weights", self.weights, *self.group_arguments(), *head)

    def group_arguments(self) -> tuple[str, ...]:
        """Return the option that asks for its groups."""
        return ("--group-size", self.group_size) if self.group_size != "128" else ()

    def __str__(self) -> str:
        head = f", {self.lm_head} head" if self.lm_head != "bf16" else ""
        return f"{self.linear}{head}"


@dataclass(frozen=True)
class Subject:
    """A model with the format of each weight, and where these facts come from."""

    name: str
    config: ModelConfig
    formats: Mapping[Weight, WeightFormat]
    source: str
    variant: Variant | None
    """None where the files are quantized already, and so cannot be stored otherwise."""
    served: Mapping[Device, ServedWeights] | None = None
    """How the kernels of a machine keep the weights; None where the machine is not known."""

    def with_variant(self, variant: Variant) -> "Subject":
        """Return this model in another variant. Raises OptionError where its shapes refuse."""
        formats = variant.formats(self.config)
        return replace(self, formats=formats, source="config", variant=variant, served=None)


def find_subject(
    model: str, *, weights: str | None, group_size: str | None, lm_head: str | None
) -> Subject:
    """Return the model in the asked variant; options that are None leave what is published.

    Raises OptionError, ConfigError, CheckpointError or SourceError.
    """
    variant = _variant(weights, group_size, lm_head)
    path = Path(model)
    if preset := find_preset(model):
        return Subject(model, preset, variant.formats(preset), "config", variant)
    # Readers of checkpoints are imported here: most questions are about presets.
    from calculator.checkpoint.gguf_file import is_gguf
    from calculator.checkpoint.kinds import what_it_is_instead

    if path.is_file() and not is_gguf(path):
        if reason := what_it_is_instead(path):
            raise CheckpointError(reason)
        config = _bare_config(path)
        name = printable(str(path.resolve().relative_to(path.resolve().parents[1])))
        return Subject(name, config, variant.formats(config), "config", variant)
    asked = any(option is not None for option in (weights, group_size, lm_head))
    if path.exists():
        from calculator.checkpoint.stored import StoredModel

        stored = StoredModel.open(path)
    elif "/" not in model:
        raise OptionError(
            f"{model} is neither a directory, a config.json, a Hugging Face id such as "
            f"THUDM/glm-4-9b-chat-hf nor one of the presets {', '.join(PRESETS)}"
        )
    else:
        # What reaches the Hub takes long to import, and most questions are about presets.
        from calculator.checkpoint.hub import refuse_path
        from calculator.checkpoint.remote import open_remote

        refuse_path(model)
        try:
            stored = open_remote(model)
        except HubUnreachableError as error:
            if (preset := _preset_of(model)) is None:
                raise
            import logging

            logging.getLogger(__name__).warning("%s; the preset of that name is used", error)
            return Subject(model, preset, variant.formats(preset), "config", variant)
    name = printable(stored.name if path.exists() else model)
    if not asked:
        kept = None if stored.is_quantized else variant
        return Subject(name, stored.config, stored.formats, "headers", kept)
    if stored.is_quantized:
        raise OptionError(
            f"{model} is quantized already; weights, group size and lm head are what its files say"
        )
    return Subject(name, stored.config, variant.formats(stored.config), "config", variant)


def _preset_of(repository: str) -> ModelConfig | None:
    """The preset whose name a repository has; the suffix of transformers' files may follow it."""
    name = repository.rpartition("/")[2]
    return find_preset(name) or find_preset(name.removesuffix("-hf"))


def _bare_config(path: Path) -> ModelConfig:
    """Read a config.json without weights. Raises ConfigError where they are quantized."""
    config = ModelConfig.from_json(path)
    raw = read_json_object(path)
    if raw.get("quantization_config") or raw.get("compression_config"):
        raise ConfigError(
            f"{path} belongs to a quantized checkpoint, whose bytes only its headers tell; "
            "name its directory"
        )
    return config


def _variant(weights: str | None, group_size: str | None, lm_head: str | None) -> Variant:
    variant = Variant(
        "bf16" if weights is None else weights,
        "128" if group_size is None else group_size,
        "bf16" if lm_head is None else lm_head,
    )
    by_groups = variant.weights in ("int8", "int4") or variant.lm_head == "int8"
    one_of("group size", variant.group_size, (*map(str, GROUP_SIZES), "channel"))
    if group_size is not None and not by_groups:
        raise OptionError("group size is for int8 or int4, and neither is asked for")
    return variant
