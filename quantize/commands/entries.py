"""`glm4q list` and `glm4q rm`: what the store holds, and what it need not hold any more."""

import time
from typing import Annotated

import typer

from calculator.units import human_bytes
from glm4q.commands.options import store as option
from glm4q.terminal.screen.table import table_lines
from quantize.store.entries import PUBLISHED, Entry, Origin, disk_bytes, open_store

EXAMPLES = ("glm4q list --store models", "glm4q rm zai-org--glm-4-9b-chat-hf-int4")
COLUMNS = ("entry", "size", "variant", "quality", "last used")


def list_entries(store: option.Directory = None) -> None:
    """List the checkpoints of the store: size, variant, quality, and when each was used last."""
    opened = open_store(store)
    rows = [_row(entry) for entry in opened.entries()] + [
        (origin.name, "", _variant(origin), "not finished", "") for origin in opened.begun()
    ]
    if not rows:
        typer.echo(f"{opened.directory} has no entry; glm4q pull makes one")
        return
    for line in table_lines([COLUMNS, *rows]):
        typer.echo(line)


def rm(
    entry: Annotated[str, typer.Argument(help="The entry, or its source if it has no other.")],
    store: option.Directory = None,
) -> None:
    """Delete a checkpoint of the store, or what is left of one that was not finished."""
    name, freed = open_store(store).remove(entry)
    typer.echo(f"{name} is deleted: {human_bytes(freed)}")


def _row(entry: Entry) -> tuple[str, ...]:
    loss = entry.loss
    quality = "not measured" if loss is None else f"perplexity {loss.perplexity_change:+.1%}"
    used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.last_used))
    size = human_bytes(disk_bytes(entry.directory))
    return entry.name, size, _variant(entry.origin), quality, used


def _variant(origin: Origin | None) -> str:
    if origin is None:
        return "put there by hand"
    if origin.method == PUBLISHED:
        return origin.weights
    head = f", {origin.lm_head} head" if origin.lm_head != "bf16" else ""
    return f"{origin.weights} g{origin.group_size}{head}, {origin.method}"
