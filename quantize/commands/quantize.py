"""`glm4q quantize`: safetensors in, an INT8 or INT4 checkpoint out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from quantize.recipe import Recipe


def quantize(
    source: Annotated[
        str, typer.Argument(metavar="SRC", help="A checkpoint directory or Hugging Face id.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The directory to make.")],
    weights: Annotated[
        str | None,
        typer.Option(help="int8 or int4; nf4 or llm-int8 by bitsandbytes."),
    ] = None,
    group_size: Annotated[
        str | None, typer.Option(help="Inputs that share a scale: 32, 64, 128 or channel; 128.")
    ] = None,
    asymmetric: Annotated[
        bool, typer.Option("--asymmetric", help="Store a zero point for each group.")
    ] = False,
    lm_head: Annotated[str | None, typer.Option(help="The output head: bf16 or int8.")] = None,
    method: Annotated[
        str | None,
        typer.Option(help="rtn, gptq, awq, or auto; for int4 gptq, for int8 rtn if not said."),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="A TOML file instead of the options above.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(help="Text, JSON lines or a directory of them; a built-in set if not said."),
    ] = None,
    samples: Annotated[int, typer.Option(help="Calibration samples at most.", min=1)] = 128,
    length: Annotated[int, typer.Option(help="Tokens of a sample.", min=8)] = 512,
    seed: Annotated[int, typer.Option(help="Which samples are taken.", min=0)] = 0,
    held_out: Annotated[
        Path | None, typer.Option(help="The text that quality is measured on; a built-in one.")
    ] = None,
    no_quality: Annotated[
        bool, typer.Option("--no-quality", help="Do not measure quality at the end.")
    ] = False,
    max_memory: Annotated[
        str | None, typer.Option(help="Memory not to go beyond: 8 (GiB) or 900M.")
    ] = None,
    offload_dir: Annotated[
        Path | None, typer.Option(help="Where hidden states lie; beside the output if not said.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cuda or cpu.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, bf16 or fp32.")] = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an output that is there already.")
    ] = False,
) -> None:
    """Make an INT8 or INT4 checkpoint (GPTQ v1, for vLLM, SGLang and transformers as well).

    A run that was cut off goes on where it was, if it is asked for the same once more.
    """
    from calculator.errors import OptionError
    from calculator.options import parse_size
    from calculator.questions.subject import BITSANDBYTES

    options = {"group_size": group_size, "lm_head": lm_head, "method": method}
    said = {name: word for name, word in options.items() if word is not None}
    if weights in BITSANDBYTES:
        if recipe or said or asymmetric:
            raise OptionError(f"weights {weights} has no other option: bitsandbytes fixes them")
        return _by_bitsandbytes(source, output, weights, overwrite)
    asked = _recipe(recipe, weights, asymmetric, said)
    limit = parse_size(max_memory, "max memory") if max_memory else None

    from glm4q.kernels.choose import candidates
    from glm4q.planning.devices import choose_device, choose_dtype
    from glm4q.weights.sources import open_source
    from quantize.calibrate.samples import read_calibration
    from quantize.examine import read_held_out
    from quantize.job import Job
    from quantize.progress import QuantizeProgress
    from quantize.quality.predictor import ComputeSettings

    where = choose_device(device)
    stored = open_source(source)
    asked.formats(stored)  # raises where a shape does not fit, before any text is read
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
        None if no_quality else read_held_out(held_out, stored.directory),
        offload_dir,
        limit,
    )
    typer.echo(job.plan())
    with QuantizeProgress() as progress:
        job.run(progress, overwrite=overwrite)
    typer.echo(job.summary())


def _recipe(
    file: Path | None, weights: str | None, asymmetric: bool, said: dict[str, str]
) -> "Recipe":
    """By a file or by options: one of them says what to make."""
    from calculator.errors import OptionError
    from quantize.recipe import make_recipe, read_recipe

    if file:
        if weights or said or asymmetric:
            raise OptionError("recipe says formats and method: leave out the options that also do")
        return read_recipe(file)
    if not weights:
        raise OptionError("weights or recipe must say what to make: int8, int4, nf4 or llm-int8")
    return make_recipe(weights=weights, asymmetric=asymmetric, **said)


def _by_bitsandbytes(source: str, output: Path, weights: str, overwrite: bool) -> None:
    from calculator.units import human_bytes
    from glm4q.weights.sources import open_source
    from quantize.by_bitsandbytes import write_by_bitsandbytes
    from quantize.progress import QuantizeProgress

    stored = open_source(source)
    with QuantizeProgress() as progress:
        write_by_bitsandbytes(stored, output, weights, overwrite=overwrite, listener=progress.begin)
    size = sum(file.stat().st_size for file in output.glob("*.safetensors"))
    users = "chat, and transformers with bitsandbytes"
    typer.echo(f"{output}: {human_bytes(size)} of weights, for {users}")
