"""`glm4q quantize`: safetensors in, an INT8 or INT4 checkpoint out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from calculator.errors import OptionError
from calculator.model.formats import BITSANDBYTES
from calculator.options import parse_size
from calculator.units import human_bytes
from glm4q.commands.options import shared as options
from glm4q.kernels.choose import candidates
from glm4q.planning.devices import choose_device, choose_dtype
from glm4q.weights.sources import open_source
from quantize.by_bitsandbytes import write_by_bitsandbytes
from quantize.calibrate.samples import read_calibration
from quantize.examine import read_held_out
from quantize.job import Job
from quantize.output.target import refuse_output
from quantize.progress import QuantizeProgress
from quantize.quality.predictor import ComputeSettings
from quantize.recipe import METHODS, Recipe, make_recipe, read_recipe

EXAMPLES = (
    "glm4q quantize THUDM/glm-4-9b-chat -o glm-4-9b-chat-int4 --weights int4 --lm-head int8",
    "glm4q quantize glm-4-9b-chat -o glm-4-9b-chat-int8 --weights int8 --max-memory 8",
)
BUILT_IN = "a built-in one"


def quantize(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A checkpoint directory or Hugging Face id.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The directory to make.")],
    overwrite: options.Overwrite = False,
    weights: Annotated[
        str | None,
        options.weights("the recipe's", ("int8", "int4", *BITSANDBYTES)),
    ] = None,
    group_size: Annotated[str | None, options.group_size()] = None,
    asymmetric: Annotated[
        bool,
        typer.Option(
            "--asymmetric",
            help="Store a zero point for each group.",
            rich_help_panel=options.VARIANT,
        ),
    ] = False,
    lm_head: Annotated[str | None, options.lm_head("bf16")] = None,
    method: Annotated[
        str | None,
        options.choice(
            "The method that chooses codes",
            METHODS,
            options.VARIANT,
            default="gptq for int4, rtn for int8",
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file that says formats and method, layer by layer.",
            show_default=False,
            rich_help_panel=options.VARIANT,
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Samples: a file of text or JSON lines, or a directory of such files.",
            show_default=BUILT_IN,
            rich_help_panel=options.CALIBRATION,
        ),
    ] = None,
    samples: Annotated[
        int,
        typer.Option(help="The most samples.", min=1, rich_help_panel=options.CALIBRATION),
    ] = 128,
    length: Annotated[
        int, typer.Option(help="Tokens of a sample.", min=8, rich_help_panel=options.CALIBRATION)
    ] = 512,
    seed: Annotated[
        int,
        typer.Option(
            help="The seed that chooses the samples.", min=0, rich_help_panel=options.CALIBRATION
        ),
    ] = 0,
    held_out: Annotated[
        Path | None,
        typer.Option(
            help="The text on which quality is measured.",
            show_default=BUILT_IN,
            rich_help_panel=options.CALIBRATION,
        ),
    ] = None,
    no_quality: Annotated[
        bool,
        typer.Option(
            "--no-quality",
            help="Do not measure quality at the end.",
            rich_help_panel=options.CALIBRATION,
        ),
    ] = False,
    max_memory: Annotated[
        str | None, options.size("The most memory that the run may take", default="what it needs")
    ] = None,
    offload_dir: Annotated[
        Path | None,
        typer.Option(
            help="A directory for hidden states between layers.",
            show_default="beside the output",
            rich_help_panel=options.MEMORY,
        ),
    ] = None,
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
) -> None:
    """Make an INT8 or INT4 checkpoint (GPTQ v1, for vLLM, SGLang and transformers as well).

    A run that was cut off continues where it was, if the same command is given again.
    """
    details = {"group_size": group_size, "lm_head": lm_head, "method": method}
    given = {name: word for name, word in details.items() if word is not None}
    if weights in BITSANDBYTES:
        if recipe or given or asymmetric:
            raise OptionError(f"weights {weights} has no other option: bitsandbytes fixes them")
        return _by_bitsandbytes(source, output, weights, overwrite)
    asked = _recipe(recipe, weights, asymmetric, given)
    limit = parse_size(max_memory, "max memory") if max_memory else None
    where = choose_device(device)
    stored = open_source(source)
    asked.formats(stored)  # raises where a shape does not fit, before any text is read
    refuse_output(output, overwrite, stored.directory)
    shown = None
    if asked.is_calibrated:
        shown = read_calibration(calibration, stored, samples=samples, length=length, seed=seed)
    job = Job(
        stored,
        output,
        asked,
        # For whole windows it is as fast as any kernel, and packs nothing anew.
        ComputeSettings(where, choose_dtype(dtype, where), candidates("reference")),
        shown,
        None if no_quality else read_held_out(held_out, stored),
        offload_dir,
        limit,
    )
    typer.echo(job.plan())
    with _interrupts_named(), QuantizeProgress() as progress:
        job.run(progress, overwrite=overwrite)
    typer.echo(job.summary())


@contextmanager
def _interrupts_named() -> Iterator[None]:
    """Say on stderr what an interrupted run leaves, and how to go on; the error's notes have it."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        notes = getattr(error, "__notes__", None) or ["nothing is finished, so nothing is kept"]
        typer.echo(f"glm4q: stopped; {'; '.join(notes)}", err=True)
        raise


def _recipe(
    file: Path | None, weights: str | None, asymmetric: bool, given: dict[str, str]
) -> Recipe:
    """Read the recipe file, or make a recipe of the options. Raises OptionError."""
    if file:
        if weights or given or asymmetric:
            raise OptionError("recipe says formats and method: leave out the options that also do")
        return read_recipe(file)
    if not weights:
        raise OptionError("weights or recipe must say what to make: int8, int4, nf4 or llm-int8")
    return make_recipe(weights=weights, asymmetric=asymmetric, **given)


def _by_bitsandbytes(source: str, output: Path, weights: str, overwrite: bool) -> None:
    stored = open_source(source)
    with _interrupts_named(), QuantizeProgress() as progress:
        write_by_bitsandbytes(stored, output, weights, overwrite=overwrite, listener=progress.begin)
    size = sum(file.stat().st_size for file in output.glob("*.safetensors"))
    users = "chat, and transformers with bitsandbytes"
    typer.echo(f"{output}: {human_bytes(size)} of weights, for {users}")
