"""`glm4q eval`: compare checkpoints by what they weigh and how well they predict a text."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from calculator.checkpoint.stored import StoredModel
from calculator.memory.making import WINDOW
from calculator.units import human_bytes
from glm4q.commands.options import compute, output
from glm4q.commands.options.declare import option
from glm4q.commands.process.signals import stops_stay_stops
from glm4q.kernels.choose import candidates
from glm4q.planning.devices import choose_device, choose_dtype
from quantize.quality.evaluate import Evaluation
from quantize.quality.evaluate import evaluate as evaluate_models
from quantize.quality.examine import read_held_out
from quantize.quality.predictor import ComputeSettings

WIDTH = 1000
"""Columns of the table in a file or a pipe, so that nothing is cut off."""
EXAMPLES = (
    "glm4q eval glm-4-9b-chat-int8 glm-4-9b-chat-int4 --against glm-4-9b-chat",
    "glm4q eval glm-4-9b-chat-int4 --text book.txt --json",
)


Checkpoints = Annotated[list[Path], typer.Argument(help="Checkpoint directories.")]
Text = Annotated[
    Path | None,
    option("A text file that no model was calibrated on.", default="a built-in text"),
]
Against = Annotated[
    Path | None,
    option("The model that they were made of: adds KL divergence and agreement.", default=False),
]
Window = Annotated[int, option("Tokens predicted from one start.", min=2)]


@stops_stay_stops()
def evaluate(
    checkpoints: Checkpoints,
    text: Text = None,
    against: Against = None,
    window: Window = WINDOW,
    device: compute.Device = "auto",
    dtype: compute.Dtype = "auto",
    kernel: compute.Kernel = "auto",
    activations: compute.Activations = "auto",
    as_json: output.Json = False,
) -> None:
    """Compare checkpoints on a text, layer by layer: none has to fit into memory whole."""
    where = choose_device(device)
    how = ComputeSettings(where, choose_dtype(dtype, where), candidates(kernel, activations))
    stored = [StoredModel.open(checkpoint) for checkpoint in checkpoints]
    measure = StoredModel.open(against) if against else None
    held_out = read_held_out(text, measure or stored[0], window)
    results = evaluate_models(stored, held_out.windows, how, against=measure)
    if as_json:
        typer.echo(json.dumps([_record(each) for each in results], indent=2))
    else:
        _print(results)


def _record(result: Evaluation) -> dict[str, Any]:
    return {**asdict(result), "directory": str(result.directory)}


def _print(results: list[Evaluation]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("checkpoint", overflow="fold")
    titles = ["memory", "of first", "perplexity", "over first"]
    if compared := any(result.divergence for result in results):
        titles += ["KL, nats", "same token"]
    for title in (*titles, "tokens"):
        table.add_column(title, justify="right", overflow="fold")
    first = results[0]
    for result in results:
        cells = [
            str(result.directory),
            human_bytes(result.weights_bytes),
            f"{result.weights_bytes / first.weights_bytes:.0%}",
            f"{result.perplexity:.3f}",
            f"{result.perplexity / first.perplexity - 1:+.2%}",
        ]
        if divergence := result.divergence:
            cells += [f"{divergence.kl_divergence:.4f}", f"{divergence.top_1_agreement:.1%}"]
        elif compared:
            cells += ["", ""]
        table.add_row(*cells, f"{result.tokens:,}")
    width = None if sys.stdout.isatty() else WIDTH
    Console(highlight=False, markup=False, width=width).print(table)
