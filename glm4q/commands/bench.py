"""`glm4q bench`: how fast a checkpoint runs here, and whether it holds what is planned."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calculator.errors import OptionError
from calculator.memory.workspace import PREFILL_CHUNK
from calculator.options import one_of, parse_tokens

if TYPE_CHECKING:
    from calculator.checkpoint.stored import StoredModel
    from calculator.report.sheets import Sheet

CACHE = Path(".cache") / "glm4q" / "synthetic"
"""In the user's home: where synthetic checkpoints lie that no directory was named for."""
WIDTH = 200
"""Of tables in a file or a pipe, where nothing is cut off."""


def bench(
    model: Annotated[
        Path | None,
        typer.Argument(help="A checkpoint directory; with --synthetic, where it is made and kept."),
    ] = None,
    synthetic: Annotated[
        str | None,
        typer.Option(help="Random weights in the shapes of a preset, such as glm-4-9b-chat."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Of --synthetic: bf16, int8 or int4, which it is if not given."),
    ] = None,
    group_size: Annotated[
        str | None, typer.Option(help="Of --synthetic: 32, 64, 128 or channel; 128 if not given.")
    ] = None,
    lm_head: Annotated[
        str | None, typer.Option(help="Of --synthetic: bf16 or int8; bf16 if not given.")
    ] = None,
    layers: Annotated[
        int | None, typer.Option(help="Of --synthetic: so many layers, not all.", min=1)
    ] = None,
    depths: Annotated[
        str | None,
        typer.Option(help="Tokens in the cache before: 0,4k,32k, if the context has room."),
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="Tokens of context; as the depths need if not given.")
    ] = None,
    prompt: Annotated[int, typer.Option(help="Tokens of the prompt that is run in.")] = 512,
    decode: Annotated[int, typer.Option(help="Tokens decoded one by one.")] = 32,
    runs: Annotated[int, typer.Option(help="Of which the median is told.")] = 3,
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    kernel: Annotated[str, typer.Option(help="auto, or a kernel by name.")] = "auto",
    kv: Annotated[
        str | None, typer.Option(help="fp32, bf16, int8, k8v4 or int4; the dtype if not given.")
    ] = None,
    prefill_chunk: Annotated[
        int, typer.Option(help="Prompt tokens in one forward pass.")
    ] = PREFILL_CHUNK,
    as_json: Annotated[bool, typer.Option("--json", help="Answer as JSON.")] = False,
) -> None:
    """Measure speed at several depths, load time, memory, and the share of bandwidth reached."""
    from calculator.questions.fit import Wish
    from glm4q.measure import report
    from glm4q.measure.speed import measure
    from glm4q.measure.workload import parse_depths, plan_workload
    from glm4q.planning.devices import dtype_name
    from glm4q.planning.machine import choose_machine
    from glm4q.planning.plan import plan_run

    machine = choose_machine(device, dtype, kernel)
    asked = parse_depths(depths) if depths is not None else None
    room = parse_tokens(context) if context is not None else None
    shape = {"weights": weights, "group size": group_size, "lm head": lm_head, "layers": layers}
    stored = _open(model, synthetic, {name: each for name, each in shape.items() if each})
    longest = stored.config.max_position_embeddings
    workload = plan_workload(
        asked, longest if room is None else room, prompt=prompt, decode=decode, runs=runs
    )
    wish = Wish(
        context=workload.context if room is None else room,
        kv=dtype_name(machine.dtype) if kv is None else kv,
        prefill_chunk=prefill_chunk,
    )
    plan = plan_run(stored, machine, wish, reserve=0).question.plan
    with _status() as progress:
        found = measure(stored, workload, plan, machine, progress=progress)
    name = str(stored.directory)
    if as_json:
        import json

        answer = report.record(found, name, machine)
        typer.echo(json.dumps({**answer, "random_weights": synthetic is not None}, indent=2))
    else:
        title = name if synthetic is None else f"{name}, random weights"
        _show(title, report.sheets(found), report.sentences(found, machine))


def _open(model: Path | None, synthetic: str | None, shape: dict[str, Any]) -> "StoredModel":
    """The checkpoint, or the synthetic one of that shape. Raises OptionError."""
    from calculator.checkpoint.stored import StoredModel

    if synthetic is not None:
        return _open_synthetic(model, synthetic, shape)
    if shape:
        raise OptionError(f"{next(iter(shape))} is of --synthetic; a checkpoint is what it is")
    if model is None:
        raise OptionError("name a checkpoint directory, or a preset after --synthetic")
    return StoredModel.open(model)


def _open_synthetic(model: Path | None, preset: str, shape: dict[str, Any]) -> "StoredModel":
    from dataclasses import replace

    from calculator.model.presets import PRESETS, find_preset
    from calculator.questions.subject import BITS, Variant
    from glm4q.measure.synthetic import open_synthetic

    config = find_preset(preset)
    if config is None:
        raise OptionError(f"synthetic must be one of {', '.join(PRESETS)}, not {preset}")
    one_of("weights", weights := shape.get("weights", "int4"), tuple(BITS))
    variant = Variant(weights, shape.get("group size", "128"), shape.get("lm head", "bf16"))
    config = replace(config, num_hidden_layers=shape.get("layers", config.num_hidden_layers))
    name = f"{preset.lower()} {variant} {config.num_hidden_layers} layers"
    directory = Path.home() / CACHE / name.replace(",", "").replace(" ", "-")
    with _status() as progress:
        progress("making random weights")
        return open_synthetic(model or directory, config, variant.formats(config))


@contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """Tell on stderr what is being done, while it is, where that is a terminal."""
    from rich.console import Console

    with Console(file=sys.stderr).status("") as status:
        yield status.update


def _show(name: str, sheets: "list[Sheet]", sentences: list[str]) -> None:
    from rich.console import Console

    from calculator.report.terminal import sheet_as_table

    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else WIDTH)
    console.print(name, style="bold", soft_wrap=True)
    for sheet in sheets:
        console.print("", sheet.title, sep="\n", style="bold")
        console.print(sheet_as_table(sheet))
    console.print("", *sentences, sep="\n", soft_wrap=True)
