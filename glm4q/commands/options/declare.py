"""How options are declared: the topics that --help groups them by, and options of common kinds.

Choices come from the registries that the program itself reads. Nothing here imports torch.
"""

from collections.abc import Iterable
from typing import Any

import typer

from calculator.model.formats import GROUP_SIZES

VARIANT, MEMORY, ANSWER = "Weights and cache", "Memory", "Answer"
MACHINE, SAMPLING, CALIBRATION = "Machine", "Sampling", "Calibration and quality"
CHECKING = "Checking the plan"
"""Topics by which --help groups options."""

SIZES = (*map(str, GROUP_SIZES), "channel")
PLACES = ("gpu", "host")
CHUNK_HELP = "Prompt tokens in one forward pass"


def listed(names: Iterable[str]) -> str:
    """Join names as a sentence does.

    >>> listed(["bf16", "int8", "int4"])
    'bf16, int8 or int4'
    """
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def option(
    text: str, *names: str, topic: str | None = None, default: str | bool = True, **more: Any
) -> Any:
    """Declare an option.

    names: the spellings, where the parameter's name is not the only one.
    default: what --help shows for an option that is not given: True shows the signature's default.
    """
    return typer.Option(*names, help=text, show_default=default, rich_help_panel=topic, **more)


def choice(text: str, names: Iterable[str], topic: str, *, default: str | bool = True) -> Any:
    """Declare an option with a few known values, which --help lists and the shell completes."""
    known = tuple(names)

    def matching(incomplete: str) -> list[str]:
        return [name for name in known if name.startswith(incomplete)]

    text = f"{text}: {listed(known)}."
    return option(text, topic=topic, default=default, autocompletion=matching)


def size(text: str, *, default: str | bool = True) -> Any:
    """Declare an option that is an amount of memory."""
    return option(f"{text}, in GiB (1.5) or MiB (600M).", topic=MEMORY, default=default)


def tokens(text: str, topic: str, *, default: str | bool = True) -> Any:
    """Declare an option that is a number of tokens."""
    return option(f"{text}: 8192, 32k, 128k.", topic=topic, default=default)
