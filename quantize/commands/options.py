"""Options of the commands that make checkpoints and measure their quality."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from calculator.model.formats import BITSANDBYTES
from calculator.questions.solve import KV_CHOICES
from glm4q.commands.options import variant
from glm4q.commands.options.declare import (
    CALIBRATION,
    MEMORY,
    VARIANT,
    choice,
    option,
    size,
    tokens,
)
from quantize.recipe import METHODS

BUILT_IN = "a built-in one"
FILLING = "Filling a card"
METHOD_DEFAULT = "gptq for int4, rtn for int8"


def _calibration(text: str, *names: str, default: str | bool = True, **limits: int) -> Any:
    return option(text, *names, topic=CALIBRATION, default=default, **limits)


Source = Annotated[
    str, typer.Argument(metavar="SRC", help="A checkpoint directory or Hugging Face id.")
]
Checkpoint = Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint directory.")]
SourceCheckpoint = Annotated[
    Path | None,
    option("The checkpoint that it was made of: adds each weight's error.", default=False),
]
Weights = Annotated[str | None, variant.weights("the recipe's", ("int8", "int4", *BITSANDBYTES))]
GroupSize = Annotated[str | None, variant.group_size()]
Asymmetric = Annotated[
    bool, option("Store a zero point for each group.", "--asymmetric", topic=VARIANT)
]
LmHead = Annotated[str | None, variant.lm_head("bf16")]
Method = Annotated[
    str | None,
    choice("The method that chooses codes", METHODS, VARIANT, default=METHOD_DEFAULT),
]
RecipeFile = Annotated[
    Path | None,
    option(
        "A TOML file that says formats and method, layer by layer.", topic=VARIANT, default=False
    ),
]
CalibrationText = Annotated[
    Path | None,
    _calibration(
        "Samples: a file of text or JSON lines, or a directory of such files; self: the source "
        "writes them.",
        default=BUILT_IN,
    ),
]
Samples = Annotated[int, _calibration("The most samples.", min=1)]
Length = Annotated[int, _calibration("Tokens of a sample.", min=8)]
Seed = Annotated[int, _calibration("The seed that chooses the samples.", min=0, max=2**63 - 1)]
HeldOutText = Annotated[
    Path | None, _calibration("The text on which quality is measured.", default=BUILT_IN)
]
NoQuality = Annotated[
    bool, option("Do not measure quality at the end.", "--no-quality", topic=CALIBRATION)
]
Heal = Annotated[
    bool,
    _calibration("Train scales, norms and biases by the samples at the end.", "--heal/--no-heal"),
]
MaxMemory = Annotated[
    str | None, size("The most memory that the run may take", default="what it needs")
]
OffloadDir = Annotated[
    Path | None,
    option(
        "A directory for hidden states between layers.", topic=MEMORY, default="beside the output"
    ),
]


def _filling(text: str, *names: str, default: str | bool = False) -> Any:
    return option(text, *names, topic=FILLING, default=default)


ForCard = Annotated[
    str | None,
    _filling(
        'Give each matrix the width that fills this card, such as "RTX 3060"; auto asks the '
        "driver.",
        "--for",
    ),
]
Vram = Annotated[str | None, _filling("Fill a card of this memory: 11.5 (GiB), 8192M.")]
Context = Annotated[str | None, tokens("With --for: tokens of context", FILLING, default="8192")]
KV = Annotated[str | None, variant.kv("int8, with --for", KV_CHOICES, topic=FILLING)]
Reserve = Annotated[
    str | None,
    _filling("Memory left to other programs: 1 (GiB), 600M.", default="256M, as chat leaves it"),
]
Margin = Annotated[str, _filling("Memory of the card left free for safety.", default=True)]
SensitivityRecord = Annotated[
    Path | None,
    _filling("Take what each matrix costs from this checkpoint's sensitivity.json."),
]


@dataclass
class Card:
    """The card that a checkpoint is to fill, in the words of the command line."""

    gpu: ForCard = None
    vram: Vram = None
    context: Context = None
    kv: KV = None
    reserve: Reserve = None
    margin: Margin = "0"
    sensitivity: SensitivityRecord = None

    @property
    def is_named(self) -> bool:
        """Whether there is a card to fill."""
        return self.gpu is not None or self.vram is not None
