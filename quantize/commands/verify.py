"""`glm4q verify`: is a checkpoint whole, and what it says it is?"""

from itertools import groupby

import typer

from calculator.checkpoint.stored import StoredModel
from calculator.units import counted
from glm4q.commands.process.signals import stops_stay_stops
from quantize.commands import options as option
from quantize.output.checksums import CHECKSUMS
from quantize.quality.checkpoint_check import (
    LARGEST_ERROR,
    WeightError,
    check_companions,
    check_files,
    check_settings,
    check_weights,
    weight_errors,
)

EXAMPLES = (
    "glm4q verify glm-4-9b-chat-int4",
    "glm4q verify glm-4-9b-chat-int4 --source glm-4-9b-chat",
)


@stops_stay_stops()
def verify(checkpoint: option.Checkpoint, source: option.SourceCheckpoint = None) -> int:
    """Read a checkpoint again: shapes, scales, zero points, checksums, tokenizer and template.

    Exit code: 0 if it is whole, 1 if it is damaged, 2 if the question is wrong.
    """
    stored = StoredModel.open(checkpoint)
    measure = StoredModel.open(source) if source else None
    problems: list[str] = []
    if (checkpoint / CHECKSUMS).is_file():
        problems += check_files(stored)
    else:
        typer.echo(f"{checkpoint} has no {CHECKSUMS}: its files are compared with nothing")
    problems += check_settings(stored)
    problems += check_companions(stored)
    problems += check_weights(stored)
    errors = list(weight_errors(stored, measure)) if measure and not problems else []
    problems += [
        f"{each.module} is not made of {source}: its error is {each.relative_error:.0%}"
        for each in errors
        if not each.relative_error <= LARGEST_ERROR
    ]
    _print_errors(errors)
    for problem in problems:
        typer.echo(problem, err=True)
    if problems:
        return 1
    count = len(stored.tensors)
    typer.echo(f"{checkpoint}: {counted(count, 'tensor')}: all whole, finite and where they belong")
    return 0


def _print_errors(errors: list[WeightError]) -> None:
    """Print a line for each kind of linear layer: the mean error, and the worst one."""

    def kind(error: "WeightError") -> str:
        return error.module.rpartition(".")[2]

    for name, of_kind in groupby(sorted(errors, key=kind), key=kind):
        layers = list(of_kind)
        mean = sum(each.relative_error for each in layers) / len(layers)
        worst = max(layers, key=lambda each: each.relative_error)
        typer.echo(
            f"{name:14} error {mean:.3%} on average, {worst.relative_error:.3%} in {worst.module}"
        )
