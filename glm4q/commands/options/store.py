"""Options of the commands that find a model by its name, and make its checkpoint if need be."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from glm4q.commands.options import variant
from glm4q.commands.options.declare import option

MAKING = "A model that is not there yet"
MADE = ("bf16", "int8", "int4")
MODEL_HELP = (
    "A checkpoint directory; or an entry of the store, a preset such as glm-4-9b-chat or a Hugging "
    "Face id, whose checkpoint is made once."
)
STORE_HELP = "The directory of checkpoints that are made by name."
BEST = "the best that fits"


def _making(text: str, *names: str, default: str | bool = True) -> Any:
    return option(text, *names, topic=MAKING, default=default)


Model = Annotated[str, typer.Argument(help=MODEL_HELP)]
Directory = Annotated[Path | None, _making(STORE_HELP, "--store", default="$XDG_DATA_HOME/glm4q")]
Weights = Annotated[str | None, variant.weights(BEST, MADE, topic=MAKING)]
GroupSize = Annotated[str | None, variant.group_size(topic=MAKING)]
LmHead = Annotated[str | None, variant.lm_head(BEST, topic=MAKING)]
Gpu = Annotated[
    str | None, _making("Choose for this card, such as 4060.", default="this machine's")
]
Vram = Annotated[
    str | None,
    _making("Choose for a card of this memory: 11.5 (GiB), 8192M.", default="what is free"),
]
Quick = Annotated[
    bool, _making("Round to INT4 without samples: quicker, and it loses more.", "--quick")
]
KeepSource = Annotated[
    bool, _making("Keep the source's files in the store as well.", "--keep-source")
]
Yes = Annotated[bool, _making("Make it without asking.", "--yes", "-y")]


@dataclass
class Making:
    """How a checkpoint is made where only a model's name is given."""

    store: Directory = None
    weights: Weights = None
    group_size: GroupSize = None
    lm_head: LmHead = None
    gpu: Gpu = None
    vram: Vram = None
    quick: Quick = False
    keep_source: KeepSource = False
    yes: Yes = False
