"""`glm4q eval`: compare checkpoints by what they weigh and how well they predict a text."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from quantize.quality.evaluate import Evaluation

DEFAULT_WINDOW = 512
WIDTH = 160
"""Of the table in a file or a pipe, where nothing is cut off."""


def evaluate(
    checkpoints: Annotated[list[Path], typer.Argument(help="Checkpoint directories.")],
    text: Annotated[Path, typer.Option(help="A text file that no model was calibrated on.")],
    against: Annotated[
        Path | None,
        typer.Option(help="The model that they were made of: adds KL divergence and agreement."),
    ] = None,
    window: Annotated[
        int, typer.Option(help="Tokens predicted from one start.", min=2)
    ] = DEFAULT_WINDOW,
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    kernel: Annotated[str, typer.Option(help="auto, or a kernel by name.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Answer as JSON.")] = False,
) -> None:
    """Compare checkpoints on a text, layer by layer: none has to fit into memory whole."""
    from calculator.checkpoint.stored import StoredModel
    from glm4q.kernels.choose import candidates
    from glm4q.planning.devices import choose_device, choose_dtype
    from quantize.calibrate.texts import read_text
    from quantize.quality.evaluate import evaluate as evaluate_models
    from quantize.quality.predictor import ComputeSettings, read_windows

    where = choose_device(device)
    how = ComputeSettings(where, choose_dtype(dtype, where), candidates(kernel))
    stored = [StoredModel.open(checkpoint) for checkpoint in checkpoints]
    measure = StoredModel.open(against) if against else None
    windows = read_windows(read_text(text), (measure or stored[0]).directory, window)
    found = evaluate_models(stored, windows, how, against=measure)
    if as_json:
        import json

        typer.echo(json.dumps([_record(each) for each in found], indent=2))
    else:
        _print(found)


def _record(result: "Evaluation") -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(result), "directory": str(result.directory)}


def _print(results: "list[Evaluation]") -> None:
    from rich.console import Console
    from rich.table import Table

    from calculator.units import human_bytes

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("checkpoint")
    titles = ["memory", "of first", "perplexity", "over first"]
    if compared := any(result.divergence for result in results):
        titles += ["KL, nats", "same token"]
    for title in (*titles, "tokens"):
        table.add_column(title, justify="right")
    first = results[0]
    for result in results:
        cells = [
            str(result.directory),
            human_bytes(result.weights_bytes),
            f"{result.weights_bytes / first.weights_bytes:.0%}",
            f"{result.perplexity:.3f}",
            f"{result.perplexity / first.perplexity - 1:+.2%}",
        ]
        if found := result.divergence:
            cells += [f"{found.kl_divergence:.4f}", f"{found.top_1_agreement:.1%}"]
        elif compared:
            cells += ["", ""]
        table.add_row(*cells, f"{result.tokens:,}")
    Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH).print(table)
