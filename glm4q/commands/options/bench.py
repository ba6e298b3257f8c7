"""Options of `glm4q bench` alone: random weights, and what is measured."""

from pathlib import Path
from typing import Annotated, Any

import typer

from calculator.model.formats import BITS
from calculator.questions.subject import HEADS
from glm4q.commands.options import variant
from glm4q.commands.options.declare import (
    CHUNK_HELP,
    MEMORY,
    SIZES,
    choice,
    option,
    tokens,
)

SYNTHETIC, WORKLOAD = "Random weights", "What is measured"


def _workload(text: str, default: str | bool = True) -> Any:
    return option(text, topic=WORKLOAD, default=default)


Model = Annotated[
    Path | None,
    typer.Argument(
        help="A checkpoint directory. With --synthetic: where the random weights are kept.",
        show_default=False,
    ),
]
Synthetic = Annotated[
    str | None,
    option(
        "Measure random weights in the shapes of a preset, such as glm-4-9b-chat.", topic=SYNTHETIC
    ),
]
Weights = Annotated[str | None, choice("With --synthetic: format", BITS, SYNTHETIC, default="int4")]
GroupSize = Annotated[
    str | None,
    choice("With --synthetic: inputs that share a scale", SIZES, SYNTHETIC, default="128"),
]
LmHead = Annotated[
    str | None, choice("With --synthetic: format of the head", HEADS, SYNTHETIC, default="bf16")
]
Layers = Annotated[
    int | None,
    option("With --synthetic: the number of layers.", topic=SYNTHETIC, default="all", min=1),
]
Depths = Annotated[
    str | None,
    _workload(
        "Tokens in the cache before each measurement, separated by commas.",
        "0,4k,32k, as the context has room",
    ),
]
Context = Annotated[
    str | None, tokens("Tokens of context", WORKLOAD, default="what the depths need")
]
Prompt = Annotated[int, _workload("Tokens of each prompt.")]
Decode = Annotated[int, _workload("Tokens decoded one by one.")]
Runs = Annotated[int, _workload("Runs of each measurement; the median counts.")]
KV = Annotated[str | None, variant.kv("the type of activations")]
PrefillChunk = Annotated[int, option(f"{CHUNK_HELP}.", topic=MEMORY)]
