"""Options that name a variant of a model, with what each command does where one is not given."""

from collections.abc import Iterable
from typing import Any

from calculator.model.formats import BITS, BITSANDBYTES, KV_FORMATS
from calculator.questions.subject import HEADS
from glm4q.commands.options.declare import MEMORY, PLACES, SIZES, VARIANT, choice


def weights(
    default: str, names: Iterable[str] = (*BITS, *BITSANDBYTES), *, topic: str = VARIANT
) -> Any:
    """--weights: the format of the layers' matrices."""
    return choice("The format of the layers", names, topic, default=default)


def group_size(default: str = "128", *, topic: str = VARIANT) -> Any:
    """--group-size: how many inputs share a scale."""
    return choice("Inputs that share a scale", SIZES, topic, default=default)


def lm_head(default: str, *, topic: str = VARIANT) -> Any:
    """--lm-head: the format of the output head."""
    return choice("The format of the output head", HEADS, topic, default=default)


def kv(default: str, names: Iterable[str] = KV_FORMATS, *, topic: str = VARIANT) -> Any:
    """--kv: the format of the KV cache. k8v4 keeps keys in INT8 and values in INT4."""
    return choice("The format of the KV cache", names, topic, default=default)


def embedding(default: str, *, topic: str = MEMORY) -> Any:
    """--embedding: where the rows of the embedding are kept."""
    return choice("Where the embedding's rows are kept", PLACES, topic, default=default)
