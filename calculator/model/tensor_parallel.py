"""The part of a model that each of several GPUs holds when its matrices are split among them.

The split is vLLM's: attention heads, feed-forward columns, vocabulary rows. Norms are on every GPU,
and where there are fewer key/value heads than GPUs, each head is on several.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import ceil

from calculator.errors import OptionError
from calculator.model.architecture import Weight, weights
from calculator.model.config import ModelConfig
from calculator.model.formats import WeightFormat, refuse_unfit

MAX_GPUS = 64


def split(
    config: ModelConfig, formats: Mapping[Weight, WeightFormat], gpus: int
) -> tuple[ModelConfig, dict[Weight, WeightFormat]]:
    """The config and formats of one GPU's part. Raises OptionError where it cannot be split."""
    part = replace(
        config,
        num_attention_heads=_divided(config, "num_attention_heads", gpus),
        intermediate_size=_divided(config, "intermediate_size", gpus),
        num_key_value_heads=_key_value_heads(config, gpus),
        vocab_size=ceil(config.vocab_size / gpus / 64) * 64,  # vLLM pads vocabularies to 64 rows
        tie_word_embeddings=all(weight.role != "head" for weight in formats),
    )
    by_name = {weight.name: weight_format for weight, weight_format in formats.items()}
    held = {weight: by_name[weight.name] for weight in weights(part)}
    try:
        refuse_unfit(held)
    except OptionError as error:
        raise OptionError(f"on {gpus} GPUs, each with its part of the model: {error}") from None
    return part, held


def notes(config: ModelConfig, gpus: int) -> tuple[str, ...]:
    """Say in words what is whole on every GPU."""
    if gpus == 1:
        return ()
    heads = config.num_key_value_heads
    copies = gpus // heads
    if copies < 2:
        return ("norms are on every GPU; the rest is split",)
    return (
        f"norms are on every GPU, and the {heads} key/value heads cannot be split {gpus} ways: "
        f"each stands on {copies} GPUs, with its cache",
    )


def _divided(config: ModelConfig, name: str, gpus: int) -> int:
    whole: int = getattr(config, name)
    if not 1 <= gpus <= MAX_GPUS:
        raise OptionError(f"gpus must be 1 to {MAX_GPUS}, not {gpus}")
    if whole % gpus:
        raise OptionError(f"gpus must divide the model's {name} {whole}, and {gpus} does not")
    return whole // gpus


def _key_value_heads(config: ModelConfig, gpus: int) -> int:
    heads = config.num_key_value_heads
    if heads % gpus and gpus % heads:
        raise OptionError(
            f"gpus must divide or be a multiple of the model's {heads} key/value heads, not {gpus}"
        )
    return max(heads // gpus, 1)
