"""`glm4q eval`: compare checkpoints by what they weigh and how well they predict a text."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from quantize.evaluate import Evaluation

DEFAULT_WINDOW = 512


def evaluate(
    checkpoints: Annotated[
        list[Path], typer.Argument(help="Checkpoint directories; the first is the measure.")
    ],
    text: Annotated[Path, typer.Option(help="A text file that no model was calibrated on.")],
    window: Annotated[
        int, typer.Option(help="Tokens predicted from one start.", min=2)
    ] = DEFAULT_WINDOW,
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    kernel: Annotated[str, typer.Option(help="auto, or a kernel by name.")] = "auto",
) -> None:
    """Compare checkpoints: bytes of weights, and perplexity on a text."""
    from calculator.errors import OptionError
    from glm4q.engine import LLM
    from quantize.evaluate import evaluate as evaluate_model

    try:
        content = text.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise OptionError(f"{text} is not UTF-8 text") from None
    results = []
    for checkpoint in checkpoints:
        llm = LLM.load(checkpoint, device=device, dtype=dtype, kernel=kernel, context=window)
        results.append(evaluate_model(llm, content, window))
    _print(results)


def _print(results: "list[Evaluation]") -> None:
    from rich.console import Console
    from rich.table import Table

    from calculator.report.units import human_bytes

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("checkpoint")
    for title in ("weights in memory", "of first", "perplexity", "over first", "tokens"):
        table.add_column(title, justify="right")
    first = results[0]
    for result in results:
        table.add_row(
            str(result.directory),
            human_bytes(result.weights_bytes),
            f"{result.weights_bytes / first.weights_bytes:.0%}",
            f"{result.perplexity:.3f}",
            f"{result.perplexity / first.perplexity - 1:+.2%}",
            f"{result.tokens:,}",
        )
    Console(highlight=False).print(table)
