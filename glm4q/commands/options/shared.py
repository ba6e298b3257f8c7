"""Options that several commands have: one spelling and one help text each.

Choices come from the registries that the program itself reads. Nothing here imports torch.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from calculator.model.formats import BITS, BITSANDBYTES, GROUP_SIZES, KV_FORMATS
from calculator.questions.subject import HEADS

VARIANT, MEMORY, ANSWER = "Weights and cache", "Memory", "Answer"
MACHINE, SAMPLING, CALIBRATION = "Machine", "Sampling", "Calibration and quality"
CHECKING = "Checking the plan"
"""Topics by which --help groups options."""

SIZES = (*map(str, GROUP_SIZES), "channel")
PLACES = ("gpu", "host")
DTYPE_NAMES = ("auto", "bf16", "fp32")
DEVICE_NAMES = ("auto", "cuda", "cpu")


def listed(names: Iterable[str]) -> str:
    """Join names as a sentence does.

    >>> listed(["bf16", "int8", "int4"])
    'bf16, int8 or int4'
    """
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def choice(text: str, names: Iterable[str], panel: str, *, default: str | bool = True) -> Any:
    """An option with a few known values, which --help lists and the shell completes.

    default: what the option does where it is not given, unless the signature says it.
    """
    known = tuple(names)

    def matching(incomplete: str) -> list[str]:
        return [name for name in known if name.startswith(incomplete)]

    return typer.Option(
        help=f"{text}: {listed(known)}.",
        autocompletion=matching,
        show_default=default,
        rich_help_panel=panel,
    )


def weights(
    default: str, names: Iterable[str] = (*BITS, *BITSANDBYTES), *, panel: str = VARIANT
) -> Any:
    """--weights: the format of the layers' matrices."""
    return choice("The format of the layers", names, panel, default=default)


def group_size(default: str = "128", *, panel: str = VARIANT) -> Any:
    """--group-size: how many inputs share a scale."""
    return choice("Inputs that share a scale", SIZES, panel, default=default)


def lm_head(default: str, *, panel: str = VARIANT) -> Any:
    """--lm-head: the format of the output head."""
    return choice("The format of the output head", HEADS, panel, default=default)


def kv(default: str, names: Iterable[str] = KV_FORMATS, *, panel: str = VARIANT) -> Any:
    """--kv: the format of the KV cache. k8v4 keeps keys in INT8 and values in INT4."""
    return choice("The format of the KV cache", names, panel, default=default)


def embedding(default: str, *, panel: str = MEMORY) -> Any:
    """--embedding: where the rows of the embedding are kept."""
    return choice("Where the embedding's rows are kept", PLACES, panel, default=default)


def size(text: str, *, default: str | bool = True) -> Any:
    """An option that is an amount of memory."""
    return typer.Option(
        help=f"{text}, in GiB (1.5) or MiB (600M).", show_default=default, rich_help_panel=MEMORY
    )


def tokens(text: str, panel: str, *, default: str | bool = True) -> Any:
    """An option that is a number of tokens."""
    return typer.Option(
        help=f"{text}: 8192, 32k, 128k.", show_default=default, rich_help_panel=panel
    )


def gpu_layers(text: str) -> Any:
    """--gpu-layers: how many layers the GPU runs."""
    return typer.Option(help=text, show_default="all", rich_help_panel=MEMORY)


PREFILL_CHUNK = typer.Option(help="Prompt tokens in one forward pass.", rich_help_panel=MEMORY)
Device = Annotated[str, choice("The device that computes", DEVICE_NAMES, MACHINE)]
Dtype = Annotated[str, choice("The type of activations", DTYPE_NAMES, MACHINE)]
Json = Annotated[
    bool, typer.Option("--json", help="Answer in JSON, sizes in bytes.", rich_help_panel=ANSWER)
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace an output that exists already.")
]
Receipt = Annotated[
    Path | None,
    typer.Option(
        help="With --verify: write the comparison to this file, as JSON.", rich_help_panel=CHECKING
    ),
]
