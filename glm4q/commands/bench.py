"""`glm4q bench`: how fast a checkpoint runs here, and whether it holds what is planned."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from calculator.checkpoint.stored import StoredModel
from calculator.errors import OptionError
from calculator.memory.workspace import PREFILL_CHUNK
from calculator.model.formats import BITS
from calculator.model.presets import PRESETS, find_preset
from calculator.options import one_of, parse_tokens
from calculator.questions.fit import Wish
from calculator.questions.subject import Variant
from calculator.report.sheets import Sheet
from calculator.report.terminal import sheet_as_table
from glm4q.commands.options import bench as option
from glm4q.commands.options import compute, output
from glm4q.commands.process.signals import stops_stay_stops
from glm4q.measure import report
from glm4q.measure.speed import measure
from glm4q.measure.synthetic import has_random_weights, open_synthetic
from glm4q.measure.workload import parse_depths, plan_workload
from glm4q.planning.devices import dtype_name
from glm4q.planning.machine import choose_machine
from glm4q.planning.plan import plan_run
from glm4q.terminal.screen.console import Console
from glm4q.terminal.user_directories import cache_directory

WIDTH = 200
"""Columns of tables in a file or a pipe, so that nothing is cut off."""
EXAMPLES = (
    "glm4q bench glm-4-9b-chat-int4 --depths 0,8k --kv int8",
    "glm4q bench --synthetic glm-4-9b-chat --weights int4 --layers 4",
)


@stops_stay_stops()
def bench(
    model: option.Model = None,
    *,
    synthetic: option.Synthetic = None,
    weights: option.Weights = None,
    group_size: option.GroupSize = None,
    lm_head: option.LmHead = None,
    layers: option.Layers = None,
    depths: option.Depths = None,
    context: option.Context = None,
    prompt: option.Prompt = 512,
    decode: option.Decode = 32,
    runs: option.Runs = 3,
    computing: compute.Compute,
    kv: option.KV = None,
    prefill_chunk: option.PrefillChunk = PREFILL_CHUNK,
    as_json: output.Json = False,
) -> None:
    """Measure speed at several depths, load time, memory, and the share of bandwidth reached."""
    machine = choose_machine(**vars(computing))
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
        draft_tokens=0,  # the speed of decoding is measured, not that of repeating one token
    )
    run_plan = plan_run(stored, machine, wish, reserve=0)
    with _status() as progress:
        measured = measure(stored, workload, run_plan, machine, progress=progress)
    name = str(stored.directory)
    # One made before it was marked is known by the option alone.
    is_random = synthetic is not None or has_random_weights(stored)
    if as_json:
        answer = report.record(measured, name, machine)
        typer.echo(json.dumps({**answer, "random_weights": is_random}, indent=2))
    else:
        title = f"{name}, random weights" if is_random else name
        _show(title, report.sheets(measured), report.sentences(measured, machine))


def _open(model: Path | None, synthetic: str | None, shape: dict[str, Any]) -> StoredModel:
    """Open the checkpoint, or the synthetic one of that shape. Raises OptionError."""
    if synthetic is not None:
        return _open_synthetic(model, synthetic, shape)
    if shape:
        name = next(iter(shape)).replace(" ", "-")
        raise OptionError(
            f"--{name} needs --synthetic: a checkpoint has its own {next(iter(shape))}"
        )
    if model is None:
        raise OptionError("name a checkpoint directory, or a preset after --synthetic")
    return StoredModel.open(model)


def _open_synthetic(model: Path | None, preset: str, shape: dict[str, Any]) -> StoredModel:
    config = find_preset(preset)
    if config is None:
        raise OptionError(f"synthetic must be one of {', '.join(PRESETS)}, not {preset}")
    one_of("weights", weights := shape.get("weights", "int4"), tuple(BITS))
    variant = Variant(weights, shape.get("group size", "128"), shape.get("lm head", "bf16"))
    layers = shape.get("layers", config.num_hidden_layers)
    if layers > config.num_hidden_layers:
        raise OptionError(
            f"layers must be at most {preset}'s {config.num_hidden_layers}, not {layers}"
        )
    config = replace(config, num_hidden_layers=layers)
    name = f"{preset.lower()} {variant} {config.num_hidden_layers} layers"
    directory = cache_directory() / "synthetic" / name.replace(",", "").replace(" ", "-")
    with _status() as progress:
        progress("making random weights")
        return open_synthetic(model or directory, config, variant.formats(config))


@contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """Show on stderr what is being done, while it is done, if that is a terminal."""
    with Console(file=sys.stderr).status("") as status:
        yield status.update


def _show(name: str, sheets: list[Sheet], sentences: list[str]) -> None:
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else WIDTH)
    console.print(name, style="bold", soft_wrap=True)
    for sheet in sheets:
        console.print("", sheet.title, sep="\n", style="bold")
        console.print(sheet_as_table(sheet))
    console.print("", *sentences, sep="\n", soft_wrap=True)
